//! `tieline gateway` as those who run it use it: a reload, its status and metrics, the bench.

use std::{
    fs,
    os::unix::net::UnixDatagram,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;

use super::{privileges::*, world::*};

/// What a gateway says of itself to who has started it (`man 3 sd_notify`): which process it is now.
fn ready(socket: &UnixDatagram) -> i32 {
    let mut bytes = [0; 256];
    let length = socket.recv(&mut bytes).expect("it says that it is ready");
    let said = String::from_utf8_lossy(&bytes[..length]).into_owned();
    let mut lines = said.lines();
    assert_eq!(lines.next(), Some("READY=1"), "{said}");
    lines.next().and_then(|line| line.strip_prefix("MAINPID=")).and_then(|pid| pid.parse().ok()).expect(&said)
}

/// A process that is nobody's child here; gone when dropped.
struct Successor(i32);

impl Drop for Successor {
    fn drop(&mut self) {
        let _ = kill(Pid::from_raw(self.0), Signal::SIGKILL);
    }
}

fn said(binary: &Path, arguments: &[&str], state: &Path) -> String {
    let said = Command::new(binary).args(arguments).arg("--state-dir").arg(state).output().unwrap();
    assert!(said.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&said.stderr));
    String::from_utf8(said.stdout).unwrap()
}

/// What `systemctl reload` does, by the unit's own line, and what `tieline gateway status` shows before and after.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reload_puts_another_process_in_its_place() {
    let Some(binary) = binary() else { return };
    let unit = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../packaging/systemd/tieline-gateway.service"));
    let reload =
        unit.unwrap().lines().find_map(|line| line.strip_prefix("ExecReload=").map(ToOwned::to_owned)).unwrap();
    let world = World::new();
    let folder = tempfile::tempdir().unwrap();
    let (state, notify) = (folder.path().join("gateway"), folder.path().join("notify"));
    let socket = UnixDatagram::bind(&notify).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut command = Command::new(&binary);
    command.env("NOTIFY_SOCKET", &notify);
    let mut first = start_from(command, &world, &state, true, &[]);
    let old = ready(&socket);
    assert_eq!(u32::try_from(old).unwrap(), first.0.id());
    answers(&state).await;

    let mut words = reload.split(' ').map(|word| if word == "$MAINPID" { old.to_string() } else { word.to_owned() });
    assert!(Command::new(words.next().unwrap()).args(words).status().unwrap().success(), "{reload}");
    let new = Successor(ready(&socket));
    assert_ne!(new.0, old);
    assert!(first.0.wait().unwrap().success(), "the one before ends in order");
    answers(&state).await;
    assert!(has_device(&world.gateway[0]), "what it stands on is there");

    let status: Value = serde_json::from_str(&said(&binary, &["gateway", "status"], &state)).unwrap();
    assert_eq!(status["packetPath"]["lanes"], 2, "{status}");
    let metrics = said(&binary, &["gateway", "status", "--metrics"], &state);
    assert!(metrics.contains("tieline_gateway_drops_total{reason=\"not_ours\"} 0"), "{metrics}");
    assert!(metrics.ends_with("# EOF\n"));

    kill(Pid::from_raw(new.0), Signal::SIGTERM).unwrap();
    let started = Instant::now();
    while has_device(&world.gateway[0]) {
        assert!(started.elapsed() < PATIENCE, "the successor leaves nothing behind");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[test]
fn the_bench_measures_here_and_leaves_nothing() {
    let Some(binary) = binary() else { return };
    let links = || String::from_utf8(Command::new("ip").args(["-o", "link"]).output().unwrap().stdout).unwrap();
    let before = links();
    let run =
        |more: &[&str]| Command::new(&binary).args(["gateway", "bench", "--seconds", "1"]).args(more).output().unwrap();
    let measured = run(&["--json"]);
    assert!(measured.status.success(), "{}", String::from_utf8_lossy(&measured.stderr));
    let report: Value = serde_json::from_slice(&measured.stdout).unwrap();
    let figures = report["figures"].as_array().unwrap();
    let names: Vec<&str> = figures.iter().map(|figure| figure["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["tcp1", "tcp4", "udp1372", "udp64", "latency-p50", "latency-p99"]);
    for figure in figures {
        assert!(figure["tunnel"].as_f64().unwrap() > 0.0 && figure["wire"].as_f64().unwrap() > 0.0, "{figure}");
    }
    assert!(figures[0]["coresPerGbps"].as_f64().unwrap() > 0.0);
    assert!(report["offloads"].as_array().unwrap().iter().any(|offload| offload["packets"].as_u64() > Some(0)));
    assert_eq!(links(), before, "this namespace is as it was");
}
