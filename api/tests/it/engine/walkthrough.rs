//! Undisturbed runs: what the engine does when nothing goes wrong.

use tieline_openapi::v1::{ConnectionState, OperationState, StageState};
use tieline_providers::{IdentityKind, fake::Timing};

use super::sim::{Database, Sim};

const KINDS: [IdentityKind; 5] = [
    IdentityKind::Named,
    IdentityKind::Slot,
    IdentityKind::Token { lifetime_ms: 3_600_000 },
    IdentityKind::Tagged,
    IdentityKind::Blind,
];

#[tokio::test]
async fn a_connection_comes_up_and_goes_down_whatever_the_identity() {
    for identity in KINDS {
        let timing = Timing { lag_ms: 500, settle_ms: 700 };
        let mut sim = Sim::new(1, identity, timing, Database::Memory, |_, _| None).await;
        sim.start();
        let id = sim.create("link", "DUAL").await;
        let up =
            sim.run_until(60_000, async |sim| sim.last_operation(id).await.state == OperationState::Succeeded).await;
        let operation = sim.last_operation(id).await;
        assert!(up, "{identity:?}: {operation:#?}\n{}", sim.trace.join("\n"));
        assert!(operation.stages.iter().all(|s| s.state == StageState::Succeeded), "{:#?}", operation.stages);
        let record = sim.record(id).await.unwrap();
        assert_eq!(record.status.state, Some(ConnectionState::Active));
        assert_eq!(record.observed_generation, record.generation);
        assert_eq!(sim.ours().len(), 6);
        assert_eq!(sim.world.wire().len(), 6, "one request a resource");

        sim.delete(id).await;
        let gone = sim.run_until(60_000, async |sim| sim.record(id).await.is_none()).await;
        assert!(gone, "{identity:?}: {:#?}\n{}", sim.last_operation(id).await, sim.trace.join("\n"));
        assert_eq!(sim.last_operation(id).await.state, OperationState::Succeeded);
        assert_eq!(sim.world.wire().len(), 12, "one request a resource");
        sim.verify_clean_slate();
    }
}
