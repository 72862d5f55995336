//! What a stretch of probes says about a way.

/// Latest round trips kept between two reports; older ones are dropped.
const MAX_SAMPLES: usize = 4_096;

/// Cumulative counters of one source port.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Counters {
    /// Requests sent.
    pub(super) sent: u32,
    /// Replies received.
    pub(super) answered: u32,
    /// Requests sent up to the newest answered one.
    pub(super) acked_sent: u32,
    /// Of those, requests that the peer heard.
    pub(super) acked_heard: u32,
    /// Of those, replies received.
    pub(super) acked_answered: u32,
}

/// What has been lost between two looks at the counters.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Loss {
    pub(super) sent: u64,
    pub(super) answered: u64,
    out_of: u64,
    out: u64,
    in_of: u64,
    r#in: u64,
}

impl Loss {
    /// Adds one port's difference.
    pub(super) fn add(&mut self, was: &Counters, is: &Counters) {
        let sent = is.acked_sent.saturating_sub(was.acked_sent);
        let heard = is.acked_heard.saturating_sub(was.acked_heard);
        let answered = is.acked_answered.saturating_sub(was.acked_answered);
        self.sent += u64::from(is.sent.saturating_sub(was.sent));
        self.answered += u64::from(is.answered.saturating_sub(was.answered));
        self.out_of += u64::from(sent);
        self.out += u64::from(sent.saturating_sub(heard));
        self.in_of += u64::from(heard);
        self.r#in += u64::from(heard.saturating_sub(answered));
    }

    /// Adds a port that has no answers at all: what went out is lost on the way there, on the way back, or on both.
    pub(super) fn add_dead(&mut self, was: &Counters, is: &Counters, lost_out: bool, lost_in: bool) {
        let sent = u64::from(is.sent.saturating_sub(was.sent));
        self.sent += sent;
        self.out_of += sent;
        self.in_of += sent;
        self.out += if lost_out { sent } else { 0 };
        self.r#in += if lost_in { sent } else { 0 };
    }

    /// Requests lost towards the peer.
    pub(super) fn lost_out(&self) -> u64 {
        self.out
    }

    /// Lost towards the peer, parts per million.
    pub(super) fn out_ppm(&self) -> u32 {
        ppm(self.out, self.out_of)
    }

    /// Lost from the peer, parts per million.
    pub(super) fn in_ppm(&self) -> u32 {
        ppm(self.r#in, self.in_of)
    }
}

fn ppm(part: u64, whole: u64) -> u32 {
    let of = part.min(whole).saturating_mul(1_000_000).checked_div(whole).unwrap_or(0);
    u32::try_from(of).unwrap_or(1_000_000)
}

/// Round trips of one way.
#[derive(Debug, Clone, Default)]
pub(super) struct RoundTrips {
    us: Vec<u32>,
}

impl RoundTrips {
    pub(super) fn add(&mut self, us: u32) {
        if self.us.len() == MAX_SAMPLES {
            self.us.drain(..MAX_SAMPLES / 2);
        }
        self.us.push(us);
    }

    /// Median and 99th percentile (nearest rank) in microseconds, and empties it.
    pub(super) fn take(&mut self) -> Option<(u32, u32)> {
        self.us.sort_unstable();
        let rank = |percent: usize| self.us.get((self.us.len() * percent).div_ceil(100).max(1) - 1).copied();
        let both = rank(50).zip(rank(99));
        self.us.clear();
        both
    }
}

/// Mean deviation of the transit time, RFC 3550 section 6.4.1: `J += (|D| - J) / 16`, kept in 1/16 microseconds.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Jitter {
    last_us: Option<u32>,
    sixteenths: u64,
}

impl Jitter {
    pub(super) fn add(&mut self, transit_us: u32) {
        if let Some(last) = self.last_us.replace(transit_us) {
            let d = u64::from(transit_us.abs_diff(last));
            self.sixteenths = self.sixteenths + d - (self.sixteenths + 8) / 16;
        }
    }

    /// In microseconds; `None` before the second sample.
    pub(super) fn us(self) -> Option<u32> {
        self.last_us.map(|_| u32::try_from(self.sixteenths / 16).unwrap_or(u32::MAX))
    }
}

/// What one report interval saw of one way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PathReport {
    /// Requests sent.
    pub sent: u32,
    /// Replies received.
    pub received: u32,
    /// Median round trip in microseconds.
    pub rtt_us: Option<u32>,
    /// 99th percentile of the round trip in microseconds.
    pub rtt_p99_us: Option<u32>,
    /// Mean deviation in microseconds (RFC 3550).
    pub jitter_us: Option<u32>,
    /// Lost towards the peer, parts per million.
    pub loss_out_ppm: u32,
    /// Lost from the peer, parts per million.
    pub loss_in_ppm: u32,
    /// Dead source ports.
    pub dead_ports: u8,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_nearest_rank() {
        let mut trips = RoundTrips::default();
        assert_eq!(trips.take(), None);
        trips.add(7);
        assert_eq!(trips.take(), Some((7, 7)));
        for us in (1..=200).rev() {
            trips.add(us);
        }
        assert_eq!(trips.take(), Some((100, 198)));
        assert_eq!(trips.take(), None);
    }

    #[test]
    fn jitter_follows_rfc_3550() {
        let mut jitter = Jitter::default();
        assert_eq!(jitter.us(), None);
        for us in [1_000, 1_160, 1_000, 1_160] {
            jitter.add(us);
        }
        // 10, 19.4, 28.2 with |D| = 160.
        assert!((27..=30).contains(&jitter.us().unwrap()), "{jitter:?}");
    }

    #[test]
    fn loss_is_told_per_direction() {
        let mut loss = Loss::default();
        let is = Counters { sent: 110, answered: 60, acked_sent: 100, acked_heard: 80, acked_answered: 60 };
        loss.add(&Counters::default(), &is);
        assert_eq!((loss.out_ppm(), loss.in_ppm()), (200_000, 250_000));
        assert_eq!((loss.sent, loss.answered), (110, 60));
    }
}
