//! Negotiation: from two sides' constraints and what is allocated to one configuration that satisfies both, or to exactly
//! which two rules conflict and what resolves it.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};
use tieline_openapi::{
    ids::{AttachPointId, ChannelId, ConnectionId, EnvironmentId, InterconnectId, PortId},
    units::{BandwidthMbps, Vlan},
    v1::{ConnectionIntent, Effective, Ends, Finding, Middle, Why},
};
use tieline_providers::FeatureSide;

use crate::topology::Topology;

/// What other connections hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Allocated {
    /// VLANs by port.
    pub vlans: BTreeMap<PortId, BTreeSet<u16>>,
    /// Point-to-point subnets by attach point: ours, and foreign ones that were observed.
    pub subnets: BTreeMap<AttachPointId, BTreeSet<Ipv4Net>>,
    /// Mbit/s by channel.
    pub bandwidth: BTreeMap<ChannelId, u64>,
    /// Prefixes that other links of the same attach point announce or accept, with the link's name.
    pub prefixes: BTreeMap<AttachPointId, Vec<(ipnet::IpNet, String)>>,
}

/// What is asked for.
#[derive(Debug, Clone)]
pub struct Request<'a> {
    /// The connection's id, drawn by the caller.
    pub connection_id: ConnectionId,
    /// The intent.
    pub intent: &'a ConnectionIntent,
    /// Channels that must keep their configuration (an update), by id.
    pub keep: BTreeMap<ChannelId, NegotiatedChannel>,
    /// Combinations that a cloud refused, by channel: never chosen again.
    pub refused: BTreeMap<ChannelId, Refused>,
}

/// What a cloud refused on a channel.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// VLANs.
    pub vlans: BTreeSet<u16>,
    /// Subnets.
    pub subnets: BTreeSet<Ipv4Net>,
}

/// One channel's configuration, as negotiated.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NegotiatedChannel {
    /// The channel.
    pub channel_id: ChannelId,
    /// Counts walk-backs of this channel: a new generation has new instances.
    pub generation: u32,
    /// Both sides.
    pub sides: Ends<FeatureSide>,
    /// The subnets that are reserved for it: one where we choose, candidates where a cloud picks.
    pub reserved_subnets: Vec<Ipv4Net>,
    /// What is ordered.
    pub bandwidth: BandwidthMbps,
    /// Which rules chose the values.
    pub why: Vec<Why>,
}

/// A whole configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Negotiated {
    /// The environment.
    pub environment_id: EnvironmentId,
    /// The redundancy group.
    pub interconnect_id: InterconnectId,
    /// What stands between the ports.
    pub middle: Middle,
    /// The channels.
    pub channels: Vec<NegotiatedChannel>,
    /// What holds end to end.
    pub effective: Effective,
    /// Warnings and notes.
    pub findings: Vec<Finding>,
}

/// Why there is no configuration: at least one finding is an error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unsatisfiable {
    /// The findings, errors first.
    pub findings: Vec<Finding>,
    /// Whether another try with fresh allocations could succeed (something is used up right now).
    pub exhausted: bool,
}

/// Negotiates. Same input, same output.
///
/// # Errors
/// [`Unsatisfiable`] with every rule that stands in the way.
pub fn negotiate(
    _topology: &Topology,
    _allocated: &Allocated,
    _request: &Request<'_>,
) -> Result<Negotiated, Unsatisfiable> {
    Err(Unsatisfiable { findings: Vec::new(), exhausted: false })
}

/// The VLANs that a channel may take, in the order in which they are tried.
pub type VlanPool = Vec<Vlan>;
