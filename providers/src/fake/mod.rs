//! A provider in memory, for tests: every kind of identity, and every fault that a cloud and a network can show.
//!
//! Two graphs of resources make a link. The *picking* side has an attachment, whose cloud picks the addresses, and a peer
//! inside a router that others write too; the *taking* side has one interface that awaits the addresses. Which kind of
//! identity they have is up to the test. [`FakeWorld`] is both clouds; [`FakeApi`] is one account of it; [`FakeRules`] is
//! the pure half.

mod api;
mod rules;
mod state;
mod world;

pub use api::FakeApi;
pub use rules::{ATTACHMENT, FakeRules, FakeSide, INTERFACE, PEER};
pub use world::{Chaos, FakeObject, FakeWorld, Fault, Gate, Harm, Picks, Request, Timing, WireRecord};
