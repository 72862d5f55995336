//! AWS's errors as the closed list.

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_directconnect::{
    config::http::HttpResponse,
    error::{ProvideErrorMetadata, SdkError},
    operation::RequestId,
};
use std::{error::Error, io, time::Duration};

use super::PROVIDER;
use crate::{
    call::{Verb, failed},
    error::{CallError, CallErrorKind},
};

/// What an error answer means. Direct Connect says most things with one code, `DirectConnectClientException`: its text
/// decides, and a text that is not known is [`CallErrorKind::Invalid`].
/// Codes: AWS Direct Connect API Reference, and its common errors.
pub(super) fn classify(verb: Verb, status: u16, code: &str, message: &str) -> CallErrorKind {
    match code {
        "ThrottlingException"
        | "Throttling"
        | "ThrottledException"
        | "TooManyRequestsException"
        | "RequestLimitExceeded"
        | "RequestThrottled"
        | "RequestThrottledException"
        | "SlowDown" => {
            return CallErrorKind::Throttled;
        }
        "UnrecognizedClientException"
        | "InvalidClientTokenId"
        | "InvalidSignatureException"
        | "SignatureDoesNotMatch"
        | "ExpiredTokenException"
        | "ExpiredToken"
        | "IncompleteSignature"
        | "IncompleteSignatureException"
        | "MissingAuthenticationToken"
        | "MissingAuthenticationTokenException"
        | "RequestExpired"
        | "InvalidAccessKeyId"
        | "NotAuthenticated" => return CallErrorKind::Unauthenticated,
        "AccessDeniedException" | "AccessDenied" | "UnauthorizedOperation" | "OptInRequired" | "NotAuthorized" => {
            return CallErrorKind::Forbidden;
        }
        "DirectConnectServerException" | "InternalFailure" | "InternalServerError" | "ServiceUnavailable" => {
            return CallErrorKind::Unavailable;
        }
        "LimitExceededException" | "TooManyTagsException" => return CallErrorKind::Quota,
        "DuplicateTagKeysException" | "ValidationException" | "ValidationError" => return CallErrorKind::Invalid,
        "DirectConnectClientException" => return client_exception(verb, message),
        _ => {}
    }
    match status {
        401 => CallErrorKind::Unauthenticated,
        403 => CallErrorKind::Forbidden,
        404 => CallErrorKind::NotFound,
        409 | 412 => CallErrorKind::Conflict,
        429 => CallErrorKind::Throttled,
        500..=599 => CallErrorKind::Unavailable,
        400..=499 => CallErrorKind::Invalid,
        _ => CallErrorKind::Malformed,
    }
}

fn client_exception(verb: Verb, message: &str) -> CallErrorKind {
    let text = message.to_ascii_lowercase();
    let says = |words: &[&str]| words.iter().any(|word| text.contains(word));
    let held = says(&["already", "in use", "not available", "is taken", "duplicate", "overlap", "conflict"]);
    if says(&["throttl", "rate exceeded", "too many requests"]) {
        CallErrorKind::Throttled
    } else if says(&["not authorized", "access denied", "not permitted"]) {
        CallErrorKind::Forbidden
    } else if held && says(&["vlan", "address", "cidr", "subnet"]) {
        CallErrorKind::SlotTaken
    } else if says(&["limit", "maximum number", "quota", "exceed", "prefix pool"]) {
        CallErrorKind::Quota
    } else if says(&["does not exist", "not found", "could not find", "cannot find", "no such", "unknown "]) {
        // On a create it is the port or the gateway that is not there.
        if verb == Verb::Create { CallErrorKind::Invalid } else { CallErrorKind::NotFound }
    } else if says(&["in progress", "pending state", "deleting state", "is being", "current state", "invalid state"]) {
        CallErrorKind::Conflict
    } else {
        CallErrorKind::Invalid
    }
}

