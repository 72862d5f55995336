//! Our own table of inner addresses: which peer a packet goes to, and which sources a peer may use.
//!
//! WireGuard's allowed-IPs are exclusive per interface, and one prefix may be served by any live member of a group; so one
//! TUN carries all peers, and this table decides.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use prefix_trie::PrefixMap;

/// Longest-prefix match of both families.
#[derive(Debug, Clone)]
pub struct PrefixTable<T> {
    v4: PrefixMap<Ipv4Net, T>,
    v6: PrefixMap<Ipv6Net, T>,
}

impl<T> Default for PrefixTable<T> {
    fn default() -> Self {
        Self { v4: PrefixMap::new(), v6: PrefixMap::new() }
    }
}

impl<T> PrefixTable<T> {
    /// Adds or replaces a prefix.
    pub fn insert(&mut self, prefix: IpNet, value: T) {
        match prefix.trunc() {
            IpNet::V4(prefix) => drop(self.v4.insert(prefix, value)),
            IpNet::V6(prefix) => drop(self.v6.insert(prefix, value)),
        }
    }

    /// Each prefix, in order.
    pub fn prefixes(&self) -> impl Iterator<Item = IpNet> {
        self.v4.keys().map(IpNet::V4).chain(self.v6.keys().map(IpNet::V6))
    }

    /// The value of the longest prefix that holds the address.
    #[must_use]
    pub fn get(&self, address: IpAddr) -> Option<&T> {
        match address {
            IpAddr::V4(address) => self.v4.get_lpm(&address.into()).map(|(_, value)| value),
            IpAddr::V6(address) => self.v6.get_lpm(&address.into()).map(|(_, value)| value),
        }
    }
}

/// Source and destination of an IP packet; `None` when it is not one. Reads nothing beyond the fixed headers (RFC 791,
/// RFC 8200).
#[must_use]
pub fn addresses(packet: &[u8]) -> Option<(IpAddr, IpAddr)> {
    fn at<const N: usize>(packet: &[u8], from: usize) -> Option<[u8; N]> {
        packet.get(from..from + N)?.try_into().ok()
    }
    match packet.first()? >> 4 {
        4 => Some((at::<4>(packet, 12)?.into(), at::<4>(packet, 16)?.into())),
        6 => Some((at::<16>(packet, 8)?.into(), at::<16>(packet, 24)?.into())),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn agrees_with_a_scan(prefixes in prop::collection::vec((any::<u32>(), 0..=32_u8), 0..40), address in any::<u32>()) {
            let mut table = PrefixTable::default();
            let mut scan: Vec<(Ipv4Net, usize)> = Vec::new();
            for (n, (bits, length)) in prefixes.into_iter().enumerate() {
                // Few distinct high bits, so that prefixes nest.
                let net = Ipv4Net::new((bits & 0x0303_0303).into(), length).unwrap().trunc();
                table.insert(IpNet::V4(net), n);
                scan.retain(|(had, _)| *had != net);
                scan.push((net, n));
            }
            let address = std::net::Ipv4Addr::from(address & 0x0303_0303);
            let want = scan.iter().filter(|(net, _)| net.contains(&address)).max_by_key(|(net, _)| net.prefix_len()).map(|(_, n)| n);
            prop_assert_eq!(table.get(address.into()), want);
        }

        #[test]
        fn addresses_takes_any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            if let Some((source, destination)) = addresses(&bytes) {
                prop_assert_eq!(source.is_ipv4(), destination.is_ipv4());
                prop_assert!(bytes.len() >= 20);
            }
        }
    }
}
