//! Two providers, a network between them that loses, doubles, delays and reorders, routers, customers and clocks.

use std::collections::{BTreeMap, BTreeSet};

use jiff::SignedDuration;
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tieline_openapi::{
    coordinator::{L3Base, ResourceId, Sensitive, Timestamp},
    units::Asn,
};
use uuid::Uuid;

use super::{
    super::{step::Wanted, *},
    Kept,
};

pub(in crate::plan::coordinate) fn id(text: &str) -> ResourceId {
    text.parse().unwrap()
}

/// 2026-01-05T00:00:00Z. Asked for so often that it is not parsed each time.
pub(crate) const fn start() -> Timestamp {
    Timestamp::constant(1_767_571_200, 0)
}

/// What both sides agree on: one environment, three interconnects of 10 Gbit/s, four channels each, few VLANs and subnets.
pub(crate) fn terms(us: &str, them: &str, asn: u32, defers: bool) -> Terms {
    let channel = ChannelTerms {
        enabled: true,
        in_maintenance: false,
        vlans: (1_025, 1_034),
        mtus: vec![(1_500, 1_500), (8_500, if us == "north" { 9_000 } else { 8_800 })],
        subnets: vec!["169.254.10.0/25".parse().unwrap()],
        excluded: vec!["169.254.10.0/29".parse().unwrap()],
        lengths: if us == "north" { vec![29, 30] } else { vec![30, 29] },
        asn: Asn::try_from(u64::from(asn)).unwrap(),
        device: "d".to_owned(),
        macsec: None,
    };
    let interconnect = InterconnectTerms {
        open: true,
        max_bandwidth_mbps: 10_000,
        channels: (1..=4).map(|n| (id(&format!("c{n}")), channel.clone())).collect(),
    };
    let environment = EnvironmentTerms {
        sizes_mbps: [1_000, 2_000, 5_000].into_iter().collect(),
        defers,
        takes_deferral: true,
        deferral_timeout: SignedDuration::from_hours(72),
        interconnects: (1..=3).map(|n| (id(&format!("i{n}")), interconnect.clone())).collect(),
    };
    Terms {
        us: us.to_owned(),
        them: them.to_owned(),
        environments: [(id("e1"), environment)].into_iter().collect(),
        poll: SignedDuration::from_secs(10),
        settled_poll: SignedDuration::from_secs(600),
    }
}

/// How the world treats messages and processes, in thousandths.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Faults {
    pub lost: u32,
    pub doubled: u32,
    pub late: u32,
    pub crash: u32,
}

impl Faults {
    pub(super) const NONE: Self = Self { lost: 0, doubled: 0, late: 0, crash: 0 };
    pub(super) const MANY: Self = Self { lost: 150, doubled: 150, late: 100, crash: 60 };
}

type Configured = BTreeMap<(ResourceId, ResourceId), BTreeMap<Place, (L3Base, bool)>>;

/// One provider: what it has stored, and its routers.
pub(crate) struct Side {
    pub book: Book,
    pub routers: Configured,
    /// What its clock is off by.
    pub skew: SignedDuration,
    /// When each connection is due, in true time.
    due: BTreeMap<Place, i64>,
}

enum Message {
    Ask { from: Place, ask: Ask },
    Reply { to: Place, ask: Ask, reply: Reply },
}

pub(crate) struct World {
    pub sides: [Side; 2],
    /// True time in milliseconds.
    pub at: i64,
    pub faults: Faults,
    pub random: ChaCha8Rng,
    network: BTreeMap<(i64, u64), (usize, Message)>,
    sent: u64,
    /// What was asked, to count it.
    pub asked: Vec<(usize, Ask)>,
    /// Where routers are behind.
    unrouted: BTreeSet<(usize, Place)>,
    pub stale: usize,
    /// Where books are kept too.
    kept: Box<dyn Kept>,
}

impl World {
    pub(super) fn new(seed: u64, defers: [bool; 2]) -> Self {
        Self::kept_in(Box::new(()), seed, defers)
    }

