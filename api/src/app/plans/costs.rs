//! What the clouds bill for a connection, as far as its plan can tell.

use tieline_openapi::v1::{Cost, End};
use tieline_providers::{BilledBy, CostDriver};

use crate::{store::ConnectionRecord, topology::Topology};

/// The cost drivers of both ends, end a first.
pub(super) fn of(topology: &Topology, record: &ConnectionRecord) -> Vec<Cost> {
    End::BOTH.into_iter().flat_map(|end| of_end(topology, record, end)).collect()
}

fn of_end(topology: &Topology, record: &ConnectionRecord, end: End) -> Vec<Cost> {
    let point = record.intent.end(end).attach_point_id.as_ref().and_then(|id| topology.attach_points.get(id));
    let account = point.and_then(|point| topology.accounts.get(&point.account_id));
    let Some((account, rules)) = account.and_then(|account| Some((account, topology.rules.get(&account.provider)?)))
    else {
        return Vec::new();
    };
    let channels = u32::try_from(record.negotiated.channels.len()).unwrap_or(u32::MAX);
    let cost = |driver: &CostDriver| {
        let count = match driver.billed_by {
            BilledBy::Channel => Some(channels),
            BilledBy::Traffic => None,
            BilledBy::TunnelTraffic if record.intent.fallback.tunnel => None,
            BilledBy::TunnelTraffic => return None,
        };
        Some(Cost {
            what: driver.what.to_string(),
            end,
            provider: account.provider.clone(),
            unit: driver.unit.to_string(),
            count,
            price_usd: driver.price_usd,
            as_of: driver.as_of.as_ref().map(ToString::to_string),
            source: driver.source.to_string(),
        })
    };
    rules.costs().iter().filter_map(cost).collect()
}
