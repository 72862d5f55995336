//! Who may do what: the one table, held against every operation of the document.

use reqwest::{Method, StatusCode};
use serde_json::json;
use tieline_api::{
    app::vault,
    auth::{Access, POLICY},
    engine::clock::{ChaChaRandom, Random},
    http::{document, operations},
    secrets::{token_hash, token_secret},
    store::{NewToken, Store},
};
use tieline_openapi::{
    ids::TokenId,
    v1::{Scope, Timestamp, Token},
};

use super::fixture::{Go, Service};

const UNKNOWN: &str = "0192f0c1-2345-7abc-8def-0123456789ab";

fn method(name: &str) -> Method {
    name.parse().unwrap()
}

#[test]
fn every_operation_has_a_policy_and_every_policy_an_operation() {
    let mut documented: Vec<String> = operations(&document()).into_iter().map(|(_, _, id)| id).collect();
    let mut known: Vec<String> = POLICY.iter().map(|(id, _)| (*id).to_owned()).collect();
    documented.sort();
    known.sort();
    assert_eq!(documented, known);
    assert!(vault::BGP_PASSWORD.starts_with("bgp"));
}

/// What a principal gets from an operation: let through, or which refusal.
fn expected(access: Access, scope: Option<Scope>) -> Option<StatusCode> {
    match (access, scope) {
        (Access::Open, _) => None,
        (_, None) => Some(StatusCode::UNAUTHORIZED),
        (Access::Scope(needed), Some(scope)) if scope >= needed => None,
        (Access::Scope(_) | Access::Join | Access::OwnGateway, Some(_)) => Some(StatusCode::FORBIDDEN),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_operation_refuses_whom_it_must() {
    let service = Service::start().await;
    let reader = service.token("reader", "READ").await;
    let operator = service.token("operator", "OPERATE").await;
    let principals = [
        (None, None),
        (Some("tl_wrong".to_owned()), None),
        (Some(reader), Some(Scope::Read)),
        (Some(operator), Some(Scope::Operate)),
        (Some(service.admin.clone()), Some(Scope::Admin)),
    ];
    for (path, verb, id) in operations(&document()) {
        let access = POLICY.iter().find(|(name, _)| *name == id).unwrap().1;
        // Streams that are let through do not end by themselves; they have tests of their own.
        let path = path.replace("{id}", if path.contains("Groups") { "g" } else { UNKNOWN });
        for (secret, scope) in &principals {
            let wanted = expected(access, *scope);
            if wanted.is_none() && id == "watchEvents" {
                continue;
            }
            let mut request = service.client.request(method(verb), format!("{}{path}", service.url));
            if let Some(secret) = secret {
                request = request.bearer_auth(secret);
            }
            let answer = request.answer().await;
            match wanted {
                Some(status) => assert_eq!(answer.status, status, "{id} as {scope:?}: {}", answer.text),
                None => assert!(
                    !matches!(
                        answer.status,
                        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::METHOD_NOT_ALLOWED
                    ),
                    "{id} as {scope:?}: {}",
                    answer.text
                ),
            }
            if answer.status == StatusCode::UNAUTHORIZED {
                assert!(answer.header("www-authenticate").starts_with("Bearer"));
            }
        }
    }
    service.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_or_ended_token_is_nobody() {
    let service = Service::start().await;
    let random = ChaChaRandom::from_system();
    let secret = secrecy::ExposeSecret::expose_secret(&token_secret(&random)).to_owned();
    let past = Timestamp::from_millisecond(1_700_000_000_000).unwrap();
    let token = Token {
        id: TokenId(random.uuid_v7(past)),
        name: "old".to_owned(),
        project: "default".parse().unwrap(),
        scope: Scope::Admin,
        expires_at: Some(past),
        last_used_at: None,
        created_at: past,
    };
    service.store.insert_token(NewToken { token, hash: token_hash(&secret), audit: None }).await.unwrap();
    service.ask_as(&secret, Method::GET, "/v1/accounts").go(StatusCode::UNAUTHORIZED).await;

    let issued =
        service.ask(Method::POST, "/v1/tokens").json(&json!({"name": "t", "scope": "READ", "expiresInSeconds": 60}));
    let issued = issued.go(StatusCode::CREATED).await;
    let secret = issued.body["secret"].as_str().unwrap();
    service.ask_as(secret, Method::GET, "/v1/accounts").go(StatusCode::OK).await;
    let listed = service.get("/v1/tokens").await;
    assert!(!listed.to_string().contains(secret));
    assert!(!listed["tokens"][2]["lastUsedAt"].is_null());
    service.ask(Method::POST, "/v1/tokens").json(&json!({"name": "t", "scope": "READ"})).go(StatusCode::CONFLICT).await;
    let short =
        service.ask(Method::POST, "/v1/tokens").json(&json!({"name": "", "scope": "READ", "expiresInSeconds": 1}));
    assert_eq!(short.go(StatusCode::BAD_REQUEST).await.pointers(), ["/name", "/expiresInSeconds"]);
    service.ask(Method::DELETE, issued.header("location")).go(StatusCode::NO_CONTENT).await;
    service.ask_as(secret, Method::GET, "/v1/accounts").go(StatusCode::UNAUTHORIZED).await;
    service.ask(Method::DELETE, issued.header("location")).go(StatusCode::NOT_FOUND).await;
    service.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_project_sees_nothing() {
    let service = Service::start().await;
    let made = service.create("one").await;
    let random = ChaChaRandom::from_system();
    let secret = secrecy::ExposeSecret::expose_secret(&token_secret(&random)).to_owned();
    let now = Timestamp::from_millisecond(1_700_000_000_000).unwrap();
    let token = Token {
        id: TokenId(random.uuid_v7(now)),
        name: "other".to_owned(),
        project: "other".parse().unwrap(),
        scope: Scope::Admin,
        expires_at: None,
        last_used_at: None,
        created_at: now,
    };
    service.store.insert_token(NewToken { token, hash: token_hash(&secret), audit: None }).await.unwrap();
    for path in [made.header("location"), made.header("operation-location")] {
        service.ask_as(&secret, Method::GET, path).go(StatusCode::NOT_FOUND).await;
    }
    for path in ["/v1/connections", "/v1/operations", "/v1/events", "/v1/gateways"] {
        let answer = service.ask_as(&secret, Method::GET, path).go(StatusCode::OK).await;
        assert!(!answer.text.contains(made.body["id"].as_str().unwrap()), "{path}");
    }
    let delete = service.ask_as(&secret, Method::DELETE, made.header("location")).header("if-match", "*");
    delete.go(StatusCode::NOT_FOUND).await;
    service.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn too_many_failures_are_slowed_and_good_tokens_are_not() {
    let service = Service::start().await;
    let mut slowed = 0;
    for _ in 0..260 {
        let answer = service.ask_as("tl_wrong", Method::GET, "/v1/accounts").answer().await;
        if answer.status == StatusCode::TOO_MANY_REQUESTS {
            assert_eq!(answer.header("retry-after"), "1");
            slowed += 1;
        } else {
            assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
        }
    }
    assert!(slowed > 0);
    service.get("/v1/accounts").await;
    service.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_token_is_a_file_of_its_owner_only() {
    use std::os::unix::fs::PermissionsExt;
    let service = Service::start().await;
    let path = service.folder.path().join("tieline.token");
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let clock = tieline_api::engine::clock::SystemClock::new();
    let random = ChaChaRandom::from_system();
    let again = tieline_api::app::bootstrap::first_token(&*service.store, &clock, &random, &path).await.unwrap();
    assert!(!again, "a second start makes no token");
    assert_eq!(std::fs::read_to_string(&path).unwrap().trim(), service.admin);
    service.end().await;
}
