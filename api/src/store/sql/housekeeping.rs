//! What is not kept for ever, in bounded pieces.

use super::{
    SqlStore, records,
    row::{Value, args},
};
use crate::store::{HousekeepingLimits, StoreError};

/// Instances whose ledger one transaction deletes: each has a handful of calls.
const CHUNK: u32 = 200;

/// Milliseconds without a try to list an account after which what others were seen to occupy there says nothing any more.
const UNLISTED_MS: u64 = 24 * 3_600_000;

impl SqlStore {
    pub(super) async fn tidy(&self, limits: &HousekeepingLimits) -> Result<(), StoreError> {
        for table in ["vlan_allocations (port_id, vlan)", "subnet_slots (attach_point_id, slot)"] {
            self.prune(table, "free_at <= {now} - $1", 0, limits.rows).await?;
        }
        self.prune(
            "answers (principal, method, path, idem_key)",
            "created_at <= {now} - $1",
            limits.answers_ms,
            limits.rows,
        )
        .await?;
        self.prune("plans (id)", "expires_at <= {now} - $1", limits.answers_ms, limits.rows).await?;
        let path = "(connection_id, gateway_id, peer_id, path";
        self.prune(
            &format!("sample_minutes {path}, minute)"),
            "minute <= ({now} - $1) / 60000",
            limits.samples_ms,
            limits.rows,
        )
        .await?;
        self.prune(&format!("latest_samples {path})"), "at <= {now} - $1", limits.samples_ms, limits.rows).await?;
        self.prune("audit (seq)", "at <= {now} - $1", limits.audit_ms, limits.rows).await?;
        self.prune("issues (id)", "resolved_at <= {now} - $1", limits.issues_ms, limits.rows).await?;
        let is_last = "SELECT 1 FROM connections c WHERE c.id = operations.connection_id
                       AND c.last_operation_id = operations.id";
        let ended = format!("finished_at <= {{now}} - $1 AND NOT EXISTS ({is_last})");
        self.prune("operations (id)", &ended, limits.operations_ms, limits.rows).await?;
        // An account that is listed no more, as when tieline.toml lost it.
        let listed = "SELECT 1 FROM account_watches w WHERE w.account_id = foreign_holdings.account_id
                      AND w.tried_at > {now} - $1";
        let key = "foreign_holdings (account_id, kind, cloud_id)";
        self.prune(key, &format!("NOT EXISTS ({listed})"), UNLISTED_MS, limits.rows).await?;
        self.prune_tunnel_keys(limits.rows).await?;
        self.enter_carried(CHUNK).await?;
        self.prune_ledger("instances", limits).await?;
        self.prune_ledger("twins", limits).await?;
        let no_twin = "SELECT 1 FROM twins t WHERE t.connection_id = gone_connections.id AND t.retired_at IS NULL";
        let gone = format!("gone_at <= {{now}} - $1 AND due_at IS NULL AND NOT EXISTS ({no_twin})");
        self.prune("gone_connections (id)", &gone, limits.ledger_ms, limits.rows).await?;
        self.prune_events(limits).await
    }

    /// Deletes instances that have been gone for long, and first their calls. What is without verdict stays.
    async fn prune_ledger(&self, table: &str, limits: &HousekeepingLimits) -> Result<(), StoreError> {
        let mut write = self.write().await?;
        let sql = format!(
            "SELECT id FROM {table}
             WHERE retired_at <= {{now}} - $1
               AND NOT EXISTS (SELECT 1 FROM provider_calls c WHERE c.instance_id = {table}.id AND c.is_open = 1)
             ORDER BY retired_at, id LIMIT $2"
        );
        let rows = write.rows(&sql, args![limits.ledger_ms, limits.rows.min(CHUNK)]).await?;
        let ids =
            rows.into_iter().map(|mut row| Ok(Value::from(row.text()?))).collect::<Result<Vec<_>, StoreError>>()?;
        if !ids.is_empty() {
            let these = records::list(ids.len());
            let of_calls = format!("SELECT id FROM provider_calls WHERE instance_id IN {these}");
            write.execute(&format!("DELETE FROM call_answers WHERE call_id IN ({of_calls})"), ids.clone()).await?;
            write.execute(&format!("DELETE FROM provider_calls WHERE instance_id IN {these}"), ids.clone()).await?;
            write.execute(&format!("DELETE FROM {table} WHERE id IN {these}"), ids).await?;
        }
        write.commit().await
    }

    /// Deletes old rows, each table in a transaction of its own: the writer is never held for long.
    pub(super) async fn prune(&self, table: &str, condition: &str, age_ms: u64, rows: u32) -> Result<(), StoreError> {
        let (name, key) = table.split_once(' ').unwrap_or((table, ""));
        let columns = key.trim_start_matches('(').trim_end_matches(')');
        let mut write = self.write().await?;
        let sql = format!(
            "DELETE FROM {name} WHERE ({columns}) IN (SELECT {columns} FROM {name} WHERE {condition} LIMIT $2)"
        );
        write.execute(&sql, args![age_ms, rows]).await?;
        write.commit().await
    }

    /// Deletes the oldest events beyond the number that is kept, and notes up to where.
    async fn prune_events(&self, limits: &HousekeepingLimits) -> Result<(), StoreError> {
        let mut write = self.write().await?;
        let row = write
            .row(
                "UPDATE counters SET value = floor FROM (
                     SELECT CASE WHEN kept < stepped THEN kept ELSE stepped END AS floor FROM (
                         SELECT c.value - $1 AS kept, f.value + $2 AS stepped FROM counters c, counters f
                         WHERE c.name = 'event_cursor' AND f.name = 'event_floor') AS bounds) AS next
                 WHERE name = 'event_floor' AND floor > value RETURNING value",
                args![limits.events, limits.rows],
            )
            .await?;
        if let Some(mut row) = row {
            write.execute("DELETE FROM events WHERE cursor <= $1", args![row.count()?]).await?;
        }
        write.commit().await
    }
}
