//! Books of the open specification: the revision, the versions, and what an interconnect has once.

use std::collections::BTreeMap;

use jiff::SignedDuration;
use tieline_api::{
    plan::coordinate::*,
    store::{Audit, BookChange, BookWrite, Books, Owner, StoreError, StoredRow},
};
use tieline_openapi::{
    coordinator::{BgpEnd, Hosts, L3Base, ResourceId, Sensitive},
    units::{Asn, Mtu, Vlan},
};
use uuid::Uuid;

use super::{fixture::*, on_both};

on_both!(
    a_book_comes_back_as_it_was_written,
    of_two_writers_of_a_revision_one_writes,
    a_version_follows_the_one_before,
    bandwidth_is_sold_once,
    a_vlan_and_a_subnet_are_held_once,
    two_replicas_racing_for_the_last_room_sell_it_once,
    connections_are_due_when_they_are,
    old_things_are_forgotten,
    keys_pairs_and_owners_are_kept,
    issues_and_comments_are_kept,
);

pub(super) fn id(text: &str) -> ResourceId {
    text.parse().unwrap()
}

pub(super) fn place(interconnect: &str, connection: &str) -> Place {
    Place { environment: id("e1"), interconnect: id(interconnect), connection: id(connection) }
}

/// A connection of the peer, with one agreed feature.
pub(super) fn row(connection: &str, mbps: u32, vlan: u64, subnet: &str) -> Row {
    let end = |provider: &str, asn| BgpEnd { provider: provider.to_owned(), asn: Asn::try_from(asn).unwrap() };
    let subnet: ipnet::Ipv4Net = subnet.parse().unwrap();
    let mut hosts = subnet.hosts();
    let config = L3Base {
        vlan: Vlan::try_from(vlan).unwrap(),
        mtu: Mtu::try_from(1_500).unwrap(),
        ends: [end("north", 64_512), end("south", 64_513)],
        ipv4: Some(Hosts { subnet, first: hosts.next().unwrap(), second: hosts.next().unwrap() }),
        ipv6: None,
        md5_bgp_password: Sensitive::new(""),
    };
    let feature = FeatureRow {
        id: id("f1"),
        request_id: Uuid::from_u128(3),
        config,
        ours: Local::Reserved,
        theirs: Theirs::Pending,
        closing: false,
        since_version: 1,
    };
    Row {
        place: place("i1", connection),
        version: 1,
        uuid: Uuid::from_u128(7),
        kind: Kind::Standard,
        role: Role::Responder,
        drives: false,
        source: Source::Key(Uuid::from_u128(7)),
        confirmed: true,
        bandwidth_mbps: mbps,
        resize: None,
        remote: Remote::Present,
        requests: (Uuid::from_u128(1), Uuid::from_u128(2)),
        refused: [id("i9")].into(),
        avoid: BTreeMap::from([(id("c1"), vec![(1_030, subnet)])]),
        features: BTreeMap::from([(id("c1"), feature)]),
        stray: vec![(id("f9"), Uuid::from_u128(9))],
        guidance: None,
        attempts: Attempts::default(),
        look_at: ms(START),
        seen_at: Some(ms(START)),
        looked: false,
        shown: (1, 0),
        notified: true,
        ever_final: false,
        theirs_ever_final: false,
        created_at: ms(START),
        leaving: None,
    }
}

pub(super) fn put(row: Row) -> BookChange {
    BookChange::Put { row: Box::new(StoredRow { row, sealed: vec![1, 2] }), capacity_mbps: 10_000 }
}

pub(super) fn write(revision: u64, changes: Vec<BookChange>) -> BookWrite {
    BookWrite {
        peer: id("south"),
        revision,
        changes,
        due: Vec::new(),
        intent: None,
        channels_due: Vec::new(),
        audit: None,
    }
}

fn audit() -> Audit {
    Audit {
        principal: "peer:south".to_owned(),
        request_id: "r".to_owned(),
        action: "CreateIssue".to_owned(),
        subject: "providers/south".to_owned(),
        at: ms(START),
    }
}

