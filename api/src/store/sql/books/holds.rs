//! What an interconnect has once, as constraints: a VLAN is the primary key of its channel's table, a subnet occupies slots
//! of a grid of /31s, bandwidth is a counter with a CHECK.

use ipnet::Ipv4Net;
use tieline_openapi::coordinator::ResourceId;

use super::{super::row::args, super::tx::Tx, ROW, at};
use crate::{
    plan::coordinate::{Place, Row},
    store::StoreError,
};

fn taken(what: String) -> StoreError {
    StoreError::AllocationTaken { what }
}

/// First and last slot of a subnet. A /32 occupies the /31 that it is in.
fn slots(subnet: Ipv4Net) -> (i64, i64) {
    let slot = |address: std::net::Ipv4Addr| i64::from(u32::from(address) >> 1);
    (slot(subnet.network()), slot(subnet.broadcast()))
}

async fn drop_slots(tx: &mut Tx, peer: &ResourceId, place: &Place) -> Result<(), StoreError> {
    for table in ["coordinator_vlans", "coordinator_slots"] {
        tx.execute(&format!("DELETE FROM {table} WHERE {ROW}"), at!(peer, place)).await?;
    }
    Ok(())
}

/// What a connection's row held of the bandwidth so far.
async fn firm_before(tx: &mut Tx, peer: &ResourceId, place: &Place) -> Result<i64, StoreError> {
    let row = tx.row(&format!("SELECT firm_mbps FROM coordinator_rows WHERE {ROW}"), at!(peer, place)).await?;
    row.map_or(Ok(0), |mut row| row.int())
}

async fn count(
    tx: &mut Tx,
    peer: &ResourceId,
    place: &Place,
    more_mbps: i64,
    capacity: Option<u32>,
) -> Result<(), StoreError> {
    let at = || args![peer.as_str(), place.environment.as_str(), place.interconnect.as_str()];
    if let Some(capacity) = capacity {
        let mut args = at();
        args.extend(args![capacity]);
        // The capacity follows the configuration, but never below what is held: what is sold stays.
        tx.execute(
            "INSERT INTO coordinator_capacity (peer, environment, interconnect, held_mbps, max_mbps)
             VALUES ($1, $2, $3, 0, $4)
             ON CONFLICT (peer, environment, interconnect) DO UPDATE SET max_mbps =
                 CASE WHEN coordinator_capacity.held_mbps > excluded.max_mbps
                      THEN coordinator_capacity.held_mbps ELSE excluded.max_mbps END",
            args,
        )
        .await?;
    }
    let mut args = at();
    args.extend(args![more_mbps]);
    let counted = tx
        .execute(
            "UPDATE coordinator_capacity SET held_mbps = held_mbps + $4
             WHERE peer = $1 AND environment = $2 AND interconnect = $3 AND held_mbps + $4 <= max_mbps",
            args,
        )
        .await?;
    if counted == 1 || more_mbps == 0 { Ok(()) } else { Err(taken(format!("bandwidth of {}", place.interconnect))) }
}

/// Takes what a row holds, in place of what it held before.
pub(super) async fn take(tx: &mut Tx, peer: &ResourceId, row: &Row, capacity_mbps: u32) -> Result<(), StoreError> {
    let place = &row.place;
    let before = firm_before(tx, peer, place).await?;
    count(tx, peer, place, i64::from(row.firm_mbps()) - before, Some(capacity_mbps)).await?;
    drop_slots(tx, peer, place).await?;
    for hold in row.holds() {
        let channel = hold.channel.as_str();
        let written = tx
            .execute(
                "INSERT INTO coordinator_vlans (peer, environment, interconnect, connection, channel, vlan)
                 VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING",
                at!(peer, place, channel, hold.vlan),
            )
            .await?;
        if written != 1 {
            return Err(taken(format!("VLAN {} on {channel}", hold.vlan)));
        }
        let (first, last) = slots(hold.subnet);
        let written = tx
            .execute(
                "WITH RECURSIVE wanted (slot) AS (
                     SELECT CAST($6 AS BIGINT) UNION ALL SELECT slot + 1 FROM wanted WHERE slot < $7)
                 INSERT INTO coordinator_slots (peer, environment, interconnect, connection, channel, slot)
                 SELECT $1, $2, $3, $4, $5, slot FROM wanted WHERE TRUE ON CONFLICT DO NOTHING",
                at!(peer, place, channel, first, last),
            )
            .await?;
        if i64::try_from(written).ok() != Some(last - first + 1) {
            return Err(taken(format!("{} on {channel}", hold.subnet)));
        }
    }
    Ok(())
}

/// Gives back whatever a row holds. It is still there.
pub(super) async fn release(tx: &mut Tx, peer: &ResourceId, place: &Place) -> Result<(), StoreError> {
    let before = firm_before(tx, peer, place).await?;
    count(tx, peer, place, -before, None).await?;
    drop_slots(tx, peer, place).await
}
