//! A service on a port of its own, over a fresh database and two clouds in memory.

use std::{
    collections::BTreeMap,
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde_json::{Value, json};
use sqlx::Connection;
use tieline_api::{
    app::{Vault, bootstrap},
    engine::{
        Engine, EngineParts, Failpoints,
        clock::{ChaChaRandom, Clock, Random, SystemClock},
    },
    events::Hints,
    http::StreamLimits,
    secrets::Sealer,
    service::{ServeOptions, serve},
    store::{OpenOptions, SqlStore, Store},
    topology::{Clouds, Topology},
};
use tieline_openapi::{
    config::Config,
    ids::{InstallationId, ProviderName},
    v1::Verb,
};
use tieline_providers::{
    CallErrorKind, CloudApi, IdentityKind, Rules,
    fake::{Chaos, FakeApi, FakeRules, FakeSide, FakeWorld, Fault, Request, Timing},
};
use tokio_util::sync::CancellationToken;

/// Two clouds, two diverse channels, and one environment without an interconnect.
pub(crate) const CONFIG: &str = r#"
[engine]
leaseMs = 5000
callTimeoutMs = 2000
visibilityLagMs = 20
quarantineMs = 50
pollMs = 20
settledPollMs = 200
sweepMs = 60000
callsPerSecond = 1000

[[accounts]]
id = "left"
provider = "left"
externalId = "111"
credentialRef = "env:LEFT"
region = "west-1"

[[accounts]]
id = "right"
provider = "right"
externalId = "222"
credentialRef = "env:RIGHT"
region = "east-1"

[[environments]]
id = "left-right"
kind = "DIRECT"
sites = [{ provider = "left", site = "west-1", displayName = "Left" }, { provider = "right", site = "east-1", displayName = "Right" }]
bandwidthsMbps = [100, 1000, 10000]

[[interconnects]]
id = "ic"
environmentId = "left-right"
maxBandwidthMbps = 10000
channels = [
  { id = "ch1", a = { accountId = "left", portId = "port-l1", device = "l1" }, b = { accountId = "right", portId = "port-r1", device = "r1" } },
  { id = "ch2", a = { accountId = "left", portId = "port-l2", device = "l2" }, b = { accountId = "right", portId = "port-r2", device = "r2" } },
]

[[attachPoints]]
id = "router-l"
accountId = "left"
site = "west-1"
type = "CLOUD_ROUTER"
cloudId = "router-l"
asn = 64512
prefixes = ["10.0.0.0/8"]

[[attachPoints]]
id = "router-r"
accountId = "right"
site = "east-1"
type = "DIRECT_CONNECT_GATEWAY"
cloudId = "router-r"
asn = 64513
prefixes = ["172.16.0.0/12"]
"#;

/// A fresh database, and a folder for what stands beside it.
pub(crate) struct Backing {
    pub(crate) url: String,
    folder: tempfile::TempDir,
}

impl Backing {
    pub(crate) fn sqlite() -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self { url: format!("sqlite://{}", folder.path().join("tieline.db").display()), folder }
    }

    pub(crate) fn folder(&self) -> &std::path::Path {
        self.folder.path()
    }

    /// None, with a printed reason, where there is no Postgres.
    pub(crate) fn postgres() -> Option<Self> {
        let url = crate::postgres::database()?;
        Some(Self { url, folder: tempfile::tempdir().unwrap() })
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

pub(crate) fn on_sqlite<F: Future<Output = ()>>(test: impl FnOnce(Backing) -> F) {
    runtime().block_on(test(Backing::sqlite()));
}

pub(crate) fn on_postgres<F: Future<Output = ()>>(test: impl FnOnce(Backing) -> F) {
    runtime().block_on(async {
        if let Some(backing) = Backing::postgres() {
            test(backing).await;
        }
    });
}

/// Clouds that forbid deletions for as long as this is set.
#[derive(Default)]
pub(crate) struct Forbidding(AtomicBool);

impl Forbidding {
    pub(crate) fn deletions(&self, forbidden: bool) {
        self.0.store(forbidden, Ordering::SeqCst);
    }
}

impl Chaos for Forbidding {
    fn fault(&self, request: &Request) -> Fault {
        let forbidden = request.verb == Verb::Delete && self.0.load(Ordering::SeqCst);
        if forbidden { Fault::Refuse(CallErrorKind::Forbidden) } else { Fault::None }
    }
}

/// A running service.
pub(crate) struct Service {
    pub(crate) url: String,
    pub(crate) admin: String,
    pub(crate) store: Arc<SqlStore>,
    pub(crate) world: Arc<FakeWorld>,
    pub(crate) forbidding: Arc<Forbidding>,
    pub(crate) client: reqwest::Client,
    stop: CancellationToken,
    task: Option<tokio::task::JoinHandle<()>>,
    pub(crate) backing: Backing,
}

/// The topology of the test, over the fake providers' rules.
pub(crate) fn topology() -> Arc<Topology> {
    Arc::new(Topology::new(&Config::parse(CONFIG, "test.toml").unwrap(), rules()))
}

/// The fake providers' rules.
pub(crate) fn rules() -> BTreeMap<ProviderName, Arc<dyn Rules>> {
    let side = |side| Arc::new(FakeRules { side, identity: IdentityKind::Named }) as Arc<dyn Rules>;
    BTreeMap::from([
        ("left".parse().unwrap(), side(FakeSide::Picking)),
        ("right".parse().unwrap(), side(FakeSide::Taking)),
    ])
}

impl Service {
    /// Without an engine: nothing is provisioned.
    pub(crate) async fn start(backing: Backing) -> Self {
        Self::launch(backing, false, StreamLimits::default()).await
    }

    /// With an engine.
    pub(crate) async fn with_engine(backing: Backing) -> Self {
        Self::launch(backing, true, StreamLimits::default()).await
    }

    pub(crate) async fn launch(backing: Backing, with_engine: bool, streams: StreamLimits) -> Self {
        Self::launch_on(backing, with_engine, streams, topology()).await
    }

    /// With something more in `tieline.toml`, and without an engine.
    pub(crate) async fn configured(backing: Backing, more: &str) -> Self {
        let config = Config::parse(&format!("{CONFIG}\n{more}"), "test.toml").unwrap();
        let topology = Arc::new(Topology::new(&config, rules()));
        Self::launch_on(backing, false, StreamLimits::default(), topology).await
    }

    async fn launch_on(backing: Backing, with_engine: bool, streams: StreamLimits, topology: Arc<Topology>) -> Self {
        let hints = Hints::new();
        let options = OpenOptions { hints: hints.clone(), ..OpenOptions::default() };
        let store = SqlStore::open(&backing.url, options).await.unwrap();
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let random: Arc<dyn Random> = Arc::new(ChaChaRandom::from_system());
        let (sealer, _) = Sealer::from_key_file_or_new(&backing.folder.path().join("tieline.key"), &*random).unwrap();
        let vault = Vault::new(Arc::new(sealer), Arc::clone(&random));
        let token = backing.folder.path().join("tieline.token");
        assert!(bootstrap::first_token(&*store, &*clock, &*random, &token).await.unwrap());
        let now = Arc::clone(&clock);
        let forbidding = Arc::new(Forbidding::default());
        let world = FakeWorld::new(1, Timing::default(), move || now.now());
        let world = Arc::new(world.with_chaos(Arc::clone(&forbidding) as Arc<dyn Chaos>));
        let engine = if with_engine {
            let clouds: Clouds = topology
                .accounts
                .values()
                .map(|account| {
                    let rules = Arc::clone(&topology.rules[&account.provider]);
                    let api: Arc<dyn CloudApi> =
                        Arc::new(FakeApi::new(Arc::clone(&world), &account.external_id, rules));
                    (account.id.clone(), api)
                })
                .collect();
            let installation = store.installation(InstallationId(random.uuid_v7(clock.now()))).await.unwrap();
            Some(Engine::new(EngineParts {
                store: store.clone(),
                clouds: Arc::new(clouds),
                topology: Arc::clone(&topology),
                clock: Arc::clone(&clock),
                random: Arc::clone(&random),
                vault: Arc::new(vault.clone()),
                failpoints: Failpoints::default(),
                installation,
                owner: "test".to_owned(),
            }))
        } else {
            None
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let stop = CancellationToken::new();
        let options = ServeOptions {
            store: store.clone(),
            topology,
            vault,
            clock,
            random,
            hints,
            streams,
            engine,
            coordinator: None,
        };
        let serving = serve(options, listener, stop.clone());
        let task = Some(tokio::spawn(async move { serving.await.unwrap() }));
        let admin = std::fs::read_to_string(&token).unwrap().trim().to_owned();
        let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(90)).build().unwrap();
        Self { url, admin, store, world, forbidding, client, stop, task, backing }
    }

    /// A request as the first admin.
    pub(crate) fn ask(&self, method: Method, path: &str) -> RequestBuilder {
        self.ask_as(&self.admin, method, path)
    }

    /// A request with any bearer.
    pub(crate) fn ask_as(&self, secret: &str, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("{}{path}", self.url)).bearer_auth(secret)
    }

    /// The JSON of a GET that succeeds.
    pub(crate) async fn get(&self, path: &str) -> Value {
        self.ask(Method::GET, path).go(StatusCode::OK).await.body
    }

    /// A token of a scope.
    pub(crate) async fn token(&self, name: &str, scope: &str) -> String {
        let request = self.ask(Method::POST, "/v1/tokens").json(&json!({"name": name, "scope": scope}));
        request.go(StatusCode::CREATED).await.body["secret"].as_str().unwrap().to_owned()
    }

    /// Creates a connection.
    pub(crate) async fn create(&self, name: &str) -> Answer {
        self.ask(Method::POST, "/v1/connections").json(&intent(name)).go(StatusCode::ACCEPTED).await
    }

    /// The folder of the first token and the key.
    pub(crate) fn folder(&self) -> &std::path::Path {
        self.backing.folder.path()
    }

    /// The audit log, oldest first: principal, action, subject.
    pub(crate) async fn audit(&self) -> Vec<(String, String, String)> {
        const SQL: &str = "SELECT principal, action, subject FROM audit ORDER BY seq";
        if self.backing.url.starts_with("sqlite") {
            let mut connection = sqlx::SqliteConnection::connect(&self.backing.url).await.unwrap();
            sqlx::query_as(SQL).fetch_all(&mut connection).await.unwrap()
        } else {
            let mut connection = sqlx::PgConnection::connect(&self.backing.url).await.unwrap();
            sqlx::query_as(SQL).fetch_all(&mut connection).await.unwrap()
        }
    }

    /// Asks again and again until something is so.
    pub(crate) async fn until(&self, path: &str, is_so: impl Fn(&Answer) -> bool) -> Answer {
        let asking = async {
            loop {
                let answer = self.ask(Method::GET, path).answer().await;
                if is_so(&answer) {
                    return answer;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), asking).await.expect("it becomes so")
    }

    /// Ends the service and waits for it.
    pub(crate) async fn end(mut self) {
        self.stop.cancel();
        let task = self.task.take().unwrap();
        tokio::time::timeout(Duration::from_secs(10), task)
            .await
            .expect("the service ends when it is told to")
            .unwrap();
        self.store.close().await;
    }
}

/// An intent that can be met.
pub(crate) fn intent(name: &str) -> Value {
    json!({
        "name": name,
        "environmentId": "left-right",
        "bandwidthMbps": 100,
        "a": {"attachPointId": "router-l", "advertisedPrefixes": ["10.0.0.0/16"]},
        "b": {"attachPointId": "router-r", "advertisedPrefixes": ["172.16.0.0/16"]},
    })
}

/// An answer, read.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: reqwest::header::HeaderMap,
    pub(crate) body: Value,
    pub(crate) text: String,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// The pointers of a problem's errors.
    pub(crate) fn pointers(&self) -> Vec<&str> {
        let errors = self.body["errors"].as_array().map(Vec::as_slice).unwrap_or_default();
        errors.iter().map(|error| error["pointer"].as_str().unwrap()).collect()
    }

    async fn read(response: Response) -> Self {
        let (status, headers) = (response.status(), response.headers().clone());
        let text = response.text().await.unwrap();
        let body = serde_json::from_str(&text).unwrap_or(Value::Null);
        let answer = Self { status, headers, body, text };
        answer.check();
        answer
    }

    /// What holds for every answer.
    fn check(&self) {
        assert!(!self.header("x-request-id").is_empty());
        assert_eq!(self.header("x-content-type-options"), "nosniff");
        assert_eq!(self.header("x-frame-options"), "DENY");
        assert!(self.header("content-security-policy").contains("default-src 'none'"));
        if self.status.is_client_error() || self.status.is_server_error() {
            assert_eq!(self.header("content-type"), "application/problem+json", "{}", self.text);
            assert_eq!(self.body["status"], self.status.as_u16());
            assert_eq!(self.body["requestId"], self.header("x-request-id"));
            let code = self.body["code"].as_str().unwrap();
            assert_eq!(self.body["type"], format!("/problems/{code}"));
            assert!(!self.body["remediation"].as_str().unwrap().is_empty());
        }
    }
}

/// Sends and reads.
pub(crate) trait Go {
    /// The answer, whatever it is.
    async fn answer(self) -> Answer;
    /// The answer, which must have this status.
    async fn go(self, status: StatusCode) -> Answer;
}

impl Go for RequestBuilder {
    async fn answer(self) -> Answer {
        Answer::read(self.send().await.unwrap()).await
    }

    async fn go(self, status: StatusCode) -> Answer {
        let answer = self.answer().await;
        assert_eq!(answer.status, status, "{}", answer.text);
        answer
    }
}
