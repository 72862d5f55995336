//! The recovery table of the specification, row by row.

use std::collections::BTreeSet;

use jiff::SignedDuration;

use super::{
    super::*,
    world::{World, id, request, start},
};

/// South has brought a key of north's; both sides are as they are after everything that `until` waits for.
fn connected(until: impl Fn(&World, &Place) -> bool) -> (World, Place) {
    let mut world = World::new(7, [false, false]);
    let (_, place) = world.buy(0, 5_000).unwrap();
    let at = place.clone();
    world.settle(1, move |world| until(world, &at));
    (world, place)
}

fn up() -> (World, Place) {
    let (world, place) =
        connected(|world, place| world.sides[0].book.rows.contains_key(place) && world.agree().is_ok());
    world.agree().unwrap();
    (world, place)
}

/// Both sides have the connection, and no feature yet.
fn bare() -> (World, Place) {
    connected(|world, place| world.sides[1].book.rows[place].remote == Remote::Present)
}

/// Lets the driver step, always ready, until it asks something that is wanted; answers everything else.
fn until_asked(world: &mut World, place: &Place, wanted: impl Fn(&Ask) -> bool) -> Ask {
    for _ in 0..200 {
        world.at += 4_000;
        let (now, draw) = (world.now(1), world.draw());
        let step = world.sides[1].book.step(place, now, &draw);
        world.store(1, &step.changes);
        let Some(ask) = step.ask else { continue };
        if wanted(&ask) {
            return ask;
        }
        answer(world, place, &ask);
    }
    panic!("it is never asked");
}

/// The peer serves an ask of south's, and south takes the answer.
fn answer(world: &mut World, place: &Place, ask: &Ask) -> Reply {
    let reply = serve(world, ask);
    let changes = world.sides[1].book.absorb(place, ask, Some(&reply), world.now(1));
    world.store(1, &changes);
    reply
}

fn serve(world: &mut World, ask: &Ask) -> Reply {
    let served = world.sides[0].book.serve(&request(ask), world.now(0));
    world.store(0, &served.changes);
    served.reply
}

fn is_proposal(ask: &Ask) -> bool {
    matches!(ask, Ask::CreateFeature { .. })
}

#[test]
fn an_answer_that_was_lost_is_found_by_looking() {
    let (mut world, place) = bare();
    let ask = until_asked(&mut world, &place, is_proposal);
    assert_eq!(serve(&mut world, &ask), Reply::Done);
    let after_first = world.sides[0].book.clone();
    // The answer is lost. The next that is asked is a look, and it finds the same feature.
    let next = until_asked(&mut world, &place, |_| true);
    assert!(matches!(next, Ask::Look { .. }), "{next:?}");
    answer(&mut world, &place, &next);
    let Ask::CreateFeature { channel, feature, config, .. } = &ask else { unreachable!() };
    let ours = &world.sides[1].book.rows[&place].features[channel];
    assert_eq!((&ours.id, &ours.config, ours.theirs), (feature, config, Theirs::Pending));
    // A replay is answered as before and changes nothing.
    assert_eq!(serve(&mut world, &ask), Reply::Done);
    assert_eq!(world.sides[0].book, after_first);
}

#[test]
fn a_request_id_with_another_body_is_a_conflict() {
    let (mut world, place) = bare();
    let ask = until_asked(&mut world, &place, is_proposal);
    serve(&mut world, &ask);
    let before = world.sides[0].book.clone();
    let Ask::CreateFeature { place, channel, feature, mut config, request_id } = ask else { unreachable!() };
    config.vlan = tieline_openapi::units::Vlan::try_from(1_030).unwrap();
    let other = Ask::CreateFeature { place, channel, feature, config, request_id };
    assert!(matches!(serve(&mut world, &other), Reply::Refused(Refusal { status: 409, .. })));
    assert_eq!(world.sides[0].book, before, "the first reservation is untouched");
}

#[test]
fn a_feature_on_one_side_only_is_completed_from_what_was_proposed() {
    // The peer has it, we have lost it: taken over as it is, without new guidance.
    let (mut world, place) = up();
    let lost = world.sides[1].book.rows[&place].features[&id("c2")].clone();
    let mut row = world.sides[1].book.rows[&place].clone();
    row.features.remove(&id("c2"));
    row.version += 1;
    world.store(1, &[Change::Put(Box::new(row))]);
    world.at += 60_000;
    let look = until_asked(&mut world, &place, |ask| matches!(ask, Ask::Look { .. } | Ask::Guidance { .. }));
    assert!(matches!(look, Ask::Look { .. }), "{look:?}");
    answer(&mut world, &place, &look);
    let found = &world.sides[1].book.rows[&place].features[&id("c2")];
    assert_eq!((&found.id, &found.config), (&lost.id, &lost.config));
    // We have proposed it, the peer has not heard: the same proposal again, without new guidance.
    let (mut world, place) = bare();
    let first = until_asked(&mut world, &place, is_proposal);
    let again = until_asked(&mut world, &place, |ask| !matches!(ask, Ask::Look { .. }));
    assert_eq!(first, again);
}

