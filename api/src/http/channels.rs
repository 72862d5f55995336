//! Channels that are shared with a peer: their MACsec keys, and work on them.

use std::{collections::BTreeMap, sync::Arc};

use axum::{
    Json,
    extract::State,
    http::{HeaderValue, StatusCode, Uri, header},
    response::{IntoResponse, Response},
};
use tieline_openapi::{
    coordinator::{ResourceId, Timestamp},
    problem::{FieldError, ProblemCode},
    v1::{
        ChannelMacSecKey, ChannelName, MacSecChannel, MacSecChannelList, MacSecKeyState, MacSecRotation,
        MacSecRotationRequest, MaintenanceEvent, MaintenanceEventList, MaintenanceOrigin, MaintenanceRequest,
        MaintenanceState,
    },
};
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

use super::{
    Http,
    extract::{self, Id, NoBody, Nothing, Query},
    operations::PageQuery,
    pages,
    problem::Fault,
};
use crate::{
    app::{Caller, error::field},
    coordinator::{Coordination, CoordinationError, SharedChannel},
    plan::coordinate::{ChannelPlace, KeyRow, KeyState, KeyThere, Window, WindowEnd, WindowRequest},
};

pub(super) fn routes() -> OpenApiRouter<Http> {
    OpenApiRouter::new()
        .routes(routes!(list_keys))
        .routes(routes!(rotate))
        .routes(routes!(list_events, open))
        .routes(routes!(show, end))
}

fn coordination(http: &Http) -> Result<&Arc<Coordination>, Fault> {
    let none = || {
        Fault::new(ProblemCode::Conflict, "this installation is not paired with any provider")
            .remedy("Add [coordinator] to tieline.toml.")
    };
    http.app.coordination.as_ref().ok_or_else(none)
}

async fn shared(http: &Http) -> Result<Vec<SharedChannel>, Fault> {
    match &http.app.coordination {
        Some(coordination) => Ok(coordination.shared_channels().await?),
        None => Ok(Vec::new()),
    }
}

/// The channel that a body names.
fn place(environment: &str, interconnect: &str, channel: &str) -> Result<ChannelPlace, Fault> {
    let mut errors: Vec<FieldError> = Vec::new();
    let mut read = |pointer: &str, text: &str| -> Option<ResourceId> {
        text.parse().map_err(|error| errors.push(field(pointer, format!("{error}")))).ok()
    };
    let ids = [("/environmentId", environment), ("/interconnectId", interconnect), ("/channelId", channel)];
    let [environment, interconnect, channel] = ids.map(|(pointer, text)| read(pointer, text));
    match (environment, interconnect, channel) {
        (Some(environment), Some(interconnect), Some(channel)) => {
            Ok(ChannelPlace { environment, interconnect, channel })
        }
        _ => Err(Fault::invalid(errors)),
    }
}

fn named(at: &ChannelPlace) -> ChannelName {
    ChannelName {
        environment_id: at.environment.to_string(),
        interconnect_id: at.interconnect.to_string(),
        channel_id: at.channel.to_string(),
    }
}

fn key(of: &KeyRow, managed_here: bool) -> ChannelMacSecKey {
    let state = match of.ours {
        KeyState::Waiting => MacSecKeyState::Waiting,
        KeyState::Standby => MacSecKeyState::Standby,
        KeyState::Active => MacSecKeyState::Active,
    };
    let remote_active = match of.theirs {
        KeyThere::Present { active } if managed_here => Some(active),
        KeyThere::Present { .. } | KeyThere::Unknown | KeyThere::Gone => None,
    };
    let (start_time, active_since) = (of.start_time, of.active_since);
    ChannelMacSecKey { id: of.id.to_string(), state, remote_active, start_time, active_since, closing: of.closing }
}

/// A channel on which MACsec is run.
fn keys(us: &ResourceId, of: &SharedChannel) -> Option<MacSecChannel> {
    let managed_here = of.macsec.as_ref()?.managed_here;
    let rotation = match (of.row.keys.len(), &of.row.wish) {
        (2.., _) => MacSecRotation::UnderWay,
        (_, Some(_)) => MacSecRotation::Wished,
        (_, None) => MacSecRotation::None,
    };
    Some(MacSecChannel {
        provider: of.peer.to_string(),
        channel: named(&of.row.at),
        manager: if managed_here { us.to_string() } else { of.peer.to_string() },
        secure: of.row.active().is_some(),
        rotation,
        wished_at: of.row.wish.as_ref().map(|wish| wish.since),
        keys: of.row.keys.iter().map(|row| key(row, managed_here)).collect(),
    })
}

/// A peer that is named in a body and is not configured is wrong there.
fn at_provider(error: CoordinationError) -> Fault {
    if matches!(error, CoordinationError::NoPeer(_)) {
        return Fault::invalid(vec![field("/provider", error.to_string())]);
    }
    error.into()
}

/// Lists the channels on which MACsec is run, with their keys, in order of provider and name. Keys are told of, never shown.
#[utoipa::path(get, path = "/v1/macSecChannels", operation_id = "listMacSecChannels", tag = "channels", params(PageQuery),
    responses((status = 200, description = "A page of channels.", body = MacSecChannelList)))]
