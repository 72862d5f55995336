//! What is fuzzed: each takes any bytes, and neither panics nor works without bound. The fuzzer's targets call these, and so does
//! a test, over the committed corpus and random bytes.

use std::{
    net::SocketAddr,
    sync::{Arc, OnceLock},
    time::Instant,
};

use boringtun::{
    noise::rate_limiter::RateLimiter,
    x25519::{PublicKey, StaticSecret},
};
use tieline_dataplane::{
    proto::{
        clamp::clamp_mss,
        offload::{
            coalesce::{Coalescer, Joinable},
            ecn,
            headers::Headers,
            split::{SLACK, Split},
            vnet::{self, VnetHeader},
        },
        pmtu::{PathMtu, Trial},
        probe::{Probe, ProbeKeys, ProbeSession, SessionSettings},
        table::addresses,
        tunnel::{Lane, LaneKeys, MAX_HANDSHAKE, Output, addressed, initiator},
    },
    shell::local::Request,
};
use tieline_openapi::v1::{GatewayConfiguration, PathKind};

/// An entry.
pub(crate) type Entry = fn(&[u8]);

/// All, by the names of their corpora.
pub(crate) const ENTRIES: [(&str, Entry); 5] =
    [("network", network), ("tun", tun), ("coalesce", coalesce), ("probe", probe), ("control", control)];

fn origin() -> Instant {
    static ORIGIN: OnceLock<Instant> = OnceLock::new();
    *ORIGIN.get_or_init(Instant::now)
}

/// A datagram from the network.
pub(crate) fn network(bytes: &[u8]) {
    let (own, peer) = (StaticSecret::from([1; 32]), PublicKey::from(&StaticSecret::from([2; 32])));
    let public = PublicKey::from(&own);
    let from = SocketAddr::from(([192, 0, 2, 1], 51_820));
    let mut out = [0; 2_048];
    let gate = RateLimiter::new(&public, 1);
    let _ = gate.verify_packet(Some(from.ip()), bytes, &mut out).is_ok();
    let _ = addressed(bytes);
    let _ = initiator(&own, &public, bytes);
    let limiter = Arc::new(RateLimiter::new(&public, u64::MAX));
    let mut lane = Lane::new(LaneKeys { private: own, peer, preshared: None }, 1, from, limiter, origin());
    let mut out = vec![0; bytes.len().max(MAX_HANDSHAKE)];
    assert!(!matches!(lane.decapsulate(from, bytes, &mut out), Output::Packet(_)), "nobody has the key");
}

/// What a TUN device gives: a `virtio_net_hdr`, and a packet or super-packet.
pub(crate) fn tun(bytes: &[u8]) {
    let Some(header) = VnetHeader::decode(bytes) else { return };
    let packet = &bytes[vnet::LENGTH..];
    let _ = addresses(packet);
    let mut buffer = packet.to_vec();
    buffer.resize(packet.len() + SLACK, 0);
    let Ok(mut split) = Split::new(&header, &mut buffer, packet.len(), 1_420) else { return };
    let mut segments = 0;
    while let Some(segment) = split.next() {
        segments += 1;
        assert!(segments <= packet.len(), "each has a byte of its own");
        let _ = clamp_mss(&mut segment.padded[..segment.length], 1_380);
        let _ = ecn::traffic_class(segment.padded);
    }
}

/// Packets that come out of the tunnel, one after the other, each after its length in two bytes.
pub(crate) fn coalesce(mut bytes: &[u8]) {
    let (mut arena, mut ranges) = (Vec::new(), Vec::new());
    while let Some((length, rest)) = bytes.split_first_chunk::<2>() {
        let (packet, rest) = rest.split_at(usize::from(u16::from_be_bytes(*length)).min(rest.len()));
        let at = arena.len();
        arena.extend_from_slice(packet);
        let _ = ecn::decapsulate(length[1], &mut arena[at..]);
        let _ = Headers::read(&arena[at..]);
        ranges.push(at..arena.len());
        bytes = rest;
        if ranges.len() == 256 {
            break;
        }
    }
    let mut coalescer = Coalescer::new(ranges.len());
    for range in &ranges {
        coalescer.push(&arena, range.clone(), Joinable::ALL);
    }
    let mut written = 0;
    for group in 0..coalescer.len() {
        let before = arena.clone();
        let _ = coalescer.join(group, &mut arena);
        written += coalescer.pieces(group).count();
        coalescer.part(group, &mut arena);
        assert_eq!(arena, before, "parting undoes joining");
    }
    assert_eq!(written, ranges.len(), "each is written once");
}

/// A probe from either way, with a right MAC and without, and answers to the search for the path MTU.
pub(crate) fn probe(bytes: &[u8]) {
    static KEYS: OnceLock<[ProbeKeys; 2]> = OnceLock::new();
    let [own, peer] = KEYS.get_or_init(|| {
        let secrets = [1, 2].map(|n| StaticSecret::from([n; 32]));
        [(0, 1), (1, 0)]
            .map(|(own, peer)| ProbeKeys::derive(&secrets[own], &PublicKey::from(&secrets[peer])).expect("keys"))
    });
    let now = origin();
    let Ok(probe) = Probe::decode(bytes) else { return };
    let signed = probe.encode(peer);
    assert_eq!(
        Probe::decode(&signed).ok().map(|again| again.round),
        Some(probe.round).filter(|_| bytes.len() == signed.len())
    );
    let settings = SessionSettings {
        connection: probe.connection,
        interval: std::time::Duration::from_millis(20),
        pace: std::time::Duration::ZERO,
        dead_after: 3,
        dead_ports: 2,
        private_ports: Some(16),
        tunnel: true,
        mtu_bytes: 1_440,
        header_bytes: 28,
    };
    let mut session = ProbeSession::new(settings, own.clone(), 1, now, now);
    while session.poll_transmit(now).is_some() {}
    for path in [PathKind::Private, PathKind::Tunnel] {
        let _ = session.receive(now, path, bytes);
        let _ = session.receive(now, path, &signed);
        let _ = session.take_report(now, path);
    }
    session.advance(now);
    let _ = session.health(now);
    let mut pmtu = PathMtu::new(1_440, now);
    let _ = pmtu.poll(now, true, 1);
    pmtu.answered(Trial { number: probe.round, size: probe.heard_count as u16 }, now);
    assert!((1_280..=1_440).contains(&pmtu.mtu()));
}

/// A configuration from the control plane, or a request on the gateway's local socket.
pub(crate) fn control(bytes: &[u8]) {
    if let Ok(configuration) = serde_json::from_slice::<GatewayConfiguration>(bytes) {
        let again = serde_json::to_vec(&configuration).expect("what was read is written");
        assert_eq!(serde_json::from_slice::<GatewayConfiguration>(&again).expect("and read again"), configuration);
    }
    let _ = serde_json::from_slice::<Request>(bytes);
}
