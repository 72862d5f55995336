//! What is not kept for ever.

use tieline_api::{
    plan::step::Verdict,
    store::{ChangeTo, EngineWrite, HousekeepingLimits, Page, ReportEffects, Store},
};
use tieline_openapi::v1::{Observations, Operation, OperationState, PathKind, PathSample, PathState, Verb};

use super::{fixture::*, on_both};

on_both!(samples_are_kept_for_their_time, what_is_over_is_kept_for_its_time,);

async fn samples_are_kept_for_their_time(db: Db) {
    let (a, b) = (db.joined("point-a").await, db.joined("point-b").await);
    let id = db.created("one").await;
    let sample = |peer_id, at| PathSample {
        connection_id: id,
        peer_id,
        path: PathKind::Tunnel,
        state: PathState::Up,
        carries: false,
        at: ms(START + at),
        sent: 1,
        received: 1,
        rtt_us: None,
        rtt_p99_us: None,
        jitter_us: None,
        loss_out_ppm: 0,
        loss_in_ppm: 0,
        dead_ports: 0,
        bytes_out: 0,
        bytes_in: 0,
    };
    let samples = vec![sample(b, 0), sample(a, 10_000)];
    let report = Observations { sequence: 1, configuration_version: None, samples, changes: Vec::new() };
    db.store.observe(a, &report, ms(START), ReportEffects::default()).await.unwrap();
    let limits = HousekeepingLimits { samples_ms: 60_000, ..HousekeepingLimits::default() };
    db.at(59_999).await;
    db.store.housekeep(&limits).await.unwrap();
    assert_eq!(db.store.latest_samples(id).await.unwrap().len(), 2);
    db.at(60_000).await;
    db.store.housekeep(&limits).await.unwrap();
    assert_eq!(db.store.latest_samples(id).await.unwrap(), [sample(a, 10_000)]);
}

const DAY: i64 = 24 * 3_600_000;

async fn what_is_over_is_kept_for_its_time(db: Db) {
    let id = db.created("a").await;
    let living = db.created("b").await;
    db.store.change_connection(db.change(living, 1, ChangeTo::Deletion)).await.unwrap();
    let claims = db.store.claim("one", LEASE, 8).await.unwrap();
    let claim = claims.iter().find(|claim| claim.id == id).unwrap();
    let instance = db.instance(1, 1);
    let (call, open) = db.call(&instance, Verb::Create, 0);
    let verdict = Verdict::Accepted;
    let decide = EngineWrite::DecideCall { id: call.id, verdict, at: ms(START), cloud_id: None, request_id: None };
    let first = db.store.connection(&project(), id).await.unwrap().last_operation;
    let operation = db.store.operation(&project(), first).await.unwrap();
    let ended = Operation { state: OperationState::Succeeded, finished_at: Some(ms(START)), ..operation };
    let end = EngineWrite::PutOperation(Box::new(ended));
    let put = EngineWrite::PutInstance(Box::new(instance.clone()));
    let remove = EngineWrite::Remove { quarantine_ms: 1_000 };
    db.store.write_fenced(claim, vec![put, open, decide, end, remove]).await.unwrap();
    // A second instance, of the living connection, without a verdict: it is not forgotten, however old.
    let claim = claims.iter().find(|claim| claim.id == living).unwrap();
    let undecided = db.instance(1, 1);
    let (_, open) = db.call(&undecided, Verb::Create, 0);
    let put = EngineWrite::PutInstance(Box::new(undecided.clone()));
    db.store.write_fenced(claim, vec![put, open, EngineWrite::RetireInstance(undecided.id)]).await.unwrap();

    let operations =
        async || db.store.operations(&project(), None, Page { limit: 9, after: None }).await.unwrap().len();
    db.at(90 * DAY - 1).await;
    db.store.housekeep(&HousekeepingLimits::default()).await.unwrap();
    assert!(db.store.ledger_facts(instance.id).await.unwrap().is_some());
    assert_eq!((operations().await, db.audit_rows().await), (3, 3));
    db.at(90 * DAY + 1).await;
    db.store.housekeep(&HousekeepingLimits::default()).await.unwrap();
    assert_eq!(db.store.ledger_facts(instance.id).await.unwrap(), None);
    assert!(db.store.ledger_facts(undecided.id).await.unwrap().is_some());
    assert_eq!((operations().await, db.audit_rows().await), (1, 3), "the last one of a living connection stays");
    db.at(400 * DAY + 1).await;
    db.store.housekeep(&HousekeepingLimits::default()).await.unwrap();
    assert_eq!(db.audit_rows().await, 0);
}
