//! The only place of the command line that reads the clock, and draws lots.

use std::time::Instant;

use tieline_openapi::v1::Timestamp;
use uuid::Uuid;

/// Now.
#[expect(
    clippy::disallowed_methods,
    reason = "the command line measures how long things take for the person who waits"
)]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// The time of day.
#[expect(clippy::disallowed_methods, reason = "until when work is announced that the demo begins now")]
pub(crate) fn timestamp() -> Timestamp {
    Timestamp::now()
}

/// A UUID that nobody has had.
#[expect(clippy::disallowed_methods, reason = "ids of what a test suite makes")]
pub(crate) fn random_uuid() -> Uuid {
    Uuid::new_v4()
}
