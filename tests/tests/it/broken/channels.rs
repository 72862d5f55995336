//! What is wrong with the MACsec keys and the maintenance of servers and clients.

use axum::http::Method;
use serde_json::{Value, json};

use super::{
    negotiators::{Side, many, numbered, renamed},
    proxy::{Asked, Fault},
    responders::lenient,
};

use Fault::{Adds, Answers, Ignores, Reads};
use Side::{Asks, Shows};

const GET: &Method = &Method::GET;
const POST: &Method = &Method::POST;
const DELETE: &Method = &Method::DELETE;

fn creates(asked: &Asked) -> bool {
    asked.is(POST, "/macSecKeys")
}

fn takes_any_key(asked: &Asked, status: &mut u16, answer: &mut Value) {
    if creates(asked) {
        lenient(status, answer, json!({ "name": "a key", "active": false }));
    }
}

fn deletes_any_key(asked: &Asked, status: &mut u16, answer: &mut Value) {
    if asked.item(DELETE, "macSecKeys") {
        lenient(status, answer, json!({}));
    }
}

fn deletes_nothing(asked: &Asked) -> Option<(u16, Value)> {
    asked.item(DELETE, "macSecKeys").then(|| (200, json!({})))
}

fn every_key_is_active(asked: &Asked, _: &mut u16, answer: &mut Value) {
    for key in answer["macSecKeys"].as_array_mut().filter(|_| asked.is(GET, "/macSecKeys")).into_iter().flatten() {
        key["active"] = json!(true);
    }
}

/// Everything is finished.
fn finished(asked: &Asked, _: &mut u16, answer: &mut Value) {
    let state = json!("PROVISIONING_STATE_FINAL");
    if asked.item(GET, "features") {
        answer["provisioningState"] = state;
    } else if asked.is(GET, "/features") {
        for feature in answer["features"].as_array_mut().into_iter().flatten() {
            feature["provisioningState"] = state.clone();
        }
    }
}

/// The same key, of another id and for another channel.
fn elsewhere(asked: &Asked, from: &str, to: &str) -> Vec<Asked> {
    let mut other = renamed(asked, "macSecKeyId", asked.before + 40);
    other.path = asked.path.replace(from, to);
    if other.path == asked.path { Vec::new() } else { vec![other] }
}

/// Work on a channel never ends.
fn works_for_ever(asked: &Asked, answer: &mut Value, channel: &str) {
    if asked.is(GET, &format!("/interconnects/i1/channels/{channel}/maintenanceEvents")) {
        let event = json!({
            "maintenanceId": "for-ever", "startTime": "2000-01-01T00:00:00Z", "endTime": "2100-01-01T00:00:00Z",
        });
        answer["events"] = json!([event]);
    }
}

fn shows_no_work(asked: &Asked, _: &mut u16, answer: &mut Value) {
    if asked.is(GET, "/maintenanceEvents") {
        answer["events"] = json!([]);
    }
}

/// Servers, by the case that must find each. They share one service: what a case leaves, the next one finds.
pub(super) const SERVERS: &[(&str, Fault)] = &[
    (
        "macsec/first-keys",
        Ignores(|asked| {
            (creates(asked) && asked.path.contains("/channels/c2/")).then(|| (409, json!({ "title": "one at a time" })))
        }),
    ),
    (
        "macsec/key-taken",
        Answers(|asked, _, answer| {
            if asked.item(GET, "macSecKeys") {
                answer["cak"] = json!("00112233445566778899aabbccddeeff");
            }
        }),
    ),
    (
        "macsec/start-time",
        Answers(|asked, _, answer| {
            if asked.item(GET, "macSecKeys") {
                answer["startTime"] = json!("2000-01-01T00:00:00Z");
            }
        }),
    ),
    ("macsec/active-stays", Answers(deletes_any_key)),
    ("macsec/one-active", Answers(every_key_is_active)),
    (
        "macsec/sent-again",
        Answers(|asked, _, answer| {
            let keys = answer["macSecKeys"].as_array_mut().filter(|_| asked.is(GET, "/c1/macSecKeys"));
            if let Some((keys, last)) = keys.and_then(|keys| keys.last().cloned().map(|last| (keys, last))) {
                keys.push(last);
            }
        }),
    ),
    ("macsec/old-goes", Ignores(deletes_nothing)),
    ("macsec/third-key", Answers(takes_any_key)),
    ("macsec/one-channel", Answers(takes_any_key)),
    ("macsec/bake-time", Answers(takes_any_key)),
    ("macsec/bake-time-beside", Answers(takes_any_key)),
    ("macsec/malformed", Answers(takes_any_key)),
    ("macsec/delete-by-manager", Answers(deletes_any_key)),
    ("macsec/fail-closed", Answers(finished)),
    (
        "macsec/rotation-taken",
        Ignores(|asked| asked.is(POST, "/RequestMacSecKeyRotation").then(|| (403, json!({ "title": "not by you" })))),
    ),
];

