//! The listener for peers: who gets through, what each sees, and what the specification's rules say.

use std::time::Duration;

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tieline_openapi::{
    client::coordinator::{Coordinator, CoordinatorError},
    coordinator::*,
};

use super::fixture::{Authority, Half, Pair, half, parse};
use crate::http::fixture::{Answer, Go};

fn path<P: std::str::FromStr<Err = NameError>>(text: &str) -> P {
    text.parse().unwrap()
}

pub(super) const ON: &str = "providers/south/environments/e1/interconnects/i1";

fn status(error: &CoordinatorError) -> Option<u16> {
    error.refusal().map(|refusal| refusal.status)
}

/// A client with south's certificate that can send anything.
fn raw(pair: &Pair, identity: Option<&str>) -> reqwest::Client {
    let mut builder = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(10));
    if let Some(name) = identity {
        let pem = [pair.ca.path(&format!("{name}.pem")), pair.ca.path(&format!("{name}.key"))];
        let pem = pem.map(|path| std::fs::read_to_string(path).unwrap()).join("\n");
        builder = builder.identity(reqwest::Identity::from_pem(pem.as_bytes()).unwrap());
    }
    let ca = reqwest::Certificate::from_pem(&std::fs::read(pair.ca.path("ca.pem")).unwrap()).unwrap();
    builder.tls_certs_only([ca]).build().unwrap()
}

