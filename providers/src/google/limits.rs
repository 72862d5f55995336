//! What Google allows on a VLAN attachment and its BGP session, each rule with its source.

use ipnet::Ipv4Net;
use std::{collections::BTreeSet, net::Ipv4Addr};
use tieline_openapi::{
    units::{BandwidthMbps, Mtu},
    v1::{AttachPoint, BfdSettings},
};

use crate::constraints::{AddressChoice, BfdRule, Constraints, Md5Rule, PrefixControl, Rule, Sourced};

/// The longest page of attachments and routers (Compute Engine API v1, `interconnectAttachments.list`, `maxResults`).
pub(super) const PAGE: u32 = 500;

/// The capacities of a VLAN attachment: Mbit/s, and the API's word for it
/// (Compute Engine API v1, `InterconnectAttachment.bandwidth`).
const TIERS: [(u64, &str); 14] = [
    (50, "BPS_50M"),
    (100, "BPS_100M"),
    (200, "BPS_200M"),
    (300, "BPS_300M"),
    (400, "BPS_400M"),
    (500, "BPS_500M"),
    (1_000, "BPS_1G"),
    (2_000, "BPS_2G"),
    (5_000, "BPS_5G"),
    (10_000, "BPS_10G"),
    (20_000, "BPS_20G"),
    (50_000, "BPS_50G"),
    (100_000, "BPS_100G"),
    (400_000, "BPS_400G"),
];

/// The API's word for the smallest capacity that carries a bandwidth. Negotiation only gives capacities of the list.
pub(super) fn tier(bandwidth: BandwidthMbps) -> &'static str {
    let wanted = u64::from(bandwidth);
    TIERS.iter().find(|(mbps, _)| *mbps >= wanted).map_or("BPS_400G", |(_, name)| name)
}

/// Every rule of Google's side.
pub(super) fn constraints(attach_point: &AttachPoint) -> Constraints {
    let attachment = |field: &str| format!("Google Compute Engine API v1, InterconnectAttachment.{field}");
    let peer = |field: &str| format!("Google Compute Engine API v1, RouterBgpPeer.{field}");
    let own = attach_point.asn.get();
    Constraints {
        vlan_ranges: Sourced::new(
            vec![2..=4093],
            Rule::new("a VLAN attachment takes VLAN 2 to 4093", &attachment("vlanTag8021q")),
        ),
        vlans_in_use: BTreeSet::new(),
        mtus: Sourced::new(
            [1440, 1460, 1500, 8896].into_iter().filter_map(|mtu| Mtu::try_from(mtu).ok()).collect(),
            Rule::new("the MTU of a VLAN attachment is 1440, 1460, 1500 or 8896 bytes", &attachment("mtu")),
        ),
        ipv4_lengths: Sourced::new(
            vec![29],
            Rule::new(
                "Google gives a /29; a /30 only towards remote locations that allow nothing else",
                &attachment("subnetLength"),
            ),
        ),
        ipv4_include: Sourced::new(
            vec![net(169, 254, 0, 0, 16)],
            Rule::new("point-to-point subnets are inside 169.254.0.0/16", &attachment("candidateSubnets")),
        ),
        ipv4_exclude: Sourced::new(
            vec![net(169, 254, 169, 252, 30)],
            Rule::new(
                "169.254.169.254 is the metadata server of every instance",
                "Google Compute Engine documentation, VM metadata",
            ),
        ),
        ipv4_in_use: Vec::new(),
        address_choice: Sourced::new(
            AddressChoice::Cloud,
            Rule::new("Google picks the addresses out of the candidate subnets", &attachment("candidateSubnets")),
        ),
        md5: Sourced::new(
            Md5Rule { required: false, supported: true, length: 1..=80, alphanumeric_only: false },
            Rule::new(
                "an MD5 key has at most 80 printable ASCII characters and belongs to exactly one peer",
                "Google Compute Engine API v1, RouterMd5AuthenticationKey",
            ),
        ),
        bfd: Sourced::new(
            BfdRule {
                supported: true,
                configurable: true,
                best: BfdSettings { enabled: true, min_transmit_ms: 1_000, min_receive_ms: 1_000, multiplier: 5 },
                hold_time_ms: 60_000,
            },
            Rule::new(
                "BFD is off by default; its intervals are 1000 to 30000 ms, its multiplier 5 to 16; without it the hold \
                 time of 60 s decides",
                "Google Compute Engine API v1, RouterBgpPeerBfd; Cloud Router documentation, BFD",
            ),
        ),
        refused_peer_asns: Sourced::new(
            vec![0..=0, own..=own, 16_550..=16_550, 23_456..=23_456, 65_535..=65_535, u32::MAX..=u32::MAX],
            Rule::new(
                "the peer's AS number differs from the Cloud Router's, is not 16550 (Google, Partner Interconnect) and not \
                 reserved (RFC 7607, RFC 6793, RFC 7300)",
                &peer("peerAsn"),
            ),
        ),
        bandwidths: Sourced::new(
            TIERS.iter().filter_map(|(mbps, _)| BandwidthMbps::try_from(*mbps).ok()).collect(),
            Rule::new("a VLAN attachment is sold from 50 Mbit/s to 400 Gbit/s in 14 steps", &attachment("bandwidth")),
        ),
        max_received_prefixes: Sourced::new(
            250,
            Rule::new(
                "a Cloud Router learns at most 250 distinct prefixes of its own region",
                "Google Cloud Router documentation, quotas and limits",
            ),
        ),
        max_advertised_prefixes: Sourced::new(
            200,
            Rule::new(
                "a BGP session announces at most 200 custom prefixes",
                "Google Cloud Router documentation, quotas and limits",
            ),
        ),
        ipv6: Sourced::new(
            false,
            Rule::new("Tieline configures IPv4 sessions only on Cloud Routers", "Tieline, google.routerPeer"),
        ),
    }
}

/// A peer announces its own list (`advertiseMode` CUSTOM). What it learns could be filtered by a route policy only, which
/// the adapter does not make.
pub(super) fn prefix_control() -> Sourced<PrefixControl> {
    Sourced::new(
        PrefixControl { announces: true, accepts: false, limits: false },
        Rule::new(
            "a BGP peer announces exactly its custom ranges; without an import route policy it learns whatever its \
             neighbour announces, up to the Cloud Router's quota",
            "Google Compute Engine API v1, RouterBgpPeer.advertiseMode and importPolicies; Cloud Router documentation, \
             quotas and limits",
        ),
    )
}

fn net(a: u8, b: u8, c: u8, d: u8, length: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), length)
}
