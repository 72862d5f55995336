//! One WireGuard lane to one peer gateway, over `boringtun`'s [`Tunn`].
//!
//! [`Tunn`] reads the machine's clock for its own timers; this wrapper adds what keeps the tunnel always warm, and takes the
//! time as an argument: an initiation at once and then often while there is no session (a peer learns of us at a moment
//! that we do not know), a persistent keepalive, and a new state machine where boringtun would give up.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use boringtun::{
    noise::{Tunn, TunnResult, errors::WireGuardError, rate_limiter::RateLimiter},
    x25519::{PublicKey, StaticSecret},
};
use zeroize::Zeroizing;

use super::generations::{Generations, Recipe, named};

/// How often [`Lane::tick`] wants to be called.
pub const TICK: Duration = Duration::from_millis(100);
/// Bytes that WireGuard adds to an inner packet (whitepaper, section 5.4.6), outer IP and UDP headers not counted.
pub const OVERHEAD: usize = 32;
/// Between two initiations while there is no session.
const KNOCK: Duration = Duration::from_secs(1);
/// Between two initiations for a new session while the old one is good (whitepaper, section 6.1: REKEY_TIMEOUT).
const REKEY_TIMEOUT: Duration = Duration::from_secs(5);
/// The same in the beginning, when the peer is about to learn of us: one that came too early is dropped.
const FIRST_KNOCK: Duration = Duration::from_millis(250);
/// How long the beginning lasts.
const BEGINNING: Duration = Duration::from_secs(5);
/// The initiator of a session makes a new one at this age of it, or up to [`SPREAD`] later: before boringtun does at 120 s
/// (whitepaper, section 6.2), and each lane at a moment of its own, so that a thousand peers that came at once do not come at
/// once every two minutes.
const REKEY: Duration = Duration::from_secs(80);
const SPREAD: Duration = Duration::from_secs(35);
/// Without a session for this long, the state machine is made anew: boringtun's own gives up for good after 90 s.
const RENEW: Duration = Duration::from_secs(60);
/// Seconds between two keepalives: NATs forget a UDP mapping after 30 s at the earliest (RFC 4787, REQ-5, and practice).
pub const KEEPALIVE_S: u16 = 15;
/// The highest index of a lane: boringtun leaves 24 bits, of which two tell a lane's state machines apart.
pub const MAX_INDEX: u32 = (1 << 22) - 1;
/// Where the upper half of the indices begins: a process that takes another's place uses the half that the other does not.
pub const HALF: u32 = 1 << 21;
/// Without anything authentic for this long, two keepalives of the peer are lost and a lane is no way to it.
const SILENT: Duration = Duration::from_secs(2 * KEEPALIVE_S as u64 + 5);
/// Packets that wait for a session at most, of each lane: a burst of a new flow, not a standing queue. A thousand peers that
/// are gone at once hold less than 100 MB.
const MAX_STAGED: u16 = 64;
/// The longest message that is no data message: an initiation.
pub const MAX_HANDSHAKE: usize = 148;

/// How long boringtun uses a session (whitepaper, section 6.1: REJECT_AFTER_TIME).
const SESSION: Duration = Duration::from_secs(180);
/// More messages than any machine sends in a second.
const MESSAGES_A_SECOND: u64 = 1_000_000_000;
// boringtun neither rekeys after 2^60 messages of a session nor refuses to send message 2^64 - 2^13 (section 6.1:
// REKEY_AFTER_MESSAGES and REJECT_AFTER_MESSAGES). A session ends before it can come to either.
const _: () = assert!(SESSION.as_secs() * MESSAGES_A_SECOND < 1 << 60);

/// Why packets were dropped, counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Drops {
    /// No session, and no more room to wait for one; or it did not come in a minute.
    pub no_session: u64,
    /// Not authentic: wrong key, index or tag.
    pub not_authentic: u64,
    /// A counter that was seen before, or too old a one.
    pub replayed: u64,
    /// Not WireGuard, or not IP inside.
    pub malformed: u64,
    /// The inner source is not the peer's to use.
    pub foreign_source: u64,
    /// Too many handshakes; answered by a cookie.
    pub under_load: u64,
    /// Congestion in the outer header of a packet whose sender cannot be told (RFC 6040, section 4.2).
    pub congested: u64,
}

