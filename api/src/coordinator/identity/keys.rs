//! The public keys of an issuer: a JSON Web Key Set (RFC 7517) from a file or from the issuer, kept for a while, and read
//! again where a token names a key that is not in it.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use jsonwebtoken::{
    Algorithm, DecodingKey,
    jwk::{Jwk, JwkSet, PublicKeyUse},
};
use tieline_openapi::config::TokenKeys;

use super::{
    credential::bounded_file,
    http::{self, EndpointError},
};
use crate::{coordinator::CoordinationError, engine::clock::Clock};

/// A set is some keys of some hundred bytes.
const LONGEST: usize = 64 * 1024;
/// Keys of one set: an issuer has the one it signs with, and those before and after it.
const MOST: usize = 64;
/// How long a set is taken without looking.
const FRESH: Duration = Duration::from_secs(600);
/// How long a set is taken where the issuer does not answer.
const STALE: Duration = Duration::from_secs(24 * 3_600);
/// How soon it is looked again: tokens with made-up keys shall not make us ask the issuer all the time.
const AGAIN: Duration = Duration::from_secs(10);

/// Why an issuer's keys cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// The file cannot be read.
    #[error("cannot read {path}")]
    File {
        /// The file.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The issuer gave none.
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
    /// It is no key set.
    #[error("{place} holds no JSON Web Key Set of at most {MOST} keys")]
    Set {
        /// Where it was.
        place: String,
        /// Why not.
        #[source]
        source: Option<serde_json::Error>,
    },
    /// The last attempt failed just now.
    #[error("{place} could not be read a moment ago")]
    Again {
        /// Where.
        place: String,
    },
}

#[derive(Default)]
struct Kept {
    set: Option<Arc<JwkSet>>,
    /// When it was read, by the clock that never steps.
    read_at: Duration,
    tried_at: Option<Duration>,
}

enum Place {
    File(String),
    Url { url: String, host: String, http: reqwest::Client },
}

/// An issuer's keys.
pub(super) struct Keys {
    place: Place,
    kept: Mutex<Kept>,
    /// One reads at a time.
    reading: tokio::sync::Mutex<()>,
}

impl Keys {
    /// Nothing is read yet.
    pub(super) fn new(keys: &TokenKeys) -> Result<Self, CoordinationError> {
        let place = match keys {
            TokenKeys::File(path) => Place::File(path.clone()),
            TokenKeys::Url(address) => {
                let (host, loopback) = http::host(&address.url);
                let http = http::client(address.ca_file.as_deref(), loopback)?;
                Place::Url { url: address.url.clone(), host, http }
            }
        };
        Ok(Self { place, kept: Mutex::default(), reading: tokio::sync::Mutex::new(()) })
    }

    /// The keys that a token may be signed with: the one that it names, or all where it names none.
    pub(super) async fn find(
        &self,
        kid: Option<&str>,
        algorithm: Algorithm,
        clock: &dyn Clock,
    ) -> Result<Vec<DecodingKey>, KeysError> {
        let found = self.among(kid, algorithm, clock, FRESH);
        if !found.is_empty() {
            return Ok(found);
        }
        let read = self.read(kid, algorithm, clock).await;
        let found = self.among(kid, algorithm, clock, STALE);
        match read {
            Err(error) if found.is_empty() => Err(error),
            // Whatever became of it, there is a key.
            Ok(()) | Err(_) => Ok(found),
        }
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn among(&self, kid: Option<&str>, algorithm: Algorithm, clock: &dyn Clock, age: Duration) -> Vec<DecodingKey> {
        let kept = self.kept();
        let recent = clock.monotonic().saturating_sub(kept.read_at) <= age;
        let keys = kept.set.iter().filter(|_| recent).flat_map(|set| &set.keys);
        keys.filter(|key| kid.is_none_or(|kid| key.common.key_id.as_deref() == Some(kid)))
            .filter_map(|key| usable(key, algorithm))
            .collect()
    }

    async fn read(&self, kid: Option<&str>, algorithm: Algorithm, clock: &dyn Clock) -> Result<(), KeysError> {
        let _turn = self.reading.lock().await;
        // Somebody may have read it meanwhile.
        if !self.among(kid, algorithm, clock, FRESH).is_empty() {
            return Ok(());
        }
        let now = clock.monotonic();
        {
            let mut kept = self.kept();
            if kept.tried_at.is_some_and(|at| now.saturating_sub(at) < AGAIN) {
                // Just read, and the key is not there; or not read, and nobody can tell.
                let known = kept.set.is_some() && kept.tried_at == Some(kept.read_at);
                return if known { Ok(()) } else { Err(KeysError::Again { place: self.name().to_owned() }) };
            }
            kept.tried_at = Some(now);
        }
        let set = self.load().await?;
        let mut kept = self.kept();
        kept.set = Some(Arc::new(set));
        kept.read_at = now;
        Ok(())
    }

    fn name(&self) -> &str {
        match &self.place {
            Place::File(path) => path,
            Place::Url { host, .. } => host,
        }
    }

    async fn load(&self) -> Result<JwkSet, KeysError> {
        let bytes = match &self.place {
            Place::File(path) => {
                let read = bounded_file(path, LONGEST).await;
                read.map_err(|source| KeysError::File { path: path.clone(), source })?
            }
            Place::Url { url, host, http } => http::fetch(http.get(url), host, LONGEST).await?,
        };
        let wrong = |source| KeysError::Set { place: self.name().to_owned(), source };
        let document: serde_json::Value = serde_json::from_slice(&bytes).map_err(|error| wrong(Some(error)))?;
        let members = document.get("keys").and_then(serde_json::Value::as_array).ok_or_else(|| wrong(None))?;
        if members.len() > MOST {
            return Err(wrong(None));
        }
        // A key of a kind that is not known here is left out (RFC 7517 section 5).
        let keys = members.iter().filter_map(|member| serde_json::from_value(member.clone()).ok());
        Ok(JwkSet { keys: keys.collect() })
    }
}

/// The key, if it is for signatures of this algorithm. What is secret or for encryption is not.
fn usable(key: &Jwk, algorithm: Algorithm) -> Option<DecodingKey> {
    if key.common.public_key_use.as_ref().is_some_and(|wanted| *wanted != PublicKeyUse::Signature) {
        return None;
    }
    let named = key.common.key_algorithm.is_none_or(|named| named.to_string() == format!("{algorithm:?}"));
    let made = DecodingKey::from_jwk(key).ok()?;
    (named && made.family() == algorithm.family()).then_some(made)
}
