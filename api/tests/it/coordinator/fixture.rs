//! Providers north and south: certificates, configurations, services.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, PublicKeyData as _,
};
use reqwest::{Method, StatusCode};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use tieline_api::{
    app::{Vault, bootstrap},
    coordinator::{Coordination, CoordinationParts, KeyDevice, Router},
    engine::clock::{ChaChaRandom, Clock, Random, SystemClock},
    events::Hints,
    http::StreamLimits,
    plan::coordinate::{ChannelPlace, KeyReport, WantedKeys},
    secrets::Sealer,
    service::{ServeOptions, serve},
    store::{Books, OpenOptions, SqlStore},
    topology::Topology,
};
use tieline_openapi::{
    client::coordinator::Coordinator,
    config::{Config, CoordinatorConfig},
    coordinator::{ResourceId, Sensitive, Timestamp},
};
use tieline_providers::network::DeviceError;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::http::fixture::{Backing, CONFIG as CLOUDS, Go, rules};

/// An authority, and whom it has certified: `NAME.pem`, `NAME.key`, and its own `ca.pem`.
pub(crate) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    folder: tempfile::TempDir,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params.distinguished_name.push(DnType::CommonName, "authority of the test");
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("ca.pem"), issuer.pem()).unwrap();
        Self { issuer, folder }
    }

    /// A certificate for both roles, on loopback; the SHA-256 of its public key.
    pub(crate) fn certify(&self, name: &str) -> String {
        let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned(), format!("{name}.example")]).unwrap();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        std::fs::write(self.path(&format!("{name}.pem")), certificate.pem()).unwrap();
        std::fs::write(self.path(&format!("{name}.key")), key.serialize_pem()).unwrap();
        data_encoding::HEXLOWER.encode(&Sha256::digest(key.subject_public_key_info()))
    }

    pub(crate) fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }
}

/// Our half of the pairing, as it stands in `tieline.toml`.
pub(crate) fn half(ca: &Authority, us: &str, listen: &str, peer: &Half) -> String {
    let certificate = ca.path(&format!("{us}.pem"));
    let (key, authority) = (ca.path(&format!("{us}.key")), ca.path("ca.pem"));
    let asn = if us == "north" { 64_512 } else { 64_513 };
    let channels: String = (1..=4)
        .map(|n| {
            format!(
                "[[coordinator.peers.environments.interconnects.channels]]\nid = \"c{n}\"\ndevice = \"{us}-{{ic}}-{n}\"\n\
                 asn = {asn}\nvlans = [1025, 1100]\nsubnets = [\"169.254.10.0/24\"]\nsizeGbps = 10\n"
            )
        })
        .collect();
    let interconnects: String = ["i1", "i2"]
        .map(|id| {
            let channels = channels.replace("{ic}", id);
            format!(
                "[[coordinator.peers.environments.interconnects]]\nid = \"{id}\"\nmaxBandwidthMbps = 10000\n{channels}"
            )
        })
        .concat();
    let Half { id: them, endpoint, identity } = peer;
    format!(
        "[coordinator]\nprovider = \"{us}\"\nlisten = \"{listen}\"\ncertificateFile = \"{certificate}\"\n\
         keyFile = \"{key}\"\nrequestsPerSecond = 1000\npollMs = 1000\nsettledPollMs = 2000\n\
         [[coordinator.peers]]\nprovider = \"{them}\"\nendpoint = \"{endpoint}\"\ncaFile = \"{authority}\"\n\
         identity = {identity}\n\
         [[coordinator.peers.environments]]\nid = \"e1\"\nourSite = \"{us}-1\"\ntheirSite = \"{them}-1\"\n\
         bandwidthsMbps = [1000, 5000, 10000]\n{interconnects}"
    )
}

/// The other half, as we know it.
pub(crate) struct Half {
    pub(crate) id: &'static str,
    pub(crate) endpoint: String,
    pub(crate) identity: String,
}

/// The machine's clock, set ahead.
#[derive(Default)]
pub(crate) struct Stepped {
    clock: SystemClock,
    ahead_ms: AtomicI64,
    passed_ms: AtomicU64,
}

impl Stepped {
    /// Steps it forward. What was put off for longer than the longest wait is due then.
    pub(crate) fn step(&self, ahead: Duration) {
        self.ahead_ms.fetch_add(i64::try_from(ahead.as_millis()).unwrap(), Ordering::SeqCst);
    }

    /// So much time goes by, which the monotonic clock sees too.
    pub(crate) fn pass(&self, time: Duration) {
        self.passed_ms.fetch_add(u64::try_from(time.as_millis()).unwrap(), Ordering::SeqCst);
        self.step(time);
    }
}

