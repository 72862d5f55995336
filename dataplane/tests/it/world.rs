//! Two sites, a private network and an internet between them:
//!
//! ```text
//! host a -- gateway a --prv0-- router --prv0-- gateway b -- host b
//!                  \----wan0-- internet --wan0----/
//! ```

use std::{
    io,
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    path::Path,
    process::Command,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use boringtun::x25519::{PublicKey, StaticSecret};
use tieline_dataplane::{
    Dataplane, DataplaneOptions,
    shell::{
        offloads::Offload,
        status::{Report, Status},
    },
};
use tieline_openapi::{
    ids::{ConnectionId, GatewayId},
    v1::{End, GatewayConfiguration, GatewayConnection, GatewayPeer, Lane, PathKind, ProbeSettings, TunnelBackend},
};
use tokio::sync::mpsc;
use uuid::Uuid;

use super::ns::Ns;

/// Bound of every wait.
pub(crate) const PATIENCE: Duration = Duration::from_secs(15);
pub(crate) const MSS: u16 = 1_400;

/// Why these tests cannot run here, printed.
pub(crate) fn cannot_run() -> bool {
    let missing = if !nix::unistd::geteuid().is_root() {
        "not root"
    } else if !Path::new("/dev/net/tun").exists() {
        "no /dev/net/tun"
    } else if !["ip", "nft"].iter().all(|tool| Command::new(tool).arg("-V").output().is_ok()) {
        "no `ip` or no `nft`"
    } else {
        return false;
    };
    println!("skipped: {missing}");
    true
}

pub(crate) struct World {
    pub(crate) host: [Ns; 2],
    pub(crate) gateway: [Ns; 2],
    pub(crate) router: Ns,
    pub(crate) internet: Ns,
}

impl World {
    pub(crate) fn new() -> Self {
        let world = Self {
            host: [Ns::new(), Ns::new()],
            gateway: [Ns::new(), Ns::new()],
            router: Ns::new(),
            internet: Ns::new(),
        };
        for ns in [&world.router, &world.internet] {
            ns.sh("sysctl -qw net.ipv4.ip_forward=1");
        }
        for (n, wan) in [(0, "203.0.113"), (1, "198.51.100")] {
            let (host, gateway) = (&world.host[n], &world.gateway[n]);
            host.link("eth0", &format!("10.{n}.1.2/24"), gateway, "lan0", &format!("10.{n}.1.1/24"));
            host.sh(&format!("ip route add default via 10.{n}.1.1"));
            gateway.link(
                "prv0",
                &format!("10.{n}.2.10/24"),
                &world.router,
                &format!("r{n}"),
                &format!("10.{n}.2.1/24"),
            );
            gateway.link("wan0", &format!("{wan}.10/24"), &world.internet, &format!("i{n}"), &format!("{wan}.1/24"));
            gateway.sh(&format!("ip route add default via {wan}.1 dev wan0"));
            gateway.sh(&format!("ip route add 10.0.0.0/8 via 10.{n}.2.1 dev prv0"));
            world.router.sh(&format!("ip route add 10.{n}.1.0/24 via 10.{n}.2.10"));
        }
        world
    }

    /// Cuts the private network in the middle, where no gateway sees a carrier go.
    pub(crate) fn cut_private(&self) {
        self.router.sh("nft add table ip cut");
        self.router.sh("nft add chain ip cut middle { type filter hook forward priority 0 ; policy drop ; }");
    }

    /// Cuts only what comes from gateway `n`.
    pub(crate) fn cut_private_from(&self, n: usize) {
        self.router.sh("nft add table ip cut");
        self.router.sh("nft add chain ip cut middle { type filter hook forward priority 0 ; policy accept ; }");
        self.router.sh(&format!("nft add rule ip cut middle iifname r{n} drop"));
    }

    pub(crate) fn mend_private(&self) {
        self.router.sh("nft delete table ip cut");
    }

    /// Hosts have IPv6 too, and there is a way over IPv6 from gateway to gateway.
    pub(crate) fn add_ipv6(&self) {
        self.internet.sh("sysctl -qw net.ipv6.conf.all.forwarding=1");
        for (n, gateway) in self.gateway.iter().enumerate() {
            gateway.sh(&format!("ip address add 2001:db8:{n}::10/64 dev wan0 nodad"));
            self.internet.sh(&format!("ip address add 2001:db8:{n}::1/64 dev i{n} nodad"));
            gateway.sh(&format!("ip -6 route add default via 2001:db8:{n}::1"));
            gateway.sh(&format!("ip address add fd00:{n}::1/64 dev lan0 nodad"));
            self.host[n].sh(&format!("ip address add fd00:{n}::2/64 dev eth0 nodad"));
            self.host[n].sh(&format!("ip -6 route add default via fd00:{n}::1"));
        }
    }
}

pub(crate) fn connection_id() -> ConnectionId {
    ConnectionId(Uuid::from_u128(0xc0))
}

pub(crate) fn gateway_id(n: usize) -> GatewayId {
    GatewayId(Uuid::from_u128(0xa0 + n as u128))
}

pub(crate) fn key(n: usize) -> StaticSecret {
    StaticSecret::from([u8::try_from(n).unwrap() + 1; 32])
}

pub(crate) fn public(key: &StaticSecret) -> String {
    STANDARD.encode(PublicKey::from(key).as_bytes())
}

pub(crate) fn private_address(n: usize) -> IpAddr {
    [10, u8::try_from(n).unwrap(), 2, 10].into()
}

pub(crate) fn endpoint(n: usize) -> SocketAddr {
    SocketAddr::from((if n == 0 { [203, 0, 113, 10] } else { [198, 51, 100, 10] }, 51_820))
}

/// Where a gateway is reached over IPv6, once [`World::add_ipv6`] has made the way.
pub(crate) fn endpoint6(n: usize) -> SocketAddr {
    format!("[2001:db8:{n}::10]:51820").parse().unwrap()
}

/// A host's IPv6 address.
pub(crate) fn host6(n: usize) -> IpAddr {
    format!("fd00:{n}::2").parse().unwrap()
}

/// Has a gateway's connection carry IPv6 as well, between gateways that talk over IPv6.
pub(crate) fn over_ipv6(n: usize, connection: &mut GatewayConnection) {
    connection.local_prefixes.push(format!("fd00:{n}::/64").parse().unwrap());
    connection.remote_prefixes.push(format!("fd00:{}::/64", 1 - n).parse().unwrap());
    connection.peers[0].lanes[0].endpoint = endpoint6(1 - n);
}

fn inner_address(n: usize) -> IpAddr {
    [169, 254, 200, 1 + u8::try_from(n).unwrap()].into()
}

pub(crate) fn configuration(n: usize, version: u64, private_ready: bool, peer_key: &str) -> GatewayConfiguration {
    let prefix = |n: usize| vec![format!("10.{n}.1.0/24").parse().unwrap()];
    let other = 1 - n;
    GatewayConfiguration {
        version,
        gateway_id: gateway_id(n),
        probe: ProbeSettings { hold_down_ms: 500, report_ms: 200, ..ProbeSettings::default() },
        connections: vec![GatewayConnection {
            connection_id: connection_id(),
            name: "a-b".to_owned(),
            end: if n == 0 { End::A } else { End::B },
            inner_address: inner_address(n),
            local_prefixes: prefix(n),
            remote_prefixes: prefix(other),
            peers: vec![GatewayPeer {
                gateway_id: gateway_id(other),
                lanes: vec![Lane {
                    n: 0,
                    public_key: peer_key.to_owned(),
                    endpoint: endpoint(other),
                    backend: TunnelBackend::Boringtun,
                }],
                private_address: private_address(other),
                inner_address: inner_address(other),
                preshared_key: None,
                preshared_key_changing: false,
                former_preshared_key: None,
                kernel_lane: None,
            }],
            mtu_bytes: 1_440_u64.try_into().unwrap(),
            mss_bytes: MSS,
            private_ready,
            tunnel: true,
            fallback_capacity_mbps: None,
        }],
    }
}

pub(crate) fn start(world: &World, n: usize) -> (Dataplane, mpsc::Receiver<Report>) {
    start_with(world, n, 1, &[])
}

/// The key of a lane; lane 0 has the gateway's.
pub(crate) fn lane_key(n: usize, lane: usize) -> StaticSecret {
    if lane == 0 { key(n) } else { StaticSecret::from([u8::try_from(16 * lane + n + 1).unwrap(); 32]) }
}

/// The key of a gateway's WireGuard in the kernel, and its ports.
pub(crate) fn kernel_key(n: usize) -> StaticSecret {
    StaticSecret::from([u8::try_from(0x80 + n).unwrap(); 32])
}

pub(crate) const KERNEL_PORTS: std::ops::RangeInclusive<u16> = 52_000..=52_009;

/// A gateway's lanes, as its peer is told of them.
pub(crate) fn lanes(n: usize, count: usize) -> Vec<Lane> {
    let lane = |lane: usize| Lane {
        n: u8::try_from(lane).unwrap(),
        public_key: public(&lane_key(n, lane)),
        endpoint: SocketAddr::new(endpoint(n).ip(), endpoint(n).port() + u16::try_from(lane).unwrap()),
        backend: TunnelBackend::Boringtun,
    };
    (0..count).map(lane).collect()
}

/// A gateway that peers reach at another address than its usual one.
pub(crate) fn start_at(world: &World, n: usize, wan_endpoint: SocketAddr) -> Dataplane {
    start_by(world, n, wan_endpoint, TunnelBackend::Boringtun)
}

/// A gateway that carries by this WireGuard.
pub(crate) fn start_by(world: &World, n: usize, wan_endpoint: SocketAddr, backend: TunnelBackend) -> Dataplane {
    let (reports, _) = mpsc::channel(1);
    let options = DataplaneOptions { wan_endpoint, backend, ..options(world, n, 1, &[]) };
    Dataplane::start(options, reports).unwrap()
}

pub(crate) fn start_with(
    world: &World,
    n: usize,
    lanes: usize,
    switched_off: &[Offload],
) -> (Dataplane, mpsc::Receiver<Report>) {
    let (reports, reported) = mpsc::channel(1_000);
    (Dataplane::start(options(world, n, lanes, switched_off), reports).unwrap(), reported)
}

fn options(world: &World, n: usize, lanes: usize, switched_off: &[Offload]) -> DataplaneOptions {
    DataplaneOptions {
        netns: world.gateway[n].netns(),
        tun_name: "tieline0".to_owned(),
        private_address: private_address(n),
        private_next_hop: None,
        wan_endpoint: endpoint(n),
        listen_port: 51_820,
        private_key: key(n),
        further_keys: (1..lanes).map(|lane| lane_key(n, lane)).collect(),
        backend: TunnelBackend::Boringtun,
        kernel_key: kernel_key(n),
        kernel_ports: KERNEL_PORTS,
        switched_off: switched_off.to_vec(),
        session: 1,
        holds: std::collections::BTreeMap::new(),
        uapi: None,
        taken: None,
    }
}

/// A gateway that `wg` can look at, under a name of this process's own: control sockets are in one folder for all namespaces.
pub(crate) fn start_for_wg(world: &World, n: usize, lanes: usize) -> (Dataplane, String) {
    let (reports, _) = mpsc::channel(1);
    let name = format!("tl{n}x{}", std::process::id());
    let uapi = Some(tieline_dataplane::shell::uapi::FOLDER.into());
    let options = DataplaneOptions { tun_name: name.clone(), uapi, ..options(world, n, lanes, &[]) };
    (Dataplane::start(options, reports).unwrap(), name)
}

/// Waits until a gateway's status is as wanted.
pub(crate) async fn until(dataplane: &Dataplane, what: &str, wanted: impl Fn(&Status) -> bool) -> Status {
    until_within(PATIENCE, dataplane, what, wanted).await
}

pub(crate) async fn until_within(
    patience: Duration,
    dataplane: &Dataplane,
    what: &str,
    wanted: impl Fn(&Status) -> bool,
) -> Status {
    let started = Instant::now();
    loop {
        let status = dataplane.status().await.expect("the data plane runs");
        if wanted(&status) {
            return status;
        }
        assert!(started.elapsed() < patience, "not in time: {what}: {status:#?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

pub(crate) fn chosen(status: &Status) -> Option<PathKind> {
    status.connections.first()?.peers.first()?.chosen
}

/// A numbered datagram every millisecond from host a to an echo on host b.
pub(crate) struct Flow {
    stop: Arc<AtomicBool>,
    /// When the reply to each number came.
    replies: Arc<Mutex<Vec<Option<Instant>>>>,
    threads: Vec<JoinHandle<io::Result<()>>>,
}

impl Flow {
    pub(crate) fn start(world: &World) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let replies = Arc::new(Mutex::new(Vec::new()));
        let socket = world.host[1].run(|| UdpSocket::bind("10.1.1.2:9000").unwrap()).join().unwrap().unwrap();
        let echo = world.host[1].run({
            let stop = Arc::clone(&stop);
            move || {
                socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
                let mut bytes = [0; 1_500];
                while !stop.load(Ordering::Relaxed) {
                    if let Ok((length, from)) = socket.recv_from(&mut bytes) {
                        let _ = socket.send_to(&bytes[..length], from);
                    }
                }
            }
        });
        let socket = world.host[0].run(|| UdpSocket::bind("10.0.1.2:9001").unwrap()).join().unwrap().unwrap();
        let receive = {
            let (stop, replies, socket) = (Arc::clone(&stop), Arc::clone(&replies), socket.try_clone().unwrap());
            world.host[0].run(move || {
                socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
                let mut bytes = [0; 1_500];
                while !stop.load(Ordering::Relaxed) {
                    if let Ok(8..) = socket.recv(&mut bytes) {
                        let number = u64::from_be_bytes(bytes[..8].try_into().unwrap());
                        replies.lock().unwrap()[usize::try_from(number).unwrap()] = Some(Instant::now());
                    }
                }
            })
        };
        let send = {
            let (stop, replies) = (Arc::clone(&stop), Arc::clone(&replies));
            world.host[0].run(move || {
                let mut bytes = [0; 200];
                let started = Instant::now();
                for number in 0_u64.. {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    replies.lock().unwrap().push(None);
                    bytes[..8].copy_from_slice(&number.to_be_bytes());
                    let _ = socket.send_to(&bytes, "10.1.1.2:9000");
                    // The pace is the flow's own: one datagram a millisecond.
                    std::thread::sleep(
                        (started + Duration::from_millis(number + 1)).saturating_duration_since(Instant::now()),
                    );
                }
            })
        };
        Self { stop, replies, threads: vec![echo, receive, send] }
    }

    pub(crate) fn sent(&self) -> usize {
        self.replies.lock().unwrap().len()
    }

    /// How many of the datagrams from number `from` on got no reply, those of the last half second aside.
    pub(crate) fn lost_since(&self, from: usize) -> usize {
        let replies = self.replies.lock().unwrap();
        let end = replies.len().saturating_sub(500);
        replies.get(from..end).unwrap_or_default().iter().filter(|reply| reply.is_none()).count()
    }

    pub(crate) async fn carry_on(&self, datagrams: usize) {
        let (started, wanted) = (Instant::now(), self.sent() + datagrams);
        while self.sent() < wanted {
            assert!(started.elapsed() < PATIENCE, "the flow has stopped");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    pub(crate) fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().unwrap().unwrap();
        }
    }
}

/// One TCP connection from host a to host b that echoes all the time.
pub(crate) struct Stream {
    stop: Arc<AtomicBool>,
    echoed: Arc<std::sync::atomic::AtomicU64>,
    /// What both ends take as their segment size.
    pub(crate) segment: [u32; 2],
    client: JoinHandle<io::Result<io::Result<()>>>,
}

impl Stream {
    pub(crate) fn start(world: &World) -> Self {
        use std::io::{Read, Write};
        let listener = world.host[1].run(|| TcpListener::bind("10.1.1.2:9100").unwrap()).join().unwrap().unwrap();
        let server = world.host[1].run(move || {
            let (stream, _) = listener.accept().unwrap();
            stream
        });
        let client = world.host[0]
            .run(|| {
                let stream = TcpStream::connect_timeout(&"10.1.1.2:9100".parse().unwrap(), PATIENCE).unwrap();
                stream.set_read_timeout(Some(PATIENCE)).unwrap();
                stream
            })
            .join()
            .unwrap()
            .unwrap();
        let server = server.join().unwrap().unwrap();
        let segment = [&client, &server].map(|stream| socket2::SockRef::from(stream).tcp_mss().unwrap());
        std::thread::spawn(move || {
            let (mut from, mut to) = (&server, &server);
            io::copy(&mut from, &mut to)
        });
        let stop = Arc::new(AtomicBool::new(false));
        let echoed = Arc::new(std::sync::atomic::AtomicU64::new(0));
        let (stopped, count) = (Arc::clone(&stop), Arc::clone(&echoed));
        let client = world.host[0].run(move || {
            let (mut client, mut block) = (client, vec![7; 16 << 10]);
            while !stopped.load(Ordering::Relaxed) {
                client.write_all(&block)?;
                client.read_exact(&mut block)?;
                count.fetch_add(block.len() as u64, Ordering::Relaxed);
                // A steady stream, not as much as fits: the machine has other work.
                std::thread::sleep(Duration::from_millis(2));
            }
            Ok(())
        });
        Self { stop, echoed, segment, client }
    }

    pub(crate) async fn goes_on(&self) {
        let (started, had) = (Instant::now(), self.echoed.load(Ordering::Relaxed));
        while self.echoed.load(Ordering::Relaxed) < had + (256 << 10) {
            assert!(started.elapsed() < PATIENCE, "the TCP connection hangs");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    pub(crate) fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        self.client.join().unwrap().unwrap().expect("the TCP connection lived");
    }
}
