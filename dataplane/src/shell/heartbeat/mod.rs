//! The heartbeat: one thread that probes, chooses and moves routes.

mod agenda;
mod kernel;
mod links;
mod wiring;

use std::{
    collections::{BTreeMap, HashMap},
    io,
    net::{IpAddr, SocketAddr, UdpSocket},
    os::fd::AsFd,
    sync::{Arc, PoisonError, mpsc},
    time::{Duration, Instant},
};

use nix::{
    poll::{PollFd, PollFlags, ppoll},
    sys::{
        epoll::{EpollEvent, EpollTimeout},
        time::TimeSpec,
    },
};
use tieline_openapi::{
    ids::{ConnectionId, GatewayId},
    v1::{GatewayConfiguration, PathChange, PathKind},
};

use self::{agenda::Agenda, kernel::InKernel, links::Connection};
use super::{
    clock,
    firewall::Rules,
    gateway::{Command, Counted, DataplaneOptions, Ground},
    handover::{Beat, Carried},
    kernel::{Board, Order},
    lanes::{Peer, Wanted},
    status::{Report, Status},
};
use crate::proto::{
    path::Hold,
    probe::{PROBE_PORT, Probe, Received},
};

/// How often ways are looked at when nothing arrives.
const TICK: Duration = Duration::from_millis(5);
/// The same with more than so many links: each has its round at a tick, and none is waited for by itself. A tick is then as
/// long as the usual interval of probes.
const CROWDED_TICK: Duration = Duration::from_millis(20);
const CROWD: usize = 100;
/// How often routes are put again.
const REASSERT: Duration = Duration::from_secs(1);
/// Sockets that are taken at once; more are taken next.
const READY: usize = 256;
/// Datagrams that are taken from a socket before the others have their turn.
const A_TURN: usize = 64;
/// The longest datagram.
const MAX_DATAGRAM: usize = 65_535;
/// Changes of path kept for a report while nobody takes one.
const MAX_CHANGES: usize = 1_000;

pub(super) struct Heartbeat {
    options: DataplaneOptions,
    epoch: Instant,
    ground: Ground,
    senders: Vec<UdpSocket>,
    /// The connections of the inner sockets, by [`Connection::slot`].
    slots: HashMap<u64, ConnectionId>,
    next_slot: u64,
    /// Whether two connections, or a connection and an underlay pin, want the same route.
    overlap: bool,
    /// Whether there are more than [`CROWD`] links.
    crowded: bool,
    /// Between two rounds of a tunnel that is the only way of its connection, at least.
    pace: Duration,
    next_resolve: Instant,
    resolve_in: Duration,
    holds: BTreeMap<ConnectionId, Hold>,
    configuration: Option<GatewayConfiguration>,
    connections: BTreeMap<ConnectionId, Connection>,
    agenda: Agenda,
    peers: HashMap<GatewayId, Arc<Peer>>,
    next_lane: u32,
    /// What carried before this process took over.
    carried: Vec<Carried>,
    /// The old process still probes and chooses.
    waits: bool,
    kernel: InKernel,
    rules: Rules,
    filter: mpsc::Sender<Rules>,
    tables: mpsc::Sender<Vec<Wanted>>,
    counted: Counted,
    reports: tokio::sync::mpsc::Sender<Report>,
    /// To receive into and, zeroes behind a probe, to send from.
    buffer: Vec<u8>,
    changes: Vec<PathChange>,
    reported_at: Instant,
}

/// Which socket a datagram came to.
#[derive(Clone, Copy)]
enum Came {
    Reflector,
    Sender(usize),
    Inner(ConnectionId),
}

impl Heartbeat {
    pub(super) fn new(
        mut options: DataplaneOptions,
        mut ground: Ground,
        (filter, tables, interfaces): (mpsc::Sender<Rules>, mpsc::Sender<Vec<Wanted>>, mpsc::Sender<Order>),
        board: Arc<Board>,
        counted: Counted,
        reports: tokio::sync::mpsc::Sender<Report>,
    ) -> Self {
        let now = clock::now();
        let (senders, carried) = std::mem::take(&mut ground.taken);
        let waits = ground.lanes.handover.waits();
        let next_lane = ground.lanes.handover.base() + 1;
        Self {
            carried,
            waits,
            holds: std::mem::take(&mut options.holds),
            kernel: InKernel::new(options.backend, interfaces, board),
            options,
            epoch: now,
            ground,
            senders,
            slots: HashMap::new(),
            next_slot: 0,
            overlap: false,
            crowded: false,
            pace: Duration::ZERO,
            next_resolve: now,
            resolve_in: REASSERT,
            configuration: None,
            connections: BTreeMap::new(),
            agenda: Agenda::default(),
            peers: HashMap::new(),
            next_lane,
            rules: Rules::default(),
            filter,
            tables,
            counted,
            reports,
            buffer: vec![0; MAX_DATAGRAM],
            changes: Vec::new(),
            reported_at: now,
        }
    }

