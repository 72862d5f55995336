//! What goes wrong with the wire, and the account of it: which faults can make a second resource for a while, and where.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use ipnet::Ipv4Net;
use tieline_api::engine::clock::{ChaChaRandom, Random};
use tieline_openapi::{
    ids::{ConnectionId, InstanceId},
    v1::Verb,
};
use tieline_providers::{
    CallErrorKind, IdentityKind,
    fake::{ATTACHMENT, Chaos, Fault, PEER, Picks, Request},
};

use super::{
    sched::Sched,
    sim::{LAG_MS, config},
    store::{Place, Rows},
};

/// A request that has its effect later than this after its row was composed outlasts what the engine waits out: client
/// timeout, lease and visibility lag, less the lag with which its effect shows.
fn covered_ms() -> u64 {
    let config = config();
    config.call_timeout_ms + config.lease_ms + config.visibility_lag_ms - LAG_MS
}

pub(crate) struct Weather {
    /// No request outlasts what the engine waits out, none is doubled, and no clock is stepped.
    pub(crate) strict: bool,
    pub(crate) on: AtomicBool,
    /// Whether the engines' clocks disagree: then what they wait out is not what they mean to.
    pub(crate) stepped: AtomicBool,
    identity: IdentityKind,
    dice: ChaChaRandom,
    sched: Arc<Sched>,
    rows: Arc<Rows>,
    walks: AtomicU64,
    /// Requests that may make a resource beside the one that is meant, by place.
    excess: Mutex<BTreeMap<Place, usize>>,
    /// The same of writes of parts of shared objects, which may harm any other part.
    shared_excess: AtomicU64,
    /// Connections about which something just went wrong: a good moment to delete one.
    shaken: Mutex<Vec<ConnectionId>>,
}

impl Weather {
    pub(crate) fn new(seed: u64, identity: IdentityKind, strict: bool, sched: Arc<Sched>, rows: Arc<Rows>) -> Self {
        Self {
            strict,
            on: AtomicBool::new(true),
            stepped: AtomicBool::new(false),
            identity,
            dice: ChaChaRandom::from_seed(seed),
            sched,
            rows,
            walks: AtomicU64::new(0),
            excess: Mutex::default(),
            shared_excess: AtomicU64::new(0),
            shaken: Mutex::default(),
        }
    }

    /// How many resources beside the one that is meant may be in a place.
    pub(crate) fn excess(&self, place: Option<&Place>) -> usize {
        place.and_then(|place| self.excess.lock().unwrap().get(place).copied()).unwrap_or(0)
    }

    /// Whether anything may be twice anywhere.
    pub(crate) fn any_excess(&self) -> bool {
        self.may_harm() || self.excess.lock().unwrap().values().any(|excess| *excess > 0)
    }

    /// Whether a part of a shared object may have been harmed.
    pub(crate) fn may_harm(&self) -> bool {
        self.shared_excess.load(Ordering::SeqCst) > 0
    }

    /// The store's clock was stepped: leases of shared objects end when they should not.
    pub(crate) fn step_store(&self) {
        self.shared_excess.fetch_add(1, Ordering::SeqCst);
    }

    pub(crate) fn take_shaken(&self) -> Vec<ConnectionId> {
        std::mem::take(&mut self.shaken.lock().unwrap())
    }

    fn draw(&self, request: &Request, age_ms: u64) -> Fault {
        let most = if self.strict { covered_ms().saturating_sub(age_ms + 1) } else { 4_000 };
        // A create whose answer is lost is what most rules are about.
        let create = request.verb == Verb::Create && request.kind != PEER;
        match self.dice.below(100) {
            50..=59 if create => Fault::LoseAnswer,
            60..=79 if create => Fault::Late(self.dice.below(most.max(1))),
            0..=13 => Fault::LoseAnswer,
            14..=19 => Fault::LoseRequest,
            20..=33 => Fault::Late(self.dice.below(most.max(1))),
            34..=37 => Fault::Fail,
            38..=41 => Fault::Refuse(CallErrorKind::Throttled),
            42 => Fault::Refuse(CallErrorKind::Conflict),
            43 => Fault::Refuse(CallErrorKind::Quota),
            44 => Fault::Refuse(CallErrorKind::Forbidden),
            // Nothing tells what a blind cloud made of a request that the network doubled.
            45..=47 if !self.strict && self.identity != IdentityKind::Blind => Fault::Double,
            48 if request.verb == Verb::Create && self.may_walk() => Fault::Refuse(CallErrorKind::SlotTaken),
            _ => Fault::None,
        }
    }

