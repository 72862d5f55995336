//! WireGuard in the kernel beside the process's own. Runs where the kernel has it; `make kernel` runs it in a machine that does,
//! which is emulated and some twenty times slower than others: no bound here is tight.

use std::{
    net::UdpSocket,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use tieline_dataplane::{
    Dataplane, Ended, GatewayOptions, run,
    shell::{
        kernel::{self, KernelError},
        local::{self, Answer, Request},
        status::{KernelLaneStatus, LaneStatus, Status},
    },
};
use tieline_openapi::v1::{
    Lane, PathKind, PresharedKey, TunnelBackend, TunnelBackend::Boringtun, TunnelBackend::Kernel,
};
use tokio_util::sync::CancellationToken;

use super::{
    api::{FakeApi, TOKEN},
    world::*,
};

const PATIENCE: Duration = Duration::from_secs(120);

fn cannot_run_kernel() -> bool {
    if cannot_run() {
        return true;
    }
    match kernel::available() {
        Ok(()) => false,
        Err(error) => {
            println!("skipped: {error}");
            true
        }
    }
}

/// Two gateways, and the API between them: each is told what the other one has in its kernel.
struct Pair {
    world: World,
    gateways: [Arc<Dataplane>; 2],
    state: Arc<Mutex<State>>,
    api: tokio::task::JoinHandle<()>,
}

#[derive(Default)]
struct State {
    version: u64,
    /// What each end has told.
    lanes: [Option<Lane>; 2],
    /// Wanted, being changed, and the one before, as each end knows it.
    preshared: [(Option<u8>, bool, Option<u8>); 2],
}

fn tell(gateways: &[Arc<Dataplane>; 2], state: &Mutex<State>) {
    let mut state = state.lock().unwrap();
    state.version += 1;
    for (n, gateway) in gateways.iter().enumerate() {
        let mut configuration = configuration(n, state.version, false, &public(&key(1 - n)));
        // An emulated machine is late, and lateness is no loss.
        configuration.probe.interval_ms = 100;
        configuration.probe.dead_after_intervals = 20;
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
    fn start(backends: [TunnelBackend; 2]) -> Self {
        let world = World::new();
        let gateways = [0, 1].map(|n| Arc::new(start_by(&world, n, backends[n])));
        let state = Arc::new(Mutex::new(State::default()));
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

    async fn until(&self, n: usize, what: &str, wanted: impl Fn(&Status) -> bool) -> Status {
        until_within(PATIENCE, &self.gateways[n], &format!("{what}, at {n}"), wanted).await
    }

    async fn carries(&self, n: usize, backend: TunnelBackend) {
        self.until(n, &format!("{backend:?} carries"), |status| {
            chosen(status) == Some(PathKind::Tunnel) && carrier(status) == Some(backend)
        })
        .await;
    }

    fn order(&self, n: usize, backend: TunnelBackend, flow: &Numbered) {
        println!("at {}: {backend:?} ordered at {n}", flow.number());
        self.gateways[n].set_backend(backend);
    }

    fn interfaces(&self, n: usize) -> Vec<String> {
        let said = self.world.gateway[n].sh("ip -o link show type wireguard");
        said.lines().filter_map(|line| Some(line.split(": ").nth(1)?.to_owned())).collect()
    }

    async fn stop(self) {
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
fn carrier(status: &Status) -> Option<TunnelBackend> {
    let peer = &status.connections.first()?.peers[0];
    let own = peer.kernel.iter().any(|kernel| kernel.carries && kernel.alive);
    let to_kernel = |lane: &LaneStatus| lane.peer_backend == Kernel && lane.alive;
    Some(if own || peer.lanes.iter().any(to_kernel) { Kernel } else { Boringtun })
}

fn in_kernel(status: &Status) -> &[KernelLaneStatus] {
    status.connections.first().map_or(&[], |connection| &connection.peers[0].kernel)
}

/// A numbered datagram every few milliseconds, there and back; each is to come once.
struct Numbered {
    stop: Arc<AtomicBool>,
    sent: Arc<Mutex<Vec<u8>>>,
    threads: Vec<JoinHandle<std::io::Result<()>>>,
}

impl Numbered {
    fn start(world: &World) -> Self {
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

    fn number(&self) -> usize {
        self.sent.lock().unwrap().len()
    }

    async fn carry_on(&self, datagrams: usize) {
        println!("at {} it is as wanted", self.number());
        let (started, wanted) = (Instant::now(), self.number() + datagrams);
        while self.number() < wanted {
            assert!(started.elapsed() < PATIENCE, "the flow has stopped");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// How many have no answer, and how many have more than one; waits for those on their way.
    async fn lost_and_doubled(&self, from: usize) -> (usize, usize) {
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

    fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().unwrap().unwrap();
        }
    }
}

async fn switches(first: usize, then: Option<usize>) {
    let pair = Pair::start([Boringtun; 2]);
    for n in 0..2 {
        pair.carries(n, Boringtun).await;
    }
    let flow = Numbered::start(&pair.world);
    flow.carry_on(100).await;
    pair.order(first, Kernel, &flow);
    for n in 0..2 {
        pair.carries(n, Kernel).await;
    }
    flow.carry_on(100).await;
    let status = pair.until(first, "it counts", |status| in_kernel(status)[0].bytes_in > 10_000).await;
    let kernel = &in_kernel(&status)[0];
    assert!(kernel.interface.starts_with("tlk") && KERNEL_PORTS.contains(&kernel.port), "{kernel:?}");
    assert_eq!(status.backend, Kernel);
    let other = pair.until(1 - first, "it is shown", |_| true).await;
    assert!(in_kernel(&other).is_empty() && pair.interfaces(1 - first).is_empty());
    if let Some(then) = then {
        // Both ends have it in the kernel, and leave it one after the other.
        pair.order(then, Kernel, &flow);
        for n in 0..2 {
            let key = STANDARD.encode(kernel_key(1 - n).as_bytes());
            pair.until(n, "kernel and kernel", |status| in_kernel(status).iter().any(|it| it.carries)).await;
            let talks = || {
                let said = pair.world.gateway[n].sh("wg show all peers");
                said.contains(&public(&kernel_key(1 - n))) && said.lines().count() == 1
            };
            let started = Instant::now();
            while !talks() {
                assert!(started.elapsed() < PATIENCE, "{}", pair.world.gateway[n].sh("wg show"));
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
            assert!(!pair.world.gateway[n].sh("wg show").contains(&key), "no private key is shown");
        }
        flow.carry_on(100).await;
        pair.order(first, Boringtun, &flow);
        pair.until(first, "it has left", |status| in_kernel(status).iter().all(|it| !it.carries)).await;
        pair.carries(then, Kernel).await;
        flow.carry_on(100).await;
        pair.order(then, Boringtun, &flow);
    } else {
        pair.order(first, Boringtun, &flow);
    }
    for n in 0..2 {
        pair.carries(n, Boringtun).await;
        pair.until(n, "the interfaces are removed", |status| in_kernel(status).is_empty()).await;
        assert!(pair.interfaces(n).is_empty());
    }
    flow.carry_on(100).await;
    assert_eq!(flow.lost_and_doubled(0).await, (0, 0), "of {}", flow.number());
    println!("{} datagrams, none lost, none doubled", flow.number());
    flow.stop();
    pair.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_switch_at_the_near_end_loses_nothing() {
    if !cannot_run_kernel() {
        switches(0, None).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_switch_at_the_far_end_loses_nothing() {
    if !cannot_run_kernel() {
        switches(1, None).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_switch_at_both_ends_loses_nothing() {
    if !cannot_run_kernel() {
        switches(0, Some(1)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_begin_in_the_kernel_and_carry() {
    if cannot_run_kernel() {
        return;
    }
    let pair = Pair::start([Kernel; 2]);
    for n in 0..2 {
        pair.until(n, "kernel and kernel", |status| in_kernel(status).iter().any(|it| it.carries)).await;
    }
    let flow = Numbered::start(&pair.world);
    flow.carry_on(200).await;
    assert_eq!(flow.lost_and_doubled(0).await, (0, 0));
    // A large packet in each direction, and a TCP connection whose segments fit.
    let stream = Stream::start(&pair.world);
    stream.goes_on().await;
    assert!(stream.segment.iter().all(|bytes| *bytes <= u32::from(MSS)), "{:?}", stream.segment);
    stream.stop();
    flow.stop();
    pair.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_the_peers_to_send_is_dropped_and_counted() {
    if cannot_run_kernel() {
        return;
    }
    let pair = Pair::start([Kernel, Boringtun]);
    for n in 0..2 {
        pair.carries(n, Kernel).await;
    }
    let hears = |port: u16| {
        let socket = pair.world.host[0].run(move || UdpSocket::bind(("10.0.1.2", port)).unwrap());
        let socket = socket.join().unwrap().unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(3))).unwrap();
        socket
    };
    // A host that is not behind the peer sends through it: the other gateway does not look at what it sends.
    let (foreign, own) = (hears(9_500), hears(9_501));
    pair.world.host[1].sh("ip address add 10.7.7.7/32 dev eth0");
    let sender = |from: &'static str| {
        pair.world.host[1].run(move || UdpSocket::bind((from, 0)).unwrap()).join().unwrap().unwrap()
    };
    for _ in 0..5 {
        sender("10.7.7.7").send_to(b"foreign", "10.0.1.2:9500").unwrap();
    }
    sender("10.1.1.2").send_to(b"own", "10.0.1.2:9501").unwrap();
    let mut bytes = [0; 100];
    assert_eq!(own.recv(&mut bytes).unwrap(), 3, "what is the peer's comes");
    let counted = |status: &Status| status.connections[0].peers[0].kernel_foreign_source >= 5;
    pair.until(0, "they are counted", counted).await;
    assert!(foreign.recv(&mut bytes).is_err(), "a foreign source came through");
    pair.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_interface_that_somebody_removes_is_made_again_and_the_lanes_carry_meanwhile() {
    if cannot_run_kernel() {
        return;
    }
    let pair = Pair::start([Kernel, Boringtun]);
    for n in 0..2 {
        pair.carries(n, Kernel).await;
    }
    let flow = Numbered::start(&pair.world);
    flow.carry_on(100).await;
    let before = pair.until(0, "it is there", |_| true).await;
    let (name, port) = (in_kernel(&before)[0].interface.clone(), in_kernel(&before)[0].port);
    let deleted = flow.number();
    // No handshake gets through, so what carries now are the lanes.
    let ns = &pair.world.gateway[0];
    ns.sh("nft add table ip test");
    ns.sh("nft add chain ip test out { type filter hook output priority 0 ; }");
    ns.sh("nft add chain ip test in { type filter hook input priority 0 ; }");
    for (chain, way) in [("out", "sport"), ("in", "dport")] {
        ns.sh(&format!("nft add rule ip test {chain} udp {way} 52000-52009 drop"));
    }
    ns.sh(&format!("ip link del {name}"));
    pair.until(0, "it is noticed", |status| in_kernel(status).iter().all(|it| !it.carries)).await;
    pair.until(1, "and at the other end, by its probes", |status| chosen(status) == Some(PathKind::Tunnel)).await;
    // The other end is told by nobody: its probes are not answered any more, and it leaves the peer's kernel.
    let started = Instant::now();
    let on = loop {
        let from = flow.number();
        flow.carry_on(50).await;
        if flow.lost_and_doubled(from).await == (0, 0) {
            break from;
        }
        for n in 0..2 {
            println!("{n}: {:?}", pair.gateways[n].status().await.map(|status| status.connections[0].peers[0].clone()));
        }
        assert!(started.elapsed() < PATIENCE, "traffic does not go on");
    };
    println!("{} datagrams passed before the lanes carried", on - deleted);
    ns.sh("nft delete table ip test");
    let again =
        pair.until(0, "it carries again", |status| in_kernel(status).iter().any(|it| it.carries && it.alive)).await;
    assert_eq!((in_kernel(&again)[0].interface.clone(), in_kernel(&again)[0].port), (name, port));
    pair.carries(1, Kernel).await;
    flow.carry_on(100).await;
    assert_eq!(flow.lost_and_doubled(on).await, (0, 0));
    flow.stop();
    pair.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_preshared_key_changes_without_a_lost_packet() {
    if cannot_run_kernel() {
        return;
    }
    let pair = Pair::start([Kernel, Boringtun]);
    for n in 0..2 {
        pair.carries(n, Kernel).await;
    }
    let flow = Numbered::start(&pair.world);
    flow.carry_on(100).await;
    for (first, wanted, former) in [(0, Some(5), None), (1, Some(6), Some(5))] {
        for n in [first, 1 - first] {
            pair.state.lock().unwrap().preshared[n] = (wanted, true, former);
            tell(&pair.gateways, &pair.state);
            flow.carry_on(50).await;
        }
        for n in [first, 1 - first] {
            pair.state.lock().unwrap().preshared[n] = (wanted, false, None);
            tell(&pair.gateways, &pair.state);
        }
        let key = STANDARD.encode([wanted.unwrap(); 32]);
        let started = Instant::now();
        while !pair.world.gateway[0].sh("wg show all preshared-keys").contains(&key) {
            assert!(started.elapsed() < PATIENCE, "the kernel has the new key");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        // The other end changes to the new key when the kernel takes it.
        let changed = |status: &Status| {
            let lanes = &status.connections[0].peers[0].lanes;
            lanes.iter().all(|lane| lane.alive && !lane.changing)
        };
        let status = pair.until(1, "the lane to the kernel has changed", changed).await;
        assert!(!format!("{status:?}").contains(&key), "a status tells no key");
        pair.carries(0, Kernel).await;
    }
    assert_eq!(flow.lost_and_doubled(0).await, (0, 0), "of {}", flow.number());
    flow.stop();
    pair.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_killed_gateway_left_is_removed() {
    if cannot_run_kernel() {
        return;
    }
    let world = World::new();
    let ns = &world.gateway[0];
    ns.sh("ip link add tlkdeadbeefa type wireguard");
    ns.sh("ip link add tlkforeign type dummy");
    let gateway = start_by(&world, 0, Boringtun);
    let started = Instant::now();
    while ns.sh("ip -o link").contains("tlkdeadbeefa") {
        assert!(started.elapsed() < PATIENCE, "it is left");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    gateway.stop();
    assert!(ns.sh("ip -o link").contains("tlkforeign"), "what is no WireGuard is not ours");
}

/// A gateway with an API and a state folder, whose interfaces another process takes over; told at its control socket to leave
/// the kernel it does, and remembers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hot_restart_takes_the_interfaces_over_and_an_order_outlives_it() {
    if cannot_run_kernel() {
        return;
    }
    let world = World::new();
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("a");
    let api = FakeApi::start("127.0.0.1:0".parse().unwrap()).await;
    let options = |first: bool| GatewayOptions {
        api_url: format!("http://{}", api.address),
        join_token: first.then(|| TOKEN.to_owned().into()),
        state_dir: state.clone(),
        netns: Some(world.gateway[0].path()),
        name: "a-gw".to_owned(),
        private_address: private_address(0),
        wan_endpoint: endpoint(0),
        listen_port: None,
        private_next_hop: None,
        tun_name: None,
        lanes: Some(1),
        backend: Kernel,
        kernel_ports: None,
        uapi: None,
        take_over: true,
        switched_off: Vec::new(),
    };
    let stop = CancellationToken::new();
    let running = tokio::spawn(run(options(true), stop.clone()));
    eventually("it joins", || {
        assert!(!running.is_finished(), "it ends; without certificates there is no HTTP client");
        !api.seen.lock().unwrap().joins.is_empty()
    })
    .await;
    let own = api.seen.lock().unwrap().joins[0].lanes.clone();
    let slow = |mut configuration: tieline_openapi::v1::GatewayConfiguration| {
        (configuration.probe.interval_ms, configuration.probe.dead_after_intervals) = (100, 20);
        configuration
    };
    api.configuration.send_replace(Some(slow(configuration(0, 1, false, &public(&key(1))))));
    let b = start_by(&world, 1, Boringtun);
    let told = || api.seen.lock().unwrap().kernel_lanes.last().and_then(|told| told.lanes.first().cloned());
    eventually("the API is told", || told().is_some()).await;
    let lane = told().unwrap();
    assert_eq!((lane.peer_id, lane.endpoint.port()), (gateway_id(1), 51_836));
    let mut there = slow(configuration(1, 1, false, &own[0].public_key));
    there.connections[0].peers[0].kernel_lane =
        Some(Lane { n: 0, public_key: lane.public_key.clone(), endpoint: lane.endpoint, backend: Kernel });
    assert_ne!(lane.public_key, own[0].public_key);
    b.apply(there.clone());
    let carries = async |what: &str, wanted: bool| {
        let started = Instant::now();
        loop {
            let answer = local::ask(&state, &Request::Status).await;
            if let Ok(Answer::Status(status)) = &answer
                && chosen(status) == Some(PathKind::Tunnel)
                && in_kernel(status).iter().any(|it| it.carries && it.alive) == wanted
            {
                return;
            }
            assert!(started.elapsed() < PATIENCE, "{what}: {answer:?}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    carries("the kernel carries", true).await;
    until_within(PATIENCE, &b, "to the kernel", |status| carrier(status) == Some(Kernel)).await;
    let link = || world.gateway[0].sh("ip -o link show type wireguard").split(':').next().unwrap().to_owned();
    let (flow, index) = (Numbered::start(&world), link());
    flow.carry_on(100).await;
    let next = tokio::spawn(run(options(false), stop.clone()));
    let ended = tokio::time::timeout(PATIENCE, running).await.expect("the old one ends").unwrap().unwrap();
    assert_eq!(ended, Ended::HandedOver);
    carries("the kernel carries on", true).await;
    assert_eq!(link(), index, "it is the same interface");
    flow.carry_on(100).await;
    let order = Request::Backend { backend: Boringtun };
    assert_eq!(local::ask(&state, &order).await.unwrap(), Answer::Done);
    carries("the lanes carry", false).await;
    eventually("the API is told", || told().is_none()).await;
    there.version = 2;
    there.connections[0].peers[0].kernel_lane = None;
    b.apply(there);
    flow.carry_on(100).await;
    assert_eq!(flow.lost_and_doubled(0).await, (0, 0), "of {}", flow.number());
    flow.stop();
    stop.cancel();
    assert_eq!(next.await.unwrap().unwrap(), Ended::Stopped);
    assert!(!world.gateway[0].sh("ip -o link").contains("tl"));
    assert!(std::fs::read_to_string(state.join("backend.json")).unwrap().contains("BORINGTUN"));
    b.stop();
}

async fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    let started = Instant::now();
    while !done() {
        assert!(started.elapsed() < PATIENCE, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[test]
fn without_wireguard_it_says_so() {
    if cannot_run() || !matches!(kernel::available(), Err(KernelError::Without(_))) {
        println!("skipped: this kernel has WireGuard");
        return;
    }
    let world = World::new();
    let refused = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| start_by(&world, 0, Kernel)));
    let said = *refused.unwrap_err().downcast::<String>().unwrap();
    assert!(said.contains("Without"), "{said}");
    assert!(kernel::available().unwrap_err().to_string().contains("modprobe wireguard"));
}
