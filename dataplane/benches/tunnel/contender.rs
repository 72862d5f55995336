//! Who is measured, and the two namespaces that they stand in.

use std::{
    env, io,
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use base64::{Engine, engine::general_purpose::STANDARD};

use super::{node, ns::Ns};

/// MTU inside, for all alike: 1,500 less IPv6, UDP and WireGuard's headers, as `wg-quick` has it.
pub(crate) const MTU: u16 = 1_420;
pub(crate) const PORT: u16 = 51_820;
/// Longest wait for a tunnel.
const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) fn outer(n: usize) -> IpAddr {
    Ipv4Addr::new(192, 0, 2, u8::try_from(n).unwrap() + 1).into()
}

pub(crate) fn inner(n: usize) -> IpAddr {
    Ipv4Addr::new(169, 254, 200, u8::try_from(n).unwrap() + 1).into()
}

/// Two namespaces and a wire between them.
pub(crate) struct Pair(pub(crate) [Ns; 2]);

impl Pair {
    pub(crate) fn new() -> Self {
        let pair = [Ns::new(), Ns::new()];
        let _cubic = CubicAllowed::everywhere();
        pair[0].link("wan0", &format!("{}/24", outer(0)), &pair[1], "wan0", &format!("{}/24", outer(1)));
        for (n, ns) in pair.iter().enumerate() {
            // The site's side of a gateway, which is not used.
            ns.sh("ip link add prv0 type veth peer name prv1");
            ns.sh(&format!("ip address add 10.{n}.2.10/24 dev prv0"));
            ns.sh("ip link set prv0 up");
            ns.sh(&format!("ip route add 10.0.0.0/8 dev prv0 src 10.{n}.2.10"));
            // The default of Linux (RFC 9438), whatever this machine's is, and before there is a socket. BBR keeps to a pace that
            // it sets itself: without a tunnel that is a quarter of what the wire takes.
            ns.sh("sysctl -qw net.ipv4.tcp_congestion_control=cubic");
        }
        Self(pair)
    }
}

/// A machine whose default is another one may keep CUBIC from namespaces; while this lives it does not.
struct CubicAllowed {
    /// What was allowed, where that has been changed.
    before: Option<String>,
}

impl CubicAllowed {
    const ALLOWED: &str = "/proc/sys/net/ipv4/tcp_allowed_congestion_control";

    fn everywhere() -> Self {
        let before = std::fs::read_to_string(Self::ALLOWED).unwrap();
        let missing = before.split_whitespace().all(|name| name != "cubic");
        Self {
            before: missing.then(|| {
                std::fs::write(Self::ALLOWED, format!("{} cubic", before.trim())).unwrap();
                before
            }),
        }
    }
}

impl Drop for CubicAllowed {
    fn drop(&mut self) {
        if let Some(Err(error)) = self.before.take().map(|before| std::fs::write(Self::ALLOWED, before)) {
            eprintln!("CUBIC stays allowed in every namespace: {error}");
        }
    }
}

/// Running daemons; gone when dropped.
pub(crate) struct Daemons {
    children: Vec<Child>,
    /// Whether they end by themselves when their standard input does.
    end_with_input: bool,
    files: Vec<PathBuf>,
}

impl Daemons {
    /// CPU time of all, in seconds (`man 5 proc_pid_stat`, utime and stime).
    pub(crate) fn cpu(&self) -> f64 {
        let ticks = self.children.iter().map(|child| {
            let stat = std::fs::read_to_string(format!("/proc/{}/stat", child.id())).unwrap_or_default();
            // utime and stime are fields 14 and 15; what follows the name in brackets is field 3.
            let after = stat.rsplit(") ").next().unwrap_or_default();
            after.split(' ').skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum::<u64>()
        });
        ticks.sum::<u64>() as f64 / 100.0
    }
}

impl Drop for Daemons {
    fn drop(&mut self) {
        for child in &mut self.children {
            drop(child.stdin.take());
            if !self.end_with_input {
                let _ = child.kill();
            }
            let _ = child.wait();
        }
        for file in &self.files {
            let _ = std::fs::remove_file(file);
        }
    }
}

/// One implementation.
pub(crate) enum Contender {
    /// No tunnel: what the wire gives.
    Raw,
    /// This gateway, with so many lanes.
    Tieline(usize),
    /// A daemon that is configured by `wg`. Several of one peer differ in how they are run: the best of them counts.
    Daemon { name: &'static str, peer: &'static str, path: PathBuf, arguments: &'static [&'static str] },
}

/// Name, peer and arguments. boringtun-cli is best with one thread or two, which changes with the load; its default of four
/// is behind both on two cores.
const DAEMONS: [(&str, &str, &[&str]); 4] = [
    ("wireguard-go", "wireguard-go", &["-f"]),
    ("gotatun", "gotatun", &["-f", "--disable-drop-privileges"]),
    ("boringtun-cli-1", "boringtun-cli", &["-f", "--disable-drop-privileges", "--threads", "1"]),
    ("boringtun-cli-2", "boringtun-cli", &["-f", "--disable-drop-privileges", "--threads", "2"]),
];

