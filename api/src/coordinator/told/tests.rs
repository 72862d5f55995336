//! What is told follows from the record and the book alone.

use std::collections::BTreeMap;

use jiff::SignedDuration;
use proptest::prelude::*;
use serde_json::json;
use tieline_openapi::{
    coordinator::{BgpEnd, Hosts, L3Base, ResourceId, Sensitive},
    ids::{ConnectionId, OperationId},
    v1::{ConnectionIntent, ConnectionKind, ConnectionState, VerificationState},
};
use uuid::Uuid;

use super::*;
use crate::{
    plan::{
        coordinate::{
            Book, Change, ChannelTerms, Draw, EnvironmentTerms, FeatureRow, InterconnectTerms, IssuedKey, Kind, Local,
            Reason, Terms, Theirs,
        },
        negotiate::Negotiated,
    },
    state::{state, verification},
};

const UUID: Uuid = Uuid::from_u128(7);

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + seconds).unwrap()
}

fn id(text: &str) -> ResourceId {
    text.parse().unwrap()
}

fn terms() -> Terms {
    let channel = |n: u32| {
        let terms = ChannelTerms {
            enabled: true,
            in_maintenance: false,
            vlans: (1_025, 4_094),
            mtus: vec![(1_500, 1_500)],
            subnets: vec!["169.254.0.0/16".parse().unwrap()],
            excluded: Vec::new(),
            lengths: vec![29],
            asn: 64_512u64.try_into().unwrap(),
            device: "d".to_owned(),
            macsec: None,
        };
        (id(&format!("c{n}")), terms)
    };
    let interconnect =
        InterconnectTerms { open: true, max_bandwidth_mbps: 10_000, channels: (1..=2).map(channel).collect() };
    let environment = EnvironmentTerms {
        sizes_mbps: [1_000, 5_000].into(),
        defers: false,
        takes_deferral: false,
        deferral_timeout: SignedDuration::from_hours(72),
        interconnects: ["i1", "i2"].map(|i| (id(i), interconnect.clone())).into(),
    };
    Terms {
        us: "north".to_owned(),
        them: "south".to_owned(),
        environments: [(id("e1"), environment)].into(),
        poll: SignedDuration::from_secs(1),
        settled_poll: SignedDuration::from_secs(60),
    }
}

fn draw(n: u128) -> Draw {
    Draw { ids: [1, 2, 3].map(|i| Uuid::from_u128(100 * n + i)), password: Sensitive::new("x"), jitter: 0 }
}

/// A book with a connection whose key was brought here.
fn brought() -> Book {
    let mut book = Book::new(terms());
    let (_, changes) = book.accept_key(&id("e1"), UUID, 1_000, Kind::Standard, at(0), &draw(1)).unwrap();
    book.apply(&changes).unwrap();
    book
}

fn feature(n: u16, ours: Local, theirs: Theirs) -> FeatureRow {
    let end = |provider: &str, asn: u64| BgpEnd { provider: provider.to_owned(), asn: asn.try_into().unwrap() };
    FeatureRow {
        id: id(&format!("f{n}")),
        request_id: Uuid::from_u128(u128::from(n)),
        config: L3Base {
            vlan: u64::from(1_024 + n).try_into().unwrap(),
            mtu: 1_500u64.try_into().unwrap(),
            ends: [end("north", 64_512), end("south", 64_513)],
            ipv4: Some(Hosts {
                subnet: "169.254.1.0/29".parse().unwrap(),
                first: "169.254.1.1".parse().unwrap(),
                second: "169.254.1.2".parse().unwrap(),
            }),
            ipv6: None,
            md5_bgp_password: Sensitive::new("x"),
        },
        ours,
        theirs,
        closing: false,
        since_version: 1,
    }
}

/// The connection is there on both sides, with both channels in this state.
fn there(book: &mut Book, ours: Local, theirs: Theirs) {
    for row in book.rows.values_mut() {
        row.confirmed = true;
        row.remote = Remote::Present;
        row.features = [1, 2].map(|n| (id(&format!("c{n}")), feature(n, ours, theirs))).into();
    }
}

