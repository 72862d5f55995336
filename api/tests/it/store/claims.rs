//! The claim, the lease and the fence.

use tieline_api::store::{ChangeTo, Claim, EngineStatus, EngineWrite, Store, StoreError, StoreTime};
use tieline_openapi::v1::ConnectionState;

use super::{fixture::*, on_both};

on_both!(
    a_due_connection_is_claimed_once,
    a_lease_that_ran_out_is_taken_over,
    a_stale_owner_writes_nothing,
    a_release_ends_the_claim,
    a_change_during_a_pass_is_due_at_its_end,
    a_change_does_not_touch_the_lease,
    a_clock_that_steps_back_does_not_strand_anybody,
    the_wait_is_as_long_as_the_next_due_time,
    a_failed_write_takes_the_others_with_it,
    unchanged_passes_are_released_together,
    the_work_is_loaded_under_the_claim,
    removal_keeps_what_outlives_a_connection,
    shared_leases_are_held_by_one,
    the_databases_own_time_runs,
);

async fn a_due_connection_is_claimed_once(db: Db) {
    let ids = [db.created("a").await, db.created("b").await, db.created("c").await];
    let first = db.store.claim("one", LEASE, 2).await.unwrap();
    let second = db.store.claim("two", LEASE, 64).await.unwrap();
    assert_eq!((first.len(), second.len()), (2, 1));
    let mut claimed: Vec<_> = first.iter().chain(&second).map(|c| c.id).collect();
    claimed.sort();
    assert_eq!(claimed, ids);
    assert!(first.iter().all(|c| c.epoch == 1 && c.owner == "one" && c.lease_ms == LEASE));
    assert!(db.store.claim("three", LEASE, 64).await.unwrap().is_empty());
}

async fn a_lease_that_ran_out_is_taken_over(db: Db) {
    let id = db.created("a").await;
    let first = db.claim("one").await;
    db.at(LEASE as i64 - 1).await;
    assert!(db.store.claim("two", LEASE, 64).await.unwrap().is_empty());
    db.at(LEASE as i64).await;
    let second = db.claim("two").await;
    assert_eq!((second.id, second.epoch), (id, first.epoch + 1));
}

async fn a_stale_owner_writes_nothing(db: Db) {
    let id = db.created("a").await;
    let stale = db.claim("one").await;
    let cursor = db.store.last_cursor().await.unwrap();
    db.at(LEASE as i64).await;
    let owner = db.claim("two").await;
    let instance = db.instance(1, 1);
    let writes = || vec![EngineWrite::PutInstance(Box::new(instance.clone())), EngineWrite::Event(event("x.y", id))];
    assert!(matches!(db.store.write_fenced(&stale, writes()).await, Err(StoreError::Fenced)));
    assert!(matches!(db.store.load(&stale).await, Err(StoreError::Fenced)));
    assert!(db.store.load(&owner).await.unwrap().record.instances.is_empty());
    assert_eq!(db.store.last_cursor().await.unwrap(), cursor);
    db.store.write_fenced(&owner, writes()).await.unwrap();
    assert_eq!(db.store.load(&owner).await.unwrap().record.instances, [instance]);
}

async fn a_release_ends_the_claim(db: Db) {
    db.created("a").await;
    let claim = db.claim("one").await;
    db.at(10).await;
    let failed = EngineWrite::Release { due_in_ms: 500, failures: 3, progress: false };
    db.store.write_fenced(&claim, vec![failed]).await.unwrap();
    // A write whose answer was lost must not be made twice.
    assert!(matches!(db.store.write_fenced(&claim, vec![]).await, Err(StoreError::Fenced)));
    db.at(509).await;
    assert!(db.store.claim("two", LEASE, 64).await.unwrap().is_empty());
    db.at(510).await;
    let claim = db.claim("two").await;
    let work = db.store.load(&claim).await.unwrap();
    assert_eq!((work.failures, work.last_progress_at), (3, ms(START)));
    db.store.write_fenced(&claim, vec![release(0)]).await.unwrap();
    let work = db.store.load(&db.claim("two").await).await.unwrap();
    assert_eq!((work.failures, work.last_progress_at), (0, ms(START + 510)));
}

async fn a_change_during_a_pass_is_due_at_its_end(db: Db) {
    let id = db.created("a").await;
    let claim = db.claim("one").await;
    db.store.change_connection(db.change(id, 1, ChangeTo::Deletion)).await.unwrap();
    db.store.write_fenced(&claim, vec![release(3_600_000)]).await.unwrap();
    let again = db.claim("one").await;
    db.store.write_fenced(&again, vec![release(3_600_000)]).await.unwrap();
    assert!(db.store.claim("one", LEASE, 64).await.unwrap().is_empty(), "the wake-up counts once");
}

