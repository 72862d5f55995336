//! Guidance and features: what the target proposes for each channel.

use std::collections::{BTreeMap, BTreeSet};

use tieline_openapi::coordinator::{
    AdminState, L3Base, L3BaseGuidance, LOWEST_VLAN, MtuRange, OperationId as Op, SubnetGuidance, VlanRange,
};

use crate::{
    peer::{Act, Heard, OWN_ASN, State, Statics, breaks, strictly},
    play::Agreed,
    session::Session,
    suite::{Case, Stop, asked, must, violation},
};

pub(super) const CASES: &[Case] = &[
    asked!(
        "proposing/guidance-first",
        "The target asks for guidance before it proposes a feature.",
        "GenerateFeatureGuidance; CreateFeature step 2",
        guidance_first
    ),
    asked!(
        "proposing/every-channel",
        "Every channel of the interconnect gets one L3_BASE feature, and no second.",
        "Feature.channel; at most one L3_BASE",
        every_channel
    ),
    asked!(
        "proposing/whole",
        "A proposal is whole and well formed: VLAN, MTU, a subnet with its mask applied, both ends as hosts of it, a password.",
        "L3BaseConfig",
        whole
    ),
    asked!(
        "proposing/vlan",
        "The VLAN is one that the guidance allows, and none of the reserved ones.",
        "L3BaseGuidance.vlanRanges",
        vlan
    ),
    asked!(
        "proposing/subnet",
        "The subnet is within the guidance, outside of what it excludes, and of a length that it allows.",
        "L3BaseGuidance.ipv4SubnetGuidance, ipv4AllowedSubnetPrefixLengths",
        subnet
    ),
    asked!(
        "proposing/preferred-subnet",
        "A subnet that the guidance prefers is taken.",
        "SubnetGuidance.preferredSubnet",
        preferred_subnet
    ),
    asked!("proposing/mtu", "The MTU is the highest that both providers take.", "L3BaseGuidance.mtuRanges", mtu),
    asked!(
        "proposing/asn",
        "The suite's end has an AS number that the guidance allows, the target's end one of its own.",
        "L3BaseGuidance.asnRanges",
        asn
    ),
    asked!(
        "proposing/unrestricted",
        "What the guidance does not name is not restricted: proposals come all the same.",
        "L3BaseGuidance: unpopulated fields",
        unrestricted
    ),
    asked!(
        "proposing/disabled-channel",
        "Nothing is proposed for a channel that the guidance calls disabled.",
        "FeatureGuidance.channelAdminState",
        disabled_channel
    ),
    asked!(
        "proposing/nothing-fits",
        "Where nothing fits the guidance of one channel, nothing is proposed there, and the others go on.",
        "CreateFeature; L3BaseGuidance",
        nothing_fits
    ),
    asked!(
        "proposing/after-409",
        "After a 409 the channel starts again from fresh guidance, with another request; the other channels stay.",
        "CreateFeature: 409",
        after_409
    ),
    asked!("proposing/after-400", "After a 400 the same proposal is not made again.", "CreateFeature: 400", after_400),
];

/// The proposals that came, the first of each channel.
fn proposals(state: &State) -> BTreeMap<String, Heard> {
    let mut first = BTreeMap::new();
    for heard in state.of(Op::CreateFeature) {
        first.entry(channel(heard)).or_insert_with(|| heard.clone());
    }
    first
}

fn channel(heard: &Heard) -> String {
    heard.body["channel"].as_str().unwrap_or_default().to_owned()
}

fn first_channel(s: &Session) -> Result<String, Stop> {
    let channel = s.active()?.channels.first().and_then(|channel| channel.name.clone());
    let channel = channel.ok_or_else(|| Stop::Skipped("the interconnect has no channel".to_owned()))?;
    Ok(channel.rsplit('/').next().unwrap_or_default().to_owned())
}

