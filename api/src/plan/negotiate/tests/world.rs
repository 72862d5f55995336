//! A small world: two sites, one interconnect or more, and rules that are whatever a test says.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use ipnet::Ipv4Net;
use tieline_openapi::{
    config::{AccountConfig, AttachPointConfig, Config, EnvironmentConfig, InterconnectConfig},
    ids::ProviderName,
    units::{BandwidthMbps, Mtu},
    v1::{
        AdminState, AttachPoint, AttachPointType, BfdSettings, Channel, ChannelPort, ConnectionEnd, ConnectionIntent,
        ConnectionKind, Fallback, InterconnectState, Middle, Redundancy, Routing, Site, Wanted,
    },
};
use tieline_providers::{
    Constraints, FeatureSide, IdentityKind, ResourceKind, ResourceSpec, Rule, Rules, Sourced,
    constraints::{AddressChoice, BfdRule, Md5Rule},
};

use super::super::*;

/// Rules that are looked up by port.
pub(super) struct Scripted {
    pub(super) standard: Constraints,
    pub(super) by_port: BTreeMap<String, Constraints>,
    pub(super) internet_mtu: Mtu,
}

impl Rules for Scripted {
    fn constraints(&self, _: &AttachPoint, port: &ChannelPort) -> Constraints {
        self.by_port.get(port.port_id.as_str()).unwrap_or(&self.standard).clone()
    }
    fn internet_mtu(&self, _: &AttachPoint) -> Sourced<Mtu> {
        Sourced::new(self.internet_mtu, Rule::new("made up", "test"))
    }
    fn decompose(&self, _: &FeatureSide) -> Vec<ResourceSpec> {
        Vec::new()
    }
    fn kinds(&self) -> &'static [ResourceKind] {
        &[]
    }
    fn list_page(&self) -> u32 {
        100
    }
    fn identity(&self, _: &ResourceKind) -> IdentityKind {
        IdentityKind::Named
    }
}

pub(super) fn id<T: TryFrom<String, Error: std::fmt::Debug>>(text: &str) -> T {
    T::try_from(text.to_owned()).unwrap()
}

pub(super) fn mbps(n: u64) -> BandwidthMbps {
    n.try_into().unwrap()
}

pub(super) fn mtu(n: u64) -> Mtu {
    n.try_into().unwrap()
}

pub(super) fn net(text: &str) -> Ipv4Net {
    text.parse().unwrap()
}

fn sourced<T>(value: T, whose: &str, text: &str) -> Sourced<T> {
    Sourced::new(value, Rule::new(&format!("{whose} {text}"), &format!("{whose} manual")))
}

fn base(whose: &str) -> Constraints {
    Constraints {
        vlan_ranges: sourced(vec![1..=4094], whose, "VLANs"),
        vlans_in_use: BTreeSet::new(),
        mtus: sourced([mtu(1500), mtu(8500)].into(), whose, "MTUs"),
        ipv4_lengths: sourced(vec![30, 29], whose, "lengths"),
        ipv4_include: sourced(vec![net("169.254.0.0/16")], whose, "ranges"),
        ipv4_exclude: sourced(vec![], whose, "excludes"),
        ipv4_in_use: vec![],
        address_choice: sourced(AddressChoice::Caller, whose, "addresses"),
        md5: sourced(
            Md5Rule { required: false, supported: true, length: 6..=80, alphanumeric_only: false },
            whose,
            "passwords",
        ),
        bfd: sourced(
            BfdRule {
                supported: true,
                configurable: false,
                best: BfdSettings { enabled: true, min_transmit_ms: 300, min_receive_ms: 300, multiplier: 3 },
                hold_time_ms: 90_000,
            },
            whose,
            "BFD",
        ),
        refused_peer_asns: sourced(vec![7224..=7224], whose, "AS numbers"),
        bandwidths: sourced([50, 500, 1_000, 2_000, 5_000, 10_000].map(mbps).into(), whose, "bandwidths"),
        max_received_prefixes: sourced(100, whose, "received prefixes"),
        max_advertised_prefixes: sourced(200, whose, "announced prefixes"),
        ipv6: sourced(false, whose, "IPv6"),
    }
}

/// Like a cloud that is told its addresses.
pub(super) fn told() -> Constraints {
    base("told")
}

/// Like a cloud that picks the addresses out of candidates.
pub(super) fn picking() -> Constraints {
    let mut constraints = base("picking");
    constraints.vlan_ranges.value = vec![2..=4093];
    constraints.mtus.value = [1440, 1460, 1500, 8896].map(mtu).into();
    constraints.ipv4_lengths.value = vec![29];
    constraints.address_choice.value = AddressChoice::Cloud;
    constraints.bfd.value = BfdRule {
        supported: true,
        configurable: true,
        best: BfdSettings { enabled: true, min_transmit_ms: 1_000, min_receive_ms: 1_000, multiplier: 5 },
        hold_time_ms: 60_000,
    };
    constraints
}

fn account(name: &str, provider: &str) -> AccountConfig {
    AccountConfig {
        id: id(name),
        provider: id(provider),
        external_id: "1".to_owned(),
        credential_ref: "default".to_owned(),
        region: "r1".to_owned(),
        endpoint: None,
    }
}

fn point(name: &str, account: &str, site: &str, asn: u64) -> AttachPointConfig {
    AttachPointConfig {
        id: id(name),
        account_id: id(account),
        site: site.to_owned(),
        kind: AttachPointType::Router,
        cloud_id: name.to_owned(),
        asn: asn.try_into().unwrap(),
        prefixes: Vec::new(),
    }
}

