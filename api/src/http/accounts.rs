//! Accounts: read only, from `tieline.toml` and the built-in catalogue.

use axum::{Json, extract::State, http::Uri, response::Response};
use tieline_openapi::{
    ids::AccountId,
    v1::{Account, AccountList},
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

/// Lists accounts in order of id.
#[utoipa::path(get, path = "/v1/accounts", operation_id = "listAccounts", tag = "accounts", params(PageQuery),
    responses((status = 200, description = "A page of accounts.", body = AccountList)))]
async fn list(
    State(http): State<Http>,
    caller: Caller,
    uri: Uri,
    Query(query): Query<PageQuery>,
) -> Result<Response, Fault> {
    let all = &http.app.topology.accounts;
    of_topology(&http, &caller, &uri, &query, all, |accounts, next_page_token| AccountList {
        accounts,
        next_page_token,
    })
}

/// Shows an account.
#[utoipa::path(get, path = "/v1/accounts/{id}", operation_id = "getAccount", tag = "accounts",
    params(("id" = AccountId, Path, description = "The account.")),
    responses((status = 200, description = "The account.", body = Account)))]
async fn show(
    State(http): State<Http>,
    Id(id): Id<AccountId>,
    Query(Nothing {}): Query<Nothing>,
) -> Result<Json<Account>, Fault> {
    one_of_topology(&http.app.topology.accounts, &id)
}
