//! Each rule by itself, and all of keys against a reference that is written another way.

use std::collections::BTreeMap;

use jiff::SignedDuration;
use proptest::prelude::*;
use tieline_openapi::coordinator::{ResourceId, Sensitive, Timestamp};
use uuid::Uuid;

use super::{
    super::*,
    world::{at, draw_of, id, start, terms},
};

const HOUR: SignedDuration = SignedDuration::from_hours(1);

/// South's book: it manages c3 and c4, north c1 and c2.
fn south() -> Book {
    let mut book = Book::new(terms("south", "north"));
    let rows = book.missing_channels(start());
    book.apply(&rows).unwrap();
    book
}

fn hex(n: u128) -> Sensitive {
    Sensitive::new(format!("{n:064x}"))
}

fn create(channel: &str, n: u128) -> ChannelAsk {
    let (cak, ckn) = (hex(n), hex(n + 1_000));
    ChannelAsk::CreateKey { at: at("i1", channel), key: id(&format!("k{n}")), cak, ckn, request_id: Uuid::from_u128(n) }
}

fn delete(channel: &str, n: u128) -> ChannelAsk {
    ChannelAsk::DeleteKey { at: at("i1", channel), key: id(&format!("k{n}")), request_id: Uuid::from_u128(n) }
}

fn serve(book: &mut Book, ask: ChannelAsk, now: Timestamp) -> u16 {
    let served = book.serve_channel(&ChannelRequest { ask, request_id: None, digest: [0; 32] }, now);
    book.apply(&served.changes).unwrap();
    if let ChannelReply::Refused(refusal) = served.reply { refusal.status } else { 200 }
}

/// The device has all that it should, and uses one of them.
fn activate(book: &mut Book, channel: &str, n: u128, now: Timestamp) {
    let at = at("i1", channel);
    let wanted = book.wanted_keys(&at).unwrap();
    let installed = wanted.installed.iter().map(|key| key.ckn.expose().to_owned()).collect();
    let report = KeyReport { installed, active: Some(hex(n + 1_000).expose().to_owned()) };
    let changes = book.observe_keys(&at, &report, now);
    book.apply(&changes).unwrap();
}

#[test]
fn keys_are_the_managers() {
    let mut book = south();
    assert_eq!(serve(&mut book, create("c3", 1), start()), 403);
    assert_eq!(serve(&mut book, delete("c3", 1), start()), 403);
    assert_eq!(serve(&mut book, create("c9", 1), start()), 404);
    assert_eq!(serve(&mut book, delete("c1", 1), start()), 404);
    // The delete overtook it.
    assert_eq!(serve(&mut book, create("c1", 1), start()), 409);
    let ask = |channel: &str| ChannelAsk::RequestRotation {
        at: at("i1", channel),
        words: "w".repeat(300),
        request_id: Uuid::nil(),
    };
    assert_eq!(serve(&mut book, ask("c1"), start()), 403, "north manages it itself");
    assert_eq!(serve(&mut book, ask("c3"), start()), 200);
    let wish = book.channels[&at("i1", "c3")].wish.clone().unwrap();
    assert_eq!((wish.reason, wish.words.len()), (RotationReason::Peer, 200));
}

