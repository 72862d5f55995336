//! From decrypted packets to as few writes as the kernel allows.
//!
//! Packets of one flow that follow on each other become one super-packet, which the kernel's own segmentation would cut
//! into the same packets again. Their payloads are not moved: a group is a list of ranges of the buffer they were decrypted
//! into. Checksums are verified before packets join, since the kernel makes new ones for a super-packet: a damaged packet
//! travels alone, with its own.

use std::ops::Range;

use super::{
    MAX_SEGMENTS,
    checksum::{network_is_whole, pseudo_header, transport_is_whole, write_network},
    headers::{Headers, Transport},
    vnet::{Kind, VnetHeader},
};

/// How many groups back a flow is looked for.
const LOOK_BACK: usize = 16;
/// The largest IP packet, of either family with its fixed header.
const MAX_PACKET: usize = 65_535;
const ACK: u8 = 0x10;
const PSH: u8 = 0x08;
const NONE: u32 = u32::MAX;

/// Which packets may be joined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Joinable {
    /// TCP over IPv4.
    pub tcp4: bool,
    /// TCP over IPv6.
    pub tcp6: bool,
    /// UDP.
    pub udp: bool,
}

impl Joinable {
    /// All.
    pub const ALL: Self = Self { tcp4: true, tcp6: true, udp: true };

    const fn allows(self, kind: Kind) -> bool {
        match kind {
            Kind::Single => false,
            Kind::Tcp4 => self.tcp4,
            Kind::Tcp6 => self.tcp6,
            Kind::Udp => self.udp,
        }
    }
}

/// A packet in the buffer.
#[derive(Debug, Clone, Copy)]
struct Member {
    start: u32,
    end: u32,
    /// The next of its group.
    next: u32,
}

/// Packets that are written as one.
#[derive(Debug, Clone)]
struct Group {
    first: u32,
    last: u32,
    count: usize,
    /// `None`: nothing can join, and no later packet may go before it.
    headers: Option<Headers>,
    /// Spreads flows, so that most others are told apart at once.
    flow: u64,
    /// Payload bytes of the first packet.
    segment: usize,
    /// Bytes of the super-packet.
    total: usize,
    /// TCP: the sequence number that would follow.
    sequence: u32,
    /// IPv4: the identification that would follow.
    id: u16,
    /// TCP: the last packet has PSH.
    push: bool,
    closed: bool,
    /// Whether the first packet's checksums have been found right.
    verified: bool,
    /// What [`Coalescer::join`] wrote over.
    had: Former,
}

/// Fields of the first packet's headers.
#[derive(Debug, Clone, Copy, Default)]
struct Former {
    length: [u8; 2],
    network: [u8; 2],
    transport: [u8; 2],
    udp_length: [u8; 2],
    flags: u8,
}

/// Gathers the packets of one batch. It takes memory only when it is made.
#[derive(Debug)]
pub struct Coalescer {
    members: Vec<Member>,
    groups: Vec<Group>,
    capacity: usize,
    /// Groups before this one are closed to what comes.
    barrier: usize,
}

