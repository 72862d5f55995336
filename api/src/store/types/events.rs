//! Events.

use tieline_openapi::{ids::ProjectId, v1::Timestamp};

/// An event to be written; its cursor is drawn inside the transaction.
#[derive(Debug, Clone)]
pub struct NewEvent {
    /// Who may see it.
    pub project: ProjectId,
    /// When.
    pub time: Timestamp,
    /// Dotted type.
    pub kind: String,
    /// About what.
    pub subject: String,
    /// The generation of the subject.
    pub generation: Option<u64>,
    /// Who or what caused it.
    pub cause: String,
    /// More; never a secret.
    pub data: serde_json::Value,
}
