//! Issues: what a person should look at.

use axum::{Json, extract::State, http::Uri, response::Response};
use tieline_openapi::{
    ids::IssueId,
    v1::{Issue, IssueList},
};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    Http,
    extract::{Id, NoBody, Nothing, Query},
    operations::PageQuery,
    pages::Cut,
    problem::Fault,
    with_verb,
};
use crate::app::Caller;

pub(super) fn routes() -> OpenApiRouter<Http> {
    with_verb(OpenApiRouter::new().routes(routes!(list)).routes(routes!(show)), routes!(acknowledge))
}

/// Lists issues, newest first.
#[utoipa::path(get, path = "/v1/issues", operation_id = "listIssues", tag = "issues", params(PageQuery),
    responses((status = 200, description = "A page of issues.", body = IssueList)))]
async fn list(
    State(http): State<Http>,
    caller: Caller,
    uri: Uri,
    Query(query): Query<PageQuery>,
) -> Result<Response, Fault> {
    let cut = Cut::of(&http, &caller, "", query.page_size, query.page_token.as_deref())?;
    let page = http.app.issues(&caller.project, cut.size, cut.after_uuid()).await?;
    cut.answer(&http, &uri, page, |issues, next_page_token| IssueList { issues, next_page_token })
}

/// Shows an issue.
#[utoipa::path(get, path = "/v1/issues/{id}", operation_id = "getIssue", tag = "issues",
    params(("id" = IssueId, Path, description = "The issue.")),
    responses((status = 200, description = "The issue.", body = Issue)))]
async fn show(
    State(http): State<Http>,
    caller: Caller,
    Id(id): Id<IssueId>,
    Query(Nothing {}): Query<Nothing>,
) -> Result<Json<Issue>, Fault> {
    Ok(Json(http.app.issue(&caller.project, id).await?))
}

/// Says that what is missing from an account is meant to be gone: creates in it go on, and what is still wanted is made anew.
#[utoipa::path(post, path = "/v1/issues/{id}:acknowledge", operation_id = "acknowledgeIssue", tag = "issues",
    params(("id" = IssueId, Path, description = "An open issue with the code `creates-held` about an account.")),
    responses(
        (status = 200, description = "The issue, which is resolved by this.", body = Issue),
        (status = 409, description = "It ends by itself when its cause does, or it has ended.")))]
async fn acknowledge(
    State(http): State<Http>,
    caller: Caller,
    Id(id): Id<IssueId>,
    Query(Nothing {}): Query<Nothing>,
    NoBody: NoBody,
) -> Result<Json<Issue>, Fault> {
    Ok(Json(http.app.acknowledge(&caller, id).await?))
}
