//! Connections.

use axum::{
    Json,
    extract::State,
    http::{Uri, header},
    response::{IntoResponse, Response},
};
use tieline_openapi::{
    ids::ConnectionId,
    v1::{Connection, ConnectionIntent, ConnectionList, Migration},
};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    Http,
    extract::{self, Headers, Id, MergePatch, NoBody, Nothing, Query},
    filter::{Filtered, ListQuery},
    mutation::{IdempotencyKeyHeader, IfMatchAnswers, IfMatchHeader, MutationAnswers, MutationQuery, answer, dry},
    pages::Cut,
    problem::Fault,
    with_verb,
};
use crate::app::{Caller, connections::etag};

pub(super) fn routes() -> OpenApiRouter<Http> {
    with_verb(OpenApiRouter::new().routes(routes!(list, create)).routes(routes!(show, patch, delete)), routes!(migrate))
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
    params(MutationQuery, IdempotencyKeyHeader),
    request_body = ConnectionIntent,
    responses(
        MutationAnswers,
        (status = 409, description = "The name is taken.")))]
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
    params(("id" = ConnectionId, Path, description = "The connection."), MutationQuery, IfMatchHeader,
        IdempotencyKeyHeader),
    request_body(description = "Members to change; null takes a value back to its default.", content(
        (Object = "application/merge-patch+json"), (Object = "application/json"))),
    responses(
        MutationAnswers,
        IfMatchAnswers,
        (status = 409, description = "The connection is being deleted, or the name is taken.")))]
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
    params(("id" = ConnectionId, Path, description = "The connection."), MutationQuery, IfMatchHeader,
        IdempotencyKeyHeader),
    responses(
        MutationAnswers,
        IfMatchAnswers,
        (status = 409, description = "The connection is protected against deletion.")))]
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
    params(("id" = ConnectionId, Path, description = "The connection."), MutationQuery, IfMatchHeader,
        IdempotencyKeyHeader),
    request_body(content = Option<Migration>, description = "Where to; it may be left out."),
    responses(
        MutationAnswers,
        IfMatchAnswers,
        (status = 409, description = "It is not shared with another provider, no other interconnect has room, or it is \
                                      changing or being deleted.")))]
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
