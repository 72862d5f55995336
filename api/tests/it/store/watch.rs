//! What the lists of accounts showed.

use tieline_api::{
    plan::step::{Instance, Seen},
    store::{
        Acceptance, AccountRound, AccountWatch, ChangeTo, EngineWrite, Page, SharedLease, Sighting, Store, StoreError,
        Watch,
    },
};
use tieline_openapi::{
    ids::{AccountId, ConnectionId, IssueId},
    v1::{Issue, IssueState, Severity},
};

use super::{fixture::*, on_both};

on_both!(
    only_settled_connections_are_expected,
    what_a_list_showed_is_written_and_due,
    a_claimed_connection_is_passed_over,
    a_lost_lease_writes_nothing,
    a_change_of_intent_ends_the_watch,
    a_hold_is_seen_by_every_replica_and_lifted_once,
    a_round_is_dated_by_the_stores_time,
    a_calm_account_is_stirred_by_what_any_list_shows,
    a_lease_can_be_made_to_last,
    an_observation_is_as_old_as_the_last_list,
);

fn account() -> AccountId {
    "fake-a".parse().unwrap()
}

async fn lease(db: &Db) -> SharedLease {
    db.store.lease_shared("inventory/fake-a", "one", LEASE).await.unwrap().unwrap()
}

fn round(held: bool) -> AccountRound {
    AccountRound {
        account_id: account(),
        began_ms_ago: 0,
        observed_at: Some(ms(START)),
        swept: true,
        failures: 0,
        expected: 40,
        absent: 12,
        accepted: 0,
        held,
        calm: false,
    }
}

/// A settled connection with one instance that the cloud has given an id.
async fn settled(db: &Db, name: &str) -> (ConnectionId, Instance) {
    let id = db.created(name).await;
    let claim = db.claim("one").await;
    let mut instance = db.instance(1, 1);
    instance.cloud_id = Some(format!("cloud-{name}"));
    let writes = vec![
        EngineWrite::PutInstance(Box::new(instance.clone())),
        EngineWrite::PutWatch(Watch::List),
        release(600_000),
    ];
    db.store.write_fenced(&claim, writes).await.unwrap();
    (id, instance)
}

async fn expected(db: &Db) -> Vec<(ConnectionId, Watch, Seen)> {
    let all = db.store.expected(&account(), None, 100).await.unwrap();
    all.into_iter().map(|e| (e.connection_id, e.watch, e.instance.seen)).collect()
}

fn issue(db: &Db) -> Issue {
    Issue {
        id: IssueId(db.uuid()),
        severity: Severity::Error,
        code: "creates-held".to_owned(),
        about: vec!["/v1/accounts/fake-a".to_owned()],
        title: "much is absent".to_owned(),
        cost: None,
        remediation: "look".to_owned(),
        state: IssueState::Open,
        created_at: ms(START),
        resolved_at: None,
    }
}

fn absent(at: i64) -> Seen {
    Seen::Absent { since: ms(START + at), at: ms(START + at), times: 1 }
}

fn sighting(id: ConnectionId, instance: &Instance, seen: Seen, doubt: bool) -> Sighting {
    Sighting { connection_id: id, instances: vec![Instance { seen, ..instance.clone() }], doubt }
}

async fn only_settled_connections_are_expected(db: Db) {
    let (first, one) = settled(&db, "a").await;
    let (second, _) = settled(&db, "b").await;
    // On its way, and settled without anything that a list could show.
    db.created("c").await;
    let claim = db.claim("one").await;
    let mut other = db.instance(1, 1);
    other.cloud_id = Some("cloud-c".to_owned());
    let writes = vec![EngineWrite::PutInstance(Box::new(other)), release(600_000)];
    db.store.write_fenced(&claim, writes).await.unwrap();
    assert_eq!(expected(&db).await, [(first, Watch::List, Seen::Never), (second, Watch::List, Seen::Never)]);
    let rest = db.store.expected(&account(), Some(one.id), 100).await.unwrap();
    assert_eq!(rest.into_iter().map(|e| e.connection_id).collect::<Vec<_>>(), [second]);
    assert_eq!(db.store.expected(&account(), None, 1).await.unwrap().len(), 1);
    assert!(db.store.expected(&"fake-b".parse().unwrap(), None, 100).await.unwrap().is_empty());
}

