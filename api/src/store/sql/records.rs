//! Reading connections with everything that a view needs.

use std::collections::BTreeMap;

use tieline_openapi::{
    ids::{ConnectionId, GatewayId, ProjectId},
    v1::{End, PathSample},
};
use uuid::Uuid;

use super::{
    SqlStore, books, ledger,
    questions::{
        self,
        Column::{Int, Text},
        Question,
    },
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
const COLUMNS: &str =
    "id, project, kind, intent, generation, observed_generation, negotiated, status, last_operation_id,
    created_at, updated_at, deletion_requested_at, peer, shared_uuid, ended";

/// The records of the connections in `asked`, which holds no document of theirs: it is walked for each question.
const RECORDS: Question = records_of("asked CROSS JOIN connections c WHERE c.id = asked.id");

/// The same of those that are gone.
const GONE_RECORDS: Question = records_of("asked CROSS JOIN gone_connections c WHERE c.id = asked.id");

const fn records_of(from: &'static str) -> Question {
    Question {
        columns: &[
            Text("c.id"),
            Text("c.project"),
            Text("c.kind"),
            Text("c.intent"),
            Int("c.generation"),
            Int("c.observed_generation"),
            Text("c.negotiated"),
            Text("c.status"),
            Text("c.last_operation_id"),
            Int("c.created_at"),
            Int("c.updated_at"),
            Int("c.deletion_requested_at"),
            Text("c.peer"),
            Text("c.shared_uuid"),
            Text("c.ended"),
        ],
        from,
        order: &[Text("c.id")],
    }
}

/// The instances of the connections in `asked`.
const INSTANCES: Question = Question {
    columns: &[Text("i.connection_id"), Text("i.doc"), Int("CASE WHEN asked.watch = 1 THEN w.observed_at END")],
    from: "asked CROSS JOIN instances i LEFT JOIN account_watches w ON w.account_id = i.account_id
           WHERE i.connection_id = asked.id AND i.retired_at IS NULL",
    order: &[Text("i.id")],
};

const SAMPLES: Question = Question {
    columns: &[Text("s.connection_id"), Text("s.gateway_id"), Text("g.attach_point_id"), Text("s.doc")],
    from: "asked CROSS JOIN latest_samples s CROSS JOIN gateways g WHERE s.connection_id = asked.id AND g.id = s.gateway_id",
    order: &[Text("s.gateway_id"), Text("s.peer_id"), Text("s.path")],
};

const PATH_CONDITIONS: Question = Question {
    columns: &[Text("p.connection_id"), Text("p.type"), Text("p.status"), Int("p.since")],
    from: "asked CROSS JOIN path_conditions p WHERE p.connection_id = asked.id",
    order: &[Text("p.type")],
};

/// The newest generation of every channel that there has been.
const GENERATIONS: Question = Question {
    columns: &[Text("n.channel_id"), Int("n.generation")],
    from:
        "(SELECT c.channel_id, MAX(c.generation) AS generation
            FROM asked CROSS JOIN channel_configurations c WHERE c.connection_id = asked.id GROUP BY c.channel_id) AS n",
    order: &[Text("n.channel_id")],
};

/// The configurations of the channels of a connection, of every generation that is not retired.
pub(super) const CHANNELS: Question = Question {
    columns: &[Text("c.doc")],
    from: "asked CROSS JOIN channel_configurations c WHERE c.connection_id = asked.id AND c.retired_at IS NULL",
    order: &[Text("c.channel_id"), Int("c.generation")],
};

/// Connections that are looked through at a time for those that a filter lets pass.
const STRETCH: u32 = 200;

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

/// What is asked of connections beside their records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum With {
    Instances,
    InstancesAndSamples,
}

impl With {
    const fn questions(self) -> &'static [Question] {
        match self {
            Self::Instances => &[INSTANCES],
            Self::InstancesAndSamples => &[INSTANCES, SAMPLES, PATH_CONDITIONS],
        }
    }
}