impl Coalescer {
    /// For batches of up to `capacity` packets.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        Self { members: Vec::with_capacity(capacity), groups: Vec::with_capacity(capacity), capacity, barrier: 0 }
    }

    /// Whether [`Self::push`] has no room.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.members.len() >= self.capacity
    }

    /// Writes that the batch takes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.groups.len()
    }

    /// Whether there is nothing to write.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }

    /// Forgets the batch.
    pub fn clear(&mut self) {
        self.members.clear();
        self.groups.clear();
        self.barrier = 0;
    }

    /// Takes the packet that stands at `range` of `buffer`. The caller sees to it that there is room, and that the buffer is
    /// below 4 GiB and stays as it is until [`Self::clear`].
    pub fn push(&mut self, buffer: &[u8], range: Range<usize>, joinable: Joinable) {
        let Some(packet) = buffer.get(range.clone()) else { return };
        let index = self.members.len() as u32;
        self.members.push(Member { start: range.start as u32, end: range.end as u32, next: NONE });
        let Some(headers) = Headers::read(packet) else {
            // Its flow is not known, so nothing may overtake it.
            self.groups.push(Group::alone(index, packet.len()));
            self.barrier = self.groups.len();
            return;
        };
        let flow = flow(packet, &headers);
        let from = self.barrier.max(self.groups.len().saturating_sub(LOOK_BACK));
        let found = self.groups[from..].iter().rposition(|group| group.flow == flow).map(|at| from + at);
        let kind = kind(&headers);
        let open = joins(packet, &headers) && joinable.allows(kind);
        if let Some(at) = found.filter(|_| open)
            && self.follows(at, buffer, packet, &headers)
        {
            let group = &mut self.groups[at];
            self.members[group.last as usize].next = index;
            group.append(index, packet, &headers);
            return;
        }
        self.groups.push(Group::start(index, packet, headers, flow, !open));
    }

    /// Whether the packet is the next of the group.
    fn follows(&mut self, at: usize, buffer: &[u8], packet: &[u8], headers: &Headers) -> bool {
        let group = &mut self.groups[at];
        let payload = packet.len() - headers.payload_at;
        if group.closed
            || group.headers != Some(*headers)
            || payload > group.segment
            || group.count == MAX_SEGMENTS
            || group.total + payload > MAX_PACKET
        {
            return false;
        }
        let member = self.members[group.first as usize];
        let first = &buffer[member.range()];
        if !same(first, packet, headers) || !group.is_next(packet, headers) {
            return false;
        }
        if !group.verified {
            group.verified = is_whole(first, headers);
            group.closed = !group.verified;
        }
        group.verified && is_whole(packet, headers)
    }

    /// Makes group `at` ready to be written: fills in the first packet's headers for the whole, and returns what goes before
    /// it. [`Self::pieces`] then says what to write.
    pub fn join(&mut self, at: usize, buffer: &mut [u8]) -> VnetHeader {
        let group = &mut self.groups[at];
        let member = self.members[group.first as usize];
        let Some(headers) = group.headers.filter(|_| group.count > 1) else {
            // Verified or not, the kernel looks itself; it may as well be told what is known.
            return VnetHeader { checksum_valid: group.verified, ..VnetHeader::default() };
        };
        let packet = &mut buffer[member.range()];
        group.had = Former::read(packet, &headers);
        let (transport, field) = (headers.transport_at, headers.transport_at + headers.transport.checksum_at());
        // Lengths are below 2^16: `follows` sees to it.
        let length = (group.total - transport) as u16;
        if headers.v6 {
            packet[4..6].copy_from_slice(&((group.total - 40) as u16).to_be_bytes());
        } else {
            packet[2..4].copy_from_slice(&(group.total as u16).to_be_bytes());
            write_network(packet, transport);
        }
        match headers.transport {
            // The kernel gives it to the last segment again.
            Transport::Tcp => packet[transport + 13] |= if group.push { PSH } else { 0 },
            Transport::Udp => packet[transport + 4..transport + 6].copy_from_slice(&length.to_be_bytes()),
        }
        let pseudo = pseudo_header(packet, headers.v6, headers.transport, usize::from(length)).folded();
        packet[field..field + 2].copy_from_slice(&pseudo);
        VnetHeader {
            needs_checksum: true,
            kind: kind(&headers),
            headers: headers.payload_at as u16,
            segment: group.segment as u16,
            checksum_start: transport as u16,
            checksum_offset: headers.transport.checksum_at() as u16,
            ..VnetHeader::default()
        }
    }

    /// Undoes [`Self::join`], for a kernel that did not take the super-packet; [`Self::packets`] then says what to write.
    pub fn part(&self, at: usize, buffer: &mut [u8]) {
        let group = &self.groups[at];
        let Some(headers) = group.headers.filter(|_| group.count > 1) else { return };
        group.had.write(&mut buffer[self.members[group.first as usize].range()], &headers);
    }

    /// The packets of group `at`, in order.
    pub fn packets(&self, at: usize) -> impl Iterator<Item = Range<usize>> + '_ {
        let mut next = self.groups[at].first;
        std::iter::from_fn(move || {
            let member = self.members.get(next as usize)?;
            next = member.next;
            Some(member.range())
        })
    }

    /// What to write for group `at`, in order: the first packet whole, and the payloads of the others.
    pub fn pieces(&self, at: usize) -> impl Iterator<Item = Range<usize>> + '_ {
        let headers = self.groups[at].headers.map_or(0, |headers| headers.payload_at);
        let skip = std::iter::once(0).chain(std::iter::repeat(headers));
        self.packets(at).zip(skip).map(|(range, skip)| range.start + skip..range.end)
    }
}

impl Member {
    fn range(self) -> Range<usize> {
        self.start as usize..self.end as usize
    }
}

impl Group {
    fn alone(index: u32, length: usize) -> Self {
        Self {
            first: index,
            last: index,
            count: 1,
            headers: None,
            flow: 0,
            segment: 0,
            total: length,
            sequence: 0,
            id: 0,
            push: false,
            closed: true,
            verified: false,
            had: Former::default(),
        }
    }

    fn start(index: u32, packet: &[u8], headers: Headers, flow: u64, closed: bool) -> Self {
        let segment = packet.len() - headers.payload_at;
        let mut group = Self { headers: Some(headers), flow, segment, ..Self::alone(index, packet.len()) };
        group.closed = closed;
        group.take(packet, &headers);
        group
    }

