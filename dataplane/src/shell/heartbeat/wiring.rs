//! From a configuration to lanes, addresses, sockets, routes and the packet table.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use boringtun::x25519::PublicKey;
use ipnet::IpNet;
use tieline_openapi::{
    ids::GatewayId,
    v1::{GatewayConfiguration, GatewayConnection, GatewayPeer, PathKind, ProbeSettings},
};

use super::{Connection, Heartbeat, links::Link};
use crate::{
    proto::{
        path::PathChooser,
        probe::{ProbeKeys, ProbeSession, SessionSettings},
        tunnel::{HALF, Lane, LaneKeys},
    },
    shell::{
        clock,
        firewall::Guard,
        gateway::{FIRST_MTU, TUN_QUEUE},
        lanes::{Allowed, Entry, Peer, PeerLane, Table},
        routes::{Route, Target},
        sockets,
    },
};

impl Heartbeat {
    /// Makes the machine as the configuration says. What cannot be done is logged and tried again every second; nothing of
    /// one connection stops another.
    pub(super) fn apply(&mut self, configuration: GatewayConfiguration) {
        if self.configuration.as_ref() == Some(&configuration) {
            return;
        }
        tracing::info!(version = configuration.version, connections = configuration.connections.len(), "configuration");
        let mut old = std::mem::take(&mut self.connections);
        for config in &configuration.connections {
            let had = old.remove(&config.connection_id);
            let connection = self.connection(config, &configuration.probe, had);
            self.connections.insert(config.connection_id, connection);
        }
        drop(old);
        let used: BTreeSet<_> = configuration.connections.iter().flat_map(|c| &c.peers).map(|p| p.gateway_id).collect();
        self.peers.retain(|id, _| used.contains(id));
        self.open_senders(configuration.probe.bundle_ports);
        self.set_device(&configuration);
        self.configuration = Some(configuration);
        self.set_table();
        self.resolve();
        self.sync_routes();
        self.set_filter();
    }

