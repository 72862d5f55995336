//! What is not kept for ever, in bounded pieces.

use super::{SqlStore, row::args};
use crate::store::{HousekeepingLimits, StoreError};

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
        self.prune_events(limits).await
    }

    /// Deletes old rows, each table in a transaction of its own: the writer is never held for long.
    async fn prune(&self, table: &str, condition: &str, age_ms: u64, rows: u32) -> Result<(), StoreError> {
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
