//! What a ledger row holds: digest, name, token.

use serde_json::Value;
use sha2::{Digest, Sha256};
use tieline_openapi::{ids::InstanceId, v1::Verb};
use tieline_providers::{OwnerTag, ResourceSpec};

/// The idempotency token of an instance: the same for every retry of its create, so that a cloud that knows tokens never
/// makes a second one.
pub(super) fn token(instance: InstanceId) -> String {
    instance.to_string()
}

/// What the resource is found by: its slot, or its name.
pub(super) fn name(owner: OwnerTag, spec: &ResourceSpec) -> String {
    spec.slot.clone().unwrap_or_else(|| owner.name())
}

/// SHA-256 of the request, over canonical JSON. A spec holds no secret.
pub(super) fn digest(verb: Verb, owner: OwnerTag, spec: &ResourceSpec) -> [u8; 32] {
    let mut text = format!("{verb:?} {} ", owner.name());
    canonical(&spec.fields, &mut text);
    Sha256::digest(text.as_bytes()).into()
}

/// JSON with sorted keys and no white space: one value, one text.
fn canonical(value: &Value, out: &mut String) {
    match value {
        Value::Object(map) => {
            let mut keys: Vec<_> = map.keys().collect();
            keys.sort_unstable();
            out.push('{');
            for (n, key) in keys.into_iter().enumerate() {
                if n > 0 {
                    out.push(',');
                }
                out.push_str(&Value::String(key.clone()).to_string());
                out.push(':');
                canonical(&map[key], out);
            }
            out.push('}');
        }
        Value::Array(items) => {
            out.push('[');
            for (n, item) in items.iter().enumerate() {
                if n > 0 {
                    out.push(',');
                }
                canonical(item, out);
            }
            out.push(']');
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => out.push_str(&value.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn one_value_has_one_text() {
        let mut text = String::new();
        canonical(&json!({ "b": [1, null, "x\n"], "a": { "d": true, "c": 1.5 } }), &mut text);
        assert_eq!(text, r#"{"a":{"c":1.5,"d":true},"b":[1,null,"x\n"]}"#);
    }
}
