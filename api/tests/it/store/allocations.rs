//! Allocations are constraints.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::{IpNet, Ipv4Net};
use proptest::{prelude::*, strategy::ValueTree, test_runner::TestRunner};
use tieline_api::{
    plan::{
        carried::{Way, meets},
        negotiate::Touched,
    },
    store::{Allocation, ChangeTo, Claim, EngineWrite, Holding, HousekeepingLimits, Page, Store, StoreError},
};
use tieline_openapi::ids::{ConnectionId, PortId};
use tieline_providers::ResourceKind;

use super::{fixture::*, on_both};

on_both!(
    a_vlan_is_held_by_one,
    overlapping_subnets_are_held_by_one,
    bandwidth_never_exceeds_the_capacity,
    a_connection_takes_its_own_again,
    a_new_generation_takes_over_what_it_keeps,
    quarantine_ends_by_the_stores_time,
    what_others_occupy_is_not_given_out,
    what_others_gave_up_is_free,
    what_is_recorded_as_ours_is_nobody_elses,
    what_a_cloud_gave_instead_is_held_instead,
    what_meets_a_prefix_is_found,
    a_dropped_channel_gives_its_bandwidth_back,
    what_is_allocated_is_told,
    random_takes_follow_the_model,
);

impl Db {
    async fn take(&self, name: &str, allocations: Vec<Allocation>) -> Result<ConnectionId, StoreError> {
        let mut new = self.connection(name);
        new.allocations = allocations;
        let id = new.id;
        self.store.create_connection(new).await.map(|()| id)
    }

    async fn put(&self, claim: &Claim, generation: u32, allocations: Vec<Allocation>) -> Result<(), StoreError> {
        let channel = Box::new(channel(claim.id, 1, generation));
        let put = EngineWrite::PutChannel { channel, allocations, secrets: Vec::new() };
        self.store.write_fenced(claim, vec![put]).await
    }
}

fn is_taken<T>(result: &Result<T, StoreError>) -> bool {
    matches!(result, Err(StoreError::AllocationTaken { .. }))
}

async fn a_vlan_is_held_by_one(db: Db) {
    db.take("a", vec![vlan(1, 1, 100)]).await.unwrap();
    let taken = db.take("b", vec![vlan(1, 1, 101), vlan(1, 1, 100)]).await;
    assert!(matches!(&taken, Err(StoreError::AllocationTaken { what }) if what == "VLAN 100 on port port-a1"));
    db.take("b", vec![vlan(1, 1, 101)]).await.unwrap();
}

async fn overlapping_subnets_are_held_by_one(db: Db) {
    db.take("a", vec![subnet(1, 1, "169.254.0.8/29")]).await.unwrap();
    for overlapping in ["169.254.0.8/31", "169.254.0.14/31", "169.254.0.12/30", "169.254.0.8/29", "169.254.0.0/24"] {
        assert!(is_taken(&db.take("b", vec![subnet(1, 1, overlapping)]).await), "{overlapping}");
    }
    db.take("b", vec![subnet(1, 1, "169.254.0.0/29"), subnet(1, 1, "169.254.0.16/30")]).await.unwrap();
    let elsewhere = Allocation::Subnet {
        channel_id: channel_id(1),
        generation: 1,
        attach_point_id: "point-b".parse().unwrap(),
        subnet: "169.254.0.8/29".parse().unwrap(),
    };
    db.take("c", vec![elsewhere]).await.unwrap();
    let wide = db.take("d", vec![subnet(1, 1, "10.0.0.0/8")]).await;
    assert!(matches!(wide, Err(StoreError::Invalid { .. })));
}