impl std::ops::AddAssign for Drops {
    fn add_assign(&mut self, other: Self) {
        self.no_session += other.no_session;
        self.not_authentic += other.not_authentic;
        self.replayed += other.replayed;
        self.malformed += other.malformed;
        self.foreign_source += other.foreign_source;
        self.under_load += other.under_load;
        self.congested += other.congested;
    }
}

/// What has passed, counted in inner bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LaneCounters {
    /// Packets encrypted.
    pub packets_out: u64,
    /// Their bytes.
    pub bytes_out: u64,
    /// Packets decrypted and let in.
    pub packets_in: u64,
    /// Their bytes.
    pub bytes_in: u64,
    /// What was dropped.
    pub drops: Drops,
}

impl std::ops::AddAssign for LaneCounters {
    fn add_assign(&mut self, other: Self) {
        self.packets_out += other.packets_out;
        self.bytes_out += other.bytes_out;
        self.packets_in += other.packets_in;
        self.bytes_in += other.bytes_in;
        self.drops += other.drops;
    }
}

/// What to do with a datagram's result.
#[derive(Debug)]
pub enum Output<'a> {
    /// Nothing.
    Nothing,
    /// Send to the peer's endpoint.
    Send(&'a mut [u8]),
    /// An inner packet, authentic; the caller checks its source.
    Packet(&'a mut [u8]),
}

/// The keys of a lane.
#[derive(Clone)]
pub struct LaneKeys {
    /// Ours.
    pub private: StaticSecret,
    /// The peer's.
    pub peer: PublicKey,
    /// Known to both, against a later break of X25519 (whitepaper, section 5.2).
    pub preshared: Option<Zeroizing<[u8; 32]>>,
}

impl std::fmt::Debug for LaneKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LaneKeys").field("peer", &self.peer).finish_non_exhaustive()
    }
}

/// One lane.
pub struct Lane {
    index: u32,
    machines: Generations,
    endpoint: SocketAddr,
    configured: SocketAddr,
    /// The preshared key by configuration.
    configured_preshared: Option<Zeroizing<[u8; 32]>>,
    drifted: bool,
    knock_at: Instant,
    without_session_since: Option<Instant>,
    /// Whether something authentic has come since the last tick, and when that was last so.
    heard: bool,
    heard_at: Instant,
    /// Whether data of a session that there still is has come.
    proven: bool,
    /// Begins no handshake while the one before may be answered.
    patient: bool,
    /// Packets that wait for a session.
    staged: u16,
    /// Whether the last handshake was ours to begin, and the age of its session at which the next one is.
    initiator: bool,
    rekey: Duration,
    /// What has passed.
    pub counters: LaneCounters,
}

impl std::fmt::Debug for Lane {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lane").field("index", &self.index).field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}

impl Lane {
    /// A lane that knocks at its first [`tick`](Self::tick). `index` is at most [`MAX_INDEX`] and unique in this gateway:
    /// datagrams name it. `limiter` is what the lane asks whether it is under load; one for all lanes of a key, so that they share
    /// the limit.
    #[must_use]
    pub fn new(keys: LaneKeys, index: u32, endpoint: SocketAddr, limiter: Arc<RateLimiter>, now: Instant) -> Self {
        let rekey = Self::rekey_age(&keys.peer, index);
        let configured_preshared = keys.preshared.clone();
        let machines = Generations::new(Recipe { keys, keepalive_s: KEEPALIVE_S, limiter }, index);
        Self {
            index,
            machines,
            endpoint,
            configured: endpoint,
            configured_preshared,
            drifted: false,
            knock_at: now,
            without_session_since: Some(now),
            heard: false,
            heard_at: now,
            proven: false,
            patient: false,
            staged: 0,
            initiator: false,
            rekey,
            counters: LaneCounters::default(),
        }
    }

    /// The age of a session at which its initiator makes a new one, evenly spread over peers and lanes.
    #[must_use]
    pub fn rekey_age(peer: &PublicKey, index: u32) -> Duration {
        let [a, b, ..] = *peer.as_bytes();
        let place = u32::from(u16::from_be_bytes([a, b]) ^ (index as u16).rotate_left(7));
        REKEY + SPREAD * place / u32::from(u16::MAX)
    }

    /// Where datagrams go: the address that the peer was last heard from.
    #[must_use]
    pub fn endpoint(&self) -> SocketAddr {
        self.endpoint
    }

