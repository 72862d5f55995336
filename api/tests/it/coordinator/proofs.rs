//! Proof of the account: who changes what for whom, and what a token service may answer.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicUsize, Ordering},
};

use axum::{
    Router,
    extract::State,
    http::{HeaderMap, Uri, header},
    response::{IntoResponse as _, Response},
};
use data_encoding::BASE64URL_NOPAD;
use jiff::{Timestamp, tz::TimeZone};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tieline_openapi::config::{AccountTokenRules, CoordinatorConfig, DemandedProof, GivenProof, StsRules};

use super::{
    fixture::{Pair, Side},
    issuer::{self, Issuer, now},
    logged::Logged,
    pairing,
    surface::{ON, audit, feature},
    tokens::client,
};
use crate::http::fixture::{Answer, Backing, Go};

/// South, by hand, with proofs.
pub(super) struct Prover {
    client: reqwest::Client,
    base: String,
}

impl Prover {
    pub(super) fn of(pair: &Pair) -> Self {
        Self { client: client(pair, Some((&pair.ca, "south"))), base: pair.south.config.peers[0].endpoint.clone() }
    }

    pub(super) async fn send(&self, method: Method, path: &str, body: Option<&Value>, proofs: &[&str]) -> Answer {
        let mut request = self.client.request(method, format!("{}/{path}", self.base));
        for proof in proofs {
            request = request.header("Interconnect-Account-Proof", *proof);
        }
        body.map_or(request.try_clone().unwrap(), |body| request.json(body)).answer().await
    }
}

/// A key of north's for an account at south.
pub(super) async fn issue_for(side: &Side, account: &str) -> String {
    let mut order = pairing::order("proved", "south", 5_000);
    order["b"]["remoteAccountId"] = account.into();
    let issued = side.ask(Method::POST, pairing::CONNECTIONS).json(&order).go(StatusCode::ACCEPTED).await.body;
    issued["activationKey"].as_str().unwrap().to_owned()
}

/// Each side wants a token of the other's account, and gives one.
fn by_tokens(config: &mut CoordinatorConfig, issuer: &Issuer) {
    let (us, them) = (config.provider.to_string(), config.peers[0].provider.to_string());
    let mut token = issuer.rules("", &us);
    token.claims.clear();
    let proof = &mut config.peers[0].proof;
    proof.demand = Some(DemandedProof::Oidc(AccountTokenRules { token, account_claim: "sub".to_owned() }));
    proof.give = Some(GivenProof::OidcSigned(issuer.signer(&them)));
}

