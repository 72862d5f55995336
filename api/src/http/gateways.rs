//! Gateways and their groups.

use std::time::Duration;

use axum::{
    Extension, Json,
    extract::State,
    http::{HeaderMap, StatusCode, Uri, header},
    response::{
        IntoResponse, Response,
        sse::{Event as Sse, KeepAlive, Sse as Stream},
    },
};
use futures::StreamExt;
use tieline_openapi::{
    ids::{GatewayGroupId, GatewayId},
    v1::{
        Gateway, GatewayConfiguration, GatewayList, IssuedJoinToken, JoinAnswer, JoinRequest, JoinTokenRequest,
        KernelLanes, Observations,
    },
};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    Http,
    extract::{self, Headers, Id, Nothing, Query},
    gate::JoinHash,
    operations::PageQuery,
    pages::Cut,
    problem::Fault,
    streams::{HEARTBEAT, until_the_end},
    tokens, with_verb,
};
use crate::app::Caller;

/// How often a stream looks at the store without a hint.
const LOOK_EVERY: Duration = Duration::from_secs(1);

pub(super) fn routes() -> OpenApiRouter<Http> {
    let plain = OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(show))
        .routes(routes!(join))
        .routes(routes!(watch))
        .routes(routes!(report))
        .routes(routes!(put_kernel_lanes));
    with_verb(plain, routes!(issue_join_token))
}

/// Lists gateways in order of id.
#[utoipa::path(get, path = "/v1/gateways", operation_id = "listGateways", tag = "gateways", params(PageQuery),
    responses((status = 200, description = "A page of gateways.", body = GatewayList)))]
async fn list(
    State(http): State<Http>,
    caller: Caller,
    uri: Uri,
    Query(query): Query<PageQuery>,
) -> Result<Response, Fault> {
    let cut = Cut::of(&http, &caller, "", query.page_size, query.page_token.as_deref())?;
    let page = http.app.gateways(&caller.project, cut.size, cut.after_uuid()).await?;
    cut.answer(&http, &uri, page, |gateways, next_page_token| GatewayList { gateways, next_page_token })
}

/// Shows a gateway.
#[utoipa::path(get, path = "/v1/gateways/{id}", operation_id = "getGateway", tag = "gateways",
    params(("id" = GatewayId, Path, description = "The gateway.")),
    responses((status = 200, description = "The gateway.", body = Gateway)))]
async fn show(
    State(http): State<Http>,
    caller: Caller,
    Id(id): Id<GatewayId>,
    Query(Nothing {}): Query<Nothing>,
) -> Result<Json<Gateway>, Fault> {
    Ok(Json(http.app.gateway(&caller.project, id).await?))
}

/// Joins as a gateway. The bearer is a join token, which this call spends.
#[utoipa::path(post, path = "/v1/gateways:join", operation_id = "joinGateway", tag = "gateways",
    request_body = JoinRequest,
    responses((status = 201, description = "The gateway and its credential.", body = JoinAnswer,
        headers(("Location", description = "The gateway.")))))]
async fn join(
    State(http): State<Http>,
    caller: Caller,
    Extension(JoinHash(hash)): Extension<JoinHash>,
    Query(Nothing {}): Query<Nothing>,
    extract::Json(request, _): extract::Json<JoinRequest>,
) -> Result<Response, Fault> {
    let answer = http.app.join(&caller, hash, request).await?;
    let location = format!("/v1/gateways/{}", answer.gateway.id);
    Ok((StatusCode::CREATED, [(header::LOCATION, location)], Json(answer)).into_response())
}

/// Issues a one-time token for a machine to join a group of gateways.
#[utoipa::path(post, path = "/v1/gatewayGroups/{id}:issueJoinToken", operation_id = "issueJoinToken", tag = "gateways",
    params(("id" = GatewayGroupId, Path, description = "The group; it begins with its first gateway."),
        ("Idempotency-Key" = Option<String>, Header, min_length = 1, max_length = 255, pattern = "^[!-~]+$",
            description = "The same key and request get the same answer for seven days, without the secret; another \
                           request gets 422.")),
    request_body = JoinTokenRequest,
    responses(
        (status = 201, description = "The join token and its secret.", body = IssuedJoinToken,
            headers(("Idempotent-Replayed", description = "`true` where this answer was given before, now without the secret."))),
        (status = 409, description = "The group's gateways stand at another attach point."),
        (status = 422, description = "The idempotency key was used with another request.")))]
