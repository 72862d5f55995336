//! The real `wg` at the gateway's own sockets.

use std::{path::Path, process::Command};

use base64::{Engine, engine::general_purpose::STANDARD};
use tieline_dataplane::shell::status::{LaneStatus, Status};

use super::world::*;

fn cannot_run_wg() -> bool {
    let installed = Command::new("wg").arg("--version").output().is_ok();
    if !installed {
        println!("skipped: `wg` is not installed (apt-get install wireguard-tools)");
    }
    cannot_run() || !installed
}

/// What `wg` prints, or what it says that is wrong.
fn wg(line: &str) -> Result<String, String> {
    let output = Command::new("wg").args(line.split(' ')).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end().to_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

fn lane(status: &Status, n: usize) -> &LaneStatus {
    &status.connections[0].peers[0].lanes[n]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wg_shows_every_lane_and_sets_what_is_not_the_control_planes() {
    if cannot_run_wg() {
        return;
    }
    let world = World::new();
    let (gateways, names): (Vec<_>, Vec<_>) = [0, 1].map(|n| start_for_wg(&world, n, 2)).into_iter().unzip();
    let apply = |version| {
        for (n, gateway) in gateways.iter().enumerate() {
            let mut configuration = configuration(n, version, false, &public(&key(1 - n)));
            configuration.connections[0].peers[0].lanes = lanes(1 - n, 2);
            gateway.apply(configuration);
        }
    };
    apply(1);
    for gateway in &gateways {
        until(gateway, "both lanes are alive", |status| {
            status.connections.first().is_some_and(|c| c.peers[0].lanes.iter().filter(|lane| lane.alive).count() == 2)
        })
        .await;
    }

    // Each lane by its own name.
    let (name, peer) = (&names[0], public(&key(1)));
    let dump = |name: &str| wg(&format!("show {name} dump")).unwrap();
    let lines: Vec<String> = dump(name).lines().map(str::to_owned).collect();
    let device: Vec<&str> = lines[0].split('\t').collect();
    assert_eq!(device[1..3], [public(&key(0)), "51820".to_owned()]);
    let fields: Vec<&str> = lines[1].split('\t').collect();
    let (endpoint_of_peer, keepalive) = (endpoint(1).to_string(), "15");
    assert_eq!(fields[..3], [peer.as_str(), "(none)", endpoint_of_peer.as_str()]);
    let allowed: Vec<&str> = fields[3].split(',').collect();
    assert!(allowed.contains(&"10.1.1.0/24") && allowed.contains(&"169.254.200.2/32"), "{allowed:?}");
    assert!(fields[4..7].iter().all(|number| number.parse::<u64>().unwrap() > 0), "handshake and bytes: {fields:?}");
    assert_eq!(fields[7], keepalive);
    let second = dump(&format!("{name}-1"));
    assert!(second.contains("\t51821\t") && second.contains(&public(&lane_key(1, 1))), "{second}");
    assert!(wg("show interfaces").unwrap().split_whitespace().any(|shown| shown == name));

    // What the control plane owns.
    let other = public(&key(0));
    for refused in [
        "listen-port 1".to_owned(),
        format!("peer {peer} remove"),
        format!("peer {other} endpoint 192.0.2.1:1"),
        format!("peer {peer} persistent-keepalive 3 allowed-ips 0.0.0.0/0"),
    ] {
        let said = wg(&format!("set {name} {refused}")).unwrap_err();
        assert!(said.contains("Operation not permitted"), "{refused}: {said}");
    }
    let status = until(&gateways[0], "it answers", |_| true).await;
    assert!(!lane(&status, 0).drifted, "nothing of a refused request is done");

    // What a person may set, a preshared key at both ends one after the other: no packet is lost.
    let flow = Flow::start(&world);
    flow.carry_on(300).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("preshared");
    std::fs::write(&file, STANDARD.encode([5; 32])).unwrap();
    let preshare = |n: usize, file: &Path| {
        wg(&format!("set {} peer {} preshared-key {}", names[n], public(&key(1 - n)), file.display())).unwrap();
    };
    preshare(0, &file);
    flow.carry_on(2_500).await;
    preshare(1, &file);
    for gateway in &gateways {
        until(gateway, "it has drifted", |status| lane(status, 0).drifted && !lane(status, 0).changing).await;
    }
    flow.carry_on(1_000).await;
    assert!(dump(name).contains(&STANDARD.encode([5; 32])));
    assert_eq!(flow.lost_since(0), 0);
    wg(&format!("set {name} peer {peer} persistent-keepalive 5")).unwrap();
    assert!(dump(name).lines().nth(1).unwrap().ends_with("\t5"));

    // The next configuration is in force again, all of it.
    apply(2);
    for gateway in &gateways {
        until(gateway, "nothing has drifted", |status| !lane(status, 0).drifted && !lane(status, 0).changing).await;
    }
    flow.carry_on(1_000).await;
    assert_eq!(flow.lost_since(0), 0);
    let fields = dump(name);
    assert!(fields.contains("\t(none)\t") && fields.ends_with("\t15"), "{fields}");
    flow.stop();
    gateways.into_iter().for_each(tieline_dataplane::Dataplane::stop);
    let left: Vec<_> = std::fs::read_dir(tieline_dataplane::shell::uapi::FOLDER).unwrap().map(Result::unwrap).collect();
    assert!(!left.iter().any(|entry| names.iter().any(|name| entry.file_name().to_string_lossy().contains(name))));
}
