//! Strict decoding of everything that a request carries: nothing unknown is ignored, nothing malformed is guessed.

use std::{str::FromStr, time::Duration};

use axum::{
    body::{Bytes, HttpBody as _},
    extract::{FromRequest, FromRequestParts, RawPathParams, Request},
    http::{HeaderMap, header, request::Parts},
};
use serde::{Deserialize, Deserializer, de::DeserializeOwned};
use serde_json::{Value, json};
use tieline_openapi::problem::{FieldError, ProblemCode};

use super::{Http, problem::Fault};
use crate::{
    app::{Caller, connections::IfMatch, digest, error::field, intent},
    store::IdempotencyKey,
};

/// The most bytes of a body.
pub(super) const BODY_LIMIT: usize = 256 * 1024;
/// The longest `?wait=`.
pub(super) const LONGEST_WAIT: Duration = Duration::from_secs(120);

impl FromRequestParts<Http> for Caller {
    type Rejection = Fault;

    async fn from_request_parts(parts: &mut Parts, _: &Http) -> Result<Self, Fault> {
        // The gate has put it there; without a gate there is no caller.
        parts.extensions.get::<Self>().cloned().ok_or_else(|| {
            Fault::new(ProblemCode::Unauthenticated, "no token was sent").header(header::WWW_AUTHENTICATE, "Bearer")
        })
    }
}

/// The `{id}` of the path, without a custom verb. A malformed id is one that does not exist.
pub(super) struct Id<T>(pub T);

/// Cuts a custom verb off an id: `<id>:apply` gives `<id>` and `apply`.
pub(super) fn split_verb(segment: &str) -> (&str, Option<&str>) {
    segment.split_once(':').map_or((segment, None), |(id, verb)| (id, Some(verb)))
}

/// The last segment of a path, with its colon as it was meant.
pub(super) fn last_segment(path: &str) -> String {
    path.rsplit('/').next().unwrap_or_default().replace("%3A", ":").replace("%3a", ":")
}

impl<T: FromStr + Send> FromRequestParts<Http> for Id<T> {
    type Rejection = Fault;

    async fn from_request_parts(parts: &mut Parts, state: &Http) -> Result<Self, Fault> {
        let params = RawPathParams::from_request_parts(parts, state).await.map_err(|_| Fault::not_found())?;
        let raw = params.iter().find(|(name, _)| *name == "id").map(|(_, value)| value.to_owned());
        let parsed = raw.as_deref().and_then(|raw| split_verb(raw).0.parse().ok());
        parsed.map(Self).ok_or_else(Fault::not_found)
    }
}

/// The query, decoded into a type that denies unknown fields.
pub(super) struct Query<T>(pub T);

impl<T: DeserializeOwned> FromRequestParts<Http> for Query<T> {
    type Rejection = Fault;

    async fn from_request_parts(parts: &mut Parts, _: &Http) -> Result<Self, Fault> {
        let query = parts.uri.query().unwrap_or_default();
        if form_urlencoded::parse(query.as_bytes()).any(|(key, value)| key.contains('\0') || value.contains('\0')) {
            return Err(Fault::invalid(vec![field("?", "the NUL character is not taken")]));
        }
        let decoder = serde_urlencoded::Deserializer::new(form_urlencoded::parse(query.as_bytes()));
        serde_path_to_error::deserialize(decoder).map(Self).map_err(|error| {
            let mut wrong = intent::at_path(error.path(), &error.inner().to_string());
            wrong.pointer = format!("?{}", wrong.pointer.trim_start_matches('/'));
            Fault::invalid(vec![wrong])
        })
    }
}

/// No query at all.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Nothing {}

/// `60s`: how long to hold an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Wait(pub Duration);

