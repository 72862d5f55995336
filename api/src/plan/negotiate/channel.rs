//! What one channel could be by itself: every value on which both sides must agree, apart from the subnet, which depends
//! on the other channels.

use std::collections::BTreeSet;

use ipnet::Ipv4Net;
use tieline_openapi::{
    units::{BandwidthMbps, Mtu, Vlan},
    v1::{BfdSettings, Channel, DetectMs, End, Ends, Interconnect, Middle, Redundancy, Why},
};
use tieline_providers::{
    Constraints, Rule,
    constraints::{AddressChoice, BfdRule, Md5Rule},
};

use super::{
    super::checks::{Findings, Note},
    Allocated, NegotiatedChannel, PasswordRule, Request, choose,
    frame::Frame,
    subnets::{self, LENGTHS},
    vlans,
};

/// One channel, agreed by itself.
pub(super) struct Draft<'a> {
    /// The channel.
    pub(super) channel: &'a Channel,
    /// What it is configured as already, if it must keep that.
    pub(super) kept: Option<&'a NegotiatedChannel>,
    /// What both sides allow.
    pub(super) constraints: Ends<Constraints>,
    /// The VLAN on each side's port.
    pub(super) vlans: Ends<Vlan>,
    /// MTU of the private path.
    pub(super) mtu: Mtu,
    /// What is ordered.
    pub(super) bandwidth: BandwidthMbps,
    /// BFD as each side is configured; none where it is off or not ours to configure.
    pub(super) bfd: Ends<Option<BfdSettings>>,
    /// How soon each direction's silence is noticed.
    pub(super) detect: DetectMs,
    /// Where its subnet may come from.
    pub(super) pool: Vec<Ipv4Net>,
    /// Of which lengths, preferred first.
    pub(super) lengths: Vec<u8>,
    bfd_runs: bool,
    middle: Middle,
    wished: Wished,
}

/// Which values the intent wished, for telling why they are what they are.
#[derive(Debug, Clone, Copy)]
struct Wished {
    vlan: bool,
    mtu: bool,
}

/// Agrees one channel by itself. Everything that stands in the way is a finding.
pub(super) fn draft<'a>(
    frame: &Frame<'a>,
    allocated: &Allocated,
    request: &'a Request<'_>,
    interconnect: &'a Interconnect,
    channel: &'a Channel,
    findings: &mut Findings,
) -> Option<Draft<'a>> {
    let kept = request.keep.get(&channel.id);
    accounts(frame, channel, findings)?;
    let constraints = frame.ends.map(|end, view| view.rules.constraints(view.point, frame.port(channel, end)));
    if let Some(kept) = kept {
        unchanged(frame, kept, findings);
    }
    let vlans = match kept {
        Some(kept) => Some(kept.sides.map(|_, side| side.vlan)),
        None => vlans::choose(frame, allocated, request, channel, &constraints, findings),
    };
    let mtu = mtu(frame, &constraints, kept, findings);
    let bandwidth = bandwidth(frame, allocated, interconnect, channel, &constraints, findings);
    addresses(frame, &constraints, findings);
    let (pool, lengths) = (pool(frame, &constraints, findings), lengths(frame, &constraints, findings));
    md5(frame, &constraints, findings);
    let runs = bfd_runs(frame, &constraints, findings);
    let bfd = constraints.map(|_, c| (runs && c.bfd.value.configurable).then_some(on(&c.bfd.value)));
    let intent = frame.intent;
    // Nothing was refused, or there is no draft.
    if findings.any_error() {
        return None;
    }
    Some(Draft {
        channel,
        kept,
        vlans: vlans?,
        mtu: mtu?,
        bandwidth: bandwidth?,
        bfd,
        detect: detection(&constraints.map(|_, c| c.bfd.value.clone()), runs),
        pool,
        lengths,
        bfd_runs: runs,
        middle: frame.environment.middle,
        wished: Wished { vlan: intent.wanted.vlan_id.is_some(), mtu: intent.wanted.mtu_bytes.is_some() },
        constraints,
    })
}

