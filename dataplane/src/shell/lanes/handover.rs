//! The lanes' part of a hot restart: see [`handover`](crate::shell::handover).

use std::{
    os::fd::{AsFd, OwnedFd},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use super::Lanes;
use crate::{
    proto::tunnel::{Addressed, HALF, addressed},
    shell::{
        datagrams::Received,
        handover::{
            GivenLane,
            channel::{Channel, Inbox},
        },
    },
};

/// What passes between the old process and the new one.
#[derive(Debug, Default)]
pub(crate) struct Handover {
    /// Whether this process's indices are of the upper half.
    pub(crate) upper: bool,
    /// What the old process passes on, a lane; taken by the lanes' threads.
    inboxes: Mutex<Vec<Option<Inbox>>>,
    /// The old process still reads.
    waits: AtomicBool,
    /// A new process is to take over.
    gives: AtomicBool,
    outboxes: Mutex<Option<Arc<Vec<Channel>>>>,
    /// Nothing is carried any more: the new process does.
    pub(crate) ends: AtomicBool,
    /// Nothing is to be removed at the end: it is the new process's.
    pub(crate) leaves: AtomicBool,
}

impl Handover {
    /// For a process that takes another's place.
    pub(crate) fn take(upper: bool, inboxes: Vec<Inbox>) -> Self {
        let inboxes = Mutex::new(inboxes.into_iter().map(Some).collect());
        Self { upper, inboxes, waits: AtomicBool::new(true), ..Self::default() }
    }

    /// The first index of this process's lanes.
    pub(crate) fn base(&self) -> u32 {
        if self.upper { HALF } else { 0 }
    }

    /// Whether the old process still reads the network and the device.
    pub(crate) fn waits(&self) -> bool {
        self.waits.load(Ordering::Acquire)
    }

    /// The old process has stopped.
    pub(crate) fn begin(&self) {
        self.waits.store(false, Ordering::Release);
    }

    /// Whether a new process is to take over.
    pub(crate) fn gives(&self) -> bool {
        self.gives.load(Ordering::Acquire)
    }

    pub(super) fn inbox(&self, n: usize) -> Option<Inbox> {
        self.inboxes.lock().unwrap_or_else(PoisonError::into_inner).get_mut(n)?.take()
    }

    /// Where what is for the new process goes.
    pub(super) fn outboxes(&self) -> Option<Arc<Vec<Channel>>> {
        if !self.gives() {
            return None;
        }
        self.outboxes.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Nothing is passed on any more, which the new process sees at once.
    pub(crate) fn close(&self) {
        *self.outboxes.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Nobody takes over after all.
    pub(crate) fn withdraw(&self) {
        self.gives.store(false, Ordering::Release);
        self.close();
    }

    /// Whether a datagram is for the new process: an initiation, or something for an index of the other half.
    fn is_for_the_other(&self, datagram: &[u8]) -> bool {
        match addressed(datagram) {
            Some(Addressed::Initiation) => true,
            Some(Addressed::Data(index) | Addressed::Handshake(index)) => (index >= HALF) != self.upper,
            None => false,
        }
    }

    /// Cuts what one buffer received into runs that are for the new process, or not.
    pub(super) fn runs<'a>(&self, received: Received, bytes: &'a [u8]) -> Vec<(bool, &'a [u8])> {
        let mut runs: Vec<(bool, usize)> = Vec::new();
        for datagram in bytes.chunks(received.each) {
            let other = self.is_for_the_other(datagram);
            match runs.last_mut() {
                Some((last, length)) if *last == other => *length += datagram.len(),
                Some(_) | None => runs.push((other, datagram.len())),
            }
        }
        let mut rest = bytes;
        let cut = |(other, length)| {
            let (run, after) = rest.split_at(length);
            rest = after;
            (other, run)
        };
        runs.into_iter().map(cut).collect()
    }
}

impl Lanes {
    /// Copies of the lanes' descriptors for a new process; from now on what is for it is passed on.
    pub(crate) fn give(&self) -> std::io::Result<Vec<GivenLane>> {
        let (mut outboxes, mut given) = (Vec::new(), Vec::new());
        for own in &self.own {
            let (give, take) = Channel::pair()?;
            outboxes.push(give);
            given.push(GivenLane {
                tun: own.tun.as_fd().try_clone_to_owned()?,
                socket: own.socket.as_fd().try_clone_to_owned()?,
                channel: OwnedFd::from(take),
            });
        }
        *self.handover.outboxes.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(outboxes));
        self.handover.gives.store(true, Ordering::Release);
        Ok(given)
    }

    /// Number and peer's key of the lanes that are heard.
    pub(crate) fn alive(&self) -> Vec<(usize, [u8; 32])> {
        let table = self.table();
        let peers = table.by_index.values().map(|(peer, _)| peer);
        peers.filter(|peer| peer.alive.load(Ordering::Relaxed)).map(|peer| (peer.n, peer.key)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_cut_where_the_receiver_changes() {
        let data = |index: u32| {
            let mut datagram = vec![0; 32];
            datagram[0] = 4;
            // The generation and the session are the low ten bits.
            datagram[4..8].copy_from_slice(&(index << 10).to_le_bytes());
            datagram
        };
        let bytes = [data(1), data(2), data(HALF + 1), data(HALF), data(3)].concat();
        let received = Received { each: 32, from: "192.0.2.1:1".parse().unwrap(), class: 0 };
        let runs = |upper| {
            let handover = Handover { upper, ..Handover::default() };
            handover.runs(received, &bytes).into_iter().map(|(other, run)| (other, run.len() / 32)).collect::<Vec<_>>()
        };
        assert_eq!(runs(false), [(false, 2), (true, 2), (false, 1)]);
        assert_eq!(runs(true), [(true, 2), (false, 2), (true, 1)]);
    }
}
