//! Two installations, each with a store, an API and a listener for peers of its own, paired over mutual TLS on loopback.

mod customers;
mod fixture;
mod pairing;
mod schemathesis;
mod surface;
