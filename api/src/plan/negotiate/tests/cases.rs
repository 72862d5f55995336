//! Single cases: one rule each.

use std::collections::BTreeSet;

use tieline_openapi::v1::{AddressFamily, AdminState, ConnectionKind, DetectMs, InterconnectState, Redundancy};

use super::{
    super::*,
    world::{World, channel, id, interconnect, mbps, mtu, net, told},
};

#[test]
fn a_dual_link_gets_two_channels_that_agree() {
    let world = World::new();
    let n = world.run().unwrap();
    assert_eq!(n.channels.len(), 2);
    let [first, second] = n.channels.as_slice() else { unreachable!() };
    assert_eq!((first.channel_id.as_str(), second.channel_id.as_str()), ("ch1", "ch2"));
    assert_eq!(first.sides.a.vlan.get(), 1025);
    assert_eq!(first.sides.b.vlan.get(), 1025);
    assert_eq!(first.sides.a.port_id.as_str(), "l-ch1");
    assert_eq!(first.sides.b.port_id.as_str(), "r-ch1");
    assert_eq!(first.sides.a.peer_asn, first.sides.b.asn);
    assert_eq!(first.reserved_subnets, [net("169.254.0.0/29")]);
    assert_eq!(second.reserved_subnets, [net("169.254.0.8/29")]);
    assert_eq!(first.sides.a.ipv4, Addressing::Awaited(vec![net("169.254.0.0/29")]));
    assert_eq!(first.sides.b.ipv4, Addressing::CloudPicks(vec![net("169.254.0.0/29")]));
    assert_eq!(first.sides.a.mtu, mtu(1500));
    assert_eq!(first.sides.a.bfd, None, "this side runs BFD by itself");
    assert_eq!(first.sides.b.bfd.map(|b| (b.enabled, b.multiplier)), Some((true, 5)));
    // b hears a's 300 ms packets no faster than its own 1000 ms, times a's multiplier; and the other way round.
    assert_eq!(n.effective.detect_ms, DetectMs { a_to_b: 3_000, b_to_a: 5_000 });
    assert_eq!(n.effective.private_mtu_bytes, mtu(1500));
    assert_eq!(n.effective.tunnel_mtu_bytes, Some(mtu(1440)));
    assert_eq!(n.effective.mtu_bytes, mtu(1440));
    assert_eq!(n.effective.mss_bytes, 1400);
    assert_eq!(first.sides.a.accepted_prefixes, world.intent.b.advertised_prefixes);
    assert_eq!(first.sides.a.max_prefixes, Some(100));
    for pointer in ["/a/vlanId", "/b/mtuBytes", "/a/ipv4Subnet", "/b/bfd", "/bandwidthMbps"] {
        let why = first.why.iter().find(|w| w.pointer == pointer).unwrap();
        assert!(!why.rule.is_empty() && why.source.contains("manual"), "{why:?}");
    }
}

#[test]
fn the_attach_points_decide_which_site_an_end_is() {
    let mut world = World::new();
    std::mem::swap(&mut world.intent.a, &mut world.intent.b);
    let n = world.run().unwrap();
    assert_eq!(n.channels[0].sides.a.port_id.as_str(), "r-ch1");
    assert_eq!(n.channels[0].sides.b.port_id.as_str(), "l-ch1");
    assert_eq!(n.channels[0].sides.a.ipv4, Addressing::CloudPicks(vec![net("169.254.0.0/29")]));
    assert_eq!(n.effective.detect_ms, DetectMs { a_to_b: 5_000, b_to_a: 3_000 });
}

#[test]
fn two_told_sides_get_fixed_addresses_with_the_lower_one_at_a() {
    let mut world = World::new();
    world.right.standard = told();
    let n = world.run().unwrap();
    let a = n.channels[0].sides.a.ipv4.fixed().unwrap();
    assert_eq!(a.subnet, net("169.254.0.0/30"));
    assert_eq!((a.host.to_string(), a.peer.to_string()), ("169.254.0.1".to_owned(), "169.254.0.2".to_owned()));
    assert_eq!(n.channels[0].sides.b.ipv4.fixed(), Some(a.flipped()));
    for side in [&mut world.left, &mut world.right] {
        side.standard.ipv4_lengths.value = vec![31];
    }
    let a = world.run().unwrap().channels[0].sides.a.ipv4.fixed().unwrap();
    assert_eq!((a.host.to_string(), a.peer.to_string()), ("169.254.0.0".to_owned(), "169.254.0.1".to_owned()));
}

