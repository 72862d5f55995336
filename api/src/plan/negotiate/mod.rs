//! Negotiation: from two sides' constraints and what is allocated to one configuration that satisfies both, or to exactly
//! which two rules conflict and what resolves it.
//!
//! The order is: who the two ends are ([`frame`]), what the intent alone says ([`super::checks`]), what each channel could
//! be by itself ([`channel`]), which channels of which interconnect are taken ([`choose`]) and which subnets they get
//! ([`subnets`]), and what follows from that end to end ([`effective`]). Every list is tried in a fixed order, so the same
//! input gives the same output.

mod channel;
mod choose;
mod effective;
mod frame;
mod subnets;
#[cfg(test)]
mod tests;
mod touched;
mod vlans;

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::RangeInclusive,
};

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};
use tieline_openapi::{
    ids::{AttachPointId, ChannelId, ConnectionId, EnvironmentId, InterconnectId, PortId},
    problem::{FieldError, Problem, ProblemCode},
    units::{BandwidthMbps, Mtu, Vlan},
    v1::{ConnectionIntent, Effective, End, Ends, Finding, Middle, Severity, Why},
};
use tieline_providers::{Addressing, FeatureSide, Ipv4Pair, constraints::AddressChoice};

use self::{channel::Draft, choose::Choice, frame::Frame};
use super::{
    carried::{self, Carried},
    checks::{self, Findings},
};
use crate::{store::Allocation, topology::Topology};

pub use effective::{TUNNEL_OVERHEAD_IPV4, TUNNEL_OVERHEAD_IPV6, private_only, tunnel_mtu};
pub use touched::Touched;

/// What other connections hold. For a change of a connection, [`Allocated::release`] takes out what it holds itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Allocated {
    /// VLANs by port.
    pub vlans: BTreeMap<PortId, BTreeSet<u16>>,
    /// Point-to-point subnets by attach point.
    pub subnets: BTreeMap<AttachPointId, BTreeSet<Ipv4Net>>,
    /// VLANs that others were seen to have, by port, with the cloud's id of what has them.
    pub foreign_vlans: BTreeMap<PortId, BTreeMap<u16, String>>,
    /// The same of subnets, by attach point.
    pub foreign_subnets: BTreeMap<AttachPointId, BTreeMap<Ipv4Net, String>>,
    /// Mbit/s by channel.
    pub bandwidth: BTreeMap<ChannelId, u64>,
    /// What the links of an attach point carry.
    pub prefixes: BTreeMap<AttachPointId, Vec<Carried>>,
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

impl Negotiated {
    /// Nothing is negotiated here: what is agreed with a peer stands in its book.
    #[must_use]
    pub fn elsewhere(environment: &EnvironmentId, interconnect: InterconnectId) -> Self {
        Self {
            environment_id: environment.clone(),
            interconnect_id: interconnect,
            middle: Middle::None,
            channels: Vec::new(),
            effective: effective::private_only(Mtu::ETHERNET),
            findings: Vec::new(),
        }
    }
}

/// Why there is no configuration: at least one finding is an error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unsatisfiable {
    /// The findings, errors first.
    pub findings: Vec<Finding>,
    /// Whether another try with fresh allocations could succeed (something is used up right now).
    pub exhausted: bool,
}

/// The VLANs that are given out where the intent wishes none: above what the Connection Coordinator API reserves (`vlanId`
/// is greater than 1024) and within what every known cloud takes.
pub const VLAN_POOL: RangeInclusive<u16> = 1025..=4093;

/// The VLANs that a channel may take, in the order in which they are tried.
pub type VlanPool = Vec<Vlan>;

impl Allocated {
    /// Takes out what a connection holds itself, so that a change of it does not stand in its own way.
    pub fn release(&mut self, id: ConnectionId, channels: &[NegotiatedChannel]) {
        for channel in channels {
            for end in End::BOTH {
                let side = channel.sides.get(end);
                if let Some(vlans) = self.vlans.get_mut(&side.port_id) {
                    vlans.remove(&side.vlan.get());
                }
                if let Some(subnets) = self.subnets.get_mut(&side.attach_point_id) {
                    subnets.retain(|net| !channel.reserved_subnets.contains(net));
                }
            }
            if let Some(taken) = self.bandwidth.get_mut(&channel.channel_id) {
                *taken = taken.saturating_sub(u64::from(channel.bandwidth.get()));
            }
        }
        self.prefixes.values_mut().for_each(|listed| listed.retain(|carried| carried.connection_id != id));
    }

    /// Adds what a link carries.
    pub fn carry(&mut self, id: ConnectionId, intent: &ConnectionIntent) {
        for (point, carried) in carried::by_attach_point(id, intent) {
            self.prefixes.entry(point.clone()).or_default().push(carried);
        }
    }
}

impl NegotiatedChannel {
    /// Whether two configurations of a channel have the same VLANs and subnets: what a living channel cannot change.
    #[must_use]
    pub fn same_slot(&self, other: &Self) -> bool {
        self.reserved_subnets == other.reserved_subnets
            && self.sides.a.vlan == other.sides.a.vlan
            && self.sides.b.vlan == other.sides.b.vlan
    }

