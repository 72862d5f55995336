//! Saved plans: listed, made once under a key, and what they say of costs and of other links.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::fixture::{Answer, Backing, Go, Service, intent};

super::on_both! {
    plans_are_listed_newest_first_and_by_connection,
    one_key_saves_one_plan,
    a_plan_names_what_is_billed_and_what_other_links_carry,
}

async fn save(service: &Service, body: Value, key: Option<&str>) -> Answer {
    let mut request = service.ask(Method::POST, "/v1/plans").json(&body);
    if let Some(key) = key {
        request = request.header("idempotency-key", key.to_owned());
    }
    request.answer().await
}

fn ids(list: &Value) -> Vec<&str> {
    list["plans"].as_array().unwrap().iter().map(|plan| plan["id"].as_str().unwrap()).collect()
}

async fn plans_are_listed_newest_first_and_by_connection(backing: Backing) {
    let service = Service::start(backing).await;
    let made = service.create("one").await;
    let connection = made.body["id"].as_str().unwrap();
    let mut saved = Vec::new();
    for body in [
        json!({"connectionId": connection, "delete": true}),
        json!({"intent": intent("two")}),
        json!({"connectionId": connection, "patch": {"description": "x"}}),
    ] {
        let plan = save(&service, body, None).await;
        assert_eq!(plan.status, StatusCode::CREATED, "{}", plan.text);
        saved.push(plan.body["id"].as_str().unwrap().to_owned());
    }
    let first = service.get("/v1/plans?pageSize=2").await;
    assert_eq!(ids(&first), [saved[2].as_str(), saved[1].as_str()]);
    let token = first["nextPageToken"].as_str().unwrap();
    let rest = service.get(&format!("/v1/plans?pageSize=2&pageToken={token}")).await;
    assert_eq!(ids(&rest), [saved[0].as_str()]);
    assert_eq!(rest["nextPageToken"], Value::Null);
    let of_one = service.get(&format!("/v1/plans?connectionId={connection}")).await;
    assert_eq!(ids(&of_one), [saved[2].as_str(), saved[0].as_str()]);
    service.ask(Method::GET, "/v1/plans?connectionId=x").go(StatusCode::BAD_REQUEST).await;
    service.end().await;
}

async fn one_key_saves_one_plan(backing: Backing) {
    let service = Service::start(backing).await;
    let first = save(&service, json!({"intent": intent("one")}), Some("k")).await;
    assert_eq!(first.status, StatusCode::CREATED, "{}", first.text);
    let again = save(&service, json!({"intent": intent("one")}), Some("k")).await;
    assert_eq!((again.status, &again.body), (StatusCode::CREATED, &first.body));
    assert_eq!(again.header("idempotent-replayed"), "true");
    assert_eq!(again.header("location"), first.header("location"));
    let other = save(&service, json!({"intent": intent("two")}), Some("k")).await;
    assert_eq!(other.status, StatusCode::UNPROCESSABLE_ENTITY);
    // A plan that is not saved takes no key.
    for _ in 0..2 {
        let dry = service.ask(Method::POST, "/v1/plans?dryRun=true").header("idempotency-key", "d");
        let dry = dry.json(&json!({"intent": intent("one")})).go(StatusCode::OK).await;
        assert_eq!((dry.header("dry-run"), dry.header("idempotent-replayed")), ("true", ""));
    }
    assert_eq!(ids(&service.get("/v1/plans").await).len(), 1);
    service.end().await;
}

async fn a_plan_names_what_is_billed_and_what_other_links_carry(backing: Backing) {
    let service = Service::start(backing).await;
    service.create("one").await;
    let plan = save(&service, json!({"intent": intent("two")}), None).await;
    let warned: Vec<&str> = plan.body["findings"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|finding| finding["severity"] == "WARNING")
        .map(|finding| finding["code"].as_str().unwrap())
        .collect();
    assert_eq!(warned, ["parallel-links"], "{}", plan.text);
    let costs = plan.body["costs"].as_array().unwrap();
    assert_eq!(costs.len(), 4, "a channel and the tunnel at each end: {costs:?}");
    let channel = &costs[0];
    assert_eq!((&channel["count"], &channel["priceUsd"]), (&json!(2), &json!(0.25)));
    assert_eq!((&channel["asOf"], &channel["end"]), (&json!("2026-01-01"), &json!("a")));
    assert_eq!((&costs[1]["count"], &costs[1]["priceUsd"]), (&Value::Null, &Value::Null), "by use, and not known");
    let mut without = intent("three");
    without["fallback"] = json!({"tunnel": false});
    let plan = save(&service, json!({"intent": without}), None).await;
    assert_eq!(plan.body["costs"].as_array().unwrap().len(), 2, "{}", plan.text);
    service.end().await;
}
