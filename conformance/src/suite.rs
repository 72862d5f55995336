//! Cases, and how they are run.

use std::time::Duration;

use futures::future::BoxFuture;

use crate::{
    cases,
    session::{Session, Settings},
    wire::Exchange,
};

/// Why a case came to no good end.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Stop {
    /// The target breaks the rule.
    #[error("{0}")]
    Violation(String),
    /// The rule cannot be tested on this target, or with these settings.
    #[error("{0}")]
    Skipped(String),
    /// The target gave no answer.
    #[error("no answer: {0}")]
    NoAnswer(String),
}

/// The target breaks the rule.
pub(crate) fn violation(what: impl Into<String>) -> Stop {
    Stop::Violation(what.into())
}

/// The rule holds, or this is what breaks it.
pub(crate) fn must(holds: bool, otherwise: impl FnOnce() -> String) -> Result<(), Stop> {
    if holds { Ok(()) } else { Err(Stop::Violation(otherwise())) }
}

/// One rule of the specification, and how it is tested.
#[derive(Clone, Copy)]
pub struct Case {
    /// Its name, `area/what`: what `--case` takes.
    pub id: &'static str,
    /// The rule, in one sentence.
    pub rule: &'static str,
    /// Where the specification says so.
    pub source: &'static str,
    pub(crate) run: for<'s> fn(&'s Session) -> BoxFuture<'s, Result<(), Stop>>,
}

impl std::fmt::Debug for Case {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Case").field("id", &self.id).finish_non_exhaustive()
    }
}

impl Case {
    /// What the case is about: the part of its id before the slash.
    #[must_use]
    pub fn area(&self) -> &'static str {
        self.id.split('/').next().unwrap_or(self.id)
    }
}

macro_rules! case {
    ($id:literal, $rule:literal, $source:literal, $run:path) => {
        crate::suite::Case { id: $id, rule: $rule, source: $source, run: |session| Box::pin($run(session)) }
    };
}
pub(crate) use case;

/// How a case ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The target keeps the rule.
    Passed,
    /// It breaks it, or gave no answer.
    Failed(String),
    /// It was not tested, and why.
    Skipped(String),
}

/// A case and how it ended.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The case.
    pub case: Case,
    /// How it ended.
    pub verdict: Verdict,
    /// What was sent and received.
    pub exchanges: Vec<Exchange>,
    /// How long it took.
    pub took: Duration,
}

/// Is told of every case as it ends.
pub trait Progress {
    /// A case has ended.
    fn ended(&mut self, outcome: &Outcome);
}

impl<F: FnMut(&Outcome)> Progress for F {
    fn ended(&mut self, outcome: &Outcome) {
        self(outcome);
    }
}

/// Why the suite cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// The target's address.
    #[error("`{url}` is not the address of a target: {reason}")]
    Url {
        /// As given.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The HTTP client, its certificates for one.
    #[error("TLS cannot be set up: check the certificates")]
    Http(#[source] reqwest::Error),
    /// The id of the provider that the suite plays.
    #[error("`{id}` is no provider id")]
    Provider {
        /// As given.
        id: String,
        /// Why.
        #[source]
        source: tieline_openapi::coordinator::NameError,
    },
    /// There is no such case.
    #[error("there is no case `{0}`: see --list")]
    NoSuchCase(String),
    /// Nothing can be tested before the target shows its environments.
    #[error("the target does not show what it shares with {provider}: {why}")]
    Static {
        /// Whom the suite plays.
        provider: String,
        /// What went wrong.
        why: String,
        /// What was sent and received.
        exchanges: Vec<Exchange>,
    },
}

/// Every case, in the order in which they run.
#[must_use]
pub fn all_cases() -> Vec<Case> {
    cases::ALL.iter().flat_map(|cases| cases.iter().copied()).collect()
}

/// Runs the cases whose id is one of `only`, or begins with one of `only` and a slash; all if that is empty.
///
/// # Errors
/// [`SetupError`] if nothing could be tested.
pub async fn run(
    settings: Settings,
    only: &[String],
    progress: &mut impl Progress,
) -> Result<Vec<Outcome>, SetupError> {
    let chosen = |case: &Case, name: &String| case.id == name || case.area() == name;
    let cases = all_cases();
    if let Some(unknown) = only.iter().find(|name| !cases.iter().any(|case| chosen(case, name))) {
        return Err(SetupError::NoSuchCase(unknown.clone()));
    }
    let first = Session::open(settings).await?;
    let mut outcomes = Vec::new();
    for case in cases.into_iter().filter(|case| only.is_empty() || only.iter().any(|name| chosen(case, name))) {
        let session = first.fresh();
        let began = session.elapsed();
        let ended = (case.run)(&session).await;
        let took = session.elapsed().saturating_sub(began);
        let exchanges = session.exchanges();
        session.clean_up().await;
        let verdict = match ended {
            Ok(()) => Verdict::Passed,
            Err(Stop::Skipped(why)) => Verdict::Skipped(why),
            Err(stop @ (Stop::Violation(_) | Stop::NoAnswer(_))) => Verdict::Failed(stop.to_string()),
        };
        let outcome = Outcome { case, verdict, exchanges, took };
        progress.ended(&outcome);
        outcomes.push(outcome);
    }
    Ok(outcomes)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_case_has_a_name_of_its_own_a_rule_and_a_source() {
        let cases = all_cases();
        let names: BTreeSet<_> = cases.iter().map(|case| case.id).collect();
        assert_eq!(names.len(), cases.len());
        for case in cases {
            let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '/';
            assert!(case.id.matches('/').count() == 1 && case.id.chars().all(plain), "{}", case.id);
            assert!(case.rule.ends_with('.') && !case.source.is_empty(), "{}", case.id);
        }
    }
}