async fn guidance_first(s: &Session) -> Result<(), Stop> {
    s.bring().await?;
    s.nth(Op::CreateFeature, 0).await?;
    let state = s.plot().state();
    let first = state.heard.iter().find(|h| matches!(h.op, Op::GenerateFeatureGuidance | Op::CreateFeature));
    must(first.is_some_and(|heard| heard.op == Op::GenerateFeatureGuidance), || {
        "CreateFeature came without GenerateFeatureGuidance before it".to_owned()
    })
}

async fn every_channel(s: &Session) -> Result<(), Stop> {
    let Agreed { channels, .. } = s.agreed().await?;
    tokio::time::sleep(s.settings().window).await;
    let state = s.plot().state();
    // A request that is made again is the same one.
    let all: BTreeSet<_> = state.of(Op::CreateFeature).map(Heard::content).collect();
    let (all, each) = (all.len(), proposals(&state).len());
    must(each == channels && all == channels, || {
        format!("{all} features were proposed on {each} channels, and {channels} are enabled")
    })
}

/// What every proposal of an ordinary negotiation holds, under some guidance.
async fn proposed(
    s: &Session,
    guide: impl Fn(&str, &mut L3BaseGuidance) + Send + 'static,
    check: impl Fn(&L3Base) -> Result<(), String> + Sync,
) -> Result<(), Stop> {
    s.peer()?;
    s.plot().guide(move |channel, guidance| guide(channel, guidance.l3_base_guidance.get_or_insert_default()));
    let brought = s.bring().await?;
    // A proposal that is wrong is refused, and may come again and again: it is looked at as it comes.
    let channels = s.enabled(&s.active()?.interconnect.0.to_string());
    let statics = s.statics()?;
    let looked_at = |state: &State| {
        let proposals = proposals(state);
        let wrong = proposals.iter().find_map(|(name, heard)| keeps(state, &statics, (name, heard), &check).err());
        wrong.map(Err).or((proposals.len() >= channels).then_some(Ok(())))
    };
    s.until("no feature was proposed for every channel", looked_at).await?.map_err(violation)?;
    s.negotiated(brought.connection, 0).await.map(drop)
}

/// Whether a proposal is well formed, follows its guidance, and is what the case wants.
fn keeps(
    state: &State,
    statics: &Statics,
    (name, heard): (&str, &Heard),
    check: impl Fn(&L3Base) -> Result<(), String>,
) -> Result<(), String> {
    let config = strictly(&heard.body, [&statics.own, &statics.target]);
    let kept = config.and_then(|config| match breaks(&heard.body, &state.guided(name), statics) {
        Some(why) => Err(why),
        None => check(&config),
    });
    kept.map_err(|why| format!("the proposal for {name}: {why}"))
}

async fn whole(s: &Session) -> Result<(), Stop> {
    proposed(s, |_, _| {}, |_| Ok(())).await
}

async fn vlan(s: &Session) -> Result<(), Stop> {
    let ranges = [(LOWEST_VLAN - 100, LOWEST_VLAN + 60)];
    let ranges = ranges.map(|(start, stop)| VlanRange { start: Some(start.into()), stop: Some(stop.into()) });
    proposed(s, move |_, l3| l3.vlan_ranges = ranges.to_vec(), |_| Ok(())).await
}

async fn subnet(s: &Session) -> Result<(), Stop> {
    let guide = |_: &str, l3: &mut L3BaseGuidance| {
        l3.ipv4_allowed_subnet_prefix_lengths = vec![30];
        l3.ipv4_subnet_guidance = vec![SubnetGuidance {
            include_subnet: Some("169.254.32.0/20".to_owned()),
            exclude_subnets: vec!["169.254.32.0/23".to_owned(), "169.254.40.0/24".to_owned()],
            preferred_subnet: None,
        }];
    };
    proposed(s, guide, |_| Ok(())).await
}

