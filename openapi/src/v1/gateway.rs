//! Gateway: Tieline's agent in one attach point's network, always a member of a group; what it is told and what it reports.

use ipnet::IpNet;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::net::{IpAddr, SocketAddr};
use subtle::ConstantTimeEq;
use utoipa::ToSchema;

use super::{End, PathKind, PathState, Timestamp};
use crate::{
    ids::{AttachPointId, ConnectionId, GatewayGroupId, GatewayId},
    units::{BandwidthMbps, Mtu},
};

/// How a site's traffic reaches the gateway.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Steering {
    /// The site routes the remote prefixes to the gateway, which forwards into the private link or the tunnel.
    #[default]
    Inline,
    /// The gateway announces the remote prefixes to the site's cloud router as the lesser way.
    Bgp,
    /// A route is changed through the cloud's API.
    RouteTable,
}

/// Which WireGuard carries a lane.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum TunnelBackend {
    /// In the gateway's own process.
    #[default]
    Boringtun,
    /// In the kernel.
    Kernel,
}

/// Whether the gateway is heard.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum GatewayState {
    /// Joined, not heard yet.
    #[default]
    Joined,
    /// Heard within the last three report intervals.
    Live,
    /// Not heard any more.
    Silent,
}

/// One WireGuard key pair and UDP port of a gateway.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Lane {
    /// Counts from 0.
    pub n: u8,
    /// The X25519 public key, base64 (44 characters), as `wg` prints it. The private key never leaves the gateway.
    #[schema(min_length = 44, max_length = 44)]
    pub public_key: String,
    /// Where peers send to, over the internet.
    #[schema(value_type = String)]
    pub endpoint: SocketAddr,
    /// What carries it.
    #[serde(default)]
    pub backend: TunnelBackend,
}

/// A gateway.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Gateway {
    /// UUID v7.
    pub id: GatewayId,
    /// Its group.
    pub group: GatewayGroupId,
    /// In whose network it stands.
    pub attach_point_id: AttachPointId,
    /// Its name, for people.
    pub name: String,
    /// Its address in the site's network, which the peer's probes of the private bundle go to.
    #[schema(value_type = String)]
    pub private_address: IpAddr,
    /// Its WireGuard lanes.
    pub lanes: Vec<Lane>,
    /// How traffic reaches it.
    pub steering: Steering,
    /// Whether it is heard.
    pub state: GatewayState,
    /// The configuration version that it said it runs; null: none yet.
    pub configuration_version: Option<u64>,
    /// When it last reported.
    pub last_heard_at: Option<Timestamp>,
    /// When it joined.
    pub created_at: Timestamp,
}

/// A page of gateways.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct GatewayList {
    /// The page.
    pub gateways: Vec<Gateway>,
    /// Give it back as `pageToken` for the next page; absent on the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_page_token: Option<String>,
}

/// The body of `POST /v1/gateways:join`, authenticated by the join token as bearer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct JoinRequest {
    /// For people.
    #[schema(min_length = 1, max_length = 63)]
    pub name: String,
    /// Its address in the site's network.
    #[schema(value_type = String)]
    pub private_address: IpAddr,
    /// Its WireGuard lanes.
    #[schema(min_items = 1, max_items = 16)]
    pub lanes: Vec<Lane>,
    /// How traffic reaches it.
    #[serde(default)]
    pub steering: Steering,
}

/// The answer of `POST /v1/gateways:join`: the only time that the credential is shown.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct JoinAnswer {
    /// The gateway.
    pub gateway: Gateway,
    /// Send it as bearer on every later call; it is good for this gateway's own two endpoints and nothing else.
    pub credential: String,
}

/// A preshared key of WireGuard: 32 bytes as base64 (44 characters), as `wg genpsk` prints it. It is shown to the two gateways
/// that have it and to nobody else, and by no `Debug`.
#[derive(Debug, Clone, ToSchema)]
#[schema(value_type = String, min_length = 44, max_length = 44)]
pub struct PresharedKey(SecretString);

impl PresharedKey {
    /// From its text.
    #[must_use]
    pub fn new(text: SecretString) -> Self {
        Self(text)
    }

    /// Its text.
    #[must_use]
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }
}

impl PartialEq for PresharedKey {
    fn eq(&self, other: &Self) -> bool {
        self.expose().as_bytes().ct_eq(other.expose().as_bytes()).into()
    }
}
impl Eq for PresharedKey {}

impl Serialize for PresharedKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.expose())
    }
}

impl<'de> Deserialize<'de> for PresharedKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        SecretString::deserialize(deserializer).map(Self)
    }
}

/// A WireGuard interface of the kernel that a gateway has for one peer gateway, beside its lanes. The kernel has one interface a
/// pair of gateways, since prefixes that several peers have can be told apart by nothing else (allowed IPs are exclusive
/// within an interface); so each has a port of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct KernelLane {
    /// The peer that it is for.
    pub peer_id: GatewayId,
    /// The X25519 public key, base64 (44 characters); another one than of any lane.
    #[schema(min_length = 44, max_length = 44)]
    pub public_key: String,
    /// Where the peer sends to, over the internet.
    #[schema(value_type = String)]
    pub endpoint: SocketAddr,
}

/// The body of `PUT /v1/gateways/{id}/kernelLanes`: all that the gateway has. A peer that is not listed sends to the gateway's
/// other lanes from then on, which are always there.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct KernelLanes {
    /// One a peer at most.
    #[schema(max_items = 1000)]
    pub lanes: Vec<KernelLane>,
}

