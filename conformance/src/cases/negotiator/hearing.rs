//! Hints of the peer: they are followed by a look, and are not needed for one.

use serde_json::json;
use tieline_openapi::coordinator::{Channel, ChannelPath, OperationId as Op};

use crate::{
    peer::{Heard, State},
    session::{Session, name},
    suite::{Case, Stop, asked, must},
};

pub(super) const CASES: &[Case] = &[
    asked!(
        alone
        "hearing/hint",
        "A notification is a hint: the target reads the connection at once.",
        "NotifyConnectionStatus",
        hint
    ),
    asked!(
        "hearing/no-hint",
        "A change that nobody told is found by looking from time to time.",
        "Recovery: notification lost, doubled or reordered",
        no_hint
    ),
    asked!(
        "hearing/not-verified",
        "While the peer has not finished, the target does not call the connection verified.",
        "Connection.verificationState; verification handshake",
        not_verified
    ),
    asked!(
        alone
        "hearing/maintenance",
        "After a notification of a channel's maintenance the target reads the events.",
        "NotifyMaintenance; GetMaintenanceEvents",
        maintenance
    ),
];

fn reads(heard: &Heard) -> bool {
    matches!(heard.op, Op::GetConnection | Op::ListConnections | Op::ListFeatures | Op::GetFeature)
}

async fn hint(s: &Session) -> Result<(), Stop> {
    let made = s.agreed().await?;
    let from = {
        let mut state = s.plot().state();
        if let Some(held) = state.connections.get_mut(&made.name) {
            held.finished = true;
        }
        state.heard.len()
    };
    s.notify(&made.name).await?;
    let read = |state: &State| state.heard.iter().skip(from).any(reads).then_some(());
    let window = s.settings().window;
    s.plot().until(window, "of NotifyConnectionStatus the target did not read the connection", read).await
}

async fn no_hint(s: &Session) -> Result<(), Stop> {
    let made = s.agreed().await?;
    // What follows from the negotiation itself is over by then.
    tokio::time::sleep(s.settings().window).await;
    let from = {
        let mut state = s.plot().state();
        if let Some(held) = state.connections.get_mut(&made.name) {
            held.finished = true;
        }
        state.heard.len()
    };
    let read = |state: &State| state.heard.iter().skip(from).any(reads).then_some(());
    s.until("the target did not look at a connection that changed without a notification", read).await
}

async fn not_verified(s: &Session) -> Result<(), Stop> {
    let made = s.agreed().await?;
    let half = s.half(&made.name).await?;
    let state = half.map(|half| half["verificationState"].clone()).unwrap_or_default();
    must(state != json!("VERIFICATION_STATE_VERIFIED"), || {
        "the target calls the connection verified, and the peer has no finished feature".to_owned()
    })
}

async fn maintenance(s: &Session) -> Result<(), Stop> {
    s.peer()?;
    s.plot().state().manners.channels = true;
    let none = || Stop::Skipped("the interconnect has no channel".to_owned());
    let channel: &Channel = s.active()?.channels.first().ok_or_else(none)?;
    let path: ChannelPath = name(channel.name.as_deref())?;
    let answer = s.call(Op::NotifyMaintenance, &path, &[], &json!({})).await?;
    answer.read::<serde_json::Value>()?;
    let read = |state: &State| state.of(Op::GetMaintenanceEvents).any(|heard| heard.is_of(&path)).then_some(());
    s.until("the target did not read the maintenance events of the channel that it was told of", read).await
}
