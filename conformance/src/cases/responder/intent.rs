//! CreateConnection.

use serde_json::json;
use tieline_openapi::coordinator::{
    AdminState, Connection, ListConnectionsResponse, OperationId as Op, VerificationState,
};

use crate::{
    session::Session,
    suite::{Case, Stop, case, must, violation},
};

pub(super) const CASES: &[Case] = &[
    case!(
        "intent/create",
        "A connection is created from a good key, under the name and with the bandwidth that were asked for, and is shown and listed.",
        "CreateConnection, GetConnection, ListConnections",
        create
    ),
    case!(
        "intent/unverified",
        "A connection without a feature is not verified.",
        "Connection.verificationState",
        unverified
    ),
    case!(
        "intent/replay",
        "The same request again, with the same requestId, changes nothing and is answered the same.",
        "CreateConnection requestId; recovery: an answer was lost",
        replay
    ),
    case!(
        "intent/published-revision",
        "A peer that knows the published revision only, without requestId and sourceData, gets its connection.",
        "The published revision: Connection.activationKey",
        published_revision
    ),
    case!(
        "intent/request-id-reused",
        "The same requestId with another body is refused with 409, and changes nothing.",
        "CreateConnection requestId",
        request_id_reused
    ),
    case!(
        "intent/exists",
        "Creating what exists already, in another request, is refused with 409.",
        "CreateConnection",
        exists
    ),
    case!(
        "intent/no-key",
        "No connection is made without a key or a source.",
        "CreateConnection; activation keys are never bypassed",
        no_key
    ),
    case!(
        "intent/bandwidth-of-key",
        "The bandwidth must be the one in the key.",
        "CreateConnection; ConfirmActivationKey",
        bandwidth_of_key
    ),
    case!(
        "intent/unsupported-size",
        "A bandwidth that the interconnect does not support is refused.",
        "Interconnect.supportedConnectionSizeMbps",
        unsupported_size
    ),
    case!(
        "intent/unknown-interconnect",
        "A connection on an interconnect that does not exist is refused with 404.",
        "CreateConnection",
        unknown_interconnect
    ),
];

async fn create(s: &Session) -> Result<(), Stop> {
    let made = s.connection().await?;
    let shown: Connection = s.get(Op::GetConnection, &made.path).await?.read()?;
    let name = made.path.to_string();
    must(shown.name.as_deref() == Some(&name), || format!("{name} is shown under the name {:?}", shown.name))?;
    let wanted = made.key.read.connection_size_mbps;
    must(shown.bandwidth_mbps == Some(wanted), || {
        format!("{:?} Mbit/s are shown, {wanted} were asked for", shown.bandwidth_mbps)
    })?;
    let known = [AdminState::Enabled, AdminState::Disabled];
    let state = shown.admin_state.as_ref();
    must(state.is_some_and(|state| known.contains(state)), || format!("adminState is {state:?}"))?;
    let many = count(s, &made.path).await?;
    must(many == 1, || format!("ListConnections holds {name} {many} times"))
}

async fn count(s: &Session, path: &tieline_openapi::coordinator::ConnectionPath) -> Result<usize, Stop> {
    let into = |page: ListConnectionsResponse| (page.connections, page.next_page_token);
    let listed = s.whole(Op::ListConnections, &path.parent(), into).await?;
    let name = path.to_string();
    Ok(listed.iter().filter(|connection| connection.name.as_deref() == Some(&name)).count())
}

async fn unverified(s: &Session) -> Result<(), Stop> {
    let made = s.connection().await?;
    let shown: Connection = s.get(Op::GetConnection, &made.path).await?.read()?;
    let verified = shown.verification_state == Some(VerificationState::Verified);
    must(!verified, || "a connection without any feature is called verified".to_owned())
}

