//! The only place of the command line that reads the clock.

use std::time::Instant;

/// Now.
#[expect(
    clippy::disallowed_methods,
    reason = "the command line measures how long things take for the person who waits"
)]
pub(crate) fn now() -> Instant {
    Instant::now()
}