    fn append(&mut self, index: u32, packet: &[u8], headers: &Headers) {
        self.last = index;
        self.count += 1;
        self.total += packet.len() - headers.payload_at;
        self.take(packet, headers);
    }

    /// What the packet means for the one after it.
    fn take(&mut self, packet: &[u8], headers: &Headers) {
        let payload = packet.len() - headers.payload_at;
        if headers.transport == Transport::Tcp {
            let tcp = &packet[headers.transport_at..];
            self.sequence = sequence(tcp).wrapping_add(payload as u32);
            self.push = tcp[13] & PSH != 0;
        }
        if !headers.v6 {
            self.id = u16::from_be_bytes([packet[4], packet[5]]).wrapping_add(1);
        }
        self.closed |= payload < self.segment || self.push;
    }

    /// Whether sequence number and identification go on.
    fn is_next(&self, packet: &[u8], headers: &Headers) -> bool {
        let tcp = headers.transport == Transport::Tcp;
        if tcp && sequence(&packet[headers.transport_at..]) != self.sequence {
            return false;
        }
        // The kernel counts identifications up. That of a packet with DF means nothing (RFC 6864, section 4.1).
        headers.v6 || packet[6] & 0x40 != 0 || u16::from_be_bytes([packet[4], packet[5]]) == self.id
    }
}

impl Former {
    fn read(packet: &[u8], headers: &Headers) -> Self {
        let two = |at: usize| [packet[at], packet[at + 1]];
        let transport = headers.transport_at;
        Self {
            length: two(if headers.v6 { 4 } else { 2 }),
            network: two(10),
            transport: two(transport + headers.transport.checksum_at()),
            udp_length: two(transport + 4),
            flags: packet.get(transport + 13).copied().unwrap_or(0),
        }
    }

    fn write(&self, packet: &mut [u8], headers: &Headers) {
        let mut put = |at: usize, two: [u8; 2]| packet[at..at + 2].copy_from_slice(&two);
        let transport = headers.transport_at;
        put(if headers.v6 { 4 } else { 2 }, self.length);
        if !headers.v6 {
            put(10, self.network);
        }
        put(transport + headers.transport.checksum_at(), self.transport);
        match headers.transport {
            Transport::Tcp => packet[transport + 13] = self.flags,
            Transport::Udp => put(transport + 4, self.udp_length),
        }
    }
}

fn sequence(tcp: &[u8]) -> u32 {
    u32::from_be_bytes([tcp[4], tcp[5], tcp[6], tcp[7]])
}

fn kind(headers: &Headers) -> Kind {
    match (headers.transport, headers.v6) {
        (Transport::Tcp, false) => Kind::Tcp4,
        (Transport::Tcp, true) => Kind::Tcp6,
        (Transport::Udp, _) => Kind::Udp,
    }
}

/// Whether a packet may be part of a super-packet at all: data, and nothing that only one segment could say.
fn joins(packet: &[u8], headers: &Headers) -> bool {
    let transport = &packet[headers.transport_at..];
    let plain = match headers.transport {
        Transport::Tcp => transport[13] & !PSH == ACK,
        // Without a checksum it would come out with one.
        Transport::Udp => transport[6..8] != [0, 0],
    };
    // IPv4 options are not all for every segment.
    plain && packet.len() > headers.payload_at && (headers.v6 || headers.transport_at == 20)
}

fn is_whole(packet: &[u8], headers: &Headers) -> bool {
    network_is_whole(packet, headers) && transport_is_whole(packet, headers)
}

/// Whether two packets with equal [`Headers`] differ only in what segmentation makes different: lengths, identification,
/// sequence number, PSH and checksums.
fn same(one: &[u8], other: &[u8], headers: &Headers) -> bool {
    let equal = |range: Range<usize>| one[range.clone()] == other[range];
    let network = if headers.v6 {
        equal(0..4) && equal(6..40)
    } else {
        equal(0..2) && equal(6..10) && equal(12..headers.transport_at)
    };
    let at = headers.transport_at;
    let transport = match headers.transport {
        Transport::Tcp => equal(at + 8..at + 13) && equal(at + 14..at + 16) && equal(at + 18..headers.payload_at),
        Transport::Udp => true,
    };
    network && equal(at..at + 4) && transport
}

/// A number for addresses, ports and protocol. Two flows with the same are only kept in order with each other.
fn flow(packet: &[u8], headers: &Headers) -> u64 {
    let addresses = if headers.v6 { &packet[8..40] } else { &packet[12..20] };
    let ports = &packet[headers.transport_at..headers.transport_at + 4];
    let words = addresses.as_chunks::<4>().0.iter().chain(ports.as_chunks::<4>().0);
    // Never 0, which is what a group without a flow has.
    1 | words.fold(u64::from(headers.transport.protocol()), |hash, word| {
        (hash ^ u64::from(u32::from_ne_bytes(*word))).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29)
    })
}
