//! CreateConnection: where, with what, and where next.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::json;
use tieline_openapi::coordinator::{Connection, ListConnectionsResponse, OperationId as Op};

use super::LOOK;
use crate::{
    customer::Wish,
    peer::{Act, Heard, State},
    session::{Place, Session},
    suite::{Case, Stop, asked, must, violation},
};

pub(super) const CASES: &[Case] = &[
    asked!(
        "creating/from-the-key",
        "CreateConnection has the bandwidth of the key, and the key itself in sourceData.",
        "Connection.bandwidthMbps, sourceData",
        from_the_key
    ),
    asked!(
        "creating/older-field",
        "The key stands in activationKey as well, the only place that a peer of the published revision reads.",
        "Connection.activationKey",
        older_field
    ),
    asked!(
        alone
        "creating/most-free",
        "The connection goes to the interconnect with most free bandwidth.",
        "CreateConnection; selection of the interconnect",
        most_free
    ),
    asked!(
        "creating/next-interconnect",
        "After a 409 for a connection that is not there, another interconnect is tried.",
        "CreateConnection: 409",
        next_interconnect
    ),
    asked!(
        "creating/exists",
        "After a 409 for a connection that is there, the target looks, and goes on with it.",
        "CreateConnection: 409",
        exists
    ),
    asked!(
        "creating/no-room",
        "Where every interconnect is full, the target gives up: each is asked at most five times.",
        "CreateConnection: 409; retries",
        no_room
    ),
];

async fn creation(s: &Session) -> Result<Heard, Stop> {
    s.bring().await?;
    s.nth(Op::CreateConnection, 0).await
}

async fn from_the_key(s: &Session) -> Result<(), Stop> {
    let asked = creation(s).await?;
    let (size, key) = {
        let state = s.plot().state();
        let key = state.keys.first().ok_or_else(|| violation("there is no key"))?;
        (key.contents.bandwidth.get(), key.text.clone())
    };
    must(asked.body["bandwidthMbps"] == json!(size), || {
        format!("the key is for {size} Mbit/s, and bandwidthMbps is {}", asked.body["bandwidthMbps"])
    })?;
    let source = &asked.body["sourceData"]["encodedKey"];
    must(source.as_str().is_some_and(|text| text == key.expose()), || {
        "sourceData.encodedKey is not the key that the customer brought".to_owned()
    })?;
    must(asked.asked("connectionId").is_some(), || "connectionId is missing".to_owned())
}

async fn older_field(s: &Session) -> Result<(), Stop> {
    let asked = creation(s).await?;
    must(asked.body["activationKey"].is_string(), || "activationKey is missing".to_owned())
}

/// What is free on each interconnect of an environment, in Mbit/s, as the target itself shows it, were one connection not
/// there.
async fn free(s: &Session, of: &Place, but: Option<&str>) -> Result<BTreeMap<String, i64>, Stop> {
    let counts = |connection: &&Connection| {
        let id = connection.name.as_deref().and_then(|name| name.rsplit('/').next());
        but.is_none() || id != but
    };
    let mut free = BTreeMap::new();
    for place in s.places().iter().filter(|place| place.environment.0 == of.environment.0) {
        let all: Vec<Connection> = s
            .whole(Op::ListConnections, &place.interconnect.0, |page: ListConnectionsResponse| {
                (page.connections, page.next_page_token)
            })
            .await?;
        let used: i64 =
            all.iter().filter(counts).filter_map(|connection| connection.bandwidth_mbps.map(i64::from)).sum();
        let most = i64::from(place.interconnect.1.max_bandwidth_mbps.unwrap_or(i32::MAX));
        free.insert(place.interconnect.0.interconnect.to_string(), most - used);
    }
    Ok(free)
}

fn even(free: &BTreeMap<String, i64>) -> bool {
    free.values().min() == free.values().max()
}