async fn bandwidth_never_exceeds_the_capacity(db: Db) {
    let id = db.take("a", vec![bandwidth(1, 600, 1_000)]).await.unwrap();
    assert!(is_taken(&db.take("b", vec![bandwidth(1, 401, 1_000)]).await));
    db.take("b", vec![bandwidth(1, 400, 1_000)]).await.unwrap();
    // What a connection takes is told as a whole, not as a difference.
    let change = |generation, mbps, capacity| {
        let to = ChangeTo::Intent {
            intent: Box::new(intent("a")),
            negotiated: Box::new(negotiated(id, &[(1, 1)])),
            allocations: vec![bandwidth(1, mbps, capacity)],
            secrets: Vec::new(),
        };
        db.store.change_connection(db.change(id, generation, to))
    };
    change(1, 600, 1_000).await.unwrap();
    assert!(is_taken(&change(2, 601, 1_000).await));
    // The port was made smaller than what is taken: one may give back, but not take more.
    change(2, 500, 700).await.unwrap();
    assert!(is_taken(&change(3, 501, 700).await));
    let used = db.allocated().await.bandwidth;
    assert_eq!(used, BTreeMap::from([(channel_id(1), 900)]));
}

async fn a_connection_takes_its_own_again(db: Db) {
    let all = || vec![vlan(1, 1, 100), subnet(1, 1, "169.254.0.8/29"), bandwidth(1, 1_000, 1_000)];
    db.take("a", all()).await.unwrap();
    let claim = db.claim("one").await;
    db.put(&claim, 1, all()).await.unwrap();
    assert_eq!(db.allocated().await.bandwidth[&channel_id(1)], 1_000);
    // Another channel of the same connection is another owner.
    assert!(is_taken(&db.put(&claim, 1, vec![vlan(2, 1, 100)]).await));
}

async fn a_new_generation_takes_over_what_it_keeps(db: Db) {
    db.take("a", vec![vlan(1, 1, 100), subnet(1, 1, "169.254.0.8/29"), bandwidth(1, 1_000, 1_000)]).await.unwrap();
    let claim = db.claim("one").await;
    // The VLAN was refused, the subnet stays.
    db.put(&claim, 2, vec![vlan(1, 2, 101), subnet(1, 2, "169.254.0.8/29")]).await.unwrap();
    let retire = EngineWrite::RetireChannel { channel_id: channel_id(1), generation: 1, quarantine_ms: 1_000 };
    db.store.write_fenced(&claim, vec![retire]).await.unwrap();
    db.at(1_000).await;
    db.store.housekeep(&HousekeepingLimits::default()).await.unwrap();
    let left = db.allocated().await;
    assert_eq!(left.vlans[&"port-a1".parse::<PortId>().unwrap()], [101].into());
    assert_eq!(left.subnets[&"point-a".parse().unwrap()], ["169.254.0.8/29".parse().unwrap()].into());
    assert_eq!(left.bandwidth[&channel_id(1)], 1_000, "the channel goes on");
}

async fn quarantine_ends_by_the_stores_time(db: Db) {
    let all = || vec![vlan(1, 1, 100), subnet(1, 1, "169.254.0.8/29"), bandwidth(1, 1_000, 1_000)];
    db.take("a", all()).await.unwrap();
    let claim = db.claim("one").await;
    db.store.write_fenced(&claim, vec![EngineWrite::Remove { quarantine_ms: 1_000 }]).await.unwrap();
    for wanted in [vec![vlan(1, 1, 100)], vec![subnet(1, 1, "169.254.0.10/31")]] {
        db.at(999).await;
        assert!(is_taken(&db.take("b", wanted).await));
    }
    assert_eq!(db.allocated().await.vlans.len(), 1);
    // Over, whether or not the house was kept meanwhile.
    db.at(1_000).await;
    let free = db.allocated().await;
    assert!(free.vlans.is_empty() && free.subnets.is_empty() && free.bandwidth.is_empty());
    db.take("b", all()).await.unwrap();
}

