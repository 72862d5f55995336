//! The writable part of a Connection: what a customer asks for.

use std::collections::BTreeMap;

use ipnet::{IpNet, Ipv4Net};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    ids::{AttachPointId, EnvironmentId},
    units::{BandwidthMbps, Mtu, Vlan},
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

/// One end of the intent: at an attach point of ours, or at the other provider of a coordinated connection.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ConnectionEnd {
    /// Where this end attaches. Null at the other provider's end of a coordinated connection; at our end of one it is the
    /// network of ours that prefixes are compared in, and may be null too.
    #[serde(default)]
    pub attach_point_id: Option<AttachPointId>,
    /// The customer's account at the other provider: only its users may bring the activation key. Needed at that provider's
    /// end of a coordinated connection that is created here, and nowhere else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(min_length = 1, max_length = 64, pattern = "^[!-~]+$")]
    pub remote_account_id: Option<String>,
    /// What this end announces to the other. Host bits must be zero. At the other provider's end it is what is expected.
    #[serde(default)]
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
    /// How many channels. A coordinated connection runs over every channel of its interconnect, and has at least these.
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
    /// Where one end is, in a word: its attach point, or beyond a peer the environment.
    #[must_use]
    pub fn place(&self, end: super::End) -> &str {
        let point = self.end(end).attach_point_id.as_ref();
        point.map_or(self.environment_id.as_str(), AttachPointId::as_str)
    }

    /// The intent of one end.
    #[must_use]
    pub const fn end(&self, end: super::End) -> &ConnectionEnd {
        match end {
            super::End::A => &self.a,
            super::End::B => &self.b,
        }
    }
}
