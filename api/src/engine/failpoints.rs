//! Named points between the engine's steps, at which a test stops, delays or kills it. In production every one is a no-op.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicU32, Ordering},
};

use async_trait::async_trait;

/// Every point, in the order in which a pass meets them.
pub const NAMES: &[&str] = &[
    CLAIMED,
    LOADED,
    OBSERVED,
    INSTANCE_WRITTEN,
    SHARED_TAKEN,
    BEFORE_ROW,
    AFTER_ROW,
    BEFORE_SEND,
    AFTER_SEND,
    AFTER_VERDICT,
    SHARED_COMPARED,
    SHARED_RELEASED,
    RESOLVED,
    LEARNED,
    WALKED_BACK,
    INSTANCE_RETIRED,
    CHANNEL_RETIRED,
    BEFORE_REMOVE,
    BEFORE_RELEASE,
    AFTER_RELEASE,
    SWEEP_LISTED,
    SWEEP_FOUND,
    SWEEP_NOTED,
];

/// A claim was committed; nothing was loaded.
pub const CLAIMED: &str = "claimed";
/// The connection was loaded.
pub const LOADED: &str = "loaded";
/// The clouds were asked.
pub const OBSERVED: &str = "observed";
/// A new instance was written.
pub const INSTANCE_WRITTEN: &str = "instance-written";
/// The lease of a shared object was taken.
pub const SHARED_TAKEN: &str = "shared-taken";
/// A ledger row is about to be written.
pub const BEFORE_ROW: &str = "before-row";
/// The ledger row was committed.
pub const AFTER_ROW: &str = "after-row";
/// The lease was checked; the request is about to be sent.
pub const BEFORE_SEND: &str = "before-send";
/// The answer is there; the verdict is not written.
pub const AFTER_SEND: &str = "after-send";
/// The verdict was committed.
pub const AFTER_VERDICT: &str = "after-verdict";
/// Everyone else's parts of a shared object were read back.
pub const SHARED_COMPARED: &str = "shared-compared";
/// The lease of a shared object was given back.
pub const SHARED_RELEASED: &str = "shared-released";
/// A call without answer was decided by observation.
pub const RESOLVED: &str = "resolved";
/// Addresses that a cloud picked were written.
pub const LEARNED: &str = "learned";
/// A channel's next generation was written.
pub const WALKED_BACK: &str = "walked-back";
/// An instance was retired.
pub const INSTANCE_RETIRED: &str = "instance-retired";
/// A channel generation was retired.
pub const CHANNEL_RETIRED: &str = "channel-retired";
/// The connection's row is about to be removed.
pub const BEFORE_REMOVE: &str = "before-remove";
/// The claim is about to be given back.
pub const BEFORE_RELEASE: &str = "before-release";
/// The claim was given back.
pub const AFTER_RELEASE: &str = "after-release";
/// The sweep has its list.
pub const SWEEP_LISTED: &str = "sweep-listed";
/// The sweep found a twin and is about to note it.
pub const SWEEP_FOUND: &str = "sweep-found";
/// The twin was noted.
pub const SWEEP_NOTED: &str = "sweep-noted";

/// What happens at a point.
#[async_trait]
pub trait AtPoint: Send + Sync {
    /// Called at every point; the engine goes on when it returns.
    async fn at(&self, name: &'static str);
}

/// The points of one engine.
#[derive(Clone, Default)]
pub struct Failpoints(Option<Arc<dyn AtPoint>>);

/// Why a failpoint's description was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FailpointError {
    /// Not of the right form.
    #[error("`{0}` is not `name:abort` or `name:abort:n`, n counting hits from 1")]
    Form(String),
    /// No such point.
    #[error("there is no failpoint `{0}`; there are {known}", known = NAMES.join(", "))]
    Name(String),
}

impl Failpoints {
    /// Nothing happens anywhere.
    #[must_use]
    pub const fn none() -> Self {
        Self(None)
    }

    /// This happens everywhere.
    #[must_use]
    pub fn with(hook: Arc<dyn AtPoint>) -> Self {
        Self(Some(hook))
    }

    /// From the environment variable `TIELINE_FAILPOINT`, for tests that kill the real binary: `name:abort`, or
    /// `name:abort:n` for the n-th hit. Unset: none.
    ///
    /// # Errors
    /// [`FailpointError`] where the variable is set and says nothing that can be done.
    pub fn from_env() -> Result<Self, FailpointError> {
        std::env::var("TIELINE_FAILPOINT").map_or_else(|_| Ok(Self::none()), |text| Self::parse(&text))
    }

    /// From a description: `name:abort` or `name:abort:n`.
    ///
    /// # Errors
    /// [`FailpointError`] where it is of another form or names no point.
    pub fn parse(text: &str) -> Result<Self, FailpointError> {
        let form = || FailpointError::Form(text.to_owned());
        let mut parts = text.split(':');
        let name = parts.next().unwrap_or_default();
        if parts.next() != Some("abort") {
            return Err(form());
        }
        let hit = match parts.next() {
            None => 1,
            Some(n) => n.parse().map_err(|_| form())?,
        };
        if hit == 0 || parts.next().is_some() {
            return Err(form());
        }
        let name = NAMES.iter().find(|known| **known == name).ok_or_else(|| FailpointError::Name(name.to_owned()))?;
        Ok(Self::with(Arc::new(AbortAt { name, left: AtomicU32::new(hit) })))
    }

    /// Passes a point.
    pub async fn hit(&self, name: &'static str) {
        debug_assert!(NAMES.contains(&name), "{name} is not listed, so nothing ever dies there");
        if let Some(hook) = &self.0 {
            hook.at(name).await;
        }
    }
}

/// Ends the process as `kill -9` would: no destructor runs, nothing is flushed.
struct AbortAt {
    name: &'static str,
    left: AtomicU32,
}

#[async_trait]
impl AtPoint for AbortAt {
    async fn at(&self, name: &'static str) {
        if name == self.name && self.left.fetch_sub(1, Ordering::SeqCst) == 1 {
            std::process::abort();
        }
    }
}

/// Counts the hits of each point: which points a test has met.
#[derive(Default)]
pub struct Counting(Mutex<std::collections::BTreeMap<&'static str, u32>>);

impl Counting {
    /// Hits by point.
    #[must_use]
    pub fn hits(&self) -> std::collections::BTreeMap<&'static str, u32> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[async_trait]
impl AtPoint for Counting {
    async fn at(&self, name: &'static str) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(name).or_default() += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_description_names_a_known_point_and_a_hit() {
        assert!(Failpoints::parse("after-row:abort").is_ok());
        assert!(Failpoints::parse("after-row:abort:3").is_ok());
        for bad in ["after-row", "after-row:abort:0", "after-row:abort:x", "after-row:abort:1:2", ""] {
            assert!(matches!(Failpoints::parse(bad), Err(FailpointError::Form(_))), "{bad}");
        }
        assert!(matches!(Failpoints::parse("nowhere:abort"), Err(FailpointError::Name(_))));
    }
}
