//! Guidance and features: what each channel of a connection is configured with.

use serde_json::{Value, json};
use tieline_openapi::coordinator::{
    ChannelPath, ConnectionPath, Feature, FeatureGuidance, FeaturePath, LOWEST_VLAN, ListFeaturesResponse,
    OperationId as Op, ProvisioningState,
};

use crate::{
    propose::{Proposal, proposal},
    session::{Session, name},
    suite::{Case, Stop, case, must, violation},
    wire::Answer,
};

pub(super) const CASES: &[Case] = &[
    case!(
        "features/guidance",
        "There is one guidance for every channel of the connection's interconnect.",
        "GenerateFeatureGuidance",
        guidance
    ),
    case!(
        "features/guidance-repeats",
        "Asking for guidance reserves nothing: it may be asked for again.",
        "GenerateFeatureGuidance",
        guidance_repeats
    ),
    case!(
        "features/create",
        "A feature that follows the guidance is taken whole, as it was proposed, and is shown and listed.",
        "CreateFeature, GetFeature, ListFeatures",
        create
    ),
    case!(
        "features/all-channels",
        "Features of all channels may be created one after the other.",
        "CreateFeature",
        all_channels
    ),
    case!(
        "features/replay",
        "The same request again, with the same requestId, changes nothing and is answered the same.",
        "CreateFeature requestId; recovery: an answer was lost",
        replay
    ),
    case!(
        "features/request-id-reused",
        "The same requestId with another VLAN is refused with 409, and the first reservation stays.",
        "CreateFeature requestId; recovery: the same request id, another body",
        request_id_reused
    ),
    case!(
        "features/second",
        "A second L3_BASE feature of one connection and channel is refused with 409.",
        "CreateFeature",
        second
    ),
    case!(
        "features/reserved-vlan",
        "VLAN 1024 and lower are reserved: a feature with one is refused.",
        "L3BaseConfig.vlanId",
        reserved_vlan
    ),
    case!(
        "features/vlan-taken",
        "A VLAN has one user on a channel: a second connection's is refused.",
        "CreateFeature; races",
        vlan_taken
    ),
    case!(
        "features/mask",
        "A subnet has its mask applied: one with host bits is refused.",
        "L3BaseConfig.ipv4Subnet",
        mask
    ),
    case!(
        "features/foreign-host",
        "Both ends of the session are hosts of the subnet: another address is refused.",
        "ProviderBgpConfig.hostIpv4",
        foreign_host
    ),
    case!(
        "features/one-end",
        "Both providers' ends are in a feature: one alone is refused.",
        "L3BaseConfig.providerBgpConfigs",
        one_end
    ),
    case!("features/asn", "The target's AS number is one that its guidance allows.", "L3BaseGuidance.asnRanges", asn),
    case!("features/mtu", "The MTU is one that the guidance allows.", "L3BaseGuidance.mtuRanges", mtu),
    case!(
        "features/prefix-length",
        "The subnet's length is one that the guidance allows.",
        "L3BaseGuidance.ipv4AllowedSubnetPrefixLengths",
        prefix_length
    ),
    case!(
        "features/unknown-channel",
        "A feature on a channel that does not exist is refused.",
        "CreateFeature",
        unknown_channel
    ),
    case!(
        "features/refused-whole",
        "A refused feature leaves nothing behind: the channel takes a good one.",
        "CreateFeature: accepted in full or rejected in full",
        refused_whole
    ),
    case!(
        "features/no-connection",
        "A feature of a connection that does not exist is refused with 404.",
        "CreateFeature",
        no_connection
    ),
    case!("features/immutable", "An L3_BASE feature never changes: UpdateFeature is 405.", "UpdateFeature", immutable),
    case!("features/delete", "A deleted feature is gone, and its channel takes another.", "DeleteFeature", delete),
];

/// How many proposals are tried while others are faster.
const TRIES: u16 = 6;

/// A feature that was taken.
pub(super) struct Good {
    pub path: FeaturePath,
    proposal: Proposal,
    pub body: Value,
    answered: Feature,
}

/// A connection and the guidance for its channels.
pub(super) struct Stage {
    pub connection: ConnectionPath,
    guidance: Vec<FeatureGuidance>,
    own: String,
    target: String,
    first: u16,
}

impl Stage {
    pub(super) async fn set(s: &Session) -> Result<Self, Stop> {
        let connection = s.connection().await?.path;
        let guidance = s.guidance(&connection).await?;
        let first = s.next_proposals();
        Ok(Self { connection, guidance, own: s.provider().to_string(), target: s.target()?, first })
    }

    /// How many channels there is guidance for.
    pub(super) fn channels(&self) -> usize {
        self.guidance.len()
    }

