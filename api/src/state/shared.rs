//! The facts of a connection that is shared with a peer: from the intent, and from how it stands in the peer's book.

use tieline_openapi::v1::{ConditionStatus, Timestamp};

use super::Facts;
use crate::{
    plan::coordinate::{Placed, Reason, Standing},
    store::{ConnectionRecord, SharedLink},
};

/// The facts of a shared connection at a time.
pub(super) fn facts(record: &ConnectionRecord, shared: &SharedLink, now: Timestamp) -> Facts {
    let standing = shared.standing.as_ref();
    let over = standing.is_some_and(|standing| standing.is_over(now));
    let asked = record.deletion_requested_at.is_some();
    let goes = over && goes_by_itself(record, shared);
    let left = standing.is_some_and(|s| !s.places.is_empty() && s.staying().next().is_none());
    let places = standing.map_or(&[][..], |standing| standing.places.as_slice());
    let current = standing.is_some_and(|standing| !standing.is_moving() && !standing.is_resizing());
    let agreed = standing.is_some_and(|standing| standing.staying().any(Placed::is_agreed));
    Facts {
        person_needed: !asked && !goes && (over || standing.is_none()),
        deleting: asked || goes || left,
        current,
        touched: !places.is_empty(),
        provisioned: record.status.provisioned_at.is_some() || agreed,
        verified_once: record.status.verified_at.is_some(),
        gateways_at_both_ends: false,
        handshaken: standing.is_some_and(|standing| standing.staying().any(|placed| placed.verified)),
        bgp: standing.map_or(ConditionStatus::Unknown, bgp),
        in_sync: standing.map_or(ConditionStatus::Unknown, |standing| in_sync(record, standing)),
        private: ConditionStatus::Unknown,
        tunnel: ConditionStatus::Unknown,
        forwarding: ConditionStatus::Unknown,
        green: ConditionStatus::Unknown,
        standby: ConditionStatus::Unknown,
        newest: places.iter().filter_map(|placed| placed.row.seen_at).max(),
        reports_ran_out: None,
    }
}

/// Whether a connection of which nothing is left goes without a word of its user: it was deleted at the other provider, and
/// nobody said here that it must stay.
pub(crate) fn goes_by_itself(record: &ConnectionRecord, shared: &SharedLink) -> bool {
    shared.ended == Some(Reason::Peer) && !record.intent.deletion_protection
}

/// While it moves it is up where either place is.
fn bgp(standing: &Standing) -> ConditionStatus {
    let all = standing.staying().map(Placed::is_established);
    all.fold(ConditionStatus::Unknown, |all, one| match (all, one) {
        (ConditionStatus::True, _) | (_, Some(true)) => ConditionStatus::True,
        (ConditionStatus::False, _) | (_, Some(false)) => ConditionStatus::False,
        (ConditionStatus::Unknown, None) => ConditionStatus::Unknown,
    })
}

/// Whether both providers hold what is wanted.
fn in_sync(record: &ConnectionRecord, standing: &Standing) -> ConditionStatus {
    if standing.staying().next().is_none() {
        return ConditionStatus::Unknown;
    }
    let holds = !standing.is_moving()
        && !standing.is_resizing()
        && standing.bandwidth() == Some(record.intent.bandwidth_mbps)
        && standing.staying().all(Placed::is_agreed);
    if holds { ConditionStatus::True } else { ConditionStatus::False }
}

/// Why a connection is over: a stable code, what happened, and what to do.
#[must_use]
pub fn ending(reason: Option<Reason>) -> (&'static str, &'static str, &'static str) {
    const ANEW: &str = "Delete it here; for another one, ask for a new activation key.";
    match reason {
        None => ("activationKeyEnded", "Nobody brought the activation key within seven days.", ANEW),
        Some(Reason::Wish | Reason::Moved) => ("deleted", "It was taken down.", "Delete it here."),
        Some(Reason::Peer) => ("deletedByPeer", "It was deleted at the other provider.", ANEW),
        Some(Reason::KeyInvalid) => {
            ("activationKeyInvalid", "The other provider does not know the activation key.", ANEW)
        }
        Some(Reason::NoRoom) => ("noRoom", "No interconnect has room for it at both providers.", ANEW),
        Some(Reason::Refused) => ("refusedByPeer", "The other provider refused it.", ANEW),
        Some(Reason::Displaced) => ("displaced", "Its room went to a connection that goes before it.", ANEW),
        Some(Reason::DeferralTimeout) => {
            ("deferralTimeout", "The other provider did not provision in our place in time.", ANEW)
        }
        Some(Reason::NeverFinal) => ("neverFinal", "No channel was up on either side for seven days.", ANEW),
        Some(Reason::OneSided) => ("oneSided", "It was there at one provider only for seven days.", ANEW),
    }
}
