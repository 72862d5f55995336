//! The pure half of the fake provider.

use ipnet::Ipv4Net;
use serde_json::{Value, json};
use std::{borrow::Cow, collections::BTreeSet};
use tieline_openapi::{
    units::{BandwidthMbps, Mtu},
    v1::{AttachPoint, BfdSettings, ChannelPort, Disruption},
};

use crate::{
    constraints::{AddressChoice, BfdRule, Constraints, Md5Rule, PrefixControl, Rule, Sourced},
    costs::{BilledBy, CostDriver},
    feature::{Addressing, FeatureSide},
    resource::{Change, IdentityKind, Observed, Occupied, ResourceKey, ResourceKind, ResourceSpec},
    rules::{Agreed, FieldFacts, Rules, diff_fields},
};

/// What the picking side attaches with: its cloud picks the addresses.
pub const ATTACHMENT: ResourceKind = ResourceKind::of("fake.attachment");
/// A BGP peer inside a router that others write too.
pub const PEER: ResourceKind = ResourceKind::of("fake.peer");
/// What the taking side attaches with: it has the addresses and the BGP session in one.
pub const INTERFACE: ResourceKind = ResourceKind::of("fake.interface");

static COSTS: [CostDriver; 2] = [
    CostDriver {
        what: Cow::Borrowed("channel"),
        billed_by: BilledBy::Channel,
        unit: Cow::Borrowed("hour"),
        price_usd: Some(0.25),
        as_of: Some(Cow::Borrowed("2026-01-01")),
        source: Cow::Borrowed("https://fake.example/prices"),
    },
    CostDriver {
        what: Cow::Borrowed("data over the tunnel"),
        billed_by: BilledBy::TunnelTraffic,
        unit: Cow::Borrowed("GB"),
        price_usd: None,
        as_of: None,
        source: Cow::Borrowed("https://fake.example/prices"),
    },
];

static PICKING: [ResourceKind; 2] = [ATTACHMENT, PEER];
static TAKING: [ResourceKind; 1] = [INTERFACE];

/// Which graph of resources.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FakeSide {
    /// An attachment whose cloud picks the addresses, and a peer in a shared router.
    Picking,
    /// One interface that awaits the addresses.
    Taking,
}

/// The fake provider's rules.
#[derive(Debug, Clone, Copy)]
pub struct FakeRules {
    /// Which graph.
    pub side: FakeSide,
    /// How a lost create of the attachment and the interface is found again. Peers are named, as in a real router.
    pub identity: IdentityKind,
}

fn rule<T>(value: T) -> Sourced<T> {
    Sourced::new(value, Rule::new("the fake provider takes it", "tieline_providers::fake"))
}

fn net(text: &str) -> Vec<Ipv4Net> {
    text.parse().into_iter().collect()
}

impl Rules for FakeRules {
    fn constraints(&self, _attach_point: &AttachPoint, _port: &ChannelPort) -> Constraints {
        let choice = match self.side {
            FakeSide::Picking => AddressChoice::Cloud,
            FakeSide::Taking => AddressChoice::Caller,
        };
        let mtus: BTreeSet<_> = [1440u64, 1500].into_iter().filter_map(|mtu| Mtu::try_from(mtu).ok()).collect();
        let bandwidths: BTreeSet<_> =
            [100u64, 1_000, 10_000].into_iter().filter_map(|mbps| BandwidthMbps::try_from(mbps).ok()).collect();
        let best = BfdSettings { enabled: true, min_transmit_ms: 300, min_receive_ms: 300, multiplier: 3 };
        Constraints {
            vlan_ranges: rule(vec![2..=4000]),
            vlans_in_use: BTreeSet::new(),
            mtus: rule(mtus),
            ipv4_lengths: rule(vec![29, 30]),
            ipv4_include: rule(net("169.254.0.0/16")),
            ipv4_exclude: rule(Vec::new()),
            ipv4_in_use: Vec::new(),
            address_choice: rule(choice),
            md5: rule(Md5Rule { required: false, supported: true, length: 6..=25, alphanumeric_only: true }),
            bfd: rule(BfdRule { supported: true, configurable: true, best, hold_time_ms: 60_000 }),
            refused_peer_asns: rule(Vec::new()),
            bandwidths: rule(bandwidths),
            max_received_prefixes: rule(100),
            max_advertised_prefixes: rule(100),
            ipv6: rule(false),
        }
    }

    /// Peers announce their own list; interfaces have none.
    fn prefix_control(&self, _attach_point: &AttachPoint) -> Sourced<PrefixControl> {
        rule(PrefixControl { announces: self.side == FakeSide::Picking, accepts: false, limits: false })
    }

    fn decompose(&self, side: &FeatureSide) -> Vec<ResourceSpec> {
        match self.side {
            FakeSide::Picking => {
                let attachment = ResourceKey { end: side.end, kind: ATTACHMENT };
                vec![self.attachment(side, attachment.clone()), self.peer(side, attachment)]
            }
            FakeSide::Taking => vec![self.interface(side)],
        }
    }

