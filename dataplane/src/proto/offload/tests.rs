//! Split, seal, reorder, lose, open, coalesce: what comes out is what went in, in the order of each flow, never twice.

use std::{net::SocketAddr, sync::Arc, time::Instant};

use boringtun::{
    noise::rate_limiter::RateLimiter,
    x25519::{PublicKey, StaticSecret},
};
use proptest::prelude::*;

use super::{
    coalesce::{Coalescer, Joinable},
    ecn,
    headers::Headers,
    split::{SLACK, Split},
    vnet::{self, Kind, VnetHeader},
};
use crate::proto::tunnel::{Lane, LaneKeys, MAX_HANDSHAKE, OVERHEAD, Output};

const MTU: usize = 1_420;

/// One flow's fixed part.
#[derive(Debug, Clone, Copy)]
struct Flow {
    v6: bool,
    tcp: bool,
    number: u8,
    fragments_forbidden: bool,
    options: usize,
}

/// What a host hands to the TUN device at once.
#[derive(Debug, Clone)]
struct Sending {
    flow: usize,
    /// Bytes of each segment.
    segment: usize,
    payload: usize,
    flags: u8,
    /// Bits of the first packet to damage, after its checksum was made.
    damage: Option<usize>,
    /// What happens to the datagram of each segment, taken in turn.
    fate: Vec<Fate>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Arrives,
    Lost,
    Twice,
    Late,
}

fn checksum(sum: u32, bytes: &[u8]) -> u32 {
    bytes.chunks(2).fold(sum, |sum, word| sum + u32::from(u16::from_be_bytes([word[0], *word.get(1).unwrap_or(&0)])))
}

fn folded(mut sum: u32) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    u16::try_from(sum).unwrap()
}

impl Flow {
    /// A packet with right checksums, put together from the RFCs and nothing of the code under test.
    fn packet(self, sequence: u32, id: u16, flags: u8, payload: &[u8]) -> Vec<u8> {
        let mut transport = vec![0, self.number, 0, 80];
        if self.tcp {
            transport.extend(sequence.to_be_bytes());
            transport.extend([0, 0, 0, 9]);
            transport.extend([u8::try_from(5 + self.options).unwrap() << 4, flags, 1, 2, 0, 0, 0, 0]);
            transport.extend(std::iter::repeat_n(1, self.options * 4));
        } else {
            transport.extend(u16::try_from(8 + payload.len()).unwrap().to_be_bytes());
            transport.extend([0, 0]);
        }
        transport.extend(payload);
        let (protocol, field) = if self.tcp { (6, 16) } else { (17, 6) };
        let length = u32::try_from(transport.len()).unwrap();
        let ip = if self.v6 {
            let mut ip = vec![0x60, 0, 0, 7];
            ip.extend(u16::try_from(transport.len()).unwrap().to_be_bytes());
            ip.extend([protocol, 60]);
            ip.extend([0xfd; 15]);
            ip.extend([self.number; 17]);
            ip
        } else {
            let mut ip = vec![0x45, 0x02];
            ip.extend(u16::try_from(20 + transport.len()).unwrap().to_be_bytes());
            ip.extend(id.to_be_bytes());
            ip.extend([if self.fragments_forbidden { 0x40 } else { 0 }, 0, 60, protocol, 0, 0]);
            ip.extend([10, 0, 0, self.number, 10, 1, 1, 2]);
            let sum = !folded(checksum(0, &ip));
            ip[10..12].copy_from_slice(&sum.to_be_bytes());
            ip
        };
        let addresses = if self.v6 { &ip[8..40] } else { &ip[12..20] };
        let sum = checksum(checksum(u32::from(protocol) + length, addresses), &transport);
        let sum = if folded(sum) == 0xffff && !self.tcp { 0xffff } else { !folded(sum) };
        transport[field..field + 2].copy_from_slice(&sum.to_be_bytes());
        [ip, transport].concat()
    }

    fn headers(self) -> usize {
        (if self.v6 { 40 } else { 20 }) + if self.tcp { 20 + self.options * 4 } else { 8 }
    }

    /// The packet as a device with checksum offload gets it, and its header.
    fn offloaded(self, packet: &[u8], segment: usize) -> (VnetHeader, Vec<u8>) {
        let start = if self.v6 { 40 } else { 20 };
        let (field, protocol) = if self.tcp { (16, 6) } else { (6, 17) };
        let mut packet = packet.to_vec();
        let addresses = if self.v6 { &packet[8..40] } else { &packet[12..20] };
        let sum = folded(checksum(protocol + u32::try_from(packet.len() - start).unwrap(), addresses));
        packet[start + field..start + field + 2].copy_from_slice(&sum.to_be_bytes());
        let many = packet.len() - self.headers() > segment;
        let kind = match (self.tcp, self.v6) {
            _ if !many => Kind::Single,
            (true, false) => Kind::Tcp4,
            (true, true) => Kind::Tcp6,
            (false, _) => Kind::Udp,
        };
        let header = VnetHeader {
            needs_checksum: true,
            kind,
            segment: if many { u16::try_from(segment).unwrap() } else { 0 },
            checksum_start: u16::try_from(start).unwrap(),
            checksum_offset: u16::try_from(field).unwrap(),
            ..VnetHeader::default()
        };
        (header, packet)
    }
}

