//! The cross-platform userspace API of WireGuard, by which `wg` speaks to a daemon: `get=1` and `set=1`, as text
//! (<https://www.wireguard.com/xplatform/>, "Configuration Protocol").

use std::{
    fmt::Write as _,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use ipnet::IpNet;
use zeroize::Zeroizing;

/// Bytes of a request at most: `wg` sends one peer, or a whole file, at a time.
pub const MAX_REQUEST: usize = 256 << 10;
/// Peers of a request at most.
const MAX_PEERS: usize = 4_096;
/// Allowed IPs of a request at most, over all its peers.
const MAX_PREFIXES: usize = 65_536;

/// A key of 32 bytes that is wiped when it is dropped.
pub type Secret = Zeroizing<[u8; 32]>;

/// What is asked.
#[derive(PartialEq, Eq)]
pub enum Request {
    /// How the device stands.
    Get,
    /// To change it.
    Set(Box<DeviceSet>),
}

/// What `set=1` says of the device.
#[derive(Default, PartialEq, Eq)]
pub struct DeviceSet {
    /// `private_key`; all zeroes: none.
    pub private_key: Option<Secret>,
    /// `listen_port`.
    pub listen_port: Option<u16>,
    /// `fwmark`; 0: none.
    pub fwmark: Option<u32>,
    /// `replace_peers`.
    pub replace_peers: bool,
    /// Each peer, in the order of the text.
    pub peers: Vec<PeerSet>,
}

/// What `set=1` says of a peer.
#[derive(Default, PartialEq, Eq)]
pub struct PeerSet {
    /// `public_key`.
    pub public_key: [u8; 32],
    /// `remove`.
    pub remove: bool,
    /// `update_only`.
    pub update_only: bool,
    /// `preshared_key`; all zeroes: none.
    pub preshared_key: Option<Secret>,
    /// `endpoint`.
    pub endpoint: Option<SocketAddr>,
    /// `persistent_keepalive_interval` in seconds; 0: off.
    pub keepalive_s: Option<u16>,
    /// `replace_allowed_ips`.
    pub replace_allowed_ips: bool,
    /// `allowed_ip`.
    pub allowed_ips: Vec<IpNet>,
}

// None is derived: keys are in there.
impl std::fmt::Debug for Device {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Device").field("peers", &self.peers).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Peer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Peer").field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Request {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Get => f.write_str("Get"),
            Self::Set(device) => f.debug_struct("Set").field("peers", &device.peers.len()).finish_non_exhaustive(),
        }
    }
}

/// Why a request is not understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UapiError {
    /// Too long.
    #[error("a request has at most {MAX_REQUEST} bytes, {MAX_PEERS} peers and {MAX_PREFIXES} allowed IPs")]
    TooLong,
    /// Neither `get=1` nor `set=1` first.
    #[error("a request begins with get=1 or set=1, and each line of it is KEY=VALUE")]
    Shape,
    /// An unknown key, or one of a peer before `public_key`. What was given as value is not shown: it may be a secret.
    #[error("line {line}: there is no key `{key}` here")]
    Key {
        /// Which line, counted from 1.
        line: usize,
        /// The key, cut to 40 characters.
        key: String,
    },
    /// A value that is none.
    #[error("line {line}: the value of `{key}` is not valid")]
    Value {
        /// Which line, counted from 1.
        line: usize,
        /// Its key.
        key: &'static str,
    },
}

/// Reads a request, without the empty line that ends it.
///
/// # Errors
/// When it is too long, has an unknown key, or a value is not what its key wants. Nothing of such a request is to be done.
pub fn parse(text: &[u8]) -> Result<Request, UapiError> {
    if text.len() > MAX_REQUEST {
        return Err(UapiError::TooLong);
    }
    let text = std::str::from_utf8(text).map_err(|_| UapiError::Shape)?;
    let mut lines = text.lines().enumerate().take_while(|(_, line)| !line.is_empty());
    match lines.next() {
        Some((_, "get=1")) => match lines.next() {
            None => Ok(Request::Get),
            Some(_) => Err(UapiError::Shape),
        },
        Some((_, "set=1")) => {
            let mut device = DeviceSet::default();
            let mut prefixes = 0;
            for (n, line) in lines {
                let (key, value) = line.split_once('=').ok_or(UapiError::Shape)?;
                if key == "allowed_ip" {
                    prefixes += 1;
                }
                if prefixes > MAX_PREFIXES || (key == "public_key" && device.peers.len() == MAX_PEERS) {
                    return Err(UapiError::TooLong);
                }
                let known = match device.peers.last_mut().filter(|_| key != "public_key") {
                    Some(peer) => peer.set(key, value),
                    None => device.set(key, value),
                };
                known.map_err(|unfit| match unfit {
                    Unfit::Key => UapiError::Key { line: n + 1, key: key.chars().take(40).collect() },
                    Unfit::Value(key) => UapiError::Value { line: n + 1, key },
                })?;
            }
            Ok(Request::Set(Box::new(device)))
        }
        Some(_) | None => Err(UapiError::Shape),
    }
}

