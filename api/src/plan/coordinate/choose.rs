//! Guidance: what we take on a channel, and the choice within what the peer takes.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};
use tieline_openapi::{
    coordinator::{BgpEnd, Hosts, L3Base, LOWEST_VLAN, ResourceId, Sensitive},
    units::{Asn, Mtu, Vlan},
};

use super::state::{Book, ChannelTerms, Place, Row, Terms, Theirs};

/// Where a subnet may come from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubnetChoice {
    /// Any part of this.
    pub include: Ipv4Net,
    /// But no part of these.
    pub exclude: Vec<Ipv4Net>,
    /// This one rather than another.
    pub preferred: Option<Ipv4Net>,
}

/// What a server takes on one channel. What is empty restricts nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChannelGuidance {
    /// The channel.
    pub channel: ResourceId,
    /// Whether the server has enabled it.
    pub enabled: bool,
    /// The server's AS numbers.
    pub asns: Vec<(u32, u32)>,
    /// Where the subnet may come from.
    pub subnets: Vec<SubnetChoice>,
    /// The prefix lengths of it.
    pub lengths: Vec<u8>,
    /// The VLANs; those in use are not taken out.
    pub vlans: Vec<(u16, u16)>,
    /// The MTUs.
    pub mtus: Vec<(u16, u16)>,
}

/// How many subnets are looked at before a channel counts as full.
const CANDIDATES: usize = 4_096;

fn within<T: PartialOrd + Copy>(ranges: &[(T, T)], value: T) -> bool {
    ranges.is_empty() || ranges.iter().any(|(start, stop)| *start <= value && value <= *stop)
}

fn overlap(a: &Ipv4Net, b: &Ipv4Net) -> bool {
    a.contains(b) || b.contains(a)
}

impl Book {
    /// VLAN and subnet of every other live feature on a channel. `firm` leaves out our own proposals without an answer.
    fn taken<'b>(
        &'b self,
        place: &'b Place,
        channel: &'b ResourceId,
        firm: bool,
    ) -> impl Iterator<Item = (u16, Ipv4Net)> + 'b {
        let on_it = move |row: &&Row| {
            row.place.environment == place.environment
                && row.place.interconnect == place.interconnect
                && row.place != *place
        };
        let features = self.rows.values().filter(on_it).filter_map(move |row| row.features.get(channel));
        features
            .filter(move |feature| !(firm && feature.theirs == Theirs::Proposed))
            .filter_map(|feature| Some((feature.config.vlan.get(), feature.config.ipv4.as_ref()?.subnet)))
    }

    /// Whether a configuration is free on a channel, beside what other connections have there.
    pub(super) fn is_free(&self, place: &Place, channel: &ResourceId, config: &L3Base, firm: bool) -> bool {
        let Some(hosts) = &config.ipv4 else { return false };
        self.taken(place, channel, firm).all(|(vlan, net)| vlan != config.vlan.get() && !overlap(&net, &hosts.subnet))
    }

    /// What we take on every channel of a connection's interconnect.
    pub(super) fn guidance(&self, place: &Place) -> Vec<ChannelGuidance> {
        let Some(interconnect) = self.terms.interconnect(place) else { return Vec::new() };
        let guide = |(channel, terms): (&ResourceId, &ChannelTerms)| {
            let taken: Vec<Ipv4Net> = self.taken(place, channel, false).map(|(_, net)| net).collect();
            let subnet = |include: &Ipv4Net| SubnetChoice {
                include: *include,
                exclude: terms.excluded.iter().chain(&taken).filter(|net| include.contains(*net)).copied().collect(),
                preferred: None,
            };
            ChannelGuidance {
                channel: channel.clone(),
                enabled: terms.enabled && !terms.in_maintenance,
                asns: vec![(terms.asn.get(), terms.asn.get())],
                subnets: terms.subnets.iter().map(subnet).collect(),
                lengths: terms.lengths.clone(),
                vlans: vec![terms.vlans],
                mtus: terms.mtus.clone(),
            }
        };
        interconnect.channels.iter().map(guide).collect()
    }

    /// Whether the peer's proposal keeps to what we take: the rule that it breaks, if it breaks one.
    pub(super) fn breaks(&self, terms: &ChannelTerms, config: &L3Base) -> Option<&'static str> {
        let ours = config.ends.iter().find(|end| end.provider == self.terms.us);
        let Some(hosts) = &config.ipv4 else { return Some("an IPv4 subnet is needed") };
        let inside = terms.subnets.iter().any(|net| net.contains(&hosts.subnet));
        let excluded = terms.excluded.iter().any(|net| overlap(net, &hosts.subnet));
        match () {
            () if ours.is_none_or(|end| end.asn != terms.asn) => Some("our AS number is another"),
            () if !within(&[terms.vlans], config.vlan.get()) => Some("the VLAN is outside of the guidance"),
            () if !within(&terms.mtus, config.mtu.get()) => Some("the MTU is outside of the guidance"),
            () if !inside || excluded => Some("the subnet is outside of the guidance"),
            () if !terms.lengths.is_empty() && !terms.lengths.contains(&hosts.subnet.prefix_len()) => {
                Some("the prefix length is outside of the guidance")
            }
            () => None,
        }
    }

    /// The best configuration that both sides take and that is free here; none if there is none.
    pub(super) fn choose(
        &self,
        row: &Row,
        channel: &ResourceId,
        guidance: &ChannelGuidance,
        password: &Sensitive,
    ) -> Option<L3Base> {
        let ours = self.terms.interconnect(&row.place)?.channels.get(channel)?;
        let avoided = row.avoid.get(channel).map(Vec::as_slice).unwrap_or_default();
        let taken: Vec<(u16, Ipv4Net)> =
            self.taken(&row.place, channel, false).chain(avoided.iter().copied()).collect();
        let lowest = ours.vlans.0.max(LOWEST_VLAN);
        let vlan = (lowest..=ours.vlans.1)
            .find(|vlan| within(&guidance.vlans, *vlan) && taken.iter().all(|(used, _)| used != vlan))?;
        let subnet = subnet(ours, guidance, &taken)?;
        let theirs = guidance.asns.iter().flat_map(|(start, stop)| *start..=*stop);
        // A server that names no AS number of its own cannot be configured against.
        let asn =
            theirs.take(CANDIDATES).find_map(|asn| Asn::try_from(u64::from(asn)).ok().filter(|a| *a != ours.asn))?;
        let (first, second) = hosts(&subnet)?;
        Some(L3Base {
            vlan: Vlan::try_from(u64::from(vlan)).ok()?,
            mtu: highest(&ours.mtus, &guidance.mtus)?,
            ends: ends(&self.terms, ours.asn, asn),
            ipv4: Some(Hosts { subnet, first, second }),
            ipv6: None,
            md5_bgp_password: password.clone(),
        })
    }
}

