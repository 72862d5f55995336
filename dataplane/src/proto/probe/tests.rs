//! Two gateways in a simulated world: delay, loss per direction, cuts per direction and channel, stalls, restarts.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    time::{Duration, Instant},
};

use boringtun::x25519::{PublicKey, StaticSecret};
use proptest::prelude::*;
use tieline_openapi::{ids::ConnectionId, v1::PathKind};
use uuid::Uuid;

use super::*;
use crate::proto::path::{Change, PathChooser, Reason};

const TICK_US: u64 = 5_000;
const INTERVAL: Duration = Duration::from_millis(20);
const HOLD_DOWN: Duration = Duration::from_millis(3_000);
const PORTS: u8 = 16;

fn origin() -> Instant {
    #[expect(clippy::disallowed_methods, reason = "an arbitrary origin; only differences matter")]
    Instant::now()
}

fn settings() -> SessionSettings {
    SessionSettings {
        connection: ConnectionId(Uuid::from_u128(7)),
        interval: INTERVAL,
        pace: Duration::ZERO,
        dead_after: 3,
        dead_ports: 2,
        private_ports: Some(PORTS),
        tunnel: true,
        mtu_bytes: 1_440,
        header_bytes: 28,
    }
}

fn keys(own: u8, peer: u8) -> ProbeKeys {
    ProbeKeys::derive(&StaticSecret::from([own; 32]), &PublicKey::from(&StaticSecret::from([peer; 32]))).unwrap()
}

/// One direction of one way.
#[derive(Debug, Clone, Copy)]
struct Wire {
    delay_us: u64,
    jitter_us: u64,
    loss_ppm: u64,
    /// Of two channels, odd and even ports.
    cut: [bool; 2],
}

impl Wire {
    fn cut(&mut self, cut: bool) {
        self.cut = [cut; 2];
    }
}

struct Node {
    session: ProbeSession,
    chooser: PathChooser,
    stalled: bool,
    queue: Vec<(PathKind, Vec<u8>)>,
    changes: Vec<(u64, Change)>,
}

impl Node {
    fn new(own: u8, peer: u8, start: Instant, session: u64) -> Self {
        Self {
            session: ProbeSession::new(settings(), keys(own, peer), session, start, start),
            chooser: PathChooser::new(HOLD_DOWN),
            stalled: false,
            queue: Vec::new(),
            changes: Vec::new(),
        }
    }
}

/// When it arrives, its number, at whom, whether by the tunnel, and its bytes.
type Datagram = (u64, u64, usize, bool, Vec<u8>);

struct World {
    start: Instant,
    us: u64,
    seed: u64,
    nodes: [Node; 2],
    /// By sender, then private and tunnel.
    wires: [[Wire; 2]; 2],
    flight: BinaryHeap<Reverse<Datagram>>,
    sent: u64,
    requests: u64,
    replies: u64,
    /// Bytes of the longest datagram that passes the tunnel.
    mtu: usize,
}

impl World {
    fn new(seed: u64) -> Self {
        let start = origin();
        let private = Wire { delay_us: 4_000, jitter_us: 0, loss_ppm: 0, cut: [false; 2] };
        let tunnel = Wire { delay_us: 9_000, ..private };
        Self {
            start,
            us: 0,
            seed: seed | 1,
            nodes: [Node::new(1, 2, start, 1), Node::new(2, 1, start, 1)],
            wires: [[private, tunnel]; 2],
            flight: BinaryHeap::new(),
            sent: 0,
            requests: 0,
            replies: 0,
            mtu: usize::MAX,
        }
    }

    fn now(&self) -> Instant {
        self.start + Duration::from_micros(self.us)
    }

    fn random(&mut self) -> u64 {
        // xorshift64
        self.seed ^= self.seed << 13;
        self.seed ^= self.seed >> 7;
        self.seed ^= self.seed << 17;
        self.seed
    }

    fn send(&mut self, from: usize, path: PathKind, port: u8, bytes: &[u8]) {
        let wire = self.wires[from][usize::from(path == PathKind::Tunnel)];
        // What tries a size has no chance of its own, so that a seed means what it meant without the search.
        let sized = Probe::decode(bytes).is_ok_and(|probe| matches!(probe.kind, Kind::Size | Kind::SizeReply));
        let (chance, spread) = if sized { (500_000, 0) } else { (self.random() % 1_000_000, self.random()) };
        if wire.cut[usize::from(port % 2)] || chance < wire.loss_ppm {
            return;
        }
        let at = self.us + wire.delay_us + if wire.jitter_us > 0 { spread % wire.jitter_us } else { 0 };
        self.sent += 1;
        self.flight.push(Reverse((at, self.sent, 1 - from, path == PathKind::Tunnel, bytes.to_vec())));
    }

