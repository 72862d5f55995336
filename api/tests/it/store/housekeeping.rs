//! What is not kept for ever.

use tieline_api::store::{HousekeepingLimits, ReportEffects, Store};
use tieline_openapi::v1::{Observations, PathKind, PathSample, PathState};

use super::{fixture::*, on_both};

on_both!(samples_are_kept_for_their_time,);

async fn samples_are_kept_for_their_time(db: Db) {
    let (a, b) = (db.joined("point-a").await, db.joined("point-b").await);
    let id = db.created("one").await;
    let sample = |peer_id, at| PathSample {
        connection_id: id,
        peer_id,
        path: PathKind::Tunnel,
        state: PathState::Up,
        carries: false,
        at: ms(START + at),
        sent: 1,
        received: 1,
        rtt_us: None,
        rtt_p99_us: None,
        jitter_us: None,
        loss_out_ppm: 0,
        loss_in_ppm: 0,
        dead_ports: 0,
        bytes_out: 0,
        bytes_in: 0,
    };
    let samples = vec![sample(b, 0), sample(a, 10_000)];
    let report = Observations { sequence: 1, configuration_version: None, samples, changes: Vec::new() };
    db.store.observe(a, &report, ms(START), ReportEffects::default()).await.unwrap();
    let limits = HousekeepingLimits { samples_ms: 60_000, ..HousekeepingLimits::default() };
    db.at(59_999).await;
    db.store.housekeep(&limits).await.unwrap();
    assert_eq!(db.store.latest_samples(id).await.unwrap().len(), 2);
    db.at(60_000).await;
    db.store.housekeep(&limits).await.unwrap();
    assert_eq!(db.store.latest_samples(id).await.unwrap(), [sample(a, 10_000)]);
}
