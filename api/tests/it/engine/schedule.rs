//! One random schedule, and what must hold at every moment of it and at its end.

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::Ordering},
};

use tieline_api::engine::clock::{ChaChaRandom, Random};
use tieline_openapi::{
    ids::ConnectionId,
    v1::{OperationState, Verb},
};
use tieline_providers::{
    IdentityKind,
    fake::{Chaos, PEER, Timing},
};

use super::{
    sim::{ACCOUNTS, Database, LAG_MS, Sim, config},
    store::{LONGEST_WAY_MS, Place},
    weather::{Weather, is_excused},
};

const HOUR_MS: i64 = 3_600_000;

/// A token's lifetime that is over before a lost create shows.
const SHORT_LIFE_MS: u64 = 400;

/// How long things go wrong, in milliseconds.
const BAD_MS: u64 = 16_000;

/// Connections of one name that a schedule makes one after the other, at most.
const LIVES: u32 = 3;

fn kind_of(seed: u64) -> IdentityKind {
    match seed % 5 {
        0 => IdentityKind::Named,
        1 => IdentityKind::Slot,
        // A token that lives long, or hardly longer than an answer takes.
        2 => IdentityKind::Token {
            lifetime_ms: if (seed / 20).is_multiple_of(2) { 24 * 3_600_000 } else { SHORT_LIFE_MS },
        },
        3 => IdentityKind::Tagged,
        _ => IdentityKind::Blind,
    }
}

/// In half of the schedules no fault outlasts what the engine waits out, and no request is doubled: then nothing is ever
/// doubled on a cloud of any kind, no shared object is harmed, and the sweep finds nothing.
fn is_strict(seed: u64) -> bool {
    (seed / 5).is_multiple_of(2)
}

/// What ends a temporary disturbance.
enum End {
    Credential(&'static str),
    Clock(u32),
    StoreClock,
    Restart,
}

/// One link of a schedule: a name, under which connections follow each other.
struct Link {
    name: &'static str,
    redundancy: &'static str,
    id: ConnectionId,
    /// When its deletion is asked for.
    delete_at: u64,
    lives: u32,
}

pub(crate) struct Schedule {
    pub(crate) sim: Sim,
    /// The most live resources that any instance had at a time.
    pub(crate) most: usize,
    seed: u64,
    dice: ChaChaRandom,
    weather: Arc<Weather>,
    identity: IdentityKind,
    strict: bool,
    store_stepped: bool,
    ends: BTreeMap<u64, Vec<End>>,
    links: Vec<Link>,
    /// Every connection that there ever was.
    all: Vec<ConnectionId>,
}

impl Schedule {
    pub(crate) async fn new(seed: u64, database: Database) -> Self {
        let (identity, strict) = (kind_of(seed), is_strict(seed));
        let mut weather = None;
        let timing = Timing { lag_ms: LAG_MS, settle_ms: 300 };
        let sim = Sim::new(seed, identity, timing, database, |sched, rows| {
            let made = Arc::new(Weather::new(seed.wrapping_mul(3) + 1, identity, strict, sched, rows));
            weather = Some(Arc::clone(&made));
            Some(made as Arc<dyn Chaos>)
        });
        let sim = sim.await;
        let mut schedule = Self {
            sim,
            most: 0,
            seed,
            dice: ChaChaRandom::from_seed(seed.wrapping_mul(3) + 2),
            weather: weather.expect("the simulation asked for it"),
            identity,
            strict,
            store_stepped: false,
            ends: BTreeMap::new(),
            links: Vec::new(),
            all: Vec::new(),
        };
        // Half of the clouds whose slots tell show for a while what was in one.
        if identity == IdentityKind::Slot && (seed / 20).is_multiple_of(2) {
            schedule.sim.world.set_tombstones(2_000 + seed % 4_000);
        }
        schedule.sim.start();
        schedule.sim.start();
        let dual = if (seed / 10).is_multiple_of(2) { "DUAL" } else { "SINGLE" };
        for _ in 0..schedule.dice.below(3) {
            schedule.sim.stranger_comes(identity != IdentityKind::Slot).await;
        }
        for (name, redundancy) in [("one", dual), ("two", "SINGLE")] {
            let id = schedule.create(name, redundancy).await;
            let delete_at = schedule.dice.below(30_000);
            schedule.links.push(Link { name, redundancy, id, delete_at, lives: 1 });
        }
        schedule
    }

    /// Gives the database back.
    pub(crate) async fn end(self) {
        self.sim.close().await;
    }

