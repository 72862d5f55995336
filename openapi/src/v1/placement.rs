//! Where a Connection runs: its channels with both sides' configuration, and the ways between its gateways.

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{BfdSettings, Timestamp};
use crate::{
    ids::{ChannelId, InstanceId, InterconnectId},
    units::{Asn, BandwidthMbps, Mtu, Vlan},
};

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
    /// How far this side is. Of a coordinated connection each provider says it of its own side.
    pub provisioning_state: ProvisioningState,
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

/// Where the connection runs: on one interconnect, or on two while it moves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Placement {
    /// The name that both providers know it by there, under the other one's id. Rows are told apart by it: while a
    /// connection moves both have the same `sharedConnectionUuid`. Null where no specification gives it a name.
    pub name: Option<String>,
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
