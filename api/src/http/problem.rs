//! Every error answer is a problem document (RFC 9457). A handler gives a [`Fault`]; the outermost layer adds the request's
//! id and writes the body, also for errors that no handler made.

use std::sync::Arc;

use axum::{
    http::{HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use tieline_openapi::{
    problem::{FieldError, Problem, ProblemCode},
    v1::{Finding, Severity},
};

use crate::{app::AppError, store::StoreError};

/// An error answer.
#[derive(Debug, Clone)]
pub struct Fault {
    /// The document, without the request's id.
    pub problem: Box<Problem>,
    /// What goes into the log and not to the client.
    pub cause: Option<Arc<str>>,
    /// More headers.
    pub headers: Vec<(HeaderName, HeaderValue)>,
}

/// Title and what to do next, by code.
const fn texts(code: ProblemCode) -> (&'static str, &'static str) {
    match code {
        ProblemCode::InvalidRequest => {
            ("The request is not valid", "Correct the fields in `errors` and send it again.")
        }
        ProblemCode::Unsatisfiable => {
            ("The intent cannot be met", "Change what `errors` names; each says what resolves it.")
        }
        ProblemCode::Unauthenticated => {
            ("Authentication is needed", "Send `Authorization: Bearer <token>` with a token that has not ended.")
        }
        ProblemCode::Forbidden => ("The token does not cover this", "Use a token with the scope that this call needs."),
        ProblemCode::NotFound => ("Not found", "Check the path; GET the list to see what is there."),
        ProblemCode::MethodNotAllowed => ("Method not allowed", "Use one of the methods in `Allow`."),
        ProblemCode::UnsupportedMediaType => ("Unsupported media type", "Send `Content-Type: application/json`."),
        ProblemCode::Conflict => {
            ("It clashes with something that exists", "Look at `holder`, or choose another value.")
        }
        ProblemCode::Gone => ("Too old", "Read the list afresh and go on from there."),
        ProblemCode::PreconditionFailed => {
            ("It moved since it was read", "Read it again and repeat the change on what is there now.")
        }
        ProblemCode::BodyTooLarge => ("The body is too large", "Send less than 256 KiB."),
        ProblemCode::IdempotencyKeyReused => {
            ("The idempotency key was used with another request", "Use a new key for a new request.")
        }
        ProblemCode::PreconditionRequired => ("If-Match is needed", "Read it, and send its ETag as `If-Match`."),
        ProblemCode::TooManyRequests => ("Too many requests", "Wait for `Retry-After` seconds and try again."),
        ProblemCode::Internal => {
            ("Internal error", "This is a defect of Tieline; the request id finds the line in its log.")
        }
        ProblemCode::Unavailable => ("Not available now", "Try again in a moment."),
    }
}

/// Title and remedy of a code, for its page.
#[must_use]
pub(super) const fn describe(code: ProblemCode) -> (&'static str, &'static str) {
    texts(code)
}

impl Fault {
    /// A fault with the usual title and remedy of its code.
    #[must_use]
    pub fn new(code: ProblemCode, detail: impl Into<String>) -> Self {
        let (title, remediation) = texts(code);
        let problem = Problem {
            kind: format!("/problems/{}", code.as_str()),
            title: title.to_owned(),
            status: code.status(),
            code,
            detail: detail.into(),
            request_id: None,
            errors: Vec::new(),
            retryable: code.retryable(),
            remediation: remediation.to_owned(),
            holder: None,
            provider: None,
        };
        Self { problem: Box::new(problem), cause: None, headers: Vec::new() }
    }

    /// 400 with its fields.
    #[must_use]
    pub fn invalid(errors: Vec<FieldError>) -> Self {
        let detail = match errors.as_slice() {
            [] => "the request is not valid".to_owned(),
            [one] => format!("{}: {}", place(&one.pointer), one.message),
            [first, rest @ ..] => format!("{}: {}, and {} more", place(&first.pointer), first.message, rest.len()),
        };
        let mut fault = Self::new(ProblemCode::InvalidRequest, detail);
        fault.problem.errors = errors;
        fault
    }

    /// 404.
    #[must_use]
    pub fn not_found() -> Self {
        Self::new(ProblemCode::NotFound, "there is nothing at this path that this token may see")
    }

    /// Says what to do next instead of the usual remedy.
    #[must_use]
    pub fn remedy(mut self, remediation: impl Into<String>) -> Self {
        self.problem.remediation = remediation.into();
        self
    }

    /// Names what is in the way.
    #[must_use]
    pub fn holder(mut self, holder: Option<String>) -> Self {
        self.problem.holder = holder;
        self
    }

    /// Adds a header.
    #[must_use]
    pub fn header(mut self, name: HeaderName, value: &'static str) -> Self {
        self.headers.push((name, HeaderValue::from_static(value)));
        self
    }

    fn because(mut self, error: &dyn std::error::Error) -> Self {
        let mut text = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            text.push_str(": ");
            text.push_str(&cause.to_string());
            source = cause.source();
        }
        self.cause = Some(text.into());
        self
    }
}

fn place(pointer: &str) -> &str {
    if pointer.is_empty() { "the body" } else { pointer }
}

impl IntoResponse for Fault {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = status.into_response();
        for (name, value) in &self.headers {
            response.headers_mut().append(name.clone(), value.clone());
        }
        response.extensions_mut().insert(self);
        response
    }
}

