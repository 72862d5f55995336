//! 802.1Q by a TAP and a packet socket on the trunk, relayed by a thread: what works in a user namespace.

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;
use std::thread::JoinHandle;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use socket2::{Domain, Protocol, Socket, Type};

use crate::net::error::NetError;
use crate::net::namespace::Namespace;
use crate::net::priority::prefer_this_thread;
use crate::net::tap::{MAX_FRAME, Offload, Tap};

/// Bytes of an 802.1Q header.
const TAG: usize = 4;
/// Where the tag stands in a frame: behind both addresses.
const ADDRESSES: usize = 12;
/// Frames moved in a row in one direction.
const BATCH: usize = 64;

/// A tagged interface that this process relays.
#[derive(Debug)]
pub(super) struct Relay {
    tap: Arc<Tap>,
    stop: Arc<EventFd>,
    thread: Option<JoinHandle<()>>,
}

impl Relay {
    pub(super) fn start(namespace: &Namespace, trunk: &str, name: &str, vlan: u16) -> Result<Self, NetError> {
        let fail = |operation| move |source| NetError::Vlan { interface: name.to_owned(), operation, source };
        let tap = Arc::new(Tap::create(namespace, name, Offload::None)?);
        let socket = namespace.run(|| listen(trunk))?.map_err(fail("listen on its trunk"))?;
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        let stop = Arc::new(EventFd::from_flags(flags).map_err(|e| fail("make its stop signal")(e.into()))?);
        let relayed = Relayed { tap: Arc::clone(&tap), socket, stop: Arc::clone(&stop), vlan };
        let thread = std::thread::Builder::new()
            .name(format!("vlan-{name}"))
            .spawn(move || relayed.run())
            .map_err(fail("start its thread"))?;
        Ok(Self { tap, stop, thread: Some(thread) })
    }

    pub(super) fn set_carrier(&self, on: bool) -> Result<(), NetError> {
        self.tap.set_carrier(on)
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        // An eventfd refuses a write only when its counter is full, and then it is readable all the same.
        let _ = self.stop.write(1);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A packet socket that hears every frame that arrives on the trunk, with its tag told apart.
fn listen(trunk: &str) -> io::Result<Socket> {
    // Unbound first (protocol 0), so that nothing of other interfaces is queued before the bind.
    let socket = Socket::new(Domain::PACKET, Type::RAW, None::<Protocol>)?;
    socket.set_nonblocking(true)?;
    set_option(&socket, libc::PACKET_AUXDATA)?;
    set_option(&socket, libc::PACKET_IGNORE_OUTGOING)?;
    // The most that the kernel grants is enough; a smaller queue only loses frames earlier.
    let _ = socket.set_recv_buffer_size(4 << 20);
    let index = nix::net::if_::if_nametoindex(trunk)?;
    // SAFETY: `sockaddr_ll` is plain data for which all zeroes are valid.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = (libc::ETH_P_ALL as u16).to_be();
    address.sll_ifindex = i32::try_from(index).map_err(|_| io::ErrorKind::InvalidInput)?;
    let length = std::mem::size_of_val(&address) as libc::socklen_t;
    // SAFETY: the address is a live `sockaddr_ll` of the given length.
    let bound = unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), length) };
    Errno::result(bound)?;
    Ok(socket)
}

fn set_option(socket: &Socket, option: libc::c_int) -> io::Result<()> {
    let on: libc::c_int = 1;
    let length = std::mem::size_of_val(&on) as libc::socklen_t;
    // SAFETY: the value is a live int of the given length.
    let set = unsafe { libc::setsockopt(socket.as_raw_fd(), libc::SOL_PACKET, option, (&raw const on).cast(), length) };
    Ok(Errno::result(set).map(drop)?)
}

struct Relayed {
    tap: Arc<Tap>,
    socket: Socket,
    stop: Arc<EventFd>,
    vlan: u16,
}

