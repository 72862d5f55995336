//! What one sender may cost while there are many handshakes. A MAC is some microseconds, a cookie a datagram sent, a handshake
//! with a good cookie some hundred microseconds; without a bound, one host with a fast line would have the whole thread that
//! also carries the traffic.

use std::{
    hash::{BuildHasher, RandomState},
    net::IpAddr,
    sync::atomic::{AtomicU16, Ordering},
};

/// Senders are told apart by this many shares. More senders share them: 1,000 an attacker may fill by forging addresses, at
/// 40,000 cookies a second, which is a tenth of a core.
const SHARES: usize = 1_024;
/// Handshakes of one share in each tick of 100 ms that are looked at.
const A_TICK: u16 = 4;
/// Handshakes in a tick that are looked at before shares count: a gateway that is left in peace has no more.
const FREE_A_TICK: u16 = 32;

pub(super) struct Shares {
    /// Nobody outside knows who shares with whom.
    hasher: RandomState,
    used: Box<[AtomicU16]>,
    let_in: AtomicU16,
}

impl Shares {
    pub(super) fn new() -> Self {
        let used = std::iter::repeat_with(AtomicU16::default).take(SHARES).collect();
        Self { hasher: RandomState::new(), used, let_in: AtomicU16::new(0) }
    }

    /// Begins a tick.
    pub(super) fn renew(&self) {
        // Written only where it must be: most ticks see no handshake.
        for used in self.used.iter().chain([&self.let_in]) {
            if used.load(Ordering::Relaxed) != 0 {
                used.store(0, Ordering::Relaxed);
            }
        }
    }

    /// Takes one of the sender's share; false: it has none left in this tick.
    fn takes(&self, sender: IpAddr) -> bool {
        // A host has a whole /64 of IPv6 (RFC 7721, section 2).
        let network = match sender {
            IpAddr::V4(address) => u64::from(address.to_bits()),
            IpAddr::V6(address) => (address.to_bits() >> 64) as u64,
        };
        let share = self.hasher.hash_one(network) as usize % SHARES;
        // One thread counts; that two of a lane could pass at once would not matter.
        let used = self.used[share].load(Ordering::Relaxed);
        self.used[share].store(used.saturating_add(1), Ordering::Relaxed);
        used < A_TICK
    }

    /// Whether a handshake is looked at: the first of a tick all are, then by shares.
    pub(super) fn lets_in(&self, sender: IpAddr) -> bool {
        let before = self.let_in.load(Ordering::Relaxed);
        self.let_in.store(before.saturating_add(1), Ordering::Relaxed);
        before < FREE_A_TICK || self.takes(sender)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_sender_does_not_take_from_others() {
        let shares = Shares::new();
        let flooder: IpAddr = [192, 0, 2, 1].into();
        let taken = (0..10_000).filter(|_| shares.takes(flooder)).count();
        assert_eq!(taken, usize::from(A_TICK));
        let others = (0..100_u8).filter(|n| shares.takes([198, 51, 100, *n].into())).count();
        assert!(others > 95, "{others} of 100 others are served");
        shares.renew();
        assert!(shares.takes(flooder));
    }

    #[test]
    fn a_host_with_a_prefix_of_ipv6_is_one_sender() {
        let shares = Shares::new();
        let taken = (0..1_000_u16).filter(|n| shares.takes([0x2001, 0xdb8, 0, 1, 5, 6, 7, *n].into())).count();
        assert_eq!(taken, usize::from(A_TICK));
    }

    #[test]
    fn few_handshakes_are_all_let_in() {
        let shares = Shares::new();
        let one: IpAddr = [192, 0, 2, 1].into();
        assert_eq!((0..100).filter(|_| shares.lets_in(one)).count(), usize::from(FREE_A_TICK + A_TICK));
    }
}
