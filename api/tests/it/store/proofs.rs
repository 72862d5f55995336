//! What peers showed: once, and for whom.

use tieline_api::store::{BookChange, BookWrite, Books as _, Proofs as _};
use tieline_openapi::coordinator::ResourceId;
use uuid::Uuid;

use super::{fixture::*, on_both};

on_both!(a_proof_is_used_once, of_many_that_show_a_proof_at_once_one_is_the_first, the_first_account_stays);

fn id(text: &str) -> ResourceId {
    text.parse().unwrap()
}

async fn a_proof_is_used_once(db: Db) {
    let (south, east) = (id("south"), id("east"));
    let ended = ms(START - 2 * 86_400_000);
    assert!(db.store.use_once(&south, [1; 32], ended).await.unwrap());
    assert!(!db.store.use_once(&south, [1; 32], ended).await.unwrap());
    assert!(db.store.use_once(&south, [2; 32], ms(START)).await.unwrap());
    assert!(db.store.use_once(&east, [1; 32], ms(START)).await.unwrap(), "another peer's is another");
    // It ended more than a day ago: it would be refused for its age.
    let now = jiff::Timestamp::from_second(4_000_000_000).unwrap();
    assert!(db.store.use_once(&south, [3; 32], now).await.unwrap());
    db.store.forget_proofs(1_000).await.unwrap();
    assert!(db.store.use_once(&south, [1; 32], ms(START)).await.unwrap(), "forgotten");
    assert!(!db.store.use_once(&south, [3; 32], now).await.unwrap(), "remembered");
}

async fn of_many_that_show_a_proof_at_once_one_is_the_first(db: Db) {
    let south = id("south");
    let all = futures::future::join_all((0..8).map(|_| db.store.use_once(&south, [9; 32], ms(START)))).await;
    assert_eq!(all.into_iter().filter(|used| *used.as_ref().unwrap()).count(), 1);
}

async fn the_first_account_stays(db: Db) {
    let (south, east, uuid) = (id("south"), id("east"), Uuid::from_u128(7));
    // What is written with the key comes before any proof.
    let write = |uuid, account: &str, revision| BookWrite {
        peer: id("south"),
        revision,
        changes: vec![BookChange::Account(uuid, account.to_owned())],
        due: Vec::new(),
        intent: None,
        audit: None,
    };
    db.store.write_book(write(uuid, "111", 0)).await.unwrap();
    assert_eq!(db.store.account(&south, uuid, "222").await.unwrap(), "111");
    assert_eq!(db.store.account(&east, uuid, "222").await.unwrap(), "222", "another peer's is another");
    db.store.write_book(write(uuid, "333", 1)).await.unwrap();
    assert_eq!(db.store.account(&south, uuid, "333").await.unwrap(), "111");
    // It is young: nothing is forgotten.
    db.store.forget_proofs(1_000).await.unwrap();
    assert_eq!(db.store.account(&south, uuid, "444").await.unwrap(), "111");
}
