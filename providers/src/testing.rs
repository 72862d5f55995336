//! A cloud's API at a loopback port, for the adapters' tests: it keeps every request, gives canned answers, and holds both
//! against the vendors' own models.

use axum::{
    Router,
    body::{Body, Bytes},
    extract::State,
    http::{HeaderMap, Method, Response, Uri},
};
use serde_json::Value;
use std::{
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};
use tieline_openapi::{
    config::AccountConfig,
    ids::{InstallationId, InstanceId},
    v1::{AttachPointType, BfdSettings, End},
};
use uuid::Uuid;

use crate::{
    api::Target,
    feature::{Addressing, FeatureSide, Ipv4Pair},
    resource::{Lookup, OwnerTag, ResourceSpec},
};

/// One request, as it came.
#[derive(Debug, Clone)]
pub(crate) struct Recorded {
    pub method: Method,
    pub path: String,
    pub query: String,
    pub headers: HeaderMap,
    pub body: Value,
}

/// What the API does with a request.
pub(crate) enum Answer {
    Json(u16, Value),
    Text(u16, &'static str),
    Never,
}

type Handler = dyn Fn(&Recorded) -> Answer + Send + Sync;
type Check = dyn Fn(&Recorded, u16, &Value) -> Vec<String> + Send + Sync;

struct Shared {
    handler: Box<Handler>,
    check: Box<Check>,
    requests: Mutex<Vec<Recorded>>,
    violations: Mutex<Vec<String>>,
}

/// The API. It ends with the test's runtime.
pub(crate) struct Server {
    pub url: String,
    shared: Arc<Shared>,
}

impl Server {
    /// Listens. `check` tells where a request or its answer breaks the vendor's model.
    pub(crate) async fn start(
        handler: impl Fn(&Recorded) -> Answer + Send + Sync + 'static,
        check: impl Fn(&Recorded, u16, &Value) -> Vec<String> + Send + Sync + 'static,
    ) -> Self {
        let shared = Arc::new(Shared {
            handler: Box::new(handler),
            check: Box::new(check),
            requests: Mutex::default(),
            violations: Mutex::default(),
        });
        let app = Router::new().fallback(answer).with_state(shared.clone());
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, app).await });
        Self { url, shared }
    }

    /// Everything that came so far.
    pub(crate) fn requests(&self) -> Vec<Recorded> {
        self.shared.requests.lock().unwrap().clone()
    }

    /// Requests since the last call that would change something, by `is_change`.
    pub(crate) fn take_changes(&self, is_change: fn(&Recorded) -> bool) -> Vec<Recorded> {
        std::mem::take(&mut *self.shared.requests.lock().unwrap()).into_iter().filter(is_change).collect()
    }

    /// Fails the test where a request or an answer broke the vendor's model.
    pub(crate) fn assert_valid(&self) {
        let violations = self.shared.violations.lock().unwrap();
        assert!(violations.is_empty(), "{violations:#?}");
    }
}

async fn answer(
    State(shared): State<Arc<Shared>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response<Body> {
    let request = Recorded {
        method,
        path: uri.path().to_owned(),
        query: uri.query().unwrap_or_default().to_owned(),
        headers,
        body: if body.is_empty() { Value::Null } else { serde_json::from_slice(&body).unwrap() },
    };
    shared.requests.lock().unwrap().push(request.clone());
    let response = Response::builder().header("x-amzn-requestid", "request-1");
    match (shared.handler)(&request) {
        Answer::Json(status, body) => {
            shared.violations.lock().unwrap().extend((shared.check)(&request, status, &body));
            let response = response.status(status).header("content-type", "application/json");
            response.body(Body::from(body.to_string())).unwrap()
        }
        Answer::Text(status, body) => response.status(status).body(Body::from(body)).unwrap(),
        Answer::Never => std::future::pending().await,
    }
}

/// Everything that is logged on this thread while the guard lives, at every level.
pub(crate) fn logs() -> (Arc<Mutex<String>>, tracing::subscriber::DefaultGuard) {
    let kept = Arc::new(Mutex::new(String::new()));
    let guard = tracing::subscriber::set_default(Log(kept.clone()));
    (kept, guard)
}

/// Keeps every field of every event and span.
struct Log(Arc<Mutex<String>>);

impl tracing::Subscriber for Log {
    fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
        true
    }
    fn new_span(&self, span: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        span.record(&mut Line(&mut self.0.lock().unwrap()));
        tracing::span::Id::from_u64(1)
    }
    fn record(&self, _: &tracing::span::Id, values: &tracing::span::Record<'_>) {
        values.record(&mut Line(&mut self.0.lock().unwrap()));
    }
    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
    fn event(&self, event: &tracing::Event<'_>) {
        event.record(&mut Line(&mut self.0.lock().unwrap()));
    }
    fn enter(&self, _: &tracing::span::Id) {}
    fn exit(&self, _: &tracing::span::Id) {}
}

