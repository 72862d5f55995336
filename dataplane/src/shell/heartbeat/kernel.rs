//! The heartbeat's part of WireGuard in the kernel: what there shall be, and which routes lead there.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, mpsc},
    time::{Duration, Instant},
};

use ipnet::IpNet;
use tieline_openapi::{
    ids::{ConnectionId, GatewayId},
    v1::{GatewayConnection, GatewayPeer, TunnelBackend},
};

use super::{
    Connection, Heartbeat,
    links::Link,
    wiring::{Preshared, public_key, told},
};
use crate::shell::{
    firewall::PeerGuard,
    kernel::{Board, LINGER, Offer, Order, Wanted},
    lanes::Peer,
    routes::{Route, Target},
};

/// How long the kernel is not used for a peer after probes were lost there, doubled from the first to the second with each
/// time that this comes again before it has carried for a while.
const SUSPENSION: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(320));
/// After so long without loss it counts as sound again.
const SOUND: Duration = Duration::from_secs(60);

/// A peer that the kernel is not used for.
#[derive(Debug, Clone, Copy)]
struct Suspension {
    until: Instant,
    length: Duration,
}

/// What the heartbeat knows of WireGuard in the kernel.
pub(super) struct InKernel {
    pub(super) backend: TunnelBackend,
    /// Whether it ever was in the kernel: what lingers there is guarded until the end.
    ever: bool,
    orders: mpsc::Sender<Order>,
    pub(super) board: Arc<Board>,
    /// The version of the board that is known.
    seen: Option<u64>,
    offers: BTreeMap<GatewayId, Offer>,
    /// Where routes lead.
    used: BTreeMap<GatewayId, Offer>,
    suspended: BTreeMap<GatewayId, Suspension>,
    /// Peers that have nothing in their kernel any more, and since when: what is on its way from there still comes.
    pub(super) leaving: BTreeMap<GatewayId, Instant>,
}

impl InKernel {
    pub(super) fn new(backend: TunnelBackend, orders: mpsc::Sender<Order>, board: Arc<Board>) -> Self {
        Self {
            backend,
            ever: backend == TunnelBackend::Kernel,
            orders,
            board,
            seen: None,
            offers: BTreeMap::new(),
            used: BTreeMap::new(),
            suspended: BTreeMap::new(),
            leaving: BTreeMap::new(),
        }
    }

    /// The interface that routes to the peer lead into.
    pub(super) fn used(&self, peer: GatewayId) -> Option<Offer> {
        self.used.get(&peer).copied()
    }

    fn is_suspended(&self, peer: GatewayId, now: Instant) -> bool {
        self.suspended.get(&peer).is_some_and(|suspension| now < suspension.until)
    }

    fn order(&self, order: Order) {
        if self.orders.send(order).is_err() {
            tracing::warn!("the thread that keeps the kernel's WireGuard has ended");
        }
    }
}

impl Heartbeat {
    /// Has this WireGuard carry from now on.
    pub(super) fn set_backend(&mut self, backend: TunnelBackend, now: Instant) {
        if std::mem::replace(&mut self.kernel.backend, backend) == backend {
            return;
        }
        tracing::info!(?backend, "backend");
        self.kernel.ever |= backend == TunnelBackend::Kernel;
        self.kernel.suspended.clear();
        self.set_filter();
        self.want_kernel();
        // Nothing goes there any more from now on, whatever is still offered.
        self.kernel.seen = None;
        self.follow_kernel(now);
    }

    /// Tells which interfaces there shall be.
    pub(super) fn want_kernel(&self) {
        let mut wanted: BTreeMap<GatewayId, Wanted> = BTreeMap::new();
        let links = self.connections.values().flat_map(|c| c.links.iter().map(|link| (&c.config, link)));
        for (config, link) in links.filter(|(config, _)| config.tunnel && self.kernel.backend == TunnelBackend::Kernel)
        {
            let Some(new) = wanted_of(config, link) else { continue };
            let had = wanted.entry(new.gateway).or_insert_with(|| new.clone());
            had.mtu_bytes = had.mtu_bytes.max(new.mtu_bytes);
        }
        self.kernel.order(Order::Want(wanted.into_values().collect()));
    }

    /// What may come out of the interfaces; `None`: there are none.
    pub(super) fn peer_guards(&self) -> Option<Vec<PeerGuard>> {
        if !self.kernel.ever {
            return None;
        }
        let mut guards: BTreeMap<GatewayId, PeerGuard> = BTreeMap::new();
        for connection in self.connections.values().filter(|connection| connection.config.tunnel) {
            let config = &connection.config;
            for link in &connection.links {
                let peer = link.peer.gateway_id;
                let guard = guards.entry(peer).or_insert_with(|| PeerGuard {
                    peer,
                    sources: Vec::new(),
                    destinations: Vec::new(),
                });
                guard.sources.extend(config.remote_prefixes.iter().copied().chain([link.peer.inner_address.into()]));
                guard.destinations.extend(config.local_prefixes.iter().copied().chain([config.inner_address.into()]));
            }
        }
        Some(guards.into_values().collect())
    }

    /// Leads routes to where the kernel carries, and away from where it does not any more.
    pub(super) fn follow_kernel(&mut self, now: Instant) {
        let version = self.kernel.board.version();
        let news = self.kernel.seen != Some(version);
        if !news && self.kernel.suspended.is_empty() {
            return;
        }
        if news {
            (self.kernel.seen, self.kernel.offers) = (Some(version), self.kernel.board.offers());
        }
        self.kernel.suspended.retain(|_, suspension| now < suspension.until + SOUND);
        let on = self.kernel.backend == TunnelBackend::Kernel;
        let used: BTreeMap<GatewayId, Offer> = self
            .kernel
            .offers
            .iter()
            .filter(|(peer, _)| on && !self.kernel.is_suspended(**peer, now))
            .map(|(peer, offer)| (*peer, *offer))
            .collect();
        self.rest_lanes(now);
        if used == self.kernel.used {
            return;
        }
        let before = std::mem::replace(&mut self.kernel.used, used);
        let changed = |peer: &GatewayId| before.get(peer) != self.kernel.used.get(peer);
        let peers: BTreeSet<GatewayId> =
            before.keys().chain(self.kernel.used.keys()).copied().filter(changed).collect();
        self.use_kernel(&peers, now);
    }

