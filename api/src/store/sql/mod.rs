//! The store's methods, written once for both databases: the SQL in here is what SQLite and Postgres have in common, with
//! `$1` for arguments and `{now}` for the store's time. What differs stands in [`super::sqlite`] and [`super::postgres`].

mod allocations;
mod answers;
mod asked;
mod books;
mod carried;
mod claims;
mod connections;
pub(crate) mod error;
mod events;
mod foreign;
mod gateways;
mod housekeeping;
mod kernel_lanes;
mod leases;
mod ledger;
pub(crate) mod migrate;
mod operations;
mod plans;
mod principals;
mod questions;
mod records;
pub(crate) mod row;
mod samples;
mod store;
mod tunnel_keys;
pub(crate) mod tx;
mod watch;
mod writes;

use std::sync::Arc;

use tieline_openapi::v1::Timestamp;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use self::{
    row::args,
    tx::{Tx, Write},
};
use super::{OpenOptions, StoreError, StoreTime, postgres::PostgresPool, sqlite::SqlitePools};

/// A due or lease time further ahead than this (15 min) can only come from a clock that was stepped back: it counts as now.
/// Nothing is ever put off for longer, so a clock that was an hour ahead for a moment stalls nothing for an hour.
pub(crate) const LONGEST_WAIT_MS: u64 = 15 * 60_000;

/// Which database.
pub(crate) enum Backend {
    Sqlite(SqlitePools),
    Postgres(PostgresPool),
}

/// The store on a SQL database.
pub struct SqlStore {
    backend: Arc<Backend>,
    options: OpenOptions,
    /// Turns with the database, where they are counted: a transaction holds one until its end.
    turns: Option<Arc<Semaphore>>,
}

impl std::fmt::Debug for SqlStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SqlStore").finish_non_exhaustive()
    }
}

impl SqlStore {
    /// Opens, migrates and locks a database.
    ///
    /// # Errors
    /// As [`super::open`].
    pub async fn open(url: &str, options: OpenOptions) -> Result<Arc<Self>, StoreError> {
        let backend = if url.starts_with("sqlite:") {
            Backend::Sqlite(SqlitePools::open(url).await?)
        } else if url.starts_with("postgres:") || url.starts_with("postgresql:") {
            Backend::Postgres(PostgresPool::open(url, &options).await?)
        } else {
            return Err(StoreError::Unusable {
                reason: "its URL begins neither with sqlite:// nor with postgres://".to_owned(),
                source: None,
            });
        };
        let store = Self { backend: Arc::new(backend), options, turns: None };
        if store.options.time == StoreTime::Row {
            let mut write = store.write().await?;
            write
                .execute("CREATE TABLE IF NOT EXISTS store_time (one BIGINT PRIMARY KEY, now_ms BIGINT)", args![])
                .await?;
            write
                .execute("INSERT INTO store_time (one, now_ms) VALUES (1, 0) ON CONFLICT (one) DO NOTHING", args![])
                .await?;
            write.commit().await?;
        }
        Ok(Arc::new(store))
    }

    /// The same store for work that nobody waits for: only so many of its transactions are under way at a time, so that who
    /// waits for an answer finds a free connection and a short queue before the one writer.
    #[must_use]
    pub fn in_the_background(&self) -> Arc<Self> {
        let turns = match &*self.backend {
            Backend::Sqlite(_) => super::sqlite::READERS / 2,
            Backend::Postgres(_) => super::postgres::CONNECTIONS / 4,
        };
        // More at a time than there are processors would only make those who wait for an answer wait longer.
        let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let turns = Some(Arc::new(Semaphore::new((turns as usize).min(processors.max(2)))));
        Arc::new(Self { backend: Arc::clone(&self.backend), options: self.options.clone(), turns })
    }

    /// A turn with the database. The semaphore is never closed.
    async fn turn(&self) -> Option<OwnedSemaphorePermit> {
        match &self.turns {
            Some(turns) => Arc::clone(turns).acquire_owned().await.ok(),
            None => None,
        }
    }

    /// Sets the time of a store that was opened with [`StoreTime::Row`].
    ///
    /// # Errors
    /// [`StoreError::Unusable`] when it was not.
    pub async fn set_time(&self, now: Timestamp) -> Result<(), StoreError> {
        let sql = "UPDATE store_time SET now_ms = $1 WHERE one = 1";
        match &*self.backend {
            Backend::Sqlite(pools) => pools.execute(sql, now.as_millisecond()).await,
            Backend::Postgres(pool) => pool.execute(sql, now.as_millisecond()).await,
        }
    }

    /// Closes every connection to the database; later calls answer [`StoreError::Unavailable`].
    pub async fn close(&self) {
        match &*self.backend {
            Backend::Sqlite(pools) => pools.close().await,
            Backend::Postgres(pool) => pool.close().await,
        }
    }

    /// Begins a writing transaction.
    async fn write(&self) -> Result<Write, StoreError> {
        let turn = self.turn().await;
        let (tx, relay) = match &*self.backend {
            Backend::Sqlite(pools) => (Tx::sqlite(pools.begin_write().await?, self.now_sql()), None),
            Backend::Postgres(pool) => (Tx::postgres(pool.begin_write().await?, self.now_sql()), pool.relay()),
        };
        Ok(Write::new(tx.with(turn), self.options.hints.clone(), relay))
    }

    /// Begins a reading transaction: all its statements see the same moment.
    async fn read(&self) -> Result<Tx, StoreError> {
        let turn = self.turn().await;
        let tx = match &*self.backend {
            Backend::Sqlite(pools) => Tx::sqlite(pools.begin_read().await?, self.now_sql()),
            Backend::Postgres(pool) => Tx::postgres(pool.begin_read().await?, self.now_sql()),
        };
        Ok(tx.with(turn))
    }

    /// For what one statement reads: it needs no transaction of its own, which costs two more turns with the database.
    async fn look(&self) -> Result<Tx, StoreError> {
        let turn = self.turn().await;
        let tx = match &*self.backend {
            Backend::Sqlite(pools) => Tx::sqlite_alone(pools.reader().await?, self.now_sql()),
            Backend::Postgres(pool) => Tx::postgres_alone(pool.connection().await?, self.now_sql()),
        };
        Ok(tx.with(turn))
    }

    /// The one SQL expression for the store's time, in milliseconds.
    fn now_sql(&self) -> &'static str {
        match (&self.options.time, &*self.backend) {
            (StoreTime::Row, _) => "(SELECT now_ms FROM store_time)",
            (StoreTime::Database, Backend::Sqlite(_)) => super::sqlite::NOW,
            (StoreTime::Database, Backend::Postgres(_)) => super::postgres::NOW,
        }
    }
}
