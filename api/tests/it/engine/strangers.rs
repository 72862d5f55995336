//! Others, who use the same ports and attach points: they come and go, and are never touched.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use ipnet::Ipv4Net;
use serde_json::json;
use tieline_api::{
    engine::clock::Random,
    plan::negotiate::{Allocated, Touched},
    store::Store,
};
use tieline_openapi::{
    ids::{AttachPointId, ConnectionId, PortId},
    v1::End,
};
use tieline_providers::fake::{ATTACHMENT, FakeObject, INTERFACE};

use super::sim::{ACCOUNTS, Sim, parse};

/// VLANs that strangers take: of those that Tieline gives out, the first ones.
const FIRST_VLAN: u64 = 1_025;

type Vlans = BTreeSet<(PortId, u16)>;
type Subnets = BTreeSet<(AttachPointId, Ipv4Net)>;

impl Sim {
    /// Somebody else makes on one side exactly what a connection is about to make there.
    pub(crate) async fn forestall(&mut self, id: ConnectionId) {
        let Some(record) = self.record(id).await else { return };
        let end = if self.random.below(2) == 0 { End::A } else { End::B };
        let side = record.negotiated.channels[0].sides.get(end);
        let rules = &self.topology.rules[&self.topology.accounts[&side.account_id].provider];
        let spec = rules.decompose(side).remove(0);
        let account = ACCOUNTS[usize::from(end == End::B)];
        self.world.add_stranger(account, spec.key.kind, None, spec.slot.as_deref(), spec.fields);
        self.strangers = self.world.strangers();
        self.trace.push(format!("        somebody forestalls {id} in {account}"));
    }

    /// Somebody takes a VLAN and a subnet on one of our ports: also one that a connection of ours has, where the clouds allow
    /// that two have it.
    pub(crate) async fn stranger_comes(&mut self, over_ours: bool) {
        let n = usize::try_from(self.random.below(2)).unwrap();
        let port = format!("port-{}{n}", 1 + self.random.below(2));
        let (vlan, fourth) = (FIRST_VLAN + self.random.below(12), self.random.below(12) * 8);
        let slot = format!("{port}/{vlan}");
        let all = self.allocated().await;
        let vlans = all.vlans.get(&parse(&port));
        let held = vlans.is_some_and(|held| held.contains(&u16::try_from(vlan).unwrap()));
        if (held && !over_ours) || self.world.live().iter().any(|o| o.slot.as_ref() == Some(&slot)) {
            return;
        }
        let fields = json!({
            "router": format!("router-{n}"), "port": port, "vlan": vlan, "subnet": format!("169.254.0.{fourth}/29"),
            "host": null, "peer": null,
        });
        let kind = if n == 0 { ATTACHMENT } else { INTERFACE };
        let cloud_id = self.world.add_stranger(ACCOUNTS[n], kind, None, Some(&slot), fields);
        self.trace.push(format!("        {cloud_id} comes to {slot}"));
        self.strangers = self.world.strangers();
    }

    /// Somebody copies our tags onto a resource of their own, which is older than all of ours, as cloning one in a cloud's
    /// console does. A name cannot be had twice, so only tags can be copied; and only what is recorded can be told from it.
    pub(crate) async fn impostor_comes(&mut self) {
        let mut recorded = Vec::new();
        for record in self.records().await {
            recorded.extend(record.instances.into_iter().filter_map(|i| i.cloud_id.zip(Some(i.id))));
        }
        let tagged = self.ours().into_iter().filter(|o| {
            let of = o.owner.map(|owner| owner.instance);
            o.parent.is_none() && recorded.iter().any(|(id, instance)| *id == o.cloud_id && Some(*instance) == of)
        });
        let Some(first) = tagged.min_by_key(|o| o.created_at) else { return };
        let made = super::sched::at(0).checked_sub(Duration::from_secs(5 * 3_600)).unwrap();
        self.world.add_copy(&first.cloud_id, made);
        self.trace.push(format!("        somebody copies the tags of {}", first.cloud_id));
        self.strangers = self.world.strangers();
    }

