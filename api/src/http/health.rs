//! Whether the process lives, and whether it can serve.

use axum::{Json, extract::State};
use serde::{Deserialize, Serialize};
use tieline_openapi::problem::ProblemCode;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    Http,
    extract::{Nothing, Query},
    problem::Fault,
};

pub(super) fn routes() -> OpenApiRouter<Http> {
    OpenApiRouter::new().routes(routes!(live)).routes(routes!(ready))
}

/// An answer of the health checks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
struct Health {
    /// `ok`.
    status: String,
}

fn ok() -> Json<Health> {
    Json(Health { status: "ok".to_owned() })
}

/// Says that the process lives. It looks at nothing.
#[utoipa::path(get, path = "/healthz", operation_id = "getHealth", tag = "health",
    responses((status = 200, description = "The process lives.", body = Health)))]
async fn live(Query(Nothing {}): Query<Nothing>) -> Json<Health> {
    ok()
}

/// Says whether requests can be served: the store answers.
#[utoipa::path(get, path = "/readyz", operation_id = "getReadiness", tag = "health",
    responses((status = 200, description = "The store answers.", body = Health)))]
async fn ready(State(http): State<Http>, Query(Nothing {}): Query<Nothing>) -> Result<Json<Health>, Fault> {
    match http.app.store.ping().await {
        Ok(()) => Ok(ok()),
        Err(_) => Err(Fault::new(ProblemCode::Unavailable, "the store does not answer")),
    }
}
