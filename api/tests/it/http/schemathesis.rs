//! The committed document against the service, by a tool that knows nothing of either: requests that the document allows and
//! requests that it forbids. Every answer has a documented status, media type, headers and shape, and none is a failure of
//! the service.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use reqwest::{Method, StatusCode};
use serde_json::json;
use tieline_api::http::{document, operations};
use tokio::process::Command;

use super::fixture::{Backing, Go, Service, intent};

/// Streams do not end by themselves; they have tests of their own.
const STREAMS: [&str; 2] = ["watchEvents", "watchGatewayConfiguration"];

const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,\
                      response_schema_conformance,negative_data_rejection,missing_required_header,unsupported_method";

/// What only a gateway may ask, what is not there while nothing goes wrong, and what needs a pairing: they are asked, and
/// refuse.
const NEVER_DONE: [&str; 8] = [
    "joinGateway",
    "reportObservations",
    "getIssue",
    "acknowledgeIssue",
    "resolveIssue",
    "migrateConnection",
    "acceptActivationKey",
    "decodeActivationKey",
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

/// A Python with the tool, or why there is none.
pub(crate) async fn python(here: &Path) -> Result<PathBuf, String> {
    let script = here.join("../scripts/python-with.sh");
    let output = Command::new(script).arg(here.join("tests/python/requirements.txt")).output().await;
    let output = output.map_err(|error| error.to_string())?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).trim().into());
    }
    Err(String::from_utf8_lossy(&output.stderr).lines().last().unwrap_or_default().to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_is_as_the_document_says() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let python = match python(here).await {
        Ok(python) => python,
        Err(reason) => {
            println!("SKIPPED: schemathesis cannot be had here: {reason}");
            return;
        }
    };
    let service = Service::with_engine(Backing::sqlite()).await;
    let config = service.folder().join("schemathesis.toml");
    std::fs::write(&config, settings(&service).await).unwrap();
    let mut command = Command::new(python);
    command
        .args(["-m", "schemathesis.cli", "--config-file"])
        .arg(config)
        .arg("run")
        .arg(here.join("../openapi/tieline.v1.json"))
        .args(["--url", &service.url, "--header", &format!("Authorization: Bearer {}", service.admin)])
        .args(["--checks", CHECKS, "--phases", "examples,coverage,fuzzing", "--continue-on-failure"])
        .args(["--max-examples", &std::env::var("TIELINE_EXAMPLES").unwrap_or_else(|_| "12".to_owned())])
        .args(["--generation-deterministic", "--no-shrink", "--generation-with-security-parameters", "false"])
        .args(["--request-timeout", "20", "--output-truncate", "false", "--no-color"])
        .env("NO_PROXY", "127.0.0.1")
        .env("no_proxy", "127.0.0.1")
        .current_dir(service.folder())
        .kill_on_drop(true);
    for operation in STREAMS {
        command.args(["--exclude-operation-id", operation]);
    }
    let output = tokio::time::timeout(Duration::from_secs(240), command.output()).await.expect("in time").unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{out}\n{err}");
    // Nothing was tested in vain: whatever can be done was done, at least once.
    let metrics = service.ask(Method::GET, "/metrics").go(StatusCode::OK).await.text;
    for (_, _, operation) in operations(&document()) {
        let done = format!("tieline_http_requests_total{{operation=\"{operation}\",status=\"2");
        let never = STREAMS.contains(&operation.as_str()) || NEVER_DONE.contains(&operation.as_str());
        assert!(never || metrics.contains(&done), "{operation} never succeeded\n{metrics}\n{out}");
    }
    service.end().await;
}
