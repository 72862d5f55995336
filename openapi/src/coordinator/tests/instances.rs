//! Whatever a revision's schemas allow is read, and comes back the same.

use jsonschema::Validator;
use proptest::{
    collection::vec, option, prelude::*, strategy::Union, test_runner::Config, test_runner::TestCaseError,
    test_runner::TestRunner,
};
use serde_json::{Map, Value, json};

use super::{
    super::{OperationId, Timestamp, document},
    operations, resolved, specification,
};

/// Any value that a schema allows.
fn any_of(document: &Value, schema: &Value, depth: usize) -> BoxedStrategy<Value> {
    let schema = resolved(document, schema);
    if let Some(choices) = schema["oneOf"].as_array() {
        return Union::new(choices.iter().map(|choice| any_of(document, choice, depth))).boxed();
    }
    if let Some(values) = schema["enum"].as_array() {
        return proptest::sample::select(values.clone()).boxed();
    }
    match (schema["type"].as_str(), schema["format"].as_str()) {
        (Some("string"), Some("date-time")) => {
            // Milliseconds from 1970 to 2100, with some offset from UTC.
            (0i64..4_102_444_800_000, -18i32..=18)
                .prop_map(|(at, hours)| {
                    let offset = jiff::tz::offset(i8::try_from(hours).unwrap());
                    let at = Timestamp::from_millisecond(at).unwrap();
                    json!(at.display_with_offset(offset).to_string())
                })
                .boxed()
        }
        (Some("string"), _) => "\\PC{0,24}".prop_map(Value::from).boxed(),
        (Some("boolean"), _) => any::<bool>().prop_map(Value::from).boxed(),
        (Some("integer"), format) => {
            let wide = if format == Some("int32") { i64::from(i32::MAX) } else { i64::MAX };
            let low = schema["minimum"].as_i64().unwrap_or(-wide - 1);
            let high = schema["maximum"].as_i64().unwrap_or(wide);
            (low..=high).prop_map(Value::from).boxed()
        }
        (Some("array"), _) => {
            let items = if depth == 0 { 0..=0 } else { 0..=3 };
            vec(any_of(document, &schema["items"], depth.saturating_sub(1)), items).prop_map(Value::from).boxed()
        }
        _ => object_of(document, schema, depth),
    }
}

fn object_of(document: &Value, schema: &Value, depth: usize) -> BoxedStrategy<Value> {
    let required: Vec<&str> = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let mut fields = Just(Map::new()).boxed();
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        let value = any_of(document, property, depth.saturating_sub(1));
        let value =
            if required.contains(&name.as_str()) { value.prop_map(Some).boxed() } else { option::of(value).boxed() };
        let name = name.clone();
        fields = (fields, value)
            .prop_map(move |(mut fields, value)| {
                fields.extend(value.map(|value| (name.clone(), value)));
                fields
            })
            .boxed();
    }
    // No schema of the specification forbids fields that it does not name.
    (fields, option::weighted(0.2, any::<i32>()))
        .prop_map(|(mut fields, unknown)| {
            fields.extend(unknown.map(|value| ("ofALaterRevision".to_owned(), json!(value))));
            Value::from(fields)
        })
        .boxed()
}

/// Whether everything that was said is still said. What has no meaning may be gone: an empty list, an unknown field.
fn survives(before: &Value, after: &Value, at: &str) -> Result<(), String> {
    match (before, after) {
        (Value::Object(before), Value::Object(after)) => {
            // A key that cannot be used keeps only what tells so.
            if before.contains_key("destinationEnvironmentUri") && before["version"] != 1 && before["version"] != 2 {
                return if before["version"] == after["version"] { Ok(()) } else { Err(format!("{at}/version")) };
            }
            for (name, value) in before {
                if name == "ofALaterRevision" || value.as_array().is_some_and(Vec::is_empty) {
                    continue;
                }
                // A key of version 2 that says in clear what it hides is read as what it hides.
                if before.contains_key("destinationEnvironmentUri") && !after.contains_key(name) {
                    continue;
                }
                survives(value, after.get(name).unwrap_or(&Value::Null), &format!("{at}/{name}"))?;
            }
            Ok(())
        }
        (Value::Array(before), Value::Array(after)) if before.len() == after.len() => {
            before.iter().zip(after).enumerate().try_for_each(|(n, (b, a))| survives(b, a, &format!("{at}/{n}")))
        }
        (Value::String(before), Value::String(after)) if before != after => {
            // One instant may be spelled in many ways.
            match (before.parse::<Timestamp>(), after.parse::<Timestamp>()) {
                (Ok(before), Ok(after)) if before == after => Ok(()),
                _ => Err(format!("{at}: {before} came back as {after}")),
            }
        }
        _ if before == after => Ok(()),
        _ => Err(format!("{at}: {before} came back as {after}")),
    }
}

