//! What a wish leads to where nothing goes wrong: the protocol's own steps, taken against a peer and routers that do at once
//! what they are asked. So a plan cannot say something else than is done.

use std::collections::{BTreeMap, BTreeSet};

use tieline_openapi::coordinator::{L3Base, ResourceId, Sensitive, Timestamp};
use uuid::Uuid;

use super::{
    choose::ChannelGuidance,
    serve::{Reply, Request, SeenFeature},
    state::{Book, Change, Draw, FeatureRow, Kind, Local, Place, Remote, Row, Source},
    step::{Ask, Wanted},
};

/// More rounds than any wish takes: each asks for something, or waits.
const ROUNDS: usize = 2_000;
/// Rounds in which nothing happens but looks and time; then nothing will.
const IDLE: usize = 24;

/// One thing that we do, or ask the peer to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Planned {
    /// For the connection at this place.
    pub place: Place,
    /// For this channel of it; none for the connection as a whole.
    pub channel: Option<ResourceId>,
    /// What.
    pub work: Work,
    /// What is configured, where that is agreed already; what is chosen later is not known yet.
    pub config: Option<L3Base>,
    /// Whether another place of the connection carries meanwhile.
    pub carried: bool,
    /// Which of the planned come directly before it, by their position.
    pub after: Vec<usize>,
}

/// What is done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Work {
    /// The peer is asked for a connection, in the stead of another one if that is said.
    CreateConnection {
        /// In Mbit/s.
        bandwidth_mbps: u32,
        /// The one that it comes in the stead of.
        source: Option<Place>,
    },
    /// The peer is asked for another bandwidth.
    UpdateConnection {
        /// In Mbit/s.
        from_mbps: u32,
        /// In Mbit/s.
        to_mbps: u32,
    },
    /// The peer is told that it is over.
    DeleteConnection,
    /// The peer is asked to configure a channel.
    CreateFeature,
    /// The peer is asked to take a channel's configuration away.
    DeleteFeature,
    /// Our router gets a session.
    PutSession,
    /// The session's routes become the last choice.
    DrainSession,
    /// Our router's session goes.
    DeleteSession,
}

/// What a wish leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rehearsal {
    /// In order.
    pub planned: Vec<Planned>,
    /// Whether it ends as it is wished: verified at one place, or gone.
    pub reached: bool,
}

impl Book {
    /// Rehearses what follows for a connection from what is stored, with these changes. A key that was handed out is brought.
    #[must_use]
    pub fn rehearse(&self, uuid: Uuid, wished: &[Change], now: Timestamp) -> Rehearsal {
        let mut book = self.clone();
        // Keys of channels and work on them hold things up; they lead nowhere else.
        for environment in book.terms.environments.values_mut() {
            for channel in environment.interconnects.values_mut().flat_map(|i| i.channels.values_mut()) {
                channel.macsec = None;
            }
        }
        let mut run = Run {
            halves: halves(&book, uuid),
            book,
            uuid,
            now,
            drawn: 0,
            planned: Vec::new(),
            batch: 0..0,
            looked: false,
        };
        run.apply(wished);
        let mut idle = 0;
        for _ in 0..ROUNDS {
            if run.is_over() || idle > IDLE {
                break;
            }
            idle = if run.routers() || run.peer() || run.steps() { 0 } else { idle + 1 };
            // What follows from a look comes before the next one is due.
            if idle > 0 && !run.looked {
                run.now += run.book.terms.settled_poll;
            }
        }
        Rehearsal { reached: run.is_over(), planned: run.planned }
    }
}

/// A connection at the peer: its bandwidth, and its features by channel.
#[derive(Debug, Default)]
struct Half {
    bandwidth_mbps: u32,
    features: BTreeMap<ResourceId, (ResourceId, L3Base)>,
}

fn halves(book: &Book, uuid: Uuid) -> BTreeMap<Place, Half> {
    let there = book.rows.values().filter(|row| row.uuid == uuid && row.remote == Remote::Present);
    let half = |row: &Row| {
        let feature = |(channel, f): (&ResourceId, &FeatureRow)| (channel.clone(), (f.id.clone(), f.config.clone()));
        let features = row.agreed().map(feature).collect();
        (row.place.clone(), Half { bandwidth_mbps: row.bandwidth_mbps, features })
    };
    there.map(half).collect()
}

struct Run {
    book: Book,
    uuid: Uuid,
    now: Timestamp,
    drawn: u128,
    halves: BTreeMap<Place, Half>,
    planned: Vec<Planned>,
    /// What was planned last, all at the same time.
    batch: std::ops::Range<usize>,
    /// Whether the last steps were looks.
    looked: bool,
}

impl Run {
    /// What was made from what is stored is never too old for it.
    fn apply(&mut self, changes: &[Change]) {
        let stale = self.book.apply(changes);
        debug_assert!(stale.is_ok(), "the run is alone with its book");
    }

    fn draw(&mut self) -> Draw {
        // From the end, where no random id is.
        self.drawn += 3;
        let id = |n: u128| Uuid::from_u128(u128::MAX - self.drawn + n);
        Draw { ids: [id(0), id(1), id(2)], password: Sensitive::new(""), jitter: 0 }
    }

