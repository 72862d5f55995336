//! A presigned GetCallerIdentity, read strictly. Whoever executes what a stranger sends is a confused deputy of another kind:
//! so the text is taken apart, each part is one of those that the request has, in the form that it has, and the request that
//! is sent is built anew from the parts. Nothing of the text reaches the network as it came.
//!
//! Form: AWS, "Authenticating Requests: Using Query Parameters (AWS Signature Version 4)"; the action: AWS Security Token
//! Service API reference, GetCallerIdentity.

use std::{collections::BTreeMap, fmt};

use jiff::{Timestamp, civil::DateTime, tz::TimeZone};
use secrecy::{ExposeSecret as _, SecretString};
use sha2::{Digest as _, Sha256};

/// The header that binds a request to its purpose.
pub(super) const PURPOSE_HEADER: &str = "x-interconnect-purpose";
/// What the request signs, in AWS's form: the host, and what the request is for.
const SIGNED_HEADERS: &str = "host;x-interconnect-purpose";
/// A session token has one or two thousand characters.
const LONGEST: usize = 6_000;
/// How far the signer's clock may be ahead of ours, in seconds.
const LEEWAY: i64 = 60;
/// The longest that a request may be good for, by its own word, in seconds.
const LONGEST_LIFE: u32 = 900;

/// Why a presigned request is not executed. The texts hold nothing of it but names of parameters that are known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PresignedError {
    /// It is no address of the form that is taken.
    #[error("the proof is no presigned address `https://HOST/?...` of at most {LONGEST} characters")]
    Address,
    /// Its host is not in the configuration.
    #[error("the proof is for a host that is not asked here: use one of the hosts that the providers agreed upon")]
    Host,
    /// A parameter is missing, there twice, or has a value that is not taken.
    #[error("the proof's `{0}` is missing, there twice, or not what it should be")]
    Parameter(&'static str),
    /// It has a parameter that such a request has not.
    #[error("the proof has a parameter that GetCallerIdentity does not have")]
    Unknown,
    /// It is dated in the future.
    #[error("the proof is dated in the future: compare the clocks")]
    Early,
    /// It is too old.
    #[error("the proof has ended: make a new one for every call")]
    Ended,
    /// The nonce is none.
    #[error("the proof's nonce is 8 to 64 letters, digits, `-` and `_`")]
    Nonce,
}

/// What a presigned request and its nonce are: `x-interconnect-purpose` as it is signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Purpose(pub(super) String);

/// Name of a parameter, and whether every request has it.
const PARAMETERS: [(&str, bool); 9] = [
    ("Action", true),
    ("Version", true),
    ("X-Amz-Algorithm", true),
    ("X-Amz-Credential", true),
    ("X-Amz-Date", true),
    ("X-Amz-Expires", true),
    ("X-Amz-Security-Token", false),
    ("X-Amz-Signature", true),
    ("X-Amz-SignedHeaders", true),
];

/// A presigned request that may be executed.
#[derive(Clone)]
pub(super) struct Presigned {
    host: String,
    credential: String,
    date: String,
    expires: u32,
    session: Option<SecretString>,
    signature: SecretString,
    dated: Timestamp,
}

impl fmt::Debug for Presigned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Presigned").field("host", &self.host).field("date", &self.date).finish_non_exhaustive()
    }
}

/// A nonce, if it is one.
pub(super) fn nonce(text: &str) -> Result<&str, PresignedError> {
    let good = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    if (8..=64).contains(&text.len()) && text.bytes().all(good) { Ok(text) } else { Err(PresignedError::Nonce) }
}

