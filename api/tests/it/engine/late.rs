//! A create that was given up and makes its resource after all, when the slot is free again.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use tieline_openapi::{
    ids::ConnectionId,
    v1::{OperationState, Verb},
};
use tieline_providers::{
    IdentityKind,
    fake::{ATTACHMENT, Chaos, Fault, Request, Timing},
};

use super::sim::{Database, Sim};

/// Two creates of an attachment are on their way for so long; neither is answered.
struct TwoLate {
    late_ms: [u64; 2],
    creates: AtomicUsize,
}

impl Chaos for TwoLate {
    fn fault(&self, request: &Request) -> Fault {
        if request.verb != Verb::Create || request.kind != ATTACHMENT {
            return Fault::None;
        }
        let n = self.creates.fetch_add(1, Ordering::SeqCst);
        self.late_ms.get(n).map_or(Fault::None, |ms| Fault::Late(*ms))
    }
}

/// A connection that is to go, at the moment at which the second create has made its resource in the slot of the first one,
/// which was deleted.
async fn made_after_it_went(late_ms: [u64; 2], tombstones_ms: u64) -> (Sim, ConnectionId, String) {
    let timing = Timing { lag_ms: 0, settle_ms: 0 };
    let mut sim = Sim::new(1, IdentityKind::Slot, timing, Database::Memory, |_, _| {
        Some(Arc::new(TwoLate { late_ms, creates: AtomicUsize::new(0) }) as Arc<dyn Chaos>)
    })
    .await;
    sim.world.set_tombstones(tombstones_ms);
    sim.start();
    let id = sim.create("link", "SINGLE").await;
    let there = |sim: &Sim| sim.ours().into_iter().find(|o| o.kind == ATTACHMENT).map(|o| o.cloud_id);
    let sent = |sim: &Sim, verb| sim.world.wire().iter().filter(|w| w.kind == ATTACHMENT && w.verb == verb).count();
    assert!(sim.run_until(10_000, async |sim| sent(sim, Verb::Create) == 2).await, "{}", sim.trace.join("\n"));
    sim.delete(id).await;
    let went = sim.run_until(10_000, async |sim| sent(sim, Verb::Delete) == 1 && there(sim).is_none()).await;
    assert!(went, "{}", sim.trace.join("\n"));
    assert!(sim.run_until(10_000, async |sim| there(sim).is_some()).await, "{}", sim.trace.join("\n"));
    let second = there(&sim).unwrap();
    (sim, id, second)
}

/// Lets all go on but this, until that was passed.
async fn run_without(sim: &mut Sim, held: &str, until: &str) {
    let from = sim.trace.len();
    let end = sim.sched.now_ms() + 20_000;
    while !sim.trace[from..].iter().any(|line| line.split_whitespace().nth(2) == Some(until)) {
        let ready = sim.ready().into_iter().find(|(_, _, what)| what != held);
        let next = sim.next_ready();
        match (ready, next) {
            (Some((id, replica, what)), _) => sim.resume(id, format!("{replica} {what}")).await,
            (None, Some(next)) if next < end => sim.advance_to(next),
            (None, _) => panic!("{until} is not passed:\n{}", sim.trace[from..].join("\n")),
        }
    }
}

#[tokio::test]
async fn what_a_late_create_puts_into_the_slot_is_found_by_its_connection_whoever_comes_first() {
    // The first is given up as well, or what it makes is taken for what the second made.
    for late_ms in [[1_500, 3_400], [1_000, 4_300]] {
        // A cloud forgets what was deleted at once, or shows it for as long as the deletion takes.
        for tombstones_ms in [0, 60_000] {
            // The sweep asks the ledger about what it has seen; a pass looks by itself.
            for (held, until) in [("claim", "ledger_facts"), ("list", "read")] {
                let case = format!("{late_ms:?}, tombstones {tombstones_ms}, {until} first");
                let (mut sim, id, second) = made_after_it_went(late_ms, tombstones_ms).await;
                run_without(&mut sim, held, until).await;
                let gone = sim.run_until(60_000, async |sim| sim.record(id).await.is_none()).await;
                assert!(gone, "{case}: {:#?}\n{}", sim.last_operation(id).await, sim.trace.join("\n"));
                assert_eq!(sim.rows.take_found(), [], "{case}: the sweep was not needed");
                assert_eq!(sim.last_operation(id).await.state, OperationState::Succeeded);
                assert!(sim.ours().is_empty(), "{case}: {second} is left");
                sim.verify_clean_slate();
            }
        }
    }
}
