//! The ways between the gateways of both ends, from the latest reports.

use tieline_openapi::v1::{
    Carries, ConditionStatus, End, Path, PathKind, PathMeasurement, PathSample, PathState, Timestamp,
};

use crate::{state::Reports, store::ConnectionRecord};

/// The private bundle, and the tunnel where one is wanted.
pub(super) fn all(record: &ConnectionRecord, report_ms: u32, now: Timestamp) -> Vec<Path> {
    let reports = Reports::of(record, report_ms, now);
    let mut paths = vec![path(&reports, PathKind::Private)];
    if record.intent.fallback.tunnel {
        paths.push(path(&reports, PathKind::Tunnel));
    }
    paths
}

fn path(reports: &Reports<'_>, kind: PathKind) -> Path {
    let judged: Vec<PathState> =
        reports.of_kind(kind).map(|(_, sample)| sample.state).filter(|state| *state != PathState::Unknown).collect();
    let all = |wanted: PathState| judged.iter().all(|state| *state == wanted);
    let state = if judged.is_empty() {
        PathState::Unknown
    } else if all(PathState::Up) {
        PathState::Up
    } else if reports.heard(kind) == ConditionStatus::False {
        PathState::Down
    } else {
        PathState::Degraded
    };
    let carries = |end: End| reports.of_kind(kind).any(|(from, sample)| *from == end && sample.carries);
    Path {
        id: match kind {
            PathKind::Private => "private".to_owned(),
            PathKind::Tunnel => "tunnel".to_owned(),
        },
        kind,
        state,
        carries: Carries { a_to_b: carries(End::A), b_to_a: carries(End::B) },
        measured: measured(reports, kind),
    }
}

/// The worst of what the latest reports measured.
fn measured(reports: &Reports<'_>, kind: PathKind) -> Option<PathMeasurement> {
    let answered = || reports.of_kind(kind).filter(|(_, sample)| sample.rtt_us.is_some());
    let at = answered().map(|(_, sample)| sample.at).max()?;
    let loss = |towards: End| {
        let of_report = |(from, sample): &(End, &PathSample)| {
            if *from == towards.other() { sample.loss_out_ppm } else { sample.loss_in_ppm }
        };
        reports.of_kind(kind).map(of_report).max().unwrap_or(0)
    };
    Some(PathMeasurement {
        rtt_us: answered().filter_map(|(_, sample)| sample.rtt_us).max().unwrap_or(0),
        jitter_us: answered().filter_map(|(_, sample)| sample.jitter_us).max().unwrap_or(0),
        loss_a_to_b_ppm: loss(End::B),
        loss_b_to_a_ppm: loss(End::A),
        at,
    })
}
