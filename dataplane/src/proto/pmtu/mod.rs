//! How long a packet may be that goes through the tunnel in one piece: packetization layer path MTU discovery for
//! datagrams (RFC 8899), with the gateway as the packetization layer.
//!
//! Sizes are those of inner IP packets; what WireGuard, UDP and the outer IP header add is the same for every size. A size
//! is tried by a probe of exactly that size, padded inside the tunnel and with DF outside, which the peer's answer, small
//! and authentic, acknowledges. What routers say is a hint only: an ICMP message outside is anybody's to forge (RFC 8899,
//! section 4.6), and some networks swallow them.
//!
//! A lost probe of a size says nothing about health and does not count as loss (section 4.1). Nothing is concluded from it
//! while the tunnel is not heard at all, and while it loses probes of the usual size as well it is tried more often: an
//! overloaded way is no narrow one, and smaller packets, which are more, would only load it more.

use std::time::{Duration, Instant};

/// BASE_PLPMTU and MIN_PLPMTU: what IPv6 inside the tunnel needs (RFC 8200, section 5). Over a way too narrow even for that,
/// the outer datagrams travel in fragments (RFC 2473, section 7.1).
pub const FLOOR: u16 = 1_280;
/// PROBE_TIMER: how long an answer is waited for. RFC 8899, section 5.1.1 allows no less.
const PROBE_TIMER: Duration = Duration::from_secs(1);
/// MAX_PROBES: so many lost in a row at least, and the size does not pass (section 5.1.2).
const MAX_PROBES: u32 = 3;
/// How likely so many may be lost in a row over a way that takes the size, by what it loses of probes of the usual size; to the
/// power of two, since some queues and policers lose long packets rather than short ones.
const MISTAKEN: f64 = 1e-8;
/// CONFIRMATION_TIMER: how often the size in use is tried again, so that a black hole is found (section 5.1.1).
const CONFIRMATION_TIMER: Duration = Duration::from_secs(5);
/// PMTU_RAISE_TIMER: how often a larger size is tried again (section 5.1.1).
const PMTU_RAISE_TIMER: Duration = Duration::from_secs(600);
/// The search ends when it is this many bytes from what does not pass.
const NEAR: u16 = 4;

/// Where the search stands (RFC 8899, section 5.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Phase {
    /// Looking for the largest size that passes.
    Searching,
    /// Found; confirmed every five seconds.
    Complete,
    /// Not even [`FLOOR`] passes in one piece.
    Error,
}

/// A size to try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trial {
    /// To be echoed by the answer; the same for every repetition.
    pub number: u64,
    /// Bytes of the inner IP packet.
    pub size: u16,
}

#[derive(Debug, Clone, Copy)]
struct Outstanding {
    trial: Trial,
    sent_at: Instant,
    tries: u32,
    beside: Beside,
}

/// The probes of the usual size that went out since the first try, one a round. Those of the time after the last try are
/// perhaps still on their way.
#[derive(Debug, Clone, Copy)]
struct Beside {
    first: u64,
    /// The round of the last try.
    last: u64,
    /// Answered of `first..=last`, and after that.
    answered: u64,
    answered_later: u64,
}

impl Beside {
    fn new(round: u64) -> Self {
        Self { first: round, last: round, answered: 0, answered_later: 0 }
    }

    fn tried_again(&mut self, round: u64) {
        self.answered += std::mem::take(&mut self.answered_later);
        self.last = round;
    }

    fn answered(&mut self, round: u64) {
        if round > self.last {
            self.answered_later += 1;
        } else if round >= self.first {
            self.answered += 1;
        }
    }

    /// Whether so many probes of a size, all lost, say that the size does not pass.
    fn condemn(&self, tries: u32) -> bool {
        let sent = self.last.saturating_sub(self.first) as f64 + 1.0;
        let lost = (sent - self.answered as f64).max(0.0) / sent;
        tries >= MAX_PROBES && lost.powi(i32::try_from(tries).unwrap_or(i32::MAX)) <= MISTAKEN
    }
}

/// The search for one tunnel.
#[derive(Debug, Clone)]
pub struct PathMtu {
    /// MAX_PLPMTU: no packet is longer anyway.
    ceiling: u16,
    /// PLPMTU where `confirmed`: the largest size that has passed.
    good: u16,
    /// Whether `good` has passed, or is only where the search starts.
    confirmed: bool,
    /// The smallest size that has not passed; one above the ceiling where none is known.
    bad: u16,
    phase: Phase,
    outstanding: Option<Outstanding>,
    number: u64,
    next_at: Instant,
    raise_at: Instant,
    /// Times that a size in use had stopped passing.
    black_holes: u64,
}

impl PathMtu {
    /// A search that starts at once. `ceiling`: bytes of the longest packet that is ever sent, at least [`FLOOR`].
    #[must_use]
    pub fn new(ceiling: u16, now: Instant) -> Self {
        let ceiling = ceiling.max(FLOOR);
        Self {
            ceiling,
            good: FLOOR,
            confirmed: false,
            bad: ceiling.saturating_add(1),
            phase: Phase::Searching,
            outstanding: None,
            number: 0,
            next_at: now,
            raise_at: now + PMTU_RAISE_TIMER,
            black_holes: 0,
        }
    }

