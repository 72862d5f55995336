//! Plans.

use axum::{Json, extract::State, http::Uri, response::Response};
use serde::Deserialize;
use serde_json::Value;
use tieline_openapi::{
    ids::{ConnectionId, PlanId},
    v1::{Plan, PlanList, PlanRequest},
};
use utoipa::IntoParams;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    Http,
    extract::{self, Headers, Id, NoBody, Nothing, Query},
    mutation::{IdempotencyKeyHeader, MutationAnswers, MutationQuery, answer, dry, saved},
    pages::Cut,
    problem::Fault,
    with_verb,
};
use crate::app::Caller;

pub(super) fn routes() -> OpenApiRouter<Http> {
    with_verb(OpenApiRouter::new().routes(routes!(list, create)).routes(routes!(show)), routes!(apply))
}

/// The query of a plan.
#[derive(Debug, Clone, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct PlanQuery {
    /// Answer 200 with the plan, and do not save it.
    #[serde(default)]
    #[param(required = false)]
    dry_run: bool,
}

/// The query of the list of plans.
#[derive(Debug, Clone, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct PlanListQuery {
    /// Only plans of this connection, which may be gone, or planned only.
    #[param(value_type = Option<ConnectionId>)]
    connection_id: Option<ConnectionId>,
    /// Rows of the page; 100 where it is absent.
    #[param(minimum = 1, maximum = 1000)]
    page_size: Option<u32>,
    /// `nextPageToken` of the page before. It is good for the same query only.
    page_token: Option<String>,
}

/// Lists saved plans, newest first. Plans that cannot be applied any more stay listed for a week.
#[utoipa::path(get, path = "/v1/plans", operation_id = "listPlans", tag = "plans", params(PlanListQuery),
    responses((status = 200, description = "A page of plans.", body = PlanList)))]
async fn list(
    State(http): State<Http>,
    caller: Caller,
    uri: Uri,
    Query(query): Query<PlanListQuery>,
) -> Result<Response, Fault> {
    let rest = query.connection_id.map_or_else(String::new, |id| id.to_string());
    let cut = Cut::of(&http, &caller, &rest, query.page_size, query.page_token.as_deref())?;
    let page = http.app.plans(&caller.project, query.connection_id, cut.size, cut.after_uuid()).await?;
    cut.answer(&http, &uri, page, |plans, next_page_token| PlanList { plans, next_page_token })
}

/// Computes a plan and saves it for an hour. It reserves nothing. What cannot be met is a plan with findings that are errors.
#[utoipa::path(post, path = "/v1/plans", operation_id = "createPlan", tag = "plans", params(PlanQuery, IdempotencyKeyHeader),
    request_body = PlanRequest,
    responses(
        (status = 201, description = "The saved plan.", body = Plan, headers(
            ("Location", description = "The plan."),
            ("Idempotent-Replayed", description = "`true` where this answer was given before."))),
        (status = 200, description = "With `dryRun=true`: the plan, not saved.", body = Plan,
            headers(("Dry-Run", description = "`true`."))),
        (status = 409, description = "The connection is being deleted, or is protected against deletion."),
        (status = 422, description = "The idempotency key was used with another request.")))]
async fn create(
    State(http): State<Http>,
    caller: Caller,
    headers: Headers,
    Query(query): Query<PlanQuery>,
    extract::Json(request, raw): extract::Json<PlanRequest>,
) -> Result<Response, Fault> {
    if query.dry_run {
        return Ok(dry(http.app.dry_plan(&caller, &request).await?));
    }
    let kept = http.app.save_plan(&caller, &request, headers.key(&caller, &raw)).await?;
    Ok(saved(kept.answer, kept.replayed))
}

/// Shows a saved plan.
#[utoipa::path(get, path = "/v1/plans/{id}", operation_id = "getPlan", tag = "plans",
    params(("id" = PlanId, Path, description = "The plan.")),
    responses((status = 200, description = "The plan.", body = Plan)))]
async fn show(
    State(http): State<Http>,
    caller: Caller,
    Id(id): Id<PlanId>,
    Query(Nothing {}): Query<Nothing>,
) -> Result<Json<Plan>, Fault> {
    Ok(Json(http.app.saved_plan(&caller.project, id).await?))
}

/// Applies exactly this plan, taking its allocations in one transaction, or says what moved.
#[utoipa::path(post, path = "/v1/plans/{id}:apply", operation_id = "applyPlan", tag = "plans",
    params(("id" = PlanId, Path, description = "The plan."), MutationQuery, IdempotencyKeyHeader),
    responses(
        MutationAnswers,
        (status = 200, description = "With `dryRun=true`: the plan, which could be applied now.", body = Plan,
            headers(("Dry-Run", description = "`true`."))),
        (status = 409, description = "The plan was applied before, has errors, or its name is taken."),
        (status = 412, description = "The plan is too old, or what it was computed from has moved.")))]
async fn apply(
    State(http): State<Http>,
    caller: Caller,
    Id(id): Id<PlanId>,
    headers: Headers,
    Query(query): Query<MutationQuery>,
    NoBody: NoBody,
) -> Result<Response, Fault> {
    if query.dry_run {
        return Ok(dry(http.app.dry_apply(&caller, id).await?));
    }
    let accepted = http.app.apply(&caller, id, headers.key(&caller, &Value::Null)).await?;
    answer(&http, &caller.project, accepted, query.wait).await
}
