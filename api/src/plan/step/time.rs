//! Arithmetic of instants that cannot fail: what is out of range sticks to the end of the range.

use tieline_openapi::v1::Timestamp;

/// The instant so many milliseconds later.
#[must_use]
pub fn plus(at: Timestamp, millis: u64) -> Timestamp {
    let millis = i64::try_from(millis).unwrap_or(i64::MAX);
    Timestamp::from_millisecond(at.as_millisecond().saturating_add(millis)).unwrap_or(Timestamp::MAX)
}

/// Milliseconds from `from` to `to`; 0 where `to` is before `from`.
#[must_use]
pub fn millis_between(from: Timestamp, to: Timestamp) -> u64 {
    u64::try_from(to.as_millisecond().saturating_sub(from.as_millisecond())).unwrap_or(0)
}

/// The earlier of two instants.
#[must_use]
pub fn earlier(a: Timestamp, b: Timestamp) -> Timestamp {
    if b < a { b } else { a }
}