async fn a_book_comes_back_as_it_was_written(db: Db) {
    let south = id("south");
    let key = IssuedKey {
        uuid: Uuid::from_u128(5),
        environment: id("e1"),
        bandwidth_mbps: 1_000,
        digest: [4; 32],
        issued_at: ms(START),
        spent: false,
    };
    let replay = |status| Replay {
        digest: [status as u8; 32],
        reply: Reply::Refused(Refusal { status, rule: "no".to_owned() }),
        at: ms(START),
    };
    let (one, other) = (Uuid::from_u128(11), Uuid::from_u128(12));
    let changes = vec![
        put(row("k1", 5_000, 1_025, "169.254.1.0/29")),
        BookChange::Tombstone { place: place("i1", "k0"), at: ms(START) },
        BookChange::Key(key.clone()),
        BookChange::Replay(one, replay(409)),
        BookChange::Replay(other, replay(400)),
    ];
    db.store.write_book(BookWrite { audit: Some(audit()), ..write(0, changes) }).await.unwrap();
    let book = db.store.book(&south, Some(one)).await.unwrap();
    assert_eq!(book.revision, 1);
    assert_eq!(book.rows, [StoredRow { row: row("k1", 5_000, 1_025, "169.254.1.0/29"), sealed: vec![1, 2] }]);
    assert_eq!((book.keys, book.tombstones), (vec![key.clone()], vec![(place("i1", "k0"), ms(START))]));
    assert_eq!(book.replay, Some(replay(409)));
    assert_eq!(db.store.book(&south, None).await.unwrap().replay, None);
    assert_eq!(db.audit_rows().await, 1);
    // A key is spent; an answer stays the first one.
    let spent = IssuedKey { spent: true, ..key };
    let changes = vec![BookChange::Key(spent.clone()), BookChange::Replay(one, replay(400))];
    db.store.write_book(write(1, changes)).await.unwrap();
    let book = db.store.book(&south, Some(one)).await.unwrap();
    assert_eq!((book.keys, book.replay), (vec![spent], Some(replay(409))));
    // A book is one peer's.
    let east = db.store.book(&id("east"), Some(one)).await.unwrap();
    assert_eq!((east.revision, east.rows.len(), east.replay), (0, 0, None));
}

async fn of_two_writers_of_a_revision_one_writes(db: Db) {
    let first = write(0, vec![put(row("k1", 1_000, 1_025, "169.254.1.0/29"))]);
    db.store.write_book(first).await.unwrap();
    let second = write(0, vec![put(row("k2", 1_000, 1_026, "169.254.2.0/29"))]);
    assert!(matches!(db.store.write_book(second).await, Err(StoreError::Fenced)));
    assert_eq!(db.store.book(&id("south"), None).await.unwrap().rows.len(), 1);
}

async fn a_version_follows_the_one_before(db: Db) {
    let at = |version| Row { version, ..row("k1", 1_000, 1_025, "169.254.1.0/29") };
    db.store.write_book(write(0, vec![put(at(1))])).await.unwrap();
    assert!(matches!(db.store.write_book(write(1, vec![put(at(1))])).await, Err(StoreError::Fenced)));
    assert!(matches!(db.store.write_book(write(1, vec![put(at(3))])).await, Err(StoreError::Fenced)));
    db.store.write_book(write(1, vec![put(at(2))])).await.unwrap();
    let book = db.store.book(&id("south"), None).await.unwrap();
    assert_eq!((book.revision, book.rows[0].row.version), (2, 2));
}

async fn bandwidth_is_sold_once(db: Db) {
    db.store.write_book(write(0, vec![put(row("k1", 6_000, 1_025, "169.254.1.0/29"))])).await.unwrap();
    let another = |mbps| write(1, vec![put(row("k2", mbps, 1_026, "169.254.2.0/29"))]);
    assert!(matches!(db.store.write_book(another(5_000)).await, Err(StoreError::AllocationTaken { .. })));
    db.store.write_book(another(4_000)).await.unwrap();
    // What leaves holds nothing, and neither does what is gone.
    let mut leaving = row("k1", 6_000, 1_025, "169.254.1.0/29");
    (leaving.version, leaving.leaving) = (2, Some(Reason::Wish));
    db.store.write_book(write(2, vec![put(leaving)])).await.unwrap();
    let third = Row { place: place("i1", "k3"), ..row("k3", 6_000, 1_027, "169.254.3.0/29") };
    db.store.write_book(write(3, vec![put(third)])).await.unwrap();
    db.store.write_book(write(4, vec![BookChange::Remove { place: place("i1", "k3") }])).await.unwrap();
    db.store.write_book(write(5, vec![put(row("k4", 6_000, 1_027, "169.254.3.0/29"))])).await.unwrap();
}

