//! The document: committed, and equal to the later revision but for a closed list.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use serde_json::{Value, json};

use super::{super::document, operations, specification, target};

/// Schemas that only our document has: what a refusal looks like, which the specification leaves open.
const OURS: &[&str] = &["FieldError", "Problem", "ProblemCode", "ProviderDetail"];

/// Fields that only our document has: the specification's schema and its example differ in this one's name.
const OUR_FIELDS: &[(&str, &str)] = &[("ListProvidersResponse", "providers")];

fn committed() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("coordinator.v1.json")
}

fn generated() -> Value {
    serde_json::to_value(document()).unwrap()
}

#[test]
fn the_committed_document_is_the_generated_one() {
    let generated = format!("{}\n", serde_json::to_string_pretty(&generated()).unwrap());
    if std::env::var_os("TIELINE_UPDATE").is_some_and(|value| value == "1") {
        std::fs::write(committed(), &generated).unwrap();
    }
    let committed = std::fs::read_to_string(committed()).unwrap_or_default();
    assert!(committed == generated, "openapi/coordinator.v1.json is stale: run `make openapi` and commit it");
}

/// A schema as far as it binds: names of other schemas instead of pointers, no prose, no examples.
fn shape(schema: &Value) -> Value {
    if let Some(reference) = schema["$ref"].as_str() {
        return json!({ "ref": reference.rsplit('/').next(), "readOnly": flag(schema, "readOnly") });
    }
    if let Some([only]) = schema["allOf"].as_array().map(Vec::as_slice) {
        let mut inner = shape(only);
        inner["readOnly"] = json!(flag(schema, "readOnly") || flag(only, "readOnly"));
        return inner;
    }
    let mut shape_of = BTreeMap::new();
    for key in ["type", "format", "enum", "minimum", "maximum", "pattern", "default"] {
        if !schema[key].is_null() {
            shape_of.insert(key, schema[key].clone());
        }
    }
    if schema["properties"].is_object() {
        // One schema of the later revision has fields and says no type.
        shape_of.insert("type", json!("object"));
        let properties = schema["properties"].as_object().unwrap();
        let properties: BTreeMap<_, _> = properties.iter().map(|(name, of)| (name.clone(), shape(of))).collect();
        shape_of.insert("properties", json!(properties));
    }
    if let Some(required) = schema["required"].as_array() {
        let required: BTreeSet<&str> = required.iter().map(|name| name.as_str().unwrap()).collect();
        shape_of.insert("required", json!(required));
    }
    if schema["items"].is_object() {
        shape_of.insert("items", shape(&schema["items"]));
    }
    if let Some(choices) = schema["oneOf"].as_array() {
        shape_of.insert("oneOf", choices.iter().map(shape).collect());
    }
    if !schema["discriminator"].is_null() {
        shape_of.insert("discriminator", schema["discriminator"].clone());
    }
    shape_of.insert("readOnly", json!(flag(schema, "readOnly")));
    json!(shape_of)
}

fn flag(schema: &Value, key: &str) -> bool {
    schema[key].as_bool().unwrap_or(false)
}

/// Every parameter of an operation, by place and name.
fn parameters(document: &Value, operation: &Value) -> BTreeMap<String, Value> {
    let list = operation["parameters"].as_array().map(Vec::as_slice).unwrap_or_default();
    list.iter()
        .map(|parameter| {
            let parameter = parameter["$ref"].as_str().map_or(parameter, |reference| target(document, reference));
            let name = format!("{} {}", parameter["in"].as_str().unwrap(), parameter["name"].as_str().unwrap());
            (name, json!({ "required": flag(parameter, "required"), "schema": shape(&parameter["schema"]) }))
        })
        .collect()
}

fn content(holder: &Value, kind: &str) -> Option<Value> {
    let schema = &holder["content"][kind]["schema"];
    (!schema.is_null()).then(|| shape(schema))
}

#[test]
fn operations_are_those_of_the_later_revision() {
    let Some(theirs) = specification("latest.yaml") else { return };
    let ours = generated();
    let names = |document| operations(document).iter().map(|(id, ..)| (*id).to_owned()).collect::<Vec<_>>();
    assert_eq!(names(&ours), names(&theirs));
    for (our, their) in operations(&ours).into_iter().zip(operations(&theirs)) {
        let (id, ..) = our;
        assert_eq!((our.1, our.2), (their.1, their.2), "{id}");
        let (our, their) = (our.3, their.3);
        assert_eq!(parameters(&ours, our), parameters(&theirs, their), "{id}");
        assert_eq!(our["tags"], their["tags"], "{id}");
        let body = |operation: &Value| content(&operation["requestBody"], "application/json");
        assert_eq!(body(our), body(their), "{id}");
        assert_eq!(flag(&our["requestBody"], "required"), flag(&their["requestBody"], "required"), "{id}");
        let answers = |operation: &Value| content(&operation["responses"]["default"], "application/json");
        assert!(answers(our).is_some(), "{id}");
        assert_eq!(answers(our), answers(their), "{id}");
        for status in their["responses"].as_object().unwrap().keys() {
            assert!(our["responses"][status].is_object(), "{id} {status}");
        }
        for (status, response) in our["responses"].as_object().unwrap() {
            if status != "default" {
                assert!(status.starts_with('4') || status.starts_with('5'), "{id} {status}");
                let refusal = content(response, "application/problem+json").unwrap();
                assert_eq!(refusal["ref"], "Problem", "{id} {status}");
            }
        }
    }
}

#[test]
fn schemas_are_those_of_the_later_revision() {
    let Some(theirs) = specification("latest.yaml") else { return };
    let mut ours = generated();
    for (schema, field) in OUR_FIELDS {
        let properties = ours["components"]["schemas"][schema]["properties"].as_object_mut().unwrap();
        assert!(properties.remove(*field).is_some(), "{schema} has no {field} any more: take it off the list");
    }
    let shapes = |document: &Value| {
        let schemas = document["components"]["schemas"].as_object().unwrap();
        schemas.iter().map(|(name, schema)| (name.clone(), shape(schema))).collect::<BTreeMap<_, _>>()
    };
    let (mut ours, mut theirs) = (shapes(&ours), shapes(&theirs));
    for name in OURS {
        assert!(ours.remove(*name).is_some(), "{name} is not there any more: take it off the list");
    }
    let names = |shapes: &BTreeMap<String, Value>| shapes.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&ours), names(&theirs));
    for (name, our) in &mut ours {
        let their = theirs.get_mut(name).unwrap();
        // An empty object and one of which nothing is said are the same.
        for shape in [&mut *our, &mut *their] {
            shape["type"] = json!(shape["type"].as_str().unwrap_or("object"));
        }
        assert_eq!(our, their, "{name}");
    }
}

#[test]
fn every_reference_has_its_schema() {
    fn check(document: &Value, value: &Value) {
        match value {
            Value::Object(members) => {
                if let Some(reference) = members.get("$ref").and_then(Value::as_str) {
                    target(document, reference);
                }
                members.values().for_each(|member| check(document, member));
            }
            Value::Array(items) => items.iter().for_each(|item| check(document, item)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
    let document = generated();
    check(&document, &document);
    assert_eq!(document["openapi"], "3.1.0");
}
