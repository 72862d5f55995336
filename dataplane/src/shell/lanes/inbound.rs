//! WireGuard to TUN.

use std::{
    io::{self, IoSlice},
    net::{IpAddr, SocketAddr},
    sync::{Arc, MutexGuard, atomic::Ordering},
};

use boringtun::noise::TunnResult;

use super::{
    Flow, Lanes, PeerLane,
    table::{Allowed, Table},
};
use crate::{
    proto::{
        offload::{MAX_SEGMENTS, coalesce::Coalescer, ecn},
        table::addresses,
        tunnel::{Addressed, Lane, MAX_HANDSHAKE, Output, TICK, addressed, initiator},
    },
    shell::{
        datagrams::{Received, Receiver},
        handover::channel::Inbox,
        offloads::Offload,
    },
};

/// Bytes decrypted before they are written: some buffers full, so that small datagrams are handled together and large ones
/// do not leave the cache.
const ARENA: usize = 160 << 10;
/// The longest datagram.
const MAX_DATAGRAM: usize = 65_535;
/// Packets decrypted before they are written.
const MAX_PACKETS: usize = 256;

/// The lane in use, locked for as long as datagrams are for it.
struct Held<'t> {
    peer: &'t PeerLane,
    allowed: &'t Allowed,
    lane: MutexGuard<'t, Lane>,
    /// The addresses that were looked up last, and what they may: a run of packets is of few flows.
    seen: Option<((IpAddr, IpAddr), Option<&'t Flow>)>,
}

/// One lane's way in.
pub(super) struct Inbound<'a> {
    lanes: &'a Lanes,
    /// The lane, and its queue of the TUN device.
    n: usize,
    arena: Box<[u8]>,
    used: usize,
    coalescer: Coalescer,
}

impl<'a> Inbound<'a> {
    pub(super) fn new(lanes: &'a Lanes, n: usize) -> Self {
        let arena = vec![0; ARENA].into_boxed_slice();
        Self { lanes, n, arena, used: 0, coalescer: Coalescer::new(MAX_PACKETS) }
    }

    /// Decrypts and writes what the socket has, up to `receiver`'s buffers. Returns whether there was something.
    pub(super) fn turn(&mut self, receiver: &mut Receiver) -> bool {
        let lanes = self.lanes;
        let mut table: Option<Arc<Table>> = None;
        let received = receiver.receive(&lanes.own[self.n].socket, |received, bytes| {
            let table = table.get_or_insert_with(|| lanes.table());
            self.buffer(table, received, bytes);
        });
        self.write();
        // An error is that there is nothing, or an ICMP error for an earlier datagram; the next read is a new one.
        received.is_ok()
    }

    /// Takes what the old process has received for this one, until it receives nothing any more.
    pub(super) fn take_over(&mut self, mut inbox: Inbox) {
        while !self.lanes.stopped() {
            // After the old process has stopped, there is what it has sent, and no more.
            let waits = self.lanes.handover.waits();
            match inbox.take(waits) {
                Ok(Some((received, bytes))) => {
                    let table = self.lanes.table();
                    self.buffer(&table, received, bytes);
                    self.write();
                }
                // It has stopped, and will say so.
                Ok(None) if waits => std::thread::sleep(TICK / 100),
                // The nap.
                Err(_) if waits => {}
                Ok(None) | Err(_) => return,
            }
        }
    }

    /// What one buffer received: datagrams of one sender.
    fn buffer(&mut self, table: &Table, received: Received, bytes: &[u8]) {
        let Some(outboxes) = self.lanes.handover.outboxes() else { return self.own(table, received, bytes) };
        for (other, run) in self.lanes.handover.runs(received, bytes) {
            if !other {
                self.own(table, received, run);
                continue;
            }
            // What came before it comes out before it.
            self.write();
            if let Some(Err(error)) = outboxes.get(self.n).map(|outbox| outbox.give(received, run)) {
                tracing::debug!(%error, "the new process takes nothing");
                self.not_ours();
            }
        }
    }

    fn own(&mut self, table: &Table, received: Received, bytes: &[u8]) {
        let datagrams = bytes.len().div_ceil(received.each);
        if datagrams > 1 {
            self.lanes.offloads.count(Offload::UdpGro, datagrams);
        }
        let mut held = None;
        for datagram in bytes.chunks(received.each) {
            if self.coalescer.is_full() || self.arena.len() - self.used < datagram.len().max(MAX_HANDSHAKE) {
                held = None;
                self.write();
            }
            match addressed(datagram) {
                Some(Addressed::Data(index)) => self.data(table, &mut held, index, received, datagram),
                Some(Addressed::Handshake(index)) => {
                    held = None;
                    self.handshake(table, Some(index), received.from, datagram);
                }
                Some(Addressed::Initiation) => {
                    held = None;
                    self.handshake(table, None, received.from, datagram);
                }
                None => self.not_ours(),
            }
        }
    }

    fn bad_handshake(&self) {
        self.lanes.unclaimed.bad_handshakes.fetch_add(1, Ordering::Relaxed);
    }

    fn not_ours(&self) {
        self.lanes.unclaimed.not_ours.fetch_add(1, Ordering::Relaxed);
    }

