//! The latest reports of the gateways, and what they say together.

use tieline_openapi::v1::{ConditionStatus, End, PathKind, PathSample, PathState, Timestamp};

use crate::store::ConnectionRecord;

/// Reports that count: fresh ones.
pub(crate) struct Reports<'a>(Vec<(End, &'a PathSample)>);

/// How long a report counts, in milliseconds: ten report intervals, and at least ten seconds.
const fn fresh_ms(report_ms: u32) -> i64 {
    let ten = report_ms as i64 * 10;
    if ten > 10_000 { ten } else { 10_000 }
}

/// Reports by the end that they come from.
fn by_end(record: &ConnectionRecord) -> impl Iterator<Item = (End, &PathSample)> {
    record.samples.iter().filter_map(|one| Some((*record.gateway_ends.get(&one.by)?, &one.sample)))
}

/// When the first end's last report grew too old to count, if one did.
pub(super) fn ran_out(record: &ConnectionRecord, report_ms: u32, now: Timestamp) -> Option<Timestamp> {
    let of_end = |end: End| {
        let last = by_end(record).filter(|(from, _)| *from == end).map(|(_, sample)| sample.at).max()?;
        Timestamp::from_millisecond(last.as_millisecond().saturating_add(fresh_ms(report_ms))).ok()
    };
    End::BOTH.into_iter().filter_map(of_end).filter(|at| *at <= now).min()
}

impl<'a> Reports<'a> {
    /// The reports of a record that count.
    pub(crate) fn of(record: &'a ConnectionRecord, report_ms: u32, now: Timestamp) -> Self {
        let age_ms = |sample: &PathSample| now.as_millisecond().saturating_sub(sample.at.as_millisecond());
        Self(by_end(record).filter(|(_, sample)| age_ms(sample) <= fresh_ms(report_ms)).collect())
    }

    /// Those about one kind of path.
    pub(crate) fn of_kind(&self, kind: PathKind) -> impl Iterator<Item = &(End, &'a PathSample)> {
        self.0.iter().filter(move |(_, sample)| sample.path == kind)
    }

    /// Whether a path is heard from both ends. One silent end is enough for false.
    pub(crate) fn heard(&self, kind: PathKind) -> ConditionStatus {
        let of_end = |end: End| {
            let verdicts = self.of_kind(kind).filter(|(from, _)| *from == end);
            verdicts.filter_map(|(_, sample)| is_heard(sample.state)).max()
        };
        both(of_end(End::A), of_end(End::B))
    }

    /// Whether what carries the traffic is heard, from both ends.
    pub(super) fn forwarding(&self) -> ConditionStatus {
        let of_end = |end: End| {
            let verdicts = self.0.iter().filter(|(from, sample)| *from == end && sample.carries);
            verdicts.filter_map(|(_, sample)| is_heard(sample.state)).max()
        };
        both(of_end(End::A), of_end(End::B))
    }

    /// Whether every report finds its path within bounds.
    pub(super) fn green(&self) -> ConditionStatus {
        let judged = self.0.iter().filter(|(_, sample)| sample.state != PathState::Unknown);
        judged.fold(ConditionStatus::Unknown, |all, (_, sample)| match (all, sample.state) {
            (ConditionStatus::False, _) | (_, PathState::Degraded | PathState::Down) => ConditionStatus::False,
            (_, PathState::Up | PathState::Unknown) => ConditionStatus::True,
        })
    }

    /// Whether what does not carry traffic could: every idle path of every report is up.
    pub(super) fn standby(&self) -> ConditionStatus {
        let idle = self.0.iter().filter(|(_, sample)| !sample.carries && sample.state != PathState::Unknown);
        idle.fold(ConditionStatus::Unknown, |all, (_, sample)| match (all, is_heard(sample.state)) {
            (ConditionStatus::False, _) | (_, Some(false)) => ConditionStatus::False,
            (_, Some(true)) => ConditionStatus::True,
            (_, None) => all,
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

/// Whether a judged state means that the path is heard.
const fn is_heard(state: PathState) -> Option<bool> {
    match state {
        PathState::Up | PathState::Degraded => Some(true),
        PathState::Down => Some(false),
        PathState::Unknown => None,
    }
}