    fn costs(&self) -> &'static [CostDriver] {
        &COSTS
    }

    fn kinds(&self) -> &'static [ResourceKind] {
        match self.side {
            FakeSide::Picking => &PICKING,
            FakeSide::Taking => &TAKING,
        }
    }

    /// As Google's and AWS's.
    fn list_page(&self) -> u32 {
        match self.side {
            FakeSide::Picking => 500,
            FakeSide::Taking => 100,
        }
    }

    fn identity(&self, kind: &ResourceKind) -> IdentityKind {
        if *kind == PEER { IdentityKind::Named } else { self.identity }
    }

    fn parent(&self, kind: &ResourceKind, attach_point: &AttachPoint, _region: &str) -> Option<String> {
        (*kind == PEER).then(|| attach_point.cloud_id.clone())
    }

    fn field(&self, _kind: &ResourceKind, pointer: &str) -> FieldFacts {
        let agreed = match pointer {
            "/vlan" => Some(Agreed::Vlan),
            "/mtu" => Some(Agreed::Mtu),
            "/bandwidth" => Some(Agreed::Bandwidth),
            "/host" | "/peer" | "/subnet" => Some(Agreed::Ipv4),
            "/peerAsn" => Some(Agreed::PeerAsn),
            "/advertised" => return FieldFacts { agreed: Some(Agreed::Prefixes), disruption: Disruption::None },
            _ => None,
        };
        FieldFacts::of(agreed)
    }

    fn occupies(&self, observed: &Observed) -> Occupied {
        let name = |field: &str| observed.fields[field].as_str().map(str::to_owned);
        let subnet = || observed.fields["subnet"].as_str()?.parse().ok();
        Occupied {
            // A peer runs over the VLAN of its attachment, and has none of its own.
            vlan: name("port").filter(|_| observed.kind != PEER).zip(observed.learned.vlan),
            subnet: name("router").zip(observed.learned.ipv4.map(|pair| pair.subnet).or_else(subnet)),
        }
    }

    fn diff(&self, spec: &ResourceSpec, observed: &Observed) -> Vec<Change> {
        let mut wanted = spec.fields.clone();
        if let Value::Object(fields) = &mut wanted {
            // A hint that is given with a create and never read back.
            fields.remove("candidates");
        }
        diff_fields(&wanted, &observed.fields, &spec.immutable)
    }
}

impl FakeRules {
    fn slot(&self, side: &FeatureSide) -> Option<String> {
        (self.identity == IdentityKind::Slot).then(|| format!("{}/{}", side.port_id, side.vlan))
    }

    fn attachment(&self, side: &FeatureSide, key: ResourceKey) -> ResourceSpec {
        let candidates = match &side.ipv4 {
            Addressing::CloudPicks(nets) | Addressing::Awaited(nets) => nets.clone(),
            Addressing::Fixed(pair) => vec![pair.subnet],
        };
        ResourceSpec {
            key,
            after: Vec::new(),
            ready: !matches!(side.ipv4, Addressing::Awaited(_)),
            shared_parent: None,
            slot: self.slot(side),
            fields: json!({
                "router": side.attach_point_cloud_id,
                "port": side.port_id,
                "vlan": side.vlan,
                "mtu": side.mtu,
                "bandwidth": side.bandwidth,
                "candidates": candidates,
            }),
            immutable: ["/router", "/port", "/vlan"].map(str::to_owned).to_vec(),
            secrets: Vec::new(),
        }
    }

    fn peer(&self, side: &FeatureSide, attachment: ResourceKey) -> ResourceSpec {
        let pair = side.ipv4.fixed();
        ResourceSpec {
            key: ResourceKey { end: side.end, kind: PEER },
            after: vec![attachment],
            ready: pair.is_some(),
            shared_parent: Some(side.attach_point_cloud_id.clone()),
            slot: None,
            fields: json!({
                "router": side.attach_point_cloud_id,
                "port": side.port_id,
                "vlan": side.vlan,
                "subnet": pair.map(|p| p.subnet),
                "host": pair.map(|p| p.host),
                "peer": pair.map(|p| p.peer),
                "peerAsn": side.peer_asn,
                "advertised": side.advertised_prefixes,
            }),
            immutable: ["/router", "/port", "/vlan"].map(str::to_owned).to_vec(),
            secrets: vec!["bgpPassword".to_owned()],
        }
    }

    fn interface(&self, side: &FeatureSide) -> ResourceSpec {
        let pair = side.ipv4.fixed();
        ResourceSpec {
            key: ResourceKey { end: side.end, kind: INTERFACE },
            after: Vec::new(),
            ready: pair.is_some(),
            shared_parent: None,
            slot: self.slot(side),
            fields: json!({
                "router": side.attach_point_cloud_id,
                "port": side.port_id,
                "vlan": side.vlan,
                "subnet": pair.map(|p| p.subnet),
                "host": pair.map(|p| p.host),
                "peer": pair.map(|p| p.peer),
                "peerAsn": side.peer_asn,
                "mtu": side.mtu,
                "bandwidth": side.bandwidth,
            }),
            immutable: ["/router", "/port", "/vlan", "/subnet", "/host", "/peer", "/peerAsn"]
                .map(str::to_owned)
                .to_vec(),
            secrets: vec!["bgpPassword".to_owned()],
        }
    }
}
