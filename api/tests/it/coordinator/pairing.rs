//! A customer's key from one installation to the other, until both know the same; and the end of it.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tieline_api::store::Books;
use tieline_openapi::coordinator::ResourceId;

use super::fixture::{Pair, Side};
use crate::http::fixture::{Backing, Go};

const CONNECTIONS: &str = "/v1/coordinatedConnections";

/// Issues a key at one side.
pub(super) async fn issue(side: &Side, peer: &str, mbps: u32) -> (String, String) {
    let wanted = json!({"provider": peer, "environmentId": "e1", "bandwidthMbps": mbps, "remoteAccountId": "default"});
    let issued = side.ask(Method::POST, CONNECTIONS).json(&wanted).go(StatusCode::CREATED).await.body;
    let connection = &issued["coordinatedConnection"];
    assert_eq!(connection["state"], "PENDING");
    (issued["activationKey"].as_str().unwrap().to_owned(), connection["id"].as_str().unwrap().to_owned())
}

/// Whether every channel of a connection is agreed on both sides.
fn is_agreed(connection: &Value) -> bool {
    let Some([placement]) = connection["placements"].as_array().map(Vec::as_slice) else { return false };
    let channels = placement["channels"].as_array().unwrap();
    channels.len() == 4 && channels.iter().all(|channel| channel["remoteProvisioningState"] == "PENDING")
}

/// What both sides must say alike of a connection.
fn agreed(connection: &Value) -> Value {
    let of = |channel: &Value| {
        let fields = ["channelId", "featureId", "vlanId", "mtuBytes", "ipv4Subnet", "asns", "hostsIpv4"];
        fields.map(|field| channel[field].clone()).to_vec()
    };
    let placement = &connection["placements"][0];
    let channels: Vec<_> = placement["channels"].as_array().unwrap().iter().map(of).collect();
    json!([connection["id"], connection["bandwidthMbps"], placement["interconnectId"], channels])
}

pub(super) async fn accept(side: &Side, key: &str) -> String {
    let accepted = side.ask(Method::POST, "/v1/activationKeys:accept").json(&json!({"activationKey": key}));
    let accepted = accepted.go(StatusCode::ACCEPTED).await.body;
    assert_eq!(accepted["state"], "PROVISIONING");
    accepted["id"].as_str().unwrap().to_owned()
}

