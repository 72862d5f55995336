//! Which VLAN a channel gets on each port.

use std::collections::BTreeMap;

use tieline_openapi::{
    ids::PortId,
    units::Vlan,
    v1::{Channel, Ends, Middle},
};
use tieline_providers::{Constraints, Rule};

use super::{
    super::checks::{Findings, Note},
    Allocated, Request, VLAN_POOL,
    frame::Frame,
};

/// VLANs of one port as a set of bits: up to a thousand are in use, and each is asked for often.
#[derive(Clone)]
struct Bits([u64; 64]);

impl Bits {
    const NONE: Self = Self([0; 64]);

    fn insert(&mut self, vlan: u16) {
        if let Some(word) = self.0.get_mut(usize::from(vlan / 64)) {
            *word |= 1 << (vlan % 64);
        }
    }

    fn contains(&self, vlan: u16) -> bool {
        self.0.get(usize::from(vlan / 64)).is_some_and(|word| word & (1 << (vlan % 64)) != 0)
    }
}

/// One port.
struct Port<'c> {
    id: &'c PortId,
    name: String,
    constraints: &'c Constraints,
    taken: Bits,
    /// What others have of it, by VLAN.
    foreign: Option<&'c BTreeMap<u16, String>>,
}

impl Port<'_> {
    fn in_range(&self, vlan: u16) -> bool {
        self.constraints.vlan_ranges.value.iter().any(|range| range.contains(&vlan))
    }

    fn free(&self, vlan: u16) -> bool {
        self.in_range(vlan) && !self.taken.contains(vlan)
    }
}

/// The lowest VLAN of the pool that is free: on both ports where nothing is between them, on each by itself where a
/// fabric is. A wish may lie outside the pool, but not outside what the ports take.
pub(super) fn choose(
    frame: &Frame<'_>,
    allocated: &Allocated,
    request: &Request<'_>,
    channel: &Channel,
    constraints: &Ends<Constraints>,
    findings: &mut Findings,
) -> Option<Ends<Vlan>> {
    let ports = constraints.map(|end, constraints| {
        let id = &frame.port(channel, end).port_id;
        let mut taken = Bits::NONE;
        let refused = request.refused.get(&channel.id).map(|refused| &refused.vlans);
        let (held, foreign) = (allocated.vlans.get(id), allocated.foreign_vlans.get(id));
        let ours = held.into_iter().flatten().chain(refused.into_iter().flatten());
        let others = constraints.vlans_in_use.iter().chain(foreign.into_iter().flat_map(BTreeMap::keys));
        for vlan in ours.chain(others) {
            taken.insert(*vlan);
        }
        Port { id, name: frame.label(end), constraints, taken, foreign }
    });
    let both = [&ports.a, &ports.b];
    if let Some(wish) = frame.intent.wanted.vlan_id {
        return wished(wish, both, findings).then_some(Ends { a: wish, b: wish });
    }
    if frame.environment.middle == Middle::L2 {
        let a = lowest(&[&ports.a], findings);
        let b = lowest(&[&ports.b], findings);
        return Some(Ends { a: a?, b: b? });
    }
    let vlan = lowest(&both, findings)?;
    Some(Ends { a: vlan, b: vlan })
}

fn lowest(ports: &[&Port<'_>], findings: &mut Findings) -> Option<Vlan> {
    let found = VLAN_POOL.into_iter().find(|vlan| ports.iter().all(|port| port.free(*vlan)));
    if let Some(vlan) = found {
        return Vlan::try_from(u64::from(vlan)).ok();
    }
    let pool = Rule::new(
        &format!("VLANs {} to {} are given out", VLAN_POOL.start(), VLAN_POOL.end()),
        "Connection Coordinator API: vlanId is greater than 1024",
    );
    let any_in_range = VLAN_POOL.into_iter().any(|vlan| ports.iter().all(|port| port.in_range(vlan)));
    let names: Vec<String> = ports.iter().map(|port| port.id.to_string()).collect();
    let names = names.join(" and ");
    let mut rules: Vec<(&str, &Rule)> =
        ports.iter().map(|port| (port.name.as_str(), &port.constraints.vlan_ranges.rule)).collect();
    rules.push(("Tieline", &pool));
    let (rule, source) = (
        rules.iter().map(|(who, rule)| format!("{who}: {}", rule.text)).collect::<Vec<_>>().join("; "),
        rules.iter().map(|(_, rule)| rule.source.clone()).collect::<Vec<_>>().join("; "),
    );
    if any_in_range {
        findings.used_up(Note {
            code: "vlans-used-up",
            pointer: "/wanted/vlanId",
            message: format!("no VLAN is free on {names}"),
            rule,
            source,
            resolve: "delete a connection of this interconnect, or wish a VLAN outside the pool".to_owned(),
        });
    } else {
        findings.error(Note {
            code: "vlan-range-conflict",
            pointer: "/wanted/vlanId",
            message: format!("no VLAN of the pool is taken by {names}"),
            rule,
            source,
            resolve: "wish a VLAN that both ports take".to_owned(),
        });
    }
    None
}

fn wished(wish: Vlan, ports: [&Port<'_>; 2], findings: &mut Findings) -> bool {
    let intent = Rule::new(&format!("wanted.vlanId is {wish}"), "the intent");
    let next = VLAN_POOL.into_iter().find(|vlan| ports.iter().all(|port| port.free(*vlan)));
    let resolve = next.map_or_else(
        || "wish none".to_owned(),
        |next| format!("wish none, or one that is free on every channel: {next} is free here"),
    );
    let mut fits = true;
    for port in ports {
        if port.free(wish.get()) {
            continue;
        }
        fits = false;
        let pointer = "/wanted/vlanId";
        if port.in_range(wish.get()) {
            let one = Rule::new("a VLAN is used once on a port", "IEEE 802.1Q");
            let by = port.foreign.and_then(|foreign| foreign.get(&wish.get()));
            let message = match by {
                Some(by) => format!("VLAN {wish} on port {} is in use by {by}, which is not of this Tieline", port.id),
                None => format!("VLAN {wish} is in use, or was refused, on port {}", port.id),
            };
            findings.used_up(Note::conflict(
                "vlan-taken",
                pointer,
                message,
                [("intent", &intent), (&port.name, &one)],
                resolve.clone(),
            ));
        } else {
            findings.error(Note::conflict(
                "vlan-wish",
                pointer,
                format!("{} does not take VLAN {wish}", port.name),
                [("intent", &intent), (&port.name, &port.constraints.vlan_ranges.rule)],
                resolve.clone(),
            ));
        }
    }
    fits
}
