//! Gateways: joining once, being told, reporting.

use eventsource_stream::Event;
use futures::Stream;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tieline_api::{
    engine::clock::{Clock, SystemClock},
    store::Store,
};
use tieline_openapi::v1::{
    ConditionStatus, ConditionType, GatewayConfiguration, GatewayPeer, Timestamp, TunnelBackend,
};

use super::{
    fixture::{Answer, Backing, Go, Service},
    streams::{next, open},
};

fn join_request(name: &str, host: u8) -> Value {
    json!({
        "name": name,
        "privateAddress": format!("10.0.0.{host}"),
        "lanes": [{"n": 0, "publicKey": "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=", "endpoint": format!("192.0.2.{host}:51820")}],
    })
}

async fn join_token(service: &Service, group: &str, attach_point: &str) -> String {
    let path = format!("/v1/gatewayGroups/{group}:issueJoinToken");
    let issued =
        service.ask(Method::POST, &path).json(&json!({"attachPointId": attach_point})).go(StatusCode::CREATED).await;
    issued.body["secret"].as_str().unwrap().to_owned()
}

pub(crate) async fn join(service: &Service, group: &str, attach_point: &str, host: u8) -> Answer {
    let token = join_token(service, group, attach_point).await;
    join_with(service, &token, group, host).await
}

pub(crate) async fn join_with(service: &Service, token: &str, group: &str, host: u8) -> Answer {
    let request = service.ask_as(token, Method::POST, "/v1/gateways:join").json(&join_request(group, host));
    request.go(StatusCode::CREATED).await
}

fn sample(connection: &str, peer: &str) -> Value {
    json!({
        "connectionId": connection, "peerId": peer, "path": "TUNNEL", "state": "UP", "carries": true,
        "at": "2026-01-01T00:00:00Z", "sent": 50, "received": 50, "rttUs": 900, "rttP99Us": 1200, "jitterUs": 10,
        "lossOutPpm": 0, "lossInPpm": 0, "deadPorts": 0, "bytesOut": 1, "bytesIn": 2,
    })
}

async fn a_join_token_is_good_once_and_for_nothing_else(backing: Backing) {
    let service = Service::start(backing).await;
    let token = join_token(&service, "g", "router-l").await;
    service.ask_as(&token, Method::GET, "/v1/gateways").go(StatusCode::FORBIDDEN).await;
    let mut bad = join_request("g", 1);
    bad["lanes"][0]["publicKey"] = json!("short");
    bad["lanes"][0]["n"] = json!(3);
    let refused =
        service.ask_as(&token, Method::POST, "/v1/gateways:join").json(&bad).go(StatusCode::BAD_REQUEST).await;
    assert_eq!(refused.pointers(), ["/lanes/0/n", "/lanes/0/publicKey"]);
    let joining = || service.ask_as(&token, Method::POST, "/v1/gateways:join").json(&join_request("g", 1));
    let joined = joining().go(StatusCode::CREATED).await;
    joining().go(StatusCode::UNAUTHORIZED).await;
    let credential = joined.body["credential"].as_str().unwrap();
    let id = joined.body["gateway"]["id"].as_str().unwrap();
    assert_eq!(joined.header("location"), format!("/v1/gateways/{id}"));
    let shown = service.get(joined.header("location")).await;
    assert_eq!(shown["state"], "JOINED");
    assert!(!shown.to_string().contains(credential));
    service.ask_as(credential, Method::GET, "/v1/connections").go(StatusCode::FORBIDDEN).await;
    service
        .ask_as(credential, Method::POST, "/v1/gateways:join")
        .json(&join_request("g", 1))
        .go(StatusCode::FORBIDDEN)
        .await;
    let other = join(&service, "h", "router-r", 2).await;
    let theirs = format!("/v1/gateways/{}/observations", other.body["gateway"]["id"].as_str().unwrap());
    let report = json!({"sequence": 1, "configurationVersion": null, "samples": []});
    service.ask_as(credential, Method::POST, &theirs).json(&report).go(StatusCode::NOT_FOUND).await;
    service.ask(Method::POST, &theirs).json(&report).go(StatusCode::FORBIDDEN).await;
    let elsewhere =
        service.ask(Method::POST, "/v1/gatewayGroups/g:issueJoinToken").json(&json!({"attachPointId": "router-r"}));
    elsewhere.go(StatusCode::CONFLICT).await;
    let nowhere =
        service.ask(Method::POST, "/v1/gatewayGroups/g:issueJoinToken").json(&json!({"attachPointId": "nowhere"}));
    assert_eq!(nowhere.go(StatusCode::BAD_REQUEST).await.pointers(), ["/attachPointId"]);
    service.end().await;
}

