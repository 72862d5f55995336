//! `tieline events`: what happened, and what happens.

use std::process::ExitCode;

use tieline_openapi::v1::Event;

use super::client;
use crate::{args::Events, exit::Exit, output};

/// Runs `tieline events`.
pub(crate) async fn run(command: Events) -> anyhow::Result<ExitCode> {
    let client = client(&command.api)?;
    let mut since = command.since.clone();
    // What was there before; following begins behind it.
    if !command.follow || since.is_some() {
        loop {
            let page = client.events(since.as_deref(), Some(1_000)).await?;
            for event in &page.events {
                print(event, command.api.json)?;
            }
            since = Some(page.next_cursor);
            if page.events.is_empty() {
                break;
            }
        }
    }
    if !command.follow {
        return Ok(Exit::Ok.into());
    }
    let mut events = client.watch_events(since.as_deref());
    while let Some(event) = events.next().await {
        match event {
            Ok(event) => print(&event, command.api.json)?,
            // The stream takes itself up again.
            Err(error) if error.is_transient() => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(Exit::Unreachable.into())
}

fn print(event: &Event, json: bool) -> anyhow::Result<()> {
    if json {
        output::say!("{}", serde_json::to_string(event)?);
        return Ok(());
    }
    let data = if event.data.as_object().is_some_and(serde_json::Map::is_empty) {
        String::new()
    } else {
        format!("  {}", event.data)
    };
    output::say!("{}  {:<28} {}{data}", output::time(event.time), event.kind, event.subject);
    Ok(())
}
