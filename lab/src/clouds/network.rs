//! The seam between a cloud's API and the network behind it.
//!
//! A simulator tells the network what its API was told, and reads back what the routers and wires say. It never computes a
//! BGP, BFD or link state itself, so a wrong VLAN, address, AS number or key shows as it would in a real cloud: the session
//! stays down.

use std::{collections::BTreeMap, fmt, net::Ipv4Addr};

use async_trait::async_trait;
use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};
use tieline_openapi::v1::{BfdState, BgpState, Timestamp};

/// BFD parameters of a session (RFC 5880 section 6.8.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Bfd {
    /// Desired Min TX Interval, in milliseconds.
    pub min_tx_ms: u32,
    /// Required Min RX Interval, in milliseconds.
    pub min_rx_ms: u32,
    /// Detect Mult.
    pub multiplier: u8,
}

/// One BGP session as a cloud's API was told to run it on one port.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Session {
    /// Stable for the session's life: the virtual interface's id, or the router peer's name.
    pub id: String,
    /// `aws` or `google`.
    pub site: String,
    /// The port: `dxlag-...` or the interconnect's name.
    pub port: String,
    /// The IEEE 802.1Q tag on the port.
    pub vlan: u16,
    /// MTU of the tagged interface, in bytes of the IP packet.
    pub mtu: u16,
    /// The cloud's address.
    pub local_ip: Ipv4Addr,
    /// Length of the subnet's mask.
    pub prefix_len: u8,
    /// The other side's address.
    pub peer_ip: Ipv4Addr,
    /// The cloud's AS number.
    pub local_asn: u32,
    /// The other side's AS number.
    pub peer_asn: u32,
    /// The TCP MD5 key (RFC 2385).
    pub md5: Option<String>,
    /// BFD, where the cloud runs it.
    pub bfd: Option<Bfd>,
    /// The prefixes that the cloud announces.
    pub advertised: Vec<Ipv4Net>,
    /// The most prefixes that the cloud accepts; the session goes down above.
    pub import_limit: Option<u32>,
    /// Whether the session may come up.
    pub enabled: bool,
}

impl fmt::Debug for Session {
    /// Everything but the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("id", &self.id)
            .field("port", &format_args!("{}/{}.{}", self.site, self.port, self.vlan))
            .field("local", &format_args!("{}/{} AS{}", self.local_ip, self.prefix_len, self.local_asn))
            .field("peer", &format_args!("{} AS{}", self.peer_ip, self.peer_asn))
            .field("md5", &self.md5.is_some())
            .field("enabled", &self.enabled)
            .finish_non_exhaustive()
    }
}

/// A route that a router learned over a session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LearnedRoute {
    /// Where to.
    pub prefix: Ipv4Net,
    /// Through which autonomous systems, the neighbour first.
    pub as_path: Vec<u32>,
    /// The next hop.
    pub next_hop: Ipv4Addr,
}

/// What a router itself says about one session.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SessionStatus {
    /// The BGP state (RFC 4271 section 8.2.2).
    pub bgp: BgpState,
    /// The BFD state (RFC 5880 section 4.1).
    pub bfd: BfdState,
    /// Routes accepted from the peer.
    pub routes_in: u32,
    /// Routes announced to the peer.
    pub routes_out: u32,
    /// The accepted routes.
    pub learned: Vec<LearnedRoute>,
    /// The announced prefixes.
    pub advertised: Vec<Ipv4Net>,
    /// Since when the session is established.
    pub established_since: Option<Timestamp>,
    /// The router's last error, in its own words: `Received: Bad peer AS`.
    pub last_error: Option<String>,
}

/// Why the network could not do what it was asked. Every variant carries the cause.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// There is no such site.
    #[error("the network has no site {site}")]
    UnknownSite {
        /// The site.
        site: String,
    },
    /// There is no such port.
    #[error("site {site} has no port {port}: name it in the lab's channels")]
    UnknownPort {
        /// The site.
        site: String,
        /// The port.
        port: String,
    },
    /// A session that no router could run.
    #[error("session {id}: {reason}")]
    InvalidSession {
        /// The session's id.
        id: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The router, its interfaces or its daemon failed.
    #[error("the router of site {site} did not {operation}")]
    Router {
        /// The site.
        site: String,
        /// What it was asked for.
        operation: &'static str,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// The network behind the clouds.
#[async_trait]
pub trait Network: Send + Sync {
    /// Makes the site's router run exactly these sessions. Called with the whole list after every change; the same list twice
    /// changes nothing.
    ///
    /// # Errors
    /// [`NetworkError`]; the simulator tries again.
    async fn configure(&self, site: &str, sessions: Vec<Session>) -> Result<(), NetworkError>;

    /// What the router itself says, by session id.
    ///
    /// # Errors
    /// [`NetworkError`]; the cloud's API then answers that it does not know.
    async fn status(&self, site: &str) -> Result<BTreeMap<String, SessionStatus>, NetworkError>;

    /// Whether the port has light.
    ///
    /// # Errors
    /// [`NetworkError`]; the simulator takes the port for dark until it can be read.
    async fn link_up(&self, site: &str, port: &str) -> Result<bool, NetworkError>;
}

/// No network: every cable is unplugged, so every link and every session is down. For tests of the wire protocols alone.
#[derive(Debug, Default)]
pub struct Unplugged {
    sessions: tokio::sync::Mutex<BTreeMap<String, Vec<Session>>>,
}

impl Unplugged {
    /// The sessions that a site was last told to run.
    pub async fn configured(&self, site: &str) -> Vec<Session> {
        self.sessions.lock().await.get(site).cloned().unwrap_or_default()
    }
}

#[async_trait]
impl Network for Unplugged {
    async fn configure(&self, site: &str, sessions: Vec<Session>) -> Result<(), NetworkError> {
        self.sessions.lock().await.insert(site.to_owned(), sessions);
        Ok(())
    }

    async fn status(&self, site: &str) -> Result<BTreeMap<String, SessionStatus>, NetworkError> {
        let down = |session: &Session| {
            let bfd = if session.bfd.is_some() { BfdState::Down } else { BfdState::AdminDown };
            (session.id.clone(), SessionStatus { bgp: BgpState::Down, bfd, ..SessionStatus::default() })
        };
        Ok(self.sessions.lock().await.get(site).map(|all| all.iter().map(down).collect()).unwrap_or_default())
    }

    async fn link_up(&self, _site: &str, _port: &str) -> Result<bool, NetworkError> {
        Ok(false)
    }
}
