//! The installation and its tokens.

use tieline_api::store::{Audit, NewToken, Page, Store, StoreError, StoredPrincipal};
use tieline_openapi::{
    ids::{InstallationId, TokenId},
    v1::{Scope, Token},
};

use super::{fixture::*, on_both};

on_both!(the_installation_is_drawn_once, a_token_is_found_by_its_hash, token_names_are_unique, a_use_is_noted,);

async fn the_installation_is_drawn_once(db: Db) {
    let (first, second) = (InstallationId(db.uuid()), InstallationId(db.uuid()));
    assert_eq!(db.store.installation(first).await.unwrap(), first);
    assert_eq!(db.store.installation(second).await.unwrap(), first);
    db.store.ping().await.unwrap();
}

fn token(db: &Db, name: &str) -> Token {
    Token {
        id: TokenId(db.uuid()),
        name: name.to_owned(),
        project: project(),
        scope: Scope::Operate,
        expires_at: Some(ms(START + 100)),
        last_used_at: None,
        created_at: ms(START),
    }
}

async fn insert(db: &Db, token: &Token, hash: u8) -> Result<(), StoreError> {
    let audit = audit("issueToken");
    db.store.insert_token(NewToken { token: token.clone(), hash: [hash; 32], audit, idempotency: None }).await
}

async fn a_token_is_found_by_its_hash(db: Db) {
    assert_eq!(db.store.count_tokens().await.unwrap(), 0);
    let (one, two) = (token(&db, "one"), token(&db, "two"));
    insert(&db, &one, 1).await.unwrap();
    insert(&db, &two, 2).await.unwrap();
    assert_eq!(db.store.principal_by_hash([1; 32]).await.unwrap(), Some(StoredPrincipal::Token(one.clone())));
    assert_eq!(db.store.principal_by_hash([3; 32]).await.unwrap(), None);
    let page = |after| Page { limit: 1, after };
    assert_eq!(db.store.list_tokens(&project(), page(None)).await.unwrap()[..], *std::slice::from_ref(&one));
    assert_eq!(db.store.list_tokens(&project(), page(Some(one.id.uuid()))).await.unwrap(), [two]);

    let (here, elsewhere) = (project(), "other".parse().unwrap());
    let ended = |project, id| db.store.delete_token(project, id, audit("deleteToken"));
    assert!(matches!(ended(&elsewhere, one.id).await, Err(StoreError::NotFound)));
    ended(&here, one.id).await.unwrap();
    assert!(matches!(ended(&here, one.id).await, Err(StoreError::NotFound)));
    assert_eq!(db.store.principal_by_hash([1; 32]).await.unwrap(), None);
    assert_eq!(db.store.count_tokens().await.unwrap(), 2, "a spent token still counts: no second first token");
}

async fn token_names_are_unique(db: Db) {
    let first = token(&db, "one");
    insert(&db, &first, 1).await.unwrap();
    assert!(matches!(insert(&db, &token(&db, "one"), 2).await, Err(StoreError::AllocationTaken { .. })));
    let elsewhere = Token { project: "other".parse().unwrap(), ..token(&db, "one") };
    insert(&db, &elsewhere, 2).await.unwrap();
    let entry = Audit { at: ms(START + 1), ..audit("deleteToken") };
    db.store.delete_token(&project(), first.id, entry).await.unwrap();
    insert(&db, &token(&db, "one"), 3).await.unwrap();
}

async fn a_use_is_noted(db: Db) {
    let one = token(&db, "one");
    insert(&db, &one, 1).await.unwrap();
    let used_at = async |at| {
        db.store.touch_token(one.id, ms(START + at)).await.unwrap();
        let all = db.store.list_tokens(&project(), Page { limit: 1, after: None }).await.unwrap();
        all[0].last_used_at.unwrap().as_millisecond() - START
    };
    assert_eq!(used_at(10).await, 10);
    assert_eq!(used_at(60_009).await, 10, "to about a minute");
    assert_eq!(used_at(60_010).await, 60_010);
}
