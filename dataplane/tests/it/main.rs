//! The gateway in network namespaces: real kernel routes, real TUN devices, real sockets. Needs root, `ip`, `nft` and
//! `/dev/net/tun`; skips with a reason elsewhere.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "the whole binary is a test, on the real clock"
)]

mod api;
mod attacks;
mod commands;
mod crowd;
mod failover;
mod handover;
mod interop;
mod kernel;
mod lifecycle;
mod machine;
mod mtu;
mod ns;
mod packets;
mod preshared;
mod privileges;
mod rekey;
mod soak;
mod uapi;
mod world;

/// What is fuzzed.
#[path = "../../fuzz/entries.rs"]
mod entries;
mod fuzzed;
