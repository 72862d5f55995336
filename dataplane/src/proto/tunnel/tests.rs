//! The lane against another one, without a network.

use proptest::prelude::*;

use super::*;

fn origin() -> Instant {
    #[expect(clippy::disallowed_methods, reason = "an arbitrary origin; only differences matter")]
    Instant::now()
}

fn pair(now: Instant) -> (Lane, Lane) {
    let (a, b) = (StaticSecret::from([1; 32]), StaticSecret::from([2; 32]));
    let (pa, pb) = (PublicKey::from(&a), PublicKey::from(&b));
    let at = |n: u8| SocketAddr::from(([192, 0, 2, n], 51_820));
    let preshared = Some(Zeroizing::new([9; 32]));
    let limiter = |key: &PublicKey| Arc::new(RateLimiter::new(key, 100));
    let keys = LaneKeys { private: a, peer: pb, preshared: preshared.clone() };
    let a = Lane::new(keys, 7, at(2), limiter(&pa), now);
    (a, Lane::new(LaneKeys { private: b, peer: pa, preshared }, 9, at(1), limiter(&pb), now))
}

fn datagram(output: Output<'_>) -> Vec<u8> {
    match output {
        Output::Send(datagram) => datagram.to_vec(),
        other @ (Output::Nothing | Output::Packet(_)) => panic!("nothing to send: {other:?}"),
    }
}

fn ipv4(source: [u8; 4], length: usize) -> Vec<u8> {
    let mut packet = vec![0; length];
    packet[0] = 0x45;
    packet[2..4].copy_from_slice(&u16::try_from(length).unwrap().to_be_bytes());
    packet[12..16].copy_from_slice(&source);
    packet
}

#[test]
fn knocks_at_once_and_carries() {
    let now = origin();
    let (mut a, mut b) = pair(now);
    let (mut x, mut y) = ([0; 2_048], [0; 2_048]);
    let from = |n: u8| SocketAddr::from(([198, 51, 100, n], 1));
    let initiation = datagram(a.tick(now, &mut x));
    assert_eq!(addressed(&initiation), Some(Addressed::Initiation));
    let (private, public) = (StaticSecret::from([2; 32]), PublicKey::from(&StaticSecret::from([2; 32])));
    assert_eq!(
        initiator(&private, &public, &initiation),
        Some(*PublicKey::from(&StaticSecret::from([1; 32])).as_bytes())
    );
    let response = datagram(b.decapsulate(from(1), &initiation, &mut y));
    assert_eq!(addressed(&response), Some(Addressed::Handshake(7)));
    assert_eq!(b.endpoint(), from(1), "the responder follows the address that it was authentically called from");
    let keepalive = datagram(a.decapsulate(from(2), &response, &mut x));
    assert!(a.handshake_age().is_some());
    assert!(matches!(b.decapsulate(from(1), &keepalive, &mut y), Output::Nothing));
    let packet = ipv4([10, 0, 0, 1], 1_000);
    let datagram = datagram(a.encapsulate(&packet, packet.len(), &mut x));
    assert_eq!(datagram.len(), packet.len() + OVERHEAD);
    match b.decapsulate(from(1), &datagram, &mut y) {
        Output::Packet(inner) => assert_eq!(inner, &packet[..]),
        other @ (Output::Nothing | Output::Send(_)) => panic!("{other:?}"),
    }
    assert!(matches!(b.decapsulate(from(3), &datagram, &mut y), Output::Nothing));
    assert_eq!(b.counters.drops.replayed, 1);
    assert_eq!(b.endpoint(), from(1), "a replay from elsewhere moves nothing");
}

#[test]
fn is_calm_while_a_session_is_all_there_is() {
    let now = origin();
    let (mut a, mut b) = pair(now);
    let (mut x, mut y) = ([0; 2_048], [0; 2_048]);
    let from = SocketAddr::from(([198, 51, 100, 1], 1));
    assert!(!a.is_calm(), "it knocks");
    let initiation = datagram(a.tick(now, &mut x));
    assert!(!a.is_calm(), "it waits for an answer");
    let packet = ipv4([10, 0, 0, 1], 100);
    assert!(matches!(a.encapsulate(&packet, packet.len(), &mut x), Output::Nothing));
    let response = datagram(b.decapsulate(from, &initiation, &mut y));
    datagram(a.decapsulate(from, &response, &mut x));
    assert!(!a.is_calm(), "a packet waits");
    datagram(a.staged(&mut x));
    assert!(a.is_calm());
    a.configure(from, Some(Zeroizing::new([8; 32])));
    assert!(!a.is_calm(), "another key is tried");
}

#[test]
fn knocks_often_and_then_every_second_until_answered() {
    let now = origin();
    let (mut a, _) = pair(now);
    let mut out = [0; 2_048];
    let mut knocks = Vec::new();
    for ms in (0..10_000).step_by(50) {
        if let Output::Send(datagram) = a.tick(now + Duration::from_millis(ms), &mut out) {
            assert_eq!(addressed(datagram), Some(Addressed::Initiation));
            knocks.push(ms);
        }
    }
    let beginning: Vec<_> = (0..5_250).step_by(250).collect();
    assert_eq!(knocks, [beginning, vec![6_000, 7_000, 8_000, 9_000]].concat());
}

