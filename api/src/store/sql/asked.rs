//! What only a person can tell, and what they said.

use tieline_openapi::{
    ids::{ConnectionId, ProviderCallId},
    v1::{Issue, Verb},
};

use super::{
    SqlStore, answers, principals,
    row::{args, to_doc, to_word},
    tx::{Tx, Write},
};
use crate::{
    plan::step::CreateAnswer,
    store::{IssueAnswered, StoreError},
};

/// A resource as an issue names it: `/v1/connections/<id>/channels/<channel>/<end>/<kind>`.
struct Named<'a> {
    connection: ConnectionId,
    channel: &'a str,
    end: &'a str,
    kind: &'a str,
}

impl<'a> Named<'a> {
    fn parse(path: &'a str) -> Option<Self> {
        let (connection, rest) = path.strip_prefix("/v1/connections/")?.split_once("/channels/")?;
        let mut parts = rest.splitn(3, '/');
        let (channel, end, kind) = (parts.next()?, parts.next()?, parts.next()?);
        Some(Self { connection: connection.parse().ok()?, channel, end, kind })
    }
}

impl SqlStore {
    pub(super) async fn take_answer(&self, answered: IssueAnswered) -> Result<(), StoreError> {
        let mut write = self.write().await?;
        match note(&mut write, answered).await {
            Ok(()) => write.commit().await,
            Err(refused) => {
                // At once: claims pass over a row that is locked.
                write.abandon().await?;
                Err(refused)
            }
        }
    }
}

async fn note(write: &mut Write, answered: IssueAnswered) -> Result<(), StoreError> {
    if let Some((key, saved)) = &answered.idempotency {
        answers::save(write, key, saved).await?;
    }
    let row = write
        .row(
            "SELECT doc FROM issues WHERE id = $1 AND project = $2 AND resolved_at IS NULL",
            args![answered.issue.uuid(), answered.project.as_str()],
        )
        .await?;
    let issue: Issue = row.ok_or(StoreError::NotAsked)?.doc("issue")?;
    let asks = issue.about.get(1) == Some(&answered.resource);
    let named = Named::parse(&answered.resource).filter(|_| asks).ok_or(StoreError::NotAsked)?;
    // From here on the row is locked: no pass decides the call meanwhile.
    let due = write
        .execute("UPDATE connections SET due_at = {now}, wake = 1 WHERE id = $1", args![named.connection.uuid()])
        .await?;
    if due == 0 {
        return Err(StoreError::NotAsked);
    }
    answer_call(write, &named, &answered.answer).await?;
    principals::audit(write, &answered.audit).await?;
    write.event(answered.event);
    write.connection_due();
    Ok(())
}

/// Notes the answer to the create of a resource that is without verdict.
async fn answer_call(write: &mut Write, named: &Named<'_>, answer: &CreateAnswer) -> Result<(), StoreError> {
    let row = write
        .row(
            "SELECT c.id, c.account_id FROM provider_calls c JOIN instances i ON i.id = c.instance_id
             WHERE c.connection_id = $1 AND i.channel_id = $2 AND i.side = $3 AND i.kind = $4 AND i.retired_at IS NULL
               AND c.is_open = 1 AND c.verb = $5
             ORDER BY c.seq DESC LIMIT 1",
            args![named.connection.uuid(), named.channel, named.end, named.kind, to_word("verb", &Verb::Create)?],
        )
        .await?;
    let mut row = row.ok_or(StoreError::NotAsked)?;
    let (call, account): (ProviderCallId, String) = (row.id()?, row.text()?);
    if let CreateAnswer::Created { cloud_id } = answer {
        let recorded = write
            .row(
                "SELECT 1 FROM instances
                 WHERE account_id = $1 AND kind = $2 AND cloud_id = $3 AND retired_at IS NULL LIMIT 1",
                args![account, named.kind, cloud_id],
            )
            .await?;
        if recorded.is_some() {
            return Err(StoreError::AllocationTaken { what: format!("{} {cloud_id}", named.kind) });
        }
    }
    let written = write
        .execute(
            "INSERT INTO call_answers (call_id, connection_id, answer, standing, answered_at)
             VALUES ($1, $2, $3, 1, {now})
             ON CONFLICT (call_id) DO UPDATE
             SET answer = excluded.answer, standing = 1, answered_at = excluded.answered_at
             WHERE call_answers.standing = 0",
            args![call.uuid(), named.connection.uuid(), to_doc("answer", answer)?],
        )
        .await?;
    if written == 1 { Ok(()) } else { Err(StoreError::NotAsked) }
}

/// What was said cannot be: whoever said it is asked again.
pub(super) async fn refuse(
    tx: &mut Tx,
    connection: ConnectionId,
    call: ProviderCallId,
    answer: &CreateAnswer,
) -> Result<(), StoreError> {
    tx.execute(
        "UPDATE call_answers SET answer = $3, standing = 0 WHERE call_id = $1 AND connection_id = $2",
        args![call.uuid(), connection.uuid(), to_doc("answer", answer)?],
    )
    .await?;
    Ok(())
}
