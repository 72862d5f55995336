//! The sockets by which `wg` speaks to the gateway, one a lane: `wg show`, and `wg set` where that is not the control plane's.
//!
//! Keys, ports, peers and what a peer may send come from the configuration, and `wg set` is refused there (EPERM), whole. A
//! peer's endpoint, preshared key and keepalive are set at once: the gateway's status shows the lane as drifted, until the
//! next configuration ends it.

use std::{
    fs::{self, DirBuilder},
    io::{self, Read, Write},
    os::{
        fd::AsFd,
        unix::{
            fs::{DirBuilderExt, MetadataExt, PermissionsExt},
            net::{UnixListener, UnixStream},
        },
    },
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use ipnet::IpNet;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use zeroize::Zeroizing;

use super::{
    clock,
    lanes::{Lanes, NAP, PeerLane},
};
use crate::proto::{
    tunnel::OVERHEAD,
    uapi::{self, Device, DeviceSet, MAX_REQUEST, Peer, PeerSet, Request},
};

/// Where `wg` looks for sockets.
pub const FOLDER: &str = "/var/run/wireguard";
/// Longest wait for a question, and for who asked to take the answer.
const PATIENCE: Duration = Duration::from_millis(500);
/// Longest name of an interface that `wg` takes (IFNAMSIZ less the end).
const NAME: usize = 15;

/// Why a lane has no socket.
#[derive(Debug, thiserror::Error)]
pub enum UapiSocketError {
    /// The folder cannot be made.
    #[error("cannot make {path}")]
    Folder {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Another daemon answers there.
    #[error("another WireGuard answers at {path}; give this gateway another --tun, or --uapi none")]
    Taken {
        /// Where.
        path: PathBuf,
    },
    /// The socket cannot be made.
    #[error("cannot listen on {path}")]
    Listen {
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// The name of lane `n` to `wg`: the device's, with the number behind it.
#[must_use]
pub fn name(tun: &str, n: usize) -> String {
    if n == 0 {
        return tun.to_owned();
    }
    let number = format!("-{n}");
    let room = NAME.saturating_sub(number.len());
    // Names of interfaces are of any bytes but few; cut between characters.
    let cut = (0..=room.min(tun.len())).rev().find(|at| tun.is_char_boundary(*at)).unwrap_or(0);
    format!("{}{number}", &tun[..cut])
}

/// The socket of one lane; gone when dropped, unless another has taken its place since.
struct Socket {
    listener: UnixListener,
    path: PathBuf,
    identity: (u64, u64),
}

impl Drop for Socket {
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|now| now == self.identity)
            && let Err(error) = fs::remove_file(&self.path)
        {
            tracing::warn!(path = %self.path.display(), %error, "the socket of `wg` is left behind");
        }
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    fs::symlink_metadata(path).map(|found| (found.dev(), found.ino()))
}

/// The sockets of all lanes.
pub(crate) struct Uapi(Vec<Socket>);

impl Uapi {
    /// Listens in `folder`, for the lanes of the device `tun`. A socket that a dead daemon left is replaced; one that is
    /// answered is not, unless its gateway hands over to this one.
    pub(crate) fn listen(folder: &Path, tun: &str, lanes: usize, takes_over: bool) -> Result<Self, UapiSocketError> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .map_err(|source| UapiSocketError::Folder { path: folder.to_owned(), source })?;
        let socket = |n| {
            let name = name(tun, n);
            let path = folder.join(format!("{name}.sock"));
            if !takes_over && UnixStream::connect(&path).is_ok() {
                return Err(UapiSocketError::Taken { path });
            }
            let made = listen(folder, &name, &path);
            made.map_err(|source| UapiSocketError::Listen { path, source })
        };
        (0..lanes).map(socket).collect::<Result<_, _>>().map(Self)
    }

    /// Answers until the lanes are stopped.
    pub(crate) fn serve(self, lanes: &Lanes) {
        while !lanes.is_stopped() {
            let mut wanted: Vec<PollFd<'_>> =
                self.0.iter().map(|socket| PollFd::new(socket.listener.as_fd(), PollFlags::POLLIN)).collect();
            // Interrupted or not: who has come is looked at next.
            let _ = poll(&mut wanted, PollTimeout::from(NAP.as_millis() as u16));
            for (n, socket) in self.0.iter().enumerate() {
                match socket.listener.accept() {
                    Ok((stream, _)) => {
                        if let Err(error) = answer(lanes, n, &stream) {
                            tracing::debug!(%error, "`wg` has gone without its answer");
                        }
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(error) => {
                        tracing::warn!(%error, "the socket of `wg` cannot accept");
                        std::thread::sleep(NAP);
                    }
                }
            }
        }
    }
}

/// Made beside its place and moved there, so that nobody finds it without its mode.
fn listen(folder: &Path, name: &str, path: &Path) -> io::Result<Socket> {
    let new = folder.join(format!(".{name}.{}", std::process::id()));
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&new)?;
    let place = || -> io::Result<(u64, u64)> {
        fs::set_permissions(&new, fs::Permissions::from_mode(0o600))?;
        listener.set_nonblocking(true)?;
        let identity = identity(&new)?;
        fs::rename(&new, path)?;
        Ok(identity)
    };
    let identity = place().inspect_err(|_| drop(fs::remove_file(&new)))?;
    Ok(Socket { listener, path: path.to_owned(), identity })
}

fn answer(lanes: &Lanes, n: usize, stream: &UnixStream) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let until = clock::now() + PATIENCE;
    let mut text = Zeroizing::new(Vec::<u8>::with_capacity(MAX_REQUEST + 2));
    let mut piece = Zeroizing::new([0_u8; 4_096]);
    // An empty line ends a request.
    while !text.ends_with(b"\n\n") && text.len() <= MAX_REQUEST && clock::now() < until {
        match (&mut &*stream).read(piece.as_mut_slice())? {
            0 => break,
            length => {
                // Within its capacity: a larger one would leave a copy behind.
                let room = text.capacity() - text.len();
                text.extend_from_slice(&piece[..length.min(room)]);
            }
        }
    }
    let errno = match uapi::parse(&text) {
        Ok(Request::Get) => return (&mut &*stream).write_all(uapi::render(&device(lanes, n)).as_bytes()),
        Ok(Request::Set(set)) => apply(lanes, n, &set),
        Err(error) => {
            tracing::warn!(%error, "`wg` asked for what is not understood");
            libc::EINVAL
        }
    };
    (&mut &*stream).write_all(format!("errno={}\n\n", -errno).as_bytes())
}

fn device(lanes: &Lanes, n: usize) -> Device {
    let now = clock::timestamp();
    let now = Duration::from_millis(u64::try_from(now.as_millisecond()).unwrap_or(0));
    let peer = |(peer, allowed_ips): (Arc<PeerLane>, Vec<IpNet>)| {
        let lane = peer.peek();
        let counters = lane.counters;
        let payload = |packets: u64, bytes: u64| bytes + packets * OVERHEAD as u64;
        Peer {
            public_key: peer.key,
            preshared_key: lane.preshared().cloned(),
            endpoint: lane.endpoint(),
            last_handshake: lane.handshake_age().map(|age| now.saturating_sub(age)),
            tx_bytes: payload(counters.packets_out, counters.bytes_out),
            rx_bytes: payload(counters.packets_in, counters.bytes_in),
            keepalive_s: lane.keepalive_s(),
            allowed_ips,
        }
    };
    let own = &lanes.own[n];
    Device {
        private_key: Zeroizing::new(own.private().to_bytes()),
        listen_port: own.port(),
        peers: lanes.peers_of(n).into_iter().map(peer).collect(),
    }
}

/// Why `wg set` does nothing.
fn refusal(lanes: &Lanes, n: usize, set: &DeviceSet) -> Option<(libc::c_int, &'static str)> {
    let own = &lanes.own[n];
    if set.private_key.as_ref().is_some_and(|key| **key != *Zeroizing::new(own.private().to_bytes())) {
        return Some((libc::EPERM, "the private key is the gateway's own"));
    }
    if set.listen_port.is_some_and(|port| port != own.port()) {
        return Some((libc::EPERM, "the port is settled when the gateway joins"));
    }
    if set.fwmark.is_some_and(|mark| mark != 0) {
        return Some((libc::EPERM, "the gateway pins its routes itself, without a firewall mark"));
    }
    if set.replace_peers {
        return Some((libc::EPERM, "peers come from the configuration"));
    }
    let known = lanes.peers_of(n);
    let of_peer = |peer: &PeerSet| {
        let Some((_, allowed)) = known.iter().find(|(known, _)| known.key == peer.public_key) else {
            // Gone already, or not to be made: nothing to do.
            return (!peer.remove && !peer.update_only).then_some((libc::EPERM, "peers come from the configuration"));
        };
        let same = peer.allowed_ips.iter().all(|net| allowed.contains(net))
            && (!peer.replace_allowed_ips || peer.allowed_ips.len() == allowed.len());
        if peer.remove || !same {
            return Some((libc::EPERM, "peers and their allowed IPs come from the configuration"));
        }
        None
    };
    set.peers.iter().find_map(of_peer)
}

fn apply(lanes: &Lanes, n: usize, set: &DeviceSet) -> libc::c_int {
    if let Some((errno, reason)) = refusal(lanes, n, set) {
        tracing::warn!(lane = n, reason, "`wg set` was refused, and nothing of it done");
        return errno;
    }
    let known = lanes.peers_of(n);
    for peer in &set.peers {
        let Some((found, _)) = known.iter().find(|(known, _)| known.key == peer.public_key) else { continue };
        let preshared = peer.preshared_key.as_ref().map(|key| Some(key.clone()).filter(|key| **key != [0; 32]));
        let mut lane = found.lane();
        lane.set_by_hand(peer.endpoint, preshared, peer.keepalive_s);
        if lane.is_drifted() {
            tracing::warn!(lane = n, "a peer is as `wg set` says, until the next configuration");
        }
    }
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lanes_have_names_that_wg_takes() {
        assert_eq!((name("tieline0", 0), name("tieline0", 3)), ("tieline0".to_owned(), "tieline0-3".to_owned()));
        assert_eq!(name("a-long-tun-name", 15), "a-long-tun-n-15");
        assert!(name("äöüäöüä", 15).len() <= NAME);
    }

    #[test]
    fn a_stale_socket_is_replaced_and_one_in_use_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tl0.sock");
        drop(UnixListener::bind(&path).unwrap());
        let first = Uapi::listen(folder.path(), "tl0", 2, false).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(matches!(Uapi::listen(folder.path(), "tl0", 2, false), Err(UapiSocketError::Taken { .. })));
        let second = Uapi::listen(folder.path(), "tl0", 2, true).unwrap();
        drop(first);
        assert!(UnixStream::connect(&path).is_ok(), "the first one's end does not take away the second one's socket");
        drop(second);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "and nothing is left");
    }
}
