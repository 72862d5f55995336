//! From a super-packet of the TUN device to packets.

use super::{
    checksum::{Sum, pseudo_header, write_network},
    headers::Transport,
    vnet::{Kind, VnetHeader},
};

/// Bytes that must stand behind the packet in its buffer, for [`Split::next`] to pad into.
pub const SLACK: usize = 16;
/// The longest headers that are split: 60 of IPv4 and 60 of TCP, or IPv6 with some extension headers.
const MAX_HEADERS: usize = 256;
/// TCP's FIN and PSH belong to the last segment, CWR to the first (RFC 3168, section 6.1.2).
const FIN_PSH: u8 = 0x09;
const CWR: u8 = 0x80;

/// The kernel's header and packet do not agree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the TUN device gave a packet that is not what its header says")]
pub struct SplitError;

/// One packet.
#[derive(Debug, PartialEq, Eq)]
pub struct Segment<'a> {
    /// The packet, padded with zeroes.
    pub padded: &'a mut [u8],
    /// Bytes of the packet itself.
    pub length: usize,
}

/// Cuts a super-packet into packets without moving its payload: the headers of each packet are written directly before
/// its part of the payload, over the end of the part before. So every packet must be used up before the next is asked for.
#[derive(Debug)]
pub struct Split<'a> {
    buffer: &'a mut [u8],
    /// End of the super-packet in the buffer.
    end: usize,
    mtu: usize,
    /// Where the payload that is left starts.
    at: usize,
    /// What the padding of the packet before covers.
    covered: ([u8; SLACK], usize),
    part: Option<Part>,
    done: bool,
}

/// What is needed for a super-packet.
#[derive(Debug)]
struct Part {
    v6: bool,
    transport: Transport,
    transport_at: usize,
    headers: [u8; MAX_HEADERS],
    length: usize,
    segment: usize,
    /// Number of the next segment.
    number: u16,
}

impl<'a> Split<'a> {
    /// `buffer` holds the packet in its first `length` bytes, and at least [`SLACK`] more. Packets are padded to a multiple
    /// of 16 bytes, as WireGuard wants it (whitepaper, section 5.4.6), but not above `mtu`.
    ///
    /// # Errors
    /// When header and packet do not agree.
    pub fn new(header: &VnetHeader, buffer: &'a mut [u8], length: usize, mtu: usize) -> Result<Self, SplitError> {
        if length == 0 || buffer.len() < length + SLACK {
            return Err(SplitError);
        }
        let part = match header.kind {
            Kind::Single => {
                if header.needs_checksum {
                    complete(header, &mut buffer[..length])?;
                }
                None
            }
            Kind::Tcp4 | Kind::Tcp6 => Some(Part::read(header, Transport::Tcp, &buffer[..length])?),
            Kind::Udp => Some(Part::read(header, Transport::Udp, &buffer[..length])?),
        };
        let at = part.as_ref().map_or(0, |part| part.length);
        Ok(Self { buffer, end: length, mtu, at, covered: ([0; SLACK], 0), part, done: false })
    }

    /// The next packet.
    #[expect(clippy::should_implement_trait, reason = "an iterator cannot lend its items")]
    pub fn next(&mut self) -> Option<Segment<'_>> {
        if self.done {
            return None;
        }
        let Some(part) = &mut self.part else {
            self.done = true;
            return Some(self.padded(0, self.end));
        };
        let (covered, count) = self.covered;
        self.buffer[self.at..self.at + count].copy_from_slice(&covered[..count]);
        let end = (self.at + part.segment).min(self.end);
        let start = self.at - part.length;
        self.done = end == self.end;
        part.write(&mut self.buffer[start..end], start, self.done);
        self.at = end;
        Some(self.padded(start, end))
    }

    fn padded(&mut self, start: usize, end: usize) -> Segment<'_> {
        let length = end - start;
        let padding = length.next_multiple_of(16).min(self.mtu.max(length)) - length;
        let tail = &mut self.buffer[end..end + padding];
        self.covered.0[..padding].copy_from_slice(tail);
        self.covered.1 = padding;
        tail.fill(0);
        Segment { padded: &mut self.buffer[start..end + padding], length }
    }
}

