//! What holds for any world: an exhaustive search of a small space is the judge.

use std::collections::BTreeSet;

use ipnet::{IpNet, Ipv4Net};
use proptest::prelude::*;
use tieline_openapi::v1::{AddressFamily, AdminState, Redundancy, Wanted};

use super::{
    super::*,
    world::{World, channel, id, interconnect, mbps, mtu, net},
};

/// VLANs that the small space has.
const VLANS: [u16; 3] = [1025, 1026, 1027];
/// Subnets of the small space: four /30 in two /29.
const SPACE: &str = "169.254.0.0/28";

#[derive(Debug, Clone)]
struct SmallChannel {
    devices: (u8, u8),
    enabled: bool,
    vlans_left: BTreeSet<u16>,
    vlans_right: BTreeSet<u16>,
    vlans_held: BTreeSet<u16>,
    refused_vlans: BTreeSet<u16>,
    refused_subnets: BTreeSet<u8>,
    held_mbps: u64,
}

#[derive(Debug, Clone)]
struct Small {
    interconnects: Vec<Vec<SmallChannel>>,
    redundancy: Redundancy,
    bandwidth: u64,
    tiers_left: BTreeSet<u64>,
    tiers_right: BTreeSet<u64>,
    mtus_left: BTreeSet<u64>,
    mtus_right: BTreeSet<u64>,
    lengths_left: Vec<u8>,
    lengths_right: Vec<u8>,
    held_left: BTreeSet<u8>,
    held_right: BTreeSet<u8>,
    excluded: BTreeSet<u8>,
    picks: bool,
    swapped: bool,
}

fn some<T: Clone + Ord + std::fmt::Debug + 'static>(of: Vec<T>, at_least: usize) -> impl Strategy<Value = BTreeSet<T>> {
    let most = of.len();
    proptest::sample::subsequence(of, at_least..=most).prop_map(|list| list.into_iter().collect())
}

fn small_channel() -> impl Strategy<Value = SmallChannel> {
    (
        (0u8..4, 0u8..4),
        proptest::bool::weighted(0.9),
        some(VLANS.to_vec(), 1),
        some(VLANS.to_vec(), 1),
        some(VLANS.to_vec(), 0),
        some(VLANS.to_vec(), 0),
        some((0u8..4).collect(), 0),
        prop_oneof![4 => Just(0u64), 1 => Just(9_500), 1 => Just(9_000)],
    )
        .prop_map(|(devices, enabled, vlans_left, vlans_right, held, refused, refused_subnets, held_mbps)| {
            SmallChannel {
                devices,
                enabled,
                vlans_left,
                vlans_right,
                // Most of the time something is free.
                vlans_held: held.into_iter().take(1).collect(),
                refused_vlans: refused.into_iter().take(1).collect(),
                refused_subnets: refused_subnets.into_iter().take(2).collect(),
                held_mbps,
            }
        })
}

fn small() -> impl Strategy<Value = Small> {
    let lengths = || proptest::sample::select(vec![vec![30u8], vec![29], vec![30, 29], vec![29, 30], vec![31, 30]]);
    (
        proptest::collection::vec(proptest::collection::vec(small_channel(), 1..6), 1..3),
        proptest::sample::select(vec![Redundancy::Single, Redundancy::Dual, Redundancy::Quad]),
        proptest::sample::select(vec![500u64, 1_000]),
        (some(vec![500u64, 1_000, 2_000], 1), some(vec![500u64, 1_000, 2_000], 1)),
        (some(vec![1440u64, 1500, 8500], 1), some(vec![1440u64, 1500, 8500], 1)),
        (lengths(), lengths()),
        (some((0u8..4).collect(), 0), some((0u8..4).collect(), 0), some((0u8..4).collect(), 0)),
        any::<(bool, bool)>(),
    )
        .prop_map(|(interconnects, redundancy, bandwidth, tiers, mtus, lengths, nets, (picks, swapped))| Small {
            interconnects,
            redundancy,
            bandwidth,
            tiers_left: tiers.0,
            tiers_right: tiers.1,
            mtus_left: mtus.0,
            mtus_right: mtus.1,
            lengths_left: lengths.0,
            lengths_right: lengths.1,
            held_left: nets.0.into_iter().take(1).collect(),
            held_right: nets.1.into_iter().skip(1).take(1).collect(),
            excluded: nets.2.into_iter().skip(2).take(1).collect(),
            picks,
            swapped,
        })
}

