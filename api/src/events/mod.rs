//! Hints that something was committed, for those who wait for it: readers of events, streams of gateway configurations,
//! the engine. On Postgres the store passes them on between replicas. A hint may be lost: whoever waits also looks once a
//! second, and what the store says is the truth.

use std::{sync::Arc, time::Duration};

use tieline_openapi::{ids::ProjectId, v1::Event};
use tokio::sync::watch;

use crate::{
    engine::clock::Clock,
    store::{Store, StoreError},
};

/// How long a reader waits at most before it looks again without a hint.
pub const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// What a hint is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Topic {
    /// Events were committed.
    Events,
    /// Some gateway's configuration may have changed.
    Configuration,
    /// A connection became due.
    Due,
}

/// Gives and takes hints within one process. Clones are the same hub.
#[derive(Debug, Clone)]
pub struct Hints(Arc<Hub>);

#[derive(Debug)]
struct Hub {
    events: watch::Sender<u64>,
    configuration: watch::Sender<u64>,
    due: watch::Sender<u64>,
}

impl Default for Hints {
    fn default() -> Self {
        Self::new()
    }
}

impl Hints {
    /// A hub of its own.
    #[must_use]
    pub fn new() -> Self {
        let sender = || watch::Sender::new(0);
        Self(Arc::new(Hub { events: sender(), configuration: sender(), due: sender() }))
    }

    fn sender(&self, topic: Topic) -> &watch::Sender<u64> {
        match topic {
            Topic::Events => &self.0.events,
            Topic::Configuration => &self.0.configuration,
            Topic::Due => &self.0.due,
        }
    }

    /// Wakes everyone who waits for this.
    pub fn give(&self, topic: Topic) {
        self.sender(topic).send_modify(|n| *n = n.wrapping_add(1));
    }

    /// Waits for hints from now on.
    #[must_use]
    pub fn subscribe(&self, topic: Topic) -> Hint {
        Hint { receiver: self.sender(topic).subscribe(), _hub: self.clone() }
    }
}

/// One waiter. Hints that were given while it did not wait are not lost: its next wait ends at once.
#[derive(Debug)]
pub struct Hint {
    receiver: watch::Receiver<u64>,
    // Keeps the sender alive: a closed channel would look like an endless row of hints.
    _hub: Hints,
}

impl Hint {
    /// Waits for the next hint. May be cancelled.
    pub async fn wait(&mut self) {
        // It cannot be closed: the hub is held by this waiter.
        let _closed = self.receiver.changed().await;
    }

    /// Waits for the next hint or as long as this; true if there was a hint.
    pub async fn wait_at_most(&mut self, clock: &dyn Clock, longest: Duration) -> bool {
        tokio::select! {
            () = self.wait() => true,
            () = clock.sleep(longest) => false,
        }
    }
}

/// Reads a project's events in order, from a cursor on, without a gap.
pub struct EventReader {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    project: ProjectId,
    cursor: u64,
    hint: Hint,
}

impl EventReader {
    /// A reader that has seen everything up to `since`.
    #[must_use]
    pub fn new(store: Arc<dyn Store>, clock: Arc<dyn Clock>, hints: &Hints, project: ProjectId, since: u64) -> Self {
        Self { store, clock, project, cursor: since, hint: hints.subscribe(Topic::Events) }
    }

    /// The cursor of the last event that was given out.
    #[must_use]
    pub const fn cursor(&self) -> u64 {
        self.cursor
    }

    /// The next events, at most `limit`, oldest first; waits until there is one. May be cancelled: what was not given out
    /// is given out by the next call.
    ///
    /// # Errors
    /// [`StoreError::CursorTooOld`] when events after the cursor are not kept any more, and whatever the store says.
    pub async fn next(&mut self, limit: u32) -> Result<Vec<Event>, StoreError> {
        loop {
            let events = self.store.events(&self.project, self.cursor, limit).await?;
            if let Some(last) = events.last() {
                self.cursor = last.cursor.parse().unwrap_or(self.cursor);
                return Ok(events);
            }
            self.hint.wait_at_most(self.clock.as_ref(), LOOK_AGAIN).await;
        }
    }
}

#[cfg(test)]
mod tests;
