//! `[[routers]]`: the operator's own routers, which carry the channels shared with peers.

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

use crate::ids::RouterId;

/// One router, and how it is configured.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RouterConfig {
    /// The id that channels refer to.
    pub id: RouterId,
    /// The prefixes that it announces over its sessions. It has routes to them already, and learns none of them from a peer.
    #[serde(default)]
    pub announces: Vec<Ipv4Net>,
    /// How often it is asked for its sessions, in milliseconds.
    #[serde(default = "five_seconds")]
    pub poll_ms: u64,
    /// How long routes take to move away from a session that is drained, in milliseconds: it is deleted no sooner.
    #[serde(default = "ten_seconds")]
    pub drain_ms: u64,
    /// How it is configured.
    pub driver: RouterDriver,
}

/// How a router is configured.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum RouterDriver {
    /// BIRD 2 on this machine.
    Bird(BirdConfig),
    /// A program of the operator's, which knows the router.
    Command(CommandConfig),
}

impl RouterDriver {
    /// The program that is run: all of the router, or what BIRD does not do.
    #[must_use]
    pub const fn program(&self) -> &CommandConfig {
        match self {
            Self::Bird(bird) => &bird.hook,
            Self::Command(command) => command,
        }
    }
}

/// BIRD 2 on this machine: its sessions are files that its configuration includes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BirdConfig {
    /// A folder of which `bird.conf` includes every `tl-*.conf`. Tieline writes there and nowhere else.
    pub includes: String,
    /// BIRD's control socket.
    pub control: String,
    /// The program that makes what BIRD does not: tagged interfaces.
    pub hook: CommandConfig,
}

/// A program that is given one request on standard input and writes one answer to standard output, both JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CommandConfig {
    /// The program, by its absolute path, and its arguments. No shell reads it.
    pub run: Vec<String>,
    /// How long it may take, in milliseconds; then it is killed.
    #[serde(default = "twenty_seconds")]
    pub timeout_ms: u64,
}

/// Where a channel is on a router.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ChannelRouterConfig {
    /// The router.
    pub id: RouterId,
    /// Its interface, on which the VLANs of the channel's connections are made.
    pub interface: String,
}

const fn five_seconds() -> u64 {
    5_000
}
const fn ten_seconds() -> u64 {
    10_000
}
const fn twenty_seconds() -> u64 {
    20_000
}
