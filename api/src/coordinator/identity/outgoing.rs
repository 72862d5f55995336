//! What our calls to a peer carry beside our certificate: a bearer token, or a signature of AWS.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use aws_sigv4::{
    http_request::{SignableBody, SignableRequest, SigningError, SigningInstructions, SigningSettings, sign},
    sign::v4::{self, signing_params::BuildError},
};
use futures::future::BoxFuture;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue, InvalidHeaderValue};
use secrecy::{ExposeSecret as _, SecretString};
use tieline_openapi::{
    client::coordinator::{Authorize, AuthorizeError, ByConnection, Outgoing},
    config::{ClientCredentialsConfig, PeerConfig, PeerCredential, SigV4Config, TokenSource},
};

use super::{
    credential::{AwsCredential, CredentialError, secret},
    http::{self, EndpointError},
    signer::{SignError, Signer},
};
use crate::{
    coordinator::CoordinationError,
    engine::clock::{Clock, Random},
};

/// The answer of a token endpoint is a token and some words.
const LONGEST: usize = 64 * 1024;
/// A token is not used in its last seconds: it shall not end on its way.
const MARGIN: Duration = Duration::from_secs(30);
/// How long a token is kept whose endpoint does not say when it ends (RFC 6749 section 5.1 leaves it open).
const UNSAID: Duration = Duration::from_secs(60);

#[derive(Debug, thiserror::Error)]
enum OutgoingError {
    #[error(transparent)]
    Credential(#[from] CredentialError),
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
    #[error(transparent)]
    Sign(#[from] SignError),
    #[error("the request cannot be signed")]
    Aws(#[from] SigningError),
    #[error("the request cannot be signed")]
    AwsParameters(#[from] BuildError),
    #[error("the credential holds what no header can hold")]
    Header(#[from] InvalidHeaderValue),
}

impl From<OutgoingError> for AuthorizeError {
    fn from(error: OutgoingError) -> Self {
        Self(Box::new(error))
    }
}

/// What calls to a peer carry.
pub(in crate::coordinator) fn authorizer(
    peer: &PeerConfig,
    clock: &Arc<dyn Clock>,
    random: &Arc<dyn Random>,
) -> Result<Arc<dyn Authorize>, CoordinationError> {
    let clock = Arc::clone(clock);
    Ok(match &peer.credential {
        None => Arc::new(ByConnection),
        Some(PeerCredential::SigV4(config)) => Arc::new(SigV4 { config: config.clone(), clock }),
        Some(PeerCredential::Bearer(source)) => {
            let source = match source {
                TokenSource::File(path) => Source::File(path.clone()),
                TokenSource::ClientCredentials(config) => {
                    let (host, loopback) = http::host(&config.endpoint);
                    let http = http::client(config.ca_file.as_deref(), loopback)?;
                    Source::Endpoint(Box::new(Endpoint { config: config.clone(), host, http, kept: Mutex::new(None) }))
                }
                TokenSource::Signed(signer) => Source::Signed(Signer::new(signer)?),
            };
            Arc::new(Bearer { source, clock, random: Arc::clone(random) })
        }
    })
}

enum Source {
    File(String),
    Endpoint(Box<Endpoint>),
    Signed(Signer),
}

struct Bearer {
    source: Source,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
}

struct Endpoint {
    config: ClientCredentialsConfig,
    host: String,
    http: reqwest::Client,
    /// A token, and until when it is used, by the clock that never steps.
    kept: Mutex<Option<(SecretString, Duration)>>,
}

#[derive(serde::Deserialize)]
struct Granted {
    access_token: SecretString,
    token_type: String,
    expires_in: Option<u64>,
}

impl Endpoint {
    fn form(&self) -> String {
        let mut form = form_urlencoded::Serializer::new(String::new());
        form.append_pair("grant_type", "client_credentials");
        for (name, value) in [("scope", &self.config.scope), ("audience", &self.config.audience)] {
            if let Some(value) = value {
                form.append_pair(name, value);
            }
        }
        form.finish()
    }

    async fn token(&self, clock: &dyn Clock) -> Result<SecretString, OutgoingError> {
        let kept = || self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let now = clock.monotonic();
        if let Some((token, until)) = &*kept()
            && now < *until
        {
            return Ok(token.clone());
        }
        let key = secret(&self.config.secret_ref, "the client's secret").await?;
        // Both are encoded before they are joined (RFC 6749 section 2.3.1).
        let encoded = |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
        let request = self
            .http
            .post(&self.config.endpoint)
            .basic_auth(encoded(&self.config.client_id), Some(encoded(key.expose_secret())))
            .header("Accept", "application/json")
            .header("Content-Type", "application/x-www-form-urlencoded")
            .body(self.form());
        let answer = http::fetch(request, &self.host, LONGEST).await?;
        let wrong = |problem| EndpointError::Answer { host: self.host.clone(), problem };
        // What the answer holds stands in no message: it may be a token.
        let granted: Granted = serde_json::from_slice(&answer).map_err(|_| wrong("it grants no token"))?;
        if !granted.token_type.eq_ignore_ascii_case("bearer") {
            return Err(wrong("it grants a token of another kind than Bearer").into());
        }
        let life = granted.expires_in.map_or(UNSAID, Duration::from_secs).saturating_sub(MARGIN);
        *kept() = Some((granted.access_token.clone(), now.saturating_add(life)));
        Ok(granted.access_token)
    }
}

fn sensitive(text: &str) -> Result<HeaderValue, InvalidHeaderValue> {
    let mut value = HeaderValue::from_str(text)?;
    value.set_sensitive(true);
    Ok(value)
}

impl Bearer {
    async fn headers(&self) -> Result<HeaderMap, OutgoingError> {
        let token = match &self.source {
            Source::File(path) => secret(&format!("file:{path}"), "a token").await?,
            Source::Endpoint(endpoint) => endpoint.token(&*self.clock).await?,
            Source::Signed(signer) => signer.token(None, &*self.clock, &*self.random)?.into(),
        };
        let value = sensitive(&format!("Bearer {}", token.expose_secret()))?;
        Ok(HeaderMap::from_iter([(AUTHORIZATION, value)]))
    }
}

impl fmt::Debug for Bearer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Bearer(..)")
    }
}

impl Authorize for Bearer {
    fn authorize<'a>(&'a self, _: &'a Outgoing<'a>) -> BoxFuture<'a, Result<HeaderMap, AuthorizeError>> {
        Box::pin(async move { Ok(self.headers().await?) })
    }
}

struct SigV4 {
    config: SigV4Config,
    clock: Arc<dyn Clock>,
}

/// Signs. The signer writes into the log, at its lowest level, all of what it signs: a body with an activation key, a proof.
pub(in crate::coordinator) fn signed<'r>(
    request: SignableRequest<'r>,
    params: &'r aws_sigv4::http_request::SigningParams<'r>,
) -> Result<SigningInstructions, SigningError> {
    let quiet = tracing::subscriber::NoSubscriber::default();
    Ok(tracing::subscriber::with_default(quiet, || sign(request, params))?.into_parts().0)
}

