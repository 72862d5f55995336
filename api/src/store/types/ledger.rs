//! The ledger.

use tieline_openapi::{
    ids::{ConnectionId, ProjectId},
    v1::{Timestamp, Verb},
};
use tieline_providers::ResourceKey;

/// What the ledger knows of an instance.
#[derive(Debug, Clone, PartialEq)]
pub struct LedgerFacts {
    /// The connection.
    pub connection_id: ConnectionId,
    /// Its project.
    pub project: ProjectId,
    /// Which resource.
    pub key: ResourceKey,
    /// The cloud's id that was recorded.
    pub cloud_id: Option<String>,
    /// Whether the instance is still wanted or on its way out under a connection.
    pub live: bool,
    /// When its first create was written.
    pub first_create_at: Option<Timestamp>,
    /// Whether a call about it is without verdict.
    pub open: bool,
    /// What the last call did.
    pub last_verb: Option<Verb>,
}
