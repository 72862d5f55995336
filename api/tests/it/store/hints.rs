//! Hints between two replicas on one Postgres: what one commits, the other hears of. Without them polling finds it.

use std::{future::Future, sync::Arc, time::Duration};

use async_trait::async_trait;
use sqlx::{Connection, PgConnection};
use tieline_api::{
    engine::clock::{Clock, SystemClock},
    events::{EventReader, Hint, Hints, Topic},
    store::{EngineWrite, OpenOptions, SqlStore, Store},
};
use tieline_openapi::v1::Timestamp;

use super::fixture::*;

/// Longer than any hint takes, and far shorter than nothing.
const PATIENCE: Duration = Duration::from_secs(20);

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

async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, what).await.expect("it is heard of")
}

/// Another replica of this database, with hints of its own.
async fn replica(db: &Db, alone: bool) -> (Arc<SqlStore>, Hints) {
    let hints = Hints::new();
    let options = OpenOptions { hints: hints.clone(), alone, ..db.options.clone() };
    (SqlStore::open(&db.url, options).await.unwrap(), hints)
}

async fn tell(store: &SqlStore, db: &Db) -> Result<(), tieline_api::store::StoreError> {
    let about = db.uuid().into();
    store.write_unclaimed(vec![EngineWrite::Event(event("x.y", about))]).await
}

fn is_heard(hint: &mut Hint) -> impl Future<Output = bool> {
    hint.wait_at_most(&Brief, Duration::from_millis(300))
}

/// The machine's own time.
struct Brief;

#[async_trait]
impl Clock for Brief {
    fn now(&self) -> Timestamp {
        SystemClock::new().now()
    }
    fn monotonic(&self) -> Duration {
        SystemClock::new().monotonic()
    }
    async fn sleep(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }
}

#[test]
fn another_replica_is_woken_by_a_commit() {
    on_postgres(async |db| {
        let (other, hints) = replica(&db, false).await;
        let closing = Arc::clone(&other);
        let [mut events, mut configuration, mut due] =
            [Topic::Events, Topic::Configuration, Topic::Due].map(|topic| hints.subscribe(topic));
        let mut reader = EventReader::new(other, Arc::new(Frozen), &hints, project(), 0);
        let id = db.created("a").await;
        soon(async { tokio::join!(events.wait(), configuration.wait(), due.wait()) }).await;
        // A stream of events that never polls sees what the other replica has committed.
        let first = soon(reader.next(9)).await.unwrap();
        assert_eq!(first[0].subject, format!("/v1/connections/{id}"));
        let (next, told) = tokio::join!(soon(reader.next(9)), tell(&db.store, &db));
        told.unwrap();
        assert_eq!(next.unwrap()[0].kind, "x.y");
        // An event says nothing about configurations.
        assert!(!is_heard(&mut configuration).await);
        soon(closing.close()).await;
    });
}

#[test]
fn without_hints_polling_finds_it() {
    on_postgres(async |db| {
        let (other, hints) = replica(&db, true).await;
        let mut hint = hints.subscribe(Topic::Events);
        let mut reader = EventReader::new(Arc::clone(&other) as _, Arc::new(SystemClock::new()), &hints, project(), 0);
        let (read, told) = tokio::join!(soon(reader.next(9)), tell(&db.store, &db));
        told.unwrap();
        assert_eq!(read.unwrap().len(), 1);
        assert!(!is_heard(&mut hint).await, "nothing was heard");
    });
}

#[test]
fn a_broken_connection_is_mended_and_heard_through_again() {
    on_postgres(async |db| {
        let (_other, hints) = replica(&db, false).await;
        let mut hint = hints.subscribe(Topic::Events);
        tell(&db.store, &db).await.unwrap();
        soon(hint.wait()).await;
        let mut admin = PgConnection::connect(&db.url).await.unwrap();
        sqlx::query(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
             WHERE datname = current_database() AND pid <> pg_backend_pid()",
        )
        .execute(&mut admin)
        .await
        .unwrap();
        // The first one says that something may have been missed; the others come over the new connection.
        for _ in 0..3 {
            soon(async {
                loop {
                    // A pool finds out that a connection is broken when it uses it.
                    let _ = tell(&db.store, &db).await;
                    if is_heard(&mut hint).await {
                        break;
                    }
                }
            })
            .await;
        }
    });
}
