//! How often, and as what, the target asks again when there is no answer.

use std::{collections::BTreeMap, time::Duration};

use tieline_openapi::coordinator::OperationId as Op;
use uuid::Uuid;

use crate::{
    peer::{Act, Heard, State},
    session::Session,
    suite::{Case, Stop, asked, must},
};

pub(super) const CASES: &[Case] = &[
    asked!(
        "retrying/connection-bounded",
        "CreateConnection is tried at most five times in 60 seconds.",
        "CreateConnection: retries; recovery: the sixth attempt",
        connection_bounded
    ),
    asked!(
        "retrying/feature-bounded",
        "CreateFeature is tried at most five times in 60 seconds for one channel.",
        "CreateFeature: retries; recovery: the sixth attempt",
        feature_bounded
    ),
    asked!(
        "retrying/backs-off",
        "Between tries there are pauses.",
        "CreateConnection: exponential backoff with jitter",
        backs_off
    ),
    asked!(
        "retrying/same-request",
        "A request without an answer is made again as it was, with the same requestId.",
        "requestId; recovery: an answer was lost",
        same_request
    ),
    asked!(
        "retrying/own-request-id",
        "No two different requests have one requestId.",
        "requestId; recovery: the same request id, another body",
        own_request_id
    ),
    asked!(
        "retrying/request-id",
        "What makes something new has a requestId, a UUID.",
        "requestId of CreateConnection and CreateFeature",
        request_id
    ),
    asked!(
        "retrying/throttled",
        "Being told to wait (429) is no refusal: the same is asked later.",
        "RFC 6585 section 4; CreateConnection: retries",
        throttled
    ),
];

/// The budget in the foreground.
const TRIES: usize = 5;
const BUDGET: Duration = Duration::from_secs(60);

fn creates(heard: &Heard) -> bool {
    heard.op == Op::CreateConnection
}

/// Not more than the budget of what has no good answer.
async fn bounded(s: &Session, count: impl Fn(&State) -> usize) -> Result<(), Stop> {
    let over = s.plot().until(BUDGET, "", |state| (count(state) > TRIES).then_some(())).await;
    must(over.is_err(), || format!("the sixth try came within {BUDGET:?} of the first"))
}

async fn connection_bounded(s: &Session) -> Result<(), Stop> {
    s.peer()?;
    s.plot().spoil(1_000, Act::Refuse(503), creates);
    s.bring().await?;
    s.nth(Op::CreateConnection, 0).await?;
    bounded(s, |state| state.of(Op::CreateConnection).count()).await
}

async fn feature_bounded(s: &Session) -> Result<(), Stop> {
    s.peer()?;
    s.plot().spoil(1_000, Act::Refuse(503), |heard| heard.op == Op::CreateFeature);
    s.bring().await?;
    s.nth(Op::CreateFeature, 0).await?;
    let most = |state: &State| {
        let mut tries = BTreeMap::<String, usize>::new();
        for heard in state.of(Op::CreateFeature) {
            *tries.entry(heard.body["channel"].to_string()).or_default() += 1;
        }
        tries.into_values().max().unwrap_or_default()
    };
    bounded(s, most).await
}

async fn backs_off(s: &Session) -> Result<(), Stop> {
    s.peer()?;
    s.plot().spoil(3, Act::Refuse(503), creates);
    s.bring().await?;
    let (first, last) = (s.nth(Op::CreateConnection, 0).await?, s.nth(Op::CreateConnection, 3).await?);
    let took = last.at.saturating_sub(first.at);
    must(took >= Duration::from_millis(300), || format!("four tries were made within {took:?}"))
}

async fn same_request(s: &Session) -> Result<(), Stop> {
    s.peer()?;
    s.plot().spoil(1, Act::Vanish, creates);
    s.bring().await?;
    let (first, again) = (s.nth(Op::CreateConnection, 0).await?, s.nth(Op::CreateConnection, 1).await?);
    must(first.content() == again.content(), || {
        "CreateConnection had no answer, and another CreateConnection was made".to_owned()
    })?;
    must(first.request_id() == again.request_id(), || {
        "CreateConnection had no answer, and was made again under another requestId".to_owned()
    })
}

async fn own_request_id(s: &Session) -> Result<(), Stop> {
    s.peer()?;
    let nth = |op: Op| move |heard: &Heard| heard.op == op;
    s.plot().spoil(1, Act::Vanish, nth(Op::CreateConnection));
    s.plot().spoil(1, Act::Refuse(409), nth(Op::CreateFeature));
    s.plot().spoil(1, Act::Lose, nth(Op::CreateFeature));
    let agreed = s.agreed().await;
    let state = s.plot().state();
    let mut seen = BTreeMap::<&str, String>::new();
    for heard in state.heard.iter().filter(|heard| heard.op.mutates()) {
        let Some(id) = heard.request_id() else { continue };
        let content = heard.content();
        let first = seen.entry(id).or_insert_with(|| content.clone());
        must(*first == content, || {
            format!("two different requests have the requestId {id}; the second is {}", heard.op.as_str())
        })?;
    }
    agreed.map(drop)
}

async fn request_id(s: &Session) -> Result<(), Stop> {
    s.agreed().await?;
    let state = s.plot().state();
    let made: Vec<_> =
        state.heard.iter().filter(|heard| matches!(heard.op, Op::CreateConnection | Op::CreateFeature)).collect();
    if made.iter().all(|heard| heard.request_id().is_none()) {
        return Err(Stop::Skipped("the target speaks the published revision, which knows no requestId".to_owned()));
    }
    for heard in made {
        let id = heard.request_id().and_then(|id| Uuid::try_parse(id).ok());
        must(id.is_some(), || format!("{} came without a requestId that is a UUID", heard.op.as_str()))?;
    }
    Ok(())
}

async fn throttled(s: &Session) -> Result<(), Stop> {
    s.peer()?;
    s.plot().spoil(1, Act::Refuse(429), creates);
    let brought = s.bring().await?;
    let first = s.nth(Op::CreateConnection, 0).await?;
    let made = s.negotiated(brought.connection, 0).await?;
    must(first.connection().as_ref() == Some(&made.name), || {
        "after a 429 for one connection another was asked for".to_owned()
    })
}