    /// The same, whose books are kept somewhere else too.
    pub(super) fn kept_in(kept: Box<dyn Kept>, seed: u64, defers: [bool; 2]) -> Self {
        let side = |terms| Side {
            book: Book::new(terms),
            routers: BTreeMap::new(),
            skew: SignedDuration::ZERO,
            due: BTreeMap::new(),
        };
        Self {
            sides: [side(terms("north", "south", 64_512, defers[0])), side(terms("south", "north", 64_513, defers[1]))],
            at: 0,
            faults: Faults::NONE,
            random: ChaCha8Rng::seed_from_u64(seed),
            network: BTreeMap::new(),
            sent: 0,
            asked: Vec::new(),
            unrouted: BTreeSet::new(),
            stale: 0,
            kept,
        }
    }

    pub(super) fn chance(&mut self, thousandths: u32) -> bool {
        self.random.random_range(0..1_000) < thousandths
    }

    pub(super) fn now(&self, side: usize) -> Timestamp {
        start() + SignedDuration::from_millis(self.at) + self.sides[side].skew
    }

    pub(super) fn uuid(&mut self) -> Uuid {
        let mut bytes = [0; 16];
        self.random.fill_bytes(&mut bytes);
        Uuid::from_bytes(bytes)
    }

    pub(super) fn draw(&mut self) -> Draw {
        Draw {
            ids: [self.uuid(), self.uuid(), self.uuid()],
            password: Sensitive::new(self.uuid().simple().to_string()),
            jitter: self.random.random_range(0..=1_000),
        }
    }

    /// Stores, and comes back to whatever changed at once.
    pub(super) fn store(&mut self, side: usize, changes: &[Change]) {
        self.sides[side].book.apply(changes).unwrap();
        self.kept.stored(side, changes, &self.sides[side].book);
        for change in changes {
            if let Change::Put(row) = change {
                self.sides[side].due.insert(row.place.clone(), self.at);
                self.unrouted.insert((side, row.place.clone()));
            }
        }
        self.check_sums(side);
    }

    fn send(&mut self, to: usize, mut make: impl FnMut() -> Message) {
        let copies = 1 + u32::from(self.chance(self.faults.doubled));
        for _ in 0..copies {
            if self.chance(self.faults.lost) {
                continue;
            }
            // Mostly within a second; sometimes so late that everybody has given up long ago.
            let longest = if self.chance(self.faults.late) { 6 * 3_600_000 } else { 1_000 };
            let at = self.at + self.random.random_range(1..longest);
            self.sent += 1;
            self.network.insert((at, self.sent), (to, make()));
        }
    }

    fn route_all(&mut self) {
        for (side, place) in std::mem::take(&mut self.unrouted) {
            self.route(side, &place);
        }
    }

    /// The next thing that happens; false if nothing will within `until`.
    pub(super) fn happen(&mut self, until: i64) -> bool {
        self.route_all();
        let message = self.network.keys().next().copied();
        let due = (0..2).filter_map(|side| {
            let (place, at) = self.sides[side].due.iter().min_by(|(p, a), (q, b)| a.cmp(b).then(p.cmp(q)))?;
            Some((*at, side, place))
        });
        let due = due.min().map(|(at, side, place)| (at, side, place.clone()));
        let next = message.map_or(i64::MAX, |(at, _)| at).min(due.as_ref().map_or(i64::MAX, |(at, ..)| *at));
        if next > until {
            self.at = until;
            return false;
        }
        self.at = self.at.max(next);
        match (message, due) {
            (Some(key), due) if due.as_ref().is_none_or(|(at, ..)| key.0 <= *at) => {
                let (to, message) = self.network.remove(&key).unwrap();
                self.deliver(to, message);
            }
            (_, Some((_, side, place))) => self.step(side, &place),
            (_, None) => {}
        }
        self.route_all();
        true
    }

    fn deliver(&mut self, to: usize, message: Message) {
        let now = self.now(to);
        match message {
            Message::Ask { from, ask } => {
                let request = request(&ask);
                let served = self.sides[to].book.serve(&request, now);
                self.store(to, &served.changes);
                if !self.chance(self.faults.crash) {
                    let reply = served.reply;
                    self.send(1 - to, || Message::Reply { to: from.clone(), ask: ask.clone(), reply: reply.clone() });
                }
            }
            Message::Reply { to: place, ask, reply } => {
                let changes = self.sides[to].book.absorb(&place, &ask, Some(&reply), now);
                self.store(to, &changes);
                if self.sides[to].book.rows.contains_key(&place) {
                    self.sides[to].due.insert(place, self.at);
                }
            }
        }
    }