async fn most_free(s: &Session) -> Result<(), Stop> {
    s.peer()?;
    let place = s.active()?;
    if s.siblings(place) < 2 {
        return Err(Stop::Skipped("the environment has one interconnect".to_owned()));
    }
    // What others have made goes away, and the target may count it no more while it still shows it.
    let (began, longest) = (s.elapsed(), s.settings().window * 3);
    while !even(&free(s, place, None).await?) && s.elapsed().saturating_sub(began) < longest {
        tokio::time::sleep(LOOK).await;
    }
    let mbps = place.bandwidth()?;
    // The first takes room, so that the second has something to choose.
    for n in 0..2 {
        let before = free(s, place, None).await?;
        let brought = s.issue(place, mbps, &s.settings().account)?;
        s.wish(Wish::Bring(brought)).await?;
        let creation = s.nth(Op::CreateConnection, n).await?;
        let chosen = creation.id("interconnect").to_owned();
        // The target shows its half of the new connection before or after this look, and where it thinks that it is.
        let after = free(s, place, creation.asked("connectionId")).await?;
        // It was chosen at some time between.
        let both = |id: &str| [&before, &after].map(|free| free.get(id).copied().unwrap_or_default());
        let [has, most] = [both(&chosen).into_iter().max(), before.keys().map(|id| both(id)[0].min(both(id)[1])).max()];
        must(has >= most, || format!("{chosen} has {has:?} Mbit/s free, and another has {most:?}"))?;
    }
    Ok(())
}

async fn next_interconnect(s: &Session) -> Result<(), Stop> {
    s.peer()?;
    if s.siblings(s.active()?) < 2 {
        return Err(Stop::Skipped("the environment has one interconnect".to_owned()));
    }
    s.plot().spoil(1, Act::Refuse(409), |heard| heard.op == Op::CreateConnection);
    s.bring().await?;
    let first = s.nth(Op::CreateConnection, 0).await?;
    let moved =
        |state: &State| state.of(Op::CreateConnection).find(|h| h.interconnect() != first.interconnect()).cloned();
    let next = s.until("no other interconnect was tried after the 409", moved).await?;
    must(first.request_id().is_none() || next.request_id() != first.request_id(), || {
        "the second CreateConnection has the requestId of the first, and is another request".to_owned()
    })
}

async fn exists(s: &Session) -> Result<(), Stop> {
    s.peer()?;
    // Carried out without an answer, and a peer that remembers no requestId.
    s.plot().state().manners.published = true;
    s.plot().spoil(1, Act::Lose, |heard| heard.op == Op::CreateConnection);
    let brought = s.bring().await?;
    let made = s.negotiated(brought.connection, 0).await?;
    let state = s.plot().state();
    let elsewhere = state.of(Op::CreateConnection).find(|heard| heard.connection().as_ref() != Some(&made.name));
    must(elsewhere.is_none(), || "the connection was there, and another was asked for".to_owned())?;
    must(state.connections.len() == 1, || format!("{} connections were made from one key", state.connections.len()))
}

async fn no_room(s: &Session) -> Result<(), Stop> {
    s.peer()?;
    let place = s.active()?;
    let interconnects = s.siblings(place);
    s.plot().spoil(1_000, Act::Refuse(409), |heard| heard.op == Op::CreateConnection);
    s.bring().await?;
    let all = |state: &State| {
        let tried: BTreeSet<_> = state.of(Op::CreateConnection).map(Heard::interconnect).collect();
        (tried.len() >= interconnects).then_some(())
    };
    s.until("not every interconnect was tried", all).await?;
    tokio::time::sleep(s.settings().window).await;
    let state = s.plot().state();
    let mut tries = BTreeMap::<String, usize>::new();
    state.of(Op::CreateConnection).for_each(|heard| *tries.entry(heard.interconnect()).or_default() += 1);
    let most = tries.values().max().copied().unwrap_or_default();
    must(most <= 5, || format!("one interconnect that is full was asked {most} times"))
}
