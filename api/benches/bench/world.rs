//! A service on two clouds in memory, which answer as slowly as they are told to, with as many links as are wanted.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use serde_json::json;
use tieline_api::{
    app::Vault,
    engine::{
        Engine, EngineParts, Failpoints,
        clock::{ChaChaRandom, Clock, Random, SystemClock},
    },
    events::Hints,
    secrets::Sealer,
    store::{OpenOptions, SqlStore, Store as _},
    topology::{Clouds, Topology},
};
use tieline_openapi::{
    config::{Config, EngineConfig},
    ids::{InstallationId, ProviderName},
    v1::{ConnectionIntent, Redundancy},
};
use tieline_providers::{
    CloudApi, IdentityKind, Rules,
    fake::{FakeApi, FakeRules, FakeSide, FakeWorld, Gate, Timing},
};
use tokio_util::sync::CancellationToken;

/// Links that share an attach point on each side, a router and two ports: as many private virtual interfaces as AWS lets one
/// connection or LAG have ("AWS Direct Connect quotas"). Two channels each are 100 peers, of 128 that a Cloud Router takes.
pub(crate) const BY_QUOTA: usize = 50;

/// The wire to both clouds: every call takes its time, and is counted.
#[derive(Default)]
pub(crate) struct Wire {
    delay: Duration,
    calls: AtomicU64,
}

impl Wire {
    /// A wire on which every call takes this long.
    pub(crate) fn new(delay: Duration) -> Arc<Self> {
        Arc::new(Self { delay, calls: AtomicU64::new(0) })
    }

    /// Calls so far.
    pub(crate) fn calls(&self) -> u64 {
        self.calls.load(Ordering::Relaxed)
    }
}

#[async_trait]
impl Gate for Wire {
    async fn pass(&self, _: &str) {
        self.calls.fetch_add(1, Ordering::Relaxed);
        if !self.delay.is_zero() {
            tokio::time::sleep(self.delay).await;
        }
    }
}

/// Everything but the database and the engine: it outlives both.
pub(crate) struct World {
    pub clock: Arc<dyn Clock>,
    pub random: Arc<dyn Random>,
    pub vault: Vault,
    pub fake: Arc<FakeWorld>,
    points: usize,
    redundancy: Redundancy,
}

impl World {
    /// Clouds with room for so many links, of two channels each, so many of them at a pair of attach points.
    pub(crate) fn new(
        dir: &Path,
        links: usize,
        a_point: usize,
        fake: impl FnOnce(FakeWorld) -> FakeWorld,
    ) -> anyhow::Result<Self> {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let random: Arc<dyn Random> = Arc::new(ChaChaRandom::from_system());
        let (sealer, _) = Sealer::from_key_file_or_new(&dir.join("tieline.key"), random.as_ref())?;
        let vault = Vault::new(Arc::new(sealer), Arc::clone(&random));
        let now = Arc::clone(&clock);
        let fake = Arc::new(fake(FakeWorld::new(1, Timing::default(), move || now.now())));
        let points = links.div_ceil(a_point).max(1);
        Ok(Self { clock, random, vault, fake, points, redundancy: Redundancy::Dual })
    }

    /// The same with other links.
    pub(crate) fn with_redundancy(self, redundancy: Redundancy) -> Self {
        Self { redundancy, ..self }
    }

    /// One environment, interconnect and pair of attach points for every so many links.
    pub(crate) fn topology(&self, engine: &EngineConfig) -> anyhow::Result<Arc<Topology>> {
        let accounts = ["left", "right"].map(
            |id| json!({ "id": id, "provider": id, "externalId": id, "credentialRef": "anonymous", "region": "r" }),
        );
        let (mut environments, mut interconnects, mut points) = (Vec::new(), Vec::new(), Vec::new());
        for n in 0..self.points {
            let site = |side: &str| json!({ "provider": side, "site": format!("{side}-{n}"), "displayName": side });
            environments.push(json!({
                "id": format!("env-{n}"), "kind": "DIRECT", "sites": [site("left"), site("right")],
                "bandwidthsMbps": [100, 1_000],
            }));
            let port = |side: &str, channel: usize| {
                json!({ "accountId": side, "portId": format!("port-{side}-{n}-{channel}"),
                        "device": format!("device-{side}-{n}-{channel}") })
            };
            let channel =
                |c: usize| json!({ "id": format!("ch-{n}-{c}"), "a": port("left", c), "b": port("right", c) });
            interconnects.push(json!({
                "id": format!("ic-{n}"), "environmentId": format!("env-{n}"), "maxBandwidthMbps": 400_000,
                "channels": [channel(0), channel(1)],
            }));
            for (side, kind, asn, net) in [
                ("left", "CLOUD_ROUTER", 64_512, "10.0.0.0/8"),
                ("right", "DIRECT_CONNECT_GATEWAY", 64_513, "172.16.0.0/12"),
            ] {
                points.push(json!({
                    "id": format!("{side}-{n}"), "accountId": side, "site": format!("{side}-{n}"), "type": kind,
                    "cloudId": format!("router-{side}-{n}"), "asn": asn, "prefixes": [net],
                }));
            }
        }
        let config: Config = serde_json::from_value(json!({
            "engine": engine, "accounts": accounts, "environments": environments, "interconnects": interconnects,
            "attachPoints": points,
        }))?;
        Ok(Arc::new(Topology::new(&config, rules()?)))
    }

