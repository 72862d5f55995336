//! The thread that keeps the interfaces as they shall be.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::SocketAddr,
    sync::{Arc, atomic::Ordering, mpsc},
    time::{Duration, Instant},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use boringtun::x25519::PublicKey;
use tieline_openapi::{
    ids::GatewayId,
    v1::{KernelLane, KernelLanes},
};
use zeroize::Zeroizing;

use super::{
    Board, KernelError, Order, Own, PREFIX, Shown, Told, Wanted,
    netlink::{Generic, Links, PeerSettings, port_was_taken},
    plan::{self, Heard, Interface, Seen, Step},
};
use crate::{
    proto::tunnel::TICK,
    shell::{clock, lanes::Handover, status::KernelLaneStatus},
};

/// Between two looks at all interfaces, with a few of them and with many; news of a link has them looked at at once.
const LOOK: Duration = Duration::from_millis(200);
const CROWDED_LOOK: Duration = Duration::from_secs(1);
const CROWD: usize = 50;
/// Waits before an interface that could not be made is tried again, doubled from the first to the second.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// A port that another program has is tried again after this time.
const TAKEN: Duration = Duration::from_secs(60);
/// Things done for one peer before the others have their turn.
const A_TURN: usize = 4;

/// The kernel, once it is needed.
struct Kernel {
    generic: Generic,
    links: Links,
}

/// The thread's state.
pub(crate) struct Keeper {
    own: Own,
    public: [u8; 32],
    board: Arc<Board>,
    kernel: Option<Kernel>,
    /// It could not be opened when it was last needed.
    closed: bool,
    wanted: BTreeMap<GatewayId, Wanted>,
    had: BTreeMap<GatewayId, Vec<Interface>>,
    carried: BTreeSet<u32>,
    /// What an interface had before it was lost: its peer knows that port.
    ports: BTreeMap<(GatewayId, bool), u16>,
    taken_ports: BTreeMap<u16, Instant>,
    retry: BTreeMap<GatewayId, (Instant, Duration)>,
    /// Another process's interfaces are to be taken over, at the first order.
    adopts: bool,
    next_look: Instant,
    /// When the API was seen to have taken the last sequence.
    heard: (u64, Option<Instant>),
}

impl Keeper {
    pub(crate) fn new(own: Own, board: Arc<Board>) -> Self {
        Self {
            public: *PublicKey::from(&own.key).as_bytes(),
            own,
            board,
            kernel: None,
            closed: false,
            wanted: BTreeMap::new(),
            had: BTreeMap::new(),
            carried: BTreeSet::new(),
            ports: BTreeMap::new(),
            taken_ports: BTreeMap::new(),
            retry: BTreeMap::new(),
            adopts: false,
            next_look: clock::now(),
            heard: (0, None),
        }
    }

    /// Keeps interfaces until nobody orders any more, and removes them then, unless they are another process's.
    pub(crate) fn run(mut self, orders: &mpsc::Receiver<Order>, handover: &Handover) {
        self.adopts = handover.waits();
        while handover.waits() {
            match orders.recv_timeout(TICK) {
                Ok(order) => self.obey(order),
                Err(mpsc::RecvTimeoutError::Timeout) => {}
                Err(mpsc::RecvTimeoutError::Disconnected) => return,
            }
        }
        if !self.adopts {
            told(self.sweep());
        }
        let mut changed = true;
        loop {
            if !self.listen(orders) {
                break;
            }
            // A process that hands over changes nothing.
            if !handover.gives() {
                self.round(clock::now(), changed);
            }
            changed = match &self.kernel {
                Some(kernel) => kernel.links.wait(TICK),
                None => false,
            };
        }
        if !handover.leaves.load(Ordering::Acquire) {
            told(self.sweep());
        }
    }

    /// Takes what there is of orders, and waits for one where there is nothing to keep, or a while where nothing can be kept;
    /// false: there will be no more.
    fn listen(&mut self, orders: &mpsc::Receiver<Order>) -> bool {
        if self.wanted.is_empty() && self.had.is_empty() && self.kernel.is_none() {
            match orders.recv() {
                Ok(order) => self.obey(order),
                Err(mpsc::RecvError) => return false,
            }
        } else if self.closed {
            match orders.recv_timeout(RETRY.0) {
                Ok(order) => self.obey(order),
                Err(mpsc::RecvTimeoutError::Timeout) => {}
                Err(mpsc::RecvTimeoutError::Disconnected) => return false,
            }
        }
        loop {
            match orders.try_recv() {
                Ok(order) => self.obey(order),
                Err(mpsc::TryRecvError::Empty) => return true,
                Err(mpsc::TryRecvError::Disconnected) => return false,
            }
        }
    }

