//! Headers of mutations: Idempotency-Key, If-Match, dryRun, wait; plans.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::fixture::{Answer, Backing, Go, Service, intent};

async fn count(service: &Service) -> usize {
    service.get("/v1/connections").await["connections"].as_array().unwrap().len()
}

async fn a_create_is_accepted_and_shown(backing: Backing) {
    let service = Service::start(backing).await;
    let made = service.create("one").await;
    let id = made.body["id"].as_str().unwrap();
    assert_eq!(made.header("location"), format!("/v1/connections/{id}"));
    let operation = made.body["lastOperationId"].as_str().unwrap();
    assert_eq!(made.header("operation-location"), format!("/v1/operations/{operation}"));
    assert_eq!(made.header("etag"), "\"g1\"");
    assert_eq!(made.body["state"], "PENDING");
    assert_eq!(made.body["placements"][0]["channels"].as_array().unwrap().len(), 2, "DUAL is the default");
    let shown = service.ask(Method::GET, made.header("location")).go(StatusCode::OK).await;
    assert_eq!(shown.header("etag"), "\"g1\"");
    assert_eq!(shown.body, made.body, "what is answered is what is stored");
    let shown = service.get(made.header("operation-location")).await;
    assert_eq!(shown["state"], "RUNNING");
    assert_eq!(shown["target"], id);
    let events = service.get("/v1/events").await;
    assert_eq!(events["events"][0]["type"], "connection.created");
    assert_eq!(events["events"][0]["subject"], format!("/v1/connections/{id}"));
    assert!(events["events"][0]["cause"].as_str().unwrap().starts_with("token:"));
    let taken = service.ask(Method::POST, "/v1/connections").json(&intent("one")).go(StatusCode::CONFLICT).await;
    assert_eq!(taken.body["holder"], id);
    assert!(!shown.to_string().contains("assword"));
    service.end().await;
}

async fn one_idempotency_key_has_one_effect(backing: Backing) {
    let service = Service::start(backing).await;
    let post = |key: &str, path: &str, body: &Value| {
        service.ask(Method::POST, path).header("idempotency-key", key.to_owned()).json(body)
    };
    let first = post("k1", "/v1/connections", &intent("one")).go(StatusCode::ACCEPTED).await;
    assert_eq!(first.header("idempotent-replayed"), "");
    let mut reordered = intent("one");
    let members = std::mem::take(reordered.as_object_mut().unwrap());
    let text: Vec<String> = members.iter().rev().map(|(key, value)| format!("{:?}: {value}", key)).collect();
    let again = service
        .ask(Method::POST, "/v1/connections?wait=1s")
        .header("idempotency-key", "k1")
        .header("content-type", "application/json")
        .body(format!("{{ {} }}", text.join(" , ")))
        .go(StatusCode::ACCEPTED)
        .await;
    assert_eq!(again.header("idempotent-replayed"), "true");
    assert_eq!(again.body, first.body);
    for name in ["location", "operation-location", "etag"] {
        assert_eq!(again.header(name), first.header(name), "{name}");
    }
    let other = post("k1", "/v1/connections", &intent("two")).go(StatusCode::UNPROCESSABLE_ENTITY).await;
    assert_eq!(other.body["code"], "idempotency-key-reused");
    // A dry run is another request, and writes nothing.
    post("k2", "/v1/connections?dryRun=true", &intent("two")).go(StatusCode::OK).await;
    let mut second = intent("two");
    second["a"]["advertisedPrefixes"] = json!(["10.1.0.0/16"]);
    second["b"]["advertisedPrefixes"] = json!(["172.17.0.0/16"]);
    post("k2", "/v1/connections", &second).go(StatusCode::ACCEPTED).await;
    // The key of one principal is nothing to another.
    let operator = service.token("op", "OPERATE").await;
    let theirs = service.ask_as(&operator, Method::POST, "/v1/connections").header("idempotency-key", "k1");
    theirs.json(&intent("one")).go(StatusCode::CONFLICT).await;
    for key in ["", "a b", &"x".repeat(256)] {
        let answer = post(key, "/v1/connections", &intent("three")).go(StatusCode::BAD_REQUEST).await;
        assert_eq!(answer.pointers(), ["Idempotency-Key"]);
    }
    assert_eq!(count(&service).await, 2);
    service.end().await;
}

