//! Operations.

use axum::{Json, extract::State, http::Uri, response::Response};
use serde::Deserialize;
use tieline_openapi::{
    ids::{ConnectionId, OperationId},
    v1::{Operation, OperationList},
};
use utoipa::IntoParams;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    Http,
    extract::{Id, Nothing, Query},
    pages::Cut,
    problem::Fault,
};
use crate::app::Caller;

pub(super) fn routes() -> OpenApiRouter<Http> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(show))
}

/// The query of a list.
#[derive(Debug, Clone, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct PageQuery {
    /// Rows of the page; 100 where it is absent.
    #[param(minimum = 1, maximum = 1000)]
    pub(super) page_size: Option<u32>,
    /// `nextPageToken` of the page before. It is good for the same query only.
    pub(super) page_token: Option<String>,
}

/// The query of the list of operations.
#[derive(Debug, Clone, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct OperationQuery {
    /// Only operations of this connection, which may be gone.
    #[param(value_type = Option<ConnectionId>)]
    connection_id: Option<ConnectionId>,
    /// Rows of the page; 100 where it is absent.
    #[param(minimum = 1, maximum = 1000)]
    page_size: Option<u32>,
    /// `nextPageToken` of the page before. It is good for the same query only.
    page_token: Option<String>,
}

/// Lists operations, newest first.
#[utoipa::path(get, path = "/v1/operations", operation_id = "listOperations", tag = "operations", params(OperationQuery),
    responses((status = 200, description = "A page of operations.", body = OperationList)))]
async fn list(
    State(http): State<Http>,
    caller: Caller,
    uri: Uri,
    Query(query): Query<OperationQuery>,
) -> Result<Response, Fault> {
    let rest = query.connection_id.map_or_else(String::new, |id| id.to_string());
    let cut = Cut::of(&http, &caller, &rest, query.page_size, query.page_token.as_deref())?;
    let page = http.app.operations(&caller.project, query.connection_id, cut.size, cut.after_uuid()).await?;
    cut.answer(&http, &uri, page, |operations, next_page_token| OperationList { operations, next_page_token })
}

/// Shows an operation. It outlives its connection.
#[utoipa::path(get, path = "/v1/operations/{id}", operation_id = "getOperation", tag = "operations",
    params(("id" = OperationId, Path, description = "The operation.")),
    responses((status = 200, description = "The operation.", body = Operation)))]
async fn show(
    State(http): State<Http>,
    caller: Caller,
    Id(id): Id<OperationId>,
    Query(Nothing {}): Query<Nothing>,
) -> Result<Json<Operation>, Fault> {
    Ok(Json(http.app.operation(&caller.project, id).await?))
}
