//! A session: what a router is to hold for one channel of a connection, and what it says of it.

use std::{fmt, net::Ipv4Addr, str::FromStr};

use data_encoding::HEXLOWER;
use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use tieline_openapi::{
    coordinator::Sensitive,
    units::{Asn, BandwidthMbps, Mtu, Vlan},
    v1::{BfdState, BgpState},
};
use uuid::Uuid;

/// The beginning of every name of ours.
const OURS: &str = "tl-";
/// Length of an owner's own part, in hexadecimal digits.
const OWNER: usize = 8;
/// Length of a session's own part, in hexadecimal digits: 64 bits.
const SESSION: usize = 16;

fn digest(parts: &[&str], length: usize) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        // Lengths first: two lists of parts never read the same.
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part.as_bytes());
    }
    let mut text = HEXLOWER.encode(&hash.finalize());
    text.truncate(length);
    text
}

/// Whose sessions: one pairing of one installation. Others on the same router are not seen and not touched.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Owner(String);

impl Owner {
    /// The owner that a list of words stands for.
    #[must_use]
    pub fn new(parts: &[&str]) -> Self {
        Self(format!("{OURS}{}", digest(parts, OWNER)))
    }

    /// What the names of its sessions begin with.
    #[must_use]
    pub fn prefix(&self) -> &str {
        &self.0
    }

    /// The name of one of its sessions, which a list of words stands for.
    #[must_use]
    pub fn session(&self, parts: &[&str]) -> SessionName {
        SessionName(format!("{}-{}", self.0, digest(parts, SESSION)))
    }

    /// Whether a session is its.
    #[must_use]
    pub fn owns(&self, name: &SessionName) -> bool {
        name.0.strip_prefix(&self.0).is_some_and(|rest| rest.starts_with('-'))
    }
}

/// A session's name on its router, as `tl-0c1d2e3f-0011223344556677`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SessionName(String);

/// A text is no name of a session of ours.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no name of a session: tl-, 8 hexadecimal digits, a hyphen, and 16 of them")]
pub struct NotAName(String);

impl FromStr for SessionName {
    type Err = NotAName;
    fn from_str(text: &str) -> Result<Self, NotAName> {
        let digits = |part: &str, length| {
            part.len() == length && part.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'a'..=b'f'))
        };
        let parts = text.strip_prefix(OURS).and_then(|rest| rest.split_once('-'));
        match parts {
            Some((owner, session)) if digits(owner, OWNER) && digits(session, SESSION) => Ok(Self(text.to_owned())),
            _ => Err(NotAName(text.chars().take(80).collect())),
        }
    }
}

impl TryFrom<String> for SessionName {
    type Error = NotAName;
    fn try_from(text: String) -> Result<Self, NotAName> {
        text.parse()
    }
}

impl From<SessionName> for String {
    fn from(name: SessionName) -> Self {
        name.0
    }
}

impl fmt::Display for SessionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What a router is to hold: a VLAN on an interface, its address, and a BGP session over it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Session {
    /// Its name on the router.
    pub name: SessionName,
    /// The UUID that both providers know the connection by.
    pub connection: Uuid,
    /// The channel.
    pub channel: String,
    /// The router's interface that carries the channel.
    pub interface: String,
    /// The connection's VLAN on it.
    pub vlan: Vlan,
    /// MTU of the VLAN, in bytes.
    pub mtu_bytes: Mtu,
    /// The connection's bandwidth, in Mbit/s.
    pub bandwidth_mbps: BandwidthMbps,
    /// Our address.
    pub local_ip: Ipv4Addr,
    /// The peer's.
    pub peer_ip: Ipv4Addr,
    /// Length of the subnet that both are in.
    pub prefix_len: u8,
    /// Our AS number.
    pub local_asn: Asn,
    /// The peer's.
    pub peer_asn: Asn,
    /// The session's key (RFC 2385).
    pub password: Sensitive,
    /// What is announced to the peer, and learned from nobody.
    pub announces: Vec<Ipv4Net>,
    /// Whether its routes are the last choice, in both directions: locally by preference, at the peer by the community
    /// GRACEFUL_SHUTDOWN (RFC 8326) and a longer path.
    pub drained: bool,
}

impl Session {
    /// A digest of everything but the password, which belongs to the name: a feature is never changed, and another one has
    /// another name.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        let announces: Vec<String> = self.announces.iter().map(ToString::to_string).collect();
        let parts = [
            self.name.to_string(),
            self.connection.to_string(),
            self.channel.clone(),
            self.interface.clone(),
            self.vlan.to_string(),
            self.mtu_bytes.to_string(),
            self.bandwidth_mbps.to_string(),
            self.local_ip.to_string(),
            self.peer_ip.to_string(),
            self.prefix_len.to_string(),
            self.local_asn.to_string(),
            self.peer_asn.to_string(),
            announces.join(" "),
            self.drained.to_string(),
        ];
        digest(&parts.each_ref().map(String::as_str), 32)
    }
}

/// What a router says of a session.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Listed {
    /// [`Session::fingerprint`] of what it holds; empty where the session is half made.
    #[serde(default)]
    pub fingerprint: String,
    /// State of the BGP session.
    #[serde(default)]
    pub bgp: BgpState,
    /// State of the BFD session, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bfd: Option<BfdState>,
    /// Routes learned from the peer.
    #[serde(default)]
    pub routes_in: u32,
    /// Routes announced to it.
    #[serde(default)]
    pub routes_out: u32,
    /// The last error of the session, in the router's words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
}
