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

use super::fixture::{Backing, Go, Service};
use crate::store::fixture::audit;

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

async fn every_operation_refuses_whom_it_must(backing: Backing) {
    let service = Service::start(backing).await;
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

async fn an_expired_or_ended_token_is_nobody(backing: Backing) {
    let service = Service::start(backing).await;
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
    service
        .store
        .insert_token(NewToken { token, hash: token_hash(&secret), audit: audit("issueToken"), idempotency: None })
        .await
        .unwrap();
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

async fn another_project_sees_nothing(backing: Backing) {
    let service = Service::start(backing).await;
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
    service
        .store
        .insert_token(NewToken { token, hash: token_hash(&secret), audit: audit("issueToken"), idempotency: None })
        .await
        .unwrap();
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
    let service = Service::start(Backing::sqlite()).await;
    // All at once: the throttle counts by time.
    let failures = (0..600).map(|_| service.ask_as("tl_wrong", Method::GET, "/v1/accounts").answer());
    let mut slowed = 0;
    for answer in futures::future::join_all(failures).await {
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

async fn the_first_token_is_a_file_of_its_owner_only(backing: Backing) {
    use std::os::unix::fs::PermissionsExt;
    let service = Service::start(backing).await;
    let path = service.folder().join("tieline.token");
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let clock = tieline_api::engine::clock::SystemClock::new();
    let random = ChaChaRandom::from_system();
    let again = tieline_api::app::bootstrap::first_token(&*service.store, &clock, &random, &path).await.unwrap();
    assert!(!again, "a second start makes no token");
    assert_eq!(std::fs::read_to_string(&path).unwrap().trim(), service.admin);
    service.end().await;
}

async fn a_repeated_issue_answers_without_the_secret(backing: Backing) {
    let service = Service::start(backing).await;
    let issue = |key: &str, name: &str| {
        let request = service.ask(Method::POST, "/v1/tokens").header("idempotency-key", key.to_owned());
        request.json(&json!({"name": name, "scope": "READ"}))
    };
    let first = issue("k", "t").go(StatusCode::CREATED).await;
    let secret = first.body["secret"].as_str().unwrap().to_owned();
    let again = issue("k", "t").go(StatusCode::CREATED).await;
    assert_eq!((again.header("idempotent-replayed"), &again.body["secret"]), ("true", &json!(null)));
    assert_eq!(again.body["token"], first.body["token"]);
    assert_eq!(again.header("location"), first.header("location"));
    assert!(!again.text.contains(&secret));
    issue("k", "u").go(StatusCode::UNPROCESSABLE_ENTITY).await;
    issue("l", "t").go(StatusCode::CONFLICT).await;
    // What was refused has used no key.
    issue("l", "u").go(StatusCode::CREATED).await;
    service.ask_as(&secret, Method::GET, "/v1/accounts").go(StatusCode::OK).await;
    let at_once = futures::future::join_all((0..4).map(|_| issue("m", "v").answer())).await;
    assert!(at_once.iter().all(|answer| answer.status == StatusCode::CREATED));
    assert_eq!(at_once.iter().filter(|answer| answer.body["secret"].is_string()).count(), 1, "one knows the secret");

    let join = |key: &str, attach_point: &str| {
        let request = service.ask(Method::POST, "/v1/gatewayGroups/g:issueJoinToken");
        request.header("idempotency-key", key.to_owned()).json(&json!({"attachPointId": attach_point}))
    };
    let first = join("k", "router-l").go(StatusCode::CREATED).await;
    let again = join("k", "router-l").go(StatusCode::CREATED).await;
    assert!(first.body["secret"].is_string());
    assert_eq!((again.header("idempotent-replayed"), &again.body["secret"]), ("true", &json!(null)));
    assert_eq!(again.body["joinToken"], first.body["joinToken"]);
    join("k", "router-r").go(StatusCode::UNPROCESSABLE_ENTITY).await;
    service.end().await;
}

async fn who_did_what_is_kept(backing: Backing) {
    let service = Service::start(backing).await;
    let token = service.ask(Method::POST, "/v1/tokens").json(&json!({"name": "t", "scope": "READ"}));
    let token = token.go(StatusCode::CREATED).await;
    service.ask(Method::DELETE, token.header("location")).go(StatusCode::NO_CONTENT).await;
    service.ask(Method::DELETE, token.header("location")).go(StatusCode::NOT_FOUND).await;
    let issued = service.ask(Method::POST, "/v1/gatewayGroups/g:issueJoinToken");
    let issued = issued.json(&json!({"attachPointId": "router-l"})).go(StatusCode::CREATED).await;
    let right = issued.body["joinToken"]["id"].as_str().unwrap();
    let join = super::gateways::join_with(&service, issued.body["secret"].as_str().unwrap(), "g", 1).await;
    let first = service.get("/v1/tokens").await["tokens"][0]["id"].as_str().unwrap().to_owned();
    let admin = format!("token:{first}");
    let row = |who: &str, action: &str, subject: &str| (who.to_owned(), action.to_owned(), subject.to_owned());
    assert_eq!(
        service.audit().await,
        [
            row("installation", "firstToken", &format!("/v1/tokens/{first}")),
            row(&admin, "issueToken", token.header("location")),
            row(&admin, "deleteToken", token.header("location")),
            row(&admin, "issueJoinToken", &format!("/v1/gatewayGroups/g/joinTokens/{right}")),
            row(&format!("joinToken:{right}"), "joinGateway", join.header("location")),
        ]
    );
    service.end().await;
}

super::on_both! {
    a_repeated_issue_answers_without_the_secret,
    who_did_what_is_kept,
    every_operation_refuses_whom_it_must,
    an_expired_or_ended_token_is_nobody,
    another_project_sees_nothing,
    the_first_token_is_a_file_of_its_owner_only,
}
