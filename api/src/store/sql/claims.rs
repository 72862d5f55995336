//! The claim and its fence.

use super::{
    LONGEST_WAIT_MS, SqlStore, ledger,
    questions::{
        Column::{Bytes, Int, Text},
        Question,
    },
    records,
    row::{args, to_doc},
    tx::Tx,
    watch, writes,
};
use crate::store::{Claim, EngineWrite, SealedSecret, StoreError, Workpiece};

/// Due, and without a lease that still runs. A time beyond the longest wait comes from a clock that was stepped back. Each is
/// a range of the index: of both in one condition the whole index would be walked.
/// `$2` is the length of the new lease: a row is due again when that runs out, whatever becomes of its holder.
const CLAIM_SQLITE: &str = "UPDATE {table}
    SET lease_epoch = lease_epoch + 1, lease_owner = $1, lease_until = {now} + $2, due_at = {now} + $2, wake = 0
    WHERE id IN (
        SELECT id FROM (SELECT id FROM {table} WHERE {whose} ready_at <= {now} ORDER BY ready_at, id LIMIT $3)
        UNION ALL
        SELECT id FROM (SELECT id FROM {table} WHERE {whose} ready_at > {now} + $4 ORDER BY ready_at, id LIMIT $3)
        LIMIT $3)
    RETURNING id, lease_epoch";

/// The same, past the rows that another replica is claiming right now. The common table expression is materialized: a
/// plan that ran it again would claim more than was picked.
const CLAIM_POSTGRES: &str = "WITH due AS MATERIALIZED (
        SELECT id FROM {table} WHERE {whose} ready_at <= {now}
        ORDER BY ready_at, id LIMIT $3 FOR UPDATE SKIP LOCKED),
    far AS MATERIALIZED (
        SELECT id FROM {table} WHERE {whose} ready_at > {now} + $4
        ORDER BY ready_at, id LIMIT $3 FOR UPDATE SKIP LOCKED),
    picked AS MATERIALIZED (SELECT id FROM due UNION ALL SELECT id FROM far LIMIT $3)
    UPDATE {table}
    SET lease_epoch = lease_epoch + 1, lease_owner = $1, lease_until = {now} + $2, due_at = {now} + $2, wake = 0
    FROM picked WHERE {table}.id = picked.id
    RETURNING {table}.id, lease_epoch";

/// What a claim's row says beside the record.
const CLAIMED: Question = Question {
    columns: &[Int("now"), Int("failures"), Int("last_progress_at"), Int("watch")],
    from: "asked",
    order: &[Text("id")],
};

const SECRETS: Question = Question {
    columns: &[Text("s.channel_id"), Int("s.generation"), Text("s.name"), Bytes("s.sealed")],
    from: "asked CROSS JOIN secrets s WHERE s.connection_id = asked.id",
    order: &[Text("s.channel_id"), Int("s.generation"), Text("s.name")],
};

/// The operations that are under way; the last is the newest.
const OPERATION: Question = Question {
    columns: &[Text("o.doc")],
    from: "asked CROSS JOIN operations o WHERE o.connection_id = asked.id AND o.finished_at IS NULL",
    order: &[Text("o.id")],
};

/// Where a claimed connection's row is.
pub(super) const fn table(gone: bool) -> &'static str {
    if gone { "gone_connections" } else { "connections" }
}

/// The fence: whoever holds the epoch gets the row's lock until its transaction ends, and nobody else can claim meanwhile.
pub(super) async fn fence(tx: &mut Tx, claim: &Claim) -> Result<(), StoreError> {
    let held = tx
        .execute(
            &format!("UPDATE {} SET fenced_at = {{now}} WHERE id = $1 AND lease_epoch = $2", table(claim.gone)),
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
    let sql = format!(
        "UPDATE {}
         SET lease_epoch = lease_epoch + 1, lease_owner = NULL, lease_until = NULL,
             due_at = CASE WHEN wake = 1 THEN {{now}} ELSE {{now}} + $2 END, wake = 0, failures = $3,
             last_progress_at = CASE WHEN $4 = 1 THEN {{now}} ELSE last_progress_at END
         WHERE id = $1",
        table(claim.gone)
    );
    tx.execute(&sql, args![claim.id.uuid(), due_in_ms.min(LONGEST_WAIT_MS), failures, progress]).await?;
    Ok(())
}

/// Who works on a connection that is due.
#[derive(Clone, Copy)]
pub(super) enum Whose {
    /// The engine: both ends are in accounts of ours. It also looks after what is gone.
    Engine,
    /// The coordinator: the other end is a peer's.
    Peers,
}

impl Whose {
    /// Whether of those that are gone, each.
    const fn tables(self) -> &'static [bool] {
        match self {
            Self::Engine => &[false, true],
            Self::Peers => &[false],
        }
    }

    const fn condition(self, gone: bool) -> &'static str {
        match (self, gone) {
            (_, true) => "",
            (Self::Engine, false) => "peer IS NULL AND",
            (Self::Peers, false) => "peer IS NOT NULL AND",
        }
    }
}

