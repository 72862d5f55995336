//! What every request brings: its page, its trace in the audit log, its idempotency key.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tieline_openapi::v1::Timestamp;

/// A page: at most `limit` rows with an id after `after`.
#[derive(Debug, Clone, Default)]
pub struct Page {
    /// Rows at most.
    pub limit: u32,
    /// The last id of the page before.
    pub after: Option<uuid::Uuid>,
}

/// Who did what, for the audit log.
#[derive(Debug, Clone)]
pub struct Audit {
    /// Who: `token:<id>`, `gateway:<id>`, `joinToken:<id>`, or `installation` for what the first start does.
    pub principal: String,
    /// The request's id.
    pub request_id: String,
    /// The operationId of the OpenAPI document.
    pub action: String,
    /// About what, as a path.
    pub subject: String,
    /// When.
    pub at: Timestamp,
}

/// What an idempotency key belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdempotencyKey {
    /// Who: the key of one principal is nothing to another.
    pub principal: String,
    /// The method.
    pub method: String,
    /// The path.
    pub path: String,
    /// The header's value.
    pub key: String,
    /// SHA-256 over the canonical body and the query without `wait`.
    pub digest: [u8; 32],
}

/// An answer that is given again. It holds no once-only secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedAnswer {
    /// The digest of the request that it answered.
    pub digest: [u8; 32],
    /// HTTP status.
    pub status: u16,
    /// Headers that belong to the answer: `Location`, `Operation-Location`, `ETag`.
    pub headers: BTreeMap<String, String>,
    /// The body.
    pub body: serde_json::Value,
}
