//! From a configuration to lanes, addresses, sockets, routes and the packet table.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use boringtun::x25519::PublicKey;
use ipnet::IpNet;
use nix::sys::epoll::{EpollEvent, EpollFlags};
use tieline_openapi::{
    ids::{ConnectionId, GatewayId},
    v1::{GatewayConfiguration, GatewayConnection, GatewayPeer, PathKind, PresharedKey, ProbeSettings},
};
use zeroize::Zeroizing;

use super::{CROWD, Connection, Heartbeat, REASSERT, links::Link};
use crate::{
    proto::{
        path::PathChooser,
        probe::{ProbeKeys, ProbeSession, SessionSettings},
        tunnel::{HALF, Lane, LaneKeys},
    },
    shell::{
        clock,
        firewall::{Guard, Rules},
        gateway::{FIRST_MTU, TUN_QUEUE},
        handover::Carried,
        lanes::{Peer, PeerLane, Wanted, Way},
        routes::{Route, RouteError, Target},
        sockets,
    },
};

/// Probes that all tunnels together send, where they are the only way of their connection.
const TUNNEL_PROBES_A_SECOND: f64 = 200.0;
/// How often next hops that are not there are looked for at last.
const MAX_RESOLVE: Duration = Duration::from_secs(16);

impl Heartbeat {
    /// Makes the machine as the configuration says. What cannot be done is logged and tried again every second; nothing of
    /// one connection stops another.
    pub(super) fn apply(&mut self, configuration: GatewayConfiguration) {
        if self.configuration.as_ref() == Some(&configuration) {
            return;
        }
        tracing::info!(version = configuration.version, connections = configuration.connections.len(), "configuration");
        let links: usize = configuration.connections.iter().map(|connection| connection.peers.len()).sum();
        self.crowded = links > CROWD;
        self.pace = Duration::from_secs_f64(links as f64 / TUNNEL_PROBES_A_SECOND);
        let mut old = std::mem::take(&mut self.connections);
        for config in &configuration.connections {
            let had = old.remove(&config.connection_id);
            let connection = self.connection(config, &configuration.probe, had);
            self.connections.insert(config.connection_id, connection);
        }
        drop(old);
        self.agenda.begin(self.connections.keys().copied(), clock::now());
        let used: BTreeSet<_> = configuration.connections.iter().flat_map(|c| &c.peers).map(|p| p.gateway_id).collect();
        self.peers.retain(|id, _| used.contains(id));
        self.kernel.leaving.retain(|id, _| used.contains(id));
        self.open_senders(configuration.probe.bundle_ports);
        self.set_device(&configuration);
        self.forward_v6(&configuration);
        self.overlap = overlap(&configuration);
        self.configuration = Some(configuration);
        self.set_table();
        (self.next_resolve, self.resolve_in) = (clock::now(), REASSERT);
        self.resolve(clock::now());
        self.rest_lanes(clock::now());
        self.sync_routes();
        self.set_filter();
        self.want_kernel();
    }

    fn connection(&mut self, config: &GatewayConnection, probe: &ProbeSettings, had: Option<Connection>) -> Connection {
        let mut had = had.unwrap_or_else(|| Connection::new(Arc::new(config.clone())));
        if had.config.inner_address != config.inner_address {
            had.socket = None;
        }
        let before = self.carried.iter().find(|carried| carried.connection == config.connection_id);
        let active = had.links.get(had.active).map(|link| link.peer.gateway_id).or(before.map(|before| before.peer));
        let mut links = std::mem::take(&mut had.links);
        for peer in &config.peers {
            let old =
                links.iter().position(|link| link.peer.gateway_id == peer.gateway_id).map(|at| links.swap_remove(at));
            had.links.extend(self.link(config, probe, peer, old));
        }
        had.active = had.links.iter().position(|link| Some(link.peer.gateway_id) == active).unwrap_or(0);
        if *had.config != *config {
            had.config = Arc::new(config.clone());
        }
        if let Some(hold) = self.holds.get(&config.connection_id) {
            had.set_hold(*hold, clock::now());
        }
        had
    }