/// What lists of both kinds showed: VLANs of `port-a1`, and subnets of `point-a`.
fn seen(whole: &[&'static str], holdings: &[(&'static str, &str, Option<u16>, Option<&str>)]) -> EngineWrite {
    let holding = |(kind, cloud_id, vlan, net): &(&'static str, &str, Option<u16>, Option<&str>)| Holding {
        kind: ResourceKind::of(kind),
        cloud_id: (*cloud_id).to_owned(),
        vlan: vlan.map(|vlan| ("port-a1".parse().unwrap(), vlan)),
        subnet: net.map(|net| ("point-a".parse().unwrap(), net.parse().unwrap())),
    };
    EngineWrite::PutForeign {
        account_id: "fake-a".parse().unwrap(),
        whole: whole.iter().map(|kind| ResourceKind::of(kind)).collect(),
        holdings: holdings.iter().map(holding).collect(),
    }
}

async fn what_others_occupy_is_not_given_out(db: Db) {
    db.take("ours", vec![vlan(1, 1, 7)]).await.unwrap();
    let one = ("vif", "theirs-1", Some(100), Some("169.254.0.8/30"));
    let all =
        seen(&["vif"], &[one, ("vif", "theirs-2", Some(7), None), ("vif", "theirs-3", None, Some("172.16.0.0/16"))]);
    db.store.write_unclaimed(vec![all.clone()]).await.unwrap();
    let taken = db.take("b", vec![vlan(1, 1, 100)]).await;
    assert!(
        matches!(&taken, Err(StoreError::AllocationTaken { what }) if what.contains("VLAN 100 on port port-a1, which theirs-1 has")),
        "{taken:?}"
    );
    for net in ["169.254.0.10/31", "169.254.0.8/29", "172.16.200.4/30"] {
        assert!(is_taken(&db.take("b", vec![subnet(1, 1, net)]).await), "{net}");
    }
    db.take("b", vec![vlan(1, 1, 101), subnet(1, 1, "169.254.0.12/30")]).await.unwrap();
    let told = db.allocated().await;
    assert_eq!(told.vlans[&"port-a1".parse().unwrap()], [7, 101].into());
    let theirs = [(7, "theirs-2".to_owned()), (100, "theirs-1".to_owned())];
    assert_eq!(told.foreign_vlans, [("port-a1".parse().unwrap(), theirs.into())].into());
    assert_eq!(told.foreign_subnets[&"point-a".parse().unwrap()].len(), 2);
    // What is ours stays ours, and can be taken again.
    let claim = db.claim("one").await;
    assert_eq!(
        claim.id,
        db.store.connections(&project(), &Default::default(), Page { limit: 1, after: None }).await.unwrap()[0].id
    );
    db.put(&claim, 1, vec![vlan(1, 1, 7)]).await.unwrap();
    // Written again as it is, it is as it was.
    db.store.write_unclaimed(vec![all]).await.unwrap();
    assert_eq!(db.allocated().await, told);
}

async fn what_others_gave_up_is_free(db: Db) {
    let (vif, peer) = (("vif", "theirs-1", Some(100), None), ("peer", "theirs-2", None, Some("169.254.0.8/30")));
    db.store.write_unclaimed(vec![seen(&["vif", "peer"], &[vif, peer])]).await.unwrap();
    // Neither list was whole: what it does not show may be there.
    db.store.write_unclaimed(vec![seen(&[], &[])]).await.unwrap();
    assert!(is_taken(&db.take("a", vec![vlan(1, 1, 100)]).await));
    db.store.write_unclaimed(vec![seen(&["vif"], &[])]).await.unwrap();
    db.take("a", vec![vlan(1, 1, 100)]).await.unwrap();
    assert!(is_taken(&db.take("b", vec![subnet(1, 1, "169.254.0.8/31")]).await));
    // It moved.
    let moved = ("peer", "theirs-2", None, Some("169.254.0.16/30"));
    db.store.write_unclaimed(vec![seen(&["peer"], &[moved])]).await.unwrap();
    db.take("b", vec![subnet(1, 1, "169.254.0.8/31")]).await.unwrap();
    assert!(is_taken(&db.take("c", vec![subnet(1, 1, "169.254.0.18/31")]).await));
    // An account that nobody lists any more says nothing.
    db.store.housekeep(&HousekeepingLimits::default()).await.unwrap();
    db.take("c", vec![subnet(1, 1, "169.254.0.18/31")]).await.unwrap();
}

