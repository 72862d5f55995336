//! Coordinated connections, and the activation keys that they are made from.

use axum::{
    Json,
    extract::State,
    http::{HeaderValue, StatusCode, Uri, header},
    response::{IntoResponse, Response},
};
use std::sync::Arc;
use tieline_openapi::{
    coordinator::{ResourceId, Sensitive},
    problem::ProblemCode,
    units::BandwidthMbps,
    v1::{
        ActivationKeyText, CoordinatedChannel, CoordinatedConnection, CoordinatedConnectionList,
        CoordinatedConnectionPatch, CoordinatedConnectionRequest, CoordinatedPlacement, CoordinatedProvisioning,
        CoordinatedState, DecodedActivationKey, IssuedActivationKey, RemoteHalf,
    },
};
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

use super::{
    Http,
    extract::{self, Id, NoBody, Nothing, Query},
    operations::PageQuery,
    pages::Cut,
    problem::Fault,
    with_verbs,
};
use crate::{
    app::{Caller, Paged, error::field},
    coordinator::{Coordination, CoordinationError, Owned},
    plan::coordinate::{FeatureRow, Local, Remote, Row, SEVEN_DAYS, Theirs},
};

pub(super) fn routes() -> OpenApiRouter<Http> {
    let nouns = OpenApiRouter::new()
        .routes(routes!(list, issue))
        .routes(routes!(show, resize, delete))
        .routes(routes!(accept))
        .routes(routes!(decode));
    with_verbs(nouns, [routes!(migrate)])
}

fn coordination(http: &Http) -> Result<&Arc<Coordination>, Fault> {
    let none = || {
        Fault::new(ProblemCode::Conflict, "this installation is not paired with any provider")
            .remedy("Add [coordinator] to tieline.toml.")
    };
    http.coordination.as_ref().ok_or_else(none)
}

/// Lists coordinated connections in order of id.
#[utoipa::path(get, path = "/v1/coordinatedConnections", operation_id = "listCoordinatedConnections",
    tag = "coordinatedConnections", params(PageQuery),
    responses((status = 200, description = "A page of coordinated connections.", body = CoordinatedConnectionList)))]
async fn list(
    State(http): State<Http>,
    caller: Caller,
    uri: Uri,
    Query(query): Query<PageQuery>,
) -> Result<Response, Fault> {
    let cut = Cut::of(&http, &caller, "", query.page_size, query.page_token.as_deref())?;
    let (owned, last) = match &http.coordination {
        Some(coordination) => coordination.all_owned(&caller.project, cut.after_uuid(), cut.size).await?,
        None => (Vec::new(), None),
    };
    let page =
        Paged { items: owned.iter().map(view).collect::<Result<_, _>>()?, last: last.map(|uuid| uuid.to_string()) };
    cut.answer(&http, &uri, page, |coordinated_connections, next_page_token| CoordinatedConnectionList {
        coordinated_connections,
        next_page_token,
    })
}

/// Makes an activation key for a connection that the customer then asks the other provider for. The key is in this answer
/// and nowhere else.
#[utoipa::path(post, path = "/v1/coordinatedConnections", operation_id = "createCoordinatedConnection",
    tag = "coordinatedConnections", request_body = CoordinatedConnectionRequest,
    responses(
        (status = 201, description = "The connection, and its key.", body = IssuedActivationKey,
            headers(("Location", description = "The connection."))),
        (status = 409, description = "The environment does not have this bandwidth, or no room for it.")))]
async fn issue(
    State(http): State<Http>,
    caller: Caller,
    Query(Nothing {}): Query<Nothing>,
    extract::Json(request, _): extract::Json<CoordinatedConnectionRequest>,
) -> Result<Response, Fault> {
    let coordination = coordination(&http)?;
    let environment: ResourceId = request
        .environment_id
        .parse()
        .map_err(|error| Fault::invalid(vec![field("/environmentId", format!("{error}"))]))?;
    let audit = caller.audit("/v1/coordinatedConnections".to_owned(), http.app.now());
    let issued = coordination
        .issue_key(
            &request.provider,
            &environment,
            request.bandwidth_mbps,
            &request.remote_account_id,
            &caller.project,
            &audit,
        )
        .await
        .map_err(at_account)?;
    let coordinated_connection = view(&coordination.owned(&caller.project, issued.uuid).await?)?;
    let answer = IssuedActivationKey { coordinated_connection, activation_key: issued.text.expose().to_owned() };
    Ok((StatusCode::CREATED, [(header::LOCATION, location(issued.uuid)?)], Json(answer)).into_response())
}

fn location(id: Uuid) -> Result<HeaderValue, Fault> {
    HeaderValue::try_from(format!("/v1/coordinatedConnections/{id}")).map_err(|error| super::problem::defect(&error))
}

/// Shows a coordinated connection.
#[utoipa::path(get, path = "/v1/coordinatedConnections/{id}", operation_id = "getCoordinatedConnection",
    tag = "coordinatedConnections",
    params(("id" = Uuid, Path, description = "The UUID that both providers know it by.")),
    responses((status = 200, description = "The connection.", body = CoordinatedConnection)))]