    fn step(&mut self, side: usize, place: &Place) {
        let (now, draw) = (self.now(side), self.draw());
        let step = self.sides[side].book.step(place, now, &draw);
        // A second worker that read the same finds that it was too slow.
        let rival = self.chance(100).then(|| self.draw()).map(|draw| self.sides[side].book.step(place, now, &draw));
        self.store(side, &step.changes);
        if let Some(rival) = rival.filter(|rival| !rival.changes.is_empty()) {
            assert_eq!(self.sides[side].book.apply(&rival.changes), Err(Stale));
            self.kept.outrun(side, &rival.changes);
            self.stale += 1;
        }
        let wait = step.wake.duration_since(now).as_millis() as i64;
        self.sides[side].due.insert(place.clone(), self.at + wait.clamp(i64::from(step.changes.is_empty()), 900_000));
        if !self.sides[side].book.rows.contains_key(place) {
            self.sides[side].due.remove(place);
        }
        // Between the store and the wire a process may die.
        if let Some(ask) = step.ask
            && !self.chance(self.faults.crash)
        {
            self.asked.push((side, ask.clone()));
            self.send(1 - side, || Message::Ask { from: place.clone(), ask: ask.clone() });
        }
    }

    /// The routers do what is wanted, now or later, and say how their sessions are.
    fn route(&mut self, side: usize, place: &Place) {
        for (channel, wanted) in self.sides[side].book.wanted(place) {
            if self.faults.lost > 0 && self.chance(300) {
                self.unrouted.insert((side, place.clone()));
                continue;
            }
            let slot = (place.interconnect.clone(), channel.clone());
            let [north, south] = &mut self.sides;
            let (own, peer) = if side == 0 { (north, south) } else { (south, north) };
            let feature = &own.book.rows[place].features[&channel];
            let configured = own.routers.entry(slot.clone()).or_default();
            let drained = match wanted {
                Wanted::Gone => None,
                Wanted::Carry => Some(false),
                Wanted::Drained => Some(true),
            };
            let changed = match (drained, configured.get(place)) {
                (None, is) => is.is_some(),
                (Some(drained), is) => is.is_none_or(|(config, is)| *is != drained || *config != feature.config),
            };
            if changed {
                match drained {
                    None => drop(configured.remove(place)),
                    Some(drained) => drop(configured.insert(place.clone(), (feature.config.clone(), drained))),
                }
                self.unrouted.insert((1 - side, place.clone()));
            }
            let theirs = peer.routers.get(&slot).and_then(|at| at.get(place));
            let local = match (configured.get(place), theirs) {
                (None, _) => Local::Reserved,
                (Some((_, true)), _) => Local::Drained,
                // A session comes up where VLAN, addresses and key are the same.
                (Some((ours, _)), Some((theirs, _))) if ours == theirs => Local::Up,
                (Some(_), _) => Local::Down,
            };
            let news = local != feature.ours;
            if changed {
                self.check_channel(&slot);
            }
            if news {
                let changes = self.sides[side].book.observe(place, &channel, local);
                self.store(side, &changes);
            }
        }
    }

    /// No two connections have one VLAN or share a subnet in the routers of a channel, whichever side is looked at.
    fn check_channel(&self, slot: &(ResourceId, ResourceId)) {
        let live: Vec<(&Place, &L3Base)> = self
            .sides
            .iter()
            .filter_map(|side| side.routers.get(slot))
            .flatten()
            .map(|(place, (config, _))| (place, config))
            .collect();
        for (n, (place, config)) in live.iter().enumerate() {
            for (other, theirs) in live[..n].iter().filter(|(other, _)| other != place) {
                let (net, other_net) = (config.ipv4.as_ref().unwrap().subnet, theirs.ipv4.as_ref().unwrap().subnet);
                let shared = config.vlan == theirs.vlan || net.contains(&other_net) || other_net.contains(&net);
                assert!(!shared, "{place:?} and {other:?} share {config:?} on {slot:?}");
            }
        }
    }

