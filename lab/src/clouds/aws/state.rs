//! What AWS Direct Connect remembers, and how it moves.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};

use ipnet::{IpNet, Ipv4Net};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tieline_openapi::v1::Timestamp;

use crate::clouds::{
    document,
    draw::Draw,
    network::{Bfd, Session},
    settings::{CloudSettings, Delays},
    sim::{Cloud, CorruptError, Corruption},
    world::{AwsLag, AwsWorld},
};

/// AWS runs BFD on every virtual interface, 300 ms and 3 (Direct Connect user guide, "Troubleshooting layer 3/4").
const BFD: Bfd = Bfd { min_tx_ms: 300, min_rx_ms: 300, multiplier: 3 };

/// A tag.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Tag {
    pub(super) key: String,
    #[serde(default)]
    pub(super) value: String,
}

/// An address family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Family {
    Ipv4,
    Ipv6,
}

/// The life of a virtual interface, as far as the API alone decides it: whether an active one is `available` or `down` is
/// the router's word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Phase {
    Pending,
    Active,
    Deleting,
    Deleted,
}

/// A BGP peer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Peer {
    pub(super) bgp_peer_id: String,
    pub(super) asn: u32,
    /// Given as `asnLong` and above two bytes: the answer's `asn` is 0 (`DescribeVirtualInterfaces`).
    pub(super) asn_is_long: bool,
    pub(super) auth_key: String,
    pub(super) address_family: Family,
    pub(super) amazon_address: IpNet,
    pub(super) customer_address: IpNet,
    pub(super) phase: Phase,
    pub(super) since: Timestamp,
}

/// A private virtual interface.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct VirtualInterface {
    pub(super) n: u64,
    pub(super) id: String,
    pub(super) name: String,
    pub(super) connection_id: String,
    pub(super) vlan: u16,
    pub(super) mtu: u16,
    pub(super) gateway_id: String,
    pub(super) phase: Phase,
    pub(super) since: Timestamp,
    pub(super) bgp_peers: Vec<Peer>,
    pub(super) prefix_pool_ipv4: u32,
    pub(super) prefix_pool_ipv6: u32,
    pub(super) rate_limit: Option<String>,
    pub(super) site_link_enabled: bool,
    /// Nobody's router of this lab is at the other end: the cloud runs no session for it.
    pub(super) stranger: bool,
}

impl VirtualInterface {
    pub(super) fn is_live(&self) -> bool {
        self.phase != Phase::Deleted
    }

    /// The peer that the interface's own address, key and AS number fields show.
    pub(super) fn first_peer(&self) -> Option<&Peer> {
        self.bgp_peers.iter().find(|p| p.address_family == Family::Ipv4).or_else(|| self.bgp_peers.first())
    }

    /// The session's id in the network: the interface's, and for a second IPv4 peer also the peer's.
    pub(super) fn session_id(&self, peer: &Peer) -> String {
        match self.first_peer() {
            Some(first) if first.bgp_peer_id == peer.bgp_peer_id => self.id.clone(),
            _ => format!("{}/{}", self.id, peer.bgp_peer_id),
        }
    }
}

/// A Direct Connect gateway with its one association.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Gateway {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) asn: u32,
    pub(super) association_id: String,
    pub(super) virtual_gateway_id: String,
    pub(super) allowed_prefixes: Vec<Ipv4Net>,
}

/// Everything in one account and region.
#[derive(Debug, Clone)]
pub(super) struct Aws {
    pub(super) account: String,
    pub(super) region: String,
    pub(super) lags: Vec<AwsLag>,
    pub(super) gateways: Vec<Gateway>,
    pub(super) interfaces: Vec<VirtualInterface>,
    /// By resource ARN.
    pub(super) tags: BTreeMap<String, Vec<Tag>>,
    pub(super) draw: Draw,
    pub(super) next: u64,
    delays: Delays,
    tombstone: Duration,
}

fn passed(since: Timestamp, ms: u64, now: Timestamp) -> bool {
    due(since, ms) <= now
}

fn due(since: Timestamp, ms: u64) -> Timestamp {
    since.checked_add(Duration::from_millis(ms)).unwrap_or(Timestamp::MAX)
}

