//! Issue: a ticket between the two providers.

use serde::{Deserialize, Serialize};
use serde_with::skip_serializing_none;
use utoipa::ToSchema;

use super::{Timestamp, wire::open_enum};

open_enum! {
    /// What an issue is about.
    IssueContext {
        /// Anything; any context may be given.
        Unspecified = "ISSUE_CONTEXT_UNSPECIFIED",
        /// A connection; a connection context is required.
        ConnectionIssue = "ISSUE_CONTEXT_CONNECTION_ISSUE",
        /// An interconnect; an interconnect context is required.
        InterconnectIssue = "ISSUE_CONTEXT_INTERCONNECT_ISSUE",
    }
}

open_enum! {
    /// How urgent an issue is.
    IssuePriority {
        /// Not said.
        Unspecified = "PRIORITY_UNSPECIFIED",
        /// Highest.
        P0 = "PRIORITY_P0",
        /// High.
        P1 = "PRIORITY_P1",
        /// Medium.
        P2 = "PRIORITY_P2",
        /// Low.
        P3 = "PRIORITY_P3",
        /// Lowest.
        P4 = "PRIORITY_P4",
    }
}

open_enum! {
    /// How far an issue is.
    IssueState {
        /// Not said.
        Unspecified = "STATE_UNSPECIFIED",
        /// Nobody has looked yet.
        Open = "STATE_OPEN",
        /// Being worked on.
        InProgress = "STATE_IN_PROGRESS",
        /// Waits for the provider that asked.
        ActionRequired = "STATE_ACTION_REQUIRED",
        /// Resolved.
        Closed = "STATE_CLOSED",
    }
}

macro_rules! contexts {
    ($($(#[$doc:meta])* $name:ident: $of:literal;)+) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
        pub struct $name {
            #[doc = $of]
            pub name: String,
        }
    )+};
}

contexts! {
    /// A channel that has the issue.
    ChannelContext: "The channel's name.";
    /// A connection that has the issue.
    ConnectionContext: "The connection's name.";
    /// A feature that has the issue.
    FeatureContext: "The feature's name.";
    /// An interconnect that has the issue.
    InterconnectContext: "The interconnect's name.";
}

/// An issue.
#[skip_serializing_none]
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Issue {
    /// `providers/{provider}/issues/{issue}`.
    pub name: Option<String>,
    /// One line.
    pub title: String,
    /// The whole story.
    pub body: String,
    /// The channels concerned.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub channel_contexts: Vec<ChannelContext>,
    /// The connections concerned.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub connection_contexts: Vec<ConnectionContext>,
    /// The features concerned.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub feature_contexts: Vec<FeatureContext>,
    /// The interconnects concerned.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub interconnect_contexts: Vec<InterconnectContext>,
    /// When it was made.
    #[schema(value_type = Option<String>, format = DateTime, read_only)]
    pub create_time: Option<Timestamp>,
    /// What it is about.
    pub issue_context: Option<IssueContext>,
    /// The server's own ticket.
    #[schema(read_only)]
    pub local_issue_id: Option<String>,
    /// How urgent it is.
    pub priority: Option<IssuePriority>,
    /// Whom to write to at the caller's.
    pub remote_contact_email: Option<String>,
    /// The caller's own ticket.
    pub remote_issue_id: Option<String>,
    /// How far it is.
    #[schema(read_only)]
    pub state: Option<IssueState>,
}

/// A page of issues.
#[skip_serializing_none]
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ListIssuesResponse {
    /// The issues.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub issues: Vec<Issue>,
    /// Where the next page begins; absent on the last.
    pub next_page_token: Option<String>,
}

/// Closes an issue.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CloseIssueRequest {}

/// What somebody said to an issue.
#[skip_serializing_none]
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Comment {
    /// The words.
    pub body: String,
    /// When.
    #[schema(value_type = Option<String>, format = DateTime, read_only)]
    pub create_time: Option<Timestamp>,
    /// Who, for people.
    #[schema(read_only)]
    pub display_name: Option<String>,
    /// The server's own id of it.
    #[schema(read_only)]
    pub local_comment_id: Option<String>,
}

/// Adds a comment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AddCommentRequest {
    /// The comment.
    pub comment: Comment,
}

/// The comment as it was taken.
#[skip_serializing_none]
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct AddCommentResponse {
    /// The comment.
    pub comment: Option<Comment>,
}

/// A page of comments, the newest first.
#[skip_serializing_none]
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ListCommentsResponse {
    /// The comments.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub comments: Vec<Comment>,
    /// Where the next page begins; absent on the last.
    pub next_page_token: Option<String>,
}
