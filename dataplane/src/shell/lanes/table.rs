//! What the packet path knows, made aside and put in its place as a whole: traffic never waits for a change of it, however
//! large, and no thread of the packet path ever frees an old one.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    sync::{Arc, PoisonError, mpsc},
    time::Duration,
};

use ipnet::IpNet;
use tieline_openapi::{ids::GatewayId, v1::GatewayConnection};

use super::{Flow, Lanes, Peer, PeerLane};
use crate::proto::table::PrefixTable;

/// How often tables that nobody reads any more are freed.
const FREE: Duration = Duration::from_millis(500);

/// What a peer may send.
#[derive(Debug, Default)]
pub(crate) struct Allowed {
    /// From where.
    pub(super) sources: PrefixTable<Arc<Flow>>,
    /// To where.
    pub(super) destinations: PrefixTable<()>,
}

/// All that the packet path knows; replaced as a whole.
#[derive(Debug, Default)]
pub(crate) struct Table {
    pub(super) by_index: HashMap<u32, (Arc<PeerLane>, Arc<Allowed>)>,
    pub(super) by_key: HashMap<[u8; 32], u32>,
    /// All lanes, by their indices: for whoever goes through all of them, again and again, and looks at few.
    pub(super) in_order: Vec<(u32, Arc<PeerLane>)>,
    pub(super) out: PrefixTable<(Arc<Peer>, Arc<Flow>)>,
}

/// A connection, as the table shall have it.
pub(crate) struct Wanted {
    pub(crate) config: Arc<GatewayConnection>,
    pub(crate) ways: Vec<Way>,
}

/// A connection's tunnel to one peer gateway.
pub(crate) struct Way {
    pub(crate) gateway: GatewayId,
    pub(crate) peer: Arc<Peer>,
    /// The peer's inner address.
    pub(crate) inner: IpAddr,
    /// Whether the connection's traffic goes to this peer.
    pub(crate) active: bool,
    /// The connection's traffic with the peer.
    pub(crate) flow: Arc<Flow>,
    /// Its probes.
    pub(crate) probes: Arc<Flow>,
}

impl Table {
    /// Of two connections with the same prefix, the later one has it.
    fn of(connections: &[Wanted]) -> Self {
        let mut table = Self::default();
        let mut peers: BTreeMap<GatewayId, (&Arc<Peer>, Allowed)> = BTreeMap::new();
        for Wanted { config, ways } in connections {
            for way in ways {
                let (_, allowed) = peers.entry(way.gateway).or_insert_with(|| (&way.peer, Allowed::default()));
                for net in &config.remote_prefixes {
                    allowed.sources.insert(*net, Arc::clone(&way.flow));
                    if way.active {
                        table.out.insert(*net, (Arc::clone(&way.peer), Arc::clone(&way.flow)));
                    }
                }
                let inner = IpNet::from(way.inner);
                allowed.sources.insert(inner, Arc::clone(&way.probes));
                table.out.insert(inner, (Arc::clone(&way.peer), Arc::clone(&way.probes)));
                for net in config.local_prefixes.iter().copied().chain([IpNet::from(config.inner_address)]) {
                    allowed.destinations.insert(net, ());
                }
            }
        }
        for (peer, allowed) in peers.into_values() {
            let allowed = Arc::new(allowed);
            for lane in peer.all() {
                table.by_key.insert(lane.key, lane.index);
                table.by_index.insert(lane.index, (Arc::clone(lane), Arc::clone(&allowed)));
                table.in_order.push((lane.index, Arc::clone(lane)));
            }
        }
        table.in_order.sort_unstable_by_key(|(index, _)| *index);
        table
    }
}

impl Lanes {
    /// Makes tables and puts them in place until nobody wants one any more. Of several that wait, only the last is made.
    pub(crate) fn tables(&self, wanted: &mpsc::Receiver<Vec<Wanted>>) {
        let mut old: Vec<Arc<Table>> = Vec::new();
        loop {
            match wanted.recv_timeout(FREE) {
                Ok(first) => {
                    let last = wanted.try_iter().last().unwrap_or(first);
                    let new = Arc::new(Table::of(&last));
                    let mut place = self.table.write().unwrap_or_else(PoisonError::into_inner);
                    old.push(std::mem::replace(&mut place, new));
                }
                Err(mpsc::RecvTimeoutError::Timeout) => {}
                Err(mpsc::RecvTimeoutError::Disconnected) => return,
            }
            // A reader keeps a table for one batch; whoever is last to let go of it frees it, and that is here.
            old.retain(|table| Arc::strong_count(table) > 1);
        }
    }
}
