//! The demo is the first thing that a user runs: it must end well, and say so.

use std::{os::unix::fs::PermissionsExt as _, path::Path, process::Command};

use serde_json::Value;

use crate::rig::binary;

#[test]
fn the_demo_ends_well_and_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    ends_well(&mut Command::new(binary()), dir.path());
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
    ends_well(command.env("NOBODY", NOBODY), &folder);
}

/// Runs `tieline demo` with its files in `dir`.
fn ends_well(tieline: &mut Command, dir: &Path) {
    let demo = tieline.args(["demo", "--json", "--dir"]).arg(dir).output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&demo.stdout), String::from_utf8_lossy(&demo.stderr));
    if err.contains("this machine cannot run a lab") || demo.status.code() == Some(77) {
        println!("SKIPPED: {err}");
        return;
    }
    assert!(demo.status.success(), "{out}\n{err}");
    let lines: Vec<Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(lines.iter().all(|line| line["mood"] != "bad"), "{out}");
    for what in [
        "tunnel up",
        "bgp",
        "forwarding",
        "verified",
        "the tunnel carries",
        "back on the private path",
        "both clouds are as they were",
    ] {
        assert!(lines.iter().any(|line| line["what"] == what && line["mood"] == "good"), "no {what:?} in {out}");
    }
    // Nothing of it lives on: neither a process that names its folder nor an interface.
    let folder = dir.to_str().unwrap();
    let living = std::fs::read_dir("/proc").unwrap().filter_map(|entry| {
        let line = std::fs::read(entry.ok()?.path().join("cmdline")).ok()?;
        String::from_utf8_lossy(&line).contains(folder).then_some(line)
    });
    assert_eq!(living.count(), 0, "processes of the demo live on");
}
