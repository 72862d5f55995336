//! The state machines of one lane: `boringtun` takes a preshared key and a keepalive only when a [`Tunn`] is made, so a
//! change of either is a new machine, and traffic stays on the old one until the new one has a session.
//!
//! Both ends learn of a new preshared key at different times. Until the new machine has a session, an initiation is answered
//! by the old and the new one in turn, so whichever key the peer initiates with, the second try gets through. What the old
//! sessions still receive is taken for as long as WireGuard would (whitepaper, section 6.1: REJECT_AFTER_TIME). The peer may
//! learn of it hours later, or one of the two may be restarted in between: both keys are good until then.

use std::{
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use boringtun::noise::{Tunn, TunnResult, errors::WireGuardError, rate_limiter::RateLimiter};
use zeroize::Zeroizing;

use super::tunnel::LaneKeys;

/// Bits of boringtun's index that tell generations apart.
const BITS: u32 = 2;
/// Between the first two initiations of the new machine; then twice as long each time, up to the longest. A peer that does
/// not have the new key answers each of them with a session that is never used, and remembers eight: there must be fewer
/// than that in the two minutes in which the machine in use makes a session of its own.
const KNOCK: Duration = Duration::from_secs(2);
const LONGEST_KNOCK: Duration = Duration::from_secs(64);
/// How long the old machine still receives.
const REJECT_AFTER: Duration = Duration::from_secs(180);

/// The lane's index that a receiver index names, and the generation within it. boringtun numbers sessions in the low eight
/// bits.
pub(super) const fn named(receiver: u32) -> (u32, u32) {
    (receiver >> (8 + BITS), (receiver >> 8) & ((1 << BITS) - 1))
}

/// What a machine is made of besides the lane's index.
pub(super) struct Recipe {
    pub(super) keys: LaneKeys,
    pub(super) keepalive_s: u16,
    pub(super) limiter: Arc<RateLimiter>,
}

struct Machine {
    generation: u32,
    preshared: Option<Zeroizing<[u8; 32]>>,
    tunn: Tunn,
}

/// See the module.
pub(super) struct Generations {
    pub(super) recipe: Recipe,
    index: u32,
    current: Machine,
    /// Made from the recipe as it is now, and without a session yet. Apart, as the previous one: a `Tunn` is 10 KiB, and most
    /// of the time there is neither.
    next: Option<Box<Machine>>,
    /// Receives only; until when, which the next tick settles.
    previous: Option<(Box<Machine>, Option<Instant>)>,
    knock_at: Option<Instant>,
    knock_in: Duration,
    /// Whether the next initiation is the new machine's to answer.
    new_answers: bool,
}

impl Generations {
    pub(super) fn new(recipe: Recipe, index: u32) -> Self {
        let current = machine(&recipe, recipe.keys.preshared.clone(), index, 0);
        let (next, previous, knock_at) = (None, None, None);
        Self { recipe, index, current, next, previous, knock_at, knock_in: KNOCK, new_answers: true }
    }

    /// Begins a new machine from the recipe.
    pub(super) fn renew(&mut self) {
        let generation = (self.current.generation + 1) % (1 << BITS);
        self.next = Some(Box::new(machine(&self.recipe, self.recipe.keys.preshared.clone(), self.index, generation)));
        // Its index may have been of the one before the current one.
        self.previous = None;
        (self.knock_at, self.knock_in, self.new_answers) = (None, KNOCK, true);
    }

    /// Begins again: there is no session to keep. A change goes on, since the peer may still have what was before.
    pub(super) fn restart(&mut self) {
        let Machine { generation, preshared, .. } = &self.current;
        self.current = machine(&self.recipe, preshared.clone(), self.index, *generation);
        self.previous = None;
        if self.next.is_some() {
            self.renew();
        }
    }

    /// Whether a change waits for its first session.
    pub(super) fn is_changing(&self) -> bool {
        self.next.is_some()
    }

    pub(super) fn handshake_age(&self) -> Option<Duration> {
        self.current.tunn.time_since_last_handshake()
    }

    pub(super) fn encapsulate<'a>(&mut self, packet: &[u8], out: &'a mut [u8]) -> TunnResult<'a> {
        self.current.tunn.encapsulate(packet, out)
    }

    pub(super) fn staged<'a>(&mut self, out: &'a mut [u8]) -> TunnResult<'a> {
        self.current.tunn.decapsulate(None, &[], out)
    }

    pub(super) fn decapsulate<'a>(&mut self, from: IpAddr, datagram: &[u8], out: &'a mut [u8]) -> TunnResult<'a> {
        match receiver(datagram) {
            None if self.next.is_some() => {
                let new = self.new_answers;
                self.new_answers = !new;
                let machine = if new { self.next.as_deref_mut() } else { None }.unwrap_or(&mut self.current);
                machine.tunn.decapsulate(Some(from), datagram, out)
            }
            None => self.current.tunn.decapsulate(Some(from), datagram, out),
            Some(receiver) => {
                let (_, generation) = named(receiver);
                if generation == self.current.generation {
                    return self.current.tunn.decapsulate(Some(from), datagram, out);
                }
                if let Some(next) = self.next.as_mut().filter(|next| next.generation == generation) {
                    let result = next.tunn.decapsulate(Some(from), datagram, out);
                    if next.tunn.time_since_last_handshake().is_some() {
                        self.promote();
                    }
                    return result;
                }
                match &mut self.previous {
                    Some((previous, _)) if previous.generation == generation => {
                        previous.tunn.decapsulate(Some(from), datagram, out)
                    }
                    Some(_) | None => TunnResult::Err(WireGuardError::WrongIndex),
                }
            }
        }
    }

    fn promote(&mut self) {
        if let Some(mut machine) = self.next.take() {
            std::mem::swap(&mut self.current, &mut machine);
            self.previous = Some((machine, None));
            self.knock_at = None;
        }
    }

    /// Drives the timers; the new machine's initiations come in between.
    pub(super) fn tick<'a>(&mut self, now: Instant, out: &'a mut [u8]) -> TunnResult<'a> {
        if let Some((previous, until)) = &mut self.previous {
            let until = *until.get_or_insert(now + REJECT_AFTER);
            // Its time goes on, or its sessions would live for ever; what it would send is not sent.
            let _ = previous.tunn.update_timers(&mut [0; 256]);
            if now >= until {
                self.previous = None;
            }
        }
        if let Some(next) = &mut self.next {
            let _ = next.tunn.update_timers(&mut [0; 256]);
            if self.knock_at.is_none_or(|at| now >= at) {
                self.knock_at = Some(now + self.knock_in);
                self.knock_in = (self.knock_in * 2).min(LONGEST_KNOCK);
                return next.tunn.format_handshake_initiation(out, true);
            }
        }
        self.current.tunn.update_timers(out)
    }

    /// Begins a handshake of the machine in use.
    pub(super) fn initiate<'a>(&mut self, out: &'a mut [u8]) -> TunnResult<'a> {
        self.current.tunn.format_handshake_initiation(out, true)
    }
}

fn machine(recipe: &Recipe, preshared: Option<Zeroizing<[u8; 32]>>, index: u32, generation: u32) -> Machine {
    let keys = &recipe.keys;
    let keepalive = Some(recipe.keepalive_s).filter(|seconds| *seconds > 0);
    let limiter = Some(Arc::clone(&recipe.limiter));
    let index = index << BITS | generation;
    let secret = preshared.as_deref().copied();
    let tunn = Tunn::new(keys.private.clone(), keys.peer, secret, keepalive, index, limiter);
    Machine { generation, preshared, tunn }
}

/// The receiver index of a response, a cookie or a data message (whitepaper, sections 5.4.3, 5.4.6 and 5.4.7); `None`: an
/// initiation, or nothing.
fn receiver(datagram: &[u8]) -> Option<u32> {
    let at = match datagram.first()? {
        2 => 8,
        3 | 4 => 4,
        _ => return None,
    };
    Some(u32::from_le_bytes(datagram.get(at..at + 4)?.try_into().ok()?))
}
