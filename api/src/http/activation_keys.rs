//! Activation keys that customers have from providers that we are paired with.

use axum::{Json, extract::State, response::Response};
use tieline_openapi::v1::{ActivationKeyAcceptance, ActivationKeyText, DecodedActivationKey};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    Http,
    extract::{self, Headers, Nothing, Query},
    mutation::{IdempotencyKeyHeader, MutationAnswers, MutationQuery, answer, dry},
    problem::Fault,
};
use crate::app::Caller;

pub(super) fn routes() -> OpenApiRouter<Http> {
    OpenApiRouter::new().routes(routes!(accept)).routes(routes!(decode))
}

/// Makes a connection from an activation key that the customer has from the other provider. Ours is made first, then that
/// provider is asked for its half.
#[utoipa::path(post, path = "/v1/activationKeys:accept", operation_id = "acceptActivationKey", tag = "connections",
    params(MutationQuery, IdempotencyKeyHeader),
    request_body = ActivationKeyAcceptance,
    responses(
        MutationAnswers,
        (status = 409, description = "The key was brought already, the name is taken, or this installation is not paired \
                                      with any provider.")))]
async fn accept(
    State(http): State<Http>,
    caller: Caller,
    headers: Headers,
    Query(query): Query<MutationQuery>,
    extract::Json(acceptance, raw): extract::Json<ActivationKeyAcceptance>,
) -> Result<Response, Fault> {
    if query.dry_run {
        return Ok(dry(http.app.dry_accept(&caller, &acceptance).await?));
    }
    let accepted = http.app.accept(&caller, &acceptance, headers.key(&caller, &raw)).await?;
    answer(&http, &caller.project, accepted, query.wait).await
}

/// Tells what an activation key says, without doing anything.
#[utoipa::path(post, path = "/v1/activationKeys:decode", operation_id = "decodeActivationKey", tag = "connections",
    request_body = ActivationKeyText,
    responses(
        (status = 200, description = "What it says.", body = DecodedActivationKey),
        (status = 409, description = "This installation is not paired with any provider.")))]
async fn decode(
    State(http): State<Http>,
    caller: Caller,
    Query(Nothing {}): Query<Nothing>,
    extract::Json(request, _): extract::Json<ActivationKeyText>,
) -> Result<Json<DecodedActivationKey>, Fault> {
    Ok(Json(http.app.decode(&caller, &request.activation_key).await?))
}