/// Both ends, in order of provider id.
fn ends(terms: &Terms, ours: Asn, theirs: Asn) -> [BgpEnd; 2] {
    let mut ends = [(&terms.us, ours), (&terms.them, theirs)].map(|(p, asn)| BgpEnd { provider: p.clone(), asn });
    ends.sort_by(|a, b| a.provider.cmp(&b.provider));
    ends
}

/// The highest MTU that both sides take (the specification's rule).
fn highest(ours: &[(u16, u16)], theirs: &[(u16, u16)]) -> Option<Mtu> {
    let tops = ours.iter().chain(theirs).map(|(_, stop)| *stop);
    let best = tops.filter(|mtu| within(ours, *mtu) && within(theirs, *mtu)).max()?;
    Mtu::try_from(u64::from(best)).ok()
}

fn subnet(ours: &ChannelTerms, guidance: &ChannelGuidance, taken: &[(u16, Ipv4Net)]) -> Option<Ipv4Net> {
    let lengths: Vec<u8> = match (ours.lengths.as_slice(), guidance.lengths.as_slice()) {
        (ours, []) => ours.to_vec(),
        ([], theirs) => theirs.to_vec(),
        (ours, theirs) => ours.iter().copied().filter(|length| theirs.contains(length)).collect(),
    };
    let good = |net: &Ipv4Net| {
        let theirs = guidance.subnets.is_empty()
            || guidance.subnets.iter().any(|choice| {
                choice.include.contains(net) && !choice.exclude.iter().any(|excluded| overlap(excluded, net))
            });
        theirs
            && ours.subnets.iter().any(|pool| pool.contains(net))
            && !ours.excluded.iter().any(|excluded| overlap(excluded, net))
            && !taken.iter().any(|(_, used)| overlap(used, net))
    };
    let preferred = guidance.subnets.iter().filter_map(|choice| choice.preferred);
    let preferred = preferred.filter(|net| lengths.is_empty() || lengths.contains(&net.prefix_len()));
    if let Some(net) = preferred.map(|net| net.trunc()).find(|net| good(net)) {
        return Some(net);
    }
    lengths.iter().find_map(|length| {
        // The smaller of two nested pools is the one to cut.
        let pools = ours.subnets.iter().flat_map(|pool| {
            let inner = guidance.subnets.iter().map(|choice| choice.include).filter(|net| overlap(net, pool));
            let inner: Vec<Ipv4Net> = inner.map(|net| if pool.contains(&net) { net } else { *pool }).collect();
            if guidance.subnets.is_empty() { vec![*pool] } else { inner }
        });
        pools
            .filter(|pool| pool.prefix_len() <= *length)
            .find_map(|pool| pool.subnets(*length).ok()?.take(CANDIDATES).find(|net| good(net)))
    })
}

/// The first two hosts of a subnet; the two addresses of a /31 (RFC 3021).
fn hosts(subnet: &Ipv4Net) -> Option<(Ipv4Addr, Ipv4Addr)> {
    let mut hosts = subnet.hosts();
    Some((hosts.next()?, hosts.next()?))
}
