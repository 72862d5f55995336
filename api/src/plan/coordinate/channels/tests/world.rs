//! Two providers, a network between them that loses, doubles, delays and reorders, devices that hold keys, and operators.

use std::collections::{BTreeMap, BTreeSet};

use jiff::SignedDuration;
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tieline_openapi::coordinator::{ResourceId, Sensitive, Timestamp};
use uuid::Uuid;

use super::super::{super::tests::world as connections, *};
use crate::plan::coordinate::{MacSecTerms, Stale, Terms, tests::Kept};

pub(super) use connections::{id, start};

pub(super) fn at(interconnect: &str, channel: &str) -> ChannelPlace {
    ChannelPlace { environment: id("e1"), interconnect: id(interconnect), channel: id(channel) }
}

/// How often a side looks at a channel.
pub(super) const POLL: SignedDuration = SignedDuration::from_secs(60);

/// Two interconnects of four channels on four devices; north manages the keys of the first two, south of the others.
pub(super) fn terms(us: &str, them: &str) -> Terms {
    let mut terms = connections::terms(us, them, 64_512, false);
    terms.poll = POLL;
    let environment = terms.environments.get_mut(&id("e1")).unwrap();
    environment.interconnects.remove(&id("i3"));
    for interconnect in environment.interconnects.values_mut() {
        for (n, (channel, terms)) in interconnect.channels.iter_mut().enumerate() {
            terms.device = format!("{us}-{channel}");
            let managed_here = (n < 2) == (us == "north");
            let place = ChannelPlace { environment: id("e1"), interconnect: id("i1"), channel: channel.clone() };
            assert_eq!(managed_here, is_norths(&place) == (us == "north"));
            terms.macsec = Some(MacSecTerms { managed_here, bake: BAKE_TIME, rotate_after: None });
        }
    }
    terms
}

/// Whether north manages a channel's keys.
fn is_norths(at: &ChannelPlace) -> bool {
    matches!(at.channel.as_str(), "c1" | "c2")
}

pub(super) fn draw_of(n: u128) -> ChannelDraw {
    ChannelDraw {
        ids: [n, n + 1, n + 2].map(Uuid::from_u128),
        cak: Sensitive::new(format!("{n:064x}")),
        ckn: Sensitive::new(format!("{:064x}", n + 1)),
        jitter: 500,
    }
}

/// A device: what is installed on each channel, and what is in use.
#[derive(Debug, Clone, Default)]
pub(super) struct Device {
    pub installed: BTreeSet<String>,
    pub active: Option<String>,
}

pub(super) struct Side {
    pub book: Book,
    pub devices: BTreeMap<ChannelPlace, Device>,
    /// Until when a device is out of reach: true time.
    deaf: BTreeMap<ChannelPlace, i64>,
    pub skew: SignedDuration,
    due: BTreeMap<ChannelPlace, i64>,
}

enum Message {
    Ask(ChannelAsk, Uuid),
    Reply(ChannelAsk, ChannelReply),
}

/// How the world treats messages and processes, in thousandths.
#[derive(Debug, Clone, Copy)]
pub(super) struct Faults {
    pub lost: u32,
    pub doubled: u32,
    pub late: u32,
    pub crash: u32,
    pub device: u32,
}

pub(super) const NONE: Faults = Faults { lost: 0, doubled: 0, late: 0, crash: 0, device: 0 };
pub(super) const MANY: Faults = Faults { lost: 150, doubled: 150, late: 100, crash: 60, device: 300 };

pub(super) struct World {
    pub sides: [Side; 2],
    /// True time in milliseconds.
    pub at: i64,
    pub faults: Faults,
    pub random: ChaCha8Rng,
    network: BTreeMap<(i64, u64), (usize, Message)>,
    sent: u64,
    /// Channels that have carried once: from then on they always do.
    pub up: BTreeSet<ChannelPlace>,
    /// When each new key came into use on both sides, by interconnect: true time.
    pub rotated: BTreeMap<ResourceId, Vec<(i64, ChannelPlace)>>,
    counted: BTreeSet<(ChannelPlace, String)>,
    /// Whether requests carry ids.
    with_ids: bool,
    /// Where books are kept too.
    kept: Box<dyn Kept>,
}

impl World {
    pub(super) fn new(seed: u64) -> Self {
        Self::kept_in(Box::new(()), seed, POLL)
    }

    /// The same, whose books are kept somewhere else too, and which look at each other as often as is said.
    pub(super) fn kept_in(kept: Box<dyn Kept>, seed: u64, poll: SignedDuration) -> Self {
        let side = |us, them| Side {
            book: Book::new(Terms { poll, ..terms(us, them) }),
            devices: BTreeMap::new(),
            deaf: BTreeMap::new(),
            skew: SignedDuration::ZERO,
            due: BTreeMap::new(),
        };
        let mut world = Self {
            sides: [side("north", "south"), side("south", "north")],
            at: 0,
            faults: NONE,
            random: ChaCha8Rng::seed_from_u64(seed),
            network: BTreeMap::new(),
            sent: 0,
            up: BTreeSet::new(),
            rotated: BTreeMap::new(),
            counted: BTreeSet::new(),
            with_ids: seed.is_multiple_of(2),
            kept,
        };
        for side in 0..2 {
            let changes = world.sides[side].book.missing_channels(world.now(side));
            world.store(side, &changes);
        }
        world
    }

