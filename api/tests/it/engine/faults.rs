//! Random schedules: two replicas of the real engine, crashes at every step boundary, pauses between lease check and
//! socket, lost, late and doubled requests, lagging lists, wrong credentials, deletes at any time, clocks stepped by an
//! hour. A seed is a schedule: `TIELINE_SEED=n` replays one, `TIELINE_SEEDS=n` runs that many.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use tieline_api::engine::clock::{ChaChaRandom, Random};
use tieline_openapi::{
    ids::ConnectionId,
    v1::{ConnectionState, OperationState, Verb},
};
use tieline_providers::{
    CallErrorKind, IdentityKind,
    fake::{Chaos, Fault, Request, Timing},
};

use super::{
    errors::ErrorsOnly,
    sim::{ACCOUNTS, Sim},
};

const HOUR_MS: i64 = 3_600_000;

fn kind_of(seed: u64) -> IdentityKind {
    match seed % 5 {
        0 => IdentityKind::Named,
        1 => IdentityKind::Slot,
        2 => IdentityKind::Token { lifetime_ms: 24 * 3_600_000 },
        3 => IdentityKind::Tagged,
        _ => IdentityKind::Blind,
    }
}

/// Half of the schedules have no pause between the lease check and the socket, no request that the network doubles, and no
/// clock that is stepped: then nothing is ever doubled on a cloud of any kind, and the sweep finds nothing.
fn is_strict(seed: u64) -> bool {
    (seed / 5).is_multiple_of(2)
}

/// What goes wrong with the wire, by the seed.
struct Weather {
    strict: bool,
    dice: ChaChaRandom,
    on: AtomicBool,
    identity: IdentityKind,
    doubles: AtomicU64,
    walks: AtomicU64,
}

impl Chaos for Weather {
    fn fault(&self, request: &Request) -> Fault {
        if !self.on.load(Ordering::SeqCst) {
            return Fault::None;
        }
        match self.dice.below(100) {
            0..=13 => Fault::LoseAnswer,
            14..=19 => Fault::LoseRequest,
            20..=31 => Fault::Late(self.dice.below(if self.strict { 2_800 } else { 4_000 })),
            32..=36 => Fault::Fail,
            37..=40 => Fault::Refuse(CallErrorKind::Throttled),
            41 => Fault::Refuse(CallErrorKind::Conflict),
            42 => Fault::Refuse(CallErrorKind::Quota),
            43 => Fault::Refuse(CallErrorKind::Forbidden),
            // Nothing tells what a blind cloud made of a request that the network doubled.
            44..=47
                if !self.strict
                    && self.identity != IdentityKind::Blind
                    && self.doubles.fetch_add(1, Ordering::SeqCst) < 2 =>
            {
                Fault::Double
            }
            48 if request.verb == Verb::Create && self.walks.fetch_add(1, Ordering::SeqCst) < 2 => {
                Fault::Refuse(CallErrorKind::SlotTaken)
            }
            _ => Fault::None,
        }
    }
}

/// Temporary disturbances, and when each ends.
#[derive(Default)]
struct Ends(BTreeMap<u64, Vec<End>>);

enum End {
    Credential(&'static str),
    Clock(u32),
    StoreClock,
    Restart,
}

struct Schedule {
    sim: Sim,
    dice: ChaChaRandom,
    weather: Arc<Weather>,
    identity: IdentityKind,
    ends: Ends,
    ids: Vec<ConnectionId>,
    strict: bool,
    most: usize,
}

impl Schedule {
    async fn new(seed: u64) -> Self {
        let identity = kind_of(seed);
        let strict = is_strict(seed);
        let weather = Arc::new(Weather {
            strict,
            dice: ChaChaRandom::from_seed(seed.wrapping_mul(3) + 1),
            on: AtomicBool::new(true),
            identity,
            doubles: AtomicU64::new(0),
            walks: AtomicU64::new(0),
        });
        let timing = Timing { lag_ms: 900, settle_ms: 300 };
        let mut sim = Sim::new(seed, identity, timing, Some(Arc::clone(&weather) as Arc<dyn Chaos>)).await;
        sim.start();
        sim.start();
        let ids = vec![sim.create("one", "SINGLE").await, sim.create("two", "SINGLE").await];
        let dice = ChaChaRandom::from_seed(seed.wrapping_mul(3) + 2);
        Self { sim, dice, weather, identity, ends: Ends::default(), ids, strict, most: 0 }
    }

