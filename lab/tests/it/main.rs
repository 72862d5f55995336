//! Integration tests of the lab: simulated clouds over HTTP; real namespaces, real wires, real routers.

mod clouds;
#[cfg(test)]
mod macsec;
#[cfg(test)]
mod net;
#[cfg(test)]
mod net_cell;
