use proptest::prelude::*;

use super::*;

fn origin() -> Instant {
    #[expect(clippy::disallowed_methods, reason = "an arbitrary origin; only differences matter")]
    Instant::now()
}

/// A way that lets sizes up to `mtu` pass, and of those loses what `lose` says.
struct Sim {
    pmtu: PathMtu,
    now: Instant,
    round: u64,
    mtu: u16,
    tried: Vec<u16>,
}

impl Sim {
    fn new(ceiling: u16, mtu: u16) -> Self {
        let now = origin();
        Self { pmtu: PathMtu::new(ceiling, now), now, round: 0, mtu, tried: Vec::new() }
    }

    fn run(&mut self, time: Duration, mut lose: impl FnMut() -> bool) {
        let end = self.now + time;
        while self.now < end {
            self.round += 1;
            let trial = self.pmtu.poll(self.now, true, self.round);
            // What is lost beside it is lost whatever size it has.
            if !lose() {
                self.pmtu.heard(self.round);
            }
            if let Some(trial) = trial {
                self.tried.push(trial.size);
                if trial.size <= self.mtu && !lose() {
                    self.pmtu.answered(trial, self.now + Duration::from_millis(5));
                }
            }
            self.now += Duration::from_millis(10);
        }
    }
}

#[test]
fn one_probe_suffices_where_the_way_is_wide() {
    let mut sim = Sim::new(1_440, 1_500);
    assert_eq!(sim.pmtu.mtu(), FLOOR, "nothing is known yet");
    sim.run(Duration::from_millis(50), || false);
    assert_eq!((sim.pmtu.mtu(), sim.pmtu.phase(), sim.tried.as_slice()), (1_440, Phase::Complete, &[1_440][..]));
    sim.run(Duration::from_secs(60), || false);
    assert!((12..=14).contains(&sim.tried.len()), "confirmed every five seconds: {:?}", sim.tried);
}

#[test]
fn a_black_hole_is_left_within_nine_seconds_and_the_way_raised_again() {
    let mut sim = Sim::new(1_440, 1_500);
    sim.run(Duration::from_secs(1), || false);
    sim.mtu = 1_400;
    sim.run(CONFIRMATION_TIMER + PROBE_TIMER * MAX_PROBES + Duration::from_millis(100), || false);
    assert_eq!(sim.pmtu.mtu(), FLOOR.max(sim.pmtu.mtu()));
    assert!(sim.pmtu.mtu() <= 1_400, "what does not pass is not sent any more");
    sim.run(Duration::from_secs(30), || false);
    assert!((1_396..=1_400).contains(&sim.pmtu.mtu()), "{}", sim.pmtu.mtu());
    assert_eq!((sim.pmtu.phase(), sim.pmtu.black_holes()), (Phase::Complete, 1));
    sim.mtu = 1_500;
    sim.run(PMTU_RAISE_TIMER, || false);
    assert_eq!(sim.pmtu.mtu(), 1_440);
}

#[test]
fn a_way_narrower_than_the_floor_is_said_to_be() {
    let mut sim = Sim::new(1_440, 1_200);
    sim.run(Duration::from_secs(40), || false);
    assert_eq!((sim.pmtu.mtu(), sim.pmtu.phase()), (FLOOR, Phase::Error));
    sim.mtu = 1_500;
    sim.run(Duration::from_secs(6), || false);
    assert_eq!((sim.pmtu.mtu(), sim.pmtu.phase()), (1_440, Phase::Complete));
}

#[test]
fn a_silent_tunnel_says_nothing_about_sizes() {
    let now = origin();
    let mut pmtu = PathMtu::new(1_440, now);
    let trial = pmtu.poll(now, true, 1).unwrap();
    pmtu.answered(trial, now);
    for second in 0..600 {
        assert_eq!(pmtu.poll(now + Duration::from_secs(second), false, 2 + second), None);
    }
    assert_eq!((pmtu.mtu(), pmtu.black_holes()), (1_440, 0));
}

#[test]
fn what_the_own_interface_refuses_is_not_repeated() {
    let now = origin();
    let mut pmtu = PathMtu::new(1_440, now);
    let trial = pmtu.poll(now, true, 1).unwrap();
    pmtu.refused(trial.size, now);
    assert!(pmtu.poll(now, true, 2).unwrap().size < 1_440);
}

#[test]
fn a_hint_only_makes_it_look_sooner() {
    let mut sim = Sim::new(1_440, 1_500);
    sim.run(Duration::from_secs(1), || false);
    let tried = sim.tried.len();
    sim.pmtu.hint(1_300, sim.now);
    assert_eq!(sim.pmtu.mtu(), 1_440, "a forged ICMP message changes nothing");
    sim.run(PROBE_TIMER + Duration::from_millis(50), || false);
    assert_eq!((sim.tried.len(), sim.pmtu.mtu()), (tried + 1, 1_440));
}

proptest! {
    /// Whatever the way is like and however it changes, what is said to pass ends within a few bytes of what does.
    #[test]
    fn finds_what_passes(ceiling in 1_280..9_000_u16, ways in prop::collection::vec(1_000..9_000_u16, 1..4)) {
        let mut sim = Sim::new(ceiling, ways[0]);
        for mtu in ways {
            sim.mtu = mtu;
            sim.run(PMTU_RAISE_TIMER + Duration::from_secs(120), || false);
            let passes = mtu.min(ceiling);
            if passes < FLOOR {
                prop_assert_eq!((sim.pmtu.mtu(), sim.pmtu.phase()), (FLOOR, Phase::Error));
            } else {
                prop_assert!(sim.pmtu.mtu() <= passes && passes - sim.pmtu.mtu() <= NEAR, "{} of {passes}", sim.pmtu.mtu());
            }
        }
        // No flood: a trial a second at most, but for the steps that an answer leads to.
        prop_assert!(sim.tried.len() < 2_000);
    }

    /// However much is lost, the search is delayed and no more: no size passes that does not, and none is given up that does.
    #[test]
    fn loss_never_misleads(mtu in 1_280..1_500_u16, seed in any::<u64>(), percent in 0..95_u64) {
        let mut sim = Sim::new(1_440, mtu);
        let mut state = seed | 1;
        let mut dice = move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 32
        };
        sim.run(Duration::from_secs(300), || dice() % 100 < percent);
        prop_assert!(sim.pmtu.mtu() <= mtu.max(FLOOR));
        prop_assert_eq!(sim.pmtu.black_holes(), 0);
        sim.run(PMTU_RAISE_TIMER + Duration::from_secs(60), || false);
        prop_assert!(mtu.min(1_440) - sim.pmtu.mtu() <= NEAR, "{} of {mtu}", sim.pmtu.mtu());
        // What really became narrow is found all the same, if not as soon.
        sim.mtu = 1_280;
        sim.run(Duration::from_secs(10), || dice() % 100 < percent.min(20));
        sim.run(Duration::from_secs(20), || false);
        prop_assert_eq!(sim.pmtu.mtu(), 1_280);
    }

    #[test]
    fn takes_any_answer(answers in prop::collection::vec((any::<u64>(), any::<u16>()), 0..50)) {
        let now = origin();
        let mut pmtu = PathMtu::new(1_440, now);
        for (number, size) in answers {
            let _ = pmtu.poll(now, true, number);
            pmtu.heard(number / 2);
            pmtu.answered(Trial { number: number % 3, size }, now);
            pmtu.refused(size, now);
            pmtu.hint(size, now);
            prop_assert!((FLOOR..=1_440).contains(&pmtu.mtu()));
        }
    }
}
