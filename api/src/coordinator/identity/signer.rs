//! Tokens that we sign ourselves (RFC 7519), by ES256: for a peer that has our public key and needs no issuer between us.

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use rustls::pki_types::{PrivatePkcs8KeyDer, pem::PemObject as _};
use serde_json::json;
use tieline_openapi::config::TokenSigner;

use super::seconds;
use crate::{
    coordinator::{CoordinationError, read},
    engine::clock::{Clock, Random},
};

/// How long a token is good for, in seconds: one call, and clocks that differ.
const LIFE: i64 = 120;

/// Why a token could not be signed.
#[derive(Debug, thiserror::Error)]
#[error("the key of {path} signs nothing: it is a private key on P-256 in PKCS #8")]
pub struct SignError {
    path: String,
    #[source]
    source: jsonwebtoken::errors::Error,
}

/// Signs tokens.
pub(in crate::coordinator) struct Signer {
    config: TokenSigner,
    key: EncodingKey,
}

impl Signer {
    /// Reads the key, and signs once to see that it can.
    pub(in crate::coordinator) fn new(config: &TokenSigner) -> Result<Self, CoordinationError> {
        let path = &config.key_file;
        let broken = |error: rustls::pki_types::pem::Error| CoordinationError::Pem {
            path: path.clone(),
            what: "private key in PKCS #8",
            source: Some(Box::new(error)),
        };
        let der = PrivatePkcs8KeyDer::from_pem_slice(&read(path)?).map_err(broken)?;
        let key = EncodingKey::from_ec_der(der.secret_pkcs8_der());
        let signer = Self { config: config.clone(), key };
        signer.signed(&json!({})).map_err(|error| CoordinationError::Pem {
            path: path.clone(),
            what: "private key on P-256",
            source: Some(Box::new(error)),
        })?;
        Ok(signer)
    }

    /// A token of its own for one call. `subject` stands in place of the configured one.
    pub(in crate::coordinator) fn token(
        &self,
        subject: Option<&str>,
        clock: &dyn Clock,
        random: &dyn Random,
    ) -> Result<String, SignError> {
        let TokenSigner { issuer, audience, .. } = &self.config;
        let subject = subject.or(self.config.subject.as_deref()).unwrap_or(issuer);
        let now = seconds(clock);
        let id = random.uuid_v7(clock.now());
        self.signed(&json!({
            "iss": issuer, "sub": subject, "aud": audience, "iat": now, "exp": now.saturating_add(LIFE), "jti": id,
        }))
    }

    fn signed(&self, claims: &serde_json::Value) -> Result<String, SignError> {
        let mut header = Header::new(Algorithm::ES256);
        header.kid = Some(self.config.key_id.clone());
        let signed = jsonwebtoken::encode(&header, claims, &self.key);
        signed.map_err(|source| SignError { path: self.config.key_file.clone(), source })
    }
}
