//! Instances and the ledger of provider calls. Both outlive their connection: a resource that turns up in a cloud months
//! later must still find its row. Housekeeping deletes them in the end.

use tieline_openapi::{
    ids::{AccountId, ConnectionId, InstanceId, ProviderCallId},
    v1::{Timestamp, Verb},
};
use tieline_providers::{IdentityKind, Observed, ResourceKey};

use super::{
    SqlStore, claims,
    questions::{
        Column::{Int, Text},
        Question,
    },
    row::{Row, args, from_doc, to_doc, to_word},
    tx::Tx,
};
use crate::{
    plan::step::{Instance, ProviderCall, Seen, Twin, Verdict},
    store::{Claim, LedgerFacts, StoreError},
};

/// What of an instance a gateway's configuration may depend on: not when it was looked at.
fn told_to_gateways(instance: &Instance) -> (Option<&String>, Option<&Observed>) {
    let present = match &instance.seen {
        Seen::Present { observed, .. } => Some(observed.as_ref()),
        Seen::Never | Seen::Absent { .. } | Seen::Unknown { .. } => None,
    };
    (instance.cloud_id.as_ref(), present)
}

/// Writes a new instance; true if others than the engine look at what it says. Written again, it stays as it is.
pub(super) async fn new_instance(
    tx: &mut Tx,
    connection: ConnectionId,
    instance: &Instance,
) -> Result<bool, StoreError> {
    let written = tx
        .execute(
            "INSERT INTO instances (id, connection_id, project, channel_id, generation, side, kind, account_id, cloud_id,
                 doc)
             SELECT $1, id, project, $3, $4, $5, $6, $7, $8, $9 FROM connections WHERE id = $2
             ON CONFLICT DO NOTHING",
            args![
                instance.id.uuid(),
                connection.uuid(),
                instance.channel_id.as_str(),
                instance.channel_generation,
                instance.key.end.as_str(),
                instance.key.kind.as_str(),
                instance.account_id.as_str(),
                instance.cloud_id.clone(),
                to_doc("instance", instance)?
            ],
        )
        .await?;
    if written == 0 && stored(tx, instance.id).await?.is_none() {
        let what = format!("{} of channel {} has a living instance", instance.key.kind, instance.channel_id);
        return Err(StoreError::AllocationTaken { what });
    }
    Ok(told_to_gateways(instance) != (None, None))
}

async fn stored(tx: &mut Tx, id: InstanceId) -> Result<Option<Instance>, StoreError> {
    let row = tx.row("SELECT doc FROM instances WHERE id = $1", args![id.uuid()]).await?;
    row.map(|mut row| row.doc("instance")).transpose()
}

/// Writes what is known of an instance, or of a twin, now; true if it changed in what others than the engine look at.
pub(super) async fn put_instance(
    tx: &mut Tx,
    connection: ConnectionId,
    instance: &Instance,
) -> Result<bool, StoreError> {
    if instance.twin.is_some() {
        let args = args![instance.id.uuid(), connection.uuid(), to_doc("twin", instance)?];
        tx.execute("UPDATE twins SET doc = $3 WHERE id = $1 AND connection_id = $2", args).await?;
        return Ok(false);
    }
    let Some(old) = stored(tx, instance.id).await? else { return Ok(false) };
    tx.execute(
        "UPDATE instances SET cloud_id = $3, doc = $4 WHERE id = $1 AND connection_id = $2",
        args![instance.id.uuid(), connection.uuid(), instance.cloud_id.clone(), to_doc("instance", instance)?],
    )
    .await?;
    Ok(told_to_gateways(&old) != told_to_gateways(instance))
}

/// An instance, or a twin, is gone for good.
pub(super) async fn retire_instance(tx: &mut Tx, connection: ConnectionId, id: InstanceId) -> Result<(), StoreError> {
    for table in ["instances", "twins"] {
        let sql = format!(
            "UPDATE {table} SET retired_at = {{now}} WHERE id = $1 AND connection_id = $2 AND retired_at IS NULL"
        );
        tx.execute(&sql, args![id.uuid(), connection.uuid()]).await?;
    }
    Ok(())
}

