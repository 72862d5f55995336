//! Connection: the customer's intent, and what became of it.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{ConnectionIntent, Path, Placement, Timestamp};
use crate::{
    coordinator::Sensitive,
    ids::{ConnectionId, OperationId, ProjectId},
    units::Mtu,
};

/// Which kind of private link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ConnectionKind {
    /// The customer's own circuits meet in a facility.
    Direct,
    /// Both clouds sell the pair as a product.
    Managed,
    /// The peer speaks the Connection Coordinator API.
    Coordinated,
    /// One end has no API.
    Assisted,
}

/// The state of a connection: one pure function of everything else. Open: treat an unknown value as transitional.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ConnectionState {
    /// Accepted; nothing was asked of a cloud yet.
    Pending,
    /// Being built.
    Provisioning,
    /// Everything that was asked for is there.
    Active,
    /// Carries traffic, with less than was asked for.
    Degraded,
    /// Being changed.
    Updating,
    /// Waits for a person; `stateReason` says for what.
    ActionRequired,
    /// Being taken down.
    Deleting,
}

/// Why the state is what it is, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct StateReason {
    /// Stable code.
    pub code: String,
    /// One sentence.
    pub message: String,
    /// Since when.
    pub since: Timestamp,
    /// What happens, or what to do, next.
    pub next_step: String,
    /// When the next state is expected.
    pub expected_by: Option<Timestamp>,
}

/// The administrative switch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum AdminState {
    /// On.
    #[default]
    Enabled,
    /// Off.
    Disabled,
}

/// Whether forwarding was proven.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum VerificationState {
    /// Not proven.
    #[default]
    Unverified,
    /// Host-to-host forwarding in both directions where both ends have gateways, else BGP Established as each provider
    /// itself reports it. A coordinated connection also needs the specification's handshake: both providers have told each
    /// other that every channel works.
    Verified,
}

/// What a condition is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
pub enum ConditionType {
    /// A WireGuard session is up.
    TunnelUp,
    /// Every channel's BGP session is Established as both providers report it.
    BgpEstablished,
    /// Packets cross in both directions.
    Forwarding,
    /// Every probed path is within bounds.
    ProbesGreen,
    /// What does not carry traffic now could.
    StandbyHealthy,
    /// Both clouds hold what was asked of them.
    InSync,
}

/// Three-valued truth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ConditionStatus {
    /// Holds.
    True,
    /// Does not hold.
    False,
    /// Not observed yet.
    Unknown,
}

/// One condition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// What it is about.
    #[serde(rename = "type")]
    pub kind: ConditionType,
    /// Whether it holds.
    pub status: ConditionStatus,
    /// Why, in a word.
    pub reason: String,
    /// Since when.
    pub since: Timestamp,
}

/// How soon a silent failure is noticed, per direction, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct DetectMs {
    /// End b notices that a fell silent.
    pub a_to_b: u32,
    /// End a notices that b fell silent.
    pub b_to_a: u32,
}

/// What holds end to end: the minimum over all paths.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Effective {
    /// MTU of the connection in bytes.
    pub mtu_bytes: Mtu,
    /// MTU of the private path.
    pub private_mtu_bytes: Mtu,
    /// MTU inside the tunnel; null without a tunnel.
    pub tunnel_mtu_bytes: Option<Mtu>,
    /// TCP MSS that gateways clamp to.
    pub mss_bytes: u16,
    /// Detection time of the private path's routing.
    pub detect_ms: DetectMs,
}

/// A Connection: the intent and what became of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Connection {
    /// UUID v7.
    pub id: ConnectionId,
    /// The project.
    pub project: ProjectId,
    /// The intent.
    #[serde(flatten)]
    pub intent: ConnectionIntent,
    /// Counts changes of the intent; the ETag is `"g<generation>"`.
    pub generation: u64,
    /// The generation that the clouds were last brought to.
    pub observed_generation: u64,
    /// Which kind of link.
    pub kind: ConnectionKind,
    /// The state.
    pub state: ConnectionState,
    /// Why.
    pub state_reason: StateReason,
    /// On or off.
    pub admin_state: AdminState,
    /// Whether forwarding was proven.
    pub verification_state: VerificationState,
    /// The id that both clouds of a managed or coordinated link share.
    pub shared_connection_uuid: Option<uuid::Uuid>,
    /// The latest operation.
    pub last_operation_id: OperationId,
    /// The conditions.
    pub conditions: Vec<Condition>,
    /// What holds end to end; null until negotiated.
    pub effective: Option<Effective>,
    /// Where it runs.
    pub placements: Vec<Placement>,
    /// The ways between the gateways.
    pub paths: Vec<Path>,
    /// When it was accepted.
    pub created_at: Timestamp,
    /// When the intent last changed.
    pub updated_at: Timestamp,
    /// When its deletion was asked for.
    pub deletion_requested_at: Option<Timestamp>,
    /// Only in the answer of the request that made a coordinated connection here, this once: bring it to the other provider
    /// within seven days. It is good once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub activation_key: Option<Sensitive>,
}

/// A page of connections.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ConnectionList {
    /// The page.
    pub connections: Vec<Connection>,
    /// Give it back as `pageToken` for the next page; absent on the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_page_token: Option<String>,
}
