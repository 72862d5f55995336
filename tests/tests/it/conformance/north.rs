//! A service under test, paired with whom the suite plays.

use std::{
    convert::Infallible,
    io::{BufRead as _, BufReader},
    net::SocketAddr,
    path::Path,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, bail};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose,
};
use tieline_conformance::{Credential, Customer, KeySource, Outcome, Peer, PeerError, Role, Settings};
use tieline_openapi::coordinator::Timestamp;

use crate::rig::{PATIENCE, binary};

/// The bake time of MACsec keys in these tests, in seconds.
const BAKE: u64 = 2;

/// A service that is paired with a provider `south`, which the suite plays.
pub(crate) struct North {
    dir: tempfile::TempDir,
    service: Child,
    pub url: String,
    pub token: String,
    /// Its first project, which keys for its customers name.
    pub project: String,
    pub http: reqwest::Client,
    /// Where peers reach it.
    pub peers: String,
    /// The suite's own half of the API, and where it listens.
    pub south: Peer,
    pub south_at: SocketAddr,
    monotonic: Arc<dyn Fn() -> Duration + Send + Sync>,
    serving: tokio::task::JoinHandle<Result<Infallible, PeerError>>,
}

impl Drop for North {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.service.kill();
        let _ = self.service.wait();
        self.serving.abort();
    }
}

impl North {
    /// Starts it with certificates of its own making.
    pub(crate) async fn start() -> anyhow::Result<Self> {
        Self::start_behind(None).await
    }

    /// The same, where it reaches the suite by another address.
    pub(crate) async fn start_behind(door: Option<SocketAddr>) -> anyhow::Result<Self> {
        let dir = tempfile::tempdir()?;
        let at = |name: &str| dir.path().join(name);
        certificates(dir.path())?;
        let south = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let south_at = south.local_addr()?;
        std::fs::write(at("router"), ROUTER)?;
        let config = pairing(&dir.path().display().to_string(), &door.unwrap_or(south_at).to_string());
        std::fs::write(at("tieline.toml"), config)?;
        let monotonic = chance().monotonic;
        let read = |name: &str| std::fs::read(at(name));
        let anchors = read("ca.pem")?;
        let (certificate, key) = (read("south.pem")?, read("south.key")?);
        let south = Peer::new(south, &certificate, &key, Some(&anchors), Arc::clone(&monotonic))?;
        let serving = tokio::spawn(south.clone().serve());
        let mut service = Command::new(binary())
            .args(["serve", "--listen", "127.0.0.1:0", "--config", "tieline.toml"])
            .current_dir(dir.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(std::fs::File::create(at("service.log"))?)
            .spawn()
            .with_context(|| format!("{} cannot be run: build it first", binary().display()))?;
        let mut lines = BufReader::new(service.stdout.take().context("it was piped")?).lines();
        let mut told =
            |what: &str| lines.by_ref().find_map(|line| line.ok()?.trim().strip_prefix(what).map(str::to_owned));
        let (Some(url), Some(peers)) = (told("listening on "), told("listening for peers on ")) else {
            bail!("it did not start: {}", std::fs::read_to_string(at("service.log"))?)
        };
        let token = std::fs::read_to_string(at("tieline.token"))?.trim().to_owned();
        let http = reqwest::Client::builder().no_proxy().timeout(PATIENCE).build()?;
        let peers = format!("{peers}/coordinator/v1");
        let project = "default".to_owned();
        Ok(Self { dir, service, url, token, project, http, peers, south, south_at, monotonic, serving })
    }

    pub(crate) fn file(&self, name: &str) -> std::io::Result<Vec<u8>> {
        std::fs::read(self.dir.path().join(name))
    }

    /// What the service logged last.
    pub(crate) fn log(&self) -> String {
        let log = self.file("service.log").unwrap_or_default();
        String::from_utf8_lossy(&log).lines().rev().take(60).collect::<Vec<_>>().join("\n")
    }

    /// A client that is `south`.
    pub(crate) fn client(&self, certified: bool) -> anyhow::Result<reqwest::ClientBuilder> {
        let identity = [self.file("south.pem")?, self.file("south.key")?].concat();
        Ok(client(&(self.file("ca.pem")?, identity), certified))
    }
}

/// An authority, and a certificate for each of the two.
pub(crate) fn certificates(dir: &Path) -> anyhow::Result<()> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params.distinguished_name.push(DnType::CommonName, "authority of the test");
    let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
    std::fs::write(dir.join("ca.pem"), issuer.pem())?;
    for name in ["north", "south"] {
        let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned(), format!("{name}.example")])?;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate()?;
        std::fs::write(dir.join(format!("{name}.pem")), params.signed_by(&key, &issuer)?.pem())?;
        std::fs::write(dir.join(format!("{name}.key")), key.serialize_pem())?;
    }
    Ok(())
}

/// A router that uses the MACsec keys that it is told, by the protocol of docs/routers.md.
const ROUTER: &str = r#"request=$(cat)
case $request in
*'"putMacSecKeys"'*)
  installed=$(printf %s "$request" | grep -o '"ckn":"[^"]*"' | sed 's/"ckn"://' | paste -sd, -)
  active=$(printf %s "$request" | grep -o '"active":"[^"]*"')
  printf '{"installed":[%s],%s}' "$installed" "${active:-\"active\":null}"
  ;;
*'"listSessions"'*) printf '{"sessions":{}}' ;;
*) printf '{}' ;;
esac
"#;