#[test]
fn a_key_bakes_and_an_active_one_stays() {
    let (mut book, mut now) = (south(), start());
    assert_eq!(serve(&mut book, create("c1", 1), now), 200);
    // First keys come in parallel.
    assert_eq!(serve(&mut book, create("c2", 2), now), 200);
    // The same again, as after an answer that was lost; and another under its name.
    assert_eq!(serve(&mut book, create("c1", 1), now + HOUR), 200);
    let other = ChannelAsk::CreateKey {
        at: at("i1", "c1"),
        key: id("k1"),
        cak: hex(77),
        ckn: hex(78),
        request_id: Uuid::nil(),
    };
    assert_eq!(serve(&mut book, other, now), 409);
    activate(&mut book, "c1", 1, now);
    assert_eq!(serve(&mut book, delete("c1", 1), now), 409, "an active key stays");
    assert_eq!(serve(&mut book, create("c1", 3), now), 409, "its key is not two hours old");
    now += HOUR * 2;
    assert_eq!(serve(&mut book, create("c1", 3), now), 200);
    assert_eq!(serve(&mut book, create("c1", 4), now), 409, "two keys");
    assert_eq!(serve(&mut book, create("c2", 4), now + HOUR * 9), 409, "another channel changes its key");
    activate(&mut book, "c1", 3, now);
    assert_eq!(serve(&mut book, delete("c1", 1), now), 200);
    assert_eq!(serve(&mut book, create("c2", 4), now + HOUR), 409, "it bakes");
    assert_eq!(serve(&mut book, create("c2", 4), now + HOUR * 2), 200);
    assert_eq!(serve(&mut book, create("c1", 1), now + HOUR * 9), 409, "what was deleted does not come again");
    // The device took it away: fail closed.
    let place = super::super::super::Place { environment: id("e1"), interconnect: id("i1"), connection: id("k") };
    assert!(book.is_secure(&place, &id("c1")));
    let lost = book.observe_keys(&at("i1", "c1"), &KeyReport::default(), now);
    book.apply(&lost).unwrap();
    assert!(!book.is_secure(&place, &id("c1")));
    // Without its key the new one is all that is left, and may be deleted: fail forward.
    assert_eq!(serve(&mut book, delete("c1", 3), now), 200);
    assert_eq!(serve(&mut book, create("c1", 5), now), 200);
}

#[test]
fn a_request_id_is_answered_once() {
    let (mut book, now) = (south(), start());
    let request = |ask, digest| ChannelRequest { ask, request_id: Some(Uuid::from_u128(9)), digest: [digest; 32] };
    let first = book.serve_channel(&request(create("c1", 1), 1), now);
    book.apply(&first.changes).unwrap();
    assert_eq!(first.reply, ChannelReply::Done { at: Some(now) });
    let again = book.serve_channel(&request(create("c1", 1), 1), now + HOUR);
    assert_eq!((again.reply, again.changes), (first.reply, Vec::new()), "its startTime is of the first time");
    let other = book.serve_channel(&request(create("c2", 2), 2), now);
    assert!(matches!(other.reply, ChannelReply::Refused(refusal) if refusal.status == 409));
}

/// Passes that are further apart than everything that is due by time: each comes to its turn all the same.
#[test]
fn whatever_is_due_comes_to_its_turn_however_slow_passes_are() {
    let (mut book, mut now) = (south(), start());
    let (place, mut asked) = (at("i1", "c3"), [0; 3]);
    for n in 0..13 {
        now += HOUR;
        let wanted = book.wanted_keys(&place).unwrap();
        let installed = wanted.installed.iter().map(|key| key.ckn.expose().to_owned()).collect();
        let seen = book.observe_keys(&place, &KeyReport { installed, active: None }, now);
        book.apply(&seen).unwrap();
        let step = book.step_channel(&place, now, &draw_of(n));
        book.apply(&step.changes).unwrap();
        let kind = step.ask.map(|ask| match ask {
            ChannelAsk::Events { .. } => 0,
            ChannelAsk::Keys { .. } => 1,
            ChannelAsk::CreateKey { .. } => 2,
            other @ (ChannelAsk::NotifyMaintenance { .. }
            | ChannelAsk::DeleteKey { .. }
            | ChannelAsk::RequestRotation { .. }) => panic!("{other:?}"),
        });
        kind.into_iter().for_each(|kind: usize| asked[kind] += 1);
    }
    assert_eq!(asked, [4; 3], "nobody answers, and each is asked as often");
}

fn window(n: u128, channel: &str, hours: (i64, i64)) -> WindowRequest {
    let (start, end) = (start() + HOUR * hours.0 as i32, start() + HOUR * hours.1 as i32);
    let at = at("i1", channel);
    WindowRequest { id: Uuid::from_u128(n), at, whole_device: false, start, end, emergency: false }
}