    /// What the configuration says; a peer that has roamed is followed only until its address there changes. What was set
    /// by hand ends with it. A new preshared key is changed to without a lost packet: the old session goes on until there
    /// is one by the new key. So does the session of a [patient](Self::be_patient) lane, where it is: a new address there is
    /// that of another interface, which knows nothing of it; from there the peer makes one of its own, and is followed.
    pub fn configure(&mut self, endpoint: SocketAddr, preshared: Option<Zeroizing<[u8; 32]>>) {
        let by_hand = std::mem::take(&mut self.drifted);
        if self.configured != endpoint || by_hand {
            self.configured = endpoint;
            let stays = self.patient && self.proven && !by_hand;
            if !stays {
                self.endpoint = endpoint;
            }
        }
        if self.configured_preshared != preshared || by_hand {
            self.configured_preshared.clone_from(&preshared);
            self.remake(preshared, KEEPALIVE_S);
        }
    }

    /// What a person sets by hand, until the next configuration: an address, a preshared key (`Some(None)`: none), seconds
    /// between two keepalives (0: off).
    pub fn set_by_hand(
        &mut self,
        endpoint: Option<SocketAddr>,
        preshared: Option<Option<Zeroizing<[u8; 32]>>>,
        keepalive_s: Option<u16>,
    ) {
        let had = (self.endpoint, self.keepalive_s());
        self.endpoint = endpoint.unwrap_or(self.endpoint);
        let preshared = preshared.unwrap_or_else(|| self.machines.recipe.keys.preshared.clone());
        let changed = preshared != self.machines.recipe.keys.preshared;
        self.remake(preshared, keepalive_s.unwrap_or(had.1));
        self.drifted |= changed || had != (self.endpoint, self.keepalive_s());
    }

    fn remake(&mut self, preshared: Option<Zeroizing<[u8; 32]>>, keepalive_s: u16) {
        let recipe = &mut self.machines.recipe;
        if recipe.keys.preshared != preshared || recipe.keepalive_s != keepalive_s {
            (recipe.keys.preshared, recipe.keepalive_s) = (preshared, keepalive_s);
            self.machines.renew();
        }
    }

    /// Whether it is as a person has set it, and not as the configuration says.
    #[must_use]
    pub fn is_drifted(&self) -> bool {
        self.drifted
    }

    /// Whether a change of keys waits for its first session; traffic goes on by the one before.
    #[must_use]
    pub fn is_changing(&self) -> bool {
        self.machines.is_changing()
    }

    /// The preshared key of its next handshake.
    #[must_use]
    pub fn preshared(&self) -> Option<&Zeroizing<[u8; 32]>> {
        self.machines.recipe.keys.preshared.as_ref()
    }

    /// Seconds between two keepalives; 0: none.
    #[must_use]
    pub fn keepalive_s(&self) -> u16 {
        self.machines.recipe.keepalive_s
    }

    /// Age of the session's handshake; `None` without a session.
    #[must_use]
    pub fn handshake_age(&self) -> Option<Duration> {
        self.machines.handshake_age()
    }

    /// Whether what is sent by this lane is likely to arrive: there is a session, and the peer has been heard lately.
    #[must_use]
    pub fn is_alive(&self, now: Instant) -> bool {
        self.handshake_age().is_some() && now.saturating_duration_since(self.heard_at) < SILENT
    }

    /// What was heard counts no more: it is alive when something new is.
    pub fn forget(&mut self, now: Instant) {
        (self.heard, self.proven) = (false, false);
        self.heard_at = now.checked_sub(SILENT).unwrap_or(self.heard_at);
    }

    /// For a lane to a peer's kernel. It waits for an answer to each initiation, as the whitepaper wants (section 6.4): beside
    /// another way there is no hurry, and of two that are on their way at once the kernel keeps the session of the last one only.
    pub fn be_patient(&mut self) {
        self.patient = true;
    }

    /// Whether the peer has sent data, which it does in a session that it keeps; a response says less.
    #[must_use]
    pub fn is_proven(&self) -> bool {
        self.proven
    }

