//! The only place of the control plane that reads a clock or draws randomness. Everything else is passed a [`Clock`] and a
//! [`Random`], so that tests step the time and a seed replays a run.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha20Rng;
use tieline_openapi::v1::Timestamp;
use uuid::Uuid;

/// Time, as the control plane sees it.
#[async_trait]
pub trait Clock: Send + Sync {
    /// The wall clock, cut to whole milliseconds: what the store can hold.
    fn now(&self) -> Timestamp;

    /// A clock that never steps, counted from some fixed point: for remainders of leases and time-outs.
    fn monotonic(&self) -> Duration;

    /// Waits.
    async fn sleep(&self, duration: Duration);
}

/// Randomness. Ids are drawn here too.
pub trait Random: Send + Sync {
    /// Fills a buffer. In production from a cryptographic generator.
    fn fill(&self, bytes: &mut [u8]);

    /// A UUID v7 of this instant.
    fn uuid_v7(&self, now: Timestamp) -> Uuid {
        let mut random = [0u8; 10];
        self.fill(&mut random);
        let millis = u64::try_from(now.as_millisecond()).unwrap_or(0);
        uuid::Builder::from_unix_timestamp_millis(millis, &random).into_uuid()
    }

    /// An even draw from `0..bound`; 0 for an empty range. The bias is below 2^-32 for the bounds in use.
    fn below(&self, bound: u64) -> u64 {
        let mut bytes = [0u8; 16];
        self.fill(&mut bytes);
        if bound == 0 { 0 } else { (u128::from_le_bytes(bytes) % u128::from(bound)) as u64 }
    }
}

/// The machine's own clock.
#[derive(Debug)]
pub struct SystemClock {
    start: std::time::Instant,
}

impl SystemClock {
    /// A clock whose monotonic time counts from now.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "this is the clock that everything else is passed")]
    pub fn new() -> Self {
        Self { start: std::time::Instant::now() }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

#[async_trait]
impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the clock that everything else is passed")]
    fn now(&self) -> Timestamp {
        let now = Timestamp::now();
        Timestamp::from_millisecond(now.as_millisecond()).unwrap_or(now)
    }

    fn monotonic(&self) -> Duration {
        self.start.elapsed()
    }

    async fn sleep(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }
}

/// A cryptographic generator, seeded from the operating system or, to replay a run, by hand.
pub struct ChaChaRandom(Mutex<ChaCha20Rng>);

impl ChaChaRandom {
    /// Seeded from the operating system.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "this is the generator that everything else is passed")]
    pub fn from_system() -> Self {
        let mut seed = [0u8; 32];
        rand::rng().fill_bytes(&mut seed);
        Self(Mutex::new(ChaCha20Rng::from_seed(seed)))
    }

    /// Seeded by hand.
    #[must_use]
    pub fn from_seed(seed: u64) -> Self {
        Self(Mutex::new(ChaCha20Rng::seed_from_u64(seed)))
    }
}

impl Random for ChaChaRandom {
    fn fill(&self, bytes: &mut [u8]) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).fill_bytes(bytes);
    }
}
