//! Checks of an intent that need no negotiation, and its merge patch (RFC 7396).

use std::collections::BTreeSet;

use ipnet::IpNet;
use serde_json::Value;
use tieline_openapi::{
    problem::FieldError,
    v1::{ConnectionIntent, End},
};

use super::error::field;
use crate::topology::{Pairing, Topology};

/// The most prefixes that one end may list.
const MAX_PREFIXES: usize = 200;
/// The most labels of one connection.
const MAX_LABELS: usize = 64;
/// The longest label key, and the longest value, in bytes.
const MAX_LABEL_BYTES: (usize, usize) = (63, 255);
/// The longest description, in characters.
const MAX_DESCRIPTION: usize = 1024;

/// Everything that is wrong with an intent before any negotiation.
#[must_use]
pub fn check(intent: &ConnectionIntent, topology: &Topology) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if !is_name(&intent.name) {
        errors.push(field(
            "/name",
            "a name has 1 to 63 characters of A-Z, a-z, 0-9, space, `.`, `_` and `-`, and starts with a letter or digit",
        ));
    }
    if !topology.environments.contains_key(&intent.environment_id) {
        errors.push(field("/environmentId", "there is no such environment; GET /v1/environments lists them"));
    }
    match topology.pairings.get(&intent.environment_id) {
        Some(pairing) => check_shared_ends(intent, pairing, topology, &mut errors),
        None if topology.environments.contains_key(&intent.environment_id) => check_ends(intent, topology, &mut errors),
        // Whose ends they are is not known.
        None => {}
    }
    for end in End::BOTH {
        let (at, of_end) = (end.as_str(), intent.end(end));
        check_prefixes(&format!("/{at}/advertisedPrefixes"), &of_end.advertised_prefixes, &mut errors);
        if let Some(accepted) = &of_end.accepted_prefixes {
            check_prefixes(&format!("/{at}/acceptedPrefixes"), accepted, &mut errors);
        }
    }
    check_rest(intent, &mut errors);
    errors
}

/// As [`check`], of an intent that is new: with another provider it names the customer's account there.
#[must_use]
pub fn check_new(intent: &ConnectionIntent, topology: &Topology) -> Vec<FieldError> {
    let mut errors = check(intent, topology);
    if topology.pairings.contains_key(&intent.environment_id) && intent.b.remote_account_id.is_none() {
        let message = "name your account at the other provider: only its users may bring the activation key";
        errors.push(field("/b/remoteAccountId", message));
    }
    errors
}

/// As [`check`], of an intent that an activation key from the other provider makes.
#[must_use]
pub fn check_brought(intent: &ConnectionIntent, topology: &Topology) -> Vec<FieldError> {
    let mut errors = check(intent, topology);
    if intent.b.remote_account_id.is_some() {
        errors.push(field("/b/remoteAccountId", "the activation key comes from there; leave it out"));
    }
    errors
}

const NO_ATTACH_POINT: &str = "there is no such attach point; GET /v1/attachPoints lists them";

/// Both ends are at attach points of ours.
fn check_ends(intent: &ConnectionIntent, topology: &Topology, errors: &mut Vec<FieldError>) {
    for end in End::BOTH {
        let (at, of_end) = (end.as_str(), intent.end(end));
        if topology.attach_point(of_end).is_none() {
            errors.push(field(format!("/{at}/attachPointId"), NO_ATTACH_POINT));
        }
        if of_end.remote_account_id.is_some() {
            let message = "only a coordinated environment has another provider's end; leave it out";
            errors.push(field(format!("/{at}/remoteAccountId"), message));
        }
    }
    if intent.a.attach_point_id.is_some() && intent.a.attach_point_id == intent.b.attach_point_id {
        errors.push(field("/b/attachPointId", "both ends name the same attach point; a connection joins two"));
    }
}

/// End a is ours, end b the other provider's.
fn check_shared_ends(intent: &ConnectionIntent, pairing: &Pairing, topology: &Topology, errors: &mut Vec<FieldError>) {
    if intent.a.attach_point_id.is_some() && topology.attach_point(&intent.a).is_none() {
        errors.push(field("/a/attachPointId", NO_ATTACH_POINT));
    }
    if intent.a.remote_account_id.is_some() {
        errors.push(field("/a/remoteAccountId", "end a is ours; the account at the other provider stands at end b"));
    }
    if intent.b.attach_point_id.is_some() {
        let message = format!("end b is at `{}`, where no attach point of ours is; leave it out", pairing.peer);
        errors.push(field("/b/attachPointId", message));
    }
    let account = intent.b.remote_account_id.as_deref();
    let plain = |text: &str| (1..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic());
    if account.is_some_and(|account| !plain(account)) {
        errors.push(field("/b/remoteAccountId", "an account has 1 to 64 characters that can be seen, without spaces"));
    }
}

