//! Hints between replicas, by LISTEN and NOTIFY. They may be lost, and nothing depends on them: whoever waits for one also
//! polls. They are sent after the commit, by themselves and gathered, since a NOTIFY inside a transaction makes commits wait
//! for each other (<https://www.postgresql.org/docs/current/sql-notify.html>).

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU8, Ordering},
    },
    time::Duration,
};

use sqlx::{PgPool, postgres::PgListener};
use tokio::{sync::Notify, task::JoinSet};

use crate::events::{Hints, Topic};

/// The channel, of this database.
const CHANNEL: &str = "tieline_hints";

/// How long to wait before another try to listen.
const AGAIN: Duration = Duration::from_secs(1);

const TOPICS: [(Topic, u8); 3] = [(Topic::Events, 1), (Topic::Configuration, 2), (Topic::Due, 4)];

/// Passes hints on to other replicas, and theirs to this one. Ends with its last handle's store.
pub(crate) struct Relay {
    said: Arc<Said>,
    // Aborted when this is dropped.
    tasks: Mutex<JoinSet<()>>,
}

#[derive(Default)]
struct Said {
    topics: AtomicU8,
    any: Notify,
}

impl Relay {
    /// Begins to listen and to pass on. Where the server refuses to listen (a pooler in between), polling is all there is.
    pub(crate) async fn start(pool: &PgPool, hints: Hints) -> Option<Self> {
        let started = async {
            let mut listener = PgListener::connect_with(pool).await?;
            listener.listen(CHANNEL).await?;
            // Tells this replica's own words from others'; where it does not, a hint is lost.
            let (me,): (i32,) = sqlx::query_as("SELECT pg_backend_pid()").fetch_one(&mut listener).await?;
            Ok::<_, sqlx::Error>((listener, me.to_string()))
        };
        let (listener, me) = match started.await {
            Ok(started) => started,
            Err(error) => {
                tracing::info!(%error, "no hints from other replicas: they are found by polling");
                return None;
            }
        };
        let said = Arc::new(Said::default());
        let mut tasks = JoinSet::new();
        tasks.spawn(speak(pool.clone(), Arc::clone(&said), me.clone()));
        tasks.spawn(listen(listener, hints, me));
        Some(Self { said, tasks: Mutex::new(tasks) })
    }

    /// Tells the other replicas, soon.
    pub(crate) fn say(&self, topic: Topic) {
        let bits = TOPICS.iter().filter(|(known, _)| *known == topic).fold(0, |bits, (_, bit)| bits | bit);
        self.said.topics.fetch_or(bits, Ordering::SeqCst);
        self.said.any.notify_one();
    }

    /// Ends both tasks.
    pub(crate) fn stop(&self) {
        self.tasks.lock().unwrap_or_else(std::sync::PoisonError::into_inner).abort_all();
    }
}

/// What was said while the last notification was on its way goes with the next one.
async fn speak(pool: PgPool, said: Arc<Said>, me: String) {
    loop {
        said.any.notified().await;
        let bits = said.topics.swap(0, Ordering::SeqCst);
        let told = sqlx::query("SELECT pg_notify($1, $2)").bind(CHANNEL).bind(format!("{me} {bits}"));
        if let Err(error) = told.execute(&pool).await {
            tracing::debug!(%error, "a hint to other replicas was lost");
        }
    }
}

async fn listen(mut listener: PgListener, hints: Hints, me: String) {
    loop {
        let bits = match listener.try_recv().await {
            Ok(Some(notification)) => match notification.payload().split_once(' ') {
                Some((from, bits)) if from != me => bits.parse().unwrap_or(u8::MAX),
                Some(_) => continue,
                None => u8::MAX,
            },
            // The connection was lost, and with it whatever was said meanwhile.
            Ok(None) => u8::MAX,
            Err(sqlx::Error::PoolClosed) => return,
            Err(error) => {
                tracing::debug!(%error, "hints of other replicas cannot be heard");
                tokio::time::sleep(AGAIN).await;
                continue;
            }
        };
        for (topic, bit) in TOPICS {
            if bits & bit != 0 {
                hints.give(topic);
            }
        }
    }
}
