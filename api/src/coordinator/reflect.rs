//! Connections whose book has changed, as users see them: operations end, events are told, and what is gone goes. A connection
//! is claimed as the engine claims its own, so one replica tells it, and each thing once.

use std::{sync::Arc, time::Duration};

use tieline_openapi::{
    ids::IssueId,
    v1::{Issue, IssueState, Severity, Timestamp},
};
use tokio_util::sync::CancellationToken;

use super::{
    Coordination, CoordinationError,
    told::{Told, told},
};
use crate::{
    events::Topic,
    store::{Claim, ConnectionRecord, EngineStatus, EngineWrite, NewEvent, SharedLink, StoreError, Workpiece},
};

/// Connections that are claimed at once.
const BATCH: u32 = 64;
/// How long a claim lasts.
const LEASE_MS: u64 = 30_000;
/// How long nobody looks, at most: hints may be lost.
const LONGEST_MS: u64 = 1_000;
/// When a connection of which nothing is heard is looked at again: time alone changes some of what is told.
const AGAIN_MS: u64 = 60_000;

impl Coordination {
    /// Tells users what becomes of connections until told to stop.
    pub(super) async fn reflect(self: Arc<Self>, stop: CancellationToken) {
        let mut due = self.parts.hints.subscribe(Topic::Due);
        while !stop.is_cancelled() {
            let wait = match self.reflect_due().await {
                Ok(0) => self.parts.books.next_shared_due(LONGEST_MS).await.ok().flatten().unwrap_or(LONGEST_MS).max(1),
                Ok(_) => 0,
                Err(error) => {
                    tracing::warn!(error = &error as &dyn std::error::Error, "connections with peers were put off");
                    LONGEST_MS
                }
            };
            tokio::select! {
                () = stop.cancelled() => {}
                () = async {
                    if wait > 0 {
                        due.wait_at_most(&*self.parts.clock, Duration::from_millis(wait)).await;
                    }
                } => {}
            }
        }
    }

    /// Looks at what is due; how many.
    async fn reflect_due(&self) -> Result<usize, CoordinationError> {
        let claims = self.parts.books.claim_shared(&self.parts.owner, LEASE_MS, BATCH).await?;
        let mut records = Vec::new();
        let mut works = Vec::new();
        for claim in claims {
            match self.parts.store.load(&claim).await {
                Ok(work) => {
                    records.push(work.record.clone());
                    works.push((claim, work));
                }
                // Another replica has it, or it is gone.
                Err(StoreError::Fenced) => {}
                Err(error) => return Err(error.into()),
            }
        }
        self.stand(&mut records).await?;
        let many = works.len();
        for ((claim, work), record) in works.into_iter().zip(records) {
            match self.reflect_one(&claim, &work, &record).await {
                Ok(()) | Err(StoreError::Fenced) => {}
                Err(error) => {
                    tracing::warn!(%error, connection = %record.id, "a connection with a peer was put off");
                }
            }
        }
        Ok(many)
    }

    async fn reflect_one(&self, claim: &Claim, work: &Workpiece, record: &ConnectionRecord) -> Result<(), StoreError> {
        let now = self.now();
        let release = EngineWrite::Release { due_in_ms: AGAIN_MS, failures: 0, progress: false };
        let Some((shared, standing)) = record.shared.as_ref().and_then(|s| Some((s, s.standing.as_ref()?))) else {
            // Nobody is paired under this id now: the pairing may come back.
            return self.parts.store.write_fenced(claim, vec![release]).await;
        };
        let Told { status, operation, settled, gone } = told(record, shared, standing, work.operation.as_ref(), now);
        let mut writes = Vec::new();
        if let Some(operation) = operation.as_ref().filter(|new| work.operation.as_ref() != Some(new)) {
            writes.push(EngineWrite::PutOperation(Box::new(operation.clone())));
        }
        if gone {
            for code in record.status.issues.keys() {
                writes.push(EngineWrite::ResolveIssue { code: code.clone(), subject: path(record), at: now });
            }
            let data = serde_json::json!({ "name": record.intent.name, "reason": shared.ended });
            writes.push(self.told_event(record, shared, "connection.deleted", now, data));
            writes.push(EngineWrite::Remove { quarantine_ms: 0 });
            tracing::info!(connection = %record.id, peer = %shared.peer, "the connection is gone from both providers");
            return self.parts.store.write_fenced(claim, writes).await;
        }
        let (status, told) = self.issues(record, shared, status, now);
        writes.extend(told);
        writes.extend(self.news(record, shared, &status, now));
        let observed = settled && record.observed_generation != record.generation;
        if status != record.status || observed {
            let observed_generation = observed.then_some(record.generation);
            writes.push(EngineWrite::PutStatus { status: Box::new(status), observed_generation });
        }
        writes.push(release);
        self.parts.store.write_fenced(claim, writes).await
    }

