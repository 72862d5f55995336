//! A customer's key from one installation to the other, until both know the same; and the end of it.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tieline_api::store::Books;
use tieline_openapi::coordinator::ResourceId;

use super::fixture::{Pair, Side};
use crate::http::fixture::{Answer, Backing, Go};

pub(super) const CONNECTIONS: &str = "/v1/connections";
pub(super) const ACCEPT: &str = "/v1/activationKeys:accept";

/// The intent of a connection with a peer, ordered at one side.
pub(super) fn order(name: &str, peer: &str, mbps: u32) -> Value {
    json!({
        "name": name, "environmentId": format!("{peer}.e1"), "bandwidthMbps": mbps,
        "a": {}, "b": {"remoteAccountId": "default"}, "fallback": {"tunnel": false},
    })
}

/// Issues a key at one side; its text, and where the connection is.
pub(super) async fn issue_as(side: &Side, name: &str, peer: &str, mbps: u32) -> (String, String) {
    let issued = side.ask(Method::POST, CONNECTIONS).json(&order(name, peer, mbps)).go(StatusCode::ACCEPTED).await;
    assert_eq!((&issued.body["kind"], &issued.body["state"]), (&json!("COORDINATED"), &json!("PENDING")));
    assert_eq!(issued.body["stateReason"]["code"], "waitingForActivationKey");
    let key = issued.body["activationKey"].as_str().unwrap().to_owned();
    (key, issued.header("location").to_owned())
}

/// Issues a key under a name that follows from the bandwidth and from how many there are.
pub(super) async fn issue(side: &Side, peer: &str, mbps: u32) -> (String, String) {
    let there = side.get(CONNECTIONS).await["connections"].as_array().unwrap().len();
    issue_as(side, &format!("issued-{there}"), peer, mbps).await
}

pub(super) async fn accept(side: &Side, key: &str) -> String {
    let there = side.get(CONNECTIONS).await["connections"].as_array().unwrap().len();
    let body = json!({"activationKey": key, "name": format!("accepted-{there}")});
    let accepted = side.ask(Method::POST, ACCEPT).json(&body).go(StatusCode::ACCEPTED).await;
    assert_eq!((&accepted.body["kind"], &accepted.body["state"]), (&json!("COORDINATED"), &json!("PROVISIONING")));
    assert!(accepted.body.get("activationKey").is_none());
    accepted.header("location").to_owned()
}

/// Whether every channel of a connection is agreed on both sides.
pub(super) fn is_agreed(connection: &Value) -> bool {
    let Some([placement]) = connection["placements"].as_array().map(Vec::as_slice) else { return false };
    placement["channels"].as_array().is_some_and(|channels| channels.len() == 4)
}

/// What both sides must say alike of a connection, each of which calls its own side a.
pub(super) fn agreed(connection: &Value, swapped: bool) -> Value {
    let (a, b) = if swapped { ("b", "a") } else { ("a", "b") };
    let of = |channel: &Value| {
        let side = |side: &str| {
            ["vlanId", "mtuBytes", "ipv4Subnet", "hostIpv4", "peerIpv4", "asn"]
                .map(|f| channel[side][f].clone())
                .to_vec()
        };
        json!([channel["channelId"], side(a), side(b)])
    };
    let placement = &connection["placements"][0];
    let channels: Vec<_> = placement["channels"].as_array().unwrap().iter().map(of).collect();
    let interconnect = placement["interconnectId"].as_str().unwrap().split_once('.').unwrap().1;
    json!([connection["sharedConnectionUuid"], connection["bandwidthMbps"], interconnect, channels])
}

pub(super) async fn delete(side: &Side, at: &str) -> Answer {
    let tag = side.ask(Method::GET, at).go(StatusCode::OK).await.header("etag").to_owned();
    side.ask(Method::DELETE, at).header("if-match", tag).go(StatusCode::ACCEPTED).await
}

pub(super) async fn until_gone(side: &Side, at: &str) {
    side.until(at, |body| body["status"] == 404).await;
}

/// How an operation ended.
pub(super) async fn ended(side: &Side, operation: &str) -> Value {
    let is_final = |body: &Value| !matches!(body["state"].as_str(), Some("RUNNING" | "WAITING"));
    side.until(operation, is_final).await
}

