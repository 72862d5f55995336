//! Connections with peers: written with the book, claimed apart, due when the book changes.

use tieline_api::{
    plan::coordinate::{Reason, Row},
    store::*,
};
use tieline_openapi::v1::ConnectionKind;
use uuid::Uuid;

use super::{
    books::{id, place, put, row, write},
    fixture::*,
    on_both,
};

on_both!(
    the_intent_is_written_with_the_book_or_not_at_all,
    the_engine_leaves_what_is_shared_alone,
    a_connection_is_due_when_its_book_changes,
    a_key_makes_one_connection,
    a_connection_that_goes_leaves_its_name,
);

const SHARED: Uuid = Uuid::from_u128(7);

fn shared(db: &Db, name: &str) -> NewConnection {
    let mut new = db.connection(name);
    (new.kind, new.shared) = (ConnectionKind::Coordinated, Some((id("south"), SHARED)));
    (new.intent.b.attach_point_id, new.negotiated.channels) = (None, Vec::new());
    new
}

/// Writes it with a row of the peer's book.
fn with_row(new: NewConnection, revision: u64) -> BookWrite {
    let row = put(row("k1", 5_000, 1_025, "169.254.1.0/29"));
    BookWrite { intent: Some(IntentWrite::New(Box::new(new))), ..write(revision, vec![row]) }
}

async fn the_intent_is_written_with_the_book_or_not_at_all(db: Db) {
    let new = shared(&db, "one");
    let at = new.id;
    let key = IdempotencyKey {
        principal: "token:t".to_owned(),
        method: "POST".to_owned(),
        path: "/v1/connections".to_owned(),
        key: "k".to_owned(),
        digest: [1; 32],
    };
    let answer =
        SavedAnswer { digest: [1; 32], status: 202, headers: Default::default(), body: serde_json::json!({"a": 1}) };
    let new = NewConnection { idempotency: Some((key.clone(), answer.clone())), ..new };
    assert!(matches!(db.store.write_book(with_row(new.clone(), 5)).await, Err(StoreError::Fenced)), "an old book");
    assert!(matches!(db.store.connection(&project(), at).await, Err(StoreError::NotFound)));
    assert_eq!((db.store.saved_answer(&key).await.unwrap(), db.audit_rows().await), (None, 0));
    db.store.write_book(with_row(new.clone(), 0)).await.unwrap();
    let record = db.store.connection(&project(), at).await.unwrap();
    let link = SharedLink { peer: id("south"), uuid: SHARED, ended: None, standing: None };
    assert_eq!((record.kind, record.shared), (ConnectionKind::Coordinated, Some(link)));
    assert_eq!(db.store.book(&id("south"), None).await.unwrap().rows.len(), 1);
    assert_eq!(db.store.saved_answer(&key).await.unwrap(), Some(answer.clone()));
    // The same request again finds its answer; another one finds the name taken; and neither changes the book.
    let again = NewConnection { id: db.connection("x").id, ..new };
    let replayed = db.store.write_book(with_row(again, 1)).await;
    assert!(matches!(replayed, Err(StoreError::IdempotencyReplay(saved)) if *saved == answer));
    let mut other = shared(&db, "one");
    other.shared = Some((id("south"), Uuid::from_u128(8)));
    let taken = db.store.write_book(with_row(other, 1)).await;
    assert!(matches!(taken, Err(StoreError::NameTaken { holder }) if holder == at));
    assert_eq!(db.store.book(&id("south"), None).await.unwrap().revision, 1);
    // A change of the intent alone leaves the book where it is.
    let mut intent = db.store.connection(&project(), at).await.unwrap().intent;
    intent.name = "two".to_owned();
    let change = ConnectionChange {
        id: at,
        project: project(),
        expected_generation: 1,
        to: ChangeTo::Intent {
            intent: Box::new(intent),
            negotiated: Box::new(shared(&db, "n").negotiated),
            allocations: Vec::new(),
            secrets: Vec::new(),
        },
        operation: db.operation(at, tieline_openapi::v1::OperationKind::Update, 2),
        event: event("connection.updated", at),
        audit: audit("patchConnection"),
        idempotency: None,
        at: ms(START),
    };
    let change = |generation| ConnectionChange { expected_generation: generation, ..change.clone() };
    let write_it = |generation| BookWrite {
        intent: Some(IntentWrite::Change(Box::new(change(generation)))),
        ..write(99, Vec::new())
    };
    assert!(matches!(db.store.write_book(write_it(4)).await, Err(StoreError::StaleGeneration { actual: 1, .. })));
    db.store.write_book(write_it(1)).await.unwrap();
    assert_eq!(db.store.connection(&project(), at).await.unwrap().intent.name, "two");
}

