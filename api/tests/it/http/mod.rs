//! The surface on a real listener, over the real stores.

mod access;
mod answers;
mod bad_input;
mod document;
pub(crate) mod fixture;
mod foreign;
mod gateways;
mod issues;
mod lifecycle;
mod mutations;
mod plans;
mod reads;
pub(crate) mod schemathesis;
mod streams;

/// Runs each named function `async fn(Backing)` over both databases.
macro_rules! on_both {
    ($($name:ident),* $(,)?) => {
        mod sqlite {$(
            #[test]
            fn $name() { crate::http::fixture::on_sqlite(super::$name); }
        )*}
        mod postgres {$(
            #[test]
            fn $name() { crate::http::fixture::on_postgres(super::$name); }
        )*}
    };
}
use on_both;