#[tokio::test(flavor = "multi_thread")]
async fn two_installations_prove_to_each_other_for_whom_they_ask() {
    let logged = Logged::start();
    let issuer = Issuer::start().await;
    let pair = Pair::start_with([Backing::sqlite(), Backing::sqlite()], |config| by_tokens(config, &issuer)).await;
    pairing::brought_and_deleted(&pair, &pair.north, &pair.south, &pair.south).await;
    pairing::brought_and_deleted(&pair, &pair.south, &pair.north, &pair.south).await;
    let audit = audit(&pair).await;
    assert!(!audit.iter().any(|(_, action)| action.ends_with(":proofRefused")), "{audit:?}");
    pair.end().await;
    assert!(!logged.text().contains("eyJ"), "a token stands in the log");
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_remembers_proofs_as_well() {
    let (Some(one), Some(other)) = (Backing::postgres(), Backing::postgres()) else { return };
    let issuer = Issuer::start().await;
    let pair = Pair::start_with([one, other], |config| by_tokens(config, &issuer)).await;
    pairing::brought_and_deleted(&pair, &pair.south, &pair.north, &pair.south).await;
    pair.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_proves_nothing_changes_nothing() {
    let issuer = Issuer::start().await;
    let pair = Pair::start_with([Backing::sqlite(), Backing::sqlite()], |config| by_tokens(config, &issuer)).await;
    let hand = Prover::of(&pair);
    let key = issue_for(&pair.north, "default").await;
    let token = |changes: Value| format!("oidc {}", issuer.token("default", "north", &changes));
    let good = || token(json!({}));
    let name = format!("{ON}/connections/k1");
    let create = format!("{ON}/connections?connectionId=k1&requestId=01890000-0000-7000-8000-000000000001");
    let update = format!("{name}?updateMask=bandwidthMbps");
    let body = json!({ "bandwidthMbps": 5_000, "sourceData": { "encodedKey": key } });
    let wider = json!({ "bandwidthMbps": 10_000 });
    let (one, two) = (good(), good());
    // What comes with the call, and what is said to it.
    let bad: Vec<(Vec<String>, &str)> = vec![
        (vec![], "is needed here"),
        (vec![one, two], "is sent once"),
        (vec![good().replace("oidc ", "Oidc ")], "is sent once"),
        (vec![good().replace("oidc ", "")], "is sent once"),
        (vec![format!("{} more", good())], "is sent once"),
        (vec!["aws-sts aHR0cHM6Ly94Lw 0123456789".to_owned()], "is sent once"),
        (vec!["oidc a.b.c".to_owned()], "no JSON Web Token"),
        (vec![token(json!({ "exp": now() - 6 }))], "has ended"),
        (vec![token(json!({ "aud": "south" }))], "`aud`"),
        (vec![token(json!({ "iss": "https://other.example" }))], "`iss`"),
        (vec![token(json!({ "jti": null }))], "`jti`"),
        (vec![token(json!({ "sub": null }))], "`sub`"),
        (vec![token(json!({ "sub": "another" }))], "another account"),
    ];
    let refused = async |method: Method, path: &str, body: Option<&Value>| {
        for (proofs, said) in &bad {
            let proofs: Vec<&str> = proofs.iter().map(String::as_str).collect();
            let answer = hand.send(method.clone(), path, body, &proofs).await;
            assert_eq!(answer.status, StatusCode::FORBIDDEN, "{method} {said}: {}", answer.text);
            // What was good once, and refused for the account, is used up.
            assert!(answer.text.contains(said) || answer.text.contains("used before"), "{said}: {}", answer.text);
            assert!(!answer.text.contains("eyJ"), "{}", answer.text);
        }
    };
    refused(Method::POST, &create, Some(&body)).await;
    assert_eq!(hand.send(Method::GET, &name, None, &[]).await.status, StatusCode::NOT_FOUND);
    let used = good();
    let made = hand.send(Method::POST, &create, Some(&body), &[&used]).await;
    assert_eq!(made.status, StatusCode::OK, "{}", made.text);
    // The answer was lost: asked again with a proof of its own.
    assert_eq!(hand.send(Method::POST, &create, Some(&body), &[&good()]).await.body, made.body);
    assert_eq!(hand.send(Method::POST, &create, Some(&body), &[&used]).await.status, StatusCode::FORBIDDEN);
    refused(Method::PATCH, &update, Some(&wider)).await;
    refused(Method::DELETE, &name, None).await;
    assert_eq!(hand.send(Method::GET, &name, None, &[]).await.body["bandwidthMbps"], 5_000);
    // Whatever else there is needs none.
    let guided = hand.send(Method::POST, &format!("{name}/GenerateFeatureGuidance"), Some(&json!({})), &[]).await;
    assert_eq!(guided.status, StatusCode::OK, "{}", guided.text);
    let feature = feature(1_025, "169.254.10.2");
    let made = hand.send(Method::POST, &format!("{name}/features?featureId=f1"), Some(&feature), &[]).await;
    assert_eq!(made.status, StatusCode::OK, "{}", made.text);
    // What was used is used after a restart.
    let Pair { north, south, ca } = pair;
    let listen = north.config.listen;
    let (backing, config) = north.end().await;
    let north = Side::start("north", backing, config, tokio::net::TcpListener::bind(listen).await.unwrap()).await;
    let late = hand.send(Method::PATCH, &update, Some(&wider), &[&used]).await;
    assert!(late.status == StatusCode::FORBIDDEN && late.text.contains("used before"), "{}", late.text);
    assert_eq!(hand.send(Method::PATCH, &update, Some(&wider), &[&good()]).await.status, StatusCode::OK);
    assert_eq!(hand.send(Method::DELETE, &name, None, &[&good()]).await.status, StatusCode::OK);
    north.until_empty("south").await;
    let pair = Pair { north, south, ca };
    let audit = audit(&pair).await;
    for operation in ["CreateConnection", "UpdateConnection", "DeleteConnection"] {
        let refused = ("peer:south".to_owned(), format!("{operation}:proofRefused"));
        assert!(audit.iter().filter(|row| **row == refused).count() >= bad.len(), "{operation}: {audit:?}");
    }
    pair.end().await;
}

/// What the token service answers next, and what it was asked.
#[derive(Default)]
struct Sts {
    answer: Mutex<Option<Response>>,
    asked: Mutex<Vec<(String, String)>>,
    elsewhere: AtomicUsize,
}

async fn sts(State(sts): State<Arc<Sts>>, uri: Uri, headers: HeaderMap) -> Response {
    if uri.path() != "/" {
        sts.elsewhere.fetch_add(1, Ordering::Relaxed);
    }
    let text = |name: &str| headers.get(name).map_or_else(String::new, |value| value.to_str().unwrap().to_owned());
    sts.asked.lock().unwrap().push((text("accept"), text("x-interconnect-purpose")));
    sts.answer.lock().unwrap().take().unwrap_or_else(|| StatusCode::NOT_FOUND.into_response())
}

fn identity(account: &Value) -> String {
    json!({ "GetCallerIdentityResponse": { "GetCallerIdentityResult": { "Account": account } } }).to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_a_token_service_answers_nothing_is_believed_that_it_does_not_say() {
    let (ca, service) = (super::fixture::Authority::new(), Arc::new(Sts::default()));
    let router = Router::new().fallback(sts).with_state(Arc::clone(&service));
    let host = issuer::serve(&ca, "sts", router).await;
    let pair = Pair::start_with([Backing::sqlite(), Backing::sqlite()], |config| {
        let rules = StsRules { hosts: vec![host.clone()], ca_file: Some(ca.path("ca.pem")), max_age_seconds: 300 };
        config.peers[0].proof.demand = Some(DemandedProof::AwsSts(rules));
    })
    .await;
    let hand = Prover::of(&pair);
    let key = issue_for(&pair.north, "123456789012").await;
    let body = json!({ "bandwidthMbps": 5_000, "sourceData": { "encodedKey": key } });
    let create = format!("{ON}/connections?connectionId=k1");
    // Nobody checks the signature here: only what is asked, and what comes of the answer.
    let proof = |n: usize| {
        let stamp =
            Timestamp::from_second(now()).unwrap().to_zoned(TimeZone::UTC).strftime("%Y%m%dT%H%M%SZ").to_string();
        let url = format!(
            "https://{host}/?Action=GetCallerIdentity&Version=2011-06-15&X-Amz-Algorithm=AWS4-HMAC-SHA256\
             &X-Amz-Credential=AKIDEXAMPLEEXAMPLE%2F{}%2Feu-central-1%2Fsts%2Faws4_request&X-Amz-Date={stamp}\
             &X-Amz-Expires=60&X-Amz-SignedHeaders=host%3Bx-interconnect-purpose&X-Amz-Signature={n:064x}",
            &stamp[..8]
        );
        format!("aws-sts {} nonce-{n:08}", BASE64URL_NOPAD.encode(url.as_bytes()))
    };
    let good = || identity(&json!("123456789012"));
    let moved = (StatusCode::FOUND, [(header::LOCATION, format!("https://{host}/elsewhere"))], good());
    let table: Vec<(Response, StatusCode)> = vec![
        (moved.into_response(), StatusCode::SERVICE_UNAVAILABLE),
        (StatusCode::INTERNAL_SERVER_ERROR.into_response(), StatusCode::SERVICE_UNAVAILABLE),
        (StatusCode::TOO_MANY_REQUESTS.into_response(), StatusCode::SERVICE_UNAVAILABLE),
        ("".into_response(), StatusCode::SERVICE_UNAVAILABLE),
        ("<GetCallerIdentityResponse/>".into_response(), StatusCode::SERVICE_UNAVAILABLE),
        (format!("{}{}", good(), " ".repeat(17_000)).into_response(), StatusCode::SERVICE_UNAVAILABLE),
        (identity(&Value::Null).into_response(), StatusCode::SERVICE_UNAVAILABLE),
        (identity(&json!("12345678901x")).into_response(), StatusCode::SERVICE_UNAVAILABLE),
        (identity(&json!(["123456789012"])).into_response(), StatusCode::SERVICE_UNAVAILABLE),
        ((StatusCode::CREATED, good()).into_response(), StatusCode::SERVICE_UNAVAILABLE),
        ((StatusCode::FORBIDDEN, good()).into_response(), StatusCode::FORBIDDEN),
        (identity(&json!("123456789013")).into_response(), StatusCode::FORBIDDEN),
        (good().into_response(), StatusCode::OK),
    ];
    for (n, (answer, expected)) in table.into_iter().enumerate() {
        *service.answer.lock().unwrap() = Some(answer);
        let answered = hand.send(Method::POST, &create, Some(&body), &[&proof(n)]).await;
        assert_eq!(answered.status, expected, "{n}: {}", answered.text);
        if expected == StatusCode::SERVICE_UNAVAILABLE {
            assert_eq!(answered.header("retry-after"), "10");
        }
        let asked = service.asked.lock().unwrap().pop().expect("it was asked");
        let purpose = format!("north south CreateConnection {ON}/connections/k1 nonce-{n:08}");
        assert_eq!(asked, ("application/json".to_owned(), purpose));
    }
    assert_eq!(service.elsewhere.load(Ordering::Relaxed), 0, "a redirect was followed");
    // What is not on the list is not even asked.
    let other = proof(99).replacen("aws-sts ", "", 1);
    let (url, _) = other.split_once(' ').unwrap();
    let url = String::from_utf8(BASE64URL_NOPAD.decode(url.as_bytes()).unwrap()).unwrap();
    for changed in [
        url.replace(&host, "169.254.169.254"),
        url.replace("https://", "http://"),
        url.replace("GetCallerIdentity", "AssumeRole"),
        url.replace("/?", "/latest/meta-data/?"),
    ] {
        let proof = format!("aws-sts {} 0123456789", BASE64URL_NOPAD.encode(changed.as_bytes()));
        let answered = hand.send(Method::DELETE, &format!("{ON}/connections/k1"), None, &[&proof]).await;
        assert_eq!(answered.status, StatusCode::FORBIDDEN, "{}", answered.text);
    }
    assert!(service.asked.lock().unwrap().is_empty());
    pair.end().await;
}
