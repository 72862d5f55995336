//! The committed document of the Connection Coordinator API against the listener for peers, by a tool that knows nothing of
//! either: no answer is a failure of the service, and each has a documented status, media type and shape.

use std::{path::Path, time::Duration};

use reqwest::Method;
use serde_json::json;
use tieline_openapi::coordinator::OperationId;
use tokio::process::Command;

use super::{
    fixture::Pair,
    surface::{Hand, ON, audit, feature},
};
use crate::http::schemathesis::python;

const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance,unsupported_method";

/// The ids of what is there: the tool would not guess them.
const SETTINGS: &str = "[parameters]\n\"path.provider\" = \"south\"\n\"path.environment\" = \"e1\"\n\
    \"path.interconnect\" = \"i1\"\n\"path.channel\" = \"c1\"\n\"path.connection\" = \"k1\"\n\"path.feature\" = \"f1\"\n\
    \"path.issue\" = \"n1\"\n\"path.macSecKey\" = \"m1\"\n";

/// A connection with a feature, and an issue.
async fn furnish(hand: &Hand<'_>) {
    let (key, _) = super::pairing::issue(&hand.pair.north, "south", 5_000).await;
    let body = json!({ "bandwidthMbps": 5_000, "sourceData": { "encodedKey": key } });
    let made = hand.send(Method::POST, &format!("{ON}/connections?connectionId=k1"), Some(&body)).await;
    assert_eq!(made.status, 200, "{}", made.text);
    let at = format!("{ON}/connections/k1/features?featureId=f1");
    let made = hand.send(Method::POST, &at, Some(&feature(1_025, "169.254.10.2"))).await;
    assert_eq!(made.status, 200, "{}", made.text);
    // What the tool hardly gets right, and what is never done.
    for (method, at) in [
        (Method::POST, format!("{ON}/channels/c1/macSecKeys?macSecKeyId=m1")),
        (Method::PATCH, format!("{ON}/connections/k1/features/f1")),
    ] {
        assert_eq!(hand.send(method, &at, Some(&json!({}))).await.status, 405);
    }
    let issue = json!({ "title": "t", "body": "b" });
    let made = hand.send(Method::POST, "providers/south/issues?issueId=n1", Some(&issue)).await;
    assert_eq!(made.status, 200, "{}", made.text);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_to_a_peer_is_as_the_document_says() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let python = match python(here).await {
        Ok(python) => python,
        Err(reason) => {
            println!("SKIPPED: schemathesis cannot be had here: {reason}");
            return;
        }
    };
    let pair = Pair::start().await;
    furnish(&Hand::of(&pair)).await;
    let folder = pair.north.backing.folder();
    let config = folder.join("schemathesis.toml");
    std::fs::write(&config, SETTINGS).unwrap();
    let mut command = Command::new(python);
    command
        .args(["-m", "schemathesis.cli", "--config-file"])
        .arg(config)
        .arg("run")
        .arg(here.join("../openapi/coordinator.v1.json"))
        .args(["--url", &pair.south.config.peers[0].endpoint, "--tls-verify", &pair.ca.path("ca.pem")])
        .args(["--request-cert", &pair.ca.path("south.pem"), "--request-cert-key", &pair.ca.path("south.key")])
        .args(["--checks", CHECKS, "--phases", "examples,coverage,fuzzing", "--continue-on-failure"])
        .args(["--max-examples", &std::env::var("TIELINE_EXAMPLES").unwrap_or_else(|_| "12".to_owned())])
        .args(["--generation-deterministic", "--no-shrink", "--generation-with-security-parameters", "false"])
        .args(["--request-timeout", "20", "--output-truncate", "false", "--no-color"])
        .env("NO_PROXY", "127.0.0.1")
        .env("no_proxy", "127.0.0.1")
        .current_dir(folder)
        .kill_on_drop(true);
    let output = tokio::time::timeout(Duration::from_secs(240), command.output()).await.expect("in time").unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{out}\n{err}");
    // Nothing was tested in vain: every operation was understood at least once.
    let asked = audit(&pair).await;
    for operation in OperationId::ALL {
        let seen = asked.iter().any(|(peer, action)| peer == "peer:south" && action == operation.as_str());
        assert!(seen, "{} was never understood\n{out}", operation.as_str());
    }
    pair.end().await;
}
