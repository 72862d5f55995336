//! One connection from its intent to its end, with the engine and both clouds in memory.

use reqwest::{Method, StatusCode};
use tieline_api::store::Store;
use tieline_openapi::v1::ConnectionState;

use super::fixture::{Backing, Go, Service, intent};

async fn a_connection_is_built_verified_and_taken_down(backing: Backing) {
    let service = Service::with_engine(backing).await;
    let request = service.ask(Method::POST, "/v1/connections?wait=60s").json(&intent("one"));
    let made = request.go(StatusCode::ACCEPTED).await;
    let operation = service.get(made.header("operation-location")).await;
    assert_eq!(operation["state"], "SUCCEEDED", "{operation}");
    assert_eq!(made.body["state"], "ACTIVE", "{}", made.text);
    assert_eq!(made.body["verificationState"], "VERIFIED");
    assert_eq!(made.body["observedGeneration"], 1);
    for channel in made.body["placements"][0]["channels"].as_array().unwrap() {
        assert_eq!(channel["provisioningState"], "FINAL");
        assert_eq!(channel["bgpState"], "ESTABLISHED");
        assert_eq!(channel["a"]["hostIpv4"], channel["b"]["peerIpv4"]);
        assert!(channel["a"]["attachments"][0]["cloudId"].is_string());
    }
    assert_eq!(service.world.live().len(), 6);
    let delete = service.ask(Method::DELETE, &format!("{}?wait=60s", made.header("location")));
    let gone = delete.header("if-match", made.header("etag")).go(StatusCode::ACCEPTED).await;
    let operation = service.get(gone.header("operation-location")).await;
    assert_eq!(operation["state"], "SUCCEEDED", "{operation}");
    service.ask(Method::GET, made.header("location")).go(StatusCode::NOT_FOUND).await;
    assert!(service.world.live().is_empty());
    let metrics = service.ask(Method::GET, "/metrics").go(StatusCode::OK).await;
    assert!(metrics.text.contains("tieline_engine_provider_calls_total 12"), "{}", metrics.text);
    service.end().await;
}

async fn a_deletion_that_is_stuck_waits_for_a_person(backing: Backing) {
    let service = Service::with_engine(backing).await;
    let request = service.ask(Method::POST, "/v1/connections?wait=60s").json(&intent("one"));
    let made = request.go(StatusCode::ACCEPTED).await;
    assert_eq!(made.body["state"], "ACTIVE", "{}", made.text);
    for condition in made.body["conditions"].as_array().unwrap() {
        let kept = ["BgpEstablished", "InSync"].contains(&condition["type"].as_str().unwrap());
        assert_eq!(condition["status"], if kept { "TRUE" } else { "UNKNOWN" });
        assert_eq!(condition["since"] == made.body["createdAt"], !kept, "{condition}");
    }
    let id = made.body["id"].as_str().unwrap().parse().unwrap();
    service.forbidding.deletions(true);
    let delete = service.ask(Method::DELETE, made.header("location")).header("if-match", "*");
    delete.go(StatusCode::ACCEPTED).await;
    let path = made.header("location");
    let stuck = service.until(path, |shown| shown.body["state"] == "ACTION_REQUIRED").await;
    assert_eq!(stuck.body["stateReason"]["code"], "provider-forbidden", "{}", stuck.text);
    assert!(!stuck.body["deletionRequestedAt"].is_null());
    // The engine says the same of it, and so does every list.
    let record = service.store.connection(&"default".parse().unwrap(), id).await.unwrap();
    assert_eq!(record.status.state, Some(ConnectionState::ActionRequired));
    let listed = async |state: &str| {
        service.get(&format!("/v1/connections?state={state}")).await["connections"].as_array().unwrap().len()
    };
    assert_eq!((listed("ACTION_REQUIRED").await, listed("DELETING").await), (1, 0));
    service.forbidding.deletions(false);
    service.until(path, |shown| shown.status == StatusCode::NOT_FOUND).await;
    assert!(service.world.live().is_empty());
    service.end().await;
}

super::on_both! {
    a_deletion_that_is_stuck_waits_for_a_person,
    a_connection_is_built_verified_and_taken_down,
}