    fn rows(&self) -> impl Iterator<Item = &Row> {
        self.book.rows.values().filter(|row| row.uuid == self.uuid)
    }

    fn places(&self) -> Vec<Place> {
        self.rows().map(|row| row.place.clone()).collect()
    }

    fn is_over(&self) -> bool {
        let unused = self.book.keys.get(&self.uuid).is_some_and(|key| !key.spent);
        let mut rows = self.rows();
        match (rows.next(), rows.next()) {
            (None, _) => !unused,
            (Some(row), None) => row.is_verified(&self.book.terms) && row.resize.is_none(),
            (Some(_), Some(_)) => false,
        }
    }

    /// Plans what is done at the same time, after what was planned before.
    fn plan(&mut self, works: Vec<(Place, Option<ResourceId>, Work, Option<L3Base>)>) {
        let after: Vec<usize> = self.batch.clone().collect();
        let from = self.planned.len();
        for (place, channel, work, config) in works {
            let up = |row: &Row| row.place != place && row.features.values().any(|f| f.ours == Local::Up);
            let carried = self.rows().any(up);
            self.planned.push(Planned { place, channel, work, config, carried, after: after.clone() });
        }
        if self.planned.len() > from {
            self.batch = from..self.planned.len();
        }
    }

    /// Our routers do what is wanted, and each session comes up at once.
    fn routers(&mut self) -> bool {
        let (mut works, mut changes) = (Vec::new(), Vec::new());
        for place in self.places() {
            for (channel, wanted) in self.book.wanted(&place) {
                let Some(feature) = self.book.rows.get(&place).and_then(|row| row.features.get(&channel)) else {
                    continue;
                };
                let (work, to) = match (wanted, feature.ours) {
                    (Wanted::Carry, Local::Reserved | Local::Drained) => (Some(Work::PutSession), Local::Up),
                    (Wanted::Carry, Local::Down) => (None, Local::Up),
                    (Wanted::Drained, Local::Down | Local::Up) => (Some(Work::DrainSession), Local::Drained),
                    (Wanted::Drained, Local::Reserved) => (Some(Work::PutSession), Local::Drained),
                    (Wanted::Gone, Local::Down | Local::Up | Local::Drained) => {
                        (Some(Work::DeleteSession), Local::Reserved)
                    }
                    (Wanted::Carry, Local::Up)
                    | (Wanted::Drained, Local::Drained)
                    | (Wanted::Gone, Local::Reserved) => {
                        continue;
                    }
                };
                let config = Some(feature.config.clone());
                works.extend(work.map(|work| (place.clone(), Some(channel.clone()), work, config)));
                changes.push((place.clone(), channel, to));
            }
        }
        let any = !changes.is_empty();
        self.plan(works);
        for (place, channel, to) in changes {
            let observed = self.book.observe(&place, &channel, to);
            self.apply(&observed);
        }
        any
    }

    /// What the peer does by itself.
    fn peer(&mut self) -> bool {
        let Some(ask) = self.peers_wish() else { return false };
        let request_id = ask.request_id();
        let served = self.book.serve(&Request { ask: ask.clone(), request_id, digest: [0; 32] }, self.now);
        self.apply(&served.changes);
        if served.reply == Reply::Done {
            self.keep(&ask);
        }
        served.reply == Reply::Done
    }

    fn peers_wish(&mut self) -> Option<Ask> {
        let draw = self.draw();
        let unused = self.book.keys.get(&self.uuid).filter(|key| !key.spent).cloned();
        if let (Some(key), None) = (unused, self.rows().next()) {
            let interconnect = self.book.roomiest(&key.environment, key.bandwidth_mbps, &BTreeSet::new())?;
            return Some(Ask::Create {
                place: Place { environment: key.environment, interconnect, connection: ResourceId::from(self.uuid) },
                source: Source::Key(self.uuid),
                uuid: self.uuid,
                bandwidth_mbps: key.bandwidth_mbps,
                kind: Kind::Standard,
                defer: false,
                request_id: draw.ids[0],
            });
        }
        let here = |row: &&Row| row.leaving.is_none() && self.halves.contains_key(&row.place);
        for row in self.rows().filter(here) {
            let interconnect = self.book.terms.interconnect(&row.place)?;
            let place = row.place.clone();
            let mut missing = interconnect.usable().map(|(c, _)| c).filter(|c| !row.features.contains_key(*c));
            let proposed = missing.find_map(|channel| {
                let config = self.book.choose(row, channel, &anything(channel), &draw.password)?;
                Some((channel.clone(), config))
            });
            if let (Some((channel, config)), false) = (proposed, row.drives) {
                let feature = ResourceId::from(draw.ids[0]);
                return Some(Ask::CreateFeature { place, channel, feature, config, request_id: draw.ids[1] });
            }
            let all = row.features.values().all(|feature| feature.ours == Local::Up);
            if all && !row.features.is_empty() && !row.notified {
                return Some(Ask::Notify { place, shown: 1, request_id: draw.ids[0] });
            }
        }
        None
    }