fn flow() -> impl Strategy<Value = Flow> {
    (any::<bool>(), any::<bool>(), 1..4_u8, any::<bool>(), 0..4_usize).prop_map(
        |(v6, tcp, number, fragments_forbidden, options)| Flow { v6, tcp, number, fragments_forbidden, options },
    )
}

fn sending() -> impl Strategy<Value = Sending> {
    let fate =
        prop_oneof![12 => Just(Fate::Arrives), 1 => Just(Fate::Lost), 1 => Just(Fate::Twice), 1 => Just(Fate::Late)];
    let flags = prop_oneof![8 => Just(0x10_u8), 2 => Just(0x18), 1 => Just(0x11), 1 => Just(0x02), 1 => Just(0x90)];
    let payload = prop_oneof![Just(0_usize), 1..200_usize, 1..30_000_usize];
    let damage = prop_oneof![6 => Just(None), 1 => (0..4_000_usize).prop_map(Some)];
    (0..4_usize, 64..1_360_usize, payload, flags, damage, prop::collection::vec(fate, 1..40)).prop_map(
        |(flow, segment, payload, flags, damage, fate)| Sending { flow, segment, payload, flags, damage, fate },
    )
}

fn origin() -> Instant {
    #[expect(clippy::disallowed_methods, reason = "an arbitrary origin; only differences matter")]
    Instant::now()
}

/// Two lanes with a session.
fn tunnel() -> (Lane, Lane) {
    let (now, at) = (origin(), |n: u8| SocketAddr::from(([192, 0, 2, n], 51_820)));
    let (a, b) = (StaticSecret::from([1; 32]), StaticSecret::from([2; 32]));
    let (pa, pb) = (PublicKey::from(&a), PublicKey::from(&b));
    let limiter = |key| Arc::new(RateLimiter::new(key, 100));
    let mut a = Lane::new(LaneKeys { private: a, peer: pb, preshared: None }, 1, at(2), limiter(&pa), now);
    let mut b = Lane::new(LaneKeys { private: b, peer: pa, preshared: None }, 2, at(1), limiter(&pb), now);
    let (mut x, mut y) = ([0; 256], [0; 256]);
    let Output::Send(initiation) = a.tick(now, &mut x) else { panic!() };
    let Output::Send(response) = b.decapsulate(at(1), initiation, &mut y) else { panic!() };
    let Output::Send(keepalive) = a.decapsulate(at(2), response, &mut x) else { panic!() };
    assert!(matches!(b.decapsulate(at(1), keepalive, &mut y), Output::Nothing));
    (a, b)
}

/// Cuts what the device gives, and hands each packet with its padding to `take`.
fn cut(header: &VnetHeader, packet: &[u8], mtu: usize, mut take: impl FnMut(&[u8], usize)) {
    let mut buffer = packet.to_vec();
    buffer.extend([0xaa; SLACK]);
    let mut split = Split::new(header, &mut buffer, packet.len(), mtu).unwrap();
    while let Some(segment) = split.next() {
        take(segment.padded, segment.length);
    }
}

/// What a packet is known by when its identification means nothing (RFC 6864, section 4.1).
fn known_by(packet: &[u8]) -> Vec<u8> {
    let mut packet = packet.to_vec();
    if packet[0] >> 4 == 4 && packet[6] & 0x40 != 0 {
        // The header's checksum covers it.
        let whole = folded(checksum(0, &packet[..20])) == 0xffff;
        if whole {
            packet[4..6].fill(0);
            packet[10..12].fill(0);
        }
    }
    packet
}

