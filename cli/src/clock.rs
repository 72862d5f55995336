//! The only place of the command line that reads the clock, and draws lots.

use std::time::Instant;

use uuid::Uuid;

/// Now.
#[expect(
    clippy::disallowed_methods,
    reason = "the command line measures how long things take for the person who waits"
)]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// A UUID that nobody has had.
#[expect(clippy::disallowed_methods, reason = "ids of what a test suite makes")]
pub(crate) fn random_uuid() -> Uuid {
    Uuid::new_v4()
}