async fn brought_and_deleted(pair: &Pair, issuer: &Side, bringer: &Side, deleter: &Side) {
    let (key, at_issuer) = issue(issuer, bringer.id, 5_000).await;
    let shared = issuer.get(&at_issuer).await["sharedConnectionUuid"].clone();
    let decoded = bringer.ask(Method::POST, "/v1/activationKeys:decode").json(&json!({"activationKey": key}));
    let decoded = decoded.go(StatusCode::OK).await.body;
    assert_eq!(decoded["provider"], issuer.id);
    assert_eq!(decoded["environmentId"], format!("{}.e1", issuer.id));
    assert_eq!(decoded["sharedConnectionUuid"], shared);
    assert_eq!(decoded["forThisProject"], true);
    let at_bringer = accept(bringer, &key).await;
    let (ours, theirs) = tokio::join!(bringer.until(&at_bringer, is_agreed), issuer.until(&at_issuer, is_agreed));
    assert_eq!(agreed(&ours, false), agreed(&theirs, true));
    // The highest MTU that both take; the first VLAN that is free.
    assert_eq!(ours["placements"][0]["channels"][0]["a"]["mtuBytes"], 8_500);
    assert_eq!(ours["effective"]["mtuBytes"], 8_500);
    let channels = ours["placements"][0]["channels"].as_array().unwrap();
    assert!(channels.iter().all(|c| c["a"]["vlanId"].as_u64() >= Some(1_025)));
    assert_eq!(ours["placements"][0]["role"], "CURRENT");
    let name = ours["placements"][0]["name"].as_str().unwrap();
    assert!(name.starts_with(&format!("providers/{}/environments/e1/interconnects/", issuer.id)), "{name}");
    // A key is good once.
    let again = json!({"activationKey": key, "name": "again"});
    bringer.ask(Method::POST, ACCEPT).json(&again).go(StatusCode::CONFLICT).await;
    let (at, other) = if deleter.id == bringer.id { (&at_bringer, &at_issuer) } else { (&at_issuer, &at_bringer) };
    let asked = delete(deleter, at).await;
    assert_eq!(asked.body["state"], "DELETING");
    let far = if deleter.id == bringer.id { issuer } else { bringer };
    tokio::join!(pair.north.until_empty("south"), pair.south.until_empty("north"));
    tokio::join!(until_gone(deleter, at), until_gone(far, other));
    assert_eq!(ended(deleter, asked.header("operation-location")).await["state"], "SUCCEEDED");
    for side in [&pair.north, &pair.south] {
        assert_eq!(side.get(CONNECTIONS).await["connections"], json!([]));
    }
    // Nor does it make another one when it is gone.
    bringer.ask(Method::POST, ACCEPT).json(&again).go(StatusCode::CONFLICT).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_becomes_a_connection_on_both_sides_and_nothing_is_left() {
    let pair = Pair::start().await;
    brought_and_deleted(&pair, &pair.north, &pair.south, &pair.south).await;
    brought_and_deleted(&pair, &pair.south, &pair.north, &pair.south).await;
    held_is_nothing(&pair).await;
    pair.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_other_database_pairs_as_well() {
    let (Some(one), Some(other)) = (Backing::postgres(), Backing::postgres()) else { return };
    let pair = Pair::start_with([one, other], |_| {}).await;
    brought_and_deleted(&pair, &pair.north, &pair.south, &pair.north).await;
    pair.end().await;
}

/// Room, VLANs and subnets are free again: as much fits as on the first day.
async fn held_is_nothing(pair: &Pair) {
    for _ in 0..2 {
        let (key, _) = issue(&pair.north, "south", 10_000).await;
        accept(&pair.south, &key).await;
    }
    let rows = pair.south.store.book(&"north".parse::<ResourceId>().unwrap(), None).await.unwrap().rows;
    let interconnects: Vec<_> = rows.iter().map(|row| row.row.place.interconnect.as_str()).collect();
    assert_eq!(interconnects, ["i1", "i2"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_in_the_middle_goes_on() {
    let Pair { north, mut south, ca } = Pair::start().await;
    let (key, at_north) = issue(&north, "south", 1_000).await;
    let at_south = accept(&south, &key).await;
    // Wherever it was: the answers that were on their way are lost.
    for _ in 0..3 {
        let listen = south.config.listen;
        let (backing, config) = south.end().await;
        let listener = tokio::net::TcpListener::bind(listen).await.unwrap();
        south = Side::start("south", backing, config, listener).await;
    }
    let (ours, theirs) = tokio::join!(south.until(&at_south, is_agreed), north.until(&at_north, is_agreed));
    assert_eq!(agreed(&ours, false), agreed(&theirs, true));
    delete(&north, &at_north).await;
    tokio::join!(north.until_empty("south"), south.until_empty("north"));
    tokio::join!(until_gone(&north, &at_north), until_gone(&south, &at_south));
    Pair { north, south, ca }.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_not_good_makes_nothing() {
    let pair = Pair::start().await;
    // Taken back before it was brought: the other side asks, drops what it made, and says so until its user has seen it.
    let (key, at_north) = issue(&pair.north, "south", 1_000).await;
    delete(&pair.north, &at_north).await;
    until_gone(&pair.north, &at_north).await;
    let body = json!({"activationKey": key, "name": "late"});
    let accepted = pair.south.ask(Method::POST, ACCEPT).json(&body).go(StatusCode::ACCEPTED).await;
    let operation = ended(&pair.south, accepted.header("operation-location")).await;
    assert_eq!(operation["state"], "FAILED", "{operation}");
    assert!(!operation["problem"]["remediation"].as_str().unwrap().is_empty());
    let at_south = accepted.header("location");
    let left = pair.south.until(at_south, |body| body["state"] == "ACTION_REQUIRED").await;
    assert_eq!(left["stateReason"]["code"], "activationKeyInvalid");
    let about = |issues: &Value| issues["issues"][0]["about"][0] == at_south && issues["issues"][0]["state"] == "OPEN";
    pair.south.until("/v1/issues", about).await;
    pair.south.until_empty("north").await;
    assert!(pair.north.store.book(&"south".parse().unwrap(), None).await.unwrap().rows.is_empty());
    delete(&pair.south, at_south).await;
    until_gone(&pair.south, at_south).await;
    assert_eq!(pair.south.get("/v1/issues").await["issues"][0]["state"], "RESOLVED");
    let refused = |text: &str| {
        let body = json!({"activationKey": text, "name": "bad"});
        pair.south.ask(Method::POST, ACCEPT).json(&body)
    };
    let altered = key.replace(&key[key.len() - 12..], "");
    for bad in ["not a key", "e30=", &altered] {
        assert_eq!(refused(bad).go(StatusCode::BAD_REQUEST).await.pointers(), ["/activationKey"], "{bad}");
    }
    // Another project's.
    let mut another = order("another", "south", 1_000);
    another["b"]["remoteAccountId"] = json!("another");
    let issued = pair.north.ask(Method::POST, CONNECTIONS).json(&another).go(StatusCode::ACCEPTED).await.body;
    refused(issued["activationKey"].as_str().unwrap()).go(StatusCode::BAD_REQUEST).await;
    pair.end().await;
}

/// Both sides sell the last room at the same time: one is refused and finds room elsewhere, or nobody has room and one goes.
#[tokio::test(flavor = "multi_thread")]
async fn two_sides_that_create_at_once_never_oversell() {
    let pair = Pair::start().await;
    let (from_north, from_south) =
        tokio::join!(issue(&pair.north, "south", 10_000), issue(&pair.south, "north", 10_000));
    let (at_south, at_north) = tokio::join!(accept(&pair.south, &from_north.0), accept(&pair.north, &from_south.0));
    let mut placed = Vec::new();
    for (south, north) in [(&at_south, &from_north.1), (&from_south.1, &at_north)] {
        let (ours, theirs) = tokio::join!(pair.south.until(south, is_agreed), pair.north.until(north, is_agreed));
        assert_eq!(agreed(&ours, false), agreed(&theirs, true));
        placed.push(ours["placements"][0]["interconnectId"].clone());
    }
    assert_ne!(placed[0], placed[1], "each interconnect has room for one");
    pair.end().await;
}
