//! Books of the open specification.

mod channels;
mod holds;
mod issues;
mod proofs;

use std::collections::BTreeMap;

use async_trait::async_trait;
use tieline_openapi::{
    coordinator::{Comment, Issue, ResourceId},
    ids::{ConnectionId, ProjectId},
    v1::{self, Timestamp},
};
use uuid::Uuid;

use super::{
    LONGEST_WAIT_MS, SqlStore,
    claims::Whose,
    connections, events, principals,
    row::{Row as Cells, args, to_doc, to_word},
    tx::Tx,
};
use crate::{
    plan::coordinate::{ChannelPlace, IssuedKey, Place, REPLAY_KEPT, Reason, TOMBSTONE_KEPT},
    store::{
        Audit, BookChange, BookRead, BookWrite, Books, Claim, IntentWrite, Owner, StoreError, StoredBook, StoredRow,
    },
};

const ROW: &str = "peer = $1 AND environment = $2 AND interconnect = $3 AND connection = $4";
/// The specification's: keys under the four newest public keys are taken.
const PAIRS: u32 = 4;

fn id(cells: &mut Cells) -> Result<ResourceId, StoreError> {
    id_of(cells.text()?)
}

/// A name that is stored.
pub(super) fn id_of(text: String) -> Result<ResourceId, StoreError> {
    ResourceId::try_from(text).map_err(|error| StoreError::Unusable {
        reason: "it holds a name that is none; restore a backup".to_owned(),
        source: Some(Box::new(error)),
    })
}

fn place(cells: &mut Cells) -> Result<Place, StoreError> {
    Ok(Place { environment: id(cells)?, interconnect: id(cells)?, connection: id(cells)? })
}

macro_rules! at {
    ($peer:expr, $place:expr $(, $more:expr)*) => {
        args![
            $peer.as_str(), $place.environment.as_str(), $place.interconnect.as_str(), $place.connection.as_str()
            $(, $more)*
        ]
    };
}
use at;

/// A UUID that is stored.
pub(super) fn number(uuid: &str) -> Result<Uuid, StoreError> {
    uuid.parse().map_err(|error: uuid::Error| StoreError::Unusable {
        reason: "it holds a UUID that is none; restore a backup".to_owned(),
        source: Some(Box::new(error)),
    })
}

fn owner(cells: &mut Cells) -> Result<Owner, StoreError> {
    let uuid = number(&cells.text()?)?;
    Ok(Owner { uuid, project: cells.id()?, sealed: cells.bytes()?, created_at: cells.time()? })
}

/// The fence of a book: whoever moves its revision gets the row's lock until the transaction ends.
async fn fence(tx: &mut Tx, peer: &ResourceId, revision: u64) -> Result<(), StoreError> {
    tx.execute(
        "INSERT INTO coordinator_books (peer, revision) VALUES ($1, 0) ON CONFLICT (peer) DO NOTHING",
        args![peer.as_str()],
    )
    .await?;
    let held = tx
        .execute(
            "UPDATE coordinator_books SET revision = revision + 1 WHERE peer = $1 AND revision = $2",
            args![peer.as_str(), revision],
        )
        .await?;
    if held == 1 { Ok(()) } else { Err(StoreError::Fenced) }
}

