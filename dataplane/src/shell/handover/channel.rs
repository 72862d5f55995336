//! Datagrams that the old process has received for the new one. A message is a run of them from one sender, whole and in order.

use std::{
    io::{self, IoSlice},
    net::{IpAddr, Ipv6Addr, SocketAddr},
    os::fd::{AsRawFd, OwnedFd},
    time::Duration,
};

use nix::sys::{
    socket::{
        AddressFamily, MsgFlags, SockFlag, SockType, recv, sendmsg, setsockopt, socketpair,
        sockopt::{ReceiveTimeout, SendTimeout, SndBufForce},
    },
    time::TimeVal,
};

use crate::shell::datagrams::Received;

/// Length of each datagram, port, traffic class, whether the address is of IPv4; then the address.
const HEAD: usize = 8 + 16;
/// A message: a head, and at most what one buffer receives.
const MESSAGE: usize = HEAD + (1 << 16);
/// Bytes that wait for the new process: some milliseconds of 10 Gbit/s.
const BUFFER: usize = 8 << 20;
/// Longest wait for a new process that does not take them; then it is dead.
const PATIENCE: Duration = Duration::from_secs(1);

/// One end.
#[derive(Debug)]
pub(crate) struct Channel(OwnedFd);

impl From<OwnedFd> for Channel {
    fn from(descriptor: OwnedFd) -> Self {
        Self(descriptor)
    }
}

impl From<Channel> for OwnedFd {
    fn from(channel: Channel) -> Self {
        channel.0
    }
}

fn time(duration: Duration) -> TimeVal {
    TimeVal::new(duration.as_secs() as _, duration.subsec_micros().into())
}

impl Channel {
    /// The end that gives, and the one that takes.
    pub(crate) fn pair() -> io::Result<(Self, Self)> {
        let (give, take) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
        // Without CAP_NET_ADMIN it is smaller, and the sender waits.
        if let Err(error) = setsockopt(&give, SndBufForce, &BUFFER) {
            tracing::debug!(%error, "the channel of a handover stays small");
        }
        setsockopt(&give, SendTimeout, &time(PATIENCE))?;
        Ok((Self(give), Self(take)))
    }

    /// Passes on datagrams; waits where the new process is slower.
    pub(crate) fn give(&self, received: Received, bytes: &[u8]) -> io::Result<()> {
        let mut head = [0; HEAD];
        // A buffer is below 2^32.
        head[..4].copy_from_slice(&(received.each as u32).to_le_bytes());
        head[4..6].copy_from_slice(&received.from.port().to_le_bytes());
        head[6] = received.class;
        head[7] = u8::from(received.from.is_ipv4());
        let address = match received.from.ip() {
            IpAddr::V4(address) => address.to_ipv6_mapped(),
            IpAddr::V6(address) => address,
        };
        head[8..].copy_from_slice(&address.octets());
        let pieces = [IoSlice::new(&head), IoSlice::new(bytes)];
        sendmsg::<()>(self.0.as_raw_fd(), &pieces, &[], MsgFlags::MSG_NOSIGNAL, None)?;
        Ok(())
    }
}

/// What the new process has not taken yet.
#[derive(Debug)]
pub(crate) struct Inbox {
    channel: Channel,
    buffer: Box<[u8]>,
}

impl Inbox {
    /// `nap`: the longest wait for a message.
    pub(crate) fn new(channel: Channel, nap: Duration) -> io::Result<Self> {
        setsockopt(&channel.0, ReceiveTimeout, &time(nap))?;
        Ok(Self { channel, buffer: vec![0; MESSAGE].into_boxed_slice() })
    }

    /// The next message; `None`: the old process has closed it. `wait`: for the nap, else not at all.
    pub(crate) fn take(&mut self, wait: bool) -> io::Result<Option<(Received, &[u8])>> {
        let flags = if wait { MsgFlags::empty() } else { MsgFlags::MSG_DONTWAIT };
        let length = recv(self.channel.0.as_raw_fd(), &mut self.buffer, flags)?;
        if length < HEAD {
            return Ok(None);
        }
        let (head, bytes) = self.buffer[..length].split_at(HEAD);
        let each = u32::from_le_bytes([head[0], head[1], head[2], head[3]]) as usize;
        let mut octets = [0; 16];
        octets.copy_from_slice(&head[8..]);
        let address = Ipv6Addr::from(octets);
        let ip = match address.to_ipv4_mapped().filter(|_| head[7] == 1) {
            Some(v4) => IpAddr::V4(v4),
            None => IpAddr::V6(address),
        };
        let from = SocketAddr::new(ip, u16::from_le_bytes([head[4], head[5]]));
        Ok(Some((Received { each: each.max(1), from, class: head[6] }, bytes)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_in_comes_out() {
        let (give, take) = Channel::pair().unwrap();
        let mut inbox = Inbox::new(take, Duration::from_millis(1)).unwrap();
        assert!(inbox.take(true).is_err() && inbox.take(false).is_err(), "nothing is there");
        let addresses: [SocketAddr; 2] = ["192.0.2.1:51820".parse().unwrap(), "[2001:db8::1]:7".parse().unwrap()];
        for (n, from) in (1..).zip(addresses) {
            let sent = Received { each: 1_452, from, class: 3 };
            give.give(sent, &vec![n; 50_000]).unwrap();
            let (received, bytes) = inbox.take(true).unwrap().unwrap();
            assert_eq!((received.each, received.from, received.class), (1_452, from, 3));
            assert!(bytes.len() == 50_000 && bytes.iter().all(|byte| *byte == n));
        }
        drop(give);
        assert!(inbox.take(true).unwrap().is_none());
    }
}
