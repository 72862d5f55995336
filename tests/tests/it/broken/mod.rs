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

/// Sees that each is found by its case; `TIELINE_BROKEN` names the cases to see, by the beginning of their ids. Those that
/// may not run beside others go first, one by one. A case watches for a while what an implementation does, and beside many others
/// on a busy machine that may come too late: what was missed there is looked at again, alone.
async fn all_found<T: Copy>(
    broken: Vec<(&'static str, T)>,
    find: impl AsyncFn(&'static str, T) -> anyhow::Result<Outcome>,
) -> anyhow::Result<()> {
    let only = std::env::var("TIELINE_BROKEN").unwrap_or_default();
    let cases = all_cases();
    let is_alone = |id: &str| cases.iter().any(|case| case.id == id && case.is_alone());
    let (alone, together): (Vec<_>, Vec<_>) =
        broken.into_iter().filter(|(id, _)| id.starts_with(&only)).partition(|(id, _)| is_alone(id));
    let is_found = |outcome: &Outcome| {
        println!("{}: {:?} in {:?}", outcome.case.id, outcome.verdict, outcome.took);
        matches!(outcome.verdict, Verdict::Failed(_))
    };
    let mut missed = Vec::new();
    for (id, fault) in alone {
        let outcome = find(id, fault).await?;
        if !is_found(&outcome) {
            missed.push(outcome);
        }
    }
    let beside = futures::stream::iter(together)
        .map(async |(id, fault)| Ok::<_, anyhow::Error>((fault, find(id, fault).await?)));
    let seen: Vec<_> = beside.buffer_unordered(AT_A_TIME).try_collect().await?;
    for (fault, outcome) in seen {
        if !is_found(&outcome) {
            let again = find(outcome.case.id, fault).await?;
            if !is_found(&again) {
                missed.push(again);
            }
        }
    }
    let missed: Vec<_> = missed.iter().map(|outcome| format!("{}: {:?}", outcome.case.id, outcome.verdict)).collect();
    assert!(missed.is_empty(), "not found:\n{}", missed.join("\n"));
    Ok(())
}

#[test]
fn every_rule_has_an_implementation_that_breaks_it() {
    let broken: BTreeSet<_> = responders::cases().chain(negotiators::cases()).collect();
    let without: Vec<_> = all_cases().iter().map(|case| case.id).filter(|id| !broken.contains(id)).collect();
    assert!(without.is_empty(), "nobody has seen these cases fail: {without:?}");
}
