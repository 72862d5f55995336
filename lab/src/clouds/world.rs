//! What exists in a simulated cloud before anybody calls it: what Tieline never creates.

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

/// A link aggregation group of AWS Direct Connect.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AwsLag {
    /// `dxlag-` and eight characters.
    pub id: String,
    /// Its name.
    pub name: String,
    /// The Direct Connect location's code.
    pub location: String,
    /// The AWS device that the links end on: diverse channels have distinct ones.
    pub device: String,
    /// How many links.
    pub links: u32,
    /// The bandwidth of each link, in AWS's words: `10Gbps`.
    pub bandwidth: String,
    /// Whether it takes an MTU of 8500 bytes.
    pub jumbo_frame_capable: bool,
    /// Whether a virtual interface may have two BGP peers of one family.
    pub logical_redundancy: bool,
    /// How many virtual interfaces it takes: 50 private and public ones and a transit one.
    pub max_virtual_interfaces: usize,
    /// How many inbound prefixes its virtual interfaces share.
    pub prefix_pool_ipv4: u32,
}

/// What exists in AWS.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AwsWorld {
    /// The account: 12 digits.
    pub account: String,
    /// The region.
    pub region: String,
    /// The Direct Connect gateway's id, a UUID.
    pub gateway_id: String,
    /// Its name.
    pub gateway_name: String,
    /// Its AS number (`amazonSideAsn`).
    pub gateway_asn: u32,
    /// The prefixes that its association announces to customers.
    pub allowed_prefixes: Vec<Ipv4Net>,
    /// One LAG a channel.
    pub lags: Vec<AwsLag>,
    /// Whether strangers' virtual interfaces are there too.
    pub strangers: bool,
}

/// A Cross-Cloud Interconnect connection of Google.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GoogleInterconnect {
    /// Its name.
    pub name: String,
    /// The interconnect location, which names the facility and the edge availability domain: `iad-zone1-1`.
    pub location: String,
    /// The remote location: `aws-eqdc2-1`.
    pub remote_location: String,
    /// How many links.
    pub links: u32,
    /// The link type: `LINK_TYPE_ETHERNET_10G_LR`.
    pub link_type: String,
}

/// What exists in Google.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GoogleWorld {
    /// The project.
    pub project: String,
    /// The region.
    pub region: String,
    /// The VPC's name.
    pub network: String,
    /// The Cloud Router's name.
    pub router: String,
    /// Its AS number.
    pub router_asn: u32,
    /// The VPC's subnets in the region: what a peer in the mode `DEFAULT` announces.
    pub subnets: Vec<Ipv4Net>,
    /// One interconnect a channel.
    pub interconnects: Vec<GoogleInterconnect>,
    /// Whether strangers' attachments, interfaces, peers and keys are there too.
    pub strangers: bool,
}

impl AwsWorld {
    /// A gateway and one LAG a channel, each on a device of its own.
    #[must_use]
    pub fn with_channels(channels: usize, prefixes: Vec<Ipv4Net>) -> Self {
        let lag = |n: usize| AwsLag {
            id: format!("dxlag-fg{n:06x}"),
            name: format!("xcloud-google-{n}"),
            location: if n % 2 == 1 { "EqDC2".to_owned() } else { "CSDC1".to_owned() },
            device: format!("{}-{n:012x}", if n % 2 == 1 { "EqDC2" } else { "CSDC1" }),
            links: 1,
            bandwidth: "10Gbps".to_owned(),
            jumbo_frame_capable: true,
            logical_redundancy: false,
            max_virtual_interfaces: 51,
            prefix_pool_ipv4: 5_100,
        };
        Self {
            account: "123456789012".to_owned(),
            region: "us-east-1".to_owned(),
            gateway_id: "5f1d4ae0-6c2b-4c53-9a57-1c0f1b1e0d01".to_owned(),
            gateway_name: "core".to_owned(),
            gateway_asn: 64_512,
            allowed_prefixes: prefixes,
            lags: (1..=channels).map(lag).collect(),
            strangers: true,
        }
    }
}

impl GoogleWorld {
    /// A router and one interconnect a channel, each in an edge availability domain of its own.
    #[must_use]
    pub fn with_channels(channels: usize, subnets: Vec<Ipv4Net>) -> Self {
        let interconnect = |n: usize| GoogleInterconnect {
            name: format!("xcloud-aws-{n}"),
            location: format!("iad-zone{}-{}", if n % 2 == 1 { 1 } else { 2 }, n.div_ceil(2)),
            remote_location: format!("aws-{}-{}", if n % 2 == 1 { "eqdc2" } else { "csdc1" }, n.div_ceil(2)),
            links: 1,
            link_type: "LINK_TYPE_ETHERNET_10G_LR".to_owned(),
        };
        Self {
            project: "tieline-lab".to_owned(),
            region: "us-east4".to_owned(),
            network: "prod".to_owned(),
            router: "core".to_owned(),
            router_asn: 65_010,
            subnets,
            interconnects: (1..=channels).map(interconnect).collect(),
            strangers: true,
        }
    }
}
