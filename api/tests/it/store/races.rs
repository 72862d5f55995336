//! Many at once: two replicas on Postgres, tasks on the one SQLite handle.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use futures::future::join_all;
use tieline_api::store::{Claim, EngineWrite, SqlStore, Store, StoreError};
use tieline_openapi::ids::ConnectionId;

use super::{fixture::*, intent::key_of, on_both};

on_both!(
    two_replicas_never_claim_the_same_row,
    a_stale_write_and_a_new_claim_exclude_each_other,
    of_many_takers_one_wins,
    of_many_equal_names_and_keys_one_wins,
    a_reader_is_never_shown_a_lower_cursor_later,
    a_join_token_is_spent_by_one,
    a_shared_lease_is_taken_by_one,
);

async fn replicas(db: &Db) -> [Arc<SqlStore>; 2] {
    [Arc::clone(&db.store), db.replica().await]
}

async fn two_replicas_never_claim_the_same_row(db: Db) {
    let replicas = replicas(&db).await;
    for n in 0..60 {
        db.created(&format!("c{n}")).await;
    }
    for round in 0..3 {
        let claims = (0..12).map(|n| {
            let store = Arc::clone(&replicas[n % 2]);
            tokio::spawn(async move { store.claim(&format!("owner-{n}"), LEASE, 7).await.unwrap() })
        });
        let claims: Vec<Claim> = join_all(claims).await.into_iter().flat_map(|c| c.unwrap()).collect();
        let mut left = db.store.claim("rest", LEASE, 64).await.unwrap();
        left.extend(claims.iter().cloned());
        let distinct: BTreeSet<ConnectionId> = left.iter().map(|c| c.id).collect();
        assert_eq!((left.len(), distinct.len()), (60, 60), "round {round}");
        assert!(claims.iter().all(|c| c.epoch == round + 1));
        db.at((round as i64 + 1) * LEASE as i64).await;
    }
}

/// The old owner writes at the very moment at which a new one claims: either the write is before the claim, and the new
/// owner sees it, or it is void.
async fn a_stale_write_and_a_new_claim_exclude_each_other(db: Db) {
    let [old, new] = replicas(&db).await;
    db.created("a").await;
    let mut now = 0;
    for round in 0..40u32 {
        let stale = db.claim("old").await;
        now += LEASE as i64;
        db.at(now).await;
        let instance = db.instance(1, round + 10);
        let write = EngineWrite::PutInstance(Box::new(instance.clone()));
        let writing = {
            let (old, stale) = (Arc::clone(&old), stale.clone());
            tokio::spawn(async move { old.write_fenced(&stale, vec![write]).await })
        };
        let claiming = {
            let new = Arc::clone(&new);
            tokio::spawn(async move {
                loop {
                    // On Postgres a row that the writer has locked is skipped: look again.
                    if let Some(claim) = new.claim("new", LEASE, 1).await.unwrap().pop() {
                        let seen = new.load(&claim).await.unwrap().record.instances;
                        return (claim, seen);
                    }
                }
            })
        };
        let (written, claimed) = tokio::join!(writing, claiming);
        let (claim, seen) = claimed.unwrap();
        let seen = seen.iter().any(|i| i.id == instance.id);
        match written.unwrap() {
            Ok(()) => assert!(seen, "round {round}: a write that succeeded was not there for the new owner"),
            Err(StoreError::Fenced) => assert!(!seen, "round {round}: a void write is there"),
            Err(e) => panic!("round {round}: {e}"),
        }
        assert!(matches!(old.write_fenced(&stale, vec![]).await, Err(StoreError::Fenced)));
        new.write_fenced(&claim, vec![release(0)]).await.unwrap();
    }
}

async fn of_many_takers_one_wins(db: Db) {
    let replicas = replicas(&db).await;
    for round in 0..6u16 {
        let takers = (0..8u16).map(|n| {
            let mut new = db.connection(&format!("{round}-{n}"));
            // In different orders, which must not end in a deadlock.
            let net = format!("169.254.{round}.0/28");
            let mut wanted = vec![
                vlan(1, 1, 10 + round),
                vlan(1, 1, 100 + round * 8 + n),
                subnet(1, 1, &net),
                bandwidth(1, 100, 600),
            ];
            wanted.rotate_left(usize::from(n) % 4);
            new.allocations = wanted;
            let store = Arc::clone(&replicas[usize::from(n) % 2]);
            tokio::spawn(async move { store.create_connection(new).await })
        });
        let results: Vec<_> = join_all(takers).await.into_iter().map(|r| r.unwrap()).collect();
        let lost = results.iter().filter(|r| matches!(r, Err(StoreError::AllocationTaken { .. }))).count();
        assert_eq!(lost, 7, "round {round}: {results:?}");
    }
    let all = db.allocated().await;
    assert_eq!(all.vlans.values().map(BTreeSet::len).sum::<usize>(), 12, "losers keep nothing");
    assert_eq!(all.bandwidth[&channel_id(1)], 600);
    assert!(matches!(
        {
            let mut new = db.connection("full");
            new.allocations = vec![bandwidth(1, 1, 600)];
            db.store.create_connection(new).await
        },
        Err(StoreError::AllocationTaken { .. })
    ));
}

