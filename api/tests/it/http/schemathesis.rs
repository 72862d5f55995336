//! The committed document against the service, by a tool that knows nothing of either: requests that the document allows and
//! requests that it forbids. Every answer has a documented status, media type, headers and shape, and none is a failure of
//! the service.

use reqwest::{Method, StatusCode};
use serde_json::json;
use tieline_api::http::{document, operations};

use super::fixture::{Backing, Go, Service, intent};
use crate::schemathesis::{Run, tool};

/// Streams do not end by themselves; they have tests of their own.
const STREAMS: [&str; 2] = ["watchEvents", "watchGatewayConfiguration"];

const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,\
                      response_schema_conformance,negative_data_rejection,missing_required_header,unsupported_method";

/// What only a gateway may ask, what is not there while nothing goes wrong, and what needs a pairing: they are asked, and
/// refuse.
const NEVER_DONE: [&str; 13] = [
    "joinGateway",
    "reportObservations",
    "putKernelLanes",
    "getIssue",
    "acknowledgeIssue",
    "resolveIssue",
    "migrateConnection",
    "acceptActivationKey",
    "decodeActivationKey",
    "rotateMacSecKey",
    "createMaintenanceEvent",
    "getMaintenanceEvent",
    "deleteMaintenanceEvent",
];

/// Makes what the operations are about, and tells the tool its ids: it would not guess them.
async fn settings(service: &Service) -> String {
    // Answers are not held: an operation that waits for a person would hold one for its whole time.
    let mut settings = "[parameters]\n\"query.wait\" = \"0s\"\n\
                        [checks.missing_required_header]\nexpected-statuses = [400, 401, 415, 428]\n\
                        [checks.negative_data_rejection]\nexpected-statuses = [400, 401, 403, 404, 405, 409, 412, 413, 415, 422, 428]\n"
        .to_owned();
    let mut about = |operation: &str, id: &str| {
        let one = format!("[[operations]]\ninclude-operation-id = \"{operation}\"\nparameters = {{ id = \"{id}\" }}\n");
        settings.push_str(&one);
    };
    for (n, operation) in ["getConnection", "patchConnection", "deleteConnection"].into_iter().enumerate() {
        let mut body = intent(&format!("fuzzed-{n}"));
        body["a"]["advertisedPrefixes"] = json!([format!("10.{n}.0.0/16")]);
        body["b"]["advertisedPrefixes"] = json!([format!("172.{}.0.0/16", 16 + n)]);
        let made = service.ask(Method::POST, "/v1/connections").json(&body).go(StatusCode::ACCEPTED).await;
        about(operation, made.body["id"].as_str().unwrap());
        if n == 0 {
            about("getOperation", made.body["lastOperationId"].as_str().unwrap());
        }
    }
    for (n, operation) in ["getPlan", "applyPlan"].into_iter().enumerate() {
        let mut body = intent(&format!("planned-{n}"));
        body["a"]["advertisedPrefixes"] = json!([format!("10.{}.0.0/16", 100 + n)]);
        body["b"]["advertisedPrefixes"] = json!([format!("172.{}.0.0/16", 26 + n)]);
        let plan = service.ask(Method::POST, "/v1/plans").json(&json!({"intent": body})).go(StatusCode::CREATED).await;
        about(operation, plan.body["id"].as_str().unwrap());
    }
    let token = service.ask(Method::POST, "/v1/tokens").json(&json!({"name": "fuzzed", "scope": "READ"}));
    about("deleteToken", token.go(StatusCode::CREATED).await.body["token"]["id"].as_str().unwrap());
    let gateway = super::gateways::join(service, "g", "router-l", 1).await;
    about("getGateway", gateway.body["gateway"]["id"].as_str().unwrap());
    for (operation, id) in [
        ("getAccount", "left"),
        ("getEnvironment", "left-right"),
        ("getInterconnect", "ic"),
        ("getAttachPoint", "router-l"),
        ("issueJoinToken", "g"),
    ] {
        about(operation, id);
    }
    settings
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_is_as_the_document_says() {
    let Some(python) = tool().await else { return };
    let service = Service::with_engine(Backing::sqlite()).await;
    let mut more = vec!["--header".to_owned(), format!("Authorization: Bearer {}", service.admin)];
    more.extend(STREAMS.into_iter().flat_map(|operation| ["--exclude-operation-id".to_owned(), operation.to_owned()]));
    let run = Run {
        document: "tieline.v1.json",
        url: &service.url,
        checks: CHECKS,
        settings: settings(&service).await,
        folder: service.folder(),
        more,
    };
    let out = run.passes(&python).await;
    // Nothing was tested in vain: whatever can be done was done, at least once.
    let metrics = service.ask(Method::GET, "/metrics").go(StatusCode::OK).await.text;
    for (_, _, operation) in operations(&document()) {
        let done = format!("tieline_http_requests_total{{operation=\"{operation}\",status=\"2");
        let never = STREAMS.contains(&operation.as_str()) || NEVER_DONE.contains(&operation.as_str());
        assert!(never || metrics.contains(&done), "{operation} never succeeded\n{metrics}\n{out}");
    }
    service.end().await;
}