async fn one_key_sent_twice_at_once_makes_one_connection(backing: Backing) {
    let service = Service::start(backing).await;
    let send = || {
        let request = service.ask(Method::POST, "/v1/connections").header("idempotency-key", "race");
        request.json(&intent("raced")).answer()
    };
    let answers: Vec<Answer> = futures::future::join_all((0..8).map(|_| send())).await;
    let location = answers[0].header("location").to_owned();
    for answer in &answers {
        assert_eq!(answer.status, StatusCode::ACCEPTED, "{}", answer.text);
        assert_eq!(answer.header("location"), location);
    }
    assert_eq!(answers.iter().filter(|answer| answer.header("idempotent-replayed") == "true").count(), 7);
    assert_eq!(count(&service).await, 1);
    service.end().await;
}

async fn creates_at_once_never_share_a_vlan_or_subnet(backing: Backing) {
    let service = Service::start(backing).await;
    let send = |n: usize| {
        let mut body = intent(&format!("c{n}"));
        body["a"]["advertisedPrefixes"] = json!([format!("10.{n}.0.0/16")]);
        body["b"]["advertisedPrefixes"] = json!([format!("172.16.{n}.0/24")]);
        service.ask(Method::POST, "/v1/connections").json(&body).answer()
    };
    let answers = futures::future::join_all((0..12).map(send)).await;
    let made: Vec<_> = answers.iter().filter(|answer| answer.status == StatusCode::ACCEPTED).collect();
    for answer in &answers {
        let busy = answer.status == StatusCode::SERVICE_UNAVAILABLE && answer.header("retry-after") == "1";
        assert!(answer.status == StatusCode::ACCEPTED || busy, "{}", answer.text);
    }
    assert!(made.len() >= 5, "at least one of each five tries wins");
    let mut vlans = std::collections::BTreeSet::new();
    for answer in &made {
        for channel in answer.body["placements"][0]["channels"].as_array().unwrap() {
            assert!(vlans.insert((channel["channelId"].to_string(), channel["a"]["vlanId"].to_string())));
        }
    }
    service.end().await;
}

async fn a_change_needs_the_generation_that_was_read(backing: Backing) {
    let service = Service::start(backing).await;
    let path = service.create("one").await.header("location").to_owned();
    let patch = |if_match: Option<&str>, body: Value| {
        let request = service.ask(Method::PATCH, &path).header("content-type", "application/merge-patch+json");
        let request = request.body(body.to_string());
        if let Some(tag) = if_match { request.header("if-match", tag.to_owned()) } else { request }
    };
    let body = json!({"description": "more"});
    assert_eq!(
        patch(None, body.clone()).go(StatusCode::PRECONDITION_REQUIRED).await.body["code"],
        "precondition-required"
    );
    for stale in ["\"g2\"", "W/\"g1\"", "\"x\"", "g1", ""] {
        patch(Some(stale), body.clone()).go(StatusCode::PRECONDITION_FAILED).await;
    }
    let changed = patch(Some("\"g7\", \"g1\""), body.clone()).go(StatusCode::ACCEPTED).await;
    assert_eq!(changed.header("etag"), "\"g2\"");
    assert_eq!(changed.body["generation"], 2);
    assert_eq!(changed.body["description"], "more");
    assert_eq!(service.get(&path).await, changed.body);
    let same = patch(Some("\"g2\""), body.clone()).go(StatusCode::ACCEPTED).await;
    assert_eq!(same.header("etag"), "\"g2\"", "a patch that changes nothing writes nothing");
    patch(Some("\"g1\""), body).go(StatusCode::PRECONDITION_FAILED).await;
    for (body, pointer) in [
        (json!({"state": "ACTIVE"}), "/state"),
        (json!({"environmentId": "other"}), "/environmentId"),
        (json!({"a": {"attachPointId": "router-r"}}), "/a/attachPointId"),
        (json!({"name": null}), "/name"),
        (json!([null]), ""),
        (json!({"a": {"advertisedPrefixes": ["10.0.0.1/8"]}}), "/a/advertisedPrefixes/0"),
    ] {
        let answer = patch(Some("*"), body).go(StatusCode::BAD_REQUEST).await;
        assert_eq!(answer.pointers(), [pointer], "{}", answer.text);
    }
    let wider = patch(Some("*"), json!({"a": {"advertisedPrefixes": ["10.0.0.0/16", "10.9.0.0/16"]}}));
    let wider = wider.go(StatusCode::ACCEPTED).await;
    assert_eq!(wider.header("etag"), "\"g3\"");
    let before = &changed.body["placements"][0]["channels"];
    let after = &wider.body["placements"][0]["channels"];
    assert_eq!(before[0]["a"]["vlanId"], after[0]["a"]["vlanId"], "a channel keeps its VLAN");
    let operations = service.get("/v1/operations").await;
    let states: Vec<&str> =
        operations["operations"].as_array().unwrap().iter().map(|o| o["state"].as_str().unwrap()).collect();
    assert_eq!(states, ["RUNNING", "SUPERSEDED", "SUPERSEDED"]);
    service.end().await;
}

