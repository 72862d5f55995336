//! Why a use case did not do what it was asked.

use tieline_openapi::{problem::FieldError, v1::Finding, v1::Timestamp};

use crate::{
    coordinator::CoordinationError,
    secrets::SecretError,
    store::{SavedAnswer, StoreError},
};

/// Why a use case did not do what it was asked. Every variant has its own problem document.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// Fields of the request are wrong.
    #[error("the request is not valid")]
    Invalid(Vec<FieldError>),
    /// The intent is well formed and no configuration meets it.
    #[error("no configuration satisfies both sides")]
    Unsatisfiable(Vec<Finding>),
    /// Not there, or not visible to the caller.
    #[error("there is nothing here")]
    NotFound,
    /// A name is taken.
    #[error("the name is taken")]
    NameTaken {
        /// What holds it.
        holder: Option<String>,
    },
    /// An activation key has made a connection already.
    #[error("the activation key has made a connection already")]
    KeyBrought {
        /// Which.
        holder: String,
    },
    /// Nothing is shared with another provider.
    #[error("this installation is not paired with any provider")]
    NotPaired,
    /// What is asked for is only for connections that are shared with a peer.
    #[error("only a connection that is shared with another provider moves between interconnects")]
    NotShared,
    /// The other provider, or what is agreed with it, stands in the way.
    #[error(transparent)]
    Coordination(CoordinationError),
    /// The group's gateways stand elsewhere.
    #[error("the gateway group belongs to attach point {attach_point}")]
    GroupElsewhere {
        /// Where.
        attach_point: String,
    },
    /// `deletionProtection` is on.
    #[error("the connection is protected against deletion")]
    Protected,
    /// The connection is being deleted.
    #[error("the connection is being deleted")]
    Deleting,
    /// The issue ends by itself when its cause does, or has ended.
    #[error("there is nothing about this issue that an acknowledgement would change")]
    NothingToAcknowledge,
    /// The plan has been applied.
    #[error("the plan has been applied")]
    AlreadyApplied {
        /// To what.
        holder: String,
    },
    /// The plan has errors.
    #[error("the plan cannot be applied: it has findings that are errors")]
    NotApplicable,
    /// The resource moved since it was read.
    #[error("generation {wanted} was expected, generation {actual} is there")]
    Stale {
        /// As the caller knows it.
        wanted: u64,
        /// As it is.
        actual: u64,
    },
    /// The plan is too old.
    #[error("the plan could be applied until {at}")]
    PlanExpired {
        /// Until when.
        at: Timestamp,
    },
    /// What the plan was computed from has moved.
    #[error("what the plan was computed from has moved")]
    PlanMoved(Vec<FieldError>),
    /// The idempotency key was used with another request.
    #[error("the idempotency key was used with another request")]
    KeyReused,
    /// The idempotency key's first request has committed in the meantime.
    #[error("the idempotency key was used already")]
    Replay(Box<SavedAnswer>),
    /// Others took what was chosen, again and again.
    #[error("what was chosen was taken by others {tries} times in a row")]
    Contended {
        /// How often.
        tries: u32,
    },
    /// The event cursor is too old.
    #[error("the cursor is older than the oldest event that is kept")]
    CursorTooOld,
    /// A one-time right was used or has ended.
    #[error("this right was used already or has ended")]
    Spent,
    /// The issue does not ask for what was told.
    #[error("the issue does not ask this, or not any more")]
    NotAsked,
    /// A secret could not be sealed.
    #[error("a secret could not be sealed")]
    Seal(#[source] SecretError),
    /// A document could not be written as JSON.
    #[error("a document could not be written as JSON")]
    Encode(#[from] serde_json::Error),
    /// The store failed.
    #[error("the store failed")]
    Store(#[source] StoreError),
}

impl From<StoreError> for AppError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::NotFound => Self::NotFound,
            StoreError::NameTaken { holder } => Self::NameTaken { holder: Some(holder.to_string()) },
            StoreError::KeyBrought { holder } => Self::KeyBrought { holder: holder.to_string() },
            StoreError::StaleGeneration { wanted, actual } => Self::Stale { wanted, actual },
            StoreError::IdempotencyKeyReused => Self::KeyReused,
            StoreError::IdempotencyReplay(answer) => Self::Replay(answer),
            StoreError::CursorTooOld => Self::CursorTooOld,
            StoreError::Spent => Self::Spent,
            StoreError::NotAsked => Self::NotAsked,
            other @ (StoreError::AllocationTaken { .. }
            | StoreError::Fenced
            | StoreError::InUse { .. }
            | StoreError::Unusable { .. }
            | StoreError::Decode { .. }
            | StoreError::Invalid { .. }
            | StoreError::Id(_)
            | StoreError::Full
            | StoreError::Unavailable(_)) => Self::Store(other),
        }
    }
}

impl From<CoordinationError> for AppError {
    fn from(error: CoordinationError) -> Self {
        if let CoordinationError::Store(error) = error { error.into() } else { Self::Coordination(error) }
    }
}

/// One wrong field, by its JSON pointer.
#[must_use]
pub fn field(pointer: impl Into<String>, message: impl Into<String>) -> FieldError {
    FieldError { pointer: pointer.into(), message: message.into(), rule: None, source: None }
}
