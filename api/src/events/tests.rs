use std::time::Duration;

use async_trait::async_trait;
use tieline_openapi::v1::Timestamp;

use super::*;
use crate::{
    engine::clock::SystemClock,
    store::{EngineWrite, NewEvent, OpenOptions, open},
};

/// A clock on which nobody waits: only hints wake.
struct Frozen;

#[async_trait]
impl Clock for Frozen {
    fn now(&self) -> Timestamp {
        Timestamp::UNIX_EPOCH
    }
    fn monotonic(&self) -> Duration {
        Duration::ZERO
    }
    async fn sleep(&self, _: Duration) {
        std::future::pending().await
    }
}

fn project() -> ProjectId {
    "default".parse().unwrap()
}

fn event(kind: &str) -> EngineWrite {
    EngineWrite::Event(NewEvent {
        project: project(),
        time: Timestamp::UNIX_EPOCH,
        kind: kind.to_owned(),
        subject: "/v1/x".to_owned(),
        generation: None,
        cause: "test".to_owned(),
        data: serde_json::Value::Null,
    })
}

#[tokio::test]
async fn a_hint_given_before_the_wait_is_not_lost() {
    let hints = Hints::new();
    let mut hint = hints.subscribe(Topic::Due);
    hints.clone().give(Topic::Due);
    hints.give(Topic::Due);
    assert!(hint.wait_at_most(&Frozen, Duration::ZERO).await);
    // Both were taken at once, and other topics say nothing.
    hints.give(Topic::Events);
    let waited = hint.wait_at_most(&SystemClock::new(), Duration::from_millis(1)).await;
    assert!(!waited);
}

#[tokio::test]
async fn a_waiter_outlives_every_other_handle() {
    let mut hint = Hints::new().subscribe(Topic::Due);
    assert!(!hint.wait_at_most(&SystemClock::new(), Duration::from_millis(1)).await);
}

#[tokio::test]
async fn a_reader_sees_every_event_once_and_is_woken_by_the_commit() {
    let options = OpenOptions::default();
    let hints = options.hints.clone();
    let store = open("sqlite::memory:", options).await.unwrap();
    store.write_unclaimed(vec![event("a.1"), event("a.2"), event("a.3")]).await.unwrap();
    let mut reader = EventReader::new(Arc::clone(&store), Arc::new(Frozen), &hints, project(), 1);
    let kinds = |events: Vec<Event>| events.into_iter().map(|e| e.kind).collect::<Vec<_>>();
    assert_eq!(kinds(reader.next(1).await.unwrap()), ["a.2"]);
    assert_eq!(kinds(reader.next(9).await.unwrap()), ["a.3"]);
    assert_eq!(reader.cursor(), 3);
    let (read, written) = tokio::join!(reader.next(9), store.write_unclaimed(vec![event("a.4")]));
    written.unwrap();
    assert_eq!(kinds(read.unwrap()), ["a.4"]);
}

#[tokio::test]
async fn without_a_hint_a_reader_looks_again() {
    let store = open("sqlite::memory:", OpenOptions::default()).await.unwrap();
    // Hints of another hub: as if another replica had committed.
    let clock = Arc::new(SystemClock::new());
    let mut reader = EventReader::new(Arc::clone(&store), clock, &Hints::new(), project(), 0);
    let (read, written) = tokio::join!(reader.next(9), store.write_unclaimed(vec![event("a.1")]));
    written.unwrap();
    assert_eq!(read.unwrap().len(), 1);
}
