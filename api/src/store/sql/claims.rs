//! The claim and its fence.

use super::{
    LONGEST_WAIT_MS, SqlStore, ledger, records,
    row::{args, to_doc},
    tx::Tx,
    watch, writes,
};
use crate::store::{Claim, EngineWrite, SealedSecret, StoreError, Workpiece};

/// Due, and without a lease that still runs. A time beyond the longest wait comes from a clock that was stepped back.
/// `$2` is the length of the new lease: a row is due again when that runs out, whatever becomes of its holder.
const CLAIM_SQLITE: &str = "UPDATE connections
    SET lease_epoch = lease_epoch + 1, lease_owner = $1, lease_until = {now} + $2, due_at = {now} + $2, wake = 0
    WHERE id IN (SELECT id FROM connections WHERE ready_at <= {now} OR ready_at > {now} + $4
                 ORDER BY ready_at, id LIMIT $3)
    RETURNING id, lease_epoch";

/// The same, past the rows that another replica is claiming right now. The common table expression is materialized: a
/// plan that ran it again would claim more than was picked.
const CLAIM_POSTGRES: &str = "WITH picked AS MATERIALIZED (
        SELECT id FROM connections WHERE ready_at <= {now} OR ready_at > {now} + $4
        ORDER BY ready_at, id LIMIT $3 FOR UPDATE SKIP LOCKED)
    UPDATE connections
    SET lease_epoch = lease_epoch + 1, lease_owner = $1, lease_until = {now} + $2, due_at = {now} + $2, wake = 0
    FROM picked WHERE connections.id = picked.id
    RETURNING connections.id, lease_epoch";

/// The fence: whoever holds the epoch gets the row's lock until its transaction ends, and nobody else can claim meanwhile.
pub(super) async fn fence(tx: &mut Tx, claim: &Claim) -> Result<(), StoreError> {
    let held = tx
        .execute(
            "UPDATE connections SET fenced_at = {now} WHERE id = $1 AND lease_epoch = $2",
            args![claim.id.uuid(), claim.epoch],
        )
        .await?;
    if held == 1 { Ok(()) } else { Err(StoreError::Fenced) }
}

/// Ends the lease and says when the connection is due again: at once if its intent changed since the claim. The epoch moves
/// on, so that nothing more can be written under this claim.
pub(super) async fn release(
    tx: &mut Tx,
    claim: &Claim,
    due_in_ms: u64,
    failures: u32,
    progress: bool,
) -> Result<(), StoreError> {
    tx.execute(
        "UPDATE connections
         SET lease_epoch = lease_epoch + 1, lease_owner = NULL, lease_until = NULL,
             due_at = CASE WHEN wake = 1 THEN {now} ELSE {now} + $2 END, wake = 0, failures = $3,
             last_progress_at = CASE WHEN $4 = 1 THEN {now} ELSE last_progress_at END
         WHERE id = $1",
        args![claim.id.uuid(), due_in_ms.min(LONGEST_WAIT_MS), failures, progress],
    )
    .await?;
    Ok(())
}

impl SqlStore {
    pub(super) async fn claim_due(&self, owner: &str, lease_ms: u64, limit: u32) -> Result<Vec<Claim>, StoreError> {
        let mut write = self.write().await?;
        let sql = write.either(CLAIM_SQLITE, CLAIM_POSTGRES);
        let rows = write.rows(sql, args![owner, lease_ms, limit, LONGEST_WAIT_MS]).await?;
        write.commit().await?;
        rows.into_iter()
            .map(|mut row| Ok(Claim { id: row.id()?, epoch: row.count()?, owner: owner.to_owned(), lease_ms }))
            .collect()
    }

    pub(super) async fn wait_until_due(&self, longest_ms: u64) -> Result<Option<u64>, StoreError> {
        let mut tx = self.read().await?;
        let far =
            tx.row("SELECT 1 FROM connections WHERE ready_at > {now} + $1 LIMIT 1", args![LONGEST_WAIT_MS]).await?;
        let next = tx.row("SELECT ready_at - {now} FROM connections ORDER BY ready_at LIMIT 1", args![]).await?;
        tx.done().await?;
        let Some(mut next) = next else { return Ok(None) };
        let wait = if far.is_some() { 0 } else { u64::try_from(next.int()?).unwrap_or(0) };
        Ok(Some(wait.min(longest_ms)))
    }