fn check_rest(intent: &ConnectionIntent, errors: &mut Vec<FieldError>) {
    let families: BTreeSet<_> = intent.families.iter().collect();
    if families.is_empty() || families.len() != intent.families.len() {
        errors.push(field("/families", "name IPV4, IPV6 or both, each once"));
    }
    if intent.routing.max_prefixes == Some(0) {
        errors.push(field("/routing/maxPrefixes", "at least 1, or null for the lesser of the clouds' limits"));
    }
    if let Some(subnet) = intent.wanted.ipv4_subnet
        && subnet.trunc() != subnet
    {
        let message = format!("{subnet} has host bits set; {} is the subnet", subnet.trunc());
        errors.push(field("/wanted/ipv4Subnet", message));
    }
    if intent.description.chars().count() > MAX_DESCRIPTION {
        errors.push(field("/description", format!("at most {MAX_DESCRIPTION} characters")));
    }
    if intent.labels.len() > MAX_LABELS {
        errors.push(field("/labels", format!("at most {MAX_LABELS} labels")));
    }
    for (key, value) in &intent.labels {
        if !is_label_key(key) {
            let message = "a label's key has 1 to 63 characters of A-Z, a-z, 0-9, `.`, `_`, `/` and `-`";
            errors.push(field(format!("/labels/{}", escape(key)), message));
        } else if value.len() > MAX_LABEL_BYTES.1 {
            let message = format!("a label's value has at most {} bytes", MAX_LABEL_BYTES.1);
            errors.push(field(format!("/labels/{}", escape(key)), message));
        }
    }
}

fn check_prefixes(pointer: &str, prefixes: &[IpNet], errors: &mut Vec<FieldError>) {
    if prefixes.len() > MAX_PREFIXES {
        errors.push(field(pointer, format!("{} prefixes; at most {MAX_PREFIXES}", prefixes.len())));
    }
    let mut seen = BTreeSet::new();
    for (n, prefix) in prefixes.iter().take(MAX_PREFIXES).enumerate() {
        if prefix.trunc() != *prefix {
            let message = format!("{prefix} has host bits set; {} is the prefix", prefix.trunc());
            errors.push(field(format!("{pointer}/{n}"), message));
        } else if !seen.insert(*prefix) {
            errors.push(field(format!("{pointer}/{n}"), format!("{prefix} is listed twice")));
        }
    }
}

fn is_name(name: &str) -> bool {
    name.len() <= 63
        && name.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b' ' | b'.' | b'_' | b'-'))
}

fn is_label_key(key: &str) -> bool {
    (1..=MAX_LABEL_BYTES.0).contains(&key.len())
        && key.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-' | b'/'))
}

/// One reference token of a JSON pointer (RFC 6901 section 3).
#[must_use]
pub fn escape(token: &str) -> String {
    token.replace('~', "~0").replace('/', "~1")
}

/// Applies a merge patch to an intent.
///
/// # Errors
/// Every member of the patch that the intent does not have, and everything in the result that cannot be decoded.
pub fn patched(intent: &ConnectionIntent, patch: &Value) -> Result<ConnectionIntent, Vec<FieldError>> {
    if !patch.is_object() {
        return Err(vec![field("", "a merge patch of a connection is a JSON object (RFC 7396)")]);
    }
    // The intent writes every one of its fields, so what is not there is unknown, even where the patch only removes it.
    let mut document = serde_json::to_value(intent)
        .map_err(|error| vec![field("", format!("the stored intent cannot be written as JSON: {error}"))])?;
    let mut unknown = Vec::new();
    unknown_members(patch, &document, "", &mut unknown);
    if !unknown.is_empty() {
        return Err(unknown);
    }
    merge(&mut document, patch);
    let result: ConnectionIntent = decode(&document)?;
    let mut fixed = Vec::new();
    let constant = "cannot be changed; create another connection and delete this one";
    if result.environment_id != intent.environment_id {
        fixed.push(field("/environmentId", constant));
    }
    for end in End::BOTH {
        let (after, before) = (result.end(end), intent.end(end));
        if after.attach_point_id != before.attach_point_id {
            fixed.push(field(format!("/{}/attachPointId", end.as_str()), constant));
        }
        if after.remote_account_id != before.remote_account_id {
            fixed.push(field(format!("/{}/remoteAccountId", end.as_str()), constant));
        }
    }
    if fixed.is_empty() { Ok(result) } else { Err(fixed) }
}

/// RFC 7396 section 2.
fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        target.clone_from(patch);
        return;
    };
    if !target.is_object() {
        *target = Value::Object(serde_json::Map::new());
    }
    let Value::Object(members) = target else { return };
    for (key, value) in patch {
        if value.is_null() {
            members.remove(key);
        } else {
            merge(members.entry(key.clone()).or_insert(Value::Null), value);
        }
    }
}

