//! Google's own schemas as a validator, stricter than they stand: a member that a schema does not know is refused, and a
//! pattern holds for the whole text.

use axum::http::Method;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

use crate::testing::Recorded;

/// The schemas, one validator each, built when first needed.
pub(super) struct Schemas(BTreeMap<&'static str, jsonschema::Validator>);

const USED: [&str; 6] = [
    "InterconnectAttachment",
    "InterconnectAttachmentList",
    "Operation",
    "Router",
    "RouterList",
    "RouterStatusResponse",
];

impl Schemas {
    pub(super) fn new(mut document: Value) -> Self {
        let mut schemas = document["components"]["schemas"].take();
        tighten(&mut schemas);
        let build = |name: &'static str| {
            let schema = json!({
                "$ref": format!("#/components/schemas/{name}"),
                "components": { "schemas": schemas },
            });
            (name, jsonschema::validator_for(&schema).unwrap())
        };
        Self(USED.into_iter().map(build).collect())
    }

    /// Where a value breaks a schema.
    pub(super) fn violations(&self, name: &str, value: &Value) -> Vec<String> {
        let errors = self.0[name].iter_errors(value);
        errors.map(|error| format!("{name}{}: {error}", error.instance_path())).collect()
    }

    /// Where a request and its answer break the schemas of their path.
    pub(super) fn check(&self, request: &Recorded, status: u16, answer: &Value) -> Vec<String> {
        let segments: Vec<&str> = request.path.trim_matches('/').split('/').collect();
        let get = request.method == Method::GET;
        let (sent, answered) = match segments[..] {
            ["compute", "v1", "projects", _, "regions", _, "interconnectAttachments"] if get => {
                (None, "InterconnectAttachmentList")
            }
            ["compute", "v1", "projects", _, "regions", _, "interconnectAttachments", _] if get => {
                (None, "InterconnectAttachment")
            }
            ["compute", "v1", "projects", _, "regions", _, "routers"] if get => (None, "RouterList"),
            ["compute", "v1", "projects", _, "regions", _, "routers", _] if get => (None, "Router"),
            ["compute", "v1", "projects", _, "regions", _, "routers", _, "getRouterStatus"] if get => {
                (None, "RouterStatusResponse")
            }
            ["compute", "v1", "projects", _, "regions", _, "operations", _] if get => (None, "Operation"),
            ["compute", "v1", "projects", _, "regions", _, "interconnectAttachments", ..] => {
                (Some("InterconnectAttachment"), "Operation")
            }
            ["compute", "v1", "projects", _, "regions", _, "routers", _] => (Some("Router"), "Operation"),
            _ => return vec![format!("{} {} is no path of the API", request.method, request.path)],
        };
        let mut found = Vec::new();
        if let Some(schema) = sent.filter(|_| request.method != Method::DELETE) {
            found.extend(self.violations(schema, &request.body));
        }
        if status == 200 {
            found.extend(self.violations(answered, answer));
        }
        found
    }
}

fn tighten(schema: &mut Value) {
    match schema {
        Value::Object(object) => {
            // A schema, not a member that happens to be called so.
            if object.get("properties").is_some_and(Value::is_object) && object.get("type") == Some(&json!("object")) {
                object.entry("additionalProperties").or_insert(Value::Bool(false));
            }
            if let Some(Value::String(pattern)) = object.get_mut("pattern") {
                *pattern = format!("^(?:{pattern})$");
            }
            object.values_mut().for_each(tighten);
        }
        Value::Array(items) => items.iter_mut().for_each(tighten),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// An object of the little cloud.
pub(super) fn object(value: Value) -> Map<String, Value> {
    value.as_object().cloned().unwrap()
}