struct Line<'a>(&'a mut String);

impl tracing::field::Visit for Line<'_> {
    fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
        self.0.push_str(&format!("{field}={value:?}\n"));
    }
}

/// A vendor's model; `None`, with the reason printed, where it is not on this machine.
pub(crate) fn vendor_model(file: &str) -> Option<Value> {
    let shared = std::env::var_os("TIELINE_SHARED")
        .map_or_else(|| PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared")), PathBuf::from);
    let path = shared.join("specs/clouds").join(file);
    match std::fs::read(&path) {
        Ok(bytes) => Some(serde_json::from_slice(&bytes).unwrap()),
        Err(error) => {
            eprintln!("not held against the vendor's model: {}: {error}", path.display());
            None
        }
    }
}

/// An account whose API is at `url`.
pub(crate) fn account(provider: &str, external_id: &str, region: &str, url: &str) -> AccountConfig {
    AccountConfig {
        id: format!("{provider}-test").parse().unwrap(),
        provider: provider.parse().unwrap(),
        external_id: external_id.to_owned(),
        credential_ref: "anonymous".to_owned(),
        region: region.to_owned(),
        endpoint: Some(url.to_owned()),
    }
}

/// The tag of instance `n` of the test's installation.
pub(crate) fn owner(n: u128) -> OwnerTag {
    OwnerTag::new(
        InstallationId(Uuid::from_u128(0x0192_f0c1_2345_7abc_8def_0123_4567_89ab)),
        InstanceId(Uuid::from_u128(0x0192_f0c1_2345_7abc_8def_0000_0000_0000 + n)),
    )
}

/// A call about instance `n`.
pub(crate) fn target(spec: &ResourceSpec, n: u128, cloud_id: Option<&str>) -> Target {
    Target {
        spec: spec.clone(),
        lookup: Lookup { owner: owner(n), cloud_id: cloud_id.map(str::to_owned) },
        token: "0192f0c1-2345-7abc-8def-0123456789ab".to_owned(),
        timeout: Duration::from_secs(10),
    }
}

/// The addresses that Google has picked in these tests, as `end` sees them.
pub(crate) fn picked() -> Ipv4Pair {
    Ipv4Pair {
        subnet: "169.254.61.88/29".parse().unwrap(),
        host: "169.254.61.89".parse().unwrap(),
        peer: "169.254.61.90".parse().unwrap(),
    }
}

/// A side of a channel.
pub(crate) fn side(end: End, port: &str, attach_point: &str, asn: u64, peer_asn: u64, ipv4: Addressing) -> FeatureSide {
    FeatureSide {
        connection_id: Uuid::from_u128(7).into(),
        connection_name: "orders".to_owned(),
        channel_id: "channel-1".parse().unwrap(),
        end,
        account_id: "acct".parse().unwrap(),
        region: if end == End::A { "us-east-1" } else { "us-east4" }.to_owned(),
        port_id: port.parse().unwrap(),
        attach_point_id: "point".parse().unwrap(),
        attach_point_kind: if end == End::A {
            AttachPointType::DirectConnectGateway
        } else {
            AttachPointType::CloudRouter
        },
        attach_point_cloud_id: attach_point.to_owned(),
        asn: asn.try_into().unwrap(),
        peer_asn: peer_asn.try_into().unwrap(),
        vlan: 1025.try_into().unwrap(),
        bandwidth: 10_000.try_into().unwrap(),
        mtu: 1500.try_into().unwrap(),
        ipv4,
        ipv6: None,
        bfd: (end == End::B).then_some(BfdSettings {
            enabled: true,
            min_transmit_ms: 1000,
            min_receive_ms: 1000,
            multiplier: 5,
        }),
        advertised_prefixes: vec!["10.1.0.0/16".parse().unwrap(), "10.0.0.0/24".parse().unwrap()],
        accepted_prefixes: Vec::new(),
        max_prefixes: None,
    }
}
