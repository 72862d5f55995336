//! Clouds that give other values than they are asked for.

use ipnet::Ipv4Net;
use tieline_openapi::v1::{End, Middle};
use tieline_providers::{Addressing, Ipv4Pair, Learned};

use super::{super::rehearse::learned, model::channel, *};

fn pair(subnet: &str) -> Ipv4Pair {
    let subnet: Ipv4Net = subnet.parse().unwrap();
    let mut hosts = subnet.hosts();
    Ipv4Pair { subnet, host: hosts.next().unwrap(), peer: hosts.next().unwrap() }
}

fn vlan(vlan: u64) -> Learned {
    Learned { vlan: Some(vlan.try_into().unwrap()), ..Learned::default() }
}

fn mtu(mtu: u64) -> Learned {
    Learned { mtu: Some(mtu.try_into().unwrap()), ..Learned::default() }
}

/// Runs to the end against a cloud that picks these, one after the other.
fn run(picks: &[Learned], prepare: impl FnOnce(&mut Model)) -> (Model, Step) {
    let mut model = Model::new(IdentityKind::Named, Vec::new());
    model.picks = picks.iter().rev().copied().collect();
    prepare(&mut model);
    for _ in 0..400 {
        let step = model.step();
        if matches!(step, Step::Escalate { .. }) {
            return (model, step);
        }
        if let Some(end) = model.take(step) {
            return (model, end);
        }
    }
    panic!("it goes on for ever");
}

/// The VLANs, MTUs and addresses of everything that is there.
fn built(model: &Model) -> Vec<(u64, u64)> {
    let of = |thing: &Thing| (thing.fields["vlan"].as_u64().unwrap(), thing.fields["mtu"].as_u64().unwrap_or(0));
    model.live().map(of).collect()
}

#[test]
fn the_two_sides_of_learned_addresses_mirror_each_other() {
    let ipv4 = pair("169.254.0.0/29");
    let picked = Learned { ipv4: Some(ipv4), ..Learned::default() };
    let channel = learned(&channel(0, 100), End::A, &picked, Middle::None);
    assert_eq!(channel.sides.a.ipv4, Addressing::Fixed(ipv4));
    assert_eq!(channel.sides.b.ipv4, Addressing::Fixed(ipv4.flipped()));
    assert_eq!(channel.reserved_subnets, ["169.254.0.0/29".parse().unwrap()]);
}

#[test]
fn a_picked_vlan_is_the_other_ends_too_where_nothing_translates_it() {
    for (middle, other) in [(Middle::None, 200), (Middle::L2, 100)] {
        let channel = learned(&channel(0, 100), End::A, &vlan(200), middle);
        assert_eq!((channel.sides.a.vlan.get(), channel.sides.b.vlan.get()), (200, other), "{middle:?}");
    }
}

#[test]
fn what_the_cloud_picks_is_followed_before_anything_is_built_on_it() {
    let (model, end) = run(&[vlan(200)], |_| ());
    assert_eq!((end, built(&model)), (Step::Settled, vec![(200, 1_500), (200, 0), (200, 1_500)]));
    let (model, end) = run(&[mtu(1_440)], |_| ());
    assert_eq!((end, built(&model)), (Step::Settled, vec![(100, 1_440), (100, 0), (100, 1_440)]));
    let (model, end) = run(&[Learned { ipv4: Some(pair("169.254.9.0/29")), ..vlan(200) }], |_| ());
    assert_eq!(end, Step::Settled);
    assert_eq!(model.wanted[0].reserved_subnets, ["169.254.9.0/29".parse().unwrap()]);
    assert!(model.live().filter(|t| t.key.kind != ATTACHMENT).all(|t| t.fields["subnet"] == "169.254.9.0/29"));
    assert!(model.walk_backs.is_empty());
}

#[test]
fn what_the_cloud_picks_and_another_holds_is_walked_back() {
    let (model, end) = run(&[vlan(200)], |model| {
        model.others.0.insert(200);
    });
    assert_eq!((end, model.walk_backs.values().sum::<u32>()), (Step::Settled, 1));
    assert_eq!(built(&model), [(101, 1_500), (101, 0), (101, 1_500)]);
    let theirs = Learned { ipv4: Some(pair("169.254.9.0/29")), ..Learned::default() };
    let (model, end) = run(&[theirs], |model| {
        model.others.1.insert("169.254.9.0/29".parse().unwrap());
    });
    assert_eq!((end, model.walk_backs.values().sum::<u32>()), (Step::Settled, 1));
}

#[test]
fn what_was_picked_is_not_negotiated_again() {
    let mut model = Model::new(IdentityKind::Named, Vec::new());
    model.picks = vec![Learned { ipv4: Some(pair("169.254.9.0/29")), ..vlan(200) }];
    model.others.0.insert(200);
    for _ in 0..400 {
        let step = model.step();
        if let Step::WalkBack { refused, .. } = &step {
            assert_eq!(refused.vlans, [100, 200].into());
            let subnets = ["169.254.0.0/29", "169.254.9.0/29"].map(|net| net.parse().unwrap());
            assert_eq!(refused.subnets, subnets.into());
            return;
        }
        assert_eq!(model.take(step), None);
    }
    panic!("it is not walked back");
}

#[test]
fn a_wish_is_not_given_up_for_what_a_cloud_picks() {
    let wish_vlan = |model: &mut Model| model.wishes.vlan_id = Some(100u64.try_into().unwrap());
    let (_, end) = run(&[vlan(200)], wish_vlan);
    let Step::Escalate { troubles, .. } = end else { panic!("{end:?}") };
    assert_eq!(troubles[0].code, TroubleCode::ImmutableDrift);
    let wish_mtu = |model: &mut Model| model.wishes.mtu_bytes = Some(1_500u64.try_into().unwrap());
    let (model, end) = run(&[mtu(1_440)], wish_mtu);
    assert_eq!((end, built(&model)), (Step::Settled, vec![(100, 1_500), (100, 0), (100, 1_500)]), "it was updated");
    let theirs = Learned { ipv4: Some(pair("169.254.9.0/29")), ..Learned::default() };
    let (model, end) = run(&[theirs], |model| model.wishes.ipv4_subnet = Some("169.254.0.0/24".parse().unwrap()));
    assert_eq!((end, model.walk_backs.values().sum::<u32>()), (Step::Settled, 1));
}

#[test]
fn an_mtu_that_the_other_end_does_not_take_is_set_back() {
    let (model, end) = run(&[mtu(1_460)], |_| ());
    assert_eq!((end, built(&model)), (Step::Settled, vec![(100, 1_500), (100, 0), (100, 1_500)]));
}

#[test]
fn what_changes_once_the_other_end_is_built_is_drift() {
    let (mut model, _) = run(&[], |_| ());
    let attachment = model.things.iter_mut().find(|thing| thing.key.kind == ATTACHMENT).unwrap();
    attachment.fields["mtu"] = json!(1_440);
    model.fresh.clear();
    model.run(400).unwrap();
    assert_eq!(built(&model)[0], (100, 1_500));
    assert_eq!(model.wanted[0].sides.a.mtu.get(), 1_500);
}
