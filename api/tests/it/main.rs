//! Integration tests of the control plane.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test ends at the first surprise, and says what it skips"
)]

mod coordinator;
mod engine;
mod http;
#[path = "../postgres/mod.rs"]
mod postgres;
mod schemathesis;
mod store;
