//! The end of a connection.

use tieline_openapi::coordinator::OperationId as Op;

use super::settling::gone_there;
use crate::{
    customer::Wish,
    peer::{Act, Heard, State},
    play::Agreed,
    session::Session,
    suite::{Case, Stop, asked, must, violation},
};

pub(super) const CASES: &[Case] = &[
    asked!(
        "leaving/wish",
        "What the customer deletes is deleted at the peer, and shown no more.",
        "DeleteConnection",
        wish
    ),
    asked!(
        "leaving/by-peer",
        "What the peer deletes cannot be kept, and is not made again.",
        "DeleteConnection cannot be declined",
        by_peer
    ),
    asked!(
        "leaving/already-gone",
        "A connection that the peer has no more (404) counts as deleted.",
        "DeleteConnection",
        already_gone
    ),
    asked!(
        "leaving/while-creating",
        "What is deleted while CreateConnection has no answer leaves nothing at the peer.",
        "Recovery: an old create arrives after the parent was deleted",
        while_creating
    ),
    asked!(
        "leaving/key-stays-used",
        "A key whose connection was deleted makes no other.",
        "DeleteConnection; activation keys",
        key_stays_used
    ),
    asked!(
        "leaving/feature-by-peer",
        "A feature that the peer deletes is deleted here, and made again by whoever negotiates.",
        "DeleteFeature; the owner recreates missing features",
        feature_by_peer
    ),
];

async fn deleted(s: &Session, made: &Agreed) -> Result<(), Stop> {
    s.wish(Wish::Delete { connection: made.uuid }).await?;
    let gone = |state: &State| (!state.connections.contains_key(&made.name)).then_some(());
    s.until("the customer deleted the connection, and DeleteConnection did not come", gone).await
}

async fn wish(s: &Session) -> Result<(), Stop> {
    let made = s.agreed().await?;
    deleted(s, &made).await?;
    gone_there(s, &made.name).await
}

fn makes(heard: &Heard) -> bool {
    matches!(heard.op, Op::CreateConnection | Op::CreateFeature)
}

async fn by_peer(s: &Session) -> Result<(), Stop> {
    let made = s.agreed().await?;
    let since = s.elapsed();
    s.plot().state().end(made.name.clone());
    let path = s.theirs(&made.name)?;
    s.get(Op::DeleteConnection, &path).await?.read::<serde_json::Value>()?;
    s.never(since, "the peer deleted the connection, and something of it was made again", makes).await?;
    gone_there(s, &made.name).await
}

async fn already_gone(s: &Session) -> Result<(), Stop> {
    let made = s.agreed().await?;
    s.plot().spoil(1_000, Act::Refuse(404), |heard| heard.op == Op::DeleteConnection);
    s.wish(Wish::Delete { connection: made.uuid }).await?;
    s.nth(Op::DeleteConnection, 0).await?;
    gone_there(s, &made.name).await
}

async fn while_creating(s: &Session) -> Result<(), Stop> {
    s.peer()?;
    s.plot().spoil(1, Act::Lose, |heard| heard.op == Op::CreateConnection);
    let brought = s.bring().await?;
    let asked = s.nth(Op::CreateConnection, 0).await?;
    let name = asked.connection().ok_or_else(|| violation("CreateConnection came without connectionId"))?;
    s.wish(Wish::Delete { connection: brought.connection }).await?;
    s.until("the connection was deleted, and the peer still has it", |state| {
        (state.connections.is_empty() && state.tombstones.contains(&name)).then_some(())
    })
    .await?;
    let deleted = s.nth(Op::DeleteConnection, 0).await?;
    let created = |heard: &Heard| heard.op == Op::CreateConnection;
    s.never(deleted.at, "CreateConnection came after DeleteConnection", created).await?;
    gone_there(s, &name).await
}

async fn key_stays_used(s: &Session) -> Result<(), Stop> {
    let brought = s.bring().await?;
    let made = s.negotiated(brought.connection, 0).await?;
    deleted(s, &made).await?;
    gone_there(s, &made.name).await?;
    // It may be refused at once.
    if let Err(stop @ Stop::Skipped(_)) = s.wish(Wish::Bring(brought)).await {
        return Err(stop);
    }
    tokio::time::sleep(s.settings().window).await;
    let state = s.plot().state();
    let ended = state.heard.iter().position(|heard| heard.op == Op::DeleteConnection).unwrap_or_default();
    let again = state.heard.iter().skip(ended).any(|heard| heard.op == Op::CreateConnection);
    must(!again, || "a connection was asked for with the key of one that was deleted".to_owned())
}

async fn feature_by_peer(s: &Session) -> Result<(), Stop> {
    let made = s.agreed().await?;
    let (feature, channel) = {
        let mut state = s.plot().state();
        let held = state.connections.get_mut(&made.name).ok_or_else(|| violation("the connection went"))?;
        let first = held.features.keys().next().cloned().unwrap_or_default();
        let gone = held.features.remove(&first).unwrap_or_default();
        (first, gone["channel"].clone())
    };
    let id = feature.rsplit('/').next().unwrap_or_default().parse();
    let path = s.theirs(&made.name)?.feature(id.map_err(|_| violation(format!("{feature} is no name")))?);
    s.get(Op::DeleteFeature, &path).await?.read::<serde_json::Value>()?;
    let again = |state: &State| {
        let held = state.connections.get(&made.name)?;
        held.features.values().any(|feature| feature["channel"] == channel).then_some(())
    };
    s.until("the peer deleted the feature of one channel, and it was not made again", again).await?;
    let state = s.plot().state();
    let same = state.connections.get(&made.name).is_some_and(|held| held.features.contains_key(&feature));
    must(!same, || "the feature that was deleted came back under the same name".to_owned())
}