/// A gateway at the other end of a connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct GatewayPeer {
    /// The peer.
    pub gateway_id: GatewayId,
    /// Its WireGuard lanes.
    pub lanes: Vec<Lane>,
    /// Its lane in the kernel for this gateway, which is taken before the others while it is alive; absent: it has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernel_lane: Option<Lane>,
    /// Its address in its site's network: where probes of the private bundle go.
    #[schema(value_type = String)]
    pub private_address: IpAddr,
    /// Its address inside the tunnel: where probes of the tunnel go.
    #[schema(value_type = String)]
    pub inner_address: IpAddr,
    /// The key that the handshakes between the two are mixed with, on every lane; absent: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preshared_key: Option<PresharedKey>,
    /// Whether the key is being changed. The peer may not have heard of it yet, and then has the one before: traffic goes by
    /// either until both have the new one.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub preshared_key_changing: bool,
    /// The key before, during a change; absent: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub former_preshared_key: Option<PresharedKey>,
}

/// One connection, as one gateway must serve it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct GatewayConnection {
    /// The connection.
    pub connection_id: ConnectionId,
    /// Its name, for logs.
    pub name: String,
    /// Which end this gateway serves.
    pub end: End,
    /// This gateway's address inside the tunnel.
    #[schema(value_type = String)]
    pub inner_address: IpAddr,
    /// What is behind this gateway: what the peer may send to.
    #[schema(value_type = Vec<String>)]
    pub local_prefixes: Vec<IpNet>,
    /// What is behind the peers: what this gateway steers, and the only sources it takes from them.
    #[schema(value_type = Vec<String>)]
    pub remote_prefixes: Vec<IpNet>,
    /// The other end's gateways.
    pub peers: Vec<GatewayPeer>,
    /// MTU of the connection: the minimum over its paths.
    pub mtu_bytes: Mtu,
    /// TCP MSS to clamp to, from the first SYN.
    pub mss_bytes: u16,
    /// Whether the private path is configured in both clouds, so that probing it makes sense.
    pub private_ready: bool,
    /// Whether there is a tunnel.
    pub tunnel: bool,
    /// What the tunnel may carry.
    pub fallback_capacity_mbps: Option<BandwidthMbps>,
}

/// How a gateway probes and chooses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct ProbeSettings {
    /// Milliseconds between two probes of one source port.
    pub interval_ms: u32,
    /// Source ports that probe the private bundle, so that ECMP spreads them over the channels.
    pub bundle_ports: u8,
    /// Intervals without an answer after which a port, or a path, is dead.
    pub dead_after_intervals: u8,
    /// Dead ports that make the bundle bad.
    pub dead_ports: u8,
    /// Milliseconds that the private path must have been better before traffic returns to it.
    pub hold_down_ms: u32,
    /// Milliseconds between two reports to the API.
    pub report_ms: u32,
}

impl Default for ProbeSettings {
    fn default() -> Self {
        Self {
            interval_ms: 20,
            bundle_ports: 16,
            dead_after_intervals: 3,
            dead_ports: 2,
            hold_down_ms: 3_000,
            report_ms: 1_000,
        }
    }
}

/// Everything that a gateway must know. It is always sent whole, and works from its last copy when the API is gone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct GatewayConfiguration {
    /// Rises with every change; also the SSE `id`.
    pub version: u64,
    /// The gateway.
    pub gateway_id: GatewayId,
    /// How it probes and chooses.
    pub probe: ProbeSettings,
    /// The connections that it serves.
    pub connections: Vec<GatewayConnection>,
}

/// What one report interval saw of one path to one peer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PathSample {
    /// The connection.
    pub connection_id: ConnectionId,
    /// The peer.
    pub peer_id: GatewayId,
    /// Which way.
    pub path: PathKind,
    /// How this gateway judges it.
    pub state: PathState,
    /// Whether this gateway sends the connection's traffic over it.
    pub carries: bool,
    /// The end of the interval.
    pub at: Timestamp,
    /// Probes sent in the interval.
    pub sent: u32,
    /// Answers received in the interval.
    pub received: u32,
    /// Median round trip in microseconds; null: no answer.
    pub rtt_us: Option<u32>,
    /// 99th percentile of the round trip in microseconds.
    pub rtt_p99_us: Option<u32>,
    /// Mean deviation of the round trip in microseconds.
    pub jitter_us: Option<u32>,
    /// Lost towards the peer, in parts per million.
    pub loss_out_ppm: u32,
    /// Lost from the peer, in parts per million.
    pub loss_in_ppm: u32,
    /// Source ports that are dead (private path only).
    pub dead_ports: u8,
    /// Bytes of traffic sent over the path in the interval.
    pub bytes_out: u64,
    /// Bytes of traffic received over the path in the interval.
    pub bytes_in: u64,
}

/// A change of path, as the gateway made it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PathChange {
    /// The connection.
    pub connection_id: ConnectionId,
    /// When.
    pub at: Timestamp,
    /// What carried before; null: nothing did.
    pub from: Option<PathKind>,
    /// What carries now.
    pub to: PathKind,
    /// Why, in a word: `private-silent`, `private-dead-ports`, `private-lossy`, `private-better`, `pinned`, `first`.
    pub reason: String,
}

/// The body of `POST /v1/gateways/{id}/observations`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Observations {
    /// Rises with every report of one gateway over its whole life; one that was seen before is answered again and not stored twice.
    pub sequence: u64,
    /// The configuration that the gateway runs.
    pub configuration_version: Option<u64>,
    /// The samples.
    #[schema(max_items = 1000)]
    pub samples: Vec<PathSample>,
    /// The changes of path since the last report.
    #[serde(default)]
    #[schema(max_items = 1000)]
    pub changes: Vec<PathChange>,
}
