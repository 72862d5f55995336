//! JSON documents: canonical text, and fields by pointer.

use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Map, Value};

use super::sim::CorruptError;

/// The same document with sorted keys, whatever features `serde_json` was built with.
pub(crate) fn sorted(value: Value) -> Value {
    match value {
        Value::Array(items) => Value::Array(items.into_iter().map(sorted).collect()),
        Value::Object(map) => {
            let mut entries: Vec<(String, Value)> = map.into_iter().collect();
            entries.sort_by(|a, b| a.0.cmp(&b.0));
            Value::Object(entries.into_iter().map(|(k, v)| (k, sorted(v))).collect::<Map<_, _>>())
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value,
    }
}

/// Text with two spaces of indentation.
pub(crate) fn pretty(value: &Value) -> String {
    format!("{value:#}\n")
}

/// A document of a type that always has one.
pub(crate) fn of<T: Serialize>(value: &T) -> Value {
    serde_json::to_value(value).unwrap_or(Value::Null)
}

/// Sets one field of a resource by pointer.
pub(crate) fn set<T: Serialize + DeserializeOwned>(
    resource: &mut T,
    pointer: &str,
    value: &Value,
) -> Result<(), CorruptError> {
    let lost = || CorruptError::NoField(pointer.to_owned());
    let mut document = serde_json::to_value(&*resource).map_err(CorruptError::Misfit)?;
    let segments: Vec<String> = pointer
        .strip_prefix('/')
        .ok_or_else(lost)?
        .split('/')
        .map(|s| s.replace("~1", "/").replace("~0", "~"))
        .collect();
    let (last, path) = segments.split_last().ok_or_else(lost)?;
    let mut at = &mut document;
    for segment in path {
        at = child(at, segment).ok_or_else(lost)?;
    }
    if let Value::Object(map) = at {
        map.insert(last.clone(), value.clone());
    } else {
        *child(at, last).ok_or_else(lost)? = value.clone();
    }
    *resource = serde_json::from_value(document).map_err(CorruptError::Misfit)?;
    Ok(())
}

fn child<'a>(value: &'a mut Value, segment: &str) -> Option<&'a mut Value> {
    let named = |item: &Value| {
        ["name", "bgpPeerId", "key"].iter().any(|k| item.get(k).and_then(Value::as_str) == Some(segment))
    };
    match value {
        Value::Object(map) => map.get_mut(segment),
        Value::Array(items) => match segment.parse::<usize>() {
            Ok(index) => items.get_mut(index),
            Err(_) => items.iter_mut().find(|item| named(item)),
        },
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
    }
}

/// RFC 7396: objects merge, null removes, everything else (arrays too) replaces.
pub(crate) fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(changes) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    if let Value::Object(map) = target {
        for (key, change) in changes {
            if change.is_null() {
                map.remove(key);
            } else {
                merge(map.entry(key.clone()).or_insert(Value::Null), change);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn merge_replaces_arrays_whole_and_merges_objects() {
        let mut target = json!({"a": [1, 2], "b": {"x": 1, "y": 2}, "c": 3});
        merge(&mut target, &json!({"a": [9], "b": {"y": null, "z": 4}}));
        assert_eq!(target, json!({"a": [9], "b": {"x": 1, "z": 4}, "c": 3}));
    }

    #[test]
    fn set_finds_list_elements_by_name() {
        let mut value = json!({"peers": [{"name": "p", "asn": 1}, {"name": "q", "asn": 2}]});
        set(&mut value, "/peers/q/asn", &json!(7)).expect("q has an asn");
        set(&mut value, "/peers/0/asn", &json!(8)).expect("there is a first peer");
        assert_eq!(value, json!({"peers": [{"name": "p", "asn": 8}, {"name": "q", "asn": 7}]}));
        assert!(matches!(set(&mut value, "/peers/r/asn", &json!(7)), Err(CorruptError::NoField(_))));
    }
}
