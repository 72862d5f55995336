//! Checks of an intent that need no allocation: prefixes, address families, AS numbers, prefix limits.

mod enforcement;
mod finding;
mod links;
#[cfg(test)]
mod tests;

use ipnet::IpNet;
use tieline_openapi::v1::{AddressFamily, AttachPoint, ConnectionIntent, End, Ends};
use tieline_providers::{Constraints, Rule};

pub use enforcement::enforcement;
pub use finding::{Findings, Note};
pub use links::{AttachPoints, other_links};

use super::carried;

/// The most prefixes that one list of an intent may hold.
pub const MAX_PREFIXES: usize = 200;

/// Networks that no site may announce: each with what it is reserved for.
const RESERVED: [(&str, &str, &str); 9] = [
    ("0.0.0.0/8", "\"this network\"", "RFC 6890"),
    ("127.0.0.0/8", "loopback", "RFC 6890"),
    ("169.254.0.0/16", "link local, where the point-to-point subnets come from", "RFC 3927"),
    ("224.0.0.0/4", "multicast", "RFC 5771"),
    ("240.0.0.0/4", "reserved", "RFC 6890"),
    ("::/128", "the unspecified address", "RFC 4291"),
    ("::1/128", "loopback", "RFC 4291"),
    ("fe80::/10", "link local", "RFC 4291"),
    ("ff00::/8", "multicast", "RFC 4291"),
];

/// Checks both ends' prefix lists, the families, and the overlap with each other.
pub fn prefixes(intent: &ConnectionIntent, points: &Ends<Option<&AttachPoint>>, findings: &mut Findings) {
    families(intent, findings);
    for end in End::BOTH {
        let own = intent.end(end);
        let name = end.as_str();
        list(&own.advertised_prefixes, &format!("/{name}/advertisedPrefixes"), &intent.families, findings);
        if let Some(accepted) = &own.accepted_prefixes {
            list(accepted, &format!("/{name}/acceptedPrefixes"), &intent.families, findings);
            filtered(end, &intent.end(end.other()).advertised_prefixes, accepted, findings);
        }
        if own.advertised_prefixes.is_empty() {
            findings.warning(Note {
                code: "nothing-announced",
                pointer: &format!("/{name}/advertisedPrefixes"),
                message: format!("end {name} announces nothing, so the other end cannot reach it"),
                rule: "traffic follows announced prefixes".to_owned(),
                source: "RFC 4271 section 3.1".to_owned(),
                resolve: format!("list the networks behind end {name}"),
            });
        }
        if let Some(point) = points.get(end) {
            behind(end, point, &own.advertised_prefixes, findings);
        }
    }
    ends_overlap(intent, findings);
}

fn families(intent: &ConnectionIntent, findings: &mut Findings) {
    let families = &intent.families;
    let twice = families.iter().enumerate().any(|(i, f)| families[..i].contains(f));
    if families.is_empty() || twice {
        findings.error(Note {
            code: "families",
            pointer: "/families",
            message: "families must name IPV4, IPV6 or both, each once".to_owned(),
            rule: "a connection carries at least one IP version".to_owned(),
            source: "the contract of /v1".to_owned(),
            resolve: "write \"families\": [\"IPV4\"]".to_owned(),
        });
    }
}

fn family(net: &IpNet) -> AddressFamily {
    match net {
        IpNet::V4(_) => AddressFamily::Ipv4,
        IpNet::V6(_) => AddressFamily::Ipv6,
    }
}

const fn family_name(family: AddressFamily) -> &'static str {
    match family {
        AddressFamily::Ipv4 => "IPv4",
        AddressFamily::Ipv6 => "IPv6",
    }
}

