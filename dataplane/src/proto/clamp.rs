//! Clamps the MSS of TCP connections that cross the tunnel, so that their first full segment already fits.

/// Lowers the MSS option of a SYN to `mss` and fixes the checksum. Never raises it, never adds the option, leaves
/// everything that is not a whole, unfragmented TCP SYN alone. Returns whether it changed the packet.
///
/// Option format: RFC 9293, section 3.2. Checksum update: RFC 1624, equation 3.
pub fn clamp_mss(packet: &mut [u8], mss: u16) -> bool {
    let Some(tcp) = tcp_offset(packet) else { return false };
    let Some(header) = packet.get_mut(tcp..) else { return false };
    if header.len() < 20 || header[13] & 0x02 == 0 {
        return false;
    }
    let end = (usize::from(header[12] >> 4) * 4).min(header.len());
    let mut at = 20;
    while at < end {
        match header[at] {
            0 => return false,
            1 => at += 1,
            kind => {
                let Some(&length) = header[..end].get(at + 1) else { return false };
                let length = usize::from(length);
                if length < 2 || at + length > end {
                    return false;
                }
                if kind == 2 && length == 4 {
                    return lower(header, at + 2, mss);
                }
                at += length;
            }
        }
    }
    false
}

fn lower(header: &mut [u8], at: usize, mss: u16) -> bool {
    if u16::from_be_bytes([header[at], header[at + 1]]) <= mss {
        return false;
    }
    // The option may start at an odd offset, so update over the aligned words that the two bytes stand in.
    let (from, to) = (at & !1, (at + 3) & !1);
    let mut sum = u32::from(!u16::from_be_bytes([header[16], header[17]]));
    for word in header[from..to].chunks_exact(2) {
        sum += u32::from(!u16::from_be_bytes([word[0], word[1]]));
    }
    header[at..at + 2].copy_from_slice(&mss.to_be_bytes());
    for word in header[from..to].chunks_exact(2) {
        sum += u32::from(u16::from_be_bytes([word[0], word[1]]));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    let checksum = !u16::try_from(sum).unwrap_or(0);
    header[16..18].copy_from_slice(&checksum.to_be_bytes());
    true
}

/// Where the TCP header starts; `None` for anything else, for fragments, and for IPv6 with extension headers.
fn tcp_offset(packet: &[u8]) -> Option<usize> {
    match packet.first()? >> 4 {
        4 => {
            let header = usize::from(packet[0] & 0x0f) * 4;
            let fragment = u16::from_be_bytes([*packet.get(6)?, *packet.get(7)?]) & 0x3fff;
            (header >= 20 && fragment == 0 && *packet.get(9)? == 6).then_some(header)
        }
        6 => (*packet.get(6)? == 6).then_some(40),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn checksum(packet: &[u8]) -> u16 {
        let tcp = &packet[20..];
        let mut sum: u32 = 6 + u32::try_from(tcp.len()).unwrap();
        for word in packet[12..20].chunks(2).chain(tcp.chunks(2)) {
            sum += u32::from(u16::from_be_bytes([word[0], word.get(1).copied().unwrap_or(0)]));
        }
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        u16::try_from(sum).unwrap()
    }

    /// An IPv4 TCP packet with some NOPs before its MSS option, so that the option also stands at odd offsets.
    fn packet(flags: u8, nops: usize, mss: u16) -> Vec<u8> {
        let mut options = vec![1; nops];
        options.extend([2, 4]);
        options.extend(mss.to_be_bytes());
        options.resize(options.len().next_multiple_of(4), 0);
        let mut packet = vec![0; 40];
        packet[0] = 0x45;
        packet[9] = 6;
        packet[12..20].copy_from_slice(&[10, 0, 1, 2, 10, 1, 1, 2]);
        packet[20..24].copy_from_slice(&[0x9c, 0x40, 0, 80]);
        packet[32] = u8::try_from((20 + options.len()) / 4).unwrap() << 4;
        packet[33] = flags;
        packet.extend(options);
        let sum = !checksum(&packet);
        packet[36..38].copy_from_slice(&sum.to_be_bytes());
        packet
    }

    proptest! {
        #[test]
        fn lowers_and_keeps_the_checksum_right(nops in 0..5_usize, had in 1..=u16::MAX, to in 536..1_460_u16, ack in any::<bool>()) {
            let mut packet = packet(if ack { 0x12 } else { 0x02 }, nops, had);
            prop_assert_eq!(clamp_mss(&mut packet, to), had > to);
            let at = 40 + nops + 2;
            prop_assert_eq!(u16::from_be_bytes([packet[at], packet[at + 1]]), had.min(to));
            prop_assert_eq!(checksum(&packet), 0xffff);
        }

        #[test]
        fn leaves_what_is_no_syn_alone(nops in 0..5_usize) {
            let mut packet = packet(0x10, nops, 9_000);
            prop_assert!(!clamp_mss(&mut packet, 1_400));
        }

        #[test]
        fn takes_any_bytes(mut bytes in prop::collection::vec(any::<u8>(), 0..100), v4 in any::<bool>()) {
            if v4 && bytes.len() > 9 {
                bytes[0] = 0x45;
                bytes[6] = 0;
                bytes[7] = 0;
                bytes[9] = 6;
            }
            clamp_mss(&mut bytes, 1_200);
        }
    }
}