impl<'de> Deserialize<'de> for Wait {
    fn deserialize<D: Deserializer<'de>>(decoder: D) -> Result<Self, D::Error> {
        let text = String::deserialize(decoder)?;
        let digits = text.strip_suffix('s').filter(|digits| digits.bytes().all(|b| b.is_ascii_digit()));
        let seconds: Option<u64> = digits.and_then(|digits| digits.parse().ok());
        match seconds.map(Duration::from_secs) {
            Some(wait) if wait <= LONGEST_WAIT => Ok(Self(wait)),
            _ => Err(serde::de::Error::custom(format!(
                "whole seconds with their unit, from 0s to {}s",
                LONGEST_WAIT.as_secs()
            ))),
        }
    }
}

/// The media types of a JSON body.
const JSON: &[&str] = &["application/json"];
/// The media types of a merge patch.
const PATCH: &[&str] = &["application/merge-patch+json", "application/json"];

async fn read(request: Request, state: &Http, types: &[&str]) -> Result<Bytes, Fault> {
    let sent = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = sent.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    if !types.contains(&essence.as_str()) {
        let detail = format!("`{sent}` is not taken here; {} is", types.join(" or "));
        return Err(Fault::new(ProblemCode::UnsupportedMediaType, detail)
            .remedy(format!("Send `Content-Type: {}`.", types.first().unwrap_or(&"application/json"))));
    }
    bytes(request, state).await
}

async fn bytes(request: Request, state: &Http) -> Result<Bytes, Fault> {
    Bytes::from_request(request, state).await.map_err(|rejection| super::problem::of_status(rejection.status()))
}

pub(super) fn value(bytes: &[u8]) -> Result<Value, Fault> {
    let value: Value =
        serde_json::from_slice(bytes).map_err(|error| Fault::invalid(vec![field("", format!("not JSON: {error}"))]))?;
    let mut errors = Vec::new();
    refuse_nul(&value, "", &mut errors);
    if errors.is_empty() { Ok(value) } else { Err(Fault::invalid(errors)) }
}

