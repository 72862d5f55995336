//! The outermost layer: gives every request an id, every error its document, and every answer its headers, its log line and
//! its place in the metrics.

use std::{any::Any, sync::Arc};

use axum::{
    body::Body,
    extract::{MatchedPath, Request, State},
    http::{HeaderName, HeaderValue, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use tieline_openapi::problem::ProblemCode;

use super::{
    Http,
    gate::OperationName,
    problem::{self, Fault},
};

/// The id of a request.
#[derive(Debug, Clone)]
pub(super) struct RequestId(pub(super) Arc<str>);

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Nothing of the API is a page: a browser that is led to it runs nothing.
const API_POLICY: &str = "default-src 'none'; frame-ancestors 'none'";

/// 404 of a path that is no route.
pub(super) async fn nothing_here() -> Fault {
    Fault::not_found()
}

/// 500 of a handler that panicked.
pub(super) fn panicked(panic: Box<dyn Any + Send + 'static>) -> Response {
    let text = panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a panic without a text".to_owned());
    let mut fault = Fault::new(ProblemCode::Internal, "something went wrong here, not in the request");
    fault.cause = Some(format!("panicked: {text}").into());
    fault.into_response()
}

/// An id that a client may choose: it goes into logs, so it has only harmless characters.
pub(super) fn accepted(request: &Request) -> Option<Arc<str>> {
    let sent = request.headers().get(&REQUEST_ID)?.to_str().ok()?;
    let harmless = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    ((1..=64).contains(&sent.len()) && sent.bytes().all(harmless)).then(|| sent.into())
}

/// Wraps the whole surface.
pub(super) async fn finish(State(http): State<Http>, mut request: Request, next: Next) -> Response {
    let begun = http.app.clock.monotonic();
    let id = accepted(&request).unwrap_or_else(|| http.app.random.uuid_v7(http.app.now()).to_string().into());
    request.extensions_mut().insert(RequestId(Arc::clone(&id)));
    let method = request.method().clone();
    let path = request.uri().path().to_owned();
    let route = request.extensions().get::<MatchedPath>().map(|route| route.as_str().to_owned());
    let response = next.run(request).await;
    let operation = response.extensions().get::<OperationName>().map_or("none", |name| name.0);
    let mut response = with_problem(response, &id);
    dress(&mut response, &id);
    let status = response.status().as_u16();
    let took = http.app.clock.monotonic().saturating_sub(begun);
    http.metrics.answered(operation, status, took);
    tracing::info!(
        http.request.method = %method,
        url.path = %path,
        http.route = route.as_deref().unwrap_or(""),
        http.response.status_code = status,
        tieline.operation = operation,
        tieline.duration_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX),
        request.id = %id,
        "answered"
    );
    response
}

pub(super) fn with_problem(mut response: Response, id: &Arc<str>) -> Response {
    let status = response.status();
    let fault = match response.extensions_mut().remove::<Fault>() {
        Some(fault) => fault,
        None if status.is_client_error() || status.is_server_error() => problem::of_status(status),
        None => return response,
    };
    let Fault { mut problem, cause, .. } = fault;
    let cause = cause.as_deref().unwrap_or("");
    if problem.code == ProblemCode::Internal {
        tracing::error!(request.id = %id, error.cause = cause, "a request failed by a defect");
    } else if problem.code == ProblemCode::Unavailable {
        tracing::warn!(request.id = %id, error.cause = cause, "a request could not be served now");
    }
    problem.request_id = Some(id.to_string());
    let status = StatusCode::from_u16(problem.status).unwrap_or(status);
    let body = serde_json::to_vec(&problem).unwrap_or_default();
    let (mut parts, _) = response.into_parts();
    parts.status = status;
    parts.headers.remove(header::CONTENT_LENGTH);
    parts.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    Response::from_parts(parts, Body::from(body))
}

pub(super) fn dress(response: &mut Response, id: &str) {
    let headers = response.headers_mut();
    if let Ok(id) = HeaderValue::from_str(id) {
        headers.insert(REQUEST_ID, id);
    }
    let fixed = [
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "no-referrer"),
    ];
    for (name, value) in fixed {
        headers.insert(name, HeaderValue::from_static(value));
    }
    for (name, value) in [(header::CACHE_CONTROL, "no-store"), (header::CONTENT_SECURITY_POLICY, API_POLICY)] {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    }
}
