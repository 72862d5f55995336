//! Integration tests of the lab: real namespaces, real wires, real routers.

#[cfg(test)]
mod net;
#[cfg(test)]
mod net_cell;