async fn what_a_list_showed_is_written_and_due(db: Db) {
    let (first, one) = settled(&db, "a").await;
    let (second, two) = settled(&db, "b").await;
    let lease = lease(&db).await;
    assert!(db.store.claim("two", LEASE, 64).await.unwrap().is_empty());
    let seen = vec![sighting(second, &two, absent(7), false), sighting(first, &one, absent(5), true)];
    db.store.write_sightings(&lease, seen).await.unwrap();
    assert_eq!(expected(&db).await, [(first, Watch::Doubt, absent(5)), (second, Watch::List, absent(7))]);
    let claims = db.store.claim("two", LEASE, 64).await.unwrap();
    assert_eq!(claims.len(), 2);
    assert_eq!(db.store.load(&claims[0]).await.unwrap().record.instances.len(), 1);
}

async fn a_claimed_connection_is_passed_over(db: Db) {
    let (id, instance) = settled(&db, "a").await;
    let lease = lease(&db).await;
    db.at(600_000).await;
    let lease = {
        db.store.renew_shared(&lease).await.unwrap();
        lease
    };
    let claim = db.claim("two").await;
    db.store.write_sightings(&lease, vec![sighting(id, &instance, absent(5), true)]).await.unwrap();
    assert_eq!(expected(&db).await, [(id, Watch::List, Seen::Never)]);
    // The claim still writes: nothing took it away.
    db.store.write_fenced(&claim, vec![release(600_000)]).await.unwrap();
    db.store.write_sightings(&lease, vec![sighting(id, &instance, absent(5), true)]).await.unwrap();
    assert_eq!(expected(&db).await, [(id, Watch::Doubt, absent(5))]);
    // In doubt, the connection looks by itself: a list has nothing to add.
    db.store.write_sightings(&lease, vec![sighting(id, &instance, Seen::Never, false)]).await.unwrap();
    assert_eq!(expected(&db).await, [(id, Watch::Doubt, absent(5))]);
}

async fn a_lost_lease_writes_nothing(db: Db) {
    let (id, instance) = settled(&db, "a").await;
    let stale = lease(&db).await;
    db.at(LEASE as i64).await;
    let owner = lease(&db).await;
    let seen = || vec![sighting(id, &instance, absent(5), true)];
    assert!(matches!(db.store.write_sightings(&stale, seen()).await, Err(StoreError::Fenced)));
    assert!(matches!(db.store.end_round(&stale, round(true), Vec::new()).await, Err(StoreError::Fenced)));
    assert!(matches!(db.store.renew_shared(&stale).await, Err(StoreError::Fenced)));
    assert_eq!(db.store.account_watch(&account()).await.unwrap(), AccountWatch::default());
    db.store.write_sightings(&owner, seen()).await.unwrap();
    db.store.release_shared(&owner, serde_json::Value::Null).await.unwrap();
    assert!(matches!(db.store.end_round(&owner, round(true), Vec::new()).await, Err(StoreError::Fenced)));
}

async fn a_change_of_intent_ends_the_watch(db: Db) {
    let (id, _) = settled(&db, "a").await;
    db.at(600_000).await;
    let claim = db.claim("one").await;
    // While the pass is at work somebody asks for the deletion: what the pass found says nothing about that.
    db.store.change_connection(db.change(id, 1, ChangeTo::Deletion)).await.unwrap();
    assert!(expected(&db).await.is_empty());
    let writes = vec![EngineWrite::PutWatch(Watch::List), release(600_000)];
    db.store.write_fenced(&claim, writes).await.unwrap();
    assert!(expected(&db).await.is_empty());
    let claim = db.claim("two").await;
    assert_eq!(db.store.load(&claim).await.unwrap().watch, Watch::Each);
}

