//! The internet checksum (RFC 1071).

use super::headers::{Headers, Transport};

/// A ones' complement sum in the making. It is kept in the machine's byte order, which changes nothing but the order of the
/// result's two bytes (RFC 1071, section 2, B).
#[derive(Debug, Clone, Copy, Default)]
pub struct Sum(u64);

impl Sum {
    /// Adds bytes that start at an even offset of what is summed. Odd lengths only at the end.
    #[must_use]
    pub fn bytes(self, bytes: &[u8]) -> Self {
        let (blocks, rest) = bytes.as_chunks::<32>();
        let mut sum = self.0 + blocks_sum(blocks);
        let (words, last) = rest.as_chunks::<2>();
        for word in words {
            sum += u64::from(u16::from_ne_bytes(*word));
        }
        if let [last] = last {
            sum += u64::from(u16::from_ne_bytes([*last, 0]));
        }
        Self(sum)
    }

    /// Adds a number as it would stand on the wire.
    #[must_use]
    pub fn word(self, number: u16) -> Self {
        Self(self.0 + u64::from(u16::from_ne_bytes(number.to_be_bytes())))
    }

    /// The sum's two bytes, as they stand on the wire.
    #[must_use]
    pub fn folded(self) -> [u8; 2] {
        self.fold().to_ne_bytes()
    }

    /// The checksum's two bytes: the complement of the sum.
    #[must_use]
    pub fn checksum(self) -> [u8; 2] {
        (!self.fold()).to_ne_bytes()
    }

    /// Whether data that holds its own checksum is undamaged.
    #[must_use]
    pub fn is_whole(self) -> bool {
        self.fold() == 0xffff
    }

    fn fold(self) -> u16 {
        let mut sum = self.0;
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        // Not above 0xffff.
        sum as u16
    }
}

/// By the widest vectors that the processor has: this is done to each byte that is carried.
fn blocks_sum(blocks: &[[u8; 32]]) -> u64 {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has AVX2.
        return unsafe { blocks_sum_avx2(blocks) };
    }
    blocks_sum_inline(blocks)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn blocks_sum_avx2(blocks: &[[u8; 32]]) -> u64 {
    blocks_sum_inline(blocks)
}

#[inline(always)]
fn blocks_sum_inline(blocks: &[[u8; 32]]) -> u64 {
    // Eight sums side by side, which the compiler makes vectors of; none overflows before 2^32 blocks.
    let mut sums = [0_u64; 8];
    for block in blocks {
        for (sum, word) in sums.iter_mut().zip(block.as_chunks::<4>().0) {
            *sum = sum.wrapping_add(u64::from(u32::from_ne_bytes(*word)));
        }
    }
    sums.iter().sum()
}

/// The sum of the pseudo header (RFC 9293, section 3.1; RFC 768; RFC 8200, section 8.1) of a packet whose transport part
/// is `length` bytes long.
#[must_use]
pub fn pseudo_header(packet: &[u8], v6: bool, transport: Transport, length: usize) -> Sum {
    let addresses = if v6 { &packet[8..40] } else { &packet[12..20] };
    // The upper half of IPv6's 32-bit length is zero: no packet is above 65,575 bytes, and jumbograms are none of ours.
    Sum::default().bytes(addresses).word(u16::from(transport.protocol())).word(length as u16)
}

/// Whether the transport checksum of a whole packet is right. A UDP packet without one has none that is right.
#[must_use]
pub fn transport_is_whole(packet: &[u8], headers: &Headers) -> bool {
    let transport = &packet[headers.transport_at..];
    if headers.transport == Transport::Udp && transport[6..8] == [0, 0] {
        return false;
    }
    pseudo_header(packet, headers.v6, headers.transport, transport.len()).bytes(transport).is_whole()
}

/// Whether the header checksum of an IPv4 packet is right; IPv6 has none.
#[must_use]
pub fn network_is_whole(packet: &[u8], headers: &Headers) -> bool {
    headers.v6 || Sum::default().bytes(&packet[..headers.transport_at]).is_whole()
}

/// Writes the header checksum of an IPv4 packet whose header is `length` bytes long.
pub fn write_network(packet: &mut [u8], length: usize) {
    packet[10..12].fill(0);
    let checksum = Sum::default().bytes(&packet[..length]).checksum();
    packet[10..12].copy_from_slice(&checksum);
}
