//! A well-behaved Responder: guidance and features.

use ipnet::Ipv4Net;
use serde_json::{Value, json};
use tieline_openapi::coordinator::{
    AdminState, AsnRange, FeatureConfig, FeatureGuidance, FeatureType, L3Base, L3BaseGuidance, LOWEST_VLAN, MtuRange,
    OperationId as Op, SubnetGuidance, VlanRange,
};

use super::{
    heard::Heard,
    plot::{Said, State},
    stage::Statics,
};

/// The suite's AS number: private (RFC 6996), 32 bits.
pub(crate) const OWN_ASN: u32 = 4_200_000_321;

/// What the suite takes on a channel if a case wants nothing else.
fn usual(channel: &str) -> FeatureGuidance {
    FeatureGuidance {
        feature_type: Some(FeatureType::L3Base),
        channel: Some(channel.to_owned()),
        channel_admin_state: Some(AdminState::Enabled),
        l3_base_guidance: Some(L3BaseGuidance {
            asn_ranges: vec![AsnRange { start: Some(OWN_ASN), stop: Some(OWN_ASN) }],
            ipv4_subnet_guidance: vec![SubnetGuidance {
                include_subnet: Some("169.254.0.0/16".to_owned()),
                exclude_subnets: vec!["169.254.169.0/24".to_owned()],
                preferred_subnet: None,
            }],
            ipv4_allowed_subnet_prefix_lengths: vec![29, 30],
            vlan_ranges: vec![VlanRange { start: Some(i32::from(LOWEST_VLAN)), stop: Some(4_094) }],
            mtu_ranges: vec![MtuRange { start: Some(1_400), stop: Some(9_100) }],
            max_received_bgp_route_prefixes: Some(1_000),
            ..L3BaseGuidance::default()
        }),
    }
}

impl State {
    /// What is taken on a channel of this case.
    pub(crate) fn guided(&self, channel: &str) -> FeatureGuidance {
        let mut guidance = usual(channel);
        if let Some(guide) = &self.guide {
            guide(channel.rsplit('/').next().unwrap_or_default(), &mut guidance);
        }
        guidance
    }

    pub(super) fn guidance(&self, heard: &Heard, statics: &Statics) -> Said {
        let channels = statics.channels(&heard.interconnect());
        let all: Vec<_> = channels.iter().map(|channel| self.guided(channel)).collect();
        Said::good(json!({ "featureGuidance": all }))
    }

    pub(super) fn create_feature(&mut self, name: &str, heard: &Heard, statics: &Statics) -> Said {
        let Some(id) = heard.asked("featureId") else { return Said::no(400, "featureId is required") };
        let channel = heard.body["channel"].as_str().unwrap_or_default().to_owned();
        if !statics.channels(&heard.interconnect()).contains(&channel) {
            return Said::no(400, "there is no such channel");
        }
        let feature = format!("{name}/features/{id}");
        let held = self.connections.get(name).cloned().unwrap_or_default();
        if held.features.values().any(|other| other["channel"] == json!(channel)) {
            return Said::no(409, "a channel of a connection has one layer 3 feature");
        }
        let guidance = self.guided(&channel);
        if guidance.channel_admin_state == Some(AdminState::Disabled) {
            return Said::no(409, "the channel is disabled");
        }
        if let Some(wrong) = breaks(&heard.body, &guidance, statics) {
            return Said::no(400, &wrong);
        }
        let mut body = heard.body.clone();
        body["name"] = json!(feature);
        if let Some(held) = self.connections.get_mut(name) {
            held.features.insert(feature.clone(), body);
        }
        Said::good(self.feature_shown(name, &feature))
    }

    pub(super) fn feature_shown(&self, name: &str, feature: &str) -> Value {
        let Some(held) = self.connections.get(name) else { return Value::Null };
        let mut shown = held.features.get(feature).cloned().unwrap_or_default();
        let state = if held.finished { "FINAL" } else { "PENDING" };
        shown["provisioningState"] = json!(format!("PROVISIONING_STATE_{state}"));
        if !self.manners.published {
            shown["updatable"] = json!(false);
        }
        shown
    }