#[test]
fn a_feature_on_neither_side_is_reserved_here_before_it_is_asked_for() {
    let (mut world, place) = bare();
    let guidance = until_asked(&mut world, &place, |ask| !matches!(ask, Ask::Look { .. } | Ask::Notify { .. }));
    assert!(matches!(guidance, Ask::Guidance { .. }), "{guidance:?}");
    assert!(world.sides[1].book.rows[&place].features.is_empty());
    answer(&mut world, &place, &guidance);
    let ask = until_asked(&mut world, &place, is_proposal);
    let Ask::CreateFeature { channel, feature, config, .. } = &ask else { unreachable!() };
    let ours = &world.sides[1].book.rows[&place].features[channel];
    assert_eq!((&ours.id, &ours.config, ours.theirs), (feature, config, Theirs::Proposed));
    assert!(config.vlan.get() > 1_024);
    // Another feature on the same channel is refused.
    serve(&mut world, &ask);
    let Ask::CreateFeature { place, channel, config, .. } = ask else { unreachable!() };
    let second = Ask::CreateFeature { place, channel, feature: id("other"), config, request_id: world.uuid() };
    assert!(matches!(serve(&mut world, &second), Reply::Refused(Refusal { status: 409, .. })));
}

#[test]
fn what_is_pending_for_very_long_is_told_and_never_deleted_for_its_age() {
    let (mut world, place) = up();
    for side in 0..2 {
        let changes = world.sides[side].book.observe(&place, &id("c1"), Local::Down);
        world.sides[side].book.apply(&changes).unwrap();
    }
    let late = start() + SignedDuration::from_hours(24 * 90);
    for side in 0..2 {
        let book = &world.sides[side].book;
        assert!(book.is_stuck(&place, late));
        let draw = World::new(1, [false, false]).draw();
        let step = book.step(&place, late, &draw);
        let leaves = |change: &Change| matches!(change, Change::Put(row) if row.leaving.is_some());
        assert!(!step.changes.iter().any(leaves), "{step:?}");
    }
}

#[test]
fn seven_days_end_what_never_worked_or_stands_on_one_side() {
    let day = |n: i64| start() + SignedDuration::from_hours(24 * n);
    let (mut world, place) = bare();
    let draw = world.draw();
    let leaving = |book: &Book, at| match book.step(&place, at, &draw).changes.first() {
        Some(Change::Put(row)) => row.leaving,
        _ => None,
    };
    // Never finished: only after a look that says so too.
    let mut book = world.sides[1].book.clone();
    assert_eq!(leaving(&book, day(8)), None, "it looks first");
    book.rows.get_mut(&place).unwrap().seen_at = Some(day(6));
    assert_eq!((leaving(&book, day(6)), leaving(&book, day(8))), (None, None));
    book.rows.get_mut(&place).unwrap().seen_at = Some(day(8));
    assert_eq!(leaving(&book, day(8)), Some(Reason::NeverFinal));
    book.rows.get_mut(&place).unwrap().theirs_ever_final = true;
    assert_eq!(leaving(&book, day(8)), None, "it has worked at the peer");
    book.rows.get_mut(&place).unwrap().remote = Remote::Absent { since: day(2) };
    assert_eq!((leaving(&book, day(8)), leaving(&book, day(9))), (None, Some(Reason::OneSided)));
}

