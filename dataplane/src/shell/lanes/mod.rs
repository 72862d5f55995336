//! The packet path: TUN to WireGuard and back. Each lane has a key, a UDP port, a queue of the TUN device and a thread, which
//! carries both ways in turns; lanes share the table, and nothing that is written per packet.
//!
//! One thread and not one for each way, since both want the same lock, that of the `Tunn` which they encrypt and decrypt with: a
//! thread that waits for it sleeps, and to be woken costs more than an acknowledgement takes.

mod handover;
mod inbound;
mod outbound;
mod shares;
mod stirred;
mod table;

use std::{
    net::{SocketAddr, UdpSocket},
    os::fd::AsFd,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use boringtun::{
    noise::rate_limiter::RateLimiter,
    x25519::{PublicKey, StaticSecret},
};
use ipnet::IpNet;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tieline_openapi::v1::TunnelBackend;

pub(crate) use self::handover::Handover;
use super::{
    clock,
    datagrams::{self, Batch, Receiver},
    offloads::Offloads,
    sockets,
    status::{LaneStatus, PacketPathStatus},
    tun::Tun,
};
use crate::proto::{
    clamp::clamp_mss,
    tunnel::{Lane, MAX_HANDSHAKE, Output, TICK},
};

pub(crate) use self::table::{Wanted, Way};
use self::{inbound::Inbound, outbound::Outbound, shares::Shares, stirred::Stirred, table::Table};

/// How long a thread sleeps at most before it looks at the shutdown flag.
pub(super) const NAP: Duration = Duration::from_millis(200);
/// Handshakes a second, over all peers of a lane, from which they must prove their address by a cookie.
const HANDSHAKES_PER_SECOND: u64 = 100;
/// Initiations that one tick makes at most: a restart with a thousand peers is spread over some seconds.
const INITIATIONS_A_TICK: usize = 32;
/// A lane where nothing happens is looked at in every fifth tick only: what can become due for it then is counted in seconds
/// (whitepaper, section 6.1), so it comes half a second late at most.
const CALM_TICKS: u32 = 5;
/// Sizes that were refused, kept until they are taken: they are hints, and one says it all.
const MAX_REFUSED: usize = 64;
/// How often long datagrams are tried in batches again.
const TRY_AGAIN: Duration = Duration::from_secs(60);

/// A connection's traffic with one peer through the tunnel, or the probes beside it.
#[derive(Debug, Default)]
pub(crate) struct Flow {
    pub(crate) bytes_out: AtomicU64,
    pub(crate) bytes_in: AtomicU64,
    /// MSS over IPv4 in bytes.
    pub(crate) mss_bytes: AtomicU16,
    /// Bytes of the longest packet that goes in one piece: packets are not padded above it.
    pub(crate) mtu_bytes: AtomicU16,
    /// Whether these are probes, of which the long ones must go in one piece.
    pub(crate) probes: bool,
}

impl Flow {
    /// Of probes.
    pub(crate) fn probes() -> Self {
        Self { probes: true, ..Self::default() }
    }

    /// Lowers the MSS of a SYN. IPv6's header is 20 bytes longer than IPv4's.
    fn clamp(&self, packet: &mut [u8]) {
        let v6 = packet.first().is_some_and(|first| first >> 4 == 6);
        let mss_bytes = self.mss_bytes.load(Ordering::Relaxed);
        clamp_mss(packet, if v6 { mss_bytes.saturating_sub(20) } else { mss_bytes });
    }
}

/// One lane to one peer.
#[derive(Debug)]
pub(crate) struct PeerLane {
    /// Which of our lanes it is.
    pub(crate) n: usize,
    /// The peer's public key on it.
    pub(crate) key: [u8; 32],
    pub(crate) index: u32,
    lane: Mutex<Lane>,
    alive: AtomicBool,
    /// Another way is good until this one is known to be: it is alive when the peer has sent data by it.
    pub(crate) cautious: bool,
    /// Only receives, and begins nothing: another WireGuard of ours has its place.
    rests: AtomicBool,
    stirred: Arc<Stirred>,
}

impl PeerLane {
    fn new(n: usize, key: [u8; 32], index: u32, lane: Lane, cautious: bool, stirred: Arc<Stirred>) -> Self {
        let (alive, rests) = (AtomicBool::new(false), AtomicBool::new(false));
        stirred.stir(index);
        Self { n, key, index, lane: Mutex::new(lane), alive, cautious, rests, stirred }
    }

    fn look(&self, lane: &Lane, now: Instant) {
        let alive = lane.is_alive(now) && (lane.is_proven() || !self.cautious);
        self.alive.store(alive, Ordering::Relaxed);
    }

    /// Has it rest, or not. One that has rested is taken again when something new is heard on it.
    pub(crate) fn rest(&self, rests: bool) {
        self.rests.store(rests, Ordering::Relaxed);
        if rests {
            self.alive.store(false, Ordering::Relaxed);
        }
        self.stirred.stir(self.index);
    }

    /// To use it; the next tick looks at it.
    pub(crate) fn lane(&self) -> MutexGuard<'_, Lane> {
        let lane = self.peek();
        // Under the lock: a tick that has taken this before waits for it, and sees what happens now.
        self.stirred.stir(self.index);
        lane
    }

    /// Only to look at it.
    pub(crate) fn peek(&self) -> MutexGuard<'_, Lane> {
        self.lane.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A peer gateway: lane `n` of it is reached by our lane `n`.
#[derive(Debug)]
pub(crate) struct Peer {
    /// At least one.
    pub(crate) lanes: Vec<Arc<PeerLane>>,
    /// From our lane 0 to the peer's WireGuard in its kernel, which is taken before the others.
    pub(crate) kernel: Option<Arc<PeerLane>>,
}

impl Peer {
    /// The lane for what comes from a queue of the TUN device: the one of the same number where the peer has it and it is
    /// alive, else the first that is.
    fn lane_for(&self, queue: usize) -> Option<&Arc<PeerLane>> {
        let alive = |lane: &&Arc<PeerLane>| lane.alive.load(Ordering::Relaxed);
        if let Some(kernel) = self.kernel.as_ref().filter(|_| self.prefers_kernel()) {
            return Some(kernel);
        }
        let own = self.lanes.get(queue % self.lanes.len().max(1));
        own.filter(alive).or_else(|| self.lanes.iter().find(alive)).or(own)
    }

    /// Whether what goes into the TUN device goes to the peer's kernel.
    pub(crate) fn prefers_kernel(&self) -> bool {
        let alive = |lane: &Arc<PeerLane>| lane.alive.load(Ordering::Relaxed) && !lane.rests.load(Ordering::Relaxed);
        self.kernel.as_ref().is_some_and(alive)
    }

    /// Each lane, that to the peer's kernel too.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Arc<PeerLane>> {
        self.lanes.iter().chain(&self.kernel)
    }

    /// Each lane.
    pub(crate) fn status(&self) -> Vec<LaneStatus> {
        let status = |peer: &Arc<PeerLane>| {
            let lane = peer.peek();
            LaneStatus {
                n: peer.n,
                peer_backend: match &self.kernel {
                    Some(kernel) if Arc::ptr_eq(kernel, peer) => TunnelBackend::Kernel,
                    Some(_) | None => TunnelBackend::Boringtun,
                },
                endpoint: lane.endpoint(),
                alive: peer.alive.load(Ordering::Relaxed),
                drifted: lane.is_drifted(),
                changing: lane.is_changing(),
                handshake_age_s: lane.handshake_age().map(|age| age.as_secs()),
                counters: lane.counters,
            }
        };
        self.all().map(status).collect()
    }
}