async fn what_is_recorded_as_ours_is_nobody_elses(db: Db) {
    db.created("a").await;
    let claim = db.claim("one").await;
    let mut instance = db.instance(1, 1);
    instance.cloud_id = Some("blind-1".to_owned());
    db.store.write_fenced(&claim, vec![EngineWrite::PutInstance(Box::new(instance.clone()))]).await.unwrap();
    let lists = || vec![seen(&["vif"], &[("vif", "blind-1", Some(100), None)])];
    db.store.write_unclaimed(lists()).await.unwrap();
    assert!(db.allocated().await.foreign_vlans.is_empty());
    db.store.write_fenced(&claim, vec![EngineWrite::RetireInstance(instance.id)]).await.unwrap();
    db.store.write_unclaimed(lists()).await.unwrap();
    assert_eq!(db.allocated().await.foreign_vlans.len(), 1);
}

async fn what_a_cloud_gave_instead_is_held_instead(db: Db) {
    db.take("a", vec![vlan(1, 1, 100), subnet(1, 1, "169.254.0.8/29")]).await.unwrap();
    let claim = db.claim("one").await;
    db.put(&claim, 1, vec![vlan(1, 1, 200), subnet(1, 1, "169.254.1.8/29")]).await.unwrap();
    let allocations = vec![vlan(1, 1, 100), subnet(1, 1, "169.254.0.8/29")];
    let give = EngineWrite::GiveBack { allocations, quarantine_ms: 1_000 };
    db.store.write_fenced(&claim, vec![give]).await.unwrap();
    for wanted in [vlan(1, 1, 100), subnet(1, 1, "169.254.0.12/30"), vlan(1, 1, 200), subnet(1, 1, "169.254.1.8/31")] {
        assert!(is_taken(&db.take("b", vec![wanted]).await));
    }
    db.at(1_000).await;
    db.take("b", vec![vlan(1, 1, 100), subnet(1, 1, "169.254.0.8/29")]).await.unwrap();
    assert_eq!(db.allocated().await.vlans[&"port-a1".parse().unwrap()], [100, 200].into());
}

