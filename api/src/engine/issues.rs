//! Issues and events that follow from what a pass has found.

use std::collections::BTreeMap;

use tieline_openapi::{
    ids::IssueId,
    v1::{Issue, IssueState, Severity, Timestamp},
};

use super::{Engine, draft::Draft};
use crate::{
    plan::step::Trouble,
    store::{EngineStatus, EngineWrite},
};

impl Engine {
    /// Raises what is new, resolves what is gone, and notes both in the status.
    pub(super) fn issues(
        &self,
        draft: &Draft,
        mut status: EngineStatus,
        troubles: &[Trouble],
        now: Timestamp,
    ) -> (EngineStatus, Vec<EngineWrite>) {
        let mut writes = Vec::new();
        let mut standing: BTreeMap<String, &Trouble> = BTreeMap::new();
        for trouble in troubles {
            standing.entry(trouble.code.as_str().to_owned()).or_insert(trouble);
        }
        for (code, trouble) in &standing {
            if status.issues.get(code) == Some(&trouble.message) {
                continue;
            }
            let issue = self.issue(draft, code, trouble, now);
            if let Some(reason) = status.reason.as_mut().filter(|r| r.code == *code && r.issue.is_none()) {
                reason.issue = Some(issue.id);
            }
            tracing::warn!(connection = %draft.record.id, code, title = %issue.title, "a person must look");
            if !status.issues.contains_key(code) {
                let data = serde_json::json!({ "code": code, "message": trouble.message });
                writes.push(self.event(draft, "connection.actionRequired", now, data));
            }
            status.issues.insert(code.clone(), trouble.message.clone());
            writes.push(EngineWrite::RaiseIssue { project: draft.record.project.clone(), issue: Box::new(issue) });
        }
        let gone: Vec<_> = status.issues.keys().filter(|code| !standing.contains_key(*code)).cloned().collect();
        for code in gone {
            status.issues.remove(&code);
            writes.push(EngineWrite::ResolveIssue { code, subject: draft.path(), at: now });
        }
        (status, writes)
    }

    fn issue(&self, draft: &Draft, code: &str, trouble: &Trouble, now: Timestamp) -> Issue {
        let mut about = vec![draft.path()];
        about.extend(
            trouble.key.as_ref().map(|key| {
                format!("{}/channels/{}/{}/{}", draft.path(), trouble.channel_id, key.end.as_str(), key.kind)
            }),
        );
        Issue {
            id: IssueId(self.random.uuid_v7(now)),
            severity: Severity::Error,
            code: code.to_owned(),
            about,
            title: trouble.message.clone(),
            cost: bills(draft),
            remediation: trouble.remediation.clone(),
            state: IssueState::Open,
            created_at: now,
            resolved_at: None,
        }
    }

    /// Events of what changed since the status in the store.
    pub(super) fn events(&self, draft: &Draft, status: &EngineStatus, now: Timestamp) -> Vec<EngineWrite> {
        let before = &draft.record.status;
        let mut writes = Vec::new();
        let firsts = [
            ("connection.provisioned", before.provisioned_at, status.provisioned_at),
            ("connection.bgpEstablished", before.established_at, status.established_at),
            ("connection.verified", before.verified_at, status.verified_at),
        ];
        for (kind, before, after) in firsts {
            if before.is_none() && after.is_some() {
                writes.push(self.event(draft, kind, now, serde_json::json!({})));
            }
        }
        for one in status.conditions.iter().filter(|one| !before.conditions.contains(one)) {
            let data = serde_json::json!({ "type": one.kind, "status": one.status });
            writes.push(self.event(draft, "connection.conditionChanged", now, data));
        }
        if before.state != status.state {
            let data = serde_json::json!({ "from": before.state, "to": status.state });
            writes.push(self.event(draft, "connection.stateChanged", now, data));
        }
        writes
    }
}

/// What exists in the clouds, and so may bill, while the issue stands.
fn bills(draft: &Draft) -> Option<String> {
    let mut things: Vec<_> = draft
        .instances
        .iter()
        .filter(|i| i.present().is_some())
        .map(|i| format!("{} {}", i.key.kind, i.cloud_id.as_deref().unwrap_or("without id")))
        .collect();
    things.sort_unstable();
    (!things.is_empty()).then(|| format!("exists and may bill: {}", things.join(", ")))
}
