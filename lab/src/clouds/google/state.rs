//! What Google remembers, and how it moves.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};

use ipnet::Ipv4Net;
use serde_json::{Value, json};
use tieline_openapi::v1::Timestamp;

use super::{
    names::{BASE, name_in_url},
    operations::Operation,
    resources::{Attachment, BgpPeer, Interface, Phase, Router, RouterBgp},
};
use crate::clouds::{
    document,
    draw::Draw,
    network::{Bfd, Session},
    settings::{CloudSettings, Delays},
    sim::{Cloud, CorruptError, Corruption},
    world::{GoogleInterconnect, GoogleWorld},
};

/// Everything in one project and region.
#[derive(Debug, Clone)]
pub(super) struct Google {
    pub(super) project: String,
    pub(super) region: String,
    pub(super) network: String,
    pub(super) subnets: Vec<Ipv4Net>,
    pub(super) interconnects: Vec<GoogleInterconnect>,
    pub(super) attachments: Vec<Attachment>,
    pub(super) routers: Vec<Router>,
    /// Router peers with nobody's router of this lab at the other end: the cloud runs no session for them.
    pub(super) strangers: BTreeSet<String>,
    pub(super) operations: Vec<Operation>,
    pub(super) draw: Draw,
    pub(super) delays: Delays,
    pub(super) request_id_lifetime: Duration,
    pub(super) born: Timestamp,
}

impl Google {
    pub(super) fn new(world: &GoogleWorld, settings: &CloudSettings, now: Timestamp) -> Self {
        let mut google = Self {
            project: world.project.clone(),
            region: world.region.clone(),
            network: world.network.clone(),
            subnets: world.subnets.clone(),
            interconnects: world.interconnects.clone(),
            attachments: Vec::new(),
            routers: Vec::new(),
            strangers: BTreeSet::new(),
            operations: Vec::new(),
            draw: Draw::new(settings.seed),
            delays: settings.delays,
            request_id_lifetime: Duration::from_millis(settings.request_id_lifetime_ms),
            born: now,
        };
        let id = google.draw.number();
        google.routers.push(Router {
            id: json!(id.to_string()),
            creation_timestamp: json!(now.to_string()),
            name: Some(world.router.clone()),
            network: Some(google.network_url()),
            bgp: Some(RouterBgp { asn: Some(world.router_asn), keepalive_interval: Some(20), ..RouterBgp::default() }),
            ..Router::default()
        });
        if world.strangers {
            super::strangers::settle_in(&mut google, now);
        }
        google
    }

    /// `projects/P/regions/R`.
    pub(super) fn region_path(&self) -> String {
        format!("projects/{}/regions/{}", self.project, self.region)
    }

    /// The path of a regional resource below `/compute/v1/`.
    pub(super) fn path(&self, collection: &str, name: &str) -> String {
        format!("{}/{collection}/{name}", self.region_path())
    }

    pub(super) fn interconnect_path(&self, name: &str) -> String {
        format!("projects/{}/global/interconnects/{name}", self.project)
    }

    pub(super) fn network_url(&self) -> String {
        format!("{BASE}projects/{}/global/networks/{}", self.project, self.network)
    }

    pub(super) fn attachment(&self, name: &str) -> Option<&Attachment> {
        self.attachments.iter().find(|attachment| attachment.name == name)
    }

    pub(super) fn router(&self, name: &str) -> Option<&Router> {
        self.routers.iter().find(|router| router.name.as_deref() == Some(name))
    }

    pub(super) fn interconnect(&self, name: &str) -> Option<&GoogleInterconnect> {
        self.interconnects.iter().find(|interconnect| interconnect.name == name)
    }