fn refuse_nul(value: &Value, pointer: &str, errors: &mut Vec<FieldError>) {
    match value {
        Value::String(text) if text.contains('\0') => {
            errors.push(field(pointer, "the NUL character is not taken"));
        }
        Value::Array(items) => {
            for (n, item) in items.iter().enumerate() {
                refuse_nul(item, &format!("{pointer}/{n}"), errors);
            }
        }
        Value::Object(members) => {
            for (key, member) in members {
                if key.contains('\0') {
                    errors.push(field(pointer, "the NUL character is not taken in a key"));
                } else {
                    refuse_nul(member, &format!("{pointer}/{}", intent::escape(key)), errors);
                }
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// A JSON body: as decoded, and as it came.
pub(super) struct Json<T>(pub T, pub Value);

impl<T: DeserializeOwned> FromRequest<Http> for Json<T> {
    type Rejection = Fault;

    async fn from_request(request: Request, state: &Http) -> Result<Self, Fault> {
        let bytes = read(request, state, JSON).await?;
        let raw = value(&bytes)?;
        // Decoded from the text again, so that a field that comes twice is refused and not the last one taken.
        let mut decoder = serde_json::Deserializer::from_slice(&bytes);
        let decoded = serde_path_to_error::deserialize(&mut decoder)
            .map_err(|error| Fault::invalid(vec![intent::at_path(error.path(), &error.inner().to_string())]))?;
        Ok(Self(decoded, raw))
    }
}

/// A JSON document that may be left out: then every member has its default. And as it came.
pub(super) struct MaybeJson<T>(pub T, pub Value);

impl<T: DeserializeOwned + Default> FromRequest<Http> for MaybeJson<T> {
    type Rejection = Fault;

    async fn from_request(request: Request, state: &Http) -> Result<Self, Fault> {
        if request.body().is_end_stream() {
            return Ok(Self(T::default(), Value::Null));
        }
        Json::from_request(request, state).await.map(|Json(document, raw)| Self(document, raw))
    }
}

/// A merge patch (RFC 7396) of an object's members. Another value would take the place of the whole, which nothing here
/// allows.
pub(super) struct MergePatch(pub Value);

impl FromRequest<Http> for MergePatch {
    type Rejection = Fault;

    async fn from_request(request: Request, state: &Http) -> Result<Self, Fault> {
        let patch = value(&read(request, state, PATCH).await?)?;
        if patch.is_object() {
            Ok(Self(patch))
        } else {
            Err(Fault::invalid(vec![field("", "a merge patch is an object")]))
        }
    }
}

/// No body, or an empty JSON object.
pub(super) struct NoBody;

impl FromRequest<Http> for NoBody {
    type Rejection = Fault;

    async fn from_request(request: Request, state: &Http) -> Result<Self, Fault> {
        let bytes = bytes(request, state).await?;
        if bytes.is_empty() || serde_json::from_slice::<Value>(&bytes).is_ok_and(|body| body == json!({})) {
            Ok(Self)
        } else {
            Err(Fault::invalid(vec![field("", "this call takes no body")]))
        }
    }
}

/// The headers of a mutation.
pub(super) struct Headers {
    method: String,
    path: String,
    query: Vec<(String, String)>,
    key: Option<String>,
    if_match: Option<IfMatch>,
}

impl FromRequestParts<Http> for Headers {
    type Rejection = Fault;

    async fn from_request_parts(parts: &mut Parts, _: &Http) -> Result<Self, Fault> {
        let mut query: Vec<(String, String)> = form_urlencoded::parse(parts.uri.query().unwrap_or_default().as_bytes())
            .filter(|(name, _)| name != "wait")
            .map(|(name, value)| (name.into_owned(), value.into_owned()))
            .collect();
        query.sort();
        Ok(Self {
            method: parts.method.to_string(),
            path: parts.uri.path().to_owned(),
            query,
            key: idempotency_key(&parts.headers)?,
            if_match: if_match(&parts.headers)?,
        })
    }
}

impl Headers {
    /// The scope and the digest of the idempotency key, if one was sent.
    pub(super) fn key(&self, caller: &Caller, body: &Value) -> Option<IdempotencyKey> {
        let digest = digest(&json!({"body": body, "query": self.query}));
        Some(IdempotencyKey {
            principal: caller.principal.clone(),
            method: self.method.clone(),
            path: self.path.clone(),
            key: self.key.clone()?,
            digest,
        })
    }

    /// The If-Match that PATCH and DELETE need.
    pub(super) fn if_match(&self) -> Result<&IfMatch, Fault> {
        self.if_match.as_ref().ok_or_else(|| {
            Fault::new(
                ProblemCode::PreconditionRequired,
                "this call needs an If-Match header with the ETag that was read",
            )
        })
    }
}

fn one_header<'a>(headers: &'a HeaderMap, name: &'static str) -> Result<Option<&'a str>, Fault> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let wrong = |message: &str| Fault::invalid(vec![field(name, message)]);
    if values.next().is_some() {
        return Err(wrong("send this header once"));
    }
    value.to_str().map(Some).map_err(|_| wrong("printable ASCII characters only"))
}

fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Fault> {
    let Some(key) = one_header(headers, "idempotency-key")? else { return Ok(None) };
    if (1..=255).contains(&key.len()) && key.bytes().all(|b| b.is_ascii_graphic()) {
        Ok(Some(key.to_owned()))
    } else {
        Err(Fault::invalid(vec![field("Idempotency-Key", "1 to 255 visible ASCII characters")]))
    }
}

/// Entity tags compare strongly (RFC 9110 section 8.8.3.2): a weak one, or one of another form, matches nothing.
fn if_match(headers: &HeaderMap) -> Result<Option<IfMatch>, Fault> {
    let Some(value) = one_header(headers, "if-match")? else { return Ok(None) };
    if value.trim() == "*" {
        return Ok(Some(IfMatch::Any));
    }
    let generation = |tag: &str| tag.trim().strip_prefix("\"g")?.strip_suffix('"')?.parse().ok();
    Ok(Some(IfMatch::Generations(value.split(',').filter_map(generation).collect())))
}
