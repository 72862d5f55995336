//! One connection as the heartbeat sees it: a link to each peer gateway, and the one that carries.

use std::{
    collections::BTreeMap,
    net::{IpAddr, UdpSocket},
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use tieline_openapi::{
    ids::GatewayId,
    v1::{GatewayConnection, GatewayPeer, PathChange, PathKind, PathSample, Timestamp},
};

use super::peer_address;
use crate::{
    proto::{
        path::{Hold, PathChooser},
        pmtu::FLOOR,
        probe::{Health, ProbeSession},
        tunnel::LaneCounters,
    },
    shell::{
        clock,
        firewall::Bytes,
        kernel::{Board, Offer},
        lanes::{Flow, Peer},
        routes::Target,
        status::{ConnectionStatus, PathMtuStatus, PeerStatus},
    },
};

/// How often a link is looked at, though nothing is heard from it: silence must be noticed.
const LOOK: Duration = Duration::from_millis(5);
/// Bytes of the headers of IPv4 and TCP without options.
const TCP_HEADERS: u16 = 40;

/// Both ways between this gateway and one peer gateway.
pub(super) struct Link {
    pub(super) peer: GatewayPeer,
    pub(super) key: [u8; 32],
    pub(super) session: ProbeSession,
    pub(super) chooser: PathChooser,
    pub(super) tunnel: Option<Arc<Peer>>,
    pub(super) flow: Arc<Flow>,
    pub(super) probes: Arc<Flow>,
    /// Bytes of the longest packet that goes to it through the tunnel in one piece.
    pub(super) mtu_bytes: u16,
    /// The interface of the kernel's WireGuard that routes lead into, instead of the TUN device.
    kernel: Option<Offer>,
    /// Whether probes were answered since the kernel carries, here or at the other end.
    kernel_heard: bool,
    /// When it is looked at next, if nothing is heard from it before.
    look_at: Instant,
    /// Where its private address and its tunnel endpoint are reached; found in the main table.
    pub(super) private_hop: Option<Target>,
    pub(super) wan_hop: Option<Target>,
    since: Option<Timestamp>,
    reported: (u64, u64),
    samples: Vec<PathSample>,
}

impl Link {
    pub(super) fn new(
        peer: GatewayPeer,
        key: [u8; 32],
        session: ProbeSession,
        chooser: PathChooser,
        tunnel: Option<Arc<Peer>>,
        now: Instant,
    ) -> Self {
        Self {
            peer,
            key,
            session,
            chooser,
            tunnel,
            flow: Arc::default(),
            probes: Arc::new(Flow::probes()),
            mtu_bytes: FLOOR,
            kernel: None,
            kernel_heard: false,
            look_at: now,
            private_hop: None,
            wan_hop: None,
            since: None,
            reported: (0, 0),
            samples: Vec::new(),
        }
    }

    pub(super) fn address(&self, path: PathKind) -> IpAddr {
        peer_address(&self.peer, path)
    }

    /// Where the kernel carries what goes to it through the tunnel.
    pub(super) fn kernel(&self) -> Option<Offer> {
        self.kernel
    }

    /// Has the kernel carry, or not. It cuts outer packets that are too long, so a probe of a size says nothing there: the
    /// path MTU of the process's lanes is kept as it was, and confirmed when they carry again.
    pub(super) fn set_kernel(&mut self, kernel: Option<Offer>, now: Instant) {
        if self.kernel.is_some() != kernel.is_some() {
            self.session.search_sizes(kernel.is_none());
            if kernel.is_none() && self.mtu_bytes > FLOOR {
                self.session.resume_mtu(self.mtu_bytes, now);
            }
            self.kernel_heard = false;
        }
        self.kernel = kernel;
    }

    /// Bytes of the longest packet that the tunnel takes as it is carried now.
    pub(super) fn tunnel_mtu(&self) -> u16 {
        self.kernel.map_or(self.mtu_bytes, |offer| offer.mtu_bytes)
    }

    /// Whether the kernel, here or at the other end, has carried probes and does not any more.
    pub(super) fn loses_kernel(&mut self, now: Instant) -> bool {
        let by_kernel = self.kernel.is_some() || self.tunnel.as_ref().is_some_and(|peer| peer.prefers_kernel());
        if !by_kernel {
            self.kernel_heard = false;
            return false;
        }
        let heard = self.session.health(now).tunnel.is_heard();
        std::mem::replace(&mut self.kernel_heard, heard) && !heard
    }

    /// Whether the tunnel to it has the lane of this index.
    pub(super) fn has_lane(&self, index: u32) -> bool {
        self.tunnel.as_ref().is_some_and(|peer| peer.all().any(|lane| lane.index == index))
    }

    /// Has it looked at as soon as can be.
    pub(super) fn touch(&mut self, now: Instant) {
        self.look_at = now;
    }

    fn is_heard(&self, now: Instant) -> bool {
        let health = self.session.health(now);
        health.private.is_heard() || health.tunnel.is_heard()
    }
}

/// One connection.
pub(super) struct Connection {
    pub(super) config: Arc<GatewayConnection>,
    /// On the inner address; `None` until the TUN device has it.
    pub(super) socket: Option<UdpSocket>,
    pub(super) links: Vec<Link>,
    /// Index of the link that carries.
    pub(super) active: usize,
    /// Number of its socket among the heartbeat's.
    pub(super) slot: u64,
    forwarded: Option<Bytes>,
    load_mbps: Option<u64>,
}

impl Connection {
    pub(super) fn new(config: Arc<GatewayConnection>) -> Self {
        Self { config, socket: None, links: Vec::new(), active: 0, slot: 0, forwarded: None, load_mbps: None }
    }

    pub(super) fn set_hold(&mut self, hold: Hold, now: Instant) {
        for link in &mut self.links {
            link.chooser.set_hold(hold);
            link.touch(now);
        }
    }

    /// When something of it is to be done next, if nothing is heard before; `None`: it has no links.
    pub(super) fn due(&self) -> Option<Instant> {
        self.links.iter().map(|link| link.look_at.min(link.session.next_round())).min()
    }

    /// What carries, and over which link.
    pub(super) fn carries(&self) -> Option<(&Link, PathKind)> {
        let link = self.links.get(self.active)?;
        Some((link, link.chooser.chosen()?))
    }

    /// The MSS over IPv4 that the clamps let through, in bytes: the connection's, or less where the tunnel in use is
    /// narrower.
    pub(super) fn mss_bytes(&self) -> u16 {
        let link = self.links.get(self.active).filter(|link| link.tunnel.is_some());
        let fits = link.map_or(u16::MAX, |link| link.tunnel_mtu().saturating_sub(TCP_HEADERS));
        self.config.mss_bytes.min(fits)
    }

    /// Takes over the path MTU of each tunnel; returns whether one has changed.
    pub(super) fn follow_mtu(&mut self) -> bool {
        let mut changed = false;
        for link in self.links.iter_mut().filter(|link| link.tunnel.is_some()) {
            let found = link.session.path_mtu();
            let mtu_bytes = found.mtu();
            if mtu_bytes != link.mtu_bytes {
                tracing::info!(connection = %self.config.name, peer = %link.peer.gateway_id, mtu_bytes, was = link.mtu_bytes, phase = ?found.phase(), "path MTU of the tunnel");
                link.mtu_bytes = mtu_bytes;
                changed = true;
            }
        }
        if changed {
            self.clamp();
        }
        changed
    }

    /// Tells the packet path to which MSS to clamp.
    pub(super) fn clamp(&self) {
        for link in &self.links {
            let mss_bytes = self.config.mss_bytes.min(link.mtu_bytes.saturating_sub(TCP_HEADERS));
            for flow in [&link.flow, &link.probes] {
                flow.mss_bytes.store(mss_bytes, Ordering::Relaxed);
                flow.mtu_bytes.store(link.mtu_bytes, Ordering::Relaxed);
            }
        }
    }

    fn load_fits(&self) -> bool {
        match self.config.fallback_capacity_mbps {
            None => true,
            Some(capacity) => self.load_mbps.is_some_and(|load| load <= u64::from(capacity.get())),
        }
    }

    /// Looks at all links, where one is due; returns the changes of what carries.
    pub(super) fn choose(&mut self, now: Instant) -> Vec<PathChange> {
        if self.links.iter().all(|link| now < link.look_at) {
            return Vec::new();
        }
        let before = self.carries().map(|(_, path)| path);
        let fits = self.load_fits();
        let mut changes = Vec::new();
        let connection_id = self.config.connection_id;
        let change = |from, to, reason: &str| PathChange {
            connection_id,
            at: clock::timestamp(),
            from,
            to,
            reason: reason.to_owned(),
        };
        for (index, link) in self.links.iter_mut().enumerate() {
            link.look_at = now + LOOK.max(link.session.interval() / 4);
            link.session.advance(now);
            if let Some(made) = link.chooser.step(now, link.session.health(now), fits) {
                link.session.set_carries(Some(made.to));
                link.since = Some(clock::timestamp());
                if index == self.active {
                    changes.push(change(made.from, made.to, made.reason.as_str()));
                }
            }
        }
        // Another member of the peer's group takes over when this one is not heard on any way.
        let heard = |link: &Link| link.chooser.chosen().is_some() && link.is_heard(now);
        if !self.links.get(self.active).is_some_and(heard)
            && let Some(other) = self.links.iter().position(heard)
        {
            self.active = other;
            if let Some(to) = self.links[other].chooser.chosen() {
                let reason = if before.is_some() { "peer-silent" } else { "first" };
                changes.push(change(before, to, reason));
            }
        }
        changes
    }

    /// What the interval that `passed` has seen. `forwarded`: bytes that the kernel forwarded by itself. Those through its
    /// WireGuard are counted for the connection, and belong to the peer that carries.
    pub(super) fn sample(
        &mut self,
        now: Instant,
        at: Timestamp,
        passed: Duration,
        forwarded: Option<Bytes>,
    ) -> Vec<PathSample> {
        let difference = |is: (u64, u64), was: (u64, u64)| (is.0.saturating_sub(was.0), is.1.saturating_sub(was.1));
        let since = |of: fn(&Bytes) -> (u64, u64)| match (&forwarded, &self.forwarded) {
            (Some(is), Some(was)) => Some(difference(of(is), of(was))),
            (Some(_) | None, _) => forwarded.map(|_| (0, 0)),
        };
        let (private, kernel) = (since(|bytes| bytes.private), since(|bytes| bytes.kernel).unwrap_or((0, 0)));
        self.forwarded = forwarded;
        let connection_id = self.config.connection_id;
        let mut out = private.map(|(out, _)| out);
        let mut all = Vec::new();
        for (index, link) in self.links.iter_mut().enumerate() {
            let is = (link.flow.bytes_out.load(Ordering::Relaxed), link.flow.bytes_in.load(Ordering::Relaxed));
            let mut tunnel = difference(is, std::mem::replace(&mut link.reported, is));
            if index == self.active {
                tunnel = (tunnel.0 + kernel.0, tunnel.1 + kernel.1);
            }
            out = out.map(|out| out + tunnel.0);
            let health = link.session.health(now);
            link.samples.clear();
            for path in [PathKind::Private, PathKind::Tunnel] {
                let report = link.session.take_report(now, path);
                if health.get(path) == Health::Off {
                    continue;
                }
                let active = index == self.active;
                let (bytes_out, bytes_in) = match path {
                    PathKind::Private if active => private.unwrap_or((0, 0)),
                    PathKind::Private => (0, 0),
                    PathKind::Tunnel => tunnel,
                };
                link.samples.push(PathSample {
                    connection_id,
                    peer_id: link.peer.gateway_id,
                    path,
                    state: health.get(path).state(),
                    carries: active && link.chooser.chosen() == Some(path),
                    at,
                    sent: report.sent,
                    received: report.received,
                    rtt_us: report.rtt_us,
                    rtt_p99_us: report.rtt_p99_us,
                    jitter_us: report.jitter_us,
                    loss_out_ppm: report.loss_out_ppm,
                    loss_in_ppm: report.loss_in_ppm,
                    dead_ports: if path == PathKind::Private { report.dead_ports } else { 0 },
                    bytes_out,
                    bytes_in,
                });
            }
            all.extend_from_slice(&link.samples);
        }
        let us = u64::try_from(passed.as_micros()).unwrap_or(u64::MAX).max(1);
        // Bits a microsecond are megabits a second.
        self.load_mbps = out.map(|bytes| bytes.saturating_mul(8).div_ceil(us));
        all
    }

    pub(super) fn status(&self, board: &Board, foreign: &BTreeMap<GatewayId, u64>) -> ConnectionStatus {
        let peers = self.links.iter().enumerate().map(|(index, link)| {
            let lanes = link.tunnel.as_ref().map(|peer| peer.status()).unwrap_or_default();
            let mut tunnel = LaneCounters::default();
            lanes.iter().for_each(|lane| tunnel += lane.counters);
            PeerStatus {
                peer_id: link.peer.gateway_id,
                active: index == self.active,
                chosen: link.chooser.chosen(),
                since: link.since,
                reason: link.chooser.since().map(|(_, reason)| reason.as_str().to_owned()),
                peer_chosen: link.session.peer_carries(),
                handshake_age_s: lanes.iter().filter_map(|lane| lane.handshake_age_s).min(),
                tunnel,
                lanes,
                kernel: board.status(link.peer.gateway_id),
                kernel_foreign_source: foreign.get(&link.peer.gateway_id).copied().unwrap_or(0),
                path_mtu: link.tunnel.as_ref().map(|_| PathMtuStatus {
                    bytes: link.mtu_bytes,
                    phase: link.session.path_mtu().phase(),
                    black_holes: link.session.path_mtu().black_holes(),
                }),
                paths: link.samples.clone(),
            }
        });
        ConnectionStatus {
            connection_id: self.config.connection_id,
            name: self.config.name.clone(),
            hold: self.links.first().map(|link| link.chooser.hold()).unwrap_or_default(),
            peers: peers.collect(),
        }
    }
}