async fn a_vlan_and_a_subnet_are_held_once(db: Db) {
    db.store.write_book(write(0, vec![put(row("k1", 1_000, 1_025, "169.254.1.0/29"))])).await.unwrap();
    for (vlan, subnet) in [(1_025, "169.254.2.0/29"), (1_026, "169.254.1.4/30"), (1_026, "169.254.0.0/23")] {
        let taken = db.store.write_book(write(1, vec![put(row("k2", 1_000, vlan, subnet))])).await;
        assert!(matches!(taken, Err(StoreError::AllocationTaken { .. })), "{vlan} {subnet}");
    }
    // Another channel, and another interconnect, have their own; what is closed holds nothing.
    let mut elsewhere = row("k2", 1_000, 1_025, "169.254.1.0/29");
    let feature = elsewhere.features.remove(&id("c1")).unwrap();
    elsewhere.features.insert(id("c2"), feature);
    db.store.write_book(write(1, vec![put(elsewhere)])).await.unwrap();
    let other = Row { place: place("i2", "k3"), ..row("k3", 1_000, 1_025, "169.254.1.0/29") };
    db.store.write_book(write(2, vec![put(other)])).await.unwrap();
    let mut closed = Row { version: 2, ..row("k1", 1_000, 1_025, "169.254.1.0/29") };
    closed.features.get_mut(&id("c1")).unwrap().closing = true;
    db.store.write_book(write(3, vec![put(closed)])).await.unwrap();
    db.store.write_book(write(4, vec![put(row("k4", 1_000, 1_025, "169.254.1.0/29"))])).await.unwrap();
}

async fn two_replicas_racing_for_the_last_room_sell_it_once(db: Db) {
    let (one, other) = (db.store.clone(), db.replica().await);
    for round in 0..10 {
        let revision = one.book(&id("south"), None).await.unwrap().revision;
        let of = |n: u32| {
            let name = format!("k{round}-{n}");
            write(revision, vec![put(row(&name, 10_000, 1_025 + u64::from(n), &format!("169.254.{n}.0/29")))])
        };
        let (first, second) = tokio::join!(one.write_book(of(1)), other.write_book(of(2)));
        assert_eq!(usize::from(first.is_ok()) + usize::from(second.is_ok()), 1, "{first:?} {second:?}");
        let book = one.book(&id("south"), None).await.unwrap();
        let place = book.rows[0].row.place.clone();
        one.write_book(write(book.revision, vec![BookChange::Remove { place }])).await.unwrap();
    }
}

async fn connections_are_due_when_they_are(db: Db) {
    let south = id("south");
    assert_eq!(db.store.next_place_due(&south, 5_000).await.unwrap(), None);
    let both = vec![put(row("k1", 1_000, 1_025, "169.254.1.0/29")), put(row("k2", 1_000, 1_026, "169.254.2.0/29"))];
    db.store.write_book(write(0, both)).await.unwrap();
    assert_eq!(db.store.due_places(&south, 9).await.unwrap(), [place("i1", "k1"), place("i1", "k2")]);
    // A due time alone needs no revision.
    let put_off = |ms| BookWrite { due: vec![(place("i1", "k1"), ms)], ..write(99, Vec::new()) };
    db.store.write_book(put_off(3_000)).await.unwrap();
    assert_eq!(db.store.due_places(&south, 9).await.unwrap(), [place("i1", "k2")]);
    assert_eq!(db.store.next_place_due(&south, 5_000).await.unwrap(), Some(0));
    db.store.write_book(write(1, vec![BookChange::Remove { place: place("i1", "k2") }])).await.unwrap();
    assert_eq!(db.store.next_place_due(&south, 5_000).await.unwrap(), Some(3_000));
    assert_eq!(db.store.next_place_due(&south, 1_000).await.unwrap(), Some(1_000));
    db.at(3_000).await;
    assert_eq!(db.store.due_places(&south, 9).await.unwrap(), [place("i1", "k1")]);
    // Nothing is put off for ever, and a clock that was set back strands nobody.
    db.store.write_book(put_off(u64::MAX)).await.unwrap();
    assert_eq!(db.store.due_places(&south, 9).await.unwrap(), []);
    db.at(-3_600_000).await;
    assert_eq!(db.store.due_places(&south, 9).await.unwrap(), [place("i1", "k1")]);
    assert_eq!(db.store.next_place_due(&south, 5_000).await.unwrap(), Some(0));
}

