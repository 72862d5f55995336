use std::sync::Mutex;

use reqwest::header::AUTHORIZATION;
use serde_json::json;
use tokio::net::TcpListener;
use uuid::Uuid;

use super::{
    super::tests::{Server, reply},
    error::CallVerdict,
    *,
};
use crate::coordinator::{
    ConfirmActivationKey, ConfirmActivationKeyRequest, ConnectionPath, CreateConnection, CreateConnectionQuery,
    DeleteConnection, EncodedKey, FieldMask, GetConnection, NoBody, Request, Sensitive, SourceData, UpdateConnection,
    UpdateConnectionQuery,
};

/// Signs with a fixed header, and remembers what it signed.
#[derive(Default)]
struct Signer(Mutex<Vec<String>>);

impl Authorize for Signer {
    fn authorize<'a>(&'a self, request: &'a Outgoing<'a>) -> BoxFuture<'a, Result<HeaderMap, AuthorizeError>> {
        let body = String::from_utf8_lossy(request.body).into_owned();
        let seen = format!("{} {} {} {body}", request.operation.as_str(), request.method, request.url);
        self.0.lock().unwrap().push(seen);
        Box::pin(async { Ok([(AUTHORIZATION, HeaderValue::from_static("Signed by-north"))].into_iter().collect()) })
    }
}

fn address(base_url: &str) -> PeerAddress {
    PeerAddress { base_url: base_url.to_owned(), cleartext: false, timeout: Duration::from_secs(10) }
}

fn client(url: &str) -> Coordinator {
    Coordinator::new(&address(url), reqwest::Client::builder(), Arc::new(Signer::default())).unwrap()
}

fn name() -> ConnectionPath {
    "providers/north/environments/e1/interconnects/i1/connections/c1".parse().unwrap()
}