    /// The channel that a guidance is for.
    pub(super) fn channel(&self, n: usize) -> Result<ChannelPath, Stop> {
        name(self.guidance.get(n).and_then(|guidance| guidance.channel.as_deref()))
    }

    /// The n-th proposal that a channel's guidance allows.
    pub(super) fn proposal(&self, channel: usize, n: u16) -> Result<Proposal, Stop> {
        let guidance = self.guidance.get(channel).ok_or_else(|| violation("there is no guidance"))?;
        proposal(guidance, &self.own, &self.target, self.first + n)
    }

    /// A feature made from the first proposal that is not taken: 409 says that another was faster, and to choose again.
    pub(super) async fn made(&self, s: &Session, channel: usize, request_id: Option<&str>) -> Result<Good, Stop> {
        for n in 0..TRIES {
            let path = self.feature(s);
            let proposal = self.proposal(channel, n)?;
            let body = proposal.body(&path.to_string());
            let answer = send(s, &path, &body, request_id).await?;
            if answer.status == 409 && n + 1 < TRIES && request_id.is_none() {
                continue;
            }
            return Ok(Good { path, answered: answer.read()?, proposal, body });
        }
        Err(violation(format!("{TRIES} proposals that follow the guidance were refused with 409")))
    }

    pub(super) fn feature(&self, s: &Session) -> FeaturePath {
        self.connection.feature(s.uuid().into())
    }
}

pub(super) async fn send(
    s: &Session,
    path: &FeaturePath,
    body: &Value,
    request_id: Option<&str>,
) -> Result<Answer, Stop> {
    let mut query = vec![("featureId", path.feature.as_str())];
    query.extend(request_id.map(|id| ("requestId", id)));
    let parent = ConnectionPath {
        provider: path.provider.clone(),
        environment: path.environment.clone(),
        interconnect: path.interconnect.clone(),
        connection: path.connection.clone(),
    };
    s.call(Op::CreateFeature, &parent, &query, body).await
}

async fn listed(s: &Session, connection: &ConnectionPath) -> Result<Vec<Feature>, Stop> {
    s.whole(Op::ListFeatures, connection, |page: ListFeaturesResponse| (page.features, page.next_page_token)).await
}

/// A feature whose configuration is a step away from a good one must be refused.
async fn spoiled(
    s: &Session,
    why: &str,
    spoil: impl FnOnce(&Stage, &mut Value) -> Result<(), Stop>,
) -> Result<(), Stop> {
    let stage = Stage::set(s).await?;
    let path = stage.feature(s);
    let mut body = stage.proposal(0, 0)?.body(&path.to_string());
    spoil(&stage, &mut body)?;
    send(s, &path, &body, None).await?.refused(why)?;
    let left = listed(s, &stage.connection).await?.len();
    must(left == 0, || format!("the refused feature left {left} features"))
}

fn config(body: &mut Value) -> &mut Value {
    &mut body["featureConfig"]["l3BaseConfig"]
}

async fn guidance(s: &Session) -> Result<(), Stop> {
    let stage = Stage::set(s).await?;
    let mut told: Vec<_> = stage.guidance.iter().map(|guidance| guidance.channel.clone().unwrap_or_default()).collect();
    let mut channels: Vec<_> =
        s.place()?.channels.iter().map(|channel| channel.name.clone().unwrap_or_default()).collect();
    told.sort();
    channels.sort();
    must(told == channels, || format!("there is guidance for {told:?}; the channels are {channels:?}"))
}

async fn guidance_repeats(s: &Session) -> Result<(), Stop> {
    let stage = Stage::set(s).await?;
    let again = s.guidance(&stage.connection).await?.len();
    let first = stage.guidance.len();
    must(again == first, || format!("at first there was guidance for {first} channels, then for {again}"))?;
    let left = listed(s, &stage.connection).await?.len();
    must(left == 0, || format!("asking for guidance made {left} features"))
}

/// Whether what is shown is what was proposed; passwords are not compared, since a peer need not show them.
pub(super) fn same(proposed: &Value, shown: &Feature) -> bool {
    let shown = serde_json::to_value(shown).unwrap_or_default();
    let field = |of: &Value, name: &str| of["featureConfig"]["l3BaseConfig"][name].clone();
    let names = ["ipv4Subnet", "ipv4SubnetPrefixLength", "mtuBytes", "vlanId"];
    proposed["channel"] == shown["channel"] && names.iter().all(|name| field(proposed, name) == field(&shown, name))
}

