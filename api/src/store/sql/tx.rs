//! One transaction, on either database. The bodies of the store's methods are written once, in the SQL that both speak.

use std::sync::Arc;

use sqlx::{AssertSqlSafe, Postgres, Sqlite, Transaction, pool::PoolConnection, postgres::PgRow, sqlite::SqliteRow};

use tokio::sync::OwnedSemaphorePermit;

use super::{
    error::classify,
    row::{Row, Value, check, from_postgres, from_sqlite},
};
use crate::{
    events::{Hints, Topic},
    store::{NewEvent, StoreError, postgres::Relay},
};

enum Inner {
    Sqlite(Transaction<'static, Sqlite>),
    SqliteAlone(PoolConnection<Sqlite>),
    Postgres(Transaction<'static, Postgres>),
    PostgresAlone(PoolConnection<Postgres>),
}

/// One transaction, or one statement that is alone in its own. Dropped without a commit, it is rolled back.
pub(crate) struct Tx {
    inner: Inner,
    /// Stands for `{now}` in statements: the store's time in milliseconds.
    now: &'static str,
    /// Given back with the connection.
    _turn: Option<OwnedSemaphorePermit>,
}

macro_rules! bound {
    ($db:ty, $sql:expr, $args:expr) => {{
        let mut query = sqlx::query::<$db>(AssertSqlSafe($sql));
        for value in $args {
            query = match value {
                Value::Int(n) => query.bind(n),
                Value::Text(text) => query.bind(text),
                Value::Bytes(bytes) => query.bind(bytes),
            };
        }
        query
    }};
}

impl Tx {
    pub(crate) const fn sqlite(tx: Transaction<'static, Sqlite>, now: &'static str) -> Self {
        Self { inner: Inner::Sqlite(tx), now, _turn: None }
    }

    pub(crate) const fn postgres(tx: Transaction<'static, Postgres>, now: &'static str) -> Self {
        Self { inner: Inner::Postgres(tx), now, _turn: None }
    }

    pub(crate) const fn sqlite_alone(connection: PoolConnection<Sqlite>, now: &'static str) -> Self {
        Self { inner: Inner::SqliteAlone(connection), now, _turn: None }
    }

    pub(crate) const fn postgres_alone(connection: PoolConnection<Postgres>, now: &'static str) -> Self {
        Self { inner: Inner::PostgresAlone(connection), now, _turn: None }
    }

    /// Holds a turn with the database until its end.
    pub(crate) fn with(self, turn: Option<OwnedSemaphorePermit>) -> Self {
        Self { _turn: turn, ..self }
    }

    fn text(&self, sql: &str) -> String {
        let sql = sql.replace("{now}", self.now);
        // A bare parameter of LIMIT makes SQLite (3.51 does it) plan by its value, and so prepare the statement anew
        // whenever another is bound, which takes longer than to run it.
        match &self.inner {
            Inner::Sqlite(_) | Inner::SqliteAlone(_) => sql.replace("LIMIT $", "LIMIT 0 + $"),
            Inner::Postgres(_) | Inner::PostgresAlone(_) => sql,
        }
    }

    /// Runs a statement; the number of rows that it touched. The text is one of ours: every value is bound.
    pub(crate) async fn execute(&mut self, sql: &str, args: Vec<Value>) -> Result<u64, StoreError> {
        check(&args)?;
        let sql = self.text(sql);
        match &mut self.inner {
            Inner::Sqlite(tx) => bound!(Sqlite, sql, args).execute(&mut **tx).await.map(|done| done.rows_affected()),
            Inner::SqliteAlone(tx) => {
                bound!(Sqlite, sql, args).execute(&mut **tx).await.map(|done| done.rows_affected())
            }
            Inner::Postgres(tx) => {
                bound!(Postgres, sql, args).execute(&mut **tx).await.map(|done| done.rows_affected())
            }
            Inner::PostgresAlone(tx) => {
                bound!(Postgres, sql, args).execute(&mut **tx).await.map(|done| done.rows_affected())
            }
        }
        .map_err(classify)
    }

    /// Runs a statement and takes all its rows.
    pub(crate) async fn rows(&mut self, sql: &str, args: Vec<Value>) -> Result<Vec<Row>, StoreError> {
        check(&args)?;
        let sql = self.text(sql);
        match &mut self.inner {
            Inner::Sqlite(tx) => from_all_sqlite(bound!(Sqlite, sql, args).fetch_all(&mut **tx).await),
            Inner::SqliteAlone(tx) => from_all_sqlite(bound!(Sqlite, sql, args).fetch_all(&mut **tx).await),
            Inner::Postgres(tx) => from_all_postgres(bound!(Postgres, sql, args).fetch_all(&mut **tx).await),
            Inner::PostgresAlone(tx) => from_all_postgres(bound!(Postgres, sql, args).fetch_all(&mut **tx).await),
        }
        .map_err(classify)
    }

    /// Runs a statement that answers one row or none.
    pub(crate) async fn row(&mut self, sql: &str, args: Vec<Value>) -> Result<Option<Row>, StoreError> {
        Ok(self.rows(sql, args).await?.into_iter().next())
    }

    /// What is for this database.
    pub(crate) fn either<T>(&self, sqlite: T, postgres: T) -> T {
        match &self.inner {
            Inner::Sqlite(_) | Inner::SqliteAlone(_) => sqlite,
            Inner::Postgres(_) | Inner::PostgresAlone(_) => postgres,
        }
    }

    async fn commit(self) -> Result<(), StoreError> {
        match self.inner {
            Inner::Sqlite(tx) => tx.commit().await,
            Inner::Postgres(tx) => tx.commit().await,
            Inner::SqliteAlone(_) | Inner::PostgresAlone(_) => Ok(()),
        }
        .map_err(classify)
    }

    /// Ends a reading transaction.
    pub(crate) async fn done(self) -> Result<(), StoreError> {
        match self.inner {
            Inner::Sqlite(tx) => tx.rollback().await,
            Inner::Postgres(tx) => tx.rollback().await,
            Inner::SqliteAlone(_) | Inner::PostgresAlone(_) => Ok(()),
        }
        .map_err(classify)
    }
}

fn from_all_sqlite(rows: Result<Vec<SqliteRow>, sqlx::Error>) -> Result<Vec<Row>, sqlx::Error> {
    rows?.iter().map(from_sqlite).collect()
}

fn from_all_postgres(rows: Result<Vec<PgRow>, sqlx::Error>) -> Result<Vec<Row>, sqlx::Error> {
    rows?.iter().map(from_postgres).collect()
}

/// One writing transaction, with what belongs to its end: the events, whose cursors are drawn last so that the lock on
/// them is short, and the hints, which are given after the commit.
pub(crate) struct Write {
    tx: Tx,
    hints: Hints,
    relay: Option<Arc<Relay>>,
    events: Vec<NewEvent>,
    configuration: bool,
    due: bool,
}

impl std::ops::Deref for Write {
    type Target = Tx;
    fn deref(&self) -> &Tx {
        &self.tx
    }
}
impl std::ops::DerefMut for Write {
    fn deref_mut(&mut self) -> &mut Tx {
        &mut self.tx
    }
}

impl Write {
    pub(crate) const fn new(tx: Tx, hints: Hints, relay: Option<Arc<Relay>>) -> Self {
        Self { tx, hints, relay, events: Vec::new(), configuration: false, due: false }
    }

    /// Writes an event with this transaction.
    pub(crate) fn event(&mut self, event: NewEvent) {
        self.events.push(event);
    }

    /// Says that some gateway's configuration may have changed.
    pub(crate) const fn configuration_changed(&mut self) {
        self.configuration = true;
    }

    /// Says that a connection is due.
    pub(crate) const fn connection_due(&mut self) {
        self.due = true;
    }

    /// Leaves nothing behind, and holds nothing any more when it returns.
    pub(crate) async fn abandon(self) -> Result<(), StoreError> {
        self.tx.done().await
    }

    /// Commits, or leaves nothing behind.
    pub(crate) async fn commit(mut self) -> Result<(), StoreError> {
        if self.configuration {
            self.tx.execute("UPDATE counters SET value = value + 1 WHERE name = 'configuration'", Vec::new()).await?;
        }
        let events = std::mem::take(&mut self.events);
        let any_event = !events.is_empty();
        if any_event {
            super::events::insert(&mut self.tx, events).await?;
        }
        self.tx.commit().await?;
        for (topic, said) in
            [(Topic::Events, any_event), (Topic::Configuration, self.configuration), (Topic::Due, self.due)]
        {
            if said {
                self.hints.give(topic);
                if let Some(relay) = &self.relay {
                    relay.say(topic);
                }
            }
        }
        Ok(())
    }
}