    fn take(&mut self, node: usize, path: PathKind, bytes: &[u8]) {
        let now = self.now();
        if let Received::Reply(reply) = self.nodes[node].session.receive(now, path, bytes) {
            assert!(reply.len() <= bytes.len(), "a reply is no larger than its request");
            self.replies += 1;
            let port = Probe::decode(bytes).unwrap().port;
            self.send(node, path, port, &reply);
        }
        self.choose(node);
    }

    fn choose(&mut self, node: usize) {
        let (now, us) = (self.now(), self.us);
        let Node { session, chooser, changes, .. } = &mut self.nodes[node];
        session.advance(now);
        if let Some(change) = chooser.step(now, session.health(now), true) {
            session.set_carries(Some(change.to));
            changes.push((us, change));
        }
    }

    fn tick(&mut self, node: usize) {
        if self.nodes[node].stalled {
            return;
        }
        let mut queue = std::mem::take(&mut self.nodes[node].queue);
        // A gateway drains the private sockets first.
        queue.sort_by_key(|(path, _)| *path == PathKind::Tunnel);
        for (path, bytes) in queue {
            self.take(node, path, &bytes);
        }
        while let Some(transmit) = {
            let now = self.now();
            self.nodes[node].session.poll_transmit(now)
        } {
            self.requests += 1;
            let mut bytes = transmit.bytes.to_vec();
            bytes.resize(transmit.length, 0);
            if transmit.length <= self.mtu {
                self.send(node, transmit.path, transmit.port, &bytes);
            }
        }
        self.choose(node);
    }

    fn run(&mut self, ms: u64) {
        let until = self.us + ms * 1_000;
        let mut next_tick = self.us.next_multiple_of(TICK_US);
        while next_tick <= until {
            while let Some(Reverse((at, _, node, tunnel, bytes))) =
                self.flight.pop_when(|Reverse((at, ..))| *at < next_tick)
            {
                self.us = at;
                let path = if tunnel { PathKind::Tunnel } else { PathKind::Private };
                if self.nodes[node].stalled {
                    self.nodes[node].queue.push((path, bytes));
                } else {
                    self.take(node, path, &bytes);
                }
            }
            self.us = next_tick;
            self.tick(0);
            self.tick(1);
            next_tick += TICK_US;
        }
    }

    fn chosen(&self) -> [Option<PathKind>; 2] {
        [0, 1].map(|node| self.nodes[node].chooser.chosen())
    }

    fn changes(&self) -> usize {
        self.nodes.iter().map(|node| node.changes.len()).sum()
    }

    fn settled(seed: u64) -> Self {
        let mut world = Self::new(seed);
        world.run(4_000);
        assert_eq!(world.chosen(), [Some(PathKind::Private); 2]);
        world
    }
}

/// Takes the greatest item if it passes a test.
trait PopWhen<T> {
    fn pop_when(&mut self, test: impl FnOnce(&T) -> bool) -> Option<T>;
}

impl<T: Ord> PopWhen<T> for BinaryHeap<T> {
    fn pop_when(&mut self, test: impl FnOnce(&T) -> bool) -> Option<T> {
        if self.peek().is_some_and(test) { self.pop() } else { None }
    }
}

#[test]
fn a_narrow_tunnel_is_found_and_is_no_lossy_one() {
    let mut world = World::new(3);
    world.mtu = 1_400 - 28;
    world.run(30_000);
    let now = world.now();
    for node in &mut world.nodes {
        let found = node.session.path_mtu();
        assert!((1_396..=1_400).contains(&found.mtu()), "{found:?}");
        assert_eq!(found.phase(), crate::proto::pmtu::Phase::Complete);
        let report = node.session.take_report(now, PathKind::Tunnel);
        assert_eq!(report.loss_out_ppm, 0, "what is too long is not lost");
    }
}

#[test]
fn comes_up_on_the_first_way_and_returns_to_the_private_one() {
    let world = World::settled(1);
    for node in &world.nodes {
        let changes: Vec<_> = node.changes.iter().map(|(_, change)| (change.to, change.reason)).collect();
        // The private bundle answers first in this world.
        assert_eq!(changes, [(PathKind::Private, Reason::First)]);
        assert_eq!(node.session.peer_carries(), Some(PathKind::Private));
    }
}

