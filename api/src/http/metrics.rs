//! `/metrics`, in the text form of Prometheus (OpenMetrics 1.0).

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use axum::{
    extract::State,
    http::header,
    response::{IntoResponse, Response},
};
use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::{Registry, Unit},
};
use tieline_openapi::problem::ProblemCode;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    Http,
    extract::{Nothing, Query},
    problem::Fault,
};

const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Both labels have few values: no path and no id is one.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Answered {
    operation: &'static str,
    status: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfOperation {
    operation: &'static str,
}

/// Which limit a stream was refused by: `principal` or `total`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Refused {
    limit: &'static str,
}

/// The process's metrics. Other rooms register theirs beside the surface's own.
pub struct Metrics {
    registry: Mutex<Registry>,
    requests: Family<Answered, Counter>,
    durations: Family<OfOperation, Histogram>,
    failed_authentications: Counter,
    streams: Gauge,
    refused_streams: Family<Refused, Counter>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// The surface's metrics, all at zero.
    #[must_use]
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("tieline");
        let requests = Family::<Answered, Counter>::default();
        // 250 µs to 8 s: what a database behind HTTP takes.
        let durations = Family::<OfOperation, Histogram>::new_with_constructor(|| {
            Histogram::new(exponential_buckets(0.000_25, 2.0, 16))
        });
        let failed_authentications = Counter::default();
        let streams = Gauge::default();
        registry.register("http_requests", "Answers by operation and status", requests.clone());
        registry.register_with_unit(
            "http_request_duration",
            "Time from the request's head to the answer's head",
            Unit::Seconds,
            durations.clone(),
        );
        registry.register(
            "http_failed_authentications",
            "Requests without a token that holds",
            failed_authentications.clone(),
        );
        registry.register("http_open_streams", "Event and configuration streams that are open", streams.clone());
        let refused_streams = Family::<Refused, Counter>::default();
        registry.register(
            "http_refused_streams",
            "Streams that were refused because too many were open, of one principal or of all",
            refused_streams.clone(),
        );
        Self { registry: Mutex::new(registry), requests, durations, failed_authentications, streams, refused_streams }
    }

    /// Lets another room register its metrics.
    pub fn register(&self, add: impl FnOnce(&mut Registry)) {
        add(&mut self.registry.lock().unwrap_or_else(PoisonError::into_inner));
    }

    pub(super) fn answered(&self, operation: &'static str, status: u16, took: Duration) {
        self.requests.get_or_create(&Answered { operation, status }).inc();
        self.durations.get_or_create(&OfOperation { operation }).observe(took.as_secs_f64());
    }

    pub(super) fn authentication_failed(&self) {
        self.failed_authentications.inc();
    }

    pub(super) fn streams_open(&self, now: usize) {
        self.streams.set(i64::try_from(now).unwrap_or(i64::MAX));
    }

    pub(super) fn stream_refused(&self, limit: &'static str) {
        self.refused_streams.get_or_create(&Refused { limit }).inc();
    }

    pub(super) fn text(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        encode(&mut text, &self.registry.lock().unwrap_or_else(PoisonError::into_inner))?;
        Ok(text)
    }
}

pub(super) fn routes() -> OpenApiRouter<Http> {
    OpenApiRouter::new().routes(routes!(show))
}

/// Shows the metrics of this process.
#[utoipa::path(get, path = "/metrics", operation_id = "getMetrics", tag = "health",
    responses((status = 200, description = "OpenMetrics 1.0 text.", body = String,
        content_type = "application/openmetrics-text")))]
async fn show(State(http): State<Http>, Query(Nothing {}): Query<Nothing>) -> Result<Response, Fault> {
    match http.metrics.text() {
        Ok(text) => Ok(([(header::CONTENT_TYPE, CONTENT_TYPE)], text).into_response()),
        Err(_) => Err(Fault::new(ProblemCode::Internal, "the metrics cannot be written")),
    }
}