    fn obey(&mut self, order: Order) {
        match order {
            Order::Want(wanted) => {
                self.wanted = wanted.into_iter().map(|wanted| (wanted.gateway, wanted)).collect();
                self.retry.retain(|gateway, _| self.wanted.contains_key(gateway));
                // The MTU is looked at too.
                self.next_look = clock::now();
            }
            Order::Carry(carried) => self.carried = carried,
            Order::Doubt(peer) => {
                self.had.get_mut(&peer).into_iter().flatten().for_each(|interface| interface.seen.doubt());
            }
        }
    }

    /// Removes every interface that is ours by its name, whoever has made it.
    fn sweep(&mut self) -> Result<(), KernelError> {
        self.had.clear();
        let any = nix::net::if_::if_nameindex()
            .is_ok_and(|all| all.iter().any(|one| one.name().to_bytes().starts_with(PREFIX.as_bytes())));
        if !any {
            return Ok(());
        }
        let links = Links::open()?;
        for (name, index) in links.ours()? {
            links.remove(&name, index)?;
        }
        Ok(())
    }

    /// Takes over what another process has made, where it is what shall be; the rest is removed.
    fn adopt(&mut self, now: Instant) -> Result<(), KernelError> {
        let Some(Kernel { generic, links }) = &self.kernel else { return Ok(()) };
        for (name, index) in links.ours()? {
            let device = generic.device(index).map_err(KernelError::Read)?;
            let names = |wanted: &&Wanted| [false, true].iter().any(|s| super::name(wanted.gateway, *s) == name);
            let wanted = self.wanted.values().find(names);
            let is_it = |device: &super::netlink::Device, wanted: &Wanted| {
                device.public == self.public && (device.peer == wanted.key || device.peer == wanted.standing)
            };
            let (Some(device), Some(wanted), Some((up, mtu))) = (device, wanted, links.link(index)) else {
                links.remove(&name, index)?;
                continue;
            };
            if !is_it(&device, wanted) {
                links.remove(&name, index)?;
                continue;
            }
            let mut seen = Seen::default();
            seen.update(&device, up, now, wall());
            let interface = Interface {
                second: name == super::name(wanted.gateway, true),
                name,
                index,
                port: device.port,
                key: device.peer,
                endpoint: if device.peer == wanted.key {
                    wanted.endpoint
                } else {
                    device.endpoint.unwrap_or(wanted.endpoint)
                },
                preshared: device.preshared,
                mtu_bytes: u16::try_from(mtu).unwrap_or(u16::MAX),
                made_at: now,
                retired: None,
                seen,
            };
            self.had.entry(wanted.gateway).or_default().push(interface);
        }
        Ok(())
    }

    fn round(&mut self, now: Instant, changed: bool) {
        if self.kernel.is_none() && (!self.wanted.is_empty() || self.adopts) {
            let opened = Generic::open().and_then(|generic| Ok(Kernel { generic, links: Links::open()? }));
            self.closed = opened.is_err() && !self.wanted.is_empty();
            match opened {
                Ok(kernel) => self.kernel = Some(kernel),
                Err(error) => {
                    if self.closed {
                        told(Err(error));
                    }
                    self.adopts = false;
                    return;
                }
            }
        }
        if std::mem::take(&mut self.adopts) {
            told(self.adopt(now));
        }
        if changed || now >= self.next_look {
            let crowded = self.had.len() > CROWD;
            self.next_look = now + if crowded { CROWDED_LOOK } else { LOOK };
            self.look(now, changed);
        }
        let heard = self.heard(now);
        let peers: BTreeSet<GatewayId> = self.wanted.keys().chain(self.had.keys()).copied().collect();
        for peer in peers {
            for _ in 0..A_TURN {
                let had = self.had.get(&peer).map_or(&[][..], Vec::as_slice);
                let step = plan::step(self.wanted.get(&peer), had, |index| self.carried.contains(&index), heard, now);
                if !step.is_some_and(|step| self.perform(peer, step, now)) {
                    break;
                }
            }
        }
        self.had.retain(|_, had| !had.is_empty());
        self.show(now);
    }

    fn heard(&mut self, now: Instant) -> Heard {
        let sequence = self.board.told.borrow().sequence;
        if self.heard.0 != sequence {
            self.heard = (sequence, None);
        }
        if self.heard.1.is_none() && self.board.taken.load(Ordering::Acquire) >= sequence {
            self.heard.1 = Some(now);
        }
        self.heard.1.map_or(Heard::NotYet, Heard::At)
    }

