//! Servers that each break one rule.

use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context as _;
use axum::http::Method;
use futures::future::BoxFuture;
use serde_json::{Value, json};
use tieline_conformance::{Customer, KeyError, KeySource, Outcome, Role, Wanted, Wish, WishError};
use tieline_openapi::coordinator::{ActivationKey, ActivationKeyV1, KeyVersion, Sensitive};

use super::{
    all_found,
    channels::SERVERS,
    proxy::{Asked, Caller, Fault, Proxy, Tls, Upstream, serve},
};
use crate::conformance::{Customers, Means, North, examine};

use Fault::{Answers, Ignores, Issues, Reads};

const GET: &Method = &Method::GET;
const POST: &Method = &Method::POST;
const PATCH: &Method = &Method::PATCH;
const DELETE: &Method = &Method::DELETE;

/// Refusals become successes.
pub(super) fn lenient(status: &mut u16, answer: &mut Value, echo: Value) {
    if (400..500).contains(status) {
        (*status, *answer) = (200, echo);
    }
}

fn never_refuses_connections(asked: &Asked, status: &mut u16, answer: &mut Value) {
    if asked.is(POST, "/connections") {
        lenient(status, answer, asked.json());
    }
}

fn never_refuses_features(asked: &Asked, status: &mut u16, answer: &mut Value) {
    if asked.is(POST, "/features") {
        lenient(status, answer, asked.json());
    }
}

fn every_key_is_good(asked: &Asked, status: &mut u16, answer: &mut Value) {
    if asked.is(POST, "/ConfirmActivationKey") {
        (*status, *answer) = (200, json!({ "keyValid": true }));
    }
}

fn finds_whatever_is_asked_for(asked: &Asked, status: &mut u16, answer: &mut Value) {
    if asked.method == GET {
        lenient(status, answer, json!({ "title": "t", "body": "b" }));
    }
}

fn updates_anything(asked: &Asked, status: &mut u16, answer: &mut Value) {
    if asked.method == PATCH {
        lenient(status, answer, asked.json());
    }
}

fn without_request_ids(asked: &mut Asked) {
    asked.query.retain(|(name, _)| name != "requestId");
}

