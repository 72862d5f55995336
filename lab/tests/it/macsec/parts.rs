//! What the scenarios of MACsec are made of: keys, words that arrive or do not, frames of the wire, numbered flows.

use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use ipnet::Ipv4Net;
use socket2::{Domain, Protocol, Socket, Type};
use tieline_lab::net::flows::{self, UdpFlow, UdpReceived, UdpSent};
use tieline_lab::net::macsec::{MacSecHeld, MacSecKey, MacSecStatus, MacSecWanted};
use tieline_lab::net::namespace::Namespace;
use tieline_lab::net::{End, LabNetwork, LinkName, LinkWanted, NetError};
use tieline_openapi::coordinator::Sensitive;
use tokio_util::sync::CancellationToken;

use crate::net::Outcome;

/// The longest wait: a machine that is emulated is some twenty times slower than this one.
pub(super) const PATIENCE: Duration = Duration::from_secs(120);
/// How long a datagram may take before it is sent again.
const AGAIN: Duration = Duration::from_secs(1);

pub(super) const TRUNK: &str = "ch0";
pub(super) const SITES: [&str; 2] = ["aws", "google"];
pub(super) const ADDRESSES: [Ipv4Addr; 2] = [Ipv4Addr::new(169, 254, 10, 1), Ipv4Addr::new(169, 254, 10, 2)];
pub(super) const VLAN: u16 = 100;
pub(super) const PORT: u16 = 4_000;
/// EtherType of MACsec (IEEE 802.1AE, 9.8).
pub(super) const MACSEC: [u8; 2] = [0x88, 0xe5];
/// What no frame may show.
pub(super) const SECRET: &[u8] = b"nobody on the wire can read these words";

pub(super) fn name(n: u8) -> Sensitive {
    Sensitive::new(format!("{n:02x}").repeat(32))
}

pub(super) fn key(n: u8, secret: u8) -> MacSecKey {
    MacSecKey { ckn: name(n), cak: Sensitive::new(format!("{:02x}", 0x50 + secret).repeat(32)) }
}

pub(super) async fn put(
    network: &LabNetwork,
    end: End,
    keys: &[MacSecKey],
    active: Option<u8>,
) -> Result<MacSecHeld, NetError> {
    let wanted = MacSecWanted { keys: keys.to_vec(), active: active.map(name) };
    network.put_macsec(SITES[end as usize], TRUNK, &wanted).await
}

/// Tells both ends, and expects the second to say that it is so.
pub(super) async fn put_both(network: &LabNetwork, keys: &[MacSecKey], active: u8) -> Outcome {
    put(network, End::A, keys, Some(active)).await?;
    let held = put(network, End::B, keys, Some(active)).await?;
    assert_eq!(held.active, Some(name(active)));
    Ok(())
}

pub(super) async fn status(network: &LabNetwork, end: End) -> MacSecStatus {
    network.macsec().await[SITES[end as usize]][TRUNK]
}

/// Tagged links on both routers, and a socket on each.
pub(super) async fn linked(network: &LabNetwork) -> Result<[UdpSocket; 2], Box<dyn std::error::Error + Send + Sync>> {
    let link = LinkName { parent: TRUNK.to_owned(), vlan: VLAN };
    for (site, address) in SITES.into_iter().zip(ADDRESSES) {
        let wanted = LinkWanted { mtu_bytes: 1_500, address: Ipv4Net::new(address, 30)? };
        network.put_link(site, &link, &wanted).await?;
    }
    Ok([
        socket(&network.namespaces()["a-router"], ADDRESSES[0]),
        socket(&network.namespaces()["b-router"], ADDRESSES[1]),
    ])
}

pub(super) fn socket(namespace: &Namespace, address: Ipv4Addr) -> UdpSocket {
    let socket = namespace.run(|| UdpSocket::bind((address, PORT))).unwrap().unwrap();
    socket.set_read_timeout(Some(AGAIN)).unwrap();
    socket
}

