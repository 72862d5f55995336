//! Connections, operations, plans and saved answers.

use std::collections::BTreeMap;

use serde_json::json;
use tieline_api::store::{
    ChangeTo, ConnectionFilter, EngineStatus, EngineWrite, HousekeepingLimits, IdempotencyKey, NewPlan, Page,
    SavedAnswer, Store, StoreError,
};
use tieline_openapi::{
    ids::{ConnectionId, PlanId},
    v1::{AddressFamily, Operation, OperationState, Plan},
};

use super::{fixture::*, on_both};

on_both!(
    a_connection_is_read_as_it_was_written,
    a_name_is_taken_once,
    what_fails_leaves_nothing,
    a_change_needs_the_generation,
    a_change_supersedes_the_operation,
    renaming_to_a_taken_name_names_the_holder,
    the_intent_is_not_built_on_a_channel_that_was_walked_back,
    lists_are_filtered_and_paged,
    a_key_is_answered_once,
    an_answer_is_kept_for_seven_days,
    nul_is_refused,
    plans_are_saved,
    pages_of_plans,
    a_plan_is_saved_once_under_a_key,
    pages_of_operations,
);

async fn a_connection_is_read_as_it_was_written(db: Db) {
    let new = db.connection("one");
    db.store.create_connection(new.clone()).await.unwrap();
    let record = db.store.connection(&project(), new.id).await.unwrap();
    assert_eq!((record.id, record.kind, record.generation, record.observed_generation), (new.id, new.kind, 1, 0));
    assert_eq!((record.intent, record.negotiated), (new.intent, new.negotiated));
    assert_eq!((record.last_operation, record.created_at, record.updated_at), (new.operation.id, new.at, new.at));
    assert_eq!((record.status, record.deletion_requested_at), (EngineStatus::default(), None));
    assert_eq!(db.store.operation(&project(), new.operation.id).await.unwrap(), new.operation);

    let elsewhere = "other".parse().unwrap();
    assert!(matches!(db.store.connection(&elsewhere, new.id).await, Err(StoreError::NotFound)));
    assert!(matches!(db.store.operation(&elsewhere, new.operation.id).await, Err(StoreError::NotFound)));
}

async fn a_name_is_taken_once(db: Db) {
    let holder = db.created("same").await;
    let taken = db.store.create_connection(db.connection("same")).await;
    assert!(matches!(taken, Err(StoreError::NameTaken { holder: h }) if h == holder));
    let mut elsewhere = db.connection("same");
    elsewhere.project = "other".parse().unwrap();
    db.store.create_connection(elsewhere).await.unwrap();
}

async fn what_fails_leaves_nothing(db: Db) {
    let mut holder = db.connection("holder");
    holder.allocations = vec![vlan(1, 1, 100)];
    db.store.create_connection(holder).await.unwrap();
    let cursor = db.store.last_cursor().await.unwrap();

    let mut new = db.connection("late");
    // The last of the allocations fails: everything before it must be undone.
    new.allocations = vec![vlan(1, 1, 99), vlan(1, 1, 100)];
    let key = key_of("k", 1);
    new.idempotency = Some((key.clone(), answer(&key)));
    let (id, operation) = (new.id, new.operation.id);
    assert!(matches!(db.store.create_connection(new).await, Err(StoreError::AllocationTaken { .. })));

    assert!(matches!(db.store.connection(&project(), id).await, Err(StoreError::NotFound)));
    assert!(matches!(db.store.operation(&project(), operation).await, Err(StoreError::NotFound)));
    assert_eq!(db.store.saved_answer(&key).await.unwrap(), None);
    assert_eq!(db.store.last_cursor().await.unwrap(), cursor);
    let vlans = db.allocated().await.vlans;
    assert_eq!(vlans[&"port-a1".parse().unwrap()], [100].into());
}

fn intent_change(id: ConnectionId, name: &str, channels: &[(u8, u32)]) -> ChangeTo {
    ChangeTo::Intent {
        intent: Box::new(intent(name)),
        negotiated: Box::new(negotiated(id, channels)),
        allocations: Vec::new(),
        secrets: Vec::new(),
    }
}