    /// This size passes, by what another process has found; it is confirmed next.
    pub fn resume(&mut self, size: u16, now: Instant) {
        self.good = size.clamp(FLOOR, self.ceiling);
        (self.confirmed, self.phase) = (true, Phase::Complete);
        (self.next_at, self.raise_at) = (now, now + PMTU_RAISE_TIMER);
    }

    /// Takes another ceiling; a search that is unaffected goes on.
    pub fn set_ceiling(&mut self, ceiling: u16, now: Instant) {
        let ceiling = ceiling.max(FLOOR);
        if ceiling != self.ceiling {
            *self = Self { number: self.number, black_holes: self.black_holes, ..Self::new(ceiling, now) };
        }
    }

    /// PLPMTU: the longest inner packet, in bytes, that is known to pass in one piece; [`FLOOR`] where nothing is known.
    #[must_use]
    pub fn mtu(&self) -> u16 {
        if self.confirmed { self.good } else { FLOOR }
    }

    /// Where it stands.
    #[must_use]
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// Times that a size in use had stopped passing.
    #[must_use]
    pub fn black_holes(&self) -> u64 {
        self.black_holes
    }

    /// A probe of the usual size, of this round, was answered.
    pub fn heard(&mut self, round: u64) {
        if let Some(outstanding) = &mut self.outstanding {
            outstanding.beside.answered(round);
        }
    }

    /// The size to try now, if any. `heard`: whether probes of the usual size are answered at all. `round` numbers the one of
    /// them that goes out beside it; each number has one.
    pub fn poll(&mut self, now: Instant, heard: bool, round: u64) -> Option<Trial> {
        if !heard {
            // What is outstanding was perhaps lost with all the rest.
            self.outstanding = None;
            return None;
        }
        if let Some(outstanding) = &mut self.outstanding {
            if now < outstanding.sent_at + PROBE_TIMER {
                return None;
            }
            if !outstanding.beside.condemn(outstanding.tries) {
                outstanding.tries = outstanding.tries.saturating_add(1);
                outstanding.sent_at = now;
                outstanding.beside.tried_again(round);
                return Some(outstanding.trial);
            }
            let size = outstanding.trial.size;
            self.does_not_pass(size, now);
        }
        if now < self.next_at {
            return None;
        }
        let size = self.size(now)?;
        self.number += 1;
        let trial = Trial { number: self.number, size };
        self.outstanding = Some(Outstanding { trial, sent_at: now, tries: 1, beside: Beside::new(round) });
        Some(trial)
    }

    /// What is to be tried next.
    fn size(&mut self, now: Instant) -> Option<u16> {
        if self.phase == Phase::Complete && self.good < self.ceiling && now >= self.raise_at {
            self.raise(now);
        }
        match self.phase {
            Phase::Complete => Some(self.good),
            Phase::Error => Some(FLOOR),
            // Most ways are as wide as the configuration says: one probe, and the search is over.
            Phase::Searching if self.bad > self.ceiling => Some(self.ceiling),
            Phase::Searching if self.bad - self.good > NEAR => Some(self.good + (self.bad - self.good) / 2),
            Phase::Searching if !self.confirmed => Some(FLOOR),
            Phase::Searching => {
                self.complete(now);
                None
            }
        }
    }

    fn raise(&mut self, now: Instant) {
        self.phase = Phase::Searching;
        self.bad = self.ceiling.saturating_add(1);
        self.raise_at = now + PMTU_RAISE_TIMER;
    }

    fn complete(&mut self, now: Instant) {
        self.phase = Phase::Complete;
        self.next_at = now + CONFIRMATION_TIMER;
    }

    /// Takes the peer's answer. Late ones count as long as their size is still being tried.
    pub fn answered(&mut self, trial: Trial, now: Instant) {
        if self.outstanding.is_none_or(|outstanding| outstanding.trial != trial) {
            return;
        }
        self.outstanding = None;
        self.next_at = now;
        if self.phase == Phase::Error {
            self.raise(now);
        }
        self.good = self.good.max(trial.size);
        self.confirmed = true;
        if self.good == self.ceiling || self.phase == Phase::Complete {
            self.complete(now);
        }
    }

    /// The own interface refused a probe of this size: it cannot pass, and no repetition is needed.
    pub fn refused(&mut self, size: u16, now: Instant) {
        if self.outstanding.is_some_and(|outstanding| outstanding.trial.size == size) {
            self.does_not_pass(size, now);
        }
    }

    /// A packet of this size could not be sent in one piece, by what the kernel has heard from a router: worth a look now,
    /// and no more than that.
    pub fn hint(&mut self, size: u16, now: Instant) {
        if self.phase == Phase::Complete && size <= self.good && self.outstanding.is_none() {
            self.next_at = self.next_at.min(now + PROBE_TIMER);
        }
    }

    fn does_not_pass(&mut self, size: u16, now: Instant) {
        self.outstanding = None;
        self.next_at = now;
        self.bad = self.bad.min(size);
        match self.phase {
            Phase::Complete => {
                // A black hole: down to the base, and up again from there to below this size (section 5.3.3).
                self.black_holes += 1;
                self.phase = Phase::Searching;
                self.good = FLOOR;
                self.confirmed = false;
                self.raise_at = now + PMTU_RAISE_TIMER;
            }
            Phase::Error | Phase::Searching if size <= FLOOR => {
                self.phase = Phase::Error;
                self.next_at = now + CONFIRMATION_TIMER;
            }
            Phase::Error | Phase::Searching => {}
        }
    }
}

#[cfg(test)]
mod tests;