/// Sends `word` until it arrives, and says what else arrived before; `None` where it did not in so many tries.
pub(super) fn arrives(from: &UdpSocket, to: &UdpSocket, word: &[u8], tries: usize) -> Option<Vec<Vec<u8>>> {
    let address: SocketAddr = to.local_addr().unwrap();
    let mut others = Vec::new();
    let mut buffer = [0; 2_000];
    for _ in 0..tries {
        // An end whose link is away cannot send: that arrives neither.
        let _ = from.send_to(word, address);
        loop {
            match to.recv_from(&mut buffer) {
                Ok((length, _)) if buffer[..length] == *word => return Some(others),
                Ok((length, _)) => others.push(buffer[..length].to_vec()),
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => break,
                Err(e) => panic!("{e}"),
            }
        }
    }
    None
}

/// The secret in words of its own: one that was sent twice is not taken for the next.
pub(super) fn secret() -> Vec<u8> {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    [SECRET, &COUNT.fetch_add(1, Relaxed).to_be_bytes()].concat()
}

/// Whether words pass both ways, or none does.
pub(super) fn both_ways([a, b]: &[UdpSocket; 2], tries: usize) -> [bool; 2] {
    [arrives(a, b, &secret(), tries).is_some(), arrives(b, a, &secret(), tries).is_some()]
}

/// Enough for a link that works: the first packets wait for neighbours.
pub(super) const WORKS: usize = 30;
/// Enough for one that does not.
pub(super) const FAILS: usize = 2;

/// Hears and says frames on a trunk, as they are on the wire.
pub(super) struct Tapped(Socket);

impl Tapped {
    pub(super) fn on(namespace: &Namespace, interface: &str) -> Self {
        let open = || {
            let all = libc::ETH_P_ALL as u16;
            let socket = Socket::new(Domain::PACKET, Type::RAW, None::<Protocol>)?;
            // SAFETY: `sockaddr_ll` is plain data for which all zeroes are valid.
            let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
            address.sll_family = libc::AF_PACKET as u16;
            address.sll_protocol = all.to_be();
            address.sll_ifindex = nix::net::if_::if_nametoindex(interface)? as i32;
            let length = std::mem::size_of_val(&address) as libc::socklen_t;
            // SAFETY: the address is a live `sockaddr_ll` of the given length.
            let bound = unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), length) };
            nix::errno::Errno::result(bound)?;
            socket.set_nonblocking(true)?;
            Ok::<_, io::Error>(socket)
        };
        Self(namespace.run(open).unwrap().unwrap())
    }

    /// All frames since the last look.
    pub(super) fn frames(&self) -> Vec<Vec<u8>> {
        let mut all = Vec::new();
        let mut buffer = [0; 20_000];
        while let Ok(length) = io::Read::read(&mut &self.0, &mut buffer) {
            all.push(buffer[..length].to_vec());
        }
        all
    }

    pub(super) fn say(&self, frame: &[u8]) {
        self.0.send(frame).unwrap();
    }
}

/// How many frames there are, none of which is other than MACsec or shows the secret.
pub(super) fn encrypted(frames: &[Vec<u8>]) -> usize {
    for frame in frames {
        assert_eq!(frame[12..14], MACSEC, "a frame in clear: {frame:02x?}");
        assert!(!frame.windows(SECRET.len()).any(|words| words == SECRET), "the secret is on the wire: {frame:02x?}");
    }
    frames.len()
}

/// A datagram to the second router, in clear and with the tag.
pub(super) fn in_clear(word: &[u8]) -> Vec<u8> {
    let length = |header: usize| ((header + word.len()) as u16).to_be_bytes();
    let [from, to] = ADDRESSES.map(|address| address.octets());
    let mut ip = vec![0x45, 0];
    ip.extend(length(28));
    ip.extend([0, 1, 0, 0, 64, 17, 0, 0]);
    ip.extend(from.into_iter().chain(to));
    let sum: u32 = ip.chunks(2).map(|two| u32::from(u16::from_be_bytes([two[0], two[1]]))).sum();
    let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
    let mut frame = vec![0xff; 6];
    frame.extend([2, 0, 0, 0, 0, 1, 0x81, 0]);
    frame.extend(VLAN.to_be_bytes());
    frame.extend([0x08, 0]);
    frame.extend(ip);
    frame.extend(PORT.to_be_bytes().into_iter().chain(PORT.to_be_bytes()).chain(length(8)).chain([0, 0]));
    frame.extend(word);
    frame
}