    pub(super) fn of_feature(&mut self, name: &str, heard: &Heard) -> Said {
        let feature = format!("{name}/features/{}", heard.id("feature"));
        let Some(held) = self.connections.get_mut(name).filter(|held| held.features.contains_key(&feature)) else {
            return Said::no(404, "there is no such feature");
        };
        if heard.op == Op::UpdateFeature {
            return Said::no(405, "a layer 3 feature never changes");
        }
        if heard.op == Op::DeleteFeature {
            held.features.remove(&feature);
            return Said::good(json!({}));
        }
        Said::good(self.feature_shown(name, &feature))
    }
}

/// A proposal, read strictly.
pub(crate) fn strictly(body: &Value, providers: [&str; 2]) -> Result<L3Base, String> {
    let config: FeatureConfig =
        serde_json::from_value(body["featureConfig"].clone()).map_err(|error| format!("featureConfig: {error}"))?;
    if config.feature_type != Some(FeatureType::L3Base) {
        return Err(format!("featureType is {:?}", config.feature_type));
    }
    config.l3_base_config.unwrap_or_default().check(providers).map_err(|error| error.to_string())
}

/// Which rule of its own or of the guidance a proposal breaks.
pub(crate) fn breaks(body: &Value, guidance: &FeatureGuidance, statics: &Statics) -> Option<String> {
    let config = match strictly(body, [&statics.own, &statics.target]) {
        Ok(config) => config,
        Err(why) => return Some(why),
    };
    let l3 = guidance.l3_base_guidance.clone().unwrap_or_default();
    let vlan = i32::from(config.vlan.get());
    if !inside(l3.vlan_ranges.iter().map(|range| (range.start, range.stop)), vlan) {
        return Some(format!("VLAN {vlan} is outside of the guidance"));
    }
    let mtu = i32::from(config.mtu.get());
    if !inside(l3.mtu_ranges.iter().map(|range| (range.start, range.stop)), mtu) {
        return Some(format!("an MTU of {mtu} is outside of the guidance"));
    }
    let asn = config.ends.iter().find(|end| end.provider == statics.own).map(|end| end.asn.get());
    if !asn.is_some_and(|asn| inside(l3.asn_ranges.iter().map(|range| (range.start, range.stop)), asn)) {
        return Some(format!("the AS number {asn:?} of this end is outside of the guidance"));
    }
    let Some(hosts) = config.ipv4 else { return Some("an IPv4 subnet is needed".to_owned()) };
    let lengths = &l3.ipv4_allowed_subnet_prefix_lengths;
    if !lengths.is_empty() && !lengths.contains(&i32::from(hosts.subnet.prefix_len())) {
        return Some(format!("the length of {} is outside of the guidance", hosts.subnet));
    }
    let subnets = &l3.ipv4_subnet_guidance;
    let fits = subnets.is_empty() || subnets.iter().any(|choice| within(choice, &hosts.subnet));
    (!fits).then(|| format!("{} is outside of the guidance", hosts.subnet))
}

fn inside<T: PartialOrd>(ranges: impl Iterator<Item = (Option<T>, Option<T>)>, value: T) -> bool {
    let mut ranges = ranges.peekable();
    ranges.peek().is_none()
        || ranges.any(|(start, stop)| start.is_none_or(|start| start <= value) && stop.is_none_or(|stop| value <= stop))
}

fn within(choice: &SubnetGuidance, net: &Ipv4Net) -> bool {
    let included = choice.include_subnet.as_ref().and_then(|text| text.parse::<Ipv4Net>().ok());
    let excluded = choice.exclude_subnets.iter().filter_map(|text| text.parse::<Ipv4Net>().ok());
    let mut overlapping = excluded.filter(|out| out.contains(net) || net.contains(out));
    included.is_none_or(|included| included.contains(net)) && overlapping.next().is_none()
}
