//! A text and descriptors over a Unix socket.

use std::{
    io::{self, IoSlice, IoSliceMut, Read, Write},
    os::{
        fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
        unix::net::UnixStream,
    },
};

use nix::{
    cmsg_space,
    sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg},
};

/// Descriptors of one message; the kernel takes 253 at most (SCM_MAX_FD).
const AT_ONCE: usize = 64;
/// Bytes of a text, and descriptors in all, at most.
const MAX_TEXT: u32 = 16 << 20;
const MAX_DESCRIPTORS: u32 = 1_024;

pub(super) fn send(stream: &mut UnixStream, text: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    let number = |length: usize| u32::try_from(length).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput));
    stream.write_all(&number(text.len())?.to_le_bytes())?;
    stream.write_all(&number(descriptors.len())?.to_le_bytes())?;
    stream.write_all(text)?;
    for some in descriptors.chunks(AT_ONCE) {
        let raw: Vec<RawFd> = some.iter().map(AsRawFd::as_raw_fd).collect();
        // They travel with a byte.
        let carrier = [IoSlice::new(&[0])];
        sendmsg::<()>(stream.as_raw_fd(), &carrier, &[ControlMessage::ScmRights(&raw)], MsgFlags::empty(), None)?;
    }
    Ok(())
}

pub(super) fn receive(stream: &mut UnixStream) -> io::Result<(Vec<u8>, Vec<OwnedFd>)> {
    let (mut text, mut count) = ([0; 4], [0; 4]);
    stream.read_exact(&mut text)?;
    stream.read_exact(&mut count)?;
    let (length, count) = (u32::from_le_bytes(text), u32::from_le_bytes(count));
    if length > MAX_TEXT || count > MAX_DESCRIPTORS {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut text = vec![0; length as usize];
    stream.read_exact(&mut text)?;
    let mut descriptors: Vec<OwnedFd> = Vec::new();
    while descriptors.len() < count as usize {
        let mut byte = [0];
        let mut carrier = [IoSliceMut::new(&mut byte)];
        let mut room = cmsg_space!([RawFd; AT_ONCE]);
        let flags = MsgFlags::MSG_CMSG_CLOEXEC;
        let message = recvmsg::<()>(stream.as_raw_fd(), &mut carrier, Some(&mut room), flags)?;
        let had = descriptors.len();
        for control in message.cmsgs()? {
            if let ControlMessageOwned::ScmRights(raw) = control {
                // SAFETY: the kernel has just made these for this process, and nobody else knows of them.
                descriptors.extend(raw.into_iter().map(|raw| unsafe { OwnedFd::from_raw_fd(raw) }));
            }
        }
        if message.bytes == 0 || descriptors.len() == had {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok((text, descriptors))
}

#[cfg(test)]
mod tests {
    use std::{fs::File, os::fd::AsFd};

    use super::*;

    #[test]
    fn more_descriptors_than_one_message_takes() {
        let (mut one, mut other) = UnixStream::pair().unwrap();
        let files: Vec<File> = (0..150).map(|_| tempfile::tempfile().unwrap()).collect();
        let sender = std::thread::spawn(move || {
            let borrowed: Vec<_> = files.iter().map(AsFd::as_fd).collect();
            send(&mut one, b"text", &borrowed).unwrap();
        });
        let (text, descriptors) = receive(&mut other).unwrap();
        sender.join().unwrap();
        assert_eq!((text.as_slice(), descriptors.len()), (&b"text"[..], 150));
        assert!(receive(&mut other).is_err(), "the other end has gone");
    }

    #[test]
    fn nonsense_is_refused() {
        let (mut one, mut other) = UnixStream::pair().unwrap();
        one.write_all(&[0xff; 8]).unwrap();
        assert_eq!(receive(&mut other).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}
