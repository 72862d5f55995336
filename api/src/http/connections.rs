//! Connections.

use axum::{
    Json,
    extract::State,
    http::{HeaderName, HeaderValue, StatusCode, Uri, header},
    response::{IntoResponse, Response},
};
use serde::Deserialize;
use tieline_openapi::{
    ids::{ConnectionId, ProjectId},
    v1::{Connection, ConnectionIntent, ConnectionList, Migration, Plan},
};
use utoipa::IntoParams;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    Http,
    extract::{self, Headers, Id, MergePatch, NoBody, Nothing, Query, Wait},
    filter::{Filtered, ListQuery},
    pages::Cut,
    problem::Fault,
    with_verb,
};
use crate::{
    app::{
        Caller,
        connections::{Accepted, etag},
    },
    store::SavedAnswer,
};

/// Set on an answer that was given before under the same idempotency key.
pub(super) const REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");

pub(super) fn routes() -> OpenApiRouter<Http> {
    with_verb(OpenApiRouter::new().routes(routes!(list, create)).routes(routes!(show, patch, delete)), routes!(migrate))
}

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

/// Lists connections in order of id.
#[utoipa::path(get, path = "/v1/connections", operation_id = "listConnections", tag = "connections", params(ListQuery),
    responses((status = 200, description = "A page of connections.", body = ConnectionList)))]
async fn list(
    State(http): State<Http>,
    caller: Caller,
    uri: Uri,
    Filtered { wanted, page_size, page_token }: Filtered,
) -> Result<Response, Fault> {
    let rest = format!("{wanted:?}");
    let cut = Cut::of(&http, &caller, &rest, page_size, page_token.as_deref())?;
    let page = http.app.connections(&caller.project, &wanted, cut.size, cut.after_uuid()).await?;
    cut.answer(&http, &uri, page, |connections, next_page_token| ConnectionList { connections, next_page_token })
}

/// Creates a connection: both clouds are configured, and the tunnel carries traffic meanwhile. Over a coordinated environment an
/// activation key is made, which this answer alone tells: the connection comes about when it is brought to the other provider.
#[utoipa::path(post, path = "/v1/connections", operation_id = "createConnection", tag = "connections",
    params(MutationQuery,
        ("Idempotency-Key" = Option<String>, Header, min_length = 1, max_length = 255, pattern = "^[!-~]+$",
            description = "The same key and request get the same answer for seven days; another request gets 422.")),
    request_body = ConnectionIntent,
    responses(
        (status = 202, description = "Accepted. Follow the operation in `Operation-Location`.", body = Connection,
            headers(
                ("Location", description = "The connection."),
                ("Operation-Location", description = "The operation."),
                ("ETag", description = "The generation of the intent."),
                ("Idempotent-Replayed", description = "`true` where this answer was given before."))),
        (status = 200, description = "With `dryRun=true`: what would be done.", body = Plan,
            headers(("Dry-Run", description = "`true`."))),
        (status = 409, description = "The name is taken."),
        (status = 422, description = "The idempotency key was used with another request.")))]
async fn create(
    State(http): State<Http>,
    caller: Caller,
    headers: Headers,
    Query(query): Query<MutationQuery>,
    extract::Json(intent, raw): extract::Json<ConnectionIntent>,
) -> Result<Response, Fault> {
    if query.dry_run {
        return Ok(dry(http.app.dry_create(&caller, &intent).await?));
    }
    let accepted = http.app.create(&caller, intent, headers.key(&caller, &raw)).await?;
    answer(&http, &caller.project, accepted, query.wait).await
}

/// Shows a connection.
#[utoipa::path(get, path = "/v1/connections/{id}", operation_id = "getConnection", tag = "connections",
    params(("id" = ConnectionId, Path, description = "The connection.")),
    responses((status = 200, description = "The connection.", body = Connection,
        headers(("ETag", description = "The generation of the intent: send it as If-Match.")))))]
async fn show(
    State(http): State<Http>,
    caller: Caller,
    Id(id): Id<ConnectionId>,
    Query(Nothing {}): Query<Nothing>,
) -> Result<Response, Fault> {
    let connection = http.app.connection(&caller.project, id).await?;
    Ok(([(header::ETAG, etag(connection.generation))], Json(connection)).into_response())
}

/// Changes a connection by a merge patch (RFC 7396) of its writable fields. `environmentId` and the attach points are
/// constants. A newer change supersedes the running operation.
#[utoipa::path(patch, path = "/v1/connections/{id}", operation_id = "patchConnection", tag = "connections",
    params(("id" = ConnectionId, Path, description = "The connection."), MutationQuery,
        ("If-Match" = String, Header, description = "The ETag that was read, or `*`. Without it the answer is 428."),
        ("Idempotency-Key" = Option<String>, Header, min_length = 1, max_length = 255, pattern = "^[!-~]+$",
            description = "The same key and request get the same answer for seven days; another request gets 422.")),
    request_body(description = "Members to change; null takes a value back to its default.", content(
        (Object = "application/merge-patch+json"), (Object = "application/json"))),
    responses(
        (status = 202, description = "Accepted. Follow the operation in `Operation-Location`.", body = Connection,
            headers(
                ("Location", description = "The connection."),
                ("Operation-Location", description = "The operation."),
                ("ETag", description = "The generation of the intent."),
                ("Idempotent-Replayed", description = "`true` where this answer was given before."))),
        (status = 200, description = "With `dryRun=true`: what would be done.", body = Plan,
            headers(("Dry-Run", description = "`true`."))),
        (status = 409, description = "The connection is being deleted, or the name is taken."),
        (status = 412, description = "The connection has another generation."),
        (status = 422, description = "The idempotency key was used with another request."),
        (status = 428, description = "If-Match is needed.")))]