    /// Runs until it is stopped, then removes what it has made.
    pub(super) fn run(mut self, orders: &mpsc::Receiver<Command>) {
        be_punctual();
        if !self.wait_for_turn(orders) {
            return;
        }
        let mut next_tick = clock::now();
        let mut next_assert = next_tick + REASSERT;
        loop {
            let crowded = self.crowded;
            let wake = if crowded { None } else { self.next_round() }.map_or(next_tick, |round| round.min(next_tick));
            self.wait(wake.saturating_duration_since(clock::now()));
            self.drain();
            self.look(clock::now());
            self.follow_kernel(clock::now());
            let now = clock::now();
            if now < next_tick {
                continue;
            }
            next_tick = now + if crowded { CROWDED_TICK } else { TICK };
            self.take_refused_sizes(now);
            if now >= next_assert {
                next_assert = now + REASSERT;
                self.resolve(now);
                self.ground.routes.reassert();
                self.end_lanes(now);
            }
            self.report(now);
            loop {
                match orders.try_recv() {
                    Ok(Command::Stop) | Err(mpsc::TryRecvError::Disconnected) => return self.close(),
                    Ok(Command::Leave) => return,
                    Ok(command) => self.obey(command),
                    Err(mpsc::TryRecvError::Empty) => break,
                }
            }
        }
    }

    /// Makes everything ready while another process still probes and chooses. False: it is not to begin at all, and
    /// nothing is its own to remove.
    fn wait_for_turn(&mut self, orders: &mpsc::Receiver<Command>) -> bool {
        while self.waits {
            match orders.recv() {
                Ok(Command::Stop | Command::Leave) | Err(mpsc::RecvError) => return false,
                Ok(command) => self.obey(command),
            }
        }
        true
    }

    /// The old process has stopped.
    fn begin(&mut self, in_order: bool) {
        self.waits = false;
        self.carried.clear();
        if !in_order {
            if let Err(error) = self.ground.routes.restore() {
                tracing::warn!(%error, "a route is not as it should be");
            }
            self.rules = Rules::default();
            self.set_filter();
        }
        // Its inner sockets are free now.
        self.resolve(clock::now());
        if let Err(error) = self.ground.routes.prune() {
            tracing::warn!(%error, "routes of the gateway before this one are left");
        }
    }

    /// What a new process is given.
    fn give(&self) -> io::Result<Beat> {
        let carried = self.connections.iter().filter_map(|(id, connection)| {
            let (link, path) = connection.carries()?;
            Some(Carried { connection: *id, peer: link.peer.gateway_id, path, mtu_bytes: link.mtu_bytes })
        });
        let own = |socket: &UdpSocket| socket.as_fd().try_clone_to_owned();
        Ok(Beat {
            carried: carried.collect(),
            sysctls: self.ground.routes.sysctls(),
            reflector: own(&self.ground.reflector)?,
            senders: self.senders.iter().map(own).collect::<Result<_, _>>()?,
        })
    }

    fn close(self) {
        if let Err(error) = self.ground.routes.close() {
            tracing::warn!(%error, "routes are left behind; the next start removes them");
        }
    }

    fn obey(&mut self, command: Command) {
        match command {
            // A new process reads it from the disk.
            Command::Apply(_) if self.ground.lanes.handover.gives() => {}
            Command::Apply(configuration) => self.apply(*configuration),
            Command::Hold(connection, hold) => {
                self.holds.insert(connection, hold);
                let now = clock::now();
                if let Some(held) = self.connections.get_mut(&connection) {
                    held.set_hold(hold, now);
                    self.agenda.put(connection, now);
                }
            }
            Command::Backend(backend) => self.set_backend(backend, clock::now()),
            Command::Status(answer) => drop(answer.send(self.status())),
            Command::Give(answer) => drop(answer.send(self.give())),
            Command::Begin { in_order } => self.begin(in_order),
            Command::Leave | Command::Stop => {}
        }
    }

