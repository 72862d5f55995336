//! Ids, keys and addresses that a cloud draws, from one seeded source.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use rand::{RngExt, SeedableRng, rngs::Xoshiro256PlusPlus};

const ALPHANUMERIC: &[u8; 36] = b"abcdefghijklmnopqrstuvwxyz0123456789";

/// A seeded source.
#[derive(Debug, Clone)]
pub(crate) struct Draw(Xoshiro256PlusPlus);

impl Draw {
    pub(crate) fn new(seed: u64) -> Self {
        Self(Xoshiro256PlusPlus::seed_from_u64(seed))
    }

    /// Lower-case letters and digits.
    pub(crate) fn text(&mut self, length: usize) -> String {
        (0..length).map(|_| char::from(ALPHANUMERIC[self.0.random_range(0..ALPHANUMERIC.len())])).collect()
    }

    /// A UUID (RFC 9562 version 4).
    pub(crate) fn uuid(&mut self) -> String {
        uuid::Builder::from_random_bytes(self.0.random()).into_uuid().to_string()
    }

    /// A number of 19 digits, as Google's resource ids.
    pub(crate) fn number(&mut self) -> u64 {
        self.0.random_range(1_000_000_000_000_000_000..8_999_999_999_999_999_999)
    }

    /// A subnet of `length` out of `candidates`, tried in order, that overlaps none of `used`.
    ///
    /// Within a candidate the search begins anywhere, as real clouds do, so a caller that assumes the first one is found out.
    pub(crate) fn subnet(&mut self, candidates: &[Ipv4Net], length: u8, used: &[Ipv4Net]) -> Option<Ipv4Net> {
        candidates.iter().find_map(|candidate| {
            let slots = 1u32.checked_shl(u32::from(length.checked_sub(candidate.prefix_len())?))?;
            let start = self.0.random_range(0..slots);
            (0..slots).find_map(|i| {
                let slot = (start.wrapping_add(i)) % slots;
                let base = u32::from(candidate.network()) + (slot << (32 - u32::from(length)));
                let subnet = Ipv4Net::new(Ipv4Addr::from(base), length).ok()?;
                (!used.iter().any(|u| overlap(u, &subnet))).then_some(subnet)
            })
        })
    }
}

/// Whether two subnets share an address.
pub(crate) fn overlap(a: &Ipv4Net, b: &Ipv4Net) -> bool {
    a.contains(&b.network()) || b.contains(&a.network())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_drawn_subnet_is_inside_and_free(seed: u64, taken in proptest::collection::vec(0u32..64, 0..64)) {
            let candidate: Ipv4Net = "169.254.64.0/23".parse().expect("a prefix");
            let used: Vec<Ipv4Net> = taken
                .iter()
                .map(|n| Ipv4Net::new(Ipv4Addr::from(u32::from(candidate.network()) + n * 8), 29).expect("a /29"))
                .collect();
            let free = (0..64).any(|n| !taken.contains(&n));
            let drawn = Draw::new(seed).subnet(&[candidate], 29, &used);
            prop_assert_eq!(drawn.is_some(), free);
            if let Some(subnet) = drawn {
                prop_assert!(candidate.contains(&subnet));
                prop_assert!(!used.iter().any(|u| overlap(u, &subnet)));
            }
        }
    }
}
