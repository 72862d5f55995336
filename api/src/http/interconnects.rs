//! Interconnects: read only, from `tieline.toml` and the built-in catalogue.

use axum::{Json, extract::State, http::Uri, response::Response};
use tieline_openapi::{
    ids::InterconnectId,
    v1::{InterconnectList, ShownInterconnect},
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

/// Lists interconnects in order of id.
#[utoipa::path(get, path = "/v1/interconnects", operation_id = "listInterconnects", tag = "interconnects", params(PageQuery),
    responses((status = 200, description = "A page of interconnects.", body = InterconnectList)))]
async fn list(
    State(http): State<Http>,
    caller: Caller,
    uri: Uri,
    Query(query): Query<PageQuery>,
) -> Result<Response, Fault> {
    let all = &http.app.topology.shown_interconnects;
    of_topology(&http, &caller, &uri, &query, all, |interconnects, next_page_token| InterconnectList {
        interconnects,
        next_page_token,
    })
}

/// Shows an interconnect.
#[utoipa::path(get, path = "/v1/interconnects/{id}", operation_id = "getInterconnect", tag = "interconnects",
    params(("id" = InterconnectId, Path, description = "The interconnect.")),
    responses((status = 200, description = "The interconnect.", body = ShownInterconnect)))]
async fn show(
    State(http): State<Http>,
    Id(id): Id<InterconnectId>,
    Query(Nothing {}): Query<Nothing>,
) -> Result<Json<ShownInterconnect>, Fault> {
    one_of_topology(&http.app.topology.shown_interconnects, &id)
}