/// Clients, by the case that must find each.
pub(super) const CLIENTS: &[(&str, Side)] = &[
    (
        "rotating/whole",
        Asks(Reads(|asked| {
            if creates(asked) {
                asked.change(|body| body["cak"] = json!("secret"));
            }
        })),
    ),
    ("rotating/old-stays", Asks(Answers(every_key_is_active))),
    (
        "rotating/own-channels",
        Asks(Adds(
            |asked, _| if creates(asked) { elsewhere(asked, "/channels/c3/", "/channels/c1/") } else { Vec::new() },
        )),
    ),
    (
        "rotating/one-channel",
        Asks(Adds(
            |asked, _| if creates(asked) { elsewhere(asked, "/channels/c3/", "/channels/c4/") } else { Vec::new() },
        )),
    ),
    (
        "rotating/bake-time",
        Asks(Adds(|asked, _| {
            if !asked.item(DELETE, "macSecKeys") || !asked.path.contains("/channels/c3/") {
                return Vec::new();
            }
            let path = asked.path.rsplit_once('/').map_or("", |(collection, _)| collection).replace("/c3/", "/c4/");
            let query = vec![("macSecKeyId".to_owned(), numbered(asked.before + 80))];
            let body = json!({ "cak": "00".repeat(32), "ckn": "80" }).to_string().into_bytes();
            let content_type = Some("application/json".to_owned());
            vec![Asked { method: POST.clone(), path, query, body, content_type, ..asked.clone() }]
        })),
    ),
    (
        "rotating/lost",
        Asks(Adds(
            |asked, status| {
                if creates(asked) && status == 0 { vec![renamed(asked, "macSecKeyId", 20)] } else { Vec::new() }
            },
        )),
    ),
    ("rotating/fail-closed", Shows(Answers(finished))),
    (
        "rotating/refused",
        Asks(Adds(|asked, status| if creates(asked) && status == 409 { many(asked) } else { Vec::new() })),
    ),
    // What these leave undone the client does again after a while.
    ("rotating/asked", Asks(Ignores(|asked| creates(asked).then(|| (503, json!({})))))),
    ("rotating/old-goes", Asks(Ignores(|asked| asked.item(DELETE, "macSecKeys").then(|| (503, json!({})))))),
    (
        "maintaining/shown",
        Shows(Answers(|asked, _, answer| {
            for event in
                answer["events"].as_array_mut().filter(|_| asked.is(GET, "/maintenanceEvents")).into_iter().flatten()
            {
                event["endTime"] = Value::Null;
            }
        })),
    ),
    ("maintaining/told", Asks(Ignores(|asked| asked.is(POST, "/NotifyMaintenance").then(|| (200, json!({})))))),
    (
        "maintaining/asks",
        Asks(Ignores(|asked| asked.is(GET, "/maintenanceEvents").then(|| (200, json!({ "events": [] }))))),
    ),
    ("maintaining/never-two", Shows(Answers(|asked, _, answer| works_for_ever(asked, answer, "c1")))),
    ("maintaining/own-two", Shows(Answers(|asked, _, answer| works_for_ever(asked, answer, "c2")))),
    ("maintaining/emergency", Shows(Answers(shows_no_work))),
    ("maintaining/over", Shows(Answers(|asked, _, answer| works_for_ever(asked, answer, "c1")))),
    ("maintaining/not-recreated", Asks(Answers(shows_no_work))),
];