/// Notes a resource that the sweep found, once, and makes its connection due, gone or not.
pub(super) async fn found_twin(
    tx: &mut Tx,
    id: InstanceId,
    twin: Box<Twin>,
    cloud_id: String,
) -> Result<(), StoreError> {
    let row = tx.row("SELECT connection_id, doc FROM instances WHERE id = $1", args![twin.of.uuid()]).await?;
    let mut row = row.ok_or(StoreError::NotFound)?;
    let (connection, of): (ConnectionId, Instance) = (row.id()?, row.doc("instance")?);
    let twin_of = twin.of;
    let instance = Instance { id, cloud_id: Some(cloud_id.clone()), seen: Seen::Never, twin: Some(twin), ..of };
    let written = tx
        .execute(
            "INSERT INTO twins (id, twin_of, connection_id, cloud_id, doc) VALUES ($1, $2, $3, $4, $5)
             ON CONFLICT (twin_of, cloud_id) WHERE retired_at IS NULL DO NOTHING",
            args![id.uuid(), twin_of.uuid(), connection.uuid(), cloud_id, to_doc("twin", &instance)?],
        )
        .await?;
    if written == 0 {
        return Ok(());
    }
    for gone in [false, true] {
        let sql = format!("UPDATE {} SET due_at = {{now}}, wake = 1 WHERE id = $1", claims::table(gone));
        if tx.execute(&sql, args![connection.uuid()]).await? > 0 {
            return Ok(());
        }
    }
    // Long gone: its ledger is about to be forgotten, and so is this.
    Ok(())
}

/// The twins of a connection that are still to be deleted.
pub(super) const TWINS: Question = Question {
    columns: &[Text("t.doc")],
    from: "asked CROSS JOIN twins t WHERE t.connection_id = asked.id AND t.retired_at IS NULL",
    order: &[Text("t.id")],
};

/// From the answer to [`TWINS`].
pub(super) fn twins(rows: Vec<Row>) -> Result<Vec<Instance>, StoreError> {
    rows.into_iter().map(|mut row| row.doc("twin")).collect()
}

/// What a ledger row says beside the call itself.
pub(super) struct About {
    pub(super) key: ResourceKey,
    pub(super) account_id: AccountId,
    pub(super) name: String,
    pub(super) token: String,
    pub(super) digest: [u8; 32],
}

/// Writes a ledger row, before the wire.
pub(super) async fn open_call(tx: &mut Tx, claim: &Claim, call: &ProviderCall, about: About) -> Result<(), StoreError> {
    // The fence has locked the connection: its rows are numbered one after the other.
    let sql = format!(
        "INSERT INTO provider_calls (id, seq, instance_id, connection_id, project, verb, identity, side, kind,
             account_id, name, token, digest, written_at, deadline, verdict, is_open, decided_at)
         SELECT $1, (SELECT COALESCE(MAX(seq), 0) + 1 FROM provider_calls WHERE connection_id = $3),
                $2, id, project, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16
         FROM {} WHERE id = $3",
        claims::table(claim.gone)
    );
    let written = tx
        .execute(
            &sql,
            args![
                call.id.uuid(),
                call.instance_id.uuid(),
                claim.id.uuid(),
                to_word("verb", &call.verb)?,
                to_doc("identity", &call.identity)?,
                about.key.end.as_str(),
                about.key.kind.as_str(),
                about.account_id.as_str(),
                about.name,
                about.token,
                about.digest,
                call.written_at,
                call.deadline,
                to_doc("verdict", &call.verdict)?,
                call.verdict == Verdict::Open,
                call.decided_at
            ],
        )
        .await?;
    if written == 1 { Ok(()) } else { Err(StoreError::Fenced) }
}

