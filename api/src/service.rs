//! The assembly of `tieline serve`: store, engine and surface in one process.

use std::sync::Arc;

use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::{
    app::{App, Vault},
    coordinator::Coordination,
    engine::{
        Engine, Progress,
        clock::{Clock, Random},
    },
    events::{Hints, Topic},
    http::{self, Metrics, StreamLimits, Surface},
    store::Store,
    topology::Topology,
};

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
    /// The hints that the store was opened with.
    pub hints: Hints,
    /// How many event and configuration streams may be open.
    pub streams: StreamLimits,
    /// The engine, which runs beside the surface; without one nothing is provisioned here.
    pub engine: Option<Arc<Engine>>,
    /// Pairings of the open specification, and the listener where peers reach us.
    pub coordinator: Option<(Arc<Coordination>, TcpListener)>,
}

/// Why a service ended.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The OpenAPI document could not be written.
    #[error("the OpenAPI document cannot be written as JSON")]
    Document(#[from] serde_json::Error),
    /// The surface for peers ended.
    #[error(transparent)]
    Peers(#[from] http::coordinator::PeersError),
    /// The listener failed.
    #[error("the listener failed")]
    Listen(#[source] std::io::Error),
}

/// Serves until `shutdown` is cancelled: takes no new requests, ends the streams, finishes what is under way, lets the engine
/// end its passes, and returns.
///
/// # Errors
/// [`ServeError`].
pub async fn serve(
    options: ServeOptions,
    listener: TcpListener,
    shutdown: CancellationToken,
) -> Result<(), ServeError> {
    let ServeOptions { store, topology, vault, clock, random, hints, streams, engine, coordinator } = options;
    let metrics = Arc::new(Metrics::new());
    if let Some(engine) = &engine {
        metrics.register(|registry| register(registry, engine.progress()));
    }
    let coordination = coordinator.as_ref().map(|(coordination, _)| Arc::clone(coordination));
    let app = Arc::new(App {
        store,
        topology,
        vault,
        clock,
        random,
        hints: hints.clone(),
        coordination,
        choosing: Default::default(),
    });
    // The surface may fail by itself; what goes on beside it then stops too.
    let stop = shutdown.child_token();
    let keys = tokio::spawn({
        let (app, stop) = (Arc::clone(&app), stop.clone());
        async move { app.keep_tunnel_keys(stop).await }
    });
    let router = http::router(Surface { app, metrics, streams, stop: shutdown.clone() })?;
    let engine = engine.map(|engine| tokio::spawn(run(engine, hints, stop.clone())));
    let peers = coordinator.map(|(coordination, listener)| {
        let driven = tokio::spawn(Arc::clone(&coordination).run(stop.clone()));
        (driven, tokio::spawn(peers(coordination, listener, stop.clone(), shutdown.clone())))
    });
    let served = axum::serve(listener, router).with_graceful_shutdown(shutdown.cancelled_owned()).await;
    stop.cancel();
    if let Err(error) = keys.await {
        tracing::error!(error.cause = %error, "the keeper of preshared keys did not end well");
    }
    if let Some(engine) = engine
        && let Err(error) = engine.await
    {
        tracing::error!(error.cause = %error, "the engine did not end well");
    }
    if let Some((driven, serving)) = peers {
        if let Err(error) = driven.await {
            tracing::error!(error.cause = %error, "the driver of the peers did not end well");
        }
        match serving.await {
            Ok(ended) => ended?,
            Err(error) => tracing::error!(error.cause = %error, "the surface for peers did not end well"),
        }
    }
    served.map_err(ServeError::Listen)
}

/// Serves peers. Where that cannot go on, nothing does: half a service is found out too late.
async fn peers(
    coordination: Arc<Coordination>,
    listener: TcpListener,
    stop: CancellationToken,
    shutdown: CancellationToken,
) -> Result<(), http::coordinator::PeersError> {
    let served = http::coordinator::serve(coordination, listener, stop).await;
    shutdown.cancel();
    served
}

/// Runs the engine, and wakes it at every commit that makes a connection due.
async fn run(engine: Arc<Engine>, hints: Hints, stop: CancellationToken) {
    let waker = engine.waker();
    let mut due = hints.subscribe(Topic::Due);
    let hinted = async {
        loop {
            due.wait().await;
            waker.wake();
        }
    };
    tokio::select! {
        () = engine.run(stop) => {}
        () = hinted => {}
    }
}

/// The engine's counters, read at each scrape.
fn register(registry: &mut Registry, progress: Arc<Progress>) {
    registry.register_collector(Box::new(EngineMetrics(progress)));
}

#[derive(Debug)]
struct EngineMetrics(Arc<Progress>);

impl prometheus_client::collector::Collector for EngineMetrics {
    fn encode(&self, mut encoder: prometheus_client::encoding::DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        use prometheus_client::{
            encoding::EncodeMetric,
            metrics::{counter::ConstCounter, gauge::ConstGauge},
        };
        let progress = &self.0;
        let counters = [
            ("engine_passes", "Passes over connections that were begun", progress.passes()),
            ("engine_fenced_passes", "Passes whose claim another replica took over", progress.fenced()),
            ("engine_failed_passes", "Passes that ended in an error of the store", progress.failed()),
            ("engine_provider_calls", "Mutating calls that were sent to providers", progress.calls()),
            ("engine_provider_reads", "Reads and pages of lists that were asked of providers", progress.reads()),
            ("engine_swept_resources", "Orphans and twins that the sweep deleted", progress.swept()),
        ];
        for (name, help, value) in counters {
            let counter = ConstCounter::new(value);
            counter.encode(encoder.encode_descriptor(name, help, None, counter.metric_type())?)?;
        }
        let foreign = ConstGauge::new(i64::try_from(progress.foreign()).unwrap_or(i64::MAX));
        let help = "Others' resources that the last sweep saw";
        foreign.encode(encoder.encode_descriptor("engine_foreign_resources", help, None, foreign.metric_type())?)?;
        if let Some(at) = progress.last_progress_at() {
            let at = ConstGauge::new(at.as_millisecond() as f64 / 1000.0);
            let help = "When any connection last went forward, in seconds since 1970";
            at.encode(encoder.encode_descriptor(
                "engine_last_progress_timestamp_seconds",
                help,
                None,
                at.metric_type(),
            )?)?;
        }
        Ok(())
    }
}