    fn link(
        &mut self,
        config: &GatewayConnection,
        probe: &ProbeSettings,
        peer: &GatewayPeer,
        had: Option<Link>,
    ) -> Option<Link> {
        let name = &config.name;
        let Some(key) = peer.lanes.first().and_then(|lane| public_key(&lane.public_key)) else {
            tracing::warn!(connection = %name, peer = %peer.gateway_id, "the peer has no lane with a valid key: not served");
            return None;
        };
        let Some(keys) = ProbeKeys::derive(&self.options.private_key, &PublicKey::from(key)) else {
            tracing::warn!(connection = %name, peer = %peer.gateway_id, "the peer's key is of low order: not served");
            return None;
        };
        let Some(preshared) = Preshared::read(peer) else {
            tracing::warn!(connection = %name, peer = %peer.gateway_id, "the preshared key with the peer is not 32 bytes as base64: not served");
            return None;
        };
        let settings = SessionSettings {
            connection: config.connection_id,
            interval: Duration::from_millis(u64::from(probe.interval_ms.max(1))),
            pace: self.pace,
            dead_after: u32::from(probe.dead_after_intervals.max(1)),
            dead_ports: u32::from(probe.dead_ports.max(1)),
            private_ports: config.private_ready.then_some(probe.bundle_ports.clamp(1, 32)),
            tunnel: config.tunnel,
            mtu_bytes: config.mtu_bytes.get(),
            header_bytes: if peer.inner_address.is_ipv4() { 28 } else { 48 },
        };
        let hold_down = Duration::from_millis(u64::from(probe.hold_down_ms));
        let tunnel = config.tunnel.then(|| self.tunnel(peer, &preshared));
        let now = clock::now();
        if let Some(mut link) = had.filter(|link| link.key == key) {
            link.session.configure(settings, now);
            link.chooser.set_hold_down(hold_down);
            link.tunnel = tunnel;
            link.set_kernel(self.kernel.used(peer.gateway_id), now);
            if link.peer != *peer {
                (link.private_hop, link.wan_hop) = (None, None);
                link.peer = peer.clone();
            }
            return Some(link);
        }
        let mut session = ProbeSession::new(settings, keys, self.options.session, self.epoch, now);
        let mut chooser = PathChooser::new(hold_down);
        let before = self.carried_by(config, peer.gateway_id);
        if let Some(Carried { path, mtu_bytes, .. }) = before {
            chooser.resume(path);
            session.set_carries(Some(path));
            session.resume_mtu(mtu_bytes, now);
        }
        let mut link = Link::new(peer.clone(), key, session, chooser, tunnel, now);
        link.mtu_bytes = before.map_or(link.mtu_bytes, |before| before.mtu_bytes);
        link.set_kernel(self.kernel.used(peer.gateway_id), now);
        Some(link)
    }

    /// What carried the connection to this peer before this process took over.
    fn carried_by(&self, config: &GatewayConnection, peer: GatewayId) -> Option<Carried> {
        let carried = self.carried.iter().find(|carried| carried.connection == config.connection_id);
        carried.filter(|carried| carried.peer == peer).copied()
    }

    /// A lane to each lane of the peer for which we have one of the same number, and one from our lane 0 to its kernel; what is
    /// unchanged goes on undisturbed.
    fn tunnel(&mut self, peer: &GatewayPeer, preshared: &Preshared) -> Arc<Peer> {
        let count = self.ground.lanes.own.len();
        let wanted: Vec<_> = (0..count)
            .zip(&peer.lanes)
            .map_while(|(n, lane)| Some((n, public_key(&lane.public_key)?, lane.endpoint)))
            .collect();
        let before = self.peers.get(&peer.gateway_id).map(Arc::clone);
        let had = before.as_deref().map_or(&[][..], |had| &had.lanes);
        let mut lanes = Vec::with_capacity(wanted.len());
        for (n, key, endpoint) in wanted {
            lanes.push(self.peer_lane((n, false), key, endpoint, preshared, had.get(n)));
        }
        let had = before.as_deref().and_then(|had| had.kernel.as_ref());
        let in_kernel = peer.kernel_lane.as_ref().and_then(|lane| Some((public_key(&lane.public_key)?, lane.endpoint)));
        let kernel = match in_kernel {
            Some((key, endpoint)) => {
                self.kernel.leaving.remove(&peer.gateway_id);
                Some(self.peer_lane((0, true), key, endpoint, preshared, had))
            }
            None => {
                if had.is_some() {
                    self.kernel.leaving.entry(peer.gateway_id).or_insert_with(clock::now);
                }
                had.map(Arc::clone)
            }
        };
        let new = Peer { lanes, kernel };
        let same = |had: &Arc<Peer>| {
            let (had, new): (Vec<_>, Vec<_>) = (had.all().collect(), new.all().collect());
            had.len() == new.len() && had.iter().zip(&new).all(|(had, new)| Arc::ptr_eq(had, new))
        };
        if let Some(before) = before.filter(same) {
            return before;
        }
        let new = Arc::new(new);
        self.peers.insert(peer.gateway_id, Arc::clone(&new));
        new
    }