/// Every body of a document: operation, whether an answer, schema.
fn bodies(document: &Value) -> Vec<(OperationId, bool, &Value)> {
    let mut found = Vec::new();
    for (name, _, _, operation) in operations(document) {
        let id = *OperationId::ALL.iter().find(|id| id.as_str() == name).unwrap();
        let request = &operation["requestBody"]["content"]["application/json"]["schema"];
        let answer = &operation["responses"]["default"]["content"]["application/json"]["schema"];
        found.extend([(id, false, request), (id, true, answer)].into_iter().filter(|(_, _, schema)| !schema.is_null()));
    }
    found
}

fn validator(document: &Value, schema: &Value) -> Validator {
    let mut root = schema.clone();
    root["components"] = document["components"].clone();
    jsonschema::options().with_draft(jsonschema::Draft::Draft202012).build(&root).unwrap()
}

fn every_instance_is_read(file: &str) {
    let Some(specification) = specification(file) else { return };
    let ours = serde_json::to_value(document()).unwrap();
    let our_bodies = bodies(&ours);
    let mut runner = TestRunner::new(Config { cases: 48, failure_persistence: None, ..Config::default() });
    for (id, answer, schema) in bodies(&specification) {
        let theirs = validator(&specification, schema);
        let (_, _, our) = our_bodies.iter().find(|(o, a, _)| (*o, *a) == (id, answer)).unwrap();
        let our = validator(&ours, our);
        let what = format!("{file} {} {}", id.as_str(), if answer { "answer" } else { "request" });
        runner
            .run(&any_of(&specification, schema, 6), |instance| {
                prop_assert!(theirs.is_valid(&instance), "{}: the generator made {}", what, instance);
                let after = id.reread(answer, instance.clone());
                let after = after.map_err(|e| TestCaseError::fail(format!("{what}: {e}: {instance}")))?;
                survives(&instance, &after, "").map_err(|e| TestCaseError::fail(format!("{what}{e}")))?;
                if file == "latest.yaml"
                    && let Some(error) = our.iter_errors(&after).next()
                {
                    return Err(TestCaseError::fail(format!("{what}: {error}: {after}")));
                }
                Ok(())
            })
            .unwrap();
    }
}

#[test]
fn whatever_the_published_revision_allows_is_read() {
    every_instance_is_read("published.yaml");
}

#[test]
fn whatever_the_later_revision_allows_is_read_and_written_by_our_document() {
    every_instance_is_read("latest.yaml");
}

/// Takes out of an example what its own schema forbids: the specification writes `''` where an object belongs.
fn repaired(document: &Value, schema: &Value, example: &mut Value) {
    let schema = resolved(document, schema);
    match example {
        Value::Object(fields) => {
            fields.retain(|name, value| {
                let object = resolved(document, &schema["properties"][name])["properties"].is_object();
                !(object && value.as_str() == Some(""))
            });
            for (name, value) in fields {
                repaired(document, &schema["properties"][name], value);
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| repaired(document, &schema["items"], item)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[test]
fn the_examples_of_both_revisions_come_back() {
    for file in ["published.yaml", "latest.yaml"] {
        let Some(specification) = specification(file) else { return };
        let mut seen = 0;
        for (id, answer, schema) in bodies(&specification) {
            let Some(mut example) = resolved(&specification, schema).get("example").cloned() else { continue };
            repaired(&specification, schema, &mut example);
            let after =
                id.reread(answer, example.clone()).unwrap_or_else(|e| panic!("{}: {e}: {example}", id.as_str()));
            survives(&example, &after, "").unwrap_or_else(|e| panic!("{}{e}", id.as_str()));
            seen += 1;
        }
        assert!(seen >= 25, "{file}: {seen}");
    }
}
