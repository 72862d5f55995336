//! Lost answers, and a peer that forgets: the recovery table, row by row.

use std::{collections::BTreeSet, time::Duration};

use serde_json::json;
use tieline_openapi::coordinator::{AdminState, OperationId as Op};

use crate::{
    customer::Wish,
    peer::{Act, Heard, State},
    play::Agreed,
    session::Session,
    suite::{Case, Stop, asked, must, violation},
};

pub(super) const CASES: &[Case] = &[
    asked!(
        "settling/connection-lost",
        "Where the answer to CreateConnection is lost, there is still one connection.",
        "Recovery: an answer was lost",
        connection_lost
    ),
    asked!(
        "settling/feature-lost",
        "Where the answer to CreateFeature is lost, the same feature is found: no new parameters, no second reservation.",
        "Recovery: CreateFeature is committed, the answer is lost",
        feature_lost
    ),
    asked!(
        "settling/feature-lost-published",
        "The same with a peer that knows no requestId: its 409 is settled by a look.",
        "Recovery: CreateFeature is committed, the answer is lost",
        feature_lost_published
    ),
    asked!(
        "settling/feature-vanished",
        "A proposal that never arrived is made again as it was.",
        "Recovery: only one side has the feature",
        feature_vanished
    ),
    asked!(
        "settling/late-answer",
        "An answer that comes late doubles nothing.",
        "Recovery: notification lost, doubled or reordered",
        late_answer
    ),
    asked!(
        "settling/delete-lost",
        "Where the answer to DeleteConnection is lost, the connection is gone in the end, on both sides.",
        "DeleteConnection; recovery: an answer was lost",
        delete_lost
    ),
    asked!(
        "settling/forgotten-feature",
        "A feature that the peer lost is made again from fresh guidance, that channel only.",
        "Recovery: one channel fails while three work; the owner recreates missing features",
        forgotten_feature
    ),
    asked!(
        "settling/not-recreated",
        "A feature that the peer lost is not made again while the channel is disabled.",
        "Recovery: the channel disabled or in maintenance",
        not_recreated
    ),
    asked!(
        "settling/peer-away",
        "A peer that is away for a while, and comes back with all that it had, is gone on with.",
        "Recovery: restart in the middle",
        peer_away
    ),
];

fn proposes(heard: &Heard) -> bool {
    heard.op == Op::CreateFeature
}

async fn connection_lost(s: &Session) -> Result<(), Stop> {
    s.peer()?;
    s.plot().spoil(1, Act::Lose, |heard| heard.op == Op::CreateConnection);
    s.agreed().await?;
    let state = s.plot().state();
    must(state.connections.len() == 1, || format!("{} connections were made from one key", state.connections.len()))
}

/// After the first proposal went wrong so, its channel has the feature that was proposed first, and nothing else was tried.
async fn kept(s: &Session, act: Act) -> Result<(), Stop> {
    s.plot().spoil(1, act, proposes);
    let made = s.agreed().await?;
    // A request whose answer was lost is made again, and is the same one.
    let too_many = |state: &State| {
        let all: BTreeSet<_> = state.of(Op::CreateFeature).map(Heard::content).collect();
        (all.len() > made.channels).then_some(all.len())
    };
    if let Ok(all) = s.plot().until(s.settings().window, "", too_many).await {
        let why =
            format!("CreateFeature came for {all} features, and every one of {} channels has its own", made.channels);
        return Err(violation(why));
    }
    let state = s.plot().state();
    let first = state.of(Op::CreateFeature).next().ok_or_else(|| violation("no feature was proposed"))?;
    let channel = &first.body["channel"];
    let other = state.of(Op::CreateFeature).find(|h| h.body["channel"] == *channel && h.content() != first.content());
    must(other.is_none(), || format!("{channel} was proposed a second time with other parameters or another name"))?;
    let deleted = state.of(Op::DeleteFeature).next();
    must(deleted.is_none(), || "a feature that was good was deleted".to_owned())?;
    let features = state.connections.get(&made.name).map_or(0, |held| held.features.len());
    must(features == made.channels, || format!("{features} features are on {} channels", made.channels))
}

async fn feature_lost(s: &Session) -> Result<(), Stop> {
    s.peer()?;
    kept(s, Act::Lose).await
}

async fn feature_lost_published(s: &Session) -> Result<(), Stop> {
    s.peer()?;
    s.plot().state().manners.published = true;
    kept(s, Act::Lose).await
}