async fn issue_join_token(
    State(http): State<Http>,
    caller: Caller,
    Id(group): Id<GatewayGroupId>,
    headers: Headers,
    Query(Nothing {}): Query<Nothing>,
    extract::Json(request, raw): extract::Json<JoinTokenRequest>,
) -> Result<Response, Fault> {
    let issued = http.app.issue_join_token(&caller, &group, &request, headers.key(&caller, &raw)).await?;
    Ok(tokens::answer(&issued, None))
}

/// Streams the gateway's whole configuration: at once, unless `Last-Event-ID` says that it is known, and after each change.
#[utoipa::path(get, path = "/v1/gateways/{id}/configuration:watch", operation_id = "watchGatewayConfiguration",
    tag = "gateways",
    params(("id" = GatewayId, Path, description = "The gateway itself."),
        ("Last-Event-ID" = Option<String>, Header, description = "The version that the gateway has.")),
    responses((status = 200, description = "Events named `configuration`; `id` is the version, `data` a GatewayConfiguration.",
        body = GatewayConfiguration, content_type = "text/event-stream")))]
async fn watch(
    State(http): State<Http>,
    caller: Caller,
    Id(id): Id<GatewayId>,
    headers: HeaderMap,
    Query(Nothing {}): Query<Nothing>,
) -> Result<Response, Fault> {
    // A version that cannot be read is one that is not known: the whole configuration is always right.
    let has: Option<u64> = headers.get("last-event-id").and_then(|value| value.to_str().ok()?.parse().ok());
    // What cannot be read at all is told as a problem, not as a stream that ends.
    http.app.gateway_configuration(id).await?;
    let place = http.streams.open(&caller.principal)?;
    let app = http.app.clone();
    let configurations = futures::stream::unfold((app, has), move |(app, mut has)| async move {
        loop {
            match app.next_configuration(id, has, LOOK_EVERY).await {
                Ok(Some(configuration)) => {
                    has = Some(configuration.version);
                    let event = Sse::default().id(configuration.version.to_string()).event("configuration");
                    let event = event.json_data(&configuration).ok()?;
                    return Some((Ok::<_, std::convert::Infallible>(event), (app, has)));
                }
                Ok(None) => {}
                Err(error) => {
                    tracing::warn!(gateway.id = %id, error.cause = %error, "a configuration stream ends");
                    return None;
                }
            }
        }
    });
    let alive = KeepAlive::new().interval(HEARTBEAT).text("heartbeat");
    Ok(Stream::new(until_the_end(&http, place, configurations).boxed()).keep_alive(alive).into_response())
}

/// Takes a gateway's samples and changes of path. A report with a sequence that was seen before is answered again and not
/// stored twice.
#[utoipa::path(post, path = "/v1/gateways/{id}/observations", operation_id = "reportObservations", tag = "gateways",
    params(("id" = GatewayId, Path, description = "The gateway itself.")),
    request_body = Observations,
    responses((status = 204, description = "Taken.")))]
async fn report(
    State(http): State<Http>,
    caller: Caller,
    Id(id): Id<GatewayId>,
    Query(Nothing {}): Query<Nothing>,
    extract::Json(report, _): extract::Json<Observations>,
) -> Result<StatusCode, Fault> {
    http.app.observe(&caller, id, report).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Takes which WireGuard interfaces the gateway has in its kernel, whole: a peer that is listed is told of the one for it and
/// takes it before the gateway's other lanes; one that is not listed any more is told so.
#[utoipa::path(put, path = "/v1/gateways/{id}/kernelLanes", operation_id = "putKernelLanes", tag = "gateways",
    params(("id" = GatewayId, Path, description = "The gateway itself.")),
    request_body = KernelLanes,
    responses((status = 204, description = "Taken.")))]
async fn put_kernel_lanes(
    State(http): State<Http>,
    _: Caller,
    Id(id): Id<GatewayId>,
    Query(Nothing {}): Query<Nothing>,
    extract::Json(had, _): extract::Json<KernelLanes>,
) -> Result<StatusCode, Fault> {
    http.app.put_kernel_lanes(id, &had.lanes).await?;
    Ok(StatusCode::NO_CONTENT)
}