async fn old_things_are_forgotten(db: Db) {
    let (south, request) = (id("south"), Uuid::from_u128(1));
    let replay = Replay { digest: [0; 32], reply: Reply::Done, at: ms(START) };
    let changes =
        vec![BookChange::Tombstone { place: place("i1", "k0"), at: ms(START) }, BookChange::Replay(request, replay)];
    db.store.write_book(write(0, changes)).await.unwrap();
    let day = SignedDuration::from_hours(24);
    let at = |days: i32| i64::try_from((day * days).as_millis()).unwrap();
    let there = || async {
        db.store.forget(100).await.unwrap();
        let book = db.store.book(&south, Some(request)).await.unwrap();
        (book.replay.is_some(), book.tombstones.len())
    };
    db.at(at(7) - 1).await;
    assert_eq!(there().await, (true, 1));
    db.at(at(7)).await;
    assert_eq!(there().await, (false, 1));
    db.at(at(30)).await;
    assert_eq!(there().await, (false, 0));
}

async fn keys_pairs_and_owners_are_kept(db: Db) {
    let (south, e1) = (id("south"), id("e1"));
    for n in 0..5u8 {
        db.store.add_key_pair(&south, &e1, ms(START + i64::from(n)), vec![n]).await.unwrap();
    }
    db.store.add_key_pair(&south, &e1, ms(START + 4), vec![9]).await.unwrap();
    let pairs = db.store.key_pairs(&south, &e1).await.unwrap();
    assert_eq!(pairs.iter().map(|(_, sealed)| sealed[0]).collect::<Vec<_>>(), [4, 3, 2, 1]);
    let owner = |n| Owner { uuid: Uuid::from_u128(n), project: project(), sealed: vec![7], created_at: ms(START) };
    let changes = [3, 1, 2].map(|n| BookChange::Owner(owner(n))).to_vec();
    db.store.write_book(write(0, changes)).await.unwrap();
    assert_eq!(db.store.owner(&south, Uuid::from_u128(2)).await.unwrap(), Some(owner(2)));
    assert_eq!(db.store.owner(&id("east"), Uuid::from_u128(2)).await.unwrap(), None);
    // Whoever has a connection keeps it, however old.
    let lives = Row { uuid: Uuid::from_u128(3), ..row("k1", 1_000, 1_025, "169.254.1.0/29") };
    db.store.write_book(write(1, vec![put(lives)])).await.unwrap();
    db.at(31 * 24 * 3_600_000).await;
    db.store.forget(100).await.unwrap();
    let kept = |n| db.store.owner(&south, Uuid::from_u128(n));
    assert_eq!((kept(1).await.unwrap(), kept(2).await.unwrap(), kept(3).await.unwrap()), (None, None, Some(owner(3))));
}

async fn issues_and_comments_are_kept(db: Db) {
    let (south, n1) = (id("south"), id("n1"));
    let issue = |title: &str| -> tieline_openapi::coordinator::Issue {
        serde_json::from_value(serde_json::json!({ "title": title, "body": "b" })).unwrap()
    };
    assert!(matches!(db.store.peer_issue(&south, &n1).await, Err(StoreError::NotFound)));
    assert!(db.store.add_issue(&south, &n1, &issue("one"), audit()).await.unwrap());
    assert!(!db.store.add_issue(&south, &n1, &issue("two"), audit()).await.unwrap());
    assert_eq!(db.store.peer_issue(&south, &n1).await.unwrap(), issue("one"));
    db.store.put_issue(&south, &n1, &issue("three"), audit()).await.unwrap();
    assert!(matches!(db.store.put_issue(&id("east"), &n1, &issue("x"), audit()).await, Err(StoreError::NotFound)));
    assert_eq!(db.store.peer_issues(&south, None, 9).await.unwrap(), [(n1.clone(), issue("three"))]);
    assert_eq!(db.store.peer_issues(&south, Some(&n1), 9).await.unwrap(), []);
    let comment = |body: &str| -> tieline_openapi::coordinator::Comment {
        serde_json::from_value(serde_json::json!({ "body": body })).unwrap()
    };
    for (n, body) in [(1, "a"), (2, "b"), (3, "c")] {
        assert_eq!(db.store.add_comment(&south, &n1, &comment(body), audit()).await.unwrap(), n);
    }
    assert!(matches!(db.store.add_comment(&south, &id("n2"), &comment("x"), audit()).await, Err(StoreError::NotFound)));
    let all = db.store.comments(&south, &n1, None, 2).await.unwrap();
    assert_eq!(all, [(3, comment("c")), (2, comment("b"))]);
    assert_eq!(db.store.comments(&south, &n1, Some(2), 2).await.unwrap(), [(1, comment("a"))]);
}