/// A space where only subnets are scarce: the channels fit in every other way, and each was refused some subnets.
fn scarce() -> impl Strategy<Value = Small> {
    let refused = proptest::collection::vec(some((0u8..4).collect(), 0), 4);
    (small(), refused, any::<bool>()).prop_map(|(mut small, refused, quad)| {
        let channel = |(n, refused_subnets): (u8, BTreeSet<u8>)| SmallChannel {
            devices: (n, n),
            enabled: true,
            vlans_left: VLANS.into(),
            vlans_right: VLANS.into(),
            vlans_held: BTreeSet::new(),
            refused_vlans: BTreeSet::new(),
            refused_subnets,
            held_mbps: 0,
        };
        small.interconnects = vec![(0..4).zip(refused).map(channel).collect()];
        small.redundancy = if quad { Redundancy::Quad } else { Redundancy::Dual };
        small.tiers_left = [500, 1_000].into();
        small.tiers_right = [500, 1_000].into();
        small.mtus_left = [1_500].into();
        small.mtus_right = [1_500].into();
        small.lengths_left = vec![30];
        small.lengths_right = vec![30];
        small.held_left.clear();
        small
    })
}

/// The n-th /30 of the space.
fn slot(n: u8) -> Ipv4Net {
    net(&format!("169.254.0.{}/30", n * 4))
}

fn slots(of: &BTreeSet<u8>) -> Vec<Ipv4Net> {
    of.iter().copied().map(slot).collect()
}

fn names(interconnect: usize, channel: usize) -> (String, String, String) {
    let name = format!("i{interconnect}c{channel}");
    (name.clone(), format!("l-{name}"), format!("r-{name}"))
}

fn world(small: &Small) -> World {
    let mut world = World::new();
    world.intent.redundancy = small.redundancy;
    world.intent.bandwidth_mbps = mbps(small.bandwidth);
    if small.swapped {
        std::mem::swap(&mut world.intent.a, &mut world.intent.b);
    }
    for (rules, tiers, mtus, lengths) in [
        (&mut world.left, &small.tiers_left, &small.mtus_left, &small.lengths_left),
        (&mut world.right, &small.tiers_right, &small.mtus_right, &small.lengths_right),
    ] {
        let c = &mut rules.standard;
        c.bandwidths.value = tiers.iter().copied().map(mbps).collect();
        c.mtus.value = mtus.iter().copied().map(mtu).collect();
        c.ipv4_lengths.value = lengths.clone();
        c.ipv4_include.value = vec![net(SPACE)];
        c.address_choice.value = AddressChoice::Caller;
    }
    if small.picks {
        world.right.standard.address_choice.value = AddressChoice::Cloud;
    }
    world.right.standard.ipv4_exclude.value = slots(&small.excluded);
    world.allocated.subnets.insert(id("gw"), slots(&small.held_left).into_iter().collect());
    world.allocated.subnets.insert(id("cr"), slots(&small.held_right).into_iter().collect());
    world.config.interconnects.clear();
    for (i, channels) in small.interconnects.iter().enumerate() {
        let mut made = Vec::new();
        for (c, spec) in channels.iter().enumerate() {
            let (name, left, right) = names(i, c);
            let mut channel = channel(&name, &spec.devices.0.to_string(), &spec.devices.1.to_string());
            if !spec.enabled {
                channel.admin_state = AdminState::Disabled;
            }
            made.push(channel);
            let ranges = |vlans: &BTreeSet<u16>| vlans.iter().map(|v| *v..=*v).collect();
            let mut constraints = world.left.standard.clone();
            constraints.vlan_ranges.value = ranges(&spec.vlans_left);
            world.left.by_port.insert(left.clone(), constraints);
            let mut constraints = world.right.standard.clone();
            constraints.vlan_ranges.value = ranges(&spec.vlans_right);
            world.right.by_port.insert(right, constraints);
            world.allocated.vlans.insert(id(&left), spec.vlans_held.clone());
            world.allocated.bandwidth.insert(id(&name), spec.held_mbps);
            let refused = Refused {
                vlans: spec.refused_vlans.clone(),
                subnets: slots(&spec.refused_subnets).into_iter().collect(),
            };
            world.refused.insert(id(&name), refused);
        }
        world.config.interconnects.push(interconnect(&format!("i{i}"), made));
    }
    world
}

