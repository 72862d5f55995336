//! What a connection's record says of it: its facts, and from them its state, its verification and its conditions. Pure. What
//! users are shown and what the engine writes down are computed here and nowhere else, so that the two cannot differ.

mod conditions;
mod facts;
mod reports;
mod sessions;
mod shared;
#[cfg(test)]
mod tests;

use tieline_openapi::v1::{ConditionStatus, ConnectionState, VerificationState};

pub(crate) use conditions::since as condition_since;
pub use conditions::{CLOUD_CONDITIONS, PATH_CONDITIONS, changed, conditions, keep};
pub use facts::Facts;
pub(crate) use reports::Reports;
pub(crate) use sessions::{bfd_states, instances, usable, worse_bfd, worse_bgp};
pub use sessions::{bgp_states, established};
pub use shared::ending;
pub(crate) use shared::goes_by_itself;

/// The state.
#[must_use]
pub fn state(facts: &Facts) -> ConnectionState {
    // Also while it is being deleted: a deletion that waits for a person does not go on by itself.
    if facts.person_needed {
        return ConnectionState::ActionRequired;
    }
    if facts.deleting {
        return ConnectionState::Deleting;
    }
    if !facts.provisioned {
        return if facts.touched { ConnectionState::Provisioning } else { ConnectionState::Pending };
    }
    if !facts.current {
        return ConnectionState::Updating;
    }
    if !facts.verified_once {
        return ConnectionState::Provisioning;
    }
    let impaired = facts.bgp != ConditionStatus::True
        || facts.in_sync == ConditionStatus::False
        || facts.private == ConditionStatus::False
        || facts.tunnel == ConditionStatus::False;
    if impaired { ConnectionState::Degraded } else { ConnectionState::Active }
}

/// Whether traffic is proven to cross: the private path carries probes from host to host in both directions where both ends
/// have gateways; else BGP is Established as each provider itself reports it. What is shared with a peer also needs the
/// specification's handshake.
#[must_use]
pub fn proven(facts: &Facts) -> bool {
    let proof = if facts.gateways_at_both_ends { facts.private } else { facts.bgp };
    proof == ConditionStatus::True && facts.handshaken
}

/// VERIFIED: proven, of what is provisioned and wanted.
#[must_use]
pub fn verification(facts: &Facts) -> VerificationState {
    if proven(facts) && facts.provisioned && !facts.deleting {
        VerificationState::Verified
    } else {
        VerificationState::Unverified
    }
}
