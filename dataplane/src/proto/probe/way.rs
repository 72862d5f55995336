//! Counters and timing of one way and its source ports.

use std::time::{Duration, Instant};

use super::{
    stats::{Counters, Jitter, Loss, RoundTrips},
    wire::Probe,
};

/// Rounds that an answer may be late by before it counts as lost.
const RING: u64 = 64;
/// Longest that an answer is waited for.
const MAX_TIMEOUT: Duration = Duration::from_secs(1);
/// Loss from which a way is lossy, and below which it is not any more, in parts per million.
const LOSSY_PPM: u32 = 10_000;
const CLEAN_PPM: u32 = 5_000;
/// Lost requests in a window below which loss is chance.
const LOSSY_MIN: u64 = 5;
/// A median round trip this much above the best one is slow, if the other way's is not as much above its own, and if so for
/// three windows in a row: after a stall of either host come answers that have waited, on both ways, and such a burst
/// falls into two windows at most.
const SLOW_US: u32 = 10_000;
const SLOW_WINDOWS: u8 = 3;

#[derive(Debug, Clone)]
pub(super) struct Port {
    pub(super) is: Counters,
    pub(super) window: Counters,
    pub(super) reported: Counters,
    pub(super) last_sent: u64,
    pub(super) last_answered: Option<u64>,
    pub(super) sent_ns: [u64; RING as usize],
    pub(super) sent_count: [u32; RING as usize],
    pub(super) answered: u64,
    // Added to the peer's count and to ours so that both continue from the request count where the acknowledgements began.
    pub(super) rebase: bool,
    pub(super) heard_offset: u32,
    pub(super) answered_offset: u32,
}

impl Port {
    pub(super) fn new() -> Self {
        Self {
            is: Counters::default(),
            window: Counters::default(),
            reported: Counters::default(),
            last_sent: 0,
            last_answered: None,
            sent_ns: [0; RING as usize],
            sent_count: [0; RING as usize],
            answered: 0,
            rebase: true,
            heard_offset: 0,
            answered_offset: 0,
        }
    }

    pub(super) fn send(&mut self, round: u64, now_ns: u64) {
        let slot = (round % RING) as usize;
        self.is.sent = self.is.sent.wrapping_add(1);
        self.last_sent = round;
        self.sent_ns[slot] = now_ns;
        self.sent_count[slot] = self.is.sent;
        self.answered &= !(1 << slot);
    }

    /// Takes an answer; false when it is none of this port's outstanding ones.
    pub(super) fn answer(&mut self, probe: &Probe) -> bool {
        let slot = (probe.round % RING) as usize;
        let outstanding = probe.round <= self.last_sent && self.last_sent - probe.round < RING;
        if !outstanding || self.sent_ns[slot] != probe.sent_ns || self.answered & (1 << slot) != 0 {
            return false;
        }
        self.answered |= 1 << slot;
        self.is.answered = self.is.answered.wrapping_add(1);
        if self.last_answered.is_some_and(|last| last >= probe.round) {
            return true;
        }
        self.last_answered = Some(probe.round);
        let count = self.sent_count[slot];
        if self.rebase {
            self.rebase = false;
            self.heard_offset = count.wrapping_sub(probe.heard_count);
            self.answered_offset = count.wrapping_sub(self.is.answered);
            for snapshot in [&mut self.window, &mut self.reported] {
                (snapshot.acked_sent, snapshot.acked_heard, snapshot.acked_answered) = (count, count, count);
            }
        }
        self.is.acked_sent = count;
        self.is.acked_heard = probe.heard_count.wrapping_add(self.heard_offset);
        self.is.acked_answered = self.is.answered.wrapping_add(self.answered_offset);
        true
    }

    /// Whether `dead_after` requests in a row have waited longer than `timeout_ns` for an answer.
    pub(super) fn overdue(&self, now_ns: u64, dead_after: u32, timeout_ns: u64) -> bool {
        let Some(answered) = self.last_answered else { return false };
        let last_straw = answered + u64::from(dead_after);
        if self.last_sent < last_straw {
            return false;
        }
        self.last_sent - last_straw >= RING
            || self.sent_ns[(last_straw % RING) as usize].saturating_add(timeout_ns) <= now_ns
    }
}