async fn list_keys(
    State(http): State<Http>,
    caller: Caller,
    uri: Uri,
    Query(query): Query<PageQuery>,
) -> Result<Response, Fault> {
    let mut all = BTreeMap::new();
    if let Some(coordination) = &http.app.coordination {
        for channel in shared(&http).await? {
            let ChannelPlace { environment, interconnect, channel: id } = &channel.row.at;
            let name = format!("{}/{environment}/{interconnect}/{id}", channel.peer);
            all.extend(keys(coordination.us(), &channel).map(|document| (name, document)));
        }
    }
    pages::of_topology(&http, &caller, &uri, &query, &all, |mac_sec_channels, next_page_token| MacSecChannelList {
        mac_sec_channels,
        next_page_token,
    })
}

/// Wishes another MACsec key for a channel. It gets one when its turn has come: one channel of an interconnect at a time,
/// with a bake time of two hours after each. Where the peer manages the channel's keys it is asked for one.
#[utoipa::path(post, path = "/v1/macSecChannels:rotate", operation_id = "rotateMacSecKey", tag = "channels",
    request_body = MacSecRotationRequest,
    responses(
        (status = 202, description = "It is wished for.", body = MacSecChannel),
        (status = 409, description = "MACsec is not run there, or a key of the channel is on its way already.")))]
async fn rotate(
    State(http): State<Http>,
    caller: Caller,
    Query(Nothing {}): Query<Nothing>,
    extract::Json(request, _): extract::Json<MacSecRotationRequest>,
) -> Result<Response, Fault> {
    let coordination = coordination(&http)?;
    let at = place(&request.environment_id, &request.interconnect_id, &request.channel_id)?;
    let audit = caller.audit("/v1/macSecChannels".to_owned(), http.app.now());
    let words = request.reason.as_deref().unwrap_or_default();
    if words.chars().count() > 200 {
        return Err(Fault::invalid(vec![field("/reason", "is 200 characters at most")]));
    }
    coordination.rotate_key(&request.provider, &at, words, &audit).await.map_err(at_provider)?;
    let all = shared(&http).await?;
    let wished = all.iter().find(|channel| channel.peer.as_str() == request.provider && channel.row.at == at);
    let document = wished.and_then(|channel| keys(coordination.us(), channel)).ok_or_else(Fault::not_found)?;
    Ok((StatusCode::ACCEPTED, Json(document)).into_response())
}

/// Work of ours, with each channel that it takes.
fn ours(peer: &ResourceId, window: &Window, taken: &[&SharedChannel]) -> MaintenanceEvent {
    let state = match (window.ended, window.begun_at) {
        (Some((_, WindowEnd::Done)), _) => MaintenanceState::Done,
        (Some((_, WindowEnd::Cancelled)), _) => MaintenanceState::Cancelled,
        (Some((_, WindowEnd::Conflict)), _) => MaintenanceState::Conflict,
        (Some((_, WindowEnd::Unconfirmed)), _) => MaintenanceState::Unconfirmed,
        (None, Some(_)) if taken.iter().all(|channel| channel.drained) => MaintenanceState::UnderWay,
        (None, Some(_)) => MaintenanceState::Draining,
        (None, None) if window.cleared || window.emergency => MaintenanceState::Confirmed,
        (None, None) => MaintenanceState::Scheduled,
    };
    MaintenanceEvent {
        id: window.id.to_string(),
        provider: peer.to_string(),
        origin: MaintenanceOrigin::Ours,
        channels: taken.iter().map(|channel| named(&channel.row.at)).collect(),
        start_time: Some(window.start),
        end_time: Some(window.end),
        emergency: window.emergency,
        state,
        began_at: window.begun_at,
        ended_at: window.ended.map(|(at, _)| at),
    }
}

/// Every event, by what tells it from others in a list.
fn events(all: &[SharedChannel], now: Timestamp) -> BTreeMap<String, MaintenanceEvent> {
    let mut events = BTreeMap::new();
    for channel in all {
        for window in &channel.row.windows {
            let with = |other: &&SharedChannel| {
                other.peer == channel.peer && other.row.windows.iter().any(|o| o.id == window.id)
            };
            let taken: Vec<&SharedChannel> = all.iter().filter(with).collect();
            // The least far of its channels tells how far it is.
            let own = |of: &&SharedChannel| of.row.windows.iter().find(|o| o.id == window.id).cloned();
            let slowest =
                taken.iter().filter_map(own).min_by_key(|o| (o.ended.is_some(), o.begun_at.is_some(), o.cleared));
            let event = ours(&channel.peer, &slowest.unwrap_or_else(|| window.clone()), &taken);
            events.insert(format!("{}/{}", channel.peer, window.id), event);
        }
        let ChannelPlace { environment, interconnect, channel: id } = &channel.row.at;
        for (n, event) in channel.row.theirs.iter().enumerate() {
            let under_way = event.is_under_way(now);
            let document = MaintenanceEvent {
                id: event.id.clone(),
                provider: channel.peer.to_string(),
                origin: MaintenanceOrigin::Theirs,
                channels: vec![named(&channel.row.at)],
                start_time: event.start,
                end_time: event.end,
                emergency: false,
                state: match (under_way, channel.drained) {
                    (true, true) => MaintenanceState::UnderWay,
                    (true, false) => MaintenanceState::Draining,
                    (false, _) if event.end.is_some_and(|end| end <= now) => MaintenanceState::Done,
                    (false, _) => MaintenanceState::Scheduled,
                },
                began_at: None,
                ended_at: None,
            };
            events.insert(format!("{}/~/{environment}/{interconnect}/{id}/{n:04}", channel.peer), document);
        }
    }
    events
}

