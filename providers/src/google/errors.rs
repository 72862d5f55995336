//! Google's errors as the closed list.

use google_cloud_gax::error::{
    CredentialsError, Error,
    rpc::{Status, StatusDetails},
};
use http::header::{HeaderMap, RETRY_AFTER};
use serde_json::Value;
use std::time::Duration;

use super::PROVIDER;
use crate::{
    call::{Verb, failed},
    error::{CallError, CallErrorKind},
};

/// An error answer, as far as its meaning depends on it.
#[derive(Debug, Clone, Default)]
pub(super) struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// `errors[].reason`, or an operation's error code.
    pub reason: String,
    /// The text.
    pub message: String,
}

impl Answer {
    /// Reads an error body; `None` where it is not Google's (a proxy's page, an empty body).
    pub(super) fn parse(status: u16, body: &[u8]) -> Option<Self> {
        let body: Value = serde_json::from_slice(body).ok()?;
        let error = body.get("error")?;
        let message = error["message"].as_str()?.to_owned();
        let reason = error["errors"][0]["reason"].as_str().or_else(|| error["status"].as_str()).unwrap_or_default();
        Some(Self { status, reason: reason.to_owned(), message })
    }
}

/// What an error answer means. Not every answer comes with a reason, so the text is asked too.
/// Reasons: Google Cloud APIs, Compute Engine API errors; operation codes are the same words in upper case.
pub(super) fn classify(verb: Verb, answer: &Answer) -> CallErrorKind {
    let reason = answer.reason.to_ascii_lowercase().replace('_', "");
    let text = answer.message.to_ascii_lowercase();
    let held = ["already in use", "already used", "is in use", "in use by", "conflicts with", "overlaps"];
    let slot = ["vlan", "8021q", "ip range", "iprange", "ip_range", "ip address", "ipaddress", "subnet", "linked"];
    let says = |words: &[&str]| words.iter().any(|word| text.contains(word));
    match answer.status {
        401 => CallErrorKind::Unauthenticated,
        429 if reason == "quotaexceeded" => CallErrorKind::Quota,
        429 => CallErrorKind::Throttled,
        408 => CallErrorKind::Unknown,
        500..=599 => CallErrorKind::Unavailable,
        _ if matches!(
            reason.as_str(),
            "ratelimitexceeded" | "userratelimitexceeded" | "concurrentoperationsquotaexceeded"
        ) || says(&["rate limit", "quota exceeded for quota metric"]) =>
        {
            CallErrorKind::Throttled
        }
        _ if matches!(reason.as_str(), "quotaexceeded" | "limitexceeded" | "resourcepoolexhausted")
            || text.starts_with("quota '")
            || says(&["limit exceeded", "exceeded limit"]) =>
        {
            CallErrorKind::Quota
        }
        403 => CallErrorKind::Forbidden,
        404 if verb == Verb::Create => CallErrorKind::Invalid,
        404 => CallErrorKind::NotFound,
        // A create or a change that wants what somebody else has; a delete that somebody else's use forbids is a conflict.
        400 | 409 if matches!(verb, Verb::Create | Verb::Update) && says(&held) && says(&slot) => {
            CallErrorKind::SlotTaken
        }
        // The name is unique to this instance: if it exists, an earlier call of ours has made it.
        409 | 412 => CallErrorKind::Conflict,
        400 if matches!(reason.as_str(), "resourcenotready" | "resourceinusebyanotherresource")
            || says(&["is not ready", "being used by"]) =>
        {
            CallErrorKind::Conflict
        }
        400..=499 => CallErrorKind::Invalid,
        _ => CallErrorKind::Malformed,
    }
}

fn from_answer(verb: Verb, answer: Answer, retry_after: Option<Duration>) -> CallError {
    let kind = classify(verb, &answer);
    let code = if answer.reason.is_empty() { answer.status.to_string() } else { answer.reason };
    CallError { retry_after, ..failed(PROVIDER, kind, &code, answer.message) }
}

/// An answer that is no success, read from the wire.
pub(super) fn from_response(verb: Verb, status: u16, headers: &HeaderMap, body: &[u8]) -> CallError {
    match Answer::parse(status, body) {
        Some(answer) => from_answer(verb, answer, retry_after(headers)),
        None => CallError { retry_after: retry_after(headers), ..not_googles(status) },
    }
}

