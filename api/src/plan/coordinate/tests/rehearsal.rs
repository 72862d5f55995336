//! What a plan says is what is then done: the rehearsal of a wish against an undisturbed run of both sides.

use std::collections::BTreeSet;

use super::{
    super::*,
    world::{World, id},
};

/// What the peer is asked, in a plan's words.
fn planned(rehearsal: &Rehearsal) -> Vec<String> {
    let told = |planned: &Planned| {
        let (at, channel) = (&planned.place.interconnect, planned.channel.as_ref());
        let channel = channel.map_or_else(String::new, ToString::to_string);
        match &planned.work {
            Work::CreateConnection { bandwidth_mbps, source } => {
                let from = source.as_ref().map_or_else(String::new, |from| from.interconnect.to_string());
                Some(format!("create {at} {bandwidth_mbps} from {from}"))
            }
            Work::UpdateConnection { from_mbps, to_mbps } => Some(format!("update {at} {from_mbps} {to_mbps}")),
            Work::DeleteConnection => Some(format!("delete {at}")),
            Work::CreateFeature => Some(format!("feature {at} {channel}")),
            Work::DeleteFeature => Some(format!("no feature {at}")),
            Work::PutSession | Work::DrainSession | Work::DeleteSession => None,
        }
    };
    rehearsal.planned.iter().filter_map(told).collect()
}

/// What the peer was asked, a repetition once.
fn done(world: &World, side: usize, from: usize, before_mbps: u32) -> Vec<String> {
    let mut seen = BTreeSet::new();
    let told = |(_, ask): &(usize, Ask)| {
        if !ask.request_id().is_some_and(|id| seen.insert(id)) {
            return None;
        }
        match ask {
            Ask::Create { place, bandwidth_mbps, source, .. } => {
                let from = match source {
                    Source::Connection(from) => from.interconnect.to_string(),
                    Source::Key(_) => String::new(),
                };
                Some(format!("create {} {bandwidth_mbps} from {from}", place.interconnect))
            }
            Ask::Resize { place, to_mbps, .. } => {
                Some(format!("update {} {before_mbps} {to_mbps}", place.interconnect))
            }
            Ask::Delete { place, .. } => Some(format!("delete {}", place.interconnect)),
            Ask::CreateFeature { place, channel, .. } => Some(format!("feature {} {channel}", place.interconnect)),
            Ask::DeleteFeature { place, .. } => Some(format!("no feature {}", place.interconnect)),
            Ask::Confirm { .. } | Ask::Look { .. } | Ask::Guidance { .. } | Ask::Notify { .. } => None,
        }
    };
    world.asked[from..].iter().filter(|(of, _)| *of == side).filter_map(told).collect()
}

/// Sessions that are put on our routers, made the last choice, and taken away.
fn sessions(rehearsal: &Rehearsal) -> [usize; 3] {
    let count = |work: Work| rehearsal.planned.iter().filter(|planned| planned.work == work).count();
    [Work::PutSession, Work::DrainSession, Work::DeleteSession].map(count)
}

/// Rehearses a wish of a side, does it, and sees that it was as planned.
fn as_planned(world: &mut World, side: usize, uuid: uuid::Uuid, wished: &[Change]) -> Rehearsal {
    let rehearsal = world.sides[side].book.rehearse(uuid, wished, world.now(side));
    let before = world.sides[side].book.rows.values().find(|row| row.uuid == uuid).map_or(0, |row| row.bandwidth_mbps);
    let from = world.asked.len();
    world.store(side, wished);
    // Beyond the moment when both agree, for what comes after that.
    let until = world.at + 2 * 3_600_000;
    while world.happen(until) {}
    assert_eq!(done(world, side, from, before), planned(&rehearsal));
    assert!(rehearsal.reached, "{rehearsal:#?}");
    for (n, planned) in rehearsal.planned.iter().enumerate() {
        assert!(planned.after.iter().all(|at| *at < n), "{planned:?} comes before what it comes after");
    }
    rehearsal
}

