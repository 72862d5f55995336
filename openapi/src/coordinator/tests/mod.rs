//! The types and the document against the specification's two revisions, which stand beside the repository as data.

mod instances;
mod keys;
mod rules;
mod structure;

use std::path::PathBuf;

use serde_json::Value;

/// A revision of the specification as JSON; none, with the reason printed, where the data is not there.
fn specification(file: &str) -> Option<Value> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/specs/interconnect").join(file);
    let Ok(text) = std::fs::read_to_string(&path) else {
        println!("skipped: {} is not there", path.display());
        return None;
    };
    Some(serde_saphyr::from_str(&text).unwrap())
}

/// What a `$ref` of a document points at.
fn target<'d>(document: &'d Value, reference: &str) -> &'d Value {
    let pointer = reference.strip_prefix('#').unwrap_or_else(|| panic!("{reference} is elsewhere"));
    document.pointer(pointer).unwrap_or_else(|| panic!("{reference} points at nothing"))
}

/// The schema itself, behind a `$ref` or an `allOf` of one.
fn resolved<'d>(document: &'d Value, schema: &'d Value) -> &'d Value {
    if let Some(reference) = schema["$ref"].as_str() {
        return resolved(document, target(document, reference));
    }
    match schema["allOf"].as_array().map(Vec::as_slice) {
        Some([only]) => resolved(document, only),
        _ => schema,
    }
}

/// The operations of a document: `operationId`, path, method, operation.
fn operations(document: &Value) -> Vec<(&str, &str, &str, &Value)> {
    let mut found = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            found.push((operation["operationId"].as_str().unwrap(), path.as_str(), method.as_str(), operation));
        }
    }
    found.sort_unstable_by_key(|(id, ..)| *id);
    found
}
