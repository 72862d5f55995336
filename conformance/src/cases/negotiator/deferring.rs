//! Provisioning by the other side.

use serde_json::json;
use tieline_openapi::coordinator::{Connection, OperationId as Op};

use crate::{
    customer::Wish,
    peer::{Heard, Held, State},
    propose::proposal,
    session::{Place, Session},
    suite::{Case, Stop, asked, must, violation},
};

pub(super) const CASES: &[Case] = &[
    asked!(
        "deferring/asks",
        "Where it defers, the target says so in CreateConnection, and proposes nothing itself.",
        "Connection.deferProvisioning; Environment.deferConnectionProvisioning",
        asks
    ),
    asked!(
        "deferring/refused",
        "Where the peer refuses with 400 to provision in its place, the target provisions itself.",
        "CreateConnection: 400",
        refused
    ),
    asked!(
        "deferring/accepts-features",
        "Where it deferred, the target takes the features that the peer proposes.",
        "Connection.deferProvisioning; CreateFeature",
        accepts_features
    ),
    asked!(
        "deferring/provisions",
        "A target that provisions in its peer's place asks for guidance and proposes every feature.",
        "Connection.deferProvisioning",
        provisions
    ),
];

fn deferring(s: &Session) -> Result<&Place, Stop> {
    s.peer()?;
    s.open_place(true).ok_or_else(|| Stop::Skipped("the target defers in no environment".to_owned()))
}

async fn bring(s: &Session, place: &Place) -> Result<Heard, Stop> {
    let brought = s.issue(place, place.bandwidth()?, &s.settings().account)?;
    s.wish(Wish::Bring(brought)).await?;
    s.nth(Op::CreateConnection, 0).await
}

async fn asks(s: &Session) -> Result<(), Stop> {
    let place = deferring(s)?;
    s.plot().state().manners.takes_deferral = true;
    let asked = bring(s, place).await?;
    must(asked.body["deferProvisioning"] == json!(true), || {
        "the environment has deferConnectionProvisioning, and CreateConnection has no deferProvisioning".to_owned()
    })?;
    let proposes = |heard: &Heard| heard.op == Op::CreateFeature;
    s.never(asked.at, "the target deferred, and proposed a feature itself", proposes).await
}

async fn refused(s: &Session) -> Result<(), Stop> {
    let place = deferring(s)?;
    let asked = bring(s, place).await?;
    must(asked.body["deferProvisioning"] == json!(true), || "CreateConnection has no deferProvisioning".to_owned())?;
    let uuid = s.plot().state().keys.first().map(|key| key.contents.shared_connection_uuid);
    s.negotiated(uuid.unwrap_or_default(), 0).await.map(drop)
}

async fn accepts_features(s: &Session) -> Result<(), Stop> {
    let place = deferring(s)?;
    s.plot().state().manners.takes_deferral = true;
    let asked = bring(s, place).await?;
    let name = asked.connection().ok_or_else(|| violation("CreateConnection came without connectionId"))?;
    s.until("the connection was not made", |state| state.connections.contains_key(&name).then_some(())).await?;
    let path = s.theirs(&name)?;
    let guidance = s.guidance(&path).await?;
    let (own, target, first) = (s.provider().to_string(), s.target()?, s.next_proposals());
    for guidance in guidance.iter().take(1) {
        let feature = path.feature(s.uuid().into());
        let body = proposal(guidance, &own, &target, first)?.body(&feature.to_string());
        let query = [("featureId", feature.feature.as_str())];
        s.call(Op::CreateFeature, &path, &query, &body).await?.read::<serde_json::Value>()?;
    }
    Ok(())
}

async fn provisions(s: &Session) -> Result<(), Stop> {
    s.peer()?;
    let place = s.active()?;
    let key = s.key(place, place.bandwidth()?).await?;
    let path = s.path_of(place, &key)?;
    // The suite's own half first: the target may ask before its answer is here.
    let statics = s.statics()?;
    let theirs = path.to_string().replacen(&s.provider().to_string(), &format!("providers/{}", statics.target), 1);
    let uuid = key.read.shared_connection_uuid.clone();
    let held = Held { uuid: uuid.clone(), bandwidth_mbps: key.read.connection_size_mbps.into(), ..Held::default() };
    s.plot().state().connections.insert(theirs.clone(), held);
    let mut body = s.body_of(&path, &key);
    body["deferProvisioning"] = json!(true);
    let answer = s.create(&path, &body, Some(&s.uuid().to_string())).await?;
    if answer.status == 400 {
        return Err(Stop::Skipped("the target does not provision in its peer's place".to_owned()));
    }
    answer.read::<Connection>()?;
    let all = s.enabled(&place.interconnect.0.to_string());
    let whole = |state: &State| {
        let held = state.connections.get(&theirs)?;
        (held.features.len() >= all).then_some(())
    };
    s.until(
        "the target agreed to provision in its peer's place, and did not propose a feature for every channel",
        whole,
    )
    .await
}
