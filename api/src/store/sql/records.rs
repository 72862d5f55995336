//! Reading connections with everything that a view needs.

use std::collections::BTreeMap;

use tieline_openapi::{
    ids::{ConnectionId, GatewayId, ProjectId},
    v1::{End, PathSample},
};
use uuid::Uuid;

use super::{
    SqlStore, books, ledger,
    row::{Row, Value, args, from_word},
    tx::Tx,
};
use crate::{
    plan::{
        negotiate::NegotiatedChannel,
        step::{Instance, Seen},
    },
    store::{ConnectionFilter, ConnectionRecord, KeptCondition, Page, Reported, SharedLink, Standing, StoreError},
};

/// The columns of a record.
pub(super) const COLUMNS: &str = "id, project, kind, intent, generation, observed_generation, negotiated, status,
    last_operation_id, created_at, updated_at, deletion_requested_at, peer, shared_uuid, ended";

/// Records that are completed with one statement each for instances and samples.
const CHUNK: usize = 200;

/// With whom a connection is shared; how it stands there is not read here.
fn shared(row: &mut Row) -> Result<Option<SharedLink>, StoreError> {
    let (peer, uuid, ended) = (row.opt_text()?, row.opt_text()?, row.opt_text()?);
    let (Some(peer), Some(uuid)) = (peer, uuid) else { return Ok(None) };
    let ended = ended.map(|word| from_word("reason", word)).transpose()?;
    Ok(Some(SharedLink { peer: books::id_of(peer)?, uuid: books::number(&uuid)?, ended, standing: None }))
}

/// A record without instances and samples.
pub(super) fn record(row: &mut Row) -> Result<ConnectionRecord, StoreError> {
    let mut record = ConnectionRecord {
        id: row.id()?,
        project: row.id()?,
        kind: row.word("connection kind")?,
        shared: None,
        intent: row.doc("intent")?,
        generation: row.count()?,
        observed_generation: row.count()?,
        negotiated: row.doc("negotiated configuration")?,
        status: row.doc("status")?,
        instances: Vec::new(),
        samples: Vec::new(),
        path_conditions: Vec::new(),
        gateway_ends: BTreeMap::new(),
        last_operation: row.id()?,
        created_at: row.time()?,
        updated_at: row.time()?,
        deletion_requested_at: row.opt_time()?,
        given_up: BTreeMap::new(),
    };
    record.shared = shared(row)?;
    Ok(record)
}

/// `($1, $2, ...)`.
pub(super) fn list(n: usize) -> String {
    list_from(1, n)
}

/// `n` places for arguments from the given one on.
pub(super) fn list_from(first: usize, n: usize) -> String {
    let places: Vec<String> = (first..first + n).map(|i| format!("${i}")).collect();
    format!("({})", places.join(", "))
}

/// Adds the instances, and the samples where they are asked for.
pub(super) async fn complete(
    tx: &mut Tx,
    records: &mut [ConnectionRecord],
    with_samples: bool,
) -> Result<(), StoreError> {
    for chunk in records.chunks_mut(CHUNK) {
        let at: BTreeMap<ConnectionId, usize> = chunk.iter().enumerate().map(|(i, r)| (r.id, i)).collect();
        let ids: Vec<Value> = chunk.iter().map(|r| Value::from(r.id.uuid())).collect();
        let sql = format!(
            "SELECT i.connection_id, i.doc, CASE WHEN c.watch = 1 THEN w.observed_at END
             FROM instances i JOIN connections c ON c.id = i.connection_id
             LEFT JOIN account_watches w ON w.account_id = i.account_id
             WHERE i.connection_id IN {} AND i.retired_at IS NULL ORDER BY i.connection_id, i.id",
            list(ids.len())
        );
        for mut row in tx.rows(&sql, ids.clone()).await? {
            let id: ConnectionId = row.id()?;
            if let Some(&i) = at.get(&id) {
                let mut instance: Instance = row.doc("instance")?;
                // What a list shows unchanged is not written again; the list's own time stands for all of it.
                if let (Seen::Present { at, .. }, Some(listed)) = (&mut instance.seen, row.opt_time()?) {
                    *at = listed.max(*at);
                }
                chunk[i].instances.push(instance);
            }
        }
        if !with_samples {
            continue;
        }
        let sql = format!(
            "SELECT s.connection_id, s.gateway_id, g.attach_point_id, s.doc
             FROM latest_samples s JOIN gateways g ON g.id = s.gateway_id
             WHERE s.connection_id IN {} ORDER BY s.connection_id, s.gateway_id, s.peer_id, s.path",
            list(ids.len())
        );
        for mut row in tx.rows(&sql, ids.clone()).await? {
            let (id, gateway, attach_point): (ConnectionId, GatewayId, String) = (row.id()?, row.id()?, row.text()?);
            let sample: PathSample = row.doc("sample")?;
            if let Some(&i) = at.get(&id) {
                let end = if chunk[i].intent.place(End::A) == attach_point { End::A } else { End::B };
                chunk[i].gateway_ends.insert(gateway, end);
                chunk[i].samples.push(Reported { by: gateway, sample });
            }
        }
        let sql = format!(
            "SELECT connection_id, type, status, since FROM path_conditions WHERE connection_id IN {}
             ORDER BY connection_id, type",
            list(ids.len())
        );
        for mut row in tx.rows(&sql, ids).await? {
            let id: ConnectionId = row.id()?;
            let (kind, status) = (row.word("condition")?, row.word("condition")?);
            let since = row.time()?;
            if let Some(&i) = at.get(&id) {
                chunk[i].path_conditions.push(KeptCondition { kind, status, since });
            }
        }
    }
    Ok(())
}

