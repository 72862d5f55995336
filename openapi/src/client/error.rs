//! Why a call of the client failed, and what to do.

use std::time::Duration;

use crate::problem::{Problem, ProblemCode};

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The address of the API cannot be used.
    #[error("`{url}` is not the address of an API: {reason}")]
    Url {
        /// As given.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The token cannot stand in a header.
    #[error("the token holds characters that no token has")]
    Token,
    /// The environment names no token.
    #[error("no token: TIELINE_TOKEN is not set")]
    NoToken,
    /// The HTTP client could not be made.
    #[error("cannot set up HTTPS")]
    Setup(#[source] reqwest::Error),
    /// The API was not reached, or the connection broke.
    #[error("{method} {path}: no answer from {base}")]
    Transport {
        /// The method.
        method: reqwest::Method,
        /// The path.
        path: String,
        /// The API.
        base: String,
        /// Why.
        #[source]
        source: reqwest::Error,
    },
    /// The API answered with a problem document.
    #[error("{}", problem.detail)]
    Problem {
        /// What it said.
        problem: Box<Problem>,
        /// How long it asks to wait.
        retry_after: Option<Duration>,
    },
    /// The answer was an error, and no problem document: something else answered.
    #[error("{method} {path}: HTTP {status} from {base}, which does not look like Tieline")]
    Status {
        /// The method.
        method: reqwest::Method,
        /// The path.
        path: String,
        /// The API.
        base: String,
        /// The HTTP status.
        status: u16,
    },
    /// The answer is larger than any answer of the API.
    #[error("{path}: the answer is larger than {limit} bytes")]
    TooLarge {
        /// The path.
        path: String,
        /// The bound.
        limit: usize,
    },
    /// The answer could not be understood.
    #[error("{path}: the answer is not what this version expects")]
    Decode {
        /// The path.
        path: String,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// A header of the answer is missing or odd.
    #[error("{path}: the answer has no usable `{header}` header")]
    Header {
        /// The path.
        path: String,
        /// The header.
        header: &'static str,
    },
    /// A stream fell silent or broke off.
    #[error("{path}: the stream {reason}")]
    Stream {
        /// The path.
        path: String,
        /// What happened to it.
        reason: String,
    },
    /// An operation did not end in time.
    #[error("operation {operation} has not ended yet")]
    Timeout {
        /// The operation.
        operation: crate::ids::OperationId,
    },
}

impl ClientError {
    /// What the API said, if it did.
    #[must_use]
    pub fn problem(&self) -> Option<&Problem> {
        match self {
            Self::Problem { problem, .. } => Some(problem),
            Self::Url { .. }
            | Self::Token
            | Self::NoToken
            | Self::Setup(_)
            | Self::Transport { .. }
            | Self::Status { .. }
            | Self::TooLarge { .. }
            | Self::Decode { .. }
            | Self::Header { .. }
            | Self::Stream { .. }
            | Self::Timeout { .. } => None,
        }
    }

    /// The code of the problem, if the API gave one.
    #[must_use]
    pub fn code(&self) -> Option<ProblemCode> {
        self.problem().map(|problem| problem.code)
    }

    /// Whether the same call may succeed later without a change.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Problem { problem, .. } => problem.retryable,
            Self::Transport { source, .. } => !source.is_builder(),
            // A proxy or a load balancer in front of an API that is just starting.
            Self::Status { status, .. } => matches!(status, 429 | 502..=504),
            Self::Stream { .. } | Self::Timeout { .. } => true,
            Self::Url { .. }
            | Self::Token
            | Self::NoToken
            | Self::Setup(_)
            | Self::TooLarge { .. }
            | Self::Decode { .. }
            | Self::Header { .. } => false,
        }
    }

    /// How long the API asks to wait.
    #[must_use]
    pub const fn retry_after(&self) -> Option<Duration> {
        if let Self::Problem { retry_after, .. } = self { *retry_after } else { None }
    }

    /// One line that says what went wrong, where, and what to do next.
    #[must_use]
    pub fn line(&self) -> String {
        let next = match self {
            Self::Problem { problem, .. } => return problem_line(problem),
            Self::Url { .. } => "set TIELINE_URL to something like http://127.0.0.1:7080".to_owned(),
            Self::Token => "copy the token again, without quotes or line breaks".to_owned(),
            Self::NoToken => "set it to the content of tieline.token, which `tieline serve` writes".to_owned(),
            Self::Setup(_) => "check the machine's certificates".to_owned(),
            Self::Transport { base, source, .. } if source.is_timeout() => {
                format!("{base} is slow; try again, or look at its log")
            }
            Self::Transport { base, .. } => format!("check that `tieline serve` runs at {base} (TIELINE_URL)"),
            Self::Status { base, .. } => format!("check that {base} (TIELINE_URL) is the API itself"),
            Self::TooLarge { .. } => "ask for a smaller page".to_owned(),
            Self::Decode { .. } | Self::Header { .. } => "use a client of the API's own version".to_owned(),
            Self::Stream { .. } => "it is taken up again where it stopped".to_owned(),
            Self::Timeout { operation } => format!("it goes on; look at /v1/operations/{operation}"),
        };
        let mut line = self.to_string();
        // The innermost cause says it in the fewest words: connection refused, certificate unknown.
        let mut cause = std::error::Error::source(self);
        let mut innermost = None;
        while let Some(error) = cause {
            innermost = Some(error.to_string());
            cause = error.source();
        }
        if let Some(innermost) = innermost {
            line.push_str(&format!(" ({innermost})"));
        }
        one_line(&format!("{line}; {next}"))
    }
}

fn problem_line(problem: &Problem) -> String {
    let mut line = problem.detail.clone();
    for error in &problem.errors {
        if !line.contains(&error.message) {
            line.push_str(&format!("; {}: {}", error.pointer, error.message));
        }
    }
    if let Some(provider) = &problem.provider {
        line.push_str(&format!("; {} said {}: {}", provider.name, provider.code, provider.message));
    }
    if let Some(holder) = &problem.holder {
        line.push_str(&format!(" (held by {holder})"));
    }
    if !problem.remediation.is_empty() && !line.contains(&problem.remediation) {
        // A sentence of its own, or the end of this one.
        let sentence = problem.remediation.starts_with(char::is_uppercase);
        let stop = if !sentence {
            "; "
        } else if line.ends_with('.') {
            " "
        } else {
            ". "
        };
        line.push_str(&format!("{stop}{}", problem.remediation));
    }
    if let Some(id) = problem.request_id.as_deref().filter(|_| problem.code == ProblemCode::Internal) {
        line.push_str(&format!(" (request {id})"));
    }
    one_line(&line)
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