impl Presigned {
    /// Reads an address, if its host is one of `hosts`.
    pub(super) fn parse(text: &str, hosts: &[String]) -> Result<Self, PresignedError> {
        if text.len() > LONGEST || !text.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(PresignedError::Address);
        }
        let rest = text.strip_prefix("https://").ok_or(PresignedError::Address)?;
        // No user, no other path, no fragment: whatever is before the first `/?` is the host and its port, to the letter.
        let (host, query) = rest.split_once("/?").ok_or(PresignedError::Address)?;
        if query.contains('#') || host.contains(['/', '?', '#', '@', '\\']) {
            return Err(PresignedError::Address);
        }
        if !hosts.iter().any(|allowed| allowed == host) {
            return Err(PresignedError::Host);
        }
        let values = parameters(query)?;
        let get = |name: &'static str| values.get(name).map(String::as_str).ok_or(PresignedError::Parameter(name));
        for (name, value) in [
            ("Action", "GetCallerIdentity"),
            ("Version", "2011-06-15"),
            ("X-Amz-Algorithm", "AWS4-HMAC-SHA256"),
            ("X-Amz-SignedHeaders", SIGNED_HEADERS),
        ] {
            if get(name)? != value {
                return Err(PresignedError::Parameter(name));
            }
        }
        let wrong = PresignedError::Parameter;
        let date = get("X-Amz-Date")?;
        let dated = dated(date).ok_or(wrong("X-Amz-Date"))?;
        let expires = number(get("X-Amz-Expires")?).ok_or(wrong("X-Amz-Expires"))?;
        let credential = get("X-Amz-Credential")?;
        if !scoped(credential, date) {
            return Err(wrong("X-Amz-Credential"));
        }
        let signature = get("X-Amz-Signature")?;
        if signature.len() != 64 || !signature.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(wrong("X-Amz-Signature"));
        }
        let session = values.get("X-Amz-Security-Token");
        let base64 = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/' | b'=');
        if session.is_some_and(|session| session.is_empty() || !session.bytes().all(base64)) {
            return Err(wrong("X-Amz-Security-Token"));
        }
        Ok(Self {
            host: host.to_owned(),
            credential: credential.to_owned(),
            date: date.to_owned(),
            expires,
            session: session.map(|session| session.as_str().into()),
            signature: signature.into(),
            dated,
        })
    }

    /// Whether it is new enough: by its own word, and by ours.
    pub(super) fn in_time(&self, now: Timestamp, max_age_seconds: u32) -> Result<(), PresignedError> {
        let age = now.as_second().saturating_sub(self.dated.as_second());
        if age < -LEEWAY {
            return Err(PresignedError::Early);
        }
        if age >= i64::from(self.expires.min(max_age_seconds)) { Err(PresignedError::Ended) } else { Ok(()) }
    }

    /// From when on it is refused for its age, so that nobody need remember it.
    pub(super) fn forgotten_at(&self) -> Timestamp {
        let at = self.dated.as_second().saturating_add(i64::from(self.expires)).saturating_add(1);
        Timestamp::from_second(at).unwrap_or(Timestamp::MAX)
    }

    /// What it is remembered by: the signature is over everything else.
    pub(super) fn id(&self) -> [u8; 32] {
        let signature = self.signature.expose_secret();
        Sha256::new()
            .chain_update(b"aws-sts\0")
            .chain_update(&self.credential)
            .chain_update(signature)
            .finalize()
            .into()
    }

    /// The host, with its port.
    pub(super) fn host(&self) -> &str {
        &self.host
    }

    /// The request's address, built anew.
    pub(super) fn address(&self) -> SecretString {
        let expires = self.expires.to_string();
        let start = format!("https://{}/?", self.host);
        let at = start.len();
        let mut query = form_urlencoded::Serializer::for_suffix(start, at);
        query
            .append_pair("Action", "GetCallerIdentity")
            .append_pair("Version", "2011-06-15")
            .append_pair("X-Amz-Algorithm", "AWS4-HMAC-SHA256")
            .append_pair("X-Amz-Credential", &self.credential)
            .append_pair("X-Amz-Date", &self.date)
            .append_pair("X-Amz-Expires", &expires);
        if let Some(session) = &self.session {
            query.append_pair("X-Amz-Security-Token", session.expose_secret());
        }
        query.append_pair("X-Amz-SignedHeaders", SIGNED_HEADERS);
        query.append_pair("X-Amz-Signature", self.signature.expose_secret());
        query.finish().into()
    }
}

/// Every parameter once, and no other. `+` is not taken for a space: no value has one.
fn parameters(query: &str) -> Result<BTreeMap<&'static str, String>, PresignedError> {
    let mut values = BTreeMap::new();
    for pair in query.split('&') {
        let (name, value) = pair.split_once('=').ok_or(PresignedError::Unknown)?;
        let known = PARAMETERS.iter().find(|(known, _)| *known == name);
        let (name, _) = *known.ok_or(PresignedError::Unknown)?;
        let value = unescaped(value).ok_or(PresignedError::Parameter(name))?;
        if values.insert(name, value).is_some() {
            return Err(PresignedError::Parameter(name));
        }
    }
    match PARAMETERS.iter().find(|(name, needed)| *needed && !values.contains_key(name)) {
        Some((name, _)) => Err(PresignedError::Parameter(name)),
        None => Ok(values),
    }
}

/// A value without its percent-encoding, where it is graphic ASCII then.
fn unescaped(value: &str) -> Option<String> {
    if value.contains('+') {
        return None;
    }
    // A pair whose name is empty: what is decoded is the value.
    let pair = format!("={value}");
    let (_, decoded) = form_urlencoded::parse(pair.as_bytes()).next()?;
    let escaped = value.matches('%').count();
    let whole = value.len() == decoded.len() + 2 * escaped;
    (whole && decoded.bytes().all(|b| b.is_ascii_graphic())).then(|| decoded.into_owned())
}

/// `20260131T235959Z`.
fn dated(text: &str) -> Option<Timestamp> {
    let digits = |b: u8| b.is_ascii_digit();
    let shape = text.len() == 16
        && text.bytes().enumerate().all(|(at, b)| match at {
            8 => b == b'T',
            15 => b == b'Z',
            _ => digits(b),
        });
    let read = DateTime::strptime("%Y%m%dT%H%M%SZ", text).ok().filter(|_| shape)?;
    Some(read.to_zoned(TimeZone::UTC).ok()?.timestamp())
}

/// Seconds, without a sign, a zero in front or anything else.
fn number(text: &str) -> Option<u32> {
    let plain = text.len() <= 3 && !text.starts_with('0') && text.bytes().all(|b| b.is_ascii_digit());
    text.parse().ok().filter(|seconds| plain && (1..=LONGEST_LIFE).contains(seconds))
}

/// `ACCESSKEYID/20260131/REGION/sts/aws4_request`, of the same day as the date.
fn scoped(text: &str, date: &str) -> bool {
    let mut parts = text.split('/');
    let mut part = |good: &dyn Fn(&str) -> bool| parts.next().is_some_and(good);
    let name = |least: usize| {
        move |text: &str| {
            (least..=128).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        }
    };
    let same_day = |day: &str| date.get(..8) == Some(day);
    part(&name(16))
        && part(&same_day)
        && part(&name(1))
        && part(&|text| text == "sts")
        && part(&|text| text == "aws4_request")
        && parts.next().is_none()
}