/// What north's operator writes.
fn pairing(folder: &str, south: &str) -> String {
    let channel = |interconnect: &str, n: u8| {
        let manager = if n > 2 { "north" } else { "south" };
        // The keys of the last interconnect are in a router, so that they come into use.
        let router = if interconnect == "i5" {
            format!("router = {{ id = \"edge\", interface = \"eth{n}\" }}\n")
        } else {
            String::new()
        };
        format!(
            "[[coordinator.peers.environments.interconnects.channels]]\nid = \"c{n}\"\ndevice = \"d-{interconnect}-{n}\"\n\
             asn = 64512\nmacsecManager = \"{manager}\"\nvlans = [1025, 1100]\nsubnets = [\"169.254.0.0/16\"]\nsizeGbps = 10\n{router}"
        )
    };
    let interconnects = |ids: &[&str]| -> String {
        let interconnect = |id: &&str| {
            let channels: String = (1..=4).map(|n| channel(id, n)).collect();
            // One is soon full.
            let most = if *id == "i4" { 20_000 } else { 100_000 };
            format!(
                "[[coordinator.peers.environments.interconnects]]\nid = \"{id}\"\nmaxBandwidthMbps = {most}\n{channels}"
            )
        };
        ids.iter().map(interconnect).collect()
    };
    let environment = |id: &str, defers: bool, interconnects: String| {
        format!(
            "[[coordinator.peers.environments]]\nid = \"{id}\"\nourSite = \"north-1\"\ntheirSite = \"south-1\"\n\
             bandwidthsMbps = [1000, 5000, 10000]\ndefers = {defers}\ntakesDeferral = true\n{interconnects}"
        )
    };
    let environments = [
        environment("e1", false, interconnects(&["i1", "i2"])),
        environment("e2", true, interconnects(&["i3"])),
        environment("e3", false, interconnects(&["i4"])),
        environment("e4", false, interconnects(&["i5"])),
    ];
    let router =
        format!("[[routers]]\nid = \"edge\"\n[routers.driver.command]\nrun = [\"/bin/sh\", \"{folder}/router\"]\n");
    format!(
        "{router}[coordinator]\nprovider = \"north\"\nlisten = \"127.0.0.1:0\"\ncertificateFile = \"{folder}/north.pem\"\n\
         keyFile = \"{folder}/north.key\"\nrequestsPerSecond = 1000\npollMs = 1000\nsettledPollMs = 3000\n\
         macsecBakeSeconds = {BAKE}\n\
         [[coordinator.peers]]\nprovider = \"south\"\nendpoint = \"https://{south}/coordinator/v1\"\n\
         caFile = \"{folder}/ca.pem\"\nidentity = {{ dnsName = \"south.example\" }}\n{}",
        environments.concat()
    )
}

#[expect(clippy::disallowed_methods, reason = "the suite makes real resources, and measures real time")]
pub(crate) fn chance() -> tieline_conformance::Means {
    let began = std::time::Instant::now();
    tieline_conformance::Means { uuid: Arc::new(uuid::Uuid::new_v4), monotonic: Arc::new(move || began.elapsed()) }
}

/// When work that begins now is over at the latest.
#[expect(clippy::disallowed_methods, reason = "the suite plans real work")]
pub(crate) fn in_an_hour() -> Timestamp {
    Timestamp::now() + Duration::from_secs(3_600)
}

/// How north is examined.
pub(crate) struct Means<'m, C> {
    /// Where the suite reaches it.
    pub url: &'m str,
    pub customer: Arc<C>,
    /// In seconds.
    pub patience: u64,
    pub window: u64,
    pub jobs: usize,
}

/// What the suite finds.
pub(crate) async fn examine<C: KeySource + Customer + 'static>(
    north: &North,
    means: Means<'_, C>,
    role: Role,
    only: &[String],
) -> anyhow::Result<Vec<Outcome>> {
    let files = (north.file("ca.pem")?, [north.file("south.pem")?, north.file("south.key")?].concat());
    let plain = means.url.starts_with("http://");
    let settings = Settings {
        url: means.url.to_owned(),
        provider: "south".to_owned(),
        http: Arc::new(move |credential| client(&files, !plain && credential == Credential::Peer)),
        keys: Some(Arc::clone(&means.customer) as Arc<dyn KeySource>),
        customer: Some(means.customer as Arc<dyn Customer>),
        account: north.project.clone(),
        peer: Some(north.south.clone()),
        patience: Duration::from_secs(means.patience),
        window: Duration::from_secs(means.window),
        bake: Duration::from_secs(BAKE),
        jobs: means.jobs,
        means: tieline_conformance::Means { monotonic: Arc::clone(&north.monotonic), ..chance() },
    };
    let mut quiet = |_: &Outcome| {};
    let running = tieline_conformance::run(settings, role, only, &mut quiet);
    Ok(tokio::time::timeout(Duration::from_secs(400), running).await.context("the suite ends")??)
}

fn client((anchors, identity): &(Vec<u8>, Vec<u8>), certified: bool) -> reqwest::ClientBuilder {
    let anchors = reqwest::Certificate::from_pem_bundle(anchors).expect("the test has written it");
    let http = reqwest::Client::builder().no_proxy().tls_certs_only(anchors);
    if certified {
        http.identity(reqwest::Identity::from_pem(identity).expect("the test has written it"))
    } else {
        http
    }
}
