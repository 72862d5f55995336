//! The seam between a simulated cloud's API and the network behind it.
//!
//! A simulator turns what its API was told into [`Session`]s and hands them over with [`Network::configure`]; what it
//! answers about BGP, BFD and link state it reads with [`Network::status`] and [`Network::link_up`], never computes.

use std::collections::BTreeMap;
use std::fmt;
use std::net::Ipv4Addr;

use async_trait::async_trait;
use ipnet::Ipv4Net;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Timers of one BFD session (RFC 5880, section 6.8).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Bfd {
    /// Shortest interval at which this side wants to send, in milliseconds.
    pub min_tx_ms: u32,
    /// Shortest interval at which this side can receive, in milliseconds.
    pub min_rx_ms: u32,
    /// Packets that may be missing in a row before the session is down.
    pub multiplier: u8,
}

/// One BGP session as a cloud's API was told to run it on one port.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Session {
    /// The simulator's own name of the session; the key of [`Network::status`].
    pub id: String,
    /// `aws` or `google`.
    pub site: String,
    /// The cloud's name of the physical port: `dxlag-…`, `dxcon-…` or an interconnect's name.
    pub port: String,
    /// 802.1Q tag, 1 to 4094.
    pub vlan: u16,
    /// IP MTU of the tagged interface, in bytes.
    pub mtu: u16,
    /// This side's address.
    pub local_ip: Ipv4Addr,
    /// Length of the prefix that both addresses are in.
    pub prefix_len: u8,
    /// The neighbour's address.
    pub peer_ip: Ipv4Addr,
    /// This side's autonomous system number.
    pub local_asn: u32,
    /// The neighbour's autonomous system number.
    pub peer_asn: u32,
    /// TCP MD5 signature key (RFC 2385); `None` for none.
    pub md5: Option<String>,
    /// BFD timers; `None` runs no BFD.
    pub bfd: Option<Bfd>,
    /// Exactly the prefixes that are announced to the neighbour.
    pub advertised: Vec<Ipv4Net>,
    /// Routes after which the session is taken down; `None` for no limit.
    pub import_limit: Option<u32>,
    /// An administratively disabled session keeps its interface and address but runs no BGP.
    pub enabled: bool,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("id", &self.id)
            .field("site", &self.site)
            .field("port", &self.port)
            .field("vlan", &self.vlan)
            .field("mtu", &self.mtu)
            .field("local", &format_args!("{}/{} as {}", self.local_ip, self.prefix_len, self.local_asn))
            .field("peer", &format_args!("{} as {}", self.peer_ip, self.peer_asn))
            .field("md5", &self.md5.as_ref().map(|_| "[hidden]"))
            .field("bfd", &self.bfd)
            .field("advertised", &self.advertised)
            .field("import_limit", &self.import_limit)
            .field("enabled", &self.enabled)
            .finish()
    }
}

/// State of the BGP finite state machine (RFC 4271, section 8.2.2), as the router reports it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum BgpState {
    /// Administratively disabled, or stopped by the import limit.
    Down,
    /// Waits before the next attempt.
    Idle,
    /// Waits for its own TCP connection.
    Connect,
    /// Waits for the neighbour's TCP connection.
    Active,
    /// Waits for the neighbour's OPEN.
    OpenSent,
    /// Waits for the neighbour's KEEPALIVE.
    OpenConfirm,
    /// Exchanges routes.
    Established,
}

/// State of a BFD session (RFC 5880, section 4.1), as the router reports it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum BfdState {
    /// Held down by this side's operator.
    AdminDown,
    /// The neighbour is not heard.
    Down,
    /// The neighbour is heard, and does not yet hear this side.
    Init,
    /// Both sides hear each other.
    Up,
}

/// What the router itself says about one session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SessionStatus {
    /// BGP state.
    pub bgp: BgpState,
    /// BFD state; `None` where the session runs no BFD, or has not started it yet.
    pub bfd: Option<BfdState>,
    /// Routes accepted from the neighbour.
    pub routes_in: u32,
    /// Routes announced to the neighbour.
    pub routes_out: u32,
    /// The prefixes learned from the neighbour, sorted.
    pub learned: Vec<Ipv4Net>,
    /// The prefixes announced to the neighbour, sorted.
    pub advertised: Vec<Ipv4Net>,
    /// Since when the session is Established; `None` where it is not.
    pub established_since: Option<Timestamp>,
    /// The router's last error text for the session, as `Received: Bad peer AS`.
    pub last_error: Option<String>,
}

/// Why the network did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// No such site.
    #[error("the lab has no site {site:?}")]
    UnknownSite {
        /// The site that was named.
        site: String,
    },
    /// No such port at this site.
    #[error("site {site:?} has no port {port:?}; name it in the lab's channels")]
    UnknownPort {
        /// The site.
        site: String,
        /// The port that was named.
        port: String,
    },
    /// A session that no router could run.
    #[error("session {id:?}: {reason}")]
    InvalidSession {
        /// The session's id.
        id: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The router, its interfaces or its daemon failed.
    #[error("the router of site {site:?} did not {operation}")]
    Router {
        /// The site.
        site: String,
        /// What the router was doing.
        operation: &'static str,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// The network behind the simulated clouds.
#[async_trait]
pub trait Network: Send + Sync {
    /// Makes the site's router run exactly these sessions: others are stopped, unchanged ones are not disturbed.
    async fn configure(&self, site: &str, sessions: Vec<Session>) -> Result<(), NetworkError>;

    /// What the site's router says about every session that it was told to run, by [`Session::id`].
    async fn status(&self, site: &str) -> Result<BTreeMap<String, SessionStatus>, NetworkError>;

    /// Whether the port has light: the carrier of the trunk.
    async fn link_up(&self, site: &str, port: &str) -> Result<bool, NetworkError>;
}