#[test]
fn the_sixth_attempt_is_made_in_the_background() {
    let (mut world, place) = bare();
    let ask = until_asked(&mut world, &place, is_proposal);
    let mut at = world.now(1);
    let began = at;
    let (mut writes, mut pauses, mut last, mut looked) = (1, Vec::new(), at, false);
    for _ in 0..2_000 {
        let draw = world.draw();
        let step = world.sides[1].book.step(&place, at, &draw);
        world.store(1, &step.changes);
        match step.ask {
            Some(Ask::Look { .. }) => looked = true,
            Some(again) => {
                assert_eq!(again, ask, "the proposal does not change");
                let background = world.sides[1].book.rows[&place].in_background(at) && writes >= 5;
                assert!(!background || looked, "a look comes before a write in the background");
                writes += 1;
                pauses.push(at.duration_since(last).as_millis());
                (last, looked) = (at, false);
            }
            None => {}
        }
        at = at.max(step.wake) + SignedDuration::from_millis(1);
    }
    let foreground = pauses
        .iter()
        .scan(0, |sum, pause| {
            *sum += pause;
            Some(*sum)
        })
        .filter(|sum| *sum < 60_000)
        .count()
        + 1;
    assert!(foreground <= 5, "{foreground} in the first minute: {pauses:?}");
    let later = &pauses[10..];
    assert!(later.iter().all(|pause| (400_000..=910_000).contains(pause)), "{later:?}");
    assert!(later.windows(2).any(|two| two[0] != two[1]), "with jitter");
    assert!(at.duration_since(began) > SignedDuration::from_hours(24), "and it goes on");
}

#[test]
fn a_restart_in_the_middle_goes_on_with_what_is_stored() {
    let (mut world, place) = bare();
    // Stored, and dead before it was sent: the same is asked after the restart.
    let before = until_asked(&mut world, &place, is_proposal);
    world.sides[1].book = world.sides[1].book.clone();
    let after = until_asked(&mut world, &place, is_proposal);
    assert_eq!(before, after);
    serve(&mut world, &before);
    let reserved = world.sides[0].book.rows[&place].features.len();
    serve(&mut world, &after);
    assert_eq!(world.sides[0].book.rows[&place].features.len(), reserved);
}

#[test]
fn a_create_that_comes_after_the_delete_is_refused() {
    for hours in [0, 24 * 8] {
        let mut world = World::new(3, [false, false]);
        let (key, place) = world.buy(0, 5_000).unwrap();
        let create = until_asked(&mut world, &place, |ask| matches!(ask, Ask::Create { .. }));
        let propose = {
            let (mut other, at) = bare();
            until_asked(&mut other, &at, is_proposal)
        };
        // The customer thinks better of it: the delete overtakes the create.
        let leave = world.sides[1].book.leave(key);
        world.store(1, &leave);
        let delete = until_asked(&mut world, &place, |ask| matches!(ask, Ask::Delete { .. }));
        let reply = answer(&mut world, &place, &delete);
        assert!(matches!(reply, Reply::Refused(Refusal { status: 404, .. })));
        // Answers are forgotten before tombstones are.
        world.at += hours * 3_600_000;
        let now = world.now(0);
        world.sides[0].book.forget(now);
        assert_eq!(world.sides[0].book.replays.is_empty(), hours > 0);
        assert!(matches!(serve(&mut world, &create), Reply::Refused(Refusal { status: 409, .. })));
        let Ask::CreateFeature { channel, feature, config, request_id, .. } = propose else { unreachable!() };
        let orphan = Ask::CreateFeature { place, channel, feature, config, request_id };
        assert!(matches!(serve(&mut world, &orphan), Reply::Refused(Refusal { status: 404, .. })));
        assert!(world.sides[0].book.rows.is_empty());
    }
}

#[test]
fn of_two_workers_one_acts() {
    let (mut world, place) = bare();
    world.at += 60_000;
    let (now, one, other) = (world.now(1), world.draw(), world.draw());
    let book = &world.sides[1].book;
    let (first, second) = (book.step(&place, now, &one), book.step(&place, now, &other));
    let mut book = book.clone();
    book.apply(&first.changes).unwrap();
    assert_eq!(book.apply(&second.changes), Err(Stale));
    let served = book.serve(&request(&Ask::Notify { place: place.clone(), shown: 1, request_id: world.uuid() }), now);
    book.apply(&served.changes).unwrap();
    assert_eq!(book.apply(&served.changes), Err(Stale));
}

#[test]
fn only_the_channel_that_fails_is_repaired() {
    let (mut world, place) = up();
    let before = world.sides[1].book.rows[&place].clone();
    // North loses one feature.
    let mut row = world.sides[0].book.rows[&place].clone();
    row.features.remove(&id("c3"));
    row.version += 1;
    world.store(0, &[Change::Put(Box::new(row))]);
    world.sides[0].routers.get_mut(&(place.interconnect.clone(), id("c3"))).unwrap().clear();
    world.asked.clear();
    let old = before.features[&id("c3")].id.clone();
    let at = place.clone();
    world.settle(2, move |world| {
        world.agree().is_ok() && world.sides[1].book.rows[&at].features.get(&id("c3")).is_some_and(|f| f.id != old)
    });
    world.agree().unwrap();
    let after = &world.sides[1].book.rows[&place];
    for channel in ["c1", "c2", "c4"] {
        assert_eq!(after.features[&id(channel)].id, before.features[&id(channel)].id, "{channel} is as it was");
    }
    let made: BTreeSet<_> =
        world.asked.iter().filter(|(_, ask)| is_proposal(ask)).map(|(_, a)| a.request_id()).collect();
    assert_eq!((made.len(), after.leaving), (1, None));
    assert!(!world.asked.iter().any(|(_, ask)| matches!(ask, Ask::Delete { .. } | Ask::Create { .. })));
}

