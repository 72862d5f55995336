//! `tieline coordinator macsec` and `tieline coordinator maintenance`: what goes on on shared channels.

use std::process::ExitCode;

use tieline_openapi::v1::{
    ChannelName, MacSecChannel, MacSecRotationRequest, MaintenanceEvent, MaintenanceRequest, Timestamp,
};

use super::{client, every_page};
use crate::{
    args::{Api, Macsec, Maintenance},
    exit::Exit,
    output,
};

/// Runs `tieline coordinator macsec ...`.
pub(crate) async fn macsec(command: Macsec) -> anyhow::Result<ExitCode> {
    match command {
        Macsec::List { api } => {
            let client = client(&api)?;
            let all = every_page!(client.mac_sec_channels => mac_sec_channels);
            shown(&api, &all, keys)?;
        }
        Macsec::Rotate { api, channel, reason } => {
            let request = MacSecRotationRequest {
                provider: channel.provider,
                environment_id: channel.environment,
                interconnect_id: channel.interconnect,
                channel_id: channel.channel,
                reason,
            };
            let wished = client(&api)?.rotate_mac_sec_key(&request).await?;
            one(&api, wished, keys)?;
        }
    }
    Ok(Exit::Ok.into())
}

/// Runs `tieline coordinator maintenance ...`.
pub(crate) async fn maintenance(command: Maintenance) -> anyhow::Result<ExitCode> {
    match command {
        Maintenance::List { api } => {
            let client = client(&api)?;
            let all = every_page!(client.maintenance_events => maintenance_events);
            shown(&api, &all, work)?;
        }
        Maintenance::Show { api, id } => {
            let event = client(&api)?.maintenance_event(id).await?;
            one(&api, event, work)?;
        }
        Maintenance::Open { api, channel, start, end, whole_device, emergency } => {
            let request = MaintenanceRequest {
                provider: channel.provider,
                environment_id: channel.environment,
                interconnect_id: channel.interconnect,
                channel_id: channel.channel,
                whole_device,
                start_time: start,
                end_time: end,
                emergency,
            };
            let event = client(&api)?.create_maintenance_event(&request).await?;
            one(&api, event, work)?;
        }
        Maintenance::End { api, id } => {
            let event = client(&api)?.end_maintenance_event(id).await?;
            one(&api, event, work)?;
        }
    }
    Ok(Exit::Ok.into())
}

fn shown<T: serde::Serialize>(api: &Api, all: &[T], table: impl Fn(&[T]) -> comfy_table::Table) -> anyhow::Result<()> {
    if api.json {
        return output::json(&all);
    }
    output::say!("{}", table(all));
    Ok(())
}

fn one<T: serde::Serialize>(api: &Api, one: T, table: impl Fn(&[T]) -> comfy_table::Table) -> anyhow::Result<()> {
    if api.json {
        return output::json(&one);
    }
    output::say!("{}", table(&[one]));
    Ok(())
}

fn name(provider: &str, channel: &ChannelName) -> String {
    format!("{provider}/{}/{}/{}", channel.environment_id, channel.interconnect_id, channel.channel_id)
}

fn keys(all: &[MacSecChannel]) -> comfy_table::Table {
    let mut table = output::table(&["CHANNEL", "MANAGER", "SECURE", "ROTATION", "KEYS"]);
    for channel in all {
        let told: Vec<String> =
            channel.keys.iter().map(|key| format!("{} {}", key.id, output::word(&key.state))).collect();
        table.add_row([
            name(&channel.provider, &channel.channel),
            channel.manager.clone(),
            if channel.secure { "yes" } else { "no" }.to_owned(),
            output::word(&channel.rotation),
            if told.is_empty() { "-".to_owned() } else { told.join(", ") },
        ]);
    }
    table
}

fn work(all: &[MaintenanceEvent]) -> comfy_table::Table {
    let mut table = output::table(&["CHANNELS", "WHOSE", "STATE", "START", "END", "ID"]);
    let time = |at: Option<Timestamp>| at.map_or_else(|| "-".to_owned(), |at| at.to_string());
    for event in all {
        let channels: Vec<String> = event.channels.iter().map(|channel| name(&event.provider, channel)).collect();
        table.add_row([
            channels.join(", "),
            output::word(&event.origin),
            output::word(&event.state),
            time(event.start_time),
            time(event.end_time),
            event.id.clone(),
        ]);
    }
    table
}
