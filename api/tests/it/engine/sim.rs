//! Two replicas of the real engine on one real store, and both fake clouds, under one scheduler.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex,
        atomic::{AtomicI64, Ordering},
    },
};

use secrecy::{ExposeSecret, SecretString};
use serde_json::json;
use tieline_api::{
    engine::{
        Engine, EngineParts, Failpoints, Vault, VaultError,
        clock::{ChaChaRandom, Random},
    },
    store::{OpenOptions, SealedSecret, SqlStore, Store, StoreTime},
    topology::{Clouds, Topology},
};
use tieline_openapi::{
    config::{AccountConfig, AttachPointConfig, Config, EngineConfig, EnvironmentConfig, InterconnectConfig},
    ids::{AccountId, ChannelId, ConnectionId, InstallationId, ProjectId},
};
use tieline_providers::{
    CloudApi, IdentityKind, Rules,
    fake::{ATTACHMENT, Chaos, FakeApi, FakeObject, FakeRules, FakeSide, FakeWorld, Gate, PEER, Timing},
};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::{
    sched::{Sched, SimClock, SimGate, SimPoints},
    store::{Rows, SimStore},
};
use crate::postgres::Databases;

pub(crate) const ACCOUNTS: [&str; 2] = ["acct-a", "acct-b"];

/// How late the clouds' answers are at most in the schedules; the engine reckons with a little more.
pub(crate) const LAG_MS: u64 = 900;

/// Where a simulation keeps its store: a fresh database.
pub(crate) enum Database {
    /// SQLite in memory.
    Memory,
    /// Postgres.
    Postgres {
        /// The server.
        server: Databases,
        /// The database.
        name: String,
        /// Its URL.
        url: String,
    },
}

pub(crate) fn config() -> EngineConfig {
    EngineConfig {
        lease_ms: 3_000,
        call_timeout_ms: 700,
        visibility_lag_ms: 1_000,
        quarantine_ms: 4_000,
        poll_ms: 300,
        settled_poll_ms: 2_000,
        sweep_ms: 4_000,
        calls_per_second: 1_000,
    }
}

pub(crate) fn parse<T: TryFrom<String, Error: std::fmt::Debug>>(text: &str) -> T {
    T::try_from(text.to_owned()).unwrap()
}

fn topology(identity: IdentityKind) -> Topology {
    let account = |n: usize| AccountConfig {
        id: parse(ACCOUNTS[n]),
        provider: parse(["fake-picking", "fake-taking"][n]),
        external_id: ACCOUNTS[n].to_owned(),
        credential_ref: "anonymous".to_owned(),
        region: "r".to_owned(),
        endpoint: None,
    };
    let point = |n: usize| -> AttachPointConfig {
        serde_json::from_value(json!({
            "id": format!("point-{n}"), "accountId": ACCOUNTS[n], "site": format!("site-{n}"), "type": "CLOUD_ROUTER",
            "cloudId": format!("router-{n}"), "asn": 64512 + n, "prefixes": [format!("10.{n}.0.0/16")],
        }))
        .unwrap()
    };
    let environment: EnvironmentConfig = serde_json::from_value(json!({
        "id": "env", "kind": "DIRECT",
        "sites": [
            { "provider": "fake-picking", "site": "site-0", "displayName": "0" },
            { "provider": "fake-taking", "site": "site-1", "displayName": "1" },
        ],
        "bandwidthsMbps": [100, 1000],
    }))
    .unwrap();
    let port = |channel: usize, n: usize| json!({ "accountId": ACCOUNTS[n], "portId": format!("port-{channel}{n}"), "device": format!("dev-{channel}") });
    let interconnect: InterconnectConfig = serde_json::from_value(json!({
        "id": "ic", "environmentId": "env", "maxBandwidthMbps": 100_000,
        "channels": [
            { "id": "ch1", "a": port(1, 0), "b": port(1, 1) },
            { "id": "ch2", "a": port(2, 0), "b": port(2, 1) },
        ],
    }))
    .unwrap();
    let config = Config {
        engine: config(),
        accounts: vec![account(0), account(1)],
        environments: vec![environment],
        interconnects: vec![interconnect],
        attach_points: vec![point(0), point(1)],
        ..Config::default()
    };
    let rules: Vec<(_, Arc<dyn Rules>)> = vec![
        (parse("fake-picking"), Arc::new(FakeRules { side: FakeSide::Picking, identity })),
        (parse("fake-taking"), Arc::new(FakeRules { side: FakeSide::Taking, identity })),
    ];
    Topology::new(&config, rules.into_iter().collect())
}

