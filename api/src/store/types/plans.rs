//! Plans.

use tieline_openapi::{
    ids::{ConnectionId, ProjectId},
    v1::Plan,
};

use super::{IdempotencyKey, SavedAnswer};

/// A plan to save.
#[derive(Debug, Clone)]
pub struct NewPlan {
    /// Whose.
    pub project: ProjectId,
    /// The connection that it is about; of a create, the one that applying it makes.
    pub connection_id: ConnectionId,
    /// The plan, with its id.
    pub plan: Plan,
    /// What is kept to apply it exactly.
    pub request: serde_json::Value,
    /// The key under which the answer is given again, and the answer.
    pub idempotency: Option<(IdempotencyKey, SavedAnswer)>,
}