    fn use_kernel(&mut self, peers: &BTreeSet<GatewayId>, now: Instant) {
        let tun = self.tun();
        let mut moved: Vec<ConnectionId> = Vec::new();
        for connection in self.connections.values_mut() {
            for link in connection.links.iter_mut().filter(|link| peers.contains(&link.peer.gateway_id)) {
                let offer = self.kernel.used.get(&link.peer.gateway_id).copied();
                link.set_kernel(offer, now);
                tracing::info!(connection = %connection.config.name, peer = %link.peer.gateway_id, backend = if offer.is_some() { "kernel" } else { "boringtun" }, "the tunnel is carried by another backend");
                if link.tunnel.is_some() {
                    let target = offer.map_or(tun, |offer| Target::Out { index: offer.index, via: None });
                    let route = Route { target, mtu_bytes: None };
                    let inner = IpNet::from(link.peer.inner_address);
                    told(self.ground.routes.change(std::iter::once(inner), Some(route)));
                }
            }
            if connection.links.iter().any(|link| peers.contains(&link.peer.gateway_id)) {
                connection.clamp();
                moved.push(connection.config.connection_id);
            }
        }
        self.move_routes(&moved);
        self.rest_lanes(now);
        self.set_filter();
        let carried = self.kernel.used.values().map(|offer| offer.index).collect();
        self.kernel.order(Order::Carry(carried));
    }

    /// Our lane to a peer's kernel only receives where our own kernel carries, where probes were lost, and where the peer has
    /// none any more.
    pub(super) fn rest_lanes(&self, now: Instant) {
        for (id, peer) in &self.peers {
            if let Some(lane) = &peer.kernel {
                let kernel = &self.kernel;
                lane.rest(
                    kernel.used.contains_key(id) || kernel.leaving.contains_key(id) || kernel.is_suspended(*id, now),
                );
            }
        }
    }

    /// Ends what only receives since the peer has nothing in its kernel any more.
    pub(super) fn end_lanes(&mut self, now: Instant) {
        let over: Vec<GatewayId> = self
            .kernel
            .leaving
            .iter()
            .filter(|(_, since)| now.saturating_duration_since(**since) >= LINGER)
            .map(|(peer, _)| *peer)
            .collect();
        for id in &over {
            self.kernel.leaving.remove(id);
            let Some(had) = self.peers.get(id) else { continue };
            let new = Arc::new(Peer { lanes: had.lanes.clone(), kernel: None });
            self.peers.insert(*id, Arc::clone(&new));
            let links = self.connections.values_mut().flat_map(|connection| &mut connection.links);
            for link in links.filter(|link| link.peer.gateway_id == *id && link.tunnel.is_some()) {
                link.tunnel = Some(Arc::clone(&new));
            }
        }
        if !over.is_empty() {
            self.set_table();
        }
    }

    /// Leaves the kernel where the probes that it carried are not answered any more: the lanes are warm, and going back costs
    /// nothing.
    pub(super) fn watch_kernel(&mut self, due: &[ConnectionId], now: Instant) {
        let mut silent = BTreeSet::new();
        for id in due {
            let Some(connection) = self.connections.get_mut(id) else { continue };
            let loses = |link: &mut Link| link.loses_kernel(now).then_some(link.peer.gateway_id);
            silent.extend(connection.links.iter_mut().filter_map(loses));
        }
        for peer in silent {
            let length = match self.kernel.suspended.get(&peer) {
                Some(before) => (before.length * 2).min(SUSPENSION.1),
                None => SUSPENSION.0,
            };
            tracing::info!(%peer, ?length, "probes by WireGuard in the kernel are not answered; back to the process's lanes");
            self.kernel.suspended.insert(peer, Suspension { until: now + length, length });
            self.kernel.order(Order::Doubt(peer));
        }
        self.follow_kernel(now);
    }

    /// Packets that a peer sent out of its interfaces and that were dropped.
    pub(super) fn foreign(&self, connection: &Connection) -> BTreeMap<GatewayId, u64> {
        let counted = self.counted.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let of = |link: &Link| {
            let peer = link.peer.gateway_id;
            Some((peer, *counted.as_ref()?.foreign.get(&peer)?))
        };
        connection.links.iter().filter_map(of).collect()
    }
}

/// The key and the address that an interface for a peer talks to: its kernel's, or those of its lane 0.
fn wanted_of(config: &GatewayConnection, link: &Link) -> Option<Wanted> {
    let peer: &GatewayPeer = &link.peer;
    let first = peer.lanes.first()?;
    let to = peer.kernel_lane.as_ref().unwrap_or(first);
    let underlay = match link.wan_hop {
        Some(Target::Out { index, .. }) => Some(index),
        Some(Target::Refuse) | None => None,
    };
    Some(Wanted {
        gateway: peer.gateway_id,
        key: public_key(&to.public_key)?,
        endpoint: to.endpoint,
        standing: public_key(&first.public_key)?,
        // During a change, the key that the peer has for certain; the new one when both have it.
        preshared: Preshared::read(peer)?.first,
        mtu_bytes: config.mtu_bytes.get(),
        underlay,
    })
}