async fn a_change_needs_the_generation(db: Db) {
    let id = db.created("one").await;
    db.store.change_connection(db.change(id, 1, intent_change(id, "two", &[(1, 1), (2, 1)]))).await.unwrap();
    let record = db.store.connection(&project(), id).await.unwrap();
    assert_eq!((record.generation, record.intent.name.as_str()), (2, "two"));
    assert_eq!(record.negotiated.channels.len(), 2);
    assert_eq!((record.created_at, record.updated_at), (ms(START), ms(START + 1)));

    let stale = db.store.change_connection(db.change(id, 1, ChangeTo::Deletion)).await;
    assert!(matches!(stale, Err(StoreError::StaleGeneration { wanted: 1, actual: 2 })));
    let nobody = ConnectionId(db.uuid());
    let missing = db.store.change_connection(db.change(nobody, 1, ChangeTo::Deletion)).await;
    assert!(matches!(missing, Err(StoreError::NotFound)));
    let mut elsewhere = db.change(id, 2, ChangeTo::Deletion);
    elsewhere.project = "other".parse().unwrap();
    assert!(matches!(db.store.change_connection(elsewhere).await, Err(StoreError::NotFound)));
    assert_eq!(db.store.connection(&project(), id).await.unwrap().deletion_requested_at, None);
}

async fn a_change_supersedes_the_operation(db: Db) {
    let new = db.connection("one");
    let (id, first) = (new.id, new.operation.id);
    db.store.create_connection(new).await.unwrap();
    let claim = db.claim("engine").await;
    let change = db.change(id, 1, ChangeTo::Deletion);
    let second = change.operation.id;
    db.store.change_connection(change).await.unwrap();
    let record = db.store.connection(&project(), id).await.unwrap();
    assert_eq!((record.generation, record.last_operation), (2, second));
    assert_eq!(record.deletion_requested_at, Some(ms(START + 1)));

    // The engine, which claimed before, still writes about the first one: that is final.
    let operation = db.store.operation(&project(), first).await.unwrap();
    let ended = Operation { state: OperationState::Succeeded, finished_at: Some(ms(START + 2)), ..operation };
    let done = EngineWrite::PutOperation(Box::new(ended));
    db.store.write_fenced(&claim, vec![done]).await.unwrap();
    let operation = db.store.operation(&project(), first).await.unwrap();
    assert_eq!((operation.state, operation.finished_at), (OperationState::Superseded, Some(ms(START))));
    assert_eq!(db.store.load(&claim).await.unwrap().operation.unwrap().id, second);
}

async fn renaming_to_a_taken_name_names_the_holder(db: Db) {
    let holder = db.created("taken").await;
    let id = db.created("one").await;
    let change = db.change(id, 1, intent_change(id, "taken", &[(1, 1)]));
    let refused = db.store.change_connection(change).await;
    assert!(matches!(refused, Err(StoreError::NameTaken { holder: h }) if h == holder));
    assert_eq!(db.store.connection(&project(), id).await.unwrap().generation, 1);
    // Its own name is no obstacle.
    db.store.change_connection(db.change(id, 1, intent_change(id, "one", &[(1, 1)]))).await.unwrap();
}

async fn the_intent_is_not_built_on_a_channel_that_was_walked_back(db: Db) {
    let id = db.created("one").await;
    let claim = db.claim("engine").await;
    let retire = EngineWrite::RetireChannel { channel_id: channel_id(1), generation: 1, quarantine_ms: 1 };
    let put =
        EngineWrite::PutChannel { channel: Box::new(channel(id, 1, 2)), allocations: Vec::new(), secrets: Vec::new() };
    db.store.write_fenced(&claim, vec![retire, put]).await.unwrap();
    let void = db.store.change_connection(db.change(id, 1, intent_change(id, "one", &[(1, 1)]))).await;
    assert!(matches!(void, Err(StoreError::AllocationTaken { .. })));
    db.store.change_connection(db.change(id, 1, intent_change(id, "one", &[(1, 2)]))).await.unwrap();
}

