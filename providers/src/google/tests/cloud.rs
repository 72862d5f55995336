//! A little Compute Engine: attachments and one Cloud Router that others use too.

use axum::http::Method;
use serde_json::{Value, json};
use std::collections::BTreeMap;

use super::openapi::object;
use crate::testing::{Answer, Recorded};

pub(super) const PROJECT: &str = "orders-prod";
pub(super) const ROOT: &str = "/compute/v1/projects/orders-prod/regions/us-east4";
const URL: &str = "https://www.googleapis.com/compute/v1/projects/orders-prod";

/// Its state, and how it behaves.
pub(super) struct Cloud {
    pub attachments: BTreeMap<String, Value>,
    pub router: Value,
    /// Looks at an operation before it is over.
    pub slow: u32,
    /// How it ends.
    pub operation_error: Option<Value>,
    /// Somebody's peer is lost by the next PATCH.
    pub loses: bool,
    looks: u32,
}

impl Cloud {
    pub(super) fn new() -> Self {
        Self {
            attachments: BTreeMap::from([("theirs".to_owned(), attachment("theirs", 77, "ACTIVE"))]),
            router: router(),
            slow: 0,
            operation_error: None,
            loses: false,
            looks: 0,
        }
    }

    pub(super) fn answer(&mut self, request: &Recorded) -> Answer {
        let Some(path) = request.path.strip_prefix(ROOT) else { return not_found(&request.path) };
        let segments: Vec<&str> = path.trim_matches('/').split('/').collect();
        match (request.method.as_str(), &segments[..]) {
            ("GET", ["interconnectAttachments"]) => self.list(&request.query),
            ("POST", ["interconnectAttachments"]) => self.insert(&request.body),
            ("GET", ["interconnectAttachments", name]) => {
                self.attachments.get(*name).map_or_else(|| not_found(name), |seen| Answer::Json(200, seen.clone()))
            }
            ("PATCH", ["interconnectAttachments", name]) => {
                let Some(seen) = self.attachments.get_mut(*name) else { return not_found(name) };
                seen.as_object_mut().unwrap().extend(object(request.body.clone()));
                self.operation()
            }
            ("DELETE", ["interconnectAttachments", name]) => match self.attachments.remove(*name) {
                Some(_) => self.operation(),
                None => not_found(name),
            },
            ("GET", ["routers"]) => Answer::Json(
                200,
                json!({ "kind": "compute#routerList", "items": [self.router], "selfLink": format!("{URL}/regions/us-east4/routers") }),
            ),
            ("GET", ["routers", "cr-1"]) => Answer::Json(200, self.router.clone()),
            ("PATCH", ["routers", "cr-1"]) => self.patch(&request.body),
            ("GET", ["routers", "cr-1", "getRouterStatus"]) => self.status(),
            ("GET", ["operations", _]) => self.operation(),
            _ => not_found(path),
        }
    }

    /// Pages of one.
    fn list(&self, query: &str) -> Answer {
        let start = query.split('&').find_map(|pair| pair.strip_prefix("pageToken=")).map_or(0, |t| t.parse().unwrap());
        let mut answer = json!({ "items": self.attachments.values().skip(start).take(1).collect::<Vec<_>>() });
        if start + 1 < self.attachments.len() {
            answer["nextPageToken"] = json!((start + 1).to_string());
        }
        Answer::Json(200, answer)
    }

    fn insert(&mut self, body: &Value) -> Answer {
        let name = body["name"].as_str().unwrap().to_owned();
        if self.attachments.contains_key(&name) {
            let message = format!("The resource '{name}' already exists");
            return error(409, "alreadyExists", &message);
        }
        let vlan = &body["vlanTag8021q"];
        if self.attachments.values().any(|seen| seen["vlanTag8021q"] == *vlan) {
            return error(400, "invalid", &format!("The VLAN tag {vlan} is already in use on the interconnect."));
        }
        let mut seen = attachment(&name, vlan.as_u64().unwrap(), "ACTIVE");
        for field in ["bandwidth", "mtu", "adminEnabled", "description", "type"] {
            seen[field] = body[field].clone();
        }
        seen["interconnect"] =
            json!(format!("https://www.googleapis.com/compute/v1/{}", body["interconnect"].as_str().unwrap()));
        seen["router"] = json!(format!("https://www.googleapis.com/compute/v1/{}", body["router"].as_str().unwrap()));
        self.attachments.insert(name, seen);
        self.operation()
    }

