//! What a caller gets from a handler that fails by itself: one that panics, one that takes too long.

use std::{
    io::Write,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{body::Body, http::Request, response::Response};
use http_body_util::BodyExt;
use serde_json::Value;
use tieline_openapi::config::Config;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;
use tracing_subscriber::fmt::MakeWriter;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{Http, Metrics, StreamLimits, Surface, routed};
use crate::{
    app::{App, Vault},
    clouds,
    engine::clock::{ChaChaRandom, Random, SystemClock},
    events::Hints,
    secrets::Sealer,
    store::{OpenOptions, open},
    topology::Topology,
};

/// Both stand in the places of operations that need no token.
#[utoipa::path(get, path = "/panics", operation_id = "getHealth", responses((status = 200)))]
async fn panics() {
    panic!("the handler's own words");
}

#[utoipa::path(get, path = "/hangs", operation_id = "getReadiness", responses((status = 200)))]
async fn hangs() {
    std::future::pending().await
}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(line)
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Self;
    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

impl Log {
    /// The lines at a level that name a request.
    fn lines(&self, level: &str, request: &str) -> usize {
        let text = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
        text.lines().filter(|line| line.contains(level) && line.contains(request)).count()
    }
}

async fn ask(path: &str) -> (Response, Arc<Metrics>) {
    let folder = tempfile::tempdir().unwrap();
    let random: Arc<dyn Random> = Arc::new(ChaChaRandom::from_seed(1));
    let (sealer, _) = Sealer::from_key_file_or_new(&folder.path().join("key"), &*random).unwrap();
    let app = App {
        store: open("sqlite::memory:", OpenOptions::default()).await.unwrap(),
        topology: Arc::new(Topology::new(&Config::default(), clouds::rules())),
        vault: Vault::new(Arc::new(sealer), Arc::clone(&random)),
        clock: Arc::new(SystemClock::new()),
        random,
        hints: Hints::new(),
        coordination: None,
        choosing: Default::default(),
    };
    let metrics = Arc::new(Metrics::new());
    let surface = Surface {
        app: Arc::new(app),
        metrics: Arc::clone(&metrics),
        streams: StreamLimits::default(),
        stop: CancellationToken::new(),
    };
    let api: OpenApiRouter<Http> = OpenApiRouter::new().routes(routes!(panics)).routes(routes!(hangs));
    let router = routed(api, surface, Duration::from_millis(50)).unwrap();
    let request = Request::get(path).header("x-request-id", "the-request").body(Body::empty()).unwrap();
    (router.oneshot(request).await.unwrap(), metrics)
}

async fn problem(response: Response) -> Value {
    assert_eq!(response.headers()["content-type"], "application/problem+json");
    assert_eq!(response.headers()["x-request-id"], "the-request");
    let body = response.into_body().collect().await.unwrap().to_bytes();
    serde_json::from_slice(&body).unwrap()
}

fn listen() -> (Log, tracing::subscriber::DefaultGuard) {
    let log = Log::default();
    let subscriber = tracing_subscriber::fmt().with_writer(log.clone()).with_ansi(false).finish();
    (log, tracing::subscriber::set_default(subscriber))
}

#[tokio::test]
async fn a_panic_is_a_500_that_names_its_request_and_is_logged_once() {
    let (log, _listening) = listen();
    let (response, metrics) = ask("/panics").await;
    assert_eq!(response.status(), 500);
    let problem = problem(response).await;
    assert_eq!((&problem["code"], &problem["requestId"]), (&"internal".into(), &"the-request".into()));
    assert!(!problem.to_string().contains("own words"), "what went wrong inside is for the log: {problem}");
    assert_eq!(log.lines("ERROR", "the-request"), 1);
    assert_eq!(log.lines("ERROR", "the handler's own words"), 1);
    assert!(metrics.text().unwrap().contains("status=\"500\"} 1"));
}

#[tokio::test]
async fn a_handler_that_takes_too_long_is_a_503() {
    let (log, _listening) = listen();
    let (response, _) = ask("/hangs").await;
    assert_eq!(response.status(), 503);
    assert_eq!(response.headers()["retry-after"], "1");
    let problem = problem(response).await;
    assert_eq!((&problem["code"], &problem["retryable"]), (&"unavailable".into(), &true.into()));
    assert_eq!(log.lines("WARN", "the-request"), 1);
    assert_eq!(log.lines("ERROR", ""), 0);
}