async fn a_gateway_is_told_of_each_change_and_its_reports_are_seen(backing: Backing) {
    let service = Service::start(backing).await;
    let (a, b) = (join(&service, "ga", "router-l", 1).await, join(&service, "gb", "router-r", 2).await);
    let id = |joined: &Answer| joined.body["gateway"]["id"].as_str().unwrap().to_owned();
    let credential = |joined: &Answer| joined.body["credential"].as_str().unwrap().to_owned();
    let watching = |last: Option<&str>| {
        let path = format!("/v1/gateways/{}/configuration:watch", id(&a));
        let request = service.ask_as(&credential(&a), Method::GET, &path);
        if let Some(last) = last { request.header("last-event-id", last.to_owned()) } else { request }
    };
    let mut stream = open(watching(None)).await;
    let first = next(&mut stream).await;
    assert_eq!(first.event, "configuration");
    let empty: GatewayConfiguration = serde_json::from_str(&first.data).unwrap();
    assert_eq!(empty.version.to_string(), first.id);
    assert!(empty.connections.is_empty());
    let made = service.create("one").await;
    let connection = made.body["id"].as_str().unwrap();
    let second = next(&mut stream).await;
    let told: GatewayConfiguration = serde_json::from_str(&second.data).unwrap();
    assert!(told.version > empty.version);
    let served = &told.connections[0];
    assert_eq!(served.connection_id.to_string(), connection);
    assert_eq!(served.remote_prefixes, ["172.16.0.0/16".parse().unwrap()]);
    assert_eq!(served.local_prefixes, ["10.0.0.0/16".parse().unwrap()]);
    assert_eq!(served.peers.len(), 1);
    assert_eq!(served.peers[0].gateway_id.to_string(), id(&b));
    assert_ne!(served.peers[0].inner_address, served.inner_address);
    assert!(served.inner_address.to_string().starts_with("100.6"));
    assert!(!served.private_ready);
    drop(stream);
    // Known already: nothing comes until something changes.
    let mut resumed = open(watching(Some(&second.id))).await;
    let patch = json!({"acceptedPrefixes": null, "advertisedPrefixes": ["172.16.0.0/16", "172.20.0.0/16"]});
    let patch = service.ask(Method::PATCH, made.header("location")).header("if-match", "*").json(&json!({"b": patch}));
    patch.go(StatusCode::ACCEPTED).await;
    let third: GatewayConfiguration = serde_json::from_str(&next(&mut resumed).await.data).unwrap();
    assert!(third.version > told.version);
    assert_eq!(third.connections[0].remote_prefixes.len(), 2);

    let report = |joined: &Answer, sequence: u64, body: Value| {
        let mut whole = json!({"sequence": sequence, "configurationVersion": third.version});
        whole.as_object_mut().unwrap().extend(body.as_object().unwrap().clone());
        let path = format!("/v1/gateways/{}/observations", id(joined));
        service.ask_as(&credential(joined), Method::POST, &path).json(&whole)
    };
    let fresh = || {
        let mut fresh = sample(connection, &id(&b));
        fresh["at"] = json!(now());
        fresh
    };
    let mut back = fresh();
    back["peerId"] = json!(id(&a));
    let change = json!([{"connectionId": connection, "at": "2026-01-01T00:00:00Z", "from": null, "to": "TUNNEL", "reason": "first"}]);
    let stranger = sample("0192f0c1-2345-7abc-8def-0123456789ab", &id(&b));
    report(&a, 1, json!({"samples": [fresh(), stranger], "changes": change})).go(StatusCode::NO_CONTENT).await;
    report(&a, 1, json!({"samples": [fresh()], "changes": change})).go(StatusCode::NO_CONTENT).await;
    report(&b, 1, json!({"samples": [back]})).go(StatusCode::NO_CONTENT).await;
    let shown = service.get(made.header("location")).await;
    let tunnel = shown["paths"].as_array().unwrap().iter().find(|path| path["kind"] == "TUNNEL").unwrap();
    assert_eq!(tunnel["state"], "UP", "{shown}");
    assert_eq!(tunnel["carries"], json!({"aToB": true, "bToA": true}));
    assert_eq!(tunnel["measured"]["rttUs"], 900);
    let up = shown["conditions"].as_array().unwrap().iter().find(|c| c["type"] == "TunnelUp").unwrap();
    assert_eq!(up["status"], "TRUE");
    let events = service.get("/v1/events").await;
    let promoted: Vec<&Value> =
        events["events"].as_array().unwrap().iter().filter(|event| event["type"] == "path.promoted").collect();
    assert_eq!(promoted.len(), 1, "a repeated report tells nothing twice");
    assert_eq!(promoted[0]["subject"], format!("/v1/connections/{connection}"));
    assert_eq!(service.get(&format!("/v1/gateways/{}", id(&a))).await["state"], "LIVE");
    let wrong = json!({"samples": [{"surprise": 1}]});
    report(&a, 2, wrong).go(StatusCode::BAD_REQUEST).await;
    service.end().await;
}

