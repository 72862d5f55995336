//! Connections that are due: a step of the protocol, one call to the peer, and what its answer changes.
//!
//! One replica drives a peer at a time, under a lease. What is about to be asked is stored before it is sent, with the
//! request id that a repetition will have; so whoever takes over, or starts again, asks the same.

use std::{sync::Arc, time::Duration};

use futures::StreamExt as _;
use tieline_openapi::coordinator::{Sensitive, Timestamp};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{Coordination, CoordinationError, Peer, call::NoAnswer, keeper::Doing};
use crate::{
    events::Topic,
    plan::coordinate::{Ask, Book, Draw, Place, Source},
    secrets::bgp_password,
    store::{SharedLease, StoreError},
};

/// Connections of one peer that are worked on at a time.
const AT_A_TIME: usize = 8;
/// Connections that are taken from the store at once.
const BATCH: u32 = 64;
/// How long a replica drives a peer before it says again that it does.
const LEASE_MS: u64 = 60_000;
/// How long nobody looks, at most: hints may be lost.
const LONGEST_MS: u64 = 1_000;
/// How often a peer's key pairs and what is to be forgotten are looked at.
const HOUSEKEEPING: Duration = Duration::from_secs(600);

impl Coordination {
    /// Runs until told to stop. Calls that are on their way then are not waited for: their answers are asked for again.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        let mut peers = JoinSet::new();
        for peer in self.peers.values() {
            let (this, peer, stop) = (Arc::clone(&self), Arc::clone(peer), stop.clone());
            peers.spawn(async move { this.drive(&peer, &stop).await });
        }
        peers.spawn(Arc::clone(&self).reflect(stop));
        while peers.join_next().await.is_some() {}
    }

    async fn drive(&self, peer: &Arc<Peer>, stop: &CancellationToken) {
        let name = format!("coordinator/{}", peer.id);
        while !stop.is_cancelled() {
            let lease = self.parts.store.lease_shared(&name, &self.parts.owner, LEASE_MS).await;
            let lease = lease.unwrap_or_else(|error| {
                tracing::warn!(%error, peer = %peer.id, "a peer cannot be driven now");
                None
            });
            if let Some(lease) = lease {
                tokio::select! {
                    biased;
                    () = stop.cancelled() => {}
                    () = self.keep(&lease) => tracing::info!(peer = %peer.id, "another replica drives the peer now"),
                    () = self.drive_leased(peer) => {}
                }
                // The next holder need not wait until it runs out.
                if let Err(error) = self.parts.store.release_shared(&lease, serde_json::Value::Null).await
                    && !matches!(error, StoreError::Fenced)
                {
                    tracing::warn!(%error, peer = %peer.id, "a lease could not be given back: it runs out by itself");
                }
            }
            tokio::select! {
                () = stop.cancelled() => {}
                () = self.parts.clock.sleep(Duration::from_millis(LONGEST_MS)) => {}
            }
        }
    }

    /// Renews a lease until it is lost.
    async fn keep(&self, lease: &SharedLease) {
        let mut held_until = self.parts.clock.monotonic() + Duration::from_millis(LEASE_MS);
        loop {
            self.parts.clock.sleep(Duration::from_millis(LEASE_MS / 4)).await;
            let asked_at = self.parts.clock.monotonic();
            match self.parts.store.renew_shared(lease).await {
                Ok(()) => held_until = asked_at + Duration::from_millis(LEASE_MS),
                Err(StoreError::Fenced) => return,
                Err(error) if self.parts.clock.monotonic() < held_until => {
                    tracing::warn!(%error, "a lease could not be renewed");
                }
                Err(_) => return,
            }
        }
    }

    async fn drive_leased(&self, peer: &Arc<Peer>) {
        let mut due = self.parts.hints.subscribe(Topic::Due);
        let mut housekeeping = None;
        let mut failures = 0u32;
        loop {
            let now = self.parts.clock.monotonic();
            if housekeeping.is_none_or(|at| now.saturating_sub(at) >= HOUSEKEEPING) {
                housekeeping = Some(now);
                self.housekeep(peer).await;
            }
            let wait = match self.round(peer).await {
                Ok(wait) => {
                    failures = 0;
                    wait
                }
                Err(error) => {
                    failures = failures.saturating_add(1);
                    tracing::warn!(error = &error as &dyn std::error::Error, peer = %peer.id, "a peer's connections were put off");
                    Duration::from_millis(LONGEST_MS.saturating_mul(u64::from(failures.min(30))))
                }
            };
            if wait > Duration::ZERO {
                due.wait_at_most(&*self.parts.clock, wait).await;
            }
        }
    }

    /// Everything that is due now; how long to wait then.
    async fn round(&self, peer: &Arc<Peer>) -> Result<Duration, CoordinationError> {
        let places = self.parts.books.due_places(&peer.id, BATCH).await?;
        if places.is_empty() {
            let next = self.parts.books.next_place_due(&peer.id, LONGEST_MS).await?;
            return Ok(Duration::from_millis(next.unwrap_or(LONGEST_MS).max(1)));
        }
        let mut passes = futures::stream::iter(places).map(|place| self.pass(peer, place)).buffer_unordered(AT_A_TIME);
        let mut failed = None;
        while let Some(passed) = passes.next().await {
            failed = passed.err().or(failed);
        }
        failed.map_or(Ok(Duration::ZERO), Err)
    }

    async fn pass(&self, peer: &Peer, place: Place) -> Result<(), CoordinationError> {
        let draw = self.draw();
        let ask = self.act(peer, None, None, |book, now| {
            let step = book.step(&place, now, &draw);
            let wait = u64::try_from(step.wake.duration_since(now).as_millis()).unwrap_or(0);
            // What is about to be asked waits for its answer, not for the next look at the clock.
            let mut doing = Doing::new(with_key(book, step.ask), step.changes);
            doing.due.push((place.clone(), wait.max(u64::from(doing.changes.is_empty()))));
            doing
        });
        let Some((ask, key)) = ask.await? else { return Ok(()) };
        let key = match key {
            Some(uuid) => self.brought(peer, uuid).await?,
            None => None,
        };
        let reply = match self.ask(peer, &ask, key.as_ref()).await {
            Ok(reply) => reply,
            // The next step asks again, later and later.
            Err(error) => {
                no_answer(peer, &ask, &error);
                return Ok(());
            }
        };
        self.act(peer, None, None, |book, now| Doing::new((), book.absorb(&place, &ask, Some(&reply), now))).await
    }

    /// Random choices for one step.
    pub(super) fn draw(&self) -> Draw {
        let random = &*self.parts.random;
        let id = || {
            let mut bytes = [0; 16];
            random.fill(&mut bytes);
            uuid::Builder::from_random_bytes(bytes).into_uuid()
        };
        Draw {
            ids: [id(), id(), id()],
            password: Sensitive::from(bgp_password(random)),
            jitter: u16::try_from(random.below(1_001)).unwrap_or(0),
        }
    }

    async fn housekeep(&self, peer: &Arc<Peer>) {
        if let Err(error) = self.rotate(peer).await {
            tracing::warn!(error = &error as &dyn std::error::Error, peer = %peer.id, "no new key pair was made");
        }
        if let Err(error) = self.parts.books.forget(1_000).await {
            tracing::warn!(%error, "housekeeping of the peers' books was put off");
        }
    }

    /// Now.
    pub(super) fn now(&self) -> Timestamp {
        self.parts.clock.now()
    }
}

/// A question, and the UUID of the key whose text goes with it.
fn with_key(book: &Book, ask: Option<Ask>) -> Option<(Ask, Option<Uuid>)> {
    let ask = ask?;
    let key = match &ask {
        Ask::Confirm { key, .. } | Ask::Create { source: Source::Key(key), .. } => Some(*key),
        Ask::Create { .. }
        | Ask::Look { .. }
        | Ask::Resize { .. }
        | Ask::Delete { .. }
        | Ask::Guidance { .. }
        | Ask::CreateFeature { .. }
        | Ask::DeleteFeature { .. }
        | Ask::Notify { .. } => None,
    };
    debug_assert!(ask.place().is_none_or(|place| book.rows.contains_key(place)), "only what is there is asked about");
    Some((ask, key))
}

fn no_answer(peer: &Peer, ask: &Ask, error: &NoAnswer) {
    let about = ask.place().map_or("", |place| place.connection.as_str());
    let error = error as &dyn std::error::Error;
    tracing::info!(peer = %peer.id, connection = about, error, "no answer of the peer");
}
