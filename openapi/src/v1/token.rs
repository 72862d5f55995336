//! Token: what a client authenticates with.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Timestamp;
use crate::ids::{AttachPointId, GatewayGroupId, JoinTokenId, ProjectId, TokenId};

/// What a token may do. Each scope contains the ones before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Scope {
    /// Read everything in its project.
    Read,
    /// And create, change and delete connections.
    Operate,
    /// And issue tokens and join gateways.
    Admin,
}

/// A token, without its secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Token {
    /// UUID v7.
    pub id: TokenId,
    /// Unique in its project.
    pub name: String,
    /// The one project that it sees.
    pub project: ProjectId,
    /// What it may do.
    pub scope: Scope,
    /// When it ends; null: never.
    pub expires_at: Option<Timestamp>,
    /// When it was last used, to about a minute.
    pub last_used_at: Option<Timestamp>,
    /// When it was issued.
    pub created_at: Timestamp,
}

/// The body of `POST /v1/tokens`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TokenRequest {
    /// Unique in its project.
    #[schema(min_length = 1, max_length = 63)]
    pub name: String,
    /// What it may do; never more than the issuing token.
    pub scope: Scope,
    /// Seconds until it ends; null: never.
    #[serde(default)]
    #[schema(minimum = 60)]
    pub expires_in_seconds: Option<u64>,
}

/// The answer of `POST /v1/tokens`: the only time that the secret is shown. A secret is never kept, so an answer that is given
/// again under the same `Idempotency-Key` has none.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct IssuedToken {
    /// The token.
    pub token: Token,
    /// Send it as `Authorization: Bearer <secret>`. Null where this answer was given before: then end this token and issue
    /// another one, unless the first answer arrived after all.
    pub secret: Option<String>,
}

/// A page of tokens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct TokenList {
    /// The page.
    pub tokens: Vec<Token>,
    /// Give it back as `pageToken` for the next page; absent on the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_page_token: Option<String>,
}

/// A one-time right for a machine to join as a gateway.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct JoinToken {
    /// UUID v7.
    pub id: JoinTokenId,
    /// The group it joins.
    pub group: GatewayGroupId,
    /// In whose network the gateway stands.
    pub attach_point_id: AttachPointId,
    /// When it ends.
    pub expires_at: Timestamp,
    /// When it was used; null: not yet.
    pub used_at: Option<Timestamp>,
}

/// The body of `POST /v1/gatewayGroups/{id}:issueJoinToken`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct JoinTokenRequest {
    /// In whose network the gateway stands.
    pub attach_point_id: AttachPointId,
    /// Seconds until it ends; one hour if absent.
    #[serde(default)]
    #[schema(minimum = 60, maximum = 86400)]
    pub expires_in_seconds: Option<u64>,
}

/// The answer of `:issueJoinToken`: the only time that the secret is shown. A secret is never kept, so an answer that is given
/// again under the same `Idempotency-Key` has none.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct IssuedJoinToken {
    /// The join token.
    pub join_token: JoinToken,
    /// Give it to `tieline gateway --join-token`. Null where this answer was given before: then issue another one with a new
    /// key; this one ends by itself.
    pub secret: Option<String>,
}