    /// One of those who came goes again.
    pub(crate) fn stranger_goes(&mut self) {
        let came: Vec<FakeObject> = self.strangers.iter().filter(|o| o.fields["subnet"].is_string()).cloned().collect();
        if came.is_empty() {
            return;
        }
        let gone = &came[usize::try_from(self.random.below(came.len() as u64)).unwrap()];
        self.world.vanish(&gone.cloud_id);
        self.trace.push(format!("        {} goes", gone.cloud_id));
        self.strangers = self.world.strangers();
    }

    /// Everything that is allocated, and everything that was seen of others.
    pub(crate) async fn allocated(&self) -> Allocated {
        let mut touched = Touched::default();
        for interconnect in self.topology.interconnects.values() {
            for channel in &interconnect.channels {
                touched.channels.insert(channel.id.clone());
                touched.ports.extend([channel.a.port_id.clone(), channel.b.port_id.clone()]);
            }
        }
        for point in self.topology.attach_points.keys() {
            touched.prefixes.insert(point.clone(), ["10.0.0.0/8".parse().unwrap()].into());
        }
        self.store.allocated(&touched).await.unwrap()
    }

    /// What strangers have of our ports and attach points stands in the store, and nothing else.
    pub(crate) async fn verify_foreign(&self) {
        let all = self.allocated().await;
        // Whose tags say that it is ours is counted as ours.
        let strangers = self.world.strangers().into_iter().filter(|stranger| stranger.owner.is_none());
        let (vlans, subnets) = self.held_by(strangers);
        // What can carry no name is anybody's until it is recorded.
        let nobodys = self.held_by(self.ours().into_iter().filter(|object| object.owner.is_none()));
        let nobodys = (&nobodys.0 - &vlans, &nobodys.1 - &subnets);
        let told: BTreeSet<_> =
            all.foreign_vlans.iter().flat_map(|(port, vlans)| vlans.keys().map(|vlan| (port.clone(), *vlan))).collect();
        assert_eq!(&told - &nobodys.0, vlans, "VLANs of strangers");
        let told: BTreeSet<_> =
            all.foreign_subnets.iter().flat_map(|(point, nets)| nets.keys().map(|net| (point.clone(), *net))).collect();
        assert_eq!(&told - &nobodys.1, subnets, "subnets of strangers");
    }

    /// What these have of our ports and attach points.
    fn held_by(&self, them: impl Iterator<Item = FakeObject>) -> (Vlans, Subnets) {
        let (mut vlans, mut subnets) = (BTreeSet::new(), BTreeSet::new());
        for object in them {
            let port = object.fields["port"].as_str().unwrap_or_default();
            let known = self.topology.interconnects.values().flat_map(|i| &i.channels).flat_map(|c| [&c.a, &c.b]);
            let port = known.map(|known| &known.port_id).find(|known| known.as_str() == port);
            let vlan = object.fields["vlan"].as_u64().filter(|_| object.parent.is_none());
            vlans.extend(port.cloned().zip(vlan.map(|vlan| u16::try_from(vlan).unwrap())));
            let router = object.fields["router"].as_str().unwrap_or_default();
            let point = self.topology.attach_points.values().find(|point| point.cloud_id == router);
            let subnet = object.fields["subnet"].as_str().map(|subnet| subnet.parse().unwrap());
            let subnet = object.picked.map(|pair| pair.subnet).or(subnet);
            subnets.extend(point.map(|point| point.id.clone()).zip(subnet));
        }
        (vlans, subnets)
    }

    /// Nothing is held any more, once every quarantine is over.
    pub(crate) async fn verify_nothing_held(&self) {
        let all = self.allocated().await;
        assert_eq!((all.vlans, all.subnets, all.bandwidth), Default::default(), "something is held for nobody");
        assert_eq!(all.prefixes, BTreeMap::new(), "something is carried by nobody");
    }
}
