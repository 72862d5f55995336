//! Google's answers as the engine sees them: pure, over the API's own JSON.

use ipnet::Ipv4Net;
use serde_json::{Value, json};
use std::net::Ipv4Addr;
use tieline_openapi::{
    units::{Mtu, Vlan},
    v1::{BfdState, BgpState},
};

use super::{
    router,
    rules::{INTERCONNECT_ATTACHMENT, ROUTER_PEER},
};
use crate::{
    feature::Ipv4Pair,
    resource::{Learned, Observed, OwnerTag, Presence},
};

/// The last segment of a URL or path: a resource's own name.
pub(super) fn last_segment(url: &str) -> &str {
    url.trim_end_matches('/').rsplit('/').next().unwrap_or(url)
}

/// A VLAN attachment. `None` where the answer has no name.
pub(super) fn attachment(project: &str, region: &str, seen: &Value) -> Option<Observed> {
    let name = seen["name"].as_str()?;
    let learned = Learned {
        ipv4: pair(&seen["cloudRouterIpAddress"], &seen["customerRouterIpAddress"]),
        vlan: seen["vlanTag8021q"].as_u64().and_then(|vlan| Vlan::try_from(vlan).ok()),
        mtu: seen["mtu"].as_u64().and_then(|mtu| Mtu::try_from(mtu).ok()),
    };
    let state = seen["state"].as_str().unwrap_or("STATE_UNSPECIFIED");
    let presence = match state {
        "ACTIVE" if learned.ipv4.is_some() => Presence::Usable,
        // Its interconnect is gone: it carries nothing any more and still has to be deleted.
        "DEFUNCT" => Presence::Failed,
        _ => Presence::Settling,
    };
    Some(Observed {
        kind: INTERCONNECT_ATTACHMENT,
        cloud_id: attachment_path(project, region, name),
        owner: OwnerTag::parse(name),
        provider_state: state.to_owned(),
        presence,
        bgp: None,
        bfd: None,
        learned,
        fields: json!({
            "type": seen["type"],
            "interconnect": seen["interconnect"].as_str().map(last_segment),
            "router": seen["router"].as_str().map(last_segment),
            "vlanTag8021q": seen["vlanTag8021q"],
            "bandwidth": seen["bandwidth"],
            "mtu": seen["mtu"],
            "adminEnabled": seen["adminEnabled"].as_bool().unwrap_or(true),
            "description": seen["description"].as_str().unwrap_or_default(),
            "cloudRouterIpAddress": seen["cloudRouterIpAddress"],
            "customerRouterIpAddress": seen["customerRouterIpAddress"],
        }),
        created_at: seen["creationTimestamp"].as_str().and_then(|time| time.parse().ok()),
    })
}

/// The path of an attachment, which the API takes wherever it takes a URL.
pub(super) fn attachment_path(project: &str, region: &str, name: &str) -> String {
    format!("projects/{project}/regions/{region}/interconnectAttachments/{name}")
}

/// Our name for a part of a router, which has no URL of its own.
pub(super) fn peer_path(project: &str, region: &str, router: &str, name: &str) -> String {
    format!("projects/{project}/regions/{region}/routers/{router}/bgpPeers/{name}")
}

/// Every peer of a router: ours, others', and what is left of ours where only some of the parts are there. `status` is the
/// answer of `getRouterStatus`, where it was asked.
pub(super) fn router_peers(project: &str, region: &str, seen: &Value, status: Option<&Value>) -> Vec<Observed> {
    let names = |array: &str| {
        let entries = seen[array].as_array().cloned().unwrap_or_default();
        entries.into_iter().filter_map(|entry| entry["name"].as_str().map(str::to_owned)).collect::<Vec<_>>()
    };
    let mut all = names("bgpPeers");
    for rest in names("interfaces").into_iter().chain(names("md5AuthenticationKeys")) {
        if OwnerTag::parse(&rest).is_some() && !all.contains(&rest) {
            all.push(rest);
        }
    }
    all.iter().filter_map(|name| router_peer(project, region, seen, status, name)).collect()
}

