//! Instances and the ledger.

use serde_json::json;
use tieline_api::{
    plan::step::{CreateAnswer, Instance, Seen, Twin, Verdict},
    store::{Claim, EngineWrite, IssueAnswered, LedgerFacts, Store, StoreError},
};
use tieline_openapi::{
    ids::{ConnectionId, IssueId},
    problem::ProviderDetail,
    v1::{Issue, IssueState, Severity, Verb},
};
use tieline_providers::IdentityKind;

use super::{fixture::*, on_both};

on_both!(
    a_call_is_written_before_it_is_decided,
    the_ledger_outlives_its_instance,
    what_may_still_take_a_slot_is_told,
    a_resource_has_one_living_instance,
    a_twin_waits_for_its_connection,
    a_twin_wakes_a_connection_that_is_gone,
    an_answer_is_given_once,
);

async fn a_call_is_written_before_it_is_decided(db: Db) {
    db.created("a").await;
    let claim = db.claim("one").await;
    let mut instance = db.instance(1, 1);
    // The newer call has the smaller time: order is the order of writing, whatever the clock did.
    let (first, open_first) = db.call(&instance, Verb::Create, 100);
    let (second, open_second) = db.call(&instance, Verb::Delete, 50);
    let put = EngineWrite::PutInstance(Box::new(instance.clone()));
    db.store.write_fenced(&claim, vec![put, open_first, open_second]).await.unwrap();
    assert_eq!(db.store.load(&claim).await.unwrap().calls, [first.clone(), second.clone()]);

    instance.cloud_id = Some("vif-1".to_owned());
    instance.seen = Seen::Absent { since: ms(START), at: ms(START + 1), times: 1 };
    let decide = EngineWrite::DecideCall {
        id: first.id,
        verdict: Verdict::Accepted,
        at: ms(START + 200),
        cloud_id: Some("vif-1".to_owned()),
        request_id: Some("req".to_owned()),
    };
    let update = EngineWrite::UpdateInstance(Box::new(instance.clone()));
    db.store.write_fenced(&claim, vec![decide, update]).await.unwrap();
    let work = db.store.load(&claim).await.unwrap();
    assert_eq!((&work.calls[0].verdict, work.calls[0].decided_at), (&Verdict::Accepted, Some(ms(START + 200))));
    assert_eq!(work.calls[1], second);
    assert_eq!(work.record.instances, [instance.clone()]);
    assert_eq!(
        db.store.ledger_facts(instance.id).await.unwrap(),
        Some(LedgerFacts {
            connection_id: claim.id,
            project: project(),
            key: key(),
            cloud_id: Some("vif-1".to_owned()),
            retired_ms_ago: None,
            first_create_at: Some(ms(START + 100)),
            open: true,
            may_take_its_slot: false,
        })
    );
    assert_eq!(db.store.ledger_facts(db.uuid().into()).await.unwrap(), None);
}

async fn the_ledger_outlives_its_instance(db: Db) {
    db.created("a").await;
    let claim = db.claim("one").await;
    let instance = db.instance(1, 1);
    let (call, open) = db.call(&instance, Verb::Create, 0);
    let (lost, open_lost) = db.call(&instance, Verb::Delete, 1);
    let decide = EngineWrite::DecideCall {
        id: call.id,
        verdict: Verdict::FoundDone,
        at: ms(START + 2),
        cloud_id: Some("vif-9".to_owned()),
        request_id: None,
    };
    let put = EngineWrite::PutInstance(Box::new(instance.clone()));
    let retire = EngineWrite::RetireInstance(instance.id);
    db.store.write_fenced(&claim, vec![put, open, open_lost, decide, retire]).await.unwrap();
    let work = db.store.load(&claim).await.unwrap();
    assert!(work.record.instances.is_empty());
    assert_eq!(work.calls, [lost], "what has no verdict is not forgotten");
    let facts = db.store.ledger_facts(instance.id).await.unwrap().unwrap();
    assert!(facts.retired_ms_ago == Some(0) && facts.open);
    assert_eq!(facts.cloud_id.as_deref(), Some("vif-9"), "as the call was told");
}