fn accounts(frame: &Frame<'_>, channel: &Channel, findings: &mut Findings) -> Option<()> {
    let mut same = true;
    for end in End::BOTH {
        let (port, point) = (frame.port(channel, end), frame.ends.get(end).point);
        if port.account_id == point.account_id {
            continue;
        }
        same = false;
        findings.error(Note {
            code: "port-in-other-account",
            pointer: &format!("/{}/attachPointId", end.as_str()),
            message: format!(
                "port {} of channel {} is in account {}, attach point {} in {}",
                port.port_id, channel.id, port.account_id, point.id, point.account_id
            ),
            rule: "one account holds the port and the attach point of an end".to_owned(),
            source: "accounts in tieline.toml".to_owned(),
            resolve: format!("attach end {} in account {}", end.as_str(), port.account_id),
        });
    }
    same.then_some(())
}

/// What a kept channel cannot change while it lives.
fn unchanged(frame: &Frame<'_>, kept: &NegotiatedChannel, findings: &mut Findings) {
    let immutable = |findings: &mut Findings, pointer: &str, what: String| {
        findings.error(Note {
            code: "immutable",
            pointer,
            message: format!("{what} of channel {} cannot be changed while it lives", kept.channel_id),
            rule: "a living channel keeps its attach points, its VLANs and its subnet".to_owned(),
            source: "providers make these fields immutable".to_owned(),
            resolve: "create another connection and delete this one".to_owned(),
        });
    };
    for end in End::BOTH {
        let (side, point) = (kept.sides.get(end), frame.ends.get(end).point);
        if side.attach_point_id != point.id {
            let pointer = format!("/{}/attachPointId", end.as_str());
            immutable(findings, &pointer, format!("attach point {}", side.attach_point_id));
        }
    }
    let wanted = &frame.intent.wanted;
    if let Some(wish) = wanted.vlan_id
        && End::BOTH.into_iter().any(|end| kept.sides.get(end).vlan != wish)
    {
        immutable(findings, "/wanted/vlanId", format!("VLAN {}", kept.sides.a.vlan));
    }
    if let Some(wish) = wanted.ipv4_subnet
        && kept.reserved_subnets.iter().any(|net| !wish.contains(net))
    {
        immutable(findings, "/wanted/ipv4Subnet", "the subnet".to_owned());
    }
}

fn names(frame: &Frame<'_>) -> Ends<String> {
    frame.ends.map(|end, _| frame.label(end))
}

fn mtu(
    frame: &Frame<'_>,
    constraints: &Ends<Constraints>,
    kept: Option<&NegotiatedChannel>,
    findings: &mut Findings,
) -> Option<Mtu> {
    let (a, b) = (&constraints.a.mtus, &constraints.b.mtus);
    let names = names(frame);
    let common: BTreeSet<Mtu> = a.value.intersection(&b.value).copied().collect();
    let Some(highest) = common.last().copied() else {
        findings.error(Note::conflict(
            "mtu-conflict",
            "/wanted/mtuBytes",
            "the two ends have no MTU in common".to_owned(),
            [(&names.a, &a.rule), (&names.b, &b.rule)],
            "attach at places whose MTUs have one in common".to_owned(),
        ));
        return None;
    };
    let Some(wish) = frame.intent.wanted.mtu_bytes else {
        // A living channel keeps its MTU: changing it can interrupt everything on the port.
        let before = kept.map(|kept| kept.sides.a.mtu).filter(|mtu| common.contains(mtu));
        return Some(before.unwrap_or(highest));
    };
    if common.contains(&wish) {
        return Some(wish);
    }
    let all: Vec<String> = common.iter().map(ToString::to_string).collect();
    for (name, mtus) in [(&names.a, a), (&names.b, b)] {
        if !mtus.value.contains(&wish) {
            findings.error(Note::conflict(
                "mtu-wish",
                "/wanted/mtuBytes",
                format!("{name} does not take an MTU of {wish} bytes"),
                [("intent", &Rule::new(&format!("wanted.mtuBytes is {wish}"), "the intent")), (name, &mtus.rule)],
                format!("wish one of {}, or none", all.join(", ")),
            ));
        }
    }
    None
}

