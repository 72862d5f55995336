//! Attachments, interfaces, peers and keys that were there before us and are none of our business.

use ipnet::Ipv4Net;
use serde_json::json;
use tieline_openapi::v1::Timestamp;

use super::{
    names::BASE,
    resources::{Attachment, BgpPeer, Interface, Md5Key, PeerBfd, Phase},
    state::Google,
};

/// Names that strangers chose. The second looks like Tieline's, of another installation; the third only begins like it.
const NAMES: [&str; 3] = ["legacy-dc-east", "tl-0badcafe-01hzy8qk5v3x2w9c7b4n6m8d0f", "tl-router-uplink"];

/// Puts strangers' attachments on the first interconnect, each with an interface, a peer and a key on our router.
pub(super) fn settle_in(google: &mut Google, now: Timestamp) {
    let Some(interconnect) = google.interconnects.first().map(|i| i.name.clone()) else { return };
    for (i, name) in (0u8..).zip(NAMES) {
        let address = |host: u8| Ipv4Net::new(std::net::Ipv4Addr::new(169, 254, 61, i * 8 + host), 29).ok();
        let (Some(ours), Some(theirs)) = (address(1), address(2)) else { continue };
        let id = google.draw.number().to_string();
        let link = format!("{BASE}{}", google.path("interconnectAttachments", name));
        let Some(router) = google.routers.first_mut() else { return };
        google.attachments.push(Attachment {
            id,
            name: name.to_owned(),
            description: "network operations".to_owned(),
            interconnect: interconnect.clone(),
            router: router.name.clone().unwrap_or_default(),
            vlan: 401 + u16::from(i),
            mtu: 1440,
            bandwidth: "BPS_1G".to_owned(),
            admin_enabled: true,
            candidate_subnets: Vec::new(),
            candidate_pair: None,
            subnet_length: 29,
            cloud_router_ip_address: Some(ours),
            customer_router_ip_address: Some(theirs),
            labels: std::collections::BTreeMap::from([("team".to_owned(), "network-operations".to_owned())]),
            created: now,
            phase: Phase::Active,
            since: now,
        });
        router.interfaces.push(Interface {
            name: format!("if-{name}"),
            ip_range: Some(ours.to_string()),
            linked_interconnect_attachment: Some(link),
            management_type: Some("MANAGED_BY_USER".to_owned()),
            ..Interface::default()
        });
        router
            .md5_authentication_keys
            .push(Md5Key { name: format!("key-{i}"), key: Some(format!("strangers-own-key-{i}")) });
        google.strangers.insert(format!("peer-{name}"));
        router.bgp_peers.push(peer(name, i, ours, theirs));
    }
}

fn peer(name: &str, i: u8, ours: Ipv4Net, theirs: Ipv4Net) -> BgpPeer {
    BgpPeer {
        name: format!("peer-{name}"),
        interface_name: Some(format!("if-{name}")),
        ip_address: Some(ours.addr().to_string()),
        peer_ip_address: Some(theirs.addr().to_string()),
        peer_asn: Some(65_300 + u32::from(i)),
        advertised_route_priority: Some(200),
        advertise_mode: Some("DEFAULT".to_owned()),
        enable: Some("TRUE".to_owned()),
        enable_ipv4: Some(true),
        enable_ipv6: Some(false),
        management_type: Some("MANAGED_BY_USER".to_owned()),
        md5_authentication_key_name: Some(format!("key-{i}")),
        custom_learned_ip_ranges: vec![json!({ "range": format!("10.99.{i}.0/24") })],
        custom_learned_route_priority: Some(500),
        bfd: Some(PeerBfd {
            session_initialization_mode: Some("DISABLED".to_owned()),
            min_transmit_interval: Some(1000),
            min_receive_interval: Some(1000),
            multiplier: Some(5),
        }),
        ..BgpPeer::default()
    }
}