#[test]
fn a_smaller_internet_mtu_makes_the_tunnel_smaller_and_no_tunnel_leaves_the_private_mtu() {
    let mut world = World::new();
    world.right.internet_mtu = mtu(1460);
    assert_eq!(world.run().unwrap().effective.mtu_bytes, mtu(1400));
    world.intent.fallback.tunnel = false;
    let e = world.run().unwrap().effective;
    assert_eq!((e.mtu_bytes, e.tunnel_mtu_bytes, e.mss_bytes), (mtu(1500), None, 1460));
}

#[test]
fn a_fabric_gives_each_end_its_own_vlan() {
    let mut world = World::new();
    world.config.environments[0].middle = Middle::L2;
    world.allocated.vlans.insert(id("l-ch1"), (1025..1030).collect());
    let n = world.run().unwrap();
    let sides = &n.channels.iter().find(|c| c.channel_id.as_str() == "ch1").unwrap().sides;
    assert_eq!((sides.a.vlan.get(), sides.b.vlan.get()), (1030, 1025));
    for middle in [Middle::L3, Middle::Handoff] {
        world.config.environments[0].middle = middle;
        assert_eq!(world.errors(), ["middle-not-offered /environmentId"]);
    }
}

#[test]
fn four_channels_carry_half_each_and_need_four_devices() {
    let mut world = World::new();
    world.intent.redundancy = Redundancy::Quad;
    world.intent.bandwidth_mbps = mbps(2_000);
    assert_eq!(world.errors(), ["too-few-channels /redundancy"]);
    let four = |devices: [&str; 4]| (1..5).zip(devices).map(|(n, d)| channel(&format!("ch{n}"), d, d)).collect();
    world.config.interconnects[0].channels = four(["d1", "d2", "d3", "d3"]);
    assert_eq!(world.errors(), ["too-few-channels /redundancy"]);
    world.config.interconnects[0].channels = four(["d1", "d2", "d3", "d4"]);
    let n = world.run().unwrap();
    assert!(n.channels.iter().all(|c| c.bandwidth == mbps(1_000)));
    // 5000 is a tier, its half 2500 is not: the next tier above is ordered.
    world.intent.bandwidth_mbps = mbps(5_000);
    assert!(world.run().unwrap().channels.iter().all(|c| c.bandwidth == mbps(5_000)));
}

#[test]
fn the_emptiest_interconnect_comes_first_and_what_cannot_be_used_is_passed_over() {
    let mut world = World::new();
    let other =
        |n: &str| interconnect(n, vec![channel(&format!("{n}1"), "d1", "d1"), channel(&format!("{n}2"), "d2", "d2")]);
    world.config.interconnects.push(other("zz"));
    assert_eq!(world.run().unwrap().interconnect_id.as_str(), "ic");
    world.allocated.bandwidth.insert(id("ch1"), 50);
    assert_eq!(world.run().unwrap().interconnect_id.as_str(), "zz");
    world.config.interconnects[1].state = InterconnectState::Closed;
    assert_eq!(world.run().unwrap().interconnect_id.as_str(), "ic");
    world.config.interconnects[0].channels[0].admin_state = AdminState::Disabled;
    let mut errors = world.errors();
    errors.sort();
    assert_eq!(errors, ["interconnect-closed /environmentId", "too-few-channels /redundancy"]);
}

#[test]
fn what_is_used_up_is_told_apart_from_what_can_never_be() {
    let mut world = World::new();
    world.allocated.bandwidth.insert(id("ch1"), 9_500);
    let refusal = world.run().unwrap_err();
    assert!(refusal.exhausted);
    assert_eq!(world.errors(), ["bandwidth-used-up /bandwidthMbps"]);
    world.allocated.bandwidth.clear();
    world.allocated.vlans.insert(id("r-ch2"), (1025..=4093).collect());
    assert_eq!(world.errors(), ["vlans-used-up /wanted/vlanId"]);
    assert!(world.run().unwrap_err().exhausted);
    world.allocated.vlans.clear();
    world.allocated.subnets.insert(id("cr"), [net("169.254.0.0/17"), net("169.254.128.0/17")].into());
    assert_eq!(world.errors(), ["subnets-used-up "]);
    assert!(world.run().unwrap_err().exhausted);
    world.allocated.subnets.clear();
    world.right.standard.vlan_ranges.value = vec![1..=99];
    let refusal = world.run().unwrap_err();
    assert!(!refusal.exhausted);
    assert!(refusal.findings[0].rule.contains("told VLANs") && refusal.findings[0].rule.contains("picking VLANs"));
}

