//! The packet path: what goes in comes out, with any of the kernel's offloads missing, over narrow ways and over lanes.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use nix::sys::socket::{setsockopt, sockopt};
use tieline_dataplane::{
    Dataplane,
    shell::{bench::BenchOptions, offloads::Offload, status::Status},
};
use tieline_openapi::v1::{GatewayConfiguration, PathKind};

use super::{ns::Ns, world::*};

/// Counts what the threads of the packet path take from the heap.
struct Counting;

static TAKEN: AtomicU64 = AtomicU64::new(0);

// SAFETY: all is left to the system's allocator; counting takes no memory.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let mut name = [0_u8; 16];
        // SAFETY: PR_GET_NAME writes at most 16 bytes.
        unsafe { libc::prctl(libc::PR_GET_NAME, name.as_mut_ptr()) };
        if name.starts_with(b"tl-lane") {
            TAKEN.fetch_add(1, Ordering::Relaxed);
        }
        // SAFETY: the caller's own promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's own promise.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// Both gateways with a tunnel, the private path not in use.
async fn tunnelled(
    world: &World,
    lanes_of: [usize; 2],
    switched_off: &[Offload],
    change: impl Fn(usize, &mut GatewayConfiguration),
) -> [Dataplane; 2] {
    let gateways = [0, 1].map(|n| start_with(world, n, lanes_of[n], switched_off).0);
    for (n, gateway) in gateways.iter().enumerate() {
        let mut configuration = configuration(n, 1, false, &public(&key(1 - n)));
        configuration.connections[0].peers[0].lanes = lanes(1 - n, lanes_of[1 - n]);
        change(n, &mut configuration);
        gateway.apply(configuration);
    }
    let common = *lanes_of.iter().min().unwrap();
    for gateway in &gateways {
        until(gateway, "every lane is alive", |status| {
            let peer = &status.connections.first().map(|connection| &connection.peers[0]);
            let up = |peer: &&tieline_dataplane::shell::status::PeerStatus| {
                peer.lanes.len() == common && peer.lanes.iter().filter(|lane| lane.alive).count() >= common
            };
            chosen(status) == Some(PathKind::Tunnel) && peer.as_ref().is_some_and(up)
        })
        .await;
    }
    gateways
}

fn stop(gateways: [Dataplane; 2]) {
    gateways.into_iter().for_each(Dataplane::stop);
}

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|n| (n ^ (n >> 8) ^ (n >> 16)) as u8).collect()
}

/// Sends so much over TCP from one namespace to another, and checks every byte.
pub(crate) fn bulk(from: &Ns, to: &Ns, address: SocketAddr, length: usize) {
    let listener = to.run(move || TcpListener::bind(address).unwrap()).join().unwrap().unwrap();
    let receiver = to.run(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut got = Vec::with_capacity(length);
        stream.read_to_end(&mut got).unwrap();
        got
    });
    let sender = from.run(move || {
        let mut stream = TcpStream::connect_timeout(&address, PATIENCE).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(&pattern(length)).unwrap();
    });
    sender.join().unwrap().unwrap();
    let got = receiver.join().unwrap().unwrap();
    assert!(got == pattern(length), "{} of {length} bytes, or not the same", got.len());
}

