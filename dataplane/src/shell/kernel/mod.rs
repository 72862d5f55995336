//! The kernel's WireGuard as a second way to carry a tunnel, beside the lanes of the gateway's own process, which are always
//! there and always warm.
//!
//! One interface a pair of gateways: prefixes that several members of a group have cannot be told apart within one, since
//! allowed IPs are exclusive there. Each has a port of its own, and all have the gateway's kernel key, which is another
//! one than any lane's: a peer tells by the key what it talks to, and a replay window is never shared.
//!
//! A thread of its own (`tl-kernel`) keeps the interfaces as they shall be, since to make or remove one may take longer than
//! the heartbeat may wait. It offers what is alive on a [`Board`]; the heartbeat leads routes there, and says so, and only
//! what no route leads to is removed.

mod keeper;
mod netlink;
mod plan;

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::SocketAddr,
    ops::RangeInclusive,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use boringtun::x25519::StaticSecret;
use tieline_openapi::{ids::GatewayId, v1::KernelLanes};
use tokio::sync::watch;
use zeroize::Zeroizing;

pub(crate) use self::{keeper::Keeper, plan::LINGER};
use super::{config::MAX_LANES, status::KernelLaneStatus};

/// What the name of each interface begins with; what has such a name and is WireGuard's is ours.
pub const PREFIX: &str = "tlk";
/// Ports where none are given.
const PORTS: u16 = 100;

/// Why the kernel carries no tunnel.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// It has no WireGuard.
    #[error(
        "this kernel has no WireGuard; load it (`modprobe wireguard`, Linux 5.6 or newer), or choose `--backend boringtun`"
    )]
    Without(#[source] io::Error),
    /// Nobody would check what comes out of it.
    #[error(
        "the kernel's WireGuard needs `nft`, which checks what comes out of it; install nftables, or choose `--backend boringtun`"
    )]
    NoFilter,
    /// No netlink socket.
    #[error("cannot talk to the kernel's WireGuard (netlink)")]
    Netlink(#[source] io::Error),
    /// An interface cannot be made, or brought up.
    #[error("cannot make the WireGuard interface {name}; the gateway needs CAP_NET_ADMIN in its network namespace")]
    Make {
        /// Which.
        name: String,
        /// Why.
        #[source]
        source: rtnetlink::Error,
    },
    /// Keys, port or peer are refused.
    #[error("the kernel's WireGuard does not take the configuration of {name}")]
    Configure {
        /// Which.
        name: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A sysctl could not be set.
    #[error("cannot make the reverse path filter of {name} loose")]
    Sysctl {
        /// Which.
        name: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// An interface cannot be read.
    #[error("cannot read the WireGuard interfaces")]
    Read(#[source] io::Error),
    /// The interfaces cannot be listed.
    #[error("cannot list the WireGuard interfaces")]
    List(#[source] rtnetlink::Error),
    /// An interface cannot be removed.
    #[error("cannot remove the WireGuard interface {name}; `ip link del {name}` does")]
    Remove {
        /// Which.
        name: String,
        /// Why.
        #[source]
        source: rtnetlink::Error,
    },
    /// Every port is in use.
    #[error("no UDP port of {first} to {last} is free; give more with --kernel-ports")]
    Ports {
        /// From.
        first: u16,
        /// To.
        last: u16,
    },
}

/// Whether the kernel of this machine has WireGuard and this gateway can use it. Loads the module where there is one.
///
/// # Errors
/// What is missing.
pub fn available() -> Result<(), KernelError> {
    netlink::Generic::open()?;
    if super::firewall::is_there() { Ok(()) } else { Err(KernelError::NoFilter) }
}

/// The ports where none are given: the 100 after the last that a lane may have.
#[must_use]
pub fn ports_after(listen_port: u16) -> RangeInclusive<u16> {
    let first = listen_port.saturating_add(u16::from(MAX_LANES));
    first..=first.saturating_add(PORTS - 1)
}

/// Name of a peer's interface; there are two at most, of which one takes the other's place.
pub(crate) fn name(peer: GatewayId, second: bool) -> String {
    // The last bytes of a UUID v7 are random.
    let [.., a, b, c, d] = *peer.uuid().as_bytes();
    format!("{PREFIX}{a:02x}{b:02x}{c:02x}{d:02x}{}", if second { 'b' } else { 'a' })
}

/// What all interfaces have in common.
#[derive(Clone)]
pub(crate) struct Own {
    /// Of all.
    pub(crate) key: StaticSecret,
    /// To choose from.
    pub(crate) ports: RangeInclusive<u16>,
    /// Where peers reach `ports.start()`.
    pub(crate) wan: SocketAddr,
}

/// A peer, as the kernel shall have it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Wanted {
    pub(crate) gateway: GatewayId,
    /// Whom its interface talks to: the peer's kernel key, or that of its lane 0.
    pub(crate) key: [u8; 32],
    pub(crate) endpoint: SocketAddr,
    /// The key of the peer's lane 0, which is always there.
    pub(crate) standing: [u8; 32],
    pub(crate) preshared: Option<Zeroizing<[u8; 32]>>,
    /// Bytes of the longest inner packet, if the underlay is wide enough.
    pub(crate) mtu_bytes: u16,
    /// The interface that leads to it.
    pub(crate) underlay: Option<u32>,
}

/// What the heartbeat says.
#[derive(Debug)]
pub(crate) enum Order {
    /// These peers, and no others.
    Want(Vec<Wanted>),
    /// The interfaces that routes lead to.
    Carry(BTreeSet<u32>),
    /// Probes were lost by way of this peer's interfaces: they are alive when something new is heard.
    Doubt(GatewayId),
}

/// An interface that carries what is sent into it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Offer {
    /// Its index.
    pub(crate) index: u32,
    /// Bytes of the longest inner packet.
    pub(crate) mtu_bytes: u16,
}

/// What the API is to be told.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Told {
    /// Rises with every change; 0: nothing is known yet.
    pub sequence: u64,
    /// All that there is.
    pub lanes: KernelLanes,
}

/// What the keeper of the interfaces lets others know.
#[derive(Debug)]
pub(crate) struct Board {
    version: AtomicU64,
    shown: Mutex<Shown>,
    told: watch::Sender<Told>,
    /// The last sequence that the API has taken.
    taken: AtomicU64,
    /// Peers whose interfaces the packet filter knows; no other is brought up.
    guarded: Mutex<BTreeSet<GatewayId>>,
}

#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Shown {
    offers: BTreeMap<GatewayId, Offer>,
    status: BTreeMap<GatewayId, Vec<KernelLaneStatus>>,
}

