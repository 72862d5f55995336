//! Datagrams in batches: UDP_SEGMENT out, recvmmsg with UDP_GRO in (`man 7 udp`, `man 2 recvmmsg`).

use std::{
    io, mem,
    net::{SocketAddr, SocketAddrV4, SocketAddrV6, UdpSocket},
    os::fd::AsRawFd,
};

use socket2::SockAddr;

use super::offloads::{Offload, Offloads};

/// Room for control messages: traffic class and segment length.
const CONTROL: usize = 64;
/// Buffers of one recvmmsg.
const BUFFERS: usize = 8;
/// Bytes of each: the longest datagram, or batch of them.
const BUFFER: usize = 1 << 16;

/// Control data, aligned as `cmsghdr` wants it.
#[repr(C, align(8))]
#[derive(Clone, Copy)]
struct Control([u8; CONTROL]);

/// Datagrams of one length, the last of which may be shorter, to one address with one traffic class.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Batch<'a> {
    /// One after the other.
    pub(crate) bytes: &'a [u8],
    /// Bytes of each but the last.
    pub(crate) each: usize,
    /// DSCP and ECN.
    pub(crate) class: u8,
    pub(crate) to: SocketAddr,
}

/// What became of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sent {
    /// It is on its way, or lost as on any network.
    Gone,
    /// Its datagrams are longer than the way takes in one piece, by what the kernel knows of it.
    TooLong,
}

/// Sends one datagram with DF and by the interface's MTU alone, whatever ICMP messages have told the kernel
/// (IP_PMTUDISC_PROBE, `man 7 ip`). What other threads send meanwhile has DF anyway, unless it is too long for the way.
pub(crate) fn send_whole(socket: &UdpSocket, batch: Batch<'_>) -> Sent {
    let v6 = batch.to.is_ipv6();
    let probing = if v6 { libc::IPV6_PMTUDISC_PROBE } else { libc::IP_PMTUDISC_PROBE };
    let usual = if v6 { libc::IPV6_PMTUDISC_WANT } else { libc::IP_PMTUDISC_WANT };
    if let Err(error) = discover(socket, v6, probing) {
        lost(&error, batch.to);
        return Sent::Gone;
    }
    let sent = send_message(socket, batch.bytes, &SockAddr::from(batch.to), v6, batch.class, None);
    if let Err(error) = discover(socket, v6, usual) {
        tracing::warn!(%error, "a socket sends only what fits the way in one piece from now on");
    }
    match sent {
        Err(error) if error.raw_os_error() == Some(libc::EMSGSIZE) => Sent::TooLong,
        Err(error) => {
            lost(&error, batch.to);
            Sent::Gone
        }
        Ok(()) => Sent::Gone,
    }
}