impl Aws {
    pub(super) fn new(world: &AwsWorld, settings: &CloudSettings, now: Timestamp) -> Self {
        let mut aws = Self {
            account: world.account.clone(),
            region: world.region.clone(),
            lags: world.lags.clone(),
            gateways: vec![Gateway {
                id: world.gateway_id.clone(),
                name: world.gateway_name.clone(),
                asn: world.gateway_asn,
                association_id: "c1a40bd7-2d0c-4a57-8c0f-7a3b5e3a2d01".to_owned(),
                virtual_gateway_id: "vgw-0a1b2c3d4e5f60718".to_owned(),
                allowed_prefixes: world.allowed_prefixes.clone(),
            }],
            interfaces: Vec::new(),
            tags: BTreeMap::new(),
            draw: Draw::new(settings.seed),
            next: 1,
            delays: settings.delays,
            tombstone: Duration::from_millis(settings.tombstone_ms),
        };
        if world.strangers {
            super::strangers::settle_in(&mut aws, now);
        }
        aws
    }

    pub(super) fn number(&mut self) -> u64 {
        self.next += 1;
        self.next - 1
    }

    pub(super) fn lag(&self, id: &str) -> Option<&AwsLag> {
        self.lags.iter().find(|lag| lag.id == id)
    }

    pub(super) fn gateway(&self, id: &str) -> Option<&Gateway> {
        self.gateways.iter().find(|gateway| gateway.id == id)
    }

    pub(super) fn interface(&self, id: &str) -> Option<&VirtualInterface> {
        self.interfaces.iter().find(|vif| vif.id == id)
    }

    pub(super) fn on_port<'a>(&'a self, port: &'a str) -> impl Iterator<Item = &'a VirtualInterface> {
        self.interfaces.iter().filter(move |vif| vif.is_live() && vif.connection_id == port)
    }

    /// `arn:aws:directconnect:REGION:ACCOUNT:TYPE/ID`; a gateway is in no region.
    pub(super) fn arn(&self, kind: &str, id: &str) -> String {
        let region = if kind == "dx-gateway" { "" } else { &self.region };
        format!("arn:aws:directconnect:{region}:{}:{kind}/{id}", self.account)
    }

    pub(super) fn tags_of(&self, kind: &str, id: &str) -> &[Tag] {
        self.tags.get(&self.arn(kind, id)).map_or(&[], Vec::as_slice)
    }

    fn session(&self, vif: &VirtualInterface, peer: &Peer) -> Option<Session> {
        let gateway = self.gateway(&vif.gateway_id)?;
        let IpNet::V4(local) = peer.amazon_address else { return None };
        Some(Session {
            id: vif.session_id(peer),
            site: Self::SITE.to_owned(),
            port: vif.connection_id.clone(),
            vlan: vif.vlan,
            mtu: vif.mtu,
            local_ip: local.addr(),
            prefix_len: local.prefix_len(),
            peer_ip: ipv4(peer.customer_address.addr())?,
            local_asn: gateway.asn,
            peer_asn: peer.asn,
            md5: Some(peer.auth_key.clone()),
            bfd: Some(BFD),
            advertised: gateway.allowed_prefixes.clone(),
            import_limit: Some(vif.prefix_pool_ipv4),
            enabled: true,
        })
    }
}

fn ipv4(address: IpAddr) -> Option<Ipv4Addr> {
    match address {
        IpAddr::V4(v4) => Some(v4),
        IpAddr::V6(_) => None,
    }
}

impl Cloud for Aws {
    const SITE: &'static str = "aws";

    fn dump(&self) -> Value {
        let live: Vec<&VirtualInterface> = self.interfaces.iter().filter(|vif| vif.is_live()).collect();
        json!({
            "account": self.account,
            "region": self.region,
            "lags": self.lags,
            "directConnectGateways": self.gateways,
            "virtualInterfaces": live,
            "tags": self.tags,
        })
    }

    fn corrupt(&mut self, c: &Corruption) -> Result<(), CorruptError> {
        let missing = || CorruptError::NoResource { kind: c.kind.clone(), id: c.id.clone() };
        match c.kind.as_str() {
            "virtualInterface" => {
                let found = self.interfaces.iter_mut().find(|v| v.id == c.id || (v.is_live() && v.name == c.id));
                document::set(found.ok_or_else(missing)?, &c.pointer, &c.value)
            }
            "directConnectGateway" => {
                let found = self.gateways.iter_mut().find(|g| g.id == c.id);
                document::set(found.ok_or_else(missing)?, &c.pointer, &c.value)
            }
            "lag" => {
                let found = self.lags.iter_mut().find(|l| l.id == c.id);
                document::set(found.ok_or_else(missing)?, &c.pointer, &c.value)
            }
            _ => Err(missing()),
        }
    }

