//! Attach points: read only, from `tieline.toml` and the built-in catalogue.

use axum::{Json, extract::State, http::Uri, response::Response};
use tieline_openapi::{
    ids::AttachPointId,
    v1::{AttachPoint, AttachPointList},
};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    Http,
    extract::{Id, Nothing, Query},
    operations::PageQuery,
    pages::{of_topology, one_of_topology},
    problem::Fault,
};
use crate::app::Caller;

pub(super) fn routes() -> OpenApiRouter<Http> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(show))
}

/// Lists attach points in order of id.
#[utoipa::path(get, path = "/v1/attachPoints", operation_id = "listAttachPoints", tag = "attachPoints", params(PageQuery),
    responses((status = 200, description = "A page of attach points.", body = AttachPointList)))]
async fn list(
    State(http): State<Http>,
    caller: Caller,
    uri: Uri,
    Query(query): Query<PageQuery>,
) -> Result<Response, Fault> {
    let all = &http.app.topology.attach_points;
    of_topology(&http, &caller, &uri, &query, all, |attach_points, next_page_token| AttachPointList {
        attach_points,
        next_page_token,
    })
}

/// Shows an attach point.
#[utoipa::path(get, path = "/v1/attachPoints/{id}", operation_id = "getAttachPoint", tag = "attachPoints",
    params(("id" = AttachPointId, Path, description = "The attach point.")),
    responses((status = 200, description = "The attach point.", body = AttachPoint)))]
async fn show(
    State(http): State<Http>,
    Id(id): Id<AttachPointId>,
    Query(Nothing {}): Query<Nothing>,
) -> Result<Json<AttachPoint>, Fault> {
    one_of_topology(&http.app.topology.attach_points, &id)
}
