//! Tokens that others show: JSON Web Tokens (RFC 7519), signed by an issuer that stands in `tieline.toml`. What is taken
//! follows the best current practices of RFC 8725: algorithms come from the configuration and are asymmetric (3.1, 3.2),
//! issuer, audience and subject are checked (3.8, 3.9), and nothing in the header says where the key is (3.10).

use std::fmt;

use jsonwebtoken::{Algorithm, Validation};
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};
use tieline_openapi::config::{TokenAlgorithm, TokenRules};

use super::{
    keys::{Keys, KeysError},
    seconds,
};
use crate::{coordinator::CoordinationError, engine::clock::Clock};

/// A longer one is not looked at.
const LONGEST: usize = 8 * 1024;
/// How far ahead a token may end, in seconds: what is taken once is remembered until then.
const LONGEST_LIFE: i64 = 24 * 3_600;

/// Why a token is not taken. The texts hold nothing of the token.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// It cannot be read, or its header asks for what is not done here.
    #[error("this is no JSON Web Token that is taken here")]
    Form,
    /// Signed by what the configuration does not list; `none` and secrets never are.
    #[error("the token is signed by an algorithm that is not taken here")]
    Algorithm,
    /// Its issuer has no such key.
    #[error("the token names a key that its issuer does not have")]
    Key,
    /// The signature is another one's.
    #[error("the token's signature is not its issuer's")]
    Signature,
    /// A claim is missing or is not what it should be.
    #[error("the token's `{0}` is missing, or not what it should be here")]
    Claim(String),
    /// `exp` has passed.
    #[error("the token has ended")]
    Ended,
    /// `nbf` or `iat` is to come.
    #[error("the token is not valid yet: compare the clocks")]
    Early,
    /// `exp` is too far away.
    #[error("the token ends more than 24 hours from now")]
    Long,
    /// It was taken before.
    #[error("the token was used before, and each is taken once")]
    Replayed,
    /// The issuer's keys cannot be had.
    #[error(transparent)]
    Keys(KeysError),
}

/// A token that was taken: its claims.
pub(in crate::coordinator) struct Shown {
    claims: Map<String, Value>,
    exp: i64,
}

impl fmt::Debug for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shown").field("exp", &self.exp).finish_non_exhaustive()
    }
}

impl Shown {
    /// A claim that is a text and not an empty one.
    pub(in crate::coordinator) fn text(&self, claim: &str) -> Option<&str> {
        self.claims.get(claim).and_then(Value::as_str).filter(|text| !text.is_empty())
    }

    /// From when on it is refused for its age, so that nobody need remember it.
    pub(in crate::coordinator) fn forgotten_at(&self, tokens: &Tokens) -> jiff::Timestamp {
        let at = self.exp.saturating_add(i64::from(tokens.rules.leeway_seconds)).saturating_add(1);
        jiff::Timestamp::from_second(at).unwrap_or(jiff::Timestamp::MAX)
    }
}

/// Tokens of one issuer.
pub(in crate::coordinator) struct Tokens {
    rules: TokenRules,
    keys: Keys,
}

impl Tokens {
    pub(in crate::coordinator) fn new(rules: &TokenRules) -> Result<Self, CoordinationError> {
        Ok(Self { rules: rules.clone(), keys: Keys::new(&rules.keys)? })
    }

    /// Whether a token says that it is of this issuer. Nothing is checked: it tells whose keys to ask for.
    pub(super) fn may_be_of(&self, token: &str) -> bool {
        let read =
            jsonwebtoken::dangerous::insecure_decode::<Map<String, Value>>(token.get(..LONGEST).unwrap_or(token));
        read.is_ok_and(|read| read.claims.get("iss").and_then(Value::as_str) == Some(&self.rules.issuer))
    }

    /// Takes a token.
    pub(in crate::coordinator) async fn check(&self, token: &str, clock: &dyn Clock) -> Result<Shown, TokenError> {
        if token.len() > LONGEST {
            return Err(TokenError::Form);
        }
        let algorithm = self.algorithm(token)?;
        let header = jsonwebtoken::decode_header(token).map_err(|_| TokenError::Form)?;
        // What is critical is an extension, and none is known here (RFC 7515 section 4.1.11).
        let typed = header.typ.as_deref().is_none_or(|typ| {
            let typ = typ.trim_start_matches("application/");
            typ.eq_ignore_ascii_case("jwt") || typ.eq_ignore_ascii_case("at+jwt")
        });
        if header.crit.is_some() || header.alg != algorithm || !typed {
            return Err(TokenError::Form);
        }
        let keys = self.keys.find(header.kid.as_deref(), algorithm, clock).await.map_err(TokenError::Keys)?;
        if keys.is_empty() {
            return Err(TokenError::Key);
        }
        let validation = signature_only(algorithm);
        let read = keys.iter().find_map(|key| jsonwebtoken::decode::<Map<String, Value>>(token, key, &validation).ok());
        self.claims(read.ok_or(TokenError::Signature)?.claims, seconds(clock))
    }

