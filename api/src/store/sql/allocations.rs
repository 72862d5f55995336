//! Allocations are constraints: a VLAN is the primary key of its port's table, a subnet occupies slots of a fixed grid of
//! /31s, bandwidth is a counter with a CHECK. A row is held, or has a time from which on it is free. What others occupy is
//! not given out ([`super::foreign`]); what a connection holds already stays its own.

use ipnet::Ipv4Net;
use tieline_openapi::ids::{AttachPointId, ChannelId, ConnectionId, PortId};

use super::{
    SqlStore, carried, foreign,
    questions::{
        self, Column,
        Column::{Int, Text},
        Question,
    },
    row::{Value, args},
    tx::Tx,
};
use crate::{
    plan::negotiate::{Allocated, Negotiated, Touched},
    store::{Allocation, StoreError},
};

/// The shortest prefix that is entered into the grid: 32,768 slots.
const SHORTEST_PREFIX: u8 = 16;

/// First and last slot of a subnet. A /32 occupies the /31 that it is in.
pub(super) fn slots(subnet: Ipv4Net) -> Result<(i64, i64), StoreError> {
    if subnet.prefix_len() < SHORTEST_PREFIX {
        return Err(StoreError::Invalid { reason: format!("{subnet} is no point-to-point subnet") });
    }
    let slot = |address: std::net::Ipv4Addr| i64::from(u32::from(address) >> 1);
    Ok((slot(subnet.network()), slot(subnet.broadcast())))
}

/// A subnet as it stands in a row.
pub(super) fn subnet(text: &str) -> Result<Ipv4Net, StoreError> {
    text.parse().map_err(|e| unusable("a subnet that is none", e))
}

fn unusable(what: &str, source: impl std::error::Error + Send + Sync + 'static) -> StoreError {
    StoreError::Unusable { reason: format!("it holds {what}; restore a backup"), source: Some(Box::new(source)) }
}

fn taken(what: String) -> StoreError {
    StoreError::AllocationTaken { what }
}

/// What is taken, and by whom where that is nobody of ours.
fn taken_by(what: String, holder: Option<String>) -> StoreError {
    taken(holder.map_or_else(|| what.clone(), |holder| format!("{what}, which {holder} has, a resource of others")))
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
             SELECT CAST($1 AS TEXT), CAST($2 AS BIGINT), CAST($3 AS TEXT), CAST($4 AS TEXT), CAST($5 AS BIGINT)
             WHERE NOT EXISTS (SELECT 1 FROM foreign_holdings WHERE port_id = $1 AND vlan = $2)
                OR EXISTS (SELECT 1 FROM vlan_allocations
                           WHERE port_id = $1 AND vlan = $2 AND connection_id = $3 AND channel_id = $4
                             AND free_at IS NULL)
             ON CONFLICT (port_id, vlan) DO UPDATE
             SET connection_id = excluded.connection_id, channel_id = excluded.channel_id,
                 generation = excluded.generation, account_id = NULL, free_at = NULL
             WHERE vlan_allocations.free_at <= {now}
                OR (vlan_allocations.free_at IS NULL AND vlan_allocations.connection_id = excluded.connection_id
                    AND vlan_allocations.channel_id = excluded.channel_id)",
            args![port.as_str(), vlan, connection.uuid(), channel.as_str(), generation],
        )
        .await?;
    if written == 1 {
        return Ok(());
    }
    let holder = foreign::vlan_holder(tx, port, vlan).await?;
    Err(taken_by(format!("VLAN {vlan} on port {port}"), holder))
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
    let wanted = u64::try_from(last - first + 1).unwrap_or(0);
    let written = tx
        .execute(
            "WITH RECURSIVE wanted (slot) AS (
                 SELECT CAST($1 AS BIGINT) UNION ALL SELECT slot + 1 FROM wanted WHERE slot < $2)
             INSERT INTO subnet_slots (attach_point_id, slot, subnet, connection_id, channel_id, generation)
             SELECT $3, slot, $4, $5, $6, $7 FROM wanted
             WHERE NOT EXISTS (SELECT 1 FROM foreign_holdings
                               WHERE attach_point_id = $3 AND first_slot <= $2 AND last_slot >= $1)
                OR (SELECT COUNT(*) FROM subnet_slots
                    WHERE attach_point_id = $3 AND slot BETWEEN $1 AND $2 AND connection_id = $5 AND channel_id = $6
                      AND free_at IS NULL) = $2 - $1 + 1
             ON CONFLICT (attach_point_id, slot) DO UPDATE
             SET subnet = excluded.subnet, connection_id = excluded.connection_id,
                 channel_id = excluded.channel_id, generation = excluded.generation, account_id = NULL,
                 free_at = NULL
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
    if written == wanted {
        return Ok(());
    }
    let holder = foreign::subnet_holder(tx, attach_point, (first, last)).await?;
    Err(taken_by(format!("subnet {subnet} on attach point {attach_point}"), holder))
}

