//! A scheduler that owns the time: every store call, every wire call, every failpoint and every sleep of an engine waits
//! here until the test lets it go on. One thing runs at a time, so a seed replays a run.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use tieline_api::engine::{clock::Clock, failpoints::AtPoint};
use tieline_openapi::v1::Timestamp;
use tieline_providers::fake::{Gate, Request};
use tokio::sync::{Notify, oneshot};

use super::store::Rows;

/// When every run begins.
pub(crate) const START: i64 = 1_800_000_000_000;

/// Something that waits for the test.
pub(crate) struct Waiter {
    pub(crate) replica: u32,
    pub(crate) what: String,
    /// For a sleep: until when, in milliseconds since the start.
    pub(crate) until: Option<u64>,
    go: oneshot::Sender<()>,
}

#[derive(Default)]
pub(crate) struct Sched {
    waiting: Mutex<BTreeMap<u64, Waiter>>,
    next: AtomicU64,
    /// Milliseconds since the start: true time, which the clouds go by.
    now_ms: AtomicU64,
    running: AtomicI64,
    activity: AtomicU64,
    /// A store call has come to its end.
    ended: Notify,
}

/// A store call at work.
pub(crate) struct Running(Arc<Sched>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::SeqCst);
        self.0.activity.fetch_add(1, Ordering::SeqCst);
        self.0.ended.notify_one();
    }
}

impl Sched {
    fn waiting(&self) -> MutexGuard<'_, BTreeMap<u64, Waiter>> {
        self.waiting.lock().unwrap()
    }

    pub(crate) fn now_ms(&self) -> u64 {
        self.now_ms.load(Ordering::SeqCst)
    }

    pub(crate) fn now(&self) -> Timestamp {
        at(self.now_ms())
    }

    pub(crate) fn advance_to(&self, ms: u64) {
        self.now_ms.fetch_max(ms, Ordering::SeqCst);
    }

    pub(crate) async fn wait(&self, replica: u32, what: &str, until: Option<u64>) {
        let (go, gone) = oneshot::channel();
        let id = self.next.fetch_add(1, Ordering::SeqCst);
        self.waiting().insert(id, Waiter { replica, what: what.to_owned(), until, go });
        self.activity.fetch_add(1, Ordering::SeqCst);
        let _ = gone.await;
        self.activity.fetch_add(1, Ordering::SeqCst);
    }

    pub(crate) async fn begin(self: &Arc<Self>, replica: u32, what: &str) -> Running {
        self.wait(replica, what, None).await;
        self.running.fetch_add(1, Ordering::SeqCst);
        Running(Arc::clone(self))
    }

    /// Returns when nothing can go on by itself.
    pub(crate) async fn quiesce(&self) {
        let mut quiet = 0;
        let mut seen = self.activity.load(Ordering::SeqCst);
        while quiet < 12 {
            tokio::task::yield_now().await;
            let now = self.activity.load(Ordering::SeqCst);
            if self.running.load(Ordering::SeqCst) > 0 {
                // The database answers from a thread of its own.
                self.ended.notified().await;
                quiet = 0;
            } else if now != seen {
                quiet = 0;
            } else {
                quiet += 1;
            }
            seen = now;
        }
    }

    /// Everything that waits, oldest first: id, replica, what, until when.
    pub(crate) fn list(&self) -> Vec<(u64, u32, String, Option<u64>)> {
        let mut waiting = self.waiting();
        waiting.retain(|_, waiter| !waiter.go.is_closed());
        waiting.iter().map(|(id, w)| (*id, w.replica, w.what.clone(), w.until)).collect()
    }

    pub(crate) fn resume(&self, id: u64) {
        let waiter = self.waiting().remove(&id);
        if let Some(waiter) = waiter {
            let _ = waiter.go.send(());
        }
    }
}

pub(crate) fn at(ms: u64) -> Timestamp {
    Timestamp::from_millisecond(START + i64::try_from(ms).unwrap()).unwrap()
}

/// One replica's clock: true time plus what somebody stepped it by.
pub(crate) struct SimClock {
    pub(crate) sched: Arc<Sched>,
    pub(crate) replica: u32,
    pub(crate) stepped_ms: Arc<AtomicI64>,
}

#[async_trait]
impl Clock for SimClock {
    fn now(&self) -> Timestamp {
        let now = self.sched.now().as_millisecond() + self.stepped_ms.load(Ordering::SeqCst);
        Timestamp::from_millisecond(now).unwrap()
    }

    fn monotonic(&self) -> Duration {
        Duration::from_millis(self.sched.now_ms())
    }

    async fn sleep(&self, duration: Duration) {
        let until = self.sched.now_ms() + u64::try_from(duration.as_millis()).unwrap().max(1);
        self.sched.wait(self.replica, "sleep", Some(until)).await;
    }
}

/// One replica's failpoints.
pub(crate) struct SimPoints {
    pub(crate) sched: Arc<Sched>,
    pub(crate) replica: u32,
}

#[async_trait]
impl AtPoint for SimPoints {
    async fn at(&self, name: &'static str) {
        self.sched.wait(self.replica, name, None).await;
    }
}

/// One replica's way to the clouds.
pub(crate) struct SimGate {
    pub(crate) sched: Arc<Sched>,
    pub(crate) replica: u32,
    pub(crate) rows: Arc<Rows>,
}

#[async_trait]
impl Gate for SimGate {
    async fn pass(&self, what: &str) {
        self.sched.wait(self.replica, what, None).await;
    }

    async fn at_socket(&self, request: &Request) {
        self.sched.wait(self.replica, "socket", None).await;
        self.rows.leave(request.instance, request.verb);
    }
}