fn discover(socket: &UdpSocket, v6: bool, how: libc::c_int) -> io::Result<()> {
    let (level, name) =
        if v6 { (libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER) } else { (libc::IPPROTO_IP, libc::IP_MTU_DISCOVER) };
    // SAFETY: the descriptor is open, and the option's value is an int of the length that is given.
    let set = unsafe {
        libc::setsockopt(socket.as_raw_fd(), level, name, (&raw const how).cast(), size_of::<libc::c_int>() as _)
    };
    if set < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Sends a batch, in one call where that is on. What the network does not take is lost, as on any network.
pub(crate) fn send(socket: &UdpSocket, offloads: &Offloads, batch: Batch<'_>) -> Sent {
    let to = SockAddr::from(batch.to);
    let v6 = batch.to.is_ipv6();
    let mut sent = Sent::Gone;
    if batch.bytes.len() > batch.each && offloads.batches(batch.each) {
        match send_message(socket, batch.bytes, &to, v6, batch.class, Some(batch.each)) {
            Ok(()) => {
                offloads.count(Offload::UdpGso, batch.bytes.len().div_ceil(batch.each));
                return sent;
            }
            Err(error) => match error.raw_os_error() {
                Some(errno @ (libc::EINVAL | libc::EIO | libc::EMSGSIZE)) => {
                    offloads.refuse_batch(errno, batch.each);
                    if errno != libc::EIO {
                        sent = Sent::TooLong;
                    }
                }
                _ => {
                    offloads.lose(batch.bytes.len().div_ceil(batch.each));
                    lost(&error, batch.to);
                    return sent;
                }
            },
        }
    }
    for datagram in batch.bytes.chunks(batch.each.max(1)) {
        if let Err(error) = send_message(socket, datagram, &to, v6, batch.class, None) {
            if error.raw_os_error() == Some(libc::EMSGSIZE) {
                sent = Sent::TooLong;
            }
            offloads.lose(1);
            lost(&error, batch.to);
        }
    }
    sent
}

fn lost(error: &io::Error, to: SocketAddr) {
    tracing::trace!(%to, %error, "a datagram was not sent");
}

fn send_message(
    socket: &UdpSocket,
    bytes: &[u8],
    to: &SockAddr,
    v6: bool,
    class: u8,
    each: Option<usize>,
) -> io::Result<()> {
    let mut control = Control([0; CONTROL]);
    let mut length = 0;
    if class != 0 {
        let (level, kind) = if v6 { (libc::IPPROTO_IPV6, libc::IPV6_TCLASS) } else { (libc::IPPROTO_IP, libc::IP_TOS) };
        length += control.put(length, level, kind, &libc::c_int::from(class).to_ne_bytes());
    }
    if let Some(each) = each {
        // A datagram is below 2^16.
        length += control.put(length, libc::SOL_UDP, libc::UDP_SEGMENT, &(each as u16).to_ne_bytes());
    }
    let mut piece = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    // SAFETY: `msghdr` is plain old data, for which all zeroes is a value.
    let mut message: libc::msghdr = unsafe { mem::zeroed() };
    message.msg_name = to.as_ptr().cast_mut().cast();
    message.msg_namelen = to.len();
    message.msg_iov = &raw mut piece;
    message.msg_iovlen = 1;
    message.msg_control = if length == 0 { std::ptr::null_mut() } else { control.0.as_mut_ptr().cast() };
    message.msg_controllen = length as _;
    // SAFETY: name, piece and control are valid for the length of the call, which only reads them.
    let sent = unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const message, 0) };
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

impl Control {
    /// Writes a control message at `at`, and returns the room that it takes.
    fn put(&mut self, at: usize, level: libc::c_int, kind: libc::c_int, value: &[u8]) -> usize {
        // SAFETY: both only compute lengths.
        let (length, space) =
            unsafe { (libc::CMSG_LEN(value.len() as _) as usize, libc::CMSG_SPACE(value.len() as _) as usize) };
        let header = length - value.len();
        let bytes = &mut self.0[at..at + space];
        // struct cmsghdr: the length as size_t, then level and type.
        bytes[..size_of::<usize>()].copy_from_slice(&length.to_ne_bytes());
        let after = size_of::<usize>();
        bytes[after..after + 4].copy_from_slice(&level.to_ne_bytes());
        bytes[after + 4..after + 8].copy_from_slice(&kind.to_ne_bytes());
        bytes[header..header + value.len()].copy_from_slice(value);
        space
    }
}

/// What one buffer received.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Received {
    /// Bytes of each datagram in it but the last.
    pub(crate) each: usize,
    pub(crate) from: SocketAddr,
    /// DSCP and ECN.
    pub(crate) class: u8,
}

/// Buffers to receive into.
pub(crate) struct Receiver {
    buffers: Box<[u8]>,
    names: [libc::sockaddr_storage; BUFFERS],
    controls: [Control; BUFFERS],
}

impl Receiver {
    pub(crate) fn new() -> Self {
        Self {
            buffers: vec![0; BUFFERS * BUFFER].into_boxed_slice(),
            // SAFETY: `sockaddr_storage` is plain old data, for which all zeroes is a value.
            names: unsafe { mem::zeroed() },
            controls: [Control([0; CONTROL]); BUFFERS],
        }
    }

