//! Integration tests of the control plane.

mod http;
mod store;