/// What each channel is ordered with: the whole, or half where there are four (house rule of the redundancy classes).
fn share(redundancy: Redundancy, whole: BandwidthMbps) -> u32 {
    match redundancy {
        Redundancy::Single | Redundancy::Dual => whole.get(),
        Redundancy::Quad => whole.get().div_ceil(2),
    }
}

fn bandwidth(
    frame: &Frame<'_>,
    allocated: &Allocated,
    interconnect: &Interconnect,
    channel: &Channel,
    constraints: &Ends<Constraints>,
    findings: &mut Findings,
) -> Option<BandwidthMbps> {
    let (a, b) = (&constraints.a.bandwidths, &constraints.b.bandwidths);
    let share = share(frame.intent.redundancy, frame.intent.bandwidth_mbps);
    let Some(tier) = a.value.intersection(&b.value).copied().find(|tier| tier.get() >= share) else {
        let names = names(frame);
        let most = a.value.intersection(&b.value).last();
        findings.error(Note::conflict(
            "bandwidth-conflict",
            "/bandwidthMbps",
            format!("no bandwidth of at least {share} Mbit/s a channel is sold at both ends"),
            [(&names.a, &a.rule), (&names.b, &b.rule)],
            most.map_or_else(
                || "attach at places that sell a bandwidth in common".to_owned(),
                |most| format!("order so much that a channel needs at most {most} Mbit/s"),
            ),
        ));
        return None;
    };
    let left = choose::left(interconnect, channel, allocated);
    if left < u64::from(tier.get()) {
        findings.used_up(Note {
            code: "bandwidth-used-up",
            pointer: "/bandwidthMbps",
            message: format!("channel {} has {left} Mbit/s left; {tier} are needed", channel.id),
            rule: format!(
                "all connections of a channel take at most {} Mbit/s together",
                interconnect.max_bandwidth_mbps
            ),
            source: format!("interconnect {} in tieline.toml", interconnect.id),
            resolve: "order less, or delete a connection of this interconnect".to_owned(),
        });
        return None;
    }
    Some(tier)
}

fn addresses(frame: &Frame<'_>, constraints: &Ends<Constraints>, findings: &mut Findings) {
    let (a, b) = (&constraints.a.address_choice, &constraints.b.address_choice);
    if a.value == AddressChoice::Cloud && b.value == AddressChoice::Cloud {
        let names = names(frame);
        findings.error(Note::conflict(
            "address-choice-conflict",
            "/environmentId",
            "both clouds pick the point-to-point addresses themselves".to_owned(),
            [(&names.a, &a.rule), (&names.b, &b.rule)],
            "use an environment with a router in the middle, so that each side has a subnet of its own".to_owned(),
        ));
    }
}

fn pool(frame: &Frame<'_>, constraints: &Ends<Constraints>, findings: &mut Findings) -> Vec<Ipv4Net> {
    let (a, b) = (&constraints.a.ipv4_include, &constraints.b.ipv4_include);
    let names = names(frame);
    let common = subnets::intersect(&a.value, &b.value);
    if common.is_empty() {
        findings.error(Note::conflict(
            "subnet-range-conflict",
            "/wanted/ipv4Subnet",
            "the two ends take point-to-point subnets from different ranges".to_owned(),
            [(&names.a, &a.rule), (&names.b, &b.rule)],
            "attach at places whose ranges overlap".to_owned(),
        ));
        return common;
    }
    let Some(wish) = frame.intent.wanted.ipv4_subnet else { return common };
    if wish.trunc() != wish {
        findings.error(Note {
            code: "host-bits",
            pointer: "/wanted/ipv4Subnet",
            message: format!("{wish} has host bits set; the network is {}", wish.trunc()),
            rule: "the bits of a prefix after its length are zero".to_owned(),
            source: "RFC 4632 section 3.1".to_owned(),
            resolve: format!("write {}", wish.trunc()),
        });
    }
    let within = subnets::intersect(&common, &[wish]);
    if within.is_empty() {
        for (name, include) in [(&names.a, a), (&names.b, b)] {
            if subnets::intersect(&include.value, &[wish]).is_empty() {
                findings.error(Note::conflict(
                    "subnet-wish",
                    "/wanted/ipv4Subnet",
                    format!("{name} takes no point-to-point subnet out of {wish}"),
                    [
                        ("intent", &Rule::new(&format!("wanted.ipv4Subnet is {wish}"), "the intent")),
                        (name, &include.rule),
                    ],
                    format!("wish a subnet inside {}, or none", join(&common)),
                ));
            }
        }
    }
    within
}