    /// Whether it holds what a cloud has told since the other was read.
    #[must_use]
    pub fn learned_since(&self, other: &Self) -> bool {
        let told = |end| self.sides.get(end).ipv4.fixed().is_some() && other.sides.get(end).ipv4.fixed().is_none();
        !self.same_slot(other) || End::BOTH.into_iter().any(told)
    }
}

impl Negotiated {
    /// Puts a newer configuration of a channel in the place of the one that is there. A channel that is not wanted any more,
    /// or in a newer generation, does not come back.
    #[must_use]
    pub fn replaced(mut self, channel: &NegotiatedChannel) -> Option<Self> {
        let known = self.channels.iter_mut().find(|known| known.channel_id == channel.channel_id)?;
        if known.generation > channel.generation {
            return None;
        }
        *known = channel.clone();
        self.effective = effective::refitted(self.effective, self.channels.iter().map(|channel| channel.sides.a.mtu));
        Some(self)
    }
}

impl Unsatisfiable {
    /// The problem document for a request that asks for it.
    #[must_use]
    pub fn to_problem(&self) -> Problem {
        let errors: Vec<&Finding> = self.findings.iter().filter(|f| f.severity == Severity::Error).collect();
        let detail = match errors.as_slice() {
            [] => "the intent cannot be met".to_owned(),
            [only] => only.message.clone(),
            [first, rest @ ..] => format!("{}, and {} more", first.message, rest.len()),
        };
        let code = ProblemCode::Unsatisfiable;
        Problem {
            kind: format!("/problems/{}", code.as_str()),
            title: "The intent cannot be met".to_owned(),
            status: code.status(),
            code,
            detail,
            request_id: None,
            errors: errors
                .iter()
                .map(|f| FieldError {
                    pointer: f.pointer.clone(),
                    message: format!("{}; {}", f.message, f.resolve),
                    rule: Some(f.rule.clone()),
                    source: Some(f.source.clone()),
                })
                .collect(),
            retryable: self.exhausted,
            remediation: errors.first().map_or_else(String::new, |f| f.resolve.clone()),
            holder: None,
            provider: None,
        }
    }
}

/// Negotiates. Same input, same output.
///
/// A new channel begins with generation 0. Whoever walks a channel back gives the other channels in
/// [`Request::keep`] and what was refused in [`Request::refused`], and raises the generation of the answer.
///
/// # Errors
/// [`Unsatisfiable`] with every rule that stands in the way.
pub fn negotiate(
    topology: &Topology,
    allocated: &Allocated,
    request: &Request<'_>,
) -> Result<Negotiated, Unsatisfiable> {
    let mut findings = Findings::default();
    let intent = request.intent;
    let points = Ends { a: topology.attach_point(&intent.a), b: topology.attach_point(&intent.b) };
    checks::prefixes(intent, &points, &mut findings);
    checks::other_links(intent, &topology.attach_points, allocated, &mut findings);
    let frame = frame::resolve(topology, intent, &mut findings);
    // What is wrong with the intent itself is told whole, before anything is looked for.
    let Some(frame) = frame.filter(|_| !findings.any_error()) else { return Err(refuse(findings)) };
    let Some(choice) = choose::choose(topology, &frame, allocated, request, &mut findings) else {
        return Err(refuse(findings));
    };
    let effective = effective::effective(&frame, &choice.drafts, &mut findings);
    let channels = assemble(&frame, request, &choice);
    Ok(Negotiated {
        environment_id: frame.environment.id.clone(),
        interconnect_id: choice.interconnect.id.clone(),
        middle: frame.environment.middle,
        channels,
        effective,
        findings: findings.into_vec(),
    })
}

fn refuse(findings: Findings) -> Unsatisfiable {
    let exhausted = findings.only_exhausted();
    Unsatisfiable { findings: findings.into_vec(), exhausted }
}

fn assemble(frame: &Frame<'_>, request: &Request<'_>, choice: &Choice<'_>) -> Vec<NegotiatedChannel> {
    let mut channels: Vec<NegotiatedChannel> = choice
        .drafts
        .iter()
        .zip(&choice.subnets)
        .map(|(draft, subnet)| {
            let kept = draft.kept;
            let addressing = match kept {
                Some(kept) => kept.sides.map(|_, side| side.ipv4.clone()),
                None => addressing(draft, *subnet),
            };
            NegotiatedChannel {
                channel_id: draft.channel.id.clone(),
                generation: kept.map_or(0, |kept| kept.generation),
                sides: addressing.map(|end, ipv4| side(frame, request, draft, &choice.max_prefixes, end, ipv4.clone())),
                reserved_subnets: kept.map_or_else(|| vec![*subnet], |kept| kept.reserved_subnets.clone()),
                bandwidth: draft.bandwidth,
                why: draft.why(*subnet),
            }
        })
        .collect();
    channels.sort_by(|x, y| x.channel_id.cmp(&y.channel_id));
    channels
}