#[derive(Debug, Clone)]
pub(super) struct Way {
    pub(super) ports: Vec<Port>,
    pub(super) lossy: bool,
    slow_windows: u8,
    pub(super) smoothed_us: Option<u32>,
    pub(super) best_us: Option<u32>,
    pub(super) window: RoundTrips,
    pub(super) trips: RoundTrips,
    pub(super) jitter: Jitter,
}

impl Way {
    pub(super) fn new(ports: u8) -> Self {
        Self {
            ports: vec![Port::new(); usize::from(ports)],
            lossy: false,
            slow_windows: 0,
            smoothed_us: None,
            best_us: None,
            window: RoundTrips::default(),
            trips: RoundTrips::default(),
            jitter: Jitter::default(),
        }
    }

    pub(super) fn timeout(&self, interval: Duration) -> Duration {
        let twice = Duration::from_micros(2 * u64::from(self.smoothed_us.unwrap_or(0)));
        interval.max(twice).min(MAX_TIMEOUT)
    }

    pub(super) fn round_trip(&mut self, us: u32) {
        self.smoothed_us = Some(match self.smoothed_us {
            // RFC 6298, section 2.
            Some(smoothed) => smoothed - smoothed / 8 + us / 8,
            None => us,
        });
        self.window.add(us);
        self.trips.add(us);
        self.jitter.add(us);
    }

    pub(super) fn is_slow(&self) -> bool {
        self.slow_windows >= SLOW_WINDOWS
    }

    /// Judges the loss of the window that ends now; how many microseconds its median round trip is above the best one.
    pub(super) fn judge(&mut self) -> Option<u32> {
        let mut loss = Loss::default();
        for port in &mut self.ports {
            loss.add(&port.window, &port.is);
            port.window = port.is;
        }
        if loss.out_ppm() >= LOSSY_PPM && loss.lost_out() >= LOSSY_MIN {
            self.lossy = true;
        } else if loss.out_ppm() < CLEAN_PPM {
            self.lossy = false;
        }
        let (median, _) = self.window.take()?;
        let best = self.best_us.map_or(median, |best| best.min(median));
        self.best_us = Some(best);
        Some(median - best)
    }

    /// Judges the delay of a window: what both ways suffer is the hosts' doing.
    pub(super) fn weigh(&mut self, own_us: Option<u32>, other_us: Option<u32>) {
        if let Some(own) = own_us {
            let slow = own >= other_us.unwrap_or(0).saturating_add(SLOW_US);
            self.slow_windows = if slow { self.slow_windows.saturating_add(1) } else { 0 };
        }
    }

    pub(super) fn newest_answer(&self) -> Option<u64> {
        self.ports.iter().filter_map(|port| port.last_answered).max()
    }
}

/// What is heard of the peer on one of its ports.
#[derive(Debug, Clone, Copy)]
pub(super) struct Heard {
    pub(super) count: u32,
    pub(super) last_round: u64,
    pub(super) seen: u64,
    pub(super) last_at: Instant,
}

impl Heard {
    pub(super) fn nothing(now: Instant) -> Self {
        Self { count: 0, last_round: 0, seen: 0, last_at: now }
    }

    /// Counts a request, unless it was counted before: a window of 64 rounds, as RFC 6479 keeps one for packets.
    pub(super) fn admit(&mut self, round: u64) -> bool {
        if round > self.last_round {
            let ahead = round - self.last_round;
            self.seen = if ahead >= RING { 1 } else { self.seen << ahead | 1 };
            self.last_round = round;
        } else {
            let behind = self.last_round - round;
            if behind >= RING || self.seen & (1 << behind) != 0 {
                return false;
            }
            self.seen |= 1 << behind;
        }
        self.count = self.count.wrapping_add(1);
        true
    }
}
