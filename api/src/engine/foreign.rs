//! What others occupy of our ports and attach points, as the lists of a round show it: nobody is given it, until whole lists
//! do not show it any more. Nothing of it is ever changed, and a connection that holds the same keeps it: if the cloud refuses
//! it then, the channel is walked back.

use std::collections::{BTreeMap, BTreeSet};

use tieline_openapi::ids::{AccountId, AttachPointId, PortId};
use tieline_providers::{Observed, Presence, Rules};

use super::{
    Engine,
    inventory::{Lists, Shelf},
};
use crate::{
    plan::step::RuleBook,
    store::{EngineWrite, Holding},
    topology::Topology,
};

/// Subnets shorter than this are no point-to-point subnets: an answer that holds one says something else.
const SHORTEST: u8 = 16;

/// The ports and attach points of an account, by the names that its cloud's answers use.
struct Places<'t> {
    rules: &'t dyn Rules,
    ports: BTreeMap<&'t str, &'t PortId>,
    points: BTreeMap<&'t str, &'t AttachPointId>,
}

impl<'t> Places<'t> {
    fn of(topology: &'t Topology, account: &AccountId) -> Option<Self> {
        let rules = topology.rules(account)?;
        let channels = topology.interconnects.values().flat_map(|interconnect| &interconnect.channels);
        let ports = channels.flat_map(|channel| [&channel.a, &channel.b]).filter(|port| port.account_id == *account);
        let ports = ports.map(|port| (rules.short_name(port.port_id.as_str()), &port.port_id)).collect();
        let points = topology.attach_points.values().filter(|point| point.account_id == *account);
        let points = points.map(|point| (rules.short_name(&point.cloud_id), &point.id)).collect();
        Some(Self { rules, ports, points })
    }

    /// What a resource holds of these.
    fn holding(&self, shelf: &Shelf, observed: &Observed) -> Option<Holding> {
        let occupied = self.rules.occupies(observed);
        let vlan = occupied.vlan.and_then(|(port, vlan)| {
            let port = self.ports.get(self.rules.short_name(&port))?;
            Some(((*port).clone(), vlan.get()))
        });
        let subnet = occupied.subnet.and_then(|(point, subnet)| {
            let point = self.points.get(self.rules.short_name(&point))?;
            (subnet.prefix_len() >= SHORTEST).then(|| ((*point).clone(), subnet))
        });
        let any = vlan.is_some() || subnet.is_some();
        any.then(|| Holding { kind: shelf.kind.clone(), cloud_id: observed.cloud_id.clone(), vlan, subnet })
    }
}

impl Engine {
    /// What the lists show of others; none where the account's cloud is not in this binary.
    pub(super) fn foreign(&self, account: &AccountId, lists: &Lists) -> Option<EngineWrite> {
        let places = Places::of(&self.topology, account)?;
        let theirs = |observed: &&Observed| {
            let ours = observed.owner.is_some_and(|owner| owner.is_of(self.installation));
            !ours && observed.presence != Presence::Gone
        };
        let holdings = lists
            .shelves
            .iter()
            .flat_map(|shelf| shelf.items.iter().filter(theirs).filter_map(|observed| places.holding(shelf, observed)))
            .collect();
        let whole: BTreeSet<_> =
            places.rules.kinds().iter().filter(|kind| !lists.unseen.contains(*kind)).cloned().collect();
        Some(EngineWrite::PutForeign { account_id: account.clone(), whole, holdings })
    }
}
