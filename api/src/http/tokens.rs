//! API tokens.

use axum::{
    Json,
    extract::State,
    http::{StatusCode, Uri, header},
    response::{IntoResponse, Response},
};
use tieline_openapi::{
    ids::TokenId,
    v1::{IssuedToken, TokenList, TokenRequest},
};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    Http,
    extract::{self, Id, NoBody, Nothing, Query},
    operations::PageQuery,
    pages::Cut,
    problem::Fault,
};
use crate::app::Caller;

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
#[utoipa::path(post, path = "/v1/tokens", operation_id = "issueToken", tag = "tokens", request_body = TokenRequest,
    responses(
        (status = 201, description = "The token and its secret.", body = IssuedToken),
        (status = 409, description = "The name is taken.")))]
async fn issue(
    State(http): State<Http>,
    caller: Caller,
    Query(Nothing {}): Query<Nothing>,
    extract::Json(request, _): extract::Json<TokenRequest>,
) -> Result<Response, Fault> {
    let issued: IssuedToken = http.app.issue_token(&caller, &request).await?;
    let location = format!("/v1/tokens/{}", issued.token.id);
    Ok((StatusCode::CREATED, [(header::LOCATION, location)], Json(issued)).into_response())
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
