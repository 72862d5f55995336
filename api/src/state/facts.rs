//! The facts that state, verification and conditions are all computed from.

use tieline_openapi::v1::{BgpState, ConditionStatus, End, PathKind, Timestamp};
use tieline_providers::Presence;

use super::{
    bgp_states,
    reports::{self, Reports},
    shared,
};
use crate::{plan::step::Seen, store::ConnectionRecord};

/// What is known of a connection at one time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// The engine waits for a person.
    pub person_needed: bool,
    /// Its deletion was asked for.
    pub deleting: bool,
    /// The clouds were brought to the present generation.
    pub current: bool,
    /// A cloud was asked for something.
    pub touched: bool,
    /// Every wanted resource has been usable once.
    pub provisioned: bool,
    /// It has been VERIFIED once.
    pub verified_once: bool,
    /// Both ends have a gateway that has reported.
    pub gateways_at_both_ends: bool,
    /// Both providers have told each other that it works; of what no specification asks it of, always.
    pub handshaken: bool,
    /// Every channel's BGP is Established as both providers report it.
    pub bgp: ConditionStatus,
    /// Both clouds hold what was asked of them.
    pub in_sync: ConditionStatus,
    /// The private path is heard in both directions.
    pub private: ConditionStatus,
    /// The tunnel is heard in both directions; unknown where none is wanted.
    pub tunnel: ConditionStatus,
    /// The path that carries the traffic is heard in both directions.
    pub forwarding: ConditionStatus,
    /// Every probed path is within bounds.
    pub green: ConditionStatus,
    /// What does not carry traffic now could.
    pub standby: ConditionStatus,
    /// The newest observation of any kind.
    pub newest: Option<Timestamp>,
    /// When the reports of one end grew too old to count, if they did.
    pub reports_ran_out: Option<Timestamp>,
}

impl Facts {
    /// The facts of a record at a time; `report_ms` is how often gateways report.
    #[must_use]
    pub fn of(record: &ConnectionRecord, report_ms: u32, now: Timestamp) -> Self {
        if let Some(shared) = &record.shared {
            return shared::facts(record, shared, now);
        }
        let reports = Reports::of(record, report_ms, now);
        let private = reports.heard(PathKind::Private);
        let tunnel =
            if record.intent.fallback.tunnel { reports.heard(PathKind::Tunnel) } else { ConditionStatus::Unknown };
        let current = record.observed_generation >= record.generation;
        Self {
            person_needed: record.status.reason.is_some(),
            deleting: record.deletion_requested_at.is_some(),
            current,
            touched: !record.instances.is_empty(),
            provisioned: record.status.provisioned_at.is_some(),
            verified_once: record.status.verified_at.is_some(),
            gateways_at_both_ends: End::BOTH
                .into_iter()
                .all(|end| record.gateway_ends.values().any(|of_gateway| *of_gateway == end)),
            handshaken: true,
            bgp: bgp(record),
            in_sync: in_sync(record, current),
            private,
            tunnel,
            forwarding: reports.forwarding(),
            green: reports.green(),
            standby: reports.standby(),
            newest: newest(record),
            reports_ran_out: reports::ran_out(record, report_ms, now),
        }
    }
}

fn bgp(record: &ConnectionRecord) -> ConditionStatus {
    let mut all = ConditionStatus::True;
    if record.negotiated.channels.is_empty() {
        return ConditionStatus::Unknown;
    }
    for channel in &record.negotiated.channels {
        let states = bgp_states(record, channel);
        for state in [states.a, states.b] {
            match state {
                BgpState::Established => {}
                BgpState::Unknown => {
                    if all == ConditionStatus::True {
                        all = ConditionStatus::Unknown;
                    }
                }
                BgpState::Idle
                | BgpState::Connect
                | BgpState::Active
                | BgpState::OpenSent
                | BgpState::OpenConfirm
                | BgpState::Down => all = ConditionStatus::False,
            }
        }
    }
    all
}

fn in_sync(record: &ConnectionRecord, current: bool) -> ConditionStatus {
    if !current {
        return ConditionStatus::False;
    }
    let mut all = if record.instances.is_empty() { ConditionStatus::Unknown } else { ConditionStatus::True };
    for instance in &record.instances {
        match &instance.seen {
            Seen::Present { observed, .. } => match observed.presence {
                Presence::Usable => {}
                Presence::Settling | Presence::Failed | Presence::Leaving | Presence::Gone => {
                    return ConditionStatus::False;
                }
            },
            Seen::Absent { .. } => return ConditionStatus::False,
            Seen::Never | Seen::Unknown { .. } => all = ConditionStatus::Unknown,
        }
    }
    all
}

fn newest(record: &ConnectionRecord) -> Option<Timestamp> {
    let seen = record.instances.iter().filter_map(|instance| match &instance.seen {
        Seen::Never => None,
        Seen::Present { at, .. } | Seen::Absent { at, .. } | Seen::Unknown { at, .. } => Some(*at),
    });
    seen.chain(record.samples.iter().map(|one| one.sample.at)).max()
}
