//! Interconnects: read only, from `tieline.toml` and the built-in catalogue.

use axum::{Json, extract::State, http::Uri, response::Response};
use tieline_openapi::{
    ids::InterconnectId,
    v1::{Interconnect, InterconnectList},
};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    Http,
    extract::{Id, Nothing, Query},
    operations::PageQuery,
    pages::Cut,
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
    let cut = Cut::of(&http, &caller, "", query.page_size, query.page_token.as_deref())?;
    let page = cut.of_memory(http.app.topology.interconnects.iter());
    cut.answer(&http, &uri, page, |interconnects, next_page_token| InterconnectList { interconnects, next_page_token })
}

/// Shows an interconnect.
#[utoipa::path(get, path = "/v1/interconnects/{id}", operation_id = "getInterconnect", tag = "interconnects",
    params(("id" = InterconnectId, Path, description = "The interconnect.")),
    responses((status = 200, description = "The interconnect.", body = Interconnect)))]
async fn show(
    State(http): State<Http>,
    Id(id): Id<InterconnectId>,
    Query(Nothing {}): Query<Nothing>,
) -> Result<Json<Interconnect>, Fault> {
    http.app.topology.interconnects.get(&id).cloned().map(Json).ok_or_else(Fault::not_found)
}