/// An error status without Google's body: something in between has answered.
fn not_googles(status: u16) -> CallError {
    let kind = match status {
        401 => CallErrorKind::Unauthenticated,
        403 => CallErrorKind::Forbidden,
        429 => CallErrorKind::Throttled,
        500..=599 => CallErrorKind::Unavailable,
        _ => CallErrorKind::Malformed,
    };
    failed(PROVIDER, kind, &status.to_string(), format!("HTTP {status} without an error that Google would give"))
}

/// An error of the SDK.
pub(super) fn from_sdk(verb: Verb, error: Error) -> CallError {
    let headers = error.http_headers().cloned().unwrap_or_default();
    let mut call = if let Some(status) = error.status() {
        let http = error.http_status_code().unwrap_or(status.code as u16);
        from_answer(
            verb,
            Answer { status: http, reason: reason(status), message: status.message.clone() },
            retry_after(&headers),
        )
    } else if let (Some(status), Some(body)) = (error.http_status_code(), error.http_payload()) {
        from_response(verb, status, &headers, body)
    } else if error.is_authentication() {
        let transient = error.is_transient_and_before_rpc();
        let kind = if transient { CallErrorKind::NotSent } else { CallErrorKind::Unauthenticated };
        failed(PROVIDER, kind, "credential", "the credential gave no token; nothing was sent".to_owned())
    } else if error.is_connect() {
        failed(PROVIDER, CallErrorKind::NotSent, "connect", "the API could not be reached".to_owned())
    } else if error.is_serialization() || error.is_binding() {
        failed(PROVIDER, CallErrorKind::Invalid, "request", "the request could not be written".to_owned())
    } else if error.is_deserialization() {
        failed(PROVIDER, CallErrorKind::Malformed, "answer", "the answer could not be read".to_owned())
    } else {
        failed(PROVIDER, CallErrorKind::Unknown, "transport", "the connection broke before the answer came".to_owned())
    };
    call.source = Some(Box::new(error));
    call
}

/// The SDK turns each of `errors[]` into an `ErrorInfo`.
fn reason(status: &Status) -> String {
    let info = status
        .details
        .iter()
        .find_map(|detail| if let StatusDetails::ErrorInfo(info) = detail { Some(info.reason.clone()) } else { None });
    info.unwrap_or_default()
}

/// An error below HTTP.
pub(super) fn from_transport(error: reqwest::Error) -> CallError {
    let (kind, code, message) = if error.is_connect() {
        (CallErrorKind::NotSent, "connect", "the API could not be reached")
    } else if error.is_builder() {
        (CallErrorKind::Invalid, "request", "the request could not be written")
    } else {
        (CallErrorKind::Unknown, "transport", "the connection broke before the answer came")
    };
    // The URL holds no secret, and is of no use to the reader beside the target.
    CallError { source: Some(Box::new(error.without_url())), ..failed(PROVIDER, kind, code, message.to_owned()) }
}

/// A credential that gave no header: nothing was sent.
pub(super) fn from_credential(error: CredentialsError) -> CallError {
    let kind = if error.is_transient() { CallErrorKind::NotSent } else { CallErrorKind::Unauthenticated };
    let message = "the credential gave no token; nothing was sent".to_owned();
    CallError { source: Some(Box::new(error)), ..failed(PROVIDER, kind, "credential", message) }
}

/// The error of an operation that is over, if it has one.
pub(super) fn of_operation(verb: Verb, operation: &Value) -> Option<CallError> {
    let error = operation["error"]["errors"].get(0)?;
    if operation["status"] != "DONE" {
        return None;
    }
    let reason = error["code"].as_str().unwrap_or_default().to_owned();
    let status = operation["httpErrorStatusCode"].as_u64().and_then(|status| u16::try_from(status).ok());
    let status = status.unwrap_or_else(|| status_of_code(&reason));
    let message = error["message"].as_str().unwrap_or_default().to_owned();
    let mut error = from_answer(verb, Answer { status, reason, message }, None);
    error.detail.request_id = operation["name"].as_str().map(str::to_owned);
    // The operation is over, so nothing about it is unknown; Google rolls a failed change back.
    if error.kind == CallErrorKind::Unavailable {
        error.kind = CallErrorKind::Invalid;
    }
    Some(error)
}