/// Writes what became of a call.
pub(super) async fn decide_call(
    tx: &mut Tx,
    connection: ConnectionId,
    id: ProviderCallId,
    verdict: &Verdict,
    at: Timestamp,
    cloud_id: Option<String>,
    request_id: Option<String>,
) -> Result<(), StoreError> {
    let written = tx
        .execute(
            "UPDATE provider_calls
             SET verdict = $3, is_open = $4, decided_at = $5, cloud_id = COALESCE($6, cloud_id),
                 request_id = COALESCE($7, request_id)
             WHERE id = $1 AND connection_id = $2",
            args![
                id.uuid(),
                connection.uuid(),
                to_doc("verdict", verdict)?,
                *verdict == Verdict::Open,
                at,
                cloud_id,
                request_id
            ],
        )
        .await?;
    if written == 1 { Ok(()) } else { Err(StoreError::NotFound) }
}

/// The ledger of a connection: of its living instances and twins, and every call without verdict; oldest first.
pub(super) const CALLS: Question = Question {
    columns: &[
        Text("c.id"),
        Text("c.instance_id"),
        Text("c.verb"),
        Text("c.identity"),
        Int("c.written_at"),
        Int("c.deadline"),
        Text("c.verdict"),
        Int("c.decided_at"),
        Text("a.answer"),
    ],
    from: "asked CROSS JOIN provider_calls c LEFT JOIN instances i ON i.id = c.instance_id
           LEFT JOIN twins t ON t.id = c.instance_id LEFT JOIN call_answers a ON a.call_id = c.id
           WHERE c.connection_id = asked.id AND ((i.retired_at IS NULL AND t.retired_at IS NULL) OR c.is_open = 1)",
    order: &[Int("c.seq")],
};

/// From the answer to [`CALLS`].
pub(super) fn calls(rows: Vec<Row>) -> Result<Vec<ProviderCall>, StoreError> {
    rows.into_iter()
        .map(|mut row| {
            Ok(ProviderCall {
                id: row.id()?,
                instance_id: row.id()?,
                verb: row.word("verb")?,
                identity: row.doc("identity")?,
                written_at: row.time()?,
                deadline: row.time()?,
                verdict: row.doc("verdict")?,
                decided_at: row.opt_time()?,
                answer: row.opt_text()?.map(|text| from_doc("answer", &text)).transpose()?,
            })
        })
        .collect()
}

impl SqlStore {
    pub(super) async fn facts(&self, instance: InstanceId) -> Result<Option<LedgerFacts>, StoreError> {
        let mut tx = self.read().await?;
        let id = || args![instance.uuid()];
        let row = tx
            .row("SELECT connection_id, project, cloud_id, {now} - retired_at, doc FROM instances WHERE id = $1", id())
            .await?;
        let Some(mut row) = row else { return Ok(None) };
        let (connection_id, project, recorded) = (row.id()?, row.id()?, row.opt_text()?);
        // A time that is still to come is from a clock that was stepped back: nobody waits for it.
        let retired_ms_ago = row.opt_int()?.map(|ms| u64::try_from(ms).unwrap_or(u64::MAX));
        let document: Instance = row.doc("instance")?;
        let mut facts = LedgerFacts {
            connection_id,
            project,
            key: document.key,
            cloud_id: recorded,
            retired_ms_ago,
            first_create_at: None,
            open: false,
            may_take_its_slot: false,
        };
        let rows = tx
            .rows(
                "SELECT verb, identity, verdict, written_at, is_open, cloud_id FROM provider_calls
                 WHERE instance_id = $1 ORDER BY seq",
                id(),
            )
            .await?;
        tx.done().await?;
        let mut told = None;
        for mut row in rows {
            let verb: Verb = row.word("verb")?;
            let (identity, verdict): (IdentityKind, Verdict) = (row.doc("identity")?, row.doc("verdict")?);
            let written_at = row.time()?;
            if verb == Verb::Create && facts.first_create_at.is_none() {
                facts.first_create_at = Some(written_at);
            }
            facts.open |= row.int()? != 0;
            facts.may_take_its_slot |= verdict.may_take_its_slot(verb, identity);
            told = row.opt_text()?.or(told);
        }
        facts.cloud_id = facts.cloud_id.or(told);
        Ok(Some(facts))
    }
}
