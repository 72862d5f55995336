//! `tieline coordinator check`: whether what is agreed out of band is written alike on both sides.

use std::collections::{BTreeMap, BTreeSet};

use tieline_openapi::{
    client::coordinator::{Coordinator, CoordinatorError},
    config::{CoordinatorConfig, PeerConfig, SharedEnvironmentConfig},
    coordinator::{
        Channel, ChannelPath, EnvironmentPath, InterconnectPath, ListChannels, ListEnvironments, ListInterconnects,
        ProviderPath, ResourceId,
    },
};

use super::{CoordinationError, client};

/// The specification's: an interconnect has four channels, on distinct devices.
const CHANNELS: usize = 4;
/// More than this of anything is no pairing.
const MOST: usize = 10_000;

/// Something that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// About what: the name of a provider, an environment, an interconnect or a channel.
    pub about: String,
    /// What is wrong, and what would be right.
    pub message: String,
}

/// What a peer shows of an environment: the device of each channel, by interconnect.
pub type Shown = BTreeMap<ResourceId, BTreeMap<ResourceId, Option<String>>>;

/// Asks every peer, and compares. A peer that does not answer is a finding.
///
/// # Errors
/// [`CoordinationError::File`] and [`CoordinationError::Pem`]: ours, and nobody was asked.
pub async fn all(config: &CoordinatorConfig) -> Result<Vec<Finding>, CoordinationError> {
    let mut findings = Vec::new();
    for peer in &config.peers {
        let client = client(config, peer)?;
        match ask(config, &client).await {
            Ok(shown) => findings.extend(compare(config, peer, &shown)),
            Err(error) => {
                let about = ProviderPath { provider: peer.provider.clone() }.to_string();
                findings.push(Finding { about, message: words(&error) });
            }
        }
    }
    Ok(findings)
}

fn words(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

/// The last id of each name; what is no name is left out, and missed by whoever compares.
async fn ask(
    config: &CoordinatorConfig,
    client: &Coordinator,
) -> Result<BTreeMap<ResourceId, Shown>, CoordinatorError> {
    let us = ProviderPath { provider: config.provider.clone() };
    let mut all = BTreeMap::new();
    for environment in client.all::<ListEnvironments>(&us, MOST).await? {
        let Some(path) = environment.name.and_then(|name| name.parse::<EnvironmentPath>().ok()) else { continue };
        let mut shown = Shown::new();
        for interconnect in client.all::<ListInterconnects>(&path, MOST).await? {
            let name = interconnect.name.and_then(|name| name.parse::<InterconnectPath>().ok());
            let Some(path) = name else { continue };
            let channels = client.all::<ListChannels>(&path, MOST).await?;
            let of = |channel: Channel| {
                let name: ChannelPath = channel.name?.parse().ok()?;
                Some((name.channel, channel.obfuscated_device_id))
            };
            shown.insert(path.interconnect, channels.into_iter().filter_map(of).collect());
        }
        all.insert(path.environment, shown);
    }
    Ok(all)
}

/// What differs between our configuration of a peer and what it shows.
#[must_use]
pub fn compare(config: &CoordinatorConfig, peer: &PeerConfig, theirs: &BTreeMap<ResourceId, Shown>) -> Vec<Finding> {
    let us = ProviderPath { provider: config.provider.clone() };
    let mut findings = Vec::new();
    let ours: BTreeMap<&ResourceId, &SharedEnvironmentConfig> = peer.environments.iter().map(|e| (&e.id, e)).collect();
    difference(ours.keys().copied(), theirs.keys(), &mut findings, |id| us.environment(id.clone()).to_string());
    for (id, environment) in ours {
        let Some(shown) = theirs.get(id) else { continue };
        let path = us.environment(id.clone());
        let of = |id: &ResourceId| path.interconnect(id.clone()).to_string();
        difference(environment.interconnects.iter().map(|i| &i.id), shown.keys(), &mut findings, of);
        for interconnect in &environment.interconnects {
            let name = path.interconnect(interconnect.id.clone());
            let mut say = |message: String| findings.push(Finding { about: name.to_string(), message });
            let count = interconnect.channels.len();
            if count < CHANNELS {
                say(format!("it has {count} channels here: an interconnect has at least {CHANNELS}"));
            }
            let Some(channels) = shown.get(&interconnect.id) else { continue };
            let devices: Vec<&String> = channels.values().flatten().collect();
            let distinct: BTreeSet<&String> = devices.iter().copied().collect();
            if distinct.len() < devices.len() {
                say("two of its channels are on one device of the peer: work on that takes both".to_owned());
            }
            if devices.len() < channels.len() {
                say("the peer names no device for some of its channels".to_owned());
            }
            let of = |id: &ResourceId| name.channel(id.clone()).to_string();
            difference(interconnect.channels.iter().map(|c| &c.id), channels.keys(), &mut findings, of);
        }
        findings.extend(deadlocks(&path, environment, shown));
    }
    findings.sort();
    findings.dedup();
    findings
}

fn difference<'i>(
    ours: impl Iterator<Item = &'i ResourceId>,
    theirs: impl Iterator<Item = &'i ResourceId>,
    findings: &mut Vec<Finding>,
    name: impl Fn(&ResourceId) -> String,
) {
    let (ours, theirs): (BTreeSet<_>, BTreeSet<_>) = (ours.collect(), theirs.collect());
    let only = |message: &str, id: &ResourceId| Finding { about: name(id), message: message.to_owned() };
    let here = "it stands here and the peer does not show it: names are agreed";
    let there = "the peer shows it and it does not stand here: names are agreed";
    findings.extend(ours.difference(&theirs).map(|id| only(here, id)));
    findings.extend(theirs.difference(&ours).map(|id| only(there, id)));
}

/// Work on a device takes one channel of each interconnect that it carries, and no interconnect loses two at a time. So where
/// a device of ours and one of the peer's both carry two interconnects, by different channels, each may hold one and wait
/// for the other for ever.
fn deadlocks(path: &EnvironmentPath, ours: &SharedEnvironmentConfig, theirs: &Shown) -> Vec<Finding> {
    let mut of_ours: BTreeMap<&str, BTreeSet<(&ResourceId, &ResourceId)>> = BTreeMap::new();
    for interconnect in &ours.interconnects {
        for channel in &interconnect.channels {
            of_ours.entry(&channel.device).or_default().insert((&interconnect.id, &channel.id));
        }
    }
    let mut of_theirs: BTreeMap<&str, BTreeSet<(&ResourceId, &ResourceId)>> = BTreeMap::new();
    for (interconnect, channels) in theirs {
        for (channel, device) in channels {
            if let Some(device) = device {
                of_theirs.entry(device).or_default().insert((interconnect, channel));
            }
        }
    }
    let mut findings = Vec::new();
    for (our_device, ours) in &of_ours {
        for (their_device, theirs) in &of_theirs {
            let apart: BTreeSet<&ResourceId> = ours
                .iter()
                .filter(|(interconnect, channel)| theirs.iter().any(|(i, c)| i == interconnect && c != channel))
                .map(|(interconnect, _)| *interconnect)
                .collect();
            if let (true, Some(first)) = (apart.len() > 1, apart.first()) {
                let names: Vec<&str> = apart.iter().map(|id| id.as_str()).collect();
                let message = format!(
                    "our device `{our_device}` and the peer's `{their_device}` carry {} by different channels: work on \
                     both at once would wait for each other; move one channel to another device",
                    names.join(" and ")
                );
                findings.push(Finding { about: path.interconnect((*first).clone()).to_string(), message });
            }
        }
    }
    findings
}