    pub(super) async fn load_claimed(&self, claim: &Claim) -> Result<Workpiece, StoreError> {
        let mut tx = self.read().await?;
        let sql = format!(
            "SELECT failures, last_progress_at, watch, {} FROM connections WHERE id = $1 AND lease_epoch = $2",
            records::COLUMNS
        );
        let row = tx.row(&sql, args![claim.id.uuid(), claim.epoch]).await?;
        let mut row = row.ok_or(StoreError::Fenced)?;
        let (failures, last_progress_at, watch) = (row.small()?, row.time()?, watch::of(row.int()?));
        let mut records = [records::record(&mut row)?];
        records::complete(&mut tx, &mut records, true).await?;
        let channels = records::channels(&mut tx, claim.id).await?;
        let secrets = tx
            .rows(
                "SELECT channel_id, generation, name, sealed FROM secrets WHERE connection_id = $1
                 ORDER BY channel_id, generation, name",
                args![claim.id.uuid()],
            )
            .await?
            .into_iter()
            .map(|mut row| {
                Ok(SealedSecret {
                    channel_id: row.id()?,
                    generation: row.small()?,
                    name: row.text()?,
                    sealed: row.bytes()?,
                })
            })
            .collect::<Result<Vec<_>, StoreError>>()?;
        let operation = tx
            .row(
                "SELECT doc FROM operations WHERE connection_id = $1 AND finished_at IS NULL ORDER BY id DESC LIMIT 1",
                args![claim.id.uuid()],
            )
            .await?
            .map(|mut row| row.doc("operation"))
            .transpose()?;
        let calls = ledger::calls(&mut tx, claim.id).await?;
        let held = watch::held(&mut tx).await?;
        tx.done().await?;
        let [record] = records;
        Ok(Workpiece { record, channels, calls, secrets, operation, failures, last_progress_at, watch, held })
    }

    pub(super) async fn write_under(&self, claim: &Claim, all: Vec<EngineWrite>) -> Result<(), StoreError> {
        let mut write = self.write().await?;
        fence(&mut write, claim).await?;
        for one in all {
            writes::apply(&mut write, Some(claim), one).await?;
        }
        write.commit().await
    }

    pub(super) async fn write_without_claim(&self, all: Vec<EngineWrite>) -> Result<(), StoreError> {
        let mut write = self.write().await?;
        for one in all {
            writes::apply(&mut write, None, one).await?;
        }
        write.commit().await
    }

    /// Releases many claims in one transaction; those that were lost meanwhile are passed over.
    pub(super) async fn release_all(&self, releases: Vec<(Claim, u64)>) -> Result<(), StoreError> {
        let mut releases = releases;
        releases.sort_by_key(|(claim, _)| claim.id);
        let mut write = self.write().await?;
        for (claim, due_in_ms) in releases {
            match fence(&mut write, &claim).await {
                Ok(()) => release(&mut write, &claim, due_in_ms, 0, false).await?,
                Err(StoreError::Fenced) => {}
                Err(e) => return Err(e),
            }
        }
        write.commit().await
    }
}

/// The document of an engine status, read under the fence.
pub(super) async fn put_status(
    tx: &mut Tx,
    claim: &Claim,
    status: &crate::store::EngineStatus,
    observed_generation: Option<u64>,
) -> Result<bool, StoreError> {
    let old: crate::store::EngineStatus = tx
        .row("SELECT status FROM connections WHERE id = $1", args![claim.id.uuid()])
        .await?
        .ok_or(StoreError::Fenced)?
        .doc("status")?;
    tx.execute(
        "UPDATE connections SET status = $2, observed_generation = COALESCE($3, observed_generation) WHERE id = $1",
        args![claim.id.uuid(), to_doc("status", status)?, observed_generation],
    )
    .await?;
    // The rest of the status says nothing to a gateway.
    Ok(old.provisioned_at != status.provisioned_at || old.established_at != status.established_at)
}