async fn a_hold_is_seen_by_every_replica_and_lifted_once(db: Db) {
    let other = db.replica().await;
    let (id, _) = settled(&db, "a").await;
    let lease = lease(&db).await;
    let raised = EngineWrite::RaiseIssue { project: project(), issue: Box::new(issue(&db)) };
    db.store.end_round(&lease, round(true), vec![raised]).await.unwrap();
    db.at(600_000).await;
    let claim = other.claim("two", LEASE, 1).await.unwrap().remove(0);
    assert_eq!(other.load(&claim).await.unwrap().held, [account()].into());
    assert!(other.account_watch(&account()).await.unwrap().held);
    let acceptance = || Acceptance {
        account_id: account(),
        code: "creates-held".to_owned(),
        subject: "/v1/accounts/fake-a".to_owned(),
        event: event("account.absenceAccepted", id),
        audit: audit("acknowledgeIssue"),
        at: ms(START + 1),
    };
    other.accept_absence(acceptance()).await.unwrap();
    let lifted = db.store.account_watch(&account()).await.unwrap();
    assert_eq!((lifted.held, lifted.absent, lifted.accepted), (false, 12, 12));
    assert!(db.store.load(&claim).await.unwrap().held.is_empty());
    let issues = db.store.issues(&project(), Page { limit: 10, after: None }).await.unwrap();
    assert!(issues.len() == 1 && issues[0].resolved_at.is_some());
    assert!(matches!(db.store.accept_absence(acceptance()).await, Err(StoreError::NotFound)));
}

async fn a_round_is_dated_by_the_stores_time(db: Db) {
    let lease = lease(&db).await;
    db.at(1_000).await;
    db.store.end_round(&lease, AccountRound { began_ms_ago: 400, ..round(false) }, Vec::new()).await.unwrap();
    db.at(1_500).await;
    let watch = db.store.account_watch(&account()).await.unwrap();
    assert_eq!((watch.tried_ms_ago, watch.swept_ms_ago), (Some(900), Some(900)));
    // A round without complete lists and without a sweep leaves their times alone.
    let blind = AccountRound { observed_at: None, swept: false, failures: 1, ..round(false) };
    db.store.end_round(&lease, blind, Vec::new()).await.unwrap();
    let watch = db.store.account_watch(&account()).await.unwrap();
    assert_eq!((watch.tried_ms_ago, watch.swept_ms_ago), (Some(0), Some(900)));
    assert_eq!((watch.observed_at, watch.failures), (Some(ms(START)), 1));
    // A clock that was stepped back says nothing about how long ago it was.
    db.at(100).await;
    assert_eq!(db.store.account_watch(&account()).await.unwrap().tried_ms_ago, None);
}

async fn a_calm_account_is_stirred_by_what_any_list_shows(db: Db) {
    let (id, _) = settled(&db, "a").await;
    let lease = lease(&db).await;
    let calm = async || db.store.account_watch(&account()).await.unwrap().calm;
    assert!(!calm().await);
    db.store.end_round(&lease, AccountRound { calm: true, ..round(false) }, Vec::new()).await.unwrap();
    assert!(calm().await);
    let other = db.store.lease_shared("inventory/fake-b", "one", LEASE).await.unwrap().unwrap();
    let sighting = Sighting { connection_id: id, instances: Vec::new(), doubt: true };
    db.store.write_sightings(&other, vec![sighting]).await.unwrap();
    assert!(!calm().await);
}

async fn a_lease_can_be_made_to_last(db: Db) {
    let held = lease(&db).await;
    db.at(LEASE as i64 - 1).await;
    db.store.renew_shared(&held).await.unwrap();
    db.at(2 * LEASE as i64 - 2).await;
    assert!(db.store.lease_shared(&held.name, "two", LEASE).await.unwrap().is_none());
    db.at(2 * LEASE as i64 - 1).await;
    assert!(db.store.lease_shared(&held.name, "two", LEASE).await.unwrap().is_some());
}

async fn an_observation_is_as_old_as_the_last_list(db: Db) {
    let (id, instance) = settled(&db, "a").await;
    let lease = lease(&db).await;
    let observed = tieline_providers::Observed {
        kind: instance.key.kind.clone(),
        cloud_id: "cloud-a".to_owned(),
        owner: None,
        provider_state: "ACTIVE".to_owned(),
        presence: tieline_providers::Presence::Usable,
        bgp: None,
        bfd: None,
        learned: tieline_providers::Learned::default(),
        fields: serde_json::Value::Null,
        created_at: None,
    };
    let seen = Seen::Never.and_found(observed, ms(START - 5));
    db.store.write_sightings(&lease, vec![sighting(id, &instance, seen, false)]).await.unwrap();
    let at = async || {
        let seen = db.store.connection(&project(), id).await.unwrap().instances.remove(0).seen;
        let Seen::Present { at, .. } = seen else { panic!("{seen:?}") };
        at
    };
    assert_eq!(at().await, ms(START - 5));
    db.store.end_round(&lease, round(false), Vec::new()).await.unwrap();
    assert_eq!(at().await, ms(START));
}
