//! Integration tests of the control plane.

mod store;