fn join(nets: &[Ipv4Net]) -> String {
    let all: Vec<String> = nets.iter().map(ToString::to_string).collect();
    all.join(" or ")
}

/// The lengths that both take, by how much both like them together; the smaller subnet where they are even.
fn lengths(frame: &Frame<'_>, constraints: &Ends<Constraints>, findings: &mut Findings) -> Vec<u8> {
    let (a, b) = (&constraints.a.ipv4_lengths, &constraints.b.ipv4_lengths);
    let rank = |list: &[u8], length: u8| list.iter().position(|l| *l == length);
    let mut common: Vec<(usize, u8)> = a
        .value
        .iter()
        .filter(|length| LENGTHS.contains(length))
        .filter_map(|length| Some((rank(&a.value, *length)? + rank(&b.value, *length)?, *length)))
        .collect();
    common.sort_by_key(|(rank, length)| (*rank, u8::MAX - length));
    common.dedup();
    if common.is_empty() {
        let names = names(frame);
        findings.error(Note::conflict(
            "subnet-length-conflict",
            "/environmentId",
            "the two ends have no length of point-to-point subnets in common".to_owned(),
            [(&names.a, &a.rule), (&names.b, &b.rule)],
            "attach at places that take subnets of one length, /24 to /31".to_owned(),
        ));
    }
    common.into_iter().map(|(_, length)| length).collect()
}

/// Which passwords both rules take; none if a side takes none.
pub(super) fn passwords(a: &Md5Rule, b: &Md5Rule) -> Option<PasswordRule> {
    let length = *a.length.start().max(b.length.start())..=*a.length.end().min(b.length.end());
    (a.supported && b.supported && !length.is_empty())
        .then_some(PasswordRule { length, alphanumeric_only: a.alphanumeric_only || b.alphanumeric_only })
}

fn md5(frame: &Frame<'_>, constraints: &Ends<Constraints>, findings: &mut Findings) {
    let (a, b) = (&constraints.a.md5, &constraints.b.md5);
    if passwords(&a.value, &b.value).is_some() || !(a.value.required || b.value.required) {
        return;
    }
    let names = names(frame);
    findings.error(Note::conflict(
        "md5-conflict",
        "/environmentId",
        "one end needs a BGP password and no password suits both".to_owned(),
        [(&names.a, &a.rule), (&names.b, &b.rule)],
        "attach at places that both take a BGP password (RFC 2385)".to_owned(),
    ));
}

/// Whether BFD runs: wherever both sides can, unless it is wished off.
fn bfd_runs(frame: &Frame<'_>, constraints: &Ends<Constraints>, findings: &mut Findings) -> bool {
    let wish = frame.intent.wanted.bfd;
    let mut able = true;
    for end in End::BOTH {
        let bfd = &constraints.get(end).bfd;
        if bfd.value.supported {
            continue;
        }
        able = false;
        if wish == Some(true) {
            let name = frame.label(end);
            findings.error(Note::conflict(
                "bfd-wish",
                "/wanted/bfd",
                format!("{name} has no BFD"),
                [("intent", &Rule::new("wanted.bfd is true", "the intent")), (&name, &bfd.rule)],
                "leave wanted.bfd null: the BGP hold time then notices a failure".to_owned(),
            ));
        }
    }
    able && wish != Some(false)
}

const fn on(rule: &BfdRule) -> BfdSettings {
    BfdSettings { enabled: true, ..rule.best }
}

/// How soon each direction's silence is noticed. With BFD, a receiver waits for the sender's multiplier times the greater
/// of its own required minimum receive interval and the sender's desired minimum transmit interval (RFC 5880 section
/// 6.8.4). Without, both wait for the lesser of the two hold times (RFC 4271 section 4.2).
pub(super) fn detection(rules: &Ends<BfdRule>, runs: bool) -> DetectMs {
    if !runs {
        let hold = rules.a.hold_time_ms.min(rules.b.hold_time_ms);
        return DetectMs { a_to_b: hold, b_to_a: hold };
    }
    let notices = |sender: &BfdSettings, receiver: &BfdSettings| {
        u32::from(sender.multiplier).saturating_mul(receiver.min_receive_ms.max(sender.min_transmit_ms))
    };
    let (a, b) = (&rules.a.best, &rules.b.best);
    DetectMs { a_to_b: notices(a, b), b_to_a: notices(b, a) }
}