    fn chance(&self, per_mille: u64) -> bool {
        self.dice.below(1_000) < per_mille
    }

    async fn create(&mut self, name: &str, redundancy: &str) -> ConnectionId {
        let id = self.sim.create(name, redundancy).await;
        self.all.push(id);
        // A stranger is faster, with exactly what we want, where a key tells one resource from another.
        if self.identity == IdentityKind::Slot && self.chance(300) {
            self.sim.forestall(id).await;
        }
        id
    }

    // ---- what goes wrong ------------------------------------------------------------------------------------------

    fn until(&mut self, within_ms: u64, end: End) {
        let at = self.sim.sched.now_ms() + 1 + self.dice.below(within_ms);
        self.ends.entry(at).or_default().push(end);
    }

    async fn end_due(&mut self, all: bool) {
        let now = if all { u64::MAX } else { self.sim.sched.now_ms() };
        while let Some(entry) = self.ends.first_entry().filter(|entry| *entry.key() <= now) {
            for end in entry.remove() {
                match end {
                    End::Credential(account) => self.sim.world.set_wrong_credential(account, false),
                    End::Clock(replica) => self.sim.step_clock(replica, 0),
                    End::StoreClock if all || self.is_quiet() => self.sim.store_stepped_ms.store(0, Ordering::SeqCst),
                    End::StoreClock => self.until(300, End::StoreClock),
                    End::Restart => {
                        self.sim.start();
                    }
                }
            }
        }
    }

    /// Whether the store's clock may be stepped. Waits are counted by it, so a step would cut one short: no create is on its
    /// way or not visible yet, and no pass is under way, which goes by the time at which it began.
    fn is_quiet(&self) -> bool {
        self.sim.rows.quiet_for(self.sim.sched.now_ms()) > LAG_MS && self.is_between_passes()
    }

    fn is_between_passes(&self) -> bool {
        let idle = ["sleep", "next_due", "claim", "account_watch", "housekeep"];
        self.sim.sched.list().iter().all(|(_, _, what, _)| idle.contains(&what.as_str()))
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
        } else if self.chance(6) && !(self.strict && self.sim.about_to_send(Some(replica))) {
            let until = self.sim.sched.now_ms() + self.dice.below(6_000);
            self.sim.trace.push(format!("        freeze {replica} until {until}"));
            self.sim.frozen.insert(replica, until);
        } else if self.chance(8) {
            let account = ACCOUNTS[usize::try_from(self.dice.below(2)).unwrap()];
            self.sim.trace.push(format!("        wrong credential {account}"));
            self.sim.world.set_wrong_credential(account, true);
            self.until(6_000, End::Credential(account));
        } else if self.chance(6) {
            let by = if self.chance(500) { HOUR_MS } else { -HOUR_MS };
            self.sim.trace.push(format!("        clock of {replica} by {by}"));
            self.sim.step_clock(replica, by);
            self.until(3_000, End::Clock(replica));
        } else if !self.strict && self.chance(4) && self.is_quiet() {
            let by = if self.chance(500) { HOUR_MS } else { -HOUR_MS };
            self.sim.trace.push(format!("        clock of the store by {by}"));
            self.weather.step_store();
            self.store_stepped = true;
            self.sim.store_stepped_ms.store(by, Ordering::SeqCst);
            self.until(3_000, End::StoreClock);
        } else if self.chance(6) {
            self.sim.stranger_comes(self.identity != IdentityKind::Slot).await;
        } else if self.chance(4) {
            self.sim.stranger_goes();
        } else if !matches!(self.identity, IdentityKind::Named | IdentityKind::Blind) && self.chance(3) {
            self.sim.impostor_comes().await;
        } else if self.chance(8) && !(self.strict && self.sim.about_to_send(None)) {
            let to = self.sim.sched.now_ms() + self.dice.below(2_000);
            self.sim.advance_to(to);
        }
    }

    /// What users do: change, delete, create again.
    async fn use_it(&mut self) {
        let now = self.sim.sched.now_ms();
        if self.identity == IdentityKind::Blind && self.chance(20) {
            self.sim.answer_issues(LONGEST_WAY_MS).await;
        }
        let removed = self.sim.rows.take_removed();
        let shaken = self.weather.take_shaken();
        for n in 0..self.links.len() {
            let Link { id, name, redundancy, delete_at, lives } = self.links[n];
            if delete_at <= now {
                self.sim.trace.push(format!("        delete {name} {id}"));
                self.links[n].delete_at = u64::MAX;
                self.sim.delete(id).await;
            } else if delete_at != u64::MAX && shaken.contains(&id) && self.chance(150) {
                // In the middle of a create is when a deletion hurts.
                self.links[n].delete_at = now + self.dice.below(900);
            } else if delete_at != u64::MAX && self.chance(4) {
                self.sim.trace.push(format!("        change {name} {id}"));
                self.sim.change(id).await;
            }
            if removed.contains(&id) && lives < LIVES && now < BAD_MS * 2 / 3 {
                self.sim.trace.push(format!("        create {name} again"));
                self.links[n].id = self.create(name, redundancy).await;
                self.links[n].delete_at = now + self.dice.below(20_000);
                self.links[n].lives += 1;
            }
        }
    }

