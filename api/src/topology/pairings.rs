//! What is shared with peers of the open specification, as `/v1` shows it.

use std::collections::BTreeMap;

use tieline_openapi::{
    config::{
        CoordinatorConfig, PeerConfig, SharedEnvironmentConfig, SharedInterconnectConfig, SharedInterconnectState,
        plain_id,
    },
    coordinator::ResourceId,
    ids::{EnvironmentId, IdError, InterconnectId},
    v1::{
        AdminState, ConnectionKind, Environment, InterconnectState, Middle, ShownChannel, ShownInterconnect, ShownPort,
        Site,
    },
};

/// An environment that is shared with a peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pairing {
    /// With whom.
    pub peer: ResourceId,
    /// The environment, by the id that both providers know it by.
    pub environment: ResourceId,
    /// The ids of `/v1`, by those that both providers know its interconnects by.
    pub interconnects: BTreeMap<ResourceId, InterconnectId>,
}

/// Everything that is shared.
#[derive(Debug, Default)]
pub(super) struct Pairings {
    pub(super) pairings: BTreeMap<EnvironmentId, Pairing>,
    pub(super) environments: Vec<Environment>,
    pub(super) interconnects: Vec<ShownInterconnect>,
}

impl Pairings {
    /// Of a configuration. What `/v1` has no id for is left out: a checked configuration has no such thing.
    pub(super) fn of(config: &CoordinatorConfig) -> Self {
        let mut all = Self::default();
        for peer in &config.peers {
            for environment in &peer.environments {
                all.add(config, peer, environment).unwrap_or_default();
            }
        }
        all
    }

    fn add(
        &mut self,
        config: &CoordinatorConfig,
        peer: &PeerConfig,
        environment: &SharedEnvironmentConfig,
    ) -> Result<(), IdError> {
        let id = peer.environment_id(&environment.id)?;
        let mut ids = BTreeMap::new();
        for interconnect in &environment.interconnects {
            let of = peer.interconnect_id(&environment.id, &interconnect.id)?;
            self.interconnects.push(interconnect_of(of.clone(), id.clone(), interconnect)?);
            ids.insert(interconnect.id.clone(), of);
        }
        let site = |provider: &ResourceId, site: &str, name: &Option<String>| {
            let display_name = name.clone().unwrap_or_else(|| provider.to_string());
            Ok::<_, IdError>(Site { provider: plain_id(provider)?, site: site.to_owned(), display_name })
        };
        self.environments.push(Environment {
            id: id.clone(),
            kind: ConnectionKind::Coordinated,
            sites: vec![
                site(&config.provider, &environment.our_site, &config.display_name)?,
                site(&peer.provider, &environment.their_site, &peer.display_name)?,
            ],
            bandwidths_mbps: environment.bandwidths_mbps.iter().copied().collect(),
            middle: Middle::None,
            configured: !environment.interconnects.is_empty(),
        });
        let pairing = Pairing { peer: peer.provider.clone(), environment: environment.id.clone(), interconnects: ids };
        self.pairings.insert(id, pairing);
        Ok(())
    }
}

fn interconnect_of(
    id: InterconnectId,
    environment_id: EnvironmentId,
    config: &SharedInterconnectConfig,
) -> Result<ShownInterconnect, IdError> {
    let channel = |channel: &tieline_openapi::config::SharedChannelConfig| {
        Ok(ShownChannel {
            id: plain_id(&channel.id)?,
            admin_state: if channel.enabled { AdminState::Enabled } else { AdminState::Disabled },
            a: ShownPort { account_id: None, port_id: None, device: channel.device.clone() },
            b: None,
        })
    };
    Ok(ShownInterconnect {
        id,
        environment_id,
        state: match config.state {
            SharedInterconnectState::Pending => InterconnectState::Pending,
            SharedInterconnectState::Active => InterconnectState::Active,
            SharedInterconnectState::Closed => InterconnectState::Closed,
        },
        max_bandwidth_mbps: config.max_bandwidth_mbps,
        channels: config.channels.iter().map(channel).collect::<Result<_, IdError>>()?,
    })
}
