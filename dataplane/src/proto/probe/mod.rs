//! Probes: how two gateways measure each way between them, all the time.
//!
//! In every interval each gateway sends one numbered *round*: a request from each source port of the private bundle, so
//! that ECMP spreads them over the channels, and one through the tunnel. The peer answers each with a reply of the same
//! size that carries its own counters, so that loss is known per direction (the stateful reflector of RFC 8762). Every
//! packet, request or reply, on either way, also tells what its sender hears on the private bundle: a sender learns in
//! one one-way delay that its peer has gone deaf on one way.

mod health;
mod session;
mod stats;
mod way;
mod wire;

pub use health::{Health, Link, PortHealth};
pub use session::{ProbeSession, Received, SessionSettings, Transmit};
pub use stats::PathReport;
pub use wire::{HeardReport, Kind, PROBE_LEN, PROBE_PORT, Probe, ProbeKeys, WireError};

#[cfg(test)]
mod tests;
