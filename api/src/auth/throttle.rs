//! Who asks too often. Failed authentications are answered ever so often and no oftener. A good token is never slowed down, whoever else fails.

use std::{num::NonZeroU32, sync::Arc, time::Duration};

use governor::{
    Quota, RateLimiter, clock,
    middleware::NoOpMiddleware,
    state::{InMemoryState, NotKeyed},
};

use crate::engine::clock::Clock;

/// Failures in a row before the throttle begins.
const BURST: NonZeroU32 = NonZeroU32::new(200).unwrap();
/// Failures a second after that.
const PER_SECOND: NonZeroU32 = NonZeroU32::new(20).unwrap();

/// Seconds of calls that a peer may make at once.
const BURST_SECONDS: NonZeroU32 = NonZeroU32::new(10).unwrap();

/// Our clock, as the limiter wants it.
#[derive(Clone)]
struct Monotonic(Arc<dyn Clock>);

impl clock::Clock for Monotonic {
    type Instant = Duration;

    fn now(&self) -> Duration {
        self.0.monotonic()
    }
}

/// Counts failed authentications of the whole process: one cell, whatever is tried.
pub struct FailureThrottle(RateLimiter<NotKeyed, InMemoryState, Monotonic, NoOpMiddleware<Duration>>);

impl FailureThrottle {
    /// A throttle that counts by a clock.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self(RateLimiter::direct_with_clock(Quota::per_second(PER_SECOND).allow_burst(BURST), Monotonic(clock)))
    }

    /// Counts a failure; false if there were too many of late.
    #[must_use]
    pub fn count(&self) -> bool {
        self.0.check().is_ok()
    }
}

/// Counts the calls of one peer.
pub struct CallThrottle(RateLimiter<NotKeyed, InMemoryState, Monotonic, NoOpMiddleware<Duration>>);

impl CallThrottle {
    /// So many calls a second, and ten times as many at once.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>, per_second: u32) -> Self {
        let per_second = NonZeroU32::new(per_second).unwrap_or(NonZeroU32::MIN);
        let burst = per_second.saturating_mul(BURST_SECONDS);
        Self(RateLimiter::direct_with_clock(Quota::per_second(per_second).allow_burst(burst), Monotonic(clock)))
    }

    /// Counts a call; false if there were too many of late.
    #[must_use]
    pub fn take(&self) -> bool {
        self.0.check().is_ok()
    }
}