async fn a_wish_for_another_vlan_makes_the_channels_anew(backing: Backing) {
    let service = Service::start(backing).await;
    let made = service.create("one").await;
    let patch = json!({"wanted": {"vlanId": 77}});
    let request = service.ask(Method::PATCH, made.header("location")).header("if-match", "*").json(&patch);
    let changed = request.go(StatusCode::ACCEPTED).await;
    for channel in changed.body["placements"][0]["channels"].as_array().unwrap() {
        assert_eq!(channel["a"]["vlanId"], 77);
        assert_eq!(channel["b"]["vlanId"], 77);
    }
    service.end().await;
}

async fn a_deletion_is_wanted_once(backing: Backing) {
    let service = Service::start(backing).await;
    let mut body = intent("one");
    body["deletionProtection"] = json!(true);
    let made = service.ask(Method::POST, "/v1/connections").json(&body).go(StatusCode::ACCEPTED).await;
    let path = made.header("location").to_owned();
    let delete = |tag: &str| service.ask(Method::DELETE, &path).header("if-match", tag.to_owned());
    service.ask(Method::DELETE, &path).go(StatusCode::PRECONDITION_REQUIRED).await;
    delete("\"g1\"").go(StatusCode::CONFLICT).await;
    let off = service.ask(Method::PATCH, &path).header("if-match", "*").json(&json!({"deletionProtection": false}));
    off.go(StatusCode::ACCEPTED).await;
    delete("\"g1\"").go(StatusCode::PRECONDITION_FAILED).await;
    let plan =
        service.ask(Method::DELETE, &format!("{path}?dryRun=true")).header("if-match", "*").go(StatusCode::OK).await;
    assert_eq!(plan.body["action"], "DELETE");
    assert_eq!(plan.body["steps"], json!([]), "nothing was built yet");
    let gone = delete("\"g2\"").go(StatusCode::ACCEPTED).await;
    assert_eq!(gone.body["state"], "DELETING");
    assert_eq!(gone.header("etag"), "\"g3\"");
    let again = delete("\"g3\"").go(StatusCode::ACCEPTED).await;
    assert_eq!(again.header("operation-location"), gone.header("operation-location"));
    let patch = service.ask(Method::PATCH, &path).header("if-match", "*").json(&json!({"description": "x"}));
    patch.go(StatusCode::CONFLICT).await;
    delete("*").json(&json!({"force": true})).go(StatusCode::BAD_REQUEST).await;
    service.end().await;
}