/// Both sides have told each other.
fn shake(book: &mut Book) {
    for row in book.rows.values_mut() {
        (row.shown, row.notified) = ((1, 1), true);
    }
}

fn record(book: &Book) -> ConnectionRecord {
    let intent: ConnectionIntent = serde_json::from_value(json!({
        "name": "n", "environmentId": "south.e1", "bandwidthMbps": 1_000, "a": {}, "b": {},
    }))
    .unwrap();
    ConnectionRecord {
        id: ConnectionId(Uuid::from_u128(1)),
        project: "default".parse().unwrap(),
        kind: ConnectionKind::Coordinated,
        shared: Some(SharedLink { peer: id("south"), uuid: UUID, ended: None, standing: Some(book.standing(UUID)) }),
        negotiated: Negotiated::elsewhere(&intent.environment_id, "south.e1".parse().unwrap()),
        intent,
        generation: 1,
        observed_generation: 0,
        status: EngineStatus::default(),
        instances: Vec::new(),
        samples: Vec::new(),
        path_conditions: Vec::new(),
        gateway_ends: BTreeMap::new(),
        last_operation: OperationId(Uuid::from_u128(2)),
        created_at: at(0),
        updated_at: at(0),
        deletion_requested_at: None,
        given_up: BTreeMap::new(),
    }
}

fn operation(kind: OperationKind, created_at: Timestamp) -> Operation {
    Operation {
        id: OperationId(Uuid::from_u128(2)),
        kind,
        target: ConnectionId(Uuid::from_u128(1)),
        generation: 1,
        state: OperationState::Running,
        stages: Vec::new(),
        problem: None,
        created_at,
        finished_at: None,
    }
}

fn look(record: &ConnectionRecord, operation: &Operation, now: Timestamp) -> Told {
    let shared = record.shared.as_ref().unwrap();
    told(record, shared, shared.standing.as_ref().unwrap(), Some(operation), now)
}

fn shown(record: &ConnectionRecord, now: Timestamp) -> (ConnectionState, VerificationState) {
    let facts = Facts::of(record, 0, now);
    (state(&facts), verification(&facts))
}

fn stages(told: &Told) -> Vec<(&str, StageState)> {
    told.operation.as_ref().unwrap().stages.iter().map(|stage| (stage.name.as_str(), stage.state)).collect()
}

#[test]
fn a_create_goes_through_its_stages_to_the_handshake() {
    use StageState::{Pending, Running, Succeeded};
    let mut book = brought();
    let create = operation(OperationKind::Create, at(0));
    let names = ["activationKey", "peer", "channels", "bgp", "verified"];
    let expect = |states: [StageState; 5]| names.into_iter().zip(states).collect::<Vec<_>>();
    let told = look(&record(&book), &create, at(1));
    assert_eq!(stages(&told), expect([Running, Pending, Pending, Pending, Pending]));
    assert_eq!(shown(&record(&book), at(1)), (ConnectionState::Provisioning, VerificationState::Unverified));
    there(&mut book, Local::Reserved, Theirs::Pending);
    let told = look(&record(&book), &create, at(2));
    assert_eq!(stages(&told), expect([Succeeded, Succeeded, Succeeded, Running, Pending]));
    assert_eq!(told.operation.as_ref().unwrap().state, OperationState::Waiting, "routers come up by themselves");
    assert_eq!(told.status.provisioned_at, Some(at(2)));
    there(&mut book, Local::Up, Theirs::Final);
    let told = look(&record(&book), &create, at(3));
    assert_eq!(stages(&told), expect([Succeeded, Succeeded, Succeeded, Succeeded, Running]));
    assert_eq!(shown(&record(&book), at(3)).1, VerificationState::Unverified, "BGP alone is not enough");
    shake(&mut book);
    let told = look(&record(&book), &create, at(4));
    assert_eq!(told.operation.as_ref().unwrap().state, OperationState::Succeeded);
    assert_eq!((told.status.verified_at, told.status.state), (Some(at(4)), Some(ConnectionState::Active)));
    assert_eq!(told.operation.unwrap().finished_at, Some(at(4)));
    // A session that goes down later degrades it.
    there(&mut book, Local::Down, Theirs::Final);
    let mut record = record(&book);
    record.status = told.status;
    assert_eq!(shown(&record, at(5)), (ConnectionState::Degraded, VerificationState::Unverified));
}

