//! Allocations are constraints: a VLAN is the primary key of its port's table, a subnet occupies slots of a fixed grid of
//! /31s, bandwidth is a counter with a CHECK. A row is held, or has a time from which on it is free.

use ipnet::Ipv4Net;
use tieline_openapi::ids::{AccountId, AttachPointId, ChannelId, ConnectionId, PortId};

use super::{SqlStore, row::args, tx::Tx};
use crate::{
    plan::negotiate::{Allocated, Negotiated},
    store::{Allocation, StoreError},
};

/// Milliseconds that something foreign counts as there after it was last seen.
const FOREIGN_MS: u64 = 24 * 3_600_000;

/// The shortest prefix that is entered into the grid: 32,768 slots.
const SHORTEST_PREFIX: u8 = 16;

/// First and last slot of a subnet. A /32 occupies the /31 that it is in.
fn slots(subnet: Ipv4Net) -> Result<(i64, i64), StoreError> {
    if subnet.prefix_len() < SHORTEST_PREFIX {
        return Err(StoreError::Invalid { reason: format!("{subnet} is no point-to-point subnet") });
    }
    let slot = |address: std::net::Ipv4Addr| i64::from(u32::from(address) >> 1);
    Ok((slot(subnet.network()), slot(subnet.broadcast())))
}

fn taken(what: String) -> StoreError {
    StoreError::AllocationTaken { what }
}

/// Takes allocations for a connection; what it holds already stays its own, and moves to the given generation.
pub(super) async fn take(
    tx: &mut Tx,
    connection: ConnectionId,
    mut allocations: Vec<Allocation>,
) -> Result<(), StoreError> {
    // Everyone takes in the same order, so that two who want the same do not wait for each other.
    allocations.sort_by_cached_key(|a| match a {
        Allocation::Vlan { port_id, vlan, .. } => (0, port_id.to_string(), u64::from(*vlan)),
        Allocation::Subnet { attach_point_id, subnet, .. } => {
            (1, attach_point_id.to_string(), u64::from(u32::from(subnet.network())))
        }
        Allocation::Bandwidth { channel_id, .. } => (2, channel_id.to_string(), 0),
    });
    for allocation in allocations {
        match allocation {
            Allocation::Vlan { channel_id, generation, port_id, vlan } => {
                take_vlan(tx, connection, &channel_id, generation, &port_id, vlan).await?;
            }
            Allocation::Subnet { channel_id, generation, attach_point_id, subnet } => {
                take_subnet(tx, connection, &channel_id, generation, &attach_point_id, subnet).await?;
            }
            Allocation::Bandwidth { channel_id, mbps, capacity_mbps } => {
                set_bandwidth(tx, connection, &channel_id, mbps, capacity_mbps).await?;
            }
        }
    }
    Ok(())
}

async fn take_vlan(
    tx: &mut Tx,
    connection: ConnectionId,
    channel: &ChannelId,
    generation: u32,
    port: &PortId,
    vlan: u16,
) -> Result<(), StoreError> {
    let written = tx
        .execute(
            "INSERT INTO vlan_allocations (port_id, vlan, connection_id, channel_id, generation)
             VALUES ($1, $2, $3, $4, $5)
             ON CONFLICT (port_id, vlan) DO UPDATE
             SET connection_id = excluded.connection_id, channel_id = excluded.channel_id,
                 generation = excluded.generation, account_id = NULL, free_at = NULL
             WHERE vlan_allocations.free_at <= {now}
                OR (vlan_allocations.free_at IS NULL AND vlan_allocations.connection_id = excluded.connection_id
                    AND vlan_allocations.channel_id = excluded.channel_id)",
            args![port.as_str(), vlan, connection.uuid(), channel.as_str(), generation],
        )
        .await?;
    if written == 1 { Ok(()) } else { Err(taken(format!("VLAN {vlan} on port {port}"))) }
}