#[test]
fn measures_round_trips_and_loss_per_direction() {
    let mut world = World::settled(3);
    world.wires[0][0].loss_ppm = 100_000;
    world.wires[1][0].loss_ppm = 300_000;
    for node in 0..2 {
        let now = world.now();
        world.nodes[node].session.take_report(now, PathKind::Private);
        world.nodes[node].session.take_report(now, PathKind::Tunnel);
    }
    world.run(4_000);
    let now = world.now();
    let near = |ppm: u32, want: u32| assert!(ppm.abs_diff(want) < 40_000, "{ppm} is not near {want}");
    for (node, out, back) in [(0, 100_000, 300_000), (1, 300_000, 100_000)] {
        let report = world.nodes[node].session.take_report(now, PathKind::Private);
        near(report.loss_out_ppm, out);
        near(report.loss_in_ppm, back);
        assert_eq!(report.rtt_us, Some(8_000));
        assert!(report.sent > 3_000 && report.received < report.sent, "{report:?}");
        let tunnel = world.nodes[node].session.take_report(now, PathKind::Tunnel);
        assert_eq!((tunnel.rtt_us, tunnel.loss_out_ppm, tunnel.loss_in_ppm), (Some(18_000), 0, 0));
        assert!(tunnel.sent.abs_diff(200) <= 1, "{tunnel:?}");
    }
}

#[test]
fn a_cut_of_both_directions_moves_both_senders() {
    let mut world = World::settled(5);
    let cut_at = world.us;
    world.wires[0][0].cut(true);
    world.wires[1][0].cut(true);
    world.run(200);
    for node in &world.nodes {
        let (at, change) = *node.changes.last().unwrap();
        assert_eq!((change.to, change.reason), (PathKind::Tunnel, Reason::PrivateSilent));
        // Three intervals, a round trip of the tunnel, a tick.
        assert!(at - cut_at <= 60_000 + 20_000 + 18_000 + 5_000, "took {} us", at - cut_at);
    }
    let now = world.now();
    let report = world.nodes[0].session.take_report(now, PathKind::Private);
    assert_eq!(report.dead_ports, PORTS);
    world.wires[0][0].cut(false);
    world.wires[1][0].cut(false);
    let mended = world.us;
    world.run(4_000);
    for node in &world.nodes {
        let (at, change) = *node.changes.last().unwrap();
        assert_eq!((change.to, change.reason), (PathKind::Private, Reason::PrivateBetter));
        assert!(at - mended >= 3_000_000);
    }
}

#[test]
fn a_cut_of_one_direction_moves_only_its_sender() {
    let mut world = World::settled(7);
    let cut_at = world.us;
    world.wires[0][0].cut(true);
    world.run(3_000);
    assert_eq!(world.chosen(), [Some(PathKind::Tunnel), Some(PathKind::Private)]);
    let (at, change) = *world.nodes[0].changes.last().unwrap();
    assert_eq!(change.reason, Reason::PrivateSilent);
    assert!(at - cut_at <= 60_000 + 20_000 + 18_000 + 5_000, "took {} us", at - cut_at);
    let now = world.now();
    let report = world.nodes[0].session.take_report(now, PathKind::Private);
    assert!(report.loss_out_ppm > 700_000, "{report:?}");
    assert!(report.loss_in_ppm < 100_000 || report.received == 0, "{report:?}");
}

#[test]
fn a_dead_channel_moves_at_once() {
    let mut world = World::settled(9);
    let cut_at = world.us;
    world.wires[0][0].cut[1] = true;
    world.wires[1][0].cut[1] = true;
    world.run(200);
    for node in &world.nodes {
        let (at, change) = *node.changes.last().unwrap();
        assert_eq!((change.to, change.reason), (PathKind::Tunnel, Reason::PrivateDeadPorts));
        assert!(at - cut_at <= 100_000, "took {} us", at - cut_at);
    }
    // And it does not return while the channel is dead.
    world.run(10_000);
    assert_eq!(world.chosen(), [Some(PathKind::Tunnel); 2]);
}

/// The cut falls into the middle of a round: what was sent before it is heard once more, and no channel is to blame.
#[test]
fn a_round_cut_in_two_is_a_silent_way() {
    for directions in [1, 2] {
        let mut world = World::settled(10);
        for channel in [1, 0] {
            for from in 0..directions {
                world.wires[from][0].cut[channel] = true;
            }
            world.run(20);
        }
        let cut_at = world.us - 20_000;
        world.run(200);
        for node in &world.nodes[..directions] {
            let (at, change) = *node.changes.last().unwrap();
            assert_eq!((change.to, change.reason), (PathKind::Tunnel, Reason::PrivateSilent));
            assert!(at - cut_at <= 60_000 + 20_000 + 18_000 + 5_000, "took {} us", at - cut_at);
        }
    }
}

