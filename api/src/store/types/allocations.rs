//! What a channel's configuration takes: allocations and secrets.

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};
use tieline_openapi::ids::{AttachPointId, ChannelId, PortId};
use tieline_providers::ResourceKind;

/// What a connection takes. The store holds each as a constraint: a VLAN is unique on its port, a subnet's slots are
/// unique on their attach point, and bandwidth is a counter with a CHECK.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "is")]
pub enum Allocation {
    /// A VLAN on a port.
    Vlan {
        /// For which channel.
        channel_id: ChannelId,
        /// Of which generation of it.
        generation: u32,
        /// The port.
        port_id: PortId,
        /// The VLAN.
        vlan: u16,
    },
    /// A point-to-point subnet on an attach point. It occupies every /31 of the grid that it touches.
    Subnet {
        /// For which channel.
        channel_id: ChannelId,
        /// Of which generation of it.
        generation: u32,
        /// The attach point.
        attach_point_id: AttachPointId,
        /// The subnet, /24 to /31.
        subnet: Ipv4Net,
    },
    /// Bandwidth of a channel.
    Bandwidth {
        /// The channel.
        channel_id: ChannelId,
        /// Mbit/s taken.
        mbps: u64,
        /// Mbit/s that all connections together may take.
        capacity_mbps: u64,
    },
}

/// What a resource of others occupies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holding {
    /// In the list of which kind it stands.
    pub kind: ResourceKind,
    /// The cloud's id.
    pub cloud_id: String,
    /// A VLAN of one of our ports.
    pub vlan: Option<(PortId, u16)>,
    /// A subnet of one of our attach points.
    pub subnet: Option<(AttachPointId, Ipv4Net)>,
}

/// A secret that was sealed by `secrets`: the store never sees it in the clear.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealedSecret {
    /// For which channel.
    pub channel_id: ChannelId,
    /// Of which generation of it.
    pub generation: u32,
    /// `bgpPassword`.
    pub name: String,
    /// Key id, nonce and ciphertext.
    pub sealed: Vec<u8>,
}
