//! TUN to WireGuard.

use std::{
    io,
    net::SocketAddr,
    sync::{MutexGuard, atomic::Ordering},
};

use super::{Flow, Lanes, NAP, PeerLane, table::Table};
use crate::{
    proto::{
        offload::{
            MAX_SEGMENTS, ecn,
            headers::{Headers, Transport},
            split::{SLACK, Segment, Split},
            vnet::{self, Kind, VnetHeader},
        },
        probe::{PROBE_LEN, PROBE_PORT},
        table::addresses,
        tunnel::{Lane, MAX_HANDSHAKE, OVERHEAD, Output, is_data},
    },
    shell::{
        datagrams::{self, Batch, Sent},
        offloads::Offload,
    },
};

/// The longest read of a TUN device: header, packet, and room to pad.
const MAX_READ: usize = vnet::LENGTH + 65_575 + SLACK;
/// Bytes gathered before they are encrypted: what one sending takes. More would only leave the cache before its turn.
const GATHER: usize = 32 << 10;
/// Packets gathered at most.
const MAX_READS: usize = 64;
/// The longest probe of the usual size, with its headers over IPv6; longer ones try a size.
const LONGEST_PROBE: usize = PROBE_LEN + 48;
/// Bytes that one UDP sending takes at most: 65,535 less the headers of IPv4 and UDP.
const MAX_SEND: usize = 65_507;

/// boringtun remembers this many message counters to tell replays. A lane's datagrams leave in the order of their counters,
/// but for handshakes, keepalives and staged packets, which other threads send past one batch: that must be far within it.
const REPLAY_WINDOW: usize = 1_024;
const _: () = assert!(MAX_SEGMENTS < REPLAY_WINDOW / 2);

/// The datagrams that go out next: encrypted one behind the other, to be sent in one call.
struct Out {
    buffer: Box<[u8]>,
    used: usize,
    count: usize,
    /// Bytes of each datagram but the last.
    each: usize,
    /// A shorter one is in: it is the last.
    closed: bool,
    class: u8,
    /// It is a probe of a size, which must not be cut to pieces.
    whole: bool,
    /// Index and number of the lane, and the peer's address.
    to: Option<(u32, usize, SocketAddr)>,
}

/// The lane in use, locked for as long as packets go to it.
type Held<'t> = Option<(&'t PeerLane, MutexGuard<'t, Lane>)>;

/// One lane's way out.
pub(super) struct Outbound<'a> {
    lanes: &'a Lanes,
    /// The queue of the TUN device.
    queue: usize,
    gathered: Box<[u8]>,
    out: Out,
    /// The lane by whose socket was sent last.
    sent_by: usize,
    /// Bytes sent since that socket was looked at.
    unlooked: usize,
}

impl<'a> Outbound<'a> {
    pub(super) fn new(lanes: &'a Lanes, queue: usize) -> Self {
        let gathered = vec![0; GATHER + MAX_READ].into_boxed_slice();
        Self { lanes, queue, gathered, out: Out::new(), sent_by: queue, unlooked: 0 }
    }

    /// Encrypts and sends what the TUN device has, up to a batch. Returns whether there was something.
    pub(super) fn turn(&mut self) -> bool {
        let mut reads = [0; MAX_READS];
        let (count, more) = self.gather(&mut reads);
        if count > 0 {
            let table = self.lanes.table();
            let mut gathered = std::mem::take(&mut self.gathered);
            self.carry(&table, &mut gathered, &reads[..count]);
            self.gathered = gathered;
        }
        // While there is more, what is left goes with what comes: a super-packet has some segments more than fit into one
        // sending.
        if !more {
            self.send();
        }
        count > 0
    }

    /// The lane whose socket has got so much that it is time to look whether it can take more.
    pub(super) fn due(&mut self) -> Option<usize> {
        (self.unlooked >= self.lanes.own[self.sent_by].most_unsent / 8).then(|| {
            self.unlooked = 0;
            self.sent_by
        })
    }

