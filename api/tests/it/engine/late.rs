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

fn there(sim: &Sim) -> Option<String> {
    sim.ours().into_iter().find(|o| o.kind == ATTACHMENT).map(|o| o.cloud_id)
}

fn sent(sim: &Sim, verb: Verb) -> usize {
    sim.world.wire().iter().filter(|w| w.kind == ATTACHMENT && w.verb == verb).count()
}

/// When no create of those tests can show up any more, by what the engine reckons with.
const ALL_OVER_MS: u64 = 7_000;

/// A connection that is to go, when the second create has made its resource in the slot of the first one, which was deleted:
/// just then, or, where the process `crashes` after the delete, once nobody would wait for it any more.
async fn made_after_it_went(late_ms: [u64; 2], tombstones_ms: u64, crashes: bool) -> (Sim, ConnectionId, String) {
    let timing = Timing { lag_ms: 0, settle_ms: 0 };
    let mut sim = Sim::new(1, IdentityKind::Slot, timing, Database::Memory, |_, _| {
        Some(Arc::new(TwoLate { late_ms, creates: AtomicUsize::new(0) }) as Arc<dyn Chaos>)
    })
    .await;
    sim.world.set_tombstones(tombstones_ms);
    let replica = sim.start();
    let id = sim.create("link", "SINGLE").await;
    run_without(&mut sim, "", |sim| sent(sim, Verb::Create) == 2).await;
    sim.delete(id).await;
    run_without(&mut sim, "", |sim| sent(sim, Verb::Delete) == 1 && there(sim).is_none()).await;
    if crashes {
        // The delete's answer is in the ledger, and nobody has looked since.
        run_without(&mut sim, "", |sim| sim.ready().iter().any(|(_, _, what)| what == "after-verdict")).await;
        sim.crash(replica).await;
        sim.start();
        run_without(&mut sim, "claim", |sim| sim.sched.now_ms() > ALL_OVER_MS && there(sim).is_some()).await;
    } else {
        run_without(&mut sim, "", |sim| there(sim).is_some()).await;
    }
    let second = there(&sim).unwrap();
    (sim, id, second)
}

/// Lets all go on but what is held, until this holds.
async fn run_without(sim: &mut Sim, held: &str, done: impl Fn(&Sim) -> bool) {
    let end = sim.sched.now_ms() + 20_000;
    sim.sched.quiesce().await;
    while !done(sim) {
        let ready = sim.ready().into_iter().find(|(_, _, what)| what != held);
        match (ready, sim.next_ready()) {
            (Some((id, replica, what)), _) => sim.resume(id, format!("{replica} {what}")).await,
            (None, Some(next)) if next < end => sim.advance_to(next),
            (None, _) => panic!("it does not come about:\n{}", sim.trace.join("\n")),
        }
    }
}

/// How often this was passed.
fn passed(sim: &Sim, what: &str) -> usize {
    sim.trace.iter().filter(|line| line.split_whitespace().nth(2) == Some(what)).count()
}

#[tokio::test]
async fn what_a_late_create_puts_into_the_slot_is_found_by_its_connection_whoever_comes_first() {
    // The first is given up as well, or what it makes is taken for what the second made.
    for late_ms in [[1_500, 3_400], [1_000, 4_300]] {
        // A cloud forgets what was deleted at once, or shows it for as long as the deletion takes.
        for tombstones_ms in [0, 60_000] {
            // The sweep asks the ledger about what it has seen; a pass looks by itself.
            for (held, until, crashes) in [
                ("claim", "ledger_facts", false),
                ("list", "read", false),
                ("claim", "ledger_facts", true),
                ("list", "read", true),
            ] {
                let case = format!("{late_ms:?}, tombstones {tombstones_ms}, {until} first, crash {crashes}");
                let (mut sim, id, second) = made_after_it_went(late_ms, tombstones_ms, crashes).await;
                let before = passed(&sim, until);
                run_without(&mut sim, held, |sim| passed(sim, until) > before).await;
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