async fn a_dry_run_writes_nothing_and_tells_all(backing: Backing) {
    let service = Service::start(backing).await;
    let plan = service.ask(Method::POST, "/v1/connections?dryRun=true").json(&intent("one")).go(StatusCode::OK).await;
    assert_eq!(plan.header("dry-run"), "true");
    assert_eq!(plan.body["id"], Value::Null);
    assert_eq!(plan.body["action"], "CREATE");
    assert_eq!(plan.body["applicable"], true);
    let steps = plan.body["steps"].as_array().unwrap();
    let kinds: Vec<&str> = steps.iter().map(|step| step["resourceType"].as_str().unwrap()).collect();
    assert_eq!(kinds.len(), 6, "an attachment, a peer and an interface a channel: {kinds:?}");
    for (n, step) in steps.iter().enumerate() {
        assert_eq!(step["n"], n + 1);
        for earlier in step["after"].as_array().unwrap() {
            assert!(earlier.as_u64().unwrap() <= n as u64, "{step}");
        }
    }
    let interface = steps.iter().find(|step| step["resourceType"] == "fake.interface").unwrap();
    assert!(!interface["after"].as_array().unwrap().is_empty(), "it waits for the cloud that picks the addresses");
    let fields = interface["fields"].as_array().unwrap();
    let host = fields.iter().find(|field| field["pointer"] == "/host").unwrap();
    assert!(host["after"]["oneOf"].as_array().unwrap().len() >= 2, "{host}");
    let secret = fields.iter().find(|field| field["pointer"] == "/bgpPassword").unwrap();
    assert_eq!((&secret["sensitive"], &secret["after"]), (&json!(true), &Value::Null));
    assert_eq!(count(&service).await, 0);
    let mut impossible = intent("one");
    impossible["bandwidthMbps"] = json!(7000);
    let plan = service.ask(Method::POST, "/v1/connections?dryRun=true").json(&impossible).go(StatusCode::OK).await;
    assert_eq!(plan.body["applicable"], false);
    assert_eq!(plan.body["findings"][0]["severity"], "ERROR");
    service.end().await;
}

