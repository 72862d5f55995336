//! What AWS allows on a private virtual interface, each rule with its source.

use ipnet::Ipv4Net;
use std::{collections::BTreeSet, net::Ipv4Addr};
use tieline_openapi::{
    units::{BandwidthMbps, Mtu},
    v1::{AttachPoint, BfdSettings},
};

use crate::constraints::{AddressChoice, BfdRule, Constraints, Md5Rule, PrefixControl, Rule, Sourced};

/// What ports and partners sell, in Mbit/s. A private virtual interface has no bandwidth of its own: it may use what its
/// port carries.
const BANDWIDTHS: [u64; 16] =
    [50, 100, 200, 300, 400, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 25_000, 50_000, 100_000, 200_000, 400_000];

/// The longest page of virtual interfaces ("AWS Direct Connect API Reference", DescribeVirtualInterfaces, `maxResults`).
pub(super) const PAGE: u32 = 100;

/// Every rule of AWS's side.
pub(super) fn constraints(attach_point: &AttachPoint) -> Constraints {
    let field = |field: &str| format!("AWS Direct Connect API Reference, NewPrivateVirtualInterface.{field}");
    let own = attach_point.asn.get();
    Constraints {
        vlan_ranges: Sourced::new(
            vec![1..=4094],
            Rule::new("a virtual interface takes VLAN 1 to 4094", "AWS Direct Connect User Guide, virtual interfaces"),
        ),
        vlans_in_use: BTreeSet::new(),
        mtus: Sourced::new(
            [1500, 8500].into_iter().filter_map(|mtu| Mtu::try_from(mtu).ok()).collect(),
            Rule::new("the MTU of a private virtual interface is 1500 or 8500 bytes", &field("mtu")),
        ),
        ipv4_lengths: Sourced::new(
            vec![30, 31, 29],
            Rule::new(
                "point-to-point subnets are /30 or /31; the /29 that another cloud has picked is taken as well",
                &field("amazonAddress"),
            ),
        ),
        ipv4_include: Sourced::new(
            vec![net([169, 254, 0, 0], 16), net([10, 0, 0, 0], 8), net([172, 16, 0, 0], 12), net([192, 168, 0, 0], 16)],
            Rule::new(
                "peer addresses of a private virtual interface are link-local (RFC 3927) or private (RFC 1918)",
                "AWS Direct Connect User Guide, virtual interfaces",
            ),
        ),
        ipv4_exclude: Sourced::new(
            reserved(),
            Rule::new(
                "AWS keeps 169.254.0.0/30 to 169.254.5.0/30 and 169.254.169.252/30 for itself",
                "AWS Site-to-Site VPN User Guide, tunnel options",
            ),
        ),
        ipv4_in_use: Vec::new(),
        address_choice: Sourced::new(
            AddressChoice::Caller,
            Rule::new("AWS takes both peer addresses as given", &field("customerAddress")),
        ),
        md5: Sourced::new(
            Md5Rule { required: true, supported: true, length: 6..=80, alphanumeric_only: false },
            Rule::new(
                "a BGP key has 6 to 80 characters; where none is given AWS makes one, so a session always has one",
                &field("authKey"),
            ),
        ),
        bfd: Sourced::new(
            BfdRule {
                supported: true,
                configurable: false,
                best: BfdSettings { enabled: true, min_transmit_ms: 300, min_receive_ms: 300, multiplier: 3 },
                hold_time_ms: 90_000,
            },
            Rule::new(
                "BFD is on at 300 ms, multiplier 3, and starts when the peer asks for it; without it the hold time of 90 s \
                 decides",
                "AWS Direct Connect User Guide, BFD and BGP settings",
            ),
        ),
        refused_peer_asns: Sourced::new(
            vec![0..=0, own..=own, 23_456..=23_456, 65_535..=65_535, u32::MAX..=u32::MAX],
            Rule::new(
                "the peer's AS number is 1 to 4294967294, differs from the Direct Connect gateway's and is not reserved \
                 (RFC 7607, RFC 6793, RFC 7300)",
                &field("asnLong"),
            ),
        ),
        bandwidths: Sourced::new(
            BANDWIDTHS.into_iter().filter_map(|mbps| BandwidthMbps::try_from(mbps).ok()).collect(),
            Rule::new(
                "a private virtual interface may use what its port carries",
                "AWS Direct Connect User Guide, connections",
            ),
        ),
        max_received_prefixes: Sourced::new(
            100,
            Rule::new(
                "a private virtual interface takes 100 prefixes of a family; AWS ends the session when there are more",
                "AWS Direct Connect User Guide, quotas",
            ),
        ),
        max_advertised_prefixes: Sourced::new(
            200,
            Rule::new(
                "a Direct Connect gateway announces at most 200 prefixes of an association",
                "AWS Direct Connect User Guide, quotas",
            ),
        ),
        ipv6: Sourced::new(
            false,
            Rule::new(
                "Tieline configures the IPv4 peer only of a virtual interface",
                "Tieline, aws.privateVirtualInterface",
            ),
        ),
    }
}

/// The allowed prefixes belong to the gateway's associations, which many interfaces share: no session has a list of its own.
pub(super) fn prefix_control(attach_point: &AttachPoint) -> Sourced<PrefixControl> {
    let text = format!(
        "a private virtual interface announces what the associations of Direct Connect gateway {} allow, and takes every \
         prefix up to its quota",
        attach_point.cloud_id
    );
    let source = "AWS Direct Connect User Guide, allowed prefixes interactions; quotas";
    Sourced::new(PrefixControl::default(), Rule::new(&text, source))
}

fn reserved() -> Vec<Ipv4Net> {
    let mut nets: Vec<Ipv4Net> = (0..=5).map(|third| net([169, 254, third, 0], 30)).collect();
    nets.push(net([169, 254, 169, 252], 30));
    nets
}

fn net(address: [u8; 4], length: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::from(address), length)
}
