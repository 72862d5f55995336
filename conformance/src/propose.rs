//! A layer 3 feature that follows the target's guidance.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use serde_json::{Value, json};
use tieline_openapi::coordinator::{FeatureGuidance, L3BaseGuidance, LOWEST_VLAN};

use crate::suite::{Stop, violation};

/// The highest VLAN (IEEE 802.1Q-2022, table 9-2: 4095 is reserved).
const HIGHEST_VLAN: u16 = 4_094;
/// The suite's own AS number: private (RFC 6996), 32 bits.
const OWN_ASN: u32 = 4_200_000_321;
/// What both ends of an unrestricted channel surely take, in bytes.
const PLAIN_MTU: i32 = 1_500;

/// What a proposal is made of; each is a step away from the same one.
#[derive(Debug, Clone)]
pub(crate) struct Proposal {
    pub channel: String,
    pub vlan: u16,
    pub mtu: i32,
    pub subnet: Ipv4Net,
    pub target_asn: u32,
    pub own: String,
    pub target: String,
}

/// The n-th proposal that a channel's guidance allows.
pub(crate) fn proposal(guidance: &FeatureGuidance, own: &str, target: &str, n: u16) -> Result<Proposal, Stop> {
    let channel = guidance.channel.clone().ok_or_else(|| violation("a guidance came without its channel"))?;
    let open = L3BaseGuidance::default();
    let l3 = guidance.l3_base_guidance.as_ref().unwrap_or(&open);
    Ok(Proposal {
        vlan: vlan(l3, n)?,
        mtu: l3.mtu_ranges.iter().filter_map(|range| range.stop).max().unwrap_or(PLAIN_MTU),
        subnet: subnet(l3, n)?,
        target_asn: l3.asn_ranges.iter().find_map(|range| range.start).unwrap_or(OWN_ASN - 1),
        channel,
        own: own.to_owned(),
        target: target.to_owned(),
    })
}

fn vlan(l3: &L3BaseGuidance, n: u16) -> Result<u16, Stop> {
    let bound = |value: Option<i32>, otherwise: u16| {
        value.map_or(otherwise, |value| u16::try_from(value.clamp(0, 65_535)).unwrap_or(otherwise))
    };
    let whole = [(LOWEST_VLAN, HIGHEST_VLAN)];
    let told: Vec<_> = l3
        .vlan_ranges
        .iter()
        .map(|range| {
            (bound(range.start, LOWEST_VLAN).max(LOWEST_VLAN), bound(range.stop, HIGHEST_VLAN).min(HIGHEST_VLAN))
        })
        .collect();
    let ranges: &[_] = if told.is_empty() { &whole } else { &told };
    let vlans = || ranges.iter().flat_map(|(first, last)| *first..=*last);
    // What is in use is not taken out of a guidance, so one proposal may have to follow another.
    let many = vlans().count().max(1);
    vlans().nth(usize::from(n) % many).ok_or_else(|| violation("the guidance allows no VLAN above 1024"))
}

fn subnet(l3: &L3BaseGuidance, n: u16) -> Result<Ipv4Net, Stop> {
    let lengths = &l3.ipv4_allowed_subnet_prefix_lengths;
    let length =
        lengths.iter().filter_map(|length| u8::try_from(*length).ok()).filter(|length| (8..=31).contains(length));
    let length = length.max().unwrap_or(30);
    let read = |text: &String| {
        text.parse::<Ipv4Net>().map_err(|_| violation(format!("{text} in a guidance is no IPv4 subnet")))
    };
    let mut within = Vec::new();
    for guidance in &l3.ipv4_subnet_guidance {
        let excluded = guidance.exclude_subnets.iter().map(read).collect::<Result<Vec<_>, _>>()?;
        if let Some(included) = &guidance.include_subnet {
            within.push((read(included)?, excluded));
        }
    }
    if within.is_empty() {
        // RFC 3927: link-local, what the clouds use for sessions.
        within.push((Ipv4Net::new_assert(Ipv4Addr::new(169, 254, 0, 0), 16), Vec::new()));
    }
    let fits = within.iter().filter(|(net, _)| net.prefix_len() <= length);
    let mut subnets = fits.flat_map(|(net, excluded)| {
        let apart = |net: &Ipv4Net| !excluded.iter().any(|out| out.contains(net) || net.contains(out));
        net.subnets(length).into_iter().flatten().filter(apart)
    });
    let chosen = subnets.nth(usize::from(n));
    chosen.ok_or_else(|| violation("the guidance allows too few IPv4 subnets"))
}

impl Proposal {
    /// The body of CreateFeature.
    pub(crate) fn body(&self, name: &str) -> Value {
        // Of a /31 both addresses are hosts (RFC 3021).
        let hosts: Vec<Ipv4Addr> = self.subnet.hosts().take(2).collect();
        let host = |n: usize| hosts.get(n).map(Ipv4Addr::to_string);
        json!({
            "name": name,
            "channel": self.channel,
            "featureConfig": {
                "featureType": "FEATURE_TYPE_L3_BASE",
                "l3BaseConfig": {
                    "ipv4Subnet": self.subnet.network().to_string(),
                    "ipv4SubnetPrefixLength": self.subnet.prefix_len(),
                    "mtuBytes": self.mtu,
                    "vlanId": self.vlan,
                    "providerBgpConfigs": [
                        { "provider": self.own, "asn": OWN_ASN, "hostIpv4": host(0) },
                        { "provider": self.target, "asn": self.target_asn, "hostIpv4": host(1) },
                    ],
                    "md5BgpPassword": "conformance-suite",
                },
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use tieline_openapi::coordinator::{L3BaseConfig, SubnetGuidance, VlanRange};

    use super::*;

    #[test]
    fn a_proposal_keeps_the_rules_and_the_guidance() {
        let l3 = L3BaseGuidance {
            vlan_ranges: vec![VlanRange { start: Some(1_000), stop: Some(1_030) }],
            ipv4_allowed_subnet_prefix_lengths: vec![29, 30],
            ipv4_subnet_guidance: vec![SubnetGuidance {
                include_subnet: Some("169.254.0.0/16".to_owned()),
                exclude_subnets: vec!["169.254.0.0/24".to_owned()],
                preferred_subnet: None,
            }],
            ..L3BaseGuidance::default()
        };
        let guidance = FeatureGuidance {
            channel: Some("providers/a/environments/e/interconnects/i/channels/c".to_owned()),
            l3_base_guidance: Some(l3),
            ..FeatureGuidance::default()
        };
        for n in 0..3 {
            let proposal = proposal(&guidance, "providers/a", "providers/b", n).unwrap();
            assert_eq!(proposal.vlan, LOWEST_VLAN + n);
            let config = &proposal.body("x")["featureConfig"]["l3BaseConfig"];
            let config: L3BaseConfig = serde_json::from_value(config.clone()).unwrap();
            let checked = config.check(["a", "b"]).unwrap();
            assert!(!checked.ipv4.unwrap().subnet.to_string().starts_with("169.254.0."));
        }
    }
}
