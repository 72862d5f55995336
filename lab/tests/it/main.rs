//! Integration tests of the lab: real namespaces, real wires, real routers.

mod net;
mod net_cell;