/// Makes the connections due whose book changes, before the book is locked: whoever changes an intent locks in this order.
async fn touch(tx: &mut Tx, peer: &ResourceId, changes: &[BookChange]) -> Result<(), StoreError> {
    // Why a place ends is kept for when nothing else tells of it any more.
    let mut touched: BTreeMap<String, Option<Reason>> = BTreeMap::new();
    for change in changes {
        let (uuid, ended) = match change {
            BookChange::Put { row, .. } => {
                let ended = row.row.leaving.filter(|reason| *reason != Reason::Moved);
                (Some(row.row.uuid.to_string()), ended)
            }
            BookChange::Key(key) => (Some(key.uuid.to_string()), None),
            BookChange::Remove { place } => {
                let sql = format!("SELECT uuid FROM coordinator_rows WHERE {ROW}");
                (tx.row(&sql, at!(peer, place)).await?.map(|mut row| row.text()).transpose()?, None)
            }
            BookChange::Tombstone { .. }
            | BookChange::Replay(..)
            | BookChange::Owner(_)
            | BookChange::Account(..)
            | BookChange::Channel(_) => (None, None),
        };
        if let Some(uuid) = uuid {
            let kept = touched.entry(uuid).or_default();
            *kept = ended.or(*kept);
        }
    }
    for (uuid, ended) in touched {
        let ended = ended.map(|reason| to_word("reason", &reason)).transpose()?;
        tx.execute(
            "UPDATE connections SET due_at = {now}, wake = 1, ended = COALESCE($3, ended)
             WHERE peer = $1 AND shared_uuid = $2",
            args![peer.as_str(), uuid, ended],
        )
        .await?;
    }
    Ok(())
}

async fn apply(tx: &mut Tx, peer: &ResourceId, change: BookChange) -> Result<(), StoreError> {
    match change {
        BookChange::Channel(stored) => channels::put(tx, peer, &stored).await,
        BookChange::Put { row, capacity_mbps } => put(tx, peer, &row, capacity_mbps).await,
        BookChange::Remove { place } => {
            holds::release(tx, peer, &place).await?;
            tx.execute(&format!("DELETE FROM coordinator_rows WHERE {ROW}"), at!(peer, place)).await.map(drop)
        }
        BookChange::Tombstone { place, at } => tx
            .execute(
                "INSERT INTO coordinator_tombstones (peer, environment, interconnect, connection, at)
                 VALUES ($1, $2, $3, $4, $5)
                 ON CONFLICT (peer, environment, interconnect, connection) DO UPDATE SET at = excluded.at",
                at!(peer, place, at),
            )
            .await
            .map(drop),
        BookChange::Key(key) => tx
            .execute(
                "INSERT INTO coordinator_keys (peer, uuid, issued_at, spent, doc) VALUES ($1, $2, $3, $4, $5)
                 ON CONFLICT (peer, uuid) DO UPDATE SET spent = excluded.spent, doc = excluded.doc",
                args![peer.as_str(), key.uuid, key.issued_at, key.spent, to_doc("activation key", &key)?],
            )
            .await
            .map(drop),
        BookChange::Replay(id, replay) => tx
            .execute(
                "INSERT INTO coordinator_replays (peer, request_id, at, doc) VALUES ($1, $2, $3, $4)
                 ON CONFLICT (peer, request_id) DO NOTHING",
                args![peer.as_str(), id, replay.at, to_doc("answer to a peer", &replay)?],
            )
            .await
            .map(drop),
        BookChange::Account(uuid, account) => proofs::put_account(tx, peer, uuid, &account).await,
        BookChange::Owner(Owner { uuid, project, sealed, created_at }) => tx
            .execute(
                "INSERT INTO coordinator_owners (peer, uuid, project, sealed, created_at) VALUES ($1, $2, $3, $4, $5)
                 ON CONFLICT (peer, uuid) DO NOTHING",
                args![peer.as_str(), uuid, project.as_str(), sealed, created_at],
            )
            .await
            .map(drop),
    }
}

async fn put(tx: &mut Tx, peer: &ResourceId, stored: &StoredRow, capacity_mbps: u32) -> Result<(), StoreError> {
    let row = &stored.row;
    let doc = to_doc("connection with a peer", row)?;
    holds::take(tx, peer, row, capacity_mbps).await?;
    // A new row's version is 1; another one follows the version before it.
    let written = tx
        .execute(
            "INSERT INTO coordinator_rows
                 (peer, environment, interconnect, connection, uuid, version, firm_mbps, doc, sealed, due_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, {now})
             ON CONFLICT (peer, environment, interconnect, connection) DO UPDATE
             SET version = excluded.version, firm_mbps = excluded.firm_mbps, doc = excluded.doc,
                 sealed = excluded.sealed, due_at = excluded.due_at
             WHERE coordinator_rows.version = excluded.version - 1",
            at!(peer, row.place, row.uuid, row.version, row.firm_mbps(), doc, stored.sealed.clone()),
        )
        .await?;
    if written == 1 { Ok(()) } else { Err(StoreError::Fenced) }
}

