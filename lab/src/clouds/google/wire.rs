//! Google's REST conventions: answers, errors, and who is calling.

use axum::{
    Json,
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};

use crate::clouds::{settings::CloudSettings, sim::Dialect};

/// A refusal in Google's own words (`{"error": {"code", "message", "errors": [{"message", "domain", "reason"}]}}`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct GoogleError {
    pub(super) status: u16,
    pub(super) reason: String,
    pub(super) message: String,
}

impl GoogleError {
    pub(super) fn new(status: u16, reason: &str, message: impl Into<String>) -> Self {
        Self { status, reason: reason.to_owned(), message: message.into() }
    }

    /// A field with a wrong value.
    pub(super) fn invalid(field: &str, value: impl std::fmt::Display, why: &str) -> Self {
        Self::new(400, "invalid", format!("Invalid value for field 'resource.{field}': '{value}'. {why}"))
    }

    /// A field that is missing.
    pub(super) fn required(field: &str) -> Self {
        Self::new(400, "required", format!("Required field 'resource.{field}' not specified"))
    }

    /// A resource that is not there.
    pub(super) fn not_found(path: &str) -> Self {
        Self::new(404, "notFound", format!("The resource '{path}' was not found"))
    }

    /// A resource that an operation is at work on.
    pub(super) fn not_ready(path: &str) -> Self {
        Self::new(400, "resourceNotReady", format!("The resource '{path}' is not ready"))
    }

    /// A resource that another one holds.
    pub(super) fn in_use(path: &str, by: &str) -> Self {
        let message = format!("The resource '{path}' is already being used by '{by}'");
        Self::new(400, "resourceInUseByAnotherResource", message)
    }

    fn domain(&self) -> &'static str {
        if self.reason == "rateLimitExceeded" { "usageLimits" } else { "global" }
    }

    fn status_word(&self) -> Option<&'static str> {
        match self.status {
            401 => Some("UNAUTHENTICATED"),
            403 => Some("PERMISSION_DENIED"),
            503 => Some("UNAVAILABLE"),
            _ => None,
        }
    }
}

impl IntoResponse for GoogleError {
    fn into_response(self) -> Response {
        let mut error = json!({
            "code": self.status,
            "message": self.message,
            "errors": [{ "message": self.message, "domain": self.domain(), "reason": self.reason }],
        });
        if let Some(word) = self.status_word() {
            error["status"] = json!(word);
        }
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        (status, Json(json!({ "error": error }))).into_response()
    }
}

/// An answer.
pub(super) fn answer(result: Result<Value, GoogleError>) -> Response {
    match result {
        Ok(body) => Json(body).into_response(),
        Err(error) => error.into_response(),
    }
}

/// Google's wording of what is the same for every operation.
pub(super) struct Words;

impl Dialect for Words {
    fn unavailable(&self) -> Response {
        GoogleError::new(500, "backendError", "Internal error. Please try again or contact Google Support.")
            .into_response()
    }

    fn throttled(&self) -> Response {
        let message = "Quota exceeded for quota metric 'Queries' and limit 'Queries per minute' of service 'compute.googleapis.com'.";
        GoogleError::new(403, "rateLimitExceeded", message).into_response()
    }

    fn refused(&self, status: u16, code: &str, message: &str) -> Response {
        GoogleError::new(status, code, message).into_response()
    }
}

/// Checks who is calling: `Authorization: Bearer` with the one known access token.
pub(super) fn authenticate(settings: &CloudSettings, headers: &HeaderMap) -> Result<(), GoogleError> {
    let Some(header) = headers.get("authorization") else {
        if settings.allow_anonymous {
            return Ok(());
        }
        return Err(GoogleError::new(401, "required", "Login Required."));
    };
    let given = header.to_str().ok().and_then(|text| text.strip_prefix("Bearer "));
    if given == Some(settings.bearer_token.as_str()) {
        return Ok(());
    }
    Err(GoogleError::new(401, "authError", "Request had invalid authentication credentials."))
}