async fn what_may_still_take_a_slot_is_told(db: Db) {
    db.created("a").await;
    let claim = db.claim("one").await;
    let refused = Verdict::Refused {
        kind: "Quota".to_owned(),
        detail: ProviderDetail {
            name: "fake".to_owned(),
            code: "Quota".to_owned(),
            message: "none is left".to_owned(),
            request_id: None,
        },
    };
    let cases = [
        (IdentityKind::Slot, Verb::Create, Verdict::FoundUndone, true),
        (IdentityKind::Slot, Verb::Create, Verdict::FoundDone, false),
        (IdentityKind::Slot, Verb::Create, Verdict::Accepted, false),
        (IdentityKind::Slot, Verb::Create, refused, false),
        (IdentityKind::Slot, Verb::Delete, Verdict::FoundUndone, false),
        (IdentityKind::Named, Verb::Create, Verdict::FoundUndone, false),
    ];
    for (n, (identity, verb, verdict, expected)) in cases.into_iter().enumerate() {
        let instance = db.instance(1, u32::try_from(n).unwrap() + 1);
        let put = EngineWrite::PutInstance(Box::new(instance.clone()));
        let (call, mut open) = db.call(&instance, verb, 0);
        let EngineWrite::OpenCall { call: row, .. } = &mut open else { panic!("{open:?}") };
        row.identity = identity;
        let what = format!("{verb:?} {identity:?} {verdict:?}");
        let decide =
            EngineWrite::DecideCall { id: call.id, verdict, at: ms(START + 1), cloud_id: None, request_id: None };
        // What follows it changes nothing.
        let (after, open_after) = db.call(&instance, Verb::Delete, 2);
        let done = EngineWrite::DecideCall {
            id: after.id,
            verdict: Verdict::Accepted,
            at: ms(START + 3),
            cloud_id: None,
            request_id: None,
        };
        db.store.write_fenced(&claim, vec![put, open, decide, open_after, done]).await.unwrap();
        let facts = db.store.ledger_facts(instance.id).await.unwrap().unwrap();
        assert_eq!((facts.may_take_its_slot, facts.open), (expected, false), "{what}");
    }
}

async fn a_resource_has_one_living_instance(db: Db) {
    db.created("a").await;
    let claim = db.claim("one").await;
    let put = |instance| EngineWrite::PutInstance(Box::new(instance));
    let first = db.instance(1, 1);
    db.store.write_fenced(&claim, vec![put(first.clone())]).await.unwrap();
    db.store.write_fenced(&claim, vec![put(first.clone())]).await.unwrap();
    let twin = db.store.write_fenced(&claim, vec![put(db.instance(1, 1))]).await;
    assert!(matches!(twin, Err(StoreError::AllocationTaken { .. })));
    // Of another generation, or after the first is gone for good.
    db.store.write_fenced(&claim, vec![put(db.instance(1, 2))]).await.unwrap();
    let writes = vec![EngineWrite::RetireInstance(first.id), put(db.instance(1, 1))];
    db.store.write_fenced(&claim, writes).await.unwrap();
    assert_eq!(db.store.load(&claim).await.unwrap().record.instances.len(), 2);
    let unclaimed = db.store.write_unclaimed(vec![put(db.instance(2, 1))]).await;
    assert!(matches!(unclaimed, Err(StoreError::Invalid { .. })));
}

fn found(db: &Db, of: &Instance, cloud_id: &str) -> EngineWrite {
    let twin = Twin { of: of.id, parent: Some("router".to_owned()), fields: json!({ "vlan": 7 }) };
    EngineWrite::FoundTwin { id: db.uuid().into(), twin: Box::new(twin), cloud_id: cloud_id.to_owned() }
}

/// A connection with one instance that was made as `vif-1`.
async fn made(db: &Db) -> (Claim, Instance) {
    db.created("a").await;
    let claim = db.claim("one").await;
    let instance = Instance { cloud_id: Some("vif-1".to_owned()), ..db.instance(1, 1) };
    db.store.write_fenced(&claim, vec![EngineWrite::PutInstance(Box::new(instance.clone()))]).await.unwrap();
    (claim, instance)
}

async fn a_twin_waits_for_its_connection(db: Db) {
    let (claim, instance) = made(&db).await;
    db.store.write_fenced(&claim, vec![release(600_000)]).await.unwrap();
    db.store.write_unclaimed(vec![found(&db, &instance, "vif-2")]).await.unwrap();
    // Seen by the next sweep too: one row.
    db.store.write_unclaimed(vec![found(&db, &instance, "vif-2")]).await.unwrap();
    let claim = db.claim("two").await;
    let work = db.store.load(&claim).await.unwrap();
    let [own, twin] = work.record.instances.as_slice() else { panic!("{:?}", work.record.instances) };
    assert_eq!((own, twin.named(), twin.cloud_id.as_deref()), (&instance, instance.id, Some("vif-2")));
    assert_eq!((&twin.channel_id, &twin.key, &twin.account_id), (&own.channel_id, &own.key, &own.account_id));
    let (call, open) = db.call(twin, Verb::Delete, 0);
    db.store.write_fenced(&claim, vec![open]).await.unwrap();
    assert_eq!(db.store.load(&claim).await.unwrap().calls, [call]);
    // Users do not see it.
    assert_eq!(db.store.connection(&project(), claim.id).await.unwrap().instances, std::slice::from_ref(&instance));
    db.store.write_fenced(&claim, vec![EngineWrite::RetireInstance(twin.id)]).await.unwrap();
    assert_eq!(db.store.load(&claim).await.unwrap().record.instances, [instance]);
}