async fn a_plan_is_applied_exactly_once_or_says_what_moved(backing: Backing) {
    let service = Service::with_engine(backing).await;
    let plan = |body: Value| service.ask(Method::POST, "/v1/plans").json(&body);
    let saved = plan(json!({"intent": intent("one")})).go(StatusCode::CREATED).await;
    let id = saved.body["id"].as_str().unwrap();
    assert_eq!(saved.header("location"), format!("/v1/plans/{id}"));
    assert_eq!(service.get(saved.header("location")).await, saved.body);
    let rival = plan(json!({"intent": intent("rival")})).go(StatusCode::CREATED).await;
    let apply = |id: &str| service.ask(Method::POST, &format!("/v1/plans/{id}:apply"));
    service.ask(Method::POST, &format!("/v1/plans/{id}:apply?dryRun=true")).go(StatusCode::OK).await;
    let applied = apply(id).header("idempotency-key", "a").go(StatusCode::ACCEPTED).await;
    let planned = &saved.body["after"]["placements"];
    assert_eq!(&applied.body["placements"], planned, "what was planned is what is applied");
    let replayed = apply(id).header("idempotency-key", "a").go(StatusCode::ACCEPTED).await;
    assert_eq!(replayed.header("idempotent-replayed"), "true");
    let twice = apply(id).go(StatusCode::CONFLICT).await;
    assert_eq!(twice.body["holder"], applied.body["id"]);
    // The rival was planned on the same VLANs, which are taken now.
    let moved = apply(rival.body["id"].as_str().unwrap()).go(StatusCode::PRECONDITION_FAILED).await;
    assert_eq!(moved.pointers(), ["/after/placements"], "{}", moved.text);

    let connection = applied.body["id"].as_str().unwrap();
    // The same request again is held until what it asked for is there.
    let held = apply(id).header("idempotency-key", "a").query(&[("wait", "20s")]);
    held.go(StatusCode::ACCEPTED).await;
    assert_eq!(service.get(&format!("/v1/connections/{connection}")).await["state"], "ACTIVE");
    let change = json!({"connectionId": connection, "patch": {"a": {"advertisedPrefixes": ["10.5.0.0/16"]}}});
    let update = plan(change).go(StatusCode::CREATED).await;
    assert_eq!(update.body["action"], "UPDATE");
    let verbs: Vec<&str> =
        update.body["steps"].as_array().unwrap().iter().map(|step| step["verb"].as_str().unwrap()).collect();
    assert_eq!(verbs, ["UPDATE", "UPDATE"], "only the peers announce");
    let fields = update.body["steps"][0]["fields"].as_array().unwrap();
    assert_eq!(fields.len(), 1, "{fields:?}");
    assert_eq!((&fields[0]["before"], &fields[0]["after"]), (&json!(["10.0.0.0/16"]), &json!(["10.5.0.0/16"])));
    assert_eq!(fields[0]["rule"], "what end a announces and end b accepts");
    assert_eq!(update.body["disruption"], "NONE", "announcements come and go without a session's end");
    let delete = plan(json!({"connectionId": connection, "delete": true})).go(StatusCode::CREATED).await;
    assert_eq!(delete.body["disruption"], "OUTAGE");
    assert_eq!(delete.body["steps"].as_array().unwrap().len(), 6);
    apply(update.body["id"].as_str().unwrap()).go(StatusCode::ACCEPTED).await;
    let moved = apply(delete.body["id"].as_str().unwrap()).go(StatusCode::PRECONDITION_FAILED).await;
    assert_eq!(moved.pointers(), ["/baseGeneration"]);
    for (body, pointer) in [
        (json!({}), "/intent"),
        (json!({"intent": intent("x"), "delete": true}), "/intent"),
        (json!({"connectionId": connection}), "/patch"),
        (json!({"connectionId": connection, "patch": {}, "delete": true}), "/delete"),
        (json!({"connectionId": "0192f0c1-2345-7abc-8def-0123456789ab", "delete": true}), "/connectionId"),
        (json!({"connectionId": connection, "patch": {"nme": 1}}), "/patch/nme"),
        (json!({"intent": {"name": 1}}), "/intent/name"),
    ] {
        let answer = plan(body).go(StatusCode::BAD_REQUEST).await;
        assert_eq!(answer.pointers(), [pointer], "{}", answer.text);
    }
    let taken = plan(json!({"intent": intent("one")})).go(StatusCode::CREATED).await;
    assert_eq!(taken.body["applicable"], false);
    apply(taken.body["id"].as_str().unwrap()).go(StatusCode::CONFLICT).await;
    service.end().await;
}

super::on_both! {
    a_create_is_accepted_and_shown,
    one_idempotency_key_has_one_effect,
    one_key_sent_twice_at_once_makes_one_connection,
    creates_at_once_never_share_a_vlan_or_subnet,
    a_change_needs_the_generation_that_was_read,
    a_wish_for_another_vlan_makes_the_channels_anew,
    a_deletion_is_wanted_once,
    a_dry_run_writes_nothing_and_tells_all,
    a_plan_is_applied_exactly_once_or_says_what_moved,
}

#[tokio::test]
async fn a_channel_that_was_given_up_can_be_had_again() {
    let service = Service::with_engine(Backing::sqlite()).await;
    let made = service.create("link").await;
    let path = made.header("location").to_owned();
    let operation = made.header("operation-location").to_owned();
    service.until(&operation, |answer| answer.body["state"] == "SUCCEEDED").await;
    for redundancy in ["SINGLE", "DUAL"] {
        let patch = json!({ "redundancy": redundancy });
        let request = service.ask(Method::PATCH, &path).header("if-match", "*").json(&patch);
        let answer = request.go(StatusCode::ACCEPTED).await;
        let operation = answer.header("operation-location").to_owned();
        service.until(&operation, |answer| answer.body["state"] == "SUCCEEDED").await;
    }
    service.end().await;
}