/// The peer of this name; `None` where no part of it is there.
pub(super) fn router_peer(
    project: &str,
    region: &str,
    seen: &Value,
    status: Option<&Value>,
    name: &str,
) -> Option<Observed> {
    if !router::has_ours(seen, name) {
        return None;
    }
    let router_name = seen["name"].as_str()?;
    let nothing = Value::Null;
    let peer = router::entry(seen, "bgpPeers", name).unwrap_or(&nothing);
    let interface_name = peer["interfaceName"].as_str().unwrap_or(name);
    let interface = router::entry(seen, "interfaces", interface_name).unwrap_or(&nothing);
    let key = peer["md5AuthenticationKeyName"].as_str();
    let md5 = key.is_some_and(|key| router::entry(seen, "md5AuthenticationKeys", key).is_some());
    let session = status.and_then(|status| session(status, name)).unwrap_or(&nothing);
    let state = session["state"].as_str().or_else(|| session["status"].as_str());
    Some(Observed {
        kind: ROUTER_PEER,
        cloud_id: peer_path(project, region, router_name, name),
        owner: OwnerTag::parse(name),
        provider_state: state.unwrap_or("CONFIGURED").to_owned(),
        // Part of it is gone: nothing in the router brings it back by itself.
        presence: if peer.is_null() || interface.is_null() { Presence::Failed } else { Presence::Usable },
        bgp: status.map(|_| bgp_state(session)),
        bfd: bfd_state(session),
        learned: Learned::default(),
        fields: json!({
            "router": router_name,
            "linkedInterconnectAttachment": interface["linkedInterconnectAttachment"].as_str().map(last_segment),
            "ipRange": interface["ipRange"],
            "peerIpAddress": peer["peerIpAddress"],
            "peerAsn": peer["peerAsn"],
            "enable": peer["enable"].as_str().unwrap_or("TRUE"),
            "advertiseMode": peer["advertiseMode"].as_str().unwrap_or("DEFAULT"),
            "advertisedIpRanges": ranges(peer),
            "bfd": bfd(&peer["bfd"]),
            "md5": md5,
        }),
        created_at: None,
    })
}

/// One session of the answer of `getRouterStatus`.
fn session<'a>(status: &'a Value, name: &str) -> Option<&'a Value> {
    status["result"]["bgpPeerStatus"].as_array()?.iter().find(|session| session["name"] == name)
}

/// The session's own state where the API tells it, else no more than up or down.
fn bgp_state(session: &Value) -> BgpState {
    match session["state"].as_str().map(str::to_ascii_lowercase).as_deref() {
        Some("established") => return BgpState::Established,
        Some("idle") => return BgpState::Idle,
        Some("connect") => return BgpState::Connect,
        Some("active") => return BgpState::Active,
        Some("opensent") => return BgpState::OpenSent,
        Some("openconfirm") => return BgpState::OpenConfirm,
        _ => {}
    }
    match session["status"].as_str() {
        Some("UP") => BgpState::Established,
        Some("DOWN") => BgpState::Down,
        _ => BgpState::Unknown,
    }
}

fn bfd_state(session: &Value) -> Option<BfdState> {
    Some(match session["bfdStatus"]["localState"].as_str()? {
        "UP" => BfdState::Up,
        "DOWN" => BfdState::Down,
        "INIT" => BfdState::Init,
        "ADMIN_DOWN" => BfdState::AdminDown,
        _ => BfdState::Unknown,
    })
}

/// BFD as the spec writes it: the defaults filled in, and nothing but the mode where it is off.
fn bfd(seen: &Value) -> Value {
    match seen["sessionInitializationMode"].as_str() {
        None | Some("DISABLED") => json!({ "sessionInitializationMode": "DISABLED" }),
        Some(mode) => json!({
            "sessionInitializationMode": mode,
            "minTransmitInterval": seen["minTransmitInterval"].as_u64().unwrap_or(1_000),
            "minReceiveInterval": seen["minReceiveInterval"].as_u64().unwrap_or(1_000),
            "multiplier": seen["multiplier"].as_u64().unwrap_or(5),
        }),
    }
}

fn ranges(peer: &Value) -> Vec<&str> {
    let ranges = peer["advertisedIpRanges"].as_array().into_iter().flatten();
    let mut ranges: Vec<&str> = ranges.filter_map(|range| range["range"].as_str()).collect();
    ranges.sort_unstable();
    ranges
}

/// Both addresses come with the prefix length.
fn pair(cloud: &Value, customer: &Value) -> Option<Ipv4Pair> {
    let (host, length) = cloud.as_str()?.split_once('/')?;
    let host: Ipv4Addr = host.parse().ok()?;
    let peer: Ipv4Addr = customer.as_str()?.split('/').next()?.parse().ok()?;
    let subnet = Ipv4Net::new(host, length.parse().ok()?).ok()?.trunc();
    subnet.contains(&peer).then_some(Ipv4Pair { subnet, host, peer })
}
