//! Connections with a peer as users see them: the same requests, answers, operations and events as any other connection's.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tieline_api::store::Books;

use super::{
    fixture::{Pair, Side},
    pairing::{ACCEPT, CONNECTIONS, accept, agreed, delete, ended, is_agreed, issue, issue_as, order, until_gone},
};
use crate::http::fixture::{Answer, Go};

pub(super) async fn patch(side: &Side, at: &str, patch: Value) -> Answer {
    let tag = side.ask(Method::GET, at).go(StatusCode::OK).await.header("etag").to_owned();
    side.ask(Method::PATCH, at).header("if-match", tag).json(&patch).answer().await
}

/// A connection that both sides agree on: where it is in the north, and in the south.
async fn connected(pair: &Pair, mbps: u32) -> (String, String) {
    let (key, at_north) = issue(&pair.north, "south", mbps).await;
    let at_south = accept(&pair.south, &key).await;
    tokio::join!(pair.south.until(&at_south, is_agreed), pair.north.until(&at_north, is_agreed));
    (at_north, at_south)
}

fn has(mbps: u32) -> impl Fn(&Value) -> bool {
    move |connection| {
        let channels = connection["placements"][0]["channels"].as_array();
        channels.is_some_and(|all| !all.is_empty() && all.iter().all(|c| c["bandwidthMbps"] == mbps))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_shared_is_listed_beside_what_is_ours() {
    let pair = Pair::start().await;
    let shared = pair.north.get("/v1/environments/south.e1").await;
    assert_eq!(shared["kind"], "COORDINATED");
    assert_eq!(shared["bandwidthsMbps"], json!([1_000, 5_000, 10_000]));
    assert_eq!(shared["sites"][0]["provider"], "north");
    assert_eq!((&shared["sites"][1]["provider"], &shared["sites"][1]["site"]), (&json!("south"), &json!("south-1")));
    let all = pair.north.get("/v1/environments?pageSize=100").await;
    let ids: Vec<_> = all["environments"].as_array().unwrap().iter().map(|e| e["id"].as_str().unwrap()).collect();
    assert!(ids.contains(&"south.e1") && ids.contains(&"left-right"), "{ids:?}");
    let interconnect = pair.north.get("/v1/interconnects/south.e1.i1").await;
    assert_eq!((&interconnect["environmentId"], &interconnect["state"]), (&json!("south.e1"), &json!("ACTIVE")));
    assert_eq!(interconnect["channels"][0]["a"]["device"], "north-i1-1");
    assert_eq!(interconnect["channels"][0]["b"], Value::Null);
    assert_eq!(pair.north.get("/v1/interconnects/ic").await["channels"][0]["b"]["portId"], "port-r1");
    // The filters know them.
    let (_, at) = issue(&pair.north, "south", 1_000).await;
    let pending = pair.north.get("/v1/connections?environmentId=south.e1&state=PENDING").await;
    assert_eq!(at, format!("{CONNECTIONS}/{}", pending["connections"][0]["id"].as_str().unwrap()));
    assert_eq!(pair.north.get("/v1/connections?state=ACTIVE").await["connections"], json!([]));
    pair.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_key_is_told_once() {
    let pair = Pair::start().await;
    let create = || {
        let request = pair.north.ask(Method::POST, CONNECTIONS).header("idempotency-key", "one");
        request.json(&order("one", "south", 1_000))
    };
    let first = create().go(StatusCode::ACCEPTED).await;
    let key = first.body["activationKey"].as_str().unwrap().to_owned();
    let again = create().go(StatusCode::ACCEPTED).await;
    assert_eq!(again.header("idempotent-replayed"), "true");
    assert_eq!(again.body["id"], first.body["id"]);
    assert!(again.body.get("activationKey").is_none());
    let at = first.header("location");
    assert!(pair.north.get(at).await.get("activationKey").is_none());
    let other = pair.north.ask(Method::POST, CONNECTIONS).header("idempotency-key", "one");
    other.json(&order("two", "south", 1_000)).go(StatusCode::UNPROCESSABLE_ENTITY).await;
    // Nothing of it is at rest.
    let folder = pair.north.backing.folder();
    for file in ["tieline.db", "tieline.db-wal"] {
        let bytes = std::fs::read(folder.join(file)).unwrap_or_default();
        assert!(!bytes.windows(key.len()).any(|window| window == key.as_bytes()), "{file} holds the key");
    }
    // The name is taken, and its holder is told.
    let taken = pair.north.ask(Method::POST, CONNECTIONS).json(&order("one", "south", 1_000));
    assert_eq!(taken.go(StatusCode::CONFLICT).await.body["holder"], first.body["id"]);
    // One key makes one connection, however often it is brought.
    let accept = |name: &str, key: &str, idempotency: &str| {
        let request = pair.south.ask(Method::POST, ACCEPT).header("idempotency-key", idempotency.to_owned());
        request.json(&json!({"activationKey": key, "name": name, "labels": {"team": "net"}, "description": "d"}))
    };
    let brought = accept("brought", &key, "a").go(StatusCode::ACCEPTED).await;
    assert_eq!(brought.body["labels"], json!({"team": "net"}));
    assert_eq!(accept("brought", &key, "a").go(StatusCode::ACCEPTED).await.header("idempotent-replayed"), "true");
    accept("other", &key, "b").go(StatusCode::CONFLICT).await;
    pair.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_is_told_by_its_field() {
    let pair = Pair::start().await;
    let ask = |body: &Value, path: &str| pair.north.ask(Method::POST, path).json(body);
    let good = order("good", "south", 1_000);
    // (where, what, the pointer)
    let cases = [
        ("/environmentId", json!("south.e9"), "/environmentId"),
        ("/bandwidthMbps", json!(7), "/bandwidthMbps"),
        ("/b", json!({}), "/b/remoteAccountId"),
        ("/b", json!({"remoteAccountId": "with space"}), "/b/remoteAccountId"),
        ("/b", json!({"remoteAccountId": "x", "attachPointId": "router-r"}), "/b/attachPointId"),
        ("/a", json!({"attachPointId": "nowhere"}), "/a/attachPointId"),
        ("/a", json!({"remoteAccountId": "x"}), "/a/remoteAccountId"),
        ("/wanted", json!({"vlanId": 1_030}), "/wanted/vlanId"),
        ("/families", json!(["IPV4", "IPV6"]), "/families"),
        ("/routing", json!({"mode": "ACTIVE_STANDBY"}), "/routing/mode"),
        ("/a", json!({"advertisedPrefixes": ["127.0.0.0/8"]}), "/a/advertisedPrefixes/0"),
    ];
    for (at, value, pointer) in cases {
        let mut body = good.clone();
        *body.pointer_mut(at).unwrap_or(&mut Value::Null) = value.clone();
        if let Value::Object(members) = &mut body {
            members.insert(at[1..].to_owned(), value);
        }
        let answer = ask(&body, CONNECTIONS).answer().await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{at} {}", answer.text);
        assert_eq!(answer.pointers(), [pointer], "{}", answer.text);
        // A plan says it too, and nothing is written.
        if answer.body["code"] == "unsatisfiable" {
            let plan = ask(&body, "/v1/connections?dryRun=true").go(StatusCode::OK).await.body;
            assert_eq!(plan["applicable"], false);
            let found = plan["findings"].as_array().unwrap().iter();
            assert!(found.clone().any(|f| f["pointer"] == pointer && f["severity"] == "ERROR"), "{plan}");
        }
    }
    // Between our own accounts nothing of a peer's is taken.
    let mut direct = crate::http::fixture::intent("direct");
    direct["b"]["remoteAccountId"] = json!("x");
    assert_eq!(ask(&direct, CONNECTIONS).go(StatusCode::BAD_REQUEST).await.pointers(), ["/b/remoteAccountId"]);
    direct["b"] = json!({"advertisedPrefixes": []});
    assert_eq!(ask(&direct, CONNECTIONS).go(StatusCode::BAD_REQUEST).await.pointers(), ["/b/attachPointId"]);
    assert_eq!(pair.north.get(CONNECTIONS).await["connections"], json!([]));
    pair.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn prefixes_are_compared_in_the_network_that_they_are_for() {
    let pair = Pair::start().await;
    let with = |name: &str, point: &str, theirs: &str| {
        let mut body = order(name, "south", 1_000);
        body["a"] = json!({"attachPointId": point, "advertisedPrefixes": ["10.1.0.0/16"]});
        body["b"]["advertisedPrefixes"] = json!([theirs]);
        pair.north.ask(Method::POST, CONNECTIONS).json(&body)
    };
    with("one", "router-l", "192.168.0.0/16").go(StatusCode::ACCEPTED).await;
    // The same, from the same peer: another link to the same place. From elsewhere it would lead to two places.
    with("two", "router-l", "192.168.0.0/16").go(StatusCode::ACCEPTED).await;
    let mut direct = crate::http::fixture::intent("direct");
    direct["b"]["advertisedPrefixes"] = json!(["192.168.1.0/24"]);
    direct["a"]["advertisedPrefixes"] = json!(["10.9.0.0/16"]);
    let refused = pair.north.ask(Method::POST, CONNECTIONS).json(&direct).go(StatusCode::BAD_REQUEST).await;
    assert_eq!(refused.pointers(), ["/b/advertisedPrefixes/0"], "{}", refused.text);
    assert!(refused.text.contains("south.e1"), "{}", refused.text);
    pair.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_is_asked_of_the_peer_and_ends() {
    let pair = Pair::start().await;
    let (at_north, at_south) = connected(&pair, 5_000).await;
    // What is only ours.
    let named = patch(&pair.south, &at_south, json!({"name": "renamed", "labels": {"a": "b"}})).await;
    assert_eq!((named.status, &named.body["generation"]), (StatusCode::ACCEPTED, &json!(2)), "{}", named.text);
    assert_eq!(ended(&pair.south, named.header("operation-location")).await["state"], "SUCCEEDED");
    let stale = pair.south.ask(Method::PATCH, &at_south).header("if-match", "\"g1\"").json(&json!({"name": "x"}));
    stale.go(StatusCode::PRECONDITION_FAILED).await;
    pair.south.ask(Method::PATCH, &at_south).json(&json!({"name": "x"})).go(StatusCode::PRECONDITION_REQUIRED).await;
    // Another bandwidth is both providers'.
    let resized = patch(&pair.south, &at_south, json!({"bandwidthMbps": 10_000})).await;
    assert_eq!(resized.status, StatusCode::ACCEPTED, "{}", resized.text);
    let operation = ended(&pair.south, resized.header("operation-location")).await;
    assert_eq!((&operation["kind"], &operation["state"]), (&json!("UPDATE"), &json!("SUCCEEDED")), "{operation}");
    tokio::join!(pair.south.until(&at_south, has(10_000)), pair.north.until(&at_north, has(10_000)));
    let in_sync = |connection: &Value| {
        let all = connection["conditions"].as_array().unwrap();
        all.iter().any(|c| c["type"] == "InSync" && c["status"] == "TRUE")
    };
    assert!(in_sync(&pair.south.get(&at_south).await));
    // Where it was not asked for, it shows: the intent is its user's.
    let north = pair.north.get(&at_north).await;
    assert_eq!((&north["bandwidthMbps"], in_sync(&north)), (&json!(5_000), false));
    let agree = patch(&pair.north, &at_north, json!({"bandwidthMbps": 10_000})).await;
    assert_eq!(ended(&pair.north, agree.header("operation-location")).await["state"], "SUCCEEDED");
    assert!(in_sync(&pair.north.get(&at_north).await));
    let unsold = patch(&pair.south, &at_south, json!({"bandwidthMbps": 7})).await;
    assert_eq!((unsold.status, unsold.pointers()), (StatusCode::BAD_REQUEST, vec!["/bandwidthMbps"]));
    let fixed = patch(&pair.south, &at_south, json!({"environmentId": "left-right"})).await;
    assert_eq!((fixed.status, fixed.pointers()), (StatusCode::BAD_REQUEST, vec!["/environmentId"]));
    pair.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_move_is_planned_and_goes_where_it_is_told() {
    let pair = Pair::start().await;
    let (_, at) = connected(&pair, 1_000).await;
    let side = &pair.south;
    let now = side.get(&at).await["placements"][0]["interconnectId"].as_str().unwrap().to_owned();
    let to = if now.ends_with(".i1") { now.replace(".i1", ".i2") } else { "north.e1.i1".to_owned() };
    let ask = |to: &str, dry: bool| {
        let path = format!("{at}:migrate{}", if dry { "?dryRun=true" } else { "" });
        side.ask(Method::POST, &path).header("if-match", "*").json(&json!({"interconnectId": to}))
    };
    for wrong in [now.as_str(), "north.e1.nowhere"] {
        for dry in [true, false] {
            let no = ask(wrong, dry).answer().await;
            assert_eq!((no.status, no.pointers()), (StatusCode::BAD_REQUEST, vec!["/interconnectId"]), "{wrong}");
        }
    }
    let plan = ask(&to, true).go(StatusCode::OK).await.body;
    assert_eq!((&plan["action"], &plan["applicable"]), (&json!("MIGRATE"), &json!(true)), "{plan}");
    let steps: Vec<(&str, &str, &str)> = plan["steps"]
        .as_array()
        .unwrap()
        .iter()
        .map(|step| ["end", "verb", "resourceType"].map(|field| step[field].as_str().unwrap()).into())
        .collect();
    assert_eq!(steps.first(), Some(&("b", "CREATE", "connection")), "{plan}");
    let at_peer: Vec<_> = steps.iter().filter(|(end, ..)| *end == "b").collect();
    assert_eq!(at_peer.last(), Some(&&("b", "DELETE", "connection")), "{plan}");
    assert_eq!(steps.iter().filter(|step| **step == ("b", "CREATE", "feature")).count(), 4);
    assert_eq!(plan["steps"][0]["channelId"], Value::Null);
    // The same plan, saved. Where it may be any interconnect, the plan says which.
    let id = at.rsplit('/').next().unwrap();
    let save = |wish: Value| side.ask(Method::POST, "/v1/plans").json(&wish);
    let unsaved = save(json!({"connectionId": id, "migrate": {"interconnectId": now}})).answer().await;
    assert_eq!((unsaved.status, unsaved.pointers()), (StatusCode::BAD_REQUEST, vec!["/migrate/interconnectId"]));
    let both = save(json!({"connectionId": id, "migrate": {}, "delete": true})).answer().await;
    assert_eq!((both.status, both.pointers()), (StatusCode::BAD_REQUEST, vec!["/delete"]));
    let kept = save(json!({"connectionId": id, "migrate": {}})).go(StatusCode::CREATED).await;
    assert_eq!(kept.body["steps"], plan["steps"], "there is one other interconnect");
    let stale = save(json!({"connectionId": id, "migrate": {"interconnectId": to}})).go(StatusCode::CREATED).await;
    assert_eq!(side.get(&at).await["placements"].as_array().unwrap().len(), 1, "a plan does nothing");
    let apply = |kept: &str, dry: &str| side.ask(Method::POST, &format!("{kept}:apply{dry}"));
    apply(kept.header("location"), "?dryRun=true").go(StatusCode::OK).await;
    let moving = apply(kept.header("location"), "").go(StatusCode::ACCEPTED).await;
    assert_eq!(side.get(moving.header("operation-location")).await["kind"], "MIGRATE");
    let moved = apply(stale.header("location"), "").answer().await;
    assert_eq!((moved.status, moved.pointers()), (StatusCode::PRECONDITION_FAILED, vec!["/baseGeneration"]));
    let goes = |connection: &Value| {
        connection["placements"].as_array().unwrap().iter().any(|placed| placed["interconnectId"] == json!(to))
    };
    side.until(&at, goes).await;
    // An end is planned as well, with what our routers are told first.
    let gone =
        side.ask(Method::DELETE, &format!("{at}?dryRun=true")).header("if-match", "*").go(StatusCode::OK).await.body;
    let told = gone["steps"].as_array().unwrap().iter().filter(|step| step["resourceType"] == "connection");
    assert!(told.into_iter().all(|step| step["verb"] == "DELETE"), "{gone}");
    pair.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_moves_is_at_two_places() {
    let pair = Pair::start().await;
    let (at_north, at_south) = connected(&pair, 1_000).await;
    let tag = pair.south.ask(Method::GET, &at_south).go(StatusCode::OK).await.header("etag").to_owned();
    let migrate =
        |tag: &str| pair.south.ask(Method::POST, &format!("{at_south}:migrate")).header("if-match", tag.to_owned());
    let moving = migrate(&tag).go(StatusCode::ACCEPTED).await;
    migrate(&tag).go(StatusCode::PRECONDITION_FAILED).await;
    migrate("*").go(StatusCode::CONFLICT).await;
    let two = |connection: &Value| {
        let placements = connection["placements"].as_array().unwrap();
        placements.len() == 2 && placements.iter().all(|p| p["channels"].as_array().unwrap().len() == 4)
    };
    for (side, at) in [(&pair.south, &at_south), (&pair.north, &at_north)] {
        let connection = side.until(at, two).await;
        let of = |field: &str| -> Vec<Value> {
            connection["placements"].as_array().unwrap().iter().map(|p| p[field].clone()).collect()
        };
        let mut roles = of("role");
        roles.sort_by_key(ToString::to_string);
        assert_eq!(roles, ["SOURCE", "TARGET"]);
        assert_ne!(of("name")[0], of("name")[1]);
        assert_ne!(of("interconnectId")[0], of("interconnectId")[1]);
    }
    let operation = pair.south.get(moving.header("operation-location")).await;
    assert_eq!((&operation["kind"], &operation["state"]), (&json!("MIGRATE"), &json!("RUNNING")));
    // Between two accounts of ours nothing moves.
    delete(&pair.south, &at_south).await;
    tokio::join!(until_gone(&pair.south, &at_south), until_gone(&pair.north, &at_north));
    pair.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_peer_deletes_goes_unless_it_is_protected() {
    let pair = Pair::start().await;
    let (at_north, at_south) = connected(&pair, 1_000).await;
    let (other_north, other_south) = connected(&pair, 1_000).await;
    let kept = patch(&pair.north, &at_north, json!({"deletionProtection": true})).await;
    assert_eq!(kept.status, StatusCode::ACCEPTED);
    delete(&pair.south, &at_south).await;
    delete(&pair.south, &other_south).await;
    tokio::join!(until_gone(&pair.south, &at_south), until_gone(&pair.south, &other_south));
    until_gone(&pair.north, &other_north).await;
    let stays = pair.north.until(&at_north, |body| body["state"] == "ACTION_REQUIRED").await;
    assert_eq!(stays["stateReason"]["code"], "deletedByPeer");
    // Who, and when, is in the events.
    let events = pair.north.get("/v1/events?pageSize=1000").await;
    let gone = events["events"].as_array().unwrap().iter().find(|e| e["type"] == "connection.deleted").unwrap();
    assert_eq!((gone["subject"].as_str(), &gone["cause"]), (Some(other_north.as_str()), &json!("coordinator/south")));
    assert_eq!(gone["data"]["reason"], "Peer");
    let of = format!("/v1/operations?connectionId={}", &other_north["/v1/connections/".len()..]);
    assert_eq!(pair.north.get(&of).await["operations"][0]["state"], "FAILED");
    pair.north.ask(Method::DELETE, &at_north).header("if-match", "*").go(StatusCode::CONFLICT).await;
    patch(&pair.north, &at_north, json!({"deletionProtection": false})).await;
    until_gone(&pair.north, &at_north).await;
    pair.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_is_kept_and_applied() {
    let pair = Pair::start().await;
    let request = json!({"intent": order("planned", "south", 1_000)});
    let plan = pair.north.ask(Method::POST, "/v1/plans").json(&request).go(StatusCode::CREATED).await.body;
    assert_eq!((&plan["applicable"], &plan["after"]["kind"]), (&json!(true), &json!("COORDINATED")), "{plan}");
    let says = |code: &str| plan["findings"].as_array().unwrap().iter().any(|f| f["code"] == code);
    assert!(says("peer-decides") && says("prefixes-not-compared"), "{plan}");
    let apply = format!("/v1/plans/{}:apply", plan["id"].as_str().unwrap());
    let applied = pair.north.ask(Method::POST, &apply).go(StatusCode::ACCEPTED).await;
    let key = applied.body["activationKey"].as_str().unwrap();
    let brought = json!({"activationKey": key, "name": "brought"});
    let dry = pair.south.ask(Method::POST, &format!("{ACCEPT}?dryRun=true")).json(&brought).go(StatusCode::OK).await;
    assert_eq!((dry.header("dry-run"), &dry.body["after"]["name"]), ("true", &json!("brought")), "{}", dry.text);
    assert_eq!(pair.south.get(CONNECTIONS).await["connections"], json!([]));
    let rows = pair.south.store.book(&"north".parse().unwrap(), None).await.unwrap().rows;
    assert!(rows.is_empty(), "a dry run wrote something");
    pair.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_asked_for_before_the_key_is_brought() {
    let pair = Pair::start().await;
    let (key, at) = issue_as(&pair.north, "early", "south", 1_000).await;
    let resized = patch(&pair.north, &at, json!({"bandwidthMbps": 5_000})).await;
    assert_eq!(resized.status, StatusCode::CONFLICT, "{}", resized.text);
    assert!(resized.text.contains("not brought"), "{}", resized.text);
    let named = patch(&pair.north, &at, json!({"description": "early"})).await;
    assert_eq!(ended(&pair.north, named.header("operation-location")).await["state"], "SUCCEEDED");
    let at_south = accept(&pair.south, &key).await;
    let (ours, theirs) = tokio::join!(pair.south.until(&at_south, is_agreed), pair.north.until(&at, is_agreed));
    assert_eq!(agreed(&ours, false), agreed(&theirs, true));
    assert_eq!(theirs["stateReason"]["code"], "waitingForBgp");
    pair.end().await;
}