    /// The algorithm, if it is one of ours. It is read as text first: `none` is no algorithm of the library's.
    fn algorithm(&self, token: &str) -> Result<Algorithm, TokenError> {
        let header = token.split('.').next().unwrap_or_default();
        let header = data_encoding::BASE64URL_NOPAD.decode(header.as_bytes()).map_err(|_| TokenError::Form)?;
        let header: Map<String, Value> = serde_json::from_slice(&header).map_err(|_| TokenError::Form)?;
        let named = header.get("alg").and_then(Value::as_str).ok_or(TokenError::Form)?;
        let mut taken = self.rules.algorithms.iter().copied().map(of_library);
        taken.find(|algorithm| format!("{algorithm:?}") == named).ok_or(TokenError::Algorithm)
    }

    fn claims(&self, claims: Map<String, Value>, now: i64) -> Result<Shown, TokenError> {
        let wrong = |name: &str| TokenError::Claim(name.to_owned());
        let text = |name: &str| claims.get(name).and_then(Value::as_str);
        if text("iss") != Some(&self.rules.issuer) {
            return Err(wrong("iss"));
        }
        let audience = match claims.get("aud") {
            Some(Value::String(one)) => *one == self.rules.audience,
            Some(Value::Array(all)) => all.iter().any(|one| one.as_str() == Some(&self.rules.audience)),
            None | Some(Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_)) => false,
        };
        if !audience {
            return Err(wrong("aud"));
        }
        for (name, value) in &self.rules.claims {
            if text(name) != Some(value) {
                return Err(wrong(name));
            }
        }
        let leeway = i64::from(self.rules.leeway_seconds);
        let exp = claims.get("exp").and_then(date).ok_or_else(|| wrong("exp"))?;
        if now >= exp.saturating_add(leeway) {
            return Err(TokenError::Ended);
        }
        if exp > now.saturating_add(LONGEST_LIFE) {
            return Err(TokenError::Long);
        }
        for name in ["nbf", "iat"] {
            let Some(value) = claims.get(name) else { continue };
            if date(value).ok_or_else(|| wrong(name))? > now.saturating_add(leeway) {
                return Err(TokenError::Early);
            }
        }
        Ok(Shown { claims, exp })
    }

    /// What to remember a token by, where each is taken once.
    pub(super) fn once(&self, shown: &Shown) -> Result<Option<[u8; 32]>, TokenError> {
        if self.rules.once { self.id(shown).map(Some) } else { Ok(None) }
    }

    /// What to remember a token by: its issuer and its `jti` (RFC 7519 section 4.1.7).
    pub(in crate::coordinator) fn id(&self, shown: &Shown) -> Result<[u8; 32], TokenError> {
        let jti = shown.text("jti").ok_or_else(|| TokenError::Claim("jti".to_owned()))?;
        let issuer = Sha256::digest(&self.rules.issuer);
        Ok(Sha256::new().chain_update(b"jti\0").chain_update(issuer).chain_update(jti).finalize().into())
    }
}

/// A date is seconds since 1970, with a fraction or without (RFC 7519 section 2).
fn date(value: &Value) -> Option<i64> {
    value.as_i64().or_else(|| {
        let seconds = value.as_f64()?;
        // Up to here a double holds every whole number.
        (seconds.is_finite() && seconds.abs() < 9.0e15).then_some(seconds.floor() as i64)
    })
}

/// The library checks the signature; dates are by the clock that is passed in, and the rest is compared here.
fn signature_only(algorithm: Algorithm) -> Validation {
    let mut validation = Validation::new(algorithm);
    validation.required_spec_claims.clear();
    validation.validate_exp = false;
    validation.validate_nbf = false;
    validation.validate_aud = false;
    validation
}

const fn of_library(algorithm: TokenAlgorithm) -> Algorithm {
    match algorithm {
        TokenAlgorithm::ES256 => Algorithm::ES256,
        TokenAlgorithm::ES384 => Algorithm::ES384,
        TokenAlgorithm::RS256 => Algorithm::RS256,
        TokenAlgorithm::RS384 => Algorithm::RS384,
        TokenAlgorithm::RS512 => Algorithm::RS512,
        TokenAlgorithm::PS256 => Algorithm::PS256,
        TokenAlgorithm::PS384 => Algorithm::PS384,
        TokenAlgorithm::PS512 => Algorithm::PS512,
        TokenAlgorithm::EdDSA => Algorithm::EdDSA,
    }
}