    /// Lets one thing go on, whichever the dice say; or lets the time pass.
    async fn go_on(&mut self) {
        let ready = self.sim.ready();
        if ready.is_empty() {
            let next = self.sim.next_ready().into_iter().chain(self.ends.keys().next().copied()).min();
            let to = next.unwrap_or_else(|| self.sim.sched.now_ms() + 100);
            self.sim.advance_to(to);
            return;
        }
        let (id, replica, what) = ready[usize::try_from(self.dice.below(ready.len().min(6) as u64)).unwrap()].clone();
        // The pause between the lease check and the socket; and the one before a transaction, which the fence guards.
        let pause = match what.as_str() {
            "before-send" | "socket" if !self.strict => 120,
            "write_row" => 60,
            "write_fenced" => 15,
            _ => 0,
        };
        if self.chance(pause) {
            let until = self.sim.sched.now_ms() + self.dice.below(7_000);
            self.sim.trace.push(format!("        hold {replica} at {what} until {until}"));
            self.sim.held.insert(id, until);
            return;
        }
        let later = self.sim.sched.now_ms() + self.dice.below(10);
        self.sim.advance_to(later);
        self.sim.resume(id, format!("{replica} {what}")).await;
        self.check_now();
    }

    // ---- what must hold -------------------------------------------------------------------------------------------

    /// What must hold at every moment.
    fn check_now(&mut self) {
        let mut instances: BTreeMap<_, usize> = BTreeMap::new();
        let mut places: BTreeMap<Place, usize> = BTreeMap::new();
        for instance in self.sim.world.live_instances() {
            *instances.entry(instance).or_default() += 1;
            let place = self.sim.rows.place(instance);
            *places.entry(place.expect("what exists has a row")).or_default() += 1;
        }
        for (instance, live) in instances {
            self.most = self.most.max(live);
            let excess = match self.identity {
                IdentityKind::Tagged | IdentityKind::Token { lifetime_ms: SHORT_LIFE_MS } => {
                    self.weather.excess(self.sim.rows.place(instance).as_ref()).min(1)
                }
                IdentityKind::Named | IdentityKind::Slot | IdentityKind::Token { .. } | IdentityKind::Blind => 0,
            };
            assert!(live <= 1 + excess, "{live} live resources of one instance, {excess} excused");
        }
        for (place, live) in places {
            let excused = place.2 == PEER.as_str() && self.weather.may_harm();
            let excess = self.weather.excess(Some(&place));
            assert!(excused || live <= 1 + excess, "{live} live resources in one place, {excess} excused: {place:?}");
        }
        self.check_found();
        let harms = self.sim.world.harms();
        assert!(harms.is_empty() || self.weather.may_harm(), "parts of a shared object were harmed: {harms:?}");
    }

    /// The sweep finds only what a fault made that the engine cannot prevent: anything else was let out of sight.
    fn check_found(&self) {
        for instance in self.sim.rows.take_found() {
            let place = self.sim.rows.place(instance);
            let excused = is_excused(&self.weather, &self.sim.rows, instance);
            assert!(excused, "the sweep found what no fault excuses: {place:?}");
        }
    }

    /// Every request has its row in the ledger.
    fn check_wire(&self) {
        let mut sent: BTreeMap<_, (Verb, u32)> = BTreeMap::new();
        for record in self.sim.world.wire() {
            sent.entry((record.instance, format!("{:?}", record.verb))).or_insert((record.verb, 0)).1 += 1;
        }
        for ((instance, _), (verb, count)) in sent {
            let rows = self.sim.rows.count(instance, verb);
            assert!(count <= rows, "{count} requests of {verb:?} for {rows} ledger rows");
        }
    }