async fn of_many_equal_names_and_keys_one_wins(db: Db) {
    let replicas = replicas(&db).await;
    for with_key in [false, true] {
        let creates = (0..8).map(|n| {
            let mut new = db.connection(if with_key { "keyed" } else { "named" });
            if with_key {
                let key = key_of("k", 1);
                let saved = tieline_api::store::SavedAnswer {
                    digest: key.digest,
                    status: 202,
                    headers: BTreeMap::new(),
                    body: serde_json::json!(new.id),
                };
                new.idempotency = Some((key, saved));
            }
            let store = Arc::clone(&replicas[n % 2]);
            tokio::spawn(async move { (new.id, store.create_connection(new).await) })
        });
        let results: Vec<_> = join_all(creates).await.into_iter().map(|r| r.unwrap()).collect();
        let winners: Vec<_> = results.iter().filter(|(_, r)| r.is_ok()).map(|(id, _)| *id).collect();
        assert_eq!(winners.len(), 1, "{results:?}");
        for (_, result) in results.iter().filter(|(_, r)| r.is_err()) {
            match result {
                Err(StoreError::NameTaken { holder }) if !with_key => assert_eq!(*holder, winners[0]),
                Err(StoreError::IdempotencyReplay(saved)) if with_key => {
                    assert_eq!(saved.body, serde_json::json!(winners[0]));
                }
                other => panic!("{other:?}"),
            }
        }
    }
}

async fn a_reader_is_never_shown_a_lower_cursor_later(db: Db) {
    let [one, two] = replicas(&db).await;
    let id = ConnectionId(db.uuid());
    let writers = [one, two].into_iter().flat_map(|store| {
        (0..3).map(move |writer| {
            let store = Arc::clone(&store);
            tokio::spawn(async move {
                for n in 0..25 {
                    let events = (0..=n % 3).map(|m| EngineWrite::Event(event(&format!("w{writer}.{m}"), id)));
                    store.write_unclaimed(events.collect()).await.unwrap();
                }
            })
        })
    });
    let writing = join_all(writers);
    let reader = db.replica().await;
    let reading = tokio::spawn(async move {
        let mut seen: Vec<u64> = Vec::new();
        // 25 transactions of six writers with 1, 2, 3, 1, ... events.
        while seen.len() < 6 * (8 * 6 + 1) {
            let since = seen.last().copied().unwrap_or(0);
            let events = reader.events(&project(), since, 100).await.unwrap();
            seen.extend(events.iter().map(|e| e.cursor.parse::<u64>().unwrap()));
        }
        seen
    });
    for written in writing.await {
        written.unwrap();
    }
    let seen = reading.await.unwrap();
    // A cursor that was passed before its commit would be missing here.
    assert_eq!(seen, (1..=seen.len() as u64).collect::<Vec<_>>());
}

async fn a_join_token_is_spent_by_one(db: Db) {
    let replicas = replicas(&db).await;
    let (token, _) = db.join("point-a");
    let hash = token.hash;
    db.store.insert_join_token(&project(), token).await.unwrap();
    let joins = (0..8).map(|n| {
        let (_, gateway) = db.join("point-a");
        let store = Arc::clone(&replicas[n % 2]);
        tokio::spawn(async move { store.join_gateway(hash, gateway).await })
    });
    let results: Vec<_> = join_all(joins).await.into_iter().map(|r| r.unwrap()).collect();
    assert_eq!(results.iter().filter(|r| r.is_ok()).count(), 1);
    assert_eq!(results.iter().filter(|r| matches!(r, Err(StoreError::Spent))).count(), 7);
}

async fn a_shared_lease_is_taken_by_one(db: Db) {
    let replicas = replicas(&db).await;
    for round in 0..5 {
        let takers = (0..8).map(|n| {
            let store = Arc::clone(&replicas[n % 2]);
            tokio::spawn(async move { store.lease_shared("router", &format!("{n}"), LEASE).await.unwrap() })
        });
        let taken: Vec<_> = join_all(takers).await.into_iter().filter_map(|r| r.unwrap()).collect();
        assert_eq!(taken.len(), 1, "round {round}");
        db.store.release_shared(&taken[0], serde_json::json!(round)).await.unwrap();
    }
}