fn unsatisfiable(findings: Vec<Finding>) -> Fault {
    let errors: Vec<FieldError> = findings
        .into_iter()
        .filter(|finding| finding.severity == Severity::Error)
        .map(|finding| FieldError {
            pointer: finding.pointer,
            message: format!("{}; {}", finding.message, finding.resolve),
            rule: Some(finding.rule),
            source: Some(finding.source),
        })
        .collect();
    let detail =
        errors.first().map_or_else(|| "no configuration satisfies both sides".to_owned(), |e| e.message.clone());
    let mut fault = Fault::new(ProblemCode::Unsatisfiable, detail);
    fault.problem.errors = errors;
    fault
}

impl From<AppError> for Fault {
    fn from(error: AppError) -> Self {
        let text = error.to_string();
        match error {
            AppError::Invalid(errors) => Self::invalid(errors),
            AppError::Unsatisfiable(findings) => unsatisfiable(findings),
            AppError::NotFound => Self::not_found(),
            AppError::NameTaken { holder } => Self::new(ProblemCode::Conflict, text)
                .remedy("Choose another name, or change what has it.")
                .holder(holder),
            AppError::KeyBrought { holder } => Self::new(ProblemCode::Conflict, text)
                .remedy("Look at the connection that it made; for another one, ask for a new key.")
                .holder(Some(holder)),
            AppError::NotPaired => Self::new(ProblemCode::Conflict, text).remedy("Add [coordinator] to tieline.toml."),
            AppError::NotShared => Self::new(ProblemCode::Conflict, text)
                .remedy("Create a connection over another interconnect, and delete this one."),
            AppError::Coordination(error) => error.into(),
            AppError::GroupElsewhere { .. } => {
                Self::new(ProblemCode::Conflict, text).remedy("Name another group, or that attach point.")
            }
            AppError::Protected => {
                Self::new(ProblemCode::Conflict, text).remedy("PATCH `deletionProtection` to false first.")
            }
            AppError::Deleting => {
                Self::new(ProblemCode::Conflict, text).remedy("Wait until it is gone and create another one.")
            }
            AppError::NothingToAcknowledge => Self::new(ProblemCode::Conflict, text)
                .remedy("Do what its `remediation` says; the issue ends when its cause does."),
            AppError::AlreadyApplied { holder } => Self::new(ProblemCode::Conflict, text)
                .remedy("A plan is applied once; make a new one.")
                .holder(Some(holder)),
            AppError::NotApplicable => Self::new(ProblemCode::Conflict, text)
                .remedy("Resolve the findings that are errors and make a new plan."),
            AppError::Stale { .. } => Self::new(ProblemCode::PreconditionFailed, text),
            AppError::PlanExpired { .. } => {
                Self::new(ProblemCode::PreconditionFailed, text).remedy("Make a new plan and apply that.")
            }
            AppError::PlanMoved(errors) => {
                let mut fault =
                    Self::new(ProblemCode::PreconditionFailed, text).remedy("Make a new plan and apply that.");
                fault.problem.errors = errors;
                fault
            }
            AppError::KeyReused => Self::new(ProblemCode::IdempotencyKeyReused, text),
            AppError::CursorTooOld => Self::new(ProblemCode::Gone, text)
                .remedy("Read the lists afresh, then follow the events from the newest cursor."),
            AppError::Spent => Self::new(ProblemCode::Unauthenticated, text).remedy("Ask for a new join token."),
            AppError::NotAsked => Self::new(ProblemCode::Conflict, text).remedy(
                "Read the issue again: it was answered, its cause is gone, or it is about another resource now.",
            ),
            AppError::Contended { .. } => Self::new(ProblemCode::Unavailable, text).header(header::RETRY_AFTER, "1"),
            AppError::Replay(_) | AppError::Seal(_) | AppError::Encode(_) => {
                Self::new(ProblemCode::Internal, "something went wrong here, not in the request").because(&error)
            }
            AppError::Store(ref inner) => stored(inner).because(&error),
        }
    }
}

