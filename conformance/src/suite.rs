//! Cases, and how they are run.

use std::time::Duration;

use futures::{StreamExt as _, future::BoxFuture};

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

/// A role in the specification: the target's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The customer got the activation key there.
    Responder,
    /// The customer brought it there.
    Negotiator,
}

impl Role {
    /// As one writes it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Responder => "responder",
            Self::Negotiator => "negotiator",
        }
    }
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
    /// Whose rule it is.
    pub role: Role,
    pub(crate) alone: bool,
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

    /// Whether no other case may run beside it.
    #[must_use]
    pub const fn is_alone(&self) -> bool {
        self.alone
    }
}

macro_rules! case {
    (alone $id:literal, $rule:literal, $source:literal, $run:path) => {
        crate::suite::Case { alone: true, ..crate::suite::case!($id, $rule, $source, $run) }
    };
    ($id:literal, $rule:literal, $source:literal, $run:path) => {
        crate::suite::Case {
            id: $id,
            rule: $rule,
            source: $source,
            role: crate::suite::Role::Responder,
            alone: false,
            run: |session| Box::pin($run(session)),
        }
    };
}
pub(crate) use case;

/// A rule of the Negotiator's.
macro_rules! asked {
    (alone $id:literal, $rule:literal, $source:literal, $run:path) => {
        crate::suite::Case { alone: true, ..crate::suite::asked!($id, $rule, $source, $run) }
    };
    ($id:literal, $rule:literal, $source:literal, $run:path) => {
        crate::suite::Case {
            id: $id,
            rule: $rule,
            source: $source,
            role: crate::suite::Role::Negotiator,
            alone: false,
            run: |session| Box::pin($run(session)),
        }
    };
}
pub(crate) use asked;

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
    #[error("there is no case `{0}` for this role: see --list")]
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
    cases::all().collect()
}

/// Runs the cases of a role whose id is one of `only`, or begins with one of `only` and a slash; all if that is empty.
/// They come out in the order of [`all_cases`].
///
/// # Errors
/// [`SetupError`] if nothing could be tested.
pub async fn run(
    settings: Settings,
    role: Role,
    only: &[String],
    progress: &mut impl Progress,
) -> Result<Vec<Outcome>, SetupError> {
    let chosen = |case: &Case, name: &String| case.id == name || case.area() == name;
    let cases: Vec<_> = all_cases().into_iter().filter(|case| case.role == role).collect();
    if let Some(unknown) = only.iter().find(|name| !cases.iter().any(|case| chosen(case, name))) {
        return Err(SetupError::NoSuchCase(unknown.clone()));
    }
    let jobs = settings.jobs.max(1);
    let first = Session::open(settings).await?;
    let wanted = |case: &&Case| only.is_empty() || only.iter().any(|name| chosen(case, name));
    let (alone, together): (Vec<_>, Vec<_>) =
        cases.iter().copied().enumerate().filter(|(_, case)| wanted(&case)).partition(|(_, case)| case.alone);
    let mut outcomes = Vec::new();
    for (n, case) in alone {
        let outcome = examine(&first, case).await;
        progress.ended(&outcome);
        outcomes.push((n, outcome));
    }
    let examined = together.into_iter().map(|(n, case)| {
        let first = &first;
        async move { (n, examine(first, case).await) }
    });
    let mut examined = futures::stream::iter(examined).buffer_unordered(jobs);
    while let Some((n, outcome)) = examined.next().await {
        progress.ended(&outcome);
        outcomes.push((n, outcome));
    }
    outcomes.sort_by_key(|(n, _)| *n);
    Ok(outcomes.into_iter().map(|(_, outcome)| outcome).collect())
}

async fn examine(first: &Session, case: Case) -> Outcome {
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
    Outcome { case, verdict, exchanges, took }
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
