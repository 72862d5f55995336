//! The demo is the first thing that a user runs: it must end well, and say so.

use std::process::Command;

use serde_json::Value;

use crate::rig::binary;

#[test]
fn the_demo_ends_well_and_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let demo = Command::new(binary()).args(["demo", "--json", "--dir"]).arg(dir.path()).output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&demo.stdout), String::from_utf8_lossy(&demo.stderr));
    if err.contains("this machine cannot run a lab") {
        println!("SKIPPED: {err}");
        return;
    }
    assert!(demo.status.success(), "{out}\n{err}");
    let lines: Vec<Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(lines.iter().all(|line| line["mood"] != "bad"), "{out}");
    for what in ["bgp", "verified", "the tunnel carries", "back on the private path", "both clouds are as they were"] {
        assert!(lines.iter().any(|line| line["what"] == what && line["mood"] == "good"), "no {what:?} in {out}");
    }
    // Nothing of it lives on: neither a process that names its folder nor an interface.
    let folder = dir.path().to_str().unwrap();
    let living = std::fs::read_dir("/proc").unwrap().filter_map(|entry| {
        let line = std::fs::read(entry.ok()?.path().join("cmdline")).ok()?;
        String::from_utf8_lossy(&line).contains(folder).then_some(line)
    });
    assert_eq!(living.count(), 0, "processes of the demo live on");
}
