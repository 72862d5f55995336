//! How a command ends: a fixed exit code, and one actionable line for an error.

use std::process::ExitCode;

use tieline_openapi::{
    client::ClientError,
    problem::{Problem, ProblemCode},
};

/// Why a command ends. The numbers are part of the contract with scripts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Done.
    Ok = 0,
    /// Refused, or a defect.
    Failure = 1,
    /// A plan has steps.
    Changes = 2,
    /// Not allowed.
    Denied = 3,
    /// Clashes with something that exists, or the resource moved.
    Conflict = 4,
    /// A cloud refused for good, or waits for a person.
    Provider = 5,
    /// Not done in time; the operation goes on.
    Timeout = 6,
    /// The command line is wrong (`EX_USAGE`).
    Usage = 64,
    /// The service cannot be reached (`EX_UNAVAILABLE`).
    Unreachable = 69,
    /// Stopped by SIGINT or SIGTERM before it was done (128 and the number of SIGINT, as shells count).
    Stopped = 130,
    /// Nobody reads what it prints (128 and the number of SIGPIPE).
    Unread = 141,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// An error with the exit code that goes with it.
#[derive(Debug, thiserror::Error)]
#[error("{line}")]
pub(crate) struct Failure {
    /// How to end.
    pub exit: Exit,
    /// What went wrong and what to do, in one line.
    pub line: String,
}

impl Failure {
    /// A failure with its line.
    pub(crate) fn new(exit: Exit, line: impl Into<String>) -> Self {
        Self { exit, line: line.into() }
    }
}

/// The exit code of a problem that the service answered.
pub(crate) const fn of_problem(problem: &Problem) -> Exit {
    match problem.code {
        ProblemCode::Unauthenticated | ProblemCode::Forbidden => Exit::Denied,
        ProblemCode::Conflict
        | ProblemCode::PreconditionFailed
        | ProblemCode::PreconditionRequired
        | ProblemCode::IdempotencyKeyReused => Exit::Conflict,
        ProblemCode::Unavailable | ProblemCode::TooManyRequests => Exit::Unreachable,
        ProblemCode::InvalidRequest
        | ProblemCode::Unsatisfiable
        | ProblemCode::NotFound
        | ProblemCode::MethodNotAllowed
        | ProblemCode::UnsupportedMediaType
        | ProblemCode::Gone
        | ProblemCode::BodyTooLarge
        | ProblemCode::Internal => Exit::Failure,
    }
}

/// The exit code of a failed call.
fn of_client(error: &ClientError) -> Exit {
    match error {
        ClientError::Problem { problem, .. } => of_problem(problem),
        ClientError::NoToken | ClientError::Token => Exit::Denied,
        ClientError::Timeout { .. } => Exit::Timeout,
        ClientError::Transport { .. } | ClientError::Status { .. } | ClientError::Stream { .. } => Exit::Unreachable,
        ClientError::Url { .. } => Exit::Usage,
        ClientError::Setup(_)
        | ClientError::TooLarge { .. }
        | ClientError::Decode { .. }
        | ClientError::Header { .. } => Exit::Failure,
    }
}

/// The exit code of any error of a command.
pub(crate) fn of(error: &anyhow::Error) -> Exit {
    if let Some(failure) = error.downcast_ref::<Failure>() {
        return failure.exit;
    }
    error.downcast_ref::<ClientError>().map_or(Exit::Failure, of_client)
}

/// An error in one line that says what to do.
pub(crate) fn line(error: &anyhow::Error) -> String {
    if let Some(error) = error.downcast_ref::<ClientError>() {
        return error.line();
    }
    let mut line = String::new();
    for cause in error.chain() {
        let text = cause.to_string();
        if line.ends_with(&text) {
            continue;
        }
        if !line.is_empty() {
            line.push_str(": ");
        }
        line.push_str(text.trim_end_matches('.'));
    }
    line.replace('\n', " ")
}
