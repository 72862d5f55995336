//! `tieline show`: BGP sessions, paths, and why a value was chosen.

use std::process::ExitCode;

use tieline_openapi::v1::Connection;

use super::{client, find};
use crate::{
    args::{Show, ShowOne},
    exit::Exit,
    output,
};

/// Runs `tieline show ...`.
pub(crate) async fn run(show: Show) -> anyhow::Result<ExitCode> {
    let (one, print): (ShowOne, fn(&Connection) -> comfy_table::Table) = match show {
        Show::Bgp(one) => (one, bgp),
        Show::Paths(one) => (one, paths),
        Show::Why(one) => (one, why),
    };
    let connection = find(&client(&one.api)?, &one.connection).await?;
    if one.api.json {
        output::json(&connection)?;
    } else {
        output::say!("{}", print(&connection));
    }
    Ok(Exit::Ok.into())
}

fn or_dash(value: Option<impl ToString>) -> String {
    value.map_or_else(|| "-".to_owned(), |v| v.to_string())
}

fn bgp(connection: &Connection) -> comfy_table::Table {
    let mut table =
        output::table(&["CHANNEL", "BGP", "BFD", "END", "VLAN", "ADDRESS", "PEER", "AS", "RESOURCE", "STATE"]);
    for channel in connection.placements.iter().flat_map(|p| &p.channels) {
        for (end, side) in [("a", &channel.a), ("b", &channel.b)] {
            let (resource, state) = side
                .attachments
                .last()
                .map_or(("-", "-"), |attachment| (attachment.kind.as_str(), attachment.provider_state.as_str()));
            table.add_row([
                channel.channel_id.to_string(),
                output::word(&channel.bgp_state),
                output::word(&channel.bfd_state),
                end.to_owned(),
                side.vlan_id.to_string(),
                or_dash(side.host_ipv4),
                or_dash(side.peer_ipv4),
                side.asn.to_string(),
                resource.to_owned(),
                state.to_owned(),
            ]);
        }
    }
    table
}

fn paths(connection: &Connection) -> comfy_table::Table {
    let mut table = output::table(&["PATH", "STATE", "CARRIES", "RTT ms", "JITTER ms", "LOSS a-b %", "LOSS b-a %"]);
    for path in &connection.paths {
        let carries = match (path.carries.a_to_b, path.carries.b_to_a) {
            (true, true) => "a<->b",
            (true, false) => "a->b",
            (false, true) => "b->a",
            (false, false) => "-",
        };
        let measured = path.measured;
        let milli = |us: u32| format!("{:.2}", f64::from(us) / 1_000.0);
        let percent = |ppm: u32| format!("{:.3}", f64::from(ppm) / 10_000.0);
        table.add_row([
            path.id.clone(),
            output::word(&path.state),
            carries.to_owned(),
            or_dash(measured.map(|m| milli(m.rtt_us))),
            or_dash(measured.map(|m| milli(m.jitter_us))),
            or_dash(measured.map(|m| percent(m.loss_a_to_b_ppm))),
            or_dash(measured.map(|m| percent(m.loss_b_to_a_ppm))),
        ]);
    }
    table
}

fn why(connection: &Connection) -> comfy_table::Table {
    let mut table = output::wrapped(&["CHANNEL", "FIELD", "RULE", "SOURCE"]);
    for channel in connection.placements.iter().flat_map(|p| &p.channels) {
        for why in &channel.why {
            table.add_row([channel.channel_id.to_string(), why.pointer.clone(), why.rule.clone(), why.source.clone()]);
        }
    }
    table
}
