//! The state machine under random calls, compared with what must hold at every moment.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use ipnet::Ipv4Net;
use proptest::prelude::*;
use serde_json::{Value, json};
use tieline_openapi::v1::Timestamp;

use super::{
    query::Query,
    resources::{AttachmentBody, Phase},
    state::Google,
};
use crate::clouds::{CloudSettings, document, draw::overlap, sim::Cloud, world::GoogleWorld};

#[derive(Debug, Clone)]
enum Step {
    Insert { name: usize, vlan: Option<i64>, candidate: bool },
    AddPeer { name: usize },
    RemovePeer { name: usize },
    Delete { name: usize },
    Wait { ms: u64 },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0usize..6, proptest::option::of(398i64..408), any::<bool>())
            .prop_map(|(name, vlan, candidate)| Step::Insert { name, vlan, candidate }),
        4 => (0usize..6).prop_map(|name| Step::AddPeer { name }),
        1 => (0usize..6).prop_map(|name| Step::RemovePeer { name }),
        1 => (0usize..6).prop_map(|name| Step::Delete { name }),
        6 => (0u64..1_500).prop_map(|ms| Step::Wait { ms }),
    ]
}

struct World {
    google: Google,
    world: GoogleWorld,
    now: Timestamp,
}

impl World {
    fn new() -> Self {
        let world = GoogleWorld::with_channels(2, vec!["10.1.0.0/16".parse().expect("a prefix")]);
        let now: Timestamp = "2026-11-21T12:00:00Z".parse().expect("an instant");
        Self { google: Google::new(&world, &CloudSettings::default(), now), world, now }
    }

    fn wait(&mut self, ms: u64) {
        self.now = self.now.checked_add(Duration::from_millis(ms)).expect("an instant");
        self.google.settle(self.now, &BTreeSet::new());
    }

    /// A patch of the router by someone who reads first, and sends everyone's parts back.
    fn patch(&mut self, change: impl FnOnce(&Google, &mut Value)) {
        let router = self.google.router(&self.world.router).expect("the router");
        let mut shown = self.google.show_router(router);
        change(&self.google, &mut shown);
        let name = self.world.router.clone();
        let before = self.google.dump();
        let _refused_where_wrong = self.google.change_router(&name, "patch", &shown, &Query::default(), self.now);
        assert_eq!(self.google.dump(), before, "nothing is true before the operation is done");
    }

    fn take(&mut self, step: Step) {
        let of = |n: usize| format!("ours-{n}");
        match step {
            Step::Insert { name, vlan, candidate } => {
                let mut body = json!({ "name": of(name), "interconnect": self.world.interconnects[0].name,
                                       "router": self.world.router, "vlanTag8021q": vlan });
                if candidate {
                    body["candidateSubnets"] = json!(["169.254.61.0/27"]);
                }
                let body: AttachmentBody = serde_json::from_value(body).expect("a body");
                let _refused_where_taken = self.google.insert_attachment(&body, &Query::default(), self.now);
            }
            Step::AddPeer { name } => self.patch(|google, router| add(google, router, &of(name))),
            Step::RemovePeer { name } => self.patch(|_, router| remove(router, &of(name))),
            Step::Delete { name } => {
                let _refused_where_linked = self.google.delete_attachment(&of(name), &Query::default(), self.now);
            }
            Step::Wait { ms } => self.wait(ms),
        }
    }

    fn check(&self) {
        let mut vlans = BTreeMap::new();
        for a in &self.google.attachments {
            let twin = vlans.insert((a.interconnect.clone(), a.vlan), a.name.clone());
            assert_eq!(twin, None, "two attachments on one VLAN of one interconnect");
        }
        let subnets: Vec<Ipv4Net> =
            self.google.attachments.iter().filter_map(|a| a.cloud_router_ip_address).map(|net| net.trunc()).collect();
        for (i, a) in subnets.iter().enumerate() {
            assert!(!subnets[..i].iter().any(|b| overlap(a, b)), "subnets of two attachments overlap: {a}");
        }
        let router = self.google.router(&self.world.router).expect("the router");
        for peer in &router.bgp_peers {
            let interface = router.interfaces.iter().find(|i| Some(&i.name) == peer.interface_name.as_ref());
            assert!(self.google.linked(interface.expect("an interface")).is_some(), "a peer without its attachment");
        }
        let strangers = router.bgp_peers.iter().filter(|p| self.google.strangers.contains(&p.name)).count();
        assert_eq!(strangers, 3, "whoever reads first wipes nobody's peer");
        for session in self.google.sessions() {
            let attachment = self.google.attachment(&session.id).expect("ours");
            assert_eq!((attachment.phase, attachment.vlan), (Phase::Active, session.vlan));
        }
    }
}

fn add(google: &Google, router: &mut Value, name: &str) {
    let Some(a) = google.attachment(name) else { return };
    let (Some(cloud), Some(customer)) = (a.cloud_router_ip_address, a.customer_router_ip_address) else { return };
    let mut push = |array: &str, item: Value| {
        if let Some(all) = router[array].as_array_mut() {
            all.push(item);
        }
    };
    push(
        "interfaces",
        json!({ "name": name, "ipRange": cloud, "linkedInterconnectAttachment": format!("interconnectAttachments/{name}") }),
    );
    push(
        "bgpPeers",
        json!({ "name": name, "interfaceName": name, "peerIpAddress": customer.addr(), "peerAsn": 64512,
                "md5AuthenticationKeyName": name }),
    );
    push("md5AuthenticationKeys", json!({ "name": name, "key": "k" }));
}

fn remove(router: &mut Value, name: &str) {
    for array in ["interfaces", "bgpPeers", "md5AuthenticationKeys"] {
        if let Some(all) = router[array].as_array_mut() {
            all.retain(|item| item["name"] != name);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn whatever_happens_nothing_dangles_and_deletes_leave_nothing(steps in proptest::collection::vec(step(), 0..60)) {
        let mut world = World::new();
        let before = document::pretty(&document::sorted(world.google.dump()));
        for step in steps {
            world.take(step);
            world.check();
        }
        world.wait(5_000);
        for n in 0..6 {
            world.take(Step::RemovePeer { name: n });
            world.wait(1_000);
        }
        for n in 0..6 {
            world.take(Step::Delete { name: n });
        }
        world.wait(1_000);
        prop_assert_eq!(before, document::pretty(&document::sorted(world.google.dump())));
    }
}
