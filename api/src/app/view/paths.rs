//! The ways between the gateways of both ends, from the latest reports.

use tieline_openapi::v1::{
    Carries, ConditionStatus, End, Path, PathKind, PathMeasurement, PathSample, PathState, Timestamp,
};

use super::conditions::is_heard;
use crate::{store::ConnectionRecord, topology::Topology};

/// Reports that count: fresh, and from a gateway whose end is known.
pub(super) struct Reports<'a> {
    reports: Vec<(End, &'a PathSample)>,
    tunnel: bool,
}

impl<'a> Reports<'a> {
    /// The reports of a record that are not older than ten report intervals, and at least ten seconds. A sample names its
    /// peer; who wrote it stands at the peer's other end.
    pub(super) fn of(record: &'a ConnectionRecord, topology: &Topology, now: Timestamp) -> Self {
        let kept_ms = i64::from(topology.probe.report_ms).saturating_mul(10).max(10_000);
        let reports = record
            .samples
            .iter()
            .filter(|sample| now.as_millisecond().saturating_sub(sample.at.as_millisecond()) <= kept_ms)
            .filter_map(|sample| Some((record.gateway_ends.get(&sample.peer_id)?.other(), sample)))
            .collect();
        Self { reports, tunnel: record.intent.fallback.tunnel }
    }

    fn of_kind(&self, kind: PathKind) -> impl Iterator<Item = &(End, &'a PathSample)> {
        self.reports.iter().filter(move |(_, sample)| sample.path == kind)
    }

    /// Whether a path is heard from both ends. One silent end is enough for false.
    pub(super) fn heard(&self, kind: PathKind) -> ConditionStatus {
        let of_end = |end: End| {
            let verdicts = self.of_kind(kind).filter(|(from, _)| *from == end);
            verdicts.filter_map(|(_, sample)| is_heard(sample.state)).max()
        };
        both(of_end(End::A), of_end(End::B))
    }

    /// Whether what carries the traffic is heard, from both ends.
    pub(super) fn forwarding(&self) -> ConditionStatus {
        let of_end = |end: End| {
            let verdicts = self.reports.iter().filter(|(from, sample)| *from == end && sample.carries);
            verdicts.filter_map(|(_, sample)| is_heard(sample.state)).max()
        };
        both(of_end(End::A), of_end(End::B))
    }

    /// Whether every report finds its path within bounds.
    pub(super) fn green(&self) -> ConditionStatus {
        let judged = self.reports.iter().filter(|(_, sample)| sample.state != PathState::Unknown);
        judged.fold(ConditionStatus::Unknown, |all, (_, sample)| match (all, sample.state) {
            (ConditionStatus::False, _) | (_, PathState::Degraded | PathState::Down) => ConditionStatus::False,
            (_, PathState::Up | PathState::Unknown) => ConditionStatus::True,
        })
    }

    /// Whether what does not carry traffic could: every idle path of every report is up.
    pub(super) fn standby(&self) -> ConditionStatus {
        let idle = self.reports.iter().filter(|(_, sample)| !sample.carries && sample.state != PathState::Unknown);
        idle.fold(ConditionStatus::Unknown, |all, (_, sample)| match (all, is_heard(sample.state)) {
            (ConditionStatus::False, _) | (_, Some(false)) => ConditionStatus::False,
            (_, Some(true)) => ConditionStatus::True,
            (_, None) => all,
        })
    }

    fn path(&self, kind: PathKind) -> Path {
        let judged: Vec<PathState> =
            self.of_kind(kind).map(|(_, sample)| sample.state).filter(|state| *state != PathState::Unknown).collect();
        let all = |wanted: PathState| judged.iter().all(|state| *state == wanted);
        let state = if judged.is_empty() {
            PathState::Unknown
        } else if all(PathState::Up) {
            PathState::Up
        } else if self.heard(kind) == ConditionStatus::False {
            PathState::Down
        } else {
            PathState::Degraded
        };
        let carries = |end: End| self.of_kind(kind).any(|(from, sample)| *from == end && sample.carries);
        Path {
            id: match kind {
                PathKind::Private => "private".to_owned(),
                PathKind::Tunnel => "tunnel".to_owned(),
            },
            kind,
            state,
            carries: Carries { a_to_b: carries(End::A), b_to_a: carries(End::B) },
            measured: self.measured(kind),
        }
    }

    /// The worst of what the latest reports measured.
    fn measured(&self, kind: PathKind) -> Option<PathMeasurement> {
        let answered = || self.of_kind(kind).filter(|(_, sample)| sample.rtt_us.is_some());
        let at = answered().map(|(_, sample)| sample.at).max()?;
        let loss = |towards: End| {
            let of_report = |(from, sample): &(End, &PathSample)| {
                if *from == towards.other() { sample.loss_out_ppm } else { sample.loss_in_ppm }
            };
            self.of_kind(kind).map(of_report).max().unwrap_or(0)
        };
        Some(PathMeasurement {
            rtt_us: answered().filter_map(|(_, sample)| sample.rtt_us).max().unwrap_or(0),
            jitter_us: answered().filter_map(|(_, sample)| sample.jitter_us).max().unwrap_or(0),
            loss_a_to_b_ppm: loss(End::B),
            loss_b_to_a_ppm: loss(End::A),
            at,
        })
    }
}

const fn both(a: Option<bool>, b: Option<bool>) -> ConditionStatus {
    match (a, b) {
        (Some(false), _) | (_, Some(false)) => ConditionStatus::False,
        (Some(true), Some(true)) => ConditionStatus::True,
        (None, _) | (_, None) => ConditionStatus::Unknown,
    }
}

/// The private bundle, and the tunnel where one is wanted.
pub(super) fn all(record: &ConnectionRecord, topology: &Topology, now: Timestamp) -> Vec<Path> {
    let reports = Reports::of(record, topology, now);
    let mut paths = vec![reports.path(PathKind::Private)];
    if reports.tunnel {
        paths.push(reports.path(PathKind::Tunnel));
    }
    paths
}