#[async_trait]
impl Clock for Stepped {
    fn now(&self) -> Timestamp {
        self.clock.now() + jiff::SignedDuration::from_millis(self.ahead_ms.load(Ordering::SeqCst))
    }
    fn monotonic(&self) -> Duration {
        self.clock.monotonic() + Duration::from_millis(self.passed_ms.load(Ordering::SeqCst))
    }
    async fn sleep(&self, duration: Duration) {
        self.clock.sleep(duration).await;
    }
}

/// What an interface holds: CKN to CAK, and the CKN in use.
pub(crate) type Held = (BTreeMap<String, String>, Option<String>);

/// A device that holds keys, and may be out of reach.
#[derive(Default)]
pub(crate) struct Keys {
    pub(crate) held: Mutex<BTreeMap<String, Held>>,
    pub(crate) dead: AtomicBool,
}

impl Keys {
    /// What it holds for a channel, by `interconnect/channel`.
    pub(crate) fn of(&self, channel: &str) -> Held {
        self.held.lock().unwrap().get(channel).cloned().unwrap_or_default()
    }
}

#[async_trait]
impl KeyDevice for Keys {
    async fn apply(
        &self,
        _: &ResourceId,
        at: &ChannelPlace,
        wanted: &WantedKeys,
    ) -> Result<Option<KeyReport>, DeviceError> {
        if self.dead.load(Ordering::SeqCst) {
            return Err(DeviceError::Refused { program: "keys".to_owned(), message: "it is dead".to_owned() });
        }
        let text = |secret: &Sensitive| secret.expose().to_owned();
        let installed: BTreeMap<_, _> = wanted.installed.iter().map(|key| (text(&key.ckn), text(&key.cak))).collect();
        let active = wanted.active.as_ref().map(text).filter(|ckn| installed.contains_key(ckn));
        let report = KeyReport { installed: installed.keys().cloned().collect(), active: active.clone() };
        self.held.lock().unwrap().insert(format!("{}/{}", at.interconnect, at.channel), (installed, active));
        Ok(Some(report))
    }
}

/// What an installation's channels end at.
#[derive(Default)]
pub(crate) struct Devices {
    pub(crate) routers: Vec<Router>,
    /// What holds keys; [`Side::keys`] where there is none.
    pub(crate) macsec: Option<Arc<dyn KeyDevice>>,
}

/// One running installation.
pub(crate) struct Side {
    pub(crate) id: &'static str,
    pub(crate) url: String,
    pub(crate) admin: String,
    pub(crate) store: Arc<SqlStore>,
    pub(crate) config: CoordinatorConfig,
    pub(crate) time: Arc<Stepped>,
    pub(crate) keys: Arc<Keys>,
    pub(crate) client: reqwest::Client,
    stop: CancellationToken,
    task: Option<tokio::task::JoinHandle<()>>,
    pub(crate) backing: Backing,
}

impl Side {
    /// Starts an installation, again where it has run before.
    pub(crate) async fn start(
        id: &'static str,
        backing: Backing,
        config: CoordinatorConfig,
        listener: TcpListener,
    ) -> Self {
        Self::start_routed(id, backing, config, listener, Devices::default()).await
    }