    pub(super) fn chance(&mut self, thousandths: u32) -> bool {
        self.random.random_range(0..1_000) < thousandths
    }

    pub(super) fn now(&self, side: usize) -> Timestamp {
        start() + SignedDuration::from_millis(self.at) + self.sides[side].skew
    }

    fn draw(&mut self) -> ChannelDraw {
        let mut bytes = [0; 16];
        self.random.fill_bytes(&mut bytes);
        ChannelDraw { jitter: self.random.random_range(0..=1_000), ..draw_of(u128::from_be_bytes(bytes) >> 8) }
    }

    pub(super) fn store(&mut self, side: usize, changes: &[Change]) {
        self.sides[side].book.apply(changes).unwrap();
        self.kept.stored(side, changes, &self.sides[side].book);
        for change in changes {
            if let Change::Channel(row) = change {
                self.sides[side].due.insert(row.at.clone(), self.at);
                self.check(side, &row.at.interconnect);
            }
        }
    }

    fn send(&mut self, to: usize, mut make: impl FnMut() -> Message) {
        let copies = 1 + u32::from(self.chance(self.faults.doubled));
        for _ in 0..copies {
            if self.chance(self.faults.lost) {
                continue;
            }
            let longest = if self.chance(self.faults.late) { 6 * 3_600_000 } else { 1_000 };
            let at = self.at + self.random.random_range(1..longest);
            self.sent += 1;
            self.network.insert((at, self.sent), (to, make()));
        }
    }

    /// Whether no message is on its way.
    pub(super) fn is_quiet(&self) -> bool {
        self.network.is_empty()
    }

    /// The next thing that happens; false if nothing will within `until`.
    pub(super) fn happen(&mut self, until: i64) -> bool {
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
        true
    }

    fn deliver(&mut self, to: usize, message: Message) {
        let now = self.now(to);
        match message {
            Message::Ask(ask, request_id) => {
                let digest = [u8::try_from(request_id.as_u128() & 0xff).unwrap(); 32];
                // The specification gives these operations no request id: a peer may send one.
                let request_id = (asks_once(&ask) && self.with_ids).then_some(request_id);
                let request = ChannelRequest { ask: ask.clone(), request_id, digest };
                let served = self.sides[to].book.serve_channel(&request, now);
                self.store(to, &served.changes);
                if !self.chance(self.faults.crash) {
                    let reply = served.reply;
                    self.send(1 - to, || Message::Reply(ask.clone(), reply.clone()));
                }
            }
            Message::Reply(ask, reply) => {
                let changes = self.sides[to].book.absorb_channel(&ask, Some(&reply), now);
                self.store(to, &changes);
                self.sides[to].due.insert(ask.at().clone(), self.at);
            }
        }
    }

    fn step(&mut self, side: usize, place: &ChannelPlace) {
        self.apply_keys(side, place);
        let (now, draw) = (self.now(side), self.draw());
        let step = self.sides[side].book.step_channel(place, now, &draw);
        let rival = self.chance(100).then(|| self.draw()).map(|d| self.sides[side].book.step_channel(place, now, &d));
        self.store(side, &step.changes);
        if let Some(rival) = rival.filter(|rival| !rival.changes.is_empty()) {
            assert_eq!(self.sides[side].book.apply(&rival.changes), Err(Stale));
            self.kept.outrun(side, &rival.changes);
        }
        let wait = step.wake.duration_since(now).as_millis() as i64;
        self.sides[side].due.insert(place.clone(), self.at + wait.clamp(i64::from(step.changes.is_empty()), 900_000));
        if let Some(ask) = step.ask
            && !self.chance(self.faults.crash)
        {
            let request_id = request_id(&ask);
            self.send(1 - side, || Message::Ask(ask.clone(), request_id));
        }
    }

    /// The device does what is wanted, now or later, and says how it is.
    fn apply_keys(&mut self, side: usize, place: &ChannelPlace) {
        if self.sides[side].deaf.get(place).is_some_and(|until| self.at < *until) {
            return;
        }
        if self.chance(self.faults.device) {
            // Mostly for this look; sometimes for so long that much happens meanwhile.
            let long = if self.chance(100) { self.random.random_range(1_000..1_800_000) } else { 0 };
            self.sides[side].deaf.insert(place.clone(), self.at + long);
            return;
        }
        let Some(wanted) = self.sides[side].book.wanted_keys(place) else { return };
        let device = self.sides[side].devices.entry(place.clone()).or_default();
        device.installed = wanted.installed.iter().map(|key| key.ckn.expose().to_owned()).collect();
        let active = wanted.active.map(|ckn| ckn.expose().to_owned());
        device.active = active.filter(|ckn| device.installed.contains(ckn));
        let report = KeyReport { installed: device.installed.iter().cloned().collect(), active: device.active.clone() };
        self.carries(place);
        let now = self.now(side);
        let changes = self.sides[side].book.observe_keys(place, &report, now);
        self.store(side, &changes);
    }

