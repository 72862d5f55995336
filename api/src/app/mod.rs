//! Use cases, one file a noun: what a request means, whoever sends it. No HTTP here, no SQL, no cloud.

pub mod bootstrap;
pub mod connections;
pub mod error;
pub mod events;
pub mod gateways;
pub mod intent;
pub mod operations;
pub mod plans;
pub mod shared;
pub mod tokens;
pub mod tunnel_keys;
pub mod vault;
pub mod view;

use std::sync::Arc;

use sha2::{Digest, Sha256};
use tieline_openapi::{
    ids::ProjectId,
    v1::{Scope, Timestamp},
};

use crate::{
    coordinator::Coordination,
    engine::clock::{Clock, Random},
    events::Hints,
    store::{Audit, Page, Store},
    topology::Topology,
};

pub use error::AppError;
pub use vault::Vault;

/// Everything that a use case works with.
pub struct App {
    /// The store.
    pub store: Arc<dyn Store>,
    /// What exists before any connection.
    pub topology: Arc<Topology>,
    /// Secrets at rest.
    pub vault: Vault,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub random: Arc<dyn Random>,
    /// Given by the store at each commit: streams and waiting answers look at the store again.
    pub hints: Hints,
    /// Pairings of the open specification, if any.
    pub coordination: Option<Arc<Coordination>>,
    /// Held from the choice of VLANs, subnets and channels to the commit that takes them: two choices at once would be the
    /// same one, and the store would refuse the later. Between replicas, it does.
    pub choosing: tokio::sync::Mutex<()>,
}

impl App {
    /// Now.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }
}

/// Who asks, and under which name the audit log keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// `token:<id>` or `gateway:<id>`.
    pub principal: String,
    /// The one project that it sees.
    pub project: ProjectId,
    /// What it may do; `None` for a gateway's own credential.
    pub scope: Option<Scope>,
    /// The request's id.
    pub request_id: String,
    /// The operationId.
    pub action: &'static str,
}

impl Caller {
    /// A row of the audit log.
    #[must_use]
    pub fn audit(&self, subject: String, at: Timestamp) -> Audit {
        Audit {
            principal: self.principal.clone(),
            request_id: self.request_id.clone(),
            action: self.action.to_owned(),
            subject,
            at,
        }
    }
}

/// One page of a list, and where the next one begins.
#[derive(Debug, Clone)]
pub struct Paged<T> {
    /// The page.
    pub items: Vec<T>,
    /// The id of its last row, if there may be more.
    pub last: Option<String>,
}

impl<T> Paged<T> {
    /// A page of at most `size`, out of rows of which one more was read.
    pub(crate) fn of(mut rows: Vec<T>, size: u32, id: impl Fn(&T) -> String) -> Self {
        let size = size as usize;
        let more = rows.len() > size;
        rows.truncate(size);
        let last = if more { rows.last().map(id) } else { None };
        Self { items: rows, last }
    }
}

/// One row more than a page, to see whether there is a next page.
pub(crate) fn one_more(size: u32, after: Option<uuid::Uuid>) -> Page {
    Page { limit: size.saturating_add(1), after }
}

/// JSON with sorted keys and no white space: one value has one text. Numbers keep the form that serde_json prints.
#[must_use]
pub fn canonical(value: &serde_json::Value) -> String {
    fn write(value: &serde_json::Value, out: &mut String) {
        match value {
            serde_json::Value::Array(items) => {
                out.push('[');
                for (n, item) in items.iter().enumerate() {
                    if n > 0 {
                        out.push(',');
                    }
                    write(item, out);
                }
                out.push(']');
            }
            serde_json::Value::Object(members) => {
                let mut keys: Vec<&String> = members.keys().collect();
                keys.sort();
                out.push('{');
                for (n, key) in keys.into_iter().enumerate() {
                    if n > 0 {
                        out.push(',');
                    }
                    out.push_str(&serde_json::Value::from(key.as_str()).to_string());
                    out.push(':');
                    if let Some(member) = members.get(key) {
                        write(member, out);
                    }
                }
                out.push('}');
            }
            scalar @ (serde_json::Value::Null
            | serde_json::Value::Bool(_)
            | serde_json::Value::Number(_)
            | serde_json::Value::String(_)) => out.push_str(&scalar.to_string()),
        }
    }
    let mut out = String::new();
    write(value, &mut out);
    out
}

/// SHA-256 of a value's canonical text.
#[must_use]
pub fn digest(value: &serde_json::Value) -> [u8; 32] {
    Sha256::digest(canonical(value).as_bytes()).into()
}

#[cfg(test)]
mod canonical_tests {
    use super::{canonical, digest};
    use serde_json::json;

    #[test]
    fn order_of_keys_does_not_matter_and_values_do() {
        let one: serde_json::Value = serde_json::from_str(r#"{"b":[1,{"d":null,"c":"é\n"}],"a":true}"#).unwrap();
        assert_eq!(canonical(&one), "{\"a\":true,\"b\":[1,{\"c\":\"é\\n\",\"d\":null}]}");
        assert_eq!(digest(&one), digest(&json!({"a": true, "b": [1, {"c": "é\n", "d": null}]})));
        assert_ne!(digest(&one), digest(&json!({"a": true, "b": [1, {"c": "é\n", "d": 0}]})));
    }
}