#[test]
fn both_ways_silent_holds() {
    let mut world = World::settled(11);
    let before = world.changes();
    for wire in world.wires.iter_mut().flatten() {
        wire.cut(true);
    }
    world.run(5_000);
    assert_eq!(world.changes(), before);
    let now = world.now();
    assert_eq!(world.nodes[0].session.health(now), Link { private: Health::Stalled, tunnel: Health::Stalled });
    for wire in world.wires.iter_mut().flatten() {
        wire.cut(false);
    }
    world.run(1_000);
    assert_eq!(world.changes(), before, "and the return of both moves nothing either");
}

#[test]
fn a_restarted_peer_is_taken_at_its_new_session() {
    let mut world = World::settled(13);
    world.nodes[1] = Node::new(2, 1, world.now(), 2);
    let changes = world.nodes[0].changes.len();
    world.run(4_000);
    assert_eq!(world.chosen(), [Some(PathKind::Private); 2]);
    assert_eq!(world.nodes[0].changes.len(), changes, "{:?}", world.nodes[0].changes);
    let now = world.now();
    world.nodes[0].session.take_report(now, PathKind::Private);
    world.run(1_000);
    let now = world.now();
    let report = world.nodes[0].session.take_report(now, PathKind::Private);
    assert_eq!((report.loss_out_ppm, report.loss_in_ppm), (0, 0), "{report:?}");
}

#[test]
fn loss_is_the_senders_matter() {
    let mut world = World::settled(15);
    world.wires[0][0].loss_ppm = 60_000;
    world.run(1_200);
    assert_eq!(world.chosen(), [Some(PathKind::Tunnel), Some(PathKind::Private)]);
    assert_eq!(world.nodes[0].changes.last().unwrap().1.reason, Reason::PrivateLossy);
}

#[test]
fn a_slow_bundle_is_left_and_a_jitter_is_not() {
    let mut world = World::settled(17);
    world.wires[0][0].jitter_us = 5_000;
    world.run(3_000);
    assert_eq!(world.chosen(), [Some(PathKind::Private); 2]);
    world.wires[0][0].delay_us += 12_000;
    world.run(2_200);
    assert_eq!(world.chosen(), [Some(PathKind::Tunnel); 2], "a round trip has two directions, so both see it");
    assert_eq!(world.nodes[0].changes.last().unwrap().1.reason, Reason::PrivateSlow);
}

#[test]
fn strangers_get_no_answer() {
    let start = origin();
    let mut victim = ProbeSession::new(settings(), keys(1, 2), 1, start, start);
    let mut stranger = ProbeSession::new(settings(), keys(3, 1), 9, start, start);
    let transmit = stranger.poll_transmit(start).unwrap();
    assert!(matches!(victim.receive(start, transmit.path, &transmit.bytes), Received::Ignored));
    // Its own words thrown back at it, and a peer's words on the other way, count for nothing either.
    let own = victim.poll_transmit(start).unwrap();
    assert!(matches!(victim.receive(start, own.path, &own.bytes), Received::Ignored));
    let mut peer = ProbeSession::new(settings(), keys(2, 1), 1, start, start);
    let fair = peer.poll_transmit(start).unwrap();
    assert!(matches!(victim.receive(start, PathKind::Tunnel, &fair.bytes), Received::Ignored));
    assert!(matches!(victim.receive(start, PathKind::Private, &fair.bytes), Received::Reply(_)));
    assert!(matches!(victim.receive(start, PathKind::Private, &fair.bytes), Received::Ignored), "a replay");
    assert!(ProbeKeys::derive(&StaticSecret::from([1; 32]), &PublicKey::from([0; 32])).is_none());
}

/// What befalls the world, and for how many milliseconds.
#[derive(Debug, Clone, Copy)]
enum Fault {
    Cut { from: usize, way: usize, channel: usize },
    Mend,
    Stall(usize),
    Wake,
    Loss { from: usize, way: usize, ppm: u64 },
    Restart(usize),
    Jitter(u64),
}

fn fault() -> impl Strategy<Value = Fault> {
    prop_oneof![
        3 => (0..2_usize, 0..2_usize, 0..2_usize).prop_map(|(from, way, channel)| Fault::Cut { from, way, channel }),
        2 => Just(Fault::Mend),
        1 => (0..2_usize).prop_map(Fault::Stall),
        2 => Just(Fault::Wake),
        1 => (0..2_usize, 0..2_usize, 0..200_000_u64).prop_map(|(from, way, ppm)| Fault::Loss { from, way, ppm }),
        1 => (0..2_usize).prop_map(Fault::Restart),
        1 => (0..15_000_u64).prop_map(Fault::Jitter),
    ]
}

