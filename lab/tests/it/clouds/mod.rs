//! The simulated clouds over HTTP.

mod aws;
mod bench;
mod google;
mod python;
mod schema;