/// Gives records the instances, samples and conditions that are theirs.
fn complete(records: &mut [ConnectionRecord], answers: Vec<Vec<Row>>) -> Result<(), StoreError> {
    let at: BTreeMap<ConnectionId, usize> = records.iter().enumerate().map(|(i, r)| (r.id, i)).collect();
    let mut answers = answers.into_iter();
    for mut row in answers.next().into_iter().flatten() {
        let Some(record) = at.get(&row.id()?).and_then(|i| records.get_mut(*i)) else { continue };
        let mut instance: Instance = row.doc("instance")?;
        // What a list shows unchanged is not written again; the list's own time stands for all of it.
        if let (Seen::Present { at, .. }, Some(listed)) = (&mut instance.seen, row.opt_time()?) {
            *at = listed.max(*at);
        }
        record.instances.push(instance);
    }
    for mut row in answers.next().into_iter().flatten() {
        let Some(record) = at.get(&row.id()?).and_then(|i| records.get_mut(*i)) else { continue };
        let (gateway, attach_point): (GatewayId, String) = (row.id()?, row.text()?);
        let sample: PathSample = row.doc("sample")?;
        let end = if record.intent.place(End::A) == attach_point { End::A } else { End::B };
        record.gateway_ends.insert(gateway, end);
        record.samples.push(Reported { by: gateway, sample });
    }
    for mut row in answers.next().into_iter().flatten() {
        let Some(record) = at.get(&row.id()?).and_then(|i| records.get_mut(*i)) else { continue };
        let (kind, status) = (row.word("condition")?, row.word("condition")?);
        record.path_conditions.push(KeptCondition { kind, status, since: row.time()? });
    }
    Ok(())
}

/// Everything about the connections whose `id` and `watch` a SELECT gives, in the order of their ids, and the answers to more
/// questions about them; one statement.
pub(super) async fn read(
    tx: &mut Tx,
    gone: bool,
    select: &str,
    args: Vec<Value>,
    with: With,
    more: &[Question],
) -> Result<(Vec<ConnectionRecord>, Vec<Vec<Row>>), StoreError> {
    let asked = format!("WITH asked AS MATERIALIZED ({select})");
    let mut questions = vec![if gone { GONE_RECORDS } else { RECORDS }];
    questions.extend_from_slice(with.questions());
    questions.extend_from_slice(more);
    let mut answers = questions::ask(tx, &asked, &questions, args).await?;
    let more = answers.split_off(1 + with.questions().len());
    let details = answers.split_off(1);
    let rows = answers.pop().unwrap_or_default();
    let mut records = rows.into_iter().map(|mut row| record(&mut row)).collect::<Result<Vec<_>, _>>()?;
    complete(&mut records, details)?;
    Ok((records, more))
}

/// Channels' configurations, from the answer to [`CHANNELS`].
pub(super) fn channels(rows: Vec<Row>) -> Result<Vec<NegotiatedChannel>, StoreError> {
    rows.into_iter().map(|mut row| row.doc("channel configuration")).collect()
}

fn passes(record: &ConnectionRecord, filter: &ConnectionFilter) -> bool {
    filter.labels.iter().all(|(key, value)| record.intent.labels.get(key) == Some(value))
        && filter.family.is_none_or(|family| record.intent.families.contains(&family))
}

/// One connection of a project, and the answers to more questions about it.
async fn one(
    tx: &mut Tx,
    project: &ProjectId,
    id: ConnectionId,
    more: &[Question],
) -> Result<(ConnectionRecord, Vec<Vec<Row>>), StoreError> {
    let select = "SELECT id, watch FROM connections WHERE id = $1 AND project = $2";
    let questions = [&[GENERATIONS], more].concat();
    let args = args![id.uuid(), project.as_str()];
    let (records, mut answers) = read(tx, false, select, args, With::InstancesAndSamples, &questions).await?;
    let more = answers.split_off(1);
    let mut record = records.into_iter().next().ok_or(StoreError::NotFound)?;
    for mut row in answers.into_iter().flatten() {
        let (channel, generation) = (row.id()?, row.small()?);
        if record.negotiated.channels.iter().all(|wanted| wanted.channel_id != channel) {
            record.given_up.insert(channel, generation);
        }
    }
    Ok((record, more))
}

impl SqlStore {
    pub(super) async fn find_connection(
        &self,
        project: &ProjectId,
        id: ConnectionId,
    ) -> Result<ConnectionRecord, StoreError> {
        let mut tx = self.look().await?;
        let (record, _) = one(&mut tx, project, id, &[]).await?;
        tx.done().await?;
        Ok(record)
    }

    pub(super) async fn find_standing(&self, project: &ProjectId, id: ConnectionId) -> Result<Standing, StoreError> {
        let mut tx = self.look().await?;
        let (record, more) = one(&mut tx, project, id, &[CHANNELS, ledger::CALLS]).await?;
        tx.done().await?;
        let mut more = more.into_iter();
        let channels = channels(more.next().unwrap_or_default())?;
        let calls = ledger::calls(more.next().unwrap_or_default())?;
        Ok(Standing { record, channels, calls })
    }