    /// What goes over a channel arrives where each end has what the other sends under. Once it does it always does.
    fn carries(&mut self, place: &ChannelPlace) {
        let [north, south] = [0, 1].map(|side| self.sides[side].devices.get(place).cloned().unwrap_or_default());
        let goes = |from: &Device, to: &Device| from.active.as_ref().is_some_and(|ckn| to.installed.contains(ckn));
        let up = goes(&north, &south) && goes(&south, &north);
        if up {
            self.up.insert(place.clone());
        }
        assert!(up || !self.up.contains(place), "{place:?} went down: {north:?} {south:?}");
        if let (Some(ours), Some(theirs)) = (&north.active, &south.active)
            && ours == theirs
            && self.counted.insert((place.clone(), ours.clone()))
        {
            let first = self.counted.iter().filter(|(at, _)| at == place).count() == 1;
            if !first {
                self.rotated.entry(place.interconnect.clone()).or_default().push((self.at, place.clone()));
            }
        }
    }

    /// What holds at every moment, of an interconnect of which a side has just stored something.
    fn check(&self, side: usize, interconnect: &ResourceId) {
        let rows = || self.sides[side].book.channels.values().filter(|row| row.at.interconnect == *interconnect);
        let (mut all, mut in_rotation) = (0, 0);
        for row in rows() {
            assert!(row.keys.len() <= 2, "more than two keys");
            let ours = is_norths(&row.at) == (side == 0);
            let known = |key: &&KeyRow| !key.is_tentative(ours) && key.theirs != KeyThere::Gone;
            let known = row.keys.iter().filter(known).count();
            all += known;
            in_rotation += usize::from(known > 1);
        }
        assert!(all <= 5, "more keys than channels and one: {:#?}", rows().collect::<Vec<_>>());
        assert!(in_rotation <= 1, "{in_rotation} channels change their keys at {}", self.sides[side].book.terms.us);
        self.check_windows(interconnect);
    }

    /// Never two channels of one interconnect under planned work, whoever's it is.
    fn check_windows(&self, interconnect: &ResourceId) {
        let mut closed: Option<(usize, &ChannelPlace)> = None;
        for (side, of) in self.sides.iter().enumerate() {
            for row in of.book.channels.values().filter(|row| row.at.interconnect == *interconnect) {
                if row.windows.iter().any(|window| window.is_under_way() && !window.emergency) {
                    let (first, at) = *closed.get_or_insert((side, &row.at));
                    assert!(*at == row.at, "{at:?} at {first} and {:?} at {side}, at {}", row.at, self.at);
                }
            }
        }
    }

    /// Both sides have one key a channel, the same, in use on both.
    pub(super) fn agree(&self) -> Result<(), String> {
        let [north, south] = &self.sides;
        for (place, ours) in &north.book.channels {
            let theirs = &south.book.channels[place];
            let ([our], [their]) = (ours.keys.as_slice(), theirs.keys.as_slice()) else {
                let refused = [
                    north.book.may_add_key(ours, self.now(0), false),
                    south.book.may_add_key(theirs, self.now(1), true),
                ];
                return Err(format!("{place:?}: {refused:?} {ours:#?} and {theirs:#?}"));
            };
            if our.id != their.id || our.ckn != their.ckn || our.cak != their.cak {
                return Err(format!("{place:?}: keys differ"));
            }
            for (side, row) in [(north, ours), (south, theirs)] {
                if row.keys[0].ours != KeyState::Active || row.wish.is_some() || row.shown.0 != row.shown.1 {
                    return Err(format!("{place:?} is not settled at {}: {row:?}", side.book.terms.us));
                }
                if row.windows.iter().any(Window::is_open) || !row.theirs.is_empty() || !row.stray.is_empty() {
                    return Err(format!("{place:?} has work left at {}: {row:?}", side.book.terms.us));
                }
            }
        }
        Ok(())
    }
}

fn asks_once(ask: &ChannelAsk) -> bool {
    matches!(ask, ChannelAsk::CreateKey { .. } | ChannelAsk::DeleteKey { .. } | ChannelAsk::RequestRotation { .. })
}

fn request_id(ask: &ChannelAsk) -> Uuid {
    match ask {
        ChannelAsk::CreateKey { request_id, .. }
        | ChannelAsk::DeleteKey { request_id, .. }
        | ChannelAsk::RequestRotation { request_id, .. } => *request_id,
        ChannelAsk::Events { .. } | ChannelAsk::NotifyMaintenance { .. } | ChannelAsk::Keys { .. } => Uuid::nil(),
    }
}
