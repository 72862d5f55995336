//! `tieline gateways`: who stands where, and whether it is heard.

use std::process::ExitCode;

use super::{client, every_page};
use crate::{args::Gateways, exit::Exit, output};

/// Runs `tieline gateways ...`.
pub(crate) async fn run(command: Gateways) -> anyhow::Result<ExitCode> {
    let Gateways::List { api } = command;
    let client = client(&api)?;
    let all = every_page!(client.gateways => gateways);
    if api.json {
        output::json(&all)?;
        return Ok(Exit::Ok.into());
    }
    let mut table = output::table(&["NAME", "STATE", "GROUP", "ATTACH POINT", "ADDRESS", "LAST HEARD", "ID"]);
    for gateway in &all {
        table.add_row([
            gateway.name.clone(),
            output::word(&gateway.state),
            gateway.group.to_string(),
            gateway.attach_point_id.to_string(),
            gateway.private_address.to_string(),
            gateway.last_heard_at.map_or_else(|| "-".to_owned(), output::time),
            gateway.id.to_string(),
        ]);
    }
    output::say!("{table}");
    Ok(Exit::Ok.into())
}