/// The next configuration whose peer is as wanted.
async fn told(
    stream: &mut (impl Stream<Item = Event> + Unpin),
    wanted: impl Fn(&GatewayPeer) -> bool,
) -> GatewayConfiguration {
    loop {
        let told: GatewayConfiguration = serde_json::from_str(&next(stream).await.data).unwrap();
        if told.connections.first().is_some_and(|connection| wanted(&connection.peers[0])) {
            return told;
        }
    }
}

async fn two_gateways_are_given_a_preshared_key(backing: Backing) {
    let service = Service::configured(backing, "[tunnel]\npresharedKeyHours = 24\n").await;
    let joined = [join(&service, "ga", "router-l", 1).await, join(&service, "gb", "router-r", 2).await];
    let id = |n: usize| joined[n].body["gateway"]["id"].as_str().unwrap().to_owned();
    let credential = |n: usize| joined[n].body["credential"].as_str().unwrap().to_owned();
    service.create("one").await;
    let watch = |n: usize| {
        let path = format!("/v1/gateways/{}/configuration:watch", id(n));
        service.ask_as(&credential(n), Method::GET, &path)
    };
    let mut streams = [open(watch(0)).await, open(watch(1)).await];
    let mut first = Vec::new();
    for stream in &mut streams {
        first.push(told(stream, |peer| peer.preshared_key.is_some()).await);
    }
    let peers = [&first[0].connections[0].peers[0], &first[1].connections[0].peers[0]];
    assert!(peers.iter().all(|peer| peer.preshared_key_changing && peer.former_preshared_key.is_none()));
    let key = peers[0].preshared_key.clone().unwrap();
    assert_eq!(peers[1].preshared_key.as_ref(), Some(&key), "both have the same");
    assert_eq!((key.expose().len(), format!("{first:?}").contains(key.expose())), (44, false));

    // Only when both have said that they have it, it is settled.
    for (n, configuration) in first.iter().enumerate() {
        let report = json!({"sequence": 1, "configurationVersion": configuration.version, "samples": []});
        let path = format!("/v1/gateways/{}/observations", id(n));
        service.ask_as(&credential(n), Method::POST, &path).json(&report).go(StatusCode::NO_CONTENT).await;
    }
    for stream in &mut streams {
        let settled = told(stream, |peer| !peer.preshared_key_changing).await;
        assert_eq!(settled.connections[0].peers[0].preshared_key.as_ref(), Some(&key));
    }
    for shown in ["/v1/gateways", "/v1/events", "/v1/connections"] {
        assert!(!service.get(shown).await.to_string().contains(key.expose()), "{shown}");
    }
    for file in std::fs::read_dir(service.folder()).unwrap().map(Result::unwrap) {
        let bytes = std::fs::read(file.path()).unwrap();
        let found = bytes.windows(key.expose().len()).any(|window| window == key.expose().as_bytes());
        assert!(!found, "{} has it in plain", file.path().display());
    }
    service.end().await;
}

async fn a_gateway_tells_its_peers_of_lanes_in_its_kernel(backing: Backing) {
    let service = Service::start(backing).await;
    let joined = [join(&service, "ga", "router-l", 1).await, join(&service, "gb", "router-r", 2).await];
    let id = |n: usize| joined[n].body["gateway"]["id"].as_str().unwrap().to_owned();
    let credential = |n: usize| joined[n].body["credential"].as_str().unwrap().to_owned();
    service.create("one").await;
    let lane = |peer: &str| json!({"peerId": peer, "publicKey": "A".repeat(43) + "=", "endpoint": "192.0.2.1:51900"});
    let put = |by: usize, of: usize, lanes: &Value| {
        let path = format!("/v1/gateways/{}/kernelLanes", id(of));
        service.ask_as(&credential(by), Method::PUT, &path).json(&json!({ "lanes": lanes }))
    };
    let path = format!("/v1/gateways/{}/configuration:watch", id(1));
    let mut stream = open(service.ask_as(&credential(1), Method::GET, &path)).await;
    told(&mut stream, |peer| peer.kernel_lane.is_none()).await;
    put(0, 0, &json!([lane(&id(1))])).go(StatusCode::NO_CONTENT).await;
    let told_of = told(&mut stream, |peer| peer.kernel_lane.is_some()).await;
    let seen = told_of.connections[0].peers[0].kernel_lane.clone().unwrap();
    assert_eq!((seen.endpoint.to_string(), seen.backend), ("192.0.2.1:51900".to_owned(), TunnelBackend::Kernel));
    put(0, 0, &json!([])).go(StatusCode::NO_CONTENT).await;
    told(&mut stream, |peer| peer.kernel_lane.is_none()).await;

    put(1, 0, &json!([])).go(StatusCode::NOT_FOUND).await;
    let mut endless = lane(&id(1));
    endless["endpoint"] = json!("0.0.0.0:0");
    let mut short = lane(&id(1));
    short["publicKey"] = json!("AAAA");
    for (lanes, pointer) in [
        (json!([endless]), "/lanes/0/endpoint"),
        (json!([short]), "/lanes/0/publicKey"),
        (json!([lane(&id(1)), lane(&id(1))]), "/lanes/1/peerId"),
        (json!([lane(&id(0))]), "/lanes/0/peerId"),
    ] {
        let refused = put(0, 0, &lanes).go(StatusCode::BAD_REQUEST).await;
        assert_eq!(refused.pointers(), [pointer], "{}", refused.body);
    }
    service.end().await;
}

