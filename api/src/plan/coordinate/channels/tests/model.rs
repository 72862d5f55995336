//! Keys and work under random schedules: whatever is lost, late or doubled, and whoever dies when.

use jiff::SignedDuration;
use rand::RngExt;
use uuid::Uuid;

use super::{
    super::*,
    world::{MANY, NONE, World, at},
};
use crate::plan::coordinate::tests::Kept;

const HOUR: i64 = 3_600_000;

fn run_until(world: &mut World, until: i64) {
    while world.happen(until) {}
}

#[test]
fn without_faults_each_channel_has_a_key_and_changes_it() {
    let mut world = World::new(1);
    run_until(&mut world, 10 * 60_000);
    world.agree().unwrap();
    assert_eq!(world.up.len(), 8, "first keys come in parallel");
    // Each side wishes another key for each channel at once: one after the other gets it.
    world.at = 3 * HOUR;
    for side in 0..2 {
        for n in 1..=4 {
            let now = world.now(side);
            let book = &world.sides[side].book;
            let wished =
                book.wish_rotation(&at("i1", &format!("c{n}")), RotationReason::Operator, "", Uuid::from_u128(n), now);
            let changes = wished.unwrap();
            world.store(side, &changes);
        }
    }
    run_until(&mut world, 24 * HOUR);
    world.agree().unwrap();
    let rotated = &world.rotated[&at("i1", "c1").interconnect];
    // A wish that comes again after its change asks for another one: each channel has had one at least.
    for n in 1..=4 {
        assert!(rotated.iter().any(|(_, place)| *place == at("i1", &format!("c{n}"))), "{rotated:?}");
    }
    assert!(rotated.windows(2).all(|two| two[1].0 - two[0].0 >= 2 * HOUR), "{rotated:?}");
    assert!(!world.rotated.contains_key(&at("i2", "c1").interconnect));
}

/// One schedule: wishes and work of both operators at any time, under faults; then quiet, and all is as it should be.
fn schedule(seed: u64) {
    run(World::new(seed), seed, 20);
}

/// The same, shorter and with fewer looks; its books are kept somewhere too.
pub(crate) fn short(seed: u64, kept: Box<dyn Kept>) {
    run(World::kept_in(kept, seed, SignedDuration::from_mins(15)), seed, 5);
}

fn run(mut world: World, seed: u64, acts: usize) {
    world.faults = MANY;
    for _ in 0..acts {
        let side = usize::from(world.chance(500));
        let (i, c) = (1 + u32::from(world.chance(300)), world.random.random_range(1..=4));
        let place = at(&format!("i{i}"), &format!("c{c}"));
        let now = world.now(side);
        let number = Uuid::from_u128(world.random.random::<u128>());
        let changes = if world.chance(500) {
            let wished = world.sides[side].book.wish_rotation(&place, RotationReason::Operator, "", number, now);
            wished.unwrap_or_default()
        } else {
            let in_mins = if world.chance(300) { 0 } else { world.random.random_range(0..300) };
            let start = now + SignedDuration::from_mins(in_mins);
            let end = start + SignedDuration::from_mins(world.random.random_range(1..300));
            let (whole_device, emergency) = (world.chance(200), world.chance(100));
            let request = WindowRequest { id: number, at: place, whole_device, start, end, emergency };
            let opened = world.sides[side].book.open_window(&request, now).unwrap_or_default();
            if world.chance(200) { Vec::new() } else { opened }
        };
        world.store(side, &changes);
        if world.chance(150) {
            let opened: Vec<Uuid> = world.sides[side]
                .book
                .channels
                .values()
                .flat_map(|row| row.windows.iter().filter(|window| window.is_open()).map(|window| window.id))
                .collect();
            if let Some(id) = opened.first() {
                let (id, now) = (*id, world.now(side));
                let changes = world.sides[side].book.end_window(id, now).unwrap();
                world.store(side, &changes);
            }
        }
        // Often before anything of the last act has reached the other side.
        let pause = if world.chance(500) { 1..400 } else { 60_000..2 * HOUR };
        let until = world.at + world.random.random_range(pause);
        run_until(&mut world, until);
    }
    world.faults = NONE;
    // The last late message has come, every window is over, and each change that was wished for had its turn.
    let last = world.at + 72 * HOUR;
    while world.at < last && !(world.is_quiet() && world.agree().is_ok()) {
        let until = world.at + HOUR;
        run_until(&mut world, until);
    }
    world.agree().unwrap_or_else(|error| panic!("seed {seed}: {error}"));
    assert_eq!(world.up.len(), 8, "seed {seed}");
    for (interconnect, rotated) in &world.rotated {
        let apart = rotated.windows(2).all(|two| two[1].0 - two[0].0 >= 2 * HOUR);
        assert!(apart, "seed {seed}: {interconnect} {rotated:?}");
    }
}

/// `TIELINE_CHANNEL_SEED=n` runs one again, `TIELINE_CHANNEL_SEEDS=n` so many.
#[test]
fn keys_and_work_survive_any_schedule() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let many = || 0..number("TIELINE_CHANNEL_SEEDS").unwrap_or(300);
    let seeds = number("TIELINE_CHANNEL_SEED").map_or_else(many, |seed| seed..seed + 1);
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get() as u64);
    let fails = |seed: &u64| std::panic::catch_unwind(|| schedule(*seed)).is_err();
    let part = &|n: u64| seeds.clone().filter(|seed| seed % threads == n).filter(fails).collect::<Vec<_>>();
    let failed: Vec<u64> = std::thread::scope(|scope| {
        let parts: Vec<_> = (0..threads).map(|n| scope.spawn(move || part(n))).collect();
        parts.into_iter().flat_map(|part| part.join().expect("panics are caught")).collect()
    });
    let many = seeds.end - seeds.start;
    assert!(
        failed.is_empty(),
        "{} of {many} schedules failed; TIELINE_CHANNEL_SEED=n for n of {failed:?}",
        failed.len()
    );
}
