//! One side of a negotiated channel: everything that an adapter needs to decompose it into cloud resources.

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};
use std::net::{Ipv4Addr, Ipv6Addr};
use tieline_openapi::{
    ids::{AccountId, AttachPointId, ChannelId, ConnectionId, PortId},
    units::{Asn, BandwidthMbps, Mtu, Vlan},
    v1::{AttachPointType, BfdSettings, End},
};

/// Point-to-point IPv4 addresses, seen from one side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ipv4Pair {
    /// The subnet; both hosts are in it.
    pub subnet: Ipv4Net,
    /// This side's router.
    pub host: Ipv4Addr,
    /// The other side's router.
    pub peer: Ipv4Addr,
}

impl Ipv4Pair {
    /// The same, seen from the other side.
    #[must_use]
    pub const fn flipped(self) -> Self {
        Self { subnet: self.subnet, host: self.peer, peer: self.host }
    }
}

/// Who decides the addresses, and whether they are known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Addressing {
    /// Known: negotiated by us, or read back from the cloud that picked them.
    Fixed(Ipv4Pair),
    /// This side's cloud will pick out of these reserved subnets.
    CloudPicks(Vec<Ipv4Net>),
    /// The other side's cloud will pick: nothing may be created here before it has.
    Awaited(Vec<Ipv4Net>),
}

impl Addressing {
    /// The addresses, once known.
    #[must_use]
    pub const fn fixed(&self) -> Option<Ipv4Pair> {
        match self {
            Self::Fixed(pair) => Some(*pair),
            Self::CloudPicks(_) | Self::Awaited(_) => None,
        }
    }
}

/// IPv6 addresses, seen from one side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ipv6Pair {
    /// The subnet.
    pub subnet: Ipv6Net,
    /// This side's router.
    pub host: Ipv6Addr,
    /// The other side's router.
    pub peer: Ipv6Addr,
}

/// One side of a negotiated channel. It holds no secret: the BGP password travels separately, at call time only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FeatureSide {
    /// The connection.
    pub connection_id: ConnectionId,
    /// Its name, for descriptions that people read in the cloud's console.
    pub connection_name: String,
    /// The channel.
    pub channel_id: ChannelId,
    /// Which end of the connection this is.
    pub end: End,
    /// The account that every call goes through.
    pub account_id: AccountId,
    /// The cloud's region.
    pub region: String,
    /// The port: a Direct Connect LAG or connection, an interconnect.
    pub port_id: PortId,
    /// The attach point's id in `tieline.toml`.
    pub attach_point_id: AttachPointId,
    /// What kind of attach point.
    pub attach_point_kind: AttachPointType,
    /// The cloud's own id or name of the attach point.
    pub attach_point_cloud_id: String,
    /// This side's AS number.
    pub asn: Asn,
    /// The other side's AS number.
    pub peer_asn: Asn,
    /// The VLAN on this side's port.
    pub vlan: Vlan,
    /// What is ordered on this channel.
    pub bandwidth: BandwidthMbps,
    /// MTU of the private path.
    pub mtu: Mtu,
    /// IPv4 addressing.
    pub ipv4: Addressing,
    /// IPv6 addressing, where the connection has the family.
    pub ipv6: Option<Ipv6Pair>,
    /// BFD as this side should run it; null: not configurable here, or off.
    pub bfd: Option<BfdSettings>,
    /// What this side announces.
    pub advertised_prefixes: Vec<IpNet>,
    /// What this side accepts.
    pub accepted_prefixes: Vec<IpNet>,
    /// The most prefixes that the other side may announce.
    pub max_prefixes: Option<u32>,
}