    /// No interconnect is sold twice.
    fn check_sums(&self, side: usize) {
        let book = &self.sides[side].book;
        let mut sums: BTreeMap<&ResourceId, u32> = BTreeMap::new();
        for row in book.rows.values().filter(|row| row.leaving.is_none() && !row.is_tentative()) {
            *sums.entry(&row.place.interconnect).or_default() += row.held_mbps();
        }
        for (interconnect, sum) in sums {
            assert!(sum <= 10_000, "{interconnect} is sold {sum} Mbit/s at {}", book.terms.us);
        }
        self.check_holds(side);
    }

    /// What a database holds as constraints holds after every transaction.
    fn check_holds(&self, side: usize) {
        let book = &self.sides[side].book;
        let mut slots = BTreeMap::new();
        for (place, hold) in book.rows.iter().flat_map(|(place, row)| row.holds().map(move |hold| (place, hold))) {
            let of: &mut Vec<Hold<'_>> = slots.entry((&place.interconnect, hold.channel)).or_default();
            let clash = of
                .iter()
                .find(|o| o.vlan == hold.vlan || o.subnet.contains(&hold.subnet) || hold.subnet.contains(&o.subnet));
            assert!(clash.is_none(), "{place:?} holds {hold:?} beside {clash:?} at {}", book.terms.us);
            of.push(hold);
        }
    }

    /// Everything runs until nothing moves for a while, at most for so many hours.
    pub(super) fn settle(&mut self, hours: i64, done: impl Fn(&Self) -> bool) {
        let until = self.at + hours * 3_600_000;
        while self.happen(until) {
            if self.network.is_empty() && done(self) {
                return;
            }
        }
    }

    /// Both sides know the same, and everything works.
    pub(super) fn agree(&self) -> Result<(), String> {
        let [north, south] = &self.sides;
        let places = |side: &Side| side.book.rows.keys().cloned().collect::<Vec<_>>();
        if places(north) != places(south) {
            return Err(format!("places differ: {:?} {:?}", places(north), places(south)));
        }
        for (place, ours) in &north.book.rows {
            let theirs = &south.book.rows[place];
            if ours.bandwidth_mbps != theirs.bandwidth_mbps || ours.uuid != theirs.uuid {
                return Err(format!("{place:?}: bandwidth or UUID differ"));
            }
            let of = |row: &Row| {
                row.features.iter().map(|(c, f)| (c.clone(), f.id.clone(), f.config.clone())).collect::<Vec<_>>()
            };
            if of(ours) != of(theirs) {
                return Err(format!("{place:?}: features differ"));
            }
            for (side, row) in [(north, ours), (south, theirs)] {
                if !row.is_verified(&side.book.terms) {
                    return Err(format!("{place:?} is not verified at {}", side.book.terms.us));
                }
            }
        }
        Ok(())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.sides.iter().all(|side| side.book.rows.is_empty() && side.routers.values().all(BTreeMap::is_empty))
    }

    /// A customer brings a key from one side to the other.
    pub(super) fn buy(&mut self, issuer: usize, mbps: u32) -> Option<(Uuid, Place)> {
        let (key, draw) = (self.uuid(), self.draw());
        let issued = self.sides[issuer].book.issue_key(&id("e1"), mbps, key, [0; 32], self.now(issuer)).ok()?;
        self.store(issuer, &issued);
        let at = self.now(1 - issuer);
        let accepted = self.sides[1 - issuer].book.accept_key(&id("e1"), key, mbps, Kind::Standard, at, &draw);
        let (place, changes) = accepted.ok()?;
        self.store(1 - issuer, &changes);
        Some((key, place))
    }
}

pub(super) fn request(ask: &Ask) -> Request {
    let bytes = serde_json::to_vec(ask).unwrap();
    let mut digest = [0u8; 32];
    for (n, byte) in bytes.iter().enumerate() {
        digest[n % 32] = digest[n % 32].rotate_left(3).wrapping_add(*byte);
    }
    Request { ask: ask.clone(), request_id: ask.request_id(), digest }
}
