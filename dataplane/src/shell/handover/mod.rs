//! A hot restart: a new process takes the place of a running gateway, and no packet is lost.
//!
//! `boringtun` cannot give away a session, so the new process makes its own while the old one still carries:
//!
//! 1. The new process asks at `handover.sock` in the state folder, and is given the queues of the TUN device, the sockets, the
//!    lock of the state folder (`SCM_RIGHTS`, `man 7 unix`), what carries now, and a channel for each lane.
//! 2. It makes lanes with the same keys and indices of the other half ([`HALF`](crate::proto::tunnel::HALF)), and initiates.
//!    The old process goes on reading the network and the device, initiates nothing any more, and passes on what is for the
//!    new one: handshakes, and data of its sessions. A peer uses a session as soon as it has one, so both receive for a while.
//! 3. When the peers that the old process hears are heard by the new one, and what is on its way under the old sessions has
//!    come, the new one says so. The old one stops reading, network first, and answers. What comes meanwhile waits in the
//!    kernel's buffers, and the new process takes it from there, after what was passed on.
//!
//! Limits: a peer that neither end hears makes it wait, [`PATIENCE`] at most. What waits for a session in the old process is
//! lost with it. Both need memory at once. A gateway that dies instead of handing over is a cold start.

pub(super) mod channel;
mod wire;

use std::{
    fs::File,
    io::{self, Read, Write},
    net::UdpSocket,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::{fs::PermissionsExt, net::UnixStream},
    },
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tieline_openapi::{
    ids::{ConnectionId, GatewayId},
    v1::PathKind,
};

use self::channel::Channel;

const SOCKET: &str = "handover.sock";
/// What both must understand alike.
const VERSION: u32 = 1;
/// Longest wait for sessions with the peers that are heard.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);
/// What is on its way under an old session has come by then.
pub(super) const SETTLE: Duration = Duration::from_millis(500);
/// Between two looks.
pub(super) const LOOK: Duration = Duration::from_millis(20);
/// Longest wait of one process for the other.
const ANSWER: Duration = Duration::from_secs(20);
const GO: u8 = b'g';
const DONE: u8 = b'd';

/// Why there is no handover.
#[derive(Debug, thiserror::Error)]
pub enum HandoverError {
    /// The socket cannot be made.
    #[error("cannot listen on {path}; its folder must be writable and its path below 108 bytes")]
    Listen {
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The running gateway broke it off.
    #[error("the running gateway does not hand over")]
    Broken(#[source] io::Error),
    /// It is of another kind.
    #[error("the running gateway hands over in another way (version {0}); stop it, and start this one")]
    Version(u32),
}

/// Lanes that are heard: number, and the peer's public key.
pub(crate) type Heard = Vec<(usize, [u8; 32])>;

/// What carries a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Carried {
    pub(crate) connection: ConnectionId,
    pub(crate) peer: GatewayId,
    pub(crate) path: PathKind,
    /// Bytes of the longest packet that goes through the tunnel in one piece.
    pub(crate) mtu_bytes: u16,
}

/// What the heartbeat gives away.
pub(crate) struct Beat {
    pub(crate) carried: Vec<Carried>,
    pub(crate) sysctls: Vec<(String, String)>,
    pub(crate) reflector: OwnedFd,
    pub(crate) senders: Vec<OwnedFd>,
}

/// What is said; descriptors follow in the order of [`Gift::descriptors`].
#[derive(Debug, Serialize, Deserialize)]
struct Offer {
    version: u32,
    /// Whether the old process's indices are of the upper half.
    upper: bool,
    lanes: usize,
    senders: usize,
    alive: Heard,
    carried: Vec<Carried>,
    sysctls: Vec<(String, String)>,
}

/// One lane's part.
pub(crate) struct GivenLane {
    pub(crate) tun: OwnedFd,
    pub(crate) socket: OwnedFd,
    pub(crate) channel: OwnedFd,
}

/// All that is given away.
pub(crate) struct Gift {
    pub(crate) upper: bool,
    pub(crate) alive: Heard,
    pub(crate) lanes: Vec<GivenLane>,
    pub(crate) beat: Beat,
}

impl Gift {
    fn descriptors<'a>(&'a self, lock: BorrowedFd<'a>) -> Vec<BorrowedFd<'a>> {
        let lanes = self.lanes.iter().flat_map(|lane| [lane.tun.as_fd(), lane.socket.as_fd(), lane.channel.as_fd()]);
        let beat = std::iter::once(&self.beat.reflector).chain(&self.beat.senders).map(AsFd::as_fd);
        std::iter::once(lock).chain(lanes).chain(beat).collect()
    }
}

/// One lane, as the new process has it.
pub(crate) struct TakenLane {
    pub(crate) tun: File,
    pub(crate) socket: UdpSocket,
    pub(crate) channel: Channel,
}

/// What the new process was given.
pub struct Taken {
    /// Whether its own indices are of the upper half.
    pub(crate) upper: bool,
    pub(crate) lanes: Vec<TakenLane>,
    pub(crate) reflector: UdpSocket,
    pub(crate) senders: Vec<UdpSocket>,
    pub(crate) carried: Vec<Carried>,
    pub(crate) sysctls: Vec<(String, String)>,
}

impl std::fmt::Debug for Taken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Taken").field("lanes", &self.lanes.len()).finish_non_exhaustive()
    }
}

