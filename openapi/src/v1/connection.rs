//! Connection: the customer's intent, and what became of it.

use std::collections::BTreeMap;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};
use std::net::{Ipv4Addr, Ipv6Addr};
use utoipa::ToSchema;

use super::Timestamp;
use crate::{
    ids::{AttachPointId, ChannelId, ConnectionId, EnvironmentId, InstanceId, InterconnectId, OperationId, ProjectId},
    units::{Asn, BandwidthMbps, Mtu, Vlan},
};

/// How many channels carry the connection.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Redundancy {
    /// One channel with the whole bandwidth.
    Single,
    /// Two channels on distinct devices, each with the whole bandwidth.
    #[default]
    Dual,
    /// Four channels, each with half of the bandwidth.
    Quad,
}

impl Redundancy {
    /// The number of channels.
    #[must_use]
    pub const fn channels(self) -> usize {
        match self {
            Self::Single => 1,
            Self::Dual => 2,
            Self::Quad => 4,
        }
    }
}

/// An IP version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum AddressFamily {
    /// IPv4.
    Ipv4,
    /// IPv6.
    Ipv6,
}

/// How channels share the traffic.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum RoutingMode {
    /// Every channel carries traffic.
    #[default]
    ActiveActive,
    /// One channel carries traffic, the others wait.
    ActiveStandby,
}

/// One end of the intent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ConnectionEnd {
    /// Where this end attaches.
    pub attach_point_id: AttachPointId,
    /// What this end announces to the other. Host bits must be zero.
    #[schema(value_type = Vec<String>, max_items = 200)]
    pub advertised_prefixes: Vec<IpNet>,
    /// What this end accepts; null: what the other side advertises.
    #[serde(default)]
    #[schema(value_type = Option<Vec<String>>, max_items = 200)]
    pub accepted_prefixes: Option<Vec<IpNet>>,
}

/// How the connection routes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Routing {
    /// How channels share the traffic.
    pub mode: RoutingMode,
    /// The most prefixes that either side may announce; null: the lesser of the clouds' limits.
    pub max_prefixes: Option<u32>,
}

/// A wish for forwarding detection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BfdSettings {
    /// Whether BFD runs (RFC 5880).
    pub enabled: bool,
    /// Desired minimum transmit interval in milliseconds.
    pub min_transmit_ms: u32,
    /// Required minimum receive interval in milliseconds.
    pub min_receive_ms: u32,
    /// Packets that may be missed.
    pub multiplier: u8,
}

/// Wishes. One that cannot hold is an error, never a hint.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Wanted {
    /// This VLAN on every channel.
    pub vlan_id: Option<Vlan>,
    /// This MTU on every channel.
    pub mtu_bytes: Option<Mtu>,
    /// Take the channels' subnets from this one.
    #[schema(value_type = Option<String>)]
    pub ipv4_subnet: Option<Ipv4Net>,
    /// BFD on or off.
    pub bfd: Option<bool>,
}

/// The WireGuard path beside the private one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Fallback {
    /// Whether there is a tunnel.
    pub tunnel: bool,
    /// What the tunnel may carry; null: what the gateways can.
    pub capacity_mbps: Option<BandwidthMbps>,
}

impl Default for Fallback {
    fn default() -> Self {
        Self { tunnel: true, capacity_mbps: None }
    }
}

/// The writable part of a Connection: the body of `POST /v1/connections`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ConnectionIntent {
    /// Unique in its project.
    #[schema(min_length = 1, max_length = 63, pattern = "^[a-zA-Z0-9][a-zA-Z0-9 ._-]{0,62}$")]
    pub name: String,
    /// Which pair of sites.
    pub environment_id: EnvironmentId,
    /// What the customer gets, in Mbit/s; channels are ordered so that the redundancy class holds.
    pub bandwidth_mbps: BandwidthMbps,
    /// How many channels.
    #[serde(default)]
    pub redundancy: Redundancy,
    /// End a.
    pub a: ConnectionEnd,
    /// End b.
    pub b: ConnectionEnd,
    /// Routing.
    #[serde(default)]
    pub routing: Routing,
    /// Which IP versions run over the connection.
    #[serde(default = "ipv4_only")]
    #[schema(min_items = 1, max_items = 2)]
    pub families: Vec<AddressFamily>,
    /// Wishes.
    #[serde(default)]
    pub wanted: Wanted,
    /// The tunnel.
    #[serde(default)]
    pub fallback: Fallback,
    /// Free labels.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Free text.
    #[serde(default)]
    #[schema(max_length = 1024)]
    pub description: String,
    /// While true, DELETE is refused.
    #[serde(default)]
    pub deletion_protection: bool,
}

fn ipv4_only() -> Vec<AddressFamily> {
    vec![AddressFamily::Ipv4]
}

impl ConnectionIntent {
    /// The intent of one end.
    #[must_use]
    pub const fn end(&self, end: super::End) -> &ConnectionEnd {
        match end {
            super::End::A => &self.a,
            super::End::B => &self.b,
        }
    }
}

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
    /// itself reports it.
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

/// Which placement this is during a migration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum PlacementRole {
    /// The only one.
    Current,
    /// Being left.
    Source,
    /// Being moved to.
    Target,
}

/// What stands between the two clouds' ports.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Middle {
    /// Nothing: both ends share VLAN and subnet.
    #[default]
    None,
    /// A fabric: the VLAN differs per end.
    L2,
    /// A router: two BGP sessions, each with its own subnet.
    L3,
    /// A service key.
    Handoff,
}

