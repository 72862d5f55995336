//! A person's answer to an issue.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tieline_api::{
    plan::step::{CreateAnswer, Instance, ProviderCall, Seen, Verdict},
    store::{EngineWrite, Store},
};
use tieline_openapi::{
    ids::{ConnectionId, InstanceId, IssueId, ProviderCallId},
    v1::{End, Issue, IssueState, Severity, Timestamp, Verb},
};
use tieline_providers::{IdentityKind, ResourceKey, fake::ATTACHMENT};
use uuid::Uuid;

use super::{
    fixture::{Backing, Go, Service},
    on_both,
};

on_both!(what_nothing_can_tell_a_person_tells_once);

/// A connection that waits for a person, and the issue that says so.
async fn stopped(service: &Service) -> (IssueId, String) {
    let made = service.create("one").await;
    let id: ConnectionId = made.body["id"].as_str().unwrap().parse().unwrap();
    let claim = service.store.claim("test", 60_000, 1).await.unwrap().remove(0);
    let instance = Instance {
        id: InstanceId(Uuid::from_u128(1)),
        channel_id: "ch1".parse().unwrap(),
        channel_generation: 1,
        key: ResourceKey { end: End::A, kind: ATTACHMENT },
        account_id: "left".parse().unwrap(),
        cloud_id: None,
        seen: Seen::Never,
        twin: None,
    };
    let call = ProviderCall {
        id: ProviderCallId(Uuid::from_u128(2)),
        instance_id: instance.id,
        verb: Verb::Create,
        identity: IdentityKind::Blind,
        written_at: Timestamp::UNIX_EPOCH,
        deadline: Timestamp::UNIX_EPOCH,
        verdict: Verdict::Open,
        decided_at: None,
        answer: None,
    };
    let resource = format!("/v1/connections/{id}/channels/ch1/a/{ATTACHMENT}");
    let issue = Issue {
        id: IssueId(Uuid::from_u128(3)),
        severity: Severity::Error,
        code: "create-without-answer".to_owned(),
        about: vec![format!("/v1/connections/{id}"), resource.clone()],
        title: "lost".to_owned(),
        cost: None,
        remediation: "look".to_owned(),
        state: IssueState::Open,
        created_at: Timestamp::UNIX_EPOCH,
        resolved_at: None,
    };
    let writes = vec![
        EngineWrite::PutInstance(Box::new(instance.clone())),
        EngineWrite::OpenCall {
            call: Box::new(call),
            key: instance.key,
            account_id: instance.account_id,
            name: "n".to_owned(),
            token: "t".to_owned(),
            digest: [0; 32],
        },
        EngineWrite::RaiseIssue { project: "default".parse().unwrap(), issue: Box::new(issue.clone()) },
        EngineWrite::Release { due_in_ms: 600_000, failures: 0, progress: false },
    ];
    service.store.write_fenced(&claim, writes).await.unwrap();
    (issue.id, resource)
}

async fn what_nothing_can_tell_a_person_tells_once(backing: Backing) {
    let service = Service::start(backing).await;
    let (id, resource) = stopped(&service).await;
    let path = format!("/v1/issues/{id}:resolve");
    let tell = |body: Value| service.ask(Method::POST, &path).json(&body);
    let refused = async |body: Value, pointers: &[&str]| {
        let answer = tell(body).go(StatusCode::BAD_REQUEST).await;
        assert_eq!(answer.pointers(), pointers, "{}", answer.text);
    };
    refused(json!({ "resource": resource, "outcome": "CREATED" }), &["/cloudId"]).await;
    refused(json!({ "resource": resource, "outcome": "CREATED", "cloudId": "" }), &["/cloudId"]).await;
    refused(json!({ "resource": resource, "outcome": "NOT_CREATED", "cloudId": "x" }), &["/cloudId"]).await;
    refused(json!({ "resource": "x".repeat(401), "outcome": "NOT_CREATED" }), &["/resource"]).await;
    refused(json!({ "resource": resource, "outcome": "PERHAPS" }), &["/outcome"]).await;
    tell(json!({ "resource": "/v1/other", "outcome": "NOT_CREATED" })).go(StatusCode::CONFLICT).await;
    let other = service.ask(Method::POST, &format!("/v1/issues/{}:resolve", Uuid::from_u128(9)));
    other.json(&json!({ "resource": resource, "outcome": "NOT_CREATED" })).go(StatusCode::NOT_FOUND).await;

    let found = json!({ "resource": resource, "outcome": "CREATED", "cloudId": "attachment-7" });
    let told = tell(found.clone()).header("idempotency-key", "k").go(StatusCode::ACCEPTED).await;
    assert_eq!((told.body["id"].as_str(), told.body["state"].as_str()), (Some(&*id.to_string()), Some("OPEN")));
    let again = tell(found.clone()).header("idempotency-key", "k").go(StatusCode::ACCEPTED).await;
    assert_eq!((again.header("idempotent-replayed"), &again.body), ("true", &told.body));
    let changed = json!({ "resource": resource, "outcome": "NOT_CREATED" });
    tell(changed).header("idempotency-key", "k").go(StatusCode::UNPROCESSABLE_ENTITY).await;
    tell(found).go(StatusCode::CONFLICT).await;

    // The connection is due at once, and its next pass knows.
    let claim = service.store.claim("test", 60_000, 1).await.unwrap().remove(0);
    let calls = service.store.load(&claim).await.unwrap().calls;
    assert_eq!(calls[0].answer, Some(CreateAnswer::Created { cloud_id: "attachment-7".to_owned() }));
    let events = service.get("/v1/events").await;
    let told = events["events"].as_array().unwrap().iter().find(|event| event["type"] == "issue.answered");
    assert_eq!(told.unwrap()["subject"], format!("/v1/issues/{id}"));
    let asked = ("resolveIssue".to_owned(), format!("/v1/issues/{id}"));
    let audit = service.audit().await;
    assert_eq!(audit.into_iter().filter(|(_, action, subject)| (action, subject) == (&asked.0, &asked.1)).count(), 1);
    service.end().await;
}