    fn chance(&self, per_mille: u64) -> bool {
        self.dice.below(1_000) < per_mille
    }

    fn until(&mut self, within_ms: u64, end: End) {
        let at = self.sim.sched.now_ms() + 1 + self.dice.below(within_ms);
        self.ends.0.entry(at).or_default().push(end);
    }

    async fn end_due(&mut self, all: bool) {
        let now = if all { u64::MAX } else { self.sim.sched.now_ms() };
        while let Some(entry) = self.ends.0.first_entry().filter(|entry| *entry.key() <= now) {
            for end in entry.remove() {
                match end {
                    End::Credential(account) => self.sim.world.set_wrong_credential(account, false),
                    End::Clock(replica) => self.sim.step_clock(replica, 0),
                    End::StoreClock => self.sim.store_stepped_ms.store(0, Ordering::SeqCst),
                    End::Restart => {
                        self.sim.start();
                    }
                }
            }
        }
    }

    /// One random disturbance, or none.
    async fn disturb(&mut self) {
        let replicas = self.sim.running();
        let some =
            |dice: &ChaChaRandom| replicas.get(usize::try_from(dice.below(replicas.len() as u64)).unwrap()).copied();
        let Some(replica) = some(&self.dice) else { return };
        if self.chance(12) {
            self.sim.trace.push(format!("        crash {replica}"));
            self.sim.crash(replica).await;
            self.until(4_000, End::Restart);
        } else if !self.strict && self.chance(10) {
            let until = self.sim.sched.now_ms() + self.dice.below(6_000);
            self.sim.trace.push(format!("        freeze {replica} until {until}"));
            self.sim.frozen.insert(replica, until);
        } else if self.chance(8) {
            let account = ACCOUNTS[usize::try_from(self.dice.below(2)).unwrap()];
            self.sim.trace.push(format!("        wrong credential {account}"));
            self.sim.world.set_wrong_credential(account, true);
            self.until(6_000, End::Credential(account));
        } else if !self.strict && self.chance(5) {
            let by = if self.chance(500) { HOUR_MS } else { -HOUR_MS };
            self.sim.trace.push(format!("        clock of {replica} by {by}"));
            self.sim.step_clock(replica, by);
            self.until(3_000, End::Clock(replica));
        } else if !self.strict && self.chance(4) {
            let by = if self.chance(500) { HOUR_MS } else { -HOUR_MS };
            self.sim.trace.push(format!("        clock of the store by {by}"));
            self.sim.store_stepped_ms.store(by, Ordering::SeqCst);
            self.until(3_000, End::StoreClock);
        } else if self.chance(20) && !(self.strict && self.about_to_send()) {
            let to = self.sim.sched.now_ms() + self.dice.below(2_000);
            self.sim.advance_to(to);
        }
    }

    fn about_to_send(&self) -> bool {
        self.sim.ready().iter().any(|(_, _, what)| ["after-row", "before-send", "socket"].contains(&what.as_str()))
    }

    /// Lets one thing go on, whichever the dice say; or lets the time pass.
    async fn go_on(&mut self) {
        let ready = self.sim.ready();
        if ready.is_empty() {
            let next = self.sim.next_ready().into_iter().chain(self.ends.0.keys().next().copied()).min();
            let to = next.unwrap_or_else(|| self.sim.sched.now_ms() + 100);
            self.sim.advance_to(to);
            return;
        }
        let (id, replica, what) = ready[usize::try_from(self.dice.below(ready.len().min(6) as u64)).unwrap()].clone();
        // The pause between the lease check and the socket.
        if !self.strict && (what == "socket" || what == "before-send") && self.chance(120) {
            let until = self.sim.sched.now_ms() + self.dice.below(7_000);
            self.sim.trace.push(format!("        hold {replica} at {what} until {until}"));
            self.sim.held.insert(id, until);
            return;
        }
        let later = self.sim.sched.now_ms() + self.dice.below(25);
        self.sim.advance_to(later);
        self.sim.resume(id, format!("{replica} {what}")).await;
        self.check_now();
    }