/// Where a pass takes as long as the pause between two looks, or far longer, what a look or guidance was for is done before the
/// next look is.
#[test]
fn a_slow_pass_does_more_than_look() {
    for pass_ms in [6_000, 60_000, 600_000] {
        let (mut world, place) = bare();
        for _ in 0..24 {
            world.at += pass_ms;
            let (now, draw) = (world.now(1), world.draw());
            let step = world.sides[1].book.step(&place, now, &draw);
            world.store(1, &step.changes);
            if let Some(ask) = step.ask {
                answer(&mut world, &place, &ask);
            }
        }
        let features = &world.sides[1].book.rows[&place].features;
        let agreed = features.len() == 4 && features.values().all(|f| f.theirs != Theirs::Proposed);
        assert!(agreed, "passes of {pass_ms} ms: {features:?}");
    }
}

/// Nobody has it: the look that comes before every try says so, and the try comes before the next look.
#[test]
fn a_slow_pass_repeats_what_was_lost() {
    for pass_ms in [6_000, 60_000, 600_000] {
        let mut world = World::new(7, [false, false]);
        let (_, place) = world.buy(0, 5_000).unwrap();
        let is_create = |ask: &Ask| matches!(ask, Ask::Create { .. });
        until_asked(&mut world, &place, is_create);
        let mut asked = Vec::new();
        while !asked.last().is_some_and(is_create) {
            assert!(asked.len() < 6, "passes of {pass_ms} ms: {asked:?}");
            world.at += pass_ms;
            let (now, draw) = (world.now(1), world.draw());
            let step = world.sides[1].book.step(&place, now, &draw);
            world.store(1, &step.changes);
            if let Some(ask) = step.ask {
                if !is_create(&ask) {
                    answer(&mut world, &place, &ask);
                }
                asked.push(ask);
            }
        }
    }
}

#[test]
fn a_notification_is_only_a_hint() {
    // Lost: the next look says the same. Doubled: nothing more happens.
    let (mut world, place) = up();
    let changes = world.sides[0].book.observe(&place, &id("c1"), Local::Down);
    world.sides[0].book.apply(&changes).unwrap();
    let look = until_asked(&mut world, &place, |ask| matches!(ask, Ask::Look { .. }));
    answer(&mut world, &place, &look);
    assert_eq!(world.sides[1].book.rows[&place].features[&id("c1")].theirs, Theirs::Pending);
    let notify = Ask::Notify { place: place.clone(), shown: 9, request_id: world.uuid() };
    let now = world.now(0);
    for _ in 0..3 {
        assert_eq!(serve(&mut world, &notify), Reply::Done);
        assert!(world.sides[0].book.rows[&place].look_at <= now, "looked at once");
    }
}

#[test]
fn nothing_is_made_anew_where_it_should_not_be() {
    let (mut world, place) = bare();
    // A channel that either side has disabled, or works on, is left out.
    for (side, channel) in [(0, "c1"), (1, "c2")] {
        let terms = &mut world.sides[side].book.terms;
        let interconnects = &mut terms.environments.get_mut(&id("e1")).unwrap().interconnects;
        let channel = interconnects.get_mut(&place.interconnect).unwrap().channels.get_mut(&id(channel)).unwrap();
        if side == 0 { channel.enabled = false } else { channel.in_maintenance = true }
    }
    world.settle(1, |_| false);
    let channels = |side: usize| world.sides[side].book.rows[&place].features.keys().cloned().collect::<Vec<_>>();
    assert_eq!(channels(0), [id("c3"), id("c4")]);
    assert_eq!(channels(1), [id("c3"), id("c4")]);
    // A connection that leaves gets no feature any more, from either side.
    let (mut world, place) = bare();
    let ask = until_asked(&mut world, &place, is_proposal);
    let uuid = world.sides[0].book.rows[&place].uuid;
    let leave = world.sides[0].book.leave(uuid);
    world.store(0, &leave);
    assert!(matches!(serve(&mut world, &ask), Reply::Refused(Refusal { status: 404, .. })));
    let leave = world.sides[1].book.leave(uuid);
    world.store(1, &leave);
    let next = until_asked(&mut world, &place, |_| true);
    assert!(matches!(next, Ask::Delete { .. }), "{next:?}");
}

