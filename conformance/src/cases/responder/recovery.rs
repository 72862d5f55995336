//! The rows of the recovery table that a Responder answers for, beside those that stand with their operation.

use serde_json::{Value, json};
use tieline_openapi::coordinator::{Connection, Feature, ListFeaturesResponse, OperationId as Op};

use super::features::{Stage, same, send};
use crate::{
    session::Session,
    suite::{Case, Stop, case, must},
};

pub(super) const CASES: &[Case] = &[
    case!(
        "recovery/one-side",
        "A proposal that is made again by a peer that knows no requestId makes no second feature, and is to be found.",
        "Recovery: only one side has the feature",
        one_side
    ),
    case!(
        "recovery/one-channel",
        "Repairing one channel leaves the other channels and the connection as they are.",
        "Recovery: one channel fails while three work",
        one_channel
    ),
    case!(
        "recovery/late-feature",
        "A proposal that arrives after its connection was deleted is refused.",
        "Recovery: an old create arrives after the parent was deleted",
        late_feature
    ),
    case!(
        "recovery/late-replay",
        "A request that was answered before its connection was deleted makes nothing when it comes again.",
        "Recovery: tombstones outlive the replay cache",
        late_replay
    ),
    case!(
        "recovery/migration",
        "A connection moves to another interconnect: both places are there until the first is deleted, and then the second is.",
        "Connection.sourceData.sourceConnectionName; migration",
        migration
    ),
    case!(
        "recovery/migration-from-nothing",
        "A connection that names a source which is not there is refused.",
        "Connection.sourceData.sourceConnectionName",
        migration_from_nothing
    ),
];

async fn listed(s: &Session, stage: &Stage) -> Result<Vec<Feature>, Stop> {
    let of = |page: ListFeaturesResponse| (page.features, page.next_page_token);
    s.whole(Op::ListFeatures, &stage.connection, of).await
}

async fn one_side(s: &Session) -> Result<(), Stop> {
    let stage = Stage::set(s).await?;
    let good = stage.made(s, 0, None).await?;
    let again = send(s, &good.path, &good.body, None).await?;
    must(again.good() || again.status == 409, || format!("the repetition was answered with {}", again.status))?;
    let shown: Feature = s.get(Op::GetFeature, &good.path).await?.read()?;
    must(same(&good.body, &shown), || "the repetition changed the feature".to_owned())?;
    let features = listed(s, &stage).await?.len();
    must(features == 1, || format!("after the repetition there are {features} features"))
}

async fn one_channel(s: &Session) -> Result<(), Stop> {
    let stage = Stage::set(s).await?;
    if stage.channels() < 2 {
        return Err(Stop::Skipped("the interconnect has one channel".to_owned()));
    }
    let (lost, other) = (stage.made(s, 0, None).await?, stage.made(s, 1, None).await?);
    s.get(Op::DeleteFeature, &lost.path).await?.read::<Value>()?;
    s.get(Op::GetConnection, &stage.connection).await?.read::<Connection>()?;
    let shown: Feature = s.get(Op::GetFeature, &other.path).await?.read()?;
    must(same(&other.body, &shown), || "deleting the feature of one channel changed another channel's".to_owned())?;
    stage.made(s, 0, None).await?;
    let features = listed(s, &stage).await?.len();
    must(features == 2, || format!("after the repair there are {features} features on two channels"))
}

async fn late_feature(s: &Session) -> Result<(), Stop> {
    let stage = Stage::set(s).await?;
    s.get(Op::DeleteConnection, &stage.connection).await?.read::<Value>()?;
    let path = stage.feature(s);
    let body = stage.proposal(0, 0)?.body(&path.to_string());
    send(s, &path, &body, None).await?.refused("of a connection that was deleted")?;
    s.get(Op::GetConnection, &stage.connection).await?.refused_with(&[404], "of a connection that was deleted")
}

async fn late_replay(s: &Session) -> Result<(), Stop> {
    let made = s.connection().await?;
    s.get(Op::DeleteConnection, &made.path).await?.read::<Value>()?;
    // Whatever it is answered, nothing comes of it.
    s.create(&made.path, &made.body, Some(&made.request_id)).await?;
    s.get(Op::GetConnection, &made.path).await?.refused_with(&[404], "of a connection that was deleted")
}

async fn migration(s: &Session) -> Result<(), Stop> {
    let made = s.connection().await?;
    let place = s.place()?;
    let other = s.places().iter().find(|other| {
        other.environment.0 == place.environment.0
            && other.interconnect.0 != place.interconnect.0
            && other.interconnect.1.state == place.interconnect.1.state
    });
    let other = other.ok_or_else(|| Stop::Skipped("the environment has one interconnect".to_owned()))?;
    let path = other.interconnect.0.connection(s.uuid().into());
    let body = json!({
        "name": path.to_string(),
        "bandwidthMbps": made.key.read.connection_size_mbps,
        "sourceData": { "sourceConnectionName": made.path.to_string() },
    });
    s.create(&path, &body, Some(&s.uuid().to_string())).await?.read::<Connection>()?;
    for path in [&made.path, &path] {
        s.get(Op::GetConnection, path).await?.read::<Connection>()?;
    }
    s.get(Op::DeleteConnection, &made.path).await?.read::<Value>()?;
    s.get(Op::GetConnection, &made.path).await?.refused_with(&[404], "of the place that was given up")?;
    let still = s.get(Op::GetConnection, &path).await?;
    must(still.good(), || "the new place went with the old one".to_owned())
}

async fn migration_from_nothing(s: &Session) -> Result<(), Stop> {
    let place = s.place()?;
    let (path, from) =
        (place.interconnect.0.connection(s.uuid().into()), place.interconnect.0.connection(s.uuid().into()));
    let body = json!({
        "name": path.to_string(),
        "bandwidthMbps": place.bandwidth()?,
        "sourceData": { "sourceConnectionName": from.to_string() },
    });
    s.create(&path, &body, None).await?.refused("from a source that is not there")
}
