//! The client against a server that says exactly what each test scripts.

use std::sync::{Arc, Mutex};

use secrecy::SecretString;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use super::*;
use crate::{
    ids::{ConnectionId, OperationId, PlanId},
    problem::ProblemCode,
    v1::{ConnectionState, GatewayConfiguration, PlanRequest, ProbeSettings},
};

/// Answers one scripted reply a connection, in order, and keeps what was asked.
pub(super) struct Server {
    pub(super) url: String,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Server {
    pub(super) async fn start(replies: Vec<String>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&asked);
        tokio::spawn(async move {
            for reply in replies {
                let (mut socket, _) = listener.accept().await.unwrap();
                let request = read(&mut socket).await;
                seen.lock().unwrap().push(request);
                socket.write_all(reply.as_bytes()).await.unwrap();
                socket.shutdown().await.unwrap();
            }
        });
        Self { url, asked }
    }

    fn client(&self) -> Client {
        Client::new(&self.url, &SecretString::from("tl_secret")).unwrap()
    }

    pub(super) fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

async fn read(socket: &mut TcpStream) -> String {
    let mut text = Vec::new();
    loop {
        let mut buffer = [0; 4096];
        let n = socket.read(&mut buffer).await.unwrap();
        text.extend_from_slice(&buffer[..n]);
        let so_far = String::from_utf8_lossy(&text).into_owned();
        let Some((head, body)) = so_far.split_once("\r\n\r\n") else {
            assert!(n > 0, "the request broke off");
            continue;
        };
        let length =
            head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok()).unwrap_or(0usize);
        if body.len() >= length {
            return so_far;
        }
    }
}

pub(super) fn reply(status: &str, headers: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {}\r\n{headers}\r\n{body}", body.len())
}

fn events(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n{body}")
}

fn problem(code: ProblemCode) -> String {
    let body = serde_json::json!({
        "type": format!("/problems/{}", code.as_str()), "title": "t", "status": code.status(), "code": code,
        "detail": "VLAN 7 is in use", "retryable": code.retryable(), "remediation": "Wish another.",
        "errors": [{"pointer": "/wanted/vlanId", "message": "7 is taken on port p1"}],
    });
    body.to_string()
}

fn id() -> ConnectionId {
    "0192f0c1-2345-7abc-8def-0123456789ab".parse().unwrap()
}

fn configuration(version: u64) -> String {
    let configuration = GatewayConfiguration {
        version,
        gateway_id: "0192f0c1-2345-7abc-8def-0123456789ac".parse().unwrap(),
        probe: ProbeSettings::default(),
        connections: Vec::new(),
    };
    format!("id: {version}\ndata: {}\n\n", serde_json::to_string(&configuration).unwrap())
}

