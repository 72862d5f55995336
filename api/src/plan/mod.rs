//! Pure planning: what to configure on both sides, and what to do next. No IO, no clock, no randomness.

pub mod carried;
pub mod checks;
pub mod coordinate;
pub mod negotiate;
pub mod step;
