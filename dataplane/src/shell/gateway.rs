//! The data plane as a whole: its threads, and the handle that the rest of the gateway holds.

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, SocketAddr, UdpSocket},
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError, atomic::Ordering, mpsc},
    thread::JoinHandle,
    time::Duration,
};

use boringtun::x25519::StaticSecret;
use tieline_openapi::{ids::ConnectionId, v1::GatewayConfiguration};
use tokio::sync::oneshot;

use super::{
    firewall::{self, Forwarded, Guard},
    heartbeat::Heartbeat,
    lanes::{Lanes, NAP, OwnLane},
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
    /// What not to use of the kernel's offloads.
    pub switched_off: Vec<Offload>,
    /// Counts its starts; never falls.
    pub session: u64,
    /// Pins and freezes in force.
    pub holds: BTreeMap<ConnectionId, Hold>,
    /// Where `wg` finds a socket for each lane; `None`: there are none.
    pub uapi: Option<PathBuf>,
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
    /// A port is taken, or an address is not there.
    #[error("cannot listen on UDP {address}; the address must be this machine's and the port free")]
    Socket {
        /// What it would listen on.
        address: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
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
    Status(oneshot::Sender<Status>),
    Stop,
}

/// Counters of the packet filter; `None`: there is none.
pub(super) type Counted = Arc<Mutex<Option<Forwarded>>>;

/// A running data plane. Dropping it stops it; [`stop`](Self::stop) also waits until it has cleaned up.
pub struct Dataplane {
    commands: mpsc::Sender<Command>,
    lanes: Arc<Lanes>,
    threads: Vec<JoinHandle<io::Result<()>>>,
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
        options: DataplaneOptions,
        reports: tokio::sync::mpsc::Sender<Report>,
    ) -> Result<Self, DataplaneError> {
        let thread = |name| move |source| DataplaneError::Thread { name, source };
        let (ready, started) = mpsc::sync_channel(1);
        let (commands, orders) = mpsc::channel();
        let (guards, guarded) = mpsc::channel::<Vec<Guard>>();
        let counted = Counted::default();
        let netns = options.netns.clone();
        let uapi = options.uapi.clone().zip(Some(options.tun_name.clone()));
        let counts = Arc::clone(&counted);
        let heartbeat = netns
            .spawn("tl-heartbeat", move || match set_up(&options) {
                Ok(ground) => {
                    let _ = ready.send(Ok((Arc::clone(&ground.lanes), ground.private.name.clone())));
                    Heartbeat::new(options, ground, guards, counts, reports).run(&orders);
                }
                Err(error) => drop(ready.send(Err(error))),
            })
            .map_err(thread("heartbeat"))?;
        let (lanes, private) = started.recv().map_err(|_| DataplaneError::Thread {
            name: "heartbeat",
            source: io::Error::other("it ended before it was ready"),
        })??;
        let mut threads = vec![
            heartbeat,
            netns.spawn("tl-filter", move || filter(&private, &guarded, &counted)).map_err(thread("filter"))?,
        ];
        let timers = Arc::clone(&lanes);
        threads.push(netns.spawn("tl-timers", move || timers.timers()).map_err(thread("timers"))?);
        if let Some((folder, tun)) = uapi {
            // The tunnel is worth more than the tool that looks at it.
            match Uapi::listen(&folder, &tun, lanes.own.len(), false) {
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
        for n in 0..lanes.own.len() {
            let (out, back) = (Arc::clone(&lanes), Arc::clone(&lanes));
            threads.push(netns.spawn(&format!("tl-out-{n}"), move || out.outbound(n)).map_err(thread("outbound"))?);
            threads.push(netns.spawn(&format!("tl-in-{n}"), move || back.inbound(n)).map_err(thread("inbound"))?);
        }
        Ok(Self { commands, lanes, threads })
    }

    /// Makes this the configuration. What is unchanged goes on undisturbed.
    pub fn apply(&self, configuration: GatewayConfiguration) {
        self.order(Command::Apply(Box::new(configuration)));
    }

    /// Pins or freezes a connection, or ends that.
    pub fn set_hold(&self, connection: ConnectionId, hold: Hold) {
        self.order(Command::Hold(connection, hold));
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
        for thread in self.threads.drain(..) {
            if !matches!(thread.join(), Ok(Ok(()))) {
                tracing::error!("a thread of the data plane ended badly");
            }
        }
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
}

/// Makes the ground in this thread's namespace, or leaves nothing behind.
fn set_up(options: &DataplaneOptions) -> Result<Ground, DataplaneError> {
    let mut routes = Routes::open()?;
    match stand_on(options, &mut routes) {
        Ok((lanes, private, wan, tun, reflector)) => Ok(Ground { lanes, routes, private, wan, tun, reflector }),
        Err(error) => {
            if let Err(error) = routes.close() {
                tracing::warn!(%error, "routes are left behind; the next start removes them");
            }
            Err(error)
        }
    }
}

type Standing = (Arc<Lanes>, Interface, Option<Interface>, Interface, UdpSocket);

fn stand_on(options: &DataplaneOptions, routes: &mut Routes) -> Result<Standing, DataplaneError> {
    let private =
        routes.interface_of(options.private_address)?.ok_or(RouteError::NoInterface(options.private_address))?;
    let wan = routes.interface_of(options.wan_endpoint.ip())?;
    let keys: Vec<&StaticSecret> = std::iter::once(&options.private_key).chain(&options.further_keys).collect();
    let offloads = Arc::new(Offloads::without(&options.switched_off));
    let queues = Tun::make(&options.tun_name, keys.len(), &offloads)?;
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
    let mut own = Vec::new();
    for ((key, tun), n) in keys.into_iter().zip(queues).zip(0..) {
        let address = SocketAddr::new(listen, options.listen_port.saturating_add(n));
        let socket =
            sockets::tunnel(address, NAP, &offloads).map_err(|source| DataplaneError::Socket { address, source })?;
        own.push(OwnLane::new(socket, tun, key.clone()));
    }
    let address = SocketAddr::new(options.private_address, PROBE_PORT);
    let reflector = sockets::reflector(address.ip()).map_err(|source| DataplaneError::Socket { address, source })?;
    let lanes = Arc::new(Lanes::new(own, offloads));
    Ok((lanes, private, wan, device, reflector))
}

/// Runs `nft`: a process is too slow for the heartbeat.
fn filter(private: &str, wanted: &mpsc::Receiver<Vec<Guard>>, counted: &Counted) {
    let mut guards = Vec::new();
    let mut works = false;
    loop {
        match wanted.recv_timeout(COUNT) {
            Ok(new) => {
                guards = new;
                works = match firewall::apply(private, &guards) {
                    Ok(()) => true,
                    Err(error) => {
                        let source = std::error::Error::source(&error).map(ToString::to_string);
                        tracing::warn!(%error, source, "no MSS clamp and no byte counters on the private path");
                        false
                    }
                };
            }
            Err(mpsc::RecvTimeoutError::Timeout) => {}
            Err(mpsc::RecvTimeoutError::Disconnected) => break,
        }
        let now = works.then(|| firewall::forwarded(&guards)).and_then(Result::ok);
        *counted.lock().unwrap_or_else(PoisonError::into_inner) = now;
    }
    if works && let Err(error) = firewall::remove() {
        tracing::warn!(%error, "the gateway's packet filter rules are left behind");
    }
}
