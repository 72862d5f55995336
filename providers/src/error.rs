//! Everything that can go wrong with a call to a cloud, as one closed list.

use std::time::Duration;
use tieline_openapi::problem::ProviderDetail;

/// What went wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CallErrorKind {
    /// Too many calls.
    Throttled,
    /// The credential is missing, wrong or expired.
    Unauthenticated,
    /// The credential is good and may not do this.
    Forbidden,
    /// The request can never succeed as it is.
    Invalid,
    /// What the call is about is not there.
    NotFound,
    /// The name, VLAN or slot is held by something else.
    SlotTaken,
    /// Something else is at work on the object: observe again.
    Conflict,
    /// A quota or a capacity is used up.
    Quota,
    /// The cloud answered that it failed (5xx): the call may or may not have had its effect.
    Unavailable,
    /// No answer in time, or the connection broke after the request may have been sent.
    Unknown,
    /// The connection was refused before anything was sent.
    NotSent,
    /// The answer could not be understood; the call may have had its effect.
    Malformed,
}

/// Whether a failed call had an effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It had none: a verdict for the ledger.
    Refused,
    /// Nobody knows: the ledger row stays open.
    Unknown,
}

impl CallErrorKind {
    /// Whether the call may have had an effect. A definite refusal (4xx, throttled, never sent) is a verdict.
    #[must_use]
    pub const fn outcome(self) -> Outcome {
        match self {
            Self::Throttled
            | Self::Unauthenticated
            | Self::Forbidden
            | Self::Invalid
            | Self::NotFound
            | Self::SlotTaken
            | Self::Quota
            | Self::NotSent => Outcome::Refused,
            Self::Conflict | Self::Unavailable | Self::Unknown | Self::Malformed => Outcome::Unknown,
        }
    }
}

/// A failed call.
#[derive(Debug, thiserror::Error)]
#[error("{}: {} ({})", detail.name, detail.message, detail.code)]
pub struct CallError {
    /// What went wrong.
    pub kind: CallErrorKind,
    /// What the cloud said.
    pub detail: ProviderDetail,
    /// How long the cloud asks to wait.
    pub retry_after: Option<Duration>,
    /// The SDK's own error.
    #[source]
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}
