//! Events as pages and as a stream.

use std::time::Duration;

use eventsource_stream::{Event, Eventsource};
use futures::{Stream, StreamExt};
use reqwest::{Method, RequestBuilder, StatusCode};
use serde_json::{Value, json};

use super::fixture::{Go, Service, intent};

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

#[tokio::test(flavor = "multi_thread")]
async fn events_are_paged_by_cursor() {
    let service = Service::start().await;
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

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_is_taken_up_where_it_stopped() {
    let service = Service::start().await;
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
