//! Explicit congestion notification through the tunnel (RFC 6040), and the class of service on the outer header.

const ECN: u8 = 0b11;
const ECT_1: u8 = 0b01;
const CE: u8 = 0b11;

/// The traffic class of an IP packet: the DSCP in the upper six bits, ECN in the lower two (RFC 2474, RFC 3168). `None`:
/// not IP.
#[must_use]
pub fn traffic_class(packet: &[u8]) -> Option<u8> {
    match packet.first()? >> 4 {
        4 => packet.get(1).copied(),
        6 => Some(packet[0] << 4 | packet.get(1)? >> 4),
        _ => None,
    }
}

/// The outer traffic class for an inner one: a copy. ECN by RFC 6040, section 4.1 (normal mode); the DSCP so that a network
/// that honours it does so for the tunnel too (RFC 2983, section 3).
#[must_use]
pub const fn outer(inner: u8) -> u8 {
    inner
}

/// What the outer header's ECN does to a decrypted packet (RFC 6040, section 4.2, figure 4). The inner DSCP stays.
/// Returns whether the packet may go on: congestion that its sender cannot be told of is told by loss.
#[must_use]
pub fn decapsulate(outer: u8, packet: &mut [u8]) -> bool {
    let Some(inner) = traffic_class(packet) else { return true };
    let new = match (inner & ECN, outer & ECN) {
        (0, CE) => return false,
        (had, 0) => had,
        (0, _) => 0,
        (_, CE) => CE,
        (CE, _) => CE,
        (_, ECT_1) => ECT_1,
        (had, _) => had,
    };
    if new != inner & ECN {
        set(packet, inner & !ECN | new);
    }
    true
}

fn set(packet: &mut [u8], class: u8) {
    if packet[0] >> 4 == 6 {
        packet[0] = packet[0] & 0xf0 | class >> 4;
        packet[1] = packet[1] & 0x0f | class << 4;
        return;
    }
    // RFC 1624, equation 3, over the header's first word.
    let word = |packet: &[u8]| u32::from(u16::from_be_bytes([packet[0], packet[1]]));
    let had = word(packet);
    packet[1] = class;
    let Some(checksum) = packet.get_mut(10..12) else { return };
    let mut sum = u32::from(!u16::from_be_bytes([checksum[0], checksum[1]])) + (!had & 0xffff);
    sum += had & 0xff00 | u32::from(class);
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    checksum.copy_from_slice(&(!(sum as u16)).to_be_bytes());
}