/// What the kernel makes of the writes: their packets, in order.
fn written(coalescer: &mut Coalescer, arena: &mut [u8]) -> (Vec<Vec<u8>>, usize) {
    let (mut all, mut writes) = (Vec::new(), 0);
    for group in 0..coalescer.len() {
        let before = arena.to_vec();
        let header = VnetHeader::decode(&coalescer.join(group, arena).encode()).unwrap();
        let bytes: Vec<u8> = coalescer.pieces(group).flat_map(|range| arena[range].to_vec()).collect();
        writes += 1;
        if header.kind == Kind::Single {
            all.push(bytes);
        } else {
            cut(&header, &bytes, 0, |packet, length| all.push(packet[..length].to_vec()));
        }
        coalescer.part(group, arena);
        assert_eq!(arena, before, "parting undoes joining");
    }
    (all, writes)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn what_comes_out_is_what_went_in(
        flows in prop::collection::vec(flow(), 4),
        sendings in prop::collection::vec(sending(), 1..12),
        tcp4 in any::<bool>(),
    ) {
        let (mut a, mut b) = tunnel();
        let from = SocketAddr::from(([192, 0, 2, 1], 51_820));
        let (mut sequence, mut id) = (vec![0xffff_f000_u32; 4], vec![0xfff0_u16; 4]);
        let (mut sent, mut late) = (Vec::<(usize, Vec<u8>)>::new(), Vec::new());
        let mut arriving: Vec<Vec<u8>> = Vec::new();
        let mut arrives: Vec<usize> = Vec::new();
        for sending in sendings {
            let flow = flows[sending.flow];
            let payload: Vec<u8> = (0..sending.payload).map(|n| (n * 7 + n / 251) as u8).collect();
            let (first, at) = (sequence[sending.flow], id[sending.flow]);
            let (header, packet) = flow.offloaded(&flow.packet(first, at, sending.flags, &payload), sending.segment);
            // What must come out of the cut, made independently.
            let mut expected = Vec::new();
            let mut parts: Vec<&[u8]> = payload.chunks(sending.segment).collect();
            if parts.is_empty() {
                parts.push(&[]);
            }
            for (n, part) in parts.iter().enumerate() {
                let mut flags = sending.flags;
                if n + 1 < parts.len() { flags &= !0x09; }
                if n > 0 { flags &= !0x80; }
                let offset = u32::try_from(n * sending.segment).unwrap();
                let id = at.wrapping_add(u16::try_from(n).unwrap());
                expected.push(flow.packet(first.wrapping_add(offset), id, flags, part));
            }
            sequence[sending.flow] = first.wrapping_add(u32::try_from(sending.payload).unwrap());
            id[sending.flow] = at.wrapping_add(u16::try_from(parts.len()).unwrap());
            let mut cut_packets = Vec::new();
            cut(&header, &packet, MTU, |padded, length| {
                assert!(padded.len() == length.next_multiple_of(16).min(MTU.max(length)));
                assert!(padded[length..].iter().all(|byte| *byte == 0));
                cut_packets.push((padded.to_vec(), length));
            });
            prop_assert_eq!(cut_packets.iter().map(|(p, l)| p[..*l].to_vec()).collect::<Vec<_>>(), expected);
            for (n, (mut packet, length)) in cut_packets.into_iter().enumerate() {
                if let Some(bit) = sending.damage.filter(|_| n == 0) {
                    // Not the version and the lengths: the lane itself refuses those.
                    let bit = 64 + bit % ((length - 8) * 8);
                    packet[bit / 8] ^= 1 << (bit % 8);
                }
                let mut out = vec![0; packet.len() + OVERHEAD + MAX_HANDSHAKE];
                let Output::Send(datagram) = a.encapsulate(&packet, length, &mut out) else { panic!() };
                let index = sent.len();
                sent.push((sending.flow, packet[..length].to_vec()));
                let mut go = |datagram: &[u8]| { arriving.push(datagram.to_vec()); arrives.push(index) };
                match sending.fate[n % sending.fate.len()] {
                    Fate::Arrives => go(datagram),
                    Fate::Lost => {}
                    Fate::Twice => { go(datagram); go(datagram) }
                    Fate::Late => late.push((index, datagram.to_vec())),
                }
            }
            if let Some((index, datagram)) = late.pop() {
                arriving.push(datagram);
                arrives.push(index);
            }
        }
        let mut arena = vec![0; arriving.iter().map(|datagram| datagram.len() + MAX_HANDSHAKE).sum::<usize>() + 64];
        let (mut used, mut coalescer, mut opened) = (0, Coalescer::new(arriving.len()), Vec::new());
        for (datagram, index) in arriving.iter().zip(arrives) {
            let Output::Packet(packet) = b.decapsulate(from, datagram, &mut arena[used..]) else { continue };
            let length = packet.len();
            prop_assert_eq!(&packet, &&sent[index].1[..]);
            opened.push(index);
            coalescer.push(&arena, used..used + length, Joinable { tcp4, ..Joinable::ALL });
            used += length;
        }
        let mut once = opened.clone();
        once.sort_unstable();
        once.dedup();
        prop_assert_eq!(once.len(), opened.len(), "nothing is opened twice");
        let (out, writes) = written(&mut coalescer, &mut arena);
        prop_assert!(writes <= out.len());
        prop_assert_eq!(out.len(), opened.len());
        // In the order of each flow: take the flows out one by one. What a damaged header makes of a packet's flow, it is in.
        let key = |packet: &[u8]| Headers::read(packet).map(|headers| {
            let addresses = if headers.v6 { &packet[8..40] } else { &packet[12..20] };
            (headers.transport.protocol(), addresses.to_vec(), packet[headers.transport_at..headers.transport_at + 4].to_vec())
        });
        let went: Vec<&[u8]> = opened.iter().map(|index| &sent[*index].1[..]).collect();
        let mut keys: Vec<_> = went.iter().map(|packet| key(packet)).collect();
        keys.sort();
        keys.dedup();
        for flow in keys {
            let of = |packets: &mut dyn Iterator<Item = &[u8]>| -> Vec<Vec<u8>> {
                packets.filter(|packet| key(packet) == flow).map(known_by).collect()
            };
            prop_assert_eq!(of(&mut out.iter().map(Vec::as_slice)), of(&mut went.iter().copied()));
        }
    }

    #[test]
    fn split_takes_whatever_the_header_says(
        bytes in prop::collection::vec(any::<u8>(), 1..300),
        header in any::<[u8; vnet::LENGTH]>(),
        v4 in any::<bool>(),
    ) {
        let mut bytes = bytes;
        bytes[0] = if v4 { 0x45 } else { 0x60 };
        if let Some(header) = VnetHeader::decode(&header) {
            let mut buffer = bytes.clone();
            buffer.extend([0; SLACK]);
            if let Ok(mut split) = Split::new(&header, &mut buffer, bytes.len(), MTU) {
                while split.next().is_some() {}
            }
        }
    }

    #[test]
    fn coalesce_takes_any_packet(packets in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..80), 1..10)) {
        let mut arena = Vec::new();
        let mut coalescer = Coalescer::new(packets.len());
        for mut packet in packets {
            let length = u16::try_from(packet.len()).unwrap();
            packet[0] = 0x45;
            if let [_, _, a, b, .., ] = &mut packet[..] {
                [*a, *b] = length.to_be_bytes();
            }
            let at = arena.len();
            arena.extend(&packet);
            coalescer.push(&arena, at..at + packet.len(), Joinable::ALL);
        }
        for group in 0..coalescer.len() {
            coalescer.join(group, &mut arena);
        }
    }

    #[test]
    fn vnet_header_comes_back(bytes in any::<[u8; vnet::LENGTH]>()) {
        if let Some(header) = VnetHeader::decode(&bytes) {
            prop_assert_eq!(VnetHeader::decode(&header.encode()), Some(header));
        }
    }

    #[test]
    fn congestion_is_told_as_rfc_6040_says(inner in any::<u8>(), outer in any::<u8>(), v6 in any::<bool>()) {
        let flow = Flow { v6, tcp: true, number: 1, fragments_forbidden: true, options: 0 };
        let mut packet = flow.packet(1, 2, 0x10, b"data");
        if v6 {
            packet[0] = 0x60 | inner >> 4;
            packet[1] = inner << 4;
        } else {
            packet[1] = inner;
            packet[10..12].fill(0);
            let sum = !folded(checksum(0, &packet[..20]));
            packet[10..12].copy_from_slice(&sum.to_be_bytes());
        }
        // Figure 4: rows are the inner field, columns the outer one, each in the order of the code points.
        let table: [[Option<u8>; 4]; 4] = [
            [Some(0), Some(0), Some(0), None],
            [Some(1), Some(1), Some(1), Some(3)],
            [Some(2), Some(1), Some(2), Some(3)],
            [Some(3), Some(3), Some(3), Some(3)],
        ];
        let want = table[usize::from(inner & 3)][usize::from(outer & 3)];
        prop_assert_eq!(ecn::decapsulate(outer, &mut packet), want.is_some());
        if let Some(want) = want {
            prop_assert_eq!(ecn::traffic_class(&packet), Some(inner & 0xfc | want));
            if !v6 {
                prop_assert_eq!(folded(checksum(0, &packet[..20])), 0xffff);
            }
        }
    }
}

/// A bulk transfer must end in few writes, or the offload is none.
#[test]
fn a_run_of_segments_is_one_write() {
    for (v6, tcp) in [(false, true), (true, true), (false, false), (true, false)] {
        let flow = Flow { v6, tcp, number: 1, fragments_forbidden: true, options: 3 };
        let (mut arena, mut coalescer) = (Vec::new(), Coalescer::new(64));
        for n in 0..40_u32 {
            let packet = flow.packet(n * 1_000, n as u16, 0x10, &[5; 1_000]);
            let at = arena.len();
            arena.extend(&packet);
            coalescer.push(&arena, at..at + packet.len(), Joinable::ALL);
        }
        assert_eq!(coalescer.len(), 1);
        let (out, _) = written(&mut coalescer, &mut arena);
        assert_eq!(out.len(), 40);
    }
}
