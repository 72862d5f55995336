//! Gateways, and the tokens with which they join.

use std::collections::BTreeMap;

use tieline_openapi::{
    ids::{AttachPointId, GatewayGroupId, GatewayId, JoinTokenId},
    v1::{Gateway, JoinRequest, Lane, Timestamp},
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
    /// Its preshared key with each of its peers that it has one with, or that is losing one.
    pub keys: BTreeMap<GatewayId, TunnelKey>,
    /// The lane in its kernel of each peer that has one for this gateway.
    pub kernel_lanes: BTreeMap<GatewayId, Lane>,
}

/// The preshared key of the tunnels between two gateways, sealed; `None` is no key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TunnelKey {
    /// Rises with every change; the key before is of the one before.
    pub generation: u32,
    /// The key.
    pub sealed: Option<Vec<u8>>,
    /// Whether one of the two may not have heard of it yet.
    pub changing: bool,
    /// Then, the key before.
    pub former: Option<Vec<u8>>,
}

/// Two gateways whose preshared key has something due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TunnelKeyDue {
    /// Which two, the lesser id first.
    pub gateways: [GatewayId; 2],
    /// The generation of their key; 0: they have none yet.
    pub generation: u32,
    /// Whether it was being changed, and now both have heard of it. If not, it is old, or there is none.
    pub changing: bool,
    /// Whether they have a key.
    pub has_key: bool,
}

/// What becomes of a preshared key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TunnelKeyChange {
    /// The next generation: another key, or none any more.
    Begin {
        /// The key.
        sealed: Option<Vec<u8>>,
    },
    /// Both have heard of the change: the key before is forgotten.
    Settle,
    /// Both have heard that there is none any more.
    Forget,
}
