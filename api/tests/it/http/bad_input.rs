//! What is wrong is named by its pointer and its rule, and nothing is written.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::fixture::{Backing, Go, Service, intent};

fn with(pointer: &str, value: Value) -> Value {
    let mut body = intent("bad");
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    body.pointer_mut(parent).unwrap().as_object_mut().unwrap().insert(key.to_owned(), value);
    body
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_intent_is_refused_at_its_pointer() {
    let service = Service::start(Backing::sqlite()).await;
    let cases: Vec<(Value, &str, &str)> = vec![
        (with("/wanted", json!({"vlanId": 4095})), "/wanted/vlanId", "802.1Q"),
        (with("/wanted", json!({"mtuBytes": 100})), "/wanted/mtuBytes", "576"),
        (with("/wanted", json!({"ipv4Subnet": "169.254.0.1/29"})), "/wanted/ipv4Subnet", "host bits"),
        (with("/a/advertisedPrefixes", json!(["10.0.0.1/16"])), "/a/advertisedPrefixes/0", "host bits"),
        (with("/a/advertisedPrefixes", json!(["10.0.0.0/16", "10.0.0.0/16"])), "/a/advertisedPrefixes/1", "twice"),
        (with("/a/advertisedPrefixes", json!(["10.0.0.0"])), "/a/advertisedPrefixes/0", ""),
        (with("/b/advertisedPrefixes", json!(["10.0.1.0/24"])), "/b/advertisedPrefixes/0", ""),
        (with("/bandwidthMbps", json!(7000)), "/bandwidthMbps", ""),
        (with("/bandwidthMbps", json!("100")), "/bandwidthMbps", ""),
        (with("/bandwidthMbps", json!(0)), "/bandwidthMbps", "800000"),
        (with("/environmentId", json!("nowhere")), "/environmentId", "no such environment"),
        (with("/environmentId", json!("UPPER")), "/environmentId", "identifier"),
        (with("/a/attachPointId", json!("nowhere")), "/a/attachPointId", "no such attach point"),
        (with("/name", json!("")), "/name", "63"),
        (with("/name", json!("a\u{0}b")), "/name", "NUL"),
        (with("/families", json!([])), "/families", "IPV4"),
        (with("/surprise", json!(1)), "/surprise", "unknown field"),
        (with("/a/surprise", json!(1)), "/a/surprise", "unknown field"),
        (with("/routing", json!({"maxPrefixes": 0})), "/routing/maxPrefixes", "at least 1"),
        (with("/labels", json!({"a b": "c"})), "/labels/a b", "key"),
        (with("/redundancy", json!("TRIPLE")), "/redundancy", "DUAL"),
        (json!([]), "", ""),
    ];
    for (body, pointer, rule) in cases {
        let answer = service.ask(Method::POST, "/v1/connections").json(&body).go(StatusCode::BAD_REQUEST).await;
        assert!(answer.pointers().contains(&pointer), "{pointer}: {}", answer.text);
        assert!(answer.text.contains(rule), "{rule}: {}", answer.text);
    }
    let mut missing = intent("bad");
    missing.as_object_mut().unwrap().remove("name");
    let answer = service.ask(Method::POST, "/v1/connections").json(&missing).go(StatusCode::BAD_REQUEST).await;
    assert_eq!(answer.pointers(), ["/name"]);
    assert_eq!(service.get("/v1/connections").await["connections"], json!([]));
    assert_eq!(service.get("/v1/operations").await["operations"], json!([]));
    assert_eq!(service.get("/v1/events").await["events"], json!([]));
    service.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_body_is_refused() {
    let service = Service::start(Backing::sqlite()).await;
    let post = || service.ask(Method::POST, "/v1/connections");
    post().body("{}").go(StatusCode::UNSUPPORTED_MEDIA_TYPE).await;
    post().header("content-type", "text/plain").body("{}").go(StatusCode::UNSUPPORTED_MEDIA_TYPE).await;
    let json = || post().header("content-type", "application/json; charset=utf-8");
    assert_eq!(json().body("{\"name\"").go(StatusCode::BAD_REQUEST).await.pointers(), [""]);
    assert_eq!(json().body("").go(StatusCode::BAD_REQUEST).await.pointers(), [""]);
    assert_eq!(json().body("{\"name\":\"a\",\"name\":\"b\"}").go(StatusCode::BAD_REQUEST).await.pointers(), ["/name"]);
    let deep = "[".repeat(100_000);
    json().body(deep).go(StatusCode::BAD_REQUEST).await;
    let big = format!("{{\"name\":\"{}\"}}", "x".repeat(2_000_000));
    let answer = json().body(big).answer().await;
    assert_eq!(answer.status, StatusCode::PAYLOAD_TOO_LARGE);
    service.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_query_is_refused() {
    let service = Service::start(Backing::sqlite()).await;
    let cases = [
        ("/v1/connections?surprise=1", "?surprise"),
        ("/v1/connections?pageSize=0", "?pageSize"),
        ("/v1/connections?pageSize=1001", "?pageSize"),
        ("/v1/connections?pageSize=x", "?pageSize"),
        ("/v1/connections?pageToken=x", "?pageToken"),
        ("/v1/connections?state=ACTIV", "?state"),
        ("/v1/connections?name=%00", "?name"),
        ("/v1/accounts?surprise=1", "?surprise"),
        ("/v1/accounts/left?surprise=1", "?surprise"),
        ("/v1/operations?connectionId=x", "?connectionId"),
        ("/v1/events?since=-1", "?since"),
        ("/v1/events?since=99999999999999999999", "?since"),
        ("/v1/events:watch?since=x", "?since"),
        ("/healthz?surprise=1", "?surprise"),
    ];
    for (path, pointer) in cases {
        let answer = service.ask(Method::GET, path).go(StatusCode::BAD_REQUEST).await;
        assert_eq!(answer.pointers(), [pointer], "{path}");
    }
    for path in ["/v1/connections?wait=60", "/v1/connections?wait=121s", "/v1/connections?wait=-1s"] {
        let answer = service.ask(Method::POST, path).json(&intent("x")).go(StatusCode::BAD_REQUEST).await;
        assert_eq!(answer.pointers(), ["?wait"], "{path}");
    }
    let answer =
        service.ask(Method::POST, "/v1/connections?dryRun=yes").json(&intent("x")).go(StatusCode::BAD_REQUEST).await;
    assert_eq!(answer.pointers(), ["?dryRun"]);
    let twice = service.ask(Method::GET, "/v1/accounts?pageSize=1&pageSize=2").go(StatusCode::BAD_REQUEST).await;
    assert_eq!(twice.pointers(), ["?pageSize"]);
    service.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_path_is_not_found() {
    let service = Service::start(Backing::sqlite()).await;
    let unknown = "0192f0c1-2345-7abc-8def-0123456789ab";
    let paths = [
        "/v1/connections/x".to_owned(),
        format!("/v1/connections/{unknown}"),
        format!("/v1/connections/{}", unknown.replace('-', "")),
        format!("/v1/connections/{unknown}:apply"),
        "/v1/connections/%00".to_owned(),
        format!("/v1/operations/{unknown}"),
        format!("/v1/plans/{unknown}"),
        format!("/v1/issues/{unknown}"),
        format!("/v1/gateways/{unknown}"),
        "/v1/accounts/UPPER".to_owned(),
        "/v1/accounts/nobody".to_owned(),
        "/v1/".to_owned(),
        "/nothing".to_owned(),
        "/problems/nothing".to_owned(),
        "/docs/nothing.js".to_owned(),
    ];
    for path in paths {
        service.ask(Method::GET, &path).go(StatusCode::NOT_FOUND).await;
    }
    for verb in ["apply", "unknown", "apply:apply"] {
        let path = format!("/v1/plans/{unknown}:{verb}");
        service.ask(Method::POST, &path).go(StatusCode::NOT_FOUND).await;
    }
    let answer =
        service.ask(Method::GET, &format!("/v1/plans/{unknown}:apply")).go(StatusCode::METHOD_NOT_ALLOWED).await;
    assert_eq!(answer.header("allow"), "POST");
    let answer = service.ask(Method::POST, &format!("/v1/plans/{unknown}")).go(StatusCode::METHOD_NOT_ALLOWED).await;
    assert_eq!(answer.header("allow"), "GET, HEAD");
    let answer = service.ask(Method::PUT, "/v1/connections").go(StatusCode::METHOD_NOT_ALLOWED).await;
    assert_eq!(answer.header("allow"), "GET, POST, HEAD");
    service.ask(Method::POST, "/v1/gatewayGroups/g").go(StatusCode::NOT_FOUND).await;
    service.ask(Method::POST, "/").go(StatusCode::METHOD_NOT_ALLOWED).await;
    service.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_id_is_taken_only_if_it_is_harmless() {
    let service = Service::start(Backing::sqlite()).await;
    let with = |id: &str| service.ask(Method::GET, "/healthz").header("x-request-id", id);
    assert_eq!(with("abc-1.2_Z").go(StatusCode::OK).await.header("x-request-id"), "abc-1.2_Z");
    for id in ["a b", "x\ty", "\"quoted\"", &"y".repeat(65)] {
        let answer = with(id).go(StatusCode::OK).await;
        assert_eq!(answer.header("x-request-id").len(), 36, "{id}");
    }
    service.end().await;
}
