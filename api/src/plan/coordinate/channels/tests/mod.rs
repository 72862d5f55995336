//! The channels' half of the protocol.

pub(in crate::plan::coordinate) mod model;
mod rules;
mod world;
