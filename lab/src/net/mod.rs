//! The lab's network: namespaces, wires, 802.1Q tags and routers.
//!
//! [`LabNetwork`] builds it all from a [`NetSpec`] and is the real
//! [`Network`](crate::clouds::network::Network) behind the simulated clouds.

pub mod bird;
mod error;
pub mod flows;
mod lab;
pub mod links;
pub mod macsec;
pub mod namespace;
mod priority;
mod router;
mod spec;
pub mod tap;
pub mod vlan;
pub mod wire;

pub use error::NetError;
pub use lab::{INTERNET, LabNetwork};
pub use router::{BGP_TABLE, LinkName, LinkWanted};
pub use spec::{
    ChannelSpec, Configured, End, INCLUDES, Impairment, MAX_CHANNELS, MacSecWay, NetSpec, SiteSpec, SpecError, VlanWay,
};
