//! The simulated clouds.

pub mod network;