async fn replay(s: &Session) -> Result<(), Stop> {
    let made = s.connection().await?;
    let again: Connection = s.create(&made.path, &made.body, Some(&made.request_id)).await?.read()?;
    must(again.name.as_deref() == Some(&made.path.to_string()), || {
        format!("the repetition was answered with {:?}", again.name)
    })?;
    let many = count(s, &made.path).await?;
    must(many == 1, || format!("after the repetition there are {many} connections of that name"))
}

async fn published_revision(s: &Session) -> Result<(), Stop> {
    let place = s.place()?;
    let key = s.key(place, place.bandwidth()?).await?;
    let path = s.path_of(place, &key)?;
    let body = json!({ "bandwidthMbps": key.read.connection_size_mbps, "activationKey": key.encoded.expose() });
    s.create(&path, &body, None).await?.read::<Connection>()?;
    s.get(Op::GetConnection, &path).await?.read::<Connection>().map(drop)
}

async fn request_id_reused(s: &Session) -> Result<(), Stop> {
    let made = s.connection().await?;
    let before: Connection = s.get(Op::GetConnection, &made.path).await?.read()?;
    let mut body = made.body.clone();
    body["bandwidthMbps"] = json!(made.key.read.connection_size_mbps + 1);
    let answer = s.create(&made.path, &body, Some(&made.request_id)).await?;
    answer.refused_with(&[409], "with a used requestId and another body")?;
    let after: Connection = s.get(Op::GetConnection, &made.path).await?.read()?;
    must(after == before, || "the refused request changed the connection".to_owned())
}

async fn exists(s: &Session) -> Result<(), Stop> {
    let made = s.connection().await?;
    let other = s.uuid().to_string();
    s.create(&made.path, &made.body, Some(&other)).await?.refused_with(&[409], "of what exists")?;
    let many = count(s, &made.path).await?;
    must(many == 1, || format!("there are {many} connections of that name"))
}

async fn no_key(s: &Session) -> Result<(), Stop> {
    let place = s.place()?;
    let path = place.interconnect.0.connection(s.uuid().into());
    let body = json!({ "name": path.to_string(), "bandwidthMbps": place.bandwidth()? });
    s.create(&path, &body, None).await?.refused("without a key")?;
    s.get(Op::GetConnection, &path).await?.refused_with(&[404], "for a connection that was refused")
}

async fn bandwidth_of_key(s: &Session) -> Result<(), Stop> {
    let place = s.place()?;
    let (least, sizes) = (place.bandwidth()?, place.sizes());
    let Some(other) = sizes.into_iter().find(|size| *size != least) else {
        return Err(Stop::Skipped("the interconnect supports one size only".to_owned()));
    };
    let key = s.key(place, least).await?;
    let path = s.path_of(place, &key)?;
    let mut body = s.body_of(&path, &key);
    body["bandwidthMbps"] = json!(other);
    s.create(&path, &body, None).await?.refused("with another bandwidth than its key's")
}

async fn unsupported_size(s: &Session) -> Result<(), Stop> {
    let place = s.place()?;
    let sizes = place.sizes();
    let strange = (1..).find(|size| !sizes.contains(size)).ok_or_else(|| violation("every size is supported"))?;
    let key = s.key(place, place.bandwidth()?).await?;
    let path = s.path_of(place, &key)?;
    let mut body = s.body_of(&path, &key);
    body["bandwidthMbps"] = json!(strange);
    s.create(&path, &body, None).await?.refused("with a size that is not supported")
}

async fn unknown_interconnect(s: &Session) -> Result<(), Stop> {
    let place = s.place()?;
    let key = s.key(place, place.bandwidth()?).await?;
    let id = tieline_openapi::coordinator::ResourceId::from(s.uuid());
    let connection = s.path_of(place, &key)?.connection;
    let path = place.environment.0.interconnect(id).connection(connection);
    let body = s.body_of(&path, &key);
    s.create(&path, &body, None).await?.refused_with(&[404], "on an interconnect that does not exist")
}