    /// The attachment that an interface links.
    pub(super) fn linked<'a>(&'a self, interface: &Interface) -> Option<&'a Attachment> {
        let url = interface.linked_interconnect_attachment.as_deref()?;
        self.attachment(&name_in_url("linkedInterconnectAttachment", url, "interconnectAttachments").ok()?)
    }

    /// Every subnet that a router of the VPC or an attachment uses.
    pub(super) fn subnets_in_use(&self) -> Vec<Ipv4Net> {
        let interfaces = self.routers.iter().flat_map(|router| &router.interfaces);
        let on_routers = interfaces.filter_map(|i| i.ip_range.as_deref()?.parse::<Ipv4Net>().ok());
        let on_attachments = self.attachments.iter().filter_map(|a| a.cloud_router_ip_address);
        on_routers.chain(on_attachments).map(|net| net.trunc()).collect()
    }

    /// What a peer announces: the peer's own custom list, else the router's, else the VPC's subnets.
    pub(super) fn announced(&self, router: &Router, peer: &BgpPeer) -> Vec<Ipv4Net> {
        let bgp = router.bgp.clone().unwrap_or_default();
        let (groups, ranges) = match (peer.advertise_mode.as_deref(), bgp.advertise_mode.as_deref()) {
            (Some("CUSTOM"), _) => (&peer.advertised_groups, &peer.advertised_ip_ranges),
            (_, Some("CUSTOM")) => (&bgp.advertised_groups, &bgp.advertised_ip_ranges),
            _ => return self.subnets.clone(),
        };
        let mut announced: Vec<Ipv4Net> = ranges.iter().filter_map(|r| r.range.parse().ok()).collect();
        if groups.iter().any(|group| group == "ALL_SUBNETS") {
            announced.extend(&self.subnets);
        }
        announced.sort();
        announced.dedup();
        announced
    }

    fn session(&self, router: &Router, peer: &BgpPeer) -> Option<Session> {
        let interface = router.interfaces.iter().find(|i| Some(&i.name) == peer.interface_name.as_ref())?;
        let attachment = self.linked(interface).filter(|attachment| attachment.phase == Phase::Active)?;
        let local: Ipv4Net = interface.ip_range.as_deref()?.parse().ok()?;
        let key = |name: &String| router.md5_authentication_keys.iter().find(|k| k.name == *name)?.key.clone();
        Some(Session {
            id: peer.name.clone(),
            site: Self::SITE.to_owned(),
            port: attachment.interconnect.clone(),
            vlan: attachment.vlan,
            mtu: attachment.mtu,
            local_ip: local.addr(),
            prefix_len: local.prefix_len(),
            peer_ip: ipv4(peer.peer_ip_address.as_deref()?)?,
            local_asn: router.bgp.as_ref()?.asn?,
            peer_asn: peer.peer_asn?,
            md5: peer.md5_authentication_key_name.as_ref().and_then(key),
            bfd: peer.bfd.as_ref().and_then(|bfd| {
                let on = matches!(bfd.session_initialization_mode.as_deref(), Some("ACTIVE" | "PASSIVE"));
                on.then(|| Bfd {
                    min_tx_ms: bfd.min_transmit_interval.unwrap_or(1000),
                    min_rx_ms: bfd.min_receive_interval.unwrap_or(1000),
                    multiplier: bfd.multiplier.and_then(|m| u8::try_from(m).ok()).unwrap_or(5),
                })
            }),
            advertised: self.announced(router, peer),
            import_limit: None,
            enabled: peer.enable.as_deref() != Some("FALSE") && attachment.admin_enabled,
        })
    }
}

/// An IPv4 address.
pub(super) fn ipv4(text: &str) -> Option<Ipv4Addr> {
    match text.parse().ok()? {
        IpAddr::V4(v4) => Some(v4),
        IpAddr::V6(_) => None,
    }
}

impl Cloud for Google {
    const SITE: &'static str = "google";

    fn dump(&self) -> Value {
        let by_name = |items: BTreeMap<String, Value>| Value::Object(items.into_iter().collect());
        json!({
            "project": self.project,
            "region": self.region,
            "network": self.network,
            "subnets": self.subnets,
            "interconnects": self.interconnects,
            "interconnectAttachments": by_name(
                self.attachments.iter().map(|a| (a.name.clone(), document::of(a))).collect()
            ),
            "routers": by_name(
                self.routers.iter().map(|r| (r.name.clone().unwrap_or_default(), document::of(r))).collect()
            ),
        })
    }

    fn corrupt(&mut self, c: &Corruption) -> Result<(), CorruptError> {
        let missing = || CorruptError::NoResource { kind: c.kind.clone(), id: c.id.clone() };
        match c.kind.as_str() {
            "router" => {
                let found = self.routers.iter_mut().find(|r| r.name.as_deref() == Some(c.id.as_str()));
                document::set(found.ok_or_else(missing)?, &c.pointer, &c.value)
            }
            "interconnectAttachment" => {
                let found = self.attachments.iter_mut().find(|a| a.name == c.id);
                document::set(found.ok_or_else(missing)?, &c.pointer, &c.value)
            }
            "interconnect" => {
                let found = self.interconnects.iter_mut().find(|i| i.name == c.id);
                document::set(found.ok_or_else(missing)?, &c.pointer, &c.value)
            }
            _ => Err(missing()),
        }
    }

    fn ports_awaited(&self, _now: Timestamp) -> BTreeSet<String> {
        BTreeSet::new()
    }

    fn settle(&mut self, now: Timestamp, _lit: &BTreeSet<String>) -> bool {
        let mut moved = self.run_operations(now);
        let wait = Duration::from_millis(self.delays.attachment_provision_ms);
        for attachment in &mut self.attachments {
            let due = attachment.since.checked_add(wait).unwrap_or(Timestamp::MAX);
            if attachment.phase == Phase::Unprovisioned && due <= now {
                (attachment.phase, attachment.since) = (Phase::Active, due);
                moved = true;
            }
        }
        moved
    }

    fn next_due(&self) -> Option<Timestamp> {
        let running = self.operations.iter().filter(|op| op.ended.is_none()).map(|op| {
            let (starts, ends) = op.times(self);
            if op.started.is_none() { starts } else { ends }
        });
        let wait = Duration::from_millis(self.delays.attachment_provision_ms);
        let provisioning = self.attachments.iter().filter(|a| a.phase == Phase::Unprovisioned);
        running.chain(provisioning.map(|a| a.since.checked_add(wait).unwrap_or(Timestamp::MAX))).min()
    }

    fn sessions(&self) -> Vec<Session> {
        let peers = self.routers.iter().flat_map(|router| router.bgp_peers.iter().map(move |peer| (router, peer)));
        peers
            .filter(|(_, peer)| !self.strangers.contains(&peer.name))
            .filter_map(|(router, peer)| self.session(router, peer))
            .collect()
    }
}