async fn a_change_does_not_touch_the_lease(db: Db) {
    let id = db.created("a").await;
    let claim = db.claim("one").await;
    db.store.change_connection(db.change(id, 1, ChangeTo::Deletion)).await.unwrap();
    assert!(db.store.claim("two", LEASE, 64).await.unwrap().is_empty());
    db.store.write_fenced(&claim, vec![]).await.unwrap();
}

async fn a_clock_that_steps_back_does_not_strand_anybody(db: Db) {
    const HOUR: i64 = 3_600_000;
    db.at(48 * HOUR).await;
    db.created("a").await;
    let claim = db.claim("one").await;
    db.store.write_fenced(&claim, vec![release(60_000)]).await.unwrap();
    // Ten minutes back: it is due that much later than meant, which is still a wait that somebody could have asked for.
    db.at(48 * HOUR - 600_000).await;
    assert!(db.store.claim("one", LEASE, 64).await.unwrap().is_empty());
    assert_eq!(db.store.next_due(10_000).await.unwrap(), Some(10_000));
    // Further back than the longest wait: due at once.
    db.at(0).await;
    assert_eq!(db.store.next_due(10_000).await.unwrap(), Some(0));
    assert_eq!(db.store.claim("one", LEASE, 64).await.unwrap().len(), 1);
}

async fn the_wait_is_as_long_as_the_next_due_time(db: Db) {
    assert_eq!(db.store.next_due(10_000).await.unwrap(), None);
    db.created("a").await;
    assert_eq!(db.store.next_due(10_000).await.unwrap(), Some(0));
    let claim = db.claim("one").await;
    assert_eq!(db.store.next_due(10_000).await.unwrap(), Some(10_000), "it may have to be taken over after the lease");
    assert_eq!(db.store.next_due(100_000).await.unwrap(), Some(LEASE));
    db.store.write_fenced(&claim, vec![release(4_000)]).await.unwrap();
    db.at(1_000).await;
    assert_eq!(db.store.next_due(10_000).await.unwrap(), Some(3_000));
    db.at(9_000).await;
    assert_eq!(db.store.next_due(10_000).await.unwrap(), Some(0));
}

async fn a_failed_write_takes_the_others_with_it(db: Db) {
    let id = db.created("a").await;
    let claim = db.claim("one").await;
    let cursor = db.store.last_cursor().await.unwrap();
    let status = EngineStatus { state: Some(ConnectionState::Active), ..EngineStatus::default() };
    let writes = vec![
        EngineWrite::PutStatus { status: Box::new(status), observed_generation: Some(1) },
        EngineWrite::Event(event("x.y", id)),
        EngineWrite::PutInstance(Box::new(db.instance(1, 1))),
        EngineWrite::PutInstance(Box::new(db.instance(1, 1))),
    ];
    let failed = db.store.write_fenced(&claim, writes).await;
    assert!(matches!(failed, Err(StoreError::AllocationTaken { .. })), "two living instances of one resource");
    let record = db.store.connection(&project(), id).await.unwrap();
    assert_eq!((record.status.state, record.observed_generation), (None, 0));
    assert!(record.instances.is_empty());
    assert_eq!(db.store.last_cursor().await.unwrap(), cursor);
}

async fn unchanged_passes_are_released_together(db: Db) {
    for name in ["a", "b", "c"] {
        db.created(name).await;
    }
    let claims = db.store.claim("one", LEASE, 2).await.unwrap();
    let lost = Claim { epoch: 99, ..db.claim("one").await };
    let releases = claims.into_iter().chain([lost]).map(|c| (c, 5_000)).collect();
    db.store.release_unchanged(releases).await.unwrap();
    db.at(4_999).await;
    assert!(db.store.claim("one", LEASE, 64).await.unwrap().is_empty());
    db.at(5_000).await;
    assert_eq!(db.store.claim("one", LEASE, 64).await.unwrap().len(), 2);
}