    /// The same, with devices.
    pub(crate) async fn start_routed(
        id: &'static str,
        backing: Backing,
        config: CoordinatorConfig,
        listener: TcpListener,
        devices: Devices,
    ) -> Self {
        let hints = Hints::new();
        let options = OpenOptions { hints: hints.clone(), ..OpenOptions::default() };
        let store = SqlStore::open(&backing.url, options).await.unwrap();
        let time = Arc::new(Stepped::default());
        let clock: Arc<dyn Clock> = time.clone();
        let keys = Arc::new(Keys::default());
        let random: Arc<dyn Random> = Arc::new(ChaChaRandom::from_system());
        let file = |name: &str| backing.folder().join(name);
        let (sealer, _) = Sealer::from_key_file_or_new(&file("tieline.key"), &*random).unwrap();
        let vault = Vault::new(Arc::new(sealer), Arc::clone(&random));
        let token = file("tieline.token");
        bootstrap::first_token(&*store, &*clock, &*random, &token).await.unwrap();
        let parts = CoordinationParts {
            books: store.clone(),
            store: store.clone(),
            vault: vault.clone(),
            clock: Arc::clone(&clock),
            random: Arc::clone(&random),
            routers: devices.routers,
            hints: hints.clone(),
            macsec: devices.macsec.unwrap_or_else(|| keys.clone()),
            owner: random.uuid_v7(clock.now()).to_string(),
        };
        let coordination = Coordination::new(config.clone(), parts).unwrap();
        let surface = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", surface.local_addr().unwrap());
        let stop = CancellationToken::new();
        let options = ServeOptions {
            store: store.clone(),
            topology: shared_topology(&config),
            vault,
            clock,
            random,
            hints,
            streams: StreamLimits::default(),
            engine: None,
            coordinator: Some((coordination, listener)),
        };
        let serving = serve(options, surface, stop.clone());
        let task = Some(tokio::spawn(async move { serving.await.unwrap() }));
        let admin = std::fs::read_to_string(&token).unwrap().trim().to_owned();
        let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(30)).build().unwrap();
        Self { id, url, admin, store, config, time, keys, client, stop, task, backing }
    }

    /// Ends it, and gives back what it starts again with.
    pub(crate) async fn end(mut self) -> (Backing, CoordinatorConfig) {
        self.stop.cancel();
        let task = self.task.take().unwrap();
        tokio::time::timeout(Duration::from_secs(15), task).await.expect("it ends when it is told to").unwrap();
        self.store.close().await;
        (self.backing, self.config)
    }

    pub(crate) fn ask(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.client.request(method, format!("{}{path}", self.url)).bearer_auth(&self.admin)
    }

    pub(crate) async fn get(&self, path: &str) -> Value {
        self.ask(Method::GET, path).go(StatusCode::OK).await.body
    }

    /// Asks again and again until something is so.
    pub(crate) async fn until(&self, path: &str, is_so: impl Fn(&Value) -> bool) -> Value {
        let asking = async {
            loop {
                let answer = self.ask(Method::GET, path).answer().await;
                if is_so(&answer.body) {
                    return answer.body;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let Ok(body) = tokio::time::timeout(Duration::from_secs(60), asking).await else {
            panic!("{} does not get there: {}", self.id, self.get("/v1/connections").await);
        };
        body
    }

    /// Until nothing is left of any connection.
    pub(crate) async fn until_empty(&self, peer: &str) {
        let peer: ResourceId = peer.parse().unwrap();
        let emptying = async {
            while !self.store.book(&peer, None).await.unwrap().rows.is_empty() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), emptying).await.expect("everything goes");
    }

    /// The client by which this side calls its peer.
    pub(crate) fn peer_client(&self) -> Coordinator {
        tieline_api::coordinator::client(&self.config, &self.config.peers[0]).unwrap()
    }
}

/// Two clouds that have nothing to do with it, and the pairing.
fn shared_topology(coordinator: &CoordinatorConfig) -> Arc<Topology> {
    let mut config = Config::parse(CLOUDS, "test.toml").unwrap();
    config.coordinator = Some(coordinator.clone());
    Arc::new(Topology::new(&config, rules()))
}

pub(crate) fn parse(text: &str) -> CoordinatorConfig {
    Config::parse(text, "test.toml").unwrap().coordinator.unwrap()
}

/// North and south, running and paired.
pub(crate) struct Pair {
    pub(crate) north: Side,
    pub(crate) south: Side,
    pub(crate) ca: Authority,
}

impl Pair {
    pub(crate) async fn start() -> Self {
        Self::start_with([Backing::sqlite(), Backing::sqlite()], |_| {}).await
    }

    pub(crate) async fn start_with(backings: [Backing; 2], change: impl Fn(&mut CoordinatorConfig)) -> Self {
        Self::start_routed(backings, change, |_, _| Devices::default()).await
    }

    /// The same, each with the devices of its provider id.
    pub(crate) async fn start_routed(
        backings: [Backing; 2],
        change: impl Fn(&mut CoordinatorConfig),
        devices: impl Fn(&'static str, &CoordinatorConfig) -> Devices,
    ) -> Self {
        let ca = Authority::new();
        let (north_pin, _) = (ca.certify("north"), ca.certify("south"));
        let bind = || TcpListener::bind("127.0.0.1:0");
        let (at_north, at_south) = (bind().await.unwrap(), bind().await.unwrap());
        let address = |listener: &TcpListener| listener.local_addr().unwrap().to_string();
        let endpoint = |listener| format!("https://{}/coordinator/v1", address(listener));
        // One peer is told by a name, the other by its key.
        let south =
            Half { id: "south", endpoint: endpoint(&at_south), identity: "{ dnsName = \"south.example\" }".to_owned() };
        let north = Half {
            id: "north",
            endpoint: endpoint(&at_north),
            identity: format!("{{ spkiSha256 = [\"{north_pin}\"] }}"),
        };
        let mut configs = [
            parse(&half(&ca, "north", &address(&at_north), &south)),
            parse(&half(&ca, "south", &address(&at_south), &north)),
        ];
        configs.iter_mut().for_each(change);
        let [north_has, south_has] = [devices("north", &configs[0]), devices("south", &configs[1])];
        let ([of_north, of_south], [one, other]) = (configs, backings);
        let (north, south) = tokio::join!(
            Side::start_routed("north", one, of_north, at_north, north_has),
            Side::start_routed("south", other, of_south, at_south, south_has)
        );
        Self { north, south, ca }
    }

    pub(crate) async fn end(self) {
        tokio::join!(self.north.end(), self.south.end());
    }
}
