//! `routers.getRouterStatus` and interconnects: what the router and the wires say.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use tieline_openapi::v1::{BfdState, BgpState, Timestamp};

use super::{
    names::BASE,
    resources::{BgpPeer, Router},
    state::Google,
};
use crate::clouds::{network::SessionStatus, world::GoogleInterconnect};

/// What the router said, by session id; `None` where it could not be asked.
pub(super) type Status = Option<BTreeMap<String, SessionStatus>>;

const fn bgp_word(state: BgpState) -> &'static str {
    match state {
        BgpState::Unknown | BgpState::Down | BgpState::Idle => "Idle",
        BgpState::Connect => "Connect",
        BgpState::Active => "Active",
        BgpState::OpenSent => "OpenSent",
        BgpState::OpenConfirm => "OpenConfirm",
        BgpState::Established => "Established",
    }
}

const fn bfd_word(state: BfdState) -> &'static str {
    match state {
        BfdState::Unknown => "STATE_UNSPECIFIED",
        BfdState::AdminDown => "ADMIN_DOWN",
        BfdState::Down => "DOWN",
        BfdState::Init => "INIT",
        BfdState::Up => "UP",
    }
}

/// `H hours, M minutes, S seconds`, as the API words it.
fn uptime(seconds: i64) -> String {
    let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
    let mut words = Vec::new();
    if hours > 0 {
        words.push(format!("{hours} hours"));
    }
    if hours > 0 || minutes > 0 {
        words.push(format!("{minutes} minutes"));
    }
    words.push(format!("{} seconds", seconds % 60));
    words.join(", ")
}

impl Google {
    fn route(&self, dest: &str, next_hop: &str, priority: u32, as_path: &[u32]) -> Value {
        let mut route = json!({
            "kind": "compute#route", "destRange": dest, "network": self.network_url(), "nextHopIp": next_hop,
            "priority": priority, "routeType": "BGP",
        });
        if !as_path.is_empty() {
            route["asPaths"] = json!([{ "pathSegmentType": "AS_SEQUENCE", "asLists": as_path }]);
        }
        route
    }

    fn show_peer_status(&self, peer: &BgpPeer, status: &Status, now: Timestamp) -> Value {
        let session = status.as_ref().map(|all| all.get(&peer.name).cloned().unwrap_or_default());
        let up = session.as_ref().map(|session| session.bgp == BgpState::Established);
        let mut shown = json!({
            "name": peer.name, "ipAddress": peer.ip_address, "peerIpAddress": peer.peer_ip_address,
            "status": match up { Some(true) => "UP", Some(false) => "DOWN", None => "UNKNOWN" },
            "md5AuthEnabled": peer.md5_authentication_key_name.is_some(), "enableIpv4": true, "enableIpv6": false,
        });
        let Some(session) = session else { return shown };
        shown["state"] = json!(bgp_word(session.bgp));
        shown["numLearnedRoutes"] = json!(session.routes_in);
        if let (Some(true), Some(since)) = (up, session.established_since) {
            let seconds = now.duration_since(since).as_secs().max(0);
            shown["uptime"] = json!(uptime(seconds));
            shown["uptimeSeconds"] = json!(seconds.to_string());
        }
        let own = peer.ip_address.as_deref().unwrap_or_default();
        let priority = peer.advertised_route_priority.unwrap_or(100);
        let advertised = session.advertised.iter().map(|p| self.route(&p.to_string(), own, priority, &[]));
        shown["advertisedRoutes"] = advertised.collect();
        let mode = peer.bfd.as_ref().and_then(|bfd| bfd.session_initialization_mode.as_deref()).unwrap_or("DISABLED");
        if mode != "DISABLED" {
            shown["bfdStatus"] = json!({ "bfdSessionInitializationMode": mode, "localState": bfd_word(session.bfd) });
        }
        shown
    }

    pub(super) fn show_router_status(&self, router: &Router, status: &Status, now: Timestamp) -> Value {
        let peers: Vec<Value> = router.bgp_peers.iter().map(|p| self.show_peer_status(p, status, now)).collect();
        let mut best = BTreeMap::new();
        for session in router.bgp_peers.iter().filter_map(|peer| status.as_ref()?.get(&peer.name)) {
            for learned in &session.learned {
                let route =
                    self.route(&learned.prefix.to_string(), &learned.next_hop.to_string(), 100, &learned.as_path);
                let known = best.entry(learned.prefix).or_insert_with(Vec::new);
                let shortest = known.first().map_or(usize::MAX, |(length, _)| *length);
                if learned.as_path.len() < shortest {
                    known.clear();
                }
                if learned.as_path.len() <= shortest {
                    known.push((learned.as_path.len(), route));
                }
            }
        }
        let best: Vec<Value> = best.into_values().flatten().map(|(_, route)| route).collect();
        json!({
            "kind": "compute#routerStatusResponse",
            "result": {
                "network": self.network_url(), "bgpPeerStatus": peers, "bestRoutes": best, "bestRoutesForRouter": best,
            },
        })
    }

    pub(super) fn show_interconnect(&self, n: usize, interconnect: &GoogleInterconnect, lit: bool) -> Value {
        let project = &self.project;
        let attachments: Vec<String> = self
            .attachments
            .iter()
            .filter(|a| a.interconnect == interconnect.name)
            .map(|a| format!("{BASE}{}", self.path("interconnectAttachments", &a.name)))
            .collect();
        let circuits: Vec<Value> = (0..interconnect.links)
            .map(|link| json!({ "googleCircuitId": format!("LAB-{n}-{link}"), "googleDemarcId": format!("lab.{n}:{link}") }))
            .collect();
        let location = format!("{BASE}projects/{project}/global/interconnectLocations/{}", interconnect.location);
        json!({
            "kind": "compute#interconnect", "id": (5_000_000_000_000_000_000_u64 + n as u64).to_string(),
            "name": interconnect.name, "description": "", "creationTimestamp": self.born.to_string(),
            "selfLink": format!("{BASE}{}", self.interconnect_path(&interconnect.name)),
            "location": location, "effectiveLocation": location,
            "remoteLocation":
                format!("{BASE}projects/{project}/global/interconnectRemoteLocations/{}", interconnect.remote_location),
            "linkType": interconnect.link_type, "interconnectType": "DEDICATED",
            "requestedLinkCount": interconnect.links, "provisionedLinkCount": interconnect.links,
            "adminEnabled": true, "state": "ACTIVE",
            "operationalStatus": if lit { "OS_ACTIVE" } else { "OS_UNPROVISIONED" },
            "interconnectAttachments": attachments, "circuitInfos": circuits, "customerName": "Tieline Lab",
        })
    }
}
