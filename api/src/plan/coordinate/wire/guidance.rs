//! Guidance, in both directions. What is absent restricts nothing; what cannot hold is kept as a range that nothing is in.

use ipnet::Ipv4Net;
use tieline_openapi::coordinator::{
    AdminState, AsnRange, ChannelPath, FeatureGuidance, FeatureType, InterconnectPath, L3BaseGuidance, MtuRange,
    SubnetGuidance, VlanRange,
};

use super::{
    super::choose::{ChannelGuidance, SubnetChoice},
    WireError, wrong,
};

/// What is taken on a channel, as it is sent.
#[must_use]
pub fn guidance_of(on: &InterconnectPath, guidance: &ChannelGuidance) -> FeatureGuidance {
    let subnet = |choice: &SubnetChoice| SubnetGuidance {
        include_subnet: Some(choice.include.to_string()),
        exclude_subnets: choice.exclude.iter().map(ToString::to_string).collect(),
        preferred_subnet: choice.preferred.map(|net| net.to_string()),
    };
    let wide = |(start, stop): &(u16, u16)| (Some(i32::from(*start)), Some(i32::from(*stop)));
    FeatureGuidance {
        feature_type: Some(FeatureType::L3Base),
        channel: Some(on.channel(guidance.channel.clone()).to_string()),
        channel_admin_state: Some(if guidance.enabled { AdminState::Enabled } else { AdminState::Disabled }),
        l3_base_guidance: Some(L3BaseGuidance {
            asn_ranges: guidance
                .asns
                .iter()
                .map(|(start, stop)| AsnRange { start: Some(*start), stop: Some(*stop) })
                .collect(),
            ipv4_subnet_guidance: guidance.subnets.iter().map(subnet).collect(),
            ipv4_allowed_subnet_prefix_lengths: guidance.lengths.iter().map(|length| i32::from(*length)).collect(),
            vlan_ranges: guidance.vlans.iter().map(wide).map(|(start, stop)| VlanRange { start, stop }).collect(),
            mtu_ranges: guidance.mtus.iter().map(wide).map(|(start, stop)| MtuRange { start, stop }).collect(),
            ..L3BaseGuidance::default()
        }),
    }
}

/// A range within 16 bits. One that lies outside of them holds nothing, and is not left out: no range at all would hold
/// everything.
fn narrow(start: Option<i32>, stop: Option<i32>) -> (u16, u16) {
    let (start, stop) = (start.unwrap_or(0).max(0), stop.unwrap_or(i32::MAX).min(i32::from(u16::MAX)));
    match (u16::try_from(start), u16::try_from(stop)) {
        (Ok(start), Ok(stop)) => (start, stop),
        (Err(_), _) | (_, Err(_)) => (u16::MAX, 0),
    }
}

fn net(text: &str) -> Result<Ipv4Net, WireError> {
    text.parse().map_err(|_| wrong("ipv4SubnetGuidance", format!("`{text}` is no IPv4 prefix")))
}

/// Reads what a server takes, channel by channel. Guidance for other kinds of feature, and for other interconnects, is
/// none of ours.
///
/// # Errors
/// [`WireError`] where a channel or a prefix cannot be read: nothing is concluded from such an answer.
pub fn read_guidance(on: &InterconnectPath, guidance: &[FeatureGuidance]) -> Result<Vec<ChannelGuidance>, WireError> {
    let mut channels = Vec::new();
    for one in guidance.iter().filter(|one| !matches!(one.feature_type, Some(FeatureType::Other(_)))) {
        let channel = one.channel.as_deref().ok_or_else(|| wrong("channel", "is required"))?;
        let channel: ChannelPath = channel.parse().map_err(|e| wrong("channel", format!("{e}")))?;
        if on.channel(channel.channel.clone()) == channel {
            channels.push(channel_guidance(channel, one)?);
        }
    }
    Ok(channels)
}

fn channel_guidance(channel: ChannelPath, guidance: &FeatureGuidance) -> Result<ChannelGuidance, WireError> {
    let l3 = guidance.l3_base_guidance.clone().unwrap_or_default();
    let choice = |subnet: &SubnetGuidance| {
        Ok(SubnetChoice {
            include: subnet.include_subnet.as_deref().map_or(Ok(Ipv4Net::default()), net)?,
            exclude: subnet.exclude_subnets.iter().map(|text| net(text)).collect::<Result<_, _>>()?,
            preferred: subnet.preferred_subnet.as_deref().map(net).transpose()?,
        })
    };
    let length = |length: &i32| {
        let length = u8::try_from(*length).ok().filter(|length| *length <= 32);
        length.ok_or_else(|| wrong("ipv4AllowedSubnetPrefixLengths", "a length is from 0 to 32"))
    };
    Ok(ChannelGuidance {
        channel: channel.channel,
        // A state that is not known is never the good one.
        enabled: matches!(guidance.channel_admin_state, None | Some(AdminState::Enabled)),
        asns: l3.asn_ranges.iter().map(|r| (r.start.unwrap_or(0), r.stop.unwrap_or(u32::MAX))).collect(),
        subnets: l3.ipv4_subnet_guidance.iter().map(choice).collect::<Result<_, WireError>>()?,
        lengths: l3.ipv4_allowed_subnet_prefix_lengths.iter().map(length).collect::<Result<_, _>>()?,
        vlans: l3.vlan_ranges.iter().map(|r| narrow(r.start, r.stop)).collect(),
        mtus: l3.mtu_ranges.iter().map(|r| narrow(r.start, r.stop)).collect(),
    })
}