impl Draft<'_> {
    /// What is worth knowing about a channel that was chosen.
    pub(super) fn note(&self, frame: &Frame<'_>, findings: &mut Findings) {
        let names = names(frame);
        if passwords(&self.constraints.a.md5.value, &self.constraints.b.md5.value).is_none() {
            findings.warning(Note::conflict(
                "md5-off",
                "",
                "the BGP sessions run without a password".to_owned(),
                [(&names.a, &self.constraints.a.md5.rule), (&names.b, &self.constraints.b.md5.rule)],
                "attach at places that both take a BGP password (RFC 2385)".to_owned(),
            ));
        }
        if !self.bfd_runs && frame.intent.wanted.bfd.is_none() {
            findings.warning(Note::conflict(
                "bfd-off",
                "/wanted/bfd",
                format!(
                    "without BFD a silent failure is noticed after {} ms",
                    self.detect.a_to_b.max(self.detect.b_to_a)
                ),
                [(&names.a, &self.constraints.a.bfd.rule), (&names.b, &self.constraints.b.bfd.rule)],
                "attach at places that both have BFD, or rely on the tunnel's probes".to_owned(),
            ));
        }
    }

    /// Which rule chose each value, in a fixed order.
    pub(super) fn why(&self, subnet: Ipv4Net) -> Vec<Why> {
        let mut why = Vec::new();
        let mut say = |pointer: String, rule: String, source: String| why.push(Why { pointer, rule, source });
        let c = &self.constraints;
        let both = |a: &Rule, b: &Rule| Note::conflict("", "", String::new(), [("a", a), ("b", b)], String::new());
        say(
            "/bandwidthMbps".to_owned(),
            format!(
                "the smallest bandwidth that both sell and that holds the channel's share; {}",
                both(&c.a.bandwidths.rule, &c.b.bandwidths.rule).rule
            ),
            both(&c.a.bandwidths.rule, &c.b.bandwidths.rule).source,
        );
        for end in End::BOTH {
            let e = end.as_str();
            let (vlans, mtus, subnets) = (
                both(&c.a.vlan_ranges.rule, &c.b.vlan_ranges.rule),
                both(&c.a.mtus.rule, &c.b.mtus.rule),
                both(&c.a.address_choice.rule, &c.b.address_choice.rule),
            );
            let vlan = match (self.wished.vlan, self.middle) {
                (true, _) => "wished, and free".to_owned(),
                (false, Middle::L2) => "the lowest that is free on this port".to_owned(),
                (false, Middle::None | Middle::L3 | Middle::Handoff) => {
                    "the lowest that is free on both ports, as nothing between them translates it".to_owned()
                }
            };
            say(format!("/{e}/vlanId"), format!("{vlan}; {}", vlans.rule), vlans.source);
            let mtu = if self.wished.mtu { "wished" } else { "the highest that both take" };
            say(format!("/{e}/mtuBytes"), format!("{mtu}; {}", mtus.rule), mtus.source);
            say(
                format!("/{e}/ipv4Subnet"),
                format!("{subnet} is the lowest /{} free on both attach points; {}", subnet.prefix_len(), subnets.rule),
                subnets.source,
            );
            say(
                format!("/{e}/asn"),
                "the attach point's own AS number".to_owned(),
                "attachPoints in tieline.toml".to_owned(),
            );
            let bfd = &c.get(end).bfd;
            let how = match (self.bfd_runs, bfd.value.configurable) {
                (true, true) => "the fastest that this side takes",
                (true, false) => "run by the cloud itself",
                (false, _) => "off",
            };
            say(format!("/{e}/bfd"), format!("{how}; {}", bfd.rule.text), bfd.rule.source.clone());
        }
        why
    }
}
