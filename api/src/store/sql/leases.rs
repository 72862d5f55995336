//! Leases on objects that are shared between connections, and on sweeps.

use super::{
    LONGEST_WAIT_MS, SqlStore,
    row::{args, to_doc},
    tx::Tx,
};
use crate::store::{SharedLease, StoreError};

/// The fence of a shared lease: whoever holds its epoch gets the row's lock until the transaction ends.
pub(super) async fn fence(tx: &mut Tx, lease: &SharedLease) -> Result<(), StoreError> {
    let held = tx
        .execute(
            "UPDATE shared_leases SET epoch = epoch WHERE name = $1 AND epoch = $2 AND lease_until IS NOT NULL",
            args![&lease.name, lease.epoch],
        )
        .await?;
    if held == 1 { Ok(()) } else { Err(StoreError::Fenced) }
}

impl SqlStore {
    pub(super) async fn take_lease(
        &self,
        name: &str,
        owner: &str,
        lease_ms: u64,
    ) -> Result<Option<SharedLease>, StoreError> {
        let mut write = self.write().await?;
        // lease_until is NULL only after a release: a lease that ran out says nothing about when it was given back.
        let row = write
            .row(
                "INSERT INTO shared_leases (name, epoch, owner, lease_until, note) VALUES ($1, 1, $2, {now} + $3, 'null')
                 ON CONFLICT (name) DO UPDATE
                 SET epoch = shared_leases.epoch + 1, owner = excluded.owner, lease_until = excluded.lease_until,
                     released_at = CASE WHEN shared_leases.lease_until IS NULL THEN shared_leases.released_at END
                 WHERE shared_leases.lease_until IS NULL OR shared_leases.lease_until <= {now}
                    OR shared_leases.lease_until > {now} + $4
                 RETURNING epoch, note, {now} - released_at",
                args![name, owner, lease_ms, LONGEST_WAIT_MS],
            )
            .await?;
        write.commit().await?;
        let Some(mut row) = row else { return Ok(None) };
        Ok(Some(SharedLease {
            name: name.to_owned(),
            epoch: row.count()?,
            owner: owner.to_owned(),
            lease_ms,
            note: row.doc("note of a lease")?,
            released_ms_ago: row.opt_int()?.map(|ms| u64::try_from(ms).unwrap_or(0)),
        }))
    }

    pub(super) async fn renew_lease(&self, lease: &SharedLease) -> Result<(), StoreError> {
        let mut write = self.write().await?;
        let held = write
            .execute(
                "UPDATE shared_leases SET lease_until = {now} + $3
                 WHERE name = $1 AND epoch = $2 AND lease_until IS NOT NULL",
                args![&lease.name, lease.epoch, lease.lease_ms],
            )
            .await?;
        if held == 0 {
            return Err(StoreError::Fenced);
        }
        write.commit().await
    }

    pub(super) async fn give_lease_back(&self, lease: &SharedLease, note: serde_json::Value) -> Result<(), StoreError> {
        let mut write = self.write().await?;
        let held = write
            .execute(
                "UPDATE shared_leases SET lease_until = NULL, released_at = {now}, note = $3
                 WHERE name = $1 AND epoch = $2 AND lease_until IS NOT NULL",
                args![&lease.name, lease.epoch, to_doc("note of a lease", &note)?],
            )
            .await?;
        if held == 0 {
            return Err(StoreError::Fenced);
        }
        write.commit().await
    }
}
