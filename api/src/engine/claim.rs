//! Takes due connections, runs one pass over each, and keeps the slower loops going.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tieline_openapi::v1::Timestamp;
use tokio::{sync::Semaphore, task::JoinSet};
use tokio_util::sync::CancellationToken;

use super::{Engine, failpoints};
use crate::store::{Claim, HousekeepingLimits};

/// Connections that one replica works on at a time.
const AT_A_TIME: u32 = 64;

/// Milliseconds between two rounds of housekeeping.
const HOUSEKEEPING_MS: u64 = 60_000;

/// Milliseconds in which claims without change are gathered before they are given back.
const GATHER_MS: u64 = 20;

/// What one replica has done since its start.
#[derive(Debug, Default)]
pub struct Progress {
    pub(super) passes: AtomicU64,
    pub(super) fenced: AtomicU64,
    pub(super) failed: AtomicU64,
    pub(super) calls: AtomicU64,
    pub(super) reads: AtomicU64,
    pub(super) swept: AtomicU64,
    pub(super) foreign: AtomicU64,
    pub(super) last: Mutex<Option<Timestamp>>,
}

impl Progress {
    /// Passes that were begun.
    #[must_use]
    pub fn passes(&self) -> u64 {
        self.passes.load(Ordering::Relaxed)
    }
    /// Passes whose claim another replica took over.
    #[must_use]
    pub fn fenced(&self) -> u64 {
        self.fenced.load(Ordering::Relaxed)
    }
    /// Passes that ended in an error of the store.
    #[must_use]
    pub fn failed(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }
    /// Mutating calls that were sent.
    #[must_use]
    pub fn calls(&self) -> u64 {
        self.calls.load(Ordering::Relaxed)
    }
    /// Reads and pages of lists that were asked for.
    #[must_use]
    pub fn reads(&self) -> u64 {
        self.reads.load(Ordering::Relaxed)
    }
    /// Orphans and twins that the sweep deleted.
    #[must_use]
    pub fn swept(&self) -> u64 {
        self.swept.load(Ordering::Relaxed)
    }
    /// Others' resources that the last sweep saw.
    #[must_use]
    pub fn foreign(&self) -> u64 {
        self.foreign.load(Ordering::Relaxed)
    }
    /// When any connection last went forward.
    #[must_use]
    pub fn last_progress_at(&self) -> Option<Timestamp> {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Engine {
    /// Runs until told to stop; then lets the passes at work come to their end, each within its lease.
    pub async fn run(self: Arc<Self>, shutdown: CancellationToken) {
        let mut loops = JoinSet::new();
        for account in self.topology.accounts.keys() {
            loops.spawn(Arc::clone(&self).inventory_loop(account.clone(), shutdown.clone()));
        }
        loops.spawn(Arc::clone(&self).housekeeping_loop(shutdown.clone()));
        loops.spawn(Arc::clone(&self).release_loop(shutdown.clone()));
        self.claim_loop(&shutdown).await;
        while loops.join_next().await.is_some() {}
        self.release_unchanged().await;
    }

    async fn claim_loop(self: &Arc<Self>, shutdown: &CancellationToken) {
        let slots = Arc::new(Semaphore::new(AT_A_TIME as usize));
        let mut passes = JoinSet::new();
        let mut failures = 0u32;
        while !shutdown.is_cancelled() {
            while passes.try_join_next().is_some() {}
            let free = u32::try_from(slots.available_permits()).unwrap_or(AT_A_TIME);
            if free == 0 {
                tokio::select! { biased; () = shutdown.cancelled() => break, _ = passes.join_next() => {} }
                continue;
            }
            let sent_at = self.clock.monotonic();
            let wait = match self.store.claim(&self.owner, self.config.lease_ms, free).await {
                Ok(claims) => {
                    failures = 0;
                    let more = !claims.is_empty() && claims.len() == free as usize;
                    for claim in claims {
                        let Ok(slot) = Arc::clone(&slots).try_acquire_owned() else { break };
                        let engine = Arc::clone(self);
                        passes.spawn(async move {
                            engine.failpoints.hit(failpoints::CLAIMED).await;
                            let due_soon = engine.run_pass(claim, sent_at).await;
                            drop(slot);
                            // The claim loop may sleep to a due time that it read before this pass gave a nearer one.
                            if due_soon || free == 1 {
                                engine.wake.notify_one();
                            }
                        });
                    }
                    if more { Duration::ZERO } else { self.until_due().await }
                }
                Err(error) => {
                    failures = failures.saturating_add(1);
                    tracing::warn!(%error, failures, "due connections cannot be claimed");
                    Duration::from_millis(self.config.poll_ms.saturating_mul(u64::from(failures)).min(30_000))
                }
            };
            if wait > Duration::ZERO {
                tokio::select! {
                    biased;
                    () = shutdown.cancelled() => {}
                    () = self.wake.notified() => {}
                    () = self.clock.sleep(wait) => {}
                }
            }
        }
        while passes.join_next().await.is_some() {}
    }

    /// How long to sleep: to the next due time, and never longer than the longest wait, since others may write rows too.
    async fn until_due(&self) -> Duration {
        let longest = self.config.poll_ms.max(1);
        let wait = match self.store.next_due(longest).await {
            Ok(due) => due.unwrap_or(longest).clamp(1, longest),
            Err(error) => {
                tracing::warn!(%error, "the next due time cannot be read");
                longest
            }
        };
        Duration::from_millis(wait)
    }

    /// Notes a claim of a pass that changed nothing: it is given back with others in one transaction.
    pub(super) fn release_soon(&self, claim: Claim, due_in_ms: u64) {
        self.unchanged.lock().unwrap_or_else(PoisonError::into_inner).push((claim, due_in_ms));
        self.any_unchanged.notify_one();
    }

    async fn release_loop(self: Arc<Self>, shutdown: CancellationToken) {
        loop {
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                () = self.any_unchanged.notified() => {}
            }
            self.clock.sleep(Duration::from_millis(GATHER_MS)).await;
            self.release_unchanged().await;
        }
    }

    async fn release_unchanged(&self) {
        let releases = std::mem::take(&mut *self.unchanged.lock().unwrap_or_else(PoisonError::into_inner));
        if releases.is_empty() {
            return;
        }
        let soon = releases.iter().any(|(_, due_in_ms)| *due_in_ms < self.config.poll_ms);
        match self.store.release_unchanged(releases).await {
            Ok(()) if soon => self.wake.notify_one(),
            Ok(()) => {}
            Err(error) => tracing::warn!(%error, "claims could not be given back: they run out by themselves"),
        }
    }

    async fn housekeeping_loop(self: Arc<Self>, shutdown: CancellationToken) {
        loop {
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                () = self.clock.sleep(Duration::from_millis(HOUSEKEEPING_MS.min(self.config.sweep_ms.max(1)))) => {}
            }
            if let Err(error) = self.store.housekeep(&HousekeepingLimits::of(&self.topology.retention)).await {
                tracing::warn!(%error, "housekeeping was put off");
            }
        }
    }
}
