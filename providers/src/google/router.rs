//! Reading and writing our parts of a Cloud Router: pure, over the router's own JSON.
//!
//! A PATCH of a router replaces the whole of each array that it names, and a router has no fingerprint that would make a
//! write conditional. So every write starts from arrays that were just read, changes only the entries with our name, and
//! sends everybody else's as they came, with fields that this code has never heard of. The SDK's own type of a router
//! leaves an empty array out of the request, which would keep the last peer alive for ever: hence JSON.

use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// The arrays that hold parts of a peer.
const ARRAYS: [&str; 3] = ["interfaces", "bgpPeers", "md5AuthenticationKeys"];

/// Our entries of the three arrays.
#[derive(Debug, Clone)]
pub(super) struct OurParts {
    /// The entry of `interfaces`.
    pub interface: Value,
    /// The entry of `bgpPeers`.
    pub peer: Value,
    /// The entry of `md5AuthenticationKeys`, with the key itself.
    pub key: Value,
}

impl OurParts {
    /// The entries of the peer called `name`, from a spec's fields and the URL of its attachment.
    pub(super) fn new(name: &str, attachment: &str, fields: &Value, password: &str) -> Self {
        let address = fields["ipRange"].as_str().and_then(|range| range.split('/').next());
        let ranges: Vec<Value> = fields["advertisedIpRanges"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|range| json!({ "range": range }))
            .collect();
        Self {
            interface: json!({
                "name": name,
                "ipRange": fields["ipRange"],
                "linkedInterconnectAttachment": attachment,
            }),
            peer: json!({
                "name": name,
                "interfaceName": name,
                "ipAddress": address,
                "peerIpAddress": fields["peerIpAddress"],
                "peerAsn": fields["peerAsn"],
                "enable": fields["enable"],
                "advertiseMode": fields["advertiseMode"],
                "advertisedGroups": [],
                "advertisedIpRanges": ranges,
                "bfd": fields["bfd"],
                "md5AuthenticationKeyName": name,
            }),
            key: json!({ "name": name, "key": password }),
        }
    }
}

/// The body of a PATCH that makes or changes our peer. What others have set on our own entries, and we know nothing of,
/// stays.
pub(super) fn with_ours(router: &Value, name: &str, ours: OurParts) -> Value {
    let mut patch = Map::new();
    for (array, part) in ARRAYS.into_iter().zip([ours.interface, ours.peer, ours.key]) {
        let mut entries = foreign_entries(router, array, name);
        let place = position(router, array, name).unwrap_or(entries.len()).min(entries.len());
        let mut entry = entry(router, array, name).cloned().unwrap_or_else(|| json!({}));
        if let (Value::Object(entry), Value::Object(part)) = (&mut entry, part) {
            entry.extend(part);
        }
        entries.insert(place, entry);
        patch.insert(array.to_owned(), Value::Array(entries));
    }
    Value::Object(patch)
}

/// The body of a PATCH that takes our peer away. Arrays that become empty are sent as such.
pub(super) fn without_ours(router: &Value, name: &str) -> Value {
    let arrays = ARRAYS.into_iter().map(|array| (array.to_owned(), foreign_entries(router, array, name).into()));
    Value::Object(arrays.collect())
}

/// Whether any part of the peer is there.
pub(super) fn has_ours(router: &Value, name: &str) -> bool {
    ARRAYS.iter().any(|array| entry(router, array, name).is_some())
}

/// The entry called `name` of an array.
pub(super) fn entry<'a>(router: &'a Value, array: &str, name: &str) -> Option<&'a Value> {
    entries(router, array).find(|entry| entry["name"] == name)
}

/// What others have in the router, by array and name.
pub(super) fn foreign_parts(router: &Value, name: &str) -> BTreeMap<(&'static str, String), Value> {
    let mut parts = BTreeMap::new();
    for array in ARRAYS {
        for (n, entry) in foreign_entries(router, array, name).into_iter().enumerate() {
            let name = entry["name"].as_str().map_or_else(|| format!("#{n}"), str::to_owned);
            parts.insert((array, name), entry);
        }
    }
    parts
}

/// What others had before a write and do not have, or have otherwise, after it: `bgpPeers/their-peer`. What they added
/// meanwhile is no harm.
pub(super) fn harmed(before: &Value, after: &Value, name: &str) -> Vec<String> {
    let after = foreign_parts(after, name);
    let before = foreign_parts(before, name).into_iter();
    before
        .filter(|(key, entry)| after.get(key) != Some(entry))
        .map(|((array, name), _)| format!("{array}/{name}"))
        .collect()
}

fn entries<'a>(router: &'a Value, array: &str) -> impl Iterator<Item = &'a Value> {
    router[array].as_array().into_iter().flatten()
}

fn position(router: &Value, array: &str, name: &str) -> Option<usize> {
    entries(router, array).position(|entry| entry["name"] == name)
}

/// Everybody else's entries as they came. A key's value is left out, which keeps it (`RouterMd5AuthenticationKey.key`).
fn foreign_entries(router: &Value, array: &str, name: &str) -> Vec<Value> {
    let mut foreign: Vec<Value> = entries(router, array).filter(|entry| entry["name"] != name).cloned().collect();
    if array == "md5AuthenticationKeys" {
        for entry in foreign.iter_mut().filter_map(Value::as_object_mut) {
            entry.remove("key");
        }
    }
    foreign
}