impl Contender {
    /// Ours, and what is installed.
    pub(crate) fn found(lanes: usize) -> Vec<Self> {
        let mut found = vec![Self::Raw, Self::Tieline(lanes)];
        for (name, peer, arguments) in DAEMONS {
            match installed(peer).filter(|_| on_path("wg").is_some()) {
                Some(path) => found.push(Self::Daemon { name, peer, path, arguments }),
                None => eprintln!("{name} (or `wg`) is not installed, so not measured"),
            }
        }
        found
    }

    /// Whose figures it stands for.
    pub(crate) fn peer(&self) -> &'static str {
        match self {
            Self::Raw | Self::Tieline(_) => self.name(),
            Self::Daemon { peer, .. } => peer,
        }
    }

    /// Its version, where it is known.
    pub(crate) fn version(&self) -> String {
        match self {
            Self::Raw => "veth, no tunnel".to_owned(),
            Self::Tieline(lanes) => format!("{}, {lanes} lane(s)", env!("CARGO_PKG_VERSION")),
            Self::Daemon { peer, path, .. } => {
                let noted = path.parent().and_then(Path::parent).map(|root| root.join(format!("{peer}.version")));
                if let Some(version) = noted.and_then(|noted| std::fs::read_to_string(noted).ok()) {
                    return version.trim().to_owned();
                }
                let said = Command::new(path).arg("--version").output().map(|said| said.stdout).unwrap_or_default();
                String::from_utf8_lossy(&said).lines().next().unwrap_or("?").to_owned()
            }
        }
    }

    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Tieline(_) => "tieline",
            Self::Daemon { name, .. } => name,
        }
    }

    /// Starts one at each end, and waits until packets pass; `None`: none pass.
    pub(crate) fn start(&self, pair: &Pair) -> Option<Daemons> {
        let mut daemons =
            Daemons { children: Vec::new(), end_with_input: matches!(self, Self::Tieline(_)), files: Vec::new() };
        for (n, ns) in pair.0.iter().enumerate() {
            match self {
                Self::Raw => ns.sh(&format!("ip address add {}/30 dev wan0", inner(n))),
                Self::Tieline(lanes) => {
                    let mut command = Command::new(env::current_exe().unwrap());
                    command.args(["node", &n.to_string(), &lanes.to_string()]);
                    command.stdin(Stdio::piped());
                    daemons.children.push(spawn(ns, command));
                    continue;
                }
                Self::Daemon { path, arguments, .. } => {
                    daemons.add(n, ns, path, arguments)?;
                    String::new()
                }
            };
        }
        let started = Instant::now();
        // Nobody listens there, and its refusal has come through the tunnel.
        let discard = SocketAddr::new(inner(1), 9);
        let passes = || {
            let tried = pair.0[0].run(move || TcpStream::connect_timeout(&discard, Duration::from_millis(200)));
            let error = tried.join().unwrap().unwrap().err();
            error.is_some_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
        };
        while !passes() {
            if started.elapsed() > PATIENCE {
                return None;
            }
        }
        Some(daemons)
    }
}

impl Daemons {
    fn add(&mut self, n: usize, ns: &Ns, path: &Path, arguments: &[&str]) -> Option<()> {
        let name = format!("tlb{n}");
        let mut command = Command::new(path);
        command.args(arguments).arg(&name).env("WG_PROCESS_FOREGROUND", "1").env("LOG_LEVEL", "error");
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        self.children.push(spawn(ns, command));
        let control = PathBuf::from(format!("/var/run/wireguard/{name}.sock"));
        self.files.push(control.clone());
        let started = Instant::now();
        while !control.exists() {
            if started.elapsed() > PATIENCE {
                return None;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let keys = tempfile::tempdir().unwrap();
        let key = keys.path().join("key");
        std::fs::write(&key, STANDARD.encode(node::key(n, 0).as_bytes())).unwrap();
        ns.try_sh(&format!(
            "wg set {name} listen-port {PORT} private-key {} peer {} endpoint {}:{PORT} allowed-ips 0.0.0.0/0",
            key.display(),
            node::public(1 - n, 0),
            outer(1 - n),
        ))
        .ok()?;
        ns.sh(&format!("ip address add {}/30 dev {name}", inner(n)));
        ns.sh(&format!("ip link set {name} mtu {MTU} up"));
        Some(())
    }
}

/// Starts a process in a namespace.
pub(crate) fn spawn(ns: &Ns, mut command: Command) -> Child {
    ns.run(move || command.spawn()).join().unwrap().unwrap().unwrap()
}

/// By its variable, where `scripts/install-wireguards.sh` puts it, or on the PATH.
fn installed(peer: &str) -> Option<PathBuf> {
    let variable = format!("TIELINE_BENCH_{}", peer.to_uppercase().replace('-', "_"));
    let home = || Some(PathBuf::from(env::var_os("HOME")?).join(".cache"));
    let cache = env::var_os("XDG_CACHE_HOME").map(PathBuf::from).or_else(home);
    let cached = cache.map(|cache| cache.join("tieline/wireguards/bin").join(peer)).filter(|path| path.is_file());
    env::var_os(variable).map(PathBuf::from).or(cached).or_else(|| on_path(peer))
}

pub(crate) fn on_path(tool: &str) -> Option<PathBuf> {
    env::split_paths(&env::var_os("PATH")?).map(|folder| folder.join(tool)).find(|path| path.is_file())
}