/// An error of the SDK.
pub(super) fn from_sdk<E>(verb: Verb, error: SdkError<E, HttpResponse>) -> CallError
where
    E: ProvideErrorMetadata + Error + Send + Sync + 'static,
{
    let status = error.raw_response().map(|response| response.status().as_u16());
    let mut call = match &error {
        SdkError::ServiceError(service) => {
            let code = service.err().code().unwrap_or_default();
            let message = service.err().message().unwrap_or_default();
            let kind = classify(verb, status.unwrap_or_default(), code, message);
            let code = if code.is_empty() { status.unwrap_or_default().to_string() } else { code.to_owned() };
            failed(PROVIDER, kind, &code, message.to_owned())
        }
        SdkError::TimeoutError(_) => {
            failed(PROVIDER, CallErrorKind::Unknown, "timeout", "no answer in time".to_owned())
        }
        SdkError::ResponseError(_) => {
            let kind = match status {
                Some(500..=599) => CallErrorKind::Unavailable,
                Some(429) => CallErrorKind::Throttled,
                _ => CallErrorKind::Malformed,
            };
            failed(PROVIDER, kind, "answer", "the answer could not be read".to_owned())
        }
        // Building the request and finding a credential come before the wire; so does the connection itself.
        SdkError::ConstructionFailure(_) | SdkError::DispatchFailure(_) => unsent(&error),
        _ => failed(PROVIDER, CallErrorKind::Unknown, "sdk", "the call failed in an unknown way".to_owned()),
    };
    call.detail.request_id = error.raw_response().and_then(|response| response.request_id()).map(str::to_owned);
    let retry_after = error.raw_response().and_then(|response| response.headers().get("retry-after"));
    call.retry_after = retry_after.and_then(|value| value.trim().parse().ok()).map(Duration::from_secs);
    call.source = Some(Box::new(error));
    call
}

/// A failure on the way to the wire: whether anything was sent is told by what is at the bottom of it.
fn unsent<E: Error + Send + Sync + 'static>(error: &SdkError<E, HttpResponse>) -> CallError {
    let (kind, code, message) = if has(error, |cause| cause.is::<CredentialsError>()) {
        (CallErrorKind::Unauthenticated, "credential", "the credential could not be loaded; nothing was sent")
    } else if has(error, refused) {
        (CallErrorKind::NotSent, "connect", "the API could not be reached; nothing was sent")
    } else if matches!(error, SdkError::ConstructionFailure(_)) {
        (CallErrorKind::Invalid, "request", "the request could not be written; nothing was sent")
    } else {
        (CallErrorKind::Unknown, "transport", "the connection broke before the answer came")
    };
    failed(PROVIDER, kind, code, message.to_owned())
}

fn has(error: &(dyn Error + 'static), is: impl Fn(&(dyn Error + 'static)) -> bool) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if is(error) {
            return true;
        }
        cause = error.source();
    }
    false
}

/// No connection was made, by the kernel's or the resolver's own word.
fn refused(cause: &(dyn Error + 'static)) -> bool {
    let kind = cause.downcast_ref::<io::Error>().map(io::Error::kind);
    matches!(
        kind,
        Some(io::ErrorKind::ConnectionRefused | io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable)
    ) || cause.to_string().starts_with("dns error")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_answer_has_its_kind() {
        use CallErrorKind as Kind;
        let client = "DirectConnectClientException";
        let rows: &[(Verb, u16, &str, &str, CallErrorKind)] = &[
            (Verb::Create, 400, client, "VLAN 1025 is already in use on dxlag-1", Kind::SlotTaken),
            (Verb::Create, 400, client, "Vlan tag 7 is not available for connection dxcon-1", Kind::SlotTaken),
            (Verb::Create, 400, client, "The peer address overlaps with another interface", Kind::SlotTaken),
            (Verb::Create, 400, client, "You have reached the limit of virtual interfaces", Kind::Quota),
            (Verb::Create, 400, client, "Direct Connect Gateway x does not exist", Kind::Invalid),
            (Verb::Read, 400, client, "Virtual Interface dxvif-1 does not exist", Kind::NotFound),
            (Verb::Delete, 400, client, "Virtual Interface with ID dxvif-1 not found", Kind::NotFound),
            (Verb::Update, 400, client, "Cannot update while in its current state", Kind::Conflict),
            (Verb::Create, 400, client, "Rate exceeded", Kind::Throttled),
            (Verb::Create, 400, client, "Account 1 is not authorized to use dxlag-1", Kind::Forbidden),
            (Verb::Create, 400, client, "MTU 1501 is not valid", Kind::Invalid),
            (Verb::Create, 400, "ThrottlingException", "Rate exceeded", Kind::Throttled),
            (Verb::Create, 400, "LimitExceededException", "", Kind::Quota),
            (Verb::Create, 400, "DuplicateTagKeysException", "", Kind::Invalid),
            (Verb::Read, 400, "UnrecognizedClientException", "The security token is invalid", Kind::Unauthenticated),
            (Verb::Read, 400, "ExpiredTokenException", "expired", Kind::Unauthenticated),
            (Verb::Read, 400, "AccessDeniedException", "not authorized to perform", Kind::Forbidden),
            (Verb::Create, 500, "DirectConnectServerException", "oops", Kind::Unavailable),
            (Verb::Create, 503, "", "", Kind::Unavailable),
            (Verb::Create, 429, "", "", Kind::Throttled),
        ];
        for (verb, status, code, message, kind) in rows {
            assert_eq!(classify(*verb, *status, code, message), *kind, "{status} {code} {message}");
        }
    }
}
