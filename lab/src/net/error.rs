//! What can fail when the lab's network is built or changed.

use std::io;
use std::path::PathBuf;

use super::bird::BirdError;
use super::macsec::MacSecError;
use super::macsec::device::DeviceError;
use super::spec::SpecError;

/// A step of the network that failed.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    /// The parameters contradict each other.
    #[error("the lab's network cannot be built")]
    Spec(#[from] SpecError),
    /// A namespace could not be made, entered or opened.
    #[error("network namespace {name:?}: cannot {operation}")]
    Namespace {
        /// The namespace.
        name: String,
        /// The step.
        operation: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The kernel refused a change of links, addresses, routes or rules.
    #[error("network namespace {namespace:?}: cannot {operation}")]
    Netlink {
        /// The namespace.
        namespace: String,
        /// The change.
        operation: String,
        /// Why.
        #[source]
        source: rtnetlink::Error,
    },
    /// An interface is not there.
    #[error("network namespace {namespace:?} has no interface {interface:?}")]
    NoInterface {
        /// The namespace.
        namespace: String,
        /// The interface.
        interface: String,
    },
    /// A kernel setting could not be written.
    #[error("network namespace {namespace:?}: cannot set {key}")]
    Sysctl {
        /// The namespace.
        namespace: String,
        /// The setting, as a path below `/proc/sys`.
        key: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A TAP interface could not be made or changed.
    #[error("TAP {interface:?}: cannot {operation}")]
    Tap {
        /// The interface.
        interface: String,
        /// The step.
        operation: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A wire's threads could not be started.
    #[error("wire {wire:?}: cannot {operation}")]
    Wire {
        /// The wire.
        wire: String,
        /// The step.
        operation: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// No wire of that name.
    #[error("the lab has no wire {wire:?}; it has {known}")]
    UnknownWire {
        /// The wire that was named.
        wire: String,
        /// The wires there are.
        known: String,
    },
    /// No tagged interface of the operator's can be there.
    #[error("there is no trunk {parent:?} that the operator may make VLAN {vlan} on")]
    UnknownLink {
        /// The trunk that was named.
        parent: String,
        /// The tag.
        vlan: u16,
    },
    /// No trunk of the operator's has this name.
    #[error("there is no trunk {trunk:?} that the operator may run MACsec on")]
    UnknownTrunk {
        /// The trunk that was named.
        trunk: String,
    },
    /// Keys that no router takes.
    #[error("the router does not take the MACsec keys of {trunk:?}")]
    MacSec {
        /// The trunk.
        trunk: String,
        /// Why.
        #[source]
        source: MacSecError,
    },
    /// A kernel MACsec device does not do what it shall.
    #[error("MACsec device {device:?} failed")]
    MacSecDevice {
        /// The device.
        device: String,
        /// What it did not do.
        #[source]
        source: DeviceError,
    },
    /// A tagged interface could not be made.
    #[error("tagged interface {interface:?}: cannot {operation}")]
    Vlan {
        /// The interface.
        interface: String,
        /// The step.
        operation: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The routing daemon failed.
    #[error("the routing daemon in {namespace:?} failed")]
    Bird {
        /// The namespace.
        namespace: String,
        /// Why.
        #[source]
        source: BirdError,
    },
    /// A file or directory of the lab could not be written.
    #[error("cannot write {}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl NetError {
    /// Whether the kernel answered with this error number.
    pub(crate) fn is_errno(&self, errno: i32) -> bool {
        match self {
            Self::Netlink { source: rtnetlink::Error::NetlinkError(message), .. } => message.raw_code() == -errno,
            Self::Namespace { source, .. }
            | Self::Sysctl { source, .. }
            | Self::Tap { source, .. }
            | Self::Wire { source, .. }
            | Self::Vlan { source, .. }
            | Self::File { source, .. } => source.raw_os_error() == Some(errno),
            Self::MacSecDevice { source, .. } => source.errno() == Some(errno),
            Self::Spec(_)
            | Self::Netlink { .. }
            | Self::NoInterface { .. }
            | Self::UnknownWire { .. }
            | Self::UnknownLink { .. }
            | Self::UnknownTrunk { .. }
            | Self::MacSec { .. }
            | Self::Bird { .. } => false,
        }
    }
}