/// Whether a channel's configuration is agreed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ProvisioningState {
    /// Not yet.
    #[default]
    Pending,
    /// Agreed and configured.
    Final,
}

/// RFC 4271 section 8.2.2, as a provider reports it; a provider that tells only up or down maps to `Established` or `Down`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum BgpState {
    /// Not observed.
    #[default]
    Unknown,
    /// Idle.
    Idle,
    /// Connect.
    Connect,
    /// Active.
    Active,
    /// OpenSent.
    OpenSent,
    /// OpenConfirm.
    OpenConfirm,
    /// Established.
    Established,
    /// Not established; the provider tells no more.
    Down,
}

/// RFC 5880 section 4.1, as a provider reports it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum BfdState {
    /// Not observed, or the provider does not tell.
    #[default]
    Unknown,
    /// Administratively down, or not configured.
    AdminDown,
    /// Down.
    Down,
    /// Init.
    Init,
    /// Up.
    Up,
}

/// Whose a cloud resource is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Origin {
    /// Tieline created it.
    Created,
    /// Others made it; Tieline was told to take care of it.
    Adopted,
}

/// One cloud-side resource.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Attachment {
    /// The instance: also in the resource's name or tags.
    pub id: InstanceId,
    /// The provider's resource type, for example `google.interconnectAttachment`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The cloud's own id or name; null before it is known.
    pub cloud_id: Option<String>,
    /// The state in the cloud's own words.
    pub provider_state: String,
    /// Whose it is.
    pub origin: Origin,
    /// When the cloud was last asked.
    pub observed_at: Option<Timestamp>,
}

/// One side of a channel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ChannelSide {
    /// The VLAN on this side's port.
    pub vlan_id: Vlan,
    /// The point-to-point subnet; null until the cloud that picks it has answered.
    #[schema(value_type = Option<String>)]
    pub ipv4_subnet: Option<Ipv4Net>,
    /// This side's router address.
    #[schema(value_type = Option<String>)]
    pub host_ipv4: Option<Ipv4Addr>,
    /// The other side's router address.
    #[schema(value_type = Option<String>)]
    pub peer_ipv4: Option<Ipv4Addr>,
    /// The IPv6 point-to-point subnet.
    #[schema(value_type = Option<String>)]
    pub ipv6_subnet: Option<Ipv6Net>,
    /// This side's IPv6 router address.
    #[schema(value_type = Option<String>)]
    pub host_ipv6: Option<Ipv6Addr>,
    /// The other side's IPv6 router address.
    #[schema(value_type = Option<String>)]
    pub peer_ipv6: Option<Ipv6Addr>,
    /// This side's AS number: a constant of its attach point.
    pub asn: Asn,
    /// MTU on this side.
    pub mtu_bytes: Mtu,
    /// BFD as this side runs it.
    pub bfd: Option<BfdSettings>,
    /// What exists in this side's cloud.
    pub attachments: Vec<Attachment>,
}

/// Which rule chose a value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Why {
    /// RFC 6901 pointer below the channel.
    pub pointer: String,
    /// The rule.
    pub rule: String,
    /// Where the rule comes from.
    pub source: String,
}

/// One channel of a placement.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct PlacedChannel {
    /// The channel.
    pub channel_id: ChannelId,
    /// Whether its configuration is agreed.
    pub provisioning_state: ProvisioningState,
    /// The worse of both providers' reports.
    pub bgp_state: BgpState,
    /// The worse of both providers' reports.
    pub bfd_state: BfdState,
    /// What was ordered on this channel, in Mbit/s.
    pub bandwidth_mbps: BandwidthMbps,
    /// Side a.
    pub a: ChannelSide,
    /// Side b.
    pub b: ChannelSide,
    /// Which rules chose the values.
    pub why: Vec<Why>,
}

/// Where the connection runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Placement {
    /// The redundancy group.
    pub interconnect_id: InterconnectId,
    /// The only one, or one of two during a migration.
    pub role: PlacementRole,
    /// What stands between the ports.
    pub middle: Middle,
    /// The channels.
    pub channels: Vec<PlacedChannel>,
}

/// Which way between two gateways.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum PathKind {
    /// The bundle of private channels.
    Private,
    /// WireGuard over the internet.
    Tunnel,
}

/// How a path does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum PathState {
    /// Within bounds.
    Up,
    /// Heard, but lossy or slow.
    Degraded,
    /// Silent.
    Down,
    /// Not probed yet.
    #[default]
    Unknown,
}

/// Whether a path carries traffic, per direction.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Carries {
    /// From a to b.
    pub a_to_b: bool,
    /// From b to a.
    pub b_to_a: bool,
}

/// One way between the gateways of both ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Path {
    /// `private` or `tunnel`: unique within the connection.
    pub id: String,
    /// Which way.
    pub kind: PathKind,
    /// How it does.
    pub state: PathState,
    /// Whether it carries traffic.
    pub carries: Carries,
    /// The latest measurements, where a gateway has reported.
    pub measured: Option<PathMeasurement>,
}

/// What probes say of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct PathMeasurement {
    /// Median round trip in microseconds over the last report.
    pub rtt_us: u32,
    /// Mean deviation of the round trip in microseconds (RFC 3550 section 6.4.1).
    pub jitter_us: u32,
    /// Lost from a to b, in parts per million.
    pub loss_a_to_b_ppm: u32,
    /// Lost from b to a, in parts per million.
    pub loss_b_to_a_ppm: u32,
    /// When it was measured.
    pub at: Timestamp,
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
