//! `/coordinator/v1`: the Connection Coordinator API, on a listener of its own that only peers get through to. A route an
//! operation of the specification; a peer sees its own subtree, and all else is not there.

mod connections;
mod features;
mod incoming;
mod issues;
mod listener;
mod places;

use std::{collections::BTreeMap, future::Future, sync::Arc, time::Duration};

use axum::{
    Json, Router,
    extract::{DefaultBodyLimit, Request, State},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{MethodFilter, on},
};
use tieline_openapi::{
    coordinator::{BASE_PATH, Method, Operation, ResourceId},
    problem::ProblemCode,
};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tower_http::catch_panic::CatchPanicLayer;

use self::{
    incoming::Incoming,
    listener::{Caller, PeerListener},
};
use super::{
    extract, finish,
    problem::{self, Fault},
};
use crate::{
    app::AppError,
    auth::CallThrottle,
    coordinator::{Coordination, CoordinationError},
    plan::coordinate::{Refusal, Reply},
};

/// The longest that a call may take.
const LONGEST: Duration = Duration::from_secs(30);

/// What handlers share.
#[derive(Clone)]
pub(super) struct Peers {
    coordination: Arc<Coordination>,
    limits: Arc<BTreeMap<ResourceId, CallThrottle>>,
}

/// Why the surface for peers ended.
#[derive(Debug, thiserror::Error)]
pub enum PeersError {
    /// It could not be set up.
    #[error(transparent)]
    Setup(#[from] CoordinationError),
    /// The listener failed.
    #[error("the listener for peers failed")]
    Listen(#[source] std::io::Error),
}

/// Serves peers until `stop` is cancelled, then finishes what is under way.
///
/// # Errors
/// [`PeersError`].
pub async fn serve(
    coordination: Arc<Coordination>,
    listener: TcpListener,
    stop: CancellationToken,
) -> Result<(), PeersError> {
    let clock = Arc::clone(coordination.clock());
    let (listener, accepting) = PeerListener::start(coordination.config(), listener, clock, stop.clone())?;
    let service = router(coordination).into_make_service_with_connect_info::<Caller>();
    let served = axum::serve(listener, service).with_graceful_shutdown(stop.cancelled_owned());
    let served = served.await.map_err(PeersError::Listen);
    // The address is free when this returns.
    if let Err(error) = accepting.await {
        tracing::error!(error.cause = %error, "the listener for peers did not end well");
    }
    served
}

/// Every operation.
fn router(coordination: Arc<Coordination>) -> Router {
    let per_second = coordination.config().requests_per_second;
    let limits = coordination
        .peers()
        .map(|peer| (peer.id.clone(), CallThrottle::new(Arc::clone(coordination.clock()), per_second)));
    let state = Peers { limits: Arc::new(limits.collect()), coordination: Arc::clone(&coordination) };
    let router = places::routes(Router::new());
    let router = connections::routes(router);
    let router = features::routes(router);
    let router = issues::routes(router);
    router
        .fallback(finish::nothing_here)
        .method_not_allowed_fallback(|| async {
            Fault::new(ProblemCode::MethodNotAllowed, "this path does not take this method")
        })
        .layer(DefaultBodyLimit::max(extract::BODY_LIMIT))
        .layer(CatchPanicLayer::custom(finish::panicked))
        .layer(middleware::from_fn_with_state(state.clone(), outermost))
        .with_state(state)
}

/// Adds an operation.
fn with<O, F, A>(router: Router<Peers>, handler: F) -> Router<Peers>
where
    O: Operation,
    F: Fn(Arc<Coordination>, Incoming<O>) -> A + Clone + Send + Sync + 'static,
    A: Future<Output = Result<O::Answer, Fault>> + Send,
{
    let method = match O::ID.method() {
        Method::Get => MethodFilter::GET,
        Method::Post => MethodFilter::POST,
        Method::Patch => MethodFilter::PATCH,
        Method::Delete => MethodFilter::DELETE,
    };
    let path = format!("{BASE_PATH}{}", O::ID.template());
    let handle = move |State(peers): State<Peers>, request: Request| async move {
        let work = async {
            let incoming = incoming::read::<O>(&peers, request).await?;
            handler(Arc::clone(&peers.coordination), incoming).await
        };
        let late = || {
            let detail = "the answer took too long; whether it was done is not known: send the same request again";
            Fault::new(ProblemCode::Unavailable, detail)
        };
        let clock = peers.coordination.clock();
        let answer = tokio::select! {
            answer = work => answer,
            () = clock.sleep(LONGEST) => Err(late()),
        };
        let mut response = answer.map(Json).into_response();
        response.extensions_mut().insert(Named(O::ID.as_str()));
        response
    };
    router.route(&path, on(method, handle))
}

/// The operation of an answer, for the log.
#[derive(Debug, Clone, Copy)]
struct Named(&'static str);

/// Gives every call an id, every error its document, and every answer its headers and its log line.
async fn outermost(State(peers): State<Peers>, mut request: Request, next: Next) -> Response {
    let (clock, random) = (peers.coordination.clock(), peers.coordination.random());
    let begun = clock.monotonic();
    let id: Arc<str> = finish::accepted(&request).unwrap_or_else(|| random.uuid_v7(clock.now()).to_string().into());
    request.extensions_mut().insert(finish::RequestId(Arc::clone(&id)));
    let caller = request.extensions().get::<axum::extract::ConnectInfo<Caller>>().map(|info| info.0.0.to_string());
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let response = next.run(request).await;
    let operation = response.extensions().get::<Named>().map_or("none", |name| name.0);
    let mut response = finish::with_problem(response, &id);
    finish::dress(&mut response, &id);
    tracing::info!(
        http.request.method = %method,
        url.path = %path,
        http.response.status_code = response.status().as_u16(),
        tieline.operation = operation,
        tieline.peer = caller.as_deref().unwrap_or(""),
        tieline.duration_us = u64::try_from(clock.monotonic().saturating_sub(begun).as_micros()).unwrap_or(u64::MAX),
        request.id = %id,
        "answered a peer"
    );
    response
}

/// A refusal of the protocol as a problem document.
fn refused(refusal: &Refusal) -> Fault {
    let code = match refusal.status {
        400 => ProblemCode::InvalidRequest,
        403 => ProblemCode::Forbidden,
        404 => ProblemCode::NotFound,
        405 => ProblemCode::MethodNotAllowed,
        409 => ProblemCode::Conflict,
        _ => ProblemCode::Internal,
    };
    Fault::new(code, refusal.rule.clone()).remedy("Read what is there, and decide anew.")
}

/// What a change was answered with.
fn done(reply: &Reply) -> Result<(), Fault> {
    match reply {
        Reply::Refused(refusal) => Err(refused(refusal)),
        Reply::Done | Reply::Key(_) | Reply::Guidance(_) | Reply::Seen { .. } => Ok(()),
    }
}

/// What is never done here.
fn never(why: &str) -> Fault {
    Fault::new(ProblemCode::MethodNotAllowed, why).remedy("Do not ask for this.")
}

impl From<CoordinationError> for Fault {
    fn from(error: CoordinationError) -> Self {
        let text = error.to_string();
        let field = |pointer: &str, message: String| Self::invalid(vec![crate::app::error::field(pointer, message)]);
        match error {
            CoordinationError::Store(error) => AppError::from(error).into(),
            CoordinationError::Wire(wrong) => field(&format!("/{}", wrong.field), wrong.message),
            CoordinationError::KeyText(_)
            | CoordinationError::KeyContents(_)
            | CoordinationError::KeyElsewhere
            | CoordinationError::KeyOfAnother => field("/encodedKey", text),
            CoordinationError::NoPeer(_) => Self::new(ProblemCode::Conflict, text)
                .remedy("Write the pairing into [coordinator] of tieline.toml, and start the service again."),
            CoordinationError::Key(error) => match error {
                crate::secrets::ActivationKeyError::Unopened => field("/encodedKey", text),
                crate::secrets::ActivationKeyError::PublicKey | crate::secrets::ActivationKeyError::TooLong => {
                    Self::new(ProblemCode::Unavailable, text)
                }
                crate::secrets::ActivationKeyError::Generate | crate::secrets::ActivationKeyError::Stored => {
                    problem::defect(&error)
                }
            },
            CoordinationError::Wish(_) => {
                Self::new(ProblemCode::Conflict, text).remedy("Do what `detail` says, then ask again.")
            }
            CoordinationError::Peer(_) => Self::new(ProblemCode::Unavailable, text)
                .remedy("Run `tieline coordinator check`; try again when the peer answers."),
            CoordinationError::Contended => Self::new(ProblemCode::Unavailable, text),
            CoordinationError::File { .. }
            | CoordinationError::Pem { .. }
            | CoordinationError::Tls(_)
            | CoordinationError::Secret(_)
            | CoordinationError::Passwords(_)
            | CoordinationError::Answer(_)
            | CoordinationError::Lost(_) => problem::defect(&error),
        }
    }
}