/// Every subnet of the space that a channel could have by itself.
fn subnets(small: &Small, channel: &SmallChannel) -> Vec<Ipv4Net> {
    let bad: Vec<Ipv4Net> = [&small.held_left, &small.held_right, &small.excluded, &channel.refused_subnets]
        .into_iter()
        .flat_map(slots)
        .collect();
    small
        .lengths_left
        .iter()
        .filter(|l| small.lengths_right.contains(l))
        .flat_map(|l| net(SPACE).subnets(*l).unwrap())
        .filter(|s| !bad.iter().any(|b| b.contains(s) || s.contains(b)))
        .collect()
}

fn alone(small: &Small, channel: &SmallChannel) -> bool {
    let vlan = VLANS.iter().any(|v| {
        channel.vlans_left.contains(v)
            && channel.vlans_right.contains(v)
            && !channel.vlans_held.contains(v)
            && !channel.refused_vlans.contains(v)
    });
    let share = if small.redundancy == Redundancy::Quad { small.bandwidth / 2 } else { small.bandwidth };
    let tier = small.tiers_left.iter().find(|t| small.tiers_right.contains(t) && **t >= share);
    let fits = tier.is_some_and(|tier| channel.held_mbps + tier <= 10_000);
    channel.enabled && vlan && fits && small.mtus_left.intersection(&small.mtus_right).next().is_some()
}

fn disjoint(lists: &[Vec<Ipv4Net>], chosen: &mut Vec<Ipv4Net>) -> bool {
    let Some((first, rest)) = lists.split_first() else { return true };
    first.iter().any(|s| {
        if chosen.iter().any(|c| c.contains(s) || s.contains(c)) {
            return false;
        }
        chosen.push(*s);
        let found = disjoint(rest, chosen);
        chosen.pop();
        found
    })
}

/// The judge: tries every set of channels of every interconnect.
fn solvable(small: &Small) -> bool {
    let needed = small.redundancy.channels();
    small.interconnects.iter().any(|channels| {
        (0u32..1 << channels.len()).filter(|set| set.count_ones() as usize == needed).any(|set| {
            let picked: Vec<&SmallChannel> =
                channels.iter().enumerate().filter(|(i, _)| set & (1 << i) != 0).map(|(_, c)| c).collect();
            let left: BTreeSet<u8> = picked.iter().map(|c| c.devices.0).collect();
            let right: BTreeSet<u8> = picked.iter().map(|c| c.devices.1).collect();
            let lists: Vec<Vec<Ipv4Net>> = picked.iter().map(|c| subnets(small, c)).collect();
            left.len() == needed
                && right.len() == needed
                && picked.iter().all(|c| alone(small, c))
                && disjoint(&lists, &mut Vec::new())
        })
    })
}

