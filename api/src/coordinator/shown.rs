//! What a peer sees of the static configuration: documents under its own provider id.

use std::collections::BTreeMap;

use tieline_openapi::{
    config::{
        CoordinatorConfig, PeerConfig, SharedChannelConfig, SharedEnvironmentConfig, SharedInterconnectConfig,
        SharedInterconnectState,
    },
    coordinator::{
        AdminState, Channel, Environment, EnvironmentPath, EnvironmentVisibility, FeatureType, Interconnect,
        InterconnectPath, InterconnectState, Provider, ProviderPath, ProviderSites, ResourceId,
    },
    units::BandwidthMbps,
};

/// What is agreed with one peer, as documents.
#[derive(Debug, Clone, Copy)]
pub struct Catalogue<'c> {
    config: &'c CoordinatorConfig,
    peer: &'c PeerConfig,
}

fn sizes(bandwidths: &std::collections::BTreeSet<BandwidthMbps>) -> Vec<i32> {
    bandwidths.iter().filter_map(|mbps| i32::try_from(mbps.get()).ok()).collect()
}

fn provider(id: &ResourceId, display_name: Option<&String>) -> Provider {
    let name = ProviderPath { provider: id.clone() }.to_string();
    Provider { name: Some(name), display_name: display_name.cloned() }
}

fn named(id: &ResourceId) -> String {
    ProviderPath { provider: id.clone() }.to_string()
}

impl<'c> Catalogue<'c> {
    /// What is agreed with a peer.
    #[must_use]
    pub const fn new(config: &'c CoordinatorConfig, peer: &'c PeerConfig) -> Self {
        Self { config, peer }
    }

    /// The peer's own resource, and ours.
    #[must_use]
    pub fn providers(&self) -> Vec<Provider> {
        let ours = provider(&self.config.provider, self.config.display_name.as_ref());
        vec![ours, provider(&self.peer.provider, self.peer.display_name.as_ref())]
    }

    /// One of [`Catalogue::providers`].
    #[must_use]
    pub fn provider(&self, id: &ResourceId) -> Option<Provider> {
        self.providers().into_iter().find(|provider| provider.name.as_deref() == Some(&named(id)))
    }

    /// The environments, by id.
    #[must_use]
    pub fn environments(&self) -> BTreeMap<ResourceId, Environment> {
        self.peer.environments.iter().map(|e| (e.id.clone(), self.environment(e))).collect()
    }

    fn environment(&self, config: &SharedEnvironmentConfig) -> Environment {
        let path = EnvironmentPath { provider: self.peer.provider.clone(), environment: config.id.clone() };
        let site = |id: &ResourceId, site: &str, name: Option<&String>| ProviderSites {
            provider_id: Some(named(id)),
            site: Some(site.to_owned()),
            display_name: name.cloned(),
        };
        let visibility = if config.public { EnvironmentVisibility::Public } else { EnvironmentVisibility::Private };
        Environment {
            name: Some(path.to_string()),
            provider_sites: vec![
                site(&self.config.provider, &config.our_site, self.config.display_name.as_ref()),
                site(&self.peer.provider, &config.their_site, self.peer.display_name.as_ref()),
            ],
            api_uri: None,
            supported_connection_size_mbps: sizes(&config.bandwidths_mbps),
            supported_features: vec![FeatureType::L3Base],
            environment_visibility: Some(visibility),
            deferral_timeout_hours: i32::try_from(config.deferral_timeout_hours).ok(),
            defer_connection_provisioning: Some(config.defers),
        }
    }

    /// The interconnects of an environment, by id; none if there is no such environment.
    #[must_use]
    pub fn interconnects(&self, of: &EnvironmentPath) -> Option<BTreeMap<ResourceId, Interconnect>> {
        let environment = self.peer.environments.iter().find(|e| e.id == of.environment)?;
        let show = |config: &SharedInterconnectConfig| {
            let state = match config.state {
                SharedInterconnectState::Pending => InterconnectState::Pending,
                SharedInterconnectState::Active => InterconnectState::Active,
                SharedInterconnectState::Closed => InterconnectState::Closed,
            };
            Interconnect {
                name: Some(of.interconnect(config.id.clone()).to_string()),
                supported_connection_size_mbps: sizes(&environment.bandwidths_mbps),
                supported_features: vec![FeatureType::L3Base],
                state: Some(state),
                max_bandwidth_mbps: i32::try_from(config.max_bandwidth_mbps.get()).ok(),
            }
        };
        Some(environment.interconnects.iter().map(|i| (i.id.clone(), show(i))).collect())
    }

    /// The channels of an interconnect, by id; none if there is no such interconnect.
    #[must_use]
    pub fn channels(&self, of: &InterconnectPath) -> Option<BTreeMap<ResourceId, Channel>> {
        let environment = self.peer.environments.iter().find(|e| e.id == of.environment)?;
        let interconnect = environment.interconnects.iter().find(|i| i.id == of.interconnect)?;
        let show = |config: &SharedChannelConfig| Channel {
            name: Some(of.channel(config.id.clone()).to_string()),
            macsec_manager_provider: config.macsec_manager.as_ref().map(named),
            cross_connect_manager_provider: config.cross_connect_manager.as_ref().map(named),
            aggregate_channel_size_gbps: i32::try_from(config.size_gbps).ok(),
            channel_member_size_gbps: config.member_size_gbps.and_then(|gbps| i32::try_from(gbps).ok()),
            obfuscated_device_id: Some(config.device.clone()),
            demarc: config.demarc.clone(),
            admin_state: Some(if config.enabled { AdminState::Enabled } else { AdminState::Disabled }),
        };
        Some(interconnect.channels.iter().map(|c| (c.id.clone(), show(c))).collect())
    }
}

/// A page of what is in memory in order of id: at most `size` after `after`, and the last id where there are more.
#[must_use]
pub fn cut<T>(
    all: impl IntoIterator<Item = (ResourceId, T)>,
    after: Option<&str>,
    size: usize,
) -> (Vec<T>, Option<ResourceId>) {
    let rest = all.into_iter().filter(|(id, _)| after.is_none_or(|after| id.as_str() > after));
    let mut page: Vec<(ResourceId, T)> = rest.take(size.saturating_add(1)).collect();
    let more = page.len() > size;
    page.truncate(size);
    let last = if more { page.last().map(|(id, _)| id.clone()) } else { None };
    (page.into_iter().map(|(_, item)| item).collect(), last)
}
