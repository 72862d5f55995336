//! Both gateways, hosts behind them, and what befalls the ways between.

use std::time::Duration;

use tieline_dataplane::proto::path::Hold;
use tieline_openapi::v1::{PathKind, PathState};

use super::world::*;

fn both(
    world: &World,
    private_ready: bool,
) -> [(tieline_dataplane::Dataplane, tokio::sync::mpsc::Receiver<tieline_dataplane::shell::status::Report>); 2] {
    let gateways = [0, 1].map(|n| start(world, n));
    for (n, (dataplane, _)) in gateways.iter().enumerate() {
        dataplane.apply(configuration(n, 1, private_ready, &public(&key(1 - n))));
    }
    gateways
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn traffic_outlives_the_private_path() {
    if cannot_run() {
        return;
    }
    let world = World::new();
    let [(a, mut reports), (b, _)] = both(&world, false);
    for gateway in [&a, &b] {
        until(gateway, "the tunnel carries", |status| chosen(status) == Some(PathKind::Tunnel)).await;
    }
    let tunnelled = Stream::start(&world);
    assert!(
        tunnelled.segment.iter().all(|mss| *mss <= u32::from(MSS)),
        "clamped in the tunnel: {:?}",
        tunnelled.segment
    );
    tunnelled.goes_on().await;
    tunnelled.stop();

    for (n, gateway) in [&a, &b].into_iter().enumerate() {
        gateway.apply(configuration(n, 2, true, &public(&key(1 - n))));
    }
    let flow = Flow::start(&world);
    for gateway in [&a, &b] {
        until(gateway, "the private path carries", |status| chosen(status) == Some(PathKind::Private)).await;
    }
    assert!(world.gateway[0].sh("ip route get 10.1.1.2").contains("dev prv0"));
    let stream = Stream::start(&world);
    assert!(
        stream.segment.iter().all(|mss| *mss <= u32::from(MSS)),
        "clamped on the private path: {:?}",
        stream.segment
    );
    stream.goes_on().await;
    assert_eq!(flow.lost_since(0), 0, "the promotion loses nothing");

    let before = flow.sent();
    world.cut_private();
    for gateway in [&a, &b] {
        until(gateway, "the tunnel took over", |status| chosen(status) == Some(PathKind::Tunnel)).await;
    }
    stream.goes_on().await;
    flow.carry_on(1_000).await;
    let blackout = flow.lost_since(before);
    println!("a silent cut of the private path lost {blackout} datagrams at 1 a millisecond");
    assert!(blackout < 1_000, "lost {blackout}");

    let mended = flow.sent();
    world.mend_private();
    for gateway in [&a, &b] {
        until(gateway, "the private path is back", |status| chosen(status) == Some(PathKind::Private)).await;
    }
    stream.goes_on().await;
    flow.carry_on(1_000).await;
    assert_eq!(flow.lost_since(mended), 0, "the return loses nothing");

    let status = until(&a, "both paths are measured", |status| {
        let paths = &status.connections[0].peers[0].paths;
        paths.len() == 2 && paths.iter().all(|path| path.rtt_us.is_some() && path.state == PathState::Up)
    })
    .await;
    assert_eq!(status.connections[0].peers[0].peer_chosen, Some(PathKind::Private));
    assert_eq!(status.connections[0].peers[0].reason.as_deref(), Some("private-better"));
    flow.stop();
    stream.stop();
    let mut changes = Vec::new();
    let (mut private, mut tunnel) = (0, 0);
    while let Ok(report) = reports.try_recv() {
        changes.extend(report.changes.into_iter().map(|change| change.reason));
        for sample in report.samples {
            *(if sample.path == PathKind::Private { &mut private } else { &mut tunnel }) += sample.bytes_out;
        }
    }
    assert_eq!(changes, ["first", "private-better", "private-silent", "private-better"]);
    assert!(private > 100_000 && tunnel > 100_000, "bytes are counted on both: {private}, {tunnel}");
    a.stop();
    b.stop();
    for ns in &world.gateway {
        assert_eq!(ns.try_sh("ip route show table 7480").unwrap_or_default(), "");
        assert!(!ns.sh("ip rule").contains("7480"));
        assert_eq!(ns.sh("nft list tables"), "");
        assert!(!ns.sh("ip link").contains("tieline0"));
        assert_eq!(ns.sh("sysctl -n net.ipv4.ip_forward").trim(), "0");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_of_one_direction_moves_its_sender_only() {
    if cannot_run() {
        return;
    }
    let world = World::new();
    let [(a, _ra), (b, _rb)] = both(&world, true);
    for gateway in [&a, &b] {
        until(gateway, "the private path carries", |status| chosen(status) == Some(PathKind::Private)).await;
    }
    let flow = Flow::start(&world);
    flow.carry_on(300).await;
    world.cut_private_from(0);
    until(&a, "a has moved", |status| chosen(status) == Some(PathKind::Tunnel)).await;
    let moved = flow.sent() + 100;
    flow.carry_on(1_500).await;
    assert_eq!(flow.lost_since(moved), 0, "a sends by the tunnel, b by the private path, and the flow lives");
    let status = until(&b, "b stays", |_| true).await;
    assert_eq!(chosen(&status), Some(PathKind::Private), "b is heard and stays");
    assert_eq!(status.connections[0].peers[0].peer_chosen, Some(PathKind::Tunnel));
    flow.stop();
    a.stop();
    b.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pin_holds_and_a_silent_peer_moves_nothing() {
    if cannot_run() {
        return;
    }
    let world = World::new();
    let [(a, _ra), (b, _rb)] = both(&world, true);
    until(&a, "the private path carries", |status| chosen(status) == Some(PathKind::Private)).await;
    a.set_hold(connection_id(), Hold { pin: Some(PathKind::Tunnel), frozen: false });
    until(&a, "pinned to the tunnel", |status| chosen(status) == Some(PathKind::Tunnel)).await;
    assert!(world.gateway[0].sh("ip route get 10.1.1.2").contains("dev tieline0"));
    a.set_hold(connection_id(), Hold::default());
    until(&a, "the private path is back", |status| chosen(status) == Some(PathKind::Private)).await;
    // The peer dies: both ways fall silent, and nothing moves.
    b.stop();
    let state = |status: &tieline_dataplane::shell::status::Status| {
        let paths = &status.connections[0].peers[0].paths;
        paths.len() == 2 && paths.iter().all(|path| path.state == PathState::Down)
    };
    let status = until(&a, "both ways are down", state).await;
    assert_eq!(chosen(&status), Some(PathKind::Private));
    a.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refuses_rather_than_leaks_and_checks_sources() {
    if cannot_run() {
        return;
    }
    let world = World::new();
    let (a, _ra) = start(&world, 0);
    a.apply(configuration(0, 1, false, &public(&key(1))));
    until(&a, "it is configured", |status| status.configuration_version == Some(1)).await;
    let refused = world.gateway[0].try_sh("ip route get 10.1.1.2").unwrap_err();
    assert!(
        refused.contains("unreachable") || refused.contains("No route"),
        "no way is up, so nothing goes out by the default route: {refused}"
    );

    let (b, _rb) = start(&world, 1);
    b.apply(configuration(1, 1, false, &public(&key(0))));
    until(&a, "the tunnel carries", |status| chosen(status) == Some(PathKind::Tunnel)).await;
    until(&b, "the tunnel carries", |status| chosen(status) == Some(PathKind::Tunnel)).await;
    let got = world.host[0].run(|| {
        let socket = std::net::UdpSocket::bind("10.0.1.2:9200").unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
        let mut bytes = [0; 100];
        socket.recv_from(&mut bytes).map(|(length, from)| (bytes[..length].to_vec(), from))
    });
    world.host[1].sh("ip address add 10.9.9.9/32 dev lo");
    world.host[1]
        .run(|| {
            let (foreign, own) =
                (std::net::UdpSocket::bind("10.9.9.9:1").unwrap(), std::net::UdpSocket::bind("10.1.1.2:1").unwrap());
            foreign.send_to(b"foreign", "10.0.1.2:9200").unwrap();
            own.send_to(b"own", "10.0.1.2:9200").unwrap();
        })
        .join()
        .unwrap()
        .unwrap();
    let (bytes, from) = got.join().unwrap().unwrap().unwrap();
    assert_eq!(
        (bytes.as_slice(), from),
        (&b"own"[..], "10.1.1.2:1".parse().unwrap()),
        "a source that is not the peer's is dropped"
    );
    let status =
        until(&a, "the drop is counted", |status| status.connections[0].peers[0].tunnel.drops.foreign_source > 0).await;
    assert!(status.connections[0].peers[0].handshake_age_s.is_some());
    a.stop();
    b.stop();
}