#[test]
fn a_key_that_nobody_brings_ends_after_seven_days() {
    let mut book = Book::new(terms());
    let changes = book.issue_key(&id("e1"), 1_000, UUID, [0; 32], at(0)).unwrap();
    book.apply(&changes).unwrap();
    let create = operation(OperationKind::Create, at(0));
    let days = |days: i64| at(days * 86_400);
    assert_eq!(shown(&record(&book), days(6)).0, ConnectionState::Pending);
    assert_eq!(look(&record(&book), &create, days(6)).operation.unwrap().state, OperationState::Waiting);
    let told = look(&record(&book), &create, days(7));
    assert_eq!(told.operation.as_ref().unwrap().state, OperationState::Failed);
    assert_eq!(told.status.reason.as_ref().unwrap().code, "activationKeyEnded");
    assert!(!told.gone, "its user has not seen it");
    let mut asked = record(&book);
    asked.deletion_requested_at = Some(days(8));
    assert!(look(&asked, &operation(OperationKind::Delete, days(8)), days(8)).gone);
}

#[test]
fn what_the_peer_deleted_goes_unless_it_is_protected() {
    let mut gone = record(&Book::new(terms()));
    gone.shared.as_mut().unwrap().ended = Some(Reason::Peer);
    let create = operation(OperationKind::Create, at(0));
    let told = look(&gone, &create, at(1));
    assert!(told.gone);
    assert_eq!(told.operation.unwrap().state, OperationState::Failed);
    assert_eq!(shown(&gone, at(1)).0, ConnectionState::Deleting);
    gone.intent.deletion_protection = true;
    let told = look(&gone, &create, at(1));
    assert!(!told.gone);
    assert_eq!(told.status.reason.unwrap().code, "deletedByPeer");
    assert_eq!(shown(&gone, at(1)).0, ConnectionState::ActionRequired);
}

#[test]
fn a_resize_ends_as_the_peer_decides() {
    let mut book = brought();
    there(&mut book, Local::Up, Theirs::Final);
    let place = book.rows.keys().next().unwrap().clone();
    let update = operation(OperationKind::Update, at(9));
    book.apply(&book.resize(&place, 5_000, &draw(2)).unwrap()).unwrap();
    let wanting = |book: &Book| {
        let mut record = record(book);
        record.intent.bandwidth_mbps = 5_000u64.try_into().unwrap();
        record
    };
    assert_eq!(look(&wanting(&book), &update, at(10)).operation.unwrap().state, OperationState::Running);
    assert_eq!(shown(&wanting(&book), at(10)).0, ConnectionState::Updating);
    let (mut refused, mut taken) = (book.clone(), book);
    refused.rows.get_mut(&place).unwrap().resize = None;
    let told = look(&wanting(&refused), &update, at(11));
    assert_eq!(told.operation.unwrap().state, OperationState::Failed);
    let row = taken.rows.get_mut(&place).unwrap();
    (row.resize, row.bandwidth_mbps) = (None, 5_000);
    let told = look(&wanting(&taken), &update, at(11));
    assert_eq!((told.operation.unwrap().state, told.settled), (OperationState::Succeeded, true));
}

