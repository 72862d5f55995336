//! UDP sockets of the data path.

use std::{
    io,
    net::{IpAddr, SocketAddr, UdpSocket},
    os::fd::AsRawFd,
};

use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use super::offloads::{Offload, Offloads};
use crate::proto::probe::PROBE_PORT;

/// Buffer of a probe socket: some hundred probes, so that a short stall of this host loses none.
const PROBE_BUFFER: usize = 1 << 20;
/// Buffer of the tunnel's socket: 8 MiB, some milliseconds of 10 Gbit/s.
const TUNNEL_BUFFER: usize = 8 << 20;

/// A non-blocking UDP socket.
fn udp(address: SocketAddr, buffer: usize) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    // Beyond the system's limit with CAP_NET_ADMIN, else as far as it goes: a smaller buffer only loses more in a burst.
    if setsockopt(&socket, sockopt::RcvBufForce, &buffer).is_err() {
        socket.set_recv_buffer_size(buffer)?;
    }
    if setsockopt(&socket, sockopt::SndBufForce, &buffer).is_err() {
        socket.set_send_buffer_size(buffer)?;
    }
    socket.bind(&address.into())?;
    Ok(socket.into())
}

/// The socket that a lane's datagrams come and go by. It blocks when it sends what there is no room for; it tells the traffic
/// class of what it receives, and joins datagrams where that is on.
pub(crate) fn tunnel(address: SocketAddr, offloads: &Offloads) -> io::Result<UdpSocket> {
    let socket = udp(address, TUNNEL_BUFFER)?;
    socket.set_nonblocking(false)?;
    if address.is_ipv6() {
        setsockopt(&socket, sockopt::Ipv6RecvTClass, &true)?;
    } else {
        setsockopt(&socket, sockopt::IpRecvTos, &true)?;
    }
    if offloads.is_on(Offload::UdpGro) && setsockopt(&socket, sockopt::UdpGroSegment, &true).is_err() {
        offloads.switch_off(Offload::UdpGro);
    }
    Ok(socket)
}

mod ioctl {
    // SIOCOUTQ is TIOCOUTQ by another name (<linux/sockios.h>).
    nix::ioctl_read_bad!(outq, libc::TIOCOUTQ, libc::c_int);
}

/// Bytes of memory that what a socket still has to send takes (`man 7 udp`, SIOCOUTQ).
pub(crate) fn unsent(socket: &UdpSocket) -> usize {
    let mut bytes = 0;
    // SAFETY: the descriptor is open, and SIOCOUTQ writes an int.
    match unsafe { ioctl::outq(socket.as_raw_fd(), &raw mut bytes) } {
        Ok(_) => usize::try_from(bytes).unwrap_or(0),
        Err(_) => 0,
    }
}

/// How much a socket may have to send and still be said to have room (`sock_writeable` in <net/sock.h>: less than half of its
/// buffer).
pub(crate) fn most_unsent(socket: &UdpSocket) -> usize {
    SockRef::from(socket).send_buffer_size().map_or(TUNNEL_BUFFER, |bytes| bytes / 2)
}

/// A lane's socket that another process has made.
pub(crate) fn adopt(socket: UdpSocket, offloads: &Offloads) -> UdpSocket {
    if offloads.is_on(Offload::UdpGro) && setsockopt(&socket, sockopt::UdpGroSegment, &true).is_err() {
        offloads.switch_off(Offload::UdpGro);
    }
    socket
}

/// The socket that answers probes, and sends those of the tunnel, on one address.
pub(crate) fn reflector(address: IpAddr) -> io::Result<UdpSocket> {
    udp(SocketAddr::new(address, PROBE_PORT), PROBE_BUFFER)
}

/// The socket of source port `index` of the private bundle: fixed numbers after the reflector's, so that firewalls can be
/// told.
pub(crate) fn sender(address: IpAddr, index: u8) -> io::Result<UdpSocket> {
    udp(SocketAddr::new(address, PROBE_PORT + 1 + u16::from(index)), PROBE_BUFFER)
}
