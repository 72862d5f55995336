//! Gateways: joining, what they are told, what they report.

use tieline_api::{
    plan::step::Instance,
    store::{
        ChangeTo, EngineStatus, EngineWrite, HousekeepingLimits, KeptCondition, NewEvent, Page, ReportEffects, Store,
        StoreError, StoredPrincipal, TunnelKey, TunnelKeyChange, TunnelKeyDue,
    },
};
use tieline_openapi::{
    ids::{ConnectionId, GatewayId},
    v1::{
        ConditionStatus, ConditionType, End, GatewayState, KernelLane, Observations, PathKind, PathSample, PathState,
    },
};

use super::{fixture::*, on_both};

on_both!(
    a_condition_keeps_its_time_until_it_changes,
    a_join_token_is_good_once,
    a_join_token_ends,
    gateways_are_told_of_both_ends,
    the_version_rises_with_what_gateways_are_told,
    a_report_is_taken_once,
    a_gateway_speaks_for_its_own_network,
    preshared_keys_change_one_generation_at_a_time,
    a_peer_is_told_of_the_kernel_lane_for_it_alone,
);

async fn a_join_token_is_good_once(db: Db) {
    let (token, gateway) = db.join("point-a");
    let (hash, credential) = (token.hash, gateway.credential_hash);
    db.store.insert_join_token(&project(), token.clone()).await.unwrap();
    let bearer = db.store.principal_by_hash(hash).await.unwrap();
    assert!(matches!(bearer, Some(StoredPrincipal::Join { token: t, .. }) if t.id == token.id && t.used_at.is_none()));
    let joined = db.store.join_gateway(hash, gateway.clone()).await.unwrap();
    assert_eq!((joined.id, joined.attach_point_id.as_str(), joined.group), (gateway.id, "point-a", token.group));
    assert_eq!((joined.state, joined.lanes), (GatewayState::Joined, gateway.request.lanes.clone()));
    assert_eq!(db.store.gateway(&project(), joined.id).await.unwrap().name, "gw");
    let bearer = db.store.principal_by_hash(credential).await.unwrap();
    assert_eq!(bearer, Some(StoredPrincipal::Gateway { id: joined.id, project: project() }));

    let (_, second) = db.join("point-a");
    let second_id = second.id;
    assert!(matches!(db.store.join_gateway(hash, second).await, Err(StoreError::Spent)));
    assert!(matches!(db.store.gateway(&project(), second_id).await, Err(StoreError::NotFound)));
    let (_, stranger) = db.join("point-a");
    assert!(matches!(db.store.join_gateway([9; 32], stranger).await, Err(StoreError::Spent)));
    let all = db.store.gateways(&project(), Page { limit: 9, after: None }).await.unwrap();
    assert_eq!(all.len(), 1);
}

async fn a_join_token_ends(db: Db) {
    let (token, mut gateway) = db.join("point-a");
    gateway.at = token.expires_at;
    let hash = token.hash;
    db.store.insert_join_token(&project(), token).await.unwrap();
    assert!(matches!(db.store.join_gateway(hash, gateway).await, Err(StoreError::Spent)));
}

async fn gateways_are_told_of_both_ends(db: Db) {
    let [a, b, far] = [db.joined("point-a").await, db.joined("point-b").await, db.joined("point-c").await];
    let inputs = db.store.gateway_inputs(a).await.unwrap();
    assert!(inputs.connections.is_empty() && inputs.gateways.len() == 1);
    let id = db.created("one").await;
    let ids = |inputs: &tieline_api::store::GatewayInputs| inputs.gateways.iter().map(|g| g.id).collect::<Vec<_>>();
    for gateway in [a, b] {
        let inputs = db.store.gateway_inputs(gateway).await.unwrap();
        assert_eq!(inputs.gateway.id, gateway);
        assert_eq!(ids(&inputs), [a, b]);
        assert_eq!(inputs.connections.iter().map(|c| c.id).collect::<Vec<_>>(), [id]);
        assert!(inputs.numbers[&a] != inputs.numbers[&b] && inputs.numbers.len() == 2);
    }
    assert_eq!(ids(&db.store.gateway_inputs(far).await.unwrap()), [far]);
    let nobody = GatewayId(db.uuid());
    assert!(matches!(db.store.gateway_inputs(nobody).await, Err(StoreError::NotFound)));
}