/// What a gateway's lane stands on.
pub(crate) struct OwnLane {
    socket: UdpSocket,
    /// Bytes that the socket holds to be sent when it is asked to take no more for now.
    most_unsent: usize,
    tun: Tun,
    private: StaticSecret,
    public: PublicKey,
    /// Counts handshakes, and asks for a cookie when there are too many.
    gate: RateLimiter,
    /// Holds every sender to its share of what handshakes cost.
    shares: Shares,
    /// For the state machines behind the gate: never under load, or every handshake would count twice.
    open: Arc<RateLimiter>,
}

impl OwnLane {
    pub(crate) fn new(socket: UdpSocket, tun: Tun, private: StaticSecret) -> Self {
        let public = PublicKey::from(&private);
        let gate = RateLimiter::new(&public, HANDSHAKES_PER_SECOND);
        let open = Arc::new(RateLimiter::new(&public, u64::MAX));
        let most_unsent = sockets::most_unsent(&socket);
        Self { socket, most_unsent, tun, private, public, gate, shares: Shares::new(), open }
    }

    /// Whether more for the socket would soon have to wait for what it holds already.
    fn is_congested(&self) -> bool {
        sockets::unsent(&self.socket) >= self.most_unsent
    }

    pub(crate) fn limiter(&self) -> Arc<RateLimiter> {
        Arc::clone(&self.open)
    }

