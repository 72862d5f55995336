//! The data plane as a whole: its threads, and the handle that the rest of the gateway holds.

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, SocketAddr, UdpSocket},
    ops::RangeInclusive,
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread::JoinHandle,
    time::Duration,
};

use boringtun::x25519::StaticSecret;
use nix::sys::{
    epoll::{Epoll, EpollCreateFlags},
    resource::{Resource, getrlimit, setrlimit},
};
use tieline_openapi::{
    ids::ConnectionId,
    v1::{GatewayConfiguration, TunnelBackend},
};
use tokio::sync::{oneshot, watch};

use super::{
    firewall::{self, Forwarded, Rules},
    handover::{Beat, Carried, Gift, Taken, channel::Inbox},
    heartbeat::Heartbeat,
    kernel::{self, Board, Keeper, KernelError, Own, Told},
    lanes::{Handover, Lanes, NAP, OwnLane},
    netns::{NetNs, NetNsError},
    offloads::{Offload, Offloads},
    routes::{self, Interface, RouteError, Routes},
    sockets,
    status::{PacketPathStatus, Report, Status},
    tun::{Tun, TunError},
    uapi::Uapi,
};
use crate::proto::{path::Hold, probe::PROBE_PORT};

/// Packets that the TUN device queues for us: a burst of a fast sender, not a standing queue.
pub(super) const TUN_QUEUE: u32 = 2_000;
/// MTU of the TUN device until a configuration says more.
pub(super) const FIRST_MTU: u16 = 1_280;
/// Between two readings of the packet filter's counters.
const COUNT: Duration = Duration::from_millis(1_000);

/// What a data plane is made of.
pub struct DataplaneOptions {
    /// Where it lives.
    pub netns: NetNs,
    /// Name of its TUN device.
    pub tun_name: String,
    /// Its address in the site's network.
    pub private_address: IpAddr,
    /// The next hop of the private bundle; `None`: by the routes of the private address's interface.
    pub private_next_hop: Option<IpAddr>,
    /// Where peers reach its WireGuard.
    pub wan_endpoint: SocketAddr,
    /// The UDP port of lane 0 of its WireGuard; lane `n` listens `n` above it.
    pub listen_port: u16,
    /// The WireGuard key of lane 0, which probes are authenticated by too.
    pub private_key: StaticSecret,
    /// The keys of the lanes after it.
    pub further_keys: Vec<StaticSecret>,
    /// Which WireGuard carries, beside the lanes, which are always there.
    pub backend: TunnelBackend,
    /// The key of the kernel's WireGuard, which no lane has.
    pub kernel_key: StaticSecret,
    /// Its UDP ports, one for each peer and one more while it changes; a NAT moves them as it moves that of lane 0.
    pub kernel_ports: RangeInclusive<u16>,
    /// What not to use of the kernel's offloads.
    pub switched_off: Vec<Offload>,
    /// Counts its starts; never falls.
    pub session: u64,
    /// Pins and freezes in force.
    pub holds: BTreeMap<ConnectionId, Hold>,
    /// Where `wg` finds a socket for each lane; `None`: there are none.
    pub uapi: Option<PathBuf>,
    /// What a gateway that hands over has given; then this one waits for [`begin`](Dataplane::begin).
    pub taken: Option<Taken>,
}

