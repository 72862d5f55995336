//! Conditions, and since when each has had its status. A status follows from the facts of a moment; the time of its last
//! change is kept beside them by whoever brings the facts: the engine for what clouds report, the reports of gateways for
//! what they measure.

use tieline_openapi::v1::{Condition, ConditionStatus, ConditionType, Timestamp};

use super::Facts;
use crate::store::{ConnectionRecord, KeptCondition};

/// What follows from the gateways' reports.
pub const PATH_CONDITIONS: [ConditionType; 4] =
    [ConditionType::TunnelUp, ConditionType::Forwarding, ConditionType::ProbesGreen, ConditionType::StandbyHealthy];

/// What follows from the providers' reports.
pub const CLOUD_CONDITIONS: [ConditionType; 2] = [ConditionType::BgpEstablished, ConditionType::InSync];

/// The order in which they are shown.
const SHOWN: [ConditionType; 6] = [
    ConditionType::TunnelUp,
    ConditionType::BgpEstablished,
    ConditionType::Forwarding,
    ConditionType::ProbesGreen,
    ConditionType::StandbyHealthy,
    ConditionType::InSync,
];

const fn status(kind: ConditionType, facts: &Facts) -> ConditionStatus {
    match kind {
        ConditionType::TunnelUp => facts.tunnel,
        ConditionType::BgpEstablished => facts.bgp,
        ConditionType::Forwarding => facts.forwarding,
        ConditionType::ProbesGreen => facts.green,
        ConditionType::StandbyHealthy => facts.standby,
        ConditionType::InSync => facts.in_sync,
    }
}

fn kept(kind: ConditionType, all: &[KeptCondition]) -> Option<&KeptCondition> {
    all.iter().find(|one| one.kind == kind)
}

/// The conditions of these types that change with new facts at `now`. Time alone changes some, since reports grow old:
/// `before` are the old facts as they look now, and where they differ from what was kept, that was over already.
#[must_use]
pub fn changed(
    kinds: &[ConditionType],
    all: &[KeptCondition],
    before: &Facts,
    after: &Facts,
    now: Timestamp,
) -> Vec<KeptCondition> {
    let new = |kind: ConditionType| {
        let to = status(kind, after);
        let stands = match kept(kind, all) {
            Some(one) => one.status == to && status(kind, before) == to,
            None => to == ConditionStatus::Unknown,
        };
        (!stands).then_some(KeptCondition { kind, status: to, since: now })
    };
    kinds.iter().filter_map(|kind| new(*kind)).collect()
}

/// Puts changed conditions in the place of the kept ones.
pub fn keep(all: &mut Vec<KeptCondition>, changed: Vec<KeptCondition>) {
    for new in changed {
        match all.iter_mut().find(|one| one.kind == new.kind) {
            Some(one) => *one = new,
            None => all.push(new),
        }
    }
}

/// All conditions as they are shown.
#[must_use]
pub fn conditions(record: &ConnectionRecord, facts: &Facts) -> Vec<Condition> {
    let show = |kind: ConditionType| {
        let status = status(kind, facts);
        Condition {
            kind,
            status,
            reason: reason(kind, status, record).to_owned(),
            since: since(kind, status, record, facts),
        }
    };
    SHOWN.into_iter().map(show).collect()
}

/// When the condition took this status.
pub(crate) fn since(
    kind: ConditionType,
    status: ConditionStatus,
    record: &ConnectionRecord,
    facts: &Facts,
) -> Timestamp {
    let of_paths = PATH_CONDITIONS.contains(&kind);
    let all = if of_paths { &record.path_conditions } else { &record.status.conditions };
    match kept(kind, all) {
        Some(one) if one.status == status => one.since,
        // Nobody reports that reports stop: they run out.
        Some(_) if of_paths => facts.reports_ran_out.or(facts.newest).unwrap_or(record.updated_at),
        // The intent has moved, and the clouds were not looked at since.
        Some(_) => record.updated_at,
        None => record.created_at,
    }
}

fn reason(kind: ConditionType, status: ConditionStatus, record: &ConnectionRecord) -> &'static str {
    match (kind, status) {
        (ConditionType::TunnelUp, _) if !record.intent.fallback.tunnel => "NotWanted",
        (ConditionType::BgpEstablished, ConditionStatus::True) => "Established",
        (ConditionType::BgpEstablished, ConditionStatus::False) => "NotEstablished",
        (ConditionType::InSync, ConditionStatus::True) => "Usable",
        (ConditionType::InSync, ConditionStatus::False) => "Differs",
        (_, ConditionStatus::True) => "Heard",
        (_, ConditionStatus::False) => "Silent",
        (_, ConditionStatus::Unknown) => "NotObserved",
    }
}