    /// Encrypts an inner packet, of which the last bytes may be padding, into `out`, which holds at least the packet and
    /// [`OVERHEAD`], and [`MAX_HANDSHAKE`] bytes. Without a session the packet is staged, up to 64 of them, and the output may be
    /// an initiation.
    pub fn encapsulate<'a>(&mut self, padded: &[u8], length: usize, out: &'a mut [u8]) -> Output<'a> {
        if out.len() < (padded.len() + OVERHEAD).max(MAX_HANDSHAKE) {
            self.counters.drops.malformed += 1;
            return Output::Nothing;
        }
        if self.staged >= MAX_STAGED && self.handshake_age().is_none() {
            self.counters.drops.no_session += 1;
            return Output::Nothing;
        }
        match self.machines.encapsulate(padded, out) {
            TunnResult::WriteToNetwork(datagram) => {
                if is_data(datagram) {
                    self.counters.packets_out += 1;
                    self.counters.bytes_out += length as u64;
                } else {
                    self.staged += 1;
                }
                Output::Send(datagram)
            }
            TunnResult::Done => {
                // A handshake is on its way.
                self.staged += 1;
                Output::Nothing
            }
            TunnResult::Err(error) => {
                self.count(&error);
                Output::Nothing
            }
            TunnResult::WriteToTunnelV4(..) | TunnResult::WriteToTunnelV6(..) => Output::Nothing,
        }
    }

    /// Takes a datagram; `out` holds at least the datagram, and [`MAX_HANDSHAKE`] bytes. After [`Output::Send`] call [`Self::staged`]
    /// until it has nothing more. An authentic datagram makes `from` the peer's endpoint (whitepaper, section 6.2: roaming).
    pub fn decapsulate<'a>(&mut self, from: SocketAddr, datagram: &[u8], out: &'a mut [u8]) -> Output<'a> {
        if datagram.is_empty() || out.len() < datagram.len().max(MAX_HANDSHAKE) {
            self.counters.drops.malformed += 1;
            return Output::Nothing;
        }
        let cookie = |sent: &[u8]| sent.first() == Some(&3);
        let kind = addressed(datagram);
        match self.machines.decapsulate(from.ip(), datagram, out) {
            TunnResult::WriteToNetwork(answer) => {
                if cookie(answer) {
                    self.counters.drops.under_load += 1;
                } else {
                    // The answer to a response is a keepalive; that to an initiation is a response.
                    self.initiator = !matches!(kind, Some(Addressed::Initiation));
                    self.hear(from);
                }
                Output::Send(answer)
            }
            TunnResult::WriteToTunnelV4(packet, _) | TunnResult::WriteToTunnelV6(packet, _) => {
                self.hear(from);
                self.proven = true;
                Output::Packet(packet)
            }
            TunnResult::Done => {
                self.hear(from);
                self.proven |= matches!(kind, Some(Addressed::Data(_)));
                Output::Nothing
            }
            TunnResult::Err(error) => {
                self.count(&error);
                Output::Nothing
            }
        }
    }

    fn hear(&mut self, from: SocketAddr) {
        self.endpoint = from;
        self.heard = true;
    }

    /// Whether packets have waited for the session that there is now.
    #[must_use]
    pub fn has_staged(&self) -> bool {
        self.staged > 0 && self.handshake_age().is_some()
    }

    /// The next packet that was staged before there was a session; nothing while there is none.
    pub fn staged<'a>(&mut self, out: &'a mut [u8]) -> Output<'a> {
        if !self.has_staged() {
            return Output::Nothing;
        }
        let output = sent(self.machines.staged(out));
        if let Output::Send(datagram) = &output {
            self.staged -= 1;
            self.counters.packets_out += 1;
            self.counters.bytes_out += datagram.len().saturating_sub(OVERHEAD) as u64;
        } else {
            // They waited in a machine that another has taken the place of.
            self.counters.drops.no_session += u64::from(std::mem::take(&mut self.staged));
        }
        output
    }

    /// Counts an inner packet that was let in, or not.
    pub fn count_in(&mut self, bytes: usize, own_source: bool) {
        if own_source {
            self.counters.packets_in += 1;
            self.counters.bytes_in += bytes as u64;
        } else {
            self.counters.drops.foreign_source += 1;
        }
    }

    /// Drives the timers; call it every [`TICK`], or twice a second while it [is calm](Self::is_calm), with at least
    /// [`MAX_HANDSHAKE`] bytes.
    pub fn tick<'a>(&mut self, now: Instant, out: &'a mut [u8]) -> Output<'a> {
        if std::mem::take(&mut self.heard) {
            self.heard_at = now;
        }
        let age = self.handshake_age();
        if age.is_some() {
            self.without_session_since = None;
        } else {
            self.proven = false;
            let since = *self.without_session_since.get_or_insert(now);
            if now.saturating_duration_since(since) >= RENEW {
                self.without_session_since = Some(now);
                self.endpoint = self.configured;
                self.counters.drops.no_session += u64::from(std::mem::take(&mut self.staged));
                self.machines.restart();
            }
            if now >= self.knock_at {
                let beginning = now.saturating_duration_since(since) < BEGINNING;
                self.knock_at = now
                    + if self.patient {
                        REKEY_TIMEOUT
                    } else if beginning {
                        FIRST_KNOCK
                    } else {
                        KNOCK
                    };
                return self.initiate(out);
            }
        }
        let old = age.is_some_and(|age| age >= self.rekey);
        if old && self.initiator && now >= self.knock_at && !self.is_changing() {
            self.knock_at = now + REKEY_TIMEOUT;
            return self.initiate(out);
        }
        sent(self.machines.tick(now, out))
    }

    /// Whether nothing is under way: until it is used again, no timer needs a [`tick`](Self::tick) more often than twice a second.
    #[must_use]
    pub fn is_calm(&self) -> bool {
        self.staged == 0 && !self.is_changing() && self.handshake_age().is_some_and(|age| age < self.rekey)
    }

    /// Begins a handshake now, whether or not there is a session: traffic goes on by the old one until the new one is up.
    pub fn initiate<'a>(&mut self, out: &'a mut [u8]) -> Output<'a> {
        sent(self.machines.initiate(out))
    }

    fn count(&mut self, error: &WireGuardError) {
        use WireGuardError as E;
        let drops = &mut self.counters.drops;
        let counter = match error {
            E::NoCurrentSession | E::ConnectionExpired => &mut drops.no_session,
            E::WrongIndex | E::WrongKey | E::InvalidMac | E::InvalidAeadTag => &mut drops.not_authentic,
            E::InvalidCounter | E::DuplicateCounter | E::WrongTai64nTimestamp | E::InvalidTai64nTimestamp => {
                &mut drops.replayed
            }
            E::UnderLoad => &mut drops.under_load,
            E::DestinationBufferTooSmall
            | E::IncorrectPacketLength
            | E::UnexpectedPacket
            | E::WrongPacketType
            | E::InvalidPacket
            | E::LockFailed => &mut drops.malformed,
        };
        *counter += 1;
    }
}