/// By the case that must find it.
const BROKEN: &[(&str, Fault)] = &[
    (
        "static/provider",
        Answers(|asked, _, answer| {
            if asked.item(GET, "providers") {
                answer["name"] = json!("providers/somebody");
            }
        }),
    ),
    (
        "static/environment",
        Answers(|asked, _, answer| {
            if asked.item(GET, "environments") {
                answer["providerSites"] = json!([]);
            }
        }),
    ),
    (
        "static/sizes",
        Answers(|asked, _, answer| {
            for interconnect in
                answer["interconnects"].as_array_mut().filter(|_| asked.is(GET, "/interconnects")).into_iter().flatten()
            {
                interconnect["supportedConnectionSizeMbps"] = json!([1000]);
            }
        }),
    ),
    (
        "static/interconnect",
        Answers(|asked, _, answer| {
            if asked.item(GET, "interconnects") {
                answer["state"] = json!("INTERCONNECT_STATE_CLOSED");
            }
        }),
    ),
    (
        "static/four-channels",
        Answers(|asked, _, answer| {
            if let Some(channels) = answer["channels"].as_array_mut().filter(|_| asked.is(GET, "/channels")) {
                channels.pop();
            }
        }),
    ),
    (
        "static/distinct-devices",
        Answers(|asked, _, answer| {
            for channel in
                answer["channels"].as_array_mut().filter(|_| asked.is(GET, "/channels")).into_iter().flatten()
            {
                channel["obfuscatedDeviceId"] = json!("the-only-one");
            }
        }),
    ),
    (
        "static/channel",
        Answers(|asked, _, answer| {
            if asked.item(GET, "channels") {
                answer["macsecManagerProvider"] = json!("providers/somebody");
            }
        }),
    ),
    (
        "static/maintenance-events",
        Answers(|asked, status, answer| {
            if asked.is(GET, "/maintenanceEvents") {
                *status = 200;
                *answer =
                    json!({ "events": [{ "startTime": "2026-01-02T00:00:00Z", "endTime": "2026-01-01T00:00:00Z" }] });
            }
        }),
    ),
    (
        "static/own-subtree",
        Answers(|asked, status, answer| {
            if asked.path.starts_with("/providers/north") {
                lenient(status, answer, json!({}));
            }
        }),
    ),
    ("static/unknown", Answers(finds_whatever_is_asked_for)),
    ("pages/walk", Reads(|asked| asked.query.retain(|(name, _)| name != "pageToken"))),
    (
        "pages/large",
        Ignores(|asked| {
            let large = asked.query.iter().any(|(name, value)| name == "pageSize" && value.len() > 4);
            large.then(|| (400, json!({})))
        }),
    ),
    (
        "pages/negative",
        Reads(|asked| asked.query.retain(|(name, value)| name != "pageSize" || !value.starts_with('-'))),
    ),
    ("pages/token", Reads(|asked| asked.query.retain(|(_, value)| !value.starts_with("nobody")))),
    ("bounds/no-json", Answers(every_key_is_good)),
    ("bounds/wrong-type", Answers(every_key_is_good)),
    (
        "bounds/large-body",
        Ignores(|asked| (asked.body.len() > 1024 * 1024).then(|| (200, json!({ "keyValid": true })))),
    ),
    ("bounds/unknown-field", Ignores(|asked| asked.json().get("aFieldOfTheNextRevision").map(|_| (400, json!({}))))),
    (
        "keys/good",
        Ignores(|asked| {
            let again = asked.is(POST, "/ConfirmActivationKey") && asked.before > 0;
            again.then(|| (200, json!({ "keyValid": false })))
        }),
    ),
    ("keys/other-bandwidth", Answers(every_key_is_good)),
    ("keys/other-uuid", Answers(every_key_is_good)),
    ("keys/no-key", Answers(every_key_is_good)),
    ("keys/used", Answers(every_key_is_good)),
    ("keys/used", Answers(never_refuses_connections)),
    ("keys/deleted", Answers(every_key_is_good)),
    (
        "keys/parameters",
        Answers(|asked, _, answer| {
            if asked.is(GET, "/activationKeyParameters") {
                answer["supportedVersions"] = json!([]);
            }
        }),
    ),
    (
        "keys/parameters",
        Answers(|asked, _, answer| {
            if asked.is(GET, "/activationKeyParameters") {
                *answer = json!({ "supportedVersions": [1, 2], "encryption": {
                "publicKey": "-----BEGIN PUBLIC KEY-----", "algorithm": "RSA1_5", "keyFormat": "PKCS8" } });
            }
        }),
    ),
    (
        "intent/create",
        Answers(|asked, _, answer| {
            if asked.item(GET, "connections") {
                answer["bandwidthMbps"] = json!(1);
            }
        }),
    ),
    (
        "intent/create",
        Answers(|asked, _, answer| {
            if asked.is(GET, "/connections") {
                answer["connections"] = json!([]);
            }
        }),
    ),
    (
        "intent/unverified",
        Answers(|asked, _, answer| {
            if asked.item(GET, "connections") {
                answer["verificationState"] = json!("VERIFICATION_STATE_VERIFIED");
            }
        }),
    ),
    ("intent/replay", Reads(without_request_ids)),
    (
        "intent/published-revision",
        Ignores(|asked| {
            let later = asked.json()["sourceData"].is_object();
            (asked.is(POST, "/connections") && !later).then(|| (400, json!({ "title": "sourceData is required" })))
        }),
    ),
    ("intent/request-id-reused", Answers(never_refuses_connections)),
    ("intent/exists", Answers(never_refuses_connections)),
    ("intent/no-key", Answers(never_refuses_connections)),
    ("intent/bandwidth-of-key", Answers(never_refuses_connections)),
    ("intent/unsupported-size", Answers(never_refuses_connections)),
    ("intent/unknown-interconnect", Answers(never_refuses_connections)),
    (
        "features/guidance",
        Answers(|asked, _, answer| {
            if let Some(guidance) = answer["featureGuidance"].as_array_mut().filter(|_| asked.method == POST) {
                guidance.pop();
            }
        }),
    ),
    (
        "features/guidance-repeats",
        Answers(|asked, _, answer| {
            if asked.is(POST, "/GenerateFeatureGuidance") && asked.before > 0 {
                *answer = json!({ "featureGuidance": [] });
            }
        }),
    ),
    (
        "features/create",
        Answers(|asked, _, answer| {
            if asked.item(GET, "features") {
                answer["featureConfig"]["l3BaseConfig"]["vlanId"] = json!(4000);
            }
        }),
    ),
    (
        "features/create",
        Answers(|asked, _, answer| {
            if asked.item(GET, "features") {
                answer["provisioningState"] = json!("PROVISIONING_STATE_SOON");
            }
        }),
    ),
    (
        "features/all-channels",
        Answers(|asked, _, answer| {
            if let Some(features) = answer["features"].as_array_mut().filter(|_| asked.is(GET, "/features")) {
                features.pop();
            }
        }),
    ),
    (
        "features/replay",
        Ignores(|asked| {
            (asked.is(POST, "/features") && asked.before > 0).then(|| (409, json!({ "title": "it is there already" })))
        }),
    ),
    ("features/request-id-reused", Answers(never_refuses_features)),
    ("features/second", Answers(never_refuses_features)),
    ("features/reserved-vlan", Answers(never_refuses_features)),
    ("features/vlan-taken", Answers(never_refuses_features)),
    ("features/mask", Answers(never_refuses_features)),
    ("features/foreign-host", Answers(never_refuses_features)),
    ("features/one-end", Answers(never_refuses_features)),
    ("features/asn", Answers(never_refuses_features)),
    ("features/mtu", Answers(never_refuses_features)),
    ("features/prefix-length", Answers(never_refuses_features)),
    ("features/unknown-channel", Answers(never_refuses_features)),
    (
        "features/refused-whole",
        Ignores(|asked| {
            (asked.is(POST, "/features") && asked.before > 0).then(|| (409, json!({ "title": "half of it is here" })))
        }),
    ),
    ("features/no-connection", Answers(never_refuses_features)),
    ("features/immutable", Answers(updates_anything)),
    ("features/delete", Ignores(|asked| asked.item(DELETE, "features").then(|| (200, json!({}))))),
    (
        "lifecycle/notify",
        Ignores(|asked| (asked.is(POST, "/NotifyConnectionStatus") && asked.before > 0).then(|| (409, json!({})))),
    ),
    ("lifecycle/notify-unknown", Ignores(|asked| asked.is(POST, "/NotifyConnectionStatus").then(|| (200, json!({}))))),
    (
        "lifecycle/notify-proves-nothing",
        Answers(|asked, _, answer| {
            if asked.item(GET, "connections") {
                answer["verificationState"] = json!("VERIFICATION_STATE_VERIFIED");
            }
        }),
    ),
    ("lifecycle/update", Ignores(|asked| (asked.method == PATCH).then(|| (200, asked.json())))),
    ("lifecycle/update-unsupported", Answers(updates_anything)),
    ("lifecycle/update-mask", Answers(updates_anything)),
    ("lifecycle/delete", Ignores(|asked| asked.item(DELETE, "connections").then(|| (200, json!({}))))),
    ("lifecycle/delete-unknown", Ignores(|asked| asked.item(DELETE, "connections").then(|| (500, json!({}))))),
    ("lifecycle/late-create", Answers(never_refuses_connections)),
    (
        "channels/notify-maintenance",
        Ignores(|asked| (asked.is(POST, "/NotifyMaintenance") && asked.before > 0).then(|| (409, json!({})))),
    ),
    (
        "channels/key-not-shown",
        Answers(|asked, status, answer| {
            if asked.is(GET, "/macSecKeys") {
                (*status, *answer) = (200, json!({ "macSecKeys": [{ "cak": "00", "ckn": "01" }] }));
            }
        }),
    ),
    (
        "channels/key-by-manager",
        Answers(|asked, status, answer| {
            if asked.is(POST, "/macSecKeys") {
                lenient(status, answer, json!({}));
            }
        }),
    ),
    (
        "channels/rotation-asked-of-manager",
        Answers(|asked, status, answer| {
            if asked.is(POST, "/RequestMacSecKeyRotation") {
                lenient(status, answer, json!({}));
            }
        }),
    ),
    ("channels/key-unknown", Answers(finds_whatever_is_asked_for)),
    (
        "issues/create",
        Answers(|asked, _, answer| {
            if asked.item(GET, "issues") {
                answer["title"] = json!("Another");
            }
        }),
    ),
    (
        "issues/close",
        Ignores(|asked| {
            let closed = json!({ "title": "t", "body": "b", "state": "STATE_CLOSED" });
            asked.is(POST, "/Close").then_some((200, closed))
        }),
    ),
    (
        "issues/comments",
        Answers(|asked, _, answer| {
            if let Some(comments) = answer["comments"].as_array_mut().filter(|_| asked.is(GET, "/comments")) {
                comments.reverse();
            }
        }),
    ),
    ("issues/interconnect-context", Answers(takes_any_issue)),
    ("issues/connection-context", Answers(takes_any_issue)),
    ("issues/exists", Answers(takes_any_issue)),
    ("issues/unknown", Answers(finds_whatever_is_asked_for)),
    ("keys/encrypted", Issues(|_| a_key_in_clear())),
    ("keys/rotated", Issues(|first| first.clone())),
    ("races/last-room", Answers(never_refuses_connections)),
    ("races/vlan", Answers(never_refuses_features)),
    ("races/subnet", Answers(never_refuses_features)),
    (
        "races/same-request",
        Answers(|asked, _, answer| {
            let features = answer["features"].as_array_mut().filter(|_| asked.is(GET, "/features"));
            if let Some(features) = features
                && let Some(first) = features.first().cloned()
            {
                features.push(first);
            }
        }),
    ),
    (
        "races/delete-and-create",
        Answers(|asked, status, answer| {
            if asked.item(GET, "features") {
                lenient(status, answer, json!({}));
            }
        }),
    ),
    ("races/two-updates", Ignores(|asked| (asked.method == PATCH).then(|| (200, asked.json())))),
    (
        "recovery/one-side",
        Answers(|asked, status, answer| {
            if asked.item(GET, "features") {
                *status = 200;
                answer["featureConfig"]["l3BaseConfig"]["vlanId"] = json!(4_001);
            }
        }),
    ),
    (
        "recovery/one-channel",
        Answers(|asked, _, answer| {
            if asked.item(GET, "features") {
                answer["featureConfig"]["l3BaseConfig"]["vlanId"] = json!(4_001);
            }
        }),
    ),
    ("recovery/late-feature", Answers(never_refuses_features)),
    (
        "recovery/late-replay",
        Answers(|asked, status, answer| {
            if asked.item(GET, "connections") {
                lenient(status, answer, json!({ "name": asked.path.trim_start_matches('/') }));
            }
        }),
    ),
    (
        "recovery/migration",
        Ignores(|asked| {
            let moves = asked.json()["sourceData"]["sourceConnectionName"].is_string();
            (asked.is(POST, "/connections") && moves).then(|| (400, json!({ "title": "nothing moves here" })))
        }),
    ),
    ("recovery/migration-from-nothing", Answers(never_refuses_connections)),
    // The proxy takes any certificate and any version of TLS.
    ("transport/old-tls", Ignores(|_| None)),
    ("transport/no-certificate", Ignores(|_| None)),
    (
        "transport/method",
        Answers(|asked, status, answer| {
            if asked.method == "PUT" {
                lenient(status, answer, json!({}));
            }
        }),
    ),
    (
        "transport/content-type",
        Reads(|asked| asked.content_type = asked.content_type.as_ref().map(|_| "application/json".to_owned())),
    ),
];

