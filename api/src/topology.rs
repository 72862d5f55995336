//! What exists before any connection, checked and indexed: `tieline.toml` plus the built-in catalogue, joined with the
//! providers' rules. Read-only after start.

mod pairings;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use tieline_openapi::{
    config::{Config, EngineConfig, RetentionConfig, TunnelConfig},
    ids::{AccountId, AttachPointId, EnvironmentId, InterconnectId, ProviderName},
    v1::{Account, AttachPoint, ConnectionEnd, Environment, Interconnect, ProbeSettings, ShownInterconnect},
};
use tieline_providers::{CloudApi, Rules};

pub use self::pairings::Pairing;
use self::pairings::Pairings;

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
    /// Environments that are shared with a peer, by id: [`Topology::environments`] has them too.
    pub pairings: BTreeMap<EnvironmentId, Pairing>,
    /// Every interconnect as it is shown: these, and those that are shared with a peer.
    pub shown_interconnects: BTreeMap<InterconnectId, ShownInterconnect>,
    /// The pure half of each provider that this binary has.
    pub rules: BTreeMap<ProviderName, Arc<dyn Rules>>,
    /// The engine's clocks.
    pub engine: EngineConfig,
    /// How long what is over is kept.
    pub retention: RetentionConfig,
    /// How gateways probe.
    pub probe: ProbeSettings,
    /// The tunnels between them.
    pub tunnel: TunnelConfig,
}

/// The IO half: one client an account.
pub type Clouds = BTreeMap<AccountId, Arc<dyn CloudApi>>;

impl Topology {
    /// Where an end of an intent attaches, if it names a place that is known.
    #[must_use]
    pub fn attach_point(&self, end: &ConnectionEnd) -> Option<&AttachPoint> {
        end.attach_point_id.as_ref().and_then(|id| self.attach_points.get(id))
    }

    /// The accounts at the other ends of all channels from an account, if the lists of each of them have longer pages; else none.
    #[must_use]
    pub fn vouchers(&self, account: &AccountId) -> BTreeSet<AccountId> {
        let page = |account: &AccountId| Some(self.rules.get(&self.accounts.get(account)?.provider)?.list_page());
        let channels = self.interconnects.values().flat_map(|interconnect| &interconnect.channels);
        let others: BTreeSet<_> = channels
            .flat_map(|channel| [(&channel.a, &channel.b), (&channel.b, &channel.a)])
            .filter(|(port, _)| port.account_id == *account)
            .map(|(_, other)| other.account_id.clone())
            .collect();
        if others.iter().all(|other| page(other) > page(account)) { others } else { BTreeSet::new() }
    }

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
        let shared = config.coordinator.as_ref().map(Pairings::of).unwrap_or_default();
        let own = config.all_environments().into_iter().map(|e| {
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
        });
        let environments = own.chain(shared.environments.into_iter().map(|e| (e.id.clone(), e))).collect();
        let shown_interconnects = interconnects.values().cloned().map(ShownInterconnect::from);
        let shown_interconnects = shown_interconnects.chain(shared.interconnects).map(|i| (i.id.clone(), i)).collect();
        Self {
            accounts,
            regions,
            attach_points,
            environments,
            interconnects,
            pairings: shared.pairings,
            shown_interconnects,
            rules,
            engine: config.engine.clone(),
            retention: config.retention.clone(),
            probe: config.probe,
            tunnel: config.tunnel,
        }
    }
}