    pub(crate) async fn run(&mut self) {
        while self.sim.sched.now_ms() < BAD_MS && self.sim.trace.len() < 5_000 {
            self.use_it().await;
            self.end_due(false).await;
            self.disturb().await;
            self.go_on().await;
        }
        self.calm().await;
        let kept: Vec<_> = self.links.iter().filter(|link| link.delete_at != u64::MAX).map(|link| link.id).collect();
        if !kept.is_empty() {
            self.settle(&kept).await;
            for id in kept {
                self.sim.delete(id).await;
            }
        }
        self.go().await;
        self.check_wire();
    }

    /// Everything works again.
    async fn calm(&mut self) {
        self.sim.trace.push("        calm".to_owned());
        self.weather.on.store(false, Ordering::SeqCst);
        self.sim.frozen.clear();
        self.sim.held.clear();
        // Nothing is on its way for longer, whatever a row says of which nobody wrote the end.
        let end = self.sim.sched.now_ms() + LONGEST_WAY_MS + LAG_MS;
        let is_over = |this: &Self| this.is_quiet() || this.sim.sched.now_ms() > end && this.is_between_passes();
        while self.sim.store_stepped_ms.load(Ordering::SeqCst) != 0 && !is_over(self) {
            // Who crashed comes back: without a replica, nobody ends what is on its way.
            self.end_due(false).await;
            self.go_on().await;
        }
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
    }

    /// What was not deleted comes up.
    async fn settle(&mut self, ids: &[ConnectionId]) {
        let settled = self
            .sim
            .run_until(600_000, async |sim| {
                sim.answer_issues(0).await;
                for id in ids {
                    if sim.last_operation(*id).await.state != OperationState::Succeeded {
                        return false;
                    }
                }
                true
            })
            .await;
        assert!(settled, "seed {} does not settle:\n{}", self.seed, self.sim.standstill().await);
        // A twin is gone within quarantine and one sweep; where none can be, two rounds of lists have to show what is there.
        let rest_ms = if self.weather.any_excess() { 9_000 } else { 2 * config().settled_poll_ms + LAG_MS };
        self.sim.run_until(rest_ms, async |_| false).await;
        assert!(self.sim.most_live() <= 1, "a twin outlived the sweep");
        self.check_found();
        self.sim.verify_foreign().await;
        for id in ids {
            self.check_built(*id).await;
        }
    }

    /// What a settled connection is configured as is what its clouds have, and it holds all of that.
    async fn check_built(&self, id: ConnectionId) {
        let (record, all) = (self.sim.record(id).await.expect("it is settled"), self.sim.allocated().await);
        for channel in &record.negotiated.channels {
            for side in [&channel.sides.a, &channel.sides.b] {
                assert!(all.vlans[&side.port_id].contains(&side.vlan.get()), "VLAN {} is not held", side.vlan);
                let pair = side.ipv4.fixed().expect("the addresses are known");
                let reserved = &channel.reserved_subnets;
                assert!(reserved.iter().any(|net| net.contains(&pair.subnet)), "{} is not reserved", pair.subnet);
                for net in reserved {
                    assert!(all.subnets[&side.attach_point_id].contains(net), "{net} is not held");
                }
            }
            let made = record.instances.iter().filter(|i| i.channel_id == channel.channel_id && i.twin.is_none());
            for observed in made.filter_map(|instance| instance.present()) {
                let side = &channel.sides.a;
                assert_eq!(observed.fields["vlan"], side.vlan.get(), "{}", observed.cloud_id);
                let mtu = observed.fields.get("mtu");
                assert!(mtu.is_none_or(|mtu| *mtu == side.mtu.get()), "{mtu:?} of {}", observed.cloud_id);
            }
        }
        let private = record.negotiated.channels.iter().map(|channel| channel.sides.a.mtu).min();
        assert_eq!(private, Some(record.negotiated.effective.private_mtu_bytes));
    }

    /// What was deleted goes, and leaves nothing.
    async fn go(&mut self) {
        let ids = self.all.clone();
        let gone = self
            .sim
            .run_until(7_200_000, async |sim| {
                sim.answer_issues(0).await;
                for id in &ids {
                    if sim.record(*id).await.is_some() {
                        return false;
                    }
                }
                true
            })
            .await;
        assert!(gone, "seed {} is not gone:\n{}", self.seed, self.sim.standstill().await);
        let rest_ms = if self.weather.any_excess() { 9_000 } else { config().quarantine_ms + 1_000 };
        self.sim.run_until(rest_ms, async |_| false).await;
        self.sim.verify_clean_slate();
        self.check_found();
        // What went into quarantine while the store's clock was an hour ahead stays there for that hour.
        if !self.store_stepped {
            self.sim.verify_nothing_held().await;
        }
        self.sim.verify_foreign().await;
    }
}
