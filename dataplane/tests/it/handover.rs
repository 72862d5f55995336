//! A hot restart: one gateway takes another's place under traffic, three times, and not a packet is lost.

use std::{
    net::UdpSocket,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use tieline_dataplane::{
    Ended, GatewayOptions, run,
    shell::local::{self, Answer, Request},
};
use tieline_openapi::v1::{PathKind, TunnelBackend};
use tokio_util::sync::CancellationToken;

use super::{
    api::{FakeApi, TOKEN},
    world::*,
};

/// Numbered datagrams one way, some thousands a second in bursts, as a sender with offloads makes them.
struct Burst {
    stop: Arc<AtomicBool>,
    sender: std::thread::JoinHandle<std::io::Result<u32>>,
    receiver: std::thread::JoinHandle<std::io::Result<Vec<u32>>>,
}

impl Burst {
    fn start(world: &World, from: usize, port: u16) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let to = format!("10.{}.1.2:{port}", 1 - from);
        let bind = to.clone();
        let (stopped, ended) = (Arc::clone(&stop), Arc::clone(&stop));
        let receiver = world.host[1 - from].run(move || {
            let socket = UdpSocket::bind(bind).unwrap();
            nix::sys::socket::setsockopt(&socket, nix::sys::socket::sockopt::RcvBufForce, &(16 << 20)).unwrap();
            socket.set_read_timeout(Some(Duration::from_millis(700))).unwrap();
            let (mut got, mut bytes) = (Vec::new(), [0; 2_000]);
            loop {
                match socket.recv(&mut bytes) {
                    Ok(_) => got.push(u32::from_be_bytes(bytes[..4].try_into().unwrap())),
                    Err(_) if ended.load(Ordering::Relaxed) => return got,
                    Err(_) => {}
                }
            }
        });
        let sender = world.host[from].run(move || {
            let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
            let mut number = 0_u32;
            while !stopped.load(Ordering::Relaxed) {
                let started = Instant::now();
                for _ in 0..20 {
                    let mut bytes = [7; 1_200];
                    bytes[..4].copy_from_slice(&number.to_be_bytes());
                    if socket.send_to(&bytes, &to).is_ok() {
                        number += 1;
                    }
                }
                // The pace is the flow's own.
                std::thread::sleep((started + Duration::from_millis(4)).saturating_duration_since(Instant::now()));
            }
            number
        });
        Self { stop, sender, receiver }
    }

    /// How many were sent, and which are missing or out of order.
    fn end(self) -> (u32, Vec<u32>) {
        self.stop.store(true, Ordering::Relaxed);
        let (sent, got) = (self.sender.join().unwrap().unwrap(), self.receiver.join().unwrap().unwrap());
        let mut expected = 0;
        let mut odd = Vec::new();
        for number in got {
            if number == expected {
                expected += 1;
            } else {
                odd.push(number);
                expected = expected.max(number + 1);
            }
        }
        odd.extend(expected..sent);
        (sent, odd)
    }
}

fn options(world: &World, api: &FakeApi, state: &std::path::Path, first: bool) -> GatewayOptions {
    GatewayOptions {
        api_url: format!("http://{}", api.address),
        join_token: first.then(|| TOKEN.to_owned().into()),
        state_dir: state.to_owned(),
        netns: Some(world.gateway[0].path()),
        name: "a-gw".to_owned(),
        private_address: private_address(0),
        wan_endpoint: endpoint(0),
        listen_port: None,
        private_next_hop: None,
        tun_name: None,
        lanes: Some(2),
        uapi: None,
        take_over: true,
        backend: TunnelBackend::Boringtun,
        kernel_ports: None,
        switched_off: Vec::new(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_process_takes_over_and_no_packet_is_lost() {
    if cannot_run() {
        return;
    }
    let world = World::new();
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("a");
    let api = FakeApi::start("127.0.0.1:0".parse().unwrap()).await;
    let stop = CancellationToken::new();
    // Nobody runs yet: it just starts.
    let mut running = tokio::spawn(run(options(&world, &api, &state, true), stop.clone()));
    let started = Instant::now();
    while api.seen.lock().unwrap().joins.is_empty() {
        assert!(started.elapsed() < PATIENCE, "it does not join");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let own = api.seen.lock().unwrap().joins[0].lanes.clone();
    let (b, _reports) = start_with(&world, 1, 2, &[]);
    let mut there = configuration(1, 1, false, &own[0].public_key);
    there.connections[0].peers[0].lanes = own;
    b.apply(there);
    let mut here = configuration(0, 7, false, &public(&key(1)));
    here.connections[0].peers[0].lanes = lanes(1, 2);
    api.configuration.send_replace(Some(here));
    let heard = |status: &tieline_dataplane::shell::status::Status| {
        let peer = status.connections.first().map(|connection| &connection.peers[0]);
        chosen(status) == Some(PathKind::Tunnel)
            && peer.is_some_and(|peer| peer.lanes.iter().filter(|lane| lane.alive).count() == 2)
    };
    until(&b, "both lanes are heard", heard).await;
    let carries = async || {
        let started = Instant::now();
        loop {
            let answer = local::ask(&state, &Request::Status).await;
            if let Ok(Answer::Status(status)) = &answer
                && heard(status)
            {
                return;
            }
            assert!(started.elapsed() < PATIENCE, "{answer:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    carries().await;

    let bursts = [Burst::start(&world, 0, 9_400), Burst::start(&world, 1, 9_401)];
    let flow = Flow::start(&world);
    let stream = Stream::start(&world);
    flow.carry_on(300).await;
    for n in 1..=3 {
        let next = tokio::spawn(run(options(&world, &api, &state, false), stop.clone()));
        let ended = tokio::time::timeout(PATIENCE * 2, running).await.expect("the old one ends").unwrap().unwrap();
        assert_eq!(ended, Ended::HandedOver, "restart {n}");
        running = next;
        carries().await;
        flow.carry_on(500).await;
        stream.goes_on().await;
        // The folder is locked through it all.
        let other = GatewayOptions { take_over: false, ..options(&world, &api, &state, false) };
        assert!(run(other, CancellationToken::new()).await.is_err());
    }
    flow.carry_on(500).await;
    assert_eq!(flow.lost_since(0), 0, "of {} with an answer each", flow.sent());
    for burst in bursts {
        let (sent, odd) = burst.end();
        assert!(sent > 5_000, "{sent}");
        assert!(odd.is_empty(), "of {sent}, missing or out of order: {odd:?}");
    }
    flow.stop();
    stream.stop();
    assert_eq!(api.seen.lock().unwrap().joins.len(), 1);

    stop.cancel();
    assert_eq!(running.await.unwrap().unwrap(), Ended::Stopped);
    let gateway = &world.gateway[0];
    assert!(!gateway.sh("ip -o link").contains("tieline0") && !gateway.sh("ip rule").contains("7480"));
    b.stop();
}
