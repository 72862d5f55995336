//! What exists before any connection, checked and indexed: `tieline.toml` plus the built-in catalogue, joined with the
//! providers' rules. Read-only after start.

use std::{collections::BTreeMap, sync::Arc};

use tieline_openapi::{
    config::{Config, EngineConfig, RetentionConfig},
    ids::{AccountId, AttachPointId, EnvironmentId, InterconnectId, ProviderName},
    v1::{Account, AttachPoint, Environment, Interconnect, ProbeSettings},
};
use tieline_providers::{CloudApi, Rules};

/// Everything that exists before any connection.
pub struct Topology {
    /// Accounts by id.
    pub accounts: BTreeMap<AccountId, Account>,
    /// The cloud's region of each account.
    pub regions: BTreeMap<AccountId, String>,
    /// Attach points by id.
    pub attach_points: BTreeMap<AttachPointId, AttachPoint>,
    /// Environments by id: the catalogue, and the configured ones over it.
    pub environments: BTreeMap<EnvironmentId, Environment>,
    /// Interconnects by id.
    pub interconnects: BTreeMap<InterconnectId, Interconnect>,
    /// The pure half of each provider that this binary has.
    pub rules: BTreeMap<ProviderName, Arc<dyn Rules>>,
    /// The engine's clocks.
    pub engine: EngineConfig,
    /// How long what is over is kept.
    pub retention: RetentionConfig,
    /// How gateways probe.
    pub probe: ProbeSettings,
}

/// The IO half: one client an account.
pub type Clouds = BTreeMap<AccountId, Arc<dyn CloudApi>>;

impl Topology {
    /// The topology of a checked configuration.
    #[must_use]
    pub fn new(config: &Config, rules: BTreeMap<ProviderName, Arc<dyn Rules>>) -> Self {
        let accounts = config
            .accounts
            .iter()
            .map(|a| {
                let account = Account {
                    id: a.id.clone(),
                    provider: a.provider.clone(),
                    external_id: a.external_id.clone(),
                    credential_ref: a.credential_ref.clone(),
                };
                (a.id.clone(), account)
            })
            .collect();
        let regions = config.accounts.iter().map(|a| (a.id.clone(), a.region.clone())).collect();
        let attach_points = config
            .attach_points
            .iter()
            .map(|p| {
                let point = AttachPoint {
                    id: p.id.clone(),
                    account_id: p.account_id.clone(),
                    site: p.site.clone(),
                    kind: p.kind,
                    cloud_id: p.cloud_id.clone(),
                    asn: p.asn,
                    prefixes: p.prefixes.clone(),
                };
                (p.id.clone(), point)
            })
            .collect();
        let interconnects: BTreeMap<_, _> = config
            .interconnects
            .iter()
            .map(|i| {
                let interconnect = Interconnect {
                    id: i.id.clone(),
                    environment_id: i.environment_id.clone(),
                    state: i.state,
                    max_bandwidth_mbps: i.max_bandwidth_mbps,
                    channels: i.channels.clone(),
                };
                (i.id.clone(), interconnect)
            })
            .collect();
        let environments = config
            .all_environments()
            .into_iter()
            .map(|e| {
                let configured = interconnects.values().any(|i| i.environment_id == e.id);
                let environment = Environment {
                    id: e.id.clone(),
                    kind: e.kind,
                    sites: e.sites.to_vec(),
                    bandwidths_mbps: e.bandwidths_mbps.iter().copied().collect(),
                    middle: e.middle,
                    configured,
                };
                (e.id, environment)
            })
            .collect();
        Self {
            accounts,
            regions,
            attach_points,
            environments,
            interconnects,
            rules,
            engine: config.engine.clone(),
            retention: config.retention.clone(),
            probe: config.probe,
        }
    }
}
