//! `run`: joins once, follows the configuration, reports, and does without the API.

use std::{
    net::SocketAddr,
    os::unix::fs::PermissionsExt,
    path::Path,
    time::{Duration, Instant},
};

use tieline_dataplane::{
    GatewayError, GatewayOptions, run,
    shell::local::{self, Answer, Request},
};
use tieline_dataplane::{
    proto::path::Hold,
    shell::{control::ControlError, status::Status},
};
use tieline_openapi::v1::{PathKind, TunnelBackend};
use tokio_util::sync::CancellationToken;

use super::{
    api::{FakeApi, TOKEN},
    world::*,
};

fn options(world: &World, api: SocketAddr, state_dir: &Path, token: Option<&str>) -> GatewayOptions {
    GatewayOptions {
        api_url: format!("http://{api}"),
        join_token: token.map(|token| token.to_owned().into()),
        state_dir: state_dir.to_owned(),
        netns: Some(world.gateway[0].path()),
        name: "a-gw".to_owned(),
        private_address: private_address(0),
        wan_endpoint: endpoint(0),
        listen_port: None,
        private_next_hop: None,
        tun_name: None,
        lanes: Some(2),
        uapi: None,
        take_over: false,
        backend: TunnelBackend::Boringtun,
        kernel_ports: None,
        switched_off: Vec::new(),
    }
}

async fn until_local(state_dir: &Path, what: &str, wanted: impl Fn(&Status) -> bool) -> Status {
    let started = Instant::now();
    loop {
        let answer = local::ask(state_dir, &Request::Status).await;
        if let Ok(Answer::Status(status)) = &answer
            && wanted(status)
        {
            return status.clone();
        }
        assert!(started.elapsed() < PATIENCE, "not in time: {what}: {answer:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    let started = Instant::now();
    while !done() {
        assert!(started.elapsed() < PATIENCE, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn joins_once_and_works_without_the_api() {
    if cannot_run() {
        return;
    }
    let world = World::new();
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("a");
    let api = FakeApi::start("127.0.0.1:0".parse().unwrap()).await;
    let address = api.address;

    // Without a token, or with a wrong one, it says so.
    let stop = CancellationToken::new();
    assert!(matches!(run(options(&world, address, &state, None), stop.clone()).await, Err(GatewayError::NoToken)));
    let refused = run(options(&world, address, &state, Some("wrong")), stop.clone()).await.unwrap_err();
    assert!(matches!(&refused, GatewayError::Control(ControlError::Refused { .. })));
    assert!(refused.to_string().contains("unknown or was used") && !refused.to_string().contains("wrong"), "{refused}");

    let running = tokio::spawn(run(options(&world, address, &state, Some(TOKEN)), stop.clone()));
    eventually("it joins", || api.seen.lock().unwrap().joins.len() == 1).await;
    let lanes = api.seen.lock().unwrap().joins[0].lanes.clone();
    assert_eq!(lanes.iter().map(|lane| lane.endpoint.port()).collect::<Vec<_>>(), [51_820, 51_821]);
    assert_ne!(lanes[0].public_key, lanes[1].public_key);
    let own_key = api.seen.lock().unwrap().joins[0].lanes[0].public_key.clone();
    let (b, _reports) = start(&world, 1);
    b.apply(configuration(1, 1, true, &own_key));
    api.configuration.send_replace(Some(configuration(0, 7, true, &public(&key(1)))));
    until_local(&state, "the private path carries", |status| chosen(status) == Some(PathKind::Private)).await;
    eventually("it reports", || api.seen.lock().unwrap().observations.len() >= 3).await;
    {
        let seen = api.seen.lock().unwrap();
        let sequences: Vec<u64> = seen.observations.iter().map(|observations| observations.sequence).collect();
        assert!(sequences.is_sorted_by(|one, next| one < next), "{sequences:?}");
        assert!(seen.observations.iter().any(|o| o.configuration_version == Some(7) && !o.samples.is_empty()));
        assert_eq!(seen.last_event_ids, [None]);
    }
    for entry in std::fs::read_dir(&state).unwrap().map(Result::unwrap) {
        assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{:?}", entry.path());
    }

    // The API dies: traffic flows, fails over and returns, and a person can pin.
    drop(api);
    let flow = Flow::start(&world);
    flow.carry_on(200).await;
    world.cut_private();
    until_local(&state, "the tunnel took over", |status| chosen(status) == Some(PathKind::Tunnel)).await;
    until(&b, "and at the other end", |status| chosen(status) == Some(PathKind::Tunnel)).await;
    let over = flow.sent() + 100;
    flow.carry_on(1_000).await;
    assert_eq!(flow.lost_since(over), 0);
    world.mend_private();
    until_local(&state, "the private path is back", |status| chosen(status) == Some(PathKind::Private)).await;
    let hold = Hold { pin: Some(PathKind::Tunnel), frozen: false };
    let order = Request::Hold { connection_id: connection_id(), hold };
    assert_eq!(local::ask(&state, &order).await.unwrap(), Answer::Done);
    until_local(&state, "pinned", |status| chosen(status) == Some(PathKind::Tunnel)).await;
    flow.stop();
    stop.cancel();
    running.await.unwrap().unwrap();

    // It starts again with the API still dead and without a token: from the disk, pin and all.
    let stop = CancellationToken::new();
    let running = tokio::spawn(run(options(&world, address, &state, None), stop.clone()));
    let status =
        until_local(&state, "it carries from the disk", |status| chosen(status) == Some(PathKind::Tunnel)).await;
    assert_eq!(status.configuration_version, Some(7));
    assert_eq!(status.connections[0].hold, hold);
    // A second gateway on the same state is refused.
    assert!(matches!(
        run(options(&world, address, &state, None), CancellationToken::new()).await,
        Err(GatewayError::State(_))
    ));

    // And when the API is back, it goes on where it was.
    let api = FakeApi::start(address).await;
    eventually("it watches again", || !api.seen.lock().unwrap().last_event_ids.is_empty()).await;
    assert_eq!(api.seen.lock().unwrap().last_event_ids[0].as_deref(), Some("7"));
    eventually("it reports again", || !api.seen.lock().unwrap().observations.is_empty()).await;
    assert!(api.seen.lock().unwrap().observations[0].sequence > 3 << 32, "sequence numbers rise over restarts");
    assert!(api.seen.lock().unwrap().joins.is_empty());
    stop.cancel();
    running.await.unwrap().unwrap();
    b.stop();
}