#[async_trait]
impl Books for SqlStore {
    async fn book_beside(
        &self,
        peer: &ResourceId,
        request: Option<Uuid>,
        known: Option<u64>,
    ) -> Result<BookRead, StoreError> {
        let mut tx = self.read().await?;
        let all = || args![peer.as_str()];
        let row = tx.row("SELECT revision FROM coordinator_books WHERE peer = $1", all()).await?;
        let revision = row.map_or(Ok(0), |mut row| row.count())?;
        let replay = match request {
            Some(request) => {
                let sql = "SELECT doc FROM coordinator_replays WHERE peer = $1 AND request_id = $2";
                tx.row(sql, args![peer.as_str(), request]).await?
            }
            None => None,
        };
        let replay = replay.map(|mut row| row.doc("answer to a peer")).transpose()?;
        if known == Some(revision) {
            tx.done().await?;
            return Ok(BookRead::Same(replay));
        }
        let sql = "SELECT doc, sealed FROM coordinator_rows WHERE peer = $1
                   ORDER BY environment, interconnect, connection";
        let rows = tx.rows(sql, all()).await?;
        let rows = rows
            .into_iter()
            .map(|mut row| Ok(StoredRow { row: row.doc("connection with a peer")?, sealed: row.bytes()? }))
            .collect::<Result<_, StoreError>>()?;
        let keys = tx.rows("SELECT doc FROM coordinator_keys WHERE peer = $1 ORDER BY uuid", all()).await?;
        let keys = keys.into_iter().map(|mut row| row.doc::<IssuedKey>("activation key")).collect::<Result<_, _>>()?;
        let sql = "SELECT environment, interconnect, connection, at FROM coordinator_tombstones WHERE peer = $1";
        let tombstones = tx.rows(sql, all()).await?;
        let tombstones = tombstones
            .into_iter()
            .map(|mut row| Ok((place(&mut row)?, row.time()?)))
            .collect::<Result<_, StoreError>>()?;
        let channels = channels::all(&mut tx, peer).await?;
        tx.done().await?;
        Ok(BookRead::Moved(StoredBook { revision, rows, keys, tombstones, replay, channels }))
    }

    async fn write_book(&self, wanted: BookWrite) -> Result<(), StoreError> {
        let BookWrite { peer, revision, changes, due, channels_due, intent, audit } = wanted;
        let mut write = self.write().await?;
        match intent {
            None => {}
            Some(IntentWrite::New(new)) => connections::insert(&mut write, *new).await?,
            Some(IntentWrite::Change(change)) => {
                let named = connections::Named::of(&change);
                if let Err(error) = connections::change(&mut write, *change).await {
                    drop(write);
                    return Err(self.refused(named, error).await);
                }
            }
        }
        if !changes.is_empty() {
            touch(&mut write, &peer, &changes).await?;
            fence(&mut write, &peer, revision).await?;
            // Whatever changed, a step is due at once.
            write.connection_due();
        }
        for change in changes {
            apply(&mut write, &peer, change).await?;
        }
        for (place, due_in_ms) in due {
            let sql = format!("UPDATE coordinator_rows SET due_at = {{now}} + $5 WHERE {ROW}");
            write.execute(&sql, at!(peer, place, due_in_ms.min(LONGEST_WAIT_MS))).await?;
        }
        for (place, due_in_ms) in channels_due {
            channels::put_off(&mut write, &peer, &place, due_in_ms).await?;
        }
        if let Some(audit) = &audit {
            principals::audit(&mut write, audit).await?;
        }
        write.commit().await
    }

