//! The vendors' own models as JSON schemas, made strict: a field that the model does not have is an error.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, Mutex},
};

use serde_json::{Map, Value, json};

/// Where the models are; nothing where they are not on this machine.
#[allow(clippy::print_stdout, reason = "a skipped check says why")]
fn read(file: &str) -> Option<Value> {
    let shared = std::env::var_os("TIELINE_SHARED")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared"), PathBuf::from);
    let path = shared.join("specs/clouds").join(file);
    match std::fs::read(&path) {
        Ok(bytes) => Some(serde_json::from_slice(&bytes).expect("the model is JSON")),
        Err(error) => {
            println!("SKIPPED: answers are not checked against {}: {error}", path.display());
            None
        }
    }
}

fn check(validator: &jsonschema::Validator, what: &str, answer: &Value) {
    let errors: Vec<String> =
        validator.iter_errors(answer).map(|e| format!("{} at {}", e, e.instance_path())).collect();
    assert!(errors.is_empty(), "{what} does not fit its model: {errors:#?}\n{answer:#}");
}

/// The Direct Connect model of botocore.
pub(crate) struct AwsModel {
    shapes: Map<String, Value>,
    outputs: BTreeMap<String, String>,
    built: Mutex<BTreeMap<String, Arc<jsonschema::Validator>>>,
}

fn shape(shape: &Value) -> Value {
    let reference = |name: &Value| json!({ "$ref": format!("#/shapes/{}", name.as_str().expect("a shape")) });
    match shape["type"].as_str() {
        Some("structure") => {
            let members: Map<String, Value> = shape["members"]
                .as_object()
                .into_iter()
                .flatten()
                .map(|(k, v)| (v["locationName"].as_str().unwrap_or(k).to_owned(), reference(&v["shape"])))
                .collect();
            json!({ "type": "object", "properties": members, "additionalProperties": false })
        }
        Some("list") => {
            json!({ "type": "array", "items": reference(&shape["member"]["shape"]), "minItems": shape["min"].as_u64().unwrap_or(0) })
        }
        Some("string") => match shape.get("enum") {
            Some(words) => json!({ "type": "string", "enum": words }),
            None => json!({ "type": "string" }),
        },
        Some("integer" | "long") => json!({ "type": "integer" }),
        Some("boolean") => json!({ "type": "boolean" }),
        Some("timestamp") => json!({ "type": "number" }),
        other => panic!("a shape of the type {other:?}"),
    }
}

impl AwsModel {
    pub(crate) fn load() -> Option<Self> {
        let model = read("aws-directconnect.botocore.json")?;
        let known = |s: &&Value| {
            matches!(
                s["type"].as_str(),
                Some("structure" | "list" | "string" | "integer" | "long" | "boolean" | "timestamp")
            )
        };
        let all = model["shapes"].as_object().expect("shapes");
        let shapes: Map<String, Value> =
            all.iter().filter(|(_, s)| known(s)).map(|(name, s)| (name.clone(), shape(s))).collect();
        let operations = model["operations"].as_object().expect("operations");
        let output = |operation: &Value| operation["output"]["shape"].as_str().map(str::to_owned);
        let outputs = operations.iter().filter_map(|(name, operation)| Some((name.clone(), output(operation)?)));
        Some(Self { shapes, outputs: outputs.collect(), built: Mutex::default() })
    }

    pub(crate) fn check_output(&self, operation: &str, answer: &Value) {
        let output = self.outputs.get(operation).unwrap_or_else(|| panic!("{operation} has an output"));
        let build = || {
            let schema = json!({ "$ref": format!("#/shapes/{output}"), "shapes": self.shapes });
            Arc::new(jsonschema::validator_for(&schema).expect("a schema"))
        };
        let validator = self.built.lock().expect("built").entry(output.clone()).or_insert_with(build).clone();
        check(&validator, operation, answer);
    }
}

/// Google's schemas, made from its discovery document.
pub(crate) struct GoogleModel {
    components: Value,
    /// Path segments, the method, and the answer's schema.
    routes: Vec<(Vec<String>, String, String)>,
}

fn strict(value: &mut Value) {
    match value {
        Value::Object(map) => {
            if map.get("properties").is_some_and(Value::is_object) && !map.contains_key("additionalProperties") {
                map.insert("additionalProperties".to_owned(), json!(false));
            }
            map.values_mut().for_each(strict);
        }
        Value::Array(items) => items.iter_mut().for_each(strict),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

impl GoogleModel {
    pub(crate) fn load() -> Option<Self> {
        let mut model = read("gcp-compute-v1.interconnect-routers.openapi.json")?;
        strict(&mut model["components"]["schemas"]);
        let mut routes = Vec::new();
        for (path, item) in model["paths"].as_object().expect("paths") {
            let ours = ["/interconnects", "/interconnectAttachments", "/routers", "/operations"];
            if !ours.iter().any(|part| path.contains(part)) || path.contains("/aggregated/") {
                continue;
            }
            for (method, operation) in item.as_object().expect("an item") {
                let schema = &operation["responses"]["200"]["content"]["application/json"]["schema"];
                let Some(reference) = schema["$ref"].as_str() else { continue };
                let segments = path.trim_matches('/').split('/').map(str::to_owned).collect();
                routes.push((segments, method.to_uppercase(), reference.to_owned()));
            }
        }
        Some(Self { components: model["components"].take(), routes })
    }

    pub(crate) fn check(&self, method: &str, path: &str, answer: &Value) {
        let segments: Vec<&str> = path.trim_matches('/').split('/').collect();
        let fits = |template: &[String]| {
            template.len() == segments.len()
                && template.iter().zip(&segments).all(|(t, s)| t.starts_with('{') || t == s)
        };
        let found = self.routes.iter().find(|(template, m, _)| m == method && fits(template));
        let (.., reference) = found.unwrap_or_else(|| panic!("{method} {path} is in Google's document"));
        let schema = json!({ "$ref": reference, "components": self.components });
        let validator = jsonschema::options().with_draft(jsonschema::Draft::Draft4).should_validate_formats(false);
        check(&validator.build(&schema).expect("a schema"), &format!("{method} {path}"), answer);
    }
}
