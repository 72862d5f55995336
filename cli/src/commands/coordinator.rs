//! `tieline coordinator`: the pairing with other providers.

use std::process::ExitCode;

use tieline_api::coordinator::check;
use tieline_openapi::config::Config;

use super::channels;
use crate::{
    args::Coordinator,
    exit::{Exit, Failure},
    output,
};

/// Runs `tieline coordinator ...`.
pub(crate) async fn run(command: Coordinator) -> anyhow::Result<ExitCode> {
    let (config, json) = match command {
        Coordinator::Check { config, json } => (config, json),
        Coordinator::Macsec(command) => return channels::macsec(command).await,
        Coordinator::Maintenance(command) => return channels::maintenance(command).await,
    };
    let none =
        || Failure::new(Exit::Usage, format!("{} has no [coordinator]: there is nothing to compare", config.display()));
    let coordinator = Config::read(&config)?.coordinator.ok_or_else(none)?;
    let findings = check::all(&coordinator).await?;
    if json {
        let all: Vec<_> =
            findings.iter().map(|f| serde_json::json!({ "about": f.about, "message": f.message })).collect();
        output::json(&all)?;
    } else {
        for finding in &findings {
            output::say!("{}: {}", finding.about, finding.message);
        }
    }
    if findings.is_empty() {
        if !json {
            output::say!("both sides say the same");
        }
        return Ok(Exit::Ok.into());
    }
    Ok(Exit::Conflict.into())
}
