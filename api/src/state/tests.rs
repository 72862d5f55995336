//! The state is one function of the facts: total, and consistent with verification.

use proptest::prelude::*;
use tieline_openapi::v1::{ConditionStatus, ConnectionState, VerificationState};

use super::{Facts, state, verification};

fn status() -> impl Strategy<Value = ConditionStatus> {
    prop_oneof![Just(ConditionStatus::True), Just(ConditionStatus::False), Just(ConditionStatus::Unknown)]
}

prop_compose! {
    fn facts()(
        flags in prop::array::uniform8(any::<bool>()),
        statuses in prop::array::uniform7(status()),
    ) -> Facts {
        let [person_needed, deleting, current, touched, provisioned, verified_once, gateways_at_both_ends, handshaken] =
            flags;
        let [bgp, in_sync, private, tunnel, forwarding, green, standby] = statuses;
        Facts {
            person_needed, deleting, current, touched, provisioned, verified_once, gateways_at_both_ends,
            handshaken, bgp, in_sync, private, tunnel, forwarding, green, standby, newest: None, reports_ran_out: None,
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn each_state_means_what_it_says(facts in facts()) {
        let state = state(&facts);
        prop_assert_eq!(state == ConnectionState::ActionRequired, facts.person_needed);
        match state {
            ConnectionState::Pending => prop_assert!(!facts.touched && !facts.provisioned && !facts.deleting),
            ConnectionState::Provisioning => prop_assert!(!facts.provisioned || !facts.verified_once),
            ConnectionState::Active => {
                prop_assert!(facts.provisioned && facts.current && facts.verified_once && !facts.deleting);
                prop_assert_eq!(facts.bgp, ConditionStatus::True);
                for status in [facts.in_sync, facts.private, facts.tunnel] {
                    prop_assert_ne!(status, ConditionStatus::False);
                }
            }
            ConnectionState::Degraded => prop_assert!(facts.provisioned && facts.current && facts.verified_once),
            ConnectionState::Updating => prop_assert!(facts.provisioned && !facts.current),
            ConnectionState::ActionRequired => {}
            ConnectionState::Deleting => prop_assert!(facts.deleting),
        }
    }

    #[test]
    fn verified_is_proven(facts in facts()) {
        if verification(&facts) == VerificationState::Verified {
            let proof = if facts.gateways_at_both_ends { facts.private } else { facts.bgp };
            prop_assert_eq!(proof, ConditionStatus::True);
            prop_assert!(facts.provisioned && !facts.deleting && facts.handshaken);
        }
    }

    #[test]
    fn one_worse_fact_never_makes_it_active(facts in facts()) {
        let mut worse = facts.clone();
        worse.bgp = ConditionStatus::False;
        prop_assert_ne!(state(&worse), ConnectionState::Active);
    }
}
