//! `tieline coordinated` and `tieline coordinator`: connections with providers that we are paired with, and the pairing.

use std::{io::Read as _, process::ExitCode};

use anyhow::Context as _;
use tieline_api::coordinator::check;
use tieline_openapi::{
    config::Config,
    v1::{ActivationKeyText, CoordinatedConnection, CoordinatedConnectionPatch, CoordinatedConnectionRequest},
};

use super::{client, connections::bandwidth, every_page};
use crate::{
    args::{Api, Coordinated, Coordinator},
    exit::{Exit, Failure},
    output,
};

/// Runs `tieline coordinated ...`.
pub(crate) async fn run(command: Coordinated) -> anyhow::Result<ExitCode> {
    match command {
        Coordinated::List { api } => {
            let client = client(&api)?;
            let all = every_page!(client.coordinated_connections => coordinated_connections);
            if api.json {
                output::json(&all)?;
            } else {
                anstream::println!("{}", table(&all));
            }
        }
        Coordinated::Create { api, provider, environment, bandwidth: mbps, remote_account } => {
            let request = CoordinatedConnectionRequest {
                provider,
                environment_id: environment,
                bandwidth_mbps: bandwidth(&mbps)?,
                remote_account_id: remote_account,
            };
            let issued = client(&api)?.create_coordinated_connection(&request).await?;
            if api.json {
                output::json(&issued)?;
            } else {
                // Alone on standard output, so that it can be piped to where it is meant for.
                anstream::eprintln!(
                    "connection {}; bring this key to `{}` within seven days:",
                    issued.coordinated_connection.id,
                    issued.coordinated_connection.provider
                );
                anstream::println!("{}", issued.activation_key);
            }
        }
        Coordinated::Accept { api, key } => {
            shown(&api, client(&api)?.accept_activation_key(&text(key)?).await?)?;
        }
        Coordinated::Decode { api, key } => {
            output::json(&client(&api)?.decode_activation_key(&text(key)?).await?)?;
        }
        Coordinated::Show { api, id } => output::json(&client(&api)?.coordinated_connection(id).await?)?,
        Coordinated::Resize { api, id, bandwidth: mbps } => {
            let patch = CoordinatedConnectionPatch { bandwidth_mbps: bandwidth(&mbps)? };
            shown(&api, client(&api)?.patch_coordinated_connection(id, &patch).await?)?;
        }
        Coordinated::Migrate { api, id } => {
            shown(&api, client(&api)?.migrate_coordinated_connection(id).await?)?;
        }
        Coordinated::Delete { api, id } => {
            client(&api)?.delete_coordinated_connection(id).await?;
            if api.json {
                output::json(&serde_json::json!({ "id": id }))?;
            } else {
                anstream::println!("connection {id} is being taken down");
            }
        }
    }
    Ok(Exit::Ok.into())
}

fn shown(api: &Api, connection: CoordinatedConnection) -> anyhow::Result<()> {
    if api.json {
        return output::json(&connection);
    }
    anstream::println!("{}", table(&[connection]));
    Ok(())
}

/// A key as it is given, or from standard input for `-`.
fn text(key: String) -> anyhow::Result<ActivationKeyText> {
    if key != "-" {
        return Ok(ActivationKeyText { activation_key: key });
    }
    let mut activation_key = String::new();
    std::io::stdin().read_to_string(&mut activation_key).context("standard input")?;
    Ok(ActivationKeyText { activation_key: activation_key.trim().to_owned() })
}

fn table(all: &[CoordinatedConnection]) -> comfy_table::Table {
    let mut table = output::table(&["PROVIDER", "ENVIRONMENT", "MBPS", "STATE", "INTERCONNECT", "CHANNELS", "ID"]);
    for connection in all {
        let placements = &connection.placements;
        let interconnects: Vec<&str> = placements.iter().map(|p| p.interconnect_id.as_str()).collect();
        let channels: usize = placements.iter().map(|p| p.channels.len()).sum();
        table.add_row([
            connection.provider.clone(),
            connection.environment_id.clone(),
            connection.bandwidth_mbps.to_string(),
            output::word(&connection.state),
            if interconnects.is_empty() { "-".to_owned() } else { interconnects.join(",") },
            channels.to_string(),
            connection.id.to_string(),
        ]);
    }
    table
}

/// Runs `tieline coordinator ...`.
pub(crate) async fn pairing(command: Coordinator) -> anyhow::Result<ExitCode> {
    let Coordinator::Check { config, json } = command;
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
            anstream::println!("{}: {}", finding.about, finding.message);
        }
    }
    if findings.is_empty() {
        if !json {
            anstream::println!("both sides say the same");
        }
        return Ok(Exit::Ok.into());
    }
    Ok(Exit::Conflict.into())
}
