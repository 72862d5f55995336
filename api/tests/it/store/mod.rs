//! One suite for both databases: every test of these modules runs on SQLite and on Postgres.

mod allocations;
mod books;
mod claims;
mod events;
pub(crate) mod fixture;
mod gateways;
mod hints;
mod housekeeping;
mod intent;
mod ledger;
mod principals;
mod races;
mod shared;
mod sqlite_file;
mod watch;

/// Runs each named function `async fn(Db)` on both databases.
macro_rules! on_both {
    ($($name:ident),* $(,)?) => {
        mod sqlite {$(
            #[test]
            fn $name() { crate::store::fixture::on_sqlite(super::$name); }
        )*}
        mod postgres {$(
            #[test]
            fn $name() { crate::store::fixture::on_postgres(super::$name); }
        )*}
    };
}
pub(crate) use on_both;
