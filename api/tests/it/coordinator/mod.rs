//! Two installations, each with a store, an API and a listener for peers of its own, paired over mutual TLS on loopback.

mod fixture;
mod pairing;
mod routers;
mod schemathesis;
mod surface;
