//! Cloud Routers: patch, update, and the rules of what they may become.
//!
//! A patch merges objects and **replaces whole arrays** (RFC 7396): a peer, interface or key that the caller leaves out is gone.

use std::{collections::BTreeSet, net::Ipv4Addr};

use ipnet::Ipv4Net;
use serde_json::{Value, json};
use tieline_openapi::v1::Timestamp;

use super::{
    names::{BASE, check_enum, check_name, name_in_url},
    operations::Effect,
    query::Query,
    resources::{BgpPeer, Interface, Phase, Router, RouterBgp},
    state::{Google, ipv4},
    wire::GoogleError,
};
use crate::clouds::{document, draw::overlap};

/// The most BGP peers on a router (Cloud Router quotas).
const PEERS: usize = 128;

/// Whether a router may have this AS number: RFC 6996 private ones, and Google's own 16550 for Partner Interconnect.
fn is_router_asn(asn: u32) -> bool {
    (64_512..=65_534).contains(&asn) || (4_200_000_000..=4_294_967_294).contains(&asn) || asn == 16_550
}

fn unique<'a>(field: &str, names: impl Iterator<Item = &'a str>) -> Result<BTreeSet<&'a str>, GoogleError> {
    let mut seen = BTreeSet::new();
    for name in names {
        check_name(field, name)?;
        if !seen.insert(name) {
            return Err(GoogleError::invalid(field, name, "The name must be unique within the router."));
        }
    }
    Ok(seen)
}

impl Google {
    /// `routers.patch` and `routers.update`.
    pub(super) fn change_router(
        &mut self,
        name: &str,
        verb: &'static str,
        body: &Value,
        query: &Query,
        now: Timestamp,
    ) -> Result<Value, GoogleError> {
        let target = self.path("routers", name);
        if let Some(again) = self.replay(query, verb, &target, now)? {
            return Ok(again);
        }
        let old = self.router(name).cloned().ok_or_else(|| GoogleError::not_found(&target))?;
        if self.busy(&target) {
            return Err(GoogleError::not_ready(&target));
        }
        let mut merged = if verb == "patch" { document::of(&old) } else { json!({}) };
        document::merge(&mut merged, body);
        let mut new: Router = serde_json::from_value(merged).map_err(|error| {
            let message = format!("Invalid JSON payload received. {error}");
            GoogleError::new(400, "badRequest", message)
        })?;
        self.keep_identity(&old, &mut new)?;
        self.fill_in(&old, &mut new)?;
        self.check_router(&new)?;
        let id = old.id.as_str().unwrap_or_default().to_owned();
        Ok(self.begin(query, verb, target, id, Effect::SetRouter(Box::new(new)), now))
    }

    fn keep_identity(&self, old: &Router, new: &mut Router) -> Result<(), GoogleError> {
        let fixed = |field: &str, value: &str| GoogleError::invalid(field, value, "The field cannot be changed.");
        if let Some(name) = new.name.as_ref().filter(|name| Some(*name) != old.name.as_ref()) {
            return Err(fixed("name", name));
        }
        if let Some(url) = &new.network
            && name_in_url("network", url, "networks")? != self.network
        {
            return Err(fixed("network", url));
        }
        new.name = old.name.clone();
        new.network = old.network.clone();
        (new.id, new.creation_timestamp) = (old.id.clone(), old.creation_timestamp.clone());
        (new.kind, new.self_link, new.region) = (Value::Null, Value::Null, Value::Null);
        let (asn, bgp) = (old.bgp.as_ref().and_then(|bgp| bgp.asn), new.bgp.get_or_insert_with(RouterBgp::default));
        match bgp.asn {
            Some(wanted) if Some(wanted) != asn => {
                return Err(GoogleError::invalid("bgp.asn", wanted, "The ASN of a router is fixed."));
            }
            _ => bgp.asn = asn,
        }
        bgp.keepalive_interval = bgp.keepalive_interval.or(Some(20));
        Ok(())
    }

