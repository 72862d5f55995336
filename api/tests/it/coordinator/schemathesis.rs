//! The committed document of the Connection Coordinator API against the listener for peers, by a tool that knows nothing of
//! either: no answer is a failure of the service, and each has a documented status, media type and shape.

use reqwest::Method;
use serde_json::json;
use tieline_openapi::coordinator::OperationId;

use super::{
    fixture::Pair,
    surface::{Hand, ON, audit, feature},
};
use crate::schemathesis::{Run, tool};

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
    // Nobody manages keys of this channel.
    let key = json!({ "cak": "01".repeat(32), "ckn": "02".repeat(4) });
    for (method, at, body, status) in [
        (Method::POST, format!("{ON}/channels/c1/macSecKeys?macSecKeyId=m1"), key, 403),
        (Method::PATCH, format!("{ON}/connections/k1/features/f1"), json!({}), 405),
    ] {
        assert_eq!(hand.send(method, &at, Some(&body)).await.status, status);
    }
    let issue = json!({ "title": "t", "body": "b" });
    let made = hand.send(Method::POST, "providers/south/issues?issueId=n1", Some(&issue)).await;
    assert_eq!(made.status, 200, "{}", made.text);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_to_a_peer_is_as_the_document_says() {
    let Some(python) = tool().await else { return };
    let pair = Pair::start().await;
    furnish(&Hand::of(&pair)).await;
    let more = [
        ("--tls-verify", pair.ca.path("ca.pem")),
        ("--request-cert", pair.ca.path("south.pem")),
        ("--request-cert-key", pair.ca.path("south.key")),
    ];
    let run = Run {
        document: "coordinator.v1.json",
        url: &pair.south.config.peers[0].endpoint,
        checks: CHECKS,
        settings: SETTINGS.to_owned(),
        folder: pair.north.backing.folder(),
        more: more.into_iter().flat_map(|(name, value)| [name.to_owned(), value]).collect(),
    };
    let out = run.passes(&python).await;
    // Nothing was tested in vain: every operation was understood at least once.
    let asked = audit(&pair).await;
    for operation in OperationId::ALL {
        let seen = asked.iter().any(|(peer, action)| peer == "peer:south" && action == operation.as_str());
        assert!(seen, "{} was never understood\n{out}", operation.as_str());
    }
    pair.end().await;
}
