//! What holds the MACsec keys of channels: the program of the router that carries each.

use std::{collections::BTreeMap, sync::Arc};

use async_trait::async_trait;
use tieline_openapi::{
    config::{CoordinatorConfig, RouterConfig},
    coordinator::ResourceId,
};
use tieline_providers::network::{DeviceError, MacSecKeys, MacSecProgram};

use crate::plan::coordinate::{ChannelPlace, KeyReport, WantedKeys};

/// What holds the MACsec keys of channels. What it says is what counts: nothing is taken for active that it does not report.
#[async_trait]
pub trait KeyDevice: Send + Sync {
    /// Makes the keys of a channel what is wanted, others are taken away, and says how it is then. `None` where no device of
    /// ours holds the channel: nothing is known of it, and no key of it ever counts as active. May be repeated.
    ///
    /// # Errors
    /// [`DeviceError`]; then nothing is known.
    async fn apply(
        &self,
        peer: &ResourceId,
        at: &ChannelPlace,
        wanted: &WantedKeys,
    ) -> Result<Option<KeyReport>, DeviceError>;
}

/// The routers of `tieline.toml`, each by its program.
#[derive(Debug, Default)]
pub struct RouterKeys {
    channels: BTreeMap<(ResourceId, ChannelPlace), (Arc<MacSecProgram>, String)>,
}

impl RouterKeys {
    /// The routers of a checked configuration. Nothing is called yet.
    #[must_use]
    pub fn new(config: &CoordinatorConfig, routers: &[RouterConfig]) -> Self {
        let programs: BTreeMap<_, _> =
            routers.iter().map(|router| (&router.id, Arc::new(MacSecProgram::new(router)))).collect();
        let mut channels = BTreeMap::new();
        for peer in &config.peers {
            for environment in &peer.environments {
                for interconnect in &environment.interconnects {
                    for channel in &interconnect.channels {
                        let router = channel.router.as_ref();
                        let Some((router, program)) = router.and_then(|r| Some((r, programs.get(&r.id)?))) else {
                            continue;
                        };
                        let at = ChannelPlace {
                            environment: environment.id.clone(),
                            interconnect: interconnect.id.clone(),
                            channel: channel.id.clone(),
                        };
                        let held = (Arc::clone(program), router.interface.clone());
                        channels.insert((peer.provider.clone(), at), held);
                    }
                }
            }
        }
        Self { channels }
    }
}

#[async_trait]
impl KeyDevice for RouterKeys {
    async fn apply(
        &self,
        peer: &ResourceId,
        at: &ChannelPlace,
        wanted: &WantedKeys,
    ) -> Result<Option<KeyReport>, DeviceError> {
        let Some((program, interface)) = self.channels.get(&(peer.clone(), at.clone())) else { return Ok(None) };
        let keys = MacSecKeys {
            interface,
            keys: wanted.installed.iter().map(|key| (key.ckn.expose(), key.cak.expose())).collect(),
            active: wanted.active.as_ref().map(tieline_openapi::coordinator::Sensitive::expose),
        };
        let held = program.put(&keys).await?;
        Ok(Some(KeyReport { installed: held.installed, active: held.active }))
    }
}