async fn show(
    State(http): State<Http>,
    caller: Caller,
    Id(id): Id<Uuid>,
    Query(Nothing {}): Query<Nothing>,
) -> Result<Json<CoordinatedConnection>, Fault> {
    let coordination = http.coordination.as_ref().ok_or_else(Fault::not_found)?;
    Ok(Json(view(&coordination.owned(&caller.project, id).await?)?))
}

/// Takes a coordinated connection down on both sides, or takes its key back. Afterwards GET is 404.
#[utoipa::path(delete, path = "/v1/coordinatedConnections/{id}", operation_id = "deleteCoordinatedConnection",
    tag = "coordinatedConnections",
    params(("id" = Uuid, Path, description = "The UUID that both providers know it by.")),
    responses((status = 202, description = "It is being taken down.")))]
async fn delete(
    State(http): State<Http>,
    caller: Caller,
    Id(id): Id<Uuid>,
    Query(Nothing {}): Query<Nothing>,
    NoBody: NoBody,
) -> Result<StatusCode, Fault> {
    let coordination = http.coordination.as_ref().ok_or_else(Fault::not_found)?;
    let audit = caller.audit(format!("/v1/coordinatedConnections/{id}"), http.app.now());
    coordination.leave(&caller.project, id, &audit).await?;
    Ok(StatusCode::ACCEPTED)
}

/// Changes the bandwidth of a coordinated connection. The other provider is asked first: until it agrees the old one holds.
#[utoipa::path(patch, path = "/v1/coordinatedConnections/{id}", operation_id = "patchCoordinatedConnection",
    tag = "coordinatedConnections", request_body = CoordinatedConnectionPatch,
    params(("id" = Uuid, Path, description = "The UUID that both providers know it by.")),
    responses(
        (status = 202, description = "The room is held, and the other provider is asked.", body = CoordinatedConnection),
        (status = 409, description = "No room, no such size, or the connection is changing already.")))]
async fn resize(
    State(http): State<Http>,
    caller: Caller,
    Id(id): Id<Uuid>,
    Query(Nothing {}): Query<Nothing>,
    extract::Json(patch, _): extract::Json<CoordinatedConnectionPatch>,
) -> Result<Response, Fault> {
    let coordination = http.coordination.as_ref().ok_or_else(Fault::not_found)?;
    let audit = caller.audit(format!("/v1/coordinatedConnections/{id}"), http.app.now());
    coordination.resize(&caller.project, id, patch.bandwidth_mbps, &audit).await?;
    let connection = view(&coordination.owned(&caller.project, id).await?)?;
    Ok((StatusCode::ACCEPTED, Json(connection)).into_response())
}

/// Moves a coordinated connection to another interconnect of its environment, make before break: traffic goes over the old
/// one until both providers have seen the new one work.
#[utoipa::path(post, path = "/v1/coordinatedConnections/{id}:migrate", operation_id = "migrateCoordinatedConnection",
    tag = "coordinatedConnections",
    params(("id" = Uuid, Path, description = "The UUID that both providers know it by.")),
    responses(
        (status = 202, description = "It is at two places from now on, until the new one works.",
            body = CoordinatedConnection),
        (status = 409, description = "No other interconnect has room, or the connection is changing already.")))]
async fn migrate(
    State(http): State<Http>,
    caller: Caller,
    Id(id): Id<Uuid>,
    Query(Nothing {}): Query<Nothing>,
    NoBody: NoBody,
) -> Result<Response, Fault> {
    let coordination = http.coordination.as_ref().ok_or_else(Fault::not_found)?;
    let audit = caller.audit(format!("/v1/coordinatedConnections/{id}"), http.app.now());
    coordination.migrate(&caller.project, id, &audit).await?;
    let connection = view(&coordination.owned(&caller.project, id).await?)?;
    Ok((StatusCode::ACCEPTED, Json(connection)).into_response())
}

/// Makes a connection from an activation key that the customer has from the other provider.
#[utoipa::path(post, path = "/v1/activationKeys:accept", operation_id = "acceptActivationKey",
    tag = "coordinatedConnections", request_body = ActivationKeyText,
    responses(
        (status = 202, description = "The connection; the other provider is asked for its half.",
            body = CoordinatedConnection, headers(("Location", description = "The connection."))),
        (status = 409, description = "The key was brought already, or there is no room.")))]
async fn accept(
    State(http): State<Http>,
    caller: Caller,
    Query(Nothing {}): Query<Nothing>,
    extract::Json(request, _): extract::Json<ActivationKeyText>,
) -> Result<Response, Fault> {
    let coordination = coordination(&http)?;
    let text = Sensitive::new(request.activation_key);
    let audit = caller.audit("/v1/activationKeys".to_owned(), http.app.now());
    let accepted = coordination.accept_key(&text, &caller.project, &audit).await.map_err(at_key)?;
    let connection = view(&coordination.owned(&caller.project, accepted.uuid).await?)?;
    Ok((StatusCode::ACCEPTED, [(header::LOCATION, location(accepted.uuid)?)], Json(connection)).into_response())
}

