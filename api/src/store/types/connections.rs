//! Connections.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tieline_openapi::{
    coordinator::ResourceId,
    ids::{ChannelId, ConnectionId, GatewayId, IssueId, OperationId, ProjectId},
    v1::{AddressFamily, ConnectionIntent, ConnectionKind, ConnectionState, Operation, Timestamp},
};
use uuid::Uuid;

use super::{Allocation, Audit, IdempotencyKey, KeptCondition, NewEvent, Reported, SavedAnswer, SealedSecret};
use crate::plan::{
    coordinate::{self, Reason},
    negotiate::{Negotiated, NegotiatedChannel},
    step::{Instance, ProviderCall},
};

/// A connection to be written.
#[derive(Debug, Clone)]
pub struct NewConnection {
    /// Its id.
    pub id: ConnectionId,
    /// Its project.
    pub project: ProjectId,
    /// Which kind.
    pub kind: ConnectionKind,
    /// The intent.
    pub intent: ConnectionIntent,
    /// What was negotiated.
    pub negotiated: Negotiated,
    /// What it takes.
    pub allocations: Vec<Allocation>,
    /// Its secrets.
    pub secrets: Vec<SealedSecret>,
    /// The first operation.
    pub operation: Operation,
    /// The first event.
    pub event: NewEvent,
    /// Who.
    pub audit: Audit,
    /// The key and the answer to save under it.
    pub idempotency: Option<(IdempotencyKey, SavedAnswer)>,
    /// With whom it is shared, and the UUID that both know it by.
    pub shared: Option<(ResourceId, Uuid)>,
    /// When.
    pub at: Timestamp,
}

/// With whom a connection is shared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SharedLink {
    /// The peer.
    pub peer: ResourceId,
    /// The UUID that both know it by.
    pub uuid: Uuid,
    /// Why the protocol last ended one of its places, where that was not on the way to another one.
    pub ended: Option<Reason>,
    /// How it stands with the peer: whoever read the record looks that up, where the peer is configured.
    pub standing: Option<coordinate::Standing>,
}

/// A change of a connection.
#[derive(Debug, Clone)]
pub struct ConnectionChange {
    /// The connection.
    pub id: ConnectionId,
    /// Its project.
    pub project: ProjectId,
    /// The generation that the caller knows.
    pub expected_generation: u64,
    /// What becomes of it.
    pub to: ChangeTo,
    /// The new operation, which supersedes the running one.
    pub operation: Operation,
    /// The event.
    pub event: NewEvent,
    /// Who.
    pub audit: Audit,
    /// The key and the answer to save under it.
    pub idempotency: Option<(IdempotencyKey, SavedAnswer)>,
    /// When.
    pub at: Timestamp,
}

/// What becomes of a connection.
#[derive(Debug, Clone)]
pub enum ChangeTo {
    /// Another intent; new allocations are added, what is no longer wanted is freed by the engine.
    Intent {
        /// The intent.
        intent: Box<ConnectionIntent>,
        /// What was negotiated for it.
        negotiated: Box<Negotiated>,
        /// What it takes beyond what it has.
        allocations: Vec<Allocation>,
        /// Secrets of new channels or generations.
        secrets: Vec<SealedSecret>,
    },
    /// Another place of what is shared with a peer is wanted, and the intent stays.
    Place,
    /// Its deletion is wanted.
    Deletion,
}

/// One connection as stored.
#[derive(Debug, Clone)]
pub struct ConnectionRecord {
    /// Its id.
    pub id: ConnectionId,
    /// Its project.
    pub project: ProjectId,
    /// Which kind.
    pub kind: ConnectionKind,
    /// With whom it is shared; none between accounts of ours.
    pub shared: Option<SharedLink>,
    /// The intent.
    pub intent: ConnectionIntent,
    /// Counts changes of the intent.
    pub generation: u64,
    /// The generation that the clouds were last brought to.
    pub observed_generation: u64,
    /// What was negotiated.
    pub negotiated: Negotiated,
    /// What the engine found.
    pub status: EngineStatus,
    /// The instances that are not gone for good.
    pub instances: Vec<Instance>,
    /// The latest samples of its paths.
    pub samples: Vec<Reported>,
    /// Since when its paths' conditions have had their status, as of the last report.
    pub path_conditions: Vec<KeptCondition>,
    /// Which end each gateway that reported serves.
    pub gateway_ends: BTreeMap<GatewayId, tieline_openapi::v1::End>,
    /// The latest operation.
    pub last_operation: OperationId,
    /// When it was accepted.
    pub created_at: Timestamp,
    /// When the intent last changed.
    pub updated_at: Timestamp,
    /// When its deletion was asked for.
    pub deletion_requested_at: Option<Timestamp>,
    /// The last generation of each channel that it once had and does not want any more; only of one that is read by itself.
    pub given_up: BTreeMap<ChannelId, u32>,
}

/// What the engine found, as one document; written only when it changed.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EngineStatus {
    /// The state as of the last pass; the view computes the rest.
    pub state: Option<ConnectionState>,
    /// Why, when a person must act.
    pub reason: Option<StatusReason>,
    /// When every wanted resource was first usable.
    pub provisioned_at: Option<Timestamp>,
    /// When every channel's BGP was first Established on both sides.
    pub established_at: Option<Timestamp>,
    /// When it was first VERIFIED.
    pub verified_at: Option<Timestamp>,
    /// Since when what the clouds report has had its status.
    pub conditions: Vec<KeptCondition>,
    /// Walk-backs by channel.
    pub walk_backs: BTreeMap<String, u32>,
    /// The generation of the intent that the walk-backs are counted under: another intent starts afresh.
    pub walk_backs_generation: u64,
    /// The issues that stand because of this connection: code and title.
    pub issues: BTreeMap<String, String>,
}

/// Why a connection waits.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StatusReason {
    /// Stable code.
    pub code: String,
    /// One sentence.
    pub message: String,
    /// What to do.
    pub next_step: String,
    /// Since when.
    pub since: Timestamp,
    /// The issue that was raised.
    pub issue: Option<IssueId>,
}

/// Which connections to list, by what is stored.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ConnectionFilter {
    /// Only with this name.
    pub name: Option<String>,
    /// Only in this environment.
    pub environment: Option<String>,
    /// Only with these labels.
    pub labels: BTreeMap<String, String>,
    /// Only with an IP family.
    pub family: Option<AddressFamily>,
}

/// A connection with everything that a plan of it starts from, all of one moment.
#[derive(Debug, Clone)]
pub struct Standing {
    /// The connection.
    pub record: ConnectionRecord,
    /// All its channels' configurations that are not walked back for good, of every generation.
    pub channels: Vec<NegotiatedChannel>,
    /// The ledger of its instances, oldest first.
    pub calls: Vec<ProviderCall>,
}
