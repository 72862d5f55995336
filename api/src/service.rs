//! The assembly of `tieline serve`: store, engine and surface in one process.

use std::{future::Future, pin::Pin, sync::Arc};

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::{
    app::{App, Vault},
    engine::clock::{Clock, Random},
    events::{Hints, Wake},
    http::{self, Metrics},
    store::Store,
    topology::Topology,
};

/// A task that runs beside the surface until its token is cancelled: the engine.
pub type Task = Box<dyn FnOnce(CancellationToken) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send>;

/// What a service is made of.
pub struct ServeOptions {
    /// The store.
    pub store: Arc<dyn Store>,
    /// What exists before any connection.
    pub topology: Arc<Topology>,
    /// Secrets at rest.
    pub vault: Vault,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub random: Arc<dyn Random>,
    /// Woken by the surface after each commit: the engine listens.
    pub engine: Arc<dyn Wake>,
    /// Woken by the engine after each commit: streams and waiting answers listen.
    pub changes: Hints,
    /// The process's metrics.
    pub metrics: Arc<Metrics>,
    /// What runs beside the surface: the engine's loops.
    pub tasks: Vec<Task>,
}

/// Why a service ended.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The OpenAPI document could not be written.
    #[error("the OpenAPI document cannot be written as JSON")]
    Document(#[from] serde_json::Error),
    /// The listener failed.
    #[error("the listener failed")]
    Listen(#[source] std::io::Error),
}

/// Serves until `shutdown` is cancelled: takes no new requests, ends the streams, finishes what is under way, stops the tasks
/// and returns.
///
/// # Errors
/// [`ServeError`].
pub async fn serve(
    options: ServeOptions,
    listener: TcpListener,
    shutdown: CancellationToken,
) -> Result<(), ServeError> {
    let ServeOptions { store, topology, vault, clock, random, engine, changes, metrics, tasks } = options;
    let app = Arc::new(App { store, topology, vault, clock, random, engine, changes });
    let router = http::router(app, metrics, shutdown.clone())?;
    // The surface may fail by itself; the tasks then stop too.
    let stop = shutdown.child_token();
    let running: Vec<_> = tasks.into_iter().map(|task| tokio::spawn(task(stop.clone()))).collect();
    let served = axum::serve(listener, router).with_graceful_shutdown(shutdown.cancelled_owned()).await;
    stop.cancel();
    for task in running {
        if let Err(error) = task.await {
            tracing::error!(error.cause = %error, "a task of the service did not end well");
        }
    }
    served.map_err(ServeError::Listen)
}