    async fn due_places(&self, peer: &ResourceId, limit: u32) -> Result<Vec<Place>, StoreError> {
        let mut tx = self.read().await?;
        // A due time beyond the longest wait comes from a clock that was stepped back.
        let sql = "SELECT environment, interconnect, connection FROM coordinator_rows
                   WHERE peer = $1 AND (due_at <= {now} OR due_at > {now} + $3)
                   ORDER BY due_at, environment, interconnect, connection LIMIT $2";
        let rows = tx.rows(sql, args![peer.as_str(), limit, LONGEST_WAIT_MS]).await?;
        tx.done().await?;
        rows.into_iter().map(|mut row| place(&mut row)).collect()
    }

    async fn next_place_due(&self, peer: &ResourceId, longest_ms: u64) -> Result<Option<u64>, StoreError> {
        let mut tx = self.read().await?;
        let sql = "SELECT MIN(CASE WHEN due_at > {now} + $2 THEN 0 ELSE due_at - {now} END)
                   FROM coordinator_rows WHERE peer = $1";
        let row = tx.row(sql, args![peer.as_str(), LONGEST_WAIT_MS]).await?;
        tx.done().await?;
        let wait = row.map(|mut row| row.opt_int()).transpose()?.flatten();
        Ok(wait.map(|ms| u64::try_from(ms).unwrap_or(0).min(longest_ms)))
    }

    async fn due_channels(&self, peer: &ResourceId, limit: u32) -> Result<Vec<ChannelPlace>, StoreError> {
        self.find_due_channels(peer, limit).await
    }

    async fn next_channel_due(&self, peer: &ResourceId, longest_ms: u64) -> Result<Option<u64>, StoreError> {
        self.find_next_channel_due(peer, longest_ms).await
    }

    async fn raise(&self, project: &ProjectId, issue: &v1::Issue) -> Result<(), StoreError> {
        let mut write = self.write().await?;
        events::raise(&mut write, project, issue).await?;
        write.commit().await
    }

    async fn resolve(&self, code: &str, subject: &str, at: Timestamp) -> Result<(), StoreError> {
        let mut write = self.write().await?;
        events::resolve(&mut write, code, subject, at).await?;
        write.commit().await
    }

    async fn claim_shared(&self, owner: &str, lease_ms: u64, limit: u32) -> Result<Vec<Claim>, StoreError> {
        self.claim_whose(Whose::Peers, owner, lease_ms, limit).await
    }

    async fn next_shared_due(&self, longest_ms: u64) -> Result<Option<u64>, StoreError> {
        self.wait_until_shared_due(longest_ms).await
    }

    async fn shared_as(&self, peer: &ResourceId, uuid: Uuid) -> Result<Option<(ProjectId, ConnectionId)>, StoreError> {
        let mut tx = self.read().await?;
        let sql = "SELECT project, id FROM connections WHERE peer = $1 AND shared_uuid = $2";
        let row = tx.row(sql, args![peer.as_str(), uuid]).await?;
        tx.done().await?;
        row.map(|mut row| Ok((row.id()?, row.id()?))).transpose()
    }

    async fn owner(&self, peer: &ResourceId, uuid: Uuid) -> Result<Option<Owner>, StoreError> {
        let mut tx = self.read().await?;
        let sql = "SELECT uuid, project, sealed, created_at FROM coordinator_owners WHERE peer = $1 AND uuid = $2";
        let row = tx.row(sql, args![peer.as_str(), uuid]).await?;
        tx.done().await?;
        row.map(|mut row| owner(&mut row)).transpose()
    }

    async fn key_pairs(
        &self,
        peer: &ResourceId,
        environment: &ResourceId,
    ) -> Result<Vec<(Timestamp, Vec<u8>)>, StoreError> {
        let mut tx = self.read().await?;
        let sql = "SELECT made_at, sealed FROM coordinator_key_pairs WHERE peer = $1 AND environment = $2
                   ORDER BY made_at DESC LIMIT $3";
        let rows = tx.rows(sql, args![peer.as_str(), environment.as_str(), PAIRS]).await?;
        tx.done().await?;
        rows.into_iter().map(|mut row| Ok((row.time()?, row.bytes()?))).collect()
    }

