//! FeatureGuidance: what a server will take in a feature. A field that is absent or empty restricts nothing.

use serde::{Deserialize, Serialize};
use serde_with::skip_serializing_none;
use utoipa::ToSchema;

use super::{AdminState, FeatureType};

/// A range of AS numbers, both ends in it.
#[skip_serializing_none]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = ASNRange)]
#[serde(default)]
pub struct AsnRange {
    /// The first.
    #[schema(value_type = Option<i64>, minimum = 0, maximum = 4294967295u32)]
    pub start: Option<u32>,
    /// The last.
    #[schema(value_type = Option<i64>, minimum = 0, maximum = 4294967295u32)]
    pub stop: Option<u32>,
}

/// A range of VLANs, both ends in it. What is in use already is not taken out of it.
#[skip_serializing_none]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = VLANRange)]
#[serde(default)]
pub struct VlanRange {
    /// The first.
    pub start: Option<i32>,
    /// The last.
    pub stop: Option<i32>,
}

/// A range of MTUs in bytes, both ends in it. The highest that both providers take is chosen.
#[skip_serializing_none]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = MTURange)]
#[serde(default)]
pub struct MtuRange {
    /// The first.
    pub start: Option<i32>,
    /// The last.
    pub stop: Option<i32>,
}

/// Where a subnet may come from.
#[skip_serializing_none]
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct SubnetGuidance {
    /// Any part of this prefix.
    pub include_subnet: Option<String>,
    /// But no part of these.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub exclude_subnets: Vec<String>,
    /// This one rather than another.
    pub preferred_subnet: Option<String>,
}

/// What a server takes in a layer 3 feature.
#[skip_serializing_none]
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct L3BaseGuidance {
    /// The AS numbers of the server's end.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub asn_ranges: Vec<AsnRange>,
    /// Where the IPv4 subnet may come from.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ipv4_subnet_guidance: Vec<SubnetGuidance>,
    /// Where the IPv6 subnet may come from.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ipv6_subnet_guidance: Vec<SubnetGuidance>,
    /// The prefix lengths of the IPv4 subnet.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ipv4_allowed_subnet_prefix_lengths: Vec<i32>,
    /// The prefix lengths of the IPv6 subnet.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ipv6_allowed_subnet_prefix_lengths: Vec<i32>,
    /// The VLANs.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub vlan_ranges: Vec<VlanRange>,
    /// The MTUs.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub mtu_ranges: Vec<MtuRange>,
    /// How many prefixes the server takes over a session. It is told, not negotiated.
    pub max_received_bgp_route_prefixes: Option<i32>,
}

/// What a server takes on one channel of a connection.
#[skip_serializing_none]
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct FeatureGuidance {
    /// In which kind of feature.
    pub feature_type: Option<FeatureType>,
    /// `providers/{provider}/environments/{environment}/interconnects/{interconnect}/channels/{channel}`.
    pub channel: Option<String>,
    /// Whether the server has enabled the channel.
    #[schema(read_only)]
    pub channel_admin_state: Option<AdminState>,
    /// What it takes in a layer 3 feature.
    pub l3_base_guidance: Option<L3BaseGuidance>,
}

/// Asks for guidance.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct GenerateFeatureGuidanceRequest {}

/// Guidance for every channel of the connection's interconnect.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct GenerateFeatureGuidanceResponse {
    /// One entry a channel.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(read_only)]
    pub feature_guidance: Vec<FeatureGuidance>,
}
