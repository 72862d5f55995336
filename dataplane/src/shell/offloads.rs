//! Which of the kernel's offloads the packet path uses: each has a switch, is given up at run time when the kernel or a
//! driver refuses it, and counts what it carries.

use std::{
    str::FromStr,
    sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
};

use serde::{Deserialize, Serialize};

use crate::proto::offload::{coalesce::Joinable, vnet::Kind};

/// An offload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Offload {
    /// The TUN device gives TCP in super-packets (TSO).
    TunTso,
    /// The TUN device gives UDP in super-packets (USO; Linux 6.2).
    TunUso,
    /// The TUN device takes TCP over IPv4 in super-packets.
    TunGroTcp4,
    /// The same over IPv6.
    TunGroTcp6,
    /// The TUN device takes UDP in super-packets (Linux 6.2).
    TunGroUdp,
    /// One system call sends many datagrams (UDP_SEGMENT; Linux 4.18).
    UdpGso,
    /// One buffer receives many datagrams (UDP_GRO; Linux 5.0).
    UdpGro,
}

impl Offload {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::TunTso, Self::TunUso, Self::TunGroTcp4, Self::TunGroTcp6, Self::TunGroUdp, Self::UdpGso, Self::UdpGro];

    /// Its name, as in [`OffloadStatus`].
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::TunTso => "tun-tso",
            Self::TunUso => "tun-uso",
            Self::TunGroTcp4 => "tun-gro-tcp4",
            Self::TunGroTcp6 => "tun-gro-tcp6",
            Self::TunGroUdp => "tun-gro-udp",
            Self::UdpGso => "udp-gso",
            Self::UdpGro => "udp-gro",
        }
    }

    const fn writing(kind: Kind) -> Option<Self> {
        match kind {
            Kind::Single => None,
            Kind::Tcp4 => Some(Self::TunGroTcp4),
            Kind::Tcp6 => Some(Self::TunGroTcp6),
            Kind::Udp => Some(Self::TunGroUdp),
        }
    }
}

/// No offload of that name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is no offload; there are tun-tso, tun-uso, tun-gro-tcp4, tun-gro-tcp6, tun-gro-udp, udp-gso and udp-gro"
)]
pub struct UnknownOffload(String);

impl FromStr for Offload {
    type Err = UnknownOffload;

    fn from_str(name: &str) -> Result<Self, UnknownOffload> {
        Self::ALL.into_iter().find(|offload| offload.name() == name).ok_or_else(|| UnknownOffload(name.to_owned()))
    }
}

/// How an offload fares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OffloadStatus {
    /// Which.
    pub offload: Offload,
    /// Whether it is used.
    pub on: bool,
    /// Super-packets, or batches of datagrams, that went by it.
    pub batches: u64,
    /// Packets in them.
    pub packets: u64,
    /// Times that the kernel refused one, which then went packet by packet.
    pub refused: u64,
}

#[derive(Debug, Default)]
struct State {
    off: AtomicBool,
    batches: AtomicU64,
    packets: AtomicU64,
    refused: AtomicU64,
}

/// The offloads of one gateway.
#[derive(Debug)]
pub struct Offloads {
    states: [State; Offload::ALL.len()],
    /// Datagrams of this length and above are sent one by one: the way is too narrow to send them in batches.
    too_long: AtomicUsize,
    /// Datagrams that the network did not take.
    lost: AtomicU64,
}

impl Offloads {
    /// All but these.
    #[must_use]
    pub fn without(switched_off: &[Offload]) -> Self {
        let offloads =
            Self { states: Default::default(), too_long: AtomicUsize::new(usize::MAX), lost: AtomicU64::new(0) };
        for offload in switched_off {
            offloads.switch_off(*offload);
        }
        offloads
    }

    fn state(&self, offload: Offload) -> &State {
        &self.states[offload as usize]
    }

    /// Whether it is used.
    #[must_use]
    pub fn is_on(&self, offload: Offload) -> bool {
        !self.state(offload).off.load(Ordering::Relaxed)
    }

    pub(crate) fn switch_off(&self, offload: Offload) {
        self.state(offload).off.store(true, Ordering::Relaxed);
    }

    pub(crate) fn count(&self, offload: Offload, packets: usize) {
        let state = self.state(offload);
        state.batches.fetch_add(1, Ordering::Relaxed);
        state.packets.fetch_add(packets as u64, Ordering::Relaxed);
    }

    fn refuse(&self, offload: Offload) {
        self.state(offload).refused.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn lose(&self, datagrams: usize) {
        self.lost.fetch_add(datagrams as u64, Ordering::Relaxed);
    }

    /// Datagrams that the network did not take, in batches or not.
    pub(crate) fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// What may be joined for the TUN device.
    pub(crate) fn joinable(&self) -> Joinable {
        Joinable {
            tcp4: self.is_on(Offload::TunGroTcp4),
            tcp6: self.is_on(Offload::TunGroTcp6),
            udp: self.is_on(Offload::TunGroUdp),
        }
    }

    pub(crate) fn count_write(&self, kind: Kind, packets: usize) {
        if let Some(offload) = Offload::writing(kind) {
            self.count(offload, packets);
        }
    }

    /// The TUN device did not take a super-packet, for its form: no more of that kind.
    pub(crate) fn refuse_write(&self, kind: Kind) {
        if let Some(offload) = Offload::writing(kind) {
            self.refuse(offload);
            if self.is_on(offload) {
                tracing::warn!(offload = offload.name(), "the kernel refuses it: given up");
                self.switch_off(offload);
            }
        }
    }

    /// Whether datagrams of this length go in batches.
    pub(crate) fn batches(&self, datagram: usize) -> bool {
        self.is_on(Offload::UdpGso) && datagram < self.too_long.load(Ordering::Relaxed)
    }

    /// The socket did not take a batch. EIO: the interface cannot make the checksums, so no batch goes at all. EINVAL and
    /// EMSGSIZE: the datagrams are longer than the path's MTU, and can only be sent singly, to be fragmented.
    pub(crate) fn refuse_batch(&self, errno: i32, datagram: usize) {
        self.refuse(Offload::UdpGso);
        if errno == libc::EIO {
            if self.is_on(Offload::UdpGso) {
                tracing::warn!(offload = Offload::UdpGso.name(), "the interface refuses it: given up");
                self.switch_off(Offload::UdpGso);
            }
        } else if self.too_long.fetch_min(datagram, Ordering::Relaxed) > datagram {
            tracing::info!(datagram, "datagrams of this length are sent one by one: longer than the path's MTU");
        }
    }

    /// Tries long datagrams in batches again: the path may have changed.
    pub(crate) fn try_long_again(&self) {
        self.too_long.store(usize::MAX, Ordering::Relaxed);
    }

    /// How each fares.
    #[must_use]
    pub fn status(&self) -> Vec<OffloadStatus> {
        let status = |offload| {
            let state = self.state(offload);
            let number = |of: &AtomicU64| of.load(Ordering::Relaxed);
            OffloadStatus {
                offload,
                on: self.is_on(offload),
                batches: number(&state.batches),
                packets: number(&state.packets),
                refused: number(&state.refused),
            }
        };
        Offload::ALL.into_iter().map(status).collect()
    }
}
