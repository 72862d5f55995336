//! Implementations that each break one rule of the Connection Coordinator API: Tieline behind a proxy that spoils what goes
//! through it. The case that names the rule must find it.

mod channels;
mod negotiators;
mod proxy;
mod responders;

use std::collections::BTreeSet;

use futures::{StreamExt as _, TryStreamExt as _};
use tieline_conformance::{Outcome, Verdict, all_cases};

/// Implementations at a time: each waits most of its life.
const AT_A_TIME: usize = 12;

/// Whether a case may not run beside others.
fn is_alone(id: &str) -> bool {
    all_cases().iter().any(|case| case.id == id && case.is_alone())
}

/// Sees that each is found by its case; `TIELINE_BROKEN` names the cases to see, by the beginning of their ids. Those that
/// may not run beside others go first, one by one.
async fn all_found<T: Copy>(
    broken: Vec<(&'static str, T)>,
    find: impl AsyncFn(&'static str, T) -> anyhow::Result<Outcome>,
) -> anyhow::Result<()> {
    let only = std::env::var("TIELINE_BROKEN").unwrap_or_default();
    let (alone, together): (Vec<_>, Vec<_>) =
        broken.into_iter().filter(|(id, _)| id.starts_with(&only)).partition(|(id, _)| is_alone(id));
    let mut outcomes = Vec::new();
    for (id, fault) in alone {
        outcomes.push(find(id, fault).await?);
    }
    let beside = futures::stream::iter(together).map(|(id, fault)| find(id, fault)).buffer_unordered(AT_A_TIME);
    outcomes.extend(beside.try_collect::<Vec<_>>().await?);
    let mut missed = Vec::new();
    for outcome in &outcomes {
        println!("{}: {:?} in {:?}", outcome.case.id, outcome.verdict, outcome.took);
        // That the target's customer side is not there says nothing of a rule.
        if !matches!(&outcome.verdict, Verdict::Failed(why) if !why.starts_with("no answer")) {
            missed.push(format!("{}: {:?}", outcome.case.id, outcome.verdict));
        }
    }
    assert!(missed.is_empty(), "not found:\n{}", missed.join("\n"));
    Ok(())
}

#[test]
fn every_rule_has_an_implementation_that_breaks_it() {
    let broken: BTreeSet<_> = responders::cases().chain(negotiators::cases()).collect();
    let without: Vec<_> = all_cases().iter().map(|case| case.id).filter(|id| !broken.contains(id)).collect();
    assert!(without.is_empty(), "nobody has seen these cases fail: {without:?}");
}
