//! A gateway with a thousand peers and a hundred thousand prefixes: what it costs, and that peers do not feel each other.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr, UdpSocket},
    os::fd::AsFd,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc,
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use boringtun::{
    noise::rate_limiter::RateLimiter,
    x25519::{PublicKey, StaticSecret},
};
use nix::sys::{
    epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout},
    resource::{Resource, getrlimit, setrlimit},
    socket::{setsockopt, sockopt},
};
use tieline_dataplane::{
    Dataplane,
    proto::tunnel::{Lane, LaneKeys, Output},
    shell::status::PacketPathStatus,
};
use tieline_openapi::{
    ids::{ConnectionId, GatewayId},
    v1::{GatewayConfiguration, GatewayConnection, GatewayPeer, Lane as LaneConfig, ProbeSettings, TunnelBackend},
};
use uuid::Uuid;

use super::world::*;

const PEERS: usize = 1_000;
const PREFIXES_EACH: usize = 100;
/// Addresses that the peers have between them.
const ADDRESSES: usize = 200;

fn peer_key(peer: usize) -> StaticSecret {
    let mut bytes = [0x33; 32];
    bytes[..8].copy_from_slice(&peer.to_be_bytes());
    StaticSecret::from(bytes)
}

fn peer_endpoint(peer: usize) -> SocketAddr {
    let host = u8::try_from(20 + peer % ADDRESSES).unwrap();
    let port = 52_000 + u16::try_from(peer / ADDRESSES).unwrap();
    SocketAddr::from(([198, 51, 100, host], port))
}

/// The inner address of our end, or of the peer's, of a connection.
fn inner(end: u8, peer: usize) -> IpAddr {
    let [_, _, high, low] = u32::try_from(peer).unwrap().to_be_bytes();
    IpAddr::from([100, 64 + end, high, low])
}

fn connection(peer: usize) -> GatewayConnection {
    let template = configuration(0, 1, false, &public(&peer_key(peer))).connections.remove(0);
    let prefix = |n: usize| {
        let bits = (11_u32 << 24) + (u32::try_from(peer * PREFIXES_EACH + n).unwrap() << 8);
        format!("{}/24", std::net::Ipv4Addr::from(bits)).parse().unwrap()
    };
    GatewayConnection {
        connection_id: ConnectionId(Uuid::from_u128(0x1000 + peer as u128)),
        name: format!("peer-{peer}"),
        inner_address: inner(0, peer),
        remote_prefixes: (0..PREFIXES_EACH).map(prefix).collect(),
        peers: vec![GatewayPeer {
            gateway_id: GatewayId(Uuid::from_u128(0x9000 + peer as u128)),
            lanes: vec![LaneConfig {
                n: 0,
                public_key: public(&peer_key(peer)),
                endpoint: peer_endpoint(peer),
                backend: TunnelBackend::Boringtun,
            }],
            private_address: private_address(1),
            inner_address: inner(1, peer),
            preshared_key: None,
            preshared_key_changing: false,
            former_preshared_key: None,
            kernel_lane: None,
        }],
        ..template
    }
}

fn crowded(version: u64) -> GatewayConfiguration {
    GatewayConfiguration {
        version,
        gateway_id: gateway_id(0),
        probe: ProbeSettings { report_ms: 1_000, ..ProbeSettings::default() },
        connections: (0..PEERS).map(connection).collect(),
    }
}

/// All the peers, as bare lanes on one thread.
struct Crowd {
    stop: Arc<AtomicBool>,
    sessions: Arc<AtomicUsize>,
    /// When each numbered packet came to peer 0.
    heard: Arc<Mutex<Vec<(u32, Instant)>>>,
    restart: mpsc::Sender<()>,
    thread: JoinHandle<std::io::Result<()>>,
}

fn lane(peer: usize) -> Lane {
    let keys = LaneKeys { private: peer_key(peer), peer: PublicKey::from(&key(0)), preshared: None };
    let limiter = Arc::new(RateLimiter::new(&PublicKey::from(&keys.private), u64::MAX));
    Lane::new(keys, u32::try_from(peer + 1).unwrap(), endpoint(0), limiter, Instant::now())
}