    async fn add_key_pair(
        &self,
        peer: &ResourceId,
        environment: &ResourceId,
        made_at: Timestamp,
        sealed: Vec<u8>,
    ) -> Result<(), StoreError> {
        let mut write = self.write().await?;
        let sql = "INSERT INTO coordinator_key_pairs (peer, environment, made_at, sealed) VALUES ($1, $2, $3, $4)
                   ON CONFLICT (peer, environment, made_at) DO NOTHING";
        write.execute(sql, args![peer.as_str(), environment.as_str(), made_at, sealed]).await?;
        // The fifth opens nothing any more.
        let sql = "DELETE FROM coordinator_key_pairs WHERE peer = $1 AND environment = $2 AND made_at NOT IN (
                       SELECT made_at FROM coordinator_key_pairs WHERE peer = $1 AND environment = $2
                       ORDER BY made_at DESC LIMIT $3)";
        write.execute(sql, args![peer.as_str(), environment.as_str(), PAIRS]).await?;
        write.commit().await
    }

    async fn note(&self, audit: Audit) -> Result<(), StoreError> {
        let mut write = self.write().await?;
        principals::audit(&mut write, &audit).await?;
        write.commit().await
    }

    async fn add_issue(
        &self,
        peer: &ResourceId,
        id: &ResourceId,
        issue: &Issue,
        audit: Audit,
    ) -> Result<bool, StoreError> {
        self.insert_peer_issue(peer, id, issue, audit).await
    }

    async fn put_issue(
        &self,
        peer: &ResourceId,
        id: &ResourceId,
        issue: &Issue,
        audit: Audit,
    ) -> Result<(), StoreError> {
        self.change_peer_issue(peer, id, issue, audit).await
    }

    async fn peer_issue(&self, peer: &ResourceId, id: &ResourceId) -> Result<Issue, StoreError> {
        self.find_peer_issue(peer, id).await
    }

    async fn peer_issues(
        &self,
        peer: &ResourceId,
        after: Option<&ResourceId>,
        limit: u32,
    ) -> Result<Vec<(ResourceId, Issue)>, StoreError> {
        self.list_peer_issues(peer, after, limit).await
    }

    async fn add_comment(
        &self,
        peer: &ResourceId,
        id: &ResourceId,
        comment: &Comment,
        audit: Audit,
    ) -> Result<u64, StoreError> {
        self.insert_comment(peer, id, comment, audit).await
    }

    async fn comments(
        &self,
        peer: &ResourceId,
        id: &ResourceId,
        before: Option<u64>,
        limit: u32,
    ) -> Result<Vec<(u64, Comment)>, StoreError> {
        self.list_comments(peer, id, before, limit).await
    }

    async fn forget(&self, rows: u32) -> Result<(), StoreError> {
        let ms = |kept: jiff::SignedDuration| i64::try_from(kept.as_millis()).unwrap_or(i64::MAX);
        let kept = ms(TOMBSTONE_KEPT);
        let place = "(peer, environment, interconnect, connection)";
        let lives = "SELECT 1 FROM coordinator_rows r
                     WHERE r.peer = coordinator_owners.peer AND r.uuid = coordinator_owners.uuid";
        let ownerless = format!("created_at <= {{now}} - $1 AND NOT EXISTS ({lives})");
        let tombstones = format!("coordinator_tombstones {place}");
        for (table, condition, age) in [
            ("coordinator_replays (peer, request_id)", "at <= {now} - $1", ms(REPLAY_KEPT)),
            (tombstones.as_str(), "at <= {now} - $1", kept),
            ("coordinator_keys (peer, uuid)", "issued_at <= {now} - $1", kept),
            ("coordinator_owners (peer, uuid)", ownerless.as_str(), kept),
        ] {
            self.prune(table, condition, u64::try_from(age).unwrap_or(u64::MAX), rows).await?;
        }
        Ok(())
    }
}
