//! `tieline issues`: what a person should look at.

use std::process::ExitCode;

use tieline_openapi::v1::IssueState;

use super::{client, every_page};
use crate::{args::Issues, exit::Exit, output};

/// Runs `tieline issues ...`.
pub(crate) async fn run(command: Issues) -> anyhow::Result<ExitCode> {
    let Issues::List { api, all: resolved_too } = command;
    let client = client(&api)?;
    let mut all = every_page!(client.issues => issues);
    all.retain(|issue| resolved_too || issue.state == IssueState::Open);
    if api.json {
        output::json(&all)?;
        return Ok(Exit::Ok.into());
    }
    for issue in &all {
        output::say!("{} {} {}", output::word(&issue.severity), output::word(&issue.state), issue.title);
        output::say!("  about  {}", issue.about.first().map_or("-", String::as_str));
        output::say!("  since  {}", output::time(issue.created_at));
        if let Some(cost) = &issue.cost {
            output::say!("  cost   {cost}");
        }
        output::say!("  next   {}", issue.remediation);
    }
    if all.is_empty() {
        anstream::eprintln!("no open issues");
    }
    Ok(Exit::Ok.into())
}