fn list(prefixes: &[IpNet], pointer: &str, families: &[AddressFamily], findings: &mut Findings) {
    if prefixes.len() > MAX_PREFIXES {
        findings.error(Note {
            code: "too-many-prefixes",
            pointer,
            message: format!("{} prefixes are listed", prefixes.len()),
            rule: format!("a list holds at most {MAX_PREFIXES} prefixes"),
            source: "the contract of /v1".to_owned(),
            resolve: "summarise adjacent prefixes".to_owned(),
        });
        return;
    }
    for (index, net) in prefixes.iter().enumerate() {
        let at = format!("{pointer}/{index}");
        if net.trunc() != *net {
            findings.error(Note {
                code: "host-bits",
                pointer: &at,
                message: format!("{net} has host bits set; the network is {}", net.trunc()),
                rule: "the bits of a prefix after its length are zero".to_owned(),
                source: "RFC 4632 section 3.1".to_owned(),
                resolve: format!("write {}", net.trunc()),
            });
        }
        if prefixes[..index].contains(net) {
            findings.error(Note {
                code: "prefix-twice",
                pointer: &at,
                message: format!("{net} is listed twice"),
                rule: "each prefix is listed once".to_owned(),
                source: "the contract of /v1".to_owned(),
                resolve: "remove one of them".to_owned(),
            });
        }
        if !families.contains(&family(net)) {
            let name = family_name(family(net));
            findings.error(Note {
                code: "prefix-family",
                pointer: &at,
                message: format!("{net} is {name}, which is not among the connection's families"),
                rule: "prefixes belong to the families that run over the connection".to_owned(),
                source: "the contract of /v1".to_owned(),
                resolve: format!("add {name} to families, or remove the prefix"),
            });
        }
        if let Some((_, what, source)) = reserved(net) {
            findings.error(Note {
                code: "prefix-reserved",
                pointer: &at,
                message: format!("{net} cannot be announced: it is within {what}"),
                rule: format!("{what} is never routed between sites"),
                source: source.to_owned(),
                resolve: "announce the networks of the site".to_owned(),
            });
        }
    }
}

fn reserved(net: &IpNet) -> Option<(IpNet, &'static str, &'static str)> {
    RESERVED.iter().find_map(|(text, what, source)| {
        let reserved: IpNet = text.parse().ok()?;
        reserved.contains(net).then_some((reserved, *what, *source))
    })
}

fn overlap(a: &IpNet, b: &IpNet) -> bool {
    a.contains(b) || b.contains(a)
}

/// A default route covers everything on purpose: the longest match decides (RFC 4632 section 5.1).
fn is_default(net: &IpNet) -> bool {
    net.prefix_len() == 0
}

fn ends_overlap(intent: &ConnectionIntent, findings: &mut Findings) {
    for (index, b) in intent.b.advertised_prefixes.iter().enumerate() {
        for a in &intent.a.advertised_prefixes {
            if !overlap(a, b) || (is_default(a) != is_default(b)) {
                continue;
            }
            findings.error(Note {
                code: "prefix-overlap",
                pointer: &format!("/b/advertisedPrefixes/{index}"),
                message: format!("{b} at end b overlaps {a} at end a"),
                rule: "the two ends announce disjoint networks: a site's own route beats a learned one".to_owned(),
                source: "RFC 4632 section 5.1".to_owned(),
                resolve: "announce disjoint prefixes, or renumber one site".to_owned(),
            });
        }
    }
}

fn filtered(end: End, announced: &[IpNet], accepted: &[IpNet], findings: &mut Findings) {
    for net in announced.iter().filter(|net| !accepted.iter().any(|a| a.contains(*net))) {
        let other = end.other().as_str();
        let message = match carried::accepted(&[*net], Some(accepted)).as_slice() {
            [] => format!("{net} is announced by end {other} and not accepted here"),
            [first, ..] => format!("of {net} of end {other} only parts are accepted here: {first} is the first"),
        };
        findings.warning(Note {
            code: "prefix-filtered",
            pointer: &format!("/{}/acceptedPrefixes", end.as_str()),
            message,
            rule: "of two nested prefixes the longer one is carried; what is not accepted is not reachable".to_owned(),
            source: "the contract of /v1".to_owned(),
            resolve: format!("add {net} to acceptedPrefixes, or leave acceptedPrefixes null"),
        });
    }
}

fn behind(end: End, point: &AttachPoint, announced: &[IpNet], findings: &mut Findings) {
    if point.prefixes.is_empty() {
        return;
    }
    for (index, net) in announced.iter().enumerate() {
        if is_default(net) || point.prefixes.iter().any(|p| p.contains(net)) {
            continue;
        }
        findings.warning(Note {
            code: "prefix-not-behind-attach-point",
            pointer: &format!("/{}/advertisedPrefixes/{index}", end.as_str()),
            message: format!("{net} is not within the prefixes of attach point {}", point.id),
            rule: "a site announces what is behind it".to_owned(),
            source: format!("attachPoints in tieline.toml: {}", point.id),
            resolve: "correct the prefix, or add it to the attach point's prefixes in tieline.toml".to_owned(),
        });
    }
}