/// Tells what an activation key says, without doing anything.
#[utoipa::path(post, path = "/v1/activationKeys:decode", operation_id = "decodeActivationKey",
    tag = "coordinatedConnections", request_body = ActivationKeyText,
    responses(
        (status = 200, description = "What it says.", body = DecodedActivationKey),
        (status = 409, description = "This installation is not paired with any provider.")))]
async fn decode(
    State(http): State<Http>,
    caller: Caller,
    Query(Nothing {}): Query<Nothing>,
    extract::Json(request, _): extract::Json<ActivationKeyText>,
) -> Result<Json<DecodedActivationKey>, Fault> {
    let decoded = coordination(&http)?.decode(&Sensitive::new(request.activation_key)).await.map_err(at_key)?;
    let contents = decoded.contents;
    Ok(Json(DecodedActivationKey {
        version: decoded.version,
        provider: decoded.peer.to_string(),
        environment_id: decoded.environment.to_string(),
        shared_connection_uuid: contents.shared_connection_uuid,
        bandwidth_mbps: contents.bandwidth,
        for_this_project: contents.destination_account_id == caller.project.as_str(),
        destination_account_id: contents.destination_account_id,
    }))
}

/// What is wrong with the account is told at its field.
fn at_account(error: CoordinationError) -> Fault {
    if let CoordinationError::KeyContents(wrong) = error {
        return Fault::invalid(vec![field("/remoteAccountId", wrong.to_string())]);
    }
    error.into()
}

/// What is wrong with a key is told at its field.
fn at_key(error: CoordinationError) -> Fault {
    let mut fault = Fault::from(error);
    for error in fault.problem.errors.iter_mut().filter(|error| error.pointer == "/encodedKey") {
        error.pointer = "/activationKey".to_owned();
    }
    fault
}

fn view(owned: &Owned) -> Result<CoordinatedConnection, Fault> {
    let key = owned.key.as_ref().filter(|key| !key.spent);
    let newest = owned.rows.iter().map(|(row, _)| row).max_by_key(|row| row.created_at);
    let environment = newest.map(|row| &row.place.environment).or(owned.key.as_ref().map(|key| &key.environment));
    let mbps = newest.map(|row| row.bandwidth_mbps).or(owned.key.as_ref().map(|key| key.bandwidth_mbps));
    let state = if owned.rows.is_empty() {
        CoordinatedState::Pending
    } else if owned.rows.iter().all(|(row, _)| row.leaving.is_some()) {
        CoordinatedState::Deleting
    } else if owned.rows.iter().any(|(_, verified)| *verified) {
        CoordinatedState::Active
    } else {
        CoordinatedState::Provisioning
    };
    // What is there is of a size that somebody once took.
    let bandwidth_mbps =
        BandwidthMbps::try_from(u64::from(mbps.unwrap_or(1))).map_err(|error| super::problem::defect(&error))?;
    Ok(CoordinatedConnection {
        id: owned.uuid,
        provider: owned.peer.to_string(),
        environment_id: environment.map(ToString::to_string).unwrap_or_default(),
        bandwidth_mbps,
        state,
        reason: newest.and_then(|row| row.leaving).map(|reason| format!("{reason:?}")),
        placements: owned.rows.iter().map(|(row, verified)| placement(row, *verified)).collect(),
        created_at: owned.created_at,
        key_expires_at: key.map(|key| key.issued_at + SEVEN_DAYS),
    })
}

fn placement(row: &Row, verified: bool) -> CoordinatedPlacement {
    CoordinatedPlacement {
        interconnect_id: row.place.interconnect.to_string(),
        connection_id: row.place.connection.to_string(),
        remote: match row.remote {
            Remote::Unknown => RemoteHalf::Unknown,
            Remote::Present => RemoteHalf::Present,
            Remote::Absent { .. } => RemoteHalf::Absent,
        },
        verified,
        channels: row.features.iter().map(|(channel, feature)| shown(channel, feature)).collect(),
    }
}

fn shown(channel: &ResourceId, feature: &FeatureRow) -> CoordinatedChannel {
    let config = &feature.config;
    let ends = || config.ends.iter();
    let hosts = config.ipv4.as_ref().map(|hosts| [hosts.first, hosts.second]);
    CoordinatedChannel {
        channel_id: channel.to_string(),
        feature_id: feature.id.to_string(),
        provisioning_state: match feature.ours {
            Local::Up => CoordinatedProvisioning::Final,
            Local::Reserved | Local::Down | Local::Drained => CoordinatedProvisioning::Pending,
        },
        remote_provisioning_state: match feature.theirs {
            Theirs::Proposed => CoordinatedProvisioning::Proposed,
            Theirs::Pending => CoordinatedProvisioning::Pending,
            Theirs::Final => CoordinatedProvisioning::Final,
        },
        vlan_id: config.vlan.get(),
        mtu_bytes: config.mtu.get(),
        ipv4_subnet: config.ipv4.as_ref().map(|hosts| hosts.subnet),
        asns: ends().map(|end| (end.provider.clone(), end.asn)).collect(),
        hosts_ipv4: ends().map(|end| end.provider.clone()).zip(hosts.into_iter().flatten()).collect(),
    }
}
