//! New sessions under load, between two lanes of our own: whatever is lost of the handshakes, no packet is.

use std::{
    collections::VecDeque,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use boringtun::{
    noise::rate_limiter::RateLimiter,
    x25519::{PublicKey, StaticSecret},
};
use proptest::prelude::*;
use tieline_dataplane::proto::tunnel::{Lane, LaneKeys, MAX_HANDSHAKE, OVERHEAD, Output};

fn end(own: u8, peer: u8) -> Lane {
    let keys =
        LaneKeys { private: [own; 32].into(), peer: PublicKey::from(&StaticSecret::from([peer; 32])), preshared: None };
    let limiter = Arc::new(RateLimiter::new(&PublicKey::from(&keys.private), u64::MAX));
    Lane::new(keys, u32::from(own), at(peer), limiter, Instant::now())
}

fn at(n: u8) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, n], 51_820))
}

/// Two lanes, and what is on its way to each.
struct Pair {
    lanes: [Lane; 2],
    /// Which ports the ends have; another after roaming.
    port: [u16; 2],
    wire: [VecDeque<Vec<u8>>; 2],
    /// Numbers of the packets that came to each.
    came: [Vec<u32>; 2],
    sent: [u32; 2],
}

impl Pair {
    fn put(&mut self, from: usize, output: Option<Vec<u8>>) {
        self.wire[1 - from].extend(output);
    }

    fn send(&mut self, from: usize) {
        let mut packet = [0x45; 100];
        packet[2..4].copy_from_slice(&100_u16.to_be_bytes());
        packet[20..24].copy_from_slice(&self.sent[from].to_be_bytes());
        self.sent[from] += 1;
        let mut out = [0; 100 + OVERHEAD + MAX_HANDSHAKE];
        let output = datagram(self.lanes[from].encapsulate(&packet, 100, &mut out));
        self.put(from, output);
    }

    fn initiate(&mut self, from: usize, lost: bool) {
        let mut out = [0; MAX_HANDSHAKE];
        let output = datagram(self.lanes[from].initiate(&mut out)).filter(|_| !lost);
        self.put(from, output);
    }

    /// Takes one datagram; `lose` a response.
    fn take(&mut self, to: usize, lose: bool) {
        let Some(bytes) = self.wire[to].pop_front().filter(|bytes| !(lose && bytes[0] == 2)) else { return };
        let mut out = [0; 2_048];
        let mut from = at(2 - to as u8);
        from.set_port(self.port[1 - to]);
        let answer = match self.lanes[to].decapsulate(from, &bytes, &mut out) {
            Output::Nothing => None,
            Output::Send(answer) => Some(answer.to_vec()),
            Output::Packet(packet) => {
                self.came[to].push(u32::from_be_bytes(packet[20..24].try_into().unwrap()));
                assert_eq!(self.lanes[to].endpoint(), from, "who is heard is followed");
                None
            }
        };
        self.put(to, answer);
        while let Some(staged) = datagram(self.lanes[to].staged(&mut out)) {
            self.put(to, Some(staged));
        }
    }
}

fn datagram(output: Output<'_>) -> Option<Vec<u8>> {
    match output {
        Output::Send(datagram) => Some(datagram.to_vec()),
        Output::Nothing | Output::Packet(_) => None,
    }
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Send(usize, u8),
    Take(usize, u8),
    Rekey(usize),
    /// The handshake message is lost.
    Fail(usize),
    LoseResponse(usize),
    Roam(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let end = 0..2_usize;
    prop_oneof![
        8 => (end.clone(), 1..40_u8).prop_map(|(end, count)| Step::Send(end, count)),
        8 => (end.clone(), 1..60_u8).prop_map(|(end, count)| Step::Take(end, count)),
        2 => end.clone().prop_map(Step::Rekey),
        1 => end.clone().prop_map(Step::Fail),
        1 => end.clone().prop_map(Step::LoseResponse),
        1 => end.prop_map(Step::Roam),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn no_packet_is_lost_over_any_handshakes(steps in prop::collection::vec(step(), 1..60)) {
        let mut pair = Pair {
            lanes: [end(1, 2), end(2, 1)],
            port: [51_820; 2],
            wire: Default::default(),
            came: Default::default(),
            sent: [0; 2],
        };
        pair.initiate(0, false);
        for to in [1, 0, 1] {
            pair.take(to, false);
        }
        prop_assert!(pair.lanes.iter().all(|lane| lane.handshake_age().is_some()));
        // A session's slot is used again after eight handshakes, of which those that fail count as well.
        let mut handshakes = 0;
        for step in steps {
            let begins = matches!(step, Step::Rekey(_) | Step::Fail(_));
            // Five seconds are between two initiations: the one before has arrived, or is lost.
            if begins && pair.wire.iter().flatten().any(|datagram| datagram[0] < 3) {
                continue;
            }
            if begins && handshakes == 5 {
                // What is on its way arrives, as it does in the two minutes between two of them.
                while pair.wire.iter().any(|wire| !wire.is_empty()) {
                    pair.take(0, false);
                    pair.take(1, false);
                }
                handshakes = 0;
            }
            handshakes += u32::from(begins);
            match step {
                Step::Send(end, count) => (0..count).for_each(|_| pair.send(end)),
                Step::Take(end, count) => (0..count).for_each(|_| pair.take(end, false)),
                Step::Rekey(end) => pair.initiate(end, false),
                Step::Fail(end) => pair.initiate(end, true),
                Step::LoseResponse(end) => {
                    if pair.wire[end].front().is_some_and(|bytes| bytes[0] == 2) {
                        pair.take(end, true);
                    }
                }
                Step::Roam(end) => pair.port[end] += 1,
            }
        }
        while pair.wire.iter().any(|wire| !wire.is_empty()) {
            pair.take(0, false);
            pair.take(1, false);
        }
        for (came, sent) in pair.came.iter().zip([pair.sent[1], pair.sent[0]]) {
            prop_assert_eq!(came, &(0..sent).collect::<Vec<_>>());
        }
    }
}

/// The rekeys of many peers that came at once are spread.
#[test]
fn a_thousand_peers_do_not_rekey_at_once() {
    let keys = |n: u32| {
        let mut private = [7; 32];
        private[..4].copy_from_slice(&n.to_be_bytes());
        PublicKey::from(&StaticSecret::from(private))
    };
    let spread: Vec<Duration> = (0..1_000).map(|n| Lane::rekey_age(&keys(n), n + 1)).collect();
    for second in 80..115 {
        let now = spread.iter().filter(|age| age.as_secs() == second).count();
        assert!((5..70).contains(&now), "{now} of 1000 in second {second}");
    }
    assert!(spread.iter().all(|age| (80..=115).contains(&age.as_secs())));
}
