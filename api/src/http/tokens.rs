//! API tokens.

use axum::{
    Json,
    extract::State,
    http::{HeaderValue, StatusCode, Uri, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use tieline_openapi::{
    ids::TokenId,
    v1::{IssuedToken, TokenList, TokenRequest},
};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    Http,
    extract::{self, Headers, Id, NoBody, Nothing, Query},
    mutation::REPLAYED,
    operations::PageQuery,
    pages::Cut,
    problem::Fault,
};
use crate::app::{Caller, tokens::Issued};

pub(super) fn routes() -> OpenApiRouter<Http> {
    OpenApiRouter::new().routes(routes!(list, issue)).routes(routes!(end))
}

/// Lists tokens in order of id, without their secrets.
#[utoipa::path(get, path = "/v1/tokens", operation_id = "listTokens", tag = "tokens", params(PageQuery),
    responses((status = 200, description = "A page of tokens.", body = TokenList)))]
async fn list(
    State(http): State<Http>,
    caller: Caller,
    uri: Uri,
    Query(query): Query<PageQuery>,
) -> Result<Response, Fault> {
    let cut = Cut::of(&http, &caller, "", query.page_size, query.page_token.as_deref())?;
    let page = http.app.tokens(&caller.project, cut.size, cut.after_uuid()).await?;
    cut.answer(&http, &uri, page, |tokens, next_page_token| TokenList { tokens, next_page_token })
}

/// Issues a token. Its secret is in this answer and nowhere else.
#[utoipa::path(post, path = "/v1/tokens", operation_id = "issueToken", tag = "tokens",
    params(("Idempotency-Key" = Option<String>, Header, min_length = 1, max_length = 255, pattern = "^[!-~]+$",
        description = "The same key and request get the same answer for seven days, without the secret; another request \
                       gets 422.")),
    request_body = TokenRequest,
    responses(
        (status = 201, description = "The token and its secret.", body = IssuedToken,
            headers(
                ("Location", description = "The token."),
                ("Idempotent-Replayed", description = "`true` where this answer was given before, now without the secret."))),
        (status = 409, description = "The name is taken."),
        (status = 422, description = "The idempotency key was used with another request.")))]
async fn issue(
    State(http): State<Http>,
    caller: Caller,
    headers: Headers,
    Query(Nothing {}): Query<Nothing>,
    extract::Json(request, raw): extract::Json<TokenRequest>,
) -> Result<Response, Fault> {
    let issued = http.app.issue_token(&caller, &request, headers.key(&caller, &raw)).await?;
    let location = format!("/v1/tokens/{}", issued.answer.token.id);
    Ok(answer(&issued, Some(location)))
}

/// 201 with what was issued, now or before.
pub(super) fn answer<T: Serialize>(issued: &Issued<T>, location: Option<String>) -> Response {
    let mut response = (StatusCode::CREATED, Json(&issued.answer)).into_response();
    let location = location.and_then(|location| HeaderValue::try_from(location).ok());
    response.headers_mut().extend(location.map(|location| (header::LOCATION, location)));
    if issued.replayed {
        response.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
    }
    response
}

/// Ends a token at once.
#[utoipa::path(delete, path = "/v1/tokens/{id}", operation_id = "deleteToken", tag = "tokens",
    params(("id" = TokenId, Path, description = "The token.")),
    responses((status = 204, description = "The token has ended.")))]
async fn end(
    State(http): State<Http>,
    caller: Caller,
    Id(id): Id<TokenId>,
    Query(Nothing {}): Query<Nothing>,
    NoBody: NoBody,
) -> Result<StatusCode, Fault> {
    http.app.end_token(&caller, id).await?;
    Ok(StatusCode::NO_CONTENT)
}