    /// The intent of the link of this number: no two of one attach point announce the same.
    pub(crate) fn intent(&self, name: &str, n: usize) -> anyhow::Result<ConnectionIntent> {
        let point = n % self.points;
        let place = u32::try_from((n / self.points) % 65_536)?;
        let right = std::net::Ipv4Addr::from_bits(u32::from_be_bytes([172, 16, 0, 0]) + place * 16);
        Ok(serde_json::from_value(json!({
            "name": name, "environmentId": format!("env-{point}"), "bandwidthMbps": 100,
            "redundancy": self.redundancy,
            "a": { "attachPointId": format!("left-{point}"),
                   "advertisedPrefixes": [format!("10.{}.{}.0/24", place / 256, place % 256)] },
            "b": { "attachPointId": format!("right-{point}"), "advertisedPrefixes": [format!("{right}/28")] },
        }))?)
    }

    /// Opens a database; the hints of its commits go to `hints`.
    pub(crate) async fn open(&self, url: &str, hints: &Hints) -> anyhow::Result<Arc<SqlStore>> {
        Ok(SqlStore::open(url, OpenOptions { hints: hints.clone(), ..OpenOptions::default() }).await?)
    }

    /// An engine on a store and the clouds behind this wire.
    pub(crate) async fn engine(
        &self,
        store: Arc<SqlStore>,
        topology: Arc<Topology>,
        wire: &Arc<Wire>,
    ) -> anyhow::Result<Arc<Engine>> {
        let mut clouds = Clouds::new();
        for account in topology.accounts.values() {
            let rules = Arc::clone(&topology.rules[&account.provider]);
            let api = FakeApi::new(Arc::clone(&self.fake), &account.external_id, rules)
                .with_gate(Arc::clone(wire) as Arc<dyn Gate>);
            clouds.insert(account.id.clone(), Arc::new(api) as Arc<dyn CloudApi>);
        }
        let candidate = InstallationId(self.random.uuid_v7(self.clock.now()));
        let installation = store.installation(candidate).await?;
        Ok(Engine::new(EngineParts {
            store: store.in_the_background(),
            clouds: Arc::new(clouds),
            topology,
            clock: Arc::clone(&self.clock),
            random: Arc::clone(&self.random),
            vault: Arc::new(self.vault.clone()),
            failpoints: Failpoints::none(),
            installation,
            owner: self.random.uuid_v7(self.clock.now()).to_string(),
        }))
    }
}

fn rules() -> anyhow::Result<BTreeMap<ProviderName, Arc<dyn Rules>>> {
    let of = |side| Arc::new(FakeRules { side, identity: IdentityKind::Named }) as Arc<dyn Rules>;
    Ok(BTreeMap::from([("left".parse()?, of(FakeSide::Picking)), ("right".parse()?, of(FakeSide::Taking))]))
}

/// An engine at work, which ends when it is told to.
pub(crate) struct Running {
    stop: CancellationToken,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Running {
    /// Runs an engine, woken by the store's hints.
    pub(crate) fn start(engine: Arc<Engine>, hints: &Hints) -> Self {
        let stop = CancellationToken::new();
        let waker = engine.waker();
        let mut due = hints.subscribe(tieline_api::events::Topic::Due);
        let woken = tokio::spawn(async move {
            loop {
                due.wait().await;
                waker.wake();
            }
        });
        Self { tasks: vec![tokio::spawn(engine.run(stop.clone())), woken], stop }
    }

    /// Lets it come to its end.
    pub(crate) async fn end(mut self) -> anyhow::Result<()> {
        self.stop.cancel();
        for task in self.tasks.drain(1..) {
            task.abort();
        }
        for task in self.tasks.drain(..) {
            task.await?;
        }
        Ok(())
    }

    /// Ends it as a crash would.
    pub(crate) async fn kill(self) {
        for task in &self.tasks {
            task.abort();
        }
        for task in self.tasks {
            // It was aborted: its end is the error that says so.
            let _ = task.await;
        }
    }
}
