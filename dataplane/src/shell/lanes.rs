//! The packet path: TUN to WireGuard and back, on two blocking threads.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, SocketAddr, UdpSocket},
    os::fd::AsFd,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Instant,
};

use boringtun::{
    noise::rate_limiter::RateLimiter,
    x25519::{PublicKey, StaticSecret},
};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::tun::Tun;
use crate::proto::{
    clamp::clamp_mss,
    table::{PrefixTable, addresses},
    tunnel::{Addressed, Lane, OVERHEAD, Output, addressed, initiator},
};

/// The largest IP packet.
const MAX_PACKET: usize = 65_535;
/// Packets taken at a time before the shutdown flag is looked at.
const BURST: usize = 64;
/// How long a thread sleeps at most before it looks at the shutdown flag, in milliseconds.
const NAP_MS: u16 = 200;
/// Handshakes a second, over all peers, from which they must prove their address by a cookie.
const HANDSHAKES_PER_SECOND: u64 = 100;

/// Bytes of a connection's traffic that the tunnel carried to and from one peer; probes are not in it.
#[derive(Debug, Default)]
pub(crate) struct Flow {
    pub(crate) bytes_out: AtomicU64,
    pub(crate) bytes_in: AtomicU64,
}

/// What a prefix behind a peer means to the packet path.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    /// Counted here; `None`: the peer's inner address, probes only.
    pub(crate) flow: Option<Arc<Flow>>,
    /// MSS over IPv4 in bytes.
    pub(crate) mss_bytes: u16,
}

/// A lane and what its peer may send.
#[derive(Debug)]
pub(crate) struct PeerLane {
    pub(crate) key: [u8; 32],
    pub(crate) index: u32,
    pub(crate) lane: Mutex<Lane>,
}

impl PeerLane {
    pub(crate) fn lane(&self) -> MutexGuard<'_, Lane> {
        self.lane.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One peer in the table.
#[derive(Debug, Default)]
pub(crate) struct Allowed {
    /// What it may send from.
    pub(crate) sources: PrefixTable<Entry>,
    /// What it may send to.
    pub(crate) destinations: PrefixTable<()>,
}

/// All that the packet path knows; replaced as a whole.
#[derive(Debug, Default)]
pub(crate) struct Table {
    pub(crate) by_index: HashMap<u32, (Arc<PeerLane>, Allowed)>,
    pub(crate) by_key: HashMap<[u8; 32], u32>,
    pub(crate) out: PrefixTable<(Arc<PeerLane>, Entry)>,
}

/// Shared by the threads of a gateway.
pub(crate) struct Lanes {
    pub(crate) table: RwLock<Arc<Table>>,
    pub(crate) socket: UdpSocket,
    tun: Tun,
    private: StaticSecret,
    public: PublicKey,
    limiter: RateLimiter,
    /// Inner packets for which the table knows no peer.
    pub(crate) no_peer: AtomicU64,
    pub(crate) stop: AtomicBool,
}

impl Lanes {
    pub(crate) fn new(socket: UdpSocket, tun: Tun, private: StaticSecret) -> Self {
        let public = PublicKey::from(&private);
        Self {
            table: RwLock::default(),
            socket,
            tun,
            private,
            public,
            limiter: RateLimiter::new(&public, HANDSHAKES_PER_SECOND),
            no_peer: AtomicU64::new(0),
            stop: AtomicBool::new(false),
        }
    }

