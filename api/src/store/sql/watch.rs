//! What the lists of accounts showed: of each settled connection, and of the account as a whole.

use std::collections::BTreeSet;

use tieline_openapi::ids::{AccountId, ConnectionId, InstanceId};

use super::{
    SqlStore, events, leases, ledger, principals,
    questions::{Column::Text, Question},
    row::{Row, args},
    tx::Tx,
    writes,
};
use crate::store::{
    Acceptance, AccountRound, AccountWatch, EngineWrite, Expected, SharedLease, Sighting, StoreError, Watch,
};

/// What stands in `connections.watch`. A number that a newer version wrote is the careful one.
pub(super) const fn of(number: i64) -> Watch {
    match number {
        1 => Watch::List,
        2 => Watch::Doubt,
        _ => Watch::Each,
    }
}

const fn number(watch: Watch) -> i64 {
    match watch {
        Watch::Each => 0,
        Watch::List => 1,
        Watch::Doubt => 2,
    }
}

/// How a claimed connection is observed from now on. Where its intent changed since the claim, what the pass found says
/// nothing about the new one.
pub(super) async fn put(tx: &mut Tx, connection: ConnectionId, watch: Watch) -> Result<(), StoreError> {
    tx.execute(
        "UPDATE connections SET watch = CASE WHEN wake = 1 THEN 0 ELSE $2 END WHERE id = $1",
        args![connection.uuid(), number(watch)],
    )
    .await?;
    Ok(())
}

/// Accounts in which nothing may be created.
pub(super) const HELD: Question =
    Question { columns: &[Text("account_id")], from: "account_watches WHERE held = 1", order: &[Text("account_id")] };

/// From the answer to [`HELD`].
pub(super) fn held(rows: Vec<Row>) -> Result<BTreeSet<AccountId>, StoreError> {
    rows.into_iter().map(|mut row| row.id()).collect()
}

impl SqlStore {
    pub(super) async fn watch_of(&self, account: &AccountId) -> Result<AccountWatch, StoreError> {
        let mut tx = self.look().await?;
        let row = tx
            .row(
                "SELECT {now} - tried_at, {now} - swept_at, observed_at, failures, expected, absent, accepted, held,
                        calm
                 FROM account_watches WHERE account_id = $1",
                args![account.as_str()],
            )
            .await?;
        tx.done().await?;
        let Some(mut row) = row else { return Ok(AccountWatch::default()) };
        // A time that is still to come is from a clock that was stepped back: it says nothing.
        let ago = |ms: Option<i64>| ms.and_then(|ms| u64::try_from(ms).ok());
        Ok(AccountWatch {
            tried_ms_ago: ago(row.opt_int()?),
            swept_ms_ago: ago(row.opt_int()?),
            observed_at: row.opt_time()?,
            failures: row.small()?,
            expected: row.small()?,
            absent: row.small()?,
            accepted: row.small()?,
            held: row.int()? != 0,
            calm: row.int()? != 0,
        })
    }

    pub(super) async fn expected_after(
        &self,
        account: &AccountId,
        after: Option<InstanceId>,
        limit: u32,
    ) -> Result<Vec<Expected>, StoreError> {
        let mut tx = self.look().await?;
        let rows = tx
            .rows(
                "SELECT i.connection_id, i.project, c.watch, i.doc
                 FROM instances i JOIN connections c ON c.id = i.connection_id
                 WHERE i.account_id = $1 AND i.retired_at IS NULL AND i.id > $2 AND i.cloud_id IS NOT NULL
                   AND c.watch > 0
                 ORDER BY i.id LIMIT $3",
                args![account.as_str(), after.map(|id| id.to_string()).unwrap_or_default(), limit],
            )
            .await?;
        tx.done().await?;
        rows.into_iter()
            .map(|mut row| {
                Ok(Expected {
                    connection_id: row.id()?,
                    project: row.id()?,
                    watch: of(row.int()?),
                    instance: row.doc("instance")?,
                })
            })
            .collect()
    }

    pub(super) async fn put_sightings(
        &self,
        lease: &SharedLease,
        mut sightings: Vec<Sighting>,
    ) -> Result<(), StoreError> {
        // In one order, so that two of these never wait for each other.
        sightings.sort_by_key(|sighting| sighting.connection_id);
        let mut write = self.write().await?;
        leases::fence(&mut write, lease).await?;
        // What the other end of one of these shows is wanted soon.
        write.execute("UPDATE account_watches SET calm = 0 WHERE calm = 1", args![]).await?;
        for sighting in sightings {
            // As a claim, a write and a release in one: the epoch moves on, and the row stays locked until the commit, so
            // nobody else writes about the connection in between.
            let free = write
                .execute(
                    "UPDATE connections
                     SET lease_epoch = lease_epoch + 1, lease_owner = NULL, lease_until = NULL, due_at = {now},
                         fenced_at = {now}, watch = $2
                     WHERE id = $1 AND watch = 1 AND (lease_until IS NULL OR lease_until <= {now})",
                    args![
                        sighting.connection_id.uuid(),
                        number(if sighting.doubt { Watch::Doubt } else { Watch::List })
                    ],
                )
                .await?;
            if free == 0 {
                continue;
            }
            for instance in &sighting.instances {
                if ledger::put_instance(&mut write, sighting.connection_id, instance).await? {
                    write.configuration_changed();
                }
            }
            write.connection_due();
        }
        write.commit().await
    }

    pub(super) async fn put_round(
        &self,
        lease: &SharedLease,
        round: AccountRound,
        all: Vec<EngineWrite>,
    ) -> Result<(), StoreError> {
        let mut write = self.write().await?;
        leases::fence(&mut write, lease).await?;
        write
            .execute(
                "INSERT INTO account_watches (account_id, tried_at, observed_at, swept_at, failures, expected, absent,
                     accepted, held, calm)
                 VALUES ($1, {now} - $2, $3, CASE WHEN $4 = 1 THEN {now} - $2 END, $5, $6, $7, $8, $9, $10)
                 ON CONFLICT (account_id) DO UPDATE
                 SET tried_at = excluded.tried_at,
                     observed_at = COALESCE(excluded.observed_at, account_watches.observed_at),
                     swept_at = COALESCE(excluded.swept_at, account_watches.swept_at),
                     failures = excluded.failures, expected = excluded.expected, absent = excluded.absent,
                     accepted = excluded.accepted, held = excluded.held, calm = excluded.calm",
                args![
                    round.account_id.as_str(),
                    round.began_ms_ago,
                    round.observed_at,
                    round.swept,
                    round.failures,
                    round.expected,
                    round.absent,
                    round.accepted,
                    round.held,
                    round.calm
                ],
            )
            .await?;
        for one in all {
            writes::apply(&mut write, None, one).await?;
        }
        write.commit().await
    }

    pub(super) async fn lift_hold(&self, acceptance: Acceptance) -> Result<(), StoreError> {
        let mut write = self.write().await?;
        let lifted = write
            .execute(
                "UPDATE account_watches SET held = 0, accepted = absent WHERE account_id = $1 AND held = 1",
                args![acceptance.account_id.as_str()],
            )
            .await?;
        if lifted == 0 {
            return Err(StoreError::NotFound);
        }
        // What waited for this is due.
        write.execute("UPDATE connections SET due_at = {now} WHERE watch = 2 AND due_at > {now}", args![]).await?;
        events::resolve(&mut write, &acceptance.code, &acceptance.subject, acceptance.at).await?;
        principals::audit(&mut write, &acceptance.audit).await?;
        write.event(acceptance.event);
        write.connection_due();
        write.commit().await
    }
}