    /// What must hold at every moment.
    fn check_now(&mut self) {
        self.most = self.most.max(self.sim.most_live());
        let limit = match self.identity {
            // The pause makes one twin, the network's doubling another.
            IdentityKind::Tagged if !self.strict => 3,
            IdentityKind::Tagged
            | IdentityKind::Named
            | IdentityKind::Slot
            | IdentityKind::Token { .. }
            | IdentityKind::Blind => 1,
        };
        assert!(self.most <= limit, "{} live resources of one instance", self.most);
        if self.strict {
            let mut places = BTreeMap::new();
            for instance in self.sim.ours().into_iter().filter_map(|object| object.made_for) {
                *places.entry(self.sim.rows.place(instance)).or_insert(0) += 1;
            }
            assert!(places.values().all(|count| *count <= 1), "two live resources in one place: {places:?}");
            assert_eq!(self.swept(), 0, "the sweep found something where no pause was");
        }
    }

    fn swept(&self) -> usize {
        self.sim.trace.iter().rev().take(1).filter(|line| line.ends_with("sweep-before-delete")).count()
    }

    fn check_wire(&self) {
        let mut sent: BTreeMap<_, (Verb, u32)> = BTreeMap::new();
        for record in self.sim.world.wire() {
            let key = (record.instance, format!("{:?}", record.verb));
            sent.entry(key).or_insert((record.verb, 0)).1 += 1;
        }
        let swept = self.sim.trace.iter().filter(|line| line.ends_with("sweep-before-delete")).count();
        for ((instance, _), (verb, count)) in sent {
            let rows = self.sim.rows.count(instance, verb);
            let free = if verb == Verb::Delete { u32::try_from(swept).unwrap() } else { 0 };
            assert!(count <= rows + free, "{count} requests of {verb:?} for {rows} ledger rows");
        }
    }

    async fn run(&mut self, seed: u64) {
        let mut deletes: Vec<_> = self.ids.iter().map(|id| (*id, self.dice.below(30_000))).collect();
        while self.sim.sched.now_ms() < 20_000 && self.sim.trace.len() < 4_000 {
            let now = self.sim.sched.now_ms();
            for (id, _) in deletes.extract_if(.., |(_, at)| *at <= now).collect::<Vec<_>>() {
                self.sim.trace.push(format!("        delete {id}"));
                self.sim.delete(id).await;
            }
            self.end_due(false).await;
            self.disturb().await;
            self.go_on().await;
        }
        self.calm().await;
        let kept: Vec<_> = deletes.iter().map(|(id, _)| *id).collect();
        if !kept.is_empty() {
            self.settle(seed, &kept).await;
            for id in kept {
                self.sim.delete(id).await;
            }
        }
        self.go(seed).await;
        self.check_wire();
        self.sim.verify_strangers();
    }

    /// Everything works again.
    async fn calm(&mut self) {
        self.sim.trace.push("        calm".to_owned());
        self.weather.on.store(false, Ordering::SeqCst);
        self.end_due(true).await;
        for replica in self.sim.running() {
            self.sim.step_clock(replica, 0);
        }
        // One replica ends what two began.
        for replica in self.sim.running().into_iter().skip(1) {
            self.sim.crash(replica).await;
        }
        if self.sim.running().is_empty() {
            self.sim.start();
        }
        for account in ACCOUNTS {
            self.sim.world.set_wrong_credential(account, false);
        }
        self.sim.store_stepped_ms.store(0, Ordering::SeqCst);
        self.sim.frozen.clear();
        self.sim.held.clear();
    }

