//! A connection that moves to another interconnect.

use std::time::Duration;

use serde_json::json;
use tieline_openapi::coordinator::OperationId as Op;

use crate::{
    customer::Wish,
    peer::Heard,
    play::Agreed,
    session::Session,
    suite::{Case, Stop, asked, must},
};

pub(super) const CASES: &[Case] = &[
    asked!(
        "moving/source",
        "A connection moves by a second CreateConnection on another interconnect that names the first as its source.",
        "Connection.sourceData.sourceConnectionName",
        source
    ),
    asked!(
        "moving/make-before-break",
        "The old place is not given up before the new one works.",
        "Migration: make before break",
        make_before_break
    ),
];

async fn moved(s: &Session) -> Result<(Agreed, Heard), Stop> {
    let place = s.active()?;
    if s.siblings(place) < 2 {
        return Err(Stop::Skipped("the environment has one interconnect".to_owned()));
    }
    let made = s.agreed().await?;
    s.wish(Wish::Migrate { connection: made.uuid }).await?;
    let second = s.nth(Op::CreateConnection, 1).await?;
    Ok((made, second))
}

async fn source(s: &Session) -> Result<(), Stop> {
    let (made, second) = moved(s).await?;
    must(!made.name.starts_with(&format!("{}/", second.interconnect())), || {
        format!("the connection moves to {}, where it is already", second.interconnect())
    })?;
    let named = &second.body["sourceData"]["sourceConnectionName"];
    must(*named == json!(made.name), || format!("sourceConnectionName is {named}, and the connection is {}", made.name))
}

async fn make_before_break(s: &Session) -> Result<(), Stop> {
    let (made, _) = moved(s).await?;
    let id = made.name.clone();
    let wrong = move |heard: &Heard| heard.op == Op::DeleteConnection && heard.connection().as_ref() == Some(&id);
    s.never(Duration::ZERO, "the old place was deleted before the new one was finished", wrong).await
}
