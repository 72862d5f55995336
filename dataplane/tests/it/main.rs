//! The gateway in network namespaces: real kernel routes, real TUN devices, real sockets. Needs root, `ip`, `nft` and
//! `/dev/net/tun`; skips with a reason elsewhere.

mod api;
mod failover;
mod lifecycle;
mod world;