async fn the_engine_leaves_what_is_shared_alone(db: Db) {
    let ours = db.created("ours").await;
    let new = shared(&db, "shared");
    let theirs = new.id;
    db.store.write_book(with_row(new, 0)).await.unwrap();
    let claimed: Vec<_> = db.store.claim("engine", 1_000, 9).await.unwrap().iter().map(|claim| claim.id).collect();
    assert_eq!(claimed, [ours]);
    assert_eq!(db.store.next_shared_due(9_000).await.unwrap(), Some(0));
    let claims = db.store.claim_shared("coordinator", 1_000, 9).await.unwrap();
    assert_eq!(claims.iter().map(|claim| claim.id).collect::<Vec<_>>(), [theirs]);
    assert!(db.store.claim_shared("another", 1_000, 9).await.unwrap().is_empty());
    assert_eq!(db.store.next_shared_due(9_000).await.unwrap(), Some(1_000));
}

async fn a_connection_is_due_when_its_book_changes(db: Db) {
    let new = shared(&db, "one");
    let at = new.id;
    db.store.write_book(with_row(new, 0)).await.unwrap();
    let claim = || async { db.store.claim_shared("one", 1_000, 9).await.unwrap().pop() };
    let release = || vec![EngineWrite::Release { due_in_ms: 60_000, failures: 0, progress: false }];
    let first = claim().await.unwrap();
    // It changes while it is looked at: the release puts nothing off.
    let next = |version, leaving| Row { version, leaving, ..row("k1", 5_000, 1_025, "169.254.1.0/29") };
    db.store.write_book(write(1, vec![put(next(2, Some(Reason::Peer)))])).await.unwrap();
    db.store.write_fenced(&first, release()).await.unwrap();
    let second = claim().await.expect("it is due again");
    assert_eq!(db.store.load(&second).await.unwrap().record.shared.unwrap().ended, Some(Reason::Peer));
    db.store.write_fenced(&second, release()).await.unwrap();
    assert!(claim().await.is_none());
    // That it moved is no end; and what its book does not touch is left alone.
    db.store.write_book(write(2, vec![put(next(3, Some(Reason::Moved)))])).await.unwrap();
    let third = claim().await.unwrap();
    assert_eq!(db.store.load(&third).await.unwrap().record.shared.unwrap().ended, Some(Reason::Peer));
    db.store.write_fenced(&third, release()).await.unwrap();
    let other = Row { uuid: Uuid::from_u128(9), ..row("k2", 1_000, 1_026, "169.254.2.0/29") };
    db.store.write_book(write(3, vec![put(other)])).await.unwrap();
    assert!(claim().await.is_none());
    // A row that goes is a change as well.
    db.store.write_book(write(4, vec![BookChange::Remove { place: place("i1", "k1") }])).await.unwrap();
    assert_eq!(claim().await.unwrap().id, at);
}

async fn a_key_makes_one_connection(db: Db) {
    let new = shared(&db, "one");
    let at = new.id;
    db.store.write_book(with_row(new, 0)).await.unwrap();
    let again = BookWrite { intent: Some(IntentWrite::New(Box::new(shared(&db, "two")))), ..write(1, Vec::new()) };
    let refused = db.store.write_book(again).await;
    assert!(matches!(refused, Err(StoreError::KeyBrought { holder }) if holder == at));
}

async fn a_connection_that_goes_leaves_its_name(db: Db) {
    let new = shared(&db, "one");
    let (at, operation) = (new.id, new.operation.id);
    db.store.write_book(with_row(new, 0)).await.unwrap();
    let claim = db.store.claim_shared("one", 1_000, 9).await.unwrap().pop().unwrap();
    db.store.write_fenced(&claim, vec![EngineWrite::Remove { quarantine_ms: 0 }]).await.unwrap();
    assert!(matches!(db.store.connection(&project(), at).await, Err(StoreError::NotFound)));
    assert_eq!(db.store.operation(&project(), operation).await.unwrap().target, at);
    assert!(db.store.claim("engine", 1_000, 9).await.unwrap().is_empty(), "nothing of it turns up in a cloud");
    assert!(db.store.claim_shared("one", 1_000, 9).await.unwrap().is_empty());
    db.store.create_connection(db.connection("one")).await.unwrap();
}
