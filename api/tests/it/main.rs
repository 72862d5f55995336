//! Integration tests of the control plane.

mod engine;
mod store;