/// Sets what a connection takes of a channel; 0 gives it back.
async fn set_bandwidth(
    tx: &mut Tx,
    connection: ConnectionId,
    channel: &ChannelId,
    mbps: u64,
    capacity: u64,
) -> Result<(), StoreError> {
    let mine = || args![connection.uuid(), channel.as_str()];
    let held = tx
        .row("SELECT mbps FROM bandwidth_shares WHERE connection_id = $1 AND channel_id = $2", mine())
        .await?
        .map_or(Ok(0), |mut row| row.int())?;
    let more = i64::try_from(mbps).unwrap_or(i64::MAX).saturating_sub(held);
    // A channel whose capacity was lowered below what is taken gives back, but takes no more.
    let counted = tx
        .execute(
            "INSERT INTO channel_bandwidth (channel_id, used_mbps, capacity_mbps)
             SELECT CAST($1 AS TEXT), CASE WHEN $2 > 0 THEN CAST($2 AS BIGINT) ELSE 0 END, CAST($3 AS BIGINT)
             WHERE $2 <= $3
             ON CONFLICT (channel_id) DO UPDATE
             SET used_mbps = channel_bandwidth.used_mbps + $2,
                 capacity_mbps = CASE WHEN channel_bandwidth.used_mbps + $2 <= $3 THEN $3
                                      ELSE channel_bandwidth.used_mbps + $2 END
             WHERE $2 <= 0 OR channel_bandwidth.used_mbps + $2 <= $3",
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

/// Puts single VLANs and subnets that a connection holds into quarantine: the cloud gave it others.
pub(super) async fn give_back(
    tx: &mut Tx,
    connection: ConnectionId,
    allocations: Vec<Allocation>,
    quarantine_ms: u64,
) -> Result<(), StoreError> {
    for allocation in allocations {
        match allocation {
            Allocation::Vlan { channel_id, generation, port_id, vlan } => {
                tx.execute(
                    "UPDATE vlan_allocations SET free_at = {now} + $6
                     WHERE port_id = $1 AND vlan = $2 AND connection_id = $3 AND channel_id = $4 AND generation = $5
                       AND free_at IS NULL",
                    args![port_id.as_str(), vlan, connection.uuid(), channel_id.as_str(), generation, quarantine_ms],
                )
                .await?;
            }
            Allocation::Subnet { channel_id, generation, attach_point_id, subnet } => {
                let (first, last) = slots(subnet)?;
                tx.execute(
                    "UPDATE subnet_slots SET free_at = {now} + $7
                     WHERE attach_point_id = $1 AND slot BETWEEN $2 AND $3 AND connection_id = $4 AND channel_id = $5
                       AND generation = $6 AND free_at IS NULL",
                    args![
                        attach_point_id.as_str(),
                        first,
                        last,
                        connection.uuid(),
                        channel_id.as_str(),
                        generation,
                        quarantine_ms
                    ],
                )
                .await?;
            }
            Allocation::Bandwidth { channel_id, capacity_mbps, .. } => {
                set_bandwidth(tx, connection, &channel_id, 0, capacity_mbps).await?;
            }
        }
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

/// VLANs and subnets that are held, or not free yet: one text for each port and attach point, since of thousands of rows
/// fetching costs more than finding. A subnet stands in it once for each of its slots.
const HELD: [Question; 2] = [
    held(
        &[
            Text("p.id"),
            Text(
                "(SELECT string_agg(CAST(vlan AS TEXT), ',') FROM vlan_allocations
                  WHERE port_id = p.id AND (free_at IS NULL OR free_at > {now}))",
            ),
        ],
        "ports p",
    ),
    held(
        &[
            Text("p.id"),
            Text(
                "(SELECT string_agg(subnet, ',') FROM subnet_slots
                  WHERE attach_point_id = p.id AND (free_at IS NULL OR free_at > {now}))",
            ),
        ],
        "points p",
    ),
];

/// What channels carry.
const BANDWIDTH: Question = Question {
    columns: &[Text("c.id"), Int("b.used_mbps")],
    from: "channels c CROSS JOIN channel_bandwidth b WHERE b.channel_id = c.id AND b.used_mbps > 0",
    order: &[Text("c.id")],
};

const fn held(columns: &'static [Column], from: &'static str) -> Question {
    Question { columns, from, order: &[] }
}

/// A table of a WITH clause that holds arguments from the given one on.
fn table(name: &str, first: usize, rows: usize) -> String {
    let values: Vec<String> = (first..first + rows).map(|n| format!("(${n})")).collect();
    match values.is_empty() {
        true => format!("{name} (id) AS (SELECT CAST(NULL AS TEXT) WHERE 1 = 0)"),
        false => format!("{name} (id) AS (VALUES {})", values.join(", ")),
    }
}

impl SqlStore {
    pub(super) async fn allocated_of(&self, touched: &Touched) -> Result<Allocated, StoreError> {
        let ports: Vec<Value> = touched.ports.iter().map(|port| Value::from(port.as_str())).collect();
        let points: Vec<Value> = touched.attach_points().map(|point| Value::from(point.as_str())).collect();
        let channels: Vec<Value> = touched.channels.iter().map(|channel| Value::from(channel.as_str())).collect();
        let with = format!(
            "WITH {}, {}, {}",
            table("ports", 1, ports.len()),
            table("points", 1 + ports.len(), points.len()),
            table("channels", 1 + ports.len() + points.len(), channels.len())
        );
        let mut tx = self.read().await?;
        let [vlans, subnets] = HELD;
        let questions = [vlans, subnets, BANDWIDTH, foreign::VLANS, foreign::SUBNETS];
        let answers = questions::ask(&mut tx, &with, &questions, [ports, points, channels].concat()).await?;
        let mut answers = answers.into_iter();
        let mut rows = || answers.next().unwrap_or_default();
        let mut all = Allocated::default();
        for mut row in rows() {
            let (port, held): (PortId, Option<String>) = (row.id()?, row.opt_text()?);
            let Some(held) = held else { continue };
            let vlans = held.split(',').map(|vlan| vlan.parse().map_err(|e| unusable("a VLAN that is none", e)));
            all.vlans.insert(port, vlans.collect::<Result<_, _>>()?);
        }
        for mut row in rows() {
            let (point, held): (AttachPointId, Option<String>) = (row.id()?, row.opt_text()?);
            let Some(held) = held else { continue };
            let mut slots: Vec<&str> = held.split(',').collect();
            slots.dedup();
            all.subnets.insert(point, slots.into_iter().map(subnet).collect::<Result<_, _>>()?);
        }
        for mut row in rows() {
            all.bandwidth.insert(row.id()?, row.count()?);
        }
        foreign::add(rows(), rows(), &mut all)?;
        carried::read(&mut tx, touched, &mut all).await?;
        tx.done().await?;
        Ok(all)
    }
}
