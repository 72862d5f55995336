//! AWS resources as its answers show them.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use tieline_openapi::v1::BgpState;

use super::state::{Aws, Family, Gateway, Peer, Phase, Tag, VirtualInterface};
use crate::clouds::{network::SessionStatus, world::AwsLag};

/// What the router said, by session id; `None` where it could not be asked.
pub(super) type Status = Option<BTreeMap<String, SessionStatus>>;

/// Puts tags in, where there are any: the model wants at least one in a list.
fn with_tags(mut value: Value, tags: &[Tag]) -> Value {
    if let (false, Value::Object(map)) = (tags.is_empty(), &mut value) {
        map.insert("tags".to_owned(), json!(tags));
    }
    value
}

pub(super) const fn asn_field(peer: &Peer) -> u32 {
    if peer.asn_is_long { 0 } else { peer.asn }
}

impl Aws {
    fn peer_state(vif: &VirtualInterface, peer: &Peer) -> &'static str {
        match (vif.phase, peer.phase) {
            (Phase::Deleted, _) | (_, Phase::Deleted) => "deleted",
            (Phase::Deleting, _) | (_, Phase::Deleting) => "deleting",
            (Phase::Pending, _) | (_, Phase::Pending) => "pending",
            (Phase::Active, Phase::Active) => "available",
        }
    }

    fn bgp_status(vif: &VirtualInterface, peer: &Peer, status: &Status) -> &'static str {
        let Some(sessions) = status else { return "unknown" };
        if peer.address_family == Family::Ipv6 {
            return "unknown";
        }
        let session = sessions.get(&vif.session_id(peer)).filter(|_| vif.phase == Phase::Active);
        if session.is_some_and(|s| s.bgp == BgpState::Established) { "up" } else { "down" }
    }

    pub(super) fn state_word(vif: &VirtualInterface, status: &Status) -> &'static str {
        match vif.phase {
            Phase::Pending => "pending",
            Phase::Deleting => "deleting",
            Phase::Deleted => "deleted",
            Phase::Active if status.is_none() => "unknown",
            Phase::Active if vif.bgp_peers.iter().any(|p| Self::bgp_status(vif, p, status) == "up") => "available",
            Phase::Active => "down",
        }
    }

    pub(super) fn show_interface(&self, vif: &VirtualInterface, status: &Status) -> Value {
        let lag = self.lag(&vif.connection_id);
        let device = lag.map_or("", |lag| lag.device.as_str());
        let peers: Vec<Value> = vif
            .bgp_peers
            .iter()
            .map(|peer| {
                json!({
                    "bgpPeerId": peer.bgp_peer_id, "asn": asn_field(peer), "asnLong": peer.asn,
                    "authKey": peer.auth_key, "addressFamily": peer.address_family,
                    "amazonAddress": peer.amazon_address, "customerAddress": peer.customer_address,
                    "bgpPeerState": Self::peer_state(vif, peer), "bgpStatus": Self::bgp_status(vif, peer, status),
                    "awsDeviceV2": device, "awsLogicalDeviceId": device,
                })
            })
            .collect();
        let mut shown = json!({
            "ownerAccount": self.account,
            "virtualInterfaceId": vif.id,
            "location": lag.map_or("", |lag| lag.location.as_str()),
            "connectionId": vif.connection_id,
            "virtualInterfaceType": "private",
            "virtualInterfaceName": vif.name,
            "vlan": vif.vlan,
            "amazonSideAsn": self.gateway(&vif.gateway_id).map(|gateway| gateway.asn),
            "virtualInterfaceState": Self::state_word(vif, status),
            "mtu": vif.mtu,
            "jumboFrameCapable": lag.is_some_and(|lag| lag.jumbo_frame_capable),
            "virtualGatewayId": "",
            "directConnectGatewayId": vif.gateway_id,
            "routeFilterPrefixes": [],
            "bgpPeers": peers,
            "region": self.region,
            "awsDeviceV2": device,
            "awsLogicalDeviceId": device,
            "siteLinkEnabled": vif.site_link_enabled,
            "prefixPoolAllocatedCountIpv4": vif.prefix_pool_ipv4,
            "prefixPoolAllocatedCountIpv6": vif.prefix_pool_ipv6,
        });
        if let Value::Object(map) = &mut shown {
            self.show_first_peer(vif, map);
            if let Some(limit) = &vif.rate_limit {
                map.insert("rateLimit".to_owned(), json!(limit));
            }
        }
        with_tags(shown, self.tags_of("dxvif", &vif.id))
    }

    fn show_first_peer(&self, vif: &VirtualInterface, map: &mut Map<String, Value>) {
        let Some(peer) = vif.first_peer() else { return };
        let router = format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<logical_connection id=\"{}\">\n  <vlan>{}</vlan>\n  \
             <customer_address>{}</customer_address>\n  <amazon_address>{}</amazon_address>\n  <bgp_asn>{}</bgp_asn>\n  \
             <bgp_auth_key>{}</bgp_auth_key>\n  <amazon_bgp_asn>{}</amazon_bgp_asn>\n  \
             <connection_type>private</connection_type>\n</logical_connection>\n",
            vif.id,
            vif.vlan,
            peer.customer_address,
            peer.amazon_address,
            peer.asn,
            xml(&peer.auth_key),
            self.gateway(&vif.gateway_id).map_or(0, |gateway| gateway.asn),
        );
        for (key, value) in [
            ("asn", json!(asn_field(peer))),
            ("asnLong", json!(peer.asn)),
            ("authKey", json!(peer.auth_key)),
            ("amazonAddress", json!(peer.amazon_address)),
            ("customerAddress", json!(peer.customer_address)),
            ("addressFamily", json!(peer.address_family)),
            ("customerRouterConfig", json!(router)),
        ] {
            map.insert(key.to_owned(), value);
        }
    }

    /// The connections that a LAG bundles, by their ids.
    pub(super) fn member_ids(lag: &AwsLag) -> Vec<String> {
        let suffix = lag.id.trim_start_matches("dxlag-");
        (0..lag.links).map(|n| format!("dxcon-{suffix}{n}")).collect()
    }

    pub(super) fn show_member(&self, lag: &AwsLag, id: &str, lit: bool) -> Value {
        json!({
            "ownerAccount": self.account, "connectionId": id, "connectionName": format!("{}-{id}", lag.name),
            "connectionState": if lit { "available" } else { "down" }, "region": self.region,
            "location": lag.location, "bandwidth": lag.bandwidth, "lagId": lag.id, "awsDevice": lag.device,
            "jumboFrameCapable": lag.jumbo_frame_capable, "awsDeviceV2": lag.device, "awsLogicalDeviceId": lag.device,
            "hasLogicalRedundancy": if lag.logical_redundancy { "yes" } else { "no" },
            "macSecCapable": false, "billingMode": "PayAsYouGo",
        })
    }

    /// How many inbound prefixes the LAG's interfaces have not yet taken.
    pub(super) fn prefixes_left(&self, lag: &AwsLag) -> u32 {
        let taken: u32 = self.on_port(&lag.id).map(|vif| vif.prefix_pool_ipv4).sum();
        lag.prefix_pool_ipv4.saturating_sub(taken)
    }

    pub(super) fn show_lag(&self, lag: &AwsLag, lit: bool) -> Value {
        let members: Vec<Value> = Self::member_ids(lag).iter().map(|id| self.show_member(lag, id, lit)).collect();
        let shown = json!({
            "connectionsBandwidth": lag.bandwidth, "numberOfConnections": lag.links, "lagId": lag.id,
            "ownerAccount": self.account, "lagName": lag.name, "lagState": if lit { "available" } else { "down" },
            "location": lag.location, "region": self.region, "minimumLinks": 0, "awsDevice": lag.device,
            "awsDeviceV2": lag.device, "awsLogicalDeviceId": lag.device, "connections": members,
            "allowsHostedConnections": false, "jumboFrameCapable": lag.jumbo_frame_capable,
            "hasLogicalRedundancy": if lag.logical_redundancy { "yes" } else { "no" }, "macSecCapable": false,
            "prefixPoolSizeIpv4": lag.prefix_pool_ipv4, "prefixPoolUnallocatedCountIpv4": self.prefixes_left(lag),
            "billingMode": "PayAsYouGo",
        });
        with_tags(shown, self.tags_of("dxlag", &lag.id))
    }

    pub(super) fn show_gateway(&self, gateway: &Gateway) -> Value {
        let on_it = self.interfaces.iter().filter(|vif| vif.is_live() && vif.gateway_id == gateway.id);
        let shown = json!({
            "directConnectGatewayId": gateway.id, "directConnectGatewayName": gateway.name,
            "amazonSideAsn": gateway.asn, "ownerAccount": self.account, "directConnectGatewayState": "available",
            "totalPrefixPoolAllocations": on_it.map(|vif| vif.prefix_pool_ipv4).sum::<u32>(),
        });
        with_tags(shown, self.tags_of("dx-gateway", &gateway.id))
    }

    pub(super) fn show_association(&self, gateway: &Gateway) -> Value {
        let prefixes: Vec<Value> = gateway.allowed_prefixes.iter().map(|p| json!({ "cidr": p })).collect();
        json!({
            "directConnectGatewayId": gateway.id, "directConnectGatewayOwnerAccount": self.account,
            "associationState": "associated", "associationId": gateway.association_id,
            "associatedGateway": {
                "id": gateway.virtual_gateway_id, "type": "virtualPrivateGateway",
                "ownerAccount": self.account, "region": self.region,
            },
            "allowedPrefixesToDirectConnectGateway": prefixes, "virtualGatewayId": gateway.virtual_gateway_id,
            "virtualGatewayRegion": self.region, "virtualGatewayOwnerAccount": self.account,
        })
    }

    pub(super) fn show_attachment(&self, vif: &VirtualInterface) -> Value {
        let state = match vif.phase {
            Phase::Pending => "attaching",
            Phase::Active => "attached",
            Phase::Deleting => "detaching",
            Phase::Deleted => "detached",
        };
        json!({
            "directConnectGatewayId": vif.gateway_id, "virtualInterfaceId": vif.id,
            "virtualInterfaceRegion": self.region, "virtualInterfaceOwnerAccount": self.account,
            "attachmentState": state, "attachmentType": "PrivateVirtualInterface",
        })
    }
}

fn xml(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