    pub(crate) fn private(&self) -> &StaticSecret {
        &self.private
    }

    /// The UDP port that it listens on; 0 when the socket is broken.
    pub(crate) fn port(&self) -> u16 {
        self.socket.local_addr().map_or(0, |address| address.port())
    }
}

/// Packets that no lane counts.
#[derive(Debug, Default)]
pub(crate) struct Unclaimed {
    /// Inner packets for which the table knows no peer.
    pub(crate) no_peer: AtomicU64,
    /// Datagrams for no lane, or not WireGuard at all.
    pub(crate) not_ours: AtomicU64,
    /// Handshakes with a wrong MAC, or of a key that is no peer's.
    pub(crate) bad_handshakes: AtomicU64,
    /// Handshakes that were asked for a cookie.
    pub(crate) under_load: AtomicU64,
    /// Handshakes beyond their sender's share.
    pub(crate) limited: AtomicU64,
    /// What the TUN device gave and nobody can read, and what it did not take.
    pub(crate) tun_refused: AtomicU64,
}

/// Shared by the threads of a gateway.
pub(crate) struct Lanes {
    table: RwLock<Arc<Table>>,
    pub(crate) own: Vec<OwnLane>,
    pub(crate) offloads: Arc<Offloads>,
    stirred: Arc<Stirred>,
    pub(crate) unclaimed: Unclaimed,
    /// Index of a lane, and bytes of a packet that could not be sent to its peer in one piece.
    refused_sizes: Mutex<Vec<(u32, u16)>>,
    pub(crate) stop: AtomicBool,
    /// What another process is given, or has given.
    pub(crate) handover: Handover,
}

impl Lanes {
    pub(crate) fn new(own: Vec<OwnLane>, offloads: Arc<Offloads>, handover: Handover) -> Self {
        Self {
            table: RwLock::default(),
            own,
            offloads,
            stirred: Arc::new(Stirred::new()),
            unclaimed: Unclaimed::default(),
            refused_sizes: Mutex::default(),
            stop: AtomicBool::new(false),
            handover,
        }
    }

