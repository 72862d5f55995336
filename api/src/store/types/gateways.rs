//! Gateways, and the tokens with which they join.

use std::collections::BTreeMap;

use tieline_openapi::{
    ids::{AttachPointId, GatewayGroupId, GatewayId, JoinTokenId},
    v1::{Gateway, JoinRequest, Timestamp},
};

use super::{Audit, ConnectionRecord, IdempotencyKey, NewEvent, SavedAnswer};

/// A join token to be written.
#[derive(Debug, Clone)]
pub struct NewJoinToken {
    /// Its id.
    pub id: JoinTokenId,
    /// The group.
    pub group: GatewayGroupId,
    /// In whose network.
    pub attach_point_id: AttachPointId,
    /// When it ends.
    pub expires_at: Timestamp,
    /// SHA-256 of its secret.
    pub hash: [u8; 32],
    /// Who issued it.
    pub audit: Audit,
    /// The key and the answer to save under it.
    pub idempotency: Option<(IdempotencyKey, SavedAnswer)>,
}

/// A gateway to be written.
#[derive(Debug, Clone)]
pub struct NewGateway {
    /// Its id.
    pub id: GatewayId,
    /// What it said of itself.
    pub request: JoinRequest,
    /// SHA-256 of its credential.
    pub credential_hash: [u8; 32],
    /// Who joined, by which right.
    pub audit: Audit,
    /// The event.
    pub event: NewEvent,
    /// When.
    pub at: Timestamp,
}

/// What a gateway's configuration is computed from.
#[derive(Debug, Clone)]
pub struct GatewayInputs {
    /// The gateway.
    pub gateway: Gateway,
    /// Rises whenever any of this changed.
    pub version: u64,
    /// The connections at its attach point that are not gone.
    pub connections: Vec<ConnectionRecord>,
    /// The gateways of all ends of these connections, itself included.
    pub gateways: Vec<Gateway>,
    /// A small number for each gateway of the installation, never used twice: addresses inside the tunnel follow from it.
    pub numbers: BTreeMap<GatewayId, u32>,
}