/// Lists work on channels, ours and the other providers': what is to come, what is under way, and for a week what is over of
/// ours.
#[utoipa::path(get, path = "/v1/maintenanceEvents", operation_id = "listMaintenanceEvents", tag = "channels",
    params(PageQuery), responses((status = 200, description = "A page of work.", body = MaintenanceEventList)))]
async fn list_events(
    State(http): State<Http>,
    caller: Caller,
    uri: Uri,
    Query(query): Query<PageQuery>,
) -> Result<Response, Fault> {
    let all = events(&shared(&http).await?, http.app.now());
    pages::of_topology(&http, &caller, &uri, &query, &all, |maintenance_events, next_page_token| MaintenanceEventList {
        maintenance_events,
        next_page_token,
    })
}

/// One of ours.
async fn one(http: &Http, id: Uuid) -> Result<MaintenanceEvent, Fault> {
    let all = events(&shared(http).await?, http.app.now());
    all.into_values().find(|event| event.own_id() == Some(id)).ok_or_else(Fault::not_found)
}

/// Plans work on a channel, or begins it: the peer is told, and asked whether it has anything on the other channels of the
/// interconnect. Then, when its time has come, the channel is drained; the state `UNDER_WAY` says that nothing goes over
/// it any more. At its end the routes return.
#[utoipa::path(post, path = "/v1/maintenanceEvents", operation_id = "createMaintenanceEvent", tag = "channels",
    request_body = MaintenanceRequest,
    responses(
        (status = 201, description = "It is planned.", body = MaintenanceEvent, headers(("Location", description = "It."))),
        (status = 409, description = "Another channel of the interconnect is under work at that time.")))]
async fn open(
    State(http): State<Http>,
    caller: Caller,
    Query(Nothing {}): Query<Nothing>,
    extract::Json(request, _): extract::Json<MaintenanceRequest>,
) -> Result<Response, Fault> {
    let coordination = coordination(&http)?;
    let at = place(&request.environment_id, &request.interconnect_id, &request.channel_id)?;
    let now = http.app.now();
    // The store holds whole milliseconds.
    let whole = |at: Timestamp| Timestamp::from_millisecond(at.as_millisecond()).unwrap_or(at);
    let wanted = WindowRequest {
        id: coordination.random().uuid_v7(now),
        at,
        whole_device: request.whole_device,
        start: request.start_time.map_or(now, whole),
        end: whole(request.end_time),
        emergency: request.emergency,
    };
    let audit = caller.audit(format!("/v1/maintenanceEvents/{}", wanted.id), now);
    coordination.open_window(&request.provider, &wanted, &audit).await.map_err(at_provider)?;
    let location = HeaderValue::try_from(format!("/v1/maintenanceEvents/{}", wanted.id));
    let location = location.map_err(|error| super::problem::defect(&error))?;
    let event = one(&http, wanted.id).await?;
    Ok((StatusCode::CREATED, [(header::LOCATION, location)], Json(event)).into_response())
}

/// Shows work of ours.
#[utoipa::path(get, path = "/v1/maintenanceEvents/{id}", operation_id = "getMaintenanceEvent", tag = "channels",
    params(("id" = Uuid, Path, description = "Its id.")),
    responses((status = 200, description = "The work.", body = MaintenanceEvent)))]
async fn show(
    State(http): State<Http>,
    Id(id): Id<Uuid>,
    Query(Nothing {}): Query<Nothing>,
) -> Result<Json<MaintenanceEvent>, Fault> {
    Ok(Json(one(&http, id).await?))
}

/// Ends work of ours that is under way, or calls it off: the routes return, and the peer is told.
#[utoipa::path(delete, path = "/v1/maintenanceEvents/{id}", operation_id = "deleteMaintenanceEvent", tag = "channels",
    params(("id" = Uuid, Path, description = "Its id.")),
    responses(
        (status = 200, description = "It is over.", body = MaintenanceEvent),
        (status = 409, description = "It was over before.")))]
async fn end(
    State(http): State<Http>,
    caller: Caller,
    Id(id): Id<Uuid>,
    Query(Nothing {}): Query<Nothing>,
    NoBody: NoBody,
) -> Result<Json<MaintenanceEvent>, Fault> {
    let coordination = http.app.coordination.as_ref().ok_or_else(Fault::not_found)?;
    let audit = caller.audit(format!("/v1/maintenanceEvents/{id}"), http.app.now());
    coordination.end_window(id, &audit).await?;
    Ok(Json(one(&http, id).await?))
}
