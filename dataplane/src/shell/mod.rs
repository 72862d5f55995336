//! What touches the machine: namespace, TUN, routes, sockets, state on disk, the API.

pub mod bench;
pub mod bpf;
mod clock;
pub mod config;
#[cfg(feature = "control")]
pub mod control;
mod datagrams;
pub mod firewall;
pub mod gateway;
pub mod handover;
mod heartbeat;
pub mod kernel;
mod lanes;
pub mod local;
pub mod metrics;
pub mod netns;
mod notify;
pub mod offloads;
pub mod privileges;
mod random;
pub mod routes;
#[cfg(feature = "control")]
pub mod run;
mod sockets;
pub mod state;
pub mod status;
mod steering;
pub mod tun;
pub mod uapi;