    fn patch(&mut self, body: &Value) -> Answer {
        if self.operation_error.is_none() {
            let keys = body["md5AuthenticationKeys"].as_array().unwrap().iter();
            let known: Vec<Value> = self.router["md5AuthenticationKeys"].as_array().unwrap().clone();
            let keys = keys.map(|key| {
                // A key without a value must be one that is there.
                assert!(key.get("key").is_some() || known.iter().any(|k| k["name"] == key["name"]), "{key}");
                json!({ "name": key["name"] })
            });
            self.router["md5AuthenticationKeys"] = keys.collect();
            self.router["interfaces"] = body["interfaces"].clone();
            self.router["bgpPeers"] = body["bgpPeers"].clone();
            if self.loses {
                self.router["bgpPeers"].as_array_mut().unwrap().remove(0);
            }
        }
        self.looks = 0;
        self.operation()
    }

    /// Every session is up, except that ours says more.
    fn status(&self) -> Answer {
        let peers = self.router["bgpPeers"].as_array().unwrap().iter().map(|peer| {
            json!({
                "name": peer["name"], "status": "UP", "state": "Established", "numLearnedRoutes": 2,
                "bfdStatus": { "localState": "UP" },
            })
        });
        Answer::Json(
            200,
            json!({ "kind": "compute#routerStatusResponse", "result": { "bgpPeerStatus": peers.collect::<Vec<_>>() } }),
        )
    }

    fn operation(&mut self) -> Answer {
        let over = self.looks >= self.slow;
        self.looks += 1;
        let mut operation = json!({
            "kind": "compute#operation", "id": "7128783508312083402", "name": "operation-1",
            "status": if over { "DONE" } else { "RUNNING" },
        });
        if let Some(error) = self.operation_error.as_ref().filter(|_| over) {
            operation["error"] = json!({ "errors": [error] });
        }
        Answer::Json(200, operation)
    }
}

pub(super) fn is_change(request: &Recorded) -> bool {
    request.method != Method::GET
}

pub(super) fn attachment(name: &str, vlan: u64, state: &str) -> Value {
    json!({
        "kind": "compute#interconnectAttachment", "id": "8134829834783", "name": name, "type": "DEDICATED",
        "selfLink": format!("{URL}/regions/us-east4/interconnectAttachments/{name}"),
        "interconnect": format!("{URL}/global/interconnects/cci-1"), "router": format!("{URL}/regions/us-east4/routers/cr-1"),
        "region": format!("{URL}/regions/us-east4"), "vlanTag8021q": vlan, "bandwidth": "BPS_10G", "mtu": 1440,
        "adminEnabled": true, "state": state, "operationalStatus": "OS_ACTIVE", "dataplaneVersion": 2,
        "cloudRouterIpAddress": "169.254.61.89/29", "customerRouterIpAddress": "169.254.61.90/29",
        "creationTimestamp": "2026-11-20T14:25:00.123-08:00",
    })
}

/// A router with two peers of others, one of them with all that the API has.
fn router() -> Value {
    json!({
        "kind": "compute#router", "id": "42", "name": "cr-1", "network": format!("{URL}/global/networks/n"),
        "bgp": { "asn": 16550, "advertiseMode": "DEFAULT", "keepaliveInterval": 20 },
        "interfaces": [
            { "name": "their-if", "ipRange": "169.254.99.1/30", "linkedVpnTunnel": "projects/p/regions/r/vpnTunnels/t",
              "managementType": "MANAGED_BY_USER", "ipVersion": "IPV4" },
            { "name": "partner-if", "ipRange": "169.254.98.1/29", "managementType": "MANAGED_BY_ATTACHMENT" },
        ],
        "bgpPeers": [
            { "name": "their-peer", "interfaceName": "their-if", "ipAddress": "169.254.99.1", "peerIpAddress": "169.254.99.2",
              "peerAsn": 65010, "advertiseMode": "CUSTOM", "advertisedGroups": ["ALL_SUBNETS"],
              "advertisedIpRanges": [{ "range": "10.9.0.0/16", "description": "sales" }],
              "advertisedRoutePriority": 0, "bfd": { "sessionInitializationMode": "PASSIVE" }, "enable": "FALSE",
              "customLearnedIpRanges": [{ "range": "10.8.0.0/16" }], "customLearnedRoutePriority": 7,
              "importPolicies": ["in"], "exportPolicies": ["out"], "enableIpv6": false,
              "md5AuthenticationKeyName": "their-key", "managementType": "MANAGED_BY_USER" },
            { "name": "partner-peer", "interfaceName": "partner-if", "managementType": "MANAGED_BY_ATTACHMENT" },
        ],
        "md5AuthenticationKeys": [{ "name": "their-key" }],
        "nats": [],
    })
}

pub(super) fn error(status: u16, reason: &str, message: &str) -> Answer {
    let errors = json!([{ "message": message, "domain": "global", "reason": reason }]);
    Answer::Json(status, json!({ "error": { "code": status, "message": message, "errors": errors } }))
}

fn not_found(what: &str) -> Answer {
    error(404, "notFound", &format!("The resource '{what}' was not found"))
}
