//! Channels: their MACsec keys, and work on them.

use tieline_openapi::coordinator::ResourceId;

use super::{
    super::{
        LONGEST_WAIT_MS, SqlStore,
        row::{Row as Cells, args, to_doc},
        tx::Tx,
    },
    id,
};
use crate::{
    plan::coordinate::ChannelPlace,
    store::{StoreError, StoredChannel},
};

macro_rules! at {
    ($peer:expr, $at:expr $(, $more:expr)*) => {
        args![
            $peer.as_str(), $at.environment.as_str(), $at.interconnect.as_str(), $at.channel.as_str() $(, $more)*
        ]
    };
}

fn place(cells: &mut Cells) -> Result<ChannelPlace, StoreError> {
    Ok(ChannelPlace { environment: id(cells)?, interconnect: id(cells)?, channel: id(cells)? })
}

pub(super) async fn all(tx: &mut Tx, peer: &ResourceId) -> Result<Vec<StoredChannel>, StoreError> {
    let sql =
        "SELECT doc, sealed FROM coordinator_channels WHERE peer = $1 ORDER BY environment, interconnect, channel";
    let rows = tx.rows(sql, args![peer.as_str()]).await?;
    let stored = |mut row: Cells| Ok(StoredChannel { row: row.doc("channel with a peer")?, sealed: row.bytes()? });
    rows.into_iter().map(stored).collect()
}

pub(super) async fn put(tx: &mut Tx, peer: &ResourceId, stored: &StoredChannel) -> Result<(), StoreError> {
    let row = &stored.row;
    let doc = to_doc("channel with a peer", row)?;
    // A new row's version is 1; another one follows the version before it.
    let written = tx
        .execute(
            "INSERT INTO coordinator_channels (peer, environment, interconnect, channel, version, doc, sealed, due_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7, {now})
             ON CONFLICT (peer, environment, interconnect, channel) DO UPDATE
             SET version = excluded.version, doc = excluded.doc, sealed = excluded.sealed, due_at = excluded.due_at
             WHERE coordinator_channels.version = excluded.version - 1",
            at!(peer, row.at, row.version, doc, stored.sealed.clone()),
        )
        .await?;
    if written == 1 { Ok(()) } else { Err(StoreError::Fenced) }
}

pub(super) async fn put_off(
    tx: &mut Tx,
    peer: &ResourceId,
    place: &ChannelPlace,
    due_in_ms: u64,
) -> Result<(), StoreError> {
    tx.execute(
        "UPDATE coordinator_channels SET due_at = {now} + $5
         WHERE peer = $1 AND environment = $2 AND interconnect = $3 AND channel = $4",
        at!(peer, place, due_in_ms.min(LONGEST_WAIT_MS)),
    )
    .await
    .map(drop)
}

impl SqlStore {
    pub(super) async fn find_due_channels(
        &self,
        peer: &ResourceId,
        limit: u32,
    ) -> Result<Vec<ChannelPlace>, StoreError> {
        let mut tx = self.read().await?;
        // A due time beyond the longest wait comes from a clock that was stepped back.
        let sql = "SELECT environment, interconnect, channel FROM coordinator_channels
                   WHERE peer = $1 AND (due_at <= {now} OR due_at > {now} + $3)
                   ORDER BY due_at, environment, interconnect, channel LIMIT $2";
        let rows = tx.rows(sql, args![peer.as_str(), limit, LONGEST_WAIT_MS]).await?;
        tx.done().await?;
        rows.into_iter().map(|mut row| place(&mut row)).collect()
    }

    pub(super) async fn find_next_channel_due(
        &self,
        peer: &ResourceId,
        longest_ms: u64,
    ) -> Result<Option<u64>, StoreError> {
        let mut tx = self.read().await?;
        let sql = "SELECT MIN(CASE WHEN due_at > {now} + $2 THEN 0 ELSE due_at - {now} END)
                   FROM coordinator_channels WHERE peer = $1";
        let row = tx.row(sql, args![peer.as_str(), LONGEST_WAIT_MS]).await?;
        tx.done().await?;
        let wait = row.map(|mut row| row.opt_int()).transpose()?.flatten();
        Ok(wait.map(|ms| u64::try_from(ms).unwrap_or(0).min(longest_ms)))
    }
}
