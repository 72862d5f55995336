//! The inner pieces of the packet path: encrypt, decrypt, split, join, look up.
//! `cargo bench -p tieline-dataplane --bench pieces`.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, missing_docs, reason = "a benchmark, on the real clock")]

use std::{
    hint::black_box,
    net::{Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Instant,
};

use boringtun::{
    noise::rate_limiter::RateLimiter,
    x25519::{PublicKey, StaticSecret},
};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use tieline_dataplane::proto::{
    offload::{
        coalesce::{Coalescer, Joinable},
        split::{SLACK, Split},
        vnet::{Kind, VnetHeader},
    },
    table::PrefixTable,
    tunnel::{Lane, LaneKeys, MAX_HANDSHAKE, OVERHEAD, Output},
};

const MTU: usize = 1_420;
const SEGMENTS: usize = 44;

fn lanes() -> (Lane, Lane) {
    let (now, at) = (Instant::now(), SocketAddr::from(([192, 0, 2, 1], 51_820)));
    let (a, b) = (StaticSecret::from([1; 32]), StaticSecret::from([2; 32]));
    let (pa, pb) = (PublicKey::from(&a), PublicKey::from(&b));
    let limiter = |key| Arc::new(RateLimiter::new(key, u64::MAX));
    let mut a = Lane::new(LaneKeys { private: a, peer: pb, preshared: None }, 1, at, limiter(&pa), now);
    let mut b = Lane::new(LaneKeys { private: b, peer: pa, preshared: None }, 2, at, limiter(&pb), now);
    let (mut x, mut y) = ([0; 256], [0; 256]);
    let Output::Send(initiation) = a.tick(now, &mut x) else { panic!() };
    let Output::Send(response) = b.decapsulate(at, initiation, &mut y) else { panic!() };
    let Output::Send(keepalive) = a.decapsulate(at, response, &mut x) else { panic!() };
    assert!(matches!(b.decapsulate(at, keepalive, &mut y), Output::Nothing));
    (a, b)
}

/// A super-packet of TCP over IPv4, as the TUN device gives it.
fn super_packet() -> (VnetHeader, Vec<u8>) {
    let segment = MTU - 40;
    let mut packet = vec![0; 40 + SEGMENTS * segment];
    let length = u16::try_from(packet.len()).unwrap();
    packet[0] = 0x45;
    packet[2..4].copy_from_slice(&length.to_be_bytes());
    packet[6] = 0x40;
    packet[9] = 6;
    packet[12..20].copy_from_slice(&[10, 0, 0, 1, 10, 1, 0, 1]);
    packet[32] = 0x50;
    packet[33] = 0x10;
    let header = VnetHeader {
        needs_checksum: true,
        kind: Kind::Tcp4,
        segment: u16::try_from(segment).unwrap(),
        checksum_start: 20,
        checksum_offset: 16,
        ..VnetHeader::default()
    };
    let bytes = packet.len();
    packet.resize(bytes + SLACK, 0);
    (header, packet)
}

fn packets() -> Vec<Vec<u8>> {
    let (header, mut buffer) = super_packet();
    let length = buffer.len() - SLACK;
    let mut split = Split::new(&header, &mut buffer, length, MTU).unwrap();
    let mut packets = Vec::new();
    while let Some(segment) = split.next() {
        packets.push(segment.padded[..segment.length].to_vec());
    }
    packets
}

fn crypt(c: &mut Criterion) {
    let mut group = c.benchmark_group("crypt");
    let at = SocketAddr::from(([192, 0, 2, 1], 51_820));
    for length in [96_usize, MTU] {
        let mut packet = vec![0; length];
        packet[0] = 0x45;
        packet[2..4].copy_from_slice(&u16::try_from(length).unwrap().to_be_bytes());
        group.throughput(Throughput::Bytes(length as u64));
        let (mut a, mut b) = lanes();
        let mut out = vec![0; length + OVERHEAD + MAX_HANDSHAKE];
        group.bench_function(format!("seal {length}"), |bencher| {
            bencher.iter(|| matches!(a.encapsulate(black_box(&packet), length, &mut out), Output::Send(_)));
        });
        let mut sealed = || match a.encapsulate(&packet, length, &mut out) {
            Output::Send(datagram) => datagram.to_vec(),
            Output::Nothing | Output::Packet(_) => panic!(),
        };
        let mut opened = vec![0; length + OVERHEAD + MAX_HANDSHAKE];
        group.bench_function(format!("open {length}"), |bencher| {
            bencher.iter_batched(
                &mut sealed,
                |datagram| assert!(matches!(b.decapsulate(at, &datagram, &mut opened), Output::Packet(_))),
                BatchSize::SmallInput,
            );
        });
    }
}

fn segments(c: &mut Criterion) {
    let mut group = c.benchmark_group("segments");
    group.throughput(Throughput::Elements(SEGMENTS as u64));
    let (header, original) = super_packet();
    group.bench_function("split", |bencher| {
        bencher.iter_batched_ref(
            || original.clone(),
            |buffer| {
                let length = buffer.len() - SLACK;
                let mut split = Split::new(&header, buffer, length, MTU).unwrap();
                while let Some(segment) = split.next() {
                    black_box(segment);
                }
            },
            BatchSize::SmallInput,
        );
    });
    let (mut arena, mut ranges) = (Vec::new(), Vec::new());
    for packet in packets() {
        ranges.push(arena.len()..arena.len() + packet.len());
        arena.extend(packet);
    }
    let mut coalescer = Coalescer::new(64);
    group.bench_function("coalesce", |bencher| {
        bencher.iter(|| {
            coalescer.clear();
            for range in &ranges {
                coalescer.push(&arena, range.clone(), Joinable::ALL);
            }
            assert_eq!(coalescer.len(), 1);
            black_box(coalescer.join(0, &mut arena));
            coalescer.part(0, &mut arena);
        });
    });
}

fn look_up(c: &mut Criterion) {
    let mut group = c.benchmark_group("look up");
    for prefixes in [10_u32, 100_000] {
        let mut table = PrefixTable::default();
        for n in 0..prefixes {
            table.insert(IpNet::V4(Ipv4Net::new((0x0a00_0000 + (n << 8)).into(), 24).unwrap()), n);
        }
        let mut n = 0_u32;
        group.bench_function(format!("{prefixes} prefixes"), |bencher| {
            bencher.iter(|| {
                n = n.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                let address = std::net::Ipv4Addr::from(0x0a00_0000 + (((n >> 8) % prefixes) << 8) + 7);
                assert!(table.get(black_box(address.into())).is_some());
            });
        });
    }
    const MANY: u32 = 100_000;
    let v6 = |n: u32| Ipv6Addr::from((0xfd00_u128 << 112) + (u128::from(n) << 64));
    let mut table = PrefixTable::default();
    for n in 0..MANY {
        table.insert(IpNet::V6(Ipv6Net::new(v6(n), 64).unwrap()), n);
    }
    let mut n = 0_u32;
    group.bench_function("100000 prefixes of IPv6", |bencher| {
        bencher.iter(|| {
            n = n.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            assert!(table.get(black_box(v6((n >> 8) % MANY).into())).is_some());
        });
    });
    group.sample_size(10);
    group.bench_function("a table of 100000 prefixes is made", |bencher| {
        bencher.iter_with_large_drop(|| {
            let mut table = PrefixTable::default();
            for n in 0..MANY {
                table.insert(IpNet::V4(Ipv4Net::new((0x0a00_0000 + (n << 8)).into(), 24).unwrap()), n);
            }
            table
        });
    });
}

criterion_group!(benches, crypt, segments, look_up);
criterion_main!(benches);
