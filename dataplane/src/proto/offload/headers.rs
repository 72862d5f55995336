//! Where the headers of an inner packet end.

/// The transports that can be segmented.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// RFC 9293.
    Tcp,
    /// RFC 768.
    Udp,
}

impl Transport {
    /// The number in the IP header.
    #[must_use]
    pub const fn protocol(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
        }
    }

    /// Where the checksum stands in the transport header.
    #[must_use]
    pub const fn checksum_at(self) -> usize {
        match self {
            Self::Tcp => 16,
            Self::Udp => 6,
        }
    }

    /// The length of the transport header at the beginning of `bytes`; `None` when it is not whole.
    #[must_use]
    pub fn header_length(self, bytes: &[u8]) -> Option<usize> {
        let length = match self {
            Self::Tcp => usize::from(bytes.get(12)? >> 4) * 4,
            Self::Udp => 8,
        };
        let least = if self == Self::Tcp { 20 } else { 8 };
        (length >= least && length <= bytes.len()).then_some(length)
    }
}

/// Headers of a whole, unfragmented TCP or UDP packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Headers {
    /// Whether it is IPv6.
    pub v6: bool,
    /// What it carries.
    pub transport: Transport,
    /// Where the transport header starts.
    pub transport_at: usize,
    /// Where the payload starts.
    pub payload_at: usize,
}

impl Headers {
    /// Reads them. `None` for everything else: other protocols, fragments, IPv6 with extension headers, packets whose
    /// length field does not agree with their length.
    #[must_use]
    pub fn read(packet: &[u8]) -> Option<Self> {
        let (v6, transport_at, protocol) = match packet.first()? >> 4 {
            4 => {
                let length = usize::from(packet[0] & 0x0f) * 4;
                let fragment = u16::from_be_bytes([*packet.get(6)?, *packet.get(7)?]) & 0x3fff;
                let whole = usize::from(u16::from_be_bytes([packet[2], packet[3]])) == packet.len();
                if length < 20 || length > packet.len() || fragment != 0 || !whole {
                    return None;
                }
                (false, length, packet[9])
            }
            6 => {
                let length = usize::from(u16::from_be_bytes([*packet.get(4)?, *packet.get(5)?]));
                if packet.len() < 40 || length + 40 != packet.len() {
                    return None;
                }
                (true, 40, packet[6])
            }
            _ => return None,
        };
        let transport = match protocol {
            6 => Transport::Tcp,
            17 => Transport::Udp,
            _ => return None,
        };
        let length = transport.header_length(&packet[transport_at..])?;
        if transport == Transport::Udp {
            let said = usize::from(u16::from_be_bytes([packet[transport_at + 4], packet[transport_at + 5]]));
            if said != packet.len() - transport_at {
                return None;
            }
        }
        Some(Self { v6, transport, transport_at, payload_at: transport_at + length })
    }
}