async fn create(s: &Session) -> Result<(), Stop> {
    let stage = Stage::set(s).await?;
    let Good { path, body, answered, .. } = stage.made(s, 0, None).await?;
    must(same(&body, &answered), || "the answer is not what was proposed".to_owned())?;
    let shown: Feature = s.get(Op::GetFeature, &path).await?.read()?;
    must(same(&body, &shown), || "what is shown is not what was proposed".to_owned())?;
    must(shown.name.as_deref() == Some(&path.to_string()), || {
        format!("{path} is shown under the name {:?}", shown.name)
    })?;
    let known = [ProvisioningState::Pending, ProvisioningState::Final];
    let state = shown.provisioning_state.as_ref();
    must(state.is_some_and(|state| known.contains(state)), || format!("provisioningState is {state:?}"))?;
    let features = listed(s, &stage.connection).await?;
    must(features.len() == 1, || format!("after one CreateFeature there are {} features", features.len()))
}

async fn all_channels(s: &Session) -> Result<(), Stop> {
    let stage = Stage::set(s).await?;
    for channel in 0..stage.guidance.len() {
        stage.made(s, channel, None).await?;
    }
    let features = listed(s, &stage.connection).await?.len();
    must(features == stage.guidance.len(), || {
        format!("{features} features are listed for {} channels", stage.guidance.len())
    })
}

async fn replay(s: &Session) -> Result<(), Stop> {
    let stage = Stage::set(s).await?;
    let request = s.uuid().to_string();
    let Good { path, body, .. } = stage.made(s, 0, Some(&request)).await?;
    let again: Feature = send(s, &path, &body, Some(&request)).await?.read()?;
    must(same(&body, &again), || "the repetition was answered with another feature".to_owned())?;
    let features = listed(s, &stage.connection).await?.len();
    must(features == 1, || format!("after the repetition there are {features} features"))
}

async fn request_id_reused(s: &Session) -> Result<(), Stop> {
    let stage = Stage::set(s).await?;
    let request = s.uuid().to_string();
    let Good { path, body, proposal, .. } = stage.made(s, 0, Some(&request)).await?;
    let other = Proposal { vlan: stage.proposal(0, TRIES)?.vlan, ..proposal };
    let answer = send(s, &path, &other.body(&path.to_string()), Some(&request)).await?;
    answer.refused_with(&[409], "with a used requestId and another VLAN")?;
    let shown: Feature = s.get(Op::GetFeature, &path).await?.read()?;
    must(same(&body, &shown), || "the refused request changed the feature".to_owned())
}

async fn second(s: &Session) -> Result<(), Stop> {
    let stage = Stage::set(s).await?;
    stage.made(s, 0, None).await?;
    let path = stage.feature(s);
    let body = stage.proposal(0, TRIES)?.body(&path.to_string());
    send(s, &path, &body, None).await?.refused_with(&[409], "the second of a channel")?;
    let features = listed(s, &stage.connection).await?.len();
    must(features == 1, || format!("{features} features are on one channel"))
}

async fn reserved_vlan(s: &Session) -> Result<(), Stop> {
    spoiled(s, "with VLAN 1024", |_, body| {
        config(body)["vlanId"] = json!(LOWEST_VLAN - 1);
        Ok(())
    })
    .await
}

async fn vlan_taken(s: &Session) -> Result<(), Stop> {
    let (first, next) = (Stage::set(s).await?, Stage::set(s).await?);
    let taken = first.made(s, 0, None).await?.proposal;
    // Only the VLAN is the same.
    let other = Proposal { vlan: taken.vlan, ..next.proposal(0, 1)? };
    let path = next.feature(s);
    send(s, &path, &other.body(&path.to_string()), None)
        .await?
        .refused("with a VLAN that another connection has on the channel")
}

async fn mask(s: &Session) -> Result<(), Stop> {
    spoiled(s, "with a host's address for its subnet", |stage, body| {
        let subnet = stage.proposal(0, 0)?.subnet;
        let host = subnet.hosts().last().filter(|host| *host != subnet.network());
        let host = host.ok_or_else(|| Stop::Skipped("the guidance allows no subnet with two hosts".to_owned()))?;
        config(body)["ipv4Subnet"] = json!(host.to_string());
        Ok(())
    })
    .await
}

async fn foreign_host(s: &Session) -> Result<(), Stop> {
    spoiled(s, "with a host outside of its subnet", |_, body| {
        config(body)["providerBgpConfigs"][0]["hostIpv4"] = json!("192.0.2.1");
        Ok(())
    })
    .await
}

async fn one_end(s: &Session) -> Result<(), Stop> {
    spoiled(s, "with one provider's end", |_, body| {
        if let Some(ends) = config(body)["providerBgpConfigs"].as_array_mut() {
            ends.pop();
        }
        Ok(())
    })
    .await
}