    /// Whether a connection stopped for a person, as it has to where nothing tells what a lost create did.
    async fn stopped(sim: &Sim, id: ConnectionId, identity: IdentityKind) -> bool {
        let record = sim.record(id).await;
        identity == IdentityKind::Blind
            && record.is_some_and(|r| {
                let reason = r.status.reason.is_some_and(|reason| reason.code == "create-without-answer");
                reason && matches!(r.status.state, Some(ConnectionState::ActionRequired | ConnectionState::Deleting))
            })
    }

    /// What was not deleted comes up.
    async fn settle(&mut self, seed: u64, ids: &[ConnectionId]) {
        let identity = self.identity;
        let settled = self
            .sim
            .run_until(600_000, async |sim| {
                for id in ids {
                    let up = sim.last_operation(*id).await.state == OperationState::Succeeded;
                    if !up && !Self::stopped(sim, *id, identity).await {
                        return false;
                    }
                }
                true
            })
            .await;
        assert!(settled, "seed {seed} does not settle: {:#?}", self.sim.last_operation(ids[0]).await);
        // A twin is gone within quarantine and one sweep.
        self.sim.run_until(9_000, async |_| false).await;
        assert!(self.sim.most_live() <= 1, "a twin outlived the sweep");
    }

    /// What was deleted goes, and leaves nothing.
    async fn go(&mut self, seed: u64) {
        let (identity, ids) = (self.identity, self.ids.clone());
        let gone = self
            .sim
            .run_until(7_200_000, async |sim| {
                for id in &ids {
                    if sim.record(*id).await.is_some() && !Self::stopped(sim, *id, identity).await {
                        return false;
                    }
                }
                true
            })
            .await;
        assert!(gone, "seed {seed} is not gone: {:#?}", self.sim.last_operation(ids[0]).await);
        self.sim.run_until(9_000, async |_| false).await;
        // What a blind cloud made of a lost request, nobody can know to be ours.
        if identity != IdentityKind::Blind {
            self.sim.verify_clean_slate();
        }
    }
}

fn run_seed(seed: u64) -> Result<usize, String> {
    let outcome = std::panic::catch_unwind(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let errors = ErrorsOnly::default();
            let _guard = tracing::subscriber::set_default(errors.clone());
            let mut schedule = Schedule::new(seed).await;
            let run = futures::FutureExt::catch_unwind(std::panic::AssertUnwindSafe(schedule.run(seed))).await;
            if let Err(panic) = run {
                schedule.sim.print_trace();
                std::panic::resume_unwind(panic);
            }
            if std::env::var("TIELINE_TRACE").is_ok() {
                schedule.sim.print_trace();
            }
            assert_eq!(errors.seen(), Vec::<String>::new(), "an ERROR line is a defect");
            schedule.most
        })
    });
    outcome.map_err(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        text.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned())).unwrap_or_default()
    })
}

#[test]
fn no_schedule_loses_or_doubles_a_resource() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seeds: Vec<u64> = match number("TIELINE_SEED") {
        Some(seed) => vec![seed],
        None => (0..number("TIELINE_SEEDS").unwrap_or(100)).collect(),
    };
    let next = AtomicU64::new(0);
    let failed = Mutex::new(Vec::new());
    let twins = AtomicU64::new(0);
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(seed) = seeds.get(usize::try_from(next.fetch_add(1, Ordering::SeqCst)).unwrap()) {
                    match run_seed(*seed) {
                        Ok(most) if most > 1 => {
                            twins.fetch_add(1, Ordering::SeqCst);
                        }
                        Ok(_) => {}
                        Err(why) => failed.lock().unwrap().push((*seed, why)),
                    }
                }
            });
        }
    });
    println!("{} schedules, {} with a twin at some time", seeds.len(), twins.load(Ordering::SeqCst));
    let failed = failed.into_inner().unwrap();
    let text: Vec<_> = failed.iter().map(|(seed, why)| format!("TIELINE_SEED={seed}: {why}")).collect();
    assert!(failed.is_empty(), "{} of {} schedules failed:\n{}", failed.len(), seeds.len(), text.join("\n"));
}
