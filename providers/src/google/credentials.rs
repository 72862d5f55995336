//! From `credentialRef` to the SDK's credentials.

use google_cloud_auth::credentials::{
    Builder, CacheableResource, Credentials, CredentialsProvider, EntityTag, anonymous, service_account,
};
use google_cloud_gax::error::CredentialsError;
use http::{
    Extensions,
    header::{AUTHORIZATION, HeaderMap, HeaderValue},
};
use secrecy::{ExposeSecret, SecretString};
use std::path::PathBuf;
use tieline_openapi::config::AccountConfig;

use super::PROVIDER;
use crate::credential::{ConnectError, CredentialRef};

const EXPECTED: &str = "a service account's JSON key or a bearer access token";
const SCOPE: &str = "https://www.googleapis.com/auth/compute";

/// The credentials of an account.
pub(super) fn of(account: &AccountConfig) -> Result<Credentials, ConnectError> {
    let reference = CredentialRef::of(account)?;
    let refused = |source: Box<dyn std::error::Error + Send + Sync>| ConnectError::Client {
        account: account.id.to_string(),
        provider: PROVIDER,
        source,
    };
    let malformed = || ConnectError::Malformed {
        account: account.id.to_string(),
        reference: account.credential_ref.clone(),
        expected: EXPECTED,
    };
    let text = match reference.read(account, EXPECTED)? {
        Some(text) => text,
        None if reference == CredentialRef::Anonymous => return Ok(anonymous::Builder::new().build()),
        None => return Builder::default().with_scopes([SCOPE]).build().map_err(|e| refused(e.into())),
    };
    if text.expose_secret().starts_with('{') {
        let key: serde_json::Value = serde_json::from_str(text.expose_secret()).map_err(|_| malformed())?;
        if key["type"] != "service_account" {
            return Err(malformed());
        }
        let scopes = service_account::AccessSpecifier::from_scopes([SCOPE]);
        let built = service_account::Builder::new(key).with_access_specifier(scopes).build();
        return built.map_err(|e| refused(e.into()));
    }
    bearer(&text).ok_or_else(malformed)?;
    let token = match reference {
        CredentialRef::File(path) => Token::File(path),
        CredentialRef::Env(_) | CredentialRef::Default | CredentialRef::Anonymous => Token::Fixed(text),
    };
    Ok(Credentials::from(token))
}

/// A bearer access token: from the environment for the life of the process, from a file as it stands there now.
#[derive(Debug)]
enum Token {
    Fixed(SecretString),
    File(PathBuf),
}

impl CredentialsProvider for Token {
    async fn headers(&self, _extensions: Extensions) -> Result<CacheableResource<HeaderMap>, CredentialsError> {
        let header = match self {
            Self::Fixed(text) => bearer(text),
            Self::File(path) => {
                let text = tokio::fs::read_to_string(path).await;
                bearer(&SecretString::from(text.map_err(|e| CredentialsError::from_source(false, e))?.trim()))
            }
        };
        let value = header.ok_or_else(|| CredentialsError::from_msg(false, "the token is no header value"))?;
        let data = HeaderMap::from_iter([(AUTHORIZATION, value)]);
        Ok(CacheableResource::New { entity_tag: EntityTag::new(), data })
    }

    async fn universe_domain(&self) -> Option<String> {
        None
    }
}

/// The header of a token: one word of visible ASCII (RFC 6750 section 2.1).
fn bearer(token: &SecretString) -> Option<HeaderValue> {
    let token = token.expose_secret();
    if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return None;
    }
    let mut value = HeaderValue::from_str(&format!("Bearer {token}")).ok()?;
    value.set_sensitive(true);
    Some(value)
}
