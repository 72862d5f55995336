//! Plans.

use axum::{
    Json,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Deserialize;
use serde_json::Value;
use tieline_openapi::{
    ids::PlanId,
    v1::{Connection, Plan, PlanRequest},
};
use utoipa::IntoParams;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    Http,
    connections::{MutationQuery, answer, dry},
    extract::{self, Headers, Id, NoBody, Nothing, Query},
    problem::Fault,
    with_verb,
};
use crate::app::Caller;

pub(super) fn routes() -> OpenApiRouter<Http> {
    with_verb(OpenApiRouter::new().routes(routes!(create)).routes(routes!(show)), routes!(apply))
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

/// Computes a plan and saves it for an hour. It reserves nothing. What cannot be met is a plan with findings that are errors.
#[utoipa::path(post, path = "/v1/plans", operation_id = "createPlan", tag = "plans", params(PlanQuery),
    request_body = PlanRequest,
    responses(
        (status = 201, description = "The saved plan.", body = Plan, headers(("Location", description = "The plan."))),
        (status = 200, description = "With `dryRun=true`: the plan, not saved.", body = Plan,
            headers(("Dry-Run", description = "`true`."))),
        (status = 409, description = "The connection is being deleted, or is protected against deletion.")))]
async fn create(
    State(http): State<Http>,
    caller: Caller,
    Query(query): Query<PlanQuery>,
    extract::Json(request, _): extract::Json<PlanRequest>,
) -> Result<Response, Fault> {
    let plan = http.app.plan(&caller, &request, !query.dry_run).await?;
    let Some(id) = plan.id else { return Ok(dry(plan)) };
    Ok((StatusCode::CREATED, [(header::LOCATION, format!("/v1/plans/{id}"))], Json(plan)).into_response())
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
    params(("id" = PlanId, Path, description = "The plan."), MutationQuery,
        ("Idempotency-Key" = Option<String>, Header, min_length = 1, max_length = 255, pattern = "^[!-~]+$",
            description = "The same key and request get the same answer for seven days; another request gets 422.")),
    responses(
        (status = 202, description = "Accepted. Follow the operation in `Operation-Location`.", body = Connection,
            headers(
                ("Location", description = "The connection."),
                ("Operation-Location", description = "The operation."),
                ("ETag", description = "The generation of the intent."),
                ("Idempotent-Replayed", description = "`true` where this answer was given before."))),
        (status = 200, description = "With `dryRun=true`: the plan, which could be applied now.", body = Plan,
            headers(("Dry-Run", description = "`true`."))),
        (status = 409, description = "The plan was applied before, has errors, or its name is taken."),
        (status = 412, description = "The plan is too old, or what it was computed from has moved."),
        (status = 422, description = "The idempotency key was used with another request.")))]
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
