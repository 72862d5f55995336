//! Postgres: for several replicas. Writers run READ COMMITTED and rely on row locks and unique constraints; readers of more than
//! one statement run REPEATABLE READ, so that all of them see the same moment.

mod relay;

use std::{str::FromStr, sync::Arc, time::Duration};

use sqlx::{
    Connection as _, Executor as _, PgPool, Postgres, Transaction,
    pool::PoolConnection,
    postgres::{PgConnectOptions, PgPoolOptions},
};

use super::{
    OpenOptions, StoreError,
    sql::{error::classify, migrate},
};

pub(crate) use relay::Relay;

/// The store's time in milliseconds: when the statement came in, which is not before its caller sent it.
/// A query of its own, so that it is reckoned once a statement and not once a row.
pub(crate) const NOW: &str = "(SELECT CAST(EXTRACT(EPOCH FROM statement_timestamp()) * 1000 AS BIGINT))";

/// Every statement here looks rows up by a key or takes a page of an index. The tables of a young installation have no
/// statistics that would tell the planner so, and it would read and sort them whole, each time anew: what is not an index is
/// used only where there is none.
const PLANS: &str = "SET enable_seqscan = off; SET enable_bitmapscan = off; SET enable_hashjoin = off;
    SET enable_mergejoin = off; SET jit = off";

/// A connection that was idle for so long is asked whether the server still knows it.
const ASKED_AFTER: Duration = Duration::from_secs(1);

/// Connections of one replica.
pub(crate) const CONNECTIONS: u32 = 16;

const MIGRATIONS: &[(i64, &str, &str)] = &[
    (1, "foundation", include_str!("../../../migrations/postgres/0001_foundation.sql")),
    (2, "account watch", include_str!("../../../migrations/postgres/0002_account_watch.sql")),
    (3, "twins", include_str!("../../../migrations/postgres/0003_twins.sql")),
    (4, "path conditions", include_str!("../../../migrations/postgres/0004_path_conditions.sql")),
    (5, "answers and ages", include_str!("../../../migrations/postgres/0005_answers_and_ages.sql")),
    (6, "plans of a connection", include_str!("../../../migrations/postgres/0006_plans_of_a_connection.sql")),
    (7, "foreign and carried", include_str!("../../../migrations/postgres/0007_foreign_and_carried.sql")),
    (8, "coordinator", include_str!("../../../migrations/postgres/0008_coordinator.sql")),
    (9, "shared connections", include_str!("../../../migrations/postgres/0009_shared_connections.sql")),
    (11, "channels", include_str!("../../../migrations/postgres/0011_channels.sql")),
    (12, "peer proofs", include_str!("../../../migrations/postgres/0012_peer_proofs.sql")),
    (13, "tunnel keys", include_str!("../../../migrations/postgres/0013_tunnel_keys.sql")),
    (14, "kernel lanes", include_str!("../../../migrations/postgres/0014_kernel_lanes.sql")),
    (15, "calm accounts", include_str!("../../../migrations/postgres/0015_calm_accounts.sql")),
];

/// The connections to one database.
pub(crate) struct PostgresPool {
    pool: PgPool,
    relay: Option<Arc<Relay>>,
}

impl PostgresPool {
    pub(crate) async fn open(url: &str, with: &OpenOptions) -> Result<Self, StoreError> {
        let options = PgConnectOptions::from_str(url).map_err(classify)?.application_name("tieline");
        let pool = PgPoolOptions::new()
            .max_connections(CONNECTIONS)
            .acquire_timeout(Duration::from_secs(10))
            // A connection that was in use a moment ago is there: asking each time would be a turn with the server more.
            .test_before_acquire(false)
            .before_acquire(|connection, about| {
                Box::pin(async move { Ok(about.idle_for < ASKED_AFTER || connection.ping().await.is_ok()) })
            })
            .after_connect(|connection, _| Box::pin(async move { connection.execute(PLANS).await.map(drop) }))
            .connect_with(options)
            .await
            .map_err(classify)?;
        migrate::run(MIGRATIONS, &pool).await?;
        let relay = if with.alone { None } else { Relay::start(&pool, with.hints.clone()).await };
        Ok(Self { pool, relay: relay.map(Arc::new) })
    }

    /// What tells other replicas of commits.
    pub(crate) fn relay(&self) -> Option<Arc<Relay>> {
        self.relay.clone()
    }

    pub(crate) async fn begin_write(&self) -> Result<Transaction<'static, Postgres>, StoreError> {
        self.pool.begin_with("BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE").await.map_err(classify)
    }

    pub(crate) async fn begin_read(&self) -> Result<Transaction<'static, Postgres>, StoreError> {
        self.pool.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await.map_err(classify)
    }

    /// A connection for one statement that reads.
    pub(crate) async fn connection(&self) -> Result<PoolConnection<Postgres>, StoreError> {
        self.pool.acquire().await.map_err(classify)
    }

    /// One statement that is a transaction of its own.
    pub(crate) async fn execute(&self, sql: &'static str, value: i64) -> Result<(), StoreError> {
        sqlx::query(sql).bind(value).execute(&self.pool).await.map(drop).map_err(classify)
    }

    pub(crate) async fn close(&self) {
        if let Some(relay) = &self.relay {
            relay.stop();
        }
        self.pool.close().await;
    }
}
