//! What comes from the network and is not what it should be: it goes nowhere, moves nothing, and is counted by name.

use std::{
    net::{SocketAddr, UdpSocket},
    sync::Arc,
    time::{Duration, Instant},
};

use boringtun::{
    noise::rate_limiter::RateLimiter,
    x25519::{PublicKey, StaticSecret},
};
use nix::sys::socket::{setsockopt, sockopt};
use tieline_dataplane::{
    Dataplane,
    proto::tunnel::{Drops, Lane, LaneKeys, MAX_HANDSHAKE, OVERHEAD, Output},
    shell::status::{LaneStatus, PacketPathStatus, Status},
};

use super::world::*;

/// Whoever stands where gateway 1 should, and has its key.
struct Stranger {
    lane: Lane,
    socket: UdpSocket,
    /// What has come from the gateway.
    heard: Vec<Vec<u8>>,
}

fn bind(world: &World, address: SocketAddr) -> UdpSocket {
    let socket = world.gateway[1].run(move || UdpSocket::bind(address).unwrap()).join().unwrap().unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(5))).unwrap();
    socket
}

fn lane(private: u8, peer: u8, index: u32) -> Lane {
    let keys = LaneKeys {
        private: [private; 32].into(),
        peer: PublicKey::from(&StaticSecret::from([peer; 32])),
        preshared: None,
    };
    let limiter = Arc::new(RateLimiter::new(&PublicKey::from(&keys.private), 100));
    Lane::new(keys, index, endpoint(0), limiter, Instant::now())
}

fn initiation(mut lane: Lane) -> Vec<u8> {
    let mut out = [0; MAX_HANDSHAKE];
    match lane.initiate(&mut out) {
        Output::Send(initiation) => initiation.to_vec(),
        other @ (Output::Nothing | Output::Packet(_)) => panic!("{other:?}"),
    }
}

/// An IPv4 packet without a payload that anybody reads.
fn inner(source: [u8; 4], destination: [u8; 4]) -> Vec<u8> {
    let mut packet = vec![0x45, 0, 0, 60, 0, 0, 0, 0, 64, 253, 0, 0];
    packet.extend(source);
    packet.extend(destination);
    packet.resize(60, 7);
    packet
}

impl Stranger {
    /// With a session.
    fn new(world: &World) -> Self {
        // The same index as the gateway's own first lane, so that what is reflected finds a lane.
        let mut this = Self { lane: lane(2, 1, 1), socket: bind(world, endpoint(1)), heard: Vec::new() };
        let started = Instant::now();
        while this.lane.handshake_age().is_none() {
            assert!(started.elapsed() < PATIENCE, "no session");
            this.listen(Duration::from_millis(20));
        }
        this
    }

    fn listen(&mut self, time: Duration) {
        let (until, mut datagram, mut out) = (Instant::now() + time, [0; 2_048], [0; 2_048]);
        while Instant::now() < until {
            if let Output::Send(bytes) = self.lane.tick(Instant::now(), &mut out) {
                let _ = self.socket.send_to(bytes, endpoint(0));
            }
            let Ok((length, from)) = self.socket.recv_from(&mut datagram) else { continue };
            self.heard.push(datagram[..length].to_vec());
            if let Output::Send(answer) = self.lane.decapsulate(from, &datagram[..length], &mut out) {
                let _ = self.socket.send_to(answer, from);
            }
        }
    }

    fn seal(&mut self, packet: &[u8]) -> Vec<u8> {
        let mut out = vec![0; packet.len() + OVERHEAD + MAX_HANDSHAKE];
        match self.lane.encapsulate(packet, packet.len(), &mut out) {
            Output::Send(datagram) => datagram.to_vec(),
            other @ (Output::Nothing | Output::Packet(_)) => panic!("{other:?}"),
        }
    }

    fn send(&self, datagram: &[u8]) {
        self.socket.send_to(datagram, endpoint(0)).unwrap();
    }
}

fn counted(status: &Status) -> (LaneStatus, PacketPathStatus) {
    (status.connections[0].peers[0].lanes[0].clone(), status.packet_path.clone())
}

