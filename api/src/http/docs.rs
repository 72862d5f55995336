//! `/docs`: the reference, from assets in the binary; it works without any network.

use axum::{
    Router,
    extract::Request,
    http::{HeaderValue, header},
    middleware::{self, Next},
    response::Response,
};
use utoipa_swagger_ui::{Config, SwaggerUi};

use super::Http;

/// Own scripts; the viewer sets styles by attribute and has its icons in data URLs.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; \
                      connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

pub(super) fn routes() -> Router<Http> {
    // The viewer's validator is another host's service.
    let config = Config::from("/openapi.json").validator_url("none").display_operation_id(true);
    Router::from(SwaggerUi::new("/docs").config(config)).layer(middleware::from_fn(policy))
}

async fn policy(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    response.headers_mut().insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    response
}
