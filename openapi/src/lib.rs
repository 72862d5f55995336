//! The contract of Tieline.
//!
//! Everything that two parts of Tieline, or Tieline and a user, must agree on stands here: the nouns of `/v1`, the
//! Connection Coordinator API between providers, typed ids, bounded types, problem documents, and the shape of
//! `tieline.toml`. The crate does no IO except in [`client`], which is behind a feature, and it compiles in seconds so that
//! everything may depend on it.

pub mod catalogue;
pub mod config;
pub mod coordinator;
pub mod ids;
pub mod problem;
pub mod units;
pub mod v1;

#[cfg(feature = "client")]
pub mod client;