fn takes_any_issue(asked: &Asked, status: &mut u16, answer: &mut Value) {
    if asked.is(POST, "/issues") {
        lenient(status, answer, asked.json());
    }
}

/// A key of version 1, of no connection.
fn a_key_in_clear() -> String {
    let key = ActivationKeyV1 {
        version: KeyVersion,
        destination_environment_uri: "providers/north/environments/e1".to_owned(),
        shared_connection_uuid: "00000000-0000-4000-8000-000000000000".to_owned(),
        connection_size_mbps: 1_000,
        destination_account_id: "customer-1".to_owned(),
    };
    ActivationKey::V1(key).encode().expose().to_owned()
}

/// A customer side that may hand out something else than it was given.
struct Issuing {
    real: Customers,
    fault: &'static Fault,
    first: Mutex<Option<String>>,
}

impl KeySource for Issuing {
    fn issue(&self, wanted: Wanted) -> BoxFuture<'_, Result<Sensitive, KeyError>> {
        Box::pin(async move {
            let key = self.real.issue(wanted).await?;
            let mut first = self.first.lock().unwrap_or_else(PoisonError::into_inner);
            let first = first.get_or_insert_with(|| key.expose().to_owned());
            Ok(if let Issues(issue) = self.fault { Sensitive::new(issue(first)) } else { key })
        })
    }
}