async fn the_work_is_loaded_under_the_claim(db: Db) {
    let mut new = db.connection("a");
    let secret = tieline_api::store::SealedSecret {
        channel_id: channel_id(1),
        generation: 1,
        name: "bgpPassword".to_owned(),
        sealed: vec![0, 1, 255],
    };
    new.secrets = vec![secret.clone()];
    let (id, operation) = (new.id, new.operation.clone());
    db.store.create_connection(new).await.unwrap();
    let claim = db.claim("one").await;
    let put =
        EngineWrite::PutChannel { channel: Box::new(channel(id, 1, 2)), allocations: Vec::new(), secrets: Vec::new() };
    db.store.write_fenced(&claim, vec![put]).await.unwrap();
    let work = db.store.load(&claim).await.unwrap();
    assert_eq!(work.record.negotiated.channels, [channel(id, 1, 2)]);
    assert_eq!(work.channels, [channel(id, 1, 1), channel(id, 1, 2)]);
    assert_eq!((work.secrets, work.operation), (vec![secret], Some(operation)));

    let retire = EngineWrite::RetireChannel { channel_id: channel_id(1), generation: 1, quarantine_ms: 5 };
    // The engine does not bring back a channel that the intent has dropped.
    let dropped =
        EngineWrite::PutChannel { channel: Box::new(channel(id, 2, 1)), allocations: Vec::new(), secrets: Vec::new() };
    db.store.write_fenced(&claim, vec![retire, dropped]).await.unwrap();
    let work = db.store.load(&claim).await.unwrap();
    assert_eq!(work.channels, [channel(id, 1, 2), channel(id, 2, 1)]);
    assert_eq!(work.record.negotiated.channels, [channel(id, 1, 2)]);
    assert!(work.secrets.is_empty());
}

async fn removal_keeps_what_outlives_a_connection(db: Db) {
    let mut new = db.connection("a");
    new.allocations = vec![vlan(1, 1, 100), bandwidth(1, 1_000, 1_000)];
    let (id, operation) = (new.id, new.operation.id);
    db.store.create_connection(new).await.unwrap();
    let claim = db.claim("one").await;
    let instance = db.instance(1, 1);
    db.store.write_fenced(&claim, vec![EngineWrite::PutInstance(Box::new(instance.clone()))]).await.unwrap();
    let writes = vec![EngineWrite::Remove { quarantine_ms: 1_000 }, EngineWrite::Event(event("gone", id)), release(0)];
    db.store.write_fenced(&claim, writes).await.unwrap();

    assert!(matches!(db.store.connection(&project(), id).await, Err(StoreError::NotFound)));
    assert!(matches!(db.store.write_fenced(&claim, vec![]).await, Err(StoreError::Fenced)));
    assert_eq!(db.store.next_due(1_000).await.unwrap(), None);
    assert_eq!(db.store.operation(&project(), operation).await.unwrap().id, operation);
    assert_eq!(db.store.events(&project(), 0, 9).await.unwrap().len(), 2);
    let facts = db.store.ledger_facts(instance.id).await.unwrap().unwrap();
    assert!(facts.retired_ms_ago == Some(0) && facts.connection_id == id);
    let allocated = db.allocated().await;
    assert_eq!((allocated.vlans.len(), allocated.bandwidth.len()), (1, 0), "the VLAN waits in quarantine");
    // The name is free again.
    db.created("a").await;
}

async fn shared_leases_are_held_by_one(db: Db) {
    let first = db.store.lease_shared("router", "one", LEASE).await.unwrap().unwrap();
    assert_eq!((first.released_ms_ago, first.note.clone()), (None, serde_json::Value::Null));
    assert_eq!(db.store.lease_shared("router", "two", LEASE).await.unwrap(), None);
    assert_eq!(db.store.lease_shared("router", "one", LEASE).await.unwrap(), None, "nor a second time by the same");
    assert!(db.store.lease_shared("other", "two", LEASE).await.unwrap().is_some());

    let note = serde_json::json!({ "open": true });
    db.store.release_shared(&first, note.clone()).await.unwrap();
    db.at(250).await;
    let second = db.store.lease_shared("router", "two", LEASE).await.unwrap().unwrap();
    assert_eq!((second.released_ms_ago, second.note, second.epoch), (Some(250), note.clone(), first.epoch + 1));
    assert!(matches!(db.store.release_shared(&first, note.clone()).await, Err(StoreError::Fenced)));

    db.at(250 + LEASE as i64).await;
    let third = db.store.lease_shared("router", "one", LEASE).await.unwrap().unwrap();
    assert_eq!((third.released_ms_ago, third.note), (None, note), "it ran out: nobody gave it back");
}

async fn the_databases_own_time_runs(db: Db) {
    db.created("a").await;
    let db = db.reopened(StoreTime::Database).await;
    let (before, after) = (db.store.now().await.unwrap(), db.store.now().await.unwrap());
    assert!(ms(START) < before && before <= after, "{before} {after}");
    let claim = db.claim("one").await;
    db.store.write_fenced(&claim, vec![release(600_000)]).await.unwrap();
    let wait = db.store.next_due(7_200_000).await.unwrap().unwrap();
    assert!((540_000..=600_000).contains(&wait), "{wait}");
}
