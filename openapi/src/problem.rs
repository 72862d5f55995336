//! Problem documents by RFC 9457: what every error answer of `/v1` carries.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A stable machine-readable code. The `type` URI of a problem is `/problems/<code>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ProblemCode {
    /// 400: a field, query parameter or header is malformed or not allowed; see `errors`.
    InvalidRequest,
    /// 400 or 422: the intent is well formed but cannot be met; see `errors` for the rules in conflict.
    Unsatisfiable,
    /// 401: no token, or one that is unknown or expired.
    Unauthenticated,
    /// 403: the token's scope does not cover this.
    Forbidden,
    /// 404: not there, or not visible to this token.
    NotFound,
    /// 405: the path exists, the method does not.
    MethodNotAllowed,
    /// 406 or 415: this media type is not spoken here.
    UnsupportedMediaType,
    /// 409: clashes with something that exists; `holder` names it.
    Conflict,
    /// 410: the cursor or resource is too old; start afresh.
    Gone,
    /// 412: the resource moved since it was read.
    PreconditionFailed,
    /// 413: the body is too large.
    BodyTooLarge,
    /// 422: the Idempotency-Key was used with another body.
    IdempotencyKeyReused,
    /// 428: this call needs an If-Match header.
    PreconditionRequired,
    /// 429: too many requests.
    TooManyRequests,
    /// 500: a defect of Tieline; the request id finds the log line.
    Internal,
    /// 503: a store or peer is not reachable; try again.
    Unavailable,
}

impl ProblemCode {
    /// The code as it stands in JSON and in the `type` URI.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::InvalidRequest => "invalid-request",
            Self::Unsatisfiable => "unsatisfiable",
            Self::Unauthenticated => "unauthenticated",
            Self::Forbidden => "forbidden",
            Self::NotFound => "not-found",
            Self::MethodNotAllowed => "method-not-allowed",
            Self::UnsupportedMediaType => "unsupported-media-type",
            Self::Conflict => "conflict",
            Self::Gone => "gone",
            Self::PreconditionFailed => "precondition-failed",
            Self::BodyTooLarge => "body-too-large",
            Self::IdempotencyKeyReused => "idempotency-key-reused",
            Self::PreconditionRequired => "precondition-required",
            Self::TooManyRequests => "too-many-requests",
            Self::Internal => "internal",
            Self::Unavailable => "unavailable",
        }
    }

    /// The HTTP status that goes with the code.
    #[must_use]
    pub const fn status(self) -> u16 {
        match self {
            Self::InvalidRequest | Self::Unsatisfiable => 400,
            Self::Unauthenticated => 401,
            Self::Forbidden => 403,
            Self::NotFound => 404,
            Self::MethodNotAllowed => 405,
            Self::Conflict => 409,
            Self::Gone => 410,
            Self::PreconditionFailed => 412,
            Self::BodyTooLarge => 413,
            Self::UnsupportedMediaType => 415,
            Self::IdempotencyKeyReused => 422,
            Self::PreconditionRequired => 428,
            Self::TooManyRequests => 429,
            Self::Internal => 500,
            Self::Unavailable => 503,
        }
    }

    /// Whether the same request may succeed later without a change.
    #[must_use]
    pub const fn retryable(self) -> bool {
        matches!(self, Self::TooManyRequests | Self::Unavailable)
    }
}

/// One thing that is wrong with a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct FieldError {
    /// RFC 6901 pointer into the body, or `?name` for a query parameter, or a header's name.
    pub pointer: String,
    /// What is wrong, and what would be right.
    pub message: String,
    /// The rule that was broken, in one phrase.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// Where the rule comes from: an RFC or a vendor's document.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
}

/// What a cloud answered.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProviderDetail {
    /// The provider's short name.
    pub name: String,
    /// The provider's error code, verbatim.
    pub code: String,
    /// The provider's message, verbatim.
    pub message: String,
    /// The provider's request id, for its support desk.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
}

/// An RFC 9457 problem document (`application/problem+json`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Problem {
    /// `/problems/<code>`: stable.
    #[serde(rename = "type")]
    pub kind: String,
    /// The kind of problem in a few words.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// The stable code.
    pub code: ProblemCode,
    /// This occurrence, in one sentence.
    pub detail: String,
    /// The id of the request, also in `X-Request-Id`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// Every field that is wrong.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<FieldError>,
    /// Whether the same request may succeed later.
    pub retryable: bool,
    /// What to do next.
    pub remediation: String,
    /// On a 409: the id of what is in the way, where the caller may see it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub holder: Option<String>,
    /// On an error that a cloud gave: what it said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub provider: Option<ProviderDetail>,
}