impl Customer for Issuing {
    fn wish(&self, wish: Wish) -> BoxFuture<'_, Result<(), WishError>> {
        self.real.wish(wish)
    }
}

fn all() -> impl Iterator<Item = (&'static str, &'static Fault)> {
    BROKEN.iter().chain(SERVERS).map(|(case, fault)| (*case, fault))
}

/// The cases that have a server that breaks their rule.
pub(super) fn cases() -> impl Iterator<Item = &'static str> {
    all().map(|(case, _)| case)
}

/// What the case finds of a server that is wrong in this.
async fn found(north: &North, case: &'static str, fault: &'static Fault) -> anyhow::Result<Outcome> {
    let clients = vec![(Caller::Good, north.client(true)?.build()?)];
    let upstream = Upstream { base: north.peers.clone(), clients };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}", listener.local_addr()?);
    let proxy = Proxy::new(upstream, Some(fault));
    let (url, serving) = if case.starts_with("transport/") {
        let tls = Tls::lax(listener, &north.file("south.pem")?, &north.file("south.key")?)?;
        (url.replace("http://", "https://"), serve(proxy, tls))
    } else {
        (url, serve(proxy, listener))
    };
    let customer = Arc::new(Issuing { real: Customers::of(north), fault, first: Mutex::default() });
    // A bake time is waited out.
    let patience = if case.starts_with("macsec/") { 8 } else { 3 };
    let means = Means { url: &url, customer, patience, window: 1, jobs: 1 };
    let examined = examine(north, means, Role::Responder, &[case.to_owned()]).await;
    serving.abort();
    examined.with_context(|| case.to_owned())?.pop().context("one case was asked for")
}

#[tokio::test(flavor = "multi_thread")]
async fn every_broken_server_is_found_by_the_case_that_names_its_rule() -> anyhow::Result<()> {
    let north = North::start().await?;
    all_found(all().collect(), async |case, fault| found(&north, case, fault).await).await
}