    fn peer_lane(
        &mut self,
        (n, cautious): (usize, bool),
        key: [u8; 32],
        endpoint: SocketAddr,
        preshared: &Preshared,
        had: Option<&Arc<PeerLane>>,
    ) -> Arc<PeerLane> {
        if let Some(same) = had.filter(|had| had.key == key) {
            same.lane().configure(endpoint, preshared.wanted.clone());
            return Arc::clone(same);
        }
        let own = Arc::clone(&self.ground.lanes);
        let index = self.next_lane;
        let base = own.handover.base();
        self.next_lane = if index == base + HALF - 1 { base + 1 } else { index + 1 };
        let private = own.own[n].private().clone();
        let keys = LaneKeys { private, peer: PublicKey::from(key), preshared: preshared.first.clone() };
        let mut lane = Lane::new(keys, index, endpoint, own.own[n].limiter(), clock::now());
        if cautious {
            lane.be_patient();
        }
        lane.configure(endpoint, preshared.wanted.clone());
        own.peer_lane(n, key, index, lane, cautious)
    }

    fn open_senders(&mut self, ports: u8) {
        let ports = usize::from(ports.clamp(1, 32));
        self.senders.truncate(ports);
        while self.senders.len() < ports {
            let index = u8::try_from(self.senders.len()).unwrap_or(u8::MAX);
            match sockets::sender(self.options.private_address, index) {
                Ok(socket) => self.senders.push(socket),
                Err(error) => {
                    tracing::warn!(index, %error, "a source port of the private bundle cannot be opened");
                    break;
                }
            }
        }
    }

    /// MTU and addresses of the TUN device, and a socket on each address.
    fn set_device(&mut self, configuration: &GatewayConfiguration) {
        let connections = &configuration.connections;
        let mtu = connections.iter().map(|c| c.mtu_bytes.get()).max().unwrap_or(FIRST_MTU);
        let inner: BTreeSet<IpAddr> = connections.iter().filter(|c| c.tunnel).map(|c| c.inner_address).collect();
        let done = self
            .ground
            .routes
            .set_link(self.ground.tun.index, mtu, TUN_QUEUE)
            .and_then(|()| self.ground.routes.set_inner_addresses(self.ground.tun.index, &inner));
        if let Err(error) = done {
            tracing::warn!(%error, "the TUN device is not as it should be");
        }
        self.open_inner();
    }

    /// Forwards IPv6 as soon as a connection carries it: it is switched on for all interfaces or for none.
    fn forward_v6(&mut self, configuration: &GatewayConfiguration) {
        let mut prefixes =
            configuration.connections.iter().flat_map(|c| c.local_prefixes.iter().chain(&c.remote_prefixes));
        if prefixes.any(|net| net.addr().is_ipv6())
            && let Err(error) = self.ground.routes.forward_v6()
        {
            tracing::warn!(%error, "IPv6 is not forwarded");
        }
    }

    fn open_inner(&mut self) {
        if self.waits {
            return;
        }
        let Self { connections, slots, next_slot, ground, .. } = self;
        for connection in connections.values_mut() {
            if !connection.config.tunnel {
                connection.socket = None;
            } else if connection.socket.is_none() {
                let address = connection.config.inner_address;
                *next_slot += 1;
                let listen = sockets::reflector(address).and_then(|socket| {
                    ground.inner.add(&socket, EpollEvent::new(EpollFlags::EPOLLIN, *next_slot))?;
                    Ok(socket)
                });
                connection.slot = *next_slot;
                connection.socket = listen
                    .inspect_err(|error| tracing::warn!(%address, %error, "no probes through the tunnel yet"))
                    .ok();
            }
        }
        // A closed socket leaves the poll by itself.
        slots.clear();
        slots.extend(connections.iter().map(|(id, connection)| (connection.slot, *id)));
    }