    pub(crate) fn table(&self) -> Arc<Table> {
        Arc::clone(&self.table.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// A lane to a peer, by our lane `n`.
    pub(crate) fn peer_lane(&self, n: usize, key: [u8; 32], index: u32, lane: Lane, cautious: bool) -> Arc<PeerLane> {
        Arc::new(PeerLane::new(n, key, index, lane, cautious, Arc::clone(&self.stirred)))
    }

    fn refuse_size(&self, lane: u32, packet: usize) {
        let mut refused = self.refused_sizes.lock().unwrap_or_else(PoisonError::into_inner);
        if refused.len() < MAX_REFUSED {
            refused.push((lane, u16::try_from(packet).unwrap_or(u16::MAX)));
        }
    }

    /// Packets that could not be sent in one piece since the last call: index of the lane, and bytes.
    pub(crate) fn take_refused_sizes(&self) -> Vec<(u32, u16)> {
        std::mem::take(&mut *self.refused_sizes.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn status(&self) -> PacketPathStatus {
        let number = |of: &AtomicU64| of.load(Ordering::Relaxed);
        PacketPathStatus {
            lanes: self.own.len(),
            offloads: self.offloads.status(),
            no_peer: number(&self.unclaimed.no_peer),
            not_ours: number(&self.unclaimed.not_ours),
            bad_handshakes: number(&self.unclaimed.bad_handshakes),
            under_load: number(&self.unclaimed.under_load),
            limited: number(&self.unclaimed.limited),
            tun_refused: number(&self.unclaimed.tun_refused),
            not_sent: self.offloads.lost(),
        }
    }

    /// Carries the packets of lane `n`, until stopped.
    pub(crate) fn carry(&self, n: usize) {
        let (mut inbound, mut outbound, mut receiver) =
            (Inbound::new(self, n), Outbound::new(self, n), Receiver::new());
        if let Some(inbox) = self.handover.inbox(n) {
            inbound.take_over(inbox);
        }
        let mut congested: Option<usize> = None;
        while !self.stopped() && !self.handover.ends.load(Ordering::Acquire) {
            let came = inbound.turn(&mut receiver);
            let went = congested.is_none() && outbound.turn();
            congested = outbound.due().or(congested).filter(|lane| self.own[*lane].is_congested());
            if !came && !went {
                self.wait(n, congested);
            }
        }
        outbound.send();
    }

    /// Waits for a datagram, and for a packet of the TUN device or, while a socket has too much to send, for room there.
    fn wait(&self, n: usize, congested: Option<usize>) {
        let own = &self.own[n];
        let way_out = match congested {
            Some(lane) => PollFd::new(self.own[lane].socket.as_fd(), PollFlags::POLLOUT),
            None => PollFd::new(own.tun.as_fd(), PollFlags::POLLIN),
        };
        let mut wanted = [PollFd::new(own.socket.as_fd(), PollFlags::POLLIN), way_out];
        // Interrupted or not: what there is is looked at next.
        let _ = poll(&mut wanted, PollTimeout::from(NAP.as_millis() as u16));
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Whether the threads are to end.
    pub(crate) fn is_stopped(&self) -> bool {
        self.stopped()
    }

    /// The peers of lane `n`, each with the prefixes that it may send from.
    pub(crate) fn peers_of(&self, n: usize) -> Vec<(Arc<PeerLane>, Vec<IpNet>)> {
        let table = self.table();
        let mut peers: Vec<_> = table.by_index.values().filter(|(peer, _)| peer.n == n).collect();
        peers.sort_unstable_by_key(|(peer, _)| peer.index);
        peers.into_iter().map(|(peer, allowed)| (Arc::clone(peer), allowed.sources.prefixes().collect())).collect()
    }

    fn send(&self, n: usize, bytes: &[u8], to: SocketAddr) {
        let batch = Batch { bytes, each: bytes.len(), class: 0, to };
        datagrams::send(&self.own[n].socket, &self.offloads, batch);
    }

    /// Drives the timers of every lane until stopped. Not the heartbeat's work: a handshake takes half a millisecond.
    pub(crate) fn timers(&self) {
        let mut try_again = clock::now() + TRY_AGAIN;
        let (mut from, mut turn) = (0, 0);
        while !self.stopped() {
            let now = clock::now();
            // A process that hands over begins nothing.
            if !self.handover.gives() {
                from = self.tick(now, from, turn);
                turn = (turn + 1) % CALM_TICKS;
            }
            if now >= try_again {
                try_again = now + TRY_AGAIN;
                self.offloads.try_long_again();
            }
            std::thread::sleep((now + TICK).saturating_duration_since(clock::now()));
        }
    }

    /// One tick, which starts with the lane of index `from`; the next one starts where this one stopped making initiations.
    /// Of the calm lanes it is the turn of those whose index leaves `turn` over.
    fn tick(&self, now: Instant, from: u32, turn: u32) -> u32 {
        for lane in &self.own {
            lane.gate.reset_count();
            lane.shares.renew();
        }
        let table = self.table();
        let (before, after) = table.in_order.split_at(table.in_order.partition_point(|(index, _)| *index < from));
        let mut out = [0; 2_048];
        let mut initiations = 0;
        for (index, peer) in after.iter().chain(before) {
            if initiations == INITIATIONS_A_TICK {
                return *index;
            }
            if !self.stirred.take(*index) && index % CALM_TICKS != turn {
                continue;
            }
            let mut lane = peer.peek();
            if peer.rests.load(Ordering::Relaxed) {
                lane.forget(now);
                if lane.handshake_age().is_none() {
                    continue;
                }
            }
            let output = lane.tick(now, &mut out);
            if !lane.is_calm() {
                self.stirred.stir(*index);
            }
            if let Output::Send(datagram) = output {
                initiations += usize::from(datagram.len() == MAX_HANDSHAKE);
                let to = lane.endpoint();
                peer.look(&lane, now);
                drop(lane);
                self.send(peer.n, datagram, to);
            } else {
                peer.look(&lane, now);
            }
        }
        from
    }
}