#[test]
fn a_wish_that_cannot_hold_names_both_rules() {
    let mut world = World::new();
    world.intent.wanted.vlan_id = Some(4094u64.try_into().unwrap());
    let refusal = world.run().unwrap_err();
    assert!(refusal.findings[0].rule.contains("wanted.vlanId is 4094"));
    assert!(refusal.findings[0].rule.contains("picking VLANs"), "{:?}", refusal.findings[0]);
    assert!(refusal.findings[0].resolve.contains("1025"));
    world.intent.wanted.vlan_id = Some(7u64.try_into().unwrap());
    assert_eq!(world.run().unwrap().channels[1].sides.b.vlan.get(), 7, "a wish may lie outside the pool");
    world.allocated.vlans.insert(id("l-ch2"), [7].into());
    assert_eq!(world.errors(), ["vlan-taken /wanted/vlanId"]);

    let mut world = World::new();
    world.intent.wanted.mtu_bytes = Some(mtu(8500));
    assert_eq!(world.errors(), ["mtu-wish /wanted/mtuBytes"]);
    world.intent.wanted.mtu_bytes = Some(mtu(1500));
    world.run().unwrap();

    let mut world = World::new();
    world.intent.wanted.ipv4_subnet = Some(net("10.9.0.0/24"));
    assert_eq!(world.errors(), ["subnet-wish /wanted/ipv4Subnet"; 2]);
    world.intent.wanted.ipv4_subnet = Some(net("169.254.7.0/28"));
    assert_eq!(world.run().unwrap().channels[1].reserved_subnets, [net("169.254.7.8/29")]);
    world.intent.wanted.ipv4_subnet = Some(net("169.254.7.0/29"));
    assert_eq!(world.errors(), ["subnets-used-up /wanted/ipv4Subnet"]);
    world.intent.wanted.ipv4_subnet = Some(net("169.254.7.1/28"));
    assert_eq!(world.errors(), ["host-bits /wanted/ipv4Subnet"]);
}

#[test]
fn bfd_follows_the_wish_and_what_both_sides_can() {
    let mut world = World::new();
    world.intent.wanted.bfd = Some(false);
    let n = world.run().unwrap();
    assert_eq!(n.channels[0].sides.b.bfd, None);
    assert_eq!(n.effective.detect_ms, DetectMs { a_to_b: 60_000, b_to_a: 60_000 });
    world.intent.wanted.bfd = None;
    world.left.standard.bfd.value.supported = false;
    let n = world.run().unwrap();
    assert_eq!(n.channels[0].sides.b.bfd, None);
    assert!(n.findings.iter().any(|f| f.code == "bfd-off" && f.severity == Severity::Warning));
    world.intent.wanted.bfd = Some(true);
    assert_eq!(world.errors(), ["bfd-wish /wanted/bfd"]);
}

#[test]
fn a_password_must_suit_both_where_one_needs_it() {
    let mut world = World::new();
    let n = world.run().unwrap();
    let rule = password_rule(&world.topology(), &n.channels[0]).unwrap();
    assert_eq!(rule, PasswordRule { length: 6..=80, alphanumeric_only: false });
    world.right.standard.md5.value.supported = false;
    let n = world.run().unwrap();
    assert_eq!(password_rule(&world.topology(), &n.channels[0]), None);
    assert!(n.findings.iter().any(|f| f.code == "md5-off"));
    world.left.standard.md5.value.required = true;
    assert_eq!(world.errors(), ["md5-conflict /environmentId"]);
    world.right.standard.md5.value = tieline_providers::constraints::Md5Rule {
        required: false,
        supported: true,
        length: 81..=90,
        alphanumeric_only: true,
    };
    assert_eq!(world.errors(), ["md5-conflict /environmentId"]);
    world.right.standard.md5.value.length = 1..=25;
    let n = world.run().unwrap();
    let rule = password_rule(&world.topology(), &n.channels[0]).unwrap();
    assert_eq!(rule, PasswordRule { length: 6..=25, alphanumeric_only: true });
}

