//! A random schedule of everything that can go wrong; at the end both sides agree, and after deletion nothing is left.

use jiff::SignedDuration;
use rand::RngExt;

use super::{
    super::*,
    Kept,
    world::{Faults, World},
};

/// One thing that customers, operators or clocks do.
fn act(world: &mut World) {
    let side = world.random.random_range(0..2);
    let mbps = [1_000, 2_000, 5_000][world.random.random_range(0..3)];
    let places: Vec<Place> = world.sides[side].book.rows.keys().cloned().collect();
    let place = (!places.is_empty()).then(|| places[world.random.random_range(0..places.len())].clone());
    let (draw, now) = (world.draw(), world.now(side));
    let changes = match (world.random.random_range(0..10), place) {
        (0..=3, _) | (_, None) => {
            world.buy(side, mbps);
            world.buy(1 - side, mbps);
            return;
        }
        (4, Some(place)) => world.sides[side].book.leave(world.sides[side].book.rows[&place].uuid),
        (5, Some(place)) => world.sides[side].book.resize(&place, mbps, &draw).unwrap_or_default(),
        (6 | 7, Some(place)) => {
            world.sides[side].book.migrate(&place, None, now, &draw).map(|(_, changes)| changes).unwrap_or_default()
        }
        (8, Some(_)) => {
            world.sides[side].skew = SignedDuration::from_secs(world.random.random_range(-3_600..3_600));
            return;
        }
        (_, Some(_)) => {
            let keys: Vec<_> = world.sides[side].book.keys.keys().copied().collect();
            if keys.is_empty() || world.chance(700) {
                return;
            }
            let key = keys[world.random.random_range(0..keys.len())];
            world.sides[side].book.withdraw_key(key)
        }
    };
    world.store(side, &changes);
}

/// One schedule, whose books are kept somewhere too.
pub(crate) fn run(seed: u64, kept: Box<dyn Kept>) -> World {
    let mut world = World::kept_in(kept, seed, [seed % 4 == 1 || seed % 4 == 3, seed % 4 == 2 || seed % 4 == 3]);
    world.faults = Faults::MANY;
    for _ in 0..world.random.random_range(3..12) {
        act(&mut world);
        // Often before anything of the last act has reached the other side.
        let pause = if world.chance(700) { 1..400 } else { 1_000..120_000 };
        let until = world.at + world.random.random_range(pause);
        while world.happen(until) {}
    }
    world.faults = Faults::NONE;
    // A schedule is over when the last late message has come too.
    world.settle(24, |world| world.agree().is_ok());
    if let Err(difference) = world.agree() {
        panic!("seed {seed}: {difference}");
    }
    let uuids: Vec<_> = world.sides.iter().flat_map(|side| side.book.rows.values().map(|row| row.uuid)).collect();
    for uuid in uuids {
        let side = world.random.random_range(0..2);
        let changes = world.sides[side].book.leave(uuid);
        world.store(side, &changes);
    }
    world.settle(24, World::is_empty);
    assert!(world.is_empty(), "seed {seed}: left over: {:#?}", world.sides.map(|side| (side.book.rows, side.routers)));
    world
}

#[test]
fn both_sides_agree_and_leave_nothing() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seeds = number("TIELINE_SEED").map_or(0..number("TIELINE_SEEDS").unwrap_or(1_000), |seed| seed..seed + 1);
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get() as u64);
    let part = &|n: u64| {
        let (mut stale, mut conflicts) = (0, 0);
        for seed in seeds.clone().filter(|seed| seed % threads == n) {
            let world = run(seed, Box::new(()));
            let replies = world.sides.iter().flat_map(|side| side.book.replays.values());
            stale += world.stale;
            conflicts += replies.filter(|r| matches!(&r.reply, Reply::Refused(no) if no.status == 409)).count();
        }
        (stale, conflicts)
    };
    let (stale, conflicts) = std::thread::scope(|scope| {
        let parts: Vec<_> = (0..threads).map(|n| scope.spawn(move || part(n))).collect();
        let parts = parts.into_iter().map(|part| part.join().expect("a schedule failed"));
        parts.fold((0, 0), |sum, part| (sum.0 + part.0, sum.1 + part.1))
    });
    // In a hundred schedules a few dozen proposals clash; fewer, and the schedules have become too tame.
    let many = (seeds.end - seeds.start) as usize;
    assert!(many < 100 || (stale > many && conflicts * 5 > many), "too tame: {stale} {conflicts}");
}

#[test]
fn without_faults_a_connection_is_up_at_once() {
    for defers in [[false, false], [true, false], [false, true]] {
        let mut world = World::new(1, defers);
        let (_, place) = world.buy(0, 5_000).unwrap();
        world.settle(1, |world| world.agree().is_ok() && !world.sides[0].book.rows.is_empty());
        world.agree().unwrap();
        assert!(world.at < 120_000, "{} ms", world.at);
        let north = &world.sides[0].book.rows[&place];
        assert_eq!(north.role, Role::Responder);
        assert_eq!(north.drives, defers[1], "who deferred does not drive");
        assert!(north.features.values().all(|f| f.config.mtu.get() == 8_800), "the highest MTU that both take");
        let south = &world.sides[1].book.rows[&place];
        assert!(world.sides[0].book.keys[&south.uuid].spent);
    }
}
