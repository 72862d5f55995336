//! The channels' half of the protocol.

mod model;
mod rules;
mod world;