async fn asn(s: &Session) -> Result<(), Stop> {
    spoiled(s, "with an AS number for the target that its guidance does not allow", |stage, body| {
        let l3 = stage.guidance.first().and_then(|guidance| guidance.l3_base_guidance.clone()).unwrap_or_default();
        let ranges: Vec<_> =
            l3.asn_ranges.iter().map(|range| (range.start.unwrap_or(0), range.stop.unwrap_or(u32::MAX))).collect();
        let outside =
            |asn: &u32| !ranges.is_empty() && !ranges.iter().any(|(first, last)| (first..=last).contains(&asn));
        // Private AS numbers (RFC 6996), which are well formed wherever they are not allowed.
        let other = (64_512..65_534).find(outside);
        let other = other.ok_or_else(|| Stop::Skipped("the guidance allows every AS number".to_owned()))?;
        config(body)["providerBgpConfigs"][1]["asn"] = json!(other);
        Ok(())
    })
    .await
}

async fn mtu(s: &Session) -> Result<(), Stop> {
    spoiled(s, "with an MTU that the guidance does not allow", |stage, body| {
        let l3 = stage.guidance.first().and_then(|guidance| guidance.l3_base_guidance.clone()).unwrap_or_default();
        let most = l3.mtu_ranges.iter().filter_map(|range| range.stop).max();
        let most = most.ok_or_else(|| Stop::Skipped("the guidance allows every MTU".to_owned()))?;
        config(body)["mtuBytes"] = json!(most + 1);
        Ok(())
    })
    .await
}

async fn prefix_length(s: &Session) -> Result<(), Stop> {
    spoiled(s, "with a prefix length that the guidance does not allow", |stage, body| {
        let l3 = stage.guidance.first().and_then(|guidance| guidance.l3_base_guidance.clone()).unwrap_or_default();
        let allowed = l3.ipv4_allowed_subnet_prefix_lengths;
        let other = (24..30).rev().find(|length| !allowed.is_empty() && !allowed.contains(length));
        let other = other.ok_or_else(|| Stop::Skipped("the guidance allows every prefix length".to_owned()))?;
        let subnet = stage.proposal(0, 0)?.subnet;
        let wider = ipnet::Ipv4Net::new(subnet.network(), u8::try_from(other).unwrap_or(24));
        let wider = wider.map_err(|why| Stop::Skipped(why.to_string()))?.trunc();
        config(body)["ipv4Subnet"] = json!(wider.network().to_string());
        config(body)["ipv4SubnetPrefixLength"] = json!(other);
        for (end, host) in wider.hosts().take(2).enumerate() {
            config(body)["providerBgpConfigs"][end]["hostIpv4"] = json!(host.to_string());
        }
        Ok(())
    })
    .await
}

async fn unknown_channel(s: &Session) -> Result<(), Stop> {
    spoiled(s, "on a channel that does not exist", |stage, body| {
        let channel = stage.connection.parent().channel(s.uuid().into());
        body["channel"] = json!(channel.to_string());
        Ok(())
    })
    .await
}

async fn refused_whole(s: &Session) -> Result<(), Stop> {
    let stage = Stage::set(s).await?;
    let path = stage.feature(s);
    let good = stage.proposal(0, 0)?.body(&path.to_string());
    let mut bad = good.clone();
    config(&mut bad)["vlanId"] = json!(LOWEST_VLAN - 1);
    send(s, &path, &bad, None).await?.refused("with VLAN 1024")?;
    // Under the same name.
    send(s, &path, &good, None).await?.read::<Feature>().map(drop)
}

async fn no_connection(s: &Session) -> Result<(), Stop> {
    let stage = Stage::set(s).await?;
    let path = stage.connection.parent().connection(s.uuid().into()).feature(s.uuid().into());
    let body = stage.proposal(0, 0)?.body(&path.to_string());
    send(s, &path, &body, None).await?.refused_with(&[404], "of a connection that does not exist")
}

async fn immutable(s: &Session) -> Result<(), Stop> {
    let stage = Stage::set(s).await?;
    let Good { path, body, .. } = stage.made(s, 0, None).await?;
    let changed = stage.proposal(0, TRIES)?.body(&path.to_string());
    let query = [("updateMask", "featureConfig")];
    s.call(Op::UpdateFeature, &path, &query, &changed).await?.refused_with(&[405], "of an L3_BASE feature")?;
    let shown: Feature = s.get(Op::GetFeature, &path).await?.read()?;
    must(same(&body, &shown), || "the refused request changed the feature".to_owned())
}

async fn delete(s: &Session) -> Result<(), Stop> {
    let stage = Stage::set(s).await?;
    let path = stage.made(s, 0, None).await?.path;
    s.get(Op::DeleteFeature, &path).await?.read::<Value>()?;
    s.get(Op::GetFeature, &path).await?.refused_with(&[404], "for a deleted feature")?;
    // The guidance is asked for again: what was free before may not be now.
    let guidance = s.guidance(&stage.connection).await?;
    let first = s.next_proposals();
    Stage { guidance, first, ..stage }.made(s, 0, None).await.map(drop)
}