/// Secrets that are not sealed at all.
struct Glass;

impl Vault for Glass {
    fn open(&self, _: ConnectionId, sealed: &SealedSecret) -> Result<SecretString, VaultError> {
        Ok(String::from_utf8(sealed.sealed.clone()).unwrap().into())
    }
    fn seal(
        &self,
        _: ConnectionId,
        channel: &ChannelId,
        generation: u32,
        name: &str,
        secret: &SecretString,
    ) -> Result<SealedSecret, VaultError> {
        let sealed = secret.expose_secret().as_bytes().to_vec();
        Ok(SealedSecret { channel_id: channel.clone(), generation, name: name.to_owned(), sealed })
    }
}

/// One replica that runs.
struct Replica {
    task: JoinHandle<()>,
    stepped_ms: Arc<AtomicI64>,
}

pub(crate) struct Sim {
    pub(crate) sched: Arc<Sched>,
    pub(crate) world: Arc<FakeWorld>,
    pub(crate) store: Arc<SqlStore>,
    pub(crate) rows: Arc<Rows>,
    pub(crate) random: Arc<ChaChaRandom>,
    pub(crate) topology: Arc<Topology>,
    vault: Arc<dyn Vault>,
    database: Database,
    replicas: BTreeMap<u32, Replica>,
    next_replica: u32,
    pub(crate) store_stepped_ms: Arc<AtomicI64>,
    store_set_ms: Arc<AtomicI64>,
    installation: InstallationId,
    pub(crate) strangers: Vec<FakeObject>,
    /// Replicas of which nothing goes on for now, until when.
    pub(crate) frozen: BTreeMap<u32, u64>,
    /// Single waiters that are held, until when.
    pub(crate) held: BTreeMap<u64, u64>,
    pub(crate) trace: Vec<String>,
    /// Names of failpoints that were passed.
    pub(crate) passed: Arc<Mutex<BTreeSet<String>>>,
}

pub(crate) fn project() -> ProjectId {
    parse("default")
}

impl Sim {
    /// A simulation; `chaos` makes what goes wrong with the wire.
    pub(crate) async fn new(
        seed: u64,
        identity: IdentityKind,
        timing: Timing,
        database: Database,
        chaos: impl FnOnce(Arc<Sched>, Arc<Rows>) -> Option<Arc<dyn Chaos>>,
    ) -> Self {
        Self::over(seed, topology(identity), Arc::new(Glass), timing, database, chaos).await
    }

    /// Over any topology of the two accounts, with the vault that sealed the secrets.
    pub(crate) async fn over(
        seed: u64,
        topology: Topology,
        vault: Arc<dyn Vault>,
        timing: Timing,
        database: Database,
        chaos: impl FnOnce(Arc<Sched>, Arc<Rows>) -> Option<Arc<dyn Chaos>>,
    ) -> Self {
        let (sched, rows) = (Arc::new(Sched::default()), Arc::new(Rows::default()));
        let chaos = chaos(Arc::clone(&sched), Arc::clone(&rows));
        let options = OpenOptions { time: StoreTime::Row, ..OpenOptions::default() };
        let url = match &database {
            Database::Memory => "sqlite::memory:",
            Database::Postgres { url, .. } => url,
        };
        let store = SqlStore::open(url, options).await.unwrap();
        store.set_time(sched.now()).await.unwrap();
        let clock = Arc::clone(&sched);
        let mut world = FakeWorld::new(seed, timing, move || clock.now());
        if let Some(chaos) = chaos {
            world = world.with_chaos(chaos);
        }
        let world = Arc::new(world);
        let router = json!({ "vlan": 7, "port": "x", "host": null, "peer": null });
        world.add_stranger(ACCOUNTS[0], PEER, Some("router-0"), None, router.clone());
        world.add_stranger(ACCOUNTS[0], ATTACHMENT, None, Some("port-10/9"), router);
        let random = Arc::new(ChaChaRandom::from_seed(seed));
        let installation = InstallationId(random.uuid_v7(sched.now()));
        let installation = store.installation(installation).await.unwrap();
        Self {
            strangers: world.strangers(),
            sched,
            world,
            store,
            rows,
            random,
            topology: Arc::new(topology),
            vault,
            database,
            replicas: BTreeMap::new(),
            next_replica: 0,
            store_stepped_ms: Arc::default(),
            store_set_ms: Arc::new(AtomicI64::new(0)),
            installation,
            frozen: BTreeMap::new(),
            held: BTreeMap::new(),
            trace: Vec::new(),
            passed: Arc::default(),
        }
    }

