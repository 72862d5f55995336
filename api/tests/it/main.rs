//! Integration tests of the control plane.

mod engine;
mod http;
mod store;