/// The configurations of a connection's channels, of every generation that is not retired.
pub(super) async fn channels(tx: &mut Tx, connection: ConnectionId) -> Result<Vec<NegotiatedChannel>, StoreError> {
    let rows = tx
        .rows(
            "SELECT doc FROM channel_configurations WHERE connection_id = $1 AND retired_at IS NULL
             ORDER BY channel_id, generation",
            args![connection.uuid()],
        )
        .await?;
    rows.into_iter().map(|mut row| row.doc("channel configuration")).collect()
}

fn passes(record: &ConnectionRecord, filter: &ConnectionFilter) -> bool {
    filter.labels.iter().all(|(key, value)| record.intent.labels.get(key) == Some(value))
        && filter.family.is_none_or(|family| record.intent.families.contains(&family))
}

async fn one(tx: &mut Tx, project: &ProjectId, id: ConnectionId) -> Result<ConnectionRecord, StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM connections WHERE id = $1 AND project = $2");
    let mut row = tx.row(&sql, args![id.uuid(), project.as_str()]).await?.ok_or(StoreError::NotFound)?;
    let mut records = [record(&mut row)?];
    complete(tx, &mut records, true).await?;
    let [mut record] = records;
    let rows = tx
        .rows(
            "SELECT channel_id, MAX(generation) FROM channel_configurations WHERE connection_id = $1 GROUP BY channel_id",
            args![id.uuid()],
        )
        .await?;
    for mut row in rows {
        let (channel, generation) = (row.id()?, row.small()?);
        if record.negotiated.channels.iter().all(|wanted| wanted.channel_id != channel) {
            record.given_up.insert(channel, generation);
        }
    }
    Ok(record)
}

impl SqlStore {
    pub(super) async fn find_connection(
        &self,
        project: &ProjectId,
        id: ConnectionId,
    ) -> Result<ConnectionRecord, StoreError> {
        let mut tx = self.read().await?;
        let record = one(&mut tx, project, id).await?;
        tx.done().await?;
        Ok(record)
    }

    pub(super) async fn find_standing(&self, project: &ProjectId, id: ConnectionId) -> Result<Standing, StoreError> {
        let mut tx = self.read().await?;
        let record = one(&mut tx, project, id).await?;
        let channels = channels(&mut tx, id).await?;
        let calls = ledger::calls(&mut tx, id).await?;
        tx.done().await?;
        Ok(Standing { record, channels, calls })
    }

    pub(super) async fn list_connections(
        &self,
        project: &ProjectId,
        filter: &ConnectionFilter,
        page: Page,
    ) -> Result<Vec<ConnectionRecord>, StoreError> {
        let limit = page.limit as usize;
        let mut tx = self.read().await?;
        let mut found: Vec<ConnectionRecord> = Vec::new();
        let mut after: Option<Uuid> = page.after;
        // Name and environment are columns; the rest is looked up in the documents, a stretch of rows at a time.
        let selective = !(filter.labels.is_empty() && filter.family.is_none());
        let stretch = if selective { limit.max(CHUNK) } else { limit };
        let sql = format!(
            "SELECT {COLUMNS} FROM connections
             WHERE project = $1 AND id > $2 AND ($4 IS NULL OR name = $4) AND ($5 IS NULL OR environment_id = $5)
             ORDER BY id LIMIT $3"
        );
        while found.len() < limit {
            let rows = tx
                .rows(
                    &sql,
                    args![
                        project.as_str(),
                        after.map(|id| id.to_string()).unwrap_or_default(),
                        u32::try_from(stretch).unwrap_or(u32::MAX),
                        filter.name.clone(),
                        filter.environment.clone()
                    ],
                )
                .await?;
            let last = rows.len() < stretch;
            for mut row in rows {
                let record = record(&mut row)?;
                after = Some(record.id.uuid());
                if found.len() < limit && passes(&record, filter) {
                    found.push(record);
                }
            }
            if last {
                break;
            }
        }
        complete(&mut tx, &mut found, true).await?;
        tx.done().await?;
        Ok(found)
    }
}