    pub(super) async fn list_connections(
        &self,
        project: &ProjectId,
        filter: &ConnectionFilter,
        page: Page,
    ) -> Result<Vec<ConnectionRecord>, StoreError> {
        let selective = !(filter.labels.is_empty() && filter.family.is_none());
        // Name and environment are columns; the rest is looked up in the documents, a stretch of rows at a time. A condition
        // that is not asked for is not in the statement: its plan would be one for any question, which walks them all.
        let columns = [("name", &filter.name), ("environment_id", &filter.environment)];
        let asked: Vec<_> = columns.into_iter().filter_map(|(column, is)| Some((column, is.clone()?))).collect();
        let conditions = asked.iter().enumerate().map(|(n, (column, _))| format!(" AND {column} = ${}", n + 4));
        let rest = format!(
            "FROM connections WHERE project = $1 AND id > $2{} ORDER BY id LIMIT $3",
            conditions.collect::<String>()
        );
        let args = |id: Option<Uuid>, limit: u32| {
            let after = id.map(|id| id.to_string()).unwrap_or_default();
            let mut all = args![project.as_str(), after, limit];
            all.extend(asked.iter().map(|(_, is)| Value::from(is.clone())));
            all
        };
        if !selective {
            let mut tx = self.look().await?;
            let all = With::InstancesAndSamples;
            let select = format!("SELECT id, watch {rest}");
            let (found, _) = read(&mut tx, false, &select, args(page.after, page.limit), all, &[]).await?;
            tx.done().await?;
            return Ok(found);
        }
        let limit = page.limit as usize;
        let stretch = page.limit.max(STRETCH);
        let mut tx = self.read().await?;
        let (mut passed, mut last) = (Vec::new(), page.after);
        while passed.len() < limit {
            let rows = tx.rows(&format!("SELECT {COLUMNS} {rest}"), args(last, stretch)).await?;
            let ends = rows.len() < stretch as usize;
            for mut row in rows {
                let record = record(&mut row)?;
                last = Some(record.id.uuid());
                if passed.len() < limit && passes(&record, filter) {
                    passed.push(Value::from(record.id.uuid()));
                }
            }
            if ends {
                break;
            }
        }
        let mut found = Vec::new();
        if !passed.is_empty() {
            let select = format!("SELECT id, watch FROM connections WHERE id IN {}", list(passed.len()));
            (found, _) = read(&mut tx, false, &select, passed, With::InstancesAndSamples, &[]).await?;
        }
        tx.done().await?;
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::OpenOptions;

    /// What SQLite does for these questions about the connections that a SELECT gives.
    async fn plan(select: &str, questions: &[Question]) -> Vec<String> {
        let store = SqlStore::open("sqlite::memory:", OpenOptions::default()).await.unwrap();
        let mut tx = store.look().await.unwrap();
        let asked = format!("EXPLAIN QUERY PLAN WITH asked AS MATERIALIZED ({select})");
        let (sql, _) = questions::statement(&asked, questions, "NULL");
        let rows = tx.rows(&sql, Vec::new()).await.unwrap();
        let step = |mut row: Row| {
            for _ in ["id", "parent", "unused"] {
                row.int().unwrap();
            }
            row.text().unwrap()
        };
        rows.into_iter().map(step).collect()
    }

    #[tokio::test]
    async fn no_question_walks_a_table() {
        let all = With::InstancesAndSamples.questions();
        let one = "SELECT id, watch FROM connections WHERE id = 'x' AND project = 'p'";
        let page = "SELECT id, watch FROM connections WHERE project = 'p' AND id > '' ORDER BY id LIMIT 20";
        let mut seen = 0;
        for select in [one, page] {
            let questions = [&[RECORDS][..], all, &[GENERATIONS, CHANNELS, ledger::CALLS, ledger::TWINS]].concat();
            for step in plan(select, &questions).await {
                let of = |what: &str| step.split(' ').nth(1).is_some_and(|table| table == what);
                let walks = step.starts_with("SCAN") && !of("asked") && !of("n");
                assert!(!walks && !step.contains("AUTOMATIC"), "{step}");
                seen += usize::from(step.starts_with("SEARCH"));
            }
        }
        assert!(seen > 20, "it was told what is done: {seen}");
    }
}