    /// Starts one more replica and returns its number.
    pub(crate) fn start(&mut self) -> u32 {
        let replica = self.next_replica;
        self.next_replica += 1;
        let stepped_ms = Arc::new(AtomicI64::new(0));
        let gate: Arc<dyn Gate> =
            Arc::new(SimGate { sched: Arc::clone(&self.sched), replica, rows: Arc::clone(&self.rows) });
        let clouds: Clouds = ACCOUNTS
            .iter()
            .map(|account| {
                let id: AccountId = parse(account);
                let provider = &self.topology.accounts[&id].provider;
                let api = FakeApi::new(Arc::clone(&self.world), account, Arc::clone(&self.topology.rules[provider]))
                    .with_gate(Arc::clone(&gate));
                (id, Arc::new(api) as Arc<dyn CloudApi>)
            })
            .collect();
        let store = SimStore {
            inner: Arc::clone(&self.store),
            sched: Arc::clone(&self.sched),
            replica,
            ledger: Arc::clone(&self.rows),
            stepped_ms: Arc::clone(&self.store_stepped_ms),
            set_ms: Arc::clone(&self.store_set_ms),
        };
        let clock = SimClock { sched: Arc::clone(&self.sched), replica, stepped_ms: Arc::clone(&stepped_ms) };
        let engine = Engine::new(EngineParts {
            store: Arc::new(store),
            clouds: Arc::new(clouds),
            topology: Arc::clone(&self.topology),
            clock: Arc::new(clock),
            random: Arc::clone(&self.random) as Arc<dyn Random>,
            vault: Arc::clone(&self.vault),
            failpoints: Failpoints::with(Arc::new(SimPoints { sched: Arc::clone(&self.sched), replica })),
            installation: self.installation,
            owner: format!("replica-{replica}"),
        });
        let task = tokio::spawn(engine.run(CancellationToken::new()));
        self.replicas.insert(replica, Replica { task, stepped_ms });
        replica
    }

    pub(crate) fn running(&self) -> Vec<u32> {
        self.replicas.keys().copied().collect()
    }

    /// Ends a replica as `kill -9` would.
    pub(crate) async fn crash(&mut self, replica: u32) {
        if let Some(dead) = self.replicas.remove(&replica) {
            dead.task.abort();
            let _ = dead.task.await;
            self.frozen.remove(&replica);
            self.sched.quiesce().await;
        }
    }

    pub(crate) fn step_clock(&self, replica: u32, by_ms: i64) {
        if let Some(replica) = self.replicas.get(&replica) {
            replica.stepped_ms.store(by_ms, Ordering::SeqCst);
        }
    }

    /// What could go on now: oldest first.
    pub(crate) fn ready(&self) -> Vec<(u64, u32, String)> {
        let now = self.sched.now_ms();
        self.sched
            .list()
            .into_iter()
            .filter(|(id, replica, _, until)| {
                until.is_none_or(|until| until <= now)
                    && !self.frozen.contains_key(replica)
                    && !self.held.contains_key(id)
            })
            .map(|(id, replica, what, _)| (id, replica, what))
            .collect()
    }

