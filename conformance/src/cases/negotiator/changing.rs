//! Another bandwidth.

use serde_json::json;
use tieline_openapi::coordinator::OperationId as Op;

use crate::{
    customer::Wish,
    peer::{Act, Heard},
    play::Agreed,
    session::Session,
    suite::{Case, Stop, asked, must},
};

pub(super) const CASES: &[Case] = &[
    asked!(
        "changing/asks-first",
        "The peer is asked with UpdateConnection first; the target's own half changes after it agreed.",
        "UpdateConnection",
        asks_first
    ),
    asked!(
        "changing/mask",
        "UpdateConnection changes bandwidthMbps only, and says so.",
        "UpdateConnection updateMask",
        mask
    ),
    asked!("changing/refused", "Where the peer refuses, the bandwidth stays.", "UpdateConnection: 409", refused),
    asked!(
        "changing/lost",
        "Where the answer is lost, both sides have the new bandwidth in the end.",
        "UpdateConnection; recovery: an answer was lost",
        lost
    ),
    asked!(
        "changing/one-at-a-time",
        "While the target asks for a change, a change that the peer asks for is refused with 409.",
        "UpdateConnection: 409",
        one_at_a_time
    ),
];

fn updates(heard: &Heard) -> bool {
    heard.op == Op::UpdateConnection
}

/// A connection, its bandwidth, and another one.
async fn start(s: &Session) -> Result<(Agreed, i64, i32), Stop> {
    let place = s.active()?;
    let now = place.bandwidth()?;
    let other = place.sizes().into_iter().find(|size| *size != now);
    let other = other.ok_or_else(|| Stop::Skipped("the environment supports one bandwidth".to_owned()))?;
    Ok((s.agreed().await?, i64::from(now), other))
}

async fn shown(s: &Session, made: &Agreed) -> Result<i64, Stop> {
    let half = s.half(&made.name).await?.unwrap_or_default();
    Ok(half["bandwidthMbps"].as_i64().unwrap_or_default())
}

/// Waits until the target shows a bandwidth.
async fn becomes(s: &Session, made: &Agreed, bandwidth: i32) -> Result<(), Stop> {
    let began = s.elapsed();
    loop {
        let is = shown(s, made).await?;
        if is == i64::from(bandwidth) {
            return Ok(());
        }
        let patience = s.settings().patience;
        must(s.elapsed().saturating_sub(began) < patience, || {
            format!("{patience:?} after the peer agreed to {bandwidth} Mbit/s the target shows {is}")
        })?;
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    }
}

async fn asks_first(s: &Session) -> Result<(), Stop> {
    let (made, now, to) = start(s).await?;
    s.plot().spoil(1, Act::Hold, updates);
    s.wish(Wish::Update { connection: made.uuid, bandwidth_mbps: to }).await?;
    s.nth(Op::UpdateConnection, 0).await?;
    let meanwhile = shown(s, &made).await;
    s.plot().open();
    let meanwhile = meanwhile?;
    must(meanwhile == now, || format!("the peer had not agreed yet, and the target showed {meanwhile} Mbit/s"))?;
    becomes(s, &made, to).await
}

async fn mask(s: &Session) -> Result<(), Stop> {
    let (made, _, to) = start(s).await?;
    s.wish(Wish::Update { connection: made.uuid, bandwidth_mbps: to }).await?;
    let asked = s.nth(Op::UpdateConnection, 0).await?;
    let mask = asked.asked("updateMask");
    must(mask == Some("bandwidthMbps"), || format!("updateMask is {mask:?}, not bandwidthMbps"))?;
    must(asked.body["bandwidthMbps"] == json!(to), || {
        format!("bandwidthMbps is {}, and the customer wants {to}", asked.body["bandwidthMbps"])
    })
}

async fn refused(s: &Session) -> Result<(), Stop> {
    let (made, now, to) = start(s).await?;
    s.plot().spoil(1_000, Act::Refuse(409), updates);
    s.wish(Wish::Update { connection: made.uuid, bandwidth_mbps: to }).await?;
    s.nth(Op::UpdateConnection, 0).await?;
    tokio::time::sleep(s.settings().window).await;
    let is = shown(s, &made).await?;
    must(is == now, || format!("the peer refused {to} Mbit/s, and the target shows {is}"))
}

async fn lost(s: &Session) -> Result<(), Stop> {
    let (made, _, to) = start(s).await?;
    s.plot().spoil(1, Act::Lose, updates);
    s.wish(Wish::Update { connection: made.uuid, bandwidth_mbps: to }).await?;
    s.nth(Op::UpdateConnection, 0).await?;
    becomes(s, &made, to).await?;
    let state = s.plot().state();
    let ours = state.connections.get(&made.name).map_or(0, |held| held.bandwidth_mbps);
    must(ours == i64::from(to), || format!("the target shows {to} Mbit/s, and the peer has {ours}"))
}

async fn one_at_a_time(s: &Session) -> Result<(), Stop> {
    let (made, _, to) = start(s).await?;
    s.plot().spoil(1, Act::Hold, updates);
    s.wish(Wish::Update { connection: made.uuid, bandwidth_mbps: to }).await?;
    s.nth(Op::UpdateConnection, 0).await?;
    let body = json!({ "bandwidthMbps": to });
    let query = [("updateMask", "bandwidthMbps")];
    let answer = s.call(Op::UpdateConnection, &s.theirs(&made.name)?, &query, &body).await;
    s.plot().open();
    answer?.refused_with(&[409], "while the target itself asks for a change")
}