impl Part {
    fn read(header: &VnetHeader, transport: Transport, packet: &[u8]) -> Result<Self, SplitError> {
        let v6 = match (packet[0] >> 4, header.kind) {
            (4, Kind::Tcp4 | Kind::Udp) => false,
            (6, Kind::Tcp6 | Kind::Udp) => true,
            _ => return Err(SplitError),
        };
        let transport_at = usize::from(header.checksum_start);
        let network = if v6 { 40 } else { usize::from(packet[0] & 0x0f) * 4 };
        let after = packet.get(transport_at..).ok_or(SplitError)?;
        let length = transport_at + transport.header_length(after).ok_or(SplitError)?;
        let fits = if v6 { transport_at >= network } else { transport_at == network && network >= 20 };
        let segment = usize::from(header.segment);
        let right = usize::from(header.checksum_offset) == transport.checksum_at() && header.needs_checksum;
        if !fits || !right || segment == 0 || length >= packet.len() || length > MAX_HEADERS {
            return Err(SplitError);
        }
        let mut headers = [0; MAX_HEADERS];
        headers[..length].copy_from_slice(&packet[..length]);
        Ok(Self { v6, transport, transport_at, headers, length, segment, number: 0 })
    }

    /// Completes the packet whose payload, `offset` bytes into the whole, stands in its place already.
    fn write(&mut self, packet: &mut [u8], offset: usize, last: bool) {
        let total = packet.len();
        packet[..self.length].copy_from_slice(&self.headers[..self.length]);
        // Lengths are below 2^16: the super-packet's is.
        if self.v6 {
            packet[4..6].copy_from_slice(&((total - 40) as u16).to_be_bytes());
        } else {
            let id = u16::from_be_bytes([packet[4], packet[5]]).wrapping_add(self.number);
            packet[2..4].copy_from_slice(&(total as u16).to_be_bytes());
            packet[4..6].copy_from_slice(&id.to_be_bytes());
            write_network(packet, self.transport_at);
        }
        let transport = &mut packet[self.transport_at..];
        match self.transport {
            Transport::Tcp => {
                let sequence = u32::from_be_bytes([transport[4], transport[5], transport[6], transport[7]]);
                transport[4..8].copy_from_slice(&sequence.wrapping_add(offset as u32).to_be_bytes());
                if !last {
                    transport[13] &= !FIN_PSH;
                }
                if self.number > 0 {
                    transport[13] &= !CWR;
                }
            }
            Transport::Udp => {
                let length = (total - self.transport_at) as u16;
                transport[4..6].copy_from_slice(&length.to_be_bytes());
            }
        }
        let field = self.transport.checksum_at();
        transport[field..field + 2].fill(0);
        let pseudo = pseudo_header(packet, self.v6, self.transport, total - self.transport_at);
        let checksum = never_zero(pseudo.bytes(&packet[self.transport_at..]).checksum(), self.transport);
        packet[self.transport_at + field..self.transport_at + field + 2].copy_from_slice(&checksum);
        self.number = self.number.wrapping_add(1);
    }
}

/// Completes the checksum of a single packet: its field holds the pseudo header's sum.
fn complete(header: &VnetHeader, packet: &mut [u8]) -> Result<(), SplitError> {
    let start = usize::from(header.checksum_start);
    let field = start + usize::from(header.checksum_offset);
    if field + 2 > packet.len() {
        return Err(SplitError);
    }
    let udp = header.checksum_offset == 6;
    let transport = if udp { Transport::Udp } else { Transport::Tcp };
    let checksum = never_zero(Sum::default().bytes(&packet[start..]).checksum(), transport);
    packet[field..field + 2].copy_from_slice(&checksum);
    Ok(())
}

/// In UDP, zero means that there is no checksum; a checksum that comes out as zero is sent as all ones (RFC 768).
fn never_zero(checksum: [u8; 2], transport: Transport) -> [u8; 2] {
    if transport == Transport::Udp && checksum == [0, 0] { [0xff, 0xff] } else { checksum }
}