    fn data<'t>(
        &mut self,
        table: &'t Table,
        held: &mut Option<Held<'t>>,
        index: u32,
        received: Received,
        datagram: &[u8],
    ) {
        if held.as_ref().is_none_or(|held| held.peer.index != index) {
            // Unlocks before it locks.
            *held = None;
            *held = self.hold(table, index);
        }
        let Some(held) = held else { return self.not_ours() };
        let at = self.used;
        match held.lane.decapsulate(received.from, datagram, &mut self.arena[at..]) {
            // A keepalive.
            Output::Nothing | Output::Send(_) => {}
            Output::Packet(packet) => {
                let Some(flow) = held.look_up(packet) else {
                    return held.lane.count_in(packet.len(), false);
                };
                if !ecn::decapsulate(received.class, packet) {
                    held.lane.counters.drops.congested += 1;
                    return;
                }
                held.lane.count_in(packet.len(), true);
                flow.clamp(packet);
                flow.bytes_in.fetch_add(packet.len() as u64, Ordering::Relaxed);
                let length = packet.len();
                self.coalescer.push(&self.arena, at..at + length, self.lanes.offloads.joinable());
                // The tag stood behind the packet, and the next begins on a line of the cache.
                self.used = (at + length).next_multiple_of(64).min(self.arena.len());
            }
        }
        // The first packet of a session is what tells the responder that it may use it.
        if held.lane.has_staged() {
            self.staged(&mut held.lane, received.from);
        }
    }

    fn hold<'t>(&self, table: &'t Table, index: u32) -> Option<Held<'t>> {
        let (peer, allowed) = table.by_index.get(&index).filter(|(peer, _)| peer.n == self.n)?;
        Some(Held { peer, allowed, lane: peer.lane(), seen: None })
    }

    /// A handshake message, for the lane that it names or, an initiation, for that of its sender. Its MAC, and under load
    /// its cookie, are checked before the costly part.
    fn handshake(&mut self, table: &Table, index: Option<u32>, from: SocketAddr, datagram: &[u8]) {
        let own = &self.lanes.own[self.n];
        if !own.shares.lets_in(from.ip()) {
            self.lanes.unclaimed.limited.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let mut out = [0; 2_048];
        match own.gate.verify_packet(Some(from.ip()), datagram, &mut out) {
            Ok(_) => {}
            Err(TunnResult::WriteToNetwork(cookie)) => {
                self.lanes.unclaimed.under_load.fetch_add(1, Ordering::Relaxed);
                return self.lanes.send(self.n, cookie, from);
            }
            Err(_) => return self.bad_handshake(),
        }
        let index = index.or_else(|| table.by_key.get(&initiator(&own.private, &own.public, datagram)?).copied());
        let found = index.and_then(|index| table.by_index.get(&index)).filter(|(peer, _)| peer.n == self.n);
        let Some((peer, _)) = found else { return self.bad_handshake() };
        let mut lane = peer.lane();
        if let Output::Send(answer) = lane.decapsulate(from, datagram, &mut out) {
            self.lanes.send(self.n, answer, from);
            // What was staged may be as long as a packet can be.
            self.staged(&mut lane, from);
        }
    }

    fn staged(&mut self, lane: &mut Lane, from: SocketAddr) {
        if self.arena.len() - self.used < MAX_DATAGRAM {
            self.write();
        }
        while let Output::Send(staged) = lane.staged(&mut self.arena[self.used..]) {
            self.lanes.send(self.n, staged, from);
        }
    }

    /// Writes what is decrypted, and makes room.
    fn write(&mut self) {
        for group in 0..self.coalescer.len() {
            if self.write_group(group).is_err() {
                self.lanes.unclaimed.tun_refused.fetch_add(1, Ordering::Relaxed);
            }
        }
        self.coalescer.clear();
        self.used = 0;
    }

    fn write_group(&mut self, group: usize) -> io::Result<()> {
        let header = self.coalescer.join(group, &mut self.arena);
        let tun = &self.lanes.own[self.n].tun;
        let encoded = header.encode();
        let mut pieces = [IoSlice::new(&[]); MAX_SEGMENTS + 1];
        pieces[0] = IoSlice::new(&encoded);
        let mut count = 1;
        for (piece, range) in pieces[1..].iter_mut().zip(self.coalescer.pieces(group)) {
            *piece = IoSlice::new(&self.arena[range]);
            count += 1;
        }
        match tun.write(&pieces[..count]) {
            Ok(()) => {
                self.lanes.offloads.count_write(header.kind, count - 1);
                Ok(())
            }
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) && count > 2 => {
                self.lanes.offloads.refuse_write(header.kind);
                self.coalescer.part(group, &mut self.arena);
                let none = crate::proto::offload::vnet::VnetHeader::default().encode();
                for range in self.coalescer.packets(group) {
                    tun.write(&[IoSlice::new(&none), IoSlice::new(&self.arena[range])])?;
                }
                Ok(())
            }
            Err(error) => Err(error),
        }
    }
}

impl<'t> Held<'t> {
    /// What the packet's addresses may; `None`: it is not the peer's to send.
    fn look_up(&mut self, packet: &[u8]) -> Option<&'t Flow> {
        let now = addresses(packet)?;
        if let Some((seen, flow)) = self.seen
            && seen == now
        {
            return flow;
        }
        let (source, destination) = now;
        let allowed =
            self.allowed.destinations.get(destination).and_then(|()| self.allowed.sources.get(source)).map(Arc::as_ref);
        self.seen = Some((now, allowed));
        allowed
    }
}
