//! The cell: what is inside, what is left when it ends, and two at once.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tieline_lab::cell::control::Client;
use tieline_lab::cell::{self, Cell, CellError, Place};
use tieline_lab::net::NetSpec;
use tieline_lab::net::wire::{Cut, WireChange};

use crate::net::{able, logs, options};

/// A lab whose inside waits until it is asked to end.
async fn idle(dir: &Path, user_namespace: Option<bool>, attached: bool) -> Cell {
    let mut options = options(dir, "idle", NetSpec::default());
    options.user_namespace = user_namespace;
    options.attached = attached;
    cell::spawn(options).await.unwrap_or_else(|e| panic!("{e:?}\n{}", logs(dir)))
}

fn output(dir: &Path, place: &str, script: &str) -> (i32, String) {
    let mut command = cell::command(dir, &Place::parse(place), "sh").unwrap();
    let out = command.args(["-c", script]).stdin(Stdio::null()).output().unwrap();
    let text = String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr);
    (out.status.code().unwrap(), text)
}

/// What the machine shows of links, named namespaces and mounts, as far as a lab could change it.
pub(crate) fn machine() -> (String, Vec<PathBuf>, usize) {
    let links = std::fs::read_to_string("/proc/net/dev").unwrap();
    let links = links.lines().filter_map(|l| l.split_once(':')).map(|(name, _)| name.trim().to_owned());
    let netns = std::fs::read_dir("/run/netns").map(|d| d.flatten().map(|e| e.path()).collect());
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap().lines().count();
    (links.collect::<Vec<_>>().join(" "), netns.unwrap_or_default(), mounts)
}

/// Processes, by their numbers here, that live in the pid namespace of this process' child.
fn inhabitants(cell: &Cell) -> BTreeSet<u32> {
    let namespace = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
    let of_the_cell = namespace(&cell.pid().to_string());
    let all = std::fs::read_dir("/proc").unwrap().flatten();
    let names = all.filter_map(|entry| entry.file_name().into_string().ok());
    let inside = names.filter(|pid| pid.bytes().all(|b| b.is_ascii_digit()) && namespace(pid) == of_the_cell);
    inside.filter_map(|pid| pid.parse().ok()).collect()
}

fn lives(pid: u32) -> bool {
    let state = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    state.rsplit_once(") ").is_some_and(|(_, fields)| !fields.starts_with(['Z', 'X']))
}

/// Everything of a killed lab is gone soon: the kernel ends a pid namespace before its first process is reaped.
async fn nothing_is_left(cell: &Cell, before: &(String, Vec<PathBuf>, usize), inside: BTreeSet<u32>) {
    assert!(inside.len() >= 4, "the first process, the lab and two routers: {inside:?}");
    assert_eq!(cell.wait().await.unwrap(), 128 + 9);
    let left: Vec<_> = inside.into_iter().filter(|pid| lives(*pid)).collect();
    assert!(left.is_empty(), "processes {left:?} live on");
    assert_eq!(&machine(), before);
    assert!(!cell::is_up(cell.dir()).unwrap());
}

#[tokio::test]
async fn a_killed_lab_leaves_nothing_behind() {
    if !able() {
        return;
    }
    for user_namespace in [None, Some(true)] {
        let dir = tempfile::tempdir().unwrap();
        let before = machine();
        let cell = idle(dir.path(), user_namespace, false).await;
        assert_eq!(machine(), before, "a running lab is not seen outside either");
        let inside = inhabitants(&cell);
        cell.kill().unwrap();
        nothing_is_left(&cell, &before, inside).await;
        // The directory can be used again at once.
        let again = idle(dir.path(), user_namespace, true).await;
        again.down().await.unwrap();
        assert!(!cell::is_up(dir.path()).unwrap());
    }
}

#[tokio::test]
async fn two_labs_at_once_do_not_meet() {
    if !able() {
        return;
    }
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let before = machine();
    let (one, other) = tokio::join!(idle(dirs[0].path(), None, true), idle(dirs[1].path(), Some(true), true));
    let [first, second] = [&one, &other].map(|cell| Client::open(cell.dir()).unwrap());
    let cut = WireChange { cut: Some(Cut::Both), ..WireChange::default() };
    first.change_wire("ch0", &cut).await.unwrap();
    assert_eq!(first.status().await.unwrap().wires["ch0"].cut, Cut::Both);
    assert_eq!(second.status().await.unwrap().wires["ch0"].cut, Cut::None);
    let inside = inhabitants(&one);
    one.kill().unwrap();
    nothing_is_left(&one, &before, inside).await;
    assert_eq!(second.status().await.unwrap().namespaces.len(), 7, "the other lab goes on");
    other.down().await.unwrap();
}

#[tokio::test]
async fn commands_run_where_they_are_sent() {
    if !able() {
        return;
    }
    for user_namespace in [None, Some(true)] {
        let dir = tempfile::tempdir().unwrap();
        let cell = idle(dir.path(), user_namespace, true).await;
        let dir = cell.dir().to_owned();
        let (code, text) = output(&dir, "a-gw", "cat /proc/net/dev; ls /run/netns; exit 7");
        assert_eq!(code, 7);
        for part in ["gw0:", "wan0:", "b-router"] {
            assert!(text.contains(part), "{part} is not in {text}");
        }
        let own = std::fs::read_link("/proc/self/ns/net").unwrap().display().to_string();
        let (_, text) = output(&dir, "-", "readlink /proc/self/ns/net; cat /proc/1/comm");
        assert_eq!(text.lines().next(), Some(own.as_str()), "`-` is the network outside");
        assert_ne!(output(&dir, "b-host", "readlink /proc/self/ns/net").1.trim(), own);
        let here = std::env::current_dir().unwrap();
        assert_eq!(output(&dir, "a-host", "pwd").1.trim(), here.display().to_string());
        assert_eq!(output(&dir, "a-host", "kill -TERM $$").0, 128 + 15);
        let unknown = cell::command(&dir, &Place::parse("c-host"), "true").unwrap_err();
        assert!(matches!(unknown, CellError::UnknownHost { .. }) && unknown.to_string().contains("a-host"));
        let missing = cell::command(&dir, &Place::Outside, "/no/such/program").unwrap().spawn();
        assert!(missing.is_err(), "a program that is not there is an error of the start");
        signals_and_the_end_reach_commands(cell).await;
    }
}