    /// Puts in what the caller may leave out: values of keys that the router already has, addresses that follow from others.
    fn fill_in(&self, old: &Router, new: &mut Router) -> Result<(), GoogleError> {
        for key in &mut new.md5_authentication_keys {
            if key.key.is_none() {
                let known = old.md5_authentication_keys.iter().find(|k| k.name == key.name);
                key.key = known.and_then(|known| known.key.clone());
            }
        }
        for interface in &mut new.interfaces {
            interface.management_type = Some("MANAGED_BY_USER".to_owned());
            if let Some(url) = &interface.linked_interconnect_attachment {
                let name = name_in_url("interfaces.linkedInterconnectAttachment", url, "interconnectAttachments")?;
                interface.linked_interconnect_attachment =
                    Some(format!("{BASE}{}", self.path("interconnectAttachments", &name)));
            }
            if interface.ip_range.is_none() {
                let address = self.linked(interface).and_then(|attachment| attachment.cloud_router_ip_address);
                interface.ip_range = address.map(|net| net.to_string());
            }
        }
        for peer in &mut new.bgp_peers {
            peer.management_type = Some("MANAGED_BY_USER".to_owned());
            peer.enable.get_or_insert_with(|| "TRUE".to_owned());
            peer.enable_ipv4.get_or_insert(true);
            peer.enable_ipv6.get_or_insert(false);
            peer.advertise_mode.get_or_insert_with(|| "DEFAULT".to_owned());
            peer.advertised_route_priority.get_or_insert(100);
            let bfd = peer.bfd.get_or_insert_default();
            bfd.session_initialization_mode.get_or_insert_with(|| "DISABLED".to_owned());
            bfd.min_transmit_interval.get_or_insert(1000);
            bfd.min_receive_interval.get_or_insert(1000);
            bfd.multiplier.get_or_insert(5);
            let interface = new.interfaces.iter().find(|i| Some(&i.name) == peer.interface_name.as_ref());
            let address = interface.and_then(|i| i.ip_range.as_deref()?.parse::<Ipv4Net>().ok());
            if let (None, Some(address)) = (&peer.ip_address, address) {
                peer.ip_address = Some(address.addr().to_string());
            }
        }
        Ok(())
    }

    fn check_router(&self, router: &Router) -> Result<(), GoogleError> {
        let bgp = router.bgp.clone().unwrap_or_default();
        let asn = bgp.asn.unwrap_or_default();
        if !is_router_asn(asn) {
            return Err(GoogleError::invalid("bgp.asn", asn, "Must be an RFC 6996 private ASN."));
        }
        if let Some(interval) = bgp.keepalive_interval.filter(|s| !(20..=60).contains(s)) {
            return Err(GoogleError::invalid("bgp.keepaliveInterval", interval, "Must be 20 to 60."));
        }
        unique("interfaces.name", router.interfaces.iter().map(|i| i.name.as_str()))?;
        unique("bgpPeers.name", router.bgp_peers.iter().map(|p| p.name.as_str()))?;
        unique("md5AuthenticationKeys.name", router.md5_authentication_keys.iter().map(|k| k.name.as_str()))?;
        if router.bgp_peers.len() > PEERS {
            let message = format!("Quota 'BGP_PEERS_PER_ROUTER' exceeded. Limit: {PEERS}.0");
            return Err(GoogleError::new(403, "quotaExceeded", message));
        }
        for (n, interface) in router.interfaces.iter().enumerate() {
            self.check_interface(router, n, interface)?;
        }
        for (n, peer) in router.bgp_peers.iter().enumerate() {
            Self::check_peer(router, asn, n, peer)?;
        }
        check_keys(router)
    }