    /// Finds the next hops that are not known yet; more and more rarely while there are none.
    pub(super) fn resolve(&mut self, now: Instant) {
        self.open_inner();
        let links = || self.connections.values().flat_map(|connection| &connection.links);
        let unknown =
            |link: &Link| link.private_hop.is_none() || (link.wan_hop.is_none() && !link.peer.lanes.is_empty());
        if now < self.next_resolve || !links().any(unknown) {
            return;
        }
        self.next_resolve = now + self.resolve_in;
        self.resolve_in = (self.resolve_in * 2).min(MAX_RESOLVE);
        let (private, wan) = (self.ground.private.index, self.ground.wan.as_ref().map(|wan| wan.index));
        let given = self.options.private_next_hop.map(|via| Target::Out { index: private, via: Some(via) });
        let main = self.ground.routes.main_table().unwrap_or_default();
        let (mut found, mut without) = (false, 0);
        for link in self.connections.values_mut().flat_map(|connection| &mut connection.links) {
            if link.private_hop.is_none() {
                link.private_hop = given.or_else(|| main.next_hop(link.peer.private_address, Some(private)));
                found |= link.private_hop.is_some();
                without += u32::from(link.private_hop.is_none());
            }
            if let (None, Some(lane)) = (link.wan_hop, link.peer.lanes.first()) {
                link.wan_hop = main.next_hop(lane.endpoint.ip(), wan);
                found |= link.wan_hop.is_some();
            }
        }
        if without > 0 {
            tracing::warn!(peers = without, interface = %self.ground.private.name, "no next hop on the private side; add a route or give --private-next-hop");
        }
        if found {
            self.sync_routes();
            // An interface's MTU is by the underlay's.
            self.want_kernel();
        }
    }

    /// Where a connection's prefixes go now; `None`: no way is up.
    fn route(&self, connection: &Connection) -> Option<Route> {
        let (link, path) = connection.carries()?;
        let mtu_bytes = connection.config.mtu_bytes.get();
        // What is longer, the kernel answers itself: "fragmentation needed" (RFC 1191) or "packet too big" (RFC 4443), at the
        // rate that it limits them to; what may be cut, it cuts.
        let (target, mtu_bytes) = match path {
            PathKind::Tunnel => (self.tunnel_target(link), mtu_bytes.min(link.tunnel_mtu())),
            PathKind::Private => (link.private_hop?, mtu_bytes),
        };
        Some(Route { target, mtu_bytes: Some(mtu_bytes) })
    }

    pub(super) fn tun(&self) -> Target {
        Target::Out { index: self.ground.tun.index, via: None }
    }

    /// Where what goes through the tunnel to a peer is led.
    fn tunnel_target(&self, link: &Link) -> Target {
        link.kernel().map_or(self.tun(), |offer| Target::Out { index: offer.index, via: None })
    }

    /// Moves the prefixes of these connections to where they are carried now, and touches no other's.
    pub(super) fn move_routes(&mut self, moved: &[ConnectionId]) {
        if self.overlap && !moved.is_empty() {
            return self.sync_routes();
        }
        for id in moved {
            let Some(connection) = self.connections.get(id) else { continue };
            let (config, route) = (Arc::clone(&connection.config), self.route(connection));
            let changed = self.ground.routes.change(config.remote_prefixes.iter().map(IpNet::trunc), route);
            told(changed);
        }
    }

    /// Underlay pins, inner addresses, and the remote prefixes where they are carried now.
    pub(super) fn sync_routes(&mut self) {
        let mut carry: BTreeMap<IpNet, Route> = BTreeMap::new();
        let mut guarded: BTreeSet<IpNet> = BTreeSet::new();
        for connection in self.connections.values() {
            guarded.extend(connection.config.remote_prefixes.iter().map(IpNet::trunc));
            if let Some(route) = self.route(connection) {
                carry.extend(connection.config.remote_prefixes.iter().map(|net| (net.trunc(), route)));
            }
        }
        // Pins come last: a remote prefix may be no longer than the address that is pinned, and the pin must hold.
        for link in self.connections.values().flat_map(|connection| &connection.links) {
            let lanes = link.peer.lanes.iter().chain(&link.peer.kernel_lane);
            let endpoints = lanes.map(|lane| (lane.endpoint.ip(), link.wan_hop));
            let others = [
                (link.peer.private_address, link.private_hop),
                (link.peer.inner_address, link.tunnel.as_ref().map(|_| self.tunnel_target(link))),
            ];
            for (address, target) in endpoints.chain(others) {
                if let Some(target) = target {
                    carry.insert(IpNet::from(address), Route { target, mtu_bytes: None });
                }
            }
        }
        told(self.ground.routes.sync(&carry, &guarded));
    }

