//! The page at `/` and the pages of the problem types. Nothing in them is inline, so their policy allows nothing inline.

use axum::{
    Router,
    extract::Path,
    http::header,
    response::{IntoResponse, Response},
    routing::get,
};
use tieline_openapi::problem::ProblemCode;

use super::{
    Http,
    problem::{Fault, describe},
};

/// Own style, and nothing else.
const POLICY: &str =
    "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

pub(super) fn routes() -> Router<Http> {
    Router::new()
        .route("/", get(async || page(include_str!("assets/home.html").to_owned())))
        .route("/home.css", get(async || style(include_str!("assets/home.css"))))
        .route("/problems/{code}", get(problem))
}

fn page(html: String) -> Response {
    let headers = [(header::CONTENT_TYPE, "text/html; charset=utf-8"), (header::CONTENT_SECURITY_POLICY, POLICY)];
    (headers, html).into_response()
}

fn style(css: &'static str) -> Response {
    ([(header::CONTENT_TYPE, "text/css; charset=utf-8"), (header::CONTENT_SECURITY_POLICY, POLICY)], css)
        .into_response()
}

/// What a problem type means: the page that `type` in a problem document points to.
async fn problem(Path(code): Path<String>) -> Result<Response, Fault> {
    let known: Option<ProblemCode> = serde_json::from_value(serde_json::Value::from(code)).ok();
    let code = known.ok_or_else(Fault::not_found)?;
    let (title, remedy) = describe(code);
    // Only our own constants go into the page.
    Ok(page(format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>{title}</title>\
         <link rel=\"stylesheet\" href=\"/home.css\"></head><body><main><h1>{title}</h1>\
         <p><code>{}</code>, HTTP status {}.</p><p>{remedy}</p></main></body></html>",
        code.as_str(),
        code.status(),
    )))
}