async fn the_version_rises_with_what_gateways_are_told(db: Db) {
    let gateway = db.joined("point-a").await;
    let version = async || db.store.gateway_inputs(gateway).await.unwrap().version;
    let mut last = version().await;
    let id = db.created("one").await;
    assert!(version().await > std::mem::replace(&mut last, version().await));
    db.joined("point-b").await;
    assert!(version().await > std::mem::replace(&mut last, version().await));
    db.store.change_connection(db.change(id, 1, ChangeTo::Deletion)).await.unwrap();
    assert!(version().await > std::mem::replace(&mut last, version().await));

    let claim = db.claim("one").await;
    let write = async |write| db.store.write_fenced(&claim, vec![write]).await.unwrap();
    let status = |failing: bool, provisioned: bool| EngineWrite::PutStatus {
        status: Box::new(EngineStatus {
            state: failing.then_some(tieline_openapi::v1::ConnectionState::Active),
            provisioned_at: provisioned.then_some(ms(START)),
            ..EngineStatus::default()
        }),
        observed_generation: None,
    };
    write(status(true, false)).await;
    write(EngineWrite::Event(event("x.y", id))).await;
    let instance = db.instance(1, 2);
    write(EngineWrite::PutInstance(Box::new(instance.clone()))).await;
    assert_eq!(version().await, last, "nothing that a gateway looks at");
    let retire = EngineWrite::RetireChannel { channel_id: channel_id(1), generation: 1, quarantine_ms: 1 };
    let put =
        EngineWrite::PutChannel { channel: Box::new(channel(id, 1, 2)), allocations: Vec::new(), secrets: Vec::new() };
    let instance = Instance { cloud_id: Some("vif-1".to_owned()), ..instance };
    let instance = EngineWrite::UpdateInstance(Box::new(instance));
    for told in [status(true, true), instance, put, retire, EngineWrite::Remove { quarantine_ms: 1 }] {
        let before = version().await;
        let name = format!("{told:?}");
        write(told).await;
        assert!(version().await > before, "{name}");
    }
}

async fn a_peer_is_told_of_the_kernel_lane_for_it_alone(db: Db) {
    let [a, b, c] = [db.joined("point-a").await, db.joined("point-b").await, db.joined("point-c").await];
    let lane = |peer_id, n: u8| KernelLane {
        peer_id,
        public_key: data_encoding::BASE64.encode(&[n; 32]),
        endpoint: ([192, 0, 2, n], 51_900).into(),
    };
    let put = async |gateway, lanes: &[KernelLane]| db.store.put_kernel_lanes(gateway, lanes).await;
    let seen = async |gateway| {
        let inputs = db.store.gateway_inputs(gateway).await.unwrap();
        let lanes = inputs.kernel_lanes.into_iter().map(|(peer, lane)| (peer, lane.endpoint.ip().to_string()));
        (lanes.collect::<Vec<_>>(), inputs.version)
    };
    let before = seen(b).await.1;
    put(a, &[lane(b, 1), lane(c, 2)]).await.unwrap();
    assert_eq!(seen(b).await, (vec![(a, "192.0.2.1".to_owned())], before + 1));
    assert_eq!(seen(c).await.0, [(a, "192.0.2.2".to_owned())]);
    assert_eq!(seen(a).await.0, [], "its own are not its peers'");
    put(a, &[lane(c, 2), lane(b, 1)]).await.unwrap();
    assert_eq!(seen(b).await.1, before + 1, "nothing is new");
    put(a, &[lane(b, 3)]).await.unwrap();
    assert_eq!((seen(b).await, seen(c).await.0), ((vec![(a, "192.0.2.3".to_owned())], before + 2), vec![]));
    put(a, &[lane(GatewayId(uuid::Uuid::from_u128(77)), 9)]).await.unwrap();
    assert_eq!(seen(b).await, (vec![], before + 3), "who is no gateway is left out");
    let nobody = put(GatewayId(uuid::Uuid::from_u128(77)), &[lane(a, 1)]).await;
    assert!(matches!(nobody, Err(StoreError::NotFound)), "{nobody:?}");
}