async fn feature_vanished(s: &Session) -> Result<(), Stop> {
    s.peer()?;
    kept(s, Act::Vanish).await
}

async fn late_answer(s: &Session) -> Result<(), Stop> {
    s.peer()?;
    kept(s, Act::Late(Duration::from_secs(2))).await
}

/// Waits until the target shows the connection no more.
pub(super) async fn gone_there(s: &Session, name: &str) -> Result<(), Stop> {
    let began = s.elapsed();
    while s.half(name).await?.is_some() {
        let patience = s.settings().patience;
        must(s.elapsed().saturating_sub(began) < patience, || {
            format!("after {patience:?} the target still shows {name}")
        })?;
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    Ok(())
}

async fn delete_lost(s: &Session) -> Result<(), Stop> {
    let Agreed { name, uuid, .. } = s.agreed().await?;
    s.plot().spoil(1, Act::Vanish, |heard| heard.op == Op::DeleteConnection);
    s.wish(Wish::Delete { connection: uuid }).await?;
    let gone = |state: &State| (!state.connections.contains_key(&name)).then_some(());
    s.until("DeleteConnection was not made again after its answer was lost", gone).await?;
    gone_there(s, &name).await
}

/// The peer loses the feature of one channel, and says that something changed. Gives back the channel and the feature.
pub(super) async fn forget(s: &Session, made: &Agreed) -> Result<(String, String), Stop> {
    let lost = {
        let mut state = s.plot().state();
        let held = state.connections.get_mut(&made.name).ok_or_else(|| violation("the connection went"))?;
        let first = held.features.keys().next().cloned().unwrap_or_default();
        let feature = held.features.remove(&first).unwrap_or_default();
        (feature["channel"].as_str().unwrap_or_default().to_owned(), first)
    };
    s.notify(&made.name).await?;
    Ok(lost)
}

async fn forgotten_feature(s: &Session) -> Result<(), Stop> {
    let made = s.agreed().await?;
    let from = s.plot().state().heard.len();
    let (channel, _) = forget(s, &made).await?;
    let again = |state: &State| {
        let held = state.connections.get(&made.name)?;
        held.features.values().any(|feature| feature["channel"] == json!(channel)).then_some(())
    };
    s.until(&format!("the feature of {channel}, which the peer lost, was not made again"), again).await?;
    let state = s.plot().state();
    let after: Vec<_> = state.heard.iter().skip(from).collect();
    let others = after.iter().find(|heard| proposes(heard) && heard.body["channel"] != json!(channel));
    must(others.is_none(), || "one channel lost its feature, and another was proposed again".to_owned())?;
    let proposed = after.iter().position(|heard| proposes(heard)).unwrap_or_default();
    let fresh = after.iter().take(proposed).any(|heard| heard.op == Op::GenerateFeatureGuidance);
    must(fresh, || "the lost feature was proposed without fresh guidance".to_owned())
}

async fn not_recreated(s: &Session) -> Result<(), Stop> {
    let made = s.agreed().await?;
    let first = {
        let state = s.plot().state();
        let held = state.connections.get(&made.name).ok_or_else(|| violation("the connection went"))?;
        held.features.values().next().and_then(|feature| feature["channel"].as_str().map(str::to_owned))
    };
    let id = first.unwrap_or_default().rsplit('/').next().unwrap_or_default().to_owned();
    s.plot().guide(move |channel, guidance| {
        if channel == id {
            guidance.channel_admin_state = Some(AdminState::Disabled);
        }
    });
    let since = s.elapsed();
    let (channel, _) = forget(s, &made).await?;
    let wrong = move |heard: &Heard| proposes(heard) && heard.body["channel"] == json!(channel);
    s.never(since, "a feature was proposed for a channel that is disabled", wrong).await
}

async fn peer_away(s: &Session) -> Result<(), Stop> {
    s.peer()?;
    let brought = s.bring().await?;
    s.nth(Op::CreateFeature, 0).await?;
    s.plot().spoil(1_000, Act::Vanish, |_| true);
    tokio::time::sleep(Duration::from_secs(2)).await;
    s.plot().calm();
    let made = s.negotiated(brought.connection, 0).await?;
    let state = s.plot().state();
    let each = state.connections.get(&made.name).map_or(0, |held| held.features.len());
    must(each == made.channels && state.connections.len() == 1, || {
        format!(
            "{} connections and {each} features are there, for one connection and {} channels",
            state.connections.len(),
            made.channels
        )
    })
}
