//! Leases on objects that others write too: a Cloud Router whose PATCH replaces whole arrays. A write is a read, a change
//! and a write, so only one replica may be between the two; and a write whose answer was lost may land late, so the next
//! holder waits it out.

use std::time::Duration;

use serde_json::json;
use tieline_openapi::ids::AccountId;

use super::Engine;
use crate::store::{SharedLease, StoreError};

/// The outcome of asking for a shared object.
pub(super) enum Taken {
    /// It is ours until the lease ends.
    Held(Guarded),
    /// Another holds it, or a write without answer must be waited out: come back later.
    Later,
}

/// A lease, with the monotonic time from before it was asked for.
pub(super) struct Guarded {
    pub lease: SharedLease,
    asked_at: Duration,
}

impl Guarded {
    /// What remains of the lease.
    pub(super) fn remaining(&self, now: Duration) -> Duration {
        (self.asked_at + Duration::from_millis(self.lease.lease_ms)).saturating_sub(now)
    }
}

/// The name of a shared object's lease.
pub(super) fn lease_name(account: &AccountId, parent: &str) -> String {
    format!("parent/{account}/{parent}")
}

impl Engine {
    /// Asks for a shared object.
    pub(super) async fn take_shared(&self, name: &str) -> Result<Taken, StoreError> {
        let asked_at = self.clock.monotonic();
        let Some(lease) = self.store.lease_shared(name, &self.owner, self.config.lease_ms).await? else {
            return Ok(Taken::Later);
        };
        let note_wait = lease.note.get("waitMs").and_then(serde_json::Value::as_u64).unwrap_or(0);
        let wait = match lease.released_ms_ago {
            Some(ago) => note_wait.saturating_sub(ago),
            // The first holder ever has nobody to wait for. Where a lease ran out, its holder may have a write under way.
            None if lease.epoch <= 1 => 0,
            None => self.unanswered_ms(),
        };
        if wait > 0 {
            self.release_if_held(&lease, wait).await?;
            return Ok(Taken::Later);
        }
        Ok(Taken::Held(Guarded { lease, asked_at }))
    }

    /// Gives a shared object back. `answered` is false after a write of which nobody knows whether it took.
    pub(super) async fn give_back(&self, guarded: Guarded, answered: bool) -> Result<(), StoreError> {
        let wait = if answered { 0 } else { self.unanswered_ms() };
        self.release_if_held(&guarded.lease, wait).await
    }

    /// A lease that ran out meanwhile is not ours to give back: whoever holds it has waited already, or will.
    async fn release_if_held(&self, lease: &SharedLease, wait_ms: u64) -> Result<(), StoreError> {
        match self.store.release_shared(lease, json!({ "waitMs": wait_ms })).await {
            Err(StoreError::Fenced) => Ok(()),
            other => other,
        }
    }

    /// How long a write without answer may still land and then not show: as long as for a create without one.
    fn unanswered_ms(&self) -> u64 {
        let config = &self.config;
        config.call_timeout_ms.saturating_add(config.lease_ms).saturating_add(config.visibility_lag_ms)
    }
}