    /// Raises the issue of a connection that waits for its user, and resolves it when it does not any more.
    fn issues(
        &self,
        record: &ConnectionRecord,
        shared: &SharedLink,
        mut status: EngineStatus,
        now: Timestamp,
    ) -> (EngineStatus, Vec<EngineWrite>) {
        let mut writes = Vec::new();
        let stands = status.reason.as_ref().map(|reason| reason.code.clone());
        let over: Vec<String> = status.issues.keys().filter(|code| Some(*code) != stands.as_ref()).cloned().collect();
        for code in over {
            status.issues.remove(&code);
            writes.push(EngineWrite::ResolveIssue { code, subject: path(record), at: now });
        }
        let Some(reason) = status.reason.as_mut().filter(|reason| !status.issues.contains_key(&reason.code)) else {
            return (status, writes);
        };
        let issue = Issue {
            id: IssueId(self.parts.random.uuid_v7(now)),
            severity: Severity::Error,
            code: reason.code.clone(),
            about: vec![path(record)],
            title: reason.message.clone(),
            cost: None,
            remediation: reason.next_step.clone(),
            state: IssueState::Open,
            created_at: now,
            resolved_at: None,
        };
        reason.issue = Some(issue.id);
        status.issues.insert(issue.code.clone(), issue.title.clone());
        let data = serde_json::json!({ "code": issue.code, "message": issue.title });
        writes.push(self.told_event(record, shared, "connection.actionRequired", now, data));
        writes.push(EngineWrite::RaiseIssue { project: record.project.clone(), issue: Box::new(issue) });
        (status, writes)
    }

    /// Events of what changed since the status in the store.
    fn news(
        &self,
        record: &ConnectionRecord,
        shared: &SharedLink,
        status: &EngineStatus,
        now: Timestamp,
    ) -> Vec<EngineWrite> {
        let before = &record.status;
        let mut writes = Vec::new();
        let firsts = [
            ("connection.provisioned", before.provisioned_at, status.provisioned_at),
            ("connection.bgpEstablished", before.established_at, status.established_at),
            ("connection.verified", before.verified_at, status.verified_at),
        ];
        for (kind, before, after) in firsts {
            if before.is_none() && after.is_some() {
                writes.push(self.told_event(record, shared, kind, now, serde_json::json!({})));
            }
        }
        for one in status.conditions.iter().filter(|one| !before.conditions.contains(one)) {
            let data = serde_json::json!({ "type": one.kind, "status": one.status });
            writes.push(self.told_event(record, shared, "connection.conditionChanged", now, data));
        }
        if before.state != status.state {
            let data = serde_json::json!({ "from": before.state, "to": status.state });
            writes.push(self.told_event(record, shared, "connection.stateChanged", now, data));
        }
        writes
    }

    fn told_event(
        &self,
        record: &ConnectionRecord,
        shared: &SharedLink,
        kind: &str,
        at: Timestamp,
        data: serde_json::Value,
    ) -> EngineWrite {
        EngineWrite::Event(NewEvent {
            project: record.project.clone(),
            time: at,
            kind: kind.to_owned(),
            subject: path(record),
            generation: Some(record.generation),
            cause: format!("coordinator/{}", shared.peer),
            data,
        })
    }
}

fn path(record: &ConnectionRecord) -> String {
    format!("/v1/connections/{}", record.id)
}