impl Board {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            version: AtomicU64::new(0),
            shown: Mutex::default(),
            told: watch::Sender::new(Told::default()),
            taken: AtomicU64::new(0),
            guarded: Mutex::default(),
        })
    }

    fn shown(&self) -> MutexGuard<'_, Shown> {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Rises when offers change.
    pub(crate) fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    pub(crate) fn offers(&self) -> BTreeMap<GatewayId, Offer> {
        self.shown().offers.clone()
    }

    pub(crate) fn status(&self, peer: GatewayId) -> Vec<KernelLaneStatus> {
        self.shown().status.get(&peer).cloned().unwrap_or_default()
    }

    fn show(&self, new: Shown) {
        let mut shown = self.shown();
        let changed = shown.offers != new.offers;
        *shown = new;
        drop(shown);
        if changed {
            self.version.fetch_add(1, Ordering::AcqRel);
        }
    }

    /// What the API is to be told, and each change of it.
    pub(crate) fn told(&self) -> watch::Receiver<Told> {
        self.told.subscribe()
    }

    /// The API has taken this.
    pub(crate) fn take(&self, sequence: u64) {
        self.taken.fetch_max(sequence, Ordering::AcqRel);
    }

    /// The packet filter checks what comes from these peers.
    pub(crate) fn guard(&self, peers: BTreeSet<GatewayId>) {
        *self.guarded.lock().unwrap_or_else(PoisonError::into_inner) = peers;
    }

    fn is_guarded(&self, peer: GatewayId) -> bool {
        self.guarded.lock().unwrap_or_else(PoisonError::into_inner).contains(&peer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fit_and_ports_come_after_the_lanes() {
        let peer = GatewayId(uuid::Uuid::from_u128(0x0192_aaaa_bbbb_cccc_dddd_eeee_1234_abcd));
        assert_eq!([false, true].map(|second| name(peer, second)), ["tlk1234abcda", "tlk1234abcdb"]);
        assert!(name(peer, true).len() < libc::IFNAMSIZ);
        assert_eq!(ports_after(51_820), 51_836..=51_935);
        assert_eq!(ports_after(65_530), 65_535..=65_535);
    }
}
