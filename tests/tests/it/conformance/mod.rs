//! The conformance suite against Tieline itself, in both roles.

mod customer;
mod north;

use std::{path::Path, sync::Arc};

use anyhow::Context as _;
use tieline_conformance::{
    Outcome, Role, Verdict,
    report::{self, About},
};

pub(crate) use customer::Customers;
pub(crate) use north::{Means, North, examine};

/// What a role's cases find, which must be nothing.
async fn found(north: &North, role: Role) -> anyhow::Result<Vec<Outcome>> {
    let customer = Arc::new(Customers::of(north));
    let means = Means { url: &north.peers, customer, patience: 30, window: 2, jobs: 16 };
    let outcomes = examine(north, means, role, &[]).await?;
    let mut broken = String::new();
    for outcome in &outcomes {
        println!("{}: {:?}", outcome.case.id, outcome.took);
        if let Verdict::Failed(why) = &outcome.verdict {
            broken.push_str(&format!("{}: {why}\n{}\n", outcome.case.id, report::transcript(outcome)));
        }
    }
    assert!(broken.is_empty(), "{broken}\nservice log:\n{}", north.log());
    Ok(outcomes)
}

#[tokio::test(flavor = "multi_thread")]
async fn tieline_keeps_every_rule() -> anyhow::Result<()> {
    let north = North::start().await?;
    let mut reported = Vec::new();
    for role in [Role::Responder, Role::Negotiator] {
        reported.push((role, found(&north, role).await?));
    }
    let about = About { target: "Tieline".to_owned(), provider: "south".to_owned() };
    let text = report::markdown(&about, &reported);
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/conformance.md");
    if std::env::var_os("TIELINE_UPDATE").is_some() {
        std::fs::write(&file, &text)?;
    }
    let committed = std::fs::read_to_string(&file).with_context(|| file.display().to_string())?;
    assert_eq!(committed, text, "write docs/conformance.md anew: TIELINE_UPDATE=1");
    Ok(())
}
