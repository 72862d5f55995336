//! What the two providers agreed on out of band, and show each other for comparison.

use std::collections::BTreeSet;

use tieline_openapi::coordinator::{
    Channel, ChannelPath, Environment, EnvironmentPath, GetMaintenanceEventsResponse, Interconnect, InterconnectState,
    ListProvidersResponse, OperationId as Op, Provider, ProviderPath,
};

use crate::{
    session::{Session, name},
    suite::{Case, Stop, case, must, violation},
};

pub(super) const CASES: &[Case] = &[
    case!(
        "static/provider",
        "A peer sees its own provider resource, under its name.",
        "GetProvider, ListProviders",
        provider
    ),
    case!(
        "static/environment",
        "An environment reads the same by itself as in the list, and names both providers' sites.",
        "GetEnvironment; Environment.providerSites",
        environment
    ),
    case!(
        "static/sizes",
        "An interconnect supports every connection size and feature of its environment.",
        "Interconnect.supportedConnectionSizeMbps, supportedFeatures",
        sizes
    ),
    case!(
        "static/interconnect",
        "An interconnect reads the same by itself as in the list, and tells its state and its bandwidth.",
        "GetInterconnect; Interconnect.state, maxBandwidthMbps",
        interconnect
    ),
    case!(
        "static/four-channels",
        "An interconnect has at least four channels.",
        "Interconnect; redundancy",
        four_channels
    ),
    case!(
        "static/distinct-devices",
        "No two channels of an interconnect are on one device.",
        "Channel.obfuscatedDeviceId",
        distinct_devices
    ),
    case!(
        "static/channel",
        "A channel reads the same by itself as in the list, and its MACsec manager is one of the two providers.",
        "GetChannel; Channel.macsecManagerProvider",
        channel
    ),
    case!(
        "static/maintenance-events",
        "Every channel shows its maintenance events.",
        "GetMaintenanceEvents",
        maintenance_events
    ),
    case!(
        "static/own-subtree",
        "A peer sees nothing under another provider's name.",
        "Security policy: authorization on every endpoint",
        own_subtree
    ),
    case!("static/unknown", "What does not exist is answered with 404.", "RFC 9110 section 15.5.5", unknown),
];

async fn provider(s: &Session) -> Result<(), Stop> {
    let own = s.provider();
    let shown: Provider = s.get(Op::GetProvider, own).await?.read()?;
    let wanted = own.to_string();
    must(shown.name.as_deref() == Some(&wanted), || {
        format!("GetProvider shows {:?} as the name of {wanted}", shown.name)
    })?;
    let listed: ListProvidersResponse = s.get(Op::ListProviders, &()).await?.read()?;
    let named = listed.into_providers().into_iter().any(|provider| provider.name.as_deref() == Some(&wanted));
    must(named, || format!("ListProviders does not hold {wanted}"))
}

async fn environment(s: &Session) -> Result<(), Stop> {
    for place in s.places() {
        let (path, listed) = &place.environment;
        must(path.provider == s.provider().provider, || format!("{path} is not under {}", s.provider()))?;
        let shown: Environment = s.get(Op::GetEnvironment, path).await?.read()?;
        must(shown == *listed, || format!("{path} reads otherwise by itself than in the list"))?;
        let providers: BTreeSet<_> = shown.provider_sites.iter().filter_map(|site| site.provider_id.clone()).collect();
        let both = providers.len() == 2 && providers.contains(&s.provider().to_string());
        must(both, || format!("the sites of {path} belong to {providers:?}, not to {} and the target", s.provider()))?;
    }
    Ok(())
}

async fn sizes(s: &Session) -> Result<(), Stop> {
    for place in s.places() {
        let (path, interconnect) = &place.interconnect;
        let of_all = &place.environment.1;
        let missing: Vec<_> = of_all
            .supported_connection_size_mbps
            .iter()
            .filter(|size| !interconnect.supported_connection_size_mbps.contains(size))
            .collect();
        must(missing.is_empty(), || format!("{path} does not support the environment's {missing:?} Mbit/s"))?;
        let lacks = of_all.supported_features.iter().any(|feature| !interconnect.supported_features.contains(feature));
        must(!lacks, || format!("{path} does not support every feature of the environment"))?;
    }
    Ok(())
}

