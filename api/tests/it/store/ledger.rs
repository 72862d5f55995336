//! Instances and the ledger.

use tieline_api::{
    plan::step::{Seen, Verdict},
    store::{EngineWrite, LedgerFacts, Store, StoreError},
};
use tieline_openapi::v1::Verb;

use super::{fixture::*, on_both};

on_both!(a_call_is_written_before_it_is_decided, the_ledger_outlives_its_instance, a_resource_has_one_living_instance,);

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
            live: true,
            first_create_at: Some(ms(START + 100)),
            open: true,
            last_verb: Some(Verb::Delete),
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
    assert!(!facts.live && facts.open);
    assert_eq!(facts.cloud_id.as_deref(), Some("vif-9"), "as the call was told");
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