async fn preferred_subnet(s: &Session) -> Result<(), Stop> {
    const PREFERRED: &str = "169.254.77.76/30";
    let guide = |_: &str, l3: &mut L3BaseGuidance| {
        l3.ipv4_subnet_guidance = vec![SubnetGuidance {
            include_subnet: Some("169.254.64.0/18".to_owned()),
            exclude_subnets: Vec::new(),
            preferred_subnet: Some(PREFERRED.to_owned()),
        }];
    };
    let check = |config: &L3Base| {
        let subnet = config.ipv4.as_ref().map(|hosts| hosts.subnet.to_string()).unwrap_or_default();
        if subnet == PREFERRED {
            Ok(())
        } else {
            Err(format!("{PREFERRED} is preferred and free, and {subnet} was taken"))
        }
    };
    proposed(s, guide, check).await
}

async fn mtu(s: &Session) -> Result<(), Stop> {
    s.peer()?;
    let ours = [(1_400, 1_600), (8_000, 8_800)];
    let ranges = ours.map(|(start, stop)| MtuRange { start: Some(start), stop: Some(stop) });
    s.plot().guide(move |_, guidance| guidance.l3_base_guidance.get_or_insert_default().mtu_ranges = ranges.to_vec());
    let made = s.agreed().await?;
    let theirs = s.guidance(&s.theirs(&made.name)?).await?;
    let state = s.plot().state();
    for (name, heard) in proposals(&state) {
        let chosen = heard.body["featureConfig"]["l3BaseConfig"]["mtuBytes"].as_i64().unwrap_or_default();
        let id = name.rsplit('/').next().unwrap_or_default();
        let of = theirs.iter().find(|g| g.channel.as_deref().and_then(|name| name.rsplit('/').next()) == Some(id));
        let l3 = of.and_then(|guidance| guidance.l3_base_guidance.clone()).unwrap_or_default();
        let own: Vec<_> =
            l3.mtu_ranges.iter().map(|r| (r.start.unwrap_or(0).into(), r.stop.unwrap_or(65_535).into())).collect();
        let within = |ranges: &[(i64, i64)], mtu: i64| {
            ranges.is_empty() || ranges.iter().any(|(start, stop)| (*start..=*stop).contains(&mtu))
        };
        let ours = ours.map(|(start, stop)| (i64::from(start), i64::from(stop)));
        let best = (0..=65_535).rev().find(|mtu| within(&own, *mtu) && within(&ours, *mtu));
        must(best == Some(chosen), || format!("both take an MTU of {best:?} on {id}, and {chosen} was proposed"))?;
    }
    Ok(())
}

async fn asn(s: &Session) -> Result<(), Stop> {
    let guide = |_: &str, l3: &mut L3BaseGuidance| {
        for range in &mut l3.asn_ranges {
            (range.start, range.stop) = (Some(OWN_ASN + 7), Some(OWN_ASN + 9));
        }
        if l3.asn_ranges.is_empty() {
            l3.asn_ranges
                .push(tieline_openapi::coordinator::AsnRange { start: Some(OWN_ASN + 7), stop: Some(OWN_ASN + 9) });
        }
    };
    proposed(s, guide, |_| Ok(())).await?;
    let name = {
        let state = s.plot().state();
        state.connections.keys().next().cloned().ok_or_else(|| violation("there is no connection"))?
    };
    let (theirs, statics) = (s.guidance(&s.theirs(&name)?).await?, s.statics()?);
    let ranges: Vec<_> =
        theirs.iter().filter_map(|g| g.l3_base_guidance.as_ref()).flat_map(|l3| &l3.asn_ranges).collect();
    let allowed = |asn: u32| {
        ranges.is_empty()
            || ranges.iter().any(|r| r.start.is_none_or(|start| start <= asn) && r.stop.is_none_or(|stop| asn <= stop))
    };
    for heard in proposals(&s.plot().state()).values() {
        let config = strictly(&heard.body, [&statics.own, &statics.target]).map_err(violation)?;
        let own = config.ends.iter().find(|end| end.provider == statics.target).map(|end| end.asn.get());
        must(own.is_some_and(allowed), || {
            format!("the target's end has AS number {own:?}, which it does not take itself")
        })?;
    }
    Ok(())
}