#[test]
fn as_numbers_are_constants_that_must_fit() {
    let mut world = World::new();
    world.config.attach_points[1].asn = 64_512u64.try_into().unwrap();
    assert_eq!(world.errors(), ["asn-equal /b/attachPointId"]);
    world.config.attach_points[1].asn = 7_224u64.try_into().unwrap();
    assert_eq!(world.errors(), ["asn-refused /b/attachPointId"]);
}

#[test]
fn unknown_names_and_bad_tiers_are_found_all_at_once() {
    let mut world = World::new();
    world.intent.environment_id = id("nowhere");
    world.intent.a.attach_point_id = Some(id("nobody"));
    world.intent.b.advertised_prefixes = vec!["10.1.2.3/16".parse().unwrap()];
    assert_eq!(
        world.errors(),
        [
            "host-bits /b/advertisedPrefixes/0",
            "unknown-attach-point /a/attachPointId",
            "unknown-environment /environmentId"
        ]
    );
    let mut world = World::new();
    world.intent.bandwidth_mbps = mbps(7_000);
    let refusal = world.run().unwrap_err();
    assert_eq!(refusal.findings[0].code, "bandwidth-not-a-tier");
    assert!(refusal.findings[0].resolve.contains("5000 or 10000"));
    let problem = refusal.to_problem();
    assert_eq!((problem.status, problem.errors[0].pointer.as_str()), (400, "/bandwidthMbps"));
    assert!(!problem.retryable);

    let mut world = World::new();
    world.config.environments[0].kind = ConnectionKind::Managed;
    assert_eq!(world.errors(), ["kind-not-offered /environmentId"]);
    let mut world = World::new();
    world.intent.families = vec![AddressFamily::Ipv4, AddressFamily::Ipv6];
    assert_eq!(world.errors(), ["family-not-offered /families"]);
    let mut world = World::new();
    world.config.attach_points[1].site = "elsewhere".to_owned();
    assert_eq!(world.errors(), ["attach-point-not-in-environment /b/attachPointId"]);
    let mut world = World::new();
    world.config.interconnects.clear();
    assert_eq!(world.errors(), ["no-interconnect /environmentId"]);
    let mut world = World::new();
    world.intent.b.attach_point_id = Some(id("gw"));
    assert!(world.errors().contains(&"attach-points-equal /b/attachPointId".to_owned()));
}

#[test]
fn a_port_in_another_account_is_refused() {
    let mut world = World::new();
    world.config.interconnects[0].channels[0].a.account_id = id("right");
    assert_eq!(world.errors(), ["port-in-other-account /a/attachPointId"]);
}

#[test]
fn both_clouds_picking_the_addresses_cannot_be() {
    let mut world = World::new();
    world.left.standard.address_choice.value = AddressChoice::Cloud;
    assert_eq!(world.errors(), ["address-choice-conflict /environmentId"]);
}

#[test]
fn what_was_refused_is_never_chosen_again_and_other_channels_stay() {
    let mut world = World::new();
    let before = world.run().unwrap();
    world.take(&before);
    let [first, second] = before.channels.as_slice() else { unreachable!() };
    world.keep = [(second.channel_id.clone(), second.clone())].into();
    world.refused.insert(
        first.channel_id.clone(),
        Refused { vlans: [1025, 1026].into(), subnets: [net("169.254.0.0/29")].into() },
    );
    // The walked-back channel's own allocations stay taken: they go into quarantine.
    world.allocated.release(world.request().connection_id, &before.channels[1..]);
    let after = world.run().unwrap();
    assert_eq!(after.channels[1], *second);
    assert_eq!(after.channels[0].channel_id, first.channel_id);
    assert_eq!(after.channels[0].sides.a.vlan.get(), 1027);
    assert_eq!(after.channels[0].reserved_subnets, [net("169.254.0.16/29")]);
}

