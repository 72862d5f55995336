//! Integration tests of the lab: simulated clouds over HTTP; real namespaces, real wires, real routers.

mod clouds;
mod net;
mod net_cell;