/// The peer shows this of a channel, at a look that was asked now.
fn shows(book: &mut Book, channel: &str, events: Vec<PeerEvent>, now: Timestamp) {
    let (mut row, reply) = (book.channels[&at("i1", channel)].clone(), ChannelReply::Events(events));
    row.events_at = now;
    row.attempts = Default::default();
    book.channels.insert(row.at.clone(), row);
    for n in 1..9 {
        let step = book.step_channel(&at("i1", channel), now, &draw_of(n * 10));
        book.apply(&step.changes).unwrap();
        if let Some(ask @ ChannelAsk::Events { .. }) = step.ask {
            let changes = book.absorb_channel(&ask, Some(&reply), now);
            return book.apply(&changes).unwrap();
        }
    }
    panic!("{channel} is not looked at");
}

fn step(book: &mut Book, channel: &str, now: Timestamp) {
    let step = book.step_channel(&at("i1", channel), now, &draw_of(2));
    book.apply(&step.changes).unwrap();
}

#[test]
fn a_window_begins_when_the_peer_had_nothing_against_it() {
    let (mut book, now) = (south(), start());
    let changes = book.open_window(&window(1, "c1", (1, 3)), now).unwrap();
    book.apply(&changes).unwrap();
    let state = |book: &Book| book.channels[&at("i1", "c1")].windows[0].clone();
    // Not without having asked of every other channel.
    for channel in ["c2", "c3"] {
        shows(&mut book, channel, Vec::new(), now);
    }
    step(&mut book, "c1", now + HOUR);
    assert_eq!((state(&book).cleared, state(&book).begun_at), (false, None));
    shows(&mut book, "c4", Vec::new(), now);
    step(&mut book, "c1", now + HOUR);
    step(&mut book, "c1", now + HOUR);
    assert_eq!((state(&book).cleared, state(&book).begun_at), (true, Some(now + HOUR)));
    book.close_channels(now + HOUR);
    assert!(book.channel_terms(&at("i1", "c1")).unwrap().in_maintenance);
    // Never two of one interconnect; another channel's work may follow it.
    let beside = book.open_window(&window(2, "c2", (2, 4)), now);
    assert_eq!(beside, Err(WindowError::Conflict("i1".to_owned())));
    assert!(book.open_window(&window(2, "c2", (3, 4)), now).is_ok());
    assert!(book.open_window(&WindowRequest { emergency: true, ..window(2, "c2", (2, 4)) }, now).is_ok());
    step(&mut book, "c1", now + HOUR * 3);
    assert_eq!(state(&book).ended, Some((now + HOUR * 3, WindowEnd::Done)));
    book.close_channels(now + HOUR * 3);
    assert!(!book.channel_terms(&at("i1", "c1")).unwrap().in_maintenance);
}

#[test]
fn what_the_peer_plans_stands_against_a_window() {
    let (mut book, now) = (south(), start());
    let event = PeerEvent { id: "theirs".to_owned(), start: Some(now + HOUR), end: Some(now + HOUR * 2) };
    let changes = book.open_window(&window(1, "c1", (1, 3)), now).unwrap();
    book.apply(&changes).unwrap();
    shows(&mut book, "c2", vec![event], now);
    for channel in ["c3", "c4"] {
        shows(&mut book, channel, Vec::new(), now);
    }
    let refused = book.open_window(&window(2, "c3", (1, 2)), now);
    assert_eq!(refused, Err(WindowError::Conflict("i1".to_owned())));
    step(&mut book, "c1", now + HOUR);
    let row = &book.channels[&at("i1", "c1")];
    assert_eq!(row.windows[0].ended, Some((now + HOUR, WindowEnd::Conflict)));
    // The peer's own work closes its channel here too.
    book.close_channels(now + HOUR);
    assert!(book.channel_terms(&at("i1", "c2")).unwrap().in_maintenance);
    assert!(!book.channel_terms(&at("i1", "c1")).unwrap().in_maintenance);
}

#[test]
fn planned_work_does_not_begin_beside_an_emergency() {
    let (mut book, now) = (south(), start());
    let changes = book.open_window(&window(1, "c1", (1, 3)), now).unwrap();
    book.apply(&changes).unwrap();
    for channel in ["c2", "c3", "c4"] {
        shows(&mut book, channel, Vec::new(), now);
    }
    step(&mut book, "c1", now + HOUR / 2);
    assert!(book.channels[&at("i1", "c1")].windows[0].cleared, "the peer has nothing against it");
    let emergency = WindowRequest { emergency: true, ..window(2, "c2", (0, 2)) };
    let changes = book.open_window(&emergency, now + HOUR / 2).unwrap();
    book.apply(&changes).unwrap();
    step(&mut book, "c1", now + HOUR);
    let row = &book.channels[&at("i1", "c1")];
    assert_eq!(row.windows[0].ended, Some((now + HOUR, WindowEnd::Conflict)));
    assert_eq!(row.windows[0].begun_at, None);
}