#[test]
fn what_is_done_is_what_was_planned() {
    for seed in 0..8 {
        let mut world = World::new(seed, [false, false]);
        // The customer orders in the north, and brings the key to the south.
        let (uuid, draw) = (world.uuid(), world.draw());
        let now = world.now(0);
        let issued = world.sides[0].book.issue_key(&id("e1"), 2_000, uuid, [0; 32], now).unwrap();
        let order = world.sides[0].book.rehearse(uuid, &issued, now);
        assert!(order.reached && planned(&order).is_empty(), "who hands out a key asks for nothing: {order:?}");
        assert_eq!(sessions(&order), [4, 0, 0]);
        world.store(0, &issued);
        let now = world.now(1);
        let accepted = world.sides[1].book.accept_key(&id("e1"), uuid, 2_000, Kind::Standard, now, &draw);
        let (place, changes) = accepted.unwrap();
        let made = as_planned(&mut world, 1, uuid, &changes);
        assert_eq!(sessions(&made), [4, 0, 0]);
        let draw = world.draw();
        let resized = world.sides[1].book.resize(&place, 5_000, &draw).unwrap();
        let resized = as_planned(&mut world, 1, uuid, &resized);
        assert_eq!((planned(&resized).len(), sessions(&resized)), (1, [0, 0, 0]));
        // Whoever moves it is the one that asks.
        let (draw, now) = (world.draw(), world.now(0));
        let target = if place.interconnect == id("i3") { id("i2") } else { id("i3") };
        let moved = world.sides[0].book.migrate(&place, Some(&target), now, &draw);
        let (new, changes) = moved.unwrap();
        assert_eq!(new.interconnect, target);
        let moved = as_planned(&mut world, 0, uuid, &changes);
        assert_eq!(sessions(&moved), [4, 4, 4]);
        let drained = moved.planned.iter().filter(|planned| planned.work == Work::DrainSession);
        assert!(drained.into_iter().all(|planned| planned.carried), "make before break");
        let left = world.sides[1].book.leave(uuid);
        let left = as_planned(&mut world, 1, uuid, &left);
        assert_eq!(sessions(&left), [0, 4, 4]);
        assert!(world.is_empty());
    }
}

#[test]
fn a_move_to_a_place_that_cannot_be_is_refused() {
    let mut world = World::new(1, [false, false]);
    let (_, place) = world.buy(0, 5_000).unwrap();
    world.settle(1, |world| world.agree().is_ok() && !world.sides[0].book.rows.is_empty());
    let (draw, now) = (world.draw(), world.now(1));
    let book = &mut world.sides[1].book;
    let to = |book: &Book, id| book.migrate(&place, Some(&id), now, &draw).map(drop);
    assert_eq!(to(book, place.interconnect.clone()), Err(WishError::There));
    assert_eq!(to(book, id("nowhere")), Err(WishError::Environment));
    let other = if place.interconnect == id("i2") { id("i1") } else { id("i2") };
    let interconnects = &mut book.terms.environments.get_mut(&id("e1")).unwrap().interconnects;
    interconnects.get_mut(&other).unwrap().max_bandwidth_mbps = 4_000;
    assert_eq!(to(&world.sides[1].book, other.clone()), Err(WishError::Full));
    let book = &mut world.sides[1].book;
    let interconnects = &mut book.terms.environments.get_mut(&id("e1")).unwrap().interconnects;
    interconnects.get_mut(&other).unwrap().open = false;
    assert_eq!(to(&world.sides[1].book, other), Err(WishError::Closed));
}

/// A target is the one place where a connection goes: where the peer has no room there, it stays where it is.
#[test]
fn a_move_that_the_peer_refuses_goes_nowhere_else() {
    let mut world = World::new(3, [false, false]);
    let (_, place) = world.buy(0, 5_000).unwrap();
    world.settle(1, |world| world.agree().is_ok() && !world.sides[0].book.rows.is_empty());
    let other = if place.interconnect == id("i2") { id("i1") } else { id("i2") };
    // Closed at the peer, which this side does not know.
    let interconnects = &mut world.sides[0].book.terms.environments.get_mut(&id("e1")).unwrap().interconnects;
    interconnects.get_mut(&other).unwrap().open = false;
    let (draw, now) = (world.draw(), world.now(1));
    let (_, changes) = world.sides[1].book.migrate(&place, Some(&other), now, &draw).unwrap();
    let from = world.asked.len();
    world.store(1, &changes);
    world.settle(24, |world| world.agree().is_ok() && world.sides[1].book.rows.len() == 1);
    world.agree().unwrap();
    assert_eq!(world.sides[1].book.rows.keys().collect::<Vec<_>>(), [&place]);
    let elsewhere = |ask: &Ask| matches!(ask, Ask::Create { place, .. } if place.interconnect != other);
    assert!(!world.asked[from..].iter().any(|(_, ask)| elsewhere(ask)));
}