#[test]
fn a_move_ends_at_one_place() {
    let mut book = brought();
    there(&mut book, Local::Up, Theirs::Final);
    shake(&mut book);
    let from = book.rows.keys().next().unwrap().clone();
    let (to, changes) = book.migrate(&from, None, at(20), &draw(3)).unwrap();
    let stayed = book.clone();
    book.apply(&changes).unwrap();
    let moving = operation(OperationKind::Migrate, at(20));
    let standing = book.standing(UUID);
    assert!(standing.is_left(&book.rows[&from]) && standing.is_moved_to(&book.rows[&to]));
    assert_eq!(look(&record(&book), &moving, at(21)).operation.unwrap().state, OperationState::Running);
    // The old place carries meanwhile.
    assert_eq!(look(&record(&book), &moving, at(21)).status.state, Some(ConnectionState::Updating));
    let version = book.rows[&from].version;
    book.apply(&[Change::Remove { place: from, version }]).unwrap();
    there(&mut book, Local::Up, Theirs::Final);
    shake(&mut book);
    let told = look(&record(&book), &moving, at(30));
    assert!(stages(&told).iter().all(|(_, state)| *state == StageState::Succeeded), "{told:?}");
    assert_eq!(told.operation.unwrap().state, OperationState::Succeeded);
    assert!(!book.standing(UUID).is_left(&book.rows[&to]));
    assert_eq!(look(&record(&stayed), &moving, at(30)).operation.unwrap().state, OperationState::Failed);
}

fn local() -> impl Strategy<Value = Local> {
    prop_oneof![Just(Local::Reserved), Just(Local::Down), Just(Local::Up), Just(Local::Drained)]
}

fn reason() -> impl Strategy<Value = Option<Reason>> {
    prop_oneof![
        3 => Just(None),
        1 => Just(Some(Reason::Peer)),
        1 => Just(Some(Reason::Wish)),
        1 => Just(Some(Reason::NoRoom)),
    ]
}

proptest! {
    /// Whatever the book holds: what is verified was shaken hands on, what is gone holds nothing, and what is final is dated.
    #[test]
    fn what_is_told_agrees_with_itself(
        ours in prop::array::uniform2(local()),
        theirs in prop::array::uniform2(prop_oneof![Just(Theirs::Proposed), Just(Theirs::Pending), Just(Theirs::Final)]),
        flags in prop::array::uniform5(any::<bool>()),
        leaving in reason(), ended in reason(), days in 0i64..9,
    ) {
        let [present, shaken, asked, protected, with_key] = flags;
        let mut book = if with_key {
            let mut book = Book::new(terms());
            let key = IssuedKey {
                uuid: UUID, environment: id("e1"), bandwidth_mbps: 1_000, digest: [0; 32], issued_at: at(0), spent: false,
            };
            book.keys.insert(UUID, key);
            book
        } else {
            brought()
        };
        for row in book.rows.values_mut() {
            row.confirmed = true;
            row.leaving = leaving;
            if present {
                row.remote = Remote::Present;
            }
            row.features = (0..2u16)
                .map(|n| (id(&format!("c{}", n + 1)), feature(n + 1, ours[usize::from(n)], theirs[usize::from(n)])))
                .collect();
        }
        if shaken {
            shake(&mut book);
        }
        let now = at(days * 86_400);
        let mut record = record(&book);
        record.intent.deletion_protection = protected;
        record.deletion_requested_at = asked.then_some(at(1));
        record.shared.as_mut().unwrap().ended = ended;
        let (state, verified) = shown(&record, now);
        let standing = book.standing(UUID);
        let kind = if asked { OperationKind::Delete } else { OperationKind::Create };
        let told = look(&record, &operation(kind, at(0)), now);
        if verified == VerificationState::Verified {
            prop_assert!(standing.staying().any(|placed| placed.verified) && !asked);
        }
        prop_assert!(!told.gone || standing.is_over(now));
        prop_assert_eq!(asked, state == ConnectionState::Deleting && record.deletion_requested_at.is_some());
        prop_assert_eq!(told.status.reason.is_some(), state == ConnectionState::ActionRequired);
        let operation = told.operation.unwrap();
        prop_assert_eq!(operation.state.is_final(), operation.finished_at.is_some());
        prop_assert_eq!(operation.state == OperationState::Failed, operation.problem.is_some());
        // Looking again changes nothing.
        record.status = told.status.clone();
        prop_assert_eq!(look(&record, &operation, now).status, told.status);
    }
}