/// Why a data plane does not start.
#[derive(Debug, thiserror::Error)]
pub enum DataplaneError {
    /// No namespace.
    #[error(transparent)]
    NetNs(#[from] NetNsError),
    /// No TUN device.
    #[error(transparent)]
    Tun(#[from] TunError),
    /// No routes.
    #[error(transparent)]
    Route(#[from] RouteError),
    /// No WireGuard in the kernel.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// A port is taken, or an address is not there.
    #[error("cannot listen on UDP {address}; the address must be this machine's and the port free")]
    Socket {
        /// What it would listen on.
        address: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// What the old process passes on cannot be read.
    #[error("cannot read what the running gateway passes on")]
    Channel(#[source] io::Error),
    /// No descriptor is left.
    #[error("cannot wait for sockets (epoll); raise the limit of open files")]
    Poll(#[source] io::Error),
    /// The machine has no thread left.
    #[error("cannot start the thread `{name}`")]
    Thread {
        /// Which.
        name: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
}

pub(super) enum Command {
    Apply(Box<GatewayConfiguration>),
    Hold(ConnectionId, Hold),
    Backend(TunnelBackend),
    Status(oneshot::Sender<Status>),
    /// What a new process is given.
    Give(oneshot::Sender<io::Result<Beat>>),
    /// The old process has stopped, in order or not: this one begins.
    Begin {
        in_order: bool,
    },
    /// Ends without removing anything.
    Leave,
    Stop,
}

/// Counters of the packet filter; `None`: there is none.
pub(super) type Counted = Arc<Mutex<Option<Forwarded>>>;

/// A running data plane. Dropping it stops it; [`stop`](Self::stop) also waits until it has cleaned up.
pub struct Dataplane {
    commands: mpsc::Sender<Command>,
    lanes: Arc<Lanes>,
    board: Arc<Board>,
    threads: Vec<JoinHandle<io::Result<()>>>,
    carriers: Vec<JoinHandle<io::Result<()>>>,
}

impl std::fmt::Debug for Dataplane {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dataplane").finish_non_exhaustive()
    }
}

impl Dataplane {
    /// Starts it, without any connection. Reports go to `reports`; when nobody takes them they are dropped.
    ///
    /// # Errors
    /// When the namespace, the TUN device, a socket or a route is refused.
    pub fn start(
        mut options: DataplaneOptions,
        reports: tokio::sync::mpsc::Sender<Report>,
    ) -> Result<Self, DataplaneError> {
        let thread = |name| move |source| DataplaneError::Thread { name, source };
        let takes_over = options.taken.is_some();
        let (ready, started) = mpsc::sync_channel(1);
        let (commands, orders) = mpsc::channel();
        let (rules, ruled) = mpsc::channel::<Rules>();
        let (tables, wanted) = mpsc::channel();
        let counted = Counted::default();
        let netns = options.netns.clone();
        let uapi = options.uapi.clone().zip(Some(options.tun_name.clone()));
        let counts = Arc::clone(&counted);
        if options.backend == TunnelBackend::Kernel {
            kernel::available()?;
        }
        let (board, (interfaces, kept)) = (Board::new(), mpsc::channel());
        let keeper = Keeper::new(own(&options), Arc::clone(&board));
        let offers = Arc::clone(&board);
        let heartbeat = netns
            .spawn("tl-heartbeat", move || match set_up(&mut options) {
                Ok(ground) => {
                    let _ = ready.send(Ok((Arc::clone(&ground.lanes), ground.private.name.clone())));
                    let heartbeat =
                        Heartbeat::new(options, ground, (rules, tables, interfaces), offers, counts, reports);
                    heartbeat.run(&orders);
                }
                Err(error) => drop(ready.send(Err(error))),
            })
            .map_err(thread("heartbeat"))?;
        let (lanes, private) = started.recv().map_err(|_| DataplaneError::Thread {
            name: "heartbeat",
            source: io::Error::other("it ended before it was ready"),
        })??;
        let stays = Arc::clone(&lanes);
        let guarding = Arc::clone(&board);
        // Its sender goes when the last interface is gone.
        let (present, gone) = mpsc::channel();
        let filter = move || filter(&private, &ruled, &counted, &guarding, &gone, &stays.handover.leaves);
        let mut threads = vec![heartbeat, netns.spawn("tl-filter", filter).map_err(thread("filter"))?];
        let tables = Arc::clone(&lanes);
        threads.push(netns.spawn("tl-tables", move || tables.tables(&wanted)).map_err(thread("tables"))?);
        let stays = Arc::clone(&lanes);
        let keep = move || {
            keeper.run(&kept, &stays.handover);
            drop::<mpsc::Sender<()>>(present);
        };
        threads.push(netns.spawn("tl-kernel", keep).map_err(thread("kernel"))?);
        let timers = Arc::clone(&lanes);
        threads.push(netns.spawn("tl-timers", move || timers.timers()).map_err(thread("timers"))?);
        if let Some((folder, tun)) = uapi {
            // The tunnel is worth more than the tool that looks at it.
            match Uapi::listen(&folder, &tun, lanes.own.len(), takes_over) {
                Ok(uapi) => {
                    let lanes = Arc::clone(&lanes);
                    threads.push(netns.spawn("tl-uapi", move || uapi.serve(&lanes)).map_err(thread("uapi"))?);
                }
                Err(error) => {
                    let source = std::error::Error::source(&error).map(ToString::to_string);
                    tracing::warn!(%error, source, "`wg` cannot look at this gateway");
                }
            }
        }
        let mut carriers = Vec::new();
        for n in 0..lanes.own.len() {
            let lanes = Arc::clone(&lanes);
            carriers.push(netns.spawn(&format!("tl-lane-{n}"), move || lanes.carry(n)).map_err(thread("lane"))?);
        }
        Ok(Self { commands, lanes, board, threads, carriers })
    }

    /// Makes this the configuration. What is unchanged goes on undisturbed.
    pub fn apply(&self, configuration: GatewayConfiguration) {
        self.order(Command::Apply(Box::new(configuration)));
    }

    /// Pins or freezes a connection, or ends that.
    pub fn set_hold(&self, connection: ConnectionId, hold: Hold) {
        self.order(Command::Hold(connection, hold));
    }

    /// Has this WireGuard carry from now on; no packet is lost by the change. Ask [`kernel::available`] before.
    pub fn set_backend(&self, backend: TunnelBackend) {
        self.order(Command::Backend(backend));
    }

    /// What the API is to be told of WireGuard in the kernel, and each change of it.
    #[must_use]
    pub fn kernel_lanes(&self) -> watch::Receiver<Told> {
        self.board.told()
    }

    /// The API has taken what it was told.
    pub fn kernel_lanes_taken(&self, sequence: u64) {
        self.board.take(sequence);
    }

    /// How it stands; `None` when it has stopped.
    pub async fn status(&self) -> Option<Status> {
        let (answer, status) = oneshot::channel();
        self.order(Command::Status(answer));
        status.await.ok()
    }

    /// How the packet path stands.
    #[must_use]
    pub fn packet_path(&self) -> PacketPathStatus {
        self.lanes.status()
    }

    /// Stops it, and waits until its routes, rules and devices are gone.
    pub fn stop(mut self) {
        self.halt();
        self.join();
    }

    /// What a new process needs to take over; from now on this one begins nothing, and passes on what is for the new one.
    /// Either [`leave`](Self::leave) or [`withdraw`](Self::withdraw) follows.
    pub(super) async fn give(&self) -> io::Result<Gift> {
        let (answer, beat) = oneshot::channel();
        self.order(Command::Give(answer));
        let beat = beat.await.map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))??;
        let alive = self.lanes.alive();
        Ok(Gift { upper: self.lanes.handover.upper, alive, lanes: self.lanes.give()?, beat })
    }

    /// Nobody takes over after all: it goes on as before.
    pub(super) fn withdraw(&self) {
        self.lanes.handover.withdraw();
    }

    /// Whether each of these lanes is heard.
    pub(super) fn hears(&self, lanes: &[(usize, [u8; 32])]) -> bool {
        let heard = self.lanes.alive();
        lanes.iter().all(|lane| heard.contains(lane))
    }

    /// Begins to read the network and the device: the old process has stopped. Where it has not done so in order, it may have
    /// removed what it had made.
    pub(super) fn begin(&self, in_order: bool) {
        self.lanes.handover.begin();
        self.order(Command::Begin { in_order });
    }

    /// Stops, the network first, and removes nothing: it is the new process's.
    pub(super) fn leave(mut self) {
        let handover = &self.lanes.handover;
        handover.leaves.store(true, Ordering::Release);
        handover.ends.store(true, Ordering::Release);
        join(&mut self.carriers);
        self.lanes.handover.close();
        self.order(Command::Leave);
        self.lanes.stop.store(true, Ordering::Relaxed);
        self.join();
    }

    fn join(&mut self) {
        join(&mut self.carriers);
        join(&mut self.threads);
    }

    fn order(&self, command: Command) {
        if self.commands.send(command).is_err() {
            tracing::debug!("the data plane has stopped");
        }
    }

    fn halt(&self) {
        self.order(Command::Stop);
        self.lanes.stop.store(true, Ordering::Relaxed);
    }
}

impl Drop for Dataplane {
    fn drop(&mut self) {
        self.halt();
    }
}

fn join(threads: &mut Vec<JoinHandle<io::Result<()>>>) {
    for thread in threads.drain(..) {
        if !matches!(thread.join(), Ok(Ok(()))) {
            tracing::error!("a thread of the data plane ended badly");
        }
    }
}

/// What the heartbeat stands on.
pub(super) struct Ground {
    pub(super) lanes: Arc<Lanes>,
    pub(super) routes: Routes,
    /// The interface of the private address.
    pub(super) private: Interface,
    /// The interface of the endpoint's address; `None`: that is a NAT's.
    pub(super) wan: Option<Interface>,
    pub(super) tun: Interface,
    /// Answers probes of the private bundle.
    pub(super) reflector: UdpSocket,
    /// Waits for the sockets inside the tunnel, of which each connection has one.
    pub(super) inner: Epoll,
    /// From a gateway that hands over: source ports of the private bundle, and what carries.
    pub(super) taken: (Vec<UdpSocket>, Vec<Carried>),
}

/// Makes the ground in this thread's namespace, or leaves nothing behind.
fn set_up(options: &mut DataplaneOptions) -> Result<Ground, DataplaneError> {
    // A socket a connection: 1,024 descriptors, as most systems begin with, are soon too few.
    if let Ok((_, most)) = getrlimit(Resource::RLIMIT_NOFILE)
        && let Err(error) = setrlimit(Resource::RLIMIT_NOFILE, most, most)
    {
        tracing::debug!(%error, "the limit of open files stays as it is");
    }
    let inner = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).map_err(|errno| DataplaneError::Poll(errno.into()))?;
    let mut taken = options.taken.take();
    let mut routes = match &mut taken {
        Some(taken) => Routes::adopt(std::mem::take(&mut taken.sysctls))?,
        None => Routes::open()?,
    };
    let takes_over = taken.is_some();
    match stand_on(options, &mut routes, taken) {
        Ok((lanes, private, wan, tun, reflector, taken)) => {
            Ok(Ground { lanes, routes, private, wan, tun, reflector, inner, taken })
        }
        Err(error) => {
            if !takes_over && let Err(error) = routes.close() {
                tracing::warn!(%error, "routes are left behind; the next start removes them");
            }
            Err(error)
        }
    }
}

type Standing = (Arc<Lanes>, Interface, Option<Interface>, Interface, UdpSocket, (Vec<UdpSocket>, Vec<Carried>));

fn stand_on(options: &DataplaneOptions, routes: &mut Routes, taken: Option<Taken>) -> Result<Standing, DataplaneError> {
    let private =
        routes.interface_of(options.private_address)?.ok_or(RouteError::NoInterface(options.private_address))?;
    let wan = routes.interface_of(options.wan_endpoint.ip())?;
    let keys: Vec<&StaticSecret> = std::iter::once(&options.private_key).chain(&options.further_keys).collect();
    let offloads = Arc::new(Offloads::without(&options.switched_off));
    let taken = taken.map(|taken| ground_of(taken, &options.tun_name, &offloads)).transpose()?;
    let (queues, given) = match taken {
        Some((queues, given)) => (queues, Some(given)),
        None => (Tun::make(&options.tun_name, keys.len(), &offloads)?, None),
    };
    let index = routes::index_of(&options.tun_name)
        .ok_or_else(|| TunError::Make { name: options.tun_name.clone(), source: io::ErrorKind::NotFound.into() })?;
    let device = Interface { index, name: options.tun_name.clone() };
    routes.set_link(index, FIRST_MTU, TUN_QUEUE)?;
    routes.forward_between(&private.name, &device.name)?;
    let any: IpAddr = match options.wan_endpoint {
        SocketAddr::V4(_) => std::net::Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => std::net::Ipv6Addr::UNSPECIFIED.into(),
    };
    let listen = if wan.is_some() { options.wan_endpoint.ip() } else { any };
    let lanes = keys.into_iter().zip(queues);
    if let Some(Given { sockets, handover, reflector, beat }) = given {
        let own = lanes.zip(sockets).map(|((key, tun), socket)| OwnLane::new(socket, tun, key.clone()));
        let lanes = Arc::new(Lanes::new(own.collect(), offloads, handover));
        return Ok((lanes, private, wan, device, reflector, beat));
    }
    let mut own = Vec::new();
    for ((key, tun), n) in lanes.zip(0..) {
        let address = SocketAddr::new(listen, options.listen_port.saturating_add(n));
        let socket =
            sockets::tunnel(address, &offloads).map_err(|source| DataplaneError::Socket { address, source })?;
        own.push(OwnLane::new(socket, tun, key.clone()));
    }
    let address = SocketAddr::new(options.private_address, PROBE_PORT);
    let reflector = sockets::reflector(address.ip()).map_err(|source| DataplaneError::Socket { address, source })?;
    let lanes = Arc::new(Lanes::new(own, offloads, Handover::default()));
    Ok((lanes, private, wan, device, reflector, Default::default()))
}

/// What another process has made, but for the queues.
struct Given {
    sockets: Vec<UdpSocket>,
    handover: Handover,
    reflector: UdpSocket,
    beat: (Vec<UdpSocket>, Vec<Carried>),
}

fn ground_of(taken: Taken, tun: &str, offloads: &Offloads) -> Result<(Vec<Tun>, Given), DataplaneError> {
    let Taken { upper, lanes, reflector, senders, carried, .. } = taken;
    let (mut queues, mut sockets, mut inboxes) = (Vec::new(), Vec::new(), Vec::new());
    for lane in lanes {
        queues.push(lane.tun);
        sockets.push(sockets::adopt(lane.socket, offloads));
        inboxes.push(Inbox::new(lane.channel, NAP).map_err(DataplaneError::Channel)?);
    }
    let queues = Tun::adopt(tun, queues, offloads)?;
    Ok((queues, Given { sockets, handover: Handover::take(upper, inboxes), reflector, beat: (senders, carried) }))
}

/// What all interfaces of the kernel's WireGuard have in common.
fn own(options: &DataplaneOptions) -> Own {
    let first = *options.kernel_ports.start();
    let port = options.wan_endpoint.port().wrapping_add(first.wrapping_sub(options.listen_port));
    Own {
        key: options.kernel_key.clone(),
        ports: options.kernel_ports.clone(),
        wan: SocketAddr::new(options.wan_endpoint.ip(), port),
    }
}

/// Runs `nft`: a process is too slow for the heartbeat.
fn filter(
    private: &str,
    wanted: &mpsc::Receiver<Rules>,
    counted: &Counted,
    board: &Board,
    gone: &mpsc::Receiver<()>,
    leaves: &AtomicBool,
) {
    let (mut rules, mut works) = (Rules::default(), false);
    loop {
        match wanted.recv_timeout(COUNT) {
            Ok(new) => {
                works = enforce(private, &new, &rules, board);
                rules = new;
            }
            Err(mpsc::RecvTimeoutError::Timeout) => {}
            Err(mpsc::RecvTimeoutError::Disconnected) => break,
        }
        let counts = works && rules != Rules::default();
        let now = counts.then(|| firewall::forwarded(&rules)).and_then(Result::ok);
        if counts && now.is_none() {
            // Somebody has flushed the ruleset: nothing would be checked any more.
            works = enforce(private, &rules, &Rules::default(), board);
        }
        *counted.lock().unwrap_or_else(PoisonError::into_inner) = now;
    }
    // It checks for as long as something may come.
    let _ = gone.recv();
    if works
        && !leaves.load(Ordering::Acquire)
        && let Err(error) = firewall::remove()
    {
        tracing::warn!(%error, "the gateway's packet filter rules are left behind");
    }
}

/// Whether the rules are in force.
fn enforce(private: &str, rules: &Rules, before: &Rules, board: &Board) -> bool {
    match firewall::apply(private, rules, before) {
        Ok(()) => {
            board.guard(rules.peers.iter().flatten().map(|guard| guard.peer).collect());
            true
        }
        Err(error) => {
            let source = std::error::Error::source(&error).map(ToString::to_string);
            tracing::warn!(%error, source, "no MSS clamp and no byte counters on the private path, and nothing new in the kernel's WireGuard");
            false
        }
    }
}