impl SqlStore {
    pub(super) async fn claim_due(&self, owner: &str, lease_ms: u64, limit: u32) -> Result<Vec<Claim>, StoreError> {
        self.claim_whose(Whose::Engine, owner, lease_ms, limit).await
    }

    pub(super) async fn claim_whose(
        &self,
        whose: Whose,
        owner: &str,
        lease_ms: u64,
        limit: u32,
    ) -> Result<Vec<Claim>, StoreError> {
        let mut write = self.write().await?;
        let sql = write.either(CLAIM_SQLITE, CLAIM_POSTGRES);
        let mut claims = Vec::new();
        for gone in whose.tables() {
            let left = limit.saturating_sub(u32::try_from(claims.len()).unwrap_or(limit));
            let sql = sql.replace("{table}", table(*gone)).replace("{whose}", whose.condition(*gone));
            for mut row in write.rows(&sql, args![owner, lease_ms, left, LONGEST_WAIT_MS]).await? {
                let (id, epoch) = (row.id()?, row.count()?);
                claims.push(Claim { id, epoch, owner: owner.to_owned(), lease_ms, gone: *gone });
            }
        }
        write.commit().await?;
        Ok(claims)
    }

    pub(super) async fn wait_until_due(&self, longest_ms: u64) -> Result<Option<u64>, StoreError> {
        self.wait_until_whose_due(Whose::Engine, longest_ms).await
    }

    pub(super) async fn wait_until_shared_due(&self, longest_ms: u64) -> Result<Option<u64>, StoreError> {
        self.wait_until_whose_due(Whose::Peers, longest_ms).await
    }

    async fn wait_until_whose_due(&self, whose: Whose, longest_ms: u64) -> Result<Option<u64>, StoreError> {
        let mut tx = self.look().await?;
        // Of each table whether a due time is too far ahead, and the next one.
        let of = |gone| {
            let (table, whose) = (table(gone), whose.condition(gone));
            format!(
                "(SELECT 1 FROM {table} WHERE {whose} ready_at > {{now}} + $1 LIMIT 1),
                 (SELECT ready_at - {{now}} FROM {table} WHERE {whose} ready_at IS NOT NULL ORDER BY ready_at LIMIT 1)"
            )
        };
        let of_each: Vec<String> = whose.tables().iter().map(|gone| of(*gone)).collect();
        let row = tx.row(&format!("SELECT {}", of_each.join(", ")), args![LONGEST_WAIT_MS]).await?;
        tx.done().await?;
        let Some(mut row) = row else { return Ok(None) };
        let mut nearest = None;
        for _ in whose.tables() {
            let (far, next) = (row.opt_int()?, row.opt_int()?);
            let wait = next.map(|next| if far.is_some() { 0 } else { u64::try_from(next).unwrap_or(0) });
            nearest = nearest.into_iter().chain(wait).min();
        }
        Ok(nearest.map(|wait| wait.min(longest_ms)))
    }

    pub(super) async fn load_claimed(&self, claim: &Claim) -> Result<Workpiece, StoreError> {
        // Lists expect nothing of what is gone.
        let watch = if claim.gone { "0 AS watch" } else { "watch" };
        let select = format!(
            "SELECT {{now}} AS now, failures, last_progress_at, {watch}, id FROM {} WHERE id = $1 AND lease_epoch = $2",
            table(claim.gone)
        );
        let more = [CLAIMED, ledger::TWINS, records::CHANNELS, SECRETS, OPERATION, ledger::CALLS, watch::HELD];
        let mut tx = self.look().await?;
        let all = records::With::InstancesAndSamples;
        let (records, more) =
            records::read(&mut tx, claim.gone, &select, args![claim.id.uuid(), claim.epoch], all, &more).await?;
        tx.done().await?;
        let mut record = records.into_iter().next().ok_or(StoreError::Fenced)?;
        let mut more = more.into_iter();
        let mut rows = || more.next().unwrap_or_default();
        let mut row = rows().into_iter().next().ok_or(StoreError::Fenced)?;
        let (now, failures, last_progress_at) = (row.time()?, row.small()?, row.time()?);
        let watch = watch::of(row.int()?);
        record.instances.extend(ledger::twins(rows())?);
        let channels = records::channels(rows())?;
        let secrets = rows()
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
        let operation = rows().pop().map(|mut row| row.doc("operation")).transpose()?;
        let calls = ledger::calls(rows())?;
        let held = watch::held(rows())?;
        Ok(Workpiece { record, channels, calls, secrets, operation, failures, last_progress_at, watch, held, now })
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
    let table = table(claim.gone);
    let old: crate::store::EngineStatus = tx
        .row(&format!("SELECT status FROM {table} WHERE id = $1"), args![claim.id.uuid()])
        .await?
        .ok_or(StoreError::Fenced)?
        .doc("status")?;
    tx.execute(
        &format!(
            "UPDATE {table} SET status = $2, observed_generation = COALESCE($3, observed_generation) WHERE id = $1"
        ),
        args![claim.id.uuid(), to_doc("status", status)?, observed_generation],
    )
    .await?;
    // The rest of the status says nothing to a gateway.
    Ok(old.provisioned_at != status.provisioned_at || old.established_at != status.established_at)
}
