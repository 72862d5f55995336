//! MACsec of the kernel on a lab's trunks: what passes, what does not, and what is on the wire.
//!
//! Only where the kernel has MACsec and gives it to this process: as root, or in a machine of its own
//! (`scripts/in-kernel-machine.sh`). Else a test says why it is skipped. The stand-in's tests need no kernel.

use std::collections::BTreeSet;
use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use ipnet::Ipv4Net;
use socket2::{Domain, Protocol, Socket, Type};
use tieline_lab::cell::{self, Inside};
use tieline_lab::net::flows::{self, UdpFlow, UdpReceived, UdpSent};
use tieline_lab::net::links::Links;
use tieline_lab::net::macsec::device::{Device, DeviceError};
use tieline_lab::net::macsec::sak::Sak;
use tieline_lab::net::macsec::{MacSecHeld, MacSecKey, MacSecStatus, MacSecWanted};
use tieline_lab::net::namespace::Namespace;
use tieline_lab::net::tap::{Offload, Tap};
use tieline_lab::net::wire::Wire;
use tieline_lab::net::{Configured, End, Impairment, LabNetwork, LinkName, LinkWanted, MacSecWay, NetError, NetSpec};
use tieline_openapi::coordinator::Sensitive;
use tokio_util::sync::CancellationToken;

use crate::net::{Outcome, able, logs, options};
use crate::net_cell::machine;

/// The longest wait: a machine that is emulated is some twenty times slower than this one.
const PATIENCE: Duration = Duration::from_secs(120);
/// How long a datagram may take before it is sent again.
const AGAIN: Duration = Duration::from_secs(1);

const TRUNK: &str = "ch0";
const SITES: [&str; 2] = ["aws", "google"];
const ADDRESSES: [Ipv4Addr; 2] = [Ipv4Addr::new(169, 254, 10, 1), Ipv4Addr::new(169, 254, 10, 2)];
const VLAN: u16 = 100;
const PORT: u16 = 4_000;
/// EtherType of MACsec (IEEE 802.1AE, 9.8).
const MACSEC: [u8; 2] = [0x88, 0xe5];
/// What no frame may show.
const SECRET: &[u8] = b"nobody on the wire can read these words";

/// Whether MACsec can be had here; says why not.
fn has_macsec() -> bool {
    let release = nix::sys::utsname::uname().unwrap().release().to_string_lossy().into_owned();
    let modules = Path::new("/lib/modules").join(&release);
    let listed = |file: &str| std::fs::read_to_string(modules.join(file)).is_ok_and(|list| list.contains("/macsec.ko"));
    let known = Path::new("/sys/module/macsec").exists() || listed("modules.dep") || listed("modules.builtin");
    if !known {
        println!("skipped: the kernel {release} has no module macsec");
    } else if !nix::unistd::geteuid().is_root() {
        println!("skipped: needs root: the kernel takes no MACsec keys in a user namespace");
    }
    known && nix::unistd::geteuid().is_root()
}

/// Runs a scenario in a cell, after whose end nothing may be left.
async fn in_a_lab(scenario: &str, macsec: Option<MacSecWay>) {
    if !able() {
        return;
    }
    let network = NetSpec { routers: Configured::ByOperator, macsec, ..NetSpec::with_channels(1) };
    let dir = tempfile::tempdir().unwrap();
    let before = machine();
    let cell = cell::spawn(options(dir.path(), scenario, network)).await;
    let cell = cell.unwrap_or_else(|e| panic!("{e:?}\n{}", logs(dir.path())));
    let code = tokio::time::timeout(PATIENCE * 3, cell.wait()).await;
    assert!(matches!(code, Ok(Ok(0))), "the scenario ended with {code:?}\n{}", logs(dir.path()));
    assert_eq!(machine(), before, "something is left of the lab");
    let said = logs(dir.path());
    assert!((1..10).all(|n| !said.contains(key(n, n).cak.expose())), "a key is in a log");
}

#[tokio::test]
async fn what_passes_is_encrypted_with_its_tag_and_the_routers_say_what_they_use() {
    if has_macsec() {
        in_a_lab("macsec-passes", Some(MacSecWay::Kernel)).await;
    }
}

