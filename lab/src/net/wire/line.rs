//! One direction of a wire as a pure machine: frames go in with the time, and come out when they are due.

use std::collections::VecDeque;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::net::spec::Impairment;

/// Depth of the queue before a limited line where the parameters name none, in nanoseconds.
const DEFAULT_QUEUE_NS: u64 = 100_000_000;

/// What became of a frame that was put on the line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It arrives later.
    Carried,
    /// It was lost at random, or the line is cut.
    Lost,
    /// The queue before the limited line was full.
    Overflowed,
}

/// One direction of a wire. Times are nanoseconds of one monotonic clock.
#[derive(Debug)]
pub struct Line {
    queue: VecDeque<(u64, Vec<u8>)>,
    random: StdRng,
    last_due: u64,
    line_free: u64,
}

impl Line {
    /// An empty line whose loss and jitter follow from the seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { queue: VecDeque::new(), random: StdRng::seed_from_u64(seed), last_due: 0, line_free: 0 }
    }

    /// Puts a frame on the line.
    pub fn offer(&mut self, now: u64, wire: &Impairment, cut: bool, frame: &[u8]) -> Fate {
        if cut || (wire.loss_ppm > 0 && self.random.random_range(0..1_000_000) < wire.loss_ppm) {
            return Fate::Lost;
        }
        let mut sent = now;
        if wire.rate_bps > 0 {
            let start = self.line_free.max(now);
            let queue = if wire.queue_us > 0 { wire.queue_us.saturating_mul(1_000) } else { DEFAULT_QUEUE_NS };
            if start - now > queue {
                return Fate::Overflowed;
            }
            let bits = frame.len() as u128 * 8;
            let serialised = u64::try_from(bits * 1_000_000_000 / u128::from(wire.rate_bps)).unwrap_or(u64::MAX);
            sent = start.saturating_add(serialised);
            self.line_free = sent;
        }
        let jitter = wire.jitter_us * 1_000;
        let least = (wire.delay_us * 1_000).saturating_sub(jitter);
        let more = if jitter > 0 { self.random.random_range(0..=2 * jitter) } else { 0 };
        // A circuit does not reorder: a frame is never due before the one ahead of it.
        let due = sent.saturating_add(least + more).max(self.last_due);
        self.last_due = due;
        self.queue.push_back((due, frame.to_vec()));
        Fate::Carried
    }

    /// The next frame that has arrived by now.
    pub fn arrived(&mut self, now: u64) -> Option<Vec<u8>> {
        match self.queue.front() {
            Some((due, _)) if *due <= now => self.queue.pop_front().map(|(_, frame)| frame),
            _ => None,
        }
    }

    /// When the next frame arrives.
    #[must_use]
    pub fn next_due(&self) -> Option<u64> {
        self.queue.front().map(|(due, _)| *due)
    }

    /// Forgets what is under way, as a cut does; returns how many frames that were.
    pub fn clear(&mut self) -> usize {
        self.last_due = 0;
        self.line_free = 0;
        std::mem::take(&mut self.queue).len()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MS: u64 = 1_000_000;

    fn drain(line: &mut Line) -> Vec<(u64, Vec<u8>)> {
        let mut out = Vec::new();
        while let Some(due) = line.next_due() {
            assert_eq!(line.arrived(due - 1), None, "nothing arrives before it is due");
            out.push((due, line.arrived(due).unwrap()));
        }
        out
    }

    #[test]
    fn a_cut_line_loses_everything() {
        let mut line = Line::new(1);
        assert_eq!(line.offer(0, &Impairment::delay_us(10), true, b"x"), Fate::Lost);
        assert_eq!(line.next_due(), None);
    }

    #[test]
    fn rate_spaces_frames_and_a_full_queue_drops() {
        let wire = Impairment { rate_bps: 8_000_000, queue_us: 3_000, ..Impairment::delay_us(0) };
        let mut line = Line::new(1);
        let fates: Vec<_> = (0..6).map(|_| line.offer(1, &wire, false, &[0; 1_000])).collect();
        assert_eq!(fates, [[Fate::Carried; 4].as_slice(), &[Fate::Overflowed; 2]].concat());
        let times: Vec<_> = drain(&mut line).into_iter().map(|(due, _)| due).collect();
        assert_eq!(times, [1 + MS, 1 + 2 * MS, 1 + 3 * MS, 1 + 4 * MS]);
    }

    #[test]
    fn loss_is_as_often_as_asked() {
        let wire = Impairment { loss_ppm: 100_000, ..Impairment::delay_us(0) };
        let mut line = Line::new(7);
        let lost = (0..10_000).filter(|_| line.offer(0, &wire, false, b"x") == Fate::Lost).count();
        assert!((850..1_150).contains(&lost), "{lost} of 10000 lost at 10 %");
    }

    proptest! {
        #[test]
        fn frames_arrive_in_order_unchanged_and_within_the_jitter(
            seed: u64,
            delay_us in 0u64..20_000,
            jitter_us in 0u64..5_000,
            gaps in prop::collection::vec(0u64..3_000_000, 1..60),
        ) {
            let jitter_us = jitter_us.min(delay_us);
            let wire = Impairment { jitter_us, ..Impairment::delay_us(delay_us) };
            let mut line = Line::new(seed);
            let mut now = 1;
            let mut sent = Vec::new();
            for (i, gap) in gaps.iter().enumerate() {
                now += gap;
                prop_assert_eq!(line.offer(now, &wire, false, &i.to_le_bytes()), Fate::Carried);
                sent.push((now, i.to_le_bytes().to_vec()));
            }
            let arrived = drain(&mut line);
            prop_assert_eq!(arrived.len(), sent.len());
            let mut latest = 0;
            for ((due, frame), (at, original)) in arrived.into_iter().zip(sent) {
                prop_assert_eq!(frame, original);
                prop_assert!(due >= latest);
                prop_assert!(due >= at + (delay_us - jitter_us) * 1_000);
                prop_assert!(due <= latest.max(at + (delay_us + jitter_us) * 1_000));
                latest = due;
            }
        }
    }
}
