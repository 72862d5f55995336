//! With other implementations of WireGuard: the Debian package wireguard-go, the daemon that `TIELINE_WIREGUARD_GO` names, or
//! the kernel's in a machine (`make interop` takes each in turn), told what to do by `wg`. Skips with a reason where they are
//! not installed.

use std::{
    net::{SocketAddr, UdpSocket},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use boringtun::{noise::rate_limiter::RateLimiter, x25519::PublicKey};
use tieline_dataplane::proto::tunnel::{Lane, LaneKeys, MAX_HANDSHAKE, OVERHEAD, Output};
use zeroize::Zeroizing;

use super::{
    machine::Machine,
    ns::Ns,
    packets::{bulk, datagrams},
    world::*,
};

const PRESHARED: [u8; 32] = [77; 32];

/// Another WireGuard, gone when dropped.
struct Other<'a> {
    ns: &'a Ns,
    /// Of its interface.
    name: String,
    runs: Runs,
}

/// How it runs.
enum Runs {
    /// As a daemon in the namespace.
    Daemon { child: Child, control: PathBuf, files: tempfile::TempDir },
    /// In the kernel of a machine.
    Machine(Machine),
}

impl Drop for Runs {
    fn drop(&mut self) {
        if let Self::Daemon { child, control, .. } = self {
            let _ = child.kill();
            let _ = child.wait();
            let _ = std::fs::remove_file(control);
        }
    }
}

/// The machine with the kernel's WireGuard, where that is the one to be tried.
fn kernel() -> Option<PathBuf> {
    std::env::var_os("TIELINE_KERNEL_MACHINE").map(PathBuf::from)
}

fn cannot_run_with_others() -> bool {
    let answers = |program: &str| Command::new(program).arg("--version").output().is_ok();
    let missing = match kernel() {
        Some(made) if !made.join("vmlinuz").exists() => Some("TIELINE_KERNEL_MACHINE names no machine"),
        Some(_) if !answers("qemu-system-x86_64") => Some("qemu-system-x86_64 is not installed"),
        Some(_) => None,
        None if std::env::var_os("TIELINE_WIREGUARD_GO").is_none() && !answers("wireguard-go") => {
            Some("wireguard-go is not installed (apt-get install wireguard-go)")
        }
        None if !answers("wg") => Some("`wg` is not installed (apt-get install wireguard-tools)"),
        None => None,
    };
    if let Some(missing) = missing {
        println!("skipped: {missing}");
    }
    cannot_run() || missing.is_some()
}

