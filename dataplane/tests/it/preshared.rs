//! Preshared keys as the control plane gives them: begun, changed and ended under traffic, with two ends that hear of it at
//! different times.

use base64::{Engine, engine::general_purpose::STANDARD};
use tieline_dataplane::{
    Dataplane,
    shell::status::{LaneStatus, Status},
};
use tieline_openapi::v1::{GatewayPeer, PathKind, PresharedKey};

use super::world::*;

fn text(key: u8) -> String {
    STANDARD.encode([key; 32])
}

fn lane(status: &Status) -> Option<&LaneStatus> {
    status.connections.first()?.peers.first()?.lanes.first()
}

/// Gives a gateway a configuration with these keys with its peer.
fn give(gateway: &Dataplane, n: usize, version: u64, keys: (Option<u8>, bool, Option<u8>)) {
    let mut configuration = configuration(n, version, false, &public(&key(1 - n)));
    let (wanted, changing, former) = keys;
    let read = |key: Option<u8>| key.map(|key| PresharedKey::new(text(key).into()));
    let peer: &mut GatewayPeer = &mut configuration.connections[0].peers[0];
    (peer.preshared_key, peer.preshared_key_changing, peer.former_preshared_key) =
        (read(wanted), changing, read(former));
    gateway.apply(configuration);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_preshared_key_begins_changes_and_ends_without_a_lost_packet() {
    if cannot_run() {
        return;
    }
    let world = World::new();
    let gateways = [0, 1].map(|n| start(&world, n).0);
    for (n, gateway) in gateways.iter().enumerate() {
        give(gateway, n, 1, (None, false, None));
        until(gateway, "it has a configuration", |status| status.configuration_version == Some(1)).await;
    }
    for gateway in &gateways {
        until(gateway, "the tunnel carries", |status| chosen(status) == Some(PathKind::Tunnel)).await;
    }
    let flow = Flow::start(&world);
    flow.carry_on(300).await;
    let mut version = 1;
    // First one end hears of it, then the other, once this one and once that one.
    for (first, wanted, former) in [(0, Some(5), None), (1, Some(6), Some(5)), (0, None, Some(6))] {
        version += 1;
        give(&gateways[first], first, version, (wanted, true, former));
        until(&gateways[first], "it changes", |status| lane(status).is_some_and(|lane| lane.changing)).await;
        flow.carry_on(2_500).await;
        give(&gateways[1 - first], 1 - first, version, (wanted, true, former));
        for gateway in &gateways {
            let done = |status: &Status| {
                status.configuration_version == Some(version) && lane(status).is_some_and(|lane| !lane.changing)
            };
            let status = until(gateway, "it has changed", done).await;
            let told = serde_json::to_string(&status).unwrap() + &format!("{status:?}");
            assert!([5, 6].iter().all(|key| !told.contains(&text(*key))), "a status tells no key");
        }
        version += 1;
        for (n, gateway) in gateways.iter().enumerate() {
            give(gateway, n, version, (wanted, false, None));
            until(gateway, "it is settled", |status| status.configuration_version == Some(version)).await;
        }
        flow.carry_on(500).await;
    }
    assert_eq!(flow.lost_since(0), 0);
    flow.stop();
    gateways.into_iter().for_each(Dataplane::stop);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_that_starts_during_a_change_is_understood_by_one_that_has_not_heard_of_it() {
    if cannot_run() {
        return;
    }
    let world = World::new();
    let behind = start(&world, 1).0;
    give(&behind, 1, 1, (Some(5), false, None));
    let started = start(&world, 0).0;
    give(&started, 0, 2, (Some(6), true, Some(5)));
    until(&started, "there is a session by the key before", |status| {
        lane(status).is_some_and(|lane| lane.alive && lane.changing)
    })
    .await;
    give(&behind, 1, 2, (Some(6), true, Some(5)));
    for gateway in [&started, &behind] {
        until(gateway, "the change is through", |status| lane(status).is_some_and(|lane| lane.alive && !lane.changing))
            .await;
    }
    [started, behind].into_iter().for_each(Dataplane::stop);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_ends_with_different_keys_have_no_session() {
    if cannot_run() {
        return;
    }
    let world = World::new();
    let gateways = [0, 1].map(|n| start(&world, n).0);
    give(&gateways[0], 0, 1, (Some(5), false, None));
    give(&gateways[1], 1, 1, (Some(6), false, None));
    // Whoever answers a handshake has a session before it knows that the other end cannot have it; nothing comes by that.
    let refused = |status: &Status| lane(status).is_some_and(|lane| lane.counters.drops.not_authentic > 0);
    for gateway in &gateways {
        let status = until(gateway, "what comes by another key is refused", refused).await;
        assert!(lane(&status).is_some_and(|lane| lane.counters.packets_in == 0) && chosen(&status).is_none());
    }
    give(&gateways[1], 1, 2, (Some(5), false, None));
    for gateway in &gateways {
        until(gateway, "the tunnel carries", |status| chosen(status) == Some(PathKind::Tunnel)).await;
    }
    gateways.into_iter().for_each(Dataplane::stop);
}