/// No program was started with a key: none stands where every process of the machine can read it.
pub(super) fn no_key_is_shown() {
    for process in std::fs::read_dir("/proc").unwrap().flatten() {
        for file in ["cmdline", "environ"] {
            let shown = std::fs::read(process.path().join(file)).unwrap_or_default();
            let shown = String::from_utf8_lossy(&shown).to_lowercase();
            for secret in (1..10).map(|n| key(n, n).cak) {
                assert!(!shown.contains(secret.expose()), "a key is in {}/{file}", process.path().display());
            }
        }
    }
}

/// A numbered flow one way.
pub(super) struct Flow {
    sent: tokio::task::JoinHandle<io::Result<UdpSent>>,
    received: tokio::task::JoinHandle<io::Result<UdpReceived>>,
    /// Datagrams that arrived.
    count: Arc<AtomicU64>,
    /// Those, and those that are missing before the last of them.
    passed: Arc<AtomicU64>,
    stop: CancellationToken,
    end: CancellationToken,
}

impl Flow {
    pub(super) fn start(network: &LabNetwork, from: End) -> io::Result<Self> {
        let open = |end: End| {
            let namespace = &network.namespaces()[&format!("{}-router", end.letter())];
            let socket =
                namespace.run(|| UdpSocket::bind((ADDRESSES[end as usize], 0))).map_err(io::Error::other)??;
            socket.set_nonblocking(true)?;
            tokio::net::UdpSocket::from_std(socket)
        };
        let (from, to) = (open(from)?, open(from.other())?);
        let address = to.local_addr()?;
        let (stop, end) = (CancellationToken::new(), CancellationToken::new());
        let (count, passed) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let flow = UdpFlow { rate_pps: 200, payload_bytes: 200 };
        let sent = tokio::spawn({
            let stop = stop.clone();
            async move { flows::udp_send(&from, address, flow, stop).await }
        });
        let received = tokio::spawn({
            let (end, count, passed) = (end.clone(), Arc::clone(&count), Arc::clone(&passed));
            async move {
                let report = |report: UdpReceived| {
                    count.store(report.received, Relaxed);
                    passed.store(report.received + report.lost, Relaxed);
                };
                flows::udp_receive(&to, Duration::from_millis(10), end, report).await
            }
        });
        Ok(Self { sent, received, count, passed, stop, end })
    }

    /// Some more arrive.
    pub(super) async fn goes_on(&self) -> Outcome {
        let count = self.count.load(Relaxed) + 40;
        let waited = until(async || Ok(self.count.load(Relaxed) >= count)).await;
        waited.map_err(|error| format!("{} of {count} datagrams arrived: {error}", self.count.load(Relaxed)).into())
    }

    pub(super) async fn end(self) -> Result<(UdpSent, UdpReceived), Box<dyn std::error::Error + Send + Sync>> {
        self.stop.cancel();
        let sent = self.sent.await??;
        // Where some are lost the report says so.
        let _ = until(async || Ok(self.passed.load(Relaxed) >= sent.sent)).await;
        self.end.cancel();
        Ok((sent, self.received.await??))
    }
}

/// Waits until it is so.
pub(super) async fn until(mut so: impl AsyncFnMut() -> Result<bool, NetError>) -> Outcome {
    let mut look = tokio::time::interval(Duration::from_millis(10));
    let waited = tokio::time::timeout(PATIENCE, async {
        while !so().await? {
            look.tick().await;
        }
        Ok::<_, NetError>(())
    });
    Ok(waited.await??)
}
