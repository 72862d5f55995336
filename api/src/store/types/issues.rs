//! Issues.

use tieline_openapi::ids::{IssueId, ProjectId};

use super::{Audit, IdempotencyKey, NewEvent, SavedAnswer};
use crate::plan::step::CreateAnswer;

/// A person's answer to an issue about a create without answer.
#[derive(Debug, Clone)]
pub struct IssueAnswered {
    /// The issue.
    pub issue: IssueId,
    /// Its project.
    pub project: ProjectId,
    /// The resource that was looked for: the second path in the issue's `about`.
    pub resource: String,
    /// What was found.
    pub answer: CreateAnswer,
    /// The event.
    pub event: NewEvent,
    /// Who.
    pub audit: Audit,
    /// The key and the answer to save under it.
    pub idempotency: Option<(IdempotencyKey, SavedAnswer)>,
}