    pub(crate) fn table(&self) -> Arc<Table> {
        Arc::clone(&self.table.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn set_table(&self, table: Table) {
        *self.table.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(table);
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Sends a datagram; what the network does not take is lost, as on any network.
    fn send(&self, datagram: &[u8], to: SocketAddr) {
        if let Err(error) = self.socket.send_to(datagram, to) {
            tracing::trace!(%to, %error, "a datagram was not sent");
        }
    }

    /// Timers of every lane, and of the handshake limiter.
    pub(crate) fn tick(&self, now: Instant) {
        self.limiter.reset_count();
        let mut out = [0; 2_048];
        for (peer, _) in self.table().by_index.values() {
            let mut lane = peer.lane();
            if let Output::Send(datagram) = lane.tick(now, &mut out) {
                let to = lane.endpoint();
                self.send(datagram, to);
            }
        }
    }

    /// Reads the TUN and encrypts, until stopped.
    pub(crate) fn outbound(&self) {
        let mut packet = vec![0; MAX_PACKET];
        let mut out = vec![0; MAX_PACKET + OVERHEAD + 148];
        while !self.stopped() {
            if !readable(&self.tun) {
                continue;
            }
            let table = self.table();
            for _ in 0..BURST {
                match self.tun.read(&mut packet) {
                    Ok(length) => self.out(&table, &mut packet[..length], &mut out),
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(error) => {
                        // The device is down, or gone: nothing to carry until it is back.
                        tracing::debug!(%error, "the TUN device cannot be read");
                        std::thread::sleep(std::time::Duration::from_millis(u64::from(NAP_MS)));
                        break;
                    }
                }
            }
        }
    }

    fn out(&self, table: &Table, packet: &mut [u8], out: &mut [u8]) {
        let Some((peer, entry)) = addresses(packet).and_then(|(_, to)| table.out.get(to)) else {
            self.no_peer.fetch_add(1, Ordering::Relaxed);
            return;
        };
        clamp_mss(packet, mss(packet, entry));
        if let Some(flow) = &entry.flow {
            flow.bytes_out.fetch_add(packet.len() as u64, Ordering::Relaxed);
        }
        let mut lane = peer.lane();
        let to = lane.endpoint();
        if let Output::Send(datagram) = lane.encapsulate(packet, out) {
            drop(lane);
            self.send(datagram, to);
        }
    }

    /// Reads the socket and decrypts, until stopped.
    pub(crate) fn inbound(&self) {
        let mut datagram = vec![0; MAX_PACKET];
        let mut out = vec![0; MAX_PACKET];
        while !self.stopped() {
            if !readable(&self.socket) {
                continue;
            }
            let table = self.table();
            for _ in 0..BURST {
                match self.socket.recv_from(&mut datagram) {
                    Ok((length, from)) => self.take(&table, from, &datagram[..length], &mut out),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    // An ICMP error for an earlier datagram; the next read is a new one.
                    Err(_) => {}
                }
            }
        }
    }

    fn take(&self, table: &Table, from: SocketAddr, datagram: &[u8], out: &mut [u8]) {
        let index = match addressed(datagram) {
            None => return,
            Some(Addressed::Index(index)) => Some(index),
            Some(Addressed::Initiation) => self.called_by(table, from, datagram, out),
        };
        let Some((peer, allowed)) = index.and_then(|index| table.by_index.get(&index)) else { return };
        let mut lane = peer.lane();
        match lane.decapsulate(from, datagram, out) {
            Output::Nothing => {}
            Output::Send(answer) => {
                self.send(answer, from);
                while let Output::Send(staged) = lane.staged(out) {
                    self.send(staged, from);
                }
            }
            Output::Packet(packet) => {
                let entry = addresses(packet).and_then(|(source, destination)| {
                    allowed.destinations.get(destination)?;
                    allowed.sources.get(source)
                });
                lane.count_in(packet.len(), entry.is_some());
                drop(lane);
                let Some(entry) = entry else { return };
                clamp_mss(packet, mss(packet, entry));
                if let Some(flow) = &entry.flow {
                    flow.bytes_in.fetch_add(packet.len() as u64, Ordering::Relaxed);
                }
                if let Err(error) = self.tun.write(packet) {
                    tracing::trace!(%error, "the TUN device did not take a packet");
                }
            }
        }
    }

    /// The lane that an initiation is for. Its MAC, and under load its cookie, are checked before the costly part.
    fn called_by(&self, table: &Table, from: SocketAddr, datagram: &[u8], out: &mut [u8]) -> Option<u32> {
        use boringtun::noise::TunnResult;
        match self.limiter.verify_packet(Some(from.ip()), datagram, out) {
            Ok(_) => {}
            Err(TunnResult::WriteToNetwork(cookie)) => {
                self.send(cookie, from);
                return None;
            }
            Err(_) => return None,
        }
        table.by_key.get(&initiator(&self.private, &self.public, datagram)?).copied()
    }
}

/// IPv6's header is 20 bytes longer than IPv4's.
fn mss(packet: &[u8], entry: &Entry) -> u16 {
    match addresses(packet) {
        Some((IpAddr::V6(_), _)) => entry.mss_bytes.saturating_sub(20),
        _ => entry.mss_bytes,
    }
}

fn readable(of: &impl AsFd) -> bool {
    let mut wanted = [PollFd::new(of.as_fd(), PollFlags::POLLIN)];
    poll(&mut wanted, PollTimeout::from(NAP_MS)).is_ok_and(|ready| ready > 0)
}