fn unknown_members(patch: &Value, document: &Value, pointer: &str, errors: &mut Vec<FieldError>) {
    let (Value::Object(patch), Value::Object(document)) = (patch, document) else { return };
    for (key, value) in patch {
        let at = format!("{pointer}/{}", escape(key));
        match document.get(key) {
            Some(_) if at == "/labels" => {}
            Some(member) => unknown_members(value, member, &at, errors),
            None => errors.push(field(at, "there is no such writable field")),
        }
    }
}

/// Decodes a value into a type of the contract.
///
/// # Errors
/// The first thing that does not fit, by its JSON pointer.
pub fn decode<T: serde::de::DeserializeOwned>(value: &Value) -> Result<T, Vec<FieldError>> {
    serde_path_to_error::deserialize(value).map_err(|error| vec![at_path(error.path(), &error.inner().to_string())])
}

/// The field error of a decoder's error. A field that is missing or comes twice is named itself, where serde names only
/// its parent.
#[must_use]
pub fn at_path(path: &serde_path_to_error::Path, message: &str) -> FieldError {
    use serde_path_to_error::Segment;
    let mut pointer = String::new();
    for segment in path {
        match segment {
            Segment::Seq { index } => pointer.push_str(&format!("/{index}")),
            Segment::Map { key } => pointer.push_str(&format!("/{}", escape(key))),
            Segment::Enum { .. } | Segment::Unknown => {}
        }
    }
    let named = |prefix: &str| message.strip_prefix(prefix)?.split('`').next();
    let about = ["missing field `", "unknown field `", "duplicate field `"];
    if let Some(name) = about.into_iter().find_map(named) {
        let token = format!("/{}", escape(name));
        if !pointer.ends_with(&token) {
            pointer.push_str(&token);
        }
    }
    // serde_json adds where in the text the decoder stood; the pointer says it better.
    let message = message.split(" at line ").next().unwrap_or(message);
    field(pointer, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn intent() -> ConnectionIntent {
        serde_json::from_value(json!({
            "name": "n", "environmentId": "e", "bandwidthMbps": 1000,
            "a": {"attachPointId": "pa", "advertisedPrefixes": ["10.0.0.0/16"]},
            "b": {"attachPointId": "pb", "advertisedPrefixes": ["10.1.0.0/16"]},
            "labels": {"team": "net", "old": "x"},
        }))
        .unwrap()
    }

    fn pointers(patch: &Value) -> Vec<String> {
        patched(&intent(), patch).unwrap_err().into_iter().map(|error| error.pointer).collect()
    }

    #[test]
    fn the_examples_of_rfc_7396_hold() {
        let cases = [
            (json!({"a": "b"}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": "b"}), json!({"b": "c"}), json!({"a": "b", "b": "c"})),
            (json!({"a": "b", "b": "c"}), json!({"a": null}), json!({"b": "c"})),
            (json!({"a": ["b"]}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": {"b": "c"}}), json!({"a": {"b": "d", "c": null}}), json!({"a": {"b": "d"}})),
            (json!({"a": [{"b": "c"}]}), json!({"a": [1]}), json!({"a": [1]})),
            (json!(["a", "b"]), json!(["c", "d"]), json!(["c", "d"])),
            (json!({"e": null}), json!({"a": 1}), json!({"e": null, "a": 1})),
            (json!([1, 2]), json!({"a": "b", "c": null}), json!({"a": "b"})),
            (json!({}), json!({"a": {"bb": {"ccc": null}}}), json!({"a": {"bb": {}}})),
        ];
        for (mut target, patch, result) in cases {
            merge(&mut target, &patch);
            assert_eq!(target, result, "{patch}");
        }
    }

    #[test]
    fn a_patch_changes_only_what_it_names() {
        let patch = json!({"bandwidthMbps": 2000, "labels": {"old": null, "new": "y"}, "wanted": {"vlanId": 7}});
        let result = patched(&intent(), &patch).unwrap();
        assert_eq!(result.bandwidth_mbps.get(), 2000);
        assert_eq!(result.labels.keys().collect::<Vec<_>>(), ["new", "team"]);
        assert_eq!(result.wanted.vlan_id.unwrap().get(), 7);
        assert_eq!(result.a, intent().a);
    }

    #[test]
    fn what_the_intent_does_not_have_is_refused_even_as_null() {
        assert_eq!(pointers(&json!({"bandwith": null, "a": {"x": 1}})), ["/a/x", "/bandwith"]);
        assert_eq!(pointers(&json!({"state": "ACTIVE"})), ["/state"]);
        assert_eq!(pointers(&json!([])), [""]);
    }

    #[test]
    fn required_and_constant_fields_stay() {
        assert_eq!(pointers(&json!({"name": null})), ["/name"]);
        assert_eq!(pointers(&json!({"a": null})), ["/a"]);
        assert_eq!(
            pointers(&json!({"environmentId": "f", "b": {"attachPointId": "q"}})),
            ["/environmentId", "/b/attachPointId"]
        );
        assert_eq!(pointers(&json!({"wanted": {"vlanId": 4095}})), ["/wanted/vlanId"]);
    }
}
