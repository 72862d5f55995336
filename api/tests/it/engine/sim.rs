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
    plan::{
        negotiate::{Request, allocations, negotiate},
        step::{CreateAnswer, Instance},
    },
    store::{
        Audit, ChangeTo, ConnectionChange, ConnectionRecord, IssueAnswered, NewConnection, NewEvent, OpenOptions,
        SealedSecret, SqlStore, Store, StoreError, StoreTime,
    },
    topology::{Clouds, Topology},
};
use tieline_openapi::{
    config::{AccountConfig, AttachPointConfig, Config, EngineConfig, EnvironmentConfig, InterconnectConfig},
    ids::{AccountId, ChannelId, ConnectionId, InstallationId, OperationId, ProjectId},
    v1::{ConnectionIntent, ConnectionKind, End, Operation, OperationKind, OperationState},
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
        quarantine_ms: 5_000,
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
    strangers: Vec<FakeObject>,
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

    // ---- what users do ----------------------------------------------------------------------------------------------

    fn operation(&self, target: ConnectionId, kind: OperationKind, generation: u64) -> Operation {
        Operation {
            id: OperationId(self.random.uuid_v7(self.sched.now())),
            kind,
            target,
            generation,
            state: OperationState::Running,
            stages: Vec::new(),
            problem: None,
            created_at: self.sched.now(),
            finished_at: None,
        }
    }

    fn event(&self, id: ConnectionId, kind: &str) -> NewEvent {
        NewEvent {
            project: project(),
            time: self.sched.now(),
            kind: kind.to_owned(),
            subject: format!("/v1/connections/{id}"),
            generation: Some(1),
            cause: "test".to_owned(),
            data: json!({}),
        }
    }

    fn audit(&self) -> Audit {
        Audit {
            principal: "token:t".to_owned(),
            request_id: "r".to_owned(),
            action: "createConnection".to_owned(),
            subject: "/v1/connections".to_owned(),
            at: self.sched.now(),
        }
    }

    pub(crate) async fn create(&self, name: &str, redundancy: &str) -> ConnectionId {
        let id = ConnectionId(self.random.uuid_v7(self.sched.now()));
        // Links of one attach point must not announce the same.
        let n = name.bytes().fold(0u8, u8::wrapping_add);
        let intent: ConnectionIntent = serde_json::from_value(json!({
            "name": name, "environmentId": "env", "bandwidthMbps": 1000, "redundancy": redundancy,
            "a": { "attachPointId": "point-0", "advertisedPrefixes": [format!("10.0.{n}.0/24")] },
            "b": { "attachPointId": "point-1", "advertisedPrefixes": [format!("10.1.{n}.0/24")] },
        }))
        .unwrap();
        let allocated = self.store.allocated().await.unwrap();
        let request = Request { connection_id: id, intent: &intent, keep: BTreeMap::new(), refused: BTreeMap::new() };
        let negotiated = negotiate(&self.topology, &allocated, &request).unwrap();
        let secrets = negotiated.channels.iter().map(|channel| SealedSecret {
            channel_id: channel.channel_id.clone(),
            generation: channel.generation,
            name: "bgpPassword".to_owned(),
            sealed: b"secret1".to_vec(),
        });
        let new = NewConnection {
            id,
            project: project(),
            kind: ConnectionKind::Direct,
            allocations: allocations(&negotiated, &self.topology),
            secrets: secrets.collect(),
            intent,
            negotiated,
            operation: self.operation(id, OperationKind::Create, 1),
            event: self.event(id, "connection.created"),
            audit: self.audit(),
            idempotency: None,
            at: self.sched.now(),
        };
        self.store.create_connection(new).await.unwrap();
        id
    }

    /// Changes how much is wanted and what is announced, as long as nobody has asked for the deletion.
    pub(crate) async fn change(&self, id: ConnectionId) {
        let Some(record) = self.record(id).await.filter(|r| r.deletion_requested_at.is_none()) else { return };
        let mut intent = record.intent.clone();
        let other = if intent.bandwidth_mbps.get() == 1_000 { 100 } else { 1_000 };
        intent.bandwidth_mbps = u64::from(other as u32).try_into().unwrap();
        let whole = intent.a.advertised_prefixes.clone();
        intent.a.advertised_prefixes = match whole.as_slice() {
            [one] => one.subnets(one.prefix_len() + 1).unwrap().collect(),
            several => vec![several[0].supernet().unwrap()],
        };
        let mut allocated = self.store.allocated().await.unwrap();
        allocated.release(id, &record.negotiated.channels);
        let keep = record.negotiated.channels.iter().map(|c| (c.channel_id.clone(), c.clone())).collect();
        let request = Request { connection_id: id, intent: &intent, keep, refused: BTreeMap::new() };
        let negotiated = negotiate(&self.topology, &allocated, &request).unwrap();
        let change = ConnectionChange {
            id,
            project: project(),
            expected_generation: record.generation,
            to: ChangeTo::Intent {
                intent: Box::new(intent.clone()),
                allocations: allocations(&negotiated, &self.topology),
                negotiated: Box::new(negotiated),
                secrets: Vec::new(),
            },
            operation: self.operation(id, OperationKind::Update, record.generation + 1),
            event: self.event(id, "connection.updated"),
            audit: self.audit(),
            idempotency: None,
            at: self.sched.now(),
        };
        match self.store.change_connection(change).await {
            Ok(()) | Err(StoreError::AllocationTaken { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }

    /// Somebody else makes on one side exactly what a connection is about to make there.
    pub(crate) async fn forestall(&mut self, id: ConnectionId) {
        let Some(record) = self.record(id).await else { return };
        let end = if self.random.below(2) == 0 { End::A } else { End::B };
        let side = record.negotiated.channels[0].sides.get(end);
        let rules = &self.topology.rules[&self.topology.accounts[&side.account_id].provider];
        let spec = rules.decompose(side).remove(0);
        let account = ACCOUNTS[usize::from(end == End::B)];
        self.world.add_stranger(account, spec.key.kind, None, spec.slot.as_deref(), spec.fields);
        self.strangers = self.world.strangers();
    }

    /// A person answers what nothing else can tell, once nothing of it can be on its way any more; and errs at times.
    pub(crate) async fn answer_issues(&self, after_ms: u64) {
        let page = tieline_api::store::Page { limit: 100, after: None };
        let late = self.world.late_creates();
        for issue in self.store.issues(&project(), page).await.unwrap() {
            let [connection, resource] = issue.about.as_slice() else { continue };
            let Ok(id) = connection.trim_start_matches("/v1/connections/").parse::<ConnectionId>() else { continue };
            if issue.code != "create-without-answer" || issue.resolved_at.is_some() {
                continue;
            }
            let Some(record) = self.record(id).await else { continue };
            let is_it = |i: &&Instance| {
                let path = format!("{connection}/channels/{}/{}/{}", i.channel_id, i.key.end.as_str(), i.key.kind);
                path == *resource
            };
            let Some(instance) = record.instances.iter().find(is_it).map(|i| i.id) else { continue };
            if late.contains(&instance) || self.rows.created_at(instance) + after_ms > self.sched.now_ms() {
                continue;
            }
            let there = self.world.live().into_iter().find(|object| object.made_for == Some(instance));
            let answer = match self.random.below(6) {
                0 => CreateAnswer::Created { cloud_id: "nothing-of-the-kind".to_owned() },
                1 => CreateAnswer::Created { cloud_id: self.strangers[0].cloud_id.clone() },
                _ => there.map_or(CreateAnswer::NotCreated, |o| CreateAnswer::Created { cloud_id: o.cloud_id }),
            };
            let answered = IssueAnswered {
                issue: issue.id,
                project: project(),
                resource: resource.clone(),
                answer,
                event: self.event(id, "issue.answered"),
                audit: self.audit(),
                idempotency: None,
            };
            match self.store.answer_issue(answered).await {
                Ok(()) | Err(StoreError::NotAsked) => {}
                Err(error) => panic!("{error}"),
            }
        }
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

    pub(crate) async fn delete(&self, id: ConnectionId) {
        let Some(record) = self.record(id).await else { return };
        let change = ConnectionChange {
            id,
            project: project(),
            expected_generation: record.generation,
            to: ChangeTo::Deletion,
            operation: self.operation(id, OperationKind::Delete, record.generation + 1),
            event: self.event(id, "connection.deletionRequested"),
            audit: self.audit(),
            idempotency: None,
            at: self.sched.now(),
        };
        self.store.change_connection(change).await.unwrap();
    }

    pub(crate) async fn record(&self, id: ConnectionId) -> Option<ConnectionRecord> {
        match self.store.connection(&project(), id).await {
            Ok(record) => Some(record),
            Err(StoreError::NotFound) => None,
            Err(error) => panic!("{error}"),
        }
    }

    pub(crate) async fn last_operation(&self, id: ConnectionId) -> Operation {
        let page = tieline_api::store::Page { limit: 10, after: None };
        self.store.operations(&project(), Some(id), page).await.unwrap().remove(0)
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
        if std::env::var("TIELINE_SEED").is_ok() {
            let from = self.trace.len().saturating_sub(3_000);
            println!("{}\n{} steps", self.trace[from..].join("\n"), self.trace.len());
        }
    }
}