    /// Reads what is there, up to a batch. The reads stand one behind the other, each with room to pad. Returns their number,
    /// and whether there may be more.
    fn gather(&mut self, reads: &mut [usize; MAX_READS]) -> (usize, bool) {
        let (mut at, mut count) = (0, 0);
        while count < MAX_READS && at < GATHER {
            match self.lanes.own[self.queue].tun.read(&mut self.gathered[at..at + MAX_READ - SLACK]) {
                Ok(length) => {
                    reads[count] = length;
                    count += 1;
                    at += length + SLACK;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    if error.kind() != io::ErrorKind::WouldBlock {
                        // The device is gone: there is nothing to carry, either way.
                        tracing::debug!(%error, "the TUN device cannot be read");
                        std::thread::sleep(NAP);
                    }
                    return (count, false);
                }
            }
        }
        (count, true)
    }
}

impl Outbound<'_> {
    fn carry(&mut self, table: &Table, gathered: &mut [u8], reads: &[usize]) {
        let mut held = None;
        let mut at = 0;
        for length in reads {
            let end = at + length + SLACK;
            self.packet(table, &mut held, &mut gathered[at..end], *length);
            at = end;
        }
    }

    /// One read: a packet or super-packet after its header.
    fn packet<'t>(&mut self, table: &'t Table, held: &mut Held<'t>, read: &mut [u8], length: usize) {
        let unclaimed = &self.lanes.unclaimed;
        let Some(header) = VnetHeader::decode(read).filter(|_| length > vnet::LENGTH) else {
            unclaimed.tun_refused.fetch_add(1, Ordering::Relaxed);
            return;
        };
        let (packet, length) = (&mut read[vnet::LENGTH..], length - vnet::LENGTH);
        let found = addresses(&packet[..length]).and_then(|(_, to)| table.out.get(to));
        let Some((lane, flow)) = found.and_then(|(peer, flow)| Some((peer.lane_for(self.queue)?, flow))) else {
            unclaimed.no_peer.fetch_add(1, Ordering::Relaxed);
            return;
        };
        self.hold(held, lane);
        let class = ecn::traffic_class(packet).map_or(0, ecn::outer);
        if flow.probes && tries_size(&header, &packet[..length]) {
            // What is before it goes out first, and it alone after that.
            self.flush(held);
            self.out.whole = true;
            self.segments(held, &header, (packet, length), class, flow);
            self.flush(held);
        } else {
            self.segments(held, &header, (packet, length), class, flow);
        }
    }

    fn segments(
        &mut self,
        held: &mut Held<'_>,
        header: &VnetHeader,
        (packet, length): (&mut [u8], usize),
        class: u8,
        flow: &Flow,
    ) {
        let mtu = usize::from(flow.mtu_bytes.load(Ordering::Relaxed));
        let Ok(mut split) = Split::new(header, packet, length, mtu) else {
            self.lanes.unclaimed.tun_refused.fetch_add(1, Ordering::Relaxed);
            return;
        };
        let (mut bytes, mut count) = (0, 0);
        while let Some(segment) = split.next() {
            if header.kind == Kind::Single {
                flow.clamp(&mut segment.padded[..segment.length]);
            }
            bytes += segment.length as u64;
            count += 1;
            self.encrypt(held, &segment, class);
        }
        flow.bytes_out.fetch_add(bytes, Ordering::Relaxed);
        match header.kind {
            Kind::Single => {}
            Kind::Tcp4 | Kind::Tcp6 => self.lanes.offloads.count(Offload::TunTso, count),
            Kind::Udp => self.lanes.offloads.count(Offload::TunUso, count),
        }
    }

    fn encrypt(&mut self, held: &mut Held<'_>, segment: &Segment<'_>, class: u8) {
        if !self.out.has_room(segment.padded.len() + OVERHEAD, class) {
            self.flush(held);
        }
        let Some((peer, lane)) = held else { return };
        self.out.class = class;
        self.out.to = Some((peer.index, peer.n, lane.endpoint()));
        let Output::Send(datagram) =
            lane.encapsulate(segment.padded, segment.length, &mut self.out.buffer[self.out.used..])
        else {
            return;
        };
        let (length, alone) = (datagram.len(), !is_data(datagram));
        // There is no session, and this process shall not make one.
        if alone && self.lanes.handover.gives() {
            return;
        }
        if alone && self.out.count > 0 {
            // An initiation is of another length than what is before it.
            let initiation = <[u8; MAX_HANDSHAKE]>::try_from(&*datagram).unwrap_or([0; MAX_HANDSHAKE]);
            let to = self.out.to;
            self.flush(held);
            self.out.buffer[..MAX_HANDSHAKE].copy_from_slice(&initiation);
            self.out.to = to;
        }
        self.out.add(length);
        if alone {
            self.flush(held);
        }
    }

    /// Takes another lane; what was encrypted for the one before goes out first.
    fn hold<'t>(&mut self, held: &mut Held<'t>, lane: &'t PeerLane) {
        if held.as_ref().is_none_or(|(had, _)| had.index != lane.index) {
            *held = None;
            if self.out.to.is_some_and(|(index, ..)| index != lane.index) {
                self.send();
            }
            *held = Some((lane, lane.lane()));
        }
    }

    /// Sends what is encrypted, and goes on with the same lane, which is not locked meanwhile: its other direction goes on.
    fn flush(&mut self, held: &mut Held<'_>) {
        let Some((lane, guard)) = held.take() else { return };
        drop(guard);
        self.send();
        *held = Some((lane, lane.lane()));
    }

    /// Sends what is encrypted.
    pub(super) fn send(&mut self) {
        if let Some((index, n, to)) = self.out.to.filter(|_| self.out.used > 0) {
            let bytes = &self.out.buffer[..self.out.used];
            let batch = Batch { bytes, each: self.out.each, class: self.out.class, to };
            let socket = &self.lanes.own[n].socket;
            self.sent_by = n;
            self.unlooked += bytes.len();
            let sent = if self.out.whole {
                datagrams::send_whole(socket, batch)
            } else {
                datagrams::send(socket, &self.lanes.offloads, batch)
            };
            if sent == Sent::TooLong {
                self.lanes.refuse_size(index, self.out.each - OVERHEAD);
            }
        }
        self.out.clear();
    }
}

