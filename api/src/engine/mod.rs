//! The engine: a level-triggered reconciler over the connections, with a ledger of provider calls.

pub mod clock;
