//! Google's resources in the shapes of its API. What the simulator does not run, it keeps as it was given.

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tieline_openapi::v1::Timestamp;

/// What an attachment waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Phase {
    /// Its insert is not done.
    Inserting,
    /// Inserted, addresses allocated.
    Unprovisioned,
    Active,
}

/// A VLAN attachment of the type `DEDICATED`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Attachment {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) description: String,
    pub(super) interconnect: String,
    pub(super) router: String,
    #[serde(rename = "vlanTag8021q")]
    pub(super) vlan: u16,
    pub(super) mtu: u16,
    pub(super) bandwidth: String,
    pub(super) admin_enabled: bool,
    pub(super) candidate_subnets: Vec<Ipv4Net>,
    pub(super) candidate_pair: Option<(Ipv4Net, Ipv4Net)>,
    pub(super) subnet_length: u8,
    pub(super) cloud_router_ip_address: Option<Ipv4Net>,
    pub(super) customer_router_ip_address: Option<Ipv4Net>,
    pub(super) labels: std::collections::BTreeMap<String, String>,
    pub(super) created: Timestamp,
    pub(super) phase: Phase,
    pub(super) since: Timestamp,
}

/// The body of an insert or a patch of an attachment.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct AttachmentBody {
    pub(super) name: Option<String>,
    pub(super) description: Option<String>,
    pub(super) interconnect: Option<String>,
    pub(super) router: Option<String>,
    #[serde(rename = "type")]
    pub(super) kind_of: Option<String>,
    pub(super) bandwidth: Option<String>,
    pub(super) mtu: Option<i64>,
    pub(super) vlan_tag8021q: Option<i64>,
    pub(super) admin_enabled: Option<bool>,
    pub(super) candidate_subnets: Vec<String>,
    pub(super) candidate_cloud_router_ip_address: Option<String>,
    pub(super) candidate_customer_router_ip_address: Option<String>,
    pub(super) subnet_length: Option<u8>,
    pub(super) stack_type: Option<String>,
    pub(super) encryption: Option<String>,
    pub(super) edge_availability_domain: Option<String>,
    pub(super) labels: Option<std::collections::BTreeMap<String, String>>,
    // Output only: taken and ignored, as a client sends back what it read.
    #[serde(rename = "kind")]
    _kind: Value,
    #[serde(rename = "id")]
    _id: Value,
    #[serde(rename = "selfLink")]
    _self_link: Value,
    #[serde(rename = "region")]
    _region: Value,
    #[serde(rename = "state")]
    _state: Value,
    #[serde(rename = "operationalStatus")]
    _operational_status: Value,
    #[serde(rename = "creationTimestamp")]
    _creation_timestamp: Value,
    #[serde(rename = "cloudRouterIpAddress")]
    _cloud_router_ip_address: Value,
    #[serde(rename = "customerRouterIpAddress")]
    _customer_router_ip_address: Value,
    #[serde(rename = "privateInterconnectInfo")]
    _private_interconnect_info: Value,
    #[serde(rename = "configurationConstraints")]
    _configuration_constraints: Value,
    #[serde(rename = "labelFingerprint")]
    _label_fingerprint: Value,
    #[serde(rename = "dataplaneVersion")]
    _dataplane_version: Value,
    #[serde(rename = "remoteService")]
    _remote_service: Value,
    #[serde(rename = "satisfiesPzs")]
    _satisfies_pzs: Value,
}

/// A Cloud Router. Keys keep their values here; answers do not show them.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct Router {
    #[serde(skip_serializing_if = "Value::is_null")]
    pub(super) kind: Value,
    #[serde(skip_serializing_if = "Value::is_null")]
    pub(super) id: Value,
    #[serde(skip_serializing_if = "Value::is_null")]
    pub(super) creation_timestamp: Value,
    #[serde(skip_serializing_if = "Value::is_null")]
    pub(super) self_link: Value,
    #[serde(skip_serializing_if = "Value::is_null")]
    pub(super) region: Value,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) description: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) network: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) bgp: Option<RouterBgp>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) interfaces: Vec<Interface>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) bgp_peers: Vec<BgpPeer>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) md5_authentication_keys: Vec<Md5Key>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) nats: Vec<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) encrypted_interconnect_router: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) ncc_gateway: Option<String>,
}

/// The router's own BGP settings.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct RouterBgp {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) asn: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) advertise_mode: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) advertised_groups: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) advertised_ip_ranges: Vec<IpRange>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) keepalive_interval: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) identifier_range: Option<String>,
}

/// An announced range.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct IpRange {
    pub(super) range: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) description: Option<String>,
}

/// A router interface.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct Interface {
    pub(super) name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) ip_range: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) ip_version: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) linked_interconnect_attachment: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) linked_vpn_tunnel: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) management_type: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) private_ip_address: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) redundant_interface: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) subnetwork: Option<String>,
}

/// BFD of a peer. Intervals are in milliseconds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct PeerBfd {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) session_initialization_mode: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) min_transmit_interval: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) min_receive_interval: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) multiplier: Option<u32>,
}

/// A BGP peer.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct BgpPeer {
    pub(super) name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) interface_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) ip_address: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) peer_ip_address: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) peer_asn: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) advertised_route_priority: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) advertise_mode: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) advertised_groups: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) advertised_ip_ranges: Vec<IpRange>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) bfd: Option<PeerBfd>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) enable: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) enable_ipv4: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) enable_ipv6: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) management_type: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) md5_authentication_key_name: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) custom_learned_ip_ranges: Vec<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) custom_learned_route_priority: Option<i32>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) export_policies: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) import_policies: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) router_appliance_instance: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) ipv4_nexthop_address: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) ipv6_nexthop_address: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) peer_ipv4_nexthop_address: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) peer_ipv6_nexthop_address: Option<String>,
}

/// An MD5 key.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct Md5Key {
    pub(super) name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) key: Option<String>,
}