/// The old process, while it waits for the new one.
#[derive(Debug)]
pub struct Predecessor {
    stream: UnixStream,
    /// The lanes that it hears.
    pub(super) alive: Heard,
}

/// Listens in the state folder, which this process has locked.
///
/// # Errors
/// When the socket cannot be made.
pub fn listen(state_dir: &Path) -> Result<tokio::net::UnixListener, HandoverError> {
    let path = state_dir.join(SOCKET);
    let listen = |source| HandoverError::Listen { path: path.clone(), source };
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(listen(error)),
        _ => {}
    }
    let listener = tokio::net::UnixListener::bind(&path).map_err(listen)?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).map_err(listen)?;
    Ok(listener)
}

/// Gives everything to who has asked, and waits until it says that it can do without us. Blocks.
pub(super) fn give(stream: &mut UnixStream, gift: &Gift, lock: BorrowedFd<'_>) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(ANSWER))?;
    stream.set_write_timeout(Some(ANSWER))?;
    let offer = Offer {
        version: VERSION,
        upper: gift.upper,
        lanes: gift.lanes.len(),
        senders: gift.beat.senders.len(),
        alive: gift.alive.clone(),
        carried: gift.beat.carried.clone(),
        sysctls: gift.beat.sysctls.clone(),
    };
    wire::send(stream, &serde_json::to_vec(&offer)?, &gift.descriptors(lock))?;
    let mut word = [0];
    stream.read_exact(&mut word)?;
    if word[0] == GO { Ok(()) } else { Err(io::ErrorKind::InvalidData.into()) }
}

/// Tells the new process that nothing is read here any more.
pub(super) fn done(mut stream: UnixStream) -> io::Result<()> {
    stream.write_all(&[DONE])
}

/// Asks the gateway that runs on this state folder; `None`: there is none. The last is the lock of the folder. Blocks.
///
/// # Errors
/// When it breaks off, or is of another version.
pub fn ask(state_dir: &Path) -> Result<Option<(Taken, Predecessor, OwnedFd)>, HandoverError> {
    let mut stream = match UnixStream::connect(state_dir.join(SOCKET)) {
        Ok(stream) => stream,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
            return Ok(None);
        }
        Err(error) => return Err(HandoverError::Broken(error)),
    };
    take(&mut stream).map(|(taken, alive, lock)| Some((taken, Predecessor { stream, alive }, lock)))
}

fn take(stream: &mut UnixStream) -> Result<(Taken, Heard, OwnedFd), HandoverError> {
    let broken = HandoverError::Broken;
    stream.set_read_timeout(Some(ANSWER)).and_then(|()| stream.set_write_timeout(Some(ANSWER))).map_err(broken)?;
    let (bytes, descriptors) = wire::receive(stream).map_err(broken)?;
    // Another version may not be readable further than this.
    #[derive(Deserialize)]
    struct Version {
        version: u32,
    }
    let odd = |error: serde_json::Error| HandoverError::Broken(error.into());
    let Version { version } = serde_json::from_slice(&bytes).map_err(odd)?;
    if version != VERSION {
        return Err(HandoverError::Version(version));
    }
    let offer: Offer = serde_json::from_slice(&bytes).map_err(odd)?;
    let mut descriptors = descriptors.into_iter();
    let mut next = || descriptors.next().ok_or_else(|| broken(io::ErrorKind::UnexpectedEof.into()));
    let lock = next()?;
    let lanes = (0..offer.lanes).map(|_| {
        let (tun, socket, channel) = (next()?, next()?, next()?);
        Ok(TakenLane { tun: tun.into(), socket: socket.into(), channel: Channel::from(channel) })
    });
    let lanes = lanes.collect::<Result<_, HandoverError>>()?;
    let reflector = next()?.into();
    let senders = (0..offer.senders).map(|_| next().map(UdpSocket::from)).collect::<Result<_, _>>()?;
    let Offer { upper, alive, carried, sysctls, .. } = offer;
    Ok((Taken { upper: !upper, lanes, reflector, senders, carried, sysctls }, alive, lock))
}

impl Predecessor {
    /// Tells it to stop, and waits until it has. Blocks.
    pub(super) fn relieve(mut self) -> io::Result<()> {
        self.stream.write_all(&[GO])?;
        let mut word = [0];
        self.stream.read_exact(&mut word)?;
        if word[0] == DONE { Ok(()) } else { Err(io::ErrorKind::InvalidData.into()) }
    }
}