    /// Has the packet path's table made anew.
    pub(super) fn set_table(&self) {
        let wanted = self.connections.values().map(|connection| {
            connection.clamp();
            let active = connection.active;
            let ways = connection.links.iter().enumerate().filter_map(|(index, link)| {
                Some(Way {
                    gateway: link.peer.gateway_id,
                    peer: Arc::clone(link.tunnel.as_ref()?),
                    inner: link.peer.inner_address,
                    active: index == active,
                    flow: Arc::clone(&link.flow),
                    probes: Arc::clone(&link.probes),
                })
            });
            Wanted { config: Arc::clone(&connection.config), ways: ways.collect() }
        });
        if self.tables.send(wanted.collect()).is_err() {
            tracing::warn!("the thread that makes tables has ended");
        }
    }

    pub(super) fn set_filter(&mut self) {
        let peers = self.peer_guards();
        let guards: Vec<Guard> = self
            .connections
            .values()
            // The packet path clamps and counts what the process's lanes carry by itself.
            .filter(|connection| connection.config.private_ready || peers.is_some())
            .map(|connection| Guard {
                connection: connection.config.connection_id,
                remote: connection.config.remote_prefixes.clone(),
                mss_bytes: connection.mss_bytes(),
            })
            .collect();
        let rules = Rules { guards, peers };
        if rules != self.rules {
            self.rules.clone_from(&rules);
            if self.filter.send(rules).is_err() {
                tracing::warn!("the packet filter's thread has ended");
            }
        }
    }
}

pub(super) fn told(done: Result<(), RouteError>) {
    if let Err(error) = done {
        let source = std::error::Error::source(&error).map(ToString::to_string);
        tracing::warn!(%error, source, "a route is not as it should be");
    }
}

/// Whether two connections have a prefix in common, or one has a prefix that is a peer's own address.
fn overlap(configuration: &GatewayConfiguration) -> bool {
    let mut seen = HashSet::new();
    let connections = &configuration.connections;
    let pins = connections.iter().flat_map(|connection| &connection.peers).flat_map(|peer| {
        let endpoints = peer.lanes.iter().chain(&peer.kernel_lane).map(|lane| lane.endpoint.ip());
        endpoints.chain([peer.private_address, peer.inner_address])
    });
    let pinned: HashSet<IpNet> = pins.map(IpNet::from).collect();
    let mut prefixes = connections.iter().flat_map(|connection| &connection.remote_prefixes).map(IpNet::trunc);
    prefixes.any(|net| pinned.contains(&net) || !seen.insert(net))
}

/// What the handshakes with a peer are mixed with.
pub(super) struct Preshared {
    wanted: Option<Zeroizing<[u8; 32]>>,
    /// What a new lane begins with: during a change the key before it, which a peer that has not heard of it still has.
    pub(super) first: Option<Zeroizing<[u8; 32]>>,
}

impl Preshared {
    /// As the configuration has it; `None`: a key cannot be read.
    pub(super) fn read(peer: &GatewayPeer) -> Option<Self> {
        let read = |key: Option<&PresharedKey>| {
            let Some(key) = key else { return Some(None) };
            let bytes = Zeroizing::new(STANDARD.decode(key.expose()).ok()?);
            Some(Some(Zeroizing::new(<[u8; 32]>::try_from(bytes.as_slice()).ok()?)))
        };
        let wanted = read(peer.preshared_key.as_ref())?;
        let first =
            if peer.preshared_key_changing { read(peer.former_preshared_key.as_ref())? } else { wanted.clone() };
        Some(Self { wanted, first })
    }
}

/// An X25519 public key as `wg` prints it.
pub(super) fn public_key(text: &str) -> Option<[u8; 32]> {
    STANDARD.decode(text).ok()?.try_into().ok()
}
