//! The gateway's clock.

use std::time::Instant;

use tieline_openapi::v1::Timestamp;

/// Monotonic time.
#[expect(clippy::disallowed_methods, reason = "the one place of the data plane that reads the monotonic clock")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// Wall-clock time at millisecond precision, for reports.
#[expect(clippy::disallowed_methods, reason = "the one place of the data plane that reads the wall clock")]
pub(crate) fn timestamp() -> Timestamp {
    let now = Timestamp::now();
    Timestamp::from_millisecond(now.as_millisecond()).unwrap_or(now)
}
