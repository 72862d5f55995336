//! Issues: what a person should look at.

use axum::{Json, extract::State, http::Uri, response::Response};
use tieline_openapi::{
    ids::IssueId,
    v1::{Issue, IssueAnswer, IssueList},
};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    Http,
    extract::{self, Headers, Id, NoBody, Nothing, Query},
    mutation::{IdempotencyKeyHeader, saved},
    operations::PageQuery,
    pages::Cut,
    problem::Fault,
    with_verbs,
};
use crate::app::Caller;

pub(super) fn routes() -> OpenApiRouter<Http> {
    let nouns = OpenApiRouter::new().routes(routes!(list)).routes(routes!(show));
    with_verbs(nouns, [routes!(acknowledge), routes!(resolve)])
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

/// Tells what became of a create without answer where nothing but a person can: the code of the issue is
/// `create-without-answer`. The engine creates again, or takes what is named once a look shows that it fits; then the issue
/// resolves. What does not fit is asked again.
#[utoipa::path(post, path = "/v1/issues/{id}:resolve", operation_id = "resolveIssue", tag = "issues",
    params(("id" = IssueId, Path, description = "The issue."), IdempotencyKeyHeader),
    request_body = IssueAnswer,
    responses(
        (status = 202, description = "Noted. The issue resolves when the engine has gone on.", body = Issue,
            headers(("Idempotent-Replayed", description = "`true` where this answer was given before."))),
        (status = 409, description = "The issue does not ask this, or not any more."),
        (status = 422, description = "The idempotency key was used with another request.")))]
async fn resolve(
    State(http): State<Http>,
    caller: Caller,
    Id(id): Id<IssueId>,
    headers: Headers,
    Query(Nothing {}): Query<Nothing>,
    extract::Json(answer, raw): extract::Json<IssueAnswer>,
) -> Result<Response, Fault> {
    let (answer, replayed) = http.app.resolve_issue(&caller, id, &answer, headers.key(&caller, &raw)).await?;
    Ok(saved(answer, replayed))
}