    fn check_interface(&self, router: &Router, n: usize, interface: &Interface) -> Result<(), GoogleError> {
        let field = |name: &str| format!("interfaces[{n}].{name}");
        let range = interface.ip_range.as_deref().unwrap_or_default();
        let bad = |why: &str| GoogleError::invalid(&field("ipRange"), range, why);
        let net: Option<Ipv4Net> = range.parse().ok();
        let Some(url) = &interface.linked_interconnect_attachment else {
            // Tunnels and router appliances are not simulated: their interfaces are kept as they are.
            return Ok(());
        };
        let link = field("linkedInterconnectAttachment");
        let name = name_in_url(&link, url, "interconnectAttachments")?;
        let path = self.path("interconnectAttachments", &name);
        let attachment = self.attachment(&name).ok_or_else(|| GoogleError::not_found(&path))?;
        if attachment.phase == Phase::Inserting || self.busy(&path) {
            return Err(GoogleError::not_ready(&path));
        }
        if Some(&attachment.router) != router.name.as_ref() {
            return Err(GoogleError::invalid(&link, url, "The attachment belongs to another router."));
        }
        let twin = router.interfaces[..n].iter().find(|i| i.linked_interconnect_attachment.as_ref() == Some(url));
        if let Some(twin) = twin {
            return Err(GoogleError::in_use(&path, &twin.name));
        }
        let net = net.ok_or_else(|| bad("Must be an IPv4 address with a prefix length."))?;
        if attachment.cloud_router_ip_address != Some(net) {
            return Err(bad("Must be the cloudRouterIpAddress of the linked attachment."));
        }
        let elsewhere = self.routers.iter().filter(|r| r.name != router.name).flat_map(|r| &r.interfaces);
        for other in elsewhere.chain(router.interfaces.iter().filter(|i| i.name != interface.name)) {
            let other_net = other.ip_range.as_deref().and_then(|text| text.parse::<Ipv4Net>().ok());
            if other_net.is_some_and(|other| overlap(&other.trunc(), &net.trunc())) {
                return Err(bad(&format!("The range overlaps the one of interface '{}'.", other.name)));
            }
        }
        Ok(())
    }

    fn check_peer(router: &Router, asn: u32, n: usize, peer: &BgpPeer) -> Result<(), GoogleError> {
        let field = |name: &str| format!("bgpPeers[{n}].{name}");
        let missing = |name: &str| GoogleError::required(&field(name));
        let interface_name = peer.interface_name.as_ref().ok_or_else(|| missing("interfaceName"))?;
        let interface = router.interfaces.iter().find(|i| i.name == *interface_name).ok_or_else(|| {
            GoogleError::invalid(&field("interfaceName"), interface_name, "The router has no such interface.")
        })?;
        let peer_asn = peer.peer_asn.ok_or_else(|| missing("peerAsn"))?;
        if [0, 23_456, 65_535, u32::MAX].contains(&peer_asn) {
            return Err(GoogleError::invalid(&field("peerAsn"), peer_asn, "The ASN is reserved."));
        }
        if peer_asn == asn {
            return Err(GoogleError::invalid(&field("peerAsn"), peer_asn, "Must differ from the ASN of the router."));
        }
        check_enum(&field("enable"), peer.enable.as_deref().unwrap_or("TRUE"), &["TRUE", "FALSE"])?;
        check_enum(
            &field("advertiseMode"),
            peer.advertise_mode.as_deref().unwrap_or("DEFAULT"),
            &["DEFAULT", "CUSTOM"],
        )?;
        check_announced(&field("advertisedIpRanges"), peer)?;
        check_bfd(&field("bfd"), peer)?;
        if interface.linked_interconnect_attachment.is_some() {
            check_addresses(&field, interface, peer)?;
        }
        let twin = |p: &BgpPeer| p.interface_name == peer.interface_name && p.peer_ip_address == peer.peer_ip_address;
        if router.bgp_peers[..n].iter().any(twin) {
            let address = peer.peer_ip_address.as_deref().unwrap_or_default();
            return Err(GoogleError::invalid(&field("peerIpAddress"), address, "Another peer has the same address."));
        }
        Ok(())
    }

    /// A router as answers show it: keys by name only.
    pub(super) fn show_router(&self, router: &Router) -> Value {
        let name = router.name.as_deref().unwrap_or_default();
        let mut shown = document::of(router);
        shown["kind"] = json!("compute#router");
        shown["selfLink"] = json!(format!("{BASE}{}", self.path("routers", name)));
        shown["region"] = json!(format!("{BASE}{}", self.region_path()));
        for key in shown["md5AuthenticationKeys"].as_array_mut().into_iter().flatten() {
            key.as_object_mut().map(|key| key.remove("key"));
        }
        if shown["md5AuthenticationKeys"].is_null() {
            shown.as_object_mut().map(|map| map.remove("md5AuthenticationKeys"));
        }
        shown
    }
}

