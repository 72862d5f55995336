//! The probe on the wire: 96 bytes, big endian, with a keyed MAC.
//!
//! ```text
//!  0 magic "TLPB"      4 version 1   5 kind (1 to 4)   6 way (0 private, 1 tunnel)   7 port index
//!  8 connection (16)  24 session of the sender
//! 32 round            40 sent_ns (requester's clock; echoed)
//! 48 received_ns      56 stamped_ns (both of this packet's sender's clock)
//! 64 heard_count      68 heard_ports      72 flags      73 pace_ms (2)      75 zero (5)
//! 80 HMAC-SHA256 over bytes 0..80, cut to 16 bytes (RFC 2104, section 5)
//! ```
//!
//! Kinds are 1 request, 2 reply, 3 probe of a size, 4 its reply. Zeroes follow a probe of a size up to that size, which is its
//! heard_count, and its reply's. Replies are as long as requests, or shorter: a gateway amplifies nothing.

use boringtun::x25519::{PublicKey, StaticSecret};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use tieline_openapi::{ids::ConnectionId, v1::PathKind};
use uuid::Uuid;
use zeroize::Zeroizing;

/// The UDP port that gateways answer probes on, on the private address and inside the tunnel. From the range that IANA
/// leaves to private use (RFC 6335, section 6).
pub const PROBE_PORT: u16 = 51_861;

/// Bytes of every probe; zeroes may follow a [`Kind::Size`].
pub const PROBE_LEN: usize = 96;

const MAGIC: [u8; 4] = *b"TLPB";
const VERSION: u8 = 1;
const SIGNED: usize = 80;

const FLAG_VALID: u8 = 1;
const FLAG_TUNNEL_HEARD: u8 = 2;
const FLAG_CARRIES_PRIVATE: u8 = 4;
const FLAG_CARRIES_TUNNEL: u8 = 8;

/// Request or reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Asks for an answer.
    Request,
    /// Answers one request.
    Reply,
    /// Asks for an answer if it arrives in one piece (RFC 8899, section 4.1).
    Size,
    /// Answers one of those.
    SizeReply,
}

/// What the sender of a probe hears of its peer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HeardReport {
    /// Bit i: requests from private port i are heard.
    pub heard_ports: u32,
    /// Whether the sender has listened long enough for the rest to mean something.
    pub valid: bool,
    /// Whether requests through the tunnel are heard.
    pub tunnel_heard: bool,
    /// Which way the sender sends the connection's traffic.
    pub carries: Option<PathKind>,
}

/// One probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Probe {
    /// Request or reply.
    pub kind: Kind,
    /// The way that it takes.
    pub path: PathKind,
    /// Index of the requester's source port; 0 through the tunnel.
    pub port: u8,
    /// Whose way is measured.
    pub connection: ConnectionId,
    /// Counts the starts of the gateway that sends this packet.
    pub session: u64,
    /// The requester's round.
    pub round: u64,
    /// When the request was sent, nanoseconds on the requester's clock; a reply echoes it.
    pub sent_ns: u64,
    /// In a reply: when the request arrived, nanoseconds on the replier's clock.
    pub received_ns: u64,
    /// When this packet was made, nanoseconds on its sender's clock. Orders reports.
    pub stamped_ns: u64,
    /// In a reply: requests heard on this port in this session, this one included. In a probe of a size: the bytes of its
    /// datagram.
    pub heard_count: u32,
    /// Milliseconds between two rounds that the sender asks for where the tunnel is the only way; 0: as often as you like.
    pub pace_ms: u16,
    /// What the sender hears.
    pub report: HeardReport,
}

/// Why bytes are no probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// Not 96 bytes, or not as many as a probe of a size says.
    #[error("a probe has {PROBE_LEN} bytes or as many as it says, not {0}")]
    Length(usize),
    /// Another protocol, or a newer version of this one.
    #[error("not a probe of version {VERSION}")]
    Version,
    /// A field outside its range.
    #[error("field `{0}` of a probe is outside its range")]
    Field(&'static str),
}