    fn ports_awaited(&self, now: Timestamp) -> BTreeSet<String> {
        let waits = |vif: &&VirtualInterface| {
            vif.phase == Phase::Pending
                && passed(vif.since, self.delays.virtual_interface_pending_ms, now)
                && self.gateway(&vif.gateway_id).is_some()
        };
        self.interfaces.iter().filter(waits).map(|vif| vif.connection_id.clone()).collect()
    }

    fn settle(&mut self, now: Timestamp, lit: &BTreeSet<String>) -> bool {
        let before = self.interfaces.clone();
        let (delays, tombstone) = (self.delays, self.tombstone);
        for vif in &mut self.interfaces {
            match vif.phase {
                Phase::Pending => {
                    if lit.contains(&vif.connection_id) && passed(vif.since, delays.virtual_interface_pending_ms, now) {
                        (vif.phase, vif.since) = (Phase::Active, now);
                        for peer in vif.bgp_peers.iter_mut().filter(|p| p.phase == Phase::Pending) {
                            (peer.phase, peer.since) = (Phase::Active, now);
                        }
                    }
                }
                Phase::Active => {
                    for peer in &mut vif.bgp_peers {
                        if peer.phase == Phase::Pending && passed(peer.since, delays.bgp_peer_pending_ms, now) {
                            (peer.phase, peer.since) = (Phase::Active, now);
                        }
                    }
                }
                Phase::Deleting => {
                    if passed(vif.since, delays.deleting_ms, now) {
                        (vif.phase, vif.since) = (Phase::Deleted, now);
                    }
                }
                Phase::Deleted => {}
            }
            vif.bgp_peers.retain(|p| p.phase != Phase::Deleting || !passed(p.since, delays.deleting_ms, now));
        }
        let tombstone = u64::try_from(tombstone.as_millis()).unwrap_or(u64::MAX);
        let buried = |vif: &VirtualInterface| vif.phase == Phase::Deleted && passed(vif.since, tombstone, now);
        for vif in self.interfaces.iter().filter(|vif| vif.phase == Phase::Deleted) {
            self.tags.remove(&format!("arn:aws:directconnect:{}:{}:dxvif/{}", self.region, self.account, vif.id));
        }
        self.interfaces.retain(|vif| !buried(vif));
        self.interfaces != before
    }

    fn next_due(&self) -> Option<Timestamp> {
        let tombstone = u64::try_from(self.tombstone.as_millis()).unwrap_or(u64::MAX);
        let of_vif = |vif: &VirtualInterface| match vif.phase {
            Phase::Pending => {
                self.gateway(&vif.gateway_id).map(|_| due(vif.since, self.delays.virtual_interface_pending_ms))
            }
            Phase::Active => None,
            Phase::Deleting => Some(due(vif.since, self.delays.deleting_ms)),
            Phase::Deleted => Some(due(vif.since, tombstone)),
        };
        let of_peer = |peer: &Peer| match peer.phase {
            Phase::Pending => Some(due(peer.since, self.delays.bgp_peer_pending_ms)),
            Phase::Deleting => Some(due(peer.since, self.delays.deleting_ms)),
            Phase::Active | Phase::Deleted => None,
        };
        self.interfaces
            .iter()
            .flat_map(|vif| {
                let peers = vif.bgp_peers.iter().filter(|_| vif.phase != Phase::Pending).filter_map(of_peer);
                of_vif(vif).into_iter().chain(peers)
            })
            .min()
    }

    fn sessions(&self) -> Vec<Session> {
        let active = self.interfaces.iter().filter(|vif| vif.phase == Phase::Active && !vif.stranger);
        active
            .flat_map(|vif| vif.bgp_peers.iter().map(move |peer| (vif, peer)))
            .filter(|(_, peer)| peer.phase == Phase::Active)
            .filter_map(|(vif, peer)| self.session(vif, peer))
            .collect()
    }
}