pub(super) fn channel(name: &str, device_a: &str, device_b: &str) -> Channel {
    let port = |account: &str, side: &str, device: &str| ChannelPort {
        account_id: id(account),
        port_id: id(&format!("{side}-{name}")),
        device: device.to_owned(),
    };
    Channel {
        id: id(name),
        admin_state: AdminState::Enabled,
        a: port("left", "l", device_a),
        b: port("right", "r", device_b),
    }
}

pub(super) fn interconnect(name: &str, channels: Vec<Channel>) -> InterconnectConfig {
    InterconnectConfig {
        id: id(name),
        environment_id: id("env"),
        state: InterconnectState::Active,
        max_bandwidth_mbps: mbps(10_000),
        channels,
    }
}

/// What a test starts from and changes.
pub(super) struct World {
    pub(super) config: Config,
    pub(super) left: Scripted,
    pub(super) right: Scripted,
    pub(super) allocated: Allocated,
    pub(super) intent: ConnectionIntent,
    pub(super) keep: BTreeMap<ChannelId, NegotiatedChannel>,
    pub(super) refused: BTreeMap<ChannelId, Refused>,
}

impl World {
    /// Two channels on distinct devices; the left cloud is told, the right one picks.
    pub(super) fn new() -> Self {
        let site = |provider: &str, site: &str| Site {
            provider: id(provider),
            site: site.to_owned(),
            display_name: site.to_owned(),
        };
        let config = Config {
            accounts: vec![account("left", "told"), account("right", "picking")],
            environments: vec![EnvironmentConfig {
                id: id("env"),
                kind: ConnectionKind::Direct,
                sites: [site("told", "east"), site("picking", "west")],
                bandwidths_mbps: [50, 500, 1_000, 2_000, 5_000, 10_000].map(mbps).into(),
                middle: Middle::None,
            }],
            interconnects: vec![interconnect("ic", vec![channel("ch1", "d1", "d1"), channel("ch2", "d2", "d2")])],
            attach_points: vec![point("gw", "left", "east", 64_512), point("cr", "right", "west", 64_513)],
            ..Config::default()
        };
        let scripted = |standard| Scripted { standard, by_port: BTreeMap::new(), internet_mtu: mtu(1500) };
        Self {
            config,
            left: scripted(told()),
            right: scripted(picking()),
            allocated: Allocated::default(),
            intent: intent(),
            keep: BTreeMap::new(),
            refused: BTreeMap::new(),
        }
    }

    /// Negotiates, with the topology of that moment.
    pub(super) fn run(&self) -> Result<Negotiated, Unsatisfiable> {
        negotiate(&self.topology(), &self.allocated, &self.request())
    }

    pub(super) fn request(&self) -> Request<'_> {
        Request {
            connection_id: ConnectionId(uuid::Uuid::nil()),
            intent: &self.intent,
            keep: self.keep.clone(),
            refused: self.refused.clone(),
        }
    }

    pub(super) fn topology(&self) -> Topology {
        let copy = |rules: &Scripted| -> Arc<dyn Rules> {
            Arc::new(Scripted {
                standard: rules.standard.clone(),
                by_port: rules.by_port.clone(),
                internet_mtu: rules.internet_mtu,
            })
        };
        let rules: BTreeMap<ProviderName, Arc<dyn Rules>> =
            [(id("told"), copy(&self.left)), (id("picking"), copy(&self.right))].into();
        Topology::new(&self.config, rules)
    }

    /// Takes what a connection took, as the store would.
    pub(super) fn take(&mut self, negotiated: &Negotiated) {
        for allocation in allocations(negotiated, &self.topology()) {
            match allocation {
                Allocation::Vlan { port_id, vlan, .. } => {
                    assert!(self.allocated.vlans.entry(port_id).or_default().insert(vlan), "VLAN {vlan} twice");
                }
                Allocation::Subnet { attach_point_id, subnet, .. } => {
                    let held = self.allocated.subnets.entry(attach_point_id).or_default();
                    assert!(
                        !held.iter().any(|h| h.contains(&subnet) || subnet.contains(h)),
                        "{subnet} overlaps what is held"
                    );
                    held.insert(subnet);
                }
                Allocation::Bandwidth { channel_id, mbps, capacity_mbps } => {
                    let held = self.allocated.bandwidth.entry(channel_id).or_default();
                    *held += mbps;
                    assert!(*held <= capacity_mbps);
                }
            }
        }
    }

    /// The codes of the errors.
    pub(super) fn errors(&self) -> Vec<String> {
        match self.run() {
            Ok(_) => Vec::new(),
            Err(refusal) => refusal
                .findings
                .into_iter()
                .filter(|f| f.severity == Severity::Error)
                .map(|f| format!("{} {}", f.code, f.pointer))
                .collect(),
        }
    }
}

fn end(point: &str, prefix: &str) -> ConnectionEnd {
    ConnectionEnd {
        attach_point_id: Some(id(point)),
        remote_account_id: None,
        advertised_prefixes: vec![prefix.parse().unwrap()],
        accepted_prefixes: None,
    }
}

fn intent() -> ConnectionIntent {
    ConnectionIntent {
        name: "link".to_owned(),
        environment_id: id("env"),
        bandwidth_mbps: mbps(1_000),
        redundancy: Redundancy::Dual,
        a: end("gw", "10.0.0.0/16"),
        b: end("cr", "10.1.0.0/16"),
        routing: Routing::default(),
        families: vec![tieline_openapi::v1::AddressFamily::Ipv4],
        wanted: Wanted::default(),
        fallback: Fallback::default(),
        labels: BTreeMap::new(),
        description: String::new(),
        deletion_protection: false,
    }
}