fn check_addresses(field: &dyn Fn(&str) -> String, interface: &Interface, peer: &BgpPeer) -> Result<(), GoogleError> {
    let net: Option<Ipv4Net> = interface.ip_range.as_deref().and_then(|text| text.parse().ok());
    let Some(net) = net else { return Ok(()) };
    let own = peer.ip_address.as_deref().unwrap_or_default();
    if ipv4(own) != Some(net.addr()) {
        return Err(GoogleError::invalid(&field("ipAddress"), own, "Must be the address of the interface."));
    }
    let theirs = peer.peer_ip_address.as_deref().ok_or_else(|| GoogleError::required(&field("peerIpAddress")))?;
    let usable = |ip: &Ipv4Addr| net.contains(ip) && ![net.addr(), net.network(), net.broadcast()].contains(ip);
    if ipv4(theirs).filter(usable).is_none() {
        let why = format!("Must be another host of the interface's range '{net}'.");
        return Err(GoogleError::invalid(&field("peerIpAddress"), theirs, &why));
    }
    Ok(())
}

fn check_announced(field: &str, peer: &BgpPeer) -> Result<(), GoogleError> {
    let custom = peer.advertise_mode.as_deref() == Some("CUSTOM");
    let listed = !peer.advertised_ip_ranges.is_empty() || !peer.advertised_groups.is_empty();
    if listed && !custom {
        return Err(GoogleError::invalid(field, "", "Can only be set in the advertise mode CUSTOM."));
    }
    for range in &peer.advertised_ip_ranges {
        let net = range.range.parse::<Ipv4Net>().ok().filter(|net| net.trunc() == *net);
        net.ok_or_else(|| GoogleError::invalid(field, &range.range, "Must be a CIDR range without host bits."))?;
    }
    for group in &peer.advertised_groups {
        check_enum(field, group, &["ALL_SUBNETS"])?;
    }
    Ok(())
}

/// `RouterBgpPeerBfd`: intervals 1000 to 30000 ms, multiplier 5 to 16.
fn check_bfd(field: &str, peer: &BgpPeer) -> Result<(), GoogleError> {
    let Some(bfd) = &peer.bfd else { return Ok(()) };
    let mode = bfd.session_initialization_mode.as_deref().unwrap_or("DISABLED");
    check_enum(&format!("{field}.sessionInitializationMode"), mode, &["ACTIVE", "PASSIVE", "DISABLED"])?;
    let intervals =
        [("minTransmitInterval", bfd.min_transmit_interval), ("minReceiveInterval", bfd.min_receive_interval)];
    for (name, interval) in intervals {
        if let Some(ms) = interval.filter(|ms| !(1_000..=30_000).contains(ms)) {
            return Err(GoogleError::invalid(&format!("{field}.{name}"), ms, "Must be 1000 to 30000."));
        }
    }
    match bfd.multiplier.filter(|multiplier| !(5..=16).contains(multiplier)) {
        Some(multiplier) => Err(GoogleError::invalid(&format!("{field}.multiplier"), multiplier, "Must be 5 to 16.")),
        None => Ok(()),
    }
}

/// Every key has a value and is used by exactly one peer; every peer's key exists.
fn check_keys(router: &Router) -> Result<(), GoogleError> {
    for (n, key) in router.md5_authentication_keys.iter().enumerate() {
        let field = format!("md5AuthenticationKeys[{n}]");
        let value = key.key.as_deref().ok_or_else(|| GoogleError::required(&format!("{field}.key")))?;
        if !(1..=80).contains(&value.len()) || !value.bytes().all(|b| (0x20..0x7f).contains(&b)) {
            let why = "The key must have 1 to 80 printable ASCII characters.";
            return Err(GoogleError::invalid(&format!("{field}.key"), "(hidden)", why));
        }
        let users =
            router.bgp_peers.iter().filter(|p| p.md5_authentication_key_name.as_ref() == Some(&key.name)).count();
        if users != 1 {
            let why = format!("The key must be used by exactly one BGP peer, not by {users}.");
            return Err(GoogleError::invalid(&format!("{field}.name"), &key.name, &why));
        }
    }
    for (n, peer) in router.bgp_peers.iter().enumerate() {
        if let Some(wanted) = &peer.md5_authentication_key_name
            && !router.md5_authentication_keys.iter().any(|key| key.name == *wanted)
        {
            let field = format!("bgpPeers[{n}].md5AuthenticationKeyName");
            return Err(GoogleError::invalid(&field, wanted, "The router has no such key."));
        }
    }
    Ok(())
}
