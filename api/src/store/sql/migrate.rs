//! Bringing a database to this version's schema. Migrations expand before they contract, so the binary before this one runs
//! on the new schema, and this one on a newer schema.

use sqlx::{
    Acquire, SqlSafeStr,
    migrate::{Migrate, MigrateError, Migration, MigrationType, Migrator},
};

use super::error::classify;
use crate::store::StoreError;

/// Runs the migrations (version, name, SQL) that have not run yet; on Postgres under its own lock against other replicas.
pub(crate) async fn run<'a, A>(migrations: &[(i64, &'static str, &'static str)], database: A) -> Result<(), StoreError>
where
    A: Acquire<'a>,
    <A::Connection as std::ops::Deref>::Target: Migrate,
{
    let migrations = migrations
        .iter()
        .map(|&(version, name, sql)| {
            Migration::new(version, name.into(), MigrationType::Simple, sql.into_sql_str(), false)
        })
        .collect();
    let mut migrator = Migrator::with_migrations(migrations);
    migrator.set_ignore_missing(true);
    migrator.run(database).await.map_err(failed)
}

#[expect(clippy::wildcard_enum_match_arm, reason = "the rest, known or not, is a schema that is not ours")]
fn failed(error: MigrateError) -> StoreError {
    let error = match error {
        MigrateError::Execute(e) | MigrateError::ExecuteMigration(e, _) => return classify(e),
        other => other,
    };
    StoreError::Unusable {
        reason: "its schema is not one that Tieline made: restore a backup, or name another database".to_owned(),
        source: Some(Box::new(error)),
    }
}
