//! Events as pages and as a stream.

use std::time::Duration;

use eventsource_stream::{Event, Eventsource};
use futures::{Stream, StreamExt};
use reqwest::{Method, RequestBuilder, StatusCode};
use serde_json::{Value, json};
use tieline_api::{
    http::StreamLimits,
    store::{HousekeepingLimits, Store},
};

use super::fixture::{Backing, Go, Service, intent};

pub(crate) async fn open(request: RequestBuilder) -> std::pin::Pin<Box<dyn Stream<Item = Event> + Send>> {
    let response = request.send().await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    assert_eq!(response.headers()["cache-control"], "no-cache");
    Box::pin(response.bytes_stream().eventsource().filter_map(async |event| event.ok()))
}

pub(crate) async fn next(stream: &mut (impl Stream<Item = Event> + Unpin)) -> Event {
    tokio::time::timeout(Duration::from_secs(10), stream.next()).await.expect("an event comes").expect("it goes on")
}

async fn events_are_paged_by_cursor(backing: Backing) {
    let service = Service::start(backing).await;
    service.create("one").await;
    let patch = service.ask(Method::PATCH, service.create("two-is-taken-by-prefix").await.header("location"));
    patch.header("if-match", "*").json(&json!({"description": "x"})).answer().await;
    let all = service.get("/v1/events").await;
    let events = all["events"].as_array().unwrap().clone();
    let mut since = "0".to_owned();
    for event in &events {
        let page = service.get(&format!("/v1/events?since={since}&pageSize=1")).await;
        assert_eq!(page["events"], json!([event]));
        since = page["nextCursor"].as_str().unwrap().to_owned();
        assert_eq!(event["cursor"], since.as_str());
    }
    let end = service.get(&format!("/v1/events?since={since}")).await;
    assert_eq!((&end["events"], &end["nextCursor"]), (&json!([]), &json!(since)));
    service.end().await;
}

async fn a_stream_is_taken_up_where_it_stopped(backing: Backing) {
    let service = Service::start(backing).await;
    let mut stream = open(service.ask(Method::GET, "/v1/events:watch")).await;
    service.create("one").await;
    let first = next(&mut stream).await;
    assert_eq!(first.event, "connection.created");
    let data: Value = serde_json::from_str(&first.data).unwrap();
    assert_eq!(data["cursor"], first.id.as_str());
    drop(stream);
    let mut body = intent("two");
    body["a"]["advertisedPrefixes"] = json!(["10.1.0.0/16"]);
    body["b"]["advertisedPrefixes"] = json!(["172.17.0.0/16"]);
    let second = service.ask(Method::POST, "/v1/connections").json(&body).go(StatusCode::ACCEPTED).await;
    let resumed = service.ask(Method::GET, "/v1/events").header("accept", "text/event-stream");
    let mut stream = open(resumed.header("last-event-id", &first.id)).await;
    let event: Value = serde_json::from_str(&next(&mut stream).await.data).unwrap();
    assert_eq!(event["subject"], second.header("location"), "nothing is lost and nothing comes twice");
    let mut whole = open(service.ask(Method::GET, "/v1/events:watch?since=0")).await;
    assert_eq!(next(&mut whole).await.id, first.id);
    // The end of the service ends its streams.
    let ending = tokio::spawn(async move { while stream.next().await.is_some() {} });
    service.end().await;
    tokio::time::timeout(Duration::from_secs(10), ending).await.unwrap().unwrap();
}

async fn no_more_streams_are_open_than_may_be(backing: Backing) {
    let service = Service::launch(backing, false, StreamLimits { of_one: 2, of_all: 3 }).await;
    let reader = service.token("reader", "READ").await;
    let other = service.token("other", "READ").await;
    let watch = |secret: &str| service.ask_as(secret, Method::GET, "/v1/events:watch");
    let first = open(watch(&reader)).await;
    let _second = open(service.ask_as(&reader, Method::GET, "/v1/events").header("accept", "text/event-stream")).await;
    let refused = watch(&reader).go(StatusCode::TOO_MANY_REQUESTS).await;
    assert_eq!((refused.header("retry-after"), &refused.body["retryable"]), ("5", &json!(true)));
    let _third = open(watch(&other)).await;
    let refused = watch(&service.admin).go(StatusCode::SERVICE_UNAVAILABLE).await;
    assert_eq!(refused.header("retry-after"), "5");
    service.ask_as(&reader, Method::GET, "/v1/events").go(StatusCode::OK).await;
    let metrics = service.ask(Method::GET, "/metrics").go(StatusCode::OK).await.text;
    for line in [
        "tieline_http_open_streams 3",
        "tieline_http_refused_streams_total{limit=\"principal\"} 1",
        "tieline_http_refused_streams_total{limit=\"total\"} 1",
    ] {
        assert!(metrics.contains(line), "{metrics}");
    }
    // A reader that goes away leaves its place to the next one.
    drop(first);
    service.until("/metrics", |metrics| metrics.text.contains("tieline_http_open_streams 2")).await;
    drop(open(watch(&reader)).await);
    service.end().await;
}

async fn a_cursor_that_is_too_old_is_gone(backing: Backing) {
    let service = Service::start(backing).await;
    for n in 0..3 {
        let mut body = intent(&format!("c{n}"));
        body["a"]["advertisedPrefixes"] = json!([format!("10.{n}.0.0/16")]);
        body["b"]["advertisedPrefixes"] = json!([format!("172.{}.0.0/16", 16 + n)]);
        service.ask(Method::POST, "/v1/connections").json(&body).go(StatusCode::ACCEPTED).await;
    }
    let limits = HousekeepingLimits { events: 1, ..HousekeepingLimits::default() };
    service.store.housekeep(&limits).await.unwrap();
    for path in ["/v1/events?since=1", "/v1/events:watch?since=1"] {
        let gone = service.ask(Method::GET, path).go(StatusCode::GONE).await;
        assert_eq!(gone.body["code"], "gone", "{path}");
        assert!(gone.body["remediation"].as_str().unwrap().contains("afresh"));
    }
    let resumed = service.ask(Method::GET, "/v1/events:watch").header("last-event-id", "1");
    resumed.go(StatusCode::GONE).await;
    assert_eq!(service.get("/v1/events?since=2").await["events"].as_array().unwrap().len(), 1);
    service.end().await;
}

super::on_both! {
    no_more_streams_are_open_than_may_be,
    a_cursor_that_is_too_old_is_gone,
    events_are_paged_by_cursor,
    a_stream_is_taken_up_where_it_stopped,
}
