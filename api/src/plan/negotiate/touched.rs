//! What a negotiation looks at of everything that is allocated.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;
use tieline_openapi::{
    ids::{AttachPointId, ChannelId, ConnectionId, PortId},
    v1::{ConnectionIntent, End},
};

use crate::{plan::carried, topology::Topology};

/// The ports, channels, attach points and prefixes that an intent can have to do with. Whatever else is allocated is of no
/// matter to it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Touched {
    /// Ports of the environment's interconnects.
    pub ports: BTreeSet<PortId>,
    /// Their channels.
    pub channels: BTreeSet<ChannelId>,
    /// What the link would carry, by attach point: both attach points stand here.
    pub prefixes: BTreeMap<AttachPointId, BTreeSet<IpNet>>,
}

impl Touched {
    /// What an intent touches.
    #[must_use]
    pub fn of(topology: &Topology, intent: &ConnectionIntent) -> Self {
        let mut touched = Self::default();
        let here = topology.interconnects.values().filter(|i| i.environment_id == intent.environment_id);
        for channel in here.flat_map(|interconnect| &interconnect.channels) {
            touched.channels.insert(channel.id.clone());
            touched.ports.extend([channel.a.port_id.clone(), channel.b.port_id.clone()]);
        }
        for end in End::BOTH {
            if let Some(point) = &intent.end(end).attach_point_id {
                touched.prefixes.entry(point.clone()).or_default();
            }
        }
        for (point, carried) in carried::by_attach_point(ConnectionId(uuid::Uuid::nil()), intent) {
            touched.prefixes.entry(point.clone()).or_default().insert(carried.prefix.trunc());
        }
        touched
    }

    /// The attach points.
    pub fn attach_points(&self) -> impl Iterator<Item = &AttachPointId> {
        self.prefixes.keys()
    }
}