async fn a_twin_wakes_a_connection_that_is_gone(db: Db) {
    let (claim, instance) = made(&db).await;
    let remove = || EngineWrite::Remove { quarantine_ms: 1_000 };
    db.store.write_fenced(&claim, vec![remove()]).await.unwrap();
    assert!(db.store.claim("two", LEASE, 8).await.unwrap().is_empty(), "nothing is left to do");
    assert_eq!(db.store.next_due(1_000).await.unwrap(), None);
    db.store.write_unclaimed(vec![found(&db, &instance, "vif-1")]).await.unwrap();
    assert_eq!(db.store.next_due(1_000).await.unwrap(), Some(0));
    let late = db.store.write_fenced(&claim, vec![]).await;
    assert!(matches!(late, Err(StoreError::Fenced)));
    let gone = db.claim("two").await;
    assert!(gone.gone && gone.id == claim.id && gone.epoch > claim.epoch);
    let work = db.store.load(&gone).await.unwrap();
    let [twin] = work.record.instances.as_slice() else { panic!("{:?}", work.record.instances) };
    let (call, open) = db.call(twin, Verb::Delete, 0);
    db.store.write_fenced(&gone, vec![open, release(5_000)]).await.unwrap();
    assert_eq!(db.store.next_due(9_000).await.unwrap(), Some(5_000));
    db.at(5_000).await;
    let gone = db.claim("three").await;
    assert_eq!(db.store.load(&gone).await.unwrap().calls, [call]);
    assert!(matches!(db.store.connection(&project(), gone.id).await, Err(StoreError::NotFound)));
    // Another one turns up just before the end: it is not forgotten.
    db.store.write_unclaimed(vec![found(&db, &instance, "vif-9")]).await.unwrap();
    db.store.write_fenced(&gone, vec![EngineWrite::RetireInstance(twin.id), remove()]).await.unwrap();
    let gone = db.claim("four").await;
    let left = db.store.load(&gone).await.unwrap().record.instances;
    assert_eq!(left.len(), 1);
    db.store.write_fenced(&gone, vec![EngineWrite::RetireInstance(left[0].id), remove()]).await.unwrap();
    assert!(db.store.claim("five", LEASE, 8).await.unwrap().is_empty());
}

async fn an_answer_is_given_once(db: Db) {
    let (claim, recorded) = made(&db).await;
    let asked = db.instance(2, 1);
    let (call, open) = db.call(&asked, Verb::Create, 0);
    let resource = format!("/v1/connections/{}/channels/ch2/a/fake.attachment", claim.id);
    let issue = Issue {
        id: IssueId(db.uuid()),
        severity: Severity::Error,
        code: "create-without-answer".to_owned(),
        about: vec![format!("/v1/connections/{}", claim.id), resource.clone()],
        title: "lost".to_owned(),
        cost: None,
        remediation: "look".to_owned(),
        state: IssueState::Open,
        created_at: ms(START),
        resolved_at: None,
    };
    let raise = EngineWrite::RaiseIssue { project: project(), issue: Box::new(issue.clone()) };
    let put = EngineWrite::PutInstance(Box::new(asked));
    db.store.write_fenced(&claim, vec![put, open, raise, release(600_000)]).await.unwrap();
    let answer = |answer: CreateAnswer| IssueAnswered {
        issue: issue.id,
        project: project(),
        resource: resource.clone(),
        answer,
        event: event("issue.answered", ConnectionId(issue.id.uuid())),
        audit: audit("resolveIssue"),
        idempotency: None,
    };
    let created = |id: &str| CreateAnswer::Created { cloud_id: id.to_owned() };
    let other = IssueAnswered { resource: resource.replace("ch2", "ch1"), ..answer(created("vif-7")) };
    assert!(matches!(db.store.answer_issue(other).await, Err(StoreError::NotAsked)));
    let taken = db.store.answer_issue(answer(created(recorded.cloud_id.as_deref().unwrap()))).await;
    assert!(matches!(taken, Err(StoreError::AllocationTaken { .. })), "recorded as another resource");
    db.store.answer_issue(answer(created("vif-7"))).await.unwrap();
    assert!(matches!(db.store.answer_issue(answer(CreateAnswer::NotCreated)).await, Err(StoreError::NotAsked)));
    let claim = db.claim("two").await;
    assert_eq!(db.store.load(&claim).await.unwrap().calls[0].answer, Some(created("vif-7")));

    let misfit = CreateAnswer::Misfit { cloud_id: "vif-7".to_owned(), why: "is not there".to_owned() };
    let refuse = EngineWrite::RefuseAnswer { id: call.id, answer: misfit.clone() };
    db.store.write_fenced(&claim, vec![refuse]).await.unwrap();
    assert_eq!(db.store.load(&claim).await.unwrap().calls[0].answer, Some(misfit));
    db.store.answer_issue(answer(CreateAnswer::NotCreated)).await.unwrap();
    assert_eq!(db.store.load(&claim).await.unwrap().calls[0].answer, Some(CreateAnswer::NotCreated));
    // Decided: nobody asks any more.
    let verdict = Verdict::FoundUndone;
    let decide = EngineWrite::DecideCall { id: call.id, verdict, at: ms(START), cloud_id: None, request_id: None };
    db.store.write_fenced(&claim, vec![decide]).await.unwrap();
    assert!(matches!(db.store.answer_issue(answer(created("vif-8"))).await, Err(StoreError::NotAsked)));
}