async fn lists_are_filtered_and_paged(db: Db) {
    let mut ids = Vec::new();
    for name in ["a", "b", "c", "d", "e"] {
        ids.push(db.created(name).await);
    }
    let list = async |filter: ConnectionFilter, limit, after: Option<ConnectionId>| {
        let page = Page { limit, after: after.map(ConnectionId::uuid) };
        let found = db.store.connections(&project(), &filter, page).await.unwrap();
        found.into_iter().map(|r| r.id).collect::<Vec<_>>()
    };
    let all = ConnectionFilter::default;
    assert_eq!(list(all(), 2, None).await, ids[..2]);
    assert_eq!(list(all(), 2, Some(ids[1])).await, ids[2..4]);
    assert_eq!(list(all(), 9, Some(ids[3])).await, ids[4..]);
    assert_eq!(list(ConnectionFilter { name: Some("c".into()), ..all() }, 9, None).await, [ids[2]]);
    assert_eq!(list(ConnectionFilter { environment: Some("env".into()), ..all() }, 9, None).await, ids);
    assert_eq!(list(ConnectionFilter { environment: Some("no".into()), ..all() }, 9, None).await, []);
    assert_eq!(list(ConnectionFilter { labels: labels(&[("team", "d")]), ..all() }, 9, None).await, [ids[3]]);
    let ipv6 = ConnectionFilter { family: Some(AddressFamily::Ipv6), ..all() };
    assert_eq!(list(ipv6, 9, None).await, []);

    let elsewhere = "other".parse().unwrap();
    let none = db.store.connections(&elsewhere, &all(), Page { limit: 9, after: None }).await.unwrap();
    assert!(none.is_empty());
}

pub(crate) fn key_of(key: &str, digest: u8) -> IdempotencyKey {
    IdempotencyKey {
        principal: "token:t".to_owned(),
        method: "POST".to_owned(),
        path: "/v1/connections".to_owned(),
        key: key.to_owned(),
        digest: [digest; 32],
    }
}

fn answer(key: &IdempotencyKey) -> SavedAnswer {
    SavedAnswer {
        digest: key.digest,
        status: 202,
        headers: BTreeMap::from([("Location".to_owned(), "/v1/connections/x".to_owned())]),
        body: json!({ "name": "one" }),
    }
}

async fn a_key_is_answered_once(db: Db) {
    let key = key_of("k", 1);
    let create = async |key: &IdempotencyKey, name: &str| {
        let mut new = db.connection(name);
        new.idempotency = Some((key.clone(), answer(key)));
        db.store.create_connection(new).await
    };
    create(&key, "one").await.unwrap();
    assert_eq!(db.store.saved_answer(&key).await.unwrap(), Some(answer(&key)));
    // The repeated request finds its answer, not its own name taken.
    let replay = create(&key, "one").await;
    assert!(matches!(replay, Err(StoreError::IdempotencyReplay(saved)) if *saved == answer(&key)));
    let reused = create(&key_of("k", 2), "two").await;
    assert!(matches!(reused, Err(StoreError::IdempotencyKeyReused)));
    assert!(matches!(db.store.saved_answer(&key_of("k", 2)).await, Err(StoreError::IdempotencyKeyReused)));
    // Another principal's key is another key.
    let other = IdempotencyKey { principal: "token:u".to_owned(), ..key };
    create(&other, "two").await.unwrap();
}

async fn an_answer_is_kept_for_seven_days(db: Db) {
    const DAY: i64 = 24 * 3_600_000;
    let key = key_of("k", 1);
    let mut new = db.connection("one");
    new.idempotency = Some((key.clone(), answer(&key)));
    db.store.create_connection(new).await.unwrap();
    db.at(7 * DAY - 1).await;
    assert!(db.store.saved_answer(&key).await.unwrap().is_some());
    db.at(7 * DAY).await;
    assert_eq!(db.store.saved_answer(&key).await.unwrap(), None);
    let later = key_of("k", 2);
    let mut new = db.connection("two");
    new.idempotency = Some((later.clone(), answer(&later)));
    db.store.create_connection(new).await.unwrap();
}

async fn nul_is_refused(db: Db) {
    let refused = db.store.create_connection(db.connection("a\0b")).await;
    assert!(matches!(refused, Err(StoreError::Invalid { .. })));
    // Inside a document it is escaped, and comes back.
    let mut new = db.connection("one");
    new.intent.description = "a\0b".to_owned();
    let id = new.id;
    db.store.create_connection(new).await.unwrap();
    assert_eq!(db.store.connection(&project(), id).await.unwrap().intent.description, "a\0b");
}

fn new_plan(db: &Db, connection_id: ConnectionId) -> NewPlan {
    let plan: Plan = serde_json::from_value(json!({
        "id": db.uuid(), "hash": "h", "expiresAt": ms(START + 1_000), "action": "CREATE", "connectionId": null,
        "baseGeneration": null, "basis": [], "after": null, "applicable": true, "disruption": "NONE", "costs": [],
        "steps": [], "findings": [],
    }))
    .unwrap();
    let request = json!({ "intent": { "name": "x" } });
    NewPlan { project: project(), connection_id, plan, request, idempotency: None }
}

