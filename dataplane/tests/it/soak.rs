//! Full rate for a long time, with everything going on that goes on in a year: `make soak SOAK_MINUTES=10`.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tieline_dataplane::{Dataplane, shell::status::Status};
use tieline_openapi::v1::PathKind;

use super::{ns::Ns, world::*};

/// Between two changes of something.
const EVENT: Duration = Duration::from_secs(5);
/// Ports that the NAT before gateway 1 takes in turn.
const PORTS: u16 = 16;

/// Bytes of a stream that every receiver can check wherever it begins to read.
fn block(at: u64) -> Vec<u8> {
    (0..1_u64 << 16).map(|n| ((at + n) % 251) as u8).collect()
}

/// One TCP stream as fast as it goes, checked byte by byte; returns how much has come.
fn stream(from: &Ns, to: &Ns, address: &'static str, stop: &Arc<AtomicBool>, count: &Arc<AtomicU64>) {
    let listener = to.run(move || TcpListener::bind(address).unwrap()).join().unwrap().unwrap();
    let (stopped, counted) = (Arc::clone(stop), Arc::clone(count));
    to.run(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let (mut bytes, mut at) = (vec![0; 1 << 18], 0_u64);
        loop {
            let length = stream.read(&mut bytes).expect("the stream goes on");
            if length == 0 {
                break;
            }
            let first = u64::from(bytes[0]);
            assert_eq!(first, at % 251, "the stream is what was sent");
            assert!(bytes[..length].iter().zip(at..).step_by(97).all(|(byte, at)| u64::from(*byte) == at % 251));
            at += length as u64;
            counted.store(at, Ordering::Relaxed);
        }
    });
    from.run(move || {
        let mut stream = TcpStream::connect_timeout(&address.parse().unwrap(), PATIENCE).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        let (blocks, mut at): (Vec<Vec<u8>>, u64) = ((0..251).map(block).collect(), 0);
        while !stopped.load(Ordering::Relaxed) {
            let block = &blocks[usize::try_from(at % 251).unwrap()];
            stream.write_all(block).expect("the stream goes on");
            at += block.len() as u64;
        }
    });
}

fn resident_mib() -> f64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() * 4_096.0 / f64::from(1 << 20)
}

/// Datagrams that the kernel has thrown away since a socket's buffer was full.
fn overrun(ns: &Ns) -> u64 {
    let snmp = ns.run(|| std::fs::read_to_string("/proc/thread-self/net/snmp").unwrap()).join().unwrap().unwrap();
    let lines: Vec<Vec<&str>> =
        snmp.lines().filter(|line| line.starts_with("Udp:")).map(|line| line.split_whitespace().collect()).collect();
    let at = lines[0].iter().position(|name| *name == "RcvbufErrors").unwrap();
    lines[1][at].parse().unwrap()
}

/// A NAT before gateway 1 that gives it another port whenever it is told to.
struct Nat<'a>(&'a Ns, String);

impl<'a> Nat<'a> {
    fn new(world: &'a World) -> Self {
        let ns = &world.internet;
        ns.sh("nft add table ip nat");
        ns.sh("nft add chain ip nat in { type filter hook prerouting priority -300 ; }");
        for port in 52_000..52_000 + PORTS {
            ns.sh(&format!("nft add rule ip nat in ip daddr 198.51.100.10 udp dport {port} udp dport set 51820"));
        }
        let said = ns.sh("nft -a -e add rule ip nat in ip saddr 198.51.100.10 udp sport 51820 udp sport set 52000");
        let handle = said.split("handle ").nth(1).and_then(|rest| rest.split_whitespace().next()).unwrap().to_owned();
        Self(ns, handle)
    }

    fn roam(&self, port: u16) {
        self.0.sh(&format!(
            "nft replace rule ip nat in handle {} ip saddr 198.51.100.10 udp sport 51820 udp sport set {port}",
            self.1
        ));
    }
}

