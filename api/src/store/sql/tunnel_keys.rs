//! The preshared keys of tunnels, one for each two gateways that serve the two ends of a connection.

use std::collections::BTreeMap;

use tieline_openapi::ids::GatewayId;

use super::{
    SqlStore,
    row::{Row, args},
    tx::Tx,
};
use crate::store::{StoreError, TunnelKey, TunnelKeyChange, TunnelKeyDue};

/// Each two gateways that serve the two ends of a connection.
const PAIRS: &str = "connections c
    JOIN gateways g ON g.attach_point_id = c.a_attach_point_id AND g.project = c.project
    JOIN gateways h ON h.attach_point_id = c.b_attach_point_id AND h.project = c.project";
const LOW: &str = "CASE WHEN g.id < h.id THEN g.id ELSE h.id END";
const HIGH: &str = "CASE WHEN g.id < h.id THEN h.id ELSE g.id END";

/// The keys that a gateway has with others.
pub(super) async fn of(tx: &mut Tx, gateway: GatewayId) -> Result<BTreeMap<GatewayId, TunnelKey>, StoreError> {
    let sql = "SELECT CASE WHEN low = $1 THEN high ELSE low END, generation, sealed, changing, former FROM tunnel_keys
               WHERE low = $1 OR high = $1";
    let rows = tx.rows(sql, args![gateway.uuid()]).await?;
    let read = |mut row: Row| {
        let (peer, generation, sealed) = (row.id()?, row.small()?, row.opt_bytes()?);
        Ok((peer, TunnelKey { generation, sealed, changing: row.int()? == 1, former: row.opt_bytes()? }))
    };
    rows.into_iter().map(read).collect()
}

fn due(mut row: Row) -> Result<TunnelKeyDue, StoreError> {
    let (gateways, generation) = ([row.id()?, row.id()?], row.small()?);
    Ok(TunnelKeyDue { gateways, generation, changing: row.int()? == 1, has_key: row.int()? == 1 })
}

impl SqlStore {
    pub(super) async fn keys_due(&self, age_ms: Option<u64>, limit: u32) -> Result<Vec<TunnelKeyDue>, StoreError> {
        let mut tx = self.read().await?;
        let sql = "SELECT k.low, k.high, k.generation, k.changing, CASE WHEN k.sealed IS NULL THEN 0 ELSE 1 END
                   FROM tunnel_keys k JOIN gateways g ON g.id = k.low JOIN gateways h ON h.id = k.high
                   WHERE (k.changing = 1 AND g.configuration_version >= k.version AND h.configuration_version >= k.version)
                      OR (k.changing = 0 AND (k.sealed IS NULL OR k.made_at <= {now} - $1))
                   ORDER BY k.low, k.high LIMIT $2";
        let mut rows = tx.rows(sql, args![age_ms.unwrap_or(0), limit]).await?;
        if age_ms.is_some() && rows.len() < limit as usize {
            let sql = format!(
                "SELECT DISTINCT {LOW}, {HIGH}, 0, 0, 0 FROM {PAIRS}
                 WHERE NOT EXISTS (SELECT 1 FROM tunnel_keys k WHERE k.low = {LOW} AND k.high = {HIGH}) LIMIT $1"
            );
            rows.extend(tx.rows(&sql, args![limit]).await?);
        }
        tx.done().await?;
        rows.into_iter().take(limit as usize).map(due).collect()
    }

    pub(super) async fn change_key(&self, due: TunnelKeyDue, change: TunnelKeyChange) -> Result<bool, StoreError> {
        let [low, high] = due.gateways.map(GatewayId::uuid);
        let mut write = self.write().await?;
        // Held until the commit, which raises it: what is written here is in the next version, whoever else writes.
        let version = write
            .row("UPDATE counters SET value = value WHERE name = 'configuration' RETURNING value + 1", args![])
            .await?
            .ok_or(StoreError::NotFound)?
            .count()?;
        let is = "low = $1 AND high = $2 AND generation = $3 AND changing";
        let written = match change {
            TunnelKeyChange::Begin { sealed } if due.generation == 0 => {
                let sql = "INSERT INTO tunnel_keys (low, high, generation, sealed, changing, former, version, made_at)
                           VALUES ($1, $2, 1, $3, 1, NULL, $4, {now}) ON CONFLICT (low, high) DO NOTHING";
                write.execute(sql, args![low, high, sealed, version]).await?
            }
            TunnelKeyChange::Begin { sealed } => {
                let sql = format!(
                    "UPDATE tunnel_keys SET generation = generation + 1, former = sealed, sealed = $4, changing = 1,
                         version = $5, made_at = {{now}} WHERE {is} = 0"
                );
                write.execute(&sql, args![low, high, due.generation, sealed, version]).await?
            }
            TunnelKeyChange::Settle => {
                let sql = format!("UPDATE tunnel_keys SET changing = 0, former = NULL WHERE {is} = 1");
                write.execute(&sql, args![low, high, due.generation]).await?
            }
            TunnelKeyChange::Forget => {
                let sql = format!("DELETE FROM tunnel_keys WHERE {is} = 1");
                write.execute(&sql, args![low, high, due.generation]).await?
            }
        };
        if written == 0 {
            write.abandon().await?;
            return Ok(false);
        }
        write.configuration_changed();
        write.commit().await?;
        Ok(true)
    }

    /// Forgets the keys of gateways that have nothing to do with each other any more.
    pub(super) async fn prune_tunnel_keys(&self, rows: u32) -> Result<(), StoreError> {
        let apart = format!(
            "made_at <= {{now}} - $1 AND NOT EXISTS
                (SELECT 1 FROM {PAIRS} WHERE {LOW} = tunnel_keys.low AND {HIGH} = tunnel_keys.high)"
        );
        self.prune("tunnel_keys (low, high)", &apart, 0, rows).await
    }
}