async fn preshared_keys_change_one_generation_at_a_time(db: Db) {
    const AGE: u64 = 3_600_000;
    let [a, b] = [db.joined("point-a").await, db.joined("point-b").await];
    db.joined("point-c").await;
    let due = async |age: Option<u64>| db.store.tunnel_keys_due(age, 10).await.unwrap();
    let change = async |due, change| db.store.change_tunnel_key(due, change).await.unwrap();
    let begin = |key: Option<u8>| TunnelKeyChange::Begin { sealed: key.map(|key| vec![key; 9]) };
    let both = async || {
        let [of_a, of_b] = [db.store.gateway_inputs(a).await.unwrap(), db.store.gateway_inputs(b).await.unwrap()];
        assert_eq!(of_a.keys.get(&b), of_b.keys.get(&a));
        (of_a.keys.get(&b).cloned(), of_a.version)
    };
    let told = async |gateway, sequence, version| {
        let report =
            Observations { sequence, configuration_version: Some(version), samples: Vec::new(), changes: Vec::new() };
        db.store.observe(gateway, &report, ms(START), effects(Vec::new())).await.unwrap();
    };
    let kept = |generation, key: Option<u8>, changing, former: Option<u8>| {
        let bytes = |key: Option<u8>| key.map(|key| vec![key; 9]);
        Some(TunnelKey { generation, sealed: bytes(key), changing, former: bytes(former) })
    };
    assert_eq!(due(Some(AGE)).await, [], "no connection is between the two");
    let id = db.created("one").await;
    let mut gateways = [a, b];
    gateways.sort_by_key(ToString::to_string);
    let new = TunnelKeyDue { gateways, generation: 0, changing: false, has_key: false };
    assert_eq!((due(Some(AGE)).await, due(None).await), (vec![new], vec![]));
    let before = both().await.1;
    assert!(change(new, begin(Some(1))).await);
    assert!(!change(new, begin(Some(2))).await, "another replica was faster");
    let (key, version) = both().await;
    assert_eq!((key, version), (kept(1, Some(1), true, None), before + 1));

    told(a, 1, version).await;
    assert_eq!(due(Some(0)).await, [], "the other has not heard of it");
    told(b, 1, version - 1).await;
    assert_eq!(due(Some(0)).await, []);
    told(b, 2, version).await;
    let heard = TunnelKeyDue { generation: 1, changing: true, has_key: true, ..new };
    assert_eq!(due(Some(AGE)).await, [heard]);
    assert!(!change(heard, begin(Some(2))).await, "it is being changed");
    assert!(change(heard, TunnelKeyChange::Settle).await);
    assert_eq!(both().await.0, kept(1, Some(1), false, None));

    assert_eq!(due(Some(AGE)).await, [], "it is young");
    let old = TunnelKeyDue { changing: false, ..heard };
    assert_eq!(due(Some(0)).await, [old]);
    assert!(change(old, begin(Some(2))).await);
    assert_eq!(both().await.0, kept(2, Some(2), true, Some(1)));
    let settle = async |sequence| {
        let version = both().await.1;
        told(a, sequence, version).await;
        told(b, sequence, version).await;
        due(None).await
    };
    let heard = settle(3).await[0];
    assert!(change(heard, TunnelKeyChange::Settle).await);

    // There are to be none any more.
    let unwanted = due(None).await;
    assert_eq!(unwanted, [TunnelKeyDue { generation: 2, ..old }]);
    assert!(change(unwanted[0], begin(None)).await);
    assert_eq!(both().await.0, kept(3, None, true, Some(2)));
    let gone = settle(4).await;
    assert_eq!(gone, [TunnelKeyDue { generation: 3, changing: true, has_key: false, ..new }]);
    assert!(change(gone[0], TunnelKeyChange::Forget).await);
    assert_eq!((both().await.0, due(None).await), (None, vec![]));

    // What two have that nothing is between any more is forgotten.
    assert!(change(due(Some(AGE)).await[0], begin(Some(4))).await);
    db.store.housekeep(&HousekeepingLimits::default()).await.unwrap();
    assert!(both().await.0.is_some());
    db.store.change_connection(db.change(id, 1, ChangeTo::Deletion)).await.unwrap();
    let claim = db.claim("one").await;
    db.store.write_fenced(&claim, vec![EngineWrite::Remove { quarantine_ms: 1 }]).await.unwrap();
    db.store.housekeep(&HousekeepingLimits::default()).await.unwrap();
    assert_eq!(both().await.0, None);
}

fn sample(connection_id: ConnectionId, peer_id: GatewayId, path: PathKind, at: i64, sent: u32) -> PathSample {
    PathSample {
        connection_id,
        peer_id,
        path,
        state: PathState::Up,
        carries: true,
        at: ms(START + at),
        sent,
        received: sent,
        rtt_us: Some(900),
        rtt_p99_us: None,
        jitter_us: None,
        loss_out_ppm: 0,
        loss_in_ppm: 0,
        dead_ports: 0,
        bytes_out: 1,
        bytes_in: 2,
    }
}

fn effects(events: Vec<NewEvent>) -> ReportEffects {
    ReportEffects { events, conditions: Vec::new() }
}

fn report(sequence: u64, samples: Vec<PathSample>) -> Observations {
    Observations { sequence, configuration_version: Some(3), samples, changes: Vec::new() }
}