async fn a_condition_tells_since_when_it_has_its_status(backing: Backing) {
    let service = Service::start(backing).await;
    let (a, b) = (join(&service, "ga", "router-l", 1).await, join(&service, "gb", "router-r", 2).await);
    let id = |joined: &Answer| joined.body["gateway"]["id"].as_str().unwrap().to_owned();
    let made = service.create("one").await;
    let connection = made.body["id"].as_str().unwrap();
    let report = async |by: &Answer, peer: &Answer, sequence: u64, state: &str, age_ms: i64| {
        let mut one = sample(connection, &id(peer));
        let taken = now().as_millisecond() - age_ms;
        one["at"] = json!(Timestamp::from_millisecond(taken).unwrap());
        one["state"] = json!(state);
        let path = format!("/v1/gateways/{}/observations", id(by));
        let body = json!({"sequence": sequence, "configurationVersion": null, "samples": [one]});
        let credential = by.body["credential"].as_str().unwrap();
        service.ask_as(credential, Method::POST, &path).json(&body).go(StatusCode::NO_CONTENT).await;
    };
    let tunnel = async || {
        let shown = service.get(made.header("location")).await;
        let up = shown["conditions"].as_array().unwrap().iter().find(|c| c["type"] == "TunnelUp").unwrap().clone();
        let since: Timestamp = serde_json::from_value(up["since"].clone()).unwrap();
        (up["status"].as_str().unwrap().to_owned(), since)
    };
    let created: Timestamp = serde_json::from_value(made.body["createdAt"].clone()).unwrap();
    assert_eq!(tunnel().await, ("UNKNOWN".to_owned(), created));
    report(&a, &b, 1, "UP", 0).await;
    assert_eq!(tunnel().await, ("UNKNOWN".to_owned(), created), "one end alone proves nothing");
    let before = now();
    report(&b, &a, 1, "UP", 0).await;
    let (status, up_since) = tunnel().await;
    assert!(status == "TRUE" && up_since >= before && up_since <= now(), "{status} {up_since}");
    report(&a, &b, 2, "UP", 0).await;
    report(&b, &a, 2, "UP", 0).await;
    assert_eq!(tunnel().await, ("TRUE".to_owned(), up_since), "saying it again changes nothing");
    report(&b, &a, 3, "DOWN", 0).await;
    let (status, down_since) = tunnel().await;
    assert!(status == "FALSE" && down_since > up_since, "{status} {down_since}");
    let events = service.get("/v1/events").await;
    let told: Vec<&Value> = events["events"].as_array().unwrap().iter().map(|event| &event["data"]).collect();
    let of_tunnel: Vec<_> = told.iter().filter(|data| data["type"] == "TunnelUp").map(|data| &data["status"]).collect();
    assert_eq!(of_tunnel, [&json!("TRUE"), &json!("FALSE")]);
    // Reports that are too old count for nothing, from the moment on at which they became so.
    report(&b, &a, 4, "UP", 0).await;
    let service_store = &service.store;
    let record = service_store.connection(&"default".parse().unwrap(), connection.parse().unwrap()).await.unwrap();
    let later = Timestamp::from_millisecond(now().as_millisecond() + 3_600_000).unwrap();
    let shown = tieline_api::app::view::connection(&record, &super::fixture::topology(), later);
    let up = shown.conditions.iter().find(|one| one.kind == ConditionType::TunnelUp).unwrap();
    let oldest = record.samples.iter().map(|one| one.sample.at).min().unwrap();
    assert_eq!(up.status, ConditionStatus::Unknown);
    assert!(up.since > oldest && up.since < later, "{} {}", up.since, oldest);
    service.end().await;
}

fn now() -> Timestamp {
    Clock::now(&SystemClock::new())
}

super::on_both! {
    two_gateways_are_given_a_preshared_key,
    a_gateway_tells_its_peers_of_lanes_in_its_kernel,
    a_condition_tells_since_when_it_has_its_status,
    a_join_token_is_good_once_and_for_nothing_else,
    a_gateway_is_told_of_each_change_and_its_reports_are_seen,
}
