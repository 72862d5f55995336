//! Events and issues.

use tieline_openapi::{
    ids::{IssueId, ProjectId},
    v1::{Event, Issue, IssueState, Timestamp},
};

use super::{
    SqlStore,
    row::{Row, args, to_doc},
    tx::Tx,
};
use crate::store::{NewEvent, Page, StoreError};

/// Writes events with the next cursors. Drawing them locks the counter's row until the transaction ends: cursors are given out
/// one transaction after the other, so that a reader who was given cursor n is never shown a later commit below n.
pub(super) async fn insert(tx: &mut Tx, events: Vec<NewEvent>) -> Result<(), StoreError> {
    let count = u64::try_from(events.len()).unwrap_or(u64::MAX);
    let row = tx
        .row("UPDATE counters SET value = value + $1 WHERE name = 'event_cursor' RETURNING value", args![count])
        .await?;
    let last = row.ok_or(StoreError::NotFound)?.count()?;
    for (event, cursor) in events.into_iter().zip(last + 1 - count..) {
        tx.execute(
            "INSERT INTO events (cursor, project, time, kind, subject, generation, cause, data)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
            args![
                cursor,
                event.project.as_str(),
                event.time,
                event.kind,
                event.subject,
                event.generation,
                event.cause,
                to_doc("event", &event.data)?
            ],
        )
        .await?;
    }
    Ok(())
}

fn event(row: &mut Row) -> Result<Event, StoreError> {
    Ok(Event {
        cursor: row.count()?.to_string(),
        time: row.time()?,
        kind: row.text()?,
        subject: row.text()?,
        generation: row.opt_int()?.map(|n| u64::try_from(n).unwrap_or(0)),
        cause: row.text()?,
        data: row.doc("event")?,
    })
}

async fn counter(tx: &mut Tx, name: &str) -> Result<u64, StoreError> {
    tx.row("SELECT value FROM counters WHERE name = $1", args![name]).await?.ok_or(StoreError::NotFound)?.count()
}

/// Raises an issue, or brings the open one of the same code and subject up to date; that one keeps its id and its age.
pub(super) async fn raise(tx: &mut Tx, project: &ProjectId, issue: &Issue) -> Result<(), StoreError> {
    let subject = issue.about.first().cloned().unwrap_or_default();
    tx.execute(
        "INSERT INTO issues (id, project, code, subject, created_at, doc) VALUES ($1, $2, $3, $4, $5, $6)
         ON CONFLICT (project, code, subject) WHERE resolved_at IS NULL DO UPDATE SET doc = excluded.doc",
        args![issue.id.uuid(), project.as_str(), &issue.code, subject, issue.created_at, to_doc("issue", issue)?],
    )
    .await?;
    Ok(())
}

/// Ends the issues of a code and subject.
pub(super) async fn resolve(tx: &mut Tx, code: &str, subject: &str, at: Timestamp) -> Result<(), StoreError> {
    tx.execute(
        "UPDATE issues SET resolved_at = $3 WHERE code = $1 AND subject = $2 AND resolved_at IS NULL",
        args![code, subject, at],
    )
    .await?;
    Ok(())
}

const ISSUE: &str = "id, created_at, resolved_at, doc";

fn issue(row: &mut Row) -> Result<Issue, StoreError> {
    let (id, created_at, resolved_at) = (row.id()?, row.time()?, row.opt_time()?);
    let mut issue: Issue = row.doc("issue")?;
    issue.id = id;
    issue.created_at = created_at;
    issue.resolved_at = resolved_at;
    issue.state = if resolved_at.is_some() { IssueState::Resolved } else { IssueState::Open };
    Ok(issue)
}

impl SqlStore {
    pub(super) async fn events_after(
        &self,
        project: &ProjectId,
        since: u64,
        limit: u32,
    ) -> Result<Vec<Event>, StoreError> {
        let mut tx = self.look().await?;
        let rows = tx
            .rows(
                "SELECT cursor, time, kind, subject, generation, cause, data FROM events
                 WHERE project = $1 AND cursor > $2 ORDER BY cursor LIMIT $3",
                args![project.as_str(), since, limit],
            )
            .await?;
        // 0 is nobody's last event: it asks for whatever is kept. Asked after the rows: none of them was gone by then.
        let floor = if since > 0 { counter(&mut tx, "event_floor").await? } else { 0 };
        tx.done().await?;
        if since < floor {
            return Err(StoreError::CursorTooOld);
        }
        rows.into_iter().map(|mut row| event(&mut row)).collect()
    }

    pub(super) async fn newest_cursor(&self) -> Result<u64, StoreError> {
        let mut tx = self.look().await?;
        let cursor = counter(&mut tx, "event_cursor").await?;
        tx.done().await?;
        Ok(cursor)
    }

    pub(super) async fn list_issues(&self, project: &ProjectId, page: Page) -> Result<Vec<Issue>, StoreError> {
        let mut tx = self.look().await?;
        let before = page.after.map_or_else(|| "~".to_owned(), |id| id.to_string());
        let rows = tx
            .rows(
                &format!("SELECT {ISSUE} FROM issues WHERE project = $1 AND id < $2 ORDER BY id DESC LIMIT $3"),
                args![project.as_str(), before, page.limit],
            )
            .await?;
        tx.done().await?;
        rows.into_iter().map(|mut row| issue(&mut row)).collect()
    }

    pub(super) async fn find_issue(&self, project: &ProjectId, id: IssueId) -> Result<Issue, StoreError> {
        let mut tx = self.look().await?;
        let row = tx
            .row(
                &format!("SELECT {ISSUE} FROM issues WHERE id = $1 AND project = $2"),
                args![id.uuid(), project.as_str()],
            )
            .await?;
        tx.done().await?;
        issue(&mut row.ok_or(StoreError::NotFound)?)
    }
}