impl Probe {
    /// Reads a probe. It is *not* authentic before [`ProbeKeys::verify`] has said so.
    ///
    /// # Errors
    /// When the bytes are not a probe. Never panics, whatever the bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let length = bytes.len();
        let bytes: &[u8; PROBE_LEN] = bytes.first_chunk().ok_or(WireError::Length(length))?;
        if bytes[..4] != MAGIC || bytes[4] != VERSION {
            return Err(WireError::Version);
        }
        let kind = match bytes[5] {
            1 => Kind::Request,
            2 => Kind::Reply,
            3 => Kind::Size,
            4 => Kind::SizeReply,
            _ => return Err(WireError::Field("kind")),
        };
        let path = match bytes[6] {
            0 => PathKind::Private,
            1 => PathKind::Tunnel,
            _ => return Err(WireError::Field("way")),
        };
        let heard_count = u32::from_be_bytes(array(bytes, 64));
        let said = if kind == Kind::Size { usize::try_from(heard_count).unwrap_or(usize::MAX) } else { PROBE_LEN };
        if length != said {
            return Err(WireError::Length(length));
        }
        if bytes[7] >= 32 {
            return Err(WireError::Field("port"));
        }
        let flags = bytes[72];
        let carries = match (flags & FLAG_CARRIES_PRIVATE != 0, flags & FLAG_CARRIES_TUNNEL != 0) {
            (false, false) => None,
            (true, false) => Some(PathKind::Private),
            (false, true) => Some(PathKind::Tunnel),
            (true, true) => return Err(WireError::Field("carries")),
        };
        Ok(Self {
            kind,
            path,
            port: bytes[7],
            connection: ConnectionId(Uuid::from_bytes(array(bytes, 8))),
            session: u64::from_be_bytes(array(bytes, 24)),
            round: u64::from_be_bytes(array(bytes, 32)),
            sent_ns: u64::from_be_bytes(array(bytes, 40)),
            received_ns: u64::from_be_bytes(array(bytes, 48)),
            stamped_ns: u64::from_be_bytes(array(bytes, 56)),
            heard_count,
            pace_ms: u16::from_be_bytes(array(bytes, 73)),
            report: HeardReport {
                heard_ports: u32::from_be_bytes(array(bytes, 68)),
                valid: flags & FLAG_VALID != 0,
                tunnel_heard: flags & FLAG_TUNNEL_HEARD != 0,
                carries,
            },
        })
    }

    /// Writes the probe and signs it.
    #[must_use]
    pub fn encode(&self, keys: &ProbeKeys) -> [u8; PROBE_LEN] {
        let mut bytes = [0; PROBE_LEN];
        bytes[..4].copy_from_slice(&MAGIC);
        bytes[4] = VERSION;
        bytes[5] = match self.kind {
            Kind::Request => 1,
            Kind::Reply => 2,
            Kind::Size => 3,
            Kind::SizeReply => 4,
        };
        bytes[6] = match self.path {
            PathKind::Private => 0,
            PathKind::Tunnel => 1,
        };
        bytes[7] = self.port;
        bytes[8..24].copy_from_slice(self.connection.uuid().as_bytes());
        bytes[24..32].copy_from_slice(&self.session.to_be_bytes());
        bytes[32..40].copy_from_slice(&self.round.to_be_bytes());
        bytes[40..48].copy_from_slice(&self.sent_ns.to_be_bytes());
        bytes[48..56].copy_from_slice(&self.received_ns.to_be_bytes());
        bytes[56..64].copy_from_slice(&self.stamped_ns.to_be_bytes());
        bytes[64..68].copy_from_slice(&self.heard_count.to_be_bytes());
        bytes[68..72].copy_from_slice(&self.report.heard_ports.to_be_bytes());
        bytes[72] = if self.report.valid { FLAG_VALID } else { 0 }
            | if self.report.tunnel_heard { FLAG_TUNNEL_HEARD } else { 0 }
            | match self.report.carries {
                None => 0,
                Some(PathKind::Private) => FLAG_CARRIES_PRIVATE,
                Some(PathKind::Tunnel) => FLAG_CARRIES_TUNNEL,
            };
        bytes[73..75].copy_from_slice(&self.pace_ms.to_be_bytes());
        let mut mac = keys.send.clone();
        mac.update(&bytes[..SIGNED]);
        let tag = mac.finalize().into_bytes();
        bytes[SIGNED..].copy_from_slice(&tag[..PROBE_LEN - SIGNED]);
        bytes
    }
}

fn array<const N: usize>(bytes: &[u8; PROBE_LEN], at: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&bytes[at..at + N]);
    out
}

/// The two MAC keys of a pair of gateways, one a direction, so that nothing that one sent can be sent back to it.
///
/// Derived from the X25519 agreement of the WireGuard keys that both have anyway: the private bundle is plain UDP, and a
/// host beside it must not be able to fake a way's health.
#[derive(Clone)]
pub struct ProbeKeys {
    send: Hmac<Sha256>,
    receive: Hmac<Sha256>,
}

impl std::fmt::Debug for ProbeKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ProbeKeys(..)")
    }
}

impl ProbeKeys {
    /// Derives the keys; `None` when the peer's public key is a point of low order, which agrees on zero with everyone
    /// (RFC 7748, section 6.1).
    #[must_use]
    pub fn derive(private: &StaticSecret, peer: &PublicKey) -> Option<Self> {
        let own = PublicKey::from(private);
        let shared = private.diffie_hellman(peer);
        if !shared.was_contributory() {
            return None;
        }
        let key = |from: &PublicKey, to: &PublicKey| {
            let mut derive = mac(shared.as_bytes())?;
            derive.update(b"tieline probe 1");
            derive.update(from.as_bytes());
            derive.update(to.as_bytes());
            let derived = Zeroizing::new(<[u8; 32]>::from(derive.finalize().into_bytes()));
            mac(derived.as_slice())
        };
        Some(Self { send: key(&own, peer)?, receive: key(peer, &own)? })
    }

    /// Whether the peer made this probe; what may follow it is not looked at. Compares in constant time.
    #[must_use]
    pub fn verify(&self, bytes: &[u8]) -> bool {
        let Some(bytes) = bytes.first_chunk::<PROBE_LEN>() else { return false };
        let mut mac = self.receive.clone();
        mac.update(&bytes[..SIGNED]);
        mac.verify_truncated_left(&bytes[SIGNED..]).is_ok()
    }
}

/// HMAC takes a key of any length; the `None` is never seen.
fn mac(key: &[u8]) -> Option<Hmac<Sha256>> {
    Hmac::<Sha256>::new_from_slice(key).ok()
}