impl Relayed {
    fn run(self) {
        prefer_this_thread();
        let mut buffer = vec![0; TAG + MAX_FRAME];
        loop {
            match self.turn(&mut buffer) {
                Ok(true) => {}
                Ok(false) => return,
                Err(error) => {
                    tracing::warn!(interface = self.tap.name(), %error, "a tagged interface is no longer relayed");
                    return;
                }
            }
        }
    }

    fn turn(&self, buffer: &mut [u8]) -> io::Result<bool> {
        let mut events = [
            PollFd::new(self.tap.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.socket.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.stop.as_fd(), PollFlags::POLLIN),
        ];
        match poll(&mut events, PollTimeout::NONE) {
            Err(Errno::EINTR) => return Ok(true),
            done => done?,
        };
        let ready = |event: &PollFd<'_>| event.revents().is_some_and(|r| !r.is_empty());
        let [leaving, arriving, stop] = events.each_ref().map(ready);
        if stop {
            return Ok(false);
        }
        if leaving {
            self.tag(buffer)?;
        }
        if arriving {
            self.untag(buffer)?;
        }
        Ok(true)
    }

    /// From the child to the trunk.
    fn tag(&self, buffer: &mut [u8]) -> io::Result<()> {
        for _ in 0..BATCH {
            let length = match self.tap.receive(&mut buffer[TAG..]) {
                Ok(length) => length,
                Err(e) if pauses(&e) => return Ok(()),
                Err(e) => return Err(e),
            };
            if length < ADDRESSES {
                continue;
            }
            buffer.copy_within(TAG..TAG + ADDRESSES, 0);
            buffer[ADDRESSES..ADDRESSES + 2].copy_from_slice(&0x8100_u16.to_be_bytes());
            buffer[ADDRESSES + 2..ADDRESSES + 4].copy_from_slice(&self.vlan.to_be_bytes());
            // A trunk that is down or full loses the frame, as any trunk does.
            let _ = self.socket.send(&buffer[..TAG + length]);
        }
        Ok(())
    }

    /// From the trunk to the child.
    fn untag(&self, buffer: &mut [u8]) -> io::Result<()> {
        for _ in 0..BATCH {
            match receive_tagged(&self.socket, buffer) {
                Ok((length, Some(tag))) if tag == self.vlan => {
                    // A child that is down loses the frame, as any interface does.
                    let _ = self.tap.send(&buffer[..length]);
                }
                Ok(_) => {}
                Err(e) if pauses(&e) => return Ok(()),
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }
}

/// Nothing more for now: an empty queue, or an interface that is down.
fn pauses(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted | io::ErrorKind::NetworkDown)
        || error.raw_os_error() == Some(libc::EIO)
}

/// Receives a frame without its tag, and the tag that the kernel took off (packet(7), `PACKET_AUXDATA`).
fn receive_tagged(socket: &Socket, buffer: &mut [u8]) -> io::Result<(usize, Option<u16>)> {
    let mut control = [0u64; 16];
    let mut part = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    // SAFETY: `msghdr` is plain data for which all zeroes are valid.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = std::mem::size_of_val(&control) as _;
    // SAFETY: the message points to a live buffer and a live, aligned control area of the given lengths.
    let length = Errno::result(unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, 0) })?;
    let mut tag = None;
    // SAFETY: the kernel has filled `message`, and the macros walk within its control area; a PACKET_AUXDATA record
    // holds a `tpacket_auxdata`, read without asking for its alignment.
    unsafe {
        let mut record = libc::CMSG_FIRSTHDR(&raw const message);
        while !record.is_null() {
            if (*record).cmsg_level == libc::SOL_PACKET && (*record).cmsg_type == libc::PACKET_AUXDATA {
                let data = libc::CMSG_DATA(record).cast::<libc::tpacket_auxdata>().read_unaligned();
                if data.tp_status & libc::TP_STATUS_VLAN_VALID != 0 {
                    tag = Some(data.tp_vlan_tci & 0x0fff);
                }
            }
            record = libc::CMSG_NXTHDR(&raw const message, record);
        }
    }
    Ok((usize::try_from(length).unwrap_or(0), tag))
}
