//! Events: pages of JSON, and a stream.

use std::sync::Arc;

use axum::{
    Json,
    extract::State,
    http::{HeaderMap, header},
    response::{
        IntoResponse, Response,
        sse::{Event as Sse, KeepAlive, Sse as Stream},
    },
};
use futures::StreamExt;
use serde::Deserialize;
use tieline_openapi::v1::{Event, EventList};
use utoipa::IntoParams;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    Http,
    extract::Query,
    pages,
    problem::Fault,
    streams::{HEARTBEAT, until_the_end},
};
use crate::{
    app::{Caller, error::field},
    events::EventReader,
    store::StoreError,
};

/// Events that are read at once.
const BATCH: u32 = 200;

pub(super) fn routes() -> OpenApiRouter<Http> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(watch))
}

/// The query of a page of events.
#[derive(Debug, Clone, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct EventQuery {
    /// Only events after this cursor; from the beginning where it is absent.
    #[param(pattern = "^[0-9]+$")]
    since: Option<String>,
    /// Events of the page; 100 where it is absent.
    #[param(minimum = 1, maximum = 1000)]
    page_size: Option<u32>,
}

/// The query of the stream.
#[derive(Debug, Clone, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct WatchQuery {
    /// Only events after this cursor; from now on where it is absent.
    #[param(pattern = "^[0-9]+$")]
    since: Option<String>,
}

fn cursor(text: &str, pointer: &str) -> Result<u64, Fault> {
    text.parse()
        .ok()
        .filter(|cursor| i64::try_from(*cursor).is_ok())
        .ok_or_else(|| Fault::invalid(vec![field(pointer, "a cursor is a number that an answer gave")]))
}

/// Lists events, oldest first. With `Accept: text/event-stream` it streams them as `/v1/events:watch` does.
#[utoipa::path(get, path = "/v1/events", operation_id = "listEvents", tag = "events",
    params(EventQuery,
        ("Last-Event-ID" = Option<String>, Header, description = "Of a stream: the last cursor that was seen.")),
    responses(
        (status = 200, description = "A page of events, or a stream of them.", content(
            (EventList = "application/json"), (Event = "text/event-stream"))),
        (status = 410, description = "The cursor is older than the oldest event that is kept.")))]
async fn list(
    State(http): State<Http>,
    caller: Caller,
    headers: HeaderMap,
    Query(query): Query<EventQuery>,
) -> Result<Response, Fault> {
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if accept.split(',').any(|range| range.trim().starts_with("text/event-stream")) {
        return stream(&http, caller, &headers, query.since.as_deref()).await;
    }
    let size = pages::size(query.page_size).map_err(|error| Fault::invalid(vec![error]))?;
    let since = query.since.as_deref().map_or(Ok(0), |text| cursor(text, "?since"))?;
    let events = http.app.events(&caller.project, since, size).await?;
    let next_cursor = events.last().map_or_else(|| since.to_string(), |event| event.cursor.clone());
    Ok(Json(EventList { events, next_cursor }).into_response())
}

/// Streams events as they are committed. `id` is the cursor: a client that comes again sends it as `Last-Event-ID`.
#[utoipa::path(get, path = "/v1/events:watch", operation_id = "watchEvents", tag = "events",
    params(WatchQuery,
        ("Last-Event-ID" = Option<String>, Header, description = "The last cursor that was seen; it wins over `since`.")),
    responses(
        (status = 200, description = "Events named by their type; `data` is an Event.", body = Event,
            content_type = "text/event-stream"),
        (status = 410, description = "The cursor is older than the oldest event that is kept.")))]
async fn watch(
    State(http): State<Http>,
    caller: Caller,
    headers: HeaderMap,
    Query(query): Query<WatchQuery>,
) -> Result<Response, Fault> {
    stream(&http, caller, &headers, query.since.as_deref()).await
}

async fn stream(http: &Http, caller: Caller, headers: &HeaderMap, since: Option<&str>) -> Result<Response, Fault> {
    let last = match headers.get("last-event-id") {
        Some(value) => Some(cursor(value.to_str().unwrap_or_default(), "Last-Event-ID")?),
        None => since.map(|text| cursor(text, "?since")).transpose()?,
    };
    let from = match last {
        Some(cursor) => cursor,
        None => http.app.last_cursor().await?,
    };
    // A cursor that is too old is told as a problem, not as a stream that ends.
    http.app.events(&caller.project, from, 1).await?;
    let place = http.streams.open(&caller.principal)?;
    let app = &http.app;
    let reader = EventReader::new(Arc::clone(&app.store), Arc::clone(&app.clock), &app.hints, caller.project, from);
    let batches = futures::stream::unfold(reader, |mut reader| async move {
        match reader.next(BATCH).await {
            Ok(events) => Some((futures::stream::iter(events), reader)),
            // The client comes again, and is told 410 where its cursor has become too old.
            Err(StoreError::CursorTooOld) => None,
            Err(error) => {
                tracing::warn!(error.cause = %error, "an event stream ends");
                None
            }
        }
    });
    let events = batches.flatten().map(|event| Sse::default().id(&event.cursor).event(&event.kind).json_data(&event));
    let alive = KeepAlive::new().interval(HEARTBEAT).text("heartbeat");
    Ok(Stream::new(until_the_end(http, place, events).boxed()).keep_alive(alive).into_response())
}
