//! One connection from its intent to its end, with the engine and both clouds in memory.

use reqwest::{Method, StatusCode};

use super::fixture::{Go, Service, intent};

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_is_built_verified_and_taken_down() {
    let service = Service::with_engine().await;
    let request = service.ask(Method::POST, "/v1/connections?wait=20s").json(&intent("one"));
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
    let delete = service.ask(Method::DELETE, &format!("{}?wait=20s", made.header("location")));
    let gone = delete.header("if-match", made.header("etag")).go(StatusCode::ACCEPTED).await;
    let operation = service.get(gone.header("operation-location")).await;
    assert_eq!(operation["state"], "SUCCEEDED", "{operation}");
    service.ask(Method::GET, made.header("location")).go(StatusCode::NOT_FOUND).await;
    assert!(service.world.live().is_empty());
    let metrics = service.ask(Method::GET, "/metrics").go(StatusCode::OK).await;
    assert!(metrics.text.contains("tieline_engine_provider_calls_total 12"), "{}", metrics.text);
    service.end().await;
}