fn be_a_crowd(
    stop: &AtomicBool,
    sessions: &AtomicUsize,
    heard: &Mutex<Vec<(u32, Instant)>>,
    restart: &mpsc::Receiver<()>,
) {
    let epoll = Epoll::new(EpollCreateFlags::empty()).unwrap();
    let sockets: Vec<UdpSocket> = (0..PEERS)
        .map(|peer| {
            let socket = UdpSocket::bind(peer_endpoint(peer)).unwrap();
            socket.set_nonblocking(true).unwrap();
            setsockopt(&socket, sockopt::RcvBufForce, &(4 << 20)).unwrap();
            epoll.add(socket.as_fd(), EpollEvent::new(EpollFlags::EPOLLIN, peer as u64)).unwrap();
            socket
        })
        .collect();
    let mut lanes: Vec<Lane> = (0..PEERS).map(lane).collect();
    let (mut datagram, mut out) = ([0; 2_048], [0; 2_048]);
    let mut next_tick = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        if restart.try_recv().is_ok() {
            // All but the one whose flow is watched.
            lanes.iter_mut().enumerate().skip(1).for_each(|(peer, had)| *had = lane(peer));
            next_tick = Instant::now();
        }
        if Instant::now() >= next_tick {
            next_tick = Instant::now() + Duration::from_millis(100);
            for (lane, socket) in lanes.iter_mut().zip(&sockets) {
                if let Output::Send(bytes) = lane.tick(Instant::now(), &mut out) {
                    let _ = socket.send_to(bytes, lane.endpoint());
                }
            }
            sessions.store(lanes.iter().filter(|lane| lane.handshake_age().is_some()).count(), Ordering::Relaxed);
        }
        let mut events = [EpollEvent::empty(); 64];
        let ready = epoll.wait(&mut events, EpollTimeout::from(20_u8)).unwrap_or(0);
        for event in &events[..ready] {
            let peer = usize::try_from(event.data()).unwrap();
            while let Ok((length, from)) = sockets[peer].recv_from(&mut datagram) {
                match lanes[peer].decapsulate(from, &datagram[..length], &mut out) {
                    Output::Nothing => {}
                    Output::Send(answer) => drop(sockets[peer].send_to(answer, from)),
                    Output::Packet(packet) if peer == 0 && packet.len() == 128 => {
                        let number = u32::from_be_bytes(packet[28..32].try_into().unwrap());
                        heard.lock().unwrap().push((number, Instant::now()));
                    }
                    Output::Packet(_) => {}
                }
            }
        }
    }
}

impl Crowd {
    fn gather(world: &World) -> Self {
        let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        setrlimit(Resource::RLIMIT_NOFILE, most, most).unwrap();
        for n in 0..ADDRESSES {
            world.gateway[1].sh(&format!("ip address add 198.51.100.{}/24 dev wan0", 20 + n));
        }
        let (stop, sessions, heard) = <(Arc<AtomicBool>, Arc<AtomicUsize>, Arc<Mutex<Vec<_>>>)>::default();
        let (restart, restarted) = mpsc::channel();
        let thread = world.gateway[1].run({
            let (stop, sessions, heard) = (Arc::clone(&stop), Arc::clone(&sessions), Arc::clone(&heard));
            move || be_a_crowd(&stop, &sessions, &heard, &restarted)
        });
        Self { stop, sessions, heard, restart, thread }
    }

    async fn until_sessions(&self, gateway: &Dataplane) -> PacketPathStatus {
        until_within(Duration::from_secs(60), gateway, "every peer has a session", |_| {
            self.sessions.load(Ordering::Relaxed) == PEERS
        })
        .await
        .packet_path
    }

    fn disperse(self) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap().unwrap();
    }
}

/// CPU seconds of each of the gateway's threads.
fn cpu() -> BTreeMap<String, f64> {
    let mut all = BTreeMap::new();
    for task in std::fs::read_dir("/proc/self/task").unwrap().flatten() {
        // Nanoseconds on a processor come first: the ticks of `stat` are too coarse for threads that sleep most of the time.
        let read = |file: &str| std::fs::read_to_string(task.path().join(file));
        let (Ok(name), Ok(times)) = (read("comm"), read("schedstat")) else { continue };
        if name.starts_with("tl-") {
            let ns: f64 = times.split_whitespace().next().unwrap().parse().unwrap();
            all.insert(name.trim().to_owned(), ns / 1e9);
        }
    }
    all
}

fn resident_mib() -> f64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() * 4_096.0 / f64::from(1 << 20)
}

/// A numbered packet every millisecond through the tunnel to peer 0.
struct Steady {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<std::io::Result<u32>>,
}

impl Steady {
    fn start(world: &World) -> Self {
        let stop = Arc::<AtomicBool>::default();
        let stopped = Arc::clone(&stop);
        let thread = world.gateway[0].run(move || {
            let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
            let (mut bytes, started, mut number) = ([3; 100], Instant::now(), 0_u32);
            while !stopped.load(Ordering::Relaxed) {
                bytes[..4].copy_from_slice(&number.to_be_bytes());
                let _ = socket.send_to(&bytes, (inner(1, 0), 9));
                number += 1;
                let next = started + Duration::from_millis(u64::from(number));
                std::thread::sleep(next.saturating_duration_since(Instant::now()));
            }
            number
        });
        Self { stop, thread }
    }