async fn patch(
    State(http): State<Http>,
    caller: Caller,
    Id(id): Id<ConnectionId>,
    headers: Headers,
    Query(query): Query<MutationQuery>,
    MergePatch(patch): MergePatch,
) -> Result<Response, Fault> {
    let if_match = headers.if_match()?;
    if query.dry_run {
        return Ok(dry(http.app.dry_patch(&caller, id, if_match, &patch).await?));
    }
    let accepted = http.app.patch(&caller, id, if_match, &patch, headers.key(&caller, &patch)).await?;
    answer(&http, &caller.project, accepted, query.wait).await
}

/// Deletes a connection: both clouds are cleared, and the tunnel goes last. Afterwards GET is 404; operations and events stay.
#[utoipa::path(delete, path = "/v1/connections/{id}", operation_id = "deleteConnection", tag = "connections",
    params(("id" = ConnectionId, Path, description = "The connection."), MutationQuery,
        ("If-Match" = String, Header, description = "The ETag that was read, or `*`. Without it the answer is 428."),
        ("Idempotency-Key" = Option<String>, Header, min_length = 1, max_length = 255, pattern = "^[!-~]+$",
            description = "The same key and request get the same answer for seven days; another request gets 422.")),
    responses(
        (status = 202, description = "Accepted. Follow the operation in `Operation-Location`.", body = Connection,
            headers(
                ("Location", description = "The connection."),
                ("Operation-Location", description = "The operation."),
                ("ETag", description = "The generation of the intent."),
                ("Idempotent-Replayed", description = "`true` where this answer was given before."))),
        (status = 200, description = "With `dryRun=true`: what would be done.", body = Plan,
            headers(("Dry-Run", description = "`true`."))),
        (status = 409, description = "The connection is protected against deletion."),
        (status = 412, description = "The connection has another generation."),
        (status = 422, description = "The idempotency key was used with another request."),
        (status = 428, description = "If-Match is needed.")))]
async fn delete(
    State(http): State<Http>,
    caller: Caller,
    Id(id): Id<ConnectionId>,
    headers: Headers,
    Query(query): Query<MutationQuery>,
    NoBody: NoBody,
) -> Result<Response, Fault> {
    let if_match = headers.if_match()?;
    if query.dry_run {
        return Ok(dry(http.app.dry_delete(&caller, id, if_match).await?));
    }
    let accepted = http.app.delete(&caller, id, if_match, headers.key(&caller, &serde_json::Value::Null)).await?;
    answer(&http, &caller.project, accepted, query.wait).await
}

/// Moves a coordinated connection to another interconnect of its environment: the new place comes up beside the old one, which
/// is then drained and deleted.
#[utoipa::path(post, path = "/v1/connections/{id}:migrate", operation_id = "migrateConnection", tag = "connections",
    params(("id" = ConnectionId, Path, description = "The connection."), MutationQuery,
        ("If-Match" = String, Header, description = "The ETag that was read, or `*`. Without it the answer is 428."),
        ("Idempotency-Key" = Option<String>, Header, min_length = 1, max_length = 255, pattern = "^[!-~]+$",
            description = "The same key and request get the same answer for seven days; another request gets 422.")),
    request_body(content = Option<Migration>, description = "Where to; it may be left out."),
    responses(
        (status = 202, description = "Accepted. Follow the operation in `Operation-Location`.", body = Connection,
            headers(
                ("Location", description = "The connection."),
                ("Operation-Location", description = "The operation."),
                ("ETag", description = "The generation of the intent."),
                ("Idempotent-Replayed", description = "`true` where this answer was given before."))),
        (status = 200, description = "With `dryRun=true`: what would be done.", body = Plan,
            headers(("Dry-Run", description = "`true`."))),
        (status = 409, description = "It is not shared with another provider, no other interconnect has room, or it is \
                                      changing or being deleted."),
        (status = 412, description = "The connection has another generation."),
        (status = 422, description = "The idempotency key was used with another request."),
        (status = 428, description = "If-Match is needed.")))]
async fn migrate(
    State(http): State<Http>,
    caller: Caller,
    Id(id): Id<ConnectionId>,
    headers: Headers,
    Query(query): Query<MutationQuery>,
    extract::MaybeJson(to, raw): extract::MaybeJson<Migration>,
) -> Result<Response, Fault> {
    let if_match = headers.if_match()?;
    if query.dry_run {
        return Ok(dry(http.app.dry_migrate(&caller, id, if_match, &to).await?));
    }
    let accepted = http.app.migrate(&caller, id, if_match, &to, headers.key(&caller, &raw)).await?;
    answer(&http, &caller.project, accepted, query.wait).await
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