    fn next_round(&self) -> Option<Instant> {
        let sessions = self.connections.values().flat_map(|connection| &connection.links);
        sessions.map(|link| link.session.next_round()).min()
    }

    fn wait(&self, at_most: Duration) {
        let private = std::iter::once(&self.ground.reflector).chain(&self.senders).map(AsFd::as_fd);
        let sockets = private.chain([self.ground.inner.0.as_fd()]);
        let mut wanted: Vec<PollFd<'_>> = sockets.map(|socket| PollFd::new(socket, PollFlags::POLLIN)).collect();
        // Interrupted or not: what there is is looked at next.
        let _ = ppoll(&mut wanted, Some(TimeSpec::from_duration(at_most)), None);
    }

    /// Takes what has arrived, the private bundle first: a probe heard through the tunnel is evidence against the bundle only
    /// when nothing from the bundle waits unread.
    fn drain(&mut self) {
        let mut ready = [EpollEvent::empty(); READY];
        let count = self.ground.inner.wait(&mut ready, EpollTimeout::ZERO).unwrap_or(0);
        let mut came: Vec<Came> = vec![Came::Reflector];
        came.extend((0..self.senders.len()).map(Came::Sender));
        came.extend(ready[..count].iter().filter_map(|event| self.slots.get(&event.data()).copied()).map(Came::Inner));
        let mut bytes = std::mem::take(&mut self.buffer);
        for came in came {
            for _ in 0..A_TURN {
                let (path, received) = match came {
                    Came::Reflector => (PathKind::Private, self.ground.reflector.recv_from(&mut bytes)),
                    Came::Sender(index) => (PathKind::Private, self.senders[index].recv_from(&mut bytes)),
                    Came::Inner(id) => {
                        let socket = self.connections.get(&id).and_then(|connection| connection.socket.as_ref());
                        let Some(socket) = socket else { break };
                        (PathKind::Tunnel, socket.recv_from(&mut bytes))
                    }
                };
                match received {
                    Ok((length, from)) => self.take(came, path, from, &bytes[..length]),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(_) => {}
                }
            }
        }
        self.buffer = bytes;
    }

    fn take(&mut self, came: Came, path: PathKind, from: SocketAddr, bytes: &[u8]) {
        let Ok(probe) = Probe::decode(bytes) else { return };
        let Some(connection) = self.connections.get_mut(&probe.connection) else { return };
        let Some(link) = connection.links.iter_mut().find(|link| link.address(path) == from.ip()) else { return };
        let now = clock::now();
        let received = link.session.receive(now, path, bytes);
        if !matches!(received, Received::Ignored) {
            link.touch(now);
            self.agenda.put(probe.connection, now);
        }
        if let Received::Reply(reply) = received {
            let socket = match came {
                Came::Reflector => Some(&self.ground.reflector),
                Came::Sender(index) => self.senders.get(index),
                Came::Inner(id) => self.connections.get(&id).and_then(|connection| connection.socket.as_ref()),
            };
            send(socket, &reply, from);
        }
    }

    /// Probes, chooses and follows the path MTU where it is time to, and nowhere else: what a connection costs is what
    /// happens with it.
    fn look(&mut self, now: Instant) {
        let due = self.agenda.take(now);
        if due.is_empty() {
            return;
        }
        self.probe(&due, now);
        let now = clock::now();
        self.choose(&due, now);
        self.watch_kernel(&due, now);
        self.follow_mtu(&due);
        for id in due {
            if let Some(at) = self.connections.get(&id).and_then(Connection::due) {
                self.agenda.put(id, at);
            }
        }
    }

    fn probe(&mut self, due: &[ConnectionId], now: Instant) {
        let padded = &mut self.buffer;
        for id in due {
            let Some(connection) = self.connections.get_mut(id) else { continue };
            for link in connection.links.iter_mut().filter(|link| link.session.next_round() <= now) {
                while let Some(transmit) = link.session.poll_transmit(clock::now()) {
                    let socket = match transmit.path {
                        PathKind::Private => self.senders.get(usize::from(transmit.port)),
                        PathKind::Tunnel => connection.socket.as_ref(),
                    };
                    let to = SocketAddr::new(link.address(transmit.path), PROBE_PORT);
                    let length = transmit.length.min(MAX_DATAGRAM);
                    padded[..length].fill(0);
                    padded[..transmit.bytes.len()].copy_from_slice(&transmit.bytes);
                    send(socket, &padded[..length], to);
                }
            }
        }
    }