fn at_north(pair: &Pair, path: &str) -> String {
    format!("{}/{path}", pair.south.config.peers[0].endpoint)
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_but_a_peer_gets_through() {
    let pair = Pair::start().await;
    let url = at_north(&pair, "providers");
    let refused = |client: reqwest::Client| {
        let url = url.clone();
        async move { client.get(url).send().await.is_err() }
    };
    assert!(refused(raw(&pair, None)).await, "without a certificate");
    // Of the same authority, and not the one that is pinned.
    pair.ca.certify("east");
    assert!(refused(raw(&pair, Some("east"))).await, "somebody else's");
    // The right names, of an authority that is nobody's.
    let other = Authority::new();
    other.certify("south");
    let stranger = reqwest::Client::builder().no_proxy();
    let pem =
        [other.path("south.pem"), other.path("south.key")].map(|p| std::fs::read_to_string(p).unwrap()).join("\n");
    let stranger = stranger.identity(reqwest::Identity::from_pem(pem.as_bytes()).unwrap());
    assert!(refused(stranger.tls_danger_accept_invalid_certs(true).build().unwrap()).await, "a stranger's");
    // North pins a name; the key behind it may change. South pins a key: a new one under the old name is nobody.
    pair.ca.certify("north");
    let url = format!("{}/providers", pair.north.config.peers[0].endpoint);
    assert!(raw(&pair, Some("north")).get(url).send().await.is_err(), "another key under the same name");
    let url = at_north(&pair, "providers");
    let old = raw(&pair, Some("south"));
    assert_eq!(old.get(&url).send().await.unwrap().status(), StatusCode::OK);
    let tls12 = reqwest::Client::builder().no_proxy().tls_version_max(reqwest::tls::Version::TLS_1_2);
    let pem = [pair.ca.path("south.pem"), pair.ca.path("south.key")];
    let pem = pem.map(|path| std::fs::read_to_string(path).unwrap()).join("\n");
    let tls12 = tls12.identity(reqwest::Identity::from_pem(pem.as_bytes()).unwrap());
    let tls12 = tls12.tls_danger_accept_invalid_certs(true).build();
    assert!(match tls12 {
        Ok(client) => client.get(&url).send().await.is_err(),
        Err(_) => true,
    });
    pair.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_sees_its_own_subtree() {
    let pair = Pair::start().await;
    let south: Coordinator = pair.south.peer_client();
    let page = Page::default();
    let providers = south.call::<ListProviders>(&(), &NoQuery {}, &NoBody {}).await.unwrap().into_providers();
    let names: Vec<_> = providers.iter().filter_map(|p| p.name.as_deref()).collect();
    assert_eq!(names, ["providers/north", "providers/south"]);
    for (id, there) in [("north", true), ("south", true), ("east", false)] {
        let path = path::<ProviderPath>(&format!("providers/{id}"));
        let one = south.call::<GetProvider>(&path, &NoQuery {}, &NoBody {}).await;
        assert_eq!(one.as_ref().map_or_else(status, |_| None), (!there).then_some(404), "{id}");
        let environments = south.call::<ListEnvironments>(&path, &page, &NoBody {}).await;
        assert_eq!(environments.as_ref().map_or_else(status, |_| None), (id != "south").then_some(404), "{id}");
    }
    let e1: EnvironmentPath = path("providers/south/environments/e1");
    let environment = south.call::<GetEnvironment>(&e1, &NoQuery {}, &NoBody {}).await.unwrap();
    assert_eq!(environment.supported_connection_size_mbps, [1_000, 5_000, 10_000]);
    assert_eq!(environment.provider_sites[0].provider_id.as_deref(), Some("providers/north"));
    let on: InterconnectPath = path(ON);
    let mut query = Page { page_size: Some(3), page_token: None };
    let first = south.call::<ListChannels>(&on, &query, &NoBody {}).await.unwrap();
    query.page_token = first.next_page_token.clone();
    let second = south.call::<ListChannels>(&on, &query, &NoBody {}).await.unwrap();
    let all: Vec<_> = first.channels.iter().chain(&second.channels).filter_map(|c| c.name.clone()).collect();
    assert_eq!(all, ["c1", "c2", "c3", "c4"].map(|id| format!("{ON}/channels/{id}")));
    assert!(second.next_page_token.is_none());
    // A token belongs to its list.
    let other: InterconnectPath = path("providers/south/environments/e1/interconnects/i2");
    let error = south.call::<ListChannels>(&other, &query, &NoBody {}).await.unwrap_err();
    assert_eq!(status(&error), Some(400));
    query = Page { page_size: Some(-1), page_token: None };
    assert_eq!(status(&south.call::<ListChannels>(&on, &query, &NoBody {}).await.unwrap_err()), Some(400));
    let parameters = south
        .call::<GetActivationKeyParameters>(&path("providers/south/environments/e1"), &Request::default(), &NoBody {})
        .await
        .unwrap();
    assert!(parameters.supported_versions.contains(&1), "{parameters:?}");
    // Whoever asked, and what: every call is in the audit log.
    let audit = audit(&pair).await;
    assert!(audit.contains(&("peer:south".to_owned(), "GetEnvironment".to_owned())), "{audit:?}");
    pair.end().await;
}

/// Who did what.
pub(super) async fn audit(pair: &Pair) -> Vec<(String, String)> {
    use sqlx::Connection as _;
    let mut connection = sqlx::SqliteConnection::connect(&pair.north.backing.url).await.unwrap();
    sqlx::query_as("SELECT principal, action FROM audit ORDER BY seq").fetch_all(&mut connection).await.unwrap()
}

/// South, by hand: its own engine knows nothing of what is done here.
pub(super) struct Hand<'p> {
    pub(super) pair: &'p Pair,
    client: reqwest::Client,
}

impl<'p> Hand<'p> {
    pub(super) fn of(pair: &'p Pair) -> Self {
        Self { pair, client: raw(pair, Some("south")) }
    }

    pub(super) async fn send(&self, method: Method, path: &str, body: Option<&Value>) -> Answer {
        let request = self.client.request(method, at_north(self.pair, path));
        match body {
            Some(body) => request.json(body).answer().await,
            None => request.answer().await,
        }
    }
}

/// A feature of channel c1.
pub(super) fn feature(vlan: u32, host: &str) -> Value {
    json!({ "channel": format!("{ON}/channels/c1"), "featureConfig": {
        "featureType": "FEATURE_TYPE_L3_BASE", "l3BaseConfig": {
            "ipv4Subnet": "169.254.10.0", "ipv4SubnetPrefixLength": 30, "mtuBytes": 8_500, "vlanId": vlan,
            "md5BgpPassword": "secret", "providerBgpConfigs": [
                { "provider": "providers/north", "asn": 64_512, "hostIpv4": "169.254.10.1" },
                { "provider": "providers/south", "asn": 64_513, "hostIpv4": host }] } } })
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rules_of_connections_and_features_hold() {
    let pair = Pair::start().await;
    let hand = Hand::of(&pair);
    let (key, _) = super::pairing::issue(&pair.north, "south", 5_000).await;
    let confirm = json!({ "encodedKey": key });
    let at = "providers/south/environments/e1/ConfirmActivationKey";
    // To ask uses nothing up.
    for _ in 0..2 {
        assert_eq!(hand.send(Method::POST, at, Some(&confirm)).await.body, json!({ "keyValid": true }));
    }
    let request = "01890000-0000-7000-8000-000000000001";
    let create = format!("{ON}/connections?connectionId=k1&requestId={request}");
    let body = json!({ "bandwidthMbps": 5_000, "sourceData": { "encodedKey": key } });
    let wrong = json!({ "bandwidthMbps": 1_000, "sourceData": { "encodedKey": key } });
    let other_id = create.replace("0001", "0009");
    assert_eq!(hand.send(Method::POST, &other_id, Some(&wrong)).await.status, 400, "the key says 5,000");
    let made = hand.send(Method::POST, &create, Some(&body)).await;
    assert_eq!(made.status, 200, "{}", made.text);
    assert!(!made.text.contains(&key), "the key is not told again");
    // The answer was lost: the same request is answered as before, another one under its id is refused.
    let again = hand.send(Method::POST, &create, Some(&body)).await;
    assert_eq!((again.status, &again.body), (made.status, &made.body));
    assert_eq!(hand.send(Method::POST, &create, Some(&wrong)).await.status, 409);
    assert_eq!(hand.send(Method::POST, at, Some(&confirm)).await.body, json!({ "keyValid": false }));
    let connection = format!("{ON}/connections/k1");
    let shown = hand.send(Method::GET, &connection, None).await;
    assert_eq!(shown.body["verificationState"], "VERIFICATION_STATE_UNVERIFIED");

    let guidance = hand.send(Method::POST, &format!("{connection}/GenerateFeatureGuidance"), Some(&json!({}))).await;
    let guidance = guidance.body["featureGuidance"].as_array().unwrap().clone();
    assert_eq!(guidance.len(), 4);
    assert_eq!(guidance[0]["l3BaseGuidance"]["vlanRanges"], json!([{ "start": 1_025, "stop": 1_100 }]));
    let id = "01890000-0000-7000-8000-000000000002";
    let at = format!("{connection}/features?featureId=f1&requestId={id}");
    for bad in [feature(1_024, "169.254.10.2"), feature(1_200, "169.254.10.2"), feature(1_025, "169.254.10.7")] {
        let refused = hand.send(Method::POST, &at.replace("0002", "0008"), Some(&bad)).await;
        assert!(refused.status == 400 || refused.status == 409, "{}", refused.text);
    }
    let good = feature(1_025, "169.254.10.2");
    let made = hand.send(Method::POST, &at, Some(&good)).await;
    assert_eq!(made.status, 200, "{}", made.text);
    assert_eq!(made.body["provisioningState"], "PROVISIONING_STATE_PENDING");
    assert_eq!(hand.send(Method::POST, &at, Some(&good)).await.body, made.body);
    assert_eq!(hand.send(Method::POST, &at, Some(&feature(1_026, "169.254.10.2"))).await.status, 409);
    let second = at.replace("f1", "f2").replace("0002", "0003");
    assert_eq!(hand.send(Method::POST, &second, Some(&feature(1_027, "169.254.10.2"))).await.status, 409);
    let one = format!("{connection}/features/f1");
    assert_eq!(hand.send(Method::PATCH, &format!("{one}?updateMask=channel"), Some(&good)).await.status, 405);
    let listed = hand.send(Method::GET, &format!("{connection}/features"), None).await;
    assert_eq!(listed.body["features"][0]["name"], one.as_str());
    assert_eq!(listed.body["features"][0], hand.send(Method::GET, &one, None).await.body);
    // At rest the password is sealed.
    let raw = std::fs::read(pair.north.backing.folder().join("tieline.db-wal")).unwrap_or_default();
    let main = std::fs::read(pair.north.backing.folder().join("tieline.db")).unwrap();
    assert!(![raw, main].iter().any(|bytes| bytes.windows(8).any(|w| w == b"\"secret\"")), "a password in clear");

    let update = format!("{connection}?updateMask=bandwidthMbps&requestId=01890000-0000-7000-8000-000000000004");
    assert_eq!(hand.send(Method::PATCH, &update, Some(&json!({ "bandwidthMbps": 7 }))).await.status, 400);
    let update = update.replace("0004", "0005");
    assert_eq!(hand.send(Method::PATCH, &update, Some(&json!({ "bandwidthMbps": 10_000 }))).await.status, 200);
    assert_eq!(hand.send(Method::GET, &connection, None).await.body["bandwidthMbps"], 10_000);
    assert_eq!(hand.send(Method::PATCH, &format!("{connection}?updateMask=name"), Some(&json!({}))).await.status, 400);
    // Whole, so another has no room.
    let (more, _) = super::pairing::issue(&pair.north, "south", 10_000).await;
    let body = json!({ "bandwidthMbps": 10_000, "sourceData": { "encodedKey": more } });
    assert_eq!(hand.send(Method::POST, &format!("{ON}/connections?connectionId=k2"), Some(&body)).await.status, 409);

    let delete = format!("{connection}?requestId=01890000-0000-7000-8000-000000000006");
    assert_eq!(hand.send(Method::DELETE, &delete, None).await.status, 200);
    assert_eq!(hand.send(Method::DELETE, &delete, None).await.status, 200, "the same request");
    assert_eq!(hand.send(Method::GET, &connection, None).await.status, 404);
    // A create that comes after the delete is refused.
    assert_eq!(hand.send(Method::POST, &format!("{ON}/connections?connectionId=k1"), Some(&body)).await.status, 409);
    pair.north.until_empty("south").await;
    assert_eq!(hand.send(Method::DELETE, &connection, None).await.status, 404, "another request");
    pair.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn issues_are_made_and_talked_about() {
    let pair = Pair::start().await;
    let hand = Hand::of(&pair);
    let at = "providers/south/issues";
    let issue = json!({ "title": "t", "body": "b", "issueContext": "ISSUE_CONTEXT_CONNECTION_ISSUE" });
    assert_eq!(
        hand.send(Method::POST, &format!("{at}?issueId=n1"), Some(&issue)).await.pointers(),
        ["/connectionContexts"]
    );
    let mut named = issue.clone();
    named["connectionContexts"] = json!([{ "name": "providers/east/environments/e/interconnects/i/connections/c" }]);
    assert_eq!(hand.send(Method::POST, &format!("{at}?issueId=n1"), Some(&named)).await.status, 400, "another's");
    named["connectionContexts"] = json!([{ "name": format!("{ON}/connections/c") }]);
    let made = hand.send(Method::POST, &format!("{at}?issueId=n1"), Some(&named)).await;
    assert_eq!(made.body["state"], "STATE_OPEN", "{}", made.text);
    assert_eq!(hand.send(Method::POST, &format!("{at}?issueId=n1"), Some(&named)).await.status, 409);
    hand.send(Method::POST, &format!("{at}?issueId=n2"), Some(&json!({ "title": "t", "body": "b" }))).await;
    let page = hand.send(Method::GET, &format!("{at}?pageSize=1"), None).await.body;
    assert_eq!(page["issues"][0]["name"], "providers/south/issues/n1");
    let token = page["nextPageToken"].as_str().unwrap();
    let page = hand.send(Method::GET, &format!("{at}?pageSize=1&pageToken={token}"), None).await.body;
    assert_eq!(
        (&page["issues"][0]["name"], &page["nextPageToken"]),
        (&json!("providers/south/issues/n2"), &Value::Null)
    );
    for n in 1..=3 {
        let comment = json!({ "comment": { "body": format!("word {n}") } });
        let said = hand.send(Method::POST, &format!("{at}/n1/AddComment"), Some(&comment)).await;
        assert_eq!(said.body["comment"]["body"], format!("word {n}"), "{}", said.text);
    }
    let first = hand.send(Method::GET, &format!("{at}/n1/comments?pageSize=2"), None).await.body;
    let bodies = |page: &Value| -> Vec<String> {
        page["comments"].as_array().unwrap().iter().map(|c| c["body"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(bodies(&first), ["word 3", "word 2"], "the newest first");
    let token = first["nextPageToken"].as_str().unwrap();
    let rest = hand.send(Method::GET, &format!("{at}/n1/comments?pageSize=2&pageToken={token}"), None).await.body;
    assert_eq!(bodies(&rest), ["word 1"]);
    assert_eq!(
        hand.send(Method::POST, &format!("{at}/n1/Close"), Some(&json!({}))).await.body["state"],
        "STATE_CLOSED"
    );
    assert_eq!(hand.send(Method::GET, &format!("{at}/n1"), None).await.body["state"], "STATE_CLOSED");
    for missing in ["n9", "n9/comments"] {
        assert_eq!(hand.send(Method::GET, &format!("{at}/{missing}"), None).await.status, 404);
    }
    pair.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_much_is_refused() {
    let pair = Pair::start_with(
        [crate::http::fixture::Backing::sqlite(), crate::http::fixture::Backing::sqlite()],
        |config| config.requests_per_second = 1,
    )
    .await;
    let hand = Hand::of(&pair);
    let create = format!("{ON}/connections?connectionId=k");
    let large = json!({ "activationKey": "x".repeat(300 * 1_024) });
    assert_eq!(hand.send(Method::POST, &create, Some(&large)).await.status, 413);
    let text = hand.client.post(at_north(&pair, &create)).body("{").header("content-type", "text/plain");
    assert_eq!(text.answer().await.status, 415);
    assert_eq!(hand.send(Method::PUT, "providers/south", None).await.status, 405);
    assert_eq!(hand.send(Method::GET, "elsewhere", None).await.status, 404);
    let mut last = StatusCode::OK;
    for _ in 0..20 {
        last = hand.send(Method::GET, "providers", None).await.status;
    }
    assert_eq!(last, StatusCode::TOO_MANY_REQUESTS);
    pair.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_configuration_is_compared_with_the_peers() {
    let pair = Pair::start().await;
    let check = |config| async move { tieline_api::coordinator::check::all(&config).await.unwrap() };
    assert_eq!(check(pair.north.config.clone()).await, []);
    let mut other = pair.north.config.clone();
    let environment = &mut other.peers[0].environments[0];
    environment.interconnects[0].channels.remove(0);
    environment.interconnects[1].id = "i9".parse().unwrap();
    let found = check(other).await;
    let about: Vec<&str> = found.iter().map(|finding| finding.about.as_str()).collect();
    let of = "providers/north/environments/e1/interconnects";
    assert_eq!(
        about,
        [format!("{of}/i1"), format!("{of}/i1/channels/c1"), format!("{of}/i2"), format!("{of}/i9")],
        "{found:?}"
    );
    pair.end().await;
    // Nobody answers.
    let ca = Authority::new();
    ca.certify("north");
    let peer =
        Half { id: "south", endpoint: "https://127.0.0.1:1".to_owned(), identity: "{ dnsName = \"s\" }".to_owned() };
    let found = check(parse(&half(&ca, "north", "127.0.0.1:0", &peer))).await;
    assert_eq!(found[0].about, "providers/south");
}
