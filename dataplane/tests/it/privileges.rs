//! `tieline gateway` as a process: what it holds, and the unit that ships with it.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
    sys::{
        signal::{Signal, kill},
        stat::{Mode, SFlag, makedev, mknod},
    },
    unistd::{Pid, User},
};
use tieline_dataplane::shell::local::{self, Answer, Request};

use super::{ns::Ns, world::*};

/// `CAP_NET_ADMIN`, `CAP_SYS_NICE` and `CAP_BPF` (<linux/capability.h>).
const NEEDED: u64 = 1 << 12 | 1 << 23 | 1 << 39;
const SYS_ADMIN: u64 = 1 << 21;

/// The binary; `None`, with a reason: it was not built, or nothing can run here.
pub(crate) fn binary() -> Option<PathBuf> {
    let binary = std::env::var_os("TIELINE_BIN").map(PathBuf::from).filter(|path| path.exists());
    if binary.is_none() {
        println!("skipped: TIELINE_BIN does not name the `tieline` binary");
    }
    binary.filter(|_| !cannot_run())
}

pub(crate) struct Gateway(pub(crate) Child);

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts one that waits to join: its API does not answer.
fn start(binary: &Path, world: &World, state: &Path, inside: bool, more: &[&str]) -> Gateway {
    start_from(Command::new(binary), world, state, inside, more)
}

/// The same, where the command names the binary and has what shall be in its environment.
pub(crate) fn start_from(command: Command, world: &World, state: &Path, inside: bool, more: &[&str]) -> Gateway {
    start_joining(command, world, state, inside, ("http://127.0.0.1:1", "unused"), more)
}

/// The same with an API, and a token for it.
pub(crate) fn start_joining(
    mut command: Command,
    world: &World,
    state: &Path,
    inside: bool,
    (url, token): (&str, &str),
    more: &[&str],
) -> Gateway {
    command.args(["gateway", "--url", url, "--join-token", token, "--name", "a-gw"]);
    command.args(["--private-address", &private_address(0).to_string(), "--endpoint", &endpoint(0).to_string()]);
    command.args(["--lanes", "2", "--uapi", "none", "--state-dir"]).arg(state).args(more);
    command.stdin(Stdio::null()).stdout(Stdio::null());
    let tun = state.with_file_name("tun");
    if inside {
        let spawn = move || {
            open_to_all(&tun);
            command.spawn()
        };
        return Gateway(world.gateway[0].run(spawn).join().unwrap().unwrap().unwrap());
    }
    let (namespace, node) = (world.gateway[0].path(), state.with_file_name("namespace"));
    let spawn = move || {
        open_to_all(&tun);
        named(&namespace, &node);
        command.arg("--netns").arg(&node);
        command.spawn()
    };
    Gateway(std::thread::spawn(spawn).join().unwrap().unwrap())
}

/// Lets this thread, and what it starts, see a namespace under a name, as `ip netns` makes it: what stands in another
/// process's folder of `/proc` is not for those who hold less.
fn named(namespace: &Path, node: &Path) {
    let none: Option<&str> = None;
    unshare(CloneFlags::CLONE_NEWNS).unwrap();
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
    fs::File::create(node).unwrap();
    mount(Some(namespace), node, none, MsFlags::MS_BIND, none).unwrap();
}

/// Lets this thread, and what it starts, see a /dev/net/tun that anyone may open, as udev makes it. A machine without udev
/// may have another.
fn open_to_all(node: &Path) {
    let none: Option<&str> = None;
    unshare(CloneFlags::CLONE_NEWNS).unwrap();
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
    mknod(node, SFlag::S_IFCHR, Mode::from_bits_truncate(0o666), makedev(10, 200)).unwrap();
    fs::set_permissions(node, fs::Permissions::from_mode(0o666)).unwrap();
    mount(Some(node), "/dev/net/tun", none, MsFlags::MS_BIND, none).unwrap();
}

pub(crate) async fn answers(state: &Path) {
    let started = Instant::now();
    while !matches!(local::ask(state, &Request::Status).await, Ok(Answer::Status(_))) {
        assert!(started.elapsed() < PATIENCE, "the gateway does not answer");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A field of `/proc/PID/task/TID/status`, of every thread.
fn of_threads(pid: u32, field: &str) -> Vec<String> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).unwrap().map(Result::unwrap);
    let read = |path: PathBuf| fs::read_to_string(path.join("status")).ok();
    let values = threads.filter_map(|thread| read(thread.path()));
    values.filter_map(|text| Some(text.lines().find_map(|l| l.strip_prefix(field))?.trim().to_owned())).collect()
}