    fn choose(&mut self, due: &[ConnectionId], now: Instant) {
        let mut moved = Vec::new();
        let mut peer_changed = false;
        for id in due {
            let Some(connection) = self.connections.get_mut(id) else { continue };
            let before = connection.active;
            let changes = connection.choose(now);
            peer_changed |= connection.active != before;
            if !changes.is_empty() || connection.active != before {
                moved.push(connection.config.connection_id);
            }
            for change in changes {
                tracing::info!(connection = %connection.config.name, from = ?change.from, to = ?change.to, reason = change.reason, "path changed");
                if self.changes.len() < MAX_CHANGES {
                    self.changes.push(change);
                }
            }
        }
        self.move_routes(&moved);
        if peer_changed {
            self.set_table();
        }
    }

    /// Hears from the packet path what was too long to be sent in one piece.
    fn take_refused_sizes(&mut self, now: Instant) {
        for (lane, size) in self.ground.lanes.take_refused_sizes() {
            for (id, connection) in &mut self.connections {
                for link in connection.links.iter_mut().filter(|link| link.has_lane(lane)) {
                    link.session.size_refused(now, size);
                    self.agenda.put(*id, now);
                }
            }
        }
    }

    /// Takes what is new about the path MTU of the tunnels: routes and the clamp follow it.
    fn follow_mtu(&mut self, due: &[ConnectionId]) {
        let connections = &mut self.connections;
        let changed = due.iter().filter(|id| connections.get_mut(id).is_some_and(Connection::follow_mtu)).copied();
        let changed: Vec<ConnectionId> = changed.collect();
        if !changed.is_empty() {
            self.move_routes(&changed);
            self.set_filter();
        }
    }

    fn report(&mut self, now: Instant) {
        let Some(configuration) = &self.configuration else { return };
        let every = Duration::from_millis(u64::from(configuration.probe.report_ms.max(100)));
        let passed = now.saturating_duration_since(self.reported_at);
        if passed < every {
            return;
        }
        self.reported_at = now;
        let counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let at = clock::timestamp();
        let samples = self.connections.values_mut().flat_map(|connection| {
            let forwarded = counted
                .as_ref()
                .map(|counted| counted.connections.get(&connection.config.connection_id).copied().unwrap_or_default());
            connection.sample(now, at, passed, forwarded)
        });
        let report = Report {
            configuration_version: Some(configuration.version),
            samples: samples.collect(),
            changes: std::mem::take(&mut self.changes),
        };
        if let Err(refused) = self.reports.try_send(report) {
            // Nobody takes reports now: samples are history, but a change of path is kept for when somebody does.
            let (tokio::sync::mpsc::error::TrySendError::Full(report)
            | tokio::sync::mpsc::error::TrySendError::Closed(report)) = refused;
            self.changes = report.changes;
        }
    }

    fn status(&self) -> Status {
        Status {
            gateway_id: self.configuration.as_ref().map(|configuration| configuration.gateway_id),
            configuration_version: self.configuration.as_ref().map(|configuration| configuration.version),
            at: clock::timestamp(),
            backend: self.kernel.backend,
            connections: self.connections.values().map(|c| c.status(&self.kernel.board, &self.foreign(c))).collect(),
            packet_path: self.ground.lanes.status(),
        }
    }
}

fn send(socket: Option<&UdpSocket>, bytes: &[u8], to: SocketAddr) {
    // What cannot be sent is a lost probe, and counted as one.
    if let Some(Err(error)) = socket.map(|socket| socket.send_to(bytes, to)) {
        tracing::trace!(%to, %error, "a probe was not sent");
    }
}

/// Asks for timers without slack and for real-time priority: a heartbeat that waits for a busy host is a false alarm.
fn be_punctual() {
    // SAFETY: takes an integer, touches only this thread.
    if unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1_u64) } != 0 {
        tracing::debug!(error = %io::Error::last_os_error(), "timers keep their slack");
    }
    let parameters = libc::sched_param { sched_priority: 10 };
    // SAFETY: the pointer is to a whole `sched_param`; 0 is this thread.
    if unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK, &raw const parameters) } != 0
    {
        tracing::debug!(error = %io::Error::last_os_error(), "no real-time priority (CAP_SYS_NICE); a busy host may delay probes");
    }
}

/// The address of a peer by a way.
fn peer_address(peer: &tieline_openapi::v1::GatewayPeer, path: PathKind) -> IpAddr {
    match path {
        PathKind::Private => peer.private_address,
        PathKind::Tunnel => peer.inner_address,
    }
}