#[tokio::test]
async fn a_read_is_tried_again_and_says_who_asks() {
    let unavailable = reply("503 Service Unavailable", "", &problem(ProblemCode::Unavailable));
    let good = reply("200 OK", "", r#"{"connections": []}"#);
    let server = Server::start(vec![unavailable, String::new(), good]).await;
    let query = ConnectionQuery {
        states: vec![ConnectionState::ActionRequired],
        labels: vec![("team".to_owned(), "a b".to_owned())],
        page: PageQuery { size: Some(5), token: Some("x".to_owned()) },
        ..ConnectionQuery::default()
    };
    assert_eq!(server.client().connections(&query).await.unwrap().connections, []);
    let asked = server.asked();
    assert_eq!(asked.len(), 3, "a 503 and a broken connection are tried again");
    assert!(
        asked[2].starts_with(
            "GET /v1/connections?pageSize=5&pageToken=x&state=ACTION_REQUIRED&label=team%3Da+b HTTP/1.1\r\n"
        )
    );
    assert!(asked[2].contains("authorization: Bearer tl_secret\r\n"));
}

#[tokio::test]
async fn a_write_is_sent_once_whatever_happens() {
    let server = Server::start(vec![String::new(), reply("200 OK", "", "{}")]).await;
    let error = server.client().delete_connection(id(), 3, &Write::default()).await.unwrap_err();
    assert!(error.is_transient());
    assert_eq!(server.asked().len(), 1);
    let server = Server::start(vec![reply("503 X", "retry-after: 7\r\n", &problem(ProblemCode::Unavailable))]).await;
    let error = server.client().delete_connection(id(), 3, &Write::default()).await.unwrap_err();
    assert_eq!(error.retry_after(), Some(Duration::from_secs(7)));
}

#[tokio::test]
async fn a_mutation_carries_its_conditions() {
    let refused = reply("412 Precondition Failed", "", &problem(ProblemCode::PreconditionFailed));
    let server = Server::start(vec![refused.clone(), refused]).await;
    let write = Write { idempotency_key: Some("k1".to_owned()), wait: Some(Duration::from_secs(60)) };
    let patch = serde_json::json!({"bandwidthMbps": 5000});
    let error = server.client().update_connection(id(), 3, &patch, &write).await.unwrap_err();
    assert_eq!(error.code(), Some(ProblemCode::PreconditionFailed));
    server.client().plan_delete(id(), 4).await.unwrap_err();
    let asked = server.asked();
    assert!(asked[0].starts_with(&format!("PATCH /v1/connections/{}?wait=60s HTTP/1.1\r\n", id())));
    for part in
        ["if-match: \"g3\"\r\n", "idempotency-key: k1\r\n", "content-type: application/merge-patch+json\r\n", "5000"]
    {
        assert!(asked[0].contains(part), "{part}");
    }
    assert!(asked[1].starts_with(&format!("DELETE /v1/connections/{}?dryRun=true HTTP/1.1\r\n", id())));
    assert!(asked[1].contains("if-match: \"g4\"\r\n"));
}

#[tokio::test]
async fn plans_are_tried_dry_listed_and_made_once() {
    let refused = reply("412 Precondition Failed", "", &problem(ProblemCode::PreconditionFailed));
    let none = reply("200 OK", "", r#"{"plans": []}"#);
    let server = Server::start(vec![refused.clone(), refused.clone(), refused, none]).await;
    let plan: PlanId = "0192f0c1-2345-7abc-8def-0123456789ad".parse().unwrap();
    let request: PlanRequest =
        serde_json::from_value(serde_json::json!({"connectionId": id(), "delete": true})).unwrap();
    let write = Write { idempotency_key: Some("k1".to_owned()), wait: Some(Duration::from_secs(60)) };
    let client = server.client();
    client.create_plan(&request, &write).await.unwrap_err();
    client.dry_plan(&request).await.unwrap_err();
    client.dry_apply_plan(plan).await.unwrap_err();
    assert_eq!(client.plans(Some(id()), &PageQuery::default()).await.unwrap().plans, []);
    let asked = server.asked();
    assert!(asked[0].starts_with("POST /v1/plans HTTP/1.1\r\n") && asked[0].contains("idempotency-key: k1\r\n"));
    assert!(asked[1].starts_with("POST /v1/plans?dryRun=true HTTP/1.1\r\n"));
    assert!(asked[2].starts_with(&format!("POST /v1/plans/{plan}:apply?dryRun=true HTTP/1.1\r\n")));
    assert!(asked[3].starts_with(&format!("GET /v1/plans?connectionId={} HTTP/1.1\r\n", id())));
}

#[tokio::test]
async fn an_error_is_one_line_that_says_what_to_do() {
    let server = Server::start(vec![reply("400 Bad Request", "", &problem(ProblemCode::Unsatisfiable))]).await;
    let line = server.client().connection(id()).await.unwrap_err().line();
    assert_eq!(line, "VLAN 7 is in use; /wanted/vlanId: 7 is taken on port p1. Wish another.");

    let server = Server::start(vec![reply("404 Not Found", "", "<html>\n</html>")]).await;
    let line = server.client().connection(id()).await.unwrap_err().line();
    assert!(line.contains("HTTP 404") && line.contains("does not look like Tieline"), "{line}");
    assert!(line.contains("TIELINE_URL") && !line.contains('\n'), "{line}");

    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", nobody.local_addr().unwrap());
    drop(nobody);
    let client = Client::new(&url, &SecretString::from("tl_secret")).unwrap();
    let error = client.ready().await.unwrap_err();
    assert!(error.line().contains("refused") && error.line().contains("tieline serve"), "{}", error.line());
    assert!(!format!("{client:?} {error:?}").contains("tl_secret"));
}

#[tokio::test]
async fn answers_that_are_too_large_or_odd_are_refused() {
    let large = "x".repeat(MAX_ANSWER_BYTES + 1);
    let server = Server::start(vec![reply("200 OK", "", &large)]).await;
    assert!(matches!(server.client().connection(id()).await, Err(ClientError::TooLarge { .. })));
    let server = Server::start(vec![reply("200 OK", "", r#"{"id": 1}"#)]).await;
    assert!(matches!(server.client().connection(id()).await, Err(ClientError::Decode { .. })));
    let server = Server::start(vec![reply("302 Found", "location: http://example.com/\r\n", "")]).await;
    assert!(matches!(server.client().connection(id()).await, Err(ClientError::Status { status: 302, .. })));
}

#[tokio::test]
async fn a_stream_is_taken_up_where_it_broke_off() {
    let server = Server::start(vec![
        events(&format!(": hello\n\n{}{}", configuration(4), configuration(5))),
        reply("503 Service Unavailable", "", &problem(ProblemCode::Unavailable)),
        // Half an event is no event.
        events(&format!("{}id: 7\ndata: {{\"versi", configuration(6))),
        events(&configuration(7)),
        reply("404 Not Found", "", &problem(ProblemCode::NotFound)),
    ])
    .await;
    let gateway = "0192f0c1-2345-7abc-8def-0123456789ac".parse().unwrap();
    let mut watch = server.client().watch_configuration(gateway, Some(3));
    let (mut versions, mut errors) = (Vec::new(), Vec::new());
    let bound = Duration::from_secs(60);
    while let Some(next) = tokio::time::timeout(bound, watch.next()).await.unwrap() {
        assert!(errors.len() < 9, "it does not end: {errors:?}");
        match next {
            Ok(configuration) => versions.push(configuration.version),
            Err(error) => errors.push(error),
        }
    }
    assert_eq!(versions, [4, 5, 6, 7]);
    assert_eq!(watch.last_id(), Some("7"));
    assert_eq!(errors.iter().map(ClientError::is_transient).collect::<Vec<_>>(), [true, true, true, true, false]);
    let asked = server.asked();
    let ids: Vec<_> =
        asked.iter().map(|text| text.lines().find_map(|l| l.strip_prefix("last-event-id: ")).unwrap()).collect();
    assert_eq!(ids, ["3", "5", "5", "6", "7"]);
    assert!(asked[0].starts_with(&format!("GET /v1/gateways/{gateway}/configuration:watch HTTP/1.1\r\n")));
    assert!(asked[0].contains("accept: text/event-stream\r\n"));
}

#[tokio::test]
async fn a_wait_for_an_operation_is_bounded() {
    let operation: OperationId = "0192f0c1-2345-7abc-8def-0123456789ad".parse().unwrap();
    let at = |state: &str| {
        let body = serde_json::json!({
            "id": operation, "kind": "CREATE", "target": id(), "generation": 1, "state": state, "stages": [],
            "problem": null, "createdAt": "2026-01-01T00:00:00Z", "finishedAt": null,
        });
        reply("200 OK", "", &body.to_string())
    };
    let server = Server::start(vec![at("RUNNING"), at("SUCCEEDED")]).await;
    let ended = server.client().wait_operation(operation, Duration::from_secs(20)).await.unwrap();
    assert!(ended.state.is_final());
    let server = Server::start(vec![at("RUNNING")]).await;
    let error = server.client().wait_operation(operation, Duration::from_millis(200)).await.unwrap_err();
    assert!(matches!(error, ClientError::Timeout { .. }));
}

#[test]
fn addresses_that_cannot_be_are_refused() {
    for url in ["", "localhost:7080", "ftp://x", "http://user@x", "http://x/?a=1", "http://"] {
        assert!(matches!(Client::anonymous(url), Err(ClientError::Url { .. })), "{url}");
    }
    assert_eq!(Client::anonymous("http://[::1]:7080/").unwrap().url(), "http://[::1]:7080");
    assert!(matches!(Client::new(DEFAULT_URL, &SecretString::from("a\nb")), Err(ClientError::Token)));
    for (url, loopback) in [("http://127.0.0.9", true), ("http://[::1]:1", true), ("http://10.0.0.1", false)] {
        assert_eq!(is_loopback(&Url::parse(url).unwrap()), loopback, "{url}");
    }
}
