//! TAP interfaces: Ethernet frames of a namespace, in the hands of this process.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;

use super::error::NetError;
use super::namespace::Namespace;

mod ioctl {
    // Numbers and types of <linux/if_tun.h>.
    nix::ioctl_write_ptr_bad!(set_interface, nix::request_code_write!(b'T', 202, 4), libc::ifreq);
    nix::ioctl_write_int_bad!(set_offload, nix::request_code_write!(b'T', 208, 4));
    nix::ioctl_write_ptr_bad!(set_carrier, nix::request_code_write!(b'T', 226, 4), libc::c_int);
}

/// Bytes of the `virtio_net_hdr` that precedes every frame of a TAP made with [`Offload::Full`].
pub const HEADER: usize = 10;

/// Longest frame: a 64 KiB segment with its Ethernet and 802.1Q headers.
pub const MAX_FRAME: usize = 65_536 + 18;

/// Whether frames may be longer than the MTU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offload {
    /// Checksums and segmentation are left to the other end: frames of up to 64 KiB, each behind a `virtio_net_hdr`.
    Full,
    /// Plain frames within the MTU, checksummed.
    None,
}

/// A TAP interface. It goes when this goes.
#[derive(Debug)]
pub struct Tap {
    file: File,
    name: String,
}

impl Tap {
    /// Makes a TAP in the namespace. It is down, and its carrier is on.
    ///
    /// # Errors
    /// [`NetError::Tap`] where `/dev/net/tun` cannot be used or the name is taken.
    pub fn create(namespace: &Namespace, name: &str, offload: Offload) -> Result<Self, NetError> {
        let fail = |operation| move |source| NetError::Tap { interface: name.to_owned(), operation, source };
        let file = namespace
            .run(|| OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open("/dev/net/tun"))?
            .map_err(fail("open /dev/net/tun"))?;
        // SAFETY: `ifreq` is plain data for which all zeroes are valid.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        if name.len() >= request.ifr_name.len() {
            return Err(fail("fit its name")(io::ErrorKind::InvalidInput.into()));
        }
        for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
            *to = from as libc::c_char;
        }
        let mut flags = libc::IFF_TAP | libc::IFF_NO_PI;
        if offload == Offload::Full {
            flags |= libc::IFF_VNET_HDR;
        }
        request.ifr_ifru.ifru_flags = flags as libc::c_short;
        // SAFETY: TUNSETIFF reads the `ifreq` that is passed, which outlives the call.
        unsafe { ioctl::set_interface(file.as_raw_fd(), &raw const request) }.map_err(|e| fail("make it")(e.into()))?;
        if offload == Offload::Full {
            let features = libc::TUN_F_CSUM | libc::TUN_F_TSO4 | libc::TUN_F_TSO6;
            // SAFETY: TUNSETOFFLOAD takes an integer, no pointer.
            unsafe { ioctl::set_offload(file.as_raw_fd(), features as libc::c_int) }
                .map_err(|e| fail("switch its offloads on")(e.into()))?;
        }
        Ok(Self { file, name: name.to_owned() })
    }

    /// The interface's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Switches the light on or off.
    ///
    /// # Errors
    /// [`NetError::Tap`] where the kernel refuses.
    pub fn set_carrier(&self, on: bool) -> Result<(), NetError> {
        let value = libc::c_int::from(on);
        // SAFETY: TUNSETCARRIER reads one int, which outlives the call.
        let done = unsafe { ioctl::set_carrier(self.file.as_raw_fd(), &raw const value) };
        done.map(drop).map_err(|e| NetError::Tap {
            interface: self.name.clone(),
            operation: "switch its carrier",
            source: e.into(),
        })
    }

    /// Takes the next frame that the namespace sent.
    ///
    /// # Errors
    /// `WouldBlock` where there is none.
    pub fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
        io::Read::read(&mut &self.file, buffer)
    }

    /// Hands a frame to the namespace.
    ///
    /// # Errors
    /// The kernel's, as where the interface is down.
    pub fn send(&self, frame: &[u8]) -> io::Result<usize> {
        io::Write::write(&mut &self.file, frame)
    }
}

impl AsFd for Tap {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}
