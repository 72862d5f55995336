//! Two installations, each with a store, an API and a listener for peers of its own, paired over mutual TLS on loopback.

mod aws;
mod channels;
mod customers;
mod fixture;
mod generated;
mod issuer;
mod logged;
mod macsec_device;
mod pairing;
mod proofs;
mod routers;
mod schemathesis;
mod surface;
mod tokens;
