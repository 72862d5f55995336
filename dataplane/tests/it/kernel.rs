//! WireGuard in the kernel beside the process's own. Runs where the kernel has it; `make kernel` runs it in a machine that does,
//! which is emulated and some twenty times slower than others: no bound here is tight.

mod parts;

use std::{
    fs,
    net::{SocketAddr, UdpSocket},
    os::unix::fs::PermissionsExt,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use nix::{
    sys::signal::{Signal, kill},
    unistd::{Pid, User},
};
use tieline_dataplane::{
    Ended, GatewayOptions, run,
    shell::{
        kernel::{self, KernelError},
        local::{self, Answer, Request},
        status::Status,
    },
};
use tieline_openapi::v1::{GatewayConfiguration, Lane, PathKind, TunnelBackend::Boringtun, TunnelBackend::Kernel};
use tokio_util::sync::CancellationToken;

use self::parts::{Numbered, PATIENCE, Pair, carrier, in_kernel, tell};
use super::{
    api::{FakeApi, TOKEN},
    packets::bulk,
    privileges::{self, start_joining},
    world::*,
};

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

async fn switches(first: usize, then: Option<usize>) {
    let pair = Pair::carrying([Boringtun; 2], Boringtun).await;
    let flow = pair.flow().await;
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
async fn ipv6_is_carried_over_ipv6() {
    if cannot_run_kernel() {
        return;
    }
    let pair = Pair::start_over_ipv6([Kernel; 2]);
    let mut before = Vec::new();
    for n in 0..2 {
        let status = pair
            .until(n, "kernel and kernel", |status| in_kernel(status).iter().any(|it| it.carries && it.alive))
            .await;
        // 40 bytes of IPv6, 8 of UDP, 32 of WireGuard.
        let said = pair.world.gateway[n].sh("ip -o link show type wireguard");
        assert!(said.contains("mtu 1420"), "{said}");
        before.push(in_kernel(&status).iter().map(|it| it.bytes_in).sum::<u64>());
    }
    let to = |n: usize| SocketAddr::new(host6(n), 9_300);
    bulk(&pair.world.host[0], &pair.world.host[1], to(1), 1 << 20);
    bulk(&pair.world.host[1], &pair.world.host[0], to(0), 1 << 20);
    bulk(&pair.world.host[0], &pair.world.host[1], "10.1.1.2:9300".parse().unwrap(), 1 << 20);
    for (n, before) in before.into_iter().enumerate() {
        let came = |status: &Status| in_kernel(status).iter().map(|it| it.bytes_in).sum::<u64>() > before + (1 << 20);
        pair.until(n, "it came by the kernel", came).await;
    }
    pair.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_the_peers_to_send_is_dropped_and_counted() {
    if cannot_run_kernel() {
        return;
    }
    let pair = Pair::carrying([Kernel, Boringtun], Kernel).await;
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
    let pair = Pair::carrying([Kernel, Boringtun], Kernel).await;
    let flow = pair.flow().await;
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
    let pair = Pair::carrying([Kernel, Boringtun], Kernel).await;
    let flow = pair.flow().await;
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
    let gateway = start_by(&world, 0, endpoint(0), Boringtun);
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
    api.configuration.send_replace(Some(slow(configuration(0, 1, false, &public(&key(1))))));
    let b = start_by(&world, 1, endpoint(1), Boringtun);
    let told = || api.seen.lock().unwrap().kernel_lanes.last().and_then(|told| told.lanes.first().cloned());
    eventually("the API is told", || told().is_some()).await;
    let lane = told().unwrap();
    assert_eq!((lane.peer_id, lane.endpoint.port()), (gateway_id(1), 51_836));
    let mut there = slow(configuration(1, 1, false, &own[0].public_key));
    there.connections[0].peers[0].kernel_lane =
        Some(Lane { n: 0, public_key: lane.public_key.clone(), endpoint: lane.endpoint, backend: Kernel });
    assert_ne!(lane.public_key, own[0].public_key);
    b.apply(there.clone());
    carries(&state, "the kernel carries", true).await;
    until_within(PATIENCE, &b, "to the kernel", |status| carrier(status) == Some(Kernel)).await;
    let link = || world.gateway[0].sh("ip -o link show type wireguard").split(':').next().unwrap().to_owned();
    let (flow, index) = (Numbered::start(&world), link());
    flow.carry_on(100).await;
    let next = tokio::spawn(run(options(false), stop.clone()));
    let ended = tokio::time::timeout(PATIENCE, running).await.expect("the old one ends").unwrap().unwrap();
    assert_eq!(ended, Ended::HandedOver);
    carries(&state, "the kernel carries on", true).await;
    assert_eq!(link(), index, "it is the same interface");
    flow.carry_on(100).await;
    let order = Request::Backend { backend: Boringtun };
    assert_eq!(local::ask(&state, &order).await.unwrap(), Answer::Done);
    carries(&state, "the lanes carry", false).await;
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

/// As `tieline gateway --user` runs it: with CAP_NET_ADMIN and little else.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_root_it_is_made_and_carries_and_nothing_is_left() {
    let Some(binary) = privileges::binary() else { return };
    if cannot_run_kernel() {
        return;
    }
    let Ok(Some(_)) = User::from_name("daemon") else { return println!("skipped: no user `daemon`") };
    let world = World::new();
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let state = folder.path().join("gateway");
    let api = FakeApi::start("127.0.0.1:0".parse().unwrap()).await;
    let url = format!("http://{}", api.address);
    let more = ["--user", "daemon", "--backend", "kernel"];
    let mut gateway = start_joining(Command::new(binary), &world, &state, false, (&url, TOKEN), &more);
    eventually("it joins", || !api.seen.lock().unwrap().joins.is_empty()).await;
    let own = api.seen.lock().unwrap().joins[0].lanes[0].public_key.clone();
    api.configuration.send_replace(Some(slow(configuration(0, 1, false, &public(&key(1))))));
    let told = || api.seen.lock().unwrap().kernel_lanes.last().and_then(|told| told.lanes.first().cloned());
    eventually("the API is told", || told().is_some()).await;
    let (b, lane) = (start_by(&world, 1, endpoint(1), Boringtun), told().unwrap());
    let mut there = slow(configuration(1, 1, false, &own));
    there.connections[0].peers[0].kernel_lane =
        Some(Lane { n: 0, public_key: lane.public_key, endpoint: lane.endpoint, backend: Kernel });
    b.apply(there);
    carries(&state, "the kernel carries", true).await;
    until_within(PATIENCE, &b, "to the kernel", |status| carrier(status) == Some(Kernel)).await;
    bulk(&world.host[0], &world.host[1], "10.1.1.2:9300".parse().unwrap(), 1 << 18);
    kill(Pid::from_raw(i32::try_from(gateway.0.id()).unwrap()), Signal::SIGTERM).unwrap();
    assert!(gateway.0.wait().unwrap().success(), "it ends in order");
    assert!(!world.gateway[0].sh("ip -o link").contains("tl"), "and leaves nothing");
    b.stop();
}

/// With probes that an emulated machine can keep up with.
fn slow(mut configuration: GatewayConfiguration) -> GatewayConfiguration {
    (configuration.probe.interval_ms, configuration.probe.dead_after_intervals) = (100, 20);
    configuration
}

/// Waits until the tunnel is what carries, by an interface of the kernel or not.
async fn carries(state: &Path, what: &str, wanted: bool) {
    let started = Instant::now();
    loop {
        let answer = local::ask(state, &Request::Status).await;
        if let Ok(Answer::Status(status)) = &answer
            && chosen(status) == Some(PathKind::Tunnel)
            && in_kernel(status).iter().any(|it| it.carries && it.alive) == wanted
        {
            return;
        }
        assert!(started.elapsed() < PATIENCE, "{what}: {answer:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
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
    let refused = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| start_by(&world, 0, endpoint(0), Kernel)));
    let said = *refused.unwrap_err().downcast::<String>().unwrap();
    assert!(said.contains("Without"), "{said}");
    assert!(kernel::available().unwrap_err().to_string().contains("modprobe wireguard"));
}