    fn connection(&mut self, config: &GatewayConnection, probe: &ProbeSettings, had: Option<Connection>) -> Connection {
        let mut had = had.unwrap_or_else(|| Connection::new(config.clone()));
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
        had.config = config.clone();
        if let Some(hold) = self.holds.get(&config.connection_id) {
            had.set_hold(*hold);
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
        let settings = SessionSettings {
            connection: config.connection_id,
            interval: Duration::from_millis(u64::from(probe.interval_ms.max(1))),
            dead_after: u32::from(probe.dead_after_intervals.max(1)),
            dead_ports: u32::from(probe.dead_ports.max(1)),
            private_ports: config.private_ready.then_some(probe.bundle_ports.clamp(1, 32)),
            tunnel: config.tunnel,
        };
        let hold_down = Duration::from_millis(u64::from(probe.hold_down_ms));
        let tunnel = config.tunnel.then(|| self.tunnel(peer));
        if let Some(mut link) = had.filter(|link| link.key == key) {
            link.session.configure(settings);
            link.chooser.set_hold_down(hold_down);
            link.tunnel = tunnel;
            if link.peer != *peer {
                (link.private_hop, link.wan_hop) = (None, None);
                link.peer = peer.clone();
            }
            return Some(link);
        }
        let now = clock::now();
        let mut session = ProbeSession::new(settings, keys, self.options.session, self.epoch, now);
        let mut chooser = PathChooser::new(hold_down);
        if let Some(path) = self.carried_by(config, peer.gateway_id) {
            chooser.resume(path);
            session.set_carries(Some(path));
        }
        Some(Link::new(peer.clone(), key, session, chooser, tunnel))
    }

    /// What carried the connection to this peer before this process took over.
    fn carried_by(&self, config: &GatewayConnection, peer: GatewayId) -> Option<PathKind> {
        let carried = self.carried.iter().find(|carried| carried.connection == config.connection_id);
        carried.filter(|carried| carried.peer == peer).map(|carried| carried.path)
    }

    /// A lane to each lane of the peer for which we have one of the same number; what is unchanged goes on undisturbed.
    fn tunnel(&mut self, peer: &GatewayPeer) -> Arc<Peer> {
        let own = Arc::clone(&self.ground.lanes);
        let wanted: Vec<_> = (0..own.own.len())
            .zip(&peer.lanes)
            .map_while(|(n, lane)| Some((n, public_key(&lane.public_key)?, lane.endpoint)))
            .collect();
        let had = self.peers.get(&peer.gateway_id).map(Arc::clone);
        let had = had.as_deref().map_or(&[][..], |had| &had.lanes);
        let mut lanes = Vec::with_capacity(wanted.len());
        for (n, key, endpoint) in wanted {
            if let Some(same) = had.get(n).filter(|had| had.key == key) {
                same.lane().configure(endpoint, None);
                lanes.push(Arc::clone(same));
                continue;
            }
            let index = self.next_lane;
            let base = own.handover.base();
            self.next_lane = if index == base + HALF - 1 { base + 1 } else { index + 1 };
            let keys = LaneKeys { private: own.own[n].private().clone(), peer: PublicKey::from(key), preshared: None };
            let lane = Lane::new(keys, index, endpoint, own.own[n].limiter(), clock::now());
            lanes.push(Arc::new(PeerLane::new(n, key, index, lane)));
        }
        let new = Arc::new(Peer { lanes });
        self.peers.insert(peer.gateway_id, Arc::clone(&new));
        new
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
        self.ground.lanes.mtu.store(usize::from(mtu), Ordering::Relaxed);
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

    fn open_inner(&mut self) {
        if self.waits {
            return;
        }
        for connection in self.connections.values_mut() {
            if !connection.config.tunnel {
                connection.socket = None;
            } else if connection.socket.is_none() {
                let address = connection.config.inner_address;
                connection.socket = sockets::reflector(address)
                    .inspect_err(|error| tracing::warn!(%address, %error, "no probes through the tunnel yet"))
                    .ok();
            }
        }
    }

    /// Finds the next hops that are not known yet.
    pub(super) fn resolve(&mut self) {
        self.open_inner();
        let (private, wan) = (self.ground.private.index, self.ground.wan.as_ref().map(|wan| wan.index));
        let given = self.options.private_next_hop.map(|via| Target::Out { index: private, via: Some(via) });
        let mut found = false;
        for link in self.connections.values_mut().flat_map(|connection| &mut connection.links) {
            if link.private_hop.is_none() {
                let hop = given.map_or_else(
                    || self.ground.routes.next_hop(link.peer.private_address, Some(private)),
                    |hop| Ok(Some(hop)),
                );
                link.private_hop = hop.unwrap_or_default();
                found |= link.private_hop.is_some();
                if link.private_hop.is_none() {
                    tracing::warn!(peer = %link.peer.private_address, interface = %self.ground.private.name, "no next hop on the private side; add a route or give --private-next-hop");
                }
            }
            if let (None, Some(lane)) = (link.wan_hop, link.peer.lanes.first()) {
                link.wan_hop = self.ground.routes.next_hop(lane.endpoint.ip(), wan).unwrap_or_default();
                found |= link.wan_hop.is_some();
            }
        }
        if found {
            self.sync_routes();
        }
    }

    /// Underlay pins, inner addresses, and the remote prefixes where they are carried now.
    pub(super) fn sync_routes(&mut self) {
        let mut carry: BTreeMap<IpNet, Route> = BTreeMap::new();
        let mut guarded: BTreeSet<IpNet> = BTreeSet::new();
        let tun = Target::Out { index: self.ground.tun.index, via: None };
        for connection in self.connections.values() {
            let mtu_bytes = Some(connection.config.mtu_bytes.get());
            guarded.extend(connection.config.remote_prefixes.iter().map(IpNet::trunc));
            if let Some((link, path)) = connection.carries() {
                let target = match path {
                    PathKind::Tunnel => Some(tun),
                    PathKind::Private => link.private_hop,
                };
                let prefixes = connection.config.remote_prefixes.iter().map(IpNet::trunc);
                carry.extend(
                    target
                        .into_iter()
                        .flat_map(|target| prefixes.clone().map(move |net| (net, Route { target, mtu_bytes }))),
                );
            }
        }
        // Pins come last: a remote prefix may be no longer than the address that is pinned, and the pin must hold.
        for link in self.connections.values().flat_map(|connection| &connection.links) {
            let endpoints = link.peer.lanes.iter().map(|lane| (lane.endpoint.ip(), link.wan_hop));
            let others = [
                (link.peer.private_address, link.private_hop),
                (link.peer.inner_address, link.tunnel.as_ref().map(|_| tun)),
            ];
            let pins = endpoints.chain(others);
            for (address, target) in pins {
                if let Some(target) = target {
                    carry.insert(IpNet::from(address), Route { target, mtu_bytes: None });
                }
            }
        }
        if let Err(error) = self.ground.routes.sync(&carry, &guarded) {
            let source = std::error::Error::source(&error).map(ToString::to_string);
            tracing::warn!(%error, source, "a route is not as it should be");
        }
    }

    /// The packet path's table.
    pub(super) fn set_table(&self) {
        let mut table = Table::default();
        let mut allowed: BTreeMap<GatewayId, (Arc<Peer>, Allowed)> = BTreeMap::new();
        for connection in self.connections.values() {
            let config = &connection.config;
            for (index, link) in connection.links.iter().enumerate() {
                let Some(peer) = &link.tunnel else { continue };
                let probes = Entry { flow: None, mss_bytes: config.mss_bytes };
                let traffic = Entry { flow: Some(Arc::clone(&link.flow)), mss_bytes: config.mss_bytes };
                let (_, allowed) =
                    allowed.entry(link.peer.gateway_id).or_insert_with(|| (Arc::clone(peer), Allowed::default()));
                for net in &config.remote_prefixes {
                    allowed.sources.insert(*net, traffic.clone());
                    if index == connection.active {
                        table.out.insert(*net, (Arc::clone(peer), traffic.clone()));
                    }
                }
                let inner = IpNet::from(link.peer.inner_address);
                allowed.sources.insert(inner, probes.clone());
                table.out.insert(inner, (Arc::clone(peer), probes));
                for net in config.local_prefixes.iter().copied().chain([IpNet::from(config.inner_address)]) {
                    allowed.destinations.insert(net, ());
                }
            }
        }
        for (peer, allowed) in allowed.into_values() {
            let allowed = Arc::new(allowed);
            for lane in &peer.lanes {
                table.by_key.insert(lane.key, lane.index);
                table.by_index.insert(lane.index, (Arc::clone(lane), Arc::clone(&allowed)));
            }
        }
        self.ground.lanes.set_table(table);
    }

    fn set_filter(&mut self) {
        let guards: Vec<Guard> = self
            .connections
            .values()
            .map(|connection| Guard {
                connection: connection.config.connection_id,
                remote: connection.config.remote_prefixes.clone(),
                mss_bytes: connection.config.mss_bytes,
            })
            .collect();
        if guards != self.guards {
            self.guards.clone_from(&guards);
            if self.filter.send(guards).is_err() {
                tracing::warn!("the packet filter's thread has ended");
            }
        }
    }
}

/// An X25519 public key as `wg` prints it.
fn public_key(text: &str) -> Option<[u8; 32]> {
    STANDARD.decode(text).ok()?.try_into().ok()
}
