//! `struct virtio_net_hdr`, which stands before every packet of a TUN device with IFF_VNET_HDR (<linux/virtio_net.h>;
//! Virtual I/O Device specification 1.2, section 5.1.6). Its numbers are in the machine's byte order.

/// Bytes of it.
pub const LENGTH: usize = 10;

const NEEDS_CHECKSUM: u8 = 1;
const CHECKSUM_VALID: u8 = 2;
const TCP_V4: u8 = 1;
const TCP_V6: u8 = 4;
const UDP: u8 = 5;
const ECN: u8 = 0x80;

/// What kind of super-packet follows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Kind {
    /// None: one packet.
    #[default]
    Single,
    /// TCP over IPv4.
    Tcp4,
    /// TCP over IPv6.
    Tcp6,
    /// UDP over either (USO; Linux 6.2).
    Udp,
}

/// The header.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct VnetHeader {
    /// The transport checksum holds only the pseudo header's sum, and must be completed.
    pub needs_checksum: bool,
    /// The transport checksum has been verified.
    pub checksum_valid: bool,
    /// What follows.
    pub kind: Kind,
    /// Its first segment has CWR set (RFC 3168, section 6.1.2).
    pub ecn: bool,
    /// Bytes of all headers; a hint only.
    pub headers: u16,
    /// Payload bytes of each segment but the last.
    pub segment: u16,
    /// Where the checksum's range starts: at the transport header.
    pub checksum_start: u16,
    /// Where the checksum stands, from there.
    pub checksum_offset: u16,
}

impl VnetHeader {
    /// Reads it; `None`: too short, or of a kind that was not asked for.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; LENGTH] = bytes.get(..LENGTH)?.try_into().ok()?;
        let number = |at: usize| u16::from_ne_bytes([bytes[at], bytes[at + 1]]);
        let kind = match bytes[1] & !ECN {
            0 => Kind::Single,
            TCP_V4 => Kind::Tcp4,
            TCP_V6 => Kind::Tcp6,
            UDP => Kind::Udp,
            _ => return None,
        };
        Some(Self {
            needs_checksum: bytes[0] & NEEDS_CHECKSUM != 0,
            checksum_valid: bytes[0] & CHECKSUM_VALID != 0,
            kind,
            ecn: bytes[1] & ECN != 0,
            headers: number(2),
            segment: number(4),
            checksum_start: number(6),
            checksum_offset: number(8),
        })
    }

    /// Its bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; LENGTH] {
        let mut bytes = [0; LENGTH];
        bytes[0] = if self.needs_checksum { NEEDS_CHECKSUM } else { 0 };
        bytes[0] |= if self.checksum_valid { CHECKSUM_VALID } else { 0 };
        bytes[1] = match self.kind {
            Kind::Single => 0,
            Kind::Tcp4 => TCP_V4,
            Kind::Tcp6 => TCP_V6,
            Kind::Udp => UDP,
        };
        bytes[1] |= if self.ecn { ECN } else { 0 };
        let numbers = [self.headers, self.segment, self.checksum_start, self.checksum_offset];
        for (to, number) in bytes[2..].as_chunks_mut::<2>().0.iter_mut().zip(numbers) {
            *to = number.to_ne_bytes();
        }
        bytes
    }
}
