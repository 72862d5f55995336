//! Ten thousand settled links: what it costs to observe them, and how long a restart takes in the middle of work.

use std::{
    collections::{BTreeMap, HashSet},
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use secrecy::SecretString;
use tieline_api::{
    events::Hints,
    http::StreamLimits,
    plan::negotiate::Allocated,
    service::{ServeOptions, serve},
    store::{SqlStore, Store as _},
};
use tieline_openapi::{
    client::Client,
    config::EngineConfig,
    ids::{AccountId, ConnectionId, InstanceId},
    v1::{Redundancy, Verb},
};
use tieline_providers::fake::{Chaos, Fault, Request};
use tokio_util::sync::CancellationToken;

use crate::{
    Settings, machine,
    report::Row,
    seed,
    world::{Running, Wire, World},
};

/// How long a call to a cloud takes.
const CALL: Duration = Duration::from_millis(20);
/// When a caller gives up an answer that was lost.
const LOST_AFTER_MS: u64 = 1_000;
/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(1_200);

/// The row that tells how many calls a round of observation takes.
const CALLS: &str = "observe_10000_calls";

/// While it is on, every create has its effect and its answer is lost.
#[derive(Default)]
struct LostAnswers {
    on: AtomicBool,
    instances: Mutex<HashSet<InstanceId>>,
}

impl LostAnswers {
    /// What has been created without an answer.
    fn instances(&self) -> MutexGuard<'_, HashSet<InstanceId>> {
        self.instances.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Chaos for LostAnswers {
    fn fault(&self, request: &Request) -> Fault {
        if !self.on.load(Ordering::SeqCst) || request.verb != Verb::Create {
            return Fault::None;
        }
        self.instances().insert(request.instance);
        Fault::LoseAnswer
    }
}

/// Links at a pair of attach points: each router is a list of its own.
const LINKS_A_POINT: usize = 250;

struct Scale<'a> {
    settings: &'a Settings,
    world: World,
    url: String,
    taken: BTreeMap<String, Allocated>,
    links: Vec<ConnectionId>,
}

/// Everything about many links, in one process whose use is measured.
pub(crate) async fn run(settings: &Settings, dir: &Path) -> anyhow::Result<Vec<Row>> {
    let lost = Arc::new(LostAnswers::default());
    let chaos = Arc::clone(&lost);
    let world = World::new(dir, settings.links + settings.midway, LINKS_A_POINT, |world| world.with_chaos(chaos))?;
    let url = format!("sqlite://{}", dir.join("tieline.db").display());
    let mut scale = Scale { settings, world, url, taken: BTreeMap::new(), links: Vec::new() };
    scale.seed(dir).await?;
    let mut rows = scale.observe(settings.round_ms).await?;
    rows.extend(scale.restart(&lost).await?);
    rows.push(single(settings, dir).await?);
    Ok(rows)
}

/// The calls that half as many links of one channel each cost: a list has a page for every so many channels.
async fn single(settings: &Settings, dir: &Path) -> anyhow::Result<Row> {
    let links = (settings.links / 2).max(1);
    let world = World::new(dir, links, LINKS_A_POINT, |world| world)?.with_redundancy(Redundancy::Single);
    let url = format!("sqlite://{}", dir.join("single.db").display());
    let settings = &Settings { links, ..settings.clone() };
    let mut scale = Scale { settings, world, url, taken: BTreeMap::new(), links: Vec::new() };
    scale.seed(dir).await?;
    let rows = scale.observe(settings.round_ms.min(20_000)).await?;
    let row = rows.into_iter().find(|row| row.name == CALLS).context("calls are counted")?;
    Ok(Row { name: "observe_single_calls".to_owned(), ..row })
}

/// As fast as it goes: for what is not measured.
fn hurried() -> EngineConfig {
    EngineConfig { poll_ms: 50, calls_per_second: 1_000_000, ..EngineConfig::default() }
}

impl Scale<'_> {
    /// Provisions the links in memory, where a commit costs no disk, and then moves the database to its place.
    async fn seed(&mut self, dir: &Path) -> anyhow::Result<()> {
        let shm = Path::new("/dev/shm");
        let folder = tempfile::tempdir_in(if shm.is_dir() { shm } else { dir })?;
        let file = folder.path().join("seed.db");
        let hints = Hints::new();
        let store = self.world.open(&format!("sqlite://{}", file.display()), &hints).await?;
        let topology = self.world.topology(&hurried())?;
        let began = Instant::now();
        let running = Running::start(
            self.world.engine(Arc::clone(&store), Arc::clone(&topology), &Wire::new(Duration::ZERO)).await?,
            &hints,
        );
        self.links = seed::accept(&self.world, &store, &topology, 0..self.settings.links, &mut self.taken).await?;
        seed::all_up(&store, &self.links, PATIENCE).await?;
        running.end().await?;
        store.close().await;
        let place = self.url.strip_prefix("sqlite://").context("the links are in SQLite")?;
        std::fs::copy(&file, place).context("the database is moved to its place")?;
        let bytes = std::fs::metadata(&file)?.len();
        eprintln!(
            "{} links are up after {:.1} s; their database has {} MiB",
            self.links.len(),
            began.elapsed().as_secs_f64(),
            bytes / 1_048_576
        );
        Ok(())
    }

    /// Observes them, round after round.
    async fn observe(&self, every_ms: u64) -> anyhow::Result<Vec<Row>> {
        let config = EngineConfig { settled_poll_ms: every_ms, calls_per_second: 10, ..EngineConfig::default() };
        let hints = Hints::new();
        let store = self.world.open(&self.url, &hints).await?;
        let wire = Wire::new(CALL);
        let topology = self.world.topology(&config)?;
        let running = Running::start(self.world.engine(Arc::clone(&store), topology, &wire).await?, &hints);
        // The first round finds everything new, and may be late: what comes after it counts.
        let mut seen = None;
        for _ in 0..2 {
            seen = Some(self.next_round(&store, seen, every_ms).await?);
        }
        machine::forget_peak()?;
        let (began, cpu, calls) = (Instant::now(), machine::cpu()?, wire.calls());
        let rounds = self.settings.rounds;
        for _ in 0..rounds {
            seen = Some(self.next_round(&store, seen, every_ms).await?);
        }
        let took = began.elapsed();
        let cores = (machine::cpu()? - cpu).as_secs_f64() / took.as_secs_f64();
        let a_round = (wire.calls() - calls) as f64 * every_ms as f64 / took.as_millis() as f64;
        let peak = machine::peak_mib()?;
        let expected = self.expected(&store).await?;
        running.end().await?;
        store.close().await;
        // An attachment, a peer and an interface, at least once.
        if expected < self.links.len() * 3 {
            bail!("only {expected} resources of {} links were observed by lists", self.links.len());
        }
        let each = |name: &str, unit: &str, value| Row { runs: rounds, ..Row::once(name, unit, value) };
        Ok(vec![
            each("observe_10000_cores", "cores", cores),
            each("observe_10000_rss", "MiB", peak),
            each(CALLS, "calls per 1,000 links", a_round * 1_000.0 / self.links.len() as f64),
        ])
    }

    /// Waits until both accounts have been listed whole once more.
    async fn next_round(
        &self,
        store: &SqlStore,
        before: Option<[tieline_openapi::v1::Timestamp; 2]>,
        every_ms: u64,
    ) -> anyhow::Result<[tieline_openapi::v1::Timestamp; 2]> {
        let accounts: [AccountId; 2] = ["left".parse()?, "right".parse()?];
        let mut times = [None, None];
        let waited = tokio::time::timeout(Duration::from_millis(every_ms * 3) + PATIENCE / 10, async {
            for (n, account) in accounts.iter().enumerate() {
                loop {
                    let at = store.account_watch(account).await?.observed_at;
                    if at.is_some() && at > before.map(|times| times[n]) {
                        times[n] = at;
                        break;
                    }
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
            anyhow::Ok(())
        })
        .await;
        waited.context("a round of lists takes too long")??;
        Ok([times[0].context("listed")?, times[1].context("listed")?])
    }

    async fn expected(&self, store: &SqlStore) -> anyhow::Result<usize> {
        let (left, right) =
            (store.account_watch(&"left".parse()?).await?, store.account_watch(&"right".parse()?).await?);
        if left.absent + right.absent > 0 {
            bail!("{} resources are missing from the lists", left.absent + right.absent);
        }
        Ok((left.expected + right.expected) as usize)
    }

    /// Kills the engine while many creates are without an answer, and starts again on the same database.
    async fn restart(&mut self, lost: &LostAnswers) -> anyhow::Result<Vec<Row>> {
        let hints = Hints::new();
        let store = self.world.open(&self.url, &hints).await?;
        // A call whose answer is lost ends when its time is over.
        let lease_ms = self.settings.lease_ms;
        let topology = self.world.topology(&EngineConfig { call_timeout_ms: LOST_AFTER_MS, lease_ms, ..hurried() })?;
        let range = self.settings.links..self.settings.links + self.settings.midway;
        lost.on.store(true, Ordering::SeqCst);
        let ids = seed::accept(&self.world, &store, &topology, range, &mut self.taken).await?;
        let engine = self.world.engine(Arc::clone(&store), topology, &Wire::new(Duration::ZERO)).await?;
        let running = Running::start(engine, &hints);
        let sent = async {
            while lost.instances().len() < ids.len() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(PATIENCE, sent).await.context("every link sends its first create")?;
        running.kill().await;
        store.close().await;
        // With its last handle goes the lock on the file.
        drop(store);
        lost.on.store(false, Ordering::SeqCst);

        let (ready, serving, store, stop) = self.start_again().await?;
        let began = Instant::now();
        seed::all_up(&store, &ids, PATIENCE).await?;
        eprintln!("the {} in the middle of a step were done {:.1} s later", ids.len(), began.elapsed().as_secs_f64());
        stop.cancel();
        serving.await??;
        store.close().await;
        Ok(vec![
            Row::once("restart_10000_ready", "s", ready.as_secs_f64()),
            Row::once("restart_10000_twice", "creates sent or resources made twice", self.doubled() as f64),
        ])
    }

    /// From nothing to the first good answer of `/readyz`.
    async fn start_again(
        &self,
    ) -> anyhow::Result<(
        Duration,
        tokio::task::JoinHandle<Result<(), tieline_api::service::ServeError>>,
        Arc<SqlStore>,
        CancellationToken,
    )> {
        let began = Instant::now();
        let hints = Hints::new();
        let store = self.world.open(&self.url, &hints).await?;
        let config = EngineConfig { calls_per_second: 1_000, ..EngineConfig::default() };
        let topology = self.world.topology(&config)?;
        let wire = Wire::new(CALL);
        let engine = self.world.engine(Arc::clone(&store), Arc::clone(&topology), &wire).await?;
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}", listener.local_addr()?);
        let stop = CancellationToken::new();
        let options = ServeOptions {
            store: Arc::clone(&store) as _,
            topology,
            vault: self.world.vault.clone(),
            clock: Arc::clone(&self.world.clock),
            random: Arc::clone(&self.world.random),
            hints,
            streams: StreamLimits::default(),
            engine: Some(engine),
            coordinator: None,
        };
        let serving = tokio::spawn(serve(options, listener, stop.clone()));
        let client = Client::new(&url, &SecretString::from("none"))?;
        let asking = async {
            while client.ready().await.is_err() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, asking).await.context("the service becomes ready")?;
        Ok((began.elapsed(), serving, store, stop))
    }

    /// Creates on the wire beyond the first of each instance, and resources beyond one.
    fn doubled(&self) -> usize {
        let mut creates: BTreeMap<InstanceId, usize> = BTreeMap::new();
        for request in self.world.fake.wire().into_iter().filter(|request| request.verb == Verb::Create) {
            *creates.entry(request.instance).or_default() += 1;
        }
        let mut live: BTreeMap<Option<InstanceId>, usize> = BTreeMap::new();
        for object in self.world.fake.live() {
            *live.entry(object.made_for).or_default() += 1;
        }
        creates.values().chain(live.values()).map(|n| n - 1).sum()
    }
}