pub(super) async fn brought_and_deleted(pair: &Pair, issuer: &Side, bringer: &Side, deleter: &Side) {
    let (key, id) = issue(issuer, bringer.id, 5_000).await;
    let decoded = bringer.ask(Method::POST, "/v1/activationKeys:decode").json(&json!({"activationKey": key}));
    let decoded = decoded.go(StatusCode::OK).await.body;
    assert_eq!(decoded["provider"], issuer.id);
    assert_eq!(decoded["sharedConnectionUuid"], id.as_str());
    assert_eq!(decoded["forThisProject"], true);
    assert_eq!(accept(bringer, &key).await, id);
    let one = format!("{CONNECTIONS}/{id}");
    let (ours, theirs) = tokio::join!(bringer.until(&one, is_agreed), issuer.until(&one, is_agreed));
    assert_eq!(agreed(&ours), agreed(&theirs));
    // The highest MTU that both take; the first VLAN that is free.
    assert_eq!(ours["placements"][0]["channels"][0]["mtuBytes"], 8_500);
    assert!(ours["placements"][0]["channels"].as_array().unwrap().iter().all(|c| c["vlanId"].as_u64() >= Some(1_025)));
    // A key is good once.
    let again = bringer.ask(Method::POST, "/v1/activationKeys:accept").json(&json!({"activationKey": key}));
    again.go(StatusCode::CONFLICT).await;
    deleter.ask(Method::DELETE, &one).go(StatusCode::ACCEPTED).await;
    tokio::join!(pair.north.until_empty("south"), pair.south.until_empty("north"));
    for side in [&pair.north, &pair.south] {
        side.ask(Method::GET, &one).go(StatusCode::NOT_FOUND).await;
        assert_eq!(side.get(CONNECTIONS).await["coordinatedConnections"], json!([]));
    }
    // Nor does it make another one when it is gone.
    bringer
        .ask(Method::POST, "/v1/activationKeys:accept")
        .json(&json!({"activationKey": key}))
        .go(StatusCode::CONFLICT)
        .await;
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
    let (key, id) = issue(&north, "south", 1_000).await;
    accept(&south, &key).await;
    // Wherever it was: the answers that were on their way are lost.
    for _ in 0..3 {
        let listen = south.config.listen;
        let (backing, config) = south.end().await;
        let listener = tokio::net::TcpListener::bind(listen).await.unwrap();
        south = Side::start("south", backing, config, listener).await;
    }
    let one = format!("{CONNECTIONS}/{id}");
    let (ours, theirs) = tokio::join!(south.until(&one, is_agreed), north.until(&one, is_agreed));
    assert_eq!(agreed(&ours), agreed(&theirs));
    north.ask(Method::DELETE, &one).go(StatusCode::ACCEPTED).await;
    tokio::join!(north.until_empty("south"), south.until_empty("north"));
    Pair { north, south, ca }.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_not_good_makes_nothing() {
    let pair = Pair::start().await;
    // Taken back before it was brought: the other side asks, and drops what it made.
    let (key, id) = issue(&pair.north, "south", 1_000).await;
    pair.north.ask(Method::DELETE, &format!("{CONNECTIONS}/{id}")).go(StatusCode::ACCEPTED).await;
    accept(&pair.south, &key).await;
    pair.south.until_empty("north").await;
    assert!(pair.north.store.book(&"south".parse().unwrap(), None).await.unwrap().rows.is_empty());
    let refused = |body: Value| pair.south.ask(Method::POST, "/v1/activationKeys:accept").json(&body);
    let altered = key.replace(&key[key.len() - 12..], "");
    for bad in ["not a key", "e30=", &altered] {
        let answer = refused(json!({"activationKey": bad})).go(StatusCode::BAD_REQUEST).await;
        assert_eq!(answer.pointers(), ["/activationKey"], "{bad}");
    }
    // Another project's.
    let wanted =
        json!({"provider": "south", "environmentId": "e1", "bandwidthMbps": 1000, "remoteAccountId": "another"});
    let issued = pair.north.ask(Method::POST, CONNECTIONS).json(&wanted).go(StatusCode::CREATED).await.body;
    refused(json!({"activationKey": issued["activationKey"]})).go(StatusCode::BAD_REQUEST).await;
    // What cannot be is refused before anybody is asked.
    for (field, value) in [("provider", json!("east")), ("environmentId", json!("?"))] {
        let mut wanted = wanted.clone();
        wanted[field] = value;
        let answer = pair.north.ask(Method::POST, CONNECTIONS).json(&wanted).go(StatusCode::BAD_REQUEST).await;
        assert_eq!(answer.pointers(), [format!("/{field}")]);
    }
    for (field, value) in [("environmentId", json!("e9")), ("bandwidthMbps", json!(7))] {
        let mut wanted = wanted.clone();
        wanted[field] = value;
        pair.north.ask(Method::POST, CONNECTIONS).json(&wanted).go(StatusCode::CONFLICT).await;
    }
    pair.end().await;
}

/// Both sides sell the last room at the same time: one is refused and finds room elsewhere, or nobody has room and one goes.
#[tokio::test(flavor = "multi_thread")]
async fn two_sides_that_create_at_once_never_oversell() {
    let pair = Pair::start().await;
    let (from_north, from_south) =
        tokio::join!(issue(&pair.north, "south", 10_000), issue(&pair.south, "north", 10_000));
    tokio::join!(accept(&pair.south, &from_north.0), accept(&pair.north, &from_south.0));
    for id in [&from_north.1, &from_south.1] {
        let one = format!("{CONNECTIONS}/{id}");
        let (ours, theirs) = tokio::join!(pair.south.until(&one, is_agreed), pair.north.until(&one, is_agreed));
        assert_eq!(agreed(&ours), agreed(&theirs));
    }
    let placed = |connection: Value| connection["placements"][0]["interconnectId"].clone();
    let one = placed(pair.north.get(&format!("{CONNECTIONS}/{}", from_north.1)).await);
    let other = placed(pair.north.get(&format!("{CONNECTIONS}/{}", from_south.1)).await);
    assert_ne!(one, other, "each interconnect has room for one");
    pair.end().await;
}