/// Only what shares an address with a request is told of what other links carry, and all of that: against every intent.
async fn what_meets_a_prefix_is_found(db: Db) {
    let nets = [
        "10.0.0.0/8",
        "10.1.0.0/16",
        "10.1.2.0/24",
        "10.1.2.3/32",
        "11.0.0.0/8",
        "0.0.0.0/0",
        "2001:db8::/32",
        "2001:db8:1::/48",
        "::/0",
    ];
    for (n, net) in nets.iter().enumerate() {
        let mut new = db.connection(&format!("link-{n}"));
        new.intent.a.advertised_prefixes = vec![net.parse().unwrap()];
        new.intent.b.advertised_prefixes = vec![format!("192.168.{n}.0/24").parse().unwrap()];
        db.store.create_connection(new).await.unwrap();
    }
    for asked in nets.iter().chain(&["10.1.2.0/23", "12.0.0.0/7", "2001:db8:1:2::/64", "10.0.0.0/9"]) {
        let asked: IpNet = asked.parse().unwrap();
        let touched = Touched { prefixes: [("point-b".parse().unwrap(), [asked].into())].into(), ..Touched::default() };
        let mut found = db.store.allocated(&touched).await.unwrap().prefixes;
        let found: BTreeSet<_> =
            found.remove(&"point-b".parse().unwrap()).unwrap_or_default().into_iter().map(|c| c.prefix).collect();
        let all = nets.iter().map(|net| net.parse::<IpNet>().unwrap());
        assert_eq!(found, all.filter(|net| meets(net, &asked)).collect(), "{asked}");
    }
    // After a change, the change; after the end, nothing.
    let id = db.store.connections(&project(), &Default::default(), Page { limit: 1, after: None }).await.unwrap()[0].id;
    let mut changed = intent("link-0");
    changed.a.advertised_prefixes = vec!["13.0.0.0/8".parse().unwrap()];
    let to = ChangeTo::Intent {
        intent: Box::new(changed),
        negotiated: Box::new(negotiated(id, &[(1, 1)])),
        allocations: Vec::new(),
        secrets: Vec::new(),
    };
    db.store.change_connection(db.change(id, 1, to)).await.unwrap();
    let links = async |net: &str| {
        let prefixes = [("point-a".parse().unwrap(), [net.parse().unwrap()].into())].into();
        let told = db.store.allocated(&Touched { prefixes, ..Touched::default() }).await.unwrap().prefixes;
        told.into_values().flatten().map(|carried| carried.link).collect::<Vec<_>>()
    };
    assert_eq!(links("13.1.0.0/16").await, ["link-0"]);
    assert_eq!(links("10.200.0.0/16").await, [""; 0]);
    db.store.change_connection(db.change(id, 2, ChangeTo::Deletion)).await.unwrap();
    assert_eq!(links("13.1.0.0/16").await, ["link-0"], "as long as it is there");
}

async fn a_dropped_channel_gives_its_bandwidth_back(db: Db) {
    let mut new = db.connection("a");
    new.negotiated = negotiated(new.id, &[(1, 1), (2, 1)]);
    new.allocations = vec![bandwidth(1, 1_000, 1_000), bandwidth(2, 1_000, 1_000)];
    let id = new.id;
    db.store.create_connection(new).await.unwrap();
    let to = ChangeTo::Intent {
        intent: Box::new(intent("a")),
        negotiated: Box::new(negotiated(id, &[(1, 1)])),
        allocations: Vec::new(),
        secrets: Vec::new(),
    };
    db.store.change_connection(db.change(id, 1, to)).await.unwrap();
    assert_eq!(db.allocated().await.bandwidth.len(), 2, "until the engine has walked it back");
    let claim = db.claim("one").await;
    let retire = EngineWrite::RetireChannel { channel_id: channel_id(2), generation: 1, quarantine_ms: 1 };
    db.store.write_fenced(&claim, vec![retire]).await.unwrap();
    let left = db.allocated().await.bandwidth;
    assert_eq!(left, BTreeMap::from([(channel_id(1), 1_000)]));
}

async fn what_is_allocated_is_told(db: Db) {
    db.take("a", vec![vlan(1, 1, 100), subnet(1, 1, "169.254.0.8/29"), bandwidth(1, 10, 1_000)]).await.unwrap();
    db.take("b", vec![vlan(1, 1, 101), subnet(1, 1, "169.254.0.16/30"), bandwidth(1, 20, 1_000)]).await.unwrap();
    let all = db.allocated().await;
    assert_eq!(all.vlans, BTreeMap::from([("port-a1".parse().unwrap(), BTreeSet::from([100, 101]))]));
    let subnets: BTreeSet<Ipv4Net> = ["169.254.0.8/29", "169.254.0.16/30"].map(|s| s.parse().unwrap()).into();
    assert_eq!(all.subnets, BTreeMap::from([("point-a".parse().unwrap(), subnets)]));
    assert_eq!(all.bandwidth, BTreeMap::from([(channel_id(1), 30)]));
    // Nothing is filtered: what the other end announces is what comes.
    let carried = &all.prefixes[&"point-a".parse().unwrap()];
    let carried: Vec<_> =
        carried.iter().map(|c| (c.link.as_str(), c.prefix.to_string(), c.way, c.far.as_str())).collect();
    let (own, theirs) = (|| "10.0.0.0/16".to_owned(), || "10.1.0.0/16".to_owned());
    assert_eq!(
        carried,
        [
            ("a", own(), Way::Announced, "point-b"),
            ("a", theirs(), Way::Learned, "point-b"),
            ("b", own(), Way::Announced, "point-b"),
            ("b", theirs(), Way::Learned, "point-b"),
        ]
    );
}

