//! The surface: routes, one file a noun. Handlers decode, call a use case and encode; every rule stands in `app`.

mod accounts;
mod activation_keys;
mod attach_points;
mod channels;
mod connections;
pub mod coordinator;
mod docs;
mod documents;
mod environments;
mod events;
mod extract;
mod filter;
mod finish;
mod gate;
mod gateways;
mod health;
mod home;
mod interconnects;
mod issues;
mod metrics;
mod mutation;
mod operations;
mod pages;
mod plans;
mod problem;
mod streams;
#[cfg(test)]
mod tests;
mod tokens;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use axum::{
    Router,
    extract::{DefaultBodyLimit, Request, State},
    middleware,
    response::{IntoResponse, Response},
    routing::{MethodRouter, post},
};
use futures::future::BoxFuture;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;
use tower_http::catch_panic::CatchPanicLayer;
use utoipa::openapi::OpenApi;
use utoipa_axum::router::{OpenApiRouter, UtoipaMethodRouter};

use crate::{app::App, auth::FailureThrottle};

pub use documents::{document, operations};
pub use metrics::Metrics;
pub use streams::StreamLimits;

/// What handlers share.
#[derive(Clone)]
pub struct Http {
    app: Arc<App>,
    metrics: Arc<Metrics>,
    routes: Arc<gate::Routes>,
    failures: Arc<FailureThrottle>,
    document: Arc<str>,
    streams: Arc<streams::Streams>,
    longest: Duration,
    stop: CancellationToken,
}

/// What the surface is made of.
pub struct Surface {
    /// The use cases.
    pub app: Arc<App>,
    /// Counted into.
    pub metrics: Arc<Metrics>,
    /// How many streams may be open.
    pub streams: StreamLimits,
    /// Ends the streams when it is cancelled.
    pub stop: CancellationToken,
}

/// The router of the whole surface.
///
/// # Errors
/// If the OpenAPI document cannot be written as JSON.
pub fn router(surface: Surface) -> Result<Router, serde_json::Error> {
    routed(api(), surface, gate::LONGEST)
}

/// The router of these documented routes and of everything that stands around them. A handler may take `longest`.
fn routed(api: OpenApiRouter<Http>, surface: Surface, longest: Duration) -> Result<Router, serde_json::Error> {
    let Surface { app, metrics, streams, stop } = surface;
    let (api, raw) = api.split_for_parts();
    let document = documents::complete(raw);
    let failures = Arc::new(FailureThrottle::new(Arc::clone(&app.clock)));
    let state = Http {
        routes: Arc::new(gate::Routes::of(&document)),
        document: document.to_json()?.into(),
        streams: streams::Streams::new(streams, Arc::clone(&metrics)),
        app,
        metrics,
        failures,
        longest,
        stop,
    };
    Ok(api
        .layer(middleware::from_fn_with_state(state.clone(), gate::gate))
        .merge(home::routes())
        .merge(docs::routes())
        .fallback(finish::nothing_here)
        .layer(DefaultBodyLimit::max(extract::BODY_LIMIT))
        .layer(CatchPanicLayer::custom(finish::panicked))
        .layer(middleware::from_fn_with_state(state.clone(), finish::finish))
        .with_state(state))
}

/// Every documented route.
fn api() -> OpenApiRouter<Http> {
    OpenApiRouter::with_openapi(documents::frame())
        .merge(connections::routes())
        .merge(activation_keys::routes())
        .merge(channels::routes())
        .merge(plans::routes())
        .merge(operations::routes())
        .merge(accounts::routes())
        .merge(environments::routes())
        .merge(interconnects::routes())
        .merge(attach_points::routes())
        .merge(gateways::routes())
        .merge(tokens::routes())
        .merge(issues::routes())
        .merge(events::routes())
        .merge(metrics::routes())
        .merge(health::routes())
        .merge(documents::routes())
}

/// Adds an operation with a custom verb.
fn with_verb(router: OpenApiRouter<Http>, verb: UtoipaMethodRouter<Http>) -> OpenApiRouter<Http> {
    with_verbs(router, [verb])
}

/// Adds operations with custom verbs. Their documents say `{id}:verb`, which the router cannot tell apart: it routes `{id}`,
/// the gate lets through only the verbs that are documented, and the verb chooses the handler.
fn with_verbs<const N: usize>(
    mut router: OpenApiRouter<Http>,
    verbs: [UtoipaMethodRouter<Http>; N],
) -> OpenApiRouter<Http> {
    let mut routed: BTreeMap<String, BTreeMap<String, MethodRouter<Http>>> = BTreeMap::new();
    for (schemas, documented, handler) in verbs {
        for path in documented.paths.keys() {
            let (path, verb) = extract::split_verb(path);
            let of_path = routed.entry(path.to_owned()).or_default();
            of_path.insert(verb.unwrap_or_default().to_owned(), handler.clone());
        }
        let document: &mut OpenApi = router.get_openapi_mut();
        document.paths.paths.extend(documented.paths);
        document.components.get_or_insert_default().schemas.extend(schemas);
    }
    for (path, handlers) in routed {
        router = router.route(&path, post(by_verb(handlers)));
    }
    router
}

/// The handler that the last segment of the path asks for.
fn by_verb(
    handlers: BTreeMap<String, MethodRouter<Http>>,
) -> impl Fn(State<Http>, Request) -> BoxFuture<'static, Response> + Clone + Send + Sync {
    let handlers = Arc::new(handlers);
    move |State(http), request| {
        let handlers = Arc::clone(&handlers);
        Box::pin(async move {
            let segment = extract::last_segment(request.uri().path());
            let handler = extract::split_verb(&segment).1.and_then(|verb| handlers.get(verb)).cloned();
            match handler {
                Some(handler) => handler.with_state(http).oneshot(request).await.into_response(),
                None => problem::Fault::not_found().into_response(),
            }
        })
    }
}
