//! What is known of an intent before the peer is asked: what the specification has no word for, sizes, room, and what our
//! other links carry. VLANs, subnets, MTU and AS numbers are agreed with the peer channel by channel, and it may refuse.

use std::collections::{BTreeMap, BTreeSet};

use tieline_openapi::{
    coordinator::ResourceId,
    ids::AttachPointId,
    v1::{AddressFamily, AttachPoint, ConnectionIntent, End, Ends, RoutingMode, Wanted},
};

use super::state::Book;
use crate::plan::{
    checks::{self, Findings, Note},
    negotiate::Allocated,
};

const SPECIFICATION: &str = "Connection Coordinator API";

/// What is looked for room for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Room {
    /// A new connection.
    New,
    /// One that has this already, in Mbit/s: whether the rest fits is told when its change is written.
    Has(u32),
}

/// Checks an intent over an environment that is shared with a peer.
pub fn check(
    book: &Book,
    environment: &ResourceId,
    intent: &ConnectionIntent,
    points: &BTreeMap<AttachPointId, AttachPoint>,
    allocated: &Allocated,
    room: Room,
) -> Findings {
    let mut findings = Findings::default();
    let ours = intent.a.attach_point_id.as_ref().and_then(|id| points.get(id));
    checks::prefixes(intent, &Ends { a: ours, b: None }, &mut findings);
    checks::other_links(intent, points, allocated, &mut findings);
    unsaid(intent, &mut findings);
    sizes(book, environment, intent, room, &mut findings);
    findings.info(Note {
        code: "peer-decides",
        pointer: "",
        message: format!("VLANs, subnets, MTU and AS numbers are agreed with `{}`, which may refuse", book.terms.them),
        rule: "each channel's configuration is proposed by one provider and taken or refused by the other".to_owned(),
        source: SPECIFICATION.to_owned(),
        resolve: "nothing; `placements` shows what was agreed".to_owned(),
    });
    findings
}

/// Wishes that the specification has no word for.
fn unsaid(intent: &ConnectionIntent, findings: &mut Findings) {
    let mut cannot = |pointer: &str, message: &str, resolve: &str| {
        findings.error(Note {
            code: "not-coordinated",
            pointer,
            message: message.to_owned(),
            rule: "the two providers agree on bandwidth, and on each channel's layer 3 configuration".to_owned(),
            source: SPECIFICATION.to_owned(),
            resolve: resolve.to_owned(),
        });
    };
    if intent.routing.mode != RoutingMode::ActiveActive {
        cannot("/routing/mode", "every channel carries traffic", "leave `routing.mode` out");
    }
    if intent.routing.max_prefixes.is_some() {
        cannot("/routing/maxPrefixes", "a limit of prefixes is not agreed on", "leave `routing.maxPrefixes` out");
    }
    if intent.families.as_slice() != [AddressFamily::Ipv4] {
        cannot("/families", "IPv6 does not run over coordinated connections yet", "ask for families [\"IPV4\"]");
    }
    let Wanted { vlan_id, mtu_bytes, ipv4_subnet, bfd } = &intent.wanted;
    let wished = [
        ("/wanted/vlanId", vlan_id.is_some()),
        ("/wanted/mtuBytes", mtu_bytes.is_some()),
        ("/wanted/ipv4Subnet", ipv4_subnet.is_some()),
        ("/wanted/bfd", bfd.is_some()),
    ];
    for (pointer, _) in wished.into_iter().filter(|(_, wished)| *wished) {
        cannot(pointer, "it is chosen within what both providers take", "leave it out");
    }
    if intent.fallback.capacity_mbps.is_some() {
        cannot("/fallback/capacityMbps", "no tunnel leads to a peer's network", "leave it out");
    }
    if intent.fallback.tunnel {
        findings.info(Note {
            code: "no-tunnel",
            pointer: "/fallback/tunnel",
            message: "no gateway of ours stands at the other end, so there is no tunnel beside the channels".to_owned(),
            rule: "a tunnel has a gateway at each end".to_owned(),
            source: "Tieline".to_owned(),
            resolve: "nothing, or set `fallback.tunnel` to false".to_owned(),
        });
    }
}

fn sizes(book: &Book, environment: &ResourceId, intent: &ConnectionIntent, room: Room, findings: &mut Findings) {
    let Some(terms) = book.terms.environments.get(environment) else { return };
    let mbps = intent.bandwidth_mbps.get();
    let agreed = || format!("environment {} of tieline.toml", intent.environment_id);
    if !terms.sizes_mbps.contains(&mbps) {
        let all: Vec<String> = terms.sizes_mbps.iter().map(ToString::to_string).collect();
        findings.error(Note {
            code: "bandwidth-not-a-tier",
            pointer: "/bandwidthMbps",
            message: format!("{mbps} Mbit/s cannot be ordered over {}", intent.environment_id),
            rule: format!("one of {} Mbit/s", all.join(", ")),
            source: agreed(),
            resolve: "order one of these".to_owned(),
        });
    } else if room == Room::New && book.roomiest(environment, mbps, &BTreeSet::new()).is_none() {
        findings.used_up(Note {
            code: "no-room",
            pointer: "/bandwidthMbps",
            message: format!("no interconnect of {} has {mbps} Mbit/s left", intent.environment_id),
            rule: "the connections of an interconnect have no more than it carries".to_owned(),
            source: agreed(),
            resolve: "order less, or delete a connection".to_owned(),
        });
    }
    let widest = terms.interconnects.values().filter(|i| i.open).map(|i| i.usable().count()).max().unwrap_or(0);
    let wanted = intent.redundancy.channels();
    if widest < wanted {
        findings.error(Note {
            code: "too-few-channels",
            pointer: "/redundancy",
            message: format!("{wanted} channels are wanted, and an interconnect has {widest} that can be used"),
            rule: "a connection runs over every channel of one interconnect".to_owned(),
            source: SPECIFICATION.to_owned(),
            resolve: "ask for less redundancy".to_owned(),
        });
    }
    if room == Room::New && intent.end(End::A).attach_point_id.is_none() {
        findings.info(Note {
            code: "prefixes-not-compared",
            pointer: "/a/attachPointId",
            message: "without an attach point nothing is known that prefixes could overlap with".to_owned(),
            rule: "prefixes are compared within the network behind an attach point".to_owned(),
            source: "Tieline".to_owned(),
            resolve: "name the attach point of the network that the connection is for".to_owned(),
        });
    }
}