fn stored(error: &StoreError) -> Fault {
    match error {
        StoreError::Full | StoreError::Unavailable(_) | StoreError::InUse { .. } => {
            Fault::new(ProblemCode::Unavailable, "the store does not answer; nothing was written")
                .header(header::RETRY_AFTER, "5")
        }
        StoreError::NameTaken { .. }
        | StoreError::KeyBrought { .. }
        | StoreError::AllocationTaken { .. }
        | StoreError::StaleGeneration { .. }
        | StoreError::IdempotencyKeyReused
        | StoreError::IdempotencyReplay(_)
        | StoreError::NotFound
        | StoreError::Spent
        | StoreError::NotAsked
        | StoreError::Fenced
        | StoreError::CursorTooOld
        | StoreError::Unusable { .. }
        | StoreError::Decode { .. }
        | StoreError::Invalid { .. }
        | StoreError::Id(_) => Fault::new(ProblemCode::Internal, "something went wrong here, not in the request"),
    }
}

/// 500: a defect here.
#[must_use]
pub(super) fn defect(error: &dyn std::error::Error) -> Fault {
    Fault::new(ProblemCode::Internal, "something went wrong here, not in the request").because(error)
}

impl From<StoreError> for Fault {
    fn from(error: StoreError) -> Self {
        AppError::from(error).into()
    }
}

/// The code of a status that an answer without a problem document has.
#[must_use]
pub(super) fn of_status(status: StatusCode) -> Fault {
    match status {
        StatusCode::NOT_FOUND => Fault::not_found(),
        StatusCode::METHOD_NOT_ALLOWED => {
            Fault::new(ProblemCode::MethodNotAllowed, "this path does not take this method")
        }
        StatusCode::PAYLOAD_TOO_LARGE => Fault::new(ProblemCode::BodyTooLarge, "the body is larger than 256 KiB"),
        StatusCode::UNSUPPORTED_MEDIA_TYPE => {
            Fault::new(ProblemCode::UnsupportedMediaType, "this media type is not taken here")
        }
        status if status.is_client_error() => {
            Fault::new(ProblemCode::InvalidRequest, "the request is not valid HTTP for this path")
        }
        _ => Fault::new(ProblemCode::Internal, "something went wrong here, not in the request"),
    }
}
