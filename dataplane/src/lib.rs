//! The gateway at each site: it carries a connection's traffic over the private bundle or the WireGuard tunnel, measures
//! both all the time, and chooses by itself.
//!
//! Two halves. [`proto`] holds the state machines (probe, path choice, tunnel): no socket, no clock, no randomness; time
//! is an argument. [`shell`] holds everything that touches the machine: namespace, TUN, routes, sockets, state on disk,
//! the API. [`run`] is the whole of `tieline gateway`.
//!
//! The data path never waits for the API: with it gone, traffic flows, fails over and returns.

#![cfg_attr(not(feature = "control"), allow(dead_code, reason = "what only a gateway that has joined does"))]

pub mod proto;
pub mod shell;

pub use shell::{
    config::GatewayOptions,
    gateway::{Dataplane, DataplaneError, DataplaneOptions},
};

#[cfg(feature = "control")]
pub use shell::run::{Ended, GatewayError, run};
