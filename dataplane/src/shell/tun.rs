//! The TUN device.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Write},
    os::{fd::AsFd, unix::fs::OpenOptionsExt},
    sync::Arc,
};

mod ioctl {
    // <linux/if_tun.h>: _IOW('T', 202, int), although it takes a struct ifreq.
    nix::ioctl_write_ptr_bad!(set_iff, nix::request_code_write!(b'T', 202, size_of::<libc::c_int>()), libc::ifreq);
}

/// A TUN device, gone when its last handle is closed.
#[derive(Debug, Clone)]
pub struct Tun(Arc<File>);

/// Why there is no TUN device.
#[derive(Debug, thiserror::Error)]
pub enum TunError {
    /// No /dev/net/tun.
    #[error("cannot open /dev/net/tun; load the `tun` module and run with CAP_NET_ADMIN")]
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
    /// Makes the device in the network namespace of this thread.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn make(name: &str) -> Result<Self, TunError> {
        let valid = (1..libc::IFNAMSIZ).contains(&name.len()) && !name.contains(['/', ' ', '\0', ':']);
        if !valid {
            return Err(TunError::Name(name.to_owned()));
        }
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
        request.ifr_ifru.ifru_flags = (libc::IFF_TUN | libc::IFF_NO_PI) as libc::c_short;
        // SAFETY: the descriptor is open and the pointer is to a whole `ifreq`, as TUNSETIFF wants.
        unsafe { ioctl::set_iff(std::os::fd::AsRawFd::as_raw_fd(&file), &raw const request) }
            .map_err(|errno| TunError::Make { name: name.to_owned(), source: errno.into() })?;
        Ok(Self(Arc::new(file)))
    }

    /// Reads one packet; `WouldBlock` when there is none.
    pub(crate) fn read(&self, packet: &mut [u8]) -> io::Result<usize> {
        (&*self.0).read(packet)
    }

    /// Writes one packet.
    pub(crate) fn write(&self, packet: &[u8]) -> io::Result<()> {
        (&*self.0).write(packet).map(drop)
    }
}

impl AsFd for Tun {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.0.as_fd()
    }
}
