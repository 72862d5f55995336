//! The HTTP server of a simulator: a loopback port, the cloud's API, and `/_lab/...` beside it.
//!
//! It accepts connections itself, because an injected fault must be able to close one without an answer.

use std::{
    convert::Infallible,
    io,
    net::Ipv4Addr,
    sync::{Arc, Mutex, PoisonError},
};

use axum::{
    Json, Router,
    body::{self, Body, Bytes},
    extract::{Path, Request, State},
    http::StatusCode,
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{delete, get, post},
};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::ServiceExt;

use super::{
    document,
    faults::Fault,
    sim::{Admin, Cloud, Corruption, Doubled, HangUp, Lag, Running, Sim},
};

/// The header that carries the lab's admin token.
pub const ADMIN_HEADER: &str = "x-lab-token";

/// The longest request body that is read.
const LONGEST: usize = 1 << 20;

/// Why a simulator did not start.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// No loopback port.
    #[error("cannot listen on a loopback port")]
    Listen(#[source] io::Error),
    /// The described world contradicts itself.
    #[error("the world of the simulated cloud is wrong: {0}")]
    World(String),
}

/// Serves an API until [`Running`] is dropped or shut down.
pub(crate) async fn start<S: Cloud>(sim: Arc<Sim<S>>, api: Router) -> Result<Running, ServeError> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.map_err(ServeError::Listen)?;
    let url = format!("http://{}", listener.local_addr().map_err(ServeError::Listen)?);
    let stop = CancellationToken::new();
    let tasks = TaskTracker::new();
    let admin: Arc<dyn Admin> = sim.clone();
    let late = Late { api: api.clone(), requests: Arc::default() };
    let doubling = middleware::from_fn_with_state(late.clone(), double);
    let app = api.layer(doubling).nest("/_lab", admin_routes(Arc::clone(&admin), late));
    tasks.spawn(sim.keep(stop.clone()));
    tasks.spawn(accept(listener, app, stop.clone(), tasks.clone()));
    tracing::info!(site = S::SITE, url, "simulated cloud serves");
    Ok(Running { url, admin, stop, tasks })
}

async fn accept(listener: TcpListener, app: Router, stop: CancellationToken, tasks: TaskTracker) {
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                tasks.spawn(converse(stream, app.clone(), stop.clone()));
            }
            Err(error) => {
                // Out of descriptors: the next accept fails at once too.
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            }
        }
    }
}

async fn converse(stream: TcpStream, app: Router, stop: CancellationToken) {
    let service = service_fn(move |request: Request<Incoming>| {
        let app = app.clone();
        async move {
            let response = match app.oneshot(request.map(Body::new)).await {
                Ok(response) => response,
                Err(impossible) => match impossible as Infallible {},
            };
            if response.extensions().get::<HangUp>().is_some() {
                return Err(io::Error::from(io::ErrorKind::ConnectionAborted));
            }
            Ok::<_, io::Error>(response)
        }
    });
    let connection = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    tokio::select! {
        () = stop.cancelled() => {}
        ended = connection => if let Err(error) = ended {
            tracing::debug!(%error, "a connection ended early");
        }
    }
}

/// What the network holds back: second copies of requests, and the API at which they arrive one day.
#[derive(Clone)]
struct Late {
    api: Router,
    requests: Arc<Mutex<Vec<Request<Bytes>>>>,
}

async fn double(State(late): State<Late>, request: Request, next: Next) -> Response {
    let (head, body) = request.into_parts();
    let body = match body::to_bytes(body, LONGEST).await {
        Ok(body) => body,
        Err(error) => return (StatusCode::PAYLOAD_TOO_LARGE, error.to_string()).into_response(),
    };
    let second = Request::from_parts(head.clone(), body.clone());
    let response = next.run(Request::from_parts(head, Body::from(body))).await;
    if response.extensions().get::<Doubled>().is_some() {
        late.requests.lock().unwrap_or_else(PoisonError::into_inner).push(second);
    }
    response
}

async fn arrive(State(late): State<Late>) -> Json<Vec<u16>> {
    let requests = std::mem::take(&mut *late.requests.lock().unwrap_or_else(PoisonError::into_inner));
    let mut statuses = Vec::new();
    for request in requests {
        match late.api.clone().oneshot(request.map(Body::from)).await {
            Ok(response) => statuses.push(response.status().as_u16()),
            Err(impossible) => match impossible as Infallible {},
        }
    }
    Json(statuses)
}

fn admin_routes(admin: Arc<dyn Admin>, late: Late) -> Router {
    Router::new()
        .route("/late", post(arrive).with_state(late))
        .route("/dump", get(dump))
        .route("/calls", get(calls))
        .route("/corrupt", post(corrupt))
        .route("/faults", get(list_faults).post(add_fault).delete(clear_faults))
        .route("/faults/{id}", delete(clear_fault))
        .route("/lag", get(read_lag).put(write_lag))
        .route_layer(middleware::from_fn_with_state(Arc::clone(&admin), authorize))
        .with_state(admin)
}

async fn authorize(State(admin): State<Arc<dyn Admin>>, request: Request, next: Next) -> Response {
    let given = request.headers().get(ADMIN_HEADER).and_then(|value| value.to_str().ok());
    if given == Some(admin.token()) {
        return next.run(request).await;
    }
    let message = format!("the header {ADMIN_HEADER} must carry the lab's admin token");
    (StatusCode::UNAUTHORIZED, Json(json!({ "error": message }))).into_response()
}

async fn dump(State(admin): State<Arc<dyn Admin>>) -> Response {
    ([("content-type", "application/json")], document::pretty(&admin.dump())).into_response()
}

async fn calls(State(admin): State<Arc<dyn Admin>>) -> Response {
    Json(admin.journal()).into_response()
}

async fn corrupt(State(admin): State<Arc<dyn Admin>>, Json(corruption): Json<Corruption>) -> Response {
    match admin.corrupt(&corruption) {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        Err(error) => (StatusCode::BAD_REQUEST, Json(json!({ "error": error.to_string() }))).into_response(),
    }
}

async fn list_faults(State(admin): State<Arc<dyn Admin>>) -> Response {
    Json(admin.faults().list()).into_response()
}

async fn add_fault(State(admin): State<Arc<dyn Admin>>, Json(fault): Json<Fault>) -> Response {
    (StatusCode::CREATED, Json(json!({ "id": admin.faults().add(fault) }))).into_response()
}

async fn clear_faults(State(admin): State<Arc<dyn Admin>>) -> StatusCode {
    admin.faults().clear(None);
    StatusCode::NO_CONTENT
}

async fn clear_fault(State(admin): State<Arc<dyn Admin>>, Path(id): Path<u64>) -> StatusCode {
    admin.faults().clear(Some(id));
    StatusCode::NO_CONTENT
}

async fn read_lag(State(admin): State<Arc<dyn Admin>>) -> Response {
    Json(admin.lag()).into_response()
}

async fn write_lag(State(admin): State<Arc<dyn Admin>>, Json(lag): Json<Lag>) -> StatusCode {
    admin.set_lag(lag);
    StatusCode::NO_CONTENT
}
