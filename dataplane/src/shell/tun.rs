//! The TUN device: a queue a lane, and packets in super-packets where the kernel can.

use std::{
    fs::{File, OpenOptions},
    io::{self, IoSlice, Read, Write},
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd},
        unix::fs::OpenOptionsExt,
    },
};

use super::{
    offloads::{Offload, Offloads},
    steering,
};

mod ioctl {
    // <linux/if_tun.h>: _IOW('T', 202, int) and _IOW('T', 208, unsigned int); the first takes a struct ifreq all the same,
    // the second its flags by value.
    nix::ioctl_write_ptr_bad!(set_iff, nix::request_code_write!(b'T', 202, size_of::<libc::c_int>()), libc::ifreq);
    nix::ioctl_write_int_bad!(set_offload, nix::request_code_write!(b'T', 208, size_of::<libc::c_uint>()));
}

/// <linux/if_tun.h>, TUN_F_*: checksums left to complete, TCP over IPv4 and IPv6 with ECN, UDP over IPv4 and IPv6.
const CHECKSUM: i32 = 0x01;
const TSO: i32 = 0x02 | 0x04 | 0x08;
const USO: i32 = 0x20 | 0x40;

/// One queue of a TUN device, which is gone with its last queue.
#[derive(Debug)]
pub struct Tun(File);

/// Why there is no TUN device.
#[derive(Debug, thiserror::Error)]
pub enum TunError {
    /// No /dev/net/tun.
    #[error(
        "cannot open /dev/net/tun; load the `tun` module, run with CAP_NET_ADMIN, and let its user open the device (mode 0666, as udev has it)"
    )]
    Open(#[source] io::Error),
    /// Too long.
    #[error("`{0}` is no interface name: 1 to 15 bytes without `/` and spaces")]
    Name(String),
    /// Refused.
    #[error("cannot make the TUN device `{name}`; is another gateway running in this network namespace?")]
    Make {
        /// Which.
        name: String,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl Tun {
    /// Makes the device in the network namespace of this thread, with so many queues. What the kernel cannot do of the
    /// offloads is switched off.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn make(name: &str, queues: usize, offloads: &Offloads) -> Result<Vec<Self>, TunError> {
        let valid = (1..libc::IFNAMSIZ).contains(&name.len()) && !name.contains(['/', ' ', '\0', ':']);
        if !valid {
            return Err(TunError::Name(name.to_owned()));
        }
        let queues: Vec<Self> = (0..queues).map(|_| Self::open(name, queues > 1)).collect::<Result<_, _>>()?;
        if let Some(queue) = queues.first() {
            if queues.len() > 1
                && let Err(error) = steering::steer(&queue.0)
            {
                tracing::warn!(%error, "the kernel steers flows to lanes: one that both ends begin at once may be reordered");
            }
            queue.negotiate(offloads).map_err(|source| TunError::Make { name: name.to_owned(), source })?;
        }
        Ok(queues)
    }

    /// The queues of a device that another process has made.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub(crate) fn adopt(name: &str, queues: Vec<File>, offloads: &Offloads) -> Result<Vec<Self>, TunError> {
        let queues: Vec<Self> = queues.into_iter().map(Self).collect();
        if let Some(queue) = queues.first() {
            queue.negotiate(offloads).map_err(|source| TunError::Make { name: name.to_owned(), source })?;
        }
        Ok(queues)
    }

    fn open(name: &str, one_of_many: bool) -> Result<Self, TunError> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
            .open("/dev/net/tun")
            .map_err(TunError::Open)?;
        // SAFETY: `ifreq` is plain old data, for which all zeroes is a value.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
            *to = libc::c_char::from_ne_bytes([from]);
        }
        let many = if one_of_many { libc::IFF_MULTI_QUEUE } else { 0 };
        let flags = libc::IFF_TUN | libc::IFF_NO_PI | libc::IFF_VNET_HDR | many;
        request.ifr_ifru.ifru_flags = flags as libc::c_short;
        // SAFETY: the descriptor is open and the pointer is to a whole `ifreq`, as TUNSETIFF wants.
        unsafe { ioctl::set_iff(file.as_raw_fd(), &raw const request) }
            .map_err(|errno| TunError::Make { name: name.to_owned(), source: errno.into() })?;
        Ok(Self(file))
    }

    /// Asks for super-packets, for less and less until the kernel agrees. It counts for the whole device.
    fn negotiate(&self, offloads: &Offloads) -> io::Result<()> {
        let wanted = |offload| offloads.is_on(offload);
        let mut steps = vec![];
        if wanted(Offload::TunTso) && wanted(Offload::TunUso) {
            steps.push((CHECKSUM | TSO | USO, true, true));
        }
        if wanted(Offload::TunTso) {
            steps.push((CHECKSUM | TSO, true, false));
        }
        if wanted(Offload::TunUso) {
            steps.push((CHECKSUM | USO, false, true));
        }
        steps.extend([(CHECKSUM, false, false), (0, false, false)]);
        let mut last = io::Error::from(io::ErrorKind::Unsupported);
        for (flags, tso, uso) in steps {
            // SAFETY: the descriptor is that of a TUN device, and TUNSETOFFLOAD takes its argument by value.
            match unsafe { ioctl::set_offload(self.0.as_raw_fd(), flags) } {
                Ok(_) => {
                    for (offload, on) in [(Offload::TunTso, tso), (Offload::TunUso, uso)] {
                        if !on {
                            offloads.switch_off(offload);
                        }
                    }
                    return Ok(());
                }
                Err(errno) => last = errno.into(),
            }
        }
        Err(last)
    }

    /// Reads one packet or super-packet, after its [`VnetHeader`](crate::proto::offload::vnet::VnetHeader); `WouldBlock`
    /// when there is none.
    pub(crate) fn read(&self, packet: &mut [u8]) -> io::Result<usize> {
        (&self.0).read(packet)
    }

    /// Writes one packet or super-packet with its header, from its pieces.
    pub(crate) fn write(&self, pieces: &[IoSlice<'_>]) -> io::Result<()> {
        (&self.0).write_vectored(pieces).map(drop)
    }
}

impl AsFd for Tun {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
