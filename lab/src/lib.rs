//! A little internet on one machine: simulated clouds and real routers.
//!
//! [`clouds`] are the simulated clouds, which speak the clouds' own wire protocols over HTTP. [`net`] is the network behind
//! them: namespaces, impaired wires, 802.1Q tags and BIRD routers that are configured only through
//! [`clouds::network::Network`]. [`cell`] is the room that it all lives in: one process, mount and user namespace whose
//! end is the end of everything inside. [`assembly`] puts a lab together.

pub mod assembly;
pub mod cell;
pub mod clouds;
pub mod net;