fn tunnel(status: &Status) -> tieline_dataplane::proto::tunnel::LaneCounters {
    status.connections[0].peers[0].tunnel
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn runs_for_as_long_as_it_is_told_to() {
    let Some(minutes) = std::env::var("SOAK_MINUTES").ok().and_then(|text| text.parse::<f64>().ok()) else {
        println!("skipped: SOAK_MINUTES says for how long; `make soak`");
        return;
    };
    if cannot_run() {
        return;
    }
    let world = World::new();
    let nat = Nat::new(&world);
    let gateways = [0, 1].map(|n| start(&world, n).0);
    let configurations = |version: u64| {
        [0, 1].map(|n| {
            let mut configuration = configuration(n, version, false, &public(&key(1 - n)));
            let connection = &mut configuration.connections[0];
            // Prefixes come and go, thousands of them.
            let more = (0..version % 3 * 1_000)
                .map(|n| format!("10.{}.{}.0/24", 64 + n / 256, n % 256).parse::<ipnet::IpNet>().unwrap());
            connection.remote_prefixes.extend(more);
            configuration
        })
    };
    let [a, b] = &gateways;
    for (gateway, configuration) in gateways.iter().zip(configurations(1)) {
        gateway.apply(configuration);
    }
    for gateway in &gateways {
        until(gateway, "the tunnel carries", |status| chosen(status) == Some(PathKind::Tunnel)).await;
    }
    let (stop, carried) = (Arc::<AtomicBool>::default(), [Arc::<AtomicU64>::default(), Arc::default()]);
    stream(&world.host[0], &world.host[1], "10.1.1.2:9700", &stop, &carried[0]);
    stream(&world.host[1], &world.host[0], "10.0.1.2:9701", &stop, &carried[1]);
    let (started, end) = (Instant::now(), Duration::from_secs_f64(minutes * 60.0));
    let (mut version, mut memory, mut peak, mut ages, mut rekeys) = (1, None, 0.0_f64, Vec::new(), 0);
    while started.elapsed() < end {
        tokio::time::sleep(EVENT).await;
        version += 1;
        if version % 2 == 0 {
            for (gateway, configuration) in gateways.iter().zip(configurations(version)) {
                gateway.apply(configuration);
            }
        } else {
            let port = 52_000 + u16::try_from(version).unwrap() / 2 % PORTS;
            nat.roam(port);
            let moved = std::net::SocketAddr::from(([198, 51, 100, 10], port));
            until(a, "the peer is followed", |status| status.connections[0].peers[0].lanes[0].endpoint == moved).await;
        }
        let status =
            until(a, "it has changed", |status| version % 2 == 1 || status.configuration_version == Some(version))
                .await;
        let age = status.connections[0].peers[0].handshake_age_s.expect("there is a session all the time");
        rekeys += u32::from(ages.last().is_some_and(|last| age < *last));
        ages.push(age);
        if started.elapsed() > Duration::from_secs(30) {
            memory = memory.or(Some(resident_mib()));
            peak = peak.max(resident_mib());
        }
    }
    let seconds = started.elapsed().as_secs_f64();
    stop.store(true, Ordering::Relaxed);
    // What is on its way arrives; probes go on, so that the counters are compared a moment apart.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let (of_a, of_b) = (until(a, "it answers", |_| true).await, until(b, "it answers", |_| true).await);
    let gbps = carried.map(|bytes| bytes.load(Ordering::Relaxed) as f64 * 8.0 / seconds / 1e9);
    println!("{seconds:.0} s: {gbps:.2?} Gbit/s each way, {rekeys} rekeys, {} changes and moves", version - 1);
    for (from, to, ns) in [(&of_a, &of_b, &world.gateway[1]), (&of_b, &of_a, &world.gateway[0])] {
        let (sent, came) = (tunnel(from).packets_out, tunnel(to).packets_in);
        let drops = tunnel(to).drops;
        let named = drops.replayed + drops.not_authentic + drops.no_session + drops.foreign_source + drops.malformed;
        let overrun = overrun(ns);
        println!("{sent} packets sent, {came} came; {named} dropped by name, {overrun} at a full socket: {drops:?}");
        assert!(
            sent.saturating_sub(came + named + overrun) < 1_000,
            "{} are unexplained",
            sent - came - named - overrun
        );
        assert_eq!(named, 0, "nothing was to be dropped");
    }
    if let Some(memory) = memory {
        println!("{memory:.1} MiB after half a minute, {peak:.1} at most after that");
        assert!(peak < memory + 16.0, "memory grows");
    }
    assert!(minutes < 2.5 || rekeys > 0, "no rekey in {seconds} s: {ages:?}");
    gateways.into_iter().for_each(Dataplane::stop);
}