proptest! {
    #[test]
    fn takes_any_datagram(bytes in prop::collection::vec(any::<u8>(), 0..300), kind in 0..6_u8) {
        let (mut lane, _) = pair(origin());
        let mut bytes = bytes;
        if bytes.len() >= 4 {
            bytes[..4].copy_from_slice(&[kind, 0, 0, 0]);
        }
        let mut out = [0; 2_048];
        let _ = addressed(&bytes);
        let output = lane.decapsulate(SocketAddr::from(([192, 0, 2, 1], 1)), &bytes, &mut out);
        prop_assert!(matches!(output, Output::Nothing));
    }
}

/// Two lanes with nothing between them, stepped by hand.
struct Wire {
    lanes: [Lane; 2],
    now: Instant,
    /// Numbers of the packets that came out at each end.
    got: [Vec<u32>; 2],
}

impl Wire {
    fn new() -> Self {
        let now = origin();
        let (a, b) = pair(now);
        Self { lanes: [a, b], now, got: [Vec::new(), Vec::new()] }
    }

    /// Takes a datagram to lane `to`, and all that follows from it to where it goes. A handshake message is lost where
    /// `lose` says so.
    fn deliver(&mut self, mut to: usize, mut datagram: Vec<u8>, lose: bool) {
        let from = SocketAddr::from(([192, 0, 2, 9], 9));
        loop {
            if lose && !is_data(&datagram) {
                return;
            }
            let mut out = [0; 2_048];
            match self.lanes[to].decapsulate(from, &datagram, &mut out) {
                Output::Nothing => return,
                Output::Packet(packet) => {
                    self.got[to].push(u32::from_be_bytes(packet[20..24].try_into().unwrap()));
                    return;
                }
                Output::Send(answer) => {
                    datagram = answer.to_vec();
                    to = 1 - to;
                }
            }
        }
    }

    fn tick(&mut self, lose: bool) {
        self.now += TICK;
        for n in 0..2 {
            let mut out = [0; 2_048];
            if let Output::Send(datagram) = self.lanes[n].tick(self.now, &mut out) {
                let datagram = datagram.to_vec();
                self.deliver(1 - n, datagram, lose);
            }
        }
    }

    /// A packet on its way.
    fn packet(&mut self, from: usize, number: u32) -> Vec<u8> {
        let mut packet = ipv4([10, 0, 0, from as u8], 100);
        packet[20..24].copy_from_slice(&number.to_be_bytes());
        let mut out = [0; 2_048];
        let datagram = datagram(self.lanes[from].encapsulate(&packet, packet.len(), &mut out));
        assert!(is_data(&datagram), "there is a session all the time");
        datagram
    }

    fn configure(&mut self, n: usize, preshared: [u8; 32]) {
        let endpoint = self.lanes[n].endpoint();
        self.lanes[n].configure(endpoint, Some(Zeroizing::new(preshared)));
    }
}

proptest! {
    /// Both ends change to a new preshared key, each when it learns of it, and one of them learns of another one right after;
    /// handshakes are lost meanwhile.
    #[test]
    fn a_new_preshared_key_costs_no_packet(
        at in [0..40_u32, 0..40_u32],
        again in 0..60_u32,
        losses in prop::collection::vec(any::<bool>(), 60),
    ) {
        let mut wire = Wire::new();
        wire.tick(false);
        for step in 0..500_u32 {
            for (n, at) in at.into_iter().enumerate() {
                if step == at {
                    wire.configure(n, [33; 32]);
                }
                if step == at.max(again) + 1 {
                    wire.configure(n, [44; 32]);
                }
            }
            let on_the_way = [wire.packet(0, step), wire.packet(1, step)];
            wire.tick(losses.get(step as usize).copied().unwrap_or(false));
            for (from, datagram) in on_the_way.into_iter().enumerate() {
                wire.deliver(1 - from, datagram, false);
            }
        }
        for (n, got) in wire.got.iter().enumerate() {
            prop_assert_eq!(got, &(0..500).collect::<Vec<_>>());
            let lane = &wire.lanes[n];
            prop_assert!(!lane.is_changing(), "lane {} still waits", n);
            prop_assert_eq!(lane.preshared().map(|key| **key), Some([44; 32]));
            prop_assert_eq!(lane.counters.drops.no_session, 0);
        }
    }
}

