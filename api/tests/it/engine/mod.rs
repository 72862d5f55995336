//! The engine against the fake provider.

mod errors;
mod faults;
mod inventory;
mod late;
mod plans;
mod sched;
mod schedule;
mod sim;
mod store;
mod strangers;
mod users;
mod walkthrough;
mod weather;
