//! The state machine under random calls, compared with what must hold at every moment.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use proptest::prelude::*;
use serde_json::json;
use tieline_openapi::v1::Timestamp;

use super::{
    decode,
    state::{Aws, Phase},
    vifs::{CreateInterface, UpdateInterface},
};
use crate::clouds::{CloudSettings, document, sim::Cloud, world::AwsWorld};

#[derive(Debug, Clone)]
enum Step {
    Create { port: usize, vlan: i64, own_addresses: bool },
    Update { which: usize, mtu: i64 },
    Delete { which: usize },
    Wait { ms: u64 },
    Light { port: usize },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0usize..2, 296i64..306, any::<bool>())
            .prop_map(|(port, vlan, own_addresses)| Step::Create { port, vlan, own_addresses }),
        1 => (0usize..8, prop_oneof![Just(1500i64), Just(8500), Just(9001)]).prop_map(|(which, mtu)| Step::Update { which, mtu }),
        2 => (0usize..8).prop_map(|which| Step::Delete { which }),
        3 => (0u64..3_000).prop_map(|ms| Step::Wait { ms }),
        1 => (0usize..2).prop_map(|port| Step::Light { port }),
    ]
}

struct World {
    aws: Aws,
    world: AwsWorld,
    now: Timestamp,
    lit: BTreeSet<String>,
    ours: Vec<String>,
}

impl World {
    fn new() -> Self {
        let world = AwsWorld::with_channels(2, vec!["10.0.0.0/16".parse().expect("a prefix")]);
        let now: Timestamp = "2026-11-21T12:00:00Z".parse().expect("an instant");
        let settings = CloudSettings { tombstone_ms: 4_000, ..CloudSettings::default() };
        Self { aws: Aws::new(&world, &settings, now), world, now, lit: BTreeSet::new(), ours: Vec::new() }
    }

    fn wait(&mut self, ms: u64) {
        self.now = self.now.checked_add(Duration::from_millis(ms)).expect("an instant");
        self.aws.settle(self.now, &self.lit);
    }

    fn delete(&mut self, id: &str) {
        let found = self.aws.interfaces.iter_mut().find(|v| v.id == id && v.is_live() && v.phase != Phase::Deleting);
        if let Some(vif) = found {
            (vif.phase, vif.since) = (Phase::Deleting, self.now);
        }
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Create { port, vlan, own_addresses } => {
                let mut new = json!({ "virtualInterfaceName": "ours", "vlan": vlan, "asn": 65010,
                                      "directConnectGatewayId": self.world.gateway_id });
                if own_addresses {
                    new["amazonAddress"] = json!("169.254.100.1/29");
                    new["customerAddress"] = json!("169.254.100.2/29");
                }
                let body = json!({ "connectionId": self.world.lags[port].id, "newPrivateVirtualInterface": new });
                let asked: CreateInterface = decode(body.to_string().as_bytes()).expect("a body");
                let before = self.aws.dump();
                match self.aws.create(asked, self.now) {
                    Ok(id) => self.ours.push(id),
                    Err(_) => assert_eq!(self.aws.dump(), before, "a refusal changes nothing"),
                }
            }
            Step::Update { which, mtu } => {
                if let Some(id) = self.ours.get(which).cloned() {
                    let body = json!({ "virtualInterfaceId": id, "mtu": mtu });
                    let asked: UpdateInterface = decode(body.to_string().as_bytes()).expect("a body");
                    let _refused_where_deleted_or_wrong = self.aws.update(asked);
                }
            }
            Step::Delete { which } => {
                if let Some(id) = self.ours.get(which).cloned() {
                    self.delete(&id);
                }
            }
            Step::Wait { ms } => self.wait(ms),
            Step::Light { port } => drop(self.lit.insert(self.world.lags[port].id.clone())),
        }
    }

    fn check(&self) {
        let mut slots = BTreeMap::new();
        for vif in self.aws.interfaces.iter().filter(|vif| vif.is_live()) {
            let twin = slots.insert((vif.connection_id.clone(), vif.vlan), vif.id.clone());
            assert_eq!(twin, None, "two live interfaces on one VLAN of one port");
        }
        for session in self.aws.sessions() {
            let vif = self.aws.interface(&session.id).expect("the session of an interface");
            assert_eq!(vif.phase, Phase::Active);
            assert!(self.lit.contains(&session.port), "no session without light");
        }
        let ids: BTreeSet<&String> = self.aws.interfaces.iter().map(|vif| &vif.id).collect();
        assert_eq!(ids.len(), self.aws.interfaces.len(), "ids are unique");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn whatever_happens_a_slot_has_one_holder_and_deletes_leave_nothing(steps in proptest::collection::vec(step(), 0..60)) {
        let mut world = World::new();
        let before = document::pretty(&document::sorted(world.aws.dump()));
        for step in steps {
            world.take(step);
            world.check();
        }
        for id in world.ours.clone() {
            world.delete(&id);
        }
        world.wait(2_000);
        let after = document::pretty(&document::sorted(world.aws.dump()));
        prop_assert_eq!(before, after);
        prop_assert!(world.ours.iter().all(|id| world.aws.interface(id).is_none_or(|vif| vif.phase == Phase::Deleted)));
        world.wait(5_000);
        prop_assert!(world.ours.iter().all(|id| world.aws.interface(id).is_none()), "tombstones go");
    }
}