async fn unrestricted(s: &Session) -> Result<(), Stop> {
    let guide = |_: &str, l3: &mut L3BaseGuidance| {
        *l3 = L3BaseGuidance { asn_ranges: std::mem::take(&mut l3.asn_ranges), ..L3BaseGuidance::default() };
    };
    proposed(s, guide, |_| Ok(())).await
}

async fn disabled_channel(s: &Session) -> Result<(), Stop> {
    s.peer()?;
    let off = first_channel(s)?;
    let id = off.clone();
    s.plot().guide(move |channel, guidance| {
        if channel == id {
            guidance.channel_admin_state = Some(AdminState::Disabled);
        }
    });
    left_alone(s, &off, "a feature was proposed for a channel that the guidance calls disabled").await
}

async fn nothing_fits(s: &Session) -> Result<(), Stop> {
    s.peer()?;
    let off = first_channel(s)?;
    let id = off.clone();
    s.plot().guide(move |channel, guidance| {
        if channel == id {
            let reserved = VlanRange { start: Some(1), stop: Some(i32::from(LOWEST_VLAN) - 1) };
            guidance.l3_base_guidance.get_or_insert_default().vlan_ranges = vec![reserved];
        }
    });
    left_alone(s, &off, "a feature was proposed for a channel whose guidance allows reserved VLANs only").await
}

/// One channel is left alone, and the others are not.
async fn left_alone(s: &Session, channel: &str, why: &str) -> Result<(), Stop> {
    let brought = s.bring().await?;
    s.negotiated(brought.connection, 1).await?;
    tokio::time::sleep(s.settings().window).await;
    let end = format!("/channels/{channel}");
    let proposed = proposals(&s.plot().state()).keys().any(|name| name.ends_with(&end));
    must(!proposed, || why.to_owned())
}

async fn after_409(s: &Session) -> Result<(), Stop> {
    s.peer()?;
    s.plot().spoil(1, Act::Refuse(409), |heard| heard.op == Op::CreateFeature);
    let Agreed { channels, .. } = s.agreed().await?;
    let state = s.plot().state();
    let refused = state.of(Op::CreateFeature).next().cloned();
    let refused = refused.ok_or_else(|| violation("no feature was proposed"))?;
    let at = state.heard.iter().position(|heard| heard.op == Op::CreateFeature).unwrap_or_default();
    let mut rest = state.heard.iter().skip(at + 1);
    let again = |heard: &&Heard| heard.op == Op::CreateFeature && channel(heard) == channel(&refused);
    let until: Vec<_> = rest.by_ref().take_while(|heard| !again(heard)).collect();
    must(until.iter().any(|heard| heard.op == Op::GenerateFeatureGuidance), || {
        "after the 409 the channel was proposed again without fresh guidance".to_owned()
    })?;
    let second = state.of(Op::CreateFeature).filter(again).nth(1);
    must(
        second.is_some_and(|second| refused.request_id().is_none() || second.request_id() != refused.request_id()),
        || "the proposal after the 409 has the requestId of the one that was refused".to_owned(),
    )?;
    let good = state.of(Op::CreateFeature).filter(|heard| heard.was_good()).count();
    must(good == channels, || format!("{good} features were made on {channels} channels"))
}

async fn after_400(s: &Session) -> Result<(), Stop> {
    s.peer()?;
    s.plot().spoil(1, Act::Refuse(400), |heard| heard.op == Op::CreateFeature);
    s.agreed().await?;
    let state = s.plot().state();
    let refused = state.of(Op::CreateFeature).next().cloned();
    let refused = refused.ok_or_else(|| violation("no feature was proposed"))?;
    let config = |heard: &Heard| heard.body["featureConfig"]["l3BaseConfig"]["vlanId"].clone();
    let same = |heard: &&Heard| channel(heard) == channel(&refused) && heard.body == refused.body;
    let again = state.of(Op::CreateFeature).filter(same).count();
    must(again == 1, || format!("the proposal with VLAN {} was refused with 400 and made again", config(&refused)))
}