    /// Notes what a fault may do that the engine cannot prevent. One such fault a place is what the promise is about where
    /// only tags tell; a second one, and any under strict weather, is lost on the way instead.
    fn account(&self, request: &Request, fault: Fault, age_ms: u64) -> Fault {
        let late_ms = match fault {
            Fault::None | Fault::LoseAnswer | Fault::Double => 0,
            Fault::Late(ms) => ms,
            Fault::Refuse(_) | Fault::Fail | Fault::LoseRequest => return fault,
        };
        let outlasts = age_ms + late_ms > covered_ms() || (late_ms > 0 && self.stepped.load(Ordering::SeqCst));
        if request.kind == PEER && outlasts {
            if self.strict {
                return Fault::LoseRequest;
            }
            self.shared_excess.fetch_add(1, Ordering::SeqCst);
        }
        let only_tags = request.kind != PEER && self.only_tags_tell(request, late_ms);
        if request.verb != Verb::Create || !(outlasts || (fault == Fault::Double && only_tags)) {
            return fault;
        }
        let Some(place) = self.rows.place(request.instance) else { return fault };
        let mut excess = self.excess.lock().unwrap();
        let so_far = excess.entry(place).or_default();
        if self.strict || (only_tags && *so_far >= 1) {
            return Fault::LoseRequest;
        }
        *so_far += 1;
        fault
    }

    /// Whether nothing but tags tells a resource that this request makes from one that an earlier one made: the cloud has
    /// forgotten a token by the time at which it comes.
    fn only_tags_tell(&self, request: &Request, late_ms: u64) -> bool {
        match self.identity {
            IdentityKind::Tagged | IdentityKind::Blind => true,
            IdentityKind::Token { lifetime_ms } => {
                let first = self.rows.first_created_at(request.instance);
                self.sched.now_ms() + late_ms >= first.saturating_add(lifetime_ms)
            }
            IdentityKind::Named | IdentityKind::Slot => false,
        }
    }

    fn shake(&self, request: &Request, fault: Fault) {
        let lost = matches!(fault, Fault::LoseAnswer | Fault::LoseRequest | Fault::Late(_));
        let just_made = fault == Fault::None && self.dice.below(8) == 0;
        if request.verb == Verb::Create
            && (lost || just_made)
            && let Some((connection, _, _)) = self.rows.place(request.instance)
        {
            self.shaken.lock().unwrap().push(connection);
        }
    }
}

impl Weather {
    /// Whether another channel may have to be walked back: three times is what one can.
    fn may_walk(&self) -> bool {
        self.walks.fetch_add(1, Ordering::SeqCst) < 2
    }
}

impl Chaos for Weather {
    /// A cloud that picks gives what it likes, which others may have. Where the VLAN is the key that a lost create is found by,
    /// or that a person compares, clouds take it as it is asked for.
    fn picks(&self, request: &Request) -> Picks {
        let mut picks = Picks::default();
        if request.kind != ATTACHMENT || request.verb != Verb::Create || !self.on.load(Ordering::SeqCst) {
            return picks;
        }
        let keyed = matches!(self.identity, IdentityKind::Slot | IdentityKind::Blind);
        match self.dice.below(24) {
            0 if !keyed && self.may_walk() => picks.vlan = Some(1_025 + u16::try_from(self.dice.below(12)).unwrap()),
            1 if self.may_walk() => {
                let fourth = u8::try_from(self.dice.below(12) * 8).unwrap();
                picks.subnet = Ipv4Net::new([169, 254, 0, fourth].into(), 29).ok();
            }
            2 => picks.mtu = Some(1_440),
            _ => {}
        }
        picks
    }

    fn fault(&self, request: &Request) -> Fault {
        let age_ms = self.sched.now_ms().saturating_sub(self.rows.leaving());
        let on = self.on.load(Ordering::SeqCst);
        // What was held over from the bad weather may still come late.
        let fault = if on { self.draw(request, age_ms) } else { Fault::None };
        let fault = self.account(request, fault, age_ms);
        if on {
            self.shake(request, fault);
        }
        fault
    }
}

/// Whether an instance was made by a request that the engine could not wait out.
pub(crate) fn is_excused(weather: &Weather, rows: &Rows, instance: InstanceId) -> bool {
    let place = rows.place(instance);
    let is_part = place.as_ref().is_some_and(|(_, _, kind)| kind == PEER.as_str());
    weather.excess(place.as_ref()) > 0 || (is_part && weather.may_harm())
}
