//! What operations that change something have in common: their query, their headers, their answers.

use axum::{
    Json,
    http::{HeaderName, HeaderValue, StatusCode},
    response::{IntoResponse, Response},
};
use serde::Deserialize;
use tieline_openapi::{
    ids::ProjectId,
    v1::{Connection, Plan},
};
use utoipa::{IntoParams, IntoResponses};

use super::{Http, extract::Wait, problem::Fault};
use crate::{app::connections::Accepted, store::SavedAnswer};

/// Set on an answer that was given before under the same idempotency key.
pub(super) const REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");

/// The query of a mutation.
#[derive(Debug, Clone, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct MutationQuery {
    /// Hold the answer until the operation is final, at most for so long: `60s`, up to `120s`.
    #[param(value_type = Option<String>, pattern = "^([0-9]{1,2}|1[01][0-9]|120)s$")]
    pub(super) wait: Option<Wait>,
    /// Answer 200 with an unsaved Plan, and do nothing.
    #[serde(default)]
    #[param(required = false)]
    pub(super) dry_run: bool,
}

/// The header of an idempotent operation, as documented.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "only its documentation is used: `Headers` reads it")]
pub(super) struct IdempotencyKeyHeader {
    /// The same key and request get the same answer for seven days; another request gets 422.
    #[param(rename = "Idempotency-Key", min_length = 1, max_length = 255, pattern = "^[!-~]+$")]
    idempotency_key: Option<String>,
}

/// The header of an operation on what was read before, as documented.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "only its documentation is used: `Headers` reads it")]
pub(super) struct IfMatchHeader {
    /// The ETag that was read, or `*`. Without it the answer is 428.
    #[param(rename = "If-Match")]
    if_match: String,
}

/// How a change of a connection is answered, as documented.
#[derive(IntoResponses)]
#[expect(dead_code, clippy::large_enum_variant, reason = "only its documentation is used")]
pub(super) enum MutationAnswers {
    /// Accepted. Follow the operation in `Operation-Location`.
    #[response(status = 202, headers(
        ("Location", description = "The connection."),
        ("Operation-Location", description = "The operation."),
        ("ETag", description = "The generation of the intent."),
        ("Idempotent-Replayed", description = "`true` where this answer was given before.")))]
    Accepted(Connection),
    /// With `dryRun=true`: what would be done.
    #[response(status = 200, headers(("Dry-Run", description = "`true`.")))]
    DryRun(Plan),
    /// The idempotency key was used with another request.
    #[response(status = 422)]
    KeyReused,
}

/// How a change of what has moved is answered, as documented.
#[derive(IntoResponses)]
#[expect(dead_code, reason = "only its documentation is used")]
pub(super) enum IfMatchAnswers {
    /// The connection has another generation.
    #[response(status = 412)]
    Moved,
    /// If-Match is needed.
    #[response(status = 428)]
    Missing,
}

/// The answer of a dry run.
pub(super) fn dry(plan: Plan) -> Response {
    let dry_run = (HeaderName::from_static("dry-run"), HeaderValue::from_static("true"));
    ([dry_run], Json(plan)).into_response()
}

/// The answer of a mutation, held until its operation is final where that was asked for.
pub(super) async fn answer(
    http: &Http,
    project: &ProjectId,
    accepted: Accepted,
    wait: Option<Wait>,
) -> Result<Response, Fault> {
    let mut body = accepted.answer.body.clone();
    let activation_key = accepted.activation_key;
    if let Some(Wait(longest)) = wait {
        http.app.wait_for(project, accepted.operation, longest).await?;
        // A replayed answer stays what it was. A connection that is gone by now is shown as it last was.
        if !accepted.replayed
            && let Ok(connection) = http.app.connection(project, accepted.connection).await
        {
            body = serde_json::to_value(connection).map_err(crate::app::AppError::from)?;
        }
    }
    if let (Some(key), serde_json::Value::Object(members)) = (activation_key, &mut body) {
        members.insert("activationKey".to_owned(), key.expose().into());
    }
    Ok(saved(SavedAnswer { body, ..accepted.answer }, accepted.replayed))
}

/// An answer as it is kept under its idempotency key.
pub(super) fn saved(answer: SavedAnswer, replayed: bool) -> Response {
    let status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::ACCEPTED);
    let mut response = (status, Json(answer.body)).into_response();
    for (name, value) in &answer.headers {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
            response.headers_mut().insert(name, value);
        }
    }
    if replayed {
        response.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
    }
    response
}