enum Unfit {
    Key,
    Value(&'static str),
}

impl DeviceSet {
    fn set(&mut self, key: &str, value: &str) -> Result<(), Unfit> {
        match key {
            "private_key" => self.private_key = Some(hex(value).ok_or(Unfit::Value("private_key"))?),
            "listen_port" => self.listen_port = Some(number(value).ok_or(Unfit::Value("listen_port"))?),
            "fwmark" => self.fwmark = Some(number(value).ok_or(Unfit::Value("fwmark"))?),
            "replace_peers" => self.replace_peers = truth(value).ok_or(Unfit::Value("replace_peers"))?,
            "public_key" => {
                let public_key = *hex(value).ok_or(Unfit::Value("public_key"))?;
                self.peers.push(PeerSet { public_key, ..PeerSet::default() });
            }
            _ => return Err(Unfit::Key),
        }
        Ok(())
    }
}

impl PeerSet {
    fn set(&mut self, key: &str, value: &str) -> Result<(), Unfit> {
        match key {
            "remove" => self.remove = truth(value).ok_or(Unfit::Value("remove"))?,
            "update_only" => self.update_only = truth(value).ok_or(Unfit::Value("update_only"))?,
            "preshared_key" => self.preshared_key = Some(hex(value).ok_or(Unfit::Value("preshared_key"))?),
            "endpoint" => self.endpoint = Some(value.parse().map_err(|_| Unfit::Value("endpoint"))?),
            "persistent_keepalive_interval" => {
                self.keepalive_s = Some(number(value).ok_or(Unfit::Value("persistent_keepalive_interval"))?);
            }
            "replace_allowed_ips" => {
                self.replace_allowed_ips = truth(value).ok_or(Unfit::Value("replace_allowed_ips"))?;
            }
            "allowed_ip" => self.allowed_ips.push(prefix(value).ok_or(Unfit::Value("allowed_ip"))?),
            // There is one version of the protocol.
            "protocol_version" if value == "1" => {}
            "protocol_version" => return Err(Unfit::Value("protocol_version")),
            _ => return Err(Unfit::Key),
        }
        Ok(())
    }
}

/// `true`, or (for `replace_peers=false` of some programs) `false`.
fn truth(value: &str) -> Option<bool> {
    match value {
        "true" => Some(true),
        "false" => Some(false),
        _ => None,
    }
}

/// A decimal number without sign.
fn number<T: std::str::FromStr>(value: &str) -> Option<T> {
    value.parse().ok().filter(|_| value.bytes().all(|byte| byte.is_ascii_digit()))
}

fn prefix(value: &str) -> Option<IpNet> {
    value.parse().ok().or_else(|| value.parse::<IpAddr>().ok().map(IpNet::from))
}

fn hex(value: &str) -> Option<Secret> {
    let digits = value.as_bytes();
    if digits.len() != 64 {
        return None;
    }
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let mut key = Secret::default();
    for (byte, pair) in key.iter_mut().zip(digits.chunks_exact(2)) {
        // Two digits of 16 make a byte.
        *byte = (digit(pair[0])? << 4 | digit(pair[1])?) as u8;
    }
    Some(key)
}

/// How a lane stands, as `get=1` tells it.
pub struct Device {
    /// `private_key`.
    pub private_key: Secret,
    /// `listen_port`.
    pub listen_port: u16,
    /// Each peer.
    pub peers: Vec<Peer>,
}

/// How a peer of a lane stands.
pub struct Peer {
    /// `public_key`.
    pub public_key: [u8; 32],
    /// `preshared_key`; `None`: none.
    pub preshared_key: Option<Secret>,
    /// `endpoint`.
    pub endpoint: SocketAddr,
    /// When the session in use was made, after 1970; `None`: there is none.
    pub last_handshake: Option<Duration>,
    /// `tx_bytes`: UDP payload.
    pub tx_bytes: u64,
    /// `rx_bytes`.
    pub rx_bytes: u64,
    /// `persistent_keepalive_interval` in seconds.
    pub keepalive_s: u16,
    /// `allowed_ip`: what the peer may send from.
    pub allowed_ips: Vec<IpNet>,
}

fn put_hex(text: &mut String, key: &str, bytes: &[u8; 32]) {
    text.push_str(key);
    text.push('=');
    for byte in bytes {
        for nibble in [byte >> 4, byte & 15] {
            text.extend(char::from_digit(u32::from(nibble), 16));
        }
    }
    text.push('\n');
}

/// Writes the answer to `get=1`. It is made in one piece, so that no copy of the keys stays behind.
#[must_use]
pub fn render(device: &Device) -> Zeroizing<String> {
    // Longer than any peer without its prefixes, and than any prefix with its key.
    const OF_PEER: usize = 512;
    const OF_PREFIX: usize = 64;
    let prefixes: usize = device.peers.iter().map(|peer| peer.allowed_ips.len()).sum();
    let room = OF_PEER * (device.peers.len() + 1) + OF_PREFIX * prefixes;
    let mut text = Zeroizing::new(String::with_capacity(room));
    put_hex(&mut text, "private_key", &device.private_key);
    let _ = writeln!(text, "listen_port={}", device.listen_port);
    for peer in &device.peers {
        put_hex(&mut text, "public_key", &peer.public_key);
        if let Some(key) = &peer.preshared_key {
            put_hex(&mut text, "preshared_key", key);
        }
        let _ = writeln!(text, "protocol_version=1\nendpoint={}", peer.endpoint);
        let at = peer.last_handshake.unwrap_or_default();
        let _ = writeln!(
            text,
            "last_handshake_time_sec={}\nlast_handshake_time_nsec={}\ntx_bytes={}\nrx_bytes={}\n\
             persistent_keepalive_interval={}",
            at.as_secs(),
            at.subsec_nanos(),
            peer.tx_bytes,
            peer.rx_bytes,
            peer.keepalive_s,
        );
        for net in &peer.allowed_ips {
            let _ = writeln!(text, "allowed_ip={net}");
        }
    }
    text.push_str("errno=0\n\n");
    text
}

#[cfg(test)]
mod tests;
