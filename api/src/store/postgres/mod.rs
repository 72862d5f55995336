//! Postgres: for several replicas. Writers run READ COMMITTED and rely on row locks, unique constraints and one advisory
//! lock; readers run REPEATABLE READ, so that all statements of one method see the same moment.

use std::{str::FromStr, time::Duration};

use sqlx::{
    PgPool, Postgres, Transaction,
    postgres::{PgConnectOptions, PgPoolOptions},
};

use super::{
    StoreError,
    sql::{error::classify, migrate},
};

/// The store's time in milliseconds: when the statement came in, which is not before its caller sent it.
pub(crate) const NOW: &str = "CAST(EXTRACT(EPOCH FROM statement_timestamp()) * 1000 AS BIGINT)";

/// Connections of one replica.
const CONNECTIONS: u32 = 16;

const MIGRATIONS: &[(i64, &str, &str)] = &[
    (1, "foundation", include_str!("../../../migrations/postgres/0001_foundation.sql")),
    (2, "account watch", include_str!("../../../migrations/postgres/0002_account_watch.sql")),
    (3, "twins", include_str!("../../../migrations/postgres/0003_twins.sql")),
    (4, "path conditions", include_str!("../../../migrations/postgres/0004_path_conditions.sql")),
];

/// The connections to one database.
pub(crate) struct PostgresPool(PgPool);

impl PostgresPool {
    pub(crate) async fn open(url: &str) -> Result<Self, StoreError> {
        let options = PgConnectOptions::from_str(url).map_err(classify)?.application_name("tieline");
        let pool = PgPoolOptions::new()
            .max_connections(CONNECTIONS)
            .acquire_timeout(Duration::from_secs(10))
            .connect_with(options)
            .await
            .map_err(classify)?;
        migrate::run(MIGRATIONS, &pool).await?;
        Ok(Self(pool))
    }

    pub(crate) async fn begin_write(&self) -> Result<Transaction<'static, Postgres>, StoreError> {
        self.0.begin_with("BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE").await.map_err(classify)
    }

    pub(crate) async fn begin_read(&self) -> Result<Transaction<'static, Postgres>, StoreError> {
        self.0.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await.map_err(classify)
    }

    pub(crate) async fn close(&self) {
        self.0.close().await;
    }
}