fn capabilities(pid: u32) -> Vec<[u64; 3]> {
    let of = |field: &str| of_threads(pid, field).into_iter().map(|mask| u64::from_str_radix(&mask, 16).unwrap());
    let (permitted, effective) = (of("CapPrm:"), of("CapEff:"));
    permitted
        .zip(effective)
        .zip(of("CapBnd:"))
        .map(|((permitted, effective), bound)| [permitted, effective, bound])
        .collect()
}

pub(crate) fn has_device(ns: &Ns) -> bool {
    ns.sh("ip -o link").contains("tieline0")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn root_is_given_up_and_the_tunnel_is_there() {
    let Some(binary) = binary() else { return };
    let Ok(Some(user)) = User::from_name("daemon") else { return println!("skipped: no user `daemon`") };
    let world = World::new();
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let state = folder.path().join("gateway");
    let mut gateway = start(&binary, &world, &state, true, &["--user", "daemon"]);
    let pid = gateway.0.id();
    answers(&state).await;

    let threads = capabilities(pid);
    assert!(threads.len() > 4, "{threads:?}");
    // A kernel without CAP_BPF is older than any that is tested on.
    assert!(threads.iter().all(|thread| *thread == [NEEDED; 3]), "{threads:x?}");
    assert!(of_threads(pid, "NoNewPrivs:").iter().all(|set| set == "1"));
    let uid = user.uid.to_string();
    assert!(of_threads(pid, "Uid:").iter().all(|uids| uids.split_whitespace().all(|one| one == uid)));
    let gid = user.gid.to_string();
    assert!(of_threads(pid, "Gid:").iter().all(|gids| gids.split_whitespace().all(|one| one == gid)));
    assert!(has_device(&world.gateway[0]) && world.gateway[0].sh("ip rule").contains("7480"));
    assert_eq!(world.gateway[0].sh("sysctl -n net.ipv4.conf.tieline0.rp_filter").trim(), "2");
    for entry in fs::read_dir(&state).unwrap().map(|entry| entry.unwrap().metadata().unwrap()) {
        assert_eq!((entry.uid(), entry.permissions().mode() & 0o777), (user.uid.as_raw(), 0o600));
    }
    kill(Pid::from_raw(i32::try_from(pid).unwrap()), Signal::SIGTERM).unwrap();
    assert!(gateway.0.wait().unwrap().success(), "it ends in order");
    assert!(!has_device(&world.gateway[0]) && !world.gateway[0].sh("ip rule").contains("7480"), "and leaves nothing");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_user_and_with_a_namespace_it_keeps_little_too() {
    let Some(binary) = binary() else { return };
    let world = World::new();
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("gateway");
    let mut gateway = start(&binary, &world, &state, false, &[]);
    let pid = gateway.0.id();
    answers(&state).await;
    let threads = capabilities(pid);
    assert!(threads.iter().all(|thread| *thread == [NEEDED | SYS_ADMIN; 3]), "{threads:x?}");
    assert!(has_device(&world.gateway[0]));
    kill(Pid::from_raw(i32::try_from(pid).unwrap()), Signal::SIGTERM).unwrap();
    assert!(gateway.0.wait().unwrap().success());

    let refused = Command::new(&binary)
        .args(["gateway", "--name", "a-gw", "--private-address", "10.0.2.10", "--endpoint", "192.0.2.1:1"])
        .args(["--user", "nobody-of-this-name", "--state-dir"])
        .arg(&state)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && said.contains("no user `nobody-of-this-name`"), "{said}");
}

#[test]
fn the_unit_is_valid_and_little_exposed() {
    if Command::new("systemd-analyze").arg("--version").output().is_err() {
        return println!("skipped: no systemd-analyze");
    }
    let unit = concat!(env!("CARGO_MANIFEST_DIR"), "/../packaging/systemd/tieline-gateway.service");
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("tieline-gateway.service");
    // The program is not installed here, but any other is.
    fs::write(&copy, fs::read_to_string(unit).unwrap().replace("/usr/bin/tieline gateway", "/bin/true")).unwrap();
    for arguments in [&["verify"][..], &["security", "--offline=true", "--threshold=30"]] {
        let said = Command::new("systemd-analyze").args(arguments).arg(&copy).output().unwrap();
        let text = String::from_utf8_lossy(&said.stderr).into_owned();
        assert!(said.status.success() && (arguments[0] != "verify" || text.is_empty()), "{arguments:?}: {text}");
    }
}
