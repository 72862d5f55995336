//! Issues that a person ends.

use reqwest::{Method, StatusCode};
use serde_json::Value;
use tieline_api::store::{AccountRound, EngineWrite, Store};
use tieline_openapi::{
    ids::{AccountId, IssueId},
    v1::{Issue, IssueState, Severity, Timestamp},
};
use uuid::Uuid;

use super::fixture::{Backing, Go, Service};

fn issue(n: u128, code: &str, about: &str) -> EngineWrite {
    EngineWrite::RaiseIssue {
        project: "default".parse().unwrap(),
        issue: Box::new(Issue {
            id: IssueId(Uuid::from_u128(n)),
            severity: Severity::Error,
            code: code.to_owned(),
            about: vec![about.to_owned()],
            title: "something".to_owned(),
            cost: None,
            remediation: "look".to_owned(),
            state: IssueState::Open,
            created_at: Timestamp::UNIX_EPOCH,
            resolved_at: None,
        }),
    }
}

#[tokio::test]
async fn only_an_absence_can_be_acknowledged_and_only_once() {
    let service = Service::start(Backing::sqlite()).await;
    let account: AccountId = "left".parse().unwrap();
    let round = AccountRound {
        account_id: account.clone(),
        began_ms_ago: 0,
        observed_at: None,
        swept: false,
        failures: 0,
        expected: 40,
        absent: 9,
        accepted: 0,
        held: true,
        calm: false,
    };
    let lease = service.store.lease_shared("inventory/left", "test", 60_000).await.unwrap().unwrap();
    let raised = vec![
        issue(1, "creates-held", "/v1/accounts/left"),
        issue(2, "creates-held", "/v1/connections/x"),
        issue(3, "provider-quota", "/v1/connections/x"),
    ];
    service.store.end_round(&lease, round, raised).await.unwrap();
    let path = |n: u128| format!("/v1/issues/{}:acknowledge", Uuid::from_u128(n));
    for other in [2, 3] {
        let refused = service.ask(Method::POST, &path(other)).go(StatusCode::CONFLICT).await;
        assert_eq!(refused.body["code"], "conflict");
    }
    service.ask(Method::POST, &path(4)).go(StatusCode::NOT_FOUND).await;
    let operator = service.token("operator", "OPERATE").await;
    service.ask_as(&operator, Method::POST, &path(1)).go(StatusCode::FORBIDDEN).await;

    let ended = service.ask(Method::POST, &path(1)).go(StatusCode::OK).await;
    assert_eq!(ended.body["state"], "RESOLVED");
    let watch = service.store.account_watch(&account).await.unwrap();
    assert_eq!((watch.held, watch.accepted), (false, 9));
    let events = service.get("/v1/events").await;
    let kinds: Vec<_> = events["events"].as_array().unwrap().iter().map(|e: &Value| e["type"].clone()).collect();
    assert_eq!(kinds.last().unwrap(), "account.absenceAccepted");
    service.ask(Method::POST, &path(1)).go(StatusCode::CONFLICT).await;
    service.end().await;
}