#[test]
fn work_on_a_device_takes_each_of_its_channels() {
    let mut book = south();
    let request = WindowRequest { whole_device: true, ..window(1, "c1", (1, 3)) };
    let changes = book.open_window(&request, start()).unwrap();
    book.apply(&changes).unwrap();
    let taken: Vec<String> = book
        .channels
        .values()
        .filter(|row| !row.windows.is_empty())
        .map(|row| format!("{}/{}", row.at.interconnect, row.at.channel))
        .collect();
    assert_eq!(taken, ["i1/c1", "i2/c1"]);
    let other = WindowRequest { at: at("i2", "c2"), whole_device: true, ..window(2, "c2", (2, 4)) };
    assert_eq!(book.open_window(&other, start()), Err(WindowError::Conflict("i1".to_owned())));
    let changes = book.end_window(request.id, start()).unwrap();
    assert_eq!(changes.len(), 2);
    book.apply(&changes).unwrap();
    assert_eq!(book.end_window(request.id, start()), Err(WindowError::Gone));
    let past = WindowRequest { end: start(), ..window(3, "c1", (0, 0)) };
    assert_eq!(book.open_window(&past, start()), Err(WindowError::Times));
}

#[test]
fn a_key_that_the_manager_does_not_know_is_deleted_at_the_peer() {
    let (mut book, mut now, place) = (south(), start(), at("i1", "c3"));
    let seen = |id: &ResourceId| SeenKey { id: id.clone(), start_time: Some(start()), active: true };
    let mut strange = vec![seen(&id("strange"))];
    let mut deleted = Vec::new();
    for n in 0..40 {
        let wanted = book.wanted_keys(&place).unwrap();
        let installed = wanted.installed.iter().map(|key| key.ckn.expose().to_owned()).collect();
        let report = KeyReport { installed, active: wanted.active.map(|ckn| ckn.expose().to_owned()) };
        let changes = book.observe_keys(&place, &report, now);
        book.apply(&changes).unwrap();
        let step = book.step_channel(&place, now, &draw_of(n * 10 + 1));
        book.apply(&step.changes).unwrap();
        let reply = match &step.ask {
            Some(ChannelAsk::Keys { .. }) => {
                let known = book.channels[&place].keys.iter().filter(|key| key.theirs != KeyThere::Unknown);
                ChannelReply::Keys(known.map(|key| seen(&key.id)).chain(strange.clone()).collect())
            }
            Some(ChannelAsk::DeleteKey { key, .. }) => {
                deleted.push(key.to_string());
                strange.clear();
                ChannelReply::Done { at: None }
            }
            Some(ChannelAsk::Events { .. }) => ChannelReply::Events(Vec::new()),
            Some(
                ChannelAsk::CreateKey { .. }
                | ChannelAsk::NotifyMaintenance { .. }
                | ChannelAsk::RequestRotation { .. },
            )
            | None => ChannelReply::Done { at: Some(now) },
        };
        if let Some(ask) = &step.ask {
            let changes = book.absorb_channel(ask, Some(&reply), now);
            book.apply(&changes).unwrap();
        }
        now = step.wake.max(now + SignedDuration::from_secs(1));
    }
    assert_eq!(deleted, ["strange"]);
    let row = &book.channels[&place];
    assert!(row.stray.is_empty() && row.keys.len() == 1, "{row:?}");
}

/// A key: number, taken at, in use since, whether in use, whether first.
type Key = (u128, i64, Option<i64>, bool, bool);

/// The rules of keys once more, by a list of what happened.
#[derive(Default)]
struct Reference {
    /// By channel.
    keys: BTreeMap<&'static str, Vec<Key>>,
    gone: Vec<u128>,
}

