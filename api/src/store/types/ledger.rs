//! The ledger.

use tieline_openapi::{
    ids::{ConnectionId, ProjectId},
    v1::Timestamp,
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
    /// How long ago the instance was retired, by the store's time, in milliseconds. None: it is still wanted or on its way
    /// out under a connection.
    pub retired_ms_ago: Option<u64>,
    /// When its first create was written.
    pub first_create_at: Option<Timestamp>,
    /// Whether a call about it is without verdict.
    pub open: bool,
    /// Whether a create of it was given up that may yet take its slot. While it is live, its connection looks there itself.
    pub may_take_its_slot: bool,
}