async fn signals_and_the_end_reach_commands(cell: Cell) {
    let start = |script: &str| {
        let mut command = cell::command(cell.dir(), &Place::parse("a-host"), "sh").unwrap();
        command.args(["-c", script]).stdin(Stdio::null()).stdout(Stdio::piped());
        tokio::process::Command::from(command).spawn().unwrap()
    };
    let mut asked = start("trap 'echo asked; exit 3' TERM; echo ready; sleep 600 & wait");
    let mut out = asked.stdout.take().unwrap();
    let mut word = [0; 6];
    tokio::io::AsyncReadExt::read_exact(&mut out, &mut word).await.unwrap();
    let pid = nix::unistd::Pid::from_raw(asked.id().unwrap() as i32);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    let ended = tokio::time::timeout(Duration::from_secs(10), asked.wait()).await.unwrap().unwrap();
    assert_eq!(ended.code(), Some(3), "the command's own answer to the signal");

    let mut killed = start("echo ready; exec sleep 600");
    let mut out = killed.stdout.take().unwrap();
    tokio::io::AsyncReadExt::read_exact(&mut out, &mut word).await.unwrap();
    let before = inhabitants(&cell);
    killed.kill().await.unwrap();
    let mut rest = String::new();
    let closed = tokio::io::AsyncReadExt::read_to_string(&mut out, &mut rest);
    tokio::time::timeout(Duration::from_secs(10), closed).await.expect("the command went with its go-between").unwrap();
    let fewer = async {
        let mut pause = tokio::time::interval(Duration::from_millis(20));
        while before.iter().all(|pid| lives(*pid)) {
            pause.tick().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), fewer).await.expect("the killed command is gone");

    let mut left = start("echo ready; exec sleep 600");
    let mut out = left.stdout.take().unwrap();
    tokio::io::AsyncReadExt::read_exact(&mut out, &mut word).await.unwrap();
    cell.down().await.unwrap();
    let ended = tokio::time::timeout(Duration::from_secs(10), left.wait()).await.unwrap().unwrap();
    assert_eq!(ended.code(), Some(128 + 9), "commands end with the lab");
}

#[tokio::test]
async fn the_control_socket_answers_its_owner() {
    if !able() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    // A path that does not fit into a socket's address.
    let deep = dir.path().join("d".repeat(120));
    let cell = idle(&deep, None, false).await;
    assert!(matches!(cell::spawn(options(&deep, "idle", NetSpec::default())).await, Err(CellError::AlreadyUp { .. })));
    let client = Client::open(&deep).unwrap();
    let status = client.status().await.unwrap();
    assert_eq!(status.namespaces.len(), 7);
    assert_eq!(status.wires.keys().collect::<Vec<_>>(), ["ch0", "ch1", "internet"]);
    assert_eq!(status.sites.keys().collect::<Vec<_>>(), ["aws", "google"]);
    assert_eq!(status.ready["scenario"], "idle");
    let slow = WireChange { delay_us: Some(40_000), carrier: Some(false), ..WireChange::default() };
    let wire = client.change_wire("internet", &slow).await.unwrap();
    assert_eq!((wire.wire.delay_us, wire.carrier), (40_000, false));
    let unknown = client.change_wire("ch9", &slow).await.unwrap_err().to_string();
    assert!(unknown.contains("ch9") && unknown.contains("internet"), "{unknown}");
    let impossible = WireChange { loss_ppm: Some(2_000_000), ..WireChange::default() };
    assert!(client.change_wire("ch0", &impossible).await.unwrap_err().to_string().contains("1000000"));
    for file in ["control.sock", "a-router/bird.conf", "lab.log"] {
        let mode = std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(deep.join(file)).unwrap());
        assert_eq!(mode & 0o077, 0, "{file} is for its owner alone");
    }
    assert!(cell::down(&deep).await.unwrap());
    assert_eq!(cell.wait().await.unwrap(), 0);
    assert!(!cell::down(&deep).await.unwrap());
    assert!(matches!(cell::command(&deep, &Place::Outside, "true"), Err(CellError::NotUp { .. })));
}

#[tokio::test]
async fn an_attached_lab_ends_with_its_owner() {
    if !able() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let cell = idle(dir.path(), None, true).await;
    let inside = inhabitants(&cell);
    drop(cell);
    let gone = async {
        let mut pause = tokio::time::interval(Duration::from_millis(20));
        while inside.iter().any(|pid| lives(*pid)) {
            pause.tick().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), gone).await.expect("it ends");
}

#[tokio::test]
async fn a_lab_that_cannot_come_up_says_why_and_is_gone() {
    if !able() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mut network = NetSpec::default();
    network.b.prefix = network.a.prefix;
    let error = cell::spawn(options(dir.path(), "idle", network)).await.unwrap_err();
    assert!(error.to_string().contains("overlap"), "{error}");
    assert!(!cell::is_up(dir.path()).unwrap());
}