fn daemon(ns: &Ns, name: &str) -> Runs {
    let program = std::env::var_os("TIELINE_WIREGUARD_GO").unwrap_or_else(|| "wireguard-go".into());
    let mut command = Command::new(&program);
    // Others give up the root that `wg set` needs of them, and have a flag of the same name against it.
    if !std::path::Path::new(&program).ends_with("wireguard-go") {
        command.arg("--disable-drop-privileges");
        // With several threads boringtun-cli changes the order of what passes it.
        command.env("WG_THREADS", "1");
    }
    command.args(["-f", name]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let child = ns.run(move || command.spawn()).join().unwrap().unwrap().unwrap();
    let control = PathBuf::from(format!("/var/run/wireguard/{name}.sock"));
    let runs = Runs::Daemon { child, control: control.clone(), files: tempfile::tempdir().unwrap() };
    let started = Instant::now();
    while !control.exists() {
        assert!(started.elapsed() < PATIENCE, "the daemon does not start");
        std::thread::sleep(Duration::from_millis(10));
    }
    runs
}

impl<'a> Other<'a> {
    /// In the place of gateway 1, with gateway 0 as its peer.
    fn start(world: &'a World, preshared: bool) -> Self {
        let ns = &world.gateway[1];
        // Control sockets are in one folder for all namespaces.
        let name = if kernel().is_some() { "wg0".to_owned() } else { format!("wg{}", std::process::id()) };
        let runs = kernel().map_or_else(|| daemon(ns, &name), |made| Runs::Machine(Machine::start(ns, &made)));
        let this = Self { ns, name, runs };
        let name = &this.name;
        if let Runs::Machine(machine) = &this.runs {
            machine.sh(&format!("ip link add {name} type wireguard"));
        }
        let preshared =
            if preshared { format!(" preshared-key {}", this.file("preshared", &PRESHARED)) } else { String::new() };
        this.sh(&format!(
            "wg set {name} listen-port 51820 private-key {} peer {}{preshared} endpoint {} allowed-ips 0.0.0.0/0",
            this.file("private", key(1).as_bytes()),
            public(&key(0)),
            endpoint(0),
        ));
        match &this.runs {
            Runs::Daemon { .. } => {
                ns.sh(&format!("ip address add 169.254.200.2/30 dev {name}"));
                ns.sh(&format!("ip link set {name} mtu 1420 up"));
            }
            Runs::Machine(machine) => {
                machine.sh(&format!("ip link set {name} mtu 1420 up"));
                machine.sh(&format!("ip route add 169.254.200.1/32 dev {name}"));
            }
        }
        this
    }

    /// Runs a line where its interface is.
    fn sh(&self, line: &str) -> String {
        match &self.runs {
            Runs::Daemon { .. } => self.ns.sh(line),
            Runs::Machine(machine) => machine.sh(line),
        }
    }

    fn ends_when_it_moves(&self) -> bool {
        let program = std::env::var_os("TIELINE_WIREGUARD_GO").map(PathBuf::from);
        matches!(self.runs, Runs::Daemon { .. }) && program.is_some_and(|program| program.ends_with("gotatun"))
    }

    /// A file with a key, where `wg` reads it.
    fn file(&self, file: &str, bytes: &[u8]) -> String {
        let text = STANDARD.encode(bytes);
        match &self.runs {
            Runs::Daemon { files, .. } => {
                let path = files.path().join(file);
                std::fs::write(&path, text).unwrap();
                path.display().to_string()
            }
            Runs::Machine(machine) => {
                machine.sh(&format!("echo {text} >/run/{file}"));
                format!("/run/{file}")
            }
        }
    }

    /// What `wg show` says of its peer.
    fn show(&self, what: &str) -> String {
        let said = self.sh(&format!("wg show {} {what}", self.name));
        said.split_once('\t').map(|(_, value)| value.trim().to_owned()).unwrap_or_default()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_gateway_and_another_wireguard_carry_for_each_other() {
    if cannot_run_with_others() {
        return;
    }
    let world = World::new();
    let other = Other::start(&world, false);
    let (gateway, _reports) = start(&world, 0);
    let mut configuration = configuration(0, 1, false, &public(&key(1)));
    configuration.connections[0].mtu_bytes = 1_420_u64.try_into().unwrap();
    gateway.apply(configuration);
    until(&gateway, "there is a session", |status| {
        status.connections.first().is_some_and(|connection| connection.peers[0].lanes[0].alive)
    })
    .await;
    let (ours, theirs) = (&world.gateway[0], &world.gateway[1]);
    bulk(ours, theirs, "169.254.200.2:9300".parse().unwrap(), 4 << 20);
    bulk(theirs, ours, "169.254.200.1:9300".parse().unwrap(), 4 << 20);
    let there = datagrams(ours, theirs, "169.254.200.2:9301".parse().unwrap(), 500, 1_000);
    let back = datagrams(theirs, ours, "169.254.200.1:9301".parse().unwrap(), 500, 1_000);
    assert!(there > 450 && back > 450, "{there} and {back} of 500 datagrams");
    let transfer: Vec<u64> = other.show("transfer").split('\t').map(|bytes| bytes.parse().unwrap()).collect();
    assert!(transfer.iter().all(|bytes| *bytes > 4 << 20), "`wg show` counts both ways: {transfer:?}");

    if other.ends_when_it_moves() {
        println!("skipped in part: gotatun ends when it is given another port");
        return gateway.stop();
    }
    // The other side moves to another port, and is followed.
    other.sh(&format!("wg set {} listen-port 51999", other.name));
    bulk(theirs, ours, "169.254.200.1:9302".parse().unwrap(), 1 << 20);
    let moved: SocketAddr = "198.51.100.10:51999".parse().unwrap();
    until(&gateway, "the peer is followed", |status| status.connections[0].peers[0].lanes[0].endpoint == moved).await;
    bulk(ours, theirs, "169.254.200.2:9302".parse().unwrap(), 1 << 20);
    gateway.stop();
}

fn checksum(bytes: &[u8]) -> [u8; 2] {
    let words = bytes.chunks(2).map(|word| u32::from(u16::from_be_bytes([word[0], *word.get(1).unwrap_or(&0)])));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    (!u16::try_from(sum).unwrap()).to_be_bytes()
}

/// An ICMP echo request (RFC 792), which the kernel at the other end answers.
fn echo(number: u16) -> Vec<u8> {
    let mut packet = vec![0x45, 0, 0, 84, 0, 0, 0, 0, 64, 1, 0, 0, 169, 254, 200, 1, 169, 254, 200, 2];
    let sum = checksum(&packet);
    packet[10..12].copy_from_slice(&sum);
    packet.extend([8, 0, 0, 0, 0, 7]);
    packet.extend(number.to_be_bytes());
    packet.resize(84, 3);
    let sum = checksum(&packet[20..]);
    packet[22..24].copy_from_slice(&sum);
    packet
}

/// A lane on a socket of its own, without a gateway around it.
struct Bare {
    lane: Lane,
    socket: UdpSocket,
    /// Numbers of the echoes that came back.
    answered: Vec<u16>,
    sessions: usize,
}

impl Bare {
    fn take(&mut self, until: Instant) {
        let (mut datagram, mut out) = ([0; 2_048], [0; 2_048]);
        self.socket.set_read_timeout(Some(Duration::from_millis(5))).unwrap();
        while Instant::now() < until {
            if let Output::Send(bytes) = self.lane.tick(Instant::now(), &mut out) {
                let _ = self.socket.send_to(bytes, self.lane.endpoint());
            }
            let Ok((length, from)) = self.socket.recv_from(&mut datagram) else { return };
            self.sessions += usize::from(datagram[0] == 2);
            match self.lane.decapsulate(from, &datagram[..length], &mut out) {
                Output::Nothing => {}
                Output::Send(answer) => {
                    let _ = self.socket.send_to(answer, from);
                    while let Output::Send(staged) = self.lane.staged(&mut out) {
                        let _ = self.socket.send_to(staged, from);
                    }
                }
                Output::Packet(packet) => self.answered.push(u16::from_be_bytes([packet[26], packet[27]])),
            }
        }
    }

    fn send(&mut self, number: u16) {
        let (packet, mut out) = (echo(number), [0; 84 + OVERHEAD + MAX_HANDSHAKE]);
        if let Output::Send(datagram) = self.lane.encapsulate(&packet, packet.len(), &mut out) {
            self.socket.send_to(datagram, self.lane.endpoint()).unwrap();
        }
    }
}

#[test]
fn a_lane_rekeys_and_roams_without_a_lost_packet() {
    if cannot_run_with_others() {
        return;
    }
    let world = World::new();
    let _other = Other::start(&world, true);
    let bind = |port: u16| {
        world.gateway[0].run(move || UdpSocket::bind(("203.0.113.10", port)).unwrap()).join().unwrap().unwrap()
    };
    let keys = LaneKeys { private: key(0), peer: PublicKey::from(&key(1)), preshared: Some(Zeroizing::new(PRESHARED)) };
    let limiter = Arc::new(RateLimiter::new(&PublicKey::from(&key(0)), 100));
    let lane = Lane::new(keys, 1, endpoint(1), limiter, Instant::now());
    let mut bare = Bare { lane, socket: bind(51_820), answered: Vec::new(), sessions: 0 };
    let started = Instant::now();
    while bare.sessions == 0 {
        assert!(started.elapsed() < PATIENCE, "no session, with a preshared key");
        bare.take(Instant::now() + Duration::from_millis(50));
    }
    let mut handshake = [0; MAX_HANDSHAKE];
    for number in 0..400 {
        if number % 50 == 25
            && let Output::Send(initiation) = bare.lane.initiate(&mut handshake)
        {
            bare.socket.send_to(initiation, endpoint(1)).unwrap();
        }
        if number == 200 {
            bare.socket = bind(51_821);
        }
        bare.send(number);
        bare.take(Instant::now() + Duration::from_millis(5));
    }
    // The answers that are on their way, those to the first port aside: they were sent before the other end knew.
    let started = Instant::now();
    while bare.answered.len() < 400 && started.elapsed() < Duration::from_secs(1) {
        bare.take(Instant::now() + Duration::from_millis(50));
    }
    let lost: Vec<u16> = (0..400).filter(|number| !bare.answered.contains(number)).collect();
    assert!(lost.iter().all(|number| (195..200).contains(number)), "lost {lost:?} over {} sessions", bare.sessions);
    assert!(bare.sessions >= 8, "{} sessions", bare.sessions);
    assert!(bare.answered.is_sorted(), "in order");
}

/// A thousand strangers knock at once; who is a peer goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_handshakes_is_asked_for_cookies() {
    if cannot_run() {
        return;
    }
    const STRANGERS: usize = 1_000;
    let world = World::new();
    let gateways = [0, 1].map(|n| start(&world, n).0);
    for (n, gateway) in gateways.iter().enumerate() {
        gateway.apply(configuration(n, 1, false, &public(&key(1 - n))));
    }
    for gateway in &gateways {
        until(gateway, "the tunnel carries", |status| chosen(status).is_some()).await;
    }
    let flood = world.internet.run(|| {
        let socket = UdpSocket::bind("198.51.100.1:0").unwrap();
        let limiter = Arc::new(RateLimiter::new(&PublicKey::from(&key(0)), 100));
        let mut out = [0; MAX_HANDSHAKE];
        let initiations: Vec<Vec<u8>> = (0..STRANGERS)
            .map(|n| {
                let mut private = [99; 32];
                private[..8].copy_from_slice(&n.to_le_bytes());
                let keys = LaneKeys { private: private.into(), peer: PublicKey::from(&key(1)), preshared: None };
                let mut lane = Lane::new(keys, 1, endpoint(1), Arc::clone(&limiter), Instant::now());
                match lane.initiate(&mut out) {
                    Output::Send(initiation) => initiation.to_vec(),
                    other @ (Output::Nothing | Output::Packet(_)) => panic!("{other:?}"),
                }
            })
            .collect();
        for initiation in &initiations {
            socket.send_to(initiation, endpoint(1)).unwrap();
        }
        socket.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
        let (mut cookies, mut datagram) = (0, [0; 2_048]);
        while let Ok(length) = socket.recv(&mut datagram) {
            assert_eq!((datagram[0], length), (3, 64), "nothing but a cookie");
            cookies += 1;
        }
        cookies
    });
    bulk(&world.host[0], &world.host[1], "10.1.1.2:9300".parse().unwrap(), 4 << 20);
    let cookies = flood.join().unwrap().unwrap();
    let path = until(&gateways[1], "it answers", |_| true).await.packet_path;
    assert!(path.under_load >= cookies as u64, "{cookies} were asked for a cookie: {path:?}");
    let (all, counted) = (STRANGERS as u64, path.under_load + path.limited + path.bad_handshakes);
    // The peer itself knocks as well, a few times.
    assert!((all * 9 / 10..=all + 16).contains(&counted), "each is counted for what it was: {path:?}");
    assert!(path.limited > all / 2, "one sender has one share: {path:?}");
    bulk(&world.host[1], &world.host[0], "10.0.1.2:9300".parse().unwrap(), 1 << 20);
    gateways.into_iter().for_each(tieline_dataplane::Dataplane::stop);
}