fn befall(world: &mut World, schedule: &[(Fault, u64)]) {
    let mut session = 1;
    for &(fault, ms) in schedule {
        match fault {
            Fault::Cut { from, way, channel } => world.wires[from][way].cut[channel] = true,
            Fault::Mend => world.wires.iter_mut().flatten().for_each(|wire| {
                wire.cut(false);
                wire.loss_ppm = 0
            }),
            Fault::Stall(node) => world.nodes[node].stalled = true,
            Fault::Wake => world.nodes.iter_mut().for_each(|node| node.stalled = false),
            Fault::Loss { from, way, ppm } => world.wires[from][way].loss_ppm = ppm,
            Fault::Restart(node) => {
                session += 1;
                let (own, peer) = if node == 0 { (1, 2) } else { (2, 1) };
                world.nodes[node] = Node::new(own, peer, world.now(), session);
            }
            Fault::Jitter(us) => world.wires.iter_mut().flatten().for_each(|wire| wire.jitter_us = us),
        }
        world.run(ms);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Whatever happened, when all is well again both return to the private bundle; and the same world does the same again.
    #[test]
    fn all_ends_well(seed in any::<u64>(), schedule in prop::collection::vec((fault(), 1..2_500_u64), 1..12)) {
        let mut world = World::settled(seed);
        befall(&mut world, &schedule);
        befall(&mut world, &[(Fault::Mend, 1), (Fault::Wake, 1), (Fault::Jitter(0), 5_500)]);
        prop_assert_eq!(world.chosen(), [Some(PathKind::Private); 2]);
        prop_assert!(world.replies <= 2 * world.requests);
        let mut again = World::settled(seed);
        befall(&mut again, &schedule);
        befall(&mut again, &[(Fault::Mend, 1), (Fault::Wake, 1), (Fault::Jitter(0), 5_500)]);
        for (one, other) in world.nodes.iter().zip(&again.nodes) {
            prop_assert_eq!(&one.changes, &other.changes);
        }
    }

    /// A stalled peer, and a stalled self, move nothing: however long, wherever in the interval, with whatever jitter.
    #[test]
    fn stalls_move_nothing(seed in any::<u64>(), node in 0..2_usize, offset in 0..40_u64, stall in 1..3_000_u64, jitter in 0..3_000_u64) {
        let mut world = World::settled(seed);
        let before = world.changes();
        befall(&mut world, &[(Fault::Jitter(jitter), 200 + offset), (Fault::Stall(node), stall), (Fault::Wake, 2_000)]);
        prop_assert_eq!(world.changes(), before, "{:?}", world.nodes.iter().map(|node| &node.changes).collect::<Vec<_>>());
    }

    #[test]
    fn decoding_takes_any_bytes(mut bytes in prop::collection::vec(any::<u8>(), 0..200), as_probe in any::<bool>()) {
        if as_probe {
            bytes.resize(PROBE_LEN, 0);
            bytes[..5].copy_from_slice(b"TLPB\x01");
            bytes[5] %= 4;
            bytes[6] %= 3;
        }
        let start = origin();
        let mut session = ProbeSession::new(settings(), keys(1, 2), 1, start, start);
        let _ = Probe::decode(&bytes);
        prop_assert!(matches!(session.receive(start, PathKind::Private, &bytes), Received::Ignored));
    }

    #[test]
    fn what_is_encoded_is_decoded(numbers in any::<[u64; 5]>(), heard_ports in any::<u32>(), heard_count in any::<u32>(), port in 0..32_u8, bits in 0..16_u8, flip in 0..PROBE_LEN * 8) {
        let [session, round, sent_ns, received_ns, stamped_ns] = numbers;
        let probe = Probe {
            kind: if bits & 1 == 0 { Kind::Request } else { Kind::Reply },
            path: if bits & 2 == 0 { PathKind::Private } else { PathKind::Tunnel },
            port, connection: settings().connection, session, round, sent_ns, received_ns, stamped_ns, heard_count,
            pace_ms: 7,
            report: HeardReport { heard_ports, valid: bits & 4 == 0, tunnel_heard: bits & 8 == 0, carries: Some(PathKind::Tunnel) },
        };
        let mut bytes = probe.encode(&keys(1, 2));
        prop_assert_eq!(Probe::decode(&bytes), Ok(probe));
        prop_assert!(keys(2, 1).verify(&bytes));
        prop_assert!(!keys(1, 2).verify(&bytes));
        bytes[flip / 8] ^= 1 << (flip % 8);
        prop_assert!(!keys(2, 1).verify(&bytes), "one flipped bit is seen");
    }
}