/// The HTTP status that goes with an operation's error code, where the operation does not tell it.
fn status_of_code(code: &str) -> u16 {
    match code {
        "RESOURCE_NOT_FOUND" => 404,
        "RESOURCE_ALREADY_EXISTS" => 409,
        "QUOTA_EXCEEDED" | "PERMISSION_DENIED" | "PERMISSIONS_ERROR" => 403,
        "RATE_LIMIT_EXCEEDED" => 429,
        _ => 400,
    }
}

fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok().map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_answer_has_its_kind() {
        use CallErrorKind as Kind;
        let rows: &[(Verb, u16, &str, &str, CallErrorKind)] = &[
            (Verb::Create, 400, "invalid", "Invalid value for field 'resource.mtu': '1501'.", Kind::Invalid),
            (Verb::Create, 400, "invalid", "The VLAN tag 1025 is already in use on the interconnect.", Kind::SlotTaken),
            (Verb::Update, 400, "invalid", "The IP range 169.254.1.1/29 overlaps with interface 'x'.", Kind::SlotTaken),
            (Verb::Update, 400, "resourceNotReady", "The resource 'r' is not ready", Kind::Conflict),
            (
                Verb::Delete,
                400,
                "resourceInUseByAnotherResource",
                "The interconnect attachment resource 'a' is already being used by 'r'",
                Kind::Conflict,
            ),
            (Verb::Read, 401, "authError", "Invalid Credentials", Kind::Unauthenticated),
            (Verb::Create, 403, "forbidden", "Required 'compute.interconnectAttachments.create'", Kind::Forbidden),
            (Verb::Create, 403, "quotaExceeded", "Quota 'INTERCONNECT_ATTACHMENTS' exceeded.", Kind::Quota),
            (Verb::Create, 403, "", "Quota 'INTERCONNECT_ATTACHMENTS' exceeded. Limit: 16.0", Kind::Quota),
            (Verb::Create, 403, "rateLimitExceeded", "Rate Limit Exceeded", Kind::Throttled),
            (Verb::Read, 403, "", "Quota exceeded for quota metric 'Read requests' and limit ...", Kind::Throttled),
            (Verb::Read, 404, "notFound", "The resource 'a' was not found", Kind::NotFound),
            (Verb::Create, 404, "notFound", "The resource 'routers/r' was not found", Kind::Invalid),
            (Verb::Create, 409, "alreadyExists", "The resource 'a' already exists", Kind::Conflict),
            (Verb::Update, 412, "conditionNotMet", "Labels fingerprint either invalid or stale", Kind::Conflict),
            (Verb::Read, 429, "rateLimitExceeded", "Too many requests", Kind::Throttled),
            (Verb::Create, 500, "backendError", "Backend Error", Kind::Unavailable),
            (Verb::Create, 503, "", "The service is currently unavailable.", Kind::Unavailable),
        ];
        for (verb, status, reason, message, kind) in rows {
            let answer = Answer { status: *status, reason: (*reason).to_owned(), message: (*message).to_owned() };
            assert_eq!(classify(*verb, &answer), *kind, "{status} {reason} {message}");
        }
    }

    #[test]
    fn a_page_that_is_not_googles_is_never_taken_for_an_absence() {
        let error = from_response(Verb::Read, 404, &HeaderMap::new(), b"<html>no such host</html>");
        assert_eq!(error.kind, CallErrorKind::Malformed);
    }

    #[test]
    fn an_operation_tells_its_error_only_when_it_is_over() {
        let mut operation = serde_json::json!({
            "name": "operation-1", "status": "RUNNING",
            "error": { "errors": [{ "code": "QUOTA_EXCEEDED", "message": "Quota 'X' exceeded." }] },
        });
        assert!(of_operation(Verb::Create, &operation).is_none());
        operation["status"] = "DONE".into();
        let error = of_operation(Verb::Create, &operation).unwrap();
        assert_eq!((error.kind, error.detail.code.as_str()), (CallErrorKind::Quota, "QUOTA_EXCEEDED"));
        assert_eq!(error.detail.request_id.as_deref(), Some("operation-1"));
    }
}
