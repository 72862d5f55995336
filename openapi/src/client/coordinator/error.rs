//! Why a call to a peer failed, and what that says of what was asked.

use std::time::Duration;

use crate::{coordinator::OperationId, problem::Problem};

/// Why a request could not be signed.
#[derive(Debug, thiserror::Error)]
#[error("no credential for the peer")]
pub struct AuthorizeError(#[source] pub Box<dyn std::error::Error + Send + Sync>);

/// What a peer refused with.
#[derive(Debug, Clone, PartialEq)]
pub struct Refusal {
    /// The HTTP status.
    pub status: u16,
    /// What it said, if it said it as a problem document (RFC 9457). The specification leaves the shape of errors open.
    pub problem: Option<Box<Problem>>,
    /// What it said otherwise: the beginning, in one line, for people.
    pub text: String,
    /// How long it asks to wait.
    pub retry_after: Option<Duration>,
}

impl Refusal {
    pub(super) fn read(status: u16, body: &[u8], retry_after: Option<Duration>) -> Self {
        let problem: Option<Box<Problem>> = serde_json::from_slice(body).ok();
        let text = problem.as_ref().map_or_else(|| String::from_utf8_lossy(body).into_owned(), |p| p.detail.clone());
        let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
        let text = words.chars().filter(|c| !c.is_control()).take(300).collect();
        Self { status, problem, text, retry_after }
    }
}

/// What a failed call says of the change that it asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallVerdict {
    /// It never left this machine.
    NotSent,
    /// The peer refused it: it did not happen.
    Refused,
    /// It may have happened: only looking tells.
    Open,
}

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum CoordinatorError {
    /// The peer's address cannot be used.
    #[error("`{url}` is not the address of a peer: {reason}")]
    Url {
        /// As given.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The HTTP client could not be made.
    #[error("cannot set up TLS to the peer: check its certificates and ours")]
    Setup(#[source] reqwest::Error),
    /// The request could not be written.
    #[error("{}: the request cannot be written as JSON", operation.as_str())]
    Encode {
        /// The operation.
        operation: OperationId,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// The request could not be signed.
    #[error("{}: the request cannot be signed: check the peer's credential", operation.as_str())]
    Authorize {
        /// The operation.
        operation: OperationId,
        /// Why.
        #[source]
        source: AuthorizeError,
    },
    /// The peer was not reached, or the connection broke.
    #[error("{}: no answer from {base}", operation.as_str())]
    Transport {
        /// The operation.
        operation: OperationId,
        /// The peer.
        base: String,
        /// Why.
        #[source]
        source: reqwest::Error,
    },
    /// The peer refused.
    #[error("{}: the peer answered {}: {}", operation.as_str(), refusal.status, refusal.text)]
    Refused {
        /// The operation.
        operation: OperationId,
        /// With what.
        refusal: Refusal,
    },
    /// The answer is larger than any answer should be.
    #[error("{}: the answer is larger than {limit} bytes", operation.as_str())]
    TooLarge {
        /// The operation.
        operation: OperationId,
        /// The bound.
        limit: usize,
    },
    /// The answer could not be understood.
    #[error("{}: the answer is not what the specification says", operation.as_str())]
    Decode {
        /// The operation.
        operation: OperationId,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// A list does not end.
    #[error("{}: the list has more than {limit} items, or its pages go round in a circle", operation.as_str())]
    Endless {
        /// The operation.
        operation: OperationId,
        /// The bound.
        limit: usize,
    },
}

impl CoordinatorError {
    /// What this says of a change that was asked for. Only a definite refusal (4xx but 408, RFC 9110 section 15.5.9: the
    /// server gave up waiting) says that nothing happened; anything after the first byte may have happened.
    #[must_use]
    pub fn verdict(&self) -> CallVerdict {
        match self {
            Self::Url { .. } | Self::Setup(_) | Self::Encode { .. } | Self::Authorize { .. } => CallVerdict::NotSent,
            Self::Transport { source, .. } if source.is_builder() || source.is_connect() => CallVerdict::NotSent,
            Self::Refused { refusal, .. } if (400..500).contains(&refusal.status) && refusal.status != 408 => {
                CallVerdict::Refused
            }
            Self::Refused { .. }
            | Self::Transport { .. }
            | Self::TooLarge { .. }
            | Self::Decode { .. }
            | Self::Endless { .. } => CallVerdict::Open,
        }
    }

    /// What the peer refused with, if it did.
    #[must_use]
    pub const fn refusal(&self) -> Option<&Refusal> {
        if let Self::Refused { refusal, .. } = self { Some(refusal) } else { None }
    }
}