    /// Looks at each interface; one that is gone is made anew.
    fn look(&mut self, now: Instant, changed: bool) {
        let Some(Kernel { generic, links }) = &self.kernel else { return };
        let wall = wall();
        for (peer, had) in &mut self.had {
            let wanted = self.wanted.get(peer);
            let underlay = wanted.and_then(|wanted| links.link(wanted.underlay?)).map(|(_, mtu)| mtu);
            had.retain_mut(|interface| {
                let link = if changed { links.link(interface.index) } else { Some((interface.seen.up, 0)) };
                match (generic.device(interface.index), link) {
                    (Ok(Some(device)), Some((up, _))) => {
                        interface.seen.update(&device, up, now, wall);
                        let fits =
                            wanted.map(|wanted| plan::mtu(wanted.mtu_bytes, underlay, interface.endpoint));
                        if !up || fits.is_some_and(|fits| fits != interface.mtu_bytes) {
                            interface.mtu_bytes = fits.unwrap_or(interface.mtu_bytes);
                            let done = links.up(&interface.name, interface.index, interface.mtu_bytes);
                            interface.seen.up = done.is_ok();
                            told(done);
                        }
                        true
                    }
                    (Err(error), _) => {
                        told(Err(KernelError::Read(error)));
                        true
                    }
                    (Ok(_), _) => {
                        tracing::warn!(interface = %interface.name, peer = %peer, "somebody has removed a WireGuard interface of the gateway; it is made again");
                        false
                    }
                }
            });
        }
    }

    /// Whether it is done, and the next may be.
    fn perform(&mut self, peer: GatewayId, step: Step, now: Instant) -> bool {
        if let Step::Make { second } = step {
            return self.make(peer, second, now);
        }
        let Some(Kernel { generic, links }) = &self.kernel else { return false };
        let Some(had) = self.had.get_mut(&peer) else { return false };
        match step {
            Step::Make { .. } => false,
            Step::Configure(n) => {
                let (Some(wanted), Some(interface)) = (self.wanted.get(&peer), had.get_mut(n)) else { return false };
                let preshared = Zeroizing::new(wanted.preshared.as_deref().copied().unwrap_or([0; 32]));
                let endpoint = (interface.endpoint != wanted.endpoint).then_some(wanted.endpoint);
                let settings = PeerSettings { key: interface.key, endpoint, preshared: &preshared };
                match generic.change_peer(interface.index, &settings) {
                    Ok(()) => {
                        (interface.endpoint, interface.preshared) = (wanted.endpoint, preshared);
                        true
                    }
                    Err(source) => {
                        told(Err(KernelError::Configure { name: interface.name.clone(), source }));
                        false
                    }
                }
            }
            Step::Retire(n) => {
                let Some(interface) = had.get_mut(n) else { return false };
                tracing::info!(interface = %interface.name, peer = %peer, "the kernel's WireGuard only receives there from now on");
                interface.retired = Some(now);
                true
            }
            Step::Remove(n) => {
                let interface = had.remove(n);
                let removed = links.remove(&interface.name, interface.index);
                tracing::info!(interface = %interface.name, peer = %peer, "WireGuard interface removed");
                let done = removed.is_ok();
                told(removed);
                done
            }
        }
    }

    fn make(&mut self, peer: GatewayId, second: bool, now: Instant) -> bool {
        let Some(wanted) = self.wanted.get(&peer) else { return false };
        let waits = self.retry.get(&peer).is_some_and(|(at, _)| now < *at);
        // Nothing comes out of it before it is known what may.
        if waits || !self.board.is_guarded(peer) {
            return false;
        }
        match self.try_make(wanted, second, now) {
            Ok(interface) => {
                tracing::info!(interface = %interface.name, port = interface.port, peer = %peer, mtu_bytes = interface.mtu_bytes, "WireGuard interface made");
                self.ports.insert((peer, second), interface.port);
                self.retry.remove(&peer);
                self.had.entry(peer).or_default().push(interface);
                true
            }
            Err((port, error)) => {
                if let Some(port) = port.filter(|_| port_was_taken(&error)) {
                    self.taken_ports.insert(port, now + TAKEN);
                    self.ports.remove(&(peer, second));
                    return false;
                }
                let wait = self.retry.get(&peer).map_or(RETRY.0, |(_, wait)| (*wait * 2).min(RETRY.1));
                self.retry.insert(peer, (now + wait, wait));
                told(Err(error));
                false
            }
        }
    }

