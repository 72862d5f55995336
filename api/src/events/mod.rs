//! Hints between the rooms of one process. A hint may be lost or come twice: the store, read when a time is due, is the truth.

use std::sync::Arc;

use tokio::sync::watch;

/// Something that wants to know that there may be work.
pub trait Wake: Send + Sync {
    /// There may be work. Never blocks.
    fn wake(&self);
}

/// A hint that any number of tasks may wait for.
#[derive(Debug, Clone)]
pub struct Hints(Arc<watch::Sender<u64>>);

impl Hints {
    /// Hints that nobody waits for yet.
    #[must_use]
    pub fn new() -> Self {
        Self(Arc::new(watch::Sender::new(0)))
    }

    /// A receiver whose `changed` ends at the next hint after now.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.0.subscribe()
    }
}

impl Default for Hints {
    fn default() -> Self {
        Self::new()
    }
}

impl Wake for Hints {
    fn wake(&self) {
        self.0.send_modify(|count| *count = count.wrapping_add(1));
    }
}
