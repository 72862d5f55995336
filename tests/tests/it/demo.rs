//! The demo is the first thing that a user runs: it must end well, and say so.

use std::{
    collections::BTreeSet,
    hash::{BuildHasher as _, RandomState},
    os::unix::{fs::PermissionsExt as _, process::ExitStatusExt as _},
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Stdio},
    time::Duration,
};

use anyhow::{Context as _, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;

use crate::rig::{binary, until};

#[test]
fn the_demo_ends_well_and_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    ends_well(&mut Command::new(binary()), dir.path(), &[], &DIRECT);
}

/// What a direct link's demo must say.
const DIRECT: [&str; 7] = [
    "tunnel up",
    "bgp",
    "forwarding",
    "verified",
    "the tunnel carries",
    "back on the private path",
    "both clouds are as they were",
];

const COORDINATED: [&str; 2] = ["--kind", "coordinated"];

#[test]
fn two_providers_meet_move_and_part_and_leave_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let told = [
        "north is up",
        "south is up",
        "MACsec on all eight channels",
        "verified",
        "hosts reach each other",
        "green works",
        "moved from blue to green",
        "north knows of it",
        "plugged in again",
        "the work has ended",
        "2 Gbit/s on both sides",
        "gone on both sides",
        "both routers are as they were",
        "nothing is left behind",
    ];
    let Some(lines) = ends_well(&mut Command::new(binary()), dir.path(), &COORDINATED, &told) else { return };
    let good = |end: &str| {
        let is =
            |line: &&Value| line["mood"] == "good" && line["what"].as_str().is_some_and(|what| what.ends_with(end));
        lines.iter().filter(is).map(|line| line["what"].as_str().unwrap().trim_end_matches(end)).collect::<Vec<_>>()
    };
    // Two channels, whose keys two providers make, one after the other: old and new are told of each.
    let changed = good(": the new key is in use");
    assert_eq!((changed.len(), &changed), (2, &good(": the old key is gone")));
    assert_ne!(changed[0], changed[1]);
    assert_eq!(good(" waited for its turn"), [changed[1]]);
    assert_eq!(good(" is drained").len(), 1);
    // What counts is the number: nothing was lost.
    for (meanwhile, least) in [
        ("while it moved", 2_000),
        ("while two keys changed", 2_000),
        ("without its fibre", 2_000),
        ("from the announcement on", 4_000),
    ] {
        let of = |line: &&Value| {
            line["what"] == "traffic went on" && line["detail"].as_str().is_some_and(|text| text.ends_with(meanwhile))
        };
        let line =
            lines.iter().find(of).unwrap_or_else(|| panic!("nothing is told of traffic {meanwhile}: {lines:#?}"));
        let numbers: Vec<u64> =
            line["detail"].as_str().unwrap().split(' ').filter_map(|word| word.parse().ok()).collect();
        assert!(numbers.len() == 2 && numbers[0] == 0 && numbers[1] >= least, "{line}");
    }
}

/// The user whom Linux maps what it cannot name to: it owns nothing.
const NOBODY: &str = "65534";

#[test]
fn an_ordinary_user_sees_the_same() {
    if !nix::unistd::geteuid().is_root() {
        println!("SKIPPED: this user is an ordinary one already, and the other test covers it");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    // The user can neither reach the folders of the one who built nor, on some machines, the device for the wires.
    let folder = dir.path().join("demo");
    std::fs::create_dir(&folder).unwrap();
    std::fs::copy(binary(), dir.path().join("tieline")).unwrap();
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    std::os::unix::fs::chown(&folder, Some(65_534), Some(65_534)).unwrap();
    let script = r#"mknod "$1/tun" c 10 200 && chmod 0666 "$1/tun" && mount --bind "$1/tun" /dev/net/tun || exit 77
        dir=$1; shift; cd "$dir/demo"
        HOME=$dir/demo exec setpriv --reuid "$NOBODY" --regid "$NOBODY" --clear-groups "$dir/tieline" "$@""#;
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-c", script, "sh"]).arg(dir.path());
    ends_well(command.env("NOBODY", NOBODY), &folder, &[], &DIRECT);
}

/// Runs `tieline demo` with its files in `dir`; the moments that it told, where this machine can run a lab.
fn ends_well(tieline: &mut Command, dir: &Path, flags: &[&str], told: &[&str]) -> Option<Vec<Value>> {
    let demo = tieline.args(["demo", "--json", "--dir"]).arg(dir).args(flags).output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&demo.stdout), String::from_utf8_lossy(&demo.stderr));
    if err.contains("this machine cannot run a lab") || demo.status.code() == Some(77) {
        println!("SKIPPED: {err}");
        return None;
    }
    assert!(demo.status.success(), "{out}\n{err}");
    let lines: Vec<Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(lines.iter().all(|line| line["mood"] != "bad"), "{out}");
    for what in told {
        assert!(lines.iter().any(|line| line["what"] == *what && line["mood"] == "good"), "no {what:?} in {out}");
    }
    assert_eq!(living(dir, &BTreeSet::new()), Vec::<String>::new(), "processes of the demo live on");
    Some(lines)
}