/// Who gives the addresses. Exactly the reserved subnet is the candidate, so what is reserved is what a cloud can pick.
fn addressing(draft: &Draft<'_>, subnet: Ipv4Net) -> Ends<Addressing> {
    let picks = draft.constraints.map(|_, c| c.address_choice.value == AddressChoice::Cloud);
    if picks.a || picks.b {
        return picks.map(|_, picks| {
            if *picks { Addressing::CloudPicks(vec![subnet]) } else { Addressing::Awaited(vec![subnet]) }
        });
    }
    let mut hosts = subnet.hosts();
    let host = hosts.next().unwrap_or(subnet.network());
    let peer = hosts.next().unwrap_or(subnet.broadcast());
    let a = Ipv4Pair { subnet, host, peer };
    Ends { a: Addressing::Fixed(a), b: Addressing::Fixed(a.flipped()) }
}

fn side(
    frame: &Frame<'_>,
    request: &Request<'_>,
    draft: &Draft<'_>,
    max_prefixes: &Ends<Option<u32>>,
    end: End,
    ipv4: Addressing,
) -> FeatureSide {
    let (view, other) = (frame.ends.get(end), frame.ends.get(end.other()));
    FeatureSide {
        connection_id: request.connection_id,
        connection_name: request.intent.name.clone(),
        channel_id: draft.channel.id.clone(),
        end,
        account_id: view.point.account_id.clone(),
        region: view.region.to_owned(),
        port_id: frame.port(draft.channel, end).port_id.clone(),
        attach_point_id: view.point.id.clone(),
        attach_point_kind: view.point.kind,
        attach_point_cloud_id: view.point.cloud_id.clone(),
        asn: view.point.asn,
        peer_asn: other.point.asn,
        vlan: *draft.vlans.get(end),
        bandwidth: draft.bandwidth,
        mtu: draft.mtu,
        ipv4,
        ipv6: None,
        bfd: *draft.bfd.get(end),
        advertised_prefixes: carried::announced(request.intent, end),
        accepted_prefixes: view
            .intent
            .accepted_prefixes
            .clone()
            .unwrap_or_else(|| other.intent.advertised_prefixes.clone()),
        max_prefixes: *max_prefixes.get(end),
    }
}

/// What a configuration takes, to be written with it in one transaction: a VLAN per side, every reserved subnet on both
/// attach points, and the bandwidth of each channel.
#[must_use]
pub fn allocations(negotiated: &Negotiated, topology: &Topology) -> Vec<Allocation> {
    let capacity = topology.interconnects.get(&negotiated.interconnect_id).map(|i| i.max_bandwidth_mbps.get());
    negotiated
        .channels
        .iter()
        .flat_map(|channel| {
            let mbps = u64::from(channel.bandwidth.get());
            let bandwidth = Allocation::Bandwidth {
                channel_id: channel.channel_id.clone(),
                mbps,
                // Without its interconnect a channel has no capacity left but its own.
                capacity_mbps: capacity.map_or(mbps, u64::from),
            };
            channel_allocations(channel).into_iter().chain([bandwidth])
        })
        .collect()
}

/// The VLANs and subnets of one channel: what a new generation of it takes. Its bandwidth is taken already.
#[must_use]
pub fn channel_allocations(channel: &NegotiatedChannel) -> Vec<Allocation> {
    let mut taken = Vec::new();
    for end in End::BOTH {
        let side = channel.sides.get(end);
        taken.push(Allocation::Vlan {
            channel_id: channel.channel_id.clone(),
            generation: channel.generation,
            port_id: side.port_id.clone(),
            vlan: side.vlan.get(),
        });
        taken.extend(channel.reserved_subnets.iter().map(|subnet| Allocation::Subnet {
            channel_id: channel.channel_id.clone(),
            generation: channel.generation,
            attach_point_id: side.attach_point_id.clone(),
            subnet: *subnet,
        }));
    }
    taken
}

/// The length of the BGP passwords that both sides of a channel take, and whether only letters and digits may be used;
/// none if a side takes no password.
#[must_use]
pub fn password_rule(topology: &Topology, channel: &NegotiatedChannel) -> Option<PasswordRule> {
    let interconnect =
        topology.interconnects.values().find(|i| i.channels.iter().any(|c| c.id == channel.channel_id))?;
    let placed = interconnect.channels.iter().find(|c| c.id == channel.channel_id)?;
    let rule = |side: &FeatureSide| {
        let point = topology.attach_points.get(&side.attach_point_id)?;
        let provider = &topology.accounts.get(&point.account_id)?.provider;
        let port = if placed.a.port_id == side.port_id { &placed.a } else { &placed.b };
        Some(topology.rules.get(provider)?.constraints(point, port).md5.value)
    };
    channel::passwords(&rule(&channel.sides.a)?, &rule(&channel.sides.b)?)
}

/// Which BGP passwords both sides take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PasswordRule {
    /// Shortest and longest, in characters.
    pub length: RangeInclusive<usize>,
    /// Whether only letters and digits may be used.
    pub alphanumeric_only: bool,
}