/// Checks that each end takes the other as a BGP neighbour.
pub fn asns(points: &Ends<&AttachPoint>, constraints: &Ends<Constraints>, findings: &mut Findings) {
    if points.a.asn == points.b.asn {
        findings.error(Note {
            code: "asn-equal",
            pointer: "/b/attachPointId",
            message: format!("attach points {} and {} both have AS {}", points.a.id, points.b.id, points.a.asn),
            rule: "a router drops routes that carry its own AS number".to_owned(),
            source: "RFC 4271 section 9.1.2".to_owned(),
            resolve:
                "attach one end to a gateway or router with another AS number: it cannot be changed on a living one"
                    .to_owned(),
        });
    }
    for end in End::BOTH {
        let refused = &constraints.get(end).refused_peer_asns;
        let (point, peer) = (points.get(end), points.get(end.other()));
        if refused.value.iter().any(|range| range.contains(&peer.asn.get())) {
            findings.error(Note::new(
                "asn-refused",
                &format!("/{}/attachPointId", end.other().as_str()),
                format!("attach point {} takes no neighbour with AS {}, which {} has", point.id, peer.asn, peer.id),
                &refused.rule,
                format!("attach end {} to a gateway or router with another AS number", end.other().as_str()),
            ));
        }
    }
}

/// Checks the counts of prefixes against both sides' limits and the intent's own, and gives the most that the other side
/// of each end may announce.
pub fn prefix_limits(
    intent: &ConnectionIntent,
    constraints: &Ends<Constraints>,
    findings: &mut Findings,
) -> Ends<Option<u32>> {
    let mut limits = Ends { a: None, b: None };
    for end in End::BOTH {
        let (receiver, sender) = (constraints.get(end), constraints.get(end.other()));
        let pointer = format!("/{}/advertisedPrefixes", end.other().as_str());
        let announced = &intent.end(end.other()).advertised_prefixes;
        // Each family has its own session, and limits are per session.
        let most = [AddressFamily::Ipv4, AddressFamily::Ipv6]
            .into_iter()
            .map(|wanted| announced.iter().filter(|net| family(net) == wanted).count())
            .max()
            .unwrap_or(0);
        let most = u32::try_from(most).unwrap_or(u32::MAX);
        let sides = [
            (end, "accepts", &receiver.max_received_prefixes),
            (end.other(), "announces", &sender.max_advertised_prefixes),
        ];
        for (side, does, limit) in sides {
            if most > limit.value {
                findings.error(Note::new(
                    "prefix-limit",
                    &pointer,
                    format!("{most} prefixes are announced; end {} {does} at most {}", side.as_str(), limit.value),
                    &limit.rule,
                    "summarise the prefixes".to_owned(),
                ));
            }
        }
        let cloud = receiver.max_received_prefixes.value.min(sender.max_advertised_prefixes.value);
        if let Some(own) = intent.routing.max_prefixes {
            own_limit(own, most, cloud, &receiver.max_received_prefixes.rule, &pointer, findings);
        }
        *limits.get_mut(end) = Some(intent.routing.max_prefixes.map_or(cloud, |own| own.min(cloud)));
    }
    limits
}

fn own_limit(own: u32, announced: u32, cloud: u32, rule: &Rule, pointer: &str, findings: &mut Findings) {
    if announced > own {
        findings.error(Note {
            code: "prefix-limit",
            pointer,
            message: format!("{announced} prefixes are announced; routing.maxPrefixes allows {own}"),
            rule: "routing.maxPrefixes bounds what either side announces".to_owned(),
            source: "the contract of /v1".to_owned(),
            resolve: "raise routing.maxPrefixes, or announce fewer prefixes".to_owned(),
        });
    }
    if own > cloud {
        findings.warning(Note::new(
            "prefix-limit-above-cloud",
            "/routing/maxPrefixes",
            format!("routing.maxPrefixes is {own}; the clouds take {cloud} on this session"),
            rule,
            format!("write {cloud} or less"),
        ));
    }
}