async fn plans_are_saved(db: Db) {
    let new = new_plan(&db, db.uuid().into());
    let (plan, id) = (new.plan.clone(), new.plan.id.unwrap());
    db.store.insert_plan(new.clone()).await.unwrap();
    assert_eq!(db.store.plan(&project(), id).await.unwrap(), (plan.clone(), new.request.clone()));
    assert!(matches!(db.store.plan(&"other".parse().unwrap(), id).await, Err(StoreError::NotFound)));
    let dry = NewPlan { plan: Plan { id: None, ..plan }, ..new };
    assert!(matches!(db.store.insert_plan(dry).await, Err(StoreError::Invalid { .. })));
}

async fn pages_of_plans(db: Db) {
    let (one, two) = (ConnectionId(db.uuid()), ConnectionId(db.uuid()));
    let mut ids = Vec::new();
    for of in [one, two, one] {
        let new = new_plan(&db, of);
        ids.push(new.plan.id.unwrap());
        db.store.insert_plan(new).await.unwrap();
    }
    let listed = async |connection, after: Option<PlanId>| {
        let page = Page { limit: 2, after: after.map(|id| id.uuid()) };
        let plans = db.store.plans(&project(), connection, page).await.unwrap();
        plans.into_iter().map(|plan| plan.id.unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(listed(None, None).await, [ids[2], ids[1]], "newest first");
    assert_eq!(listed(None, Some(ids[1])).await, [ids[0]]);
    assert_eq!(listed(Some(one), None).await, [ids[2], ids[0]]);
    assert_eq!(listed(Some(two), Some(ids[1])).await, []);
    let elsewhere = db.store.plans(&"other".parse().unwrap(), None, Page { limit: 9, after: None }).await.unwrap();
    assert_eq!(elsewhere, []);
    // Kept for a while after their end, then pruned.
    let limits = HousekeepingLimits { answers_ms: 500, ..HousekeepingLimits::default() };
    db.at(1_499).await;
    db.store.housekeep(&limits).await.unwrap();
    assert_eq!(listed(None, None).await.len(), 2);
    db.at(1_500).await;
    db.store.housekeep(&limits).await.unwrap();
    assert_eq!(listed(None, None).await, []);
}

async fn a_plan_is_saved_once_under_a_key(db: Db) {
    let keyed = |digest: u8| {
        let mut new = new_plan(&db, db.uuid().into());
        let key = IdempotencyKey {
            principal: "token:t".to_owned(),
            method: "POST".to_owned(),
            path: "/v1/plans".to_owned(),
            key: "k".to_owned(),
            digest: [digest; 32],
        };
        let body = json!({ "id": new.plan.id });
        let answer = SavedAnswer { digest: [digest; 32], status: 201, headers: BTreeMap::new(), body };
        new.idempotency = Some((key, answer));
        new
    };
    let first = keyed(1);
    db.store.insert_plan(first.clone()).await.unwrap();
    let Err(StoreError::IdempotencyReplay(again)) = db.store.insert_plan(keyed(1)).await else { panic!() };
    assert_eq!(again.body, json!({ "id": first.plan.id }));
    assert!(matches!(db.store.insert_plan(keyed(2)).await, Err(StoreError::IdempotencyKeyReused)));
    assert_eq!(db.store.plans(&project(), None, Page { limit: 9, after: None }).await.unwrap().len(), 1);
}

async fn pages_of_operations(db: Db) {
    let one = db.created("one").await;
    let two = db.created("two").await;
    db.store.change_connection(db.change(one, 1, ChangeTo::Deletion)).await.unwrap();
    let page = |after| Page { limit: 2, after };
    let newest = db.store.operations(&project(), None, page(None)).await.unwrap();
    assert_eq!(newest.len(), 2);
    assert!(newest[0].id > newest[1].id, "newest first");
    let rest = db.store.operations(&project(), None, page(Some(newest[1].id.uuid()))).await.unwrap();
    assert_eq!(rest.len(), 1);
    let of_two = db.store.operations(&project(), Some(two), page(None)).await.unwrap();
    assert_eq!(of_two.iter().map(|o| o.target).collect::<Vec<_>>(), [two]);
}