#[tokio::test]
async fn a_call_is_what_the_specification_says() {
    let ok = |body: &str| reply("200 OK", "", body);
    let server =
        Server::start(vec![ok("{}"), ok(r#"{"bandwidthMbps": 7}"#), ok(""), ok(r#"{"keyValid": true}"#)]).await;
    let signer = Arc::new(Signer::default());
    let at = address(&format!("{}/coordinator/v1/", server.url));
    let client = Coordinator::new(&at, reqwest::Client::builder(), Arc::<Signer>::clone(&signer)).unwrap();
    let request_id = Some(Uuid::from_u128(7));
    let connection = Connection {
        bandwidth_mbps: Some(1_000),
        source_data: Some(SourceData::Key(EncodedKey { encoded_key: Sensitive::new("secret-key") })),
        ..Connection::default()
    };
    let query = CreateConnectionQuery { request_id, connection_id: "c1".parse().unwrap() };
    client.call::<CreateConnection>(&name().parent(), &query, &connection).await.unwrap();
    let query = UpdateConnectionQuery { request_id, update_mask: Some(FieldMask::of(&["bandwidthMbps"])) };
    let wanted = Connection { bandwidth_mbps: Some(7), ..Connection::default() };
    assert_eq!(client.call::<UpdateConnection>(&name(), &query, &wanted).await.unwrap(), wanted);
    client.call::<DeleteConnection>(&name(), &Request { request_id }, &NoBody {}).await.unwrap();
    let environment = "providers/north/environments/e1".parse().unwrap();
    let question = ConfirmActivationKeyRequest { encoded_key: Some(Sensitive::new("k")), key: None };
    let query = crate::coordinator::NoQuery {};
    let answer = client.call::<ConfirmActivationKey>(&environment, &query, &question).await.unwrap();
    assert_eq!(answer.key_valid, Some(true));

    let asked = server.asked();
    let path = "/coordinator/v1/providers/north/environments/e1/interconnects/i1/connections";
    let id = "00000000-0000-0000-0000-000000000007";
    let line = |n: usize| asked[n].lines().next().unwrap().to_owned();
    assert_eq!(line(0), format!("POST {path}?connectionId=c1&requestId={id} HTTP/1.1"));
    assert_eq!(line(1), format!("PATCH {path}/c1?requestId={id}&updateMask=bandwidthMbps HTTP/1.1"));
    assert_eq!(line(2), format!("DELETE {path}/c1?requestId={id} HTTP/1.1"));
    assert!(asked[0].ends_with(r#"{"bandwidthMbps":1000,"sourceData":{"encodedKey":"secret-key"}}"#));
    assert!(asked[2].ends_with("\r\n\r\n"), "a delete has no body");
    assert!(asked.iter().all(|text| text.contains("authorization: Signed by-north\r\n")));
    let signed = signer.0.lock().unwrap().clone();
    assert!(signed[0].starts_with(&format!("CreateConnection POST {}{path}?", server.url)), "{signed:?}");
    assert!(signed[0].contains("secret-key") && signed[2].starts_with("DeleteConnection DELETE"), "{signed:?}");
}

#[tokio::test]
async fn a_call_is_sent_once_and_its_verdict_is_told() {
    let problem = json!({ "type": "/problems/conflict", "title": "t", "status": 409, "code": "conflict",
        "detail": "VLAN 1025 is reserved", "retryable": false, "remediation": "r" });
    for (answer, verdict, words) in [
        (String::new(), CallVerdict::Open, "no answer"),
        (reply("503 X", "retry-after: 7\r\n", "busy"), CallVerdict::Open, "503: busy"),
        (reply("408 X", "", ""), CallVerdict::Open, "408"),
        (reply("409 X", "", &problem.to_string()), CallVerdict::Refused, "409: VLAN 1025 is reserved"),
        (reply("400 X", "", "<html>\r\nno\u{7}</html>"), CallVerdict::Refused, "400: <html> no</html>"),
        (reply("302 X", "location: http://127.0.0.1:1/\r\n", ""), CallVerdict::Open, "302"),
        (reply("200 OK", "", "7"), CallVerdict::Open, "not what the specification says"),
        (reply("200 OK", "", &"x".repeat(MAX_ANSWER_BYTES + 1)), CallVerdict::Open, "larger"),
    ] {
        let server = Server::start(vec![answer, reply("200 OK", "", "{}")]).await;
        let client = client(&server.url);
        let error = client.call::<GetConnection>(&name(), &Request::default(), &NoBody {}).await.unwrap_err();
        assert_eq!(error.verdict(), verdict, "{error}");
        assert!(error.to_string().contains(words), "{error}");
        assert_eq!(server.asked().len(), 1, "{error}");
        assert_eq!(
            error.refusal().and_then(|r| r.retry_after),
            words.contains("busy").then_some(Duration::from_secs(7))
        );
    }
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", nobody.local_addr().unwrap());
    drop(nobody);
    let error = client(&url).call::<GetConnection>(&name(), &Request::default(), &NoBody {}).await.unwrap_err();
    assert_eq!(error.verdict(), CallVerdict::NotSent);
}

#[tokio::test]
async fn a_list_is_read_page_by_page_and_ends() {
    let page = |ids: &[&str], next: &str| {
        let connections: Vec<_> = ids.iter().map(|id| json!({ "name": id })).collect();
        reply("200 OK", "", &json!({ "connections": connections, "nextPageToken": next }).to_string())
    };
    let server = Server::start(vec![page(&["a", "b"], "t 1"), page(&[], "t2"), page(&["c"], "")]).await;
    let all = client(&server.url).all::<ListConnections>(&name().parent(), 10).await.unwrap();
    assert_eq!(all.iter().filter_map(|c| c.name.as_deref()).collect::<Vec<_>>(), ["a", "b", "c"]);
    let asked = server.asked();
    assert!(asked[0].contains("/connections?pageSize=1000 HTTP"), "{}", asked[0]);
    assert!(asked[1].contains("pageToken=t%201") && asked[2].contains("pageToken=t2"));
    for circle in [vec![page(&[], "t"), page(&[], "t")], vec![page(&["a", "b", "c"], "t")]] {
        let server = Server::start(circle).await;
        let error = client(&server.url).all::<ListConnections>(&name().parent(), 2).await.unwrap_err();
        assert!(matches!(error, CoordinatorError::Endless { .. }), "{error}");
    }
}

#[test]
fn a_peer_is_spoken_to_over_tls() {
    let new = |at: PeerAddress| Coordinator::new(&at, reqwest::Client::builder(), Arc::new(ByConnection));
    for bad in ["http://peer.example", "ftp://x", "peer", "https://user@peer.example", "https://peer.example/?a=1"] {
        assert!(matches!(new(address(bad)), Err(CoordinatorError::Url { .. })), "{bad}");
    }
    for good in ["https://peer.example/v1/", "http://127.0.0.1:1", "http://[::1]:1"] {
        assert!(!new(address(good)).unwrap().url().contains("//v1"));
    }
    assert!(new(PeerAddress { cleartext: true, ..address("http://10.0.0.1") }).is_ok());
}