    /// Whether a replica, or any, is past its last look at its lease: what it sends nothing holds back any more.
    pub(crate) fn about_to_send(&self, of: Option<u32>) -> bool {
        let past = ["after-row", "before-send", "parent", "socket"];
        let waits = self.sched.list();
        waits.iter().any(|(_, replica, what, _)| of.is_none_or(|of| of == *replica) && past.contains(&what.as_str()))
    }

    /// When something next becomes ready by itself.
    pub(crate) fn next_ready(&self) -> Option<u64> {
        let now = self.sched.now_ms();
        let sleeps = self.sched.list().into_iter().filter_map(|(_, _, _, until)| until).filter(|until| *until > now);
        let thaws = self.frozen.values().chain(self.held.values()).copied();
        let late = self.world.next_late().map(|t| (t.as_millisecond() - super::sched::START) as u64);
        sleeps.chain(thaws).chain(late.filter(|t| *t > now)).min()
    }

    /// Moves the time, and thaws what is due.
    pub(crate) fn advance_to(&mut self, ms: u64) {
        self.sched.advance_to(ms);
        let now = self.sched.now_ms();
        self.frozen.retain(|_, until| *until > now);
        self.held.retain(|_, until| *until > now);
        self.world.deliver();
    }

    pub(crate) async fn resume(&mut self, id: u64, note: String) {
        self.trace.push(format!("{:>7} {note}", self.sched.now_ms()));
        self.passed.lock().unwrap().insert(note.split(' ').nth(1).unwrap_or_default().to_owned());
        self.sched.resume(id);
        self.sched.quiesce().await;
    }

    /// Lets everything go on, oldest first, until `done` or the time is over. True if done.
    pub(crate) async fn run_until(&mut self, limit_ms: u64, mut done: impl AsyncFnMut(&Self) -> bool) -> bool {
        let end = self.sched.now_ms() + limit_ms;
        self.sched.quiesce().await;
        let mut checked = u64::MAX;
        while self.sched.now_ms() < end {
            match self.ready().into_iter().next() {
                Some((id, replica, what)) => self.resume(id, format!("{replica} {what}")).await,
                None => {
                    // Nothing goes on: a good moment to ask, and not twice in the same moment.
                    if checked != self.sched.now_ms() {
                        checked = self.sched.now_ms();
                        if done(self).await {
                            return true;
                        }
                    }
                    let Some(next) = self.next_ready() else { return false };
                    self.advance_to(next);
                }
            }
        }
        done(self).await
    }

    /// Ends everything that runs, and gives the database back.
    pub(crate) async fn close(mut self) {
        for replica in self.running() {
            self.crash(replica).await;
        }
        self.store.close().await;
        if let Database::Postgres { server, name, .. } = &self.database {
            server.remove(name);
        }
    }

    // ---- what must hold ---------------------------------------------------------------------------------------------

    /// Ours that exist.
    pub(crate) fn ours(&self) -> Vec<FakeObject> {
        self.world.live().into_iter().filter(|o| o.made_for.is_some()).collect()
    }

    /// The most live resources that any one instance has.
    pub(crate) fn most_live(&self) -> usize {
        let mut counts = BTreeMap::new();
        for object in self.ours() {
            *counts.entry(object.made_for).or_insert(0usize) += 1;
        }
        counts.into_values().max().unwrap_or(0)
    }

    pub(crate) fn verify_clean_slate(&self) {
        assert_eq!(self.ours(), Vec::new(), "something of ours is left");
        self.verify_strangers();
    }

    pub(crate) fn verify_strangers(&self) {
        assert_eq!(self.world.strangers(), self.strangers, "something of others was touched");
    }

    /// The end of what went on, where one schedule is replayed.
    pub(crate) fn print_trace(&self) {
        if std::env::var("TIELINE_FAULT_SEED").is_ok() {
            let from = self.trace.len().saturating_sub(3_000);
            println!("{}\n{} steps", self.trace[from..].join("\n"), self.trace.len());
        }
    }
}