async fn take_subnet(
    tx: &mut Tx,
    connection: ConnectionId,
    channel: &ChannelId,
    generation: u32,
    attach_point: &AttachPointId,
    subnet: Ipv4Net,
) -> Result<(), StoreError> {
    let (first, last) = slots(subnet)?;
    let written = tx
        .execute(
            "WITH RECURSIVE wanted (slot) AS (
                 SELECT CAST($1 AS BIGINT) UNION ALL SELECT slot + 1 FROM wanted WHERE slot < $2)
             INSERT INTO subnet_slots (attach_point_id, slot, subnet, connection_id, channel_id, generation)
             SELECT $3, slot, $4, $5, $6, $7 FROM wanted WHERE TRUE
             ON CONFLICT (attach_point_id, slot) DO UPDATE
             SET subnet = excluded.subnet, connection_id = excluded.connection_id, channel_id = excluded.channel_id,
                 generation = excluded.generation, account_id = NULL, free_at = NULL
             WHERE subnet_slots.free_at <= {now}
                OR (subnet_slots.free_at IS NULL AND subnet_slots.connection_id = excluded.connection_id
                    AND subnet_slots.channel_id = excluded.channel_id)",
            args![
                first,
                last,
                attach_point.as_str(),
                subnet.trunc().to_string(),
                connection.uuid(),
                channel.as_str(),
                generation
            ],
        )
        .await?;
    let wanted = u64::try_from(last - first + 1).unwrap_or(0);
    if written == wanted { Ok(()) } else { Err(taken(format!("subnet {subnet} on attach point {attach_point}"))) }
}

/// Sets what a connection takes of a channel; 0 gives it back.
async fn set_bandwidth(
    tx: &mut Tx,
    connection: ConnectionId,
    channel: &ChannelId,
    mbps: u64,
    capacity: u64,
) -> Result<(), StoreError> {
    tx.execute(
        "INSERT INTO channel_bandwidth (channel_id, used_mbps, capacity_mbps) VALUES ($1, 0, $2)
         ON CONFLICT (channel_id) DO NOTHING",
        args![channel.as_str(), capacity],
    )
    .await?;
    let mine = || args![connection.uuid(), channel.as_str()];
    let held = tx
        .row("SELECT mbps FROM bandwidth_shares WHERE connection_id = $1 AND channel_id = $2", mine())
        .await?
        .map_or(Ok(0), |mut row| row.int())?;
    let more = i64::try_from(mbps).unwrap_or(i64::MAX).saturating_sub(held);
    // A channel whose capacity was lowered below what is taken gives back, but takes no more.
    let counted = tx
        .execute(
            "UPDATE channel_bandwidth
             SET used_mbps = used_mbps + $2,
                 capacity_mbps = CASE WHEN used_mbps + $2 <= $3 THEN $3 ELSE used_mbps + $2 END
             WHERE channel_id = $1 AND ($2 <= 0 OR used_mbps + $2 <= $3)",
            args![channel.as_str(), more, capacity],
        )
        .await?;
    if counted == 0 {
        return Err(taken(format!("{mbps} Mbit/s on channel {channel}")));
    }
    if mbps == 0 {
        tx.execute("DELETE FROM bandwidth_shares WHERE connection_id = $1 AND channel_id = $2", mine()).await?;
    } else {
        let mut args = mine();
        args.extend(args![mbps]);
        tx.execute(
            "INSERT INTO bandwidth_shares (connection_id, channel_id, mbps) VALUES ($1, $2, $3)
             ON CONFLICT (connection_id, channel_id) DO UPDATE SET mbps = excluded.mbps",
            args,
        )
        .await?;
    }
    Ok(())
}

/// Gives back a connection's share of a channel, or of all.
async fn free_bandwidth(tx: &mut Tx, connection: ConnectionId, channel: Option<&ChannelId>) -> Result<(), StoreError> {
    let rows = tx
        .rows(
            "SELECT s.channel_id, c.capacity_mbps FROM bandwidth_shares s
             JOIN channel_bandwidth c ON c.channel_id = s.channel_id
             WHERE s.connection_id = $1 ORDER BY s.channel_id",
            args![connection.uuid()],
        )
        .await?;
    for mut row in rows {
        let (held, capacity): (ChannelId, u64) = (row.id()?, row.count()?);
        if channel.is_none_or(|c| *c == held) {
            set_bandwidth(tx, connection, &held, 0, capacity).await?;
        }
    }
    Ok(())
}

/// Puts what one generation of a channel holds into quarantine, and gives its bandwidth back where the channel is not
/// wanted any more.
pub(super) async fn quarantine(
    tx: &mut Tx,
    connection: ConnectionId,
    channel: &ChannelId,
    generation: u32,
    quarantine_ms: u64,
    wanted: &Negotiated,
) -> Result<(), StoreError> {
    for table in ["vlan_allocations", "subnet_slots"] {
        tx.execute(
            &format!(
                "UPDATE {table} SET free_at = {{now}} + $4
                 WHERE connection_id = $1 AND channel_id = $2 AND generation = $3 AND free_at IS NULL"
            ),
            args![connection.uuid(), channel.as_str(), generation, quarantine_ms],
        )
        .await?;
    }
    if !wanted.channels.iter().any(|c| c.channel_id == *channel) {
        free_bandwidth(tx, connection, Some(channel)).await?;
    }
    Ok(())
}