    /// Takes the datagrams that are there and fit, without waiting. `take` gets each buffer's bytes.
    pub(crate) fn receive(&mut self, socket: &UdpSocket, mut take: impl FnMut(Received, &[u8])) -> io::Result<()> {
        // SAFETY: `iovec` and `mmsghdr` are plain old data, for which all zeroes is a value.
        let (mut pieces, mut messages): ([libc::iovec; BUFFERS], [libc::mmsghdr; BUFFERS]) = unsafe { mem::zeroed() };
        let buffers = self.buffers.chunks_exact_mut(BUFFER).zip(&mut self.names).zip(&mut self.controls);
        for (((buffer, name), control), (piece, message)) in buffers.zip(pieces.iter_mut().zip(&mut messages)) {
            *piece = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: BUFFER };
            let header = &mut message.msg_hdr;
            header.msg_iov = &raw mut *piece;
            header.msg_iovlen = 1;
            header.msg_name = (&raw mut *name).cast();
            header.msg_namelen = size_of::<libc::sockaddr_storage>() as _;
            header.msg_control = control.0.as_mut_ptr().cast();
            header.msg_controllen = CONTROL as _;
        }
        // SAFETY: every message points to a buffer, a name and control data of its own, all valid for the call.
        let count = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                messages.as_mut_ptr(),
                BUFFERS as _,
                libc::MSG_DONTWAIT as _,
                std::ptr::null_mut(),
            )
        };
        if count < 0 {
            return Err(io::Error::last_os_error());
        }
        for (n, message) in messages.iter().enumerate().take(count as usize) {
            let length = message.msg_len as usize;
            // What was cut short cannot be authentic.
            if length == 0 || message.msg_hdr.msg_flags & libc::MSG_TRUNC != 0 {
                continue;
            }
            let Some(from) = address(&self.names[n]) else { continue };
            let (each, class) = control(&message.msg_hdr);
            let each = each.filter(|each| *each > 0).unwrap_or(length);
            take(Received { each, from, class }, &self.buffers[n * BUFFER..n * BUFFER + length]);
        }
        Ok(())
    }
}

/// Segment length and traffic class.
fn control(message: &libc::msghdr) -> (Option<usize>, u8) {
    let (mut each, mut class) = (None, 0);
    // SAFETY: the kernel has filled the control data that `message` points to, and its length; the macros stay within it.
    let mut next = unsafe { libc::CMSG_FIRSTHDR(message) };
    // SAFETY: not null, and within the control data.
    while let Some(header) = unsafe { next.as_ref() } {
        // SAFETY: points directly after the header, to a value of the length that the header says.
        let data = unsafe { libc::CMSG_DATA(header) };
        // SAFETY: the kernel gives an int for UDP_GRO and IPV6_TCLASS, and a byte for IP_TOS; unaligned reads.
        unsafe {
            match (header.cmsg_level, header.cmsg_type) {
                (libc::SOL_UDP, libc::UDP_GRO) => {
                    each = usize::try_from(data.cast::<libc::c_int>().read_unaligned()).ok();
                }
                (libc::IPPROTO_IP, libc::IP_TOS) => class = data.read(),
                (libc::IPPROTO_IPV6, libc::IPV6_TCLASS) => class = data.cast::<libc::c_int>().read_unaligned() as u8,
                _ => {}
            }
        }
        // SAFETY: `header` is within the control data of `message`.
        next = unsafe { libc::CMSG_NXTHDR(message, header) };
    }
    (each, class)
}

fn address(name: &libc::sockaddr_storage) -> Option<SocketAddr> {
    match libc::c_int::from(name.ss_family) {
        libc::AF_INET => {
            // SAFETY: the family says which structure it is, and the storage is large enough and aligned for each.
            let name = unsafe { &*(&raw const *name).cast::<libc::sockaddr_in>() };
            let ip = name.sin_addr.s_addr.to_ne_bytes();
            Some(SocketAddrV4::new(ip.into(), u16::from_be(name.sin_port)).into())
        }
        libc::AF_INET6 => {
            // SAFETY: as above.
            let name = unsafe { &*(&raw const *name).cast::<libc::sockaddr_in6>() };
            let ip = name.sin6_addr.s6_addr.into();
            Some(SocketAddrV6::new(ip, u16::from_be(name.sin6_port), name.sin6_flowinfo, name.sin6_scope_id).into())
        }
        _ => None,
    }
}