#[derive(Debug, Clone)]
enum Act {
    Take { vlan: u16, slot: u8, len: u8, mbps: u64 },
    Remove { which: usize, quarantine: u64 },
    Pass { ms: i64 },
    Housekeep,
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let act = prop_oneof![
        4 => (1u16..6, 0u8..16, 28u8..=31, 1u64..500).prop_map(|(vlan, slot, len, mbps)| Act::Take { vlan, slot, len, mbps }),
        2 => (any::<usize>(), 0u64..50).prop_map(|(which, quarantine)| Act::Remove { which, quarantine }),
        1 => (1i64..40).prop_map(|ms| Act::Pass { ms }),
        1 => Just(Act::Housekeep),
    ];
    prop::collection::vec(act, 40)
}

struct Held {
    claim: Claim,
    vlan: u16,
    subnet: Ipv4Net,
    mbps: u64,
    free_at: Option<i64>,
}

/// Takes, removals, time and housekeeping in any order, against a list of who holds what.
async fn random_takes_follow_the_model(db: Db) {
    let mut runner = TestRunner::deterministic();
    let mut now = 0;
    for run in 0..4 {
        let plan = acts().new_tree(&mut runner).unwrap().current();
        let mut model: Vec<Held> = Vec::new();
        for (n, act) in plan.into_iter().enumerate() {
            match act {
                Act::Take { vlan: v, slot, len, mbps } => {
                    let net = Ipv4Net::new([10, 99, run, slot * 2].into(), len).unwrap().trunc();
                    let v = v + u16::from(run) * 10;
                    let holds = |h: &Held| h.free_at.is_none_or(|at| at > now);
                    let used: u64 = model.iter().filter(|h| h.free_at.is_none()).map(|h| h.mbps).sum();
                    let free = used + mbps <= 1_000
                        && !model
                            .iter()
                            .any(|h| holds(h) && (h.vlan == v || h.subnet.contains(&net) || net.contains(&h.subnet)));
                    let wanted = vec![vlan(1, 1, v), subnet(1, 1, &net.to_string()), bandwidth(1, mbps, 1_000)];
                    let taken = db.take(&format!("{run}-{n}"), wanted).await;
                    assert_eq!(taken.is_ok(), free, "run {run}, act {n}: {taken:?}");
                    if free {
                        let claim = db.claim("one").await;
                        model.push(Held { claim, vlan: v, subnet: net, mbps, free_at: None });
                    }
                }
                Act::Remove { which, quarantine } => {
                    let mut live: Vec<&mut Held> = model.iter_mut().filter(|h| h.free_at.is_none()).collect();
                    if live.is_empty() {
                        continue;
                    }
                    let which = which % live.len();
                    let held = &mut live[which];
                    let remove = EngineWrite::Remove { quarantine_ms: quarantine };
                    db.store.write_fenced(&held.claim, vec![remove]).await.unwrap();
                    held.free_at = Some(now + quarantine as i64);
                }
                Act::Pass { ms } => {
                    now += ms;
                    db.at(now).await;
                }
                Act::Housekeep => db.store.housekeep(&HousekeepingLimits::default()).await.unwrap(),
            }
        }
        for held in model.iter().filter(|h| h.free_at.is_none()) {
            db.store.write_fenced(&held.claim, vec![EngineWrite::Remove { quarantine_ms: 0 }]).await.unwrap();
        }
    }
    assert!(db.allocated().await.bandwidth.is_empty());
}
