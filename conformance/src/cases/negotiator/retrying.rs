//! How often, and as what, the target asks again when there is no answer.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

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
        "After five tries of CreateConnection within 60 seconds the target looks before it tries again.",
        "CreateConnection: retries; recovery: the sixth attempt",
        connection_bounded
    ),
    asked!(
        "retrying/feature-bounded",
        "After five tries of CreateFeature for one channel within 60 seconds the target looks before it tries again.",
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

/// Sees that nothing of one kind is tried a sixth time without a look; `kind` tells what is tried, if it is.
async fn bounded(s: &Session, kind: impl Fn(&Heard) -> Option<String>) -> Result<(), Stop> {
    let looks =
        |heard: &Heard| matches!(heard.op, Op::GetConnection | Op::ListConnections | Op::ListFeatures | Op::GetFeature);
    let over = |state: &State| {
        let (mut tries, mut blind) = (BTreeMap::<String, usize>::new(), BTreeSet::new());
        for heard in &state.heard {
            if looks(heard) {
                blind.clear();
            }
            let Some(kind) = kind(heard) else { continue };
            let tried = tries.entry(kind.clone()).or_default();
            *tried += 1;
            if *tried > TRIES && blind.contains(&kind) {
                return Some(());
            }
            blind.insert(kind);
        }
        None
    };
    let over = s.plot().until(BUDGET, "", over).await;
    must(over.is_err(), || format!("the sixth try came within {BUDGET:?} of the first, without a look before it"))
}

async fn connection_bounded(s: &Session) -> Result<(), Stop> {
    s.peer()?;
    s.plot().spoil(1_000, Act::Refuse(503), creates);
    s.bring().await?;
    s.nth(Op::CreateConnection, 0).await?;
    bounded(s, |heard| creates(heard).then(|| heard.interconnect())).await
}

async fn feature_bounded(s: &Session) -> Result<(), Stop> {
    s.peer()?;
    s.plot().spoil(1_000, Act::Refuse(503), |heard| heard.op == Op::CreateFeature);
    s.bring().await?;
    s.nth(Op::CreateFeature, 0).await?;
    bounded(s, |heard| (heard.op == Op::CreateFeature).then(|| heard.body["channel"].to_string())).await
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
