//! Two gateways of which either may have WireGuard in its kernel, and traffic whose every packet is accounted for.

use std::{
    net::{SocketAddr, UdpSocket},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use tieline_dataplane::{
    Dataplane,
    shell::status::{KernelLaneStatus, LaneStatus, Status},
};
use tieline_openapi::v1::{
    Lane, PathKind, PresharedKey, TunnelBackend, TunnelBackend::Boringtun, TunnelBackend::Kernel,
};

use crate::world::*;

/// How long anything may take: an emulated machine is slow.
pub(super) const PATIENCE: Duration = Duration::from_secs(120);

/// Two gateways, and the API between them: each is told what the other one has in its kernel.
pub(super) struct Pair {
    pub(super) world: World,
    pub(super) gateways: [Arc<Dataplane>; 2],
    pub(super) state: Arc<Mutex<State>>,
    api: tokio::task::JoinHandle<()>,
}

#[derive(Default)]
pub(super) struct State {
    version: u64,
    /// IPv6 is carried as well, and is what gateways talk over.
    ipv6: bool,
    /// What each end has told.
    lanes: [Option<Lane>; 2],
    /// Wanted, being changed, and the one before, as each end knows it.
    pub(super) preshared: [(Option<u8>, bool, Option<u8>); 2],
}

pub(super) fn tell(gateways: &[Arc<Dataplane>; 2], state: &Mutex<State>) {
    let mut state = state.lock().unwrap();
    state.version += 1;
    for (n, gateway) in gateways.iter().enumerate() {
        let mut configuration = configuration(n, state.version, false, &public(&key(1 - n)));
        // An emulated machine is late, and lateness is no loss.
        configuration.probe.interval_ms = 100;
        configuration.probe.dead_after_intervals = 20;
        if state.ipv6 {
            over_ipv6(n, &mut configuration.connections[0]);
        }
        let peer = &mut configuration.connections[0].peers[0];
        peer.kernel_lane.clone_from(&state.lanes[1 - n]);
        let (wanted, changing, former) = state.preshared[n];
        let read = |key: Option<u8>| key.map(|key| PresharedKey::new(STANDARD.encode([key; 32]).into()));
        (peer.preshared_key, peer.preshared_key_changing, peer.former_preshared_key) =
            (read(wanted), changing, read(former));
        gateway.apply(configuration);
    }
}

impl Pair {
    pub(super) fn start(backends: [TunnelBackend; 2]) -> Self {
        Self::start_over(endpoint, false, backends)
    }

    /// Where hosts have IPv6 too, and gateways talk over it.
    pub(super) fn start_over_ipv6(backends: [TunnelBackend; 2]) -> Self {
        Self::start_over(endpoint6, true, backends)
    }

    fn start_over(endpoint: fn(usize) -> SocketAddr, ipv6: bool, backends: [TunnelBackend; 2]) -> Self {
        let world = World::new();
        if ipv6 {
            world.add_ipv6();
        }
        let gateways = [0, 1].map(|n| Arc::new(start_by(&world, n, endpoint(n), backends[n])));
        let state = Arc::new(Mutex::new(State { ipv6, ..State::default() }));
        tell(&gateways, &state);
        let mut news = [0, 1].map(|n| gateways[n].kernel_lanes());
        let (told, known) = (gateways.clone(), Arc::clone(&state));
        let api = tokio::spawn(async move {
            loop {
                let [one, other] = &mut news;
                let n = tokio::select! {
                    Ok(()) = one.changed() => 0,
                    Ok(()) = other.changed() => 1,
                    else => return,
                };
                let now = news[n].borrow_and_update().clone();
                let lane = now.lanes.lanes.first().map(|lane| {
                    assert_eq!(lane.peer_id, gateway_id(1 - n));
                    assert_eq!(lane.public_key, public(&kernel_key(n)));
                    Lane { n: 0, public_key: lane.public_key.clone(), endpoint: lane.endpoint, backend: Kernel }
                });
                println!("told by {n}: {lane:?}");
                known.lock().unwrap().lanes[n] = lane;
                tell(&told, &known);
                told[n].kernel_lanes_taken(now.sequence);
            }
        });
        Self { world, gateways, state, api }
    }

    /// The same once this backend carries at both ends.
    pub(super) async fn carrying(backends: [TunnelBackend; 2], by: TunnelBackend) -> Self {
        let pair = Self::start(backends);
        for n in 0..2 {
            pair.carries(n, by).await;
        }
        pair
    }

    /// Traffic that goes on.
    pub(super) async fn flow(&self) -> Numbered {
        let flow = Numbered::start(&self.world);
        flow.carry_on(100).await;
        flow
    }

    pub(super) async fn until(&self, n: usize, what: &str, wanted: impl Fn(&Status) -> bool) -> Status {
        until_within(PATIENCE, &self.gateways[n], &format!("{what}, at {n}"), wanted).await
    }

    pub(super) async fn carries(&self, n: usize, backend: TunnelBackend) {
        self.until(n, &format!("{backend:?} carries"), |status| {
            chosen(status) == Some(PathKind::Tunnel) && carrier(status) == Some(backend)
        })
        .await;
    }

    pub(super) fn order(&self, n: usize, backend: TunnelBackend, flow: &Numbered) {
        println!("at {}: {backend:?} ordered at {n}", flow.number());
        self.gateways[n].set_backend(backend);
    }

    pub(super) fn interfaces(&self, n: usize) -> Vec<String> {
        let said = self.world.gateway[n].sh("ip -o link show type wireguard");
        said.lines().filter_map(|line| Some(line.split(": ").nth(1)?.to_owned())).collect()
    }

    pub(super) async fn stop(self) {
        let Self { world, gateways, api, .. } = self;
        api.abort();
        let _ = api.await;
        for gateway in gateways {
            Arc::into_inner(gateway).unwrap().stop();
        }
        for n in 0..2 {
            let ns = &world.gateway[n];
            assert!(!ns.sh("ip -o link").contains("tl"), "an interface is left");
            assert_eq!(ns.sh("nft list ruleset").trim(), "");
            assert!(!ns.sh("ip rule").contains("7480"));
        }
    }
}

/// What a gateway sends by: the kernel when its own or the peer's has the tunnel.
pub(super) fn carrier(status: &Status) -> Option<TunnelBackend> {
    let peer = &status.connections.first()?.peers[0];
    let own = peer.kernel.iter().any(|kernel| kernel.carries && kernel.alive);
    let to_kernel = |lane: &LaneStatus| lane.peer_backend == Kernel && lane.alive;
    Some(if own || peer.lanes.iter().any(to_kernel) { Kernel } else { Boringtun })
}

pub(super) fn in_kernel(status: &Status) -> &[KernelLaneStatus] {
    status.connections.first().map_or(&[], |connection| &connection.peers[0].kernel)
}

/// A numbered datagram every few milliseconds, there and back; each is to come once.
pub(super) struct Numbered {
    stop: Arc<AtomicBool>,
    sent: Arc<Mutex<Vec<u8>>>,
    threads: Vec<JoinHandle<std::io::Result<()>>>,
}

impl Numbered {
    pub(super) fn start(world: &World) -> Self {
        let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::<Mutex<Vec<u8>>>::default());
        let bind = |n: usize, port: u16| {
            let socket = world.host[n].run(move || UdpSocket::bind((format!("10.{n}.1.2"), port)).unwrap());
            let socket = socket.join().unwrap().unwrap();
            socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
            socket
        };
        let (near, far) = (bind(0, 9_001), bind(1, 9_000));
        let receive = near.try_clone().unwrap();
        let ended = [0; 3].map(|_| Arc::clone(&stop));
        let [echo_ends, receive_ends, send_ends] = ended;
        let echo = std::thread::spawn(move || {
            let mut bytes = [0; 1_500];
            while !echo_ends.load(Ordering::Relaxed) {
                if let Ok((length, from)) = far.recv_from(&mut bytes) {
                    let _ = far.send_to(&bytes[..length], from);
                }
            }
            Ok(())
        });
        let counts = Arc::clone(&sent);
        let receive = std::thread::spawn(move || {
            let mut bytes = [0; 1_500];
            while !receive_ends.load(Ordering::Relaxed) {
                if let Ok(8..) = receive.recv(&mut bytes) {
                    let number = u64::from_be_bytes(bytes[..8].try_into().unwrap());
                    counts.lock().unwrap()[usize::try_from(number).unwrap()] += 1;
                }
            }
            Ok(())
        });
        let counts = Arc::clone(&sent);
        let send = std::thread::spawn(move || {
            let mut bytes = [0; 200];
            for number in 0_u64.. {
                if send_ends.load(Ordering::Relaxed) {
                    break;
                }
                counts.lock().unwrap().push(0);
                bytes[..8].copy_from_slice(&number.to_be_bytes());
                // One that the host itself refuses was not lost by a gateway, and shows as lost all the same.
                let _ = near.send_to(&bytes, "10.1.1.2:9000");
                // The pace is the flow's own.
                std::thread::sleep(Duration::from_millis(4));
            }
            Ok(())
        });
        Self { stop, sent, threads: vec![echo, receive, send] }
    }

    pub(super) fn number(&self) -> usize {
        self.sent.lock().unwrap().len()
    }

    pub(super) async fn carry_on(&self, datagrams: usize) {
        println!("at {} it is as wanted", self.number());
        let (started, wanted) = (Instant::now(), self.number() + datagrams);
        while self.number() < wanted {
            assert!(started.elapsed() < PATIENCE, "the flow has stopped");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// How many have no answer, and how many have more than one; waits for those on their way.
    pub(super) async fn lost_and_doubled(&self, from: usize) -> (usize, usize) {
        let end = self.number();
        let counts = || {
            let sent = self.sent.lock().unwrap();
            let of = |wrong: fn(u8) -> bool| sent[from.min(end)..end].iter().filter(|count| wrong(**count)).count();
            (of(|count| count == 0), of(|count| count > 1))
        };
        let started = Instant::now();
        while counts().0 > 0 && started.elapsed() < Duration::from_secs(5) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let counts = counts();
        if counts != (0, 0) {
            let sent = self.sent.lock().unwrap();
            let wrong: Vec<usize> = (from.min(end)..end).filter(|n| sent[*n] != 1).collect();
            println!("lost or doubled: {wrong:?}");
        }
        counts
    }

    pub(super) fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().unwrap().unwrap();
        }
    }
}
