//! What is remembered of proofs that peers showed.

use async_trait::async_trait;
use tieline_openapi::{coordinator::ResourceId, ids::ProjectId, v1::Timestamp};
use uuid::Uuid;

use super::StoreError;

/// The transactions of proofs. Each method is one.
#[async_trait]
pub trait Proofs: Send + Sync {
    /// Remembers that a peer showed something; false where it has shown it before. Of two that show it at once, one is the
    /// first. It is forgotten some time after `ends_at`.
    async fn use_once(&self, peer: &ResourceId, digest: [u8; 32], ends_at: Timestamp) -> Result<bool, StoreError>;

    /// The account of a connection at the peer. Where none is known yet, it is `first` from now on.
    async fn account(&self, peer: &ResourceId, uuid: Uuid, first: &str) -> Result<String, StoreError>;

    /// The project that a connection with a peer belongs to, gone or not; `None` where it is nobody's.
    async fn project_of(&self, peer: &ResourceId, uuid: Uuid) -> Result<Option<ProjectId>, StoreError>;

    /// Forgets what ended long ago, and accounts of connections that are gone; at most `rows` of each.
    async fn forget_proofs(&self, rows: u32) -> Result<(), StoreError>;
}
