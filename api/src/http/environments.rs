//! Environments: read only, from `tieline.toml` and the built-in catalogue.

use axum::{Json, extract::State, http::Uri, response::Response};
use tieline_openapi::{
    ids::EnvironmentId,
    v1::{Environment, EnvironmentList},
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

/// Lists environments in order of id.
#[utoipa::path(get, path = "/v1/environments", operation_id = "listEnvironments", tag = "environments", params(PageQuery),
    responses((status = 200, description = "A page of environments.", body = EnvironmentList)))]
async fn list(
    State(http): State<Http>,
    caller: Caller,
    uri: Uri,
    Query(query): Query<PageQuery>,
) -> Result<Response, Fault> {
    let all = &http.app.topology.environments;
    of_topology(&http, &caller, &uri, &query, all, |environments, next_page_token| EnvironmentList {
        environments,
        next_page_token,
    })
}

/// Shows an environment.
#[utoipa::path(get, path = "/v1/environments/{id}", operation_id = "getEnvironment", tag = "environments",
    params(("id" = EnvironmentId, Path, description = "The environment.")),
    responses((status = 200, description = "The environment.", body = Environment)))]
async fn show(
    State(http): State<Http>,
    Id(id): Id<EnvironmentId>,
    Query(Nothing {}): Query<Nothing>,
) -> Result<Json<Environment>, Fault> {
    one_of_topology(&http.app.topology.environments, &id)
}
