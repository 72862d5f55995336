//! The engine against the fake provider.

mod errors;
mod faults;
mod sched;
mod schedule;
mod sim;
mod store;
mod walkthrough;
mod weather;
