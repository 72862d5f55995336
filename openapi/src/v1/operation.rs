//! Operation: one change on its way.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Timestamp;
use crate::{
    ids::{ConnectionId, OperationId},
    problem::{Problem, ProviderDetail},
};

/// What the operation does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum OperationKind {
    /// Builds a connection.
    Create,
    /// Changes it.
    Update,
    /// Moves it to another interconnect.
    Migrate,
    /// Takes it down.
    Delete,
}

/// How far it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum OperationState {
    /// At work.
    Running,
    /// Waits for a cloud or a clock.
    Waiting,
    /// Waits for a person.
    ActionRequired,
    /// Done.
    Succeeded,
    /// Given up; `problem` says why.
    Failed,
    /// A newer mutation took over.
    Superseded,
}

impl OperationState {
    /// Whether nothing more will happen.
    #[must_use]
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Superseded)
    }
}

/// How far one stage is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum StageState {
    /// Not begun.
    Pending,
    /// At work.
    Running,
    /// Done.
    Succeeded,
    /// Failed.
    Failed,
}

/// One stage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Stage {
    /// Unique within the operation, for example `ch1/b/google.interconnectAttachment`.
    pub name: String,
    /// How far it is.
    pub state: StageState,
    /// When it began.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
    /// One sentence.
    pub detail: String,
    /// What the cloud last said, if that was an error.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub provider: Option<ProviderDetail>,
}

/// One change on its way.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Operation {
    /// UUID v7.
    pub id: OperationId,
    /// What it does.
    pub kind: OperationKind,
    /// To what.
    pub target: ConnectionId,
    /// For which generation of the intent.
    pub generation: u64,
    /// How far it is.
    pub state: OperationState,
    /// Its stages, in the order in which they began.
    pub stages: Vec<Stage>,
    /// Why it failed or waits for a person.
    #[schema(value_type = Option<Problem>)]
    pub problem: Option<Box<Problem>>,
    /// When it was accepted.
    pub created_at: Timestamp,
    /// When it reached a final state.
    pub finished_at: Option<Timestamp>,
}

/// A page of operations.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct OperationList {
    /// The page.
    pub operations: Vec<Operation>,
    /// Give it back as `pageToken` for the next page; absent on the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_page_token: Option<String>,
}