/// Whether a packet between two inner addresses is a probe of a size.
fn tries_size(header: &VnetHeader, packet: &[u8]) -> bool {
    let to = |headers: &Headers| packet[headers.transport_at + 2..headers.transport_at + 4] == PROBE_PORT.to_be_bytes();
    header.kind == Kind::Single
        && packet.len() > LONGEST_PROBE
        && Headers::read(packet).is_some_and(|headers| headers.transport == Transport::Udp && to(&headers))
}

impl Out {
    fn new() -> Self {
        // An initiation may stand where no datagram fits any more.
        let buffer = vec![0; MAX_SEND + MAX_READ].into_boxed_slice();
        Self { buffer, used: 0, count: 0, each: 0, closed: false, class: 0, whole: false, to: None }
    }

    fn has_room(&self, datagram: usize, class: u8) -> bool {
        self.count == 0
            || (!self.closed
                && datagram <= self.each
                && self.count < MAX_SEGMENTS
                && self.used + datagram <= MAX_SEND
                && self.class == class)
    }

    fn add(&mut self, datagram: usize) {
        if self.count == 0 {
            self.each = datagram;
        }
        self.closed |= datagram < self.each;
        self.used += datagram;
        self.count += 1;
    }

    fn clear(&mut self) {
        (self.used, self.count, self.each) = (0, 0, 0);
        (self.closed, self.whole, self.to) = (false, false, None);
    }
}