    fn try_make(&self, wanted: &Wanted, second: bool, now: Instant) -> Result<Interface, (Option<u16>, KernelError)> {
        let none = |error| (None, error);
        let Some(Kernel { generic, links }) = &self.kernel else {
            return Err(none(KernelError::Netlink(std::io::ErrorKind::NotConnected.into())));
        };
        let port = self.port(wanted.gateway, second, now).map_err(none)?;
        let name = super::name(wanted.gateway, second);
        if let Some(index) = crate::shell::routes::index_of(&name) {
            links.remove(&name, index).map_err(none)?;
        }
        let index = links.make(&name).map_err(none)?;
        let underlay = wanted.underlay.and_then(|underlay| links.link(underlay)).map(|(_, mtu)| mtu);
        let mtu_bytes = plan::mtu(wanted.mtu_bytes, underlay, wanted.endpoint);
        let preshared = Zeroizing::new(wanted.preshared.as_deref().copied().unwrap_or([0; 32]));
        let settings = PeerSettings { key: wanted.key, endpoint: Some(wanted.endpoint), preshared: &preshared };
        let path = format!("/proc/sys/net/ipv4/conf/{name}/rp_filter");
        // Each direction is steered by its sender, so the reverse path filter is loose (RFC 3704, section 2.4).
        let made = fs::write(path, "2")
            .map_err(|source| KernelError::Sysctl { name: name.clone(), source })
            .and_then(|()| links.address(&name, index))
            .and_then(|()| {
                let configured = generic.configure(index, &self.own.key, port, &settings);
                configured.map_err(|source| KernelError::Configure { name: name.clone(), source })
            })
            .and_then(|()| links.up(&name, index, mtu_bytes));
        if let Err(error) = made {
            told(links.remove(&name, index));
            return Err((Some(port), error));
        }
        Ok(Interface {
            name,
            second,
            index,
            port,
            key: wanted.key,
            endpoint: wanted.endpoint,
            preshared,
            mtu_bytes,
            made_at: now,
            retired: None,
            seen: Seen::up(),
        })
    }

    /// The port that it had, or the first that is free.
    fn port(&self, peer: GatewayId, second: bool, now: Instant) -> Result<u16, KernelError> {
        let used: BTreeSet<u16> = self.had.values().flatten().map(|interface| interface.port).collect();
        let free = |port: &u16| {
            !used.contains(port)
                && self.taken_ports.get(port).is_none_or(|until| now >= *until)
                // Another's, who may come back to it.
                && !self.ports.iter().any(|(of, known)| known == port && *of != (peer, second) && self.wanted.contains_key(&of.0))
        };
        let had = self.ports.get(&(peer, second)).copied().filter(free);
        let (first, last) = (*self.own.ports.start(), *self.own.ports.end());
        had.or_else(|| self.own.ports.clone().find(free)).ok_or(KernelError::Ports { first, last })
    }

    fn show(&mut self, now: Instant) {
        let mut shown = Shown::default();
        let mut lanes = Vec::new();
        let mut settled = true;
        for (peer, had) in &self.had {
            let status = had.iter().map(|interface| KernelLaneStatus {
                interface: interface.name.clone(),
                port: interface.port,
                endpoint: interface.seen.endpoint.unwrap_or(interface.endpoint),
                alive: interface.is_alive(now),
                carries: self.carried.contains(&interface.index),
                retired: interface.retired.is_some(),
                handshake_age_s: interface.seen.handshake_age(now).map(|age| age.as_secs()),
                bytes_out: interface.seen.bytes_out,
                bytes_in: interface.seen.bytes_in,
            });
            shown.status.insert(*peer, status.collect());
        }
        for (peer, wanted) in &self.wanted {
            let had = self.had.get(peer).map_or(&[][..], Vec::as_slice);
            shown.offers.extend(plan::offer(wanted, had, now).map(|offer| (*peer, offer)));
            let told = plan::told(wanted, had);
            settled &= told.is_some() || self.retry.contains_key(peer);
            lanes.extend(told.map(|interface| KernelLane {
                peer_id: *peer,
                public_key: STANDARD.encode(self.public),
                endpoint: self.endpoint(interface.port),
            }));
        }
        self.board.show(shown);
        let lanes = KernelLanes { lanes };
        // In the beginning nothing is known, which is something else than that there is nothing.
        self.board.told.send_if_modified(|told| {
            let first = told.sequence == 0;
            let news = told.lanes != lanes || first;
            if !news || (first && !settled) {
                return false;
            }
            *told = Told { sequence: told.sequence + 1, lanes };
            true
        });
    }

    /// Where peers reach a port: a NAT in front of the gateway moves all by as much.
    fn endpoint(&self, port: u16) -> SocketAddr {
        let port = self.own.wan.port().wrapping_add(port.wrapping_sub(*self.own.ports.start()));
        SocketAddr::new(self.own.wan.ip(), port)
    }
}

fn wall() -> i64 {
    clock::timestamp().as_second()
}

fn told(done: Result<(), KernelError>) {
    if let Err(error) = done {
        let source = std::error::Error::source(&error).map(ToString::to_string);
        tracing::warn!(%error, source, "the kernel's WireGuard is not as it should be");
    }
}