    /// How many were sent, how many came, and the longest time between two that came.
    fn stop(self, crowd: &Crowd) -> (usize, usize, Duration) {
        self.stop.store(true, Ordering::Relaxed);
        let sent = usize::try_from(self.thread.join().unwrap().unwrap()).unwrap();
        let started = Instant::now();
        while crowd.heard.lock().unwrap().len() < sent && started.elapsed() < Duration::from_millis(500) {
            std::thread::sleep(Duration::from_millis(5));
        }
        let heard = std::mem::take(&mut *crowd.heard.lock().unwrap());
        assert!(heard.is_sorted_by_key(|(number, _)| *number), "in order");
        let gap = heard.windows(2).map(|two| two[1].1.duration_since(two[0].1)).max().unwrap_or_default();
        (sent, heard.len(), gap)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_peers_and_a_hundred_thousand_prefixes() {
    if cannot_run() {
        return;
    }
    let world = World::new();
    let crowd = Crowd::gather(&world);
    // Its sockets and lanes are made.
    tokio::time::sleep(Duration::from_millis(500)).await;
    let before = resident_mib();
    let (gateway, reports) = start(&world, 0);
    drop(reports);
    let mut configuration = crowded(1);
    let few: Vec<GatewayConnection> = configuration
        .connections
        .iter()
        .map(|connection| GatewayConnection { remote_prefixes: Vec::new(), ..connection.clone() })
        .collect();
    let started = Instant::now();
    gateway.apply(GatewayConfiguration { connections: few, ..configuration.clone() });
    let path = crowd.until_sessions(&gateway).await;
    println!("{PEERS} sessions after {:?}: {path:?}", started.elapsed());

    // Idle: no prefixes yet, so that the figure is that of the peers.
    tokio::time::sleep(Duration::from_secs(15).saturating_sub(started.elapsed())).await;
    let (was, measured) = (cpu(), Instant::now());
    tokio::time::sleep(Duration::from_secs(5)).await;
    let is = cpu();
    let each = is.iter().map(|(name, time)| (name, time - was.get(name).copied().unwrap_or(0.0)));
    println!("CPU seconds in {:?}: {:?}", measured.elapsed(), each.collect::<Vec<_>>());
    let idle = (is.values().sum::<f64>() - was.values().sum::<f64>()) / measured.elapsed().as_secs_f64();
    let memory = resident_mib() - before;
    println!("{PEERS} idle peers: {:.1} % of a core, {memory:.0} MiB", idle * 100.0);
    assert!(memory <= 64.0, "{memory} MiB");
    // How fast the machine is does not count; a look at every peer for every packet or tick would cost far more than this.
    assert!(idle <= 0.25, "{idle} of a core");

    // A hundred thousand prefixes come, and then one peer's change, while another has a flow.
    let steady = Steady::start(&world);
    let started = Instant::now();
    configuration.version = 2;
    gateway.apply(configuration.clone());
    let patience = Duration::from_secs(60);
    until_within(patience, &gateway, "the prefixes are in", |status| status.configuration_version == Some(2)).await;
    println!("{} prefixes after {:?}", PEERS * PREFIXES_EACH, started.elapsed());
    let (sent, came, gap) = steady.stop(&crowd);
    println!("beside them {came} of {sent} packets came, at most {gap:?} apart");
    assert!(came * 100 >= sent * 98, "{came} of {sent}");
    println!("with them {:.0} MiB", resident_mib() - before);

    let steady = Steady::start(&world);
    let started = Instant::now();
    for version in 3..6 {
        configuration.version = version;
        configuration.connections[500].remote_prefixes.pop();
        gateway.apply(configuration.clone());
    }
    until_within(patience, &gateway, "it has changed", |status| status.configuration_version == Some(5)).await;
    println!("three changes of one peer after {:?}", started.elapsed());
    let (sent, came, gap) = steady.stop(&crowd);
    println!("beside them {came} of {sent} packets came, at most {gap:?} apart");
    assert!(came + 2 >= sent, "{came} of {sent}");

    // All the others are gone, and come back in the same instant.
    let steady = Steady::start(&world);
    let before = until(&gateway, "it answers", |_| true).await.packet_path;
    let started = Instant::now();
    crowd.restart.send(()).unwrap();
    until(&gateway, "they are gone", |_| crowd.sessions.load(Ordering::Relaxed) < PEERS).await;
    let path = crowd.until_sessions(&gateway).await;
    println!("{} peers reconnected after {:?}: {path:?}", PEERS - 1, started.elapsed());
    let (sent, came, gap) = steady.stop(&crowd);
    println!("beside them {came} of {sent} packets came, at most {gap:?} apart");
    assert!(path.under_load > before.under_load, "they were asked for cookies");
    assert!(came * 100 >= sent * 95, "{came} of {sent}");
    gateway.stop();
    crowd.disperse();
}