async fn interconnect(s: &Session) -> Result<(), Stop> {
    for place in s.places() {
        let (path, listed) = &place.interconnect;
        let shown: Interconnect = s.get(Op::GetInterconnect, path).await?.read()?;
        must(shown == *listed, || format!("{path} reads otherwise by itself than in the list"))?;
        let known = [InterconnectState::Pending, InterconnectState::Active, InterconnectState::Closed];
        let state = shown.state.as_ref();
        must(state.is_some_and(|state| known.contains(state)), || format!("{path} has the state {state:?}"))?;
        let room = shown.max_bandwidth_mbps.unwrap_or(0);
        must(room > 0, || format!("{path} may have {room} Mbit/s"))?;
    }
    Ok(())
}

async fn four_channels(s: &Session) -> Result<(), Stop> {
    for place in s.places() {
        let (path, many) = (&place.interconnect.0, place.channels.len());
        must(many >= 4, || format!("{path} has {many} channels"))?;
    }
    Ok(())
}

async fn distinct_devices(s: &Session) -> Result<(), Stop> {
    for place in s.places() {
        let mut devices = BTreeSet::new();
        for channel in &place.channels {
            let (channel_name, device) =
                (channel.name.as_deref().unwrap_or_default(), channel.obfuscated_device_id.as_deref());
            let device = device.filter(|device| !device.is_empty());
            let device = device.ok_or_else(|| violation(format!("{channel_name} does not tell its device")))?;
            must(devices.insert(device), || {
                format!("{channel_name} is on {device}, as another channel of its interconnect")
            })?;
        }
    }
    Ok(())
}

async fn channel(s: &Session) -> Result<(), Stop> {
    let place = s.place()?;
    let both = [s.provider().to_string(), s.target()?];
    for listed in &place.channels {
        let path: ChannelPath = name(listed.name.as_deref())?;
        let shown: Channel = s.get(Op::GetChannel, &path).await?.read()?;
        must(shown == *listed, || format!("{path} reads otherwise by itself than in the list"))?;
        let manager = shown.macsec_manager_provider.unwrap_or_default();
        must(both.contains(&manager), || {
            format!("the MACsec manager of {path} is {manager:?}, which is neither of {both:?}")
        })?;
    }
    Ok(())
}

async fn maintenance_events(s: &Session) -> Result<(), Stop> {
    for channel in &s.place()?.channels {
        let path: ChannelPath = name(channel.name.as_deref())?;
        let shown: GetMaintenanceEventsResponse = s.get(Op::GetMaintenanceEvents, &path).await?.read()?;
        for event in shown.events {
            let order = event.start_time.zip(event.end_time).is_none_or(|(start, end)| start <= end);
            must(order, || format!("a maintenance of {path} ends before it starts"))?;
        }
    }
    Ok(())
}

async fn own_subtree(s: &Session) -> Result<(), Stop> {
    let target = s.target()?;
    let path: ProviderPath = name(Some(&target))?;
    let answer = s.get(Op::ListEnvironments, &path).await?;
    answer.refused_with(&[403, 404], "for the target's own subtree")?;
    let mine = s.place()?.environment.0.clone();
    let theirs = EnvironmentPath { provider: path.provider, ..mine };
    s.get(Op::ListInterconnects, &theirs).await?.refused_with(&[403, 404], "for the target's own subtree")
}

async fn unknown(s: &Session) -> Result<(), Stop> {
    let nowhere =
        |id: String| id.parse().map_err(|why: tieline_openapi::coordinator::NameError| violation(why.to_string()));
    let id: tieline_openapi::coordinator::ResourceId = nowhere(format!("unknown-{}", s.uuid()))?;
    let environment = s.provider().environment(id.clone());
    s.get(Op::GetEnvironment, &environment).await?.refused_with(&[404], "for an environment that does not exist")?;
    let connection = s.place()?.interconnect.0.connection(s.uuid().into());
    s.get(Op::GetConnection, &connection).await?.refused_with(&[404], "for a connection that does not exist")?;
    s.get(Op::GetChannel, &s.place()?.interconnect.0.channel(id))
        .await?
        .refused_with(&[404], "for a channel that does not exist")
}