#[tokio::test]
async fn nothing_passes_without_a_key_with_another_or_in_clear() {
    if has_macsec() {
        in_a_lab("macsec-closed", Some(MacSecWay::Kernel)).await;
    }
}

#[tokio::test]
async fn keys_change_under_a_flow_that_loses_nothing_and_an_old_one_opens_nothing() {
    if has_macsec() {
        in_a_lab("macsec-rotates", Some(MacSecWay::Kernel)).await;
    }
}

#[tokio::test]
async fn the_kernel_itself_opens_nothing_under_another_key() {
    if has_macsec() {
        in_a_lab("macsec-devices", None).await;
    }
}

/// The lab takes the kernel's where it is, else the stand-in, which cuts the wire.
#[tokio::test]
async fn a_lab_takes_the_best_way_that_there_is() {
    in_a_lab(if has_macsec() { "macsec-found" } else { "macsec-stand-in" }, None).await;
}

/// What happens inside the cell.
pub(crate) async fn scenario(name: &str, inside: Inside) -> Outcome {
    match name {
        "macsec-passes" => passes(inside).await,
        "macsec-closed" => closed(inside).await,
        "macsec-rotates" => rotates(inside).await,
        "macsec-devices" => devices().await,
        "macsec-found" => found(inside, MacSecWay::Kernel).await,
        "macsec-stand-in" => found(inside, MacSecWay::StandIn).await,
        other => Err(format!("no scenario {other:?}").into()),
    }
}

fn name(n: u8) -> Sensitive {
    Sensitive::new(format!("{n:02x}").repeat(32))
}

fn key(n: u8, secret: u8) -> MacSecKey {
    MacSecKey { ckn: name(n), cak: Sensitive::new(format!("{:02x}", 0x50 + secret).repeat(32)) }
}

async fn put(network: &LabNetwork, end: End, keys: &[MacSecKey], active: Option<u8>) -> Result<MacSecHeld, NetError> {
    let wanted = MacSecWanted { keys: keys.to_vec(), active: active.map(name) };
    network.put_macsec(SITES[end as usize], TRUNK, &wanted).await
}

/// Tells both ends, and expects the second to say that it is so.
async fn put_both(network: &LabNetwork, keys: &[MacSecKey], active: u8) -> Outcome {
    put(network, End::A, keys, Some(active)).await?;
    let held = put(network, End::B, keys, Some(active)).await?;
    assert_eq!(held.active, Some(name(active)));
    Ok(())
}

async fn status(network: &LabNetwork, end: End) -> MacSecStatus {
    network.macsec().await[SITES[end as usize]][TRUNK]
}

