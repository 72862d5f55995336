//! Event: something that happened, in the order in which it was committed.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Timestamp;

/// One event. Cursors rise; a reader that has seen cursor n will never be shown a later commit below n.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Event {
    /// Rising; also the SSE `id`.
    pub cursor: String,
    /// When it was committed.
    pub time: Timestamp,
    /// Dotted, for example `connection.created`, `channel.bgpEstablished`, `path.promoted`.
    #[serde(rename = "type")]
    pub kind: String,
    /// What it is about, as a path: `/v1/connections/<id>`.
    pub subject: String,
    /// The generation of the subject, where it has one.
    pub generation: Option<u64>,
    /// Who or what caused it: a token's id, `engine`, a gateway's id.
    pub cause: String,
    /// More, by type. Never a secret.
    #[schema(value_type = Object)]
    pub data: serde_json::Value,
}

/// A page of events.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct EventList {
    /// The page, oldest first.
    pub events: Vec<Event>,
    /// Give it back as `since` to go on, also when the page is empty.
    pub next_cursor: String,
}
