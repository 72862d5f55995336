//! Faults that a test can inject into a simulated cloud while it runs.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use rand::{RngExt, SeedableRng, rngs::StdRng};
use serde::{Deserialize, Serialize};

/// What a fault does to a call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Effect {
    /// The cloud answers that it failed (500), before or after the call had its effect.
    Unavailable {
        /// Whether the call had its effect.
        after_commit: bool,
    },
    /// The connection is closed without an answer.
    HangUp {
        /// Whether the call had its effect.
        after_commit: bool,
    },
    /// Nothing is answered for a while, then the connection is closed.
    Timeout {
        /// Whether the call had its effect.
        after_commit: bool,
        /// For how long, in milliseconds.
        hold_ms: u64,
    },
    /// A definite refusal without effect.
    Refuse {
        /// The HTTP status.
        status: u16,
        /// The cloud's error code: `DirectConnectClientException`, `quotaExceeded`.
        code: String,
        /// The cloud's message.
        message: String,
    },
    /// The right answer, late.
    Delay {
        /// How late, in milliseconds.
        ms: u64,
    },
    /// The right answer; the network doubles the request, and the second one arrives when `POST /_lab/late` says so.
    Double,
}

/// A rule: which calls a fault strikes, and how often.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Fault {
    /// Only this operation: `CreatePrivateVirtualInterface`, `routers.patch`; null: every one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation: Option<String>,
    /// Only operations that change something.
    #[serde(default)]
    pub mutating_only: bool,
    /// What happens.
    pub effect: Effect,
    /// For how many calls; null: until it is cleared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calls: Option<u32>,
    /// The share of matching calls that are struck, 0 to 1; null: every one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<f64>,
}

impl Fault {
    /// A fault that strikes every call of every operation.
    #[must_use]
    pub const fn always(effect: Effect) -> Self {
        Self { operation: None, mutating_only: false, effect, calls: None, rate: None }
    }

    /// A fault that strikes the next call of one operation.
    #[must_use]
    pub fn once(operation: &str, effect: Effect) -> Self {
        Self { operation: Some(operation.to_owned()), calls: Some(1), ..Self::always(effect) }
    }

    fn strikes(&self, operation: &str, mutating: bool) -> bool {
        self.calls != Some(0)
            && (mutating || !self.mutating_only)
            && self.operation.as_deref().is_none_or(|only| only == operation)
    }
}

#[derive(Debug)]
struct Rules {
    next: u64,
    rules: BTreeMap<u64, Fault>,
    random: StdRng,
}

/// The faults of one simulator.
#[derive(Debug)]
pub(crate) struct Faults(Mutex<Rules>);

impl Faults {
    pub(crate) fn new(seed: u64) -> Self {
        Self(Mutex::new(Rules { next: 1, rules: BTreeMap::new(), random: StdRng::seed_from_u64(seed) }))
    }

    pub(crate) fn add(&self, fault: Fault) -> u64 {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let id = inner.next;
        inner.next += 1;
        inner.rules.insert(id, fault);
        id
    }

    pub(crate) fn list(&self) -> BTreeMap<u64, Fault> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).rules.clone()
    }

    pub(crate) fn clear(&self, id: Option<u64>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).rules.retain(|&k, _| id.is_some_and(|id| id != k));
    }

    /// What happens to a call: the effect of the oldest rule that strikes it.
    pub(crate) fn decide(&self, operation: &str, mutating: bool) -> Option<Effect> {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Rules { rules, random, .. } = &mut *inner;
        let fault = rules.values_mut().find(|fault| {
            fault.strikes(operation, mutating) && fault.rate.is_none_or(|rate| random.random_bool(rate.clamp(0.0, 1.0)))
        })?;
        if let Some(calls) = &mut fault.calls {
            *calls -= 1;
        }
        let effect = fault.effect.clone();
        rules.retain(|_, fault| fault.calls != Some(0));
        Some(effect)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counted_fault_is_used_up_and_others_go_on() {
        let faults = Faults::new(1);
        faults.add(Fault::once("Delete", Effect::HangUp { after_commit: true }));
        faults.add(Fault {
            mutating_only: true,
            ..Fault::always(Effect::Refuse { status: 400, code: "c".into(), message: "m".into() })
        });
        assert_eq!(faults.decide("List", false), None);
        assert_eq!(faults.decide("Delete", true), Some(Effect::HangUp { after_commit: true }));
        assert!(matches!(faults.decide("Delete", true), Some(Effect::Refuse { .. })));
        assert_eq!(faults.list().len(), 1);
        faults.clear(None);
        assert_eq!(faults.decide("Delete", true), None);
    }

    #[test]
    fn a_rate_strikes_its_share() {
        let faults = Faults::new(7);
        faults.add(Fault { rate: Some(0.25), ..Fault::always(Effect::Unavailable { after_commit: false }) });
        let struck = (0..4_000).filter(|_| faults.decide("x", true).is_some()).count();
        assert!((800..1_200).contains(&struck), "{struck} of 4000 calls were struck at a rate of 0.25");
    }
}