/// What is chosen satisfies both sides and everything that is held.
fn check(small: &Small, world: &World, n: &Negotiated) {
    assert_eq!(n.channels.len(), small.redundancy.channels());
    let (left, right) = if small.swapped { (End::B, End::A) } else { (End::A, End::B) };
    for c in &n.channels {
        let (l, r) = (c.sides.get(left), c.sides.get(right));
        assert_eq!(l.vlan, r.vlan);
        for (rules, side) in [(&world.left, l), (&world.right, r)] {
            let allowed = &rules.by_port[side.port_id.as_str()];
            assert!(allowed.vlan_ranges.value.iter().any(|range| range.contains(&side.vlan.get())));
            assert!(allowed.mtus.value.contains(&side.mtu));
            assert!(allowed.bandwidths.value.contains(&side.bandwidth));
            for s in &c.reserved_subnets {
                assert!(allowed.ipv4_lengths.value.contains(&s.prefix_len()));
                assert!(!allowed.ipv4_exclude.value.iter().any(|e| e.contains(s) || s.contains(e)));
            }
            assert_eq!((side.asn == l.asn, side.peer_asn == r.asn), (side.end == left, side.end == left));
        }
        let refused = &world.refused[&c.channel_id];
        assert!(!refused.vlans.contains(&l.vlan.get()));
        assert!(!c.reserved_subnets.iter().any(|s| refused.subnets.contains(s)));
        let cloud = if small.picks { Some(right) } else { None };
        for end in End::BOTH {
            match &c.sides.get(end).ipv4 {
                Addressing::Fixed(pair) => {
                    assert!(cloud.is_none() && pair.subnet.contains(&pair.host) && pair.host != pair.peer);
                }
                Addressing::CloudPicks(list) => assert!(cloud == Some(end) && *list == c.reserved_subnets),
                Addressing::Awaited(list) => assert!(cloud == Some(end.other()) && *list == c.reserved_subnets),
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_500, ..ProptestConfig::default() })]

    #[test]
    fn a_solution_is_found_exactly_where_an_exhaustive_search_finds_one(small in small()) {
        let mut world = world(&small);
        let found = world.run();
        prop_assert_eq!(found.is_ok(), solvable(&small), "{:#?}", found);
        prop_assert_eq!(&found, &world.run(), "same input, same output");
        match found {
            Ok(n) => {
                check(&small, &world, &n);
                // Panics where a VLAN, a subnet or bandwidth would be given out twice.
                world.take(&n);
            }
            Err(refusal) => {
                prop_assert!(refusal.findings.iter().any(|f| f.severity == Severity::Error));
                for f in &refusal.findings {
                    prop_assert!(!f.rule.is_empty() && !f.source.is_empty() && !f.resolve.is_empty(), "{:?}", f);
                }
            }
        }
    }


    #[test]
    fn where_subnets_are_scarce_a_solution_is_found_exactly_where_there_is_one(small in scarce()) {
        let found = world(&small).run();
        prop_assert_eq!(found.is_ok(), solvable(&small), "{:#?}", found);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    #[test]
    fn links_made_one_after_another_share_nothing(count in 1usize..40, quad in any::<bool>()) {
        let mut world = World::new();
        let devices = ["d1", "d2", "d3", "d4", "d1"];
        world.config.interconnects[0].channels =
            devices.iter().enumerate().map(|(n, d)| channel(&format!("ch{n}"), d, d)).collect();
        world.intent.redundancy = if quad { Redundancy::Quad } else { Redundancy::Dual };
        for n in 0..count {
            world.intent.name = format!("link{n}");
            if let Ok(made) = world.run() {
                world.take(&made);
            } else {
                // Ten links of 1 Gbit/s fill two channels, and so on.
                prop_assert!(n >= 10);
                prop_assert!(world.run().unwrap_err().exhausted);
            }
        }
    }
}

fn any_net() -> impl Strategy<Value = IpNet> {
    prop_oneof![
        (any::<u32>(), 0u8..=32).prop_map(|(bits, length)| IpNet::V4(Ipv4Net::new(bits.into(), length).unwrap())),
        (any::<u128>(), 0u8..=128)
            .prop_map(|(bits, length)| { IpNet::V6(ipnet::Ipv6Net::new(bits.into(), length).unwrap()) }),
        (0u8..4, 0u8..4).prop_map(|(x, y)| format!("10.{x}.{y}.0/24").parse().unwrap()),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    /// Whatever is asked for, there is an answer, and it is the same each time; an answer has only what was wished.
    #[test]
    fn any_intent_gets_an_answer(
        small in small(),
        names in (0usize..4, 0usize..4, any::<bool>()),
        nets in (
            proptest::collection::vec(any_net(), 0..4),
            proptest::collection::vec(any_net(), 0..4),
            proptest::option::of(proptest::collection::vec(any_net(), 0..3)),
        ),
        wanted in (
            proptest::option::weighted(0.3, 1u64..=4094),
            proptest::option::weighted(0.3, 576u64..=9216),
            proptest::option::weighted(0.3, (any::<u32>(), 0u8..=32)),
            any::<Option<bool>>(),
        ),
        rest in (1u64..=800_000, proptest::option::of(any::<u32>()), any::<bool>(), 0usize..4),
    ) {
        let mut world = world(&small);
        let points = ["gw", "cr", "gw", "nobody"];
        let intent = &mut world.intent;
        intent.a.attach_point_id = Some(id(points[names.0]));
        intent.b.attach_point_id = Some(id(points[names.1]));
        if names.2 {
            intent.bandwidth_mbps = mbps(rest.0);
        }
        intent.a.advertised_prefixes = nets.0;
        intent.b.advertised_prefixes = nets.1;
        intent.a.accepted_prefixes = nets.2;
        intent.routing.max_prefixes = rest.1;
        intent.fallback.tunnel = rest.2;
        let families = [AddressFamily::Ipv4, AddressFamily::Ipv6, AddressFamily::Ipv4];
        intent.families = families.iter().copied().take(rest.3).collect();
        intent.wanted = Wanted {
            vlan_id: wanted.0.map(|n| n.try_into().unwrap()),
            mtu_bytes: wanted.1.map(mtu),
            ipv4_subnet: wanted.2.map(|(bits, length)| Ipv4Net::new(bits.into(), length).unwrap()),
            bfd: wanted.3,
        };
        let found = world.run();
        prop_assert_eq!(&found, &world.run());
        match found {
            Err(refusal) => {
                prop_assert!(refusal.findings.first().is_some_and(|f| f.severity == Severity::Error));
                prop_assert!(!refusal.to_problem().detail.is_empty());
            }
            Ok(n) => {
                let wanted = &world.intent.wanted;
                prop_assert!(n.findings.iter().all(|f| f.severity != Severity::Error));
                for side in n.channels.iter().flat_map(|c| [&c.sides.a, &c.sides.b]) {
                    prop_assert!(wanted.vlan_id.is_none_or(|wish| wish == side.vlan));
                    prop_assert!(wanted.mtu_bytes.is_none_or(|wish| wish == side.mtu));
                    prop_assert!(wanted.bfd != Some(false) || side.bfd.is_none());
                }
                for subnet in n.channels.iter().flat_map(|c| &c.reserved_subnets) {
                    prop_assert!(wanted.ipv4_subnet.is_none_or(|wish| wish.contains(subnet)));
                }
                prop_assert!(n.effective.mtu_bytes <= n.effective.private_mtu_bytes);
                prop_assert!(n.effective.mss_bytes < n.effective.mtu_bytes.get());
            }
        }
    }
}

/// A thousand links stand on the same ports and attach points; the thousand and first is found well within a pass.
#[test]
fn a_thousand_links_do_not_slow_it_down_much() {
    let mut world = World::new();
    world.config.interconnects[0].max_bandwidth_mbps = mbps(800_000);
    world.intent.bandwidth_mbps = mbps(50);
    for n in 0..1_000u32 {
        world.intent.name = format!("link{n}");
        let made = world.run().unwrap();
        world.take(&made);
    }
    let n = world.run().unwrap();
    assert_eq!(n.channels[0].sides.a.vlan.get(), 2_025);
    assert_eq!(n.channels[0].reserved_subnets, [net("169.254.62.128/29")]);
}
