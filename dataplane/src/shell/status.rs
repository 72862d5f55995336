//! What a gateway tells about itself, here on the machine.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};
use tieline_openapi::{
    ids::{ConnectionId, GatewayId},
    v1::{PathChange, PathKind, PathSample, Timestamp, TunnelBackend},
};

use super::offloads::OffloadStatus;
use crate::proto::{path::Hold, pmtu::Phase, tunnel::LaneCounters};

/// What goes into one report to the API, before it has its sequence number.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Report {
    /// The configuration that runs.
    pub configuration_version: Option<u64>,
    /// A sample a path.
    pub samples: Vec<PathSample>,
    /// Changes of path since the last report.
    pub changes: Vec<PathChange>,
}

/// Everything about a running gateway.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// Which gateway; `None` before it has a configuration.
    pub gateway_id: Option<GatewayId>,
    /// The configuration that runs.
    pub configuration_version: Option<u64>,
    /// When this was so.
    pub at: Timestamp,
    /// Which WireGuard is to carry; the lanes of the process are there in either case.
    #[serde(default)]
    pub backend: TunnelBackend,
    /// Each connection.
    pub connections: Vec<ConnectionStatus>,
    /// What carries the tunnel.
    #[serde(default)]
    pub packet_path: PacketPathStatus,
}

/// The packet path as a whole.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PacketPathStatus {
    /// Lanes of this gateway.
    pub lanes: usize,
    /// How each of the kernel's offloads fares.
    pub offloads: Vec<OffloadStatus>,
    /// Inner packets that no peer is there for.
    pub no_peer: u64,
    /// Datagrams that are for no lane, or not WireGuard at all.
    pub not_ours: u64,
    /// Handshakes with a wrong MAC, or of a key that is no peer's.
    #[serde(default)]
    pub bad_handshakes: u64,
    /// Handshakes that were asked to come again with a cookie, since there were many.
    #[serde(default)]
    pub under_load: u64,
    /// Handshakes, of many, that were beyond their sender's share and got no answer.
    #[serde(default)]
    pub limited: u64,
    /// Packets that the TUN device gave in a form that cannot be read, or did not take.
    pub tun_refused: u64,
    /// Datagrams that the network did not take.
    #[serde(default)]
    pub not_sent: u64,
}

/// One lane to one peer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LaneStatus {
    /// Which.
    pub n: usize,
    /// What the peer has at the other end; here it is the process.
    #[serde(default)]
    pub peer_backend: TunnelBackend,
    /// Where its datagrams go.
    pub endpoint: SocketAddr,
    /// Whether traffic may take it: there is a session, and the peer has been heard on it lately.
    pub alive: bool,
    /// Whether it is as `wg set` says and not as the configuration does, until the next one.
    #[serde(default)]
    pub drifted: bool,
    /// Whether a change of its keys waits for its first session; traffic goes on by the one before.
    #[serde(default)]
    pub changing: bool,
    /// Seconds since its handshake; `None`: no session.
    pub handshake_age_s: Option<u64>,
    /// What has passed.
    pub counters: LaneCounters,
}

/// A WireGuard interface of the kernel to one peer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct KernelLaneStatus {
    /// Its name, by which `wg show` and `ip` know it.
    pub interface: String,
    /// The UDP port that it listens on.
    pub port: u16,
    /// Where its datagrams go.
    pub endpoint: SocketAddr,
    /// Whether traffic may take it: there is a session, and the peer has been heard on it lately.
    pub alive: bool,
    /// Whether routes lead there.
    pub carries: bool,
    /// Whether it only receives, until the peer has heard of another way.
    pub retired: bool,
    /// Seconds since its handshake; `None`: no session.
    pub handshake_age_s: Option<u64>,
    /// Bytes of UDP payload sent, by the kernel's count.
    pub bytes_out: u64,
    /// The same, received.
    pub bytes_in: u64,
}

/// The path MTU of a tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PathMtuStatus {
    /// Bytes of the longest inner packet.
    pub bytes: u16,
    /// Where the search stands.
    pub phase: Phase,
    /// Times that a size in use had stopped passing.
    pub black_holes: u64,
}

/// One connection.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ConnectionStatus {
    /// Which.
    pub connection_id: ConnectionId,
    /// Its name.
    pub name: String,
    /// A person's order, if any.
    pub hold: Hold,
    /// Each peer gateway.
    pub peers: Vec<PeerStatus>,
}

/// One peer gateway of a connection.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PeerStatus {
    /// Which.
    pub peer_id: GatewayId,
    /// Whether the connection's traffic goes to this member of the peer's group.
    pub active: bool,
    /// Which way this gateway sends to it.
    pub chosen: Option<PathKind>,
    /// Since when.
    pub since: Option<Timestamp>,
    /// Why.
    pub reason: Option<String>,
    /// Which way the peer says that it sends to us.
    pub peer_chosen: Option<PathKind>,
    /// Seconds since the tunnel's handshake; `None`: no session.
    pub handshake_age_s: Option<u64>,
    /// What has passed the tunnel to this peer, probes included, over all lanes.
    pub tunnel: LaneCounters,
    /// Each lane to it.
    #[serde(default)]
    pub lanes: Vec<LaneStatus>,
    /// Each interface of the kernel's WireGuard to it.
    #[serde(default)]
    pub kernel: Vec<KernelLaneStatus>,
    /// Packets that came out of them and were dropped, since their source or destination is not the peer's to use.
    #[serde(default)]
    pub kernel_foreign_source: u64,
    /// How long a packet may be that goes through the tunnel in one piece; `None`: there is no tunnel.
    #[serde(default)]
    pub path_mtu: Option<PathMtuStatus>,
    /// The last sample of each path.
    pub paths: Vec<PathSample>,
}
