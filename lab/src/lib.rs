//! A little internet on one machine: simulated clouds that speak the clouds' own wire protocols, and the network behind them.
//!
//! [`net`] is the network: namespaces, impaired wires, 802.1Q tags and BIRD routers that are configured only through
//! [`clouds::network::Network`]. [`cell`] is the room that it all lives in: one process, mount and user namespace whose
//! end is the end of everything inside.

pub mod cell;
pub mod clouds;
pub mod net;