/// Puts everything that a connection holds into quarantine, and gives its bandwidth back.
pub(super) async fn quarantine_all(
    tx: &mut Tx,
    connection: ConnectionId,
    quarantine_ms: u64,
) -> Result<(), StoreError> {
    for table in ["vlan_allocations", "subnet_slots"] {
        tx.execute(
            &format!("UPDATE {table} SET free_at = {{now}} + $2 WHERE connection_id = $1 AND free_at IS NULL"),
            args![connection.uuid(), quarantine_ms],
        )
        .await?;
    }
    free_bandwidth(tx, connection, None).await
}

/// Notes what others occupy. What we hold ourselves stays ours; what is free or in quarantine is occupied until it has
/// not been seen for a day.
pub(super) async fn put_foreign(
    tx: &mut Tx,
    account: &AccountId,
    mut vlans: Vec<(PortId, u16)>,
    mut subnets: Vec<(AttachPointId, Ipv4Net)>,
) -> Result<(), StoreError> {
    vlans.sort();
    subnets.sort();
    for (port, vlan) in vlans {
        tx.execute(
            "INSERT INTO vlan_allocations (port_id, vlan, account_id, free_at) VALUES ($1, $2, $3, {now} + $4)
             ON CONFLICT (port_id, vlan) DO UPDATE
             SET account_id = excluded.account_id, free_at = excluded.free_at
             WHERE vlan_allocations.free_at < excluded.free_at",
            args![port.as_str(), vlan, account.as_str(), FOREIGN_MS],
        )
        .await?;
    }
    for (attach_point, subnet) in subnets {
        let (first, last) = slots(subnet)?;
        tx.execute(
            "WITH RECURSIVE seen (slot) AS (
                 SELECT CAST($1 AS BIGINT) UNION ALL SELECT slot + 1 FROM seen WHERE slot < $2)
             INSERT INTO subnet_slots (attach_point_id, slot, subnet, account_id, free_at)
             SELECT $3, slot, $4, $5, {now} + $6 FROM seen WHERE TRUE
             ON CONFLICT (attach_point_id, slot) DO UPDATE
             SET subnet = excluded.subnet, account_id = excluded.account_id, free_at = excluded.free_at
             WHERE subnet_slots.free_at < excluded.free_at",
            args![first, last, attach_point.as_str(), subnet.trunc().to_string(), account.as_str(), FOREIGN_MS],
        )
        .await?;
    }
    Ok(())
}

impl SqlStore {
    pub(super) async fn all_allocated(&self) -> Result<Allocated, StoreError> {
        let mut tx = self.read().await?;
        let mut all = Allocated::default();
        const HELD: &str = "(free_at IS NULL OR free_at > {now})";
        for mut row in tx.rows(&format!("SELECT port_id, vlan FROM vlan_allocations WHERE {HELD}"), args![]).await? {
            let (port, vlan): (PortId, i64) = (row.id()?, row.int()?);
            all.vlans.entry(port).or_default().insert(u16::try_from(vlan).unwrap_or_default());
        }
        let sql = format!("SELECT DISTINCT attach_point_id, subnet FROM subnet_slots WHERE {HELD}");
        for mut row in tx.rows(&sql, args![]).await? {
            let (point, subnet): (AttachPointId, String) = (row.id()?, row.text()?);
            let subnet: Ipv4Net = subnet.parse().map_err(|e| StoreError::Unusable {
                reason: "it holds a subnet that is none; restore a backup".to_owned(),
                source: Some(Box::new(e)),
            })?;
            all.subnets.entry(point).or_default().insert(subnet);
        }
        let sql = "SELECT channel_id, used_mbps FROM channel_bandwidth WHERE used_mbps > 0";
        for mut row in tx.rows(sql, args![]).await? {
            all.bandwidth.insert(row.id()?, row.count()?);
        }
        for mut row in tx.rows("SELECT id, intent FROM connections ORDER BY id", args![]).await? {
            let (id, intent): (ConnectionId, tieline_openapi::v1::ConnectionIntent) = (row.id()?, row.doc("intent")?);
            all.carry(id, &intent);
        }
        tx.done().await?;
        Ok(all)
    }
}