impl Reference {
    fn create(&mut self, channel: &'static str, n: u128, hour: i64) -> u16 {
        let all: usize = self.keys.values().map(Vec::len).sum();
        let own = self.keys.get(channel).cloned().unwrap_or_default();
        if own.iter().any(|key| key.0 == n) {
            return 200;
        }
        let elsewhere: Vec<_> = self.keys.iter().filter(|(c, _)| **c != channel).map(|(_, keys)| keys).collect();
        let baked = |key: &Key| hour - key.1.max(key.2.unwrap_or(key.1)) >= 2;
        let good = !self.gone.contains(&n)
            && own.len() < 2
            && all < 5
            && (own.is_empty()
                || (own.iter().all(baked)
                    && elsewhere.iter().all(|keys| keys.len() < 2)
                    && elsewhere.iter().flat_map(|keys| keys.iter()).all(|key| key.4 || baked(key))));
        if !good {
            return 409;
        }
        self.keys.entry(channel).or_default().push((n, hour, None, false, own.is_empty()));
        200
    }

    fn delete(&mut self, channel: &'static str, n: u128) -> u16 {
        let keys = self.keys.entry(channel).or_default();
        let Some(at) = keys.iter().position(|key| key.0 == n) else {
            self.gone.push(n);
            return 404;
        };
        if keys[at].3 {
            return 409;
        }
        keys.remove(at);
        self.gone.push(n);
        200
    }
}

#[derive(Debug, Clone)]
enum Deed {
    Create(&'static str, u128),
    Delete(&'static str, u128),
    Use(&'static str, usize),
    Wait(i64),
}

fn deeds() -> impl Strategy<Value = Vec<Deed>> {
    let channels = || prop::sample::select(vec!["c1", "c2", "c3", "c4"]);
    // Ids belong to a channel, as a manager draws them.
    let number = |channel: &str, n: u128| n * 10 + channel[1..].parse::<u128>().unwrap();
    prop::collection::vec(
        prop_oneof![
            4 => (channels(), 0u128..4).prop_map(move |(c, n)| Deed::Create(c, number(c, n))),
            2 => (channels(), 0u128..4).prop_map(move |(c, n)| Deed::Delete(c, number(c, n))),
            3 => (channels(), 0usize..2).prop_map(|(c, n)| Deed::Use(c, n)),
            2 => (1i64..4).prop_map(Deed::Wait),
        ],
        0..40,
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]
    #[test]
    fn keys_follow_the_reference(all in deeds()) {
        let mut agreed = terms("south", "north");
        for channel in agreed.environments.get_mut(&id("e1")).unwrap().interconnects.get_mut(&id("i1")).unwrap().channels.values_mut() {
            channel.macsec = Some(MacSecTerms { managed_here: false, bake: BAKE_TIME, rotate_after: None });
        }
        let mut book = Book::new(agreed);
        let rows = book.missing_channels(start());
        book.apply(&rows).unwrap();
        let (mut reference, mut hour) = (Reference::default(), 0i64);
        for deed in all {
            let now = start() + SignedDuration::from_hours(hour);
            match deed {
                Deed::Wait(hours) => hour += hours,
                Deed::Create(c, n) => prop_assert_eq!(serve(&mut book, create(c, n), now), reference.create(c, n, hour)),
                Deed::Delete(c, n) => prop_assert_eq!(serve(&mut book, delete(c, n), now), reference.delete(c, n)),
                Deed::Use(c, nth) => {
                    let keys = reference.keys.entry(c).or_default();
                    let Some(n) = keys.get(nth).map(|key| key.0) else { continue };
                    for key in keys.iter_mut() {
                        if key.0 == n && !key.3 {
                            key.2 = Some(hour);
                        }
                        key.3 = key.0 == n;
                    }
                    activate(&mut book, c, n, now);
                }
            }
            let shown: BTreeMap<&str, Vec<ResourceId>> = book.channels.values().filter(|row| row.at.interconnect == id("i1"))
                .map(|row| (row.at.channel.as_str(), row.keys.iter().map(|key| key.id.clone()).collect())).collect();
            for (channel, keys) in &shown {
                let known = reference.keys.get(channel).map(|keys| keys.iter().map(|key| id(&format!("k{}", key.0))).collect::<Vec<_>>());
                prop_assert_eq!(keys, &known.unwrap_or_default());
            }
        }
    }
}
