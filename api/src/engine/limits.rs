//! A token bucket an account: the clouds count calls an account, so all connections of one share it. Work that a user waits
//! for goes before housekeeping.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use tieline_openapi::ids::AccountId;

use super::clock::Clock;

/// Who waits for a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lane {
    /// A user: a connection is on its way.
    User,
    /// Nobody: settled connections are looked at, accounts are swept.
    Housekeeping,
}

/// The buckets of all accounts.
pub struct Limits {
    clock: Arc<dyn Clock>,
    per_second: f64,
    buckets: BTreeMap<AccountId, Bucket>,
}

struct Bucket {
    state: Mutex<State>,
    users_waiting: AtomicU32,
}

struct State {
    tokens: f64,
    at: Duration,
}

/// Counts a waiting user, also when its future is dropped.
struct Waiting<'a>(&'a AtomicU32);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Limits {
    /// A full bucket of one second's calls for each account.
    pub fn new(clock: Arc<dyn Clock>, calls_per_second: u32, accounts: impl Iterator<Item = AccountId>) -> Self {
        let per_second = f64::from(calls_per_second.max(1));
        let at = clock.monotonic();
        let bucket =
            || Bucket { state: Mutex::new(State { tokens: per_second, at }), users_waiting: AtomicU32::new(0) };
        Self { buckets: accounts.map(|account| (account, bucket())).collect(), clock, per_second }
    }

    /// Takes one call's token, waiting for it if need be.
    pub async fn take(&self, account: &AccountId, lane: Lane) {
        let Some(bucket) = self.buckets.get(account) else { return };
        let _waiting = (lane == Lane::User).then(|| {
            bucket.users_waiting.fetch_add(1, Ordering::SeqCst);
            Waiting(&bucket.users_waiting)
        });
        while let Some(wait) = self.try_take(bucket, lane) {
            self.clock.sleep(wait).await;
        }
    }

    /// `None` once taken, else how long to wait before the next try.
    fn try_take(&self, bucket: &Bucket, lane: Lane) -> Option<Duration> {
        let yields = lane == Lane::Housekeeping && bucket.users_waiting.load(Ordering::SeqCst) > 0;
        let mut state = bucket.state.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.clock.monotonic();
        let earned = now.saturating_sub(state.at).as_secs_f64() * self.per_second;
        state.tokens = (state.tokens + earned).min(self.per_second);
        state.at = now;
        if state.tokens >= 1.0 && !yields {
            state.tokens -= 1.0;
            return None;
        }
        // Never shorter than a millisecond: the wait must end behind the moment at which the token is whole.
        let missing = (1.0 - state.tokens).max(0.0) / self.per_second;
        Some(Duration::from_secs_f64(missing).max(Duration::from_millis(1)) + Duration::from_millis(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use async_trait::async_trait;
    use futures::FutureExt;
    use tieline_openapi::v1::Timestamp;

    #[derive(Default)]
    struct Stepped(Mutex<Duration>);

    #[async_trait]
    impl Clock for Stepped {
        fn now(&self) -> Timestamp {
            Timestamp::UNIX_EPOCH
        }
        fn monotonic(&self) -> Duration {
            *self.0.lock().unwrap()
        }
        async fn sleep(&self, _: Duration) {
            std::future::pending().await
        }
    }

    #[test]
    fn no_more_calls_than_the_rate_and_users_go_first() {
        let clock = Arc::new(Stepped::default());
        let account = AccountId::try_from("acct".to_owned()).unwrap();
        let limits = Limits::new(Arc::clone(&clock) as Arc<dyn Clock>, 5, std::iter::once(account.clone()));
        let take = |lane| limits.take(&account, lane).now_or_never().is_some();
        assert_eq!((0..10).filter(|_| take(Lane::User)).count(), 5);
        *clock.0.lock().unwrap() = Duration::from_millis(400);
        let mut user = Box::pin(async {
            limits.take(&account, Lane::User).await;
        });
        assert!(take(Lane::User) && take(Lane::User));
        assert!((&mut user).now_or_never().is_none(), "a third call must wait");
        *clock.0.lock().unwrap() = Duration::from_millis(1_000);
        assert!(!take(Lane::Housekeeping), "housekeeping goes behind a waiting user");
        drop(user);
        assert!(take(Lane::Housekeeping));
    }
}