/// Tagged links on both routers, and a socket on each.
async fn linked(network: &LabNetwork) -> Result<[UdpSocket; 2], Box<dyn std::error::Error + Send + Sync>> {
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

fn socket(namespace: &Namespace, address: Ipv4Addr) -> UdpSocket {
    let socket = namespace.run(|| UdpSocket::bind((address, PORT))).unwrap().unwrap();
    socket.set_read_timeout(Some(AGAIN)).unwrap();
    socket
}

/// Sends `word` until it arrives, and says what else arrived before; `None` where it did not in so many tries.
fn arrives(from: &UdpSocket, to: &UdpSocket, word: &[u8], tries: usize) -> Option<Vec<Vec<u8>>> {
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
fn secret() -> Vec<u8> {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    [SECRET, &COUNT.fetch_add(1, Relaxed).to_be_bytes()].concat()
}

/// Whether words pass both ways, or none does.
fn both_ways([a, b]: &[UdpSocket; 2], tries: usize) -> [bool; 2] {
    [arrives(a, b, &secret(), tries).is_some(), arrives(b, a, &secret(), tries).is_some()]
}

/// Enough for a link that works: the first packets wait for neighbours.
const WORKS: usize = 30;
/// Enough for one that does not.
const FAILS: usize = 2;

/// Hears and says frames on a trunk, as they are on the wire.
struct Tapped(Socket);

impl Tapped {
    fn on(namespace: &Namespace, interface: &str) -> Self {
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
    fn frames(&self) -> Vec<Vec<u8>> {
        let mut all = Vec::new();
        let mut buffer = [0; 20_000];
        while let Ok(length) = io::Read::read(&mut &self.0, &mut buffer) {
            all.push(buffer[..length].to_vec());
        }
        all
    }

    fn say(&self, frame: &[u8]) {
        self.0.send(frame).unwrap();
    }
}

/// How many frames there are, none of which is other than MACsec or shows the secret.
fn encrypted(frames: &[Vec<u8>]) -> usize {
    for frame in frames {
        assert_eq!(frame[12..14], MACSEC, "a frame in clear: {frame:02x?}");
        assert!(!frame.windows(SECRET.len()).any(|words| words == SECRET), "the secret is on the wire: {frame:02x?}");
    }
    frames.len()
}

/// A datagram to the second router, in clear and with the tag.
fn in_clear(word: &[u8]) -> Vec<u8> {
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
fn no_key_is_shown() {
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

async fn passes(inside: Inside) -> Outcome {
    let network = &inside.network;
    let ends = linked(network).await?;
    let wire = Tapped::on(&network.namespaces()["a-router"], TRUNK);
    assert_eq!(both_ways(&ends, WORKS), [true; 2], "a trunk on which no end runs MACsec passes in clear");
    assert!(wire.frames().iter().any(|frame| frame.windows(SECRET.len()).any(|words| words == SECRET)));

    let held = put(network, End::A, &[key(1, 1)], Some(1)).await?;
    assert_eq!(held, MacSecHeld { installed: vec![name(1)], active: None }, "the other end has no key yet");
    assert_eq!(both_ways(&ends, FAILS), [false; 2]);
    let held = put(network, End::B, &[key(1, 1)], Some(1)).await?;
    assert_eq!(held, MacSecHeld { installed: vec![name(1)], active: Some(name(1)) });
    // Forgotten are what was sent in clear to the end that took nothing, and neighbours.
    wire.frames();
    assert_eq!(both_ways(&ends, WORKS), [true; 2]);
    assert!(encrypted(&wire.frames()) >= 2);
    let told = MacSecStatus { installed: 1, active: true, changes: 1, way: MacSecWay::Kernel };
    assert_eq!([status(network, End::A).await, status(network, End::B).await], [told; 2]);
    assert_eq!(network.tagged().await["aws"], ["ch0.100"]);
    assert_eq!(network.wires()[TRUNK].keyed, [true; 2], "the wire itself carries all");

    // The status is what the kernel says: a key that another hand takes is not there.
    let router = &network.namespaces()["b-router"];
    let off = router.command("ip").args(["macsec", "set", "ch0-sec", "tx", "sa", "0", "off"]).status()?;
    assert!(off.success());
    assert!(!status(network, End::B).await.active);
    put(network, End::B, &[key(1, 1)], Some(1)).await?;
    assert!(status(network, End::B).await.active, "told again, it is so again");

    // A link that comes and one that goes stand on the same.
    let link = LinkName { parent: TRUNK.to_owned(), vlan: VLAN };
    network.delete_link("aws", &link).await?;
    assert_eq!(both_ways(&ends, FAILS), [false; 2]);
    linked_again(network, &link).await?;
    wire.frames();
    assert_eq!(both_ways(&ends, WORKS), [true; 2]);
    assert!(encrypted(&wire.frames()) >= 2);
    no_key_is_shown();
    Ok(())
}

async fn linked_again(network: &LabNetwork, link: &LinkName) -> Outcome {
    let wanted = LinkWanted { mtu_bytes: 9_000, address: Ipv4Net::new(ADDRESSES[0], 30)? };
    Ok(network.put_link("aws", link, &wanted).await?)
}

async fn closed(inside: Inside) -> Outcome {
    let network = &inside.network;
    let ends = linked(network).await?;
    let (a_wire, b_wire) =
        (Tapped::on(&network.namespaces()["a-router"], TRUNK), Tapped::on(&network.namespaces()["b-router"], TRUNK));
    assert_eq!(both_ways(&ends, WORKS), [true; 2]);
    a_wire.say(&in_clear(b"first"));
    let before = arrives(&ends[0], &ends[1], &secret(), WORKS).ok_or("nothing passes")?;
    assert!(
        before.contains(&b"first".to_vec()),
        "what is made by hand would arrive where MACsec is not run: {before:?}"
    );

    // No key in use: an end sends nothing, whatever it holds.
    put(network, End::A, &[key(1, 1)], Some(1)).await?;
    put(network, End::B, &[], None).await?;
    a_wire.frames();
    assert_eq!(both_ways(&ends, FAILS), [false; 2]);
    assert_eq!(a_wire.frames().len() + b_wire.frames().iter().filter(|f| f[12..14] == MACSEC).count(), 0, "it sends");
    let of = |status: MacSecStatus| (status.installed, status.active);
    assert_eq!(of(status(network, End::A).await), (1, false));
    assert_eq!(of(status(network, End::B).await), (0, false));

    // One name, two secrets.
    put(network, End::B, &[key(1, 9)], Some(1)).await?;
    assert_eq!(both_ways(&ends, FAILS), [false; 2]);
    assert_eq!(of(status(network, End::A).await), (1, false));
    assert_eq!(of(status(network, End::B).await), (1, false));

    // The right one, and nothing in clear beside it; a tag on the bare trunk leads nowhere.
    put(network, End::B, &[key(1, 1)], Some(1)).await?;
    a_wire.say(&in_clear(b"second"));
    let before = arrives(&ends[0], &ends[1], &secret(), WORKS).ok_or("nothing passes under the right key")?;
    assert!(!before.contains(&b"second".to_vec()), "a frame in clear is taken");

    // The end that is told to use none takes nothing either.
    put(network, End::B, &[key(1, 1)], None).await?;
    assert_eq!(of(status(network, End::B).await), (1, false));
    assert_eq!(both_ways(&ends, FAILS), [false; 2]);
    put(network, End::B, &[key(1, 1)], Some(1)).await?;
    assert_eq!(both_ways(&ends, WORKS), [true; 2]);

    // More keys than numbers are refused, and change nothing.
    let five: Vec<_> = (1..6).map(|n| key(n, n)).collect();
    let refused = put(network, End::A, &five, Some(1)).await;
    assert!(matches!(refused, Err(NetError::MacSec { .. })), "{refused:?}");
    assert_eq!(both_ways(&ends, WORKS), [true; 2]);
    Ok(())
}

async fn rotates(inside: Inside) -> Outcome {
    let network = &inside.network;
    let ends = linked(network).await?;
    let wire = Tapped::on(&network.namespaces()["a-router"], TRUNK);
    put_both(network, &[key(1, 1)], 1).await?;
    assert_eq!(both_ways(&ends, WORKS), [true; 2]);

    // A frame under the first key, which is opened for as long as that is there.
    let word = [SECRET, [b'!'; 900].as_slice()].concat();
    wire.frames();
    arrives(&ends[0], &ends[1], &word, WORKS).ok_or("nothing passes")?;
    let old = wire.frames().into_iter().find(|frame| frame.len() > word.len()).ok_or("no frame was heard")?;
    wire.say(&old);
    let before = arrives(&ends[0], &ends[1], &secret(), WORKS).ok_or("nothing passes")?;
    assert!(before.contains(&word), "a frame said again is within the window: {before:?}");

    let [forth, back] = [Flow::start(network, End::A)?, Flow::start(network, End::B)?];
    // As many changes as there are numbers, so that the first is used again, and each end first in turn.
    for old in 1..5 {
        let new = old + 1;
        let (first, second) = if new % 2 == 0 { (End::A, End::B) } else { (End::B, End::A) };
        let both = [key(old, old), key(new, new)];
        put(network, first, &both, Some(old)).await?;
        let held = put(network, second, &both, Some(old)).await?;
        assert_eq!((held.installed.len(), held.active), (2, Some(name(old))));
        forth.goes_on(&back).await?;
        let held = put(network, first, &both, Some(new)).await?;
        assert_eq!(held.active, Some(name(new)), "the other end has it too");
        forth.goes_on(&back).await?;
        let held = put(network, second, &both, Some(new)).await?;
        assert_eq!(held.active, Some(name(new)));
        forth.goes_on(&back).await?;
        for end in [second, first] {
            let held = put(network, end, &both[1..], Some(new)).await?;
            assert_eq!(held, MacSecHeld { installed: vec![name(new)], active: Some(name(new)) });
            forth.goes_on(&back).await?;
        }
    }
    for (sent, received) in [forth.end().await?, back.end().await?] {
        println!("{sent:?}\n{received:?}");
        assert_eq!((sent.refused, received.lost, received.received), (0, 0, sent.sent), "{received:?}");
    }
    assert_eq!(status(network, End::A).await.changes, 5);

    // The first key's number is that of another by now, and its frame leads nowhere.
    wire.say(&old);
    let before = arrives(&ends[0], &ends[1], &secret(), WORKS).ok_or("nothing passes")?;
    assert!(!before.contains(&word), "an old key opens a frame");
    // Nor does it when the key comes again, by its number of then: what is sent goes on behind what was sent before.
    for (old, new) in [(5, 6), (6, 7), (7, 8), (8, 1)] {
        put_both(network, &[key(old, old), key(new, new)], new).await?;
        put_both(network, &[key(new, new)], new).await?;
    }
    wire.frames();
    arrives(&ends[0], &ends[1], &secret(), WORKS).ok_or("nothing passes under a key that comes again")?;
    let number = |frame: &[u8]| frame[14] & 3;
    assert!(wire.frames().iter().all(|frame| number(frame) == number(&old)), "the key has its old number");
    wire.say(&old);
    let before = arrives(&ends[0], &ends[1], &secret(), WORKS).ok_or("nothing passes")?;
    assert!(!before.contains(&word), "what was sent under a key is taken again when that comes again");
    no_key_is_shown();
    Ok(())
}

/// A numbered flow one way.
struct Flow {
    sent: tokio::task::JoinHandle<io::Result<UdpSent>>,
    received: tokio::task::JoinHandle<io::Result<UdpReceived>>,
    count: Arc<AtomicU64>,
    stop: CancellationToken,
    end: CancellationToken,
}

impl Flow {
    fn start(network: &LabNetwork, from: End) -> io::Result<Self> {
        let open = |end: End| {
            let namespace = &network.namespaces()[&format!("{}-router", end.letter())];
            let socket =
                namespace.run(|| UdpSocket::bind((ADDRESSES[end as usize], 0))).map_err(io::Error::other)??;
            socket.set_nonblocking(true)?;
            tokio::net::UdpSocket::from_std(socket)
        };
        let (from, to) = (open(from)?, open(from.other())?);
        let address = to.local_addr()?;
        let (stop, end, count) = (CancellationToken::new(), CancellationToken::new(), Arc::new(AtomicU64::new(0)));
        let flow = UdpFlow { rate_pps: 200, payload_bytes: 200 };
        let sent = tokio::spawn({
            let stop = stop.clone();
            async move { flows::udp_send(&from, address, flow, stop).await }
        });
        let received = tokio::spawn({
            let (end, count) = (end.clone(), Arc::clone(&count));
            async move {
                let report = |report: UdpReceived| count.store(report.received, Relaxed);
                flows::udp_receive(&to, Duration::from_millis(10), end, report).await
            }
        });
        Ok(Self { sent, received, count, stop, end })
    }

    async fn reaches(&self, count: u64) -> Outcome {
        let mut look = tokio::time::interval(Duration::from_millis(10));
        let waited = tokio::time::timeout(PATIENCE, async {
            while self.count.load(Relaxed) < count {
                look.tick().await;
            }
        });
        let seen = || format!("{} of {count} datagrams arrived", self.count.load(Relaxed));
        waited.await.map_err(|_| seen().into())
    }

    /// Some more arrive of both: more than can have been on their way.
    async fn goes_on(&self, other: &Self) -> Outcome {
        for flow in [self, other] {
            flow.reaches(flow.count.load(Relaxed) + 40).await?;
        }
        Ok(())
    }

    async fn end(self) -> Result<(UdpSent, UdpReceived), Box<dyn std::error::Error + Send + Sync>> {
        self.stop.cancel();
        let count = Arc::clone(&self.count);
        let sent = self.sent.await??;
        let wait = tokio::time::timeout(PATIENCE, async {
            let mut look = tokio::time::interval(Duration::from_millis(10));
            while count.load(Relaxed) < sent.sent {
                look.tick().await;
            }
        });
        // Where some are lost the report says so.
        let _ = wait.await;
        self.end.cancel();
        Ok((sent, self.received.await??))
    }
}

/// Two devices on a wire, each with a namespace of its own.
async fn devices() -> Outcome {
    let namespaces = [Namespace::create("one")?, Namespace::create("two")?];
    let taps = namespaces.each_ref().map(|namespace| Tap::create(namespace, "eth0", Offload::Full));
    let [one, two] = taps;
    let _wire = Wire::join("pair", one?, two?, Impairment::delay_us(100), 1)?;
    let mut devices = Vec::new();
    let mut links = Vec::new();
    for (end, namespace) in [End::A, End::B].into_iter().zip(&namespaces) {
        let open = Links::open(namespace)?;
        open.set_up("eth0", true).await?;
        let device = Device::create(namespace, &open, "eth0", 0, end).await?;
        println!("{}: {:?}", device.name(), device.cipher());
        open.set_addresses(device.name(), &[Ipv4Net::new(ADDRESSES[end as usize], 30)?]).await?;
        devices.push(device);
        links.push(open);
    }
    let ends = [socket(&namespaces[0], ADDRESSES[0]), socket(&namespaces[1], ADDRESSES[1])];
    let sak = |n: u8| Sak::derive(&[1; 32], "eth0", &key(n, n));
    let (right, wrong) = (sak(1)?, sak(2)?);
    let [right_id, wrong_id] = [&right, &wrong].map(Sak::id);
    devices[0].install(0, &right)?;
    devices[0].send_under(&links[0], Some(right_id)).await?;
    devices[1].install(0, &wrong)?;
    devices[1].send_under(&links[1], Some(wrong_id)).await?;
    assert_eq!(both_ways(&ends, FAILS), [false; 2], "each sends under a key that the other has not");
    assert_eq!(devices[1].held()?.active, Some(wrong_id));
    // Another key of that number takes the place of the wrong one, and may be told again.
    for _ in 0..2 {
        devices[1].install(0, &right)?;
        devices[1].send_under(&links[1], Some(right_id)).await?;
    }
    assert_eq!(both_ways(&ends, WORKS), [true; 2]);
    assert_eq!(devices[1].held()?.installed, BTreeSet::from([right_id]));
    // Another number with the same key is another association.
    devices[1].keep_only(&BTreeSet::new())?;
    assert_eq!(devices[1].held()?.installed, BTreeSet::new());
    assert_eq!(both_ways(&ends, FAILS), [false; 2], "a key that is gone opens nothing");
    devices[1].install(2, &right)?;
    devices[1].send_under(&links[1], Some(right_id)).await?;
    assert_eq!(both_ways(&ends, FAILS), [false; 2]);
    // A second device on the same trunk is an error, and takes nothing away.
    let again = Device::create(&namespaces[0], &links[0], "eth0", 0, End::A).await;
    assert!(matches!(again, Err(NetError::Netlink { .. })), "{again:?}");
    assert_eq!(devices[0].held()?.active, Some(right_id));
    links[0].delete("eth0-sec").await?;
    assert!(matches!(devices[0].held(), Err(DeviceError::Read(_))));
    Ok(())
}

async fn found(inside: Inside, way: MacSecWay) -> Outcome {
    let network = &inside.network;
    let ends = linked(network).await?;
    put(network, End::A, &[key(1, 1)], Some(1)).await?;
    assert_eq!(status(network, End::A).await, MacSecStatus { installed: 1, active: false, changes: 0, way });
    assert_eq!(network.wires()[TRUNK].keyed, [way == MacSecWay::Kernel; 2]);
    assert_eq!(both_ways(&ends, FAILS), [false; 2]);
    put(network, End::B, &[key(1, 1)], Some(1)).await?;
    assert_eq!(status(network, End::B).await, MacSecStatus { installed: 1, active: true, changes: 1, way });
    assert_eq!(both_ways(&ends, WORKS), [true; 2]);
    Ok(())
}