/// The clock's time, for AWS's signer.
pub(in crate::coordinator) fn signing_time(clock: &dyn Clock) -> SystemTime {
    SystemTime::from(clock.now())
}

impl SigV4 {
    async fn headers(&self, request: &Outgoing<'_>) -> Result<HeaderMap, OutgoingError> {
        let credential = AwsCredential::read(&self.config.credential_ref).await?;
        let identity = credential.get().clone().into();
        let params = v4::SigningParams::builder()
            .identity(&identity)
            .region(&self.config.region)
            .name(&self.config.service)
            .time(signing_time(&*self.clock))
            .settings(SigningSettings::default())
            .build()?
            .into();
        let headers = request.headers.iter().filter_map(|(name, value)| Some((name.as_str(), value.to_str().ok()?)));
        let body = SignableBody::Bytes(request.body);
        let signable = SignableRequest::new(request.method, request.url.as_str(), headers, body)?;
        let (headers, _) = signed(signable, &params)?.into_parts();
        let all = headers.into_iter();
        all.map(|header| Ok((HeaderName::from_static(header.name()), sensitive(header.value())?))).collect()
    }
}

impl Authorize for SigV4 {
    fn authorize<'a>(&'a self, request: &'a Outgoing<'a>) -> BoxFuture<'a, Result<HeaderMap, AuthorizeError>> {
        Box::pin(async move { Ok(self.headers(request).await?) })
    }
}