#[test]
fn a_changed_intent_changes_only_what_follows_from_it() {
    let mut world = World::new();
    let before = world.run().unwrap();
    world.take(&before);
    world.keep = before.channels.iter().map(|c| (c.channel_id.clone(), c.clone())).collect();
    world.allocated.release(world.request().connection_id, &before.channels);
    assert_eq!(world.allocated.vlans.values().map(BTreeSet::len).sum::<usize>(), 0);
    assert_eq!(world.allocated.subnets.values().map(BTreeSet::len).sum::<usize>(), 0);
    assert_eq!(world.run().unwrap().channels, before.channels);

    world.intent.bandwidth_mbps = mbps(5_000);
    world.intent.a.advertised_prefixes = vec!["10.7.0.0/16".parse().unwrap()];
    let after = world.run().unwrap();
    assert_eq!(after.channels[0].sides.a.vlan, before.channels[0].sides.a.vlan);
    assert_eq!(after.channels[0].reserved_subnets, before.channels[0].reserved_subnets);
    assert_eq!(after.channels[0].bandwidth, mbps(5_000));
    assert_eq!(after.channels[0].sides.b.accepted_prefixes, world.intent.a.advertised_prefixes);

    world.intent.redundancy = Redundancy::Single;
    let less = world.run().unwrap();
    assert_eq!(less.channels.iter().map(|c| c.channel_id.as_str()).collect::<Vec<_>>(), ["ch1"]);
    assert_eq!(less.channels[0].sides.a.vlan, before.channels[0].sides.a.vlan);

    world.intent.wanted.vlan_id = Some(2_000u64.try_into().unwrap());
    assert_eq!(world.errors(), ["immutable /wanted/vlanId"]);
}

#[test]
fn what_others_have_is_avoided_and_named_where_it_is_wished() {
    let mut world = World::new();
    let vlans = [(1_025, "vif-a".to_owned()), (1_026, "vif-b".to_owned())];
    world.allocated.foreign_vlans.insert(id("r-ch1"), vlans.into());
    world.allocated.foreign_subnets.insert(id("gw"), [(net("169.254.0.4/30"), "vif-a".to_owned())].into());
    let n = world.run().unwrap();
    let vlans: Vec<_> = n.channels.iter().map(|c| (c.channel_id.as_str(), c.sides.a.vlan.get())).collect();
    assert_eq!(vlans, [("ch1", 1_027), ("ch2", 1_025)]);
    assert!(n.channels.iter().all(|c| !c.reserved_subnets.contains(&net("169.254.0.0/29"))));
    world.intent.wanted.vlan_id = Some(1_026.try_into().unwrap());
    let refused = world.run().unwrap_err();
    assert!(refused.exhausted, "they may give it up");
    let finding = &refused.findings[0];
    assert_eq!((finding.code.as_str(), finding.pointer.as_str()), ("vlan-taken", "/wanted/vlanId"));
    assert!(finding.message.contains("VLAN 1026 on port r-ch1 is in use by vif-b"), "{}", finding.message);
    world.intent.wanted.vlan_id = None;
    world.intent.wanted.ipv4_subnet = Some(net("169.254.0.0/28"));
    let finding = world.run().unwrap_err().findings.remove(0);
    assert_eq!((finding.code.as_str(), finding.pointer.as_str()), ("subnets-used-up", "/wanted/ipv4Subnet"));
    assert!(finding.message.contains("169.254.0.4/30 on gw is in use by vif-a"), "{}", finding.message);
}

#[test]
fn what_clouds_give_refits_what_holds_end_to_end() {
    let mut world = World::new();
    let n = world.run().unwrap();
    let mut given = n.channels[1].clone();
    for side in [&mut given.sides.a, &mut given.sides.b] {
        side.mtu = mtu(1_300);
    }
    let e = n.clone().replaced(&given).unwrap().effective;
    assert_eq!((e.private_mtu_bytes, e.mtu_bytes, e.mss_bytes), (mtu(1_300), mtu(1_300), 1_260));
    assert_eq!(e.tunnel_mtu_bytes, n.effective.tunnel_mtu_bytes);
    assert_eq!(n.clone().replaced(&n.channels[0]), Some(n.clone()), "nothing new");
    // What is given up does not come back.
    world.intent.redundancy = Redundancy::Single;
    assert_eq!(world.run().unwrap().replaced(&given), None);
    let mut newer = n.clone();
    newer.channels[1].generation = 1;
    assert_eq!(newer.replaced(&given), None);
}