async fn a_report_is_taken_once(db: Db) {
    let (a, b) = (db.joined("point-a").await, db.joined("point-b").await);
    let id = db.created("one").await;
    let cursor = db.store.last_cursor().await.unwrap();
    let observe = async |gateway, report: Observations, at: i64| {
        db.store.observe(gateway, &report, ms(START + at), effects(vec![event("path.changed", id)])).await
    };
    let first = sample(id, b, PathKind::Private, 1_000, 50);
    let tunnel = sample(id, b, PathKind::Tunnel, 1_000, 20);
    assert!(observe(a, report(0, vec![first.clone(), tunnel.clone()]), 1_001).await.unwrap());
    assert!(!observe(a, report(0, vec![sample(id, b, PathKind::Private, 9_000, 1)]), 9_000).await.unwrap());
    assert_eq!(db.store.last_cursor().await.unwrap(), cursor + 1, "its events are written once, too");
    let later = sample(id, b, PathKind::Private, 2_000, 51);
    let older = sample(id, b, PathKind::Private, 1_500, 52);
    assert!(observe(a, report(7, vec![later.clone(), older]), 2_001).await.unwrap());
    assert!(!observe(a, report(6, vec![]), 3_000).await.unwrap());
    let peer = sample(id, a, PathKind::Private, 2_000, 53);
    assert!(observe(b, report(u64::MAX, vec![peer.clone()]), 2_002).await.unwrap());
    assert!(!observe(b, report(u64::MAX, vec![]), 2_003).await.unwrap());

    assert_eq!(db.store.latest_samples(id).await.unwrap(), [later.clone(), tunnel, peer]);
    let record = db.store.connection(&project(), id).await.unwrap();
    assert_eq!(record.samples.len(), 3);
    assert_eq!(record.gateway_ends, [(a, End::A), (b, End::B)].into());
    let gateway = db.store.gateway(&project(), a).await.unwrap();
    assert_eq!((gateway.state, gateway.configuration_version), (GatewayState::Live, Some(3)));
    assert_eq!(gateway.last_heard_at, Some(ms(START + 2_001)));
    assert!(matches!(observe(GatewayId(db.uuid()), report(1, vec![]), 1).await, Err(StoreError::NotFound)));
}

async fn a_gateway_speaks_for_its_own_network(db: Db) {
    let (a, stranger) = (db.joined("point-a").await, db.joined("point-c").await);
    let id = db.created("one").await;
    let gone = ConnectionId(db.uuid());
    let samples = vec![sample(id, a, PathKind::Private, 1, 1), sample(gone, a, PathKind::Private, 1, 1)];
    assert!(
        db.store.observe(stranger, &report(1, samples.clone()), ms(START), ReportEffects::default()).await.unwrap()
    );
    assert!(db.store.latest_samples(id).await.unwrap().is_empty());
    assert!(db.store.observe(a, &report(1, samples), ms(START), ReportEffects::default()).await.unwrap());
    assert_eq!(db.store.latest_samples(id).await.unwrap().len(), 1);
    assert!(db.store.latest_samples(gone).await.unwrap().is_empty());
}

async fn a_condition_keeps_its_time_until_it_changes(db: Db) {
    let a = db.joined("point-a").await;
    let (id, gone) = (db.created("one").await, ConnectionId(db.uuid()));
    let kept = |kind, status, at: i64| KeptCondition { kind, status, since: ms(START + at) };
    let observe = async |sequence, conditions: Vec<KeptCondition>| {
        let effects =
            ReportEffects { events: Vec::new(), conditions: vec![(id, conditions.clone()), (gone, conditions)] };
        db.store.observe(a, &report(sequence, Vec::new()), ms(START), effects).await.unwrap()
    };
    let shown = async || db.store.connection(&project(), id).await.unwrap().path_conditions;
    let (up, green) = (ConditionType::TunnelUp, ConditionType::ProbesGreen);
    assert!(shown().await.is_empty());
    let first = [kept(green, ConditionStatus::False, 5), kept(up, ConditionStatus::True, 5)];
    assert!(observe(1, first.to_vec()).await);
    assert!(!observe(1, vec![kept(up, ConditionStatus::False, 6)]).await, "a report counts once");
    assert_eq!(shown().await, first);
    assert!(observe(2, vec![kept(up, ConditionStatus::Unknown, 7)]).await);
    assert_eq!(shown().await, [first[0], kept(up, ConditionStatus::Unknown, 7)], "the others stay as they were");
    let (gateway, served) = db.store.reported_on(a, &[id, gone].into()).await.unwrap();
    assert_eq!((gateway.id, served.len()), (a, 1));
    assert_eq!(served[0].path_conditions, shown().await);

    let claim = db.claim("engine").await;
    db.store.write_fenced(&claim, vec![EngineWrite::Remove { quarantine_ms: 0 }]).await.unwrap();
    assert!(observe(3, first.to_vec()).await, "late words about it are dropped");
    assert!(db.store.reported_on(a, &[id].into()).await.unwrap().1.is_empty());
}