    /// Each of our rows takes a step, and the peer answers at once.
    fn steps(&mut self) -> bool {
        let mut any = false;
        self.looked = false;
        for place in self.places() {
            let draw = self.draw();
            let step = self.book.step(&place, self.now, &draw);
            any |= !step.changes.is_empty() && !matches!(step.ask, Some(Ask::Look { .. }));
            let before = self.book.rows.get(&place).map_or(0, |row| row.bandwidth_mbps);
            self.apply(&step.changes);
            let Some(ask) = step.ask else { continue };
            self.looked |= matches!(ask, Ask::Look { .. });
            self.plan(asked(&ask, before).into_iter().collect());
            let reply = self.answer(&ask);
            let absorbed = self.book.absorb(&place, &ask, Some(&reply), self.now);
            any |= !absorbed.is_empty() && !matches!(ask, Ask::Look { .. });
            self.apply(&absorbed);
        }
        any
    }

    /// What the peer has after it has done something.
    fn keep(&mut self, ask: &Ask) {
        match ask {
            Ask::Create { place, bandwidth_mbps, .. } => {
                let half = Half { bandwidth_mbps: *bandwidth_mbps, features: BTreeMap::new() };
                self.halves.insert(place.clone(), half);
            }
            Ask::Resize { place, to_mbps, .. } => {
                self.halves.entry(place.clone()).or_default().bandwidth_mbps = *to_mbps;
            }
            Ask::Delete { place, .. } => drop(self.halves.remove(place)),
            Ask::CreateFeature { place, channel, feature, config, .. } => {
                let half = self.halves.entry(place.clone()).or_default();
                half.features.insert(channel.clone(), (feature.clone(), config.clone()));
            }
            Ask::DeleteFeature { place, feature, .. } => {
                let half = self.halves.entry(place.clone()).or_default();
                half.features.retain(|_, (id, _)| id != feature);
            }
            Ask::Confirm { .. } | Ask::Look { .. } | Ask::Guidance { .. } | Ask::Notify { .. } => {}
        }
    }

    /// The peer's answer: it takes everything, and each of its sessions is up.
    fn answer(&mut self, ask: &Ask) -> Reply {
        self.keep(ask);
        match ask {
            Ask::Confirm { .. } => Reply::Key(true),
            Ask::Guidance { place } => {
                let interconnect = self.book.terms.interconnect(place);
                let channels = interconnect.map(|i| i.channels.keys().map(anything).collect());
                Reply::Guidance(channels.unwrap_or_default())
            }
            Ask::Look { place, .. } => match self.halves.get(place) {
                Some(half) => {
                    let seen = |(channel, (id, config)): (&ResourceId, &(ResourceId, L3Base))| SeenFeature {
                        id: id.clone(),
                        channel: channel.clone(),
                        config: config.clone(),
                        is_final: true,
                    };
                    let features = half.features.iter().map(seen).collect();
                    Reply::Seen { bandwidth_mbps: half.bandwidth_mbps, verified: true, features }
                }
                None => Reply::no(404, "there is no such connection"),
            },
            Ask::Create { .. }
            | Ask::Resize { .. }
            | Ask::Delete { .. }
            | Ask::CreateFeature { .. }
            | Ask::DeleteFeature { .. }
            | Ask::Notify { .. } => Reply::Done,
        }
    }
}

/// A peer that takes whatever we would choose: what it really takes is not known before it is asked.
fn anything(channel: &ResourceId) -> ChannelGuidance {
    ChannelGuidance {
        channel: channel.clone(),
        enabled: true,
        // One of the two is not ours; both are private (RFC 6996).
        asns: vec![(4_294_967_293, 4_294_967_294)],
        subnets: Vec::new(),
        lengths: Vec::new(),
        vlans: Vec::new(),
        mtus: Vec::new(),
    }
}

/// What an ask is in a plan; a read and a hint are nothing.
fn asked(ask: &Ask, before_mbps: u32) -> Option<(Place, Option<ResourceId>, Work, Option<L3Base>)> {
    match ask {
        Ask::Create { place, source, bandwidth_mbps, .. } => {
            let source = match source {
                Source::Connection(from) => Some(from.clone()),
                Source::Key(_) => None,
            };
            Some((place.clone(), None, Work::CreateConnection { bandwidth_mbps: *bandwidth_mbps, source }, None))
        }
        Ask::Resize { place, to_mbps, .. } => {
            let work = Work::UpdateConnection { from_mbps: before_mbps, to_mbps: *to_mbps };
            Some((place.clone(), None, work, None))
        }
        Ask::Delete { place, .. } => Some((place.clone(), None, Work::DeleteConnection, None)),
        Ask::CreateFeature { place, channel, config, .. } => {
            Some((place.clone(), Some(channel.clone()), Work::CreateFeature, Some(config.clone())))
        }
        Ask::DeleteFeature { place, .. } => Some((place.clone(), None, Work::DeleteFeature, None)),
        Ask::Confirm { .. } | Ask::Look { .. } | Ask::Guidance { .. } | Ask::Notify { .. } => None,
    }
}