fn sent(result: TunnResult<'_>) -> Output<'_> {
    match result {
        TunnResult::WriteToNetwork(datagram) => Output::Send(datagram),
        TunnResult::Done | TunnResult::Err(_) | TunnResult::WriteToTunnelV4(..) | TunnResult::WriteToTunnelV6(..) => {
            Output::Nothing
        }
    }
}

/// Whether a datagram that [`Lane::encapsulate`] made is a data message, and no initiation.
#[must_use]
pub fn is_data(datagram: &[u8]) -> bool {
    datagram.first() == Some(&4)
}

/// Which lane a datagram is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Addressed {
    /// Data, for the lane of this index.
    Data(u32),
    /// A response or a cookie, for the lane of this index.
    Handshake(u32),
    /// An initiation: its sender's key must be read out of it.
    Initiation,
}

/// Reads which lane a datagram is for, without any cryptography. `None`: not WireGuard.
#[must_use]
pub fn addressed(datagram: &[u8]) -> Option<Addressed> {
    use boringtun::noise::Packet;
    match Tunn::parse_incoming_packet(datagram).ok()? {
        Packet::HandshakeInit(_) => Some(Addressed::Initiation),
        Packet::HandshakeResponse(packet) => Some(Addressed::Handshake(named(packet.receiver_idx).0)),
        Packet::PacketCookieReply(packet) => Some(Addressed::Handshake(named(packet.receiver_idx).0)),
        Packet::PacketData(packet) => Some(Addressed::Data(named(packet.receiver_idx).0)),
    }
}

/// The key that an initiation claims to come from; the lane then proves it.
#[must_use]
pub fn initiator(private: &StaticSecret, public: &PublicKey, datagram: &[u8]) -> Option<[u8; 32]> {
    use boringtun::noise::{Packet, handshake::parse_handshake_anon};
    match Tunn::parse_incoming_packet(datagram).ok()? {
        Packet::HandshakeInit(packet) => {
            parse_handshake_anon(private, public, &packet).ok().map(|half| half.peer_static_public)
        }
        Packet::HandshakeResponse(_) | Packet::PacketCookieReply(_) | Packet::PacketData(_) => None,
    }
}

#[cfg(test)]
mod tests;