/// Does `what`, and waits until `counter` has risen; no packet may have been let in by it.
async fn counts(
    gateway: &Dataplane,
    name: &str,
    counter: impl Fn(&Drops, &PacketPathStatus) -> u64,
    what: impl FnOnce(),
) {
    let (lane, path) = counted(&until(gateway, "it answers", |_| true).await);
    let before = counter(&lane.counters.drops, &path);
    what();
    let status = until(gateway, name, |status| {
        let (lane, path) = counted(status);
        counter(&lane.counters.drops, &path) > before
    })
    .await;
    let (after, _) = counted(&status);
    assert_eq!(after.counters.packets_in, lane.counters.packets_in, "{name}: let in");
    assert_eq!(after.endpoint, lane.endpoint, "{name}: the peer has moved");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_drop_has_its_name() {
    if cannot_run() {
        return;
    }
    let (own, peers) = ([10, 0, 1, 2], [10, 1, 1, 2]);
    let world = World::new();
    let (gateway, _reports) = start(&world, 0);
    gateway.apply(configuration(0, 1, false, &public(&key(1))));
    let mut stranger = Stranger::new(&world);
    until(&gateway, "there is a session", |status| {
        status.connections.first().is_some_and(|connection| connection.peers[0].lanes[0].alive)
    })
    .await;
    let good = stranger.seal(&inner(peers, own));
    stranger.send(&good);
    until(&gateway, "an honest packet is let in", |status| counted(status).0.counters.packets_in == 1).await;

    counts(&gateway, "replayed", |drops, _| drops.replayed, || stranger.send(&good)).await;
    let elsewhere = bind(&world, "198.51.100.10:40000".parse().unwrap());
    let replay = || assert_eq!(elsewhere.send_to(&good, endpoint(0)).unwrap(), good.len());
    counts(&gateway, "replayed from elsewhere", |drops, _| drops.replayed, replay).await;
    let whole = stranger.seal(&inner(peers, own));
    let cut = || stranger.send(&whole[..whole.len() - 1]);
    counts(&gateway, "truncated", |drops, _| drops.not_authentic, cut).await;
    counts(&gateway, "too short to be any message", |_, path| path.not_ours, || stranger.send(&whole[..20])).await;
    let mut bent = stranger.seal(&inner(peers, own));
    bent[24] ^= 1;
    counts(&gateway, "bent", |drops, _| drops.not_authentic, || stranger.send(&bent)).await;
    let mut other = stranger.seal(&inner(peers, own));
    // Another of the lane's eight sessions.
    other[4] ^= 4;
    counts(&gateway, "of no session", |drops, _| drops.no_session, || stranger.send(&other)).await;
    other[6] ^= 0x40;
    counts(&gateway, "of no lane", |_, path| path.not_ours, || stranger.send(&other)).await;

    stranger.listen(Duration::from_millis(300));
    let own_data = stranger.heard.iter().rfind(|datagram| datagram[0] == 4).cloned().expect("the gateway probes");
    let refused = |drops: &Drops, path: &PacketPathStatus| drops.not_authentic + drops.no_session + path.not_ours;
    counts(&gateway, "reflected", refused, || stranger.send(&own_data)).await;
    if let Some(handshake) = stranger.heard.iter().find(|datagram| datagram[0] == 1).cloned() {
        counts(&gateway, "a reflected handshake", |_, path| path.bad_handshakes, || stranger.send(&handshake)).await;
    }

    let foreign = stranger.seal(&inner([10, 9, 9, 9], own));
    counts(&gateway, "a source of another", |drops, _| drops.foreign_source, || stranger.send(&foreign)).await;
    let through = stranger.seal(&inner(peers, [10, 8, 8, 8]));
    counts(&gateway, "to where it may not", |drops, _| drops.foreign_source, || stranger.send(&through)).await;
    let nonsense = stranger.seal(&[0x15; 60]);
    counts(&gateway, "not IP inside", |drops, _| drops.malformed, || stranger.send(&nonsense)).await;
    let marked = stranger.seal(&inner(peers, own));
    socket2::SockRef::from(&stranger.socket).set_tos_v4(3).unwrap();
    counts(&gateway, "congested", |drops, _| drops.congested, || stranger.send(&marked)).await;
    socket2::SockRef::from(&stranger.socket).set_tos_v4(0).unwrap();

    let unknown = initiation(lane(77, 1, 5));
    counts(&gateway, "the key of no peer", |_, path| path.bad_handshakes, || stranger.send(&unknown)).await;
    let misled = initiation(lane(2, 3, 5));
    counts(&gateway, "for another gateway", |_, path| path.bad_handshakes, || stranger.send(&misled)).await;
    let again = stranger.heard.iter().any(|datagram| datagram[0] == 2);
    if again {
        // Ours was the initiation: the same once more is older than what the gateway knows.
        let own_initiation = initiation(lane(2, 1, 1));
        stranger.send(&own_initiation);
        counts(&gateway, "a handshake again", |drops, _| drops.replayed, || stranger.send(&own_initiation)).await;
    }

    let ns = &world.gateway[0];
    ns.sh("ip route add 192.0.2.77/32 dev tieline0");
    let to_nobody = || {
        let sent = ns.run(|| UdpSocket::bind("0.0.0.0:0").unwrap().send_to(b"x", "192.0.2.77:9"));
        sent.join().unwrap().unwrap().unwrap();
    };
    counts(&gateway, "for no peer", |_, path| path.no_peer, to_nobody).await;

    // Only an authentic packet moves the peer, and it does.
    let fresh = stranger.seal(&inner(peers, own));
    elsewhere.send_to(&fresh, endpoint(0)).unwrap();
    let moved = elsewhere.local_addr().unwrap();
    until(&gateway, "the peer is followed", |status| counted(status).0.endpoint == moved).await;

    ns.sh("ip link set tieline0 down");
    let refused = stranger.seal(&inner(peers, own));
    let before = until(&gateway, "it answers", |_| true).await.packet_path.tun_refused;
    elsewhere.send_to(&refused, endpoint(0)).unwrap();
    until(&gateway, "not taken by the device", |status| status.packet_path.tun_refused > before).await;
    gateway.stop();
}

/// A flow that is paid for, and how much of it arrives.
fn paying(world: &World, seconds: u64) -> f64 {
    const LENGTH: usize = 1_200;
    let socket = world.host[1].run(|| UdpSocket::bind("10.1.1.2:9600").unwrap()).join().unwrap().unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    setsockopt(&socket, sockopt::RcvBufForce, &(16 << 20)).unwrap();
    let receiver = std::thread::spawn(move || {
        let (mut got, mut bytes) = (0_u64, [0; 2_000]);
        while socket.recv(&mut bytes).is_ok() {
            got += 1;
        }
        got
    });
    let sender = world.host[0].run(move || {
        let socket = UdpSocket::bind("10.0.1.2:0").unwrap();
        let (started, mut sent) = (Instant::now(), 0_u64);
        // 48 Mbit/s, in bursts of five milliseconds.
        while started.elapsed() < Duration::from_secs(seconds) {
            for _ in 0..25 {
                sent += u64::from(socket.send_to(&[5; LENGTH], "10.1.1.2:9600").is_ok());
            }
            std::thread::sleep((started + Duration::from_millis(sent / 5)).saturating_duration_since(Instant::now()));
        }
        sent
    });
    let sent = sender.join().unwrap().unwrap();
    receiver.join().unwrap() as f64 / sent as f64
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_handshakes_leaves_the_paying_flow_its_rate() {
    if cannot_run() {
        return;
    }
    let world = World::new();
    let gateways = [0, 1].map(|n| start(&world, n).0);
    for (n, gateway) in gateways.iter().enumerate() {
        gateway.apply(configuration(n, 1, false, &public(&key(1 - n))));
    }
    for gateway in &gateways {
        until(gateway, "the tunnel carries", |status| chosen(status).is_some()).await;
    }
    let alone = paying(&world, 1);
    let flood = world.internet.run(|| {
        let socket = UdpSocket::bind("198.51.100.1:0").unwrap();
        let initiations: Vec<Vec<u8>> = (100..200).map(|n| initiation(lane(n, 2, 1))).collect();
        let (started, mut sent) = (Instant::now(), 0_u64);
        while started.elapsed() < Duration::from_secs(3) {
            for initiation in &initiations {
                sent += u64::from(socket.send_to(initiation, endpoint(1)).is_ok());
            }
        }
        (sent, started.elapsed())
    });
    let flooded = paying(&world, 2);
    let (sent, time) = flood.join().unwrap().unwrap();
    let path = until(&gateways[1], "it answers", |_| true).await.packet_path;
    let rate = sent as f64 / time.as_secs_f64();
    println!("{rate:.0} handshakes a second; of the flow {alone:.3} arrives alone, {flooded:.3} beside them: {path:?}");
    assert!(rate > 10_000.0, "that is no flood: {rate}");
    assert!(flooded >= 0.8 * alone, "{flooded} of the flow, {alone} before");
    assert!(path.limited > path.under_load, "one sender has one share of cookies");
    gateways.into_iter().for_each(Dataplane::stop);
}
