//! Servers that each break one rule of the Connection Coordinator API: Tieline behind a proxy that spoils what goes through
//! it. The case that names the rule must find it.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::Context as _;
use axum::{
    Router,
    body::to_bytes,
    extract::{Request, State},
    http::{Method, StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse as _, Response},
};
use serde_json::{Value, json};
use tieline_conformance::{Verdict, all_cases};

use crate::conformance::{Customer, NOT_YET, North, examine};

/// A request on its way to the real server.
struct Asked {
    method: Method,
    /// Under the base path.
    path: String,
    query: Vec<(String, String)>,
    body: Vec<u8>,
    /// How many of the same method and path came before.
    before: usize,
}

impl Asked {
    fn is(&self, method: &Method, last: &str) -> bool {
        self.method == method && self.path.ends_with(last)
    }

    /// Whether a resource of such a collection itself is asked for.
    fn item(&self, method: &Method, collection: &str) -> bool {
        let mut parts = self.path.rsplit('/');
        let _id = parts.next();
        self.method == method && parts.next() == Some(collection)
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }
}

/// What is wrong with a server.
enum Fault {
    /// It answers otherwise.
    Answers(fn(&Asked, &mut u16, &mut Value)),
    /// It understands otherwise.
    Reads(fn(&mut Asked)),
    /// It answers and does nothing.
    Ignores(fn(&Asked) -> Option<(u16, Value)>),
}

use Fault::{Answers, Ignores, Reads};

const GET: &Method = &Method::GET;
const POST: &Method = &Method::POST;
const PATCH: &Method = &Method::PATCH;
const DELETE: &Method = &Method::DELETE;

/// Refusals become successes.
fn lenient(status: &mut u16, answer: &mut Value, echo: Value) {
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
];

fn takes_any_issue(asked: &Asked, status: &mut u16, answer: &mut Value) {
    if asked.is(POST, "/issues") {
        lenient(status, answer, asked.json());
    }
}

/// Between the suite and the real server.
struct Proxy {
    base: String,
    http: reqwest::Client,
    fault: &'static Fault,
    seen: Mutex<BTreeMap<String, usize>>,
}

impl Proxy {
    async fn pass(&self, request: Request) -> anyhow::Result<Response> {
        let (parts, body) = request.into_parts();
        let uri = reqwest::Url::parse(&format!("http://proxy{}", parts.uri))?;
        let mut asked = Asked {
            method: parts.method,
            path: uri.path().to_owned(),
            query: uri.query_pairs().into_owned().collect(),
            body: to_bytes(body, 16 * 1024 * 1024).await?.to_vec(),
            before: 0,
        };
        {
            let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            let count = seen.entry(format!("{} {}", asked.method, asked.path)).or_default();
            asked.before = std::mem::replace(count, *count + 1);
        }
        match self.fault {
            Reads(read) => read(&mut asked),
            Ignores(ignore) => {
                if let Some((status, answer)) = ignore(&asked) {
                    return said(status, &answer);
                }
            }
            Answers(_) => {}
        }
        let mut url = reqwest::Url::parse(&format!("{}{}", self.base, asked.path))?;
        if !asked.query.is_empty() {
            url.query_pairs_mut().extend_pairs(&asked.query);
        }
        let mut request = self.http.request(asked.method.clone(), url);
        if let Some(kind) = parts.headers.get(CONTENT_TYPE) {
            request = request.header(CONTENT_TYPE, kind).body(asked.body.clone());
        }
        let response = request.send().await?;
        let mut status = response.status().as_u16();
        let mut answer = serde_json::from_slice(&response.bytes().await?).unwrap_or_default();
        if let Answers(spoil) = self.fault {
            spoil(&asked, &mut status, &mut answer);
        }
        said(status, &answer)
    }
}

fn said(status: u16, answer: &Value) -> anyhow::Result<Response> {
    let status = StatusCode::from_u16(status)?;
    Ok((status, [(CONTENT_TYPE, "application/json")], answer.to_string()).into_response())
}

async fn pass(State(proxy): State<Arc<Proxy>>, request: Request) -> Response {
    // What the proxy itself cannot do is no fault of the server's: it must not look like one.
    proxy.pass(request).await.unwrap_or_else(|error| panic!("the proxy failed: {error:#}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn every_broken_server_is_found_by_the_case_that_names_its_rule() -> anyhow::Result<()> {
    let north = North::start().await?;
    let http = north.south()?.build()?;
    let mut missed = Vec::new();
    for (n, (case, fault)) in BROKEN.iter().enumerate() {
        let proxy = Proxy { base: north.peers.clone(), http: http.clone(), fault, seen: Mutex::default() };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}", listener.local_addr()?);
        let serving = tokio::spawn(async move {
            axum::serve(listener, Router::new().fallback(pass).with_state(Arc::new(proxy))).await
        });
        let plain = reqwest::Client::builder().no_proxy();
        let examined = examine(&url, plain, Customer::of(&north), &[(*case).to_owned()]).await;
        serving.abort();
        let outcomes = examined.with_context(|| format!("fault {n}, for {case}"))?;
        let verdict = outcomes.first().map(|outcome| outcome.verdict.clone());
        if !matches!(verdict, Some(Verdict::Failed(_))) {
            missed.push(format!("{n}: {case}: {verdict:?}"));
        }
    }
    assert!(missed.is_empty(), "not found:\n{}", missed.join("\n"));
    Ok(())
}

#[test]
fn every_rule_has_a_server_that_breaks_it() {
    let broken = |id: &&str| BROKEN.iter().any(|(case, _)| case == id) || NOT_YET.contains(id);
    let without: Vec<_> = all_cases().iter().map(|case| case.id).filter(|id| !broken(id)).collect();
    assert!(without.is_empty(), "nobody has seen these cases fail: {without:?}");
}
