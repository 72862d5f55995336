//! Issue: something that a person should look at.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Severity, Timestamp};
use crate::ids::IssueId;

/// Whether an issue still stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum IssueState {
    /// It stands.
    Open,
    /// Its cause is gone.
    Resolved,
}

/// Something that a person should look at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Issue {
    /// UUID v7.
    pub id: IssueId,
    /// How much it matters.
    pub severity: Severity,
    /// Stable code.
    pub code: String,
    /// What it is about, as paths: `/v1/connections/<id>`.
    pub about: Vec<String>,
    /// One line.
    pub title: String,
    /// What bills while it stands.
    pub cost: Option<String>,
    /// What to do.
    pub remediation: String,
    /// Whether it still stands.
    pub state: IssueState,
    /// Since when.
    pub created_at: Timestamp,
    /// When its cause went.
    pub resolved_at: Option<Timestamp>,
}

/// What a person found where a create was without answer and nothing tells whether it took.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct IssueAnswer {
    /// Which resource was looked for: the second path in the issue's `about`. The same issue may ask about another one later.
    #[schema(min_length = 1, max_length = 400)]
    pub resource: String,
    /// What was found.
    pub outcome: CreateOutcome,
    /// With `CREATED`: the cloud's own id of what was found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(min_length = 1, max_length = 400)]
    pub cloud_id: Option<String>,
}

/// What became of a create without answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum CreateOutcome {
    /// It is there.
    Created,
    /// It is not there, and nothing can still make it: it is created again.
    NotCreated,
}

/// A page of issues.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct IssueList {
    /// The page.
    pub issues: Vec<Issue>,
    /// Give it back as `pageToken` for the next page; absent on the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_page_token: Option<String>,
}