/// Sends numbered datagrams, and counts those that arrive, which must be in order and whole.
pub(crate) fn datagrams(from: &Ns, to: &Ns, address: SocketAddr, count: u32, length: usize) -> u32 {
    let socket = to.run(move || UdpSocket::bind(address).unwrap()).join().unwrap().unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    // A receiver that waits for a busy machine loses nothing.
    setsockopt(&socket, sockopt::RcvBufForce, &(16 << 20)).unwrap();
    let receiver = std::thread::spawn(move || {
        let (mut next, mut got) = (0, 0);
        let mut bytes = vec![0; 2_000];
        while let Ok(received) = socket.recv(&mut bytes) {
            assert_eq!(received, length);
            let number = u32::from_be_bytes(bytes[..4].try_into().unwrap());
            assert!(number >= next, "{number} after {next}");
            assert!(bytes[4..length].iter().all(|byte| *byte == number as u8));
            (next, got) = (number + 1, got + 1);
        }
        got
    });
    let sender = from.run(move || {
        let any = if address.is_ipv6() { "[::]:0" } else { "0.0.0.0:0" };
        let socket = UdpSocket::bind(any).unwrap();
        for number in 0..count {
            let mut bytes = vec![number as u8; length];
            bytes[..4].copy_from_slice(&number.to_be_bytes());
            socket.send_to(&bytes, address).unwrap();
            // A pace that the receiver's socket buffer keeps up with: what is lost here is not the tunnel's.
            if number % 32 == 31 {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    });
    sender.join().unwrap().unwrap();
    receiver.join().unwrap()
}

async fn used(gateway: &Dataplane, offload: Offload) -> (bool, u64, u64) {
    let status = until(gateway, "it answers", |_| true).await;
    let found = status.packet_path.offloads.into_iter().find(|status| status.offload == offload).unwrap();
    (found.on, found.packets, found.refused)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn carries_with_any_offload_missing() {
    if cannot_run() {
        return;
    }
    let sets: [&[Offload]; 5] = [
        &[],
        &Offload::ALL,
        &[Offload::UdpGso, Offload::TunUso],
        &[Offload::UdpGro, Offload::TunTso],
        &[Offload::TunGroTcp4, Offload::TunGroTcp6, Offload::TunGroUdp],
    ];
    for switched_off in sets {
        let world = World::new();
        let gateways = tunnelled(&world, [1, 1], switched_off, |_, _| {}).await;
        bulk(&world.host[0], &world.host[1], "10.1.1.2:9300".parse().unwrap(), 4 << 20);
        bulk(&world.host[1], &world.host[0], "10.0.1.2:9300".parse().unwrap(), 1 << 20);
        let got = datagrams(&world.host[0], &world.host[1], "10.1.1.2:9301".parse().unwrap(), 1_000, 1_200);
        assert!(got > 900, "{got} of 1000 datagrams with {switched_off:?} off");
        for offload in Offload::ALL {
            let on = !switched_off.contains(&offload);
            let (is_on, packets, refused) = used(&gateways[0], offload).await;
            assert_eq!(is_on, on, "{offload:?}");
            assert_eq!(refused, 0, "{offload:?}");
            assert!(on || packets == 0, "{offload:?} is off and has carried");
        }
        if switched_off.is_empty() {
            for (gateway, offload) in
                [(0, Offload::TunTso), (0, Offload::UdpGso), (1, Offload::UdpGro), (1, Offload::TunGroTcp4)]
            {
                let (_, packets, _) = used(&gateways[gateway], offload).await;
                assert!(packets > 1_000, "{offload:?} carried {packets}");
            }
        }
        stop(gateways);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn carries_over_a_way_that_is_too_narrow_for_batches() {
    if cannot_run() {
        return;
    }
    let world = World::new();
    let gateways = tunnelled(&world, [1, 1], &[], |_, _| {}).await;
    for ns in &world.gateway {
        ns.sh("ip link set wan0 mtu 1300");
    }
    bulk(&world.host[0], &world.host[1], "10.1.1.2:9300".parse().unwrap(), 1 << 20);
    let (on, _, refused) = used(&gateways[0], Offload::UdpGso).await;
    assert!(on && refused > 0, "batches were refused ({refused}), and what is shorter still goes in them");
    stop(gateways);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn carries_ipv6_inside_and_outside() {
    if cannot_run() {
        return;
    }
    let world = World::new();
    let inner = |n: usize| -> std::net::IpAddr { format!("fd00:7480::{}", n + 1).parse().unwrap() };
    world.add_ipv6();
    let gateways = [0, 1].map(|n| start_at(&world, n, endpoint6(n)));
    for (n, gateway) in gateways.iter().enumerate() {
        let mut configuration = configuration(n, 1, false, &public(&key(1 - n)));
        let connection = &mut configuration.connections[0];
        connection.inner_address = inner(n);
        connection.mtu_bytes = 1_400_u64.try_into().unwrap();
        connection.peers[0].inner_address = inner(1 - n);
        connection.peers[0].lanes[0].endpoint = endpoint6(1 - n);
        gateway.apply(configuration);
    }
    for gateway in &gateways {
        until(gateway, "the tunnel carries", |status| chosen(status) == Some(PathKind::Tunnel)).await;
    }
    let address = |port| SocketAddr::new(inner(1), port);
    bulk(&world.gateway[0], &world.gateway[1], address(9_300), 4 << 20);
    let got = datagrams(&world.gateway[0], &world.gateway[1], address(9_301), 1_000, 1_200);
    assert!(got > 900, "{got} of 1000 datagrams");
    let (_, packets, refused) = used(&gateways[1], Offload::TunGroTcp6).await;
    assert!(packets > 1_000 && refused == 0, "{packets} packets in super-packets, {refused} refused");
    stop(gateways);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn takes_no_memory_a_packet() {
    if cannot_run() {
        return;
    }
    let world = World::new();
    let gateways = tunnelled(&world, [1, 1], &[], |_, _| {}).await;
    let (to, echo): (SocketAddr, SocketAddr) = ("10.1.1.2:9300".parse().unwrap(), "10.1.1.2:9301".parse().unwrap());
    bulk(&world.host[0], &world.host[1], to, 1 << 20);
    let packets = |status: &Status| status.connections[0].peers[0].tunnel.packets_out;
    let (before, carried) = (TAKEN.load(Ordering::Relaxed), until(&gateways[0], "it answers", |_| true).await);
    bulk(&world.host[0], &world.host[1], to, 16 << 20);
    datagrams(&world.host[0], &world.host[1], echo, 2_000, 100);
    let taken = TAKEN.load(Ordering::Relaxed) - before;
    let status = until(&gateways[0], "it answers", |_| true).await;
    let carried = packets(&status) - packets(&carried);
    println!("{carried} packets one way, {taken} allocations on the threads of the packet path of both gateways");
    assert!(carried > 10_000);
    assert!(taken < 20, "{taken} allocations");
    stop(gateways);
}

/// Where a flow's packets went: what each lane carried out since `before`.
fn carried(status: &Status, before: &Status) -> Vec<u64> {
    let lanes = |status: &Status| -> Vec<u64> {
        status.connections[0].peers[0].lanes.iter().map(|lane| lane.counters.packets_out).collect()
    };
    lanes(status).iter().zip(lanes(before)).map(|(now, before)| now - before).collect()
}

/// Both ends send numbered datagrams to each other at once, from and to the same port; how many arrive at each, in order.
fn exchange(ends: [&Ns; 2], port: u16, count: u32) -> [u32; 2] {
    let addresses: [SocketAddr; 2] = [([10, 0, 1, 2], port).into(), ([10, 1, 1, 2], port).into()];
    let sockets = [0, 1].map(|n| {
        let socket = ends[n].run(move || UdpSocket::bind(addresses[n]).unwrap()).join().unwrap().unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
        setsockopt(&socket, sockopt::RcvBufForce, &(16 << 20)).unwrap();
        socket
    });
    let receivers = [&sockets[0], &sockets[1]].map(|socket| {
        let socket = socket.try_clone().unwrap();
        std::thread::spawn(move || {
            let (mut next, mut got, mut bytes) = (0, 0, [0; 300]);
            while socket.recv(&mut bytes).is_ok() {
                let number = u32::from_be_bytes(bytes[..4].try_into().unwrap());
                assert!(number >= next, "{number} after {next}");
                (next, got) = (number + 1, got + 1);
            }
            got
        })
    });
    let mut bytes = [5; 300];
    for number in 0..count {
        bytes[..4].copy_from_slice(&number.to_be_bytes());
        for n in [0, 1] {
            sockets[n].send_to(&bytes, addresses[1 - n]).unwrap();
        }
        // A pace that the receivers' socket buffers keep up with.
        if number % 32 == 31 {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    receivers.map(|receiver| receiver.join().unwrap())
}

/// The lane of a flow between the two hosts on one port: the steering program, written down once more.
fn lane_of(port: u16, lanes: usize) -> usize {
    let addresses = u32::from_be_bytes([10, 0, 1, 2]).wrapping_add(u32::from_be_bytes([10, 1, 1, 2]));
    let mut hash = addresses.wrapping_add(2 * u32::from(port));
    hash = (hash ^ (hash >> 16)).wrapping_mul(0x85eb_ca6b);
    hash = (hash ^ (hash >> 13)).wrapping_mul(0xc2b2_ae35);
    hash = (hash ^ (hash >> 16)) & 0xffff;
    hash as usize % lanes
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn spreads_flows_over_lanes_and_keeps_each_in_order() {
    if cannot_run() {
        return;
    }
    const COUNT: u32 = 1_500;
    let world = World::new();
    let gateways = tunnelled(&world, [3, 3], &[], |_, _| {}).await;
    // Hosts and gateways know each other's link addresses after that: while the kernel resolves one, what is sent then may
    // pass what waits for it.
    exchange([&world.host[0], &world.host[1]], 9_399, 1);
    let mut before = Vec::new();
    for gateway in &gateways {
        before.push(until(gateway, "it answers", |_| true).await);
    }
    let mut expected = [0_u64; 3];
    std::thread::scope(|scope| {
        for port in 9_400..9_408_u16 {
            expected[lane_of(port, 3)] += u64::from(COUNT);
            let ends = [&world.host[0], &world.host[1]];
            scope.spawn(move || {
                let got = exchange(ends, port, COUNT);
                assert!(got.iter().all(|got| *got > COUNT * 9 / 10), "{got:?} of {COUNT} datagrams");
            });
        }
    });
    assert!(expected.iter().all(|packets| *packets > 0), "the ports are chosen so that every lane has a flow");
    for (gateway, before) in gateways.iter().zip(&before) {
        let status = until(gateway, "it answers", |_| true).await;
        let carried = carried(&status, before);
        for (carried, expected) in carried.iter().zip(expected) {
            // Probes are on one of them, and some datagrams may be lost.
            let right = expected * 9 / 10..expected + u64::from(COUNT) * 9 / 10;
            assert!(
                right.contains(carried),
                "{carried} where {expected} belong: a flow has one lane in both directions"
            );
        }
    }
    stop(gateways);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lane_that_does_not_get_through_is_not_used() {
    if cannot_run() {
        return;
    }
    let world = World::new();
    world.internet.sh("nft add table ip cut");
    world.internet.sh("nft add chain ip cut middle { type filter hook forward priority 0 ; policy accept ; }");
    world.internet.sh("nft add rule ip cut middle udp dport 51821 drop");
    let gateways = [0, 1].map(|n| start_with(&world, n, 2, &[]).0);
    for (n, gateway) in gateways.iter().enumerate() {
        let mut configuration = configuration(n, 1, false, &public(&key(1 - n)));
        configuration.connections[0].peers[0].lanes = lanes(1 - n, 2);
        gateway.apply(configuration);
    }
    for gateway in &gateways {
        until(gateway, "the tunnel carries", |status| chosen(status) == Some(PathKind::Tunnel)).await;
    }
    for port in 9_300..9_308 {
        bulk(&world.host[0], &world.host[1], ([10, 1, 1, 2], port).into(), 64 << 10);
    }
    let status = until(&gateways[0], "it answers", |_| true).await;
    let alive: Vec<bool> = status.connections[0].peers[0].lanes.iter().map(|lane| lane.alive).collect();
    assert_eq!(alive, [true, false]);
    stop(gateways);
}

/// Bytes that gateway 0's tunnel socket has still to send, as `ss` shows them (skmem, t).
fn unsent(world: &World) -> usize {
    let shown = world.gateway[0].sh("ss -Huanm src :51820");
    let after = shown.split("skmem:(").nth(1).unwrap();
    let field = after.split([',', ')']).find_map(|field| field.strip_prefix('t')?.parse().ok());
    field.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_comes_in_does_not_wait_for_a_way_out_that_is_full() {
    if cannot_run() {
        return;
    }
    let world = World::new();
    let gateways = tunnelled(&world, [1, 1], &[], |_, _| {}).await;
    // A way on which the buffer of a socket, 16 MiB, takes two minutes.
    if let Err(error) = world.gateway[0].try_sh("tc qdisc add dev wan0 root tbf rate 1mbit burst 200kb limit 64mb") {
        println!("SKIPPED: no `tbf` here: {error}");
        return stop(gateways);
    }
    let flood = || {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        for _ in 0..60_000 {
            let _ = socket.send_to(&[7; 1_300], "10.1.1.2:9");
        }
    };
    let started = Instant::now();
    while unsent(&world) < 7 << 20 {
        assert!(started.elapsed() < PATIENCE, "{} bytes wait", unsent(&world));
        world.host[0].run(flood).join().unwrap().unwrap();
    }
    world.host[0].run(flood).join().unwrap().unwrap();
    assert!(unsent(&world) < 10 << 20, "half of the buffer, and a batch: {} bytes wait", unsent(&world));
    let got = datagrams(&world.host[1], &world.host[0], "10.0.1.2:9301".parse().unwrap(), 1_000, 1_200);
    assert!(got > 900, "{got} of 1000 datagrams came in");
    world.gateway[0].sh("tc qdisc del dev wan0 root");
    stop(gateways);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_with_one_lane_gets_one() {
    if cannot_run() {
        return;
    }
    let world = World::new();
    let gateways = tunnelled(&world, [3, 1], &[], |_, _| {}).await;
    let started = Instant::now();
    for port in 9_300..9_306 {
        bulk(&world.host[0], &world.host[1], ([10, 1, 1, 2], port).into(), 64 << 10);
        bulk(&world.host[1], &world.host[0], ([10, 0, 1, 2], port).into(), 64 << 10);
    }
    assert!(started.elapsed() < PATIENCE);
    stop(gateways);
}

#[test]
fn the_bench_measures_and_leaves_nothing() {
    if cannot_run() {
        return;
    }
    let options = BenchOptions { seconds: 1, lanes: 2, switched_off: vec![Offload::UdpGso] };
    let report = tieline_dataplane::shell::bench::run(&options).unwrap();
    let names: Vec<&str> = report.figures.iter().map(|figure| figure.name).collect();
    assert_eq!(names, ["tcp1", "tcp4", "udp1372", "udp64", "latency-p50", "latency-p99"]);
    assert!(report.figures.iter().all(|figure| figure.tunnel > 0.0 && figure.wire > 0.0), "{report:#?}");
    assert!(report.figures[0].cores_per_gbps.is_some_and(|cores| cores > 0.0), "{report:#?}");
    let gso = report.offloads.iter().find(|status| status.offload == Offload::UdpGso).unwrap();
    assert!(!gso.on && gso.packets == 0);
    let threads = std::fs::read_dir("/proc/self/task").unwrap().map(Result::unwrap);
    let names = threads.filter_map(|thread| std::fs::read_to_string(thread.path().join("comm")).ok());
    assert!(!names.into_iter().any(|name| name.starts_with("tl-") || name.starts_with("bench-")));
}