#[test]
fn of_two_that_want_the_last_room_one_is_refused_and_goes_elsewhere() {
    let mut world = World::new(11, [false, false]);
    // 8 of 10 Gbit/s of every interconnect are sold; both sides want the rest of the same one at once.
    for side in 0..2 {
        for interconnect in
            world.sides[side].book.terms.environments.get_mut(&id("e1")).unwrap().interconnects.values_mut()
        {
            interconnect.max_bandwidth_mbps = 5_000;
        }
    }
    let (_, first) = world.buy(0, 5_000).unwrap();
    let (_, second) = world.buy(1, 5_000).unwrap();
    assert_eq!(first.interconnect, second.interconnect);
    world.settle(1, |world| world.agree().is_ok() && world.sides.iter().all(|side| side.book.rows.len() == 2));
    world.agree().unwrap();
    let refusals = world.sides.iter().flat_map(|side| side.book.replays.values());
    let refusals = refusals.filter(|r| matches!(&r.reply, Reply::Refused(no) if no.status == 409)).count();
    assert_eq!(refusals, 1, "exactly one conflict");
    let places: Vec<_> = world.sides[0].book.rows.keys().map(|place| place.interconnect.clone()).collect();
    assert_ne!(places[0], places[1]);
}

#[test]
fn who_does_not_take_a_deferral_is_not_deferred_to() {
    let mut world = World::new(5, [false, true]);
    world.sides[0].book.terms.environments.get_mut(&id("e1")).unwrap().takes_deferral = false;
    let (_, place) = world.buy(0, 1_000).unwrap();
    world.settle(1, |world| world.agree().is_ok() && !world.sides[0].book.rows.is_empty());
    world.agree().unwrap();
    assert!(world.sides[1].book.rows[&place].drives);
}

#[test]
fn a_deferral_that_nobody_fulfils_ends() {
    let mut world = World::new(5, [false, true]);
    // North takes it over and can do nothing.
    let channels = |world: &mut World| {
        let interconnects = &mut world.sides[0].book.terms.environments.get_mut(&id("e1")).unwrap().interconnects;
        interconnects.values_mut().for_each(|i| i.channels.values_mut().for_each(|c| c.enabled = false));
    };
    channels(&mut world);
    for side in &mut world.sides {
        side.book.terms.poll = SignedDuration::from_secs(600);
    }
    let (_, place) = world.buy(0, 1_000).unwrap();
    world.settle(71, |_| false);
    assert_eq!(world.sides[1].book.rows[&place].leaving, None);
    world.settle(3, World::is_empty);
    assert!(world.is_empty());
    assert!(
        world.asked.iter().any(|(side, ask)| *side == 1 && matches!(ask, Ask::Delete { .. })),
        "deleted at the peer"
    );
}

#[test]
fn a_key_is_good_once_for_seven_days_and_for_what_it_says() {
    let mut world = World::new(9, [false, false]);
    let key = world.uuid();
    let issued = world.sides[0].book.issue_key(&id("e1"), 5_000, key, [0; 32], world.now(0)).unwrap();
    world.store(0, &issued);
    let good = |world: &World, mbps, hours| {
        let ask = Ask::Confirm { environment: id("e1"), key, bandwidth_mbps: mbps };
        let at = world.now(0) + SignedDuration::from_hours(hours);
        world.sides[0].book.serve(&request(&ask), at).reply == Reply::Key(true)
    };
    assert!(good(&world, 5_000, 0) && good(&world, 5_000, 167));
    assert!(!good(&world, 5_000, 168) && !good(&world, 2_000, 0));
    let withdrawn = world.sides[0].book.withdraw_key(key);
    world.store(0, &withdrawn);
    assert!(!good(&world, 5_000, 0));
    let (at, draw) = (world.now(1), world.draw());
    let (place, changes) = world.sides[1].book.accept_key(&id("e1"), key, 5_000, Kind::Standard, at, &draw).unwrap();
    world.store(1, &changes);
    world.settle(1, World::is_empty);
    assert!(!world.sides[1].book.rows.contains_key(&place), "what was made for it is dropped");
    assert!(!world.asked.iter().any(|(_, ask)| matches!(ask, Ask::Create { .. })));
}