/// A lane as a gateway makes it that starts while the key is being changed.
fn begun(wire: &Wire, former: Option<[u8; 32]>, wanted: [u8; 32]) -> Lane {
    let (private, peer) = (StaticSecret::from([1; 32]), PublicKey::from(&StaticSecret::from([2; 32])));
    let limiter = Arc::new(RateLimiter::new(&PublicKey::from(&private), 100));
    let endpoint = SocketAddr::from(([192, 0, 2, 2], 51_820));
    let keys = LaneKeys { private, peer, preshared: former.map(Zeroizing::new) };
    let mut lane = Lane::new(keys, 11, endpoint, limiter, wire.now);
    lane.configure(endpoint, Some(Zeroizing::new(wanted)));
    lane
}

/// One end starts while the key is being changed, and the other has not heard of the change, for minutes, or has had the new
/// key for long, or lies in between: there is a tunnel, and by the new key as soon as both have it.
#[test]
fn either_key_is_good_while_it_is_changed() {
    for (has, learns) in [(Some([9; 32]), true), (Some([9; 32]), false), (None, true)] {
        let mut wire = Wire::new();
        wire.lanes[0] = begun(&wire, Some([9; 32]), [33; 32]);
        if has.is_none() {
            wire.configure(1, [33; 32]);
        }
        for step in 0..1_200 {
            if learns && step == 20 {
                wire.configure(1, [33; 32]);
            }
            wire.tick(false);
            if step == 19 && has.is_some() {
                assert!(wire.lanes[0].handshake_age().is_some() && wire.lanes[0].is_changing(), "by the key before");
            }
        }
        assert!(wire.lanes.iter().all(|lane| lane.handshake_age().is_some()), "{has:?}");
        assert_eq!(wire.lanes.iter().any(Lane::is_changing), !learns, "{has:?}");
        // The other end has sessions that were answered and never used; the one in use is not forgotten for them.
        for from in 0..2 {
            let datagram = wire.packet(from, 7);
            wire.deliver(1 - from, datagram, false);
            assert_eq!(wire.got[1 - from], [7], "{has:?}");
        }
    }
}

/// Without a session for long, both keys are tried anew: the peer may have been away all the time, and has the one before.
#[test]
fn a_change_outlives_a_peer_that_is_away() {
    let mut wire = Wire::new();
    wire.lanes[0] = begun(&wire, Some([9; 32]), [33; 32]);
    for _ in 0..2_000 {
        let mut out = [0; 2_048];
        wire.now += TICK;
        let _ = wire.lanes[0].tick(wire.now, &mut out);
    }
    assert!(wire.lanes[0].handshake_age().is_none() && wire.lanes[0].is_changing());
    for _ in 0..100 {
        wire.tick(false);
    }
    assert!(wire.lanes[0].handshake_age().is_some(), "by the key before");
    wire.configure(1, [33; 32]);
    for _ in 0..1_000 {
        wire.tick(false);
    }
    assert!(wire.lanes.iter().all(|lane| lane.handshake_age().is_some() && !lane.is_changing()));
}

#[test]
fn what_is_set_by_hand_ends_with_the_next_configuration() {
    let mut wire = Wire::new();
    wire.tick(false);
    let (elsewhere, at) = (SocketAddr::from(([198, 51, 100, 7], 7)), SocketAddr::from(([192, 0, 2, 2], 51_820)));
    let lane = &mut wire.lanes[0];
    lane.set_by_hand(None, None, None);
    assert!(!lane.is_drifted(), "nothing was set");
    lane.set_by_hand(Some(elsewhere), None, Some(0));
    assert!(lane.is_drifted() && lane.is_changing() && lane.keepalive_s() == 0 && lane.endpoint() == elsewhere);
    let preshared = lane.preshared().cloned();
    lane.configure(at, preshared);
    assert!(!lane.is_drifted() && lane.keepalive_s() == KEEPALIVE_S && lane.endpoint() == at);
}

/// Where a peer's kernel has a second interface, the session with its first goes on there until the second makes one.
#[test]
fn a_session_with_a_peers_kernel_stays_where_it_is() {
    let elsewhere = SocketAddr::from(([192, 0, 2, 2], 52_001));
    for (patient, proven) in [(true, true), (true, false), (false, true)] {
        let mut wire = Wire::new();
        if patient {
            wire.lanes[0].be_patient();
        }
        wire.tick(false);
        let at = wire.lanes[0].endpoint();
        let datagram = wire.packet(1, 7);
        wire.deliver(0, datagram, false);
        assert!(wire.lanes[0].is_proven());
        if !proven {
            wire.lanes[0].forget(wire.now);
        }
        let preshared = wire.lanes[0].preshared().cloned();
        wire.lanes[0].configure(elsewhere, preshared);
        let stays = patient && proven;
        assert_eq!(wire.lanes[0].endpoint(), if stays { at } else { elsewhere }, "{patient} {proven}");
        if stays {
            // Once nothing is left of the session, it goes where the configuration says.
            wire.lanes[0].machines.restart();
            let mut out = [0; 2_048];
            for _ in 0..=RENEW.as_millis() / TICK.as_millis() {
                wire.now += TICK;
                let _ = wire.lanes[0].tick(wire.now, &mut out);
            }
            assert_eq!(wire.lanes[0].endpoint(), elsewhere);
        }
    }
}