/// Processes, by number and command line, that name a folder or live in one of these pid namespaces.
fn living(folder: &Path, namespaces: &BTreeSet<PathBuf>) -> Vec<String> {
    let folder = folder.to_str().unwrap();
    let processes = std::fs::read_dir("/proc").unwrap().filter_map(|entry| {
        let process = entry.ok()?.path();
        let line = std::fs::read(process.join("cmdline")).ok()?;
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        let inside = std::fs::read_link(process.join("ns/pid")).is_ok_and(|own| namespaces.contains(&own));
        (inside || line.contains(folder)).then(|| format!("{} {line}", process.display()))
    });
    processes.collect()
}

/// Pid namespaces, other than this one, of processes that name a folder.
fn namespaces(folder: &Path) -> BTreeSet<PathBuf> {
    let own = std::fs::read_link("/proc/self/ns/pid").unwrap();
    let processes = living(folder, &BTreeSet::new());
    let paths = processes.iter().filter_map(|process| process.split(' ').next());
    let links = paths.filter_map(|path| std::fs::read_link(Path::new(path).join("ns/pid")).ok());
    links.filter(|namespace| *namespace != own).collect()
}

/// What the machine shows of links, named network namespaces and mounts.
fn machine() -> (BTreeSet<String>, BTreeSet<PathBuf>, String) {
    let links = std::fs::read_to_string("/proc/net/dev").unwrap();
    let links = links.lines().filter_map(|line| Some(line.split_once(':')?.0.trim().to_owned())).collect();
    let netns = std::fs::read_dir("/run/netns").into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    (links, netns, std::fs::read_to_string("/proc/self/mounts").unwrap())
}

/// Starts a demo, ends it with a signal after a while, and waits until nothing of it lives. How it ended.
async fn stopped(signal: Signal, after: Duration, flags: &[&str]) -> anyhow::Result<ExitStatus> {
    let dir = tempfile::tempdir()?;
    let mut command = tokio::process::Command::new(binary());
    command.args(["demo", "--json", "--dir"]).arg(dir.path()).args(flags).stdout(Stdio::null()).stderr(Stdio::null());
    let mut demo = command.spawn()?;
    // The moment is what is tested: there is nothing to await.
    tokio::time::sleep(after).await;
    let inside = namespaces(dir.path());
    let pid = demo.id().context("the demo takes longer than that")?;
    kill(Pid::from_raw(i32::try_from(pid)?), signal)?;
    let ended = until("the demo ended", async || Ok(demo.try_wait()?)).await?;
    let mut left = Vec::new();
    let gone = until("nothing of it lives", async || {
        left = living(dir.path(), &inside);
        Ok(left.is_empty().then_some(()))
    });
    gone.await.map_err(|error| error.context(format!("{signal} after {after:?} left {left:#?}")))?;
    Ok(ended)
}

#[tokio::test]
async fn a_demo_that_is_stopped_while_it_starts_leaves_nothing() -> anyhow::Result<()> {
    let missing = tieline_lab::cell::preflight();
    if !missing.is_empty() {
        println!("SKIPPED: this machine cannot run a lab: {missing:?}");
        return Ok(());
    }
    let before = machine();
    let mut answered = 0;
    for n in 0..8 {
        let moment = || Duration::from_millis(n * 400 + RandomState::new().hash_one(n) % 400);
        let (asked, killed) = (moment(), moment());
        println!("SIGTERM after {asked:?}, SIGKILL after {killed:?}");
        // In turns of either kind.
        let flags: &[&str] = if n % 2 == 0 { &[] } else { &COORDINATED };
        let (asked, killed) =
            tokio::join!(stopped(Signal::SIGTERM, asked, flags), stopped(Signal::SIGKILL, killed, flags));
        ensure!(killed?.signal() == Some(9));
        let asked = asked?;
        // Before it listens for signals it is ended by one.
        answered += u32::from(asked.code() == Some(130));
        ensure!(asked.code() == Some(130) || asked.signal() == Some(15), "it ended with {asked}");
        ensure!(machine() == before, "{:#?} is not {before:#?}", machine());
    }
    ensure!(answered >= 5, "only {answered} demos ended as their signal asked them to");
    Ok(())
}
