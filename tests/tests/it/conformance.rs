//! The conformance suite against Tieline itself.

use std::{
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, bail};
use futures::future::BoxFuture;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose,
};
use serde_json::{Value, json};
use tieline_conformance::{
    KeyError, KeySource, Means, Outcome, Peer, PeerError, Settings, Verdict, Wanted,
    report::{self, About},
};
use tieline_openapi::coordinator::Sensitive;

use crate::rig::{PATIENCE, binary};

/// A service that is paired with a provider `south`, which the suite plays.
pub(crate) struct North {
    dir: tempfile::TempDir,
    service: Child,
    url: String,
    token: String,
    http: reqwest::Client,
    /// Where peers reach it.
    pub peers: String,
    /// The suite's own half of the API.
    south: tokio::task::JoinHandle<Result<(), PeerError>>,
}

impl Drop for North {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.service.kill();
        let _ = self.service.wait();
        self.south.abort();
    }
}

impl North {
    /// Starts it with certificates of its own making.
    pub(crate) async fn start() -> anyhow::Result<Self> {
        let dir = tempfile::tempdir()?;
        let at = |name: &str| dir.path().join(name);
        let mut params = CertificateParams::new(Vec::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params.distinguished_name.push(DnType::CommonName, "authority of the test");
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
        std::fs::write(at("ca.pem"), issuer.pem())?;
        for name in ["north", "south"] {
            let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned(), format!("{name}.example")])?;
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
            let key = KeyPair::generate()?;
            std::fs::write(at(&format!("{name}.pem")), params.signed_by(&key, &issuer)?.pem())?;
            std::fs::write(at(&format!("{name}.key")), key.serialize_pem())?;
        }
        let south = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let config = pairing(&dir.path().display().to_string(), &south.local_addr()?.to_string());
        std::fs::write(at("tieline.toml"), config)?;
        let south = Peer::new(south, &std::fs::read(at("south.pem"))?, &std::fs::read(at("south.key"))?)?;
        let south = tokio::spawn(south.serve());
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
        Ok(Self { dir, service, url, token, http, peers, south })
    }

    /// A client that is `south`.
    pub(crate) fn south(&self) -> anyhow::Result<reqwest::ClientBuilder> {
        let read = |name: &str| std::fs::read(self.dir.path().join(name));
        let identity = reqwest::Identity::from_pem(&[read("south.pem")?, read("south.key")?].concat())?;
        let anchors = reqwest::Certificate::from_pem_bundle(&read("ca.pem")?)?;
        Ok(reqwest::Client::builder().no_proxy().tls_certs_only(anchors).identity(identity))
    }
}

/// What north's operator writes.
fn pairing(folder: &str, south: &str) -> String {
    let channel = |interconnect: &str, n: u8| {
        let manager = if n > 2 { "north" } else { "south" };
        format!(
            "[[coordinator.peers.environments.interconnects.channels]]\nid = \"c{n}\"\ndevice = \"d-{interconnect}-{n}\"\n\
             asn = 64512\nmacsecManager = \"{manager}\"\nvlans = [1025, 1100]\nsubnets = [\"169.254.0.0/16\"]\nsizeGbps = 10\n"
        )
    };
    let interconnects: String = ["i1", "i2"]
        .map(|id| {
            let channels: String = (1..=4).map(|n| channel(id, n)).collect();
            format!(
                "[[coordinator.peers.environments.interconnects]]\nid = \"{id}\"\nmaxBandwidthMbps = 100000\n{channels}"
            )
        })
        .concat();
    format!(
        "[coordinator]\nprovider = \"north\"\nlisten = \"127.0.0.1:0\"\ncertificateFile = \"{folder}/north.pem\"\n\
         keyFile = \"{folder}/north.key\"\nrequestsPerSecond = 1000\n\
         [[coordinator.peers]]\nprovider = \"south\"\nendpoint = \"https://{south}/coordinator/v1\"\n\
         caFile = \"{folder}/ca.pem\"\nidentity = {{ dnsName = \"south.example\" }}\n\
         [[coordinator.peers.environments]]\nid = \"e1\"\nourSite = \"north-1\"\ntheirSite = \"south-1\"\n\
         bandwidthsMbps = [1000, 5000, 10000]\n{interconnects}"
    )
}

/// North's customer side.
pub(crate) struct Customer {
    http: reqwest::Client,
    url: String,
    token: String,
    issued: AtomicU32,
}

impl Customer {
    pub(crate) fn of(north: &North) -> Arc<Self> {
        Arc::new(Self {
            http: north.http.clone(),
            url: north.url.clone(),
            token: north.token.clone(),
            issued: AtomicU32::new(0),
        })
    }
}

impl KeySource for Customer {
    fn issue(&self, wanted: Wanted) -> BoxFuture<'_, Result<Sensitive, KeyError>> {
        Box::pin(async move {
            let environment = wanted.environment.rsplit('/').next().unwrap_or_default();
            let number = self.issued.fetch_add(1, Ordering::Relaxed);
            let order = json!({
                "name": format!("order-{number}"), "environmentId": format!("south.{environment}"),
                "bandwidthMbps": wanted.bandwidth_mbps, "a": {}, "b": {"remoteAccountId": "customer-1"},
            });
            let request = self.http.post(format!("{}/v1/connections", self.url)).bearer_auth(&self.token);
            let request = request.json(&order);
            let failed = |error: reqwest::Error| KeyError(error.to_string());
            let answer: Value = request.send().await.map_err(failed)?.json().await.map_err(failed)?;
            let key = answer["activationKey"].as_str().ok_or_else(|| KeyError(answer.to_string()))?;
            Ok(Sensitive::new(key))
        })
    }
}

#[expect(clippy::disallowed_methods, reason = "the suite makes real resources, and measures real time")]
fn means() -> Means {
    let began = std::time::Instant::now();
    Means { uuid: Arc::new(uuid::Uuid::new_v4), monotonic: Arc::new(move || began.elapsed()) }
}

/// What the suite finds.
pub(crate) async fn examine(
    url: &str,
    http: reqwest::ClientBuilder,
    keys: Arc<dyn KeySource>,
    only: &[String],
) -> anyhow::Result<Vec<Outcome>> {
    let means = means();
    let settings = Settings { url: url.to_owned(), provider: "south".to_owned(), http, keys: Some(keys), means };
    let mut quiet = |_: &Outcome| {};
    let running = tieline_conformance::run(settings, only, &mut quiet);
    Ok(tokio::time::timeout(Duration::from_secs(120), running).await.context("the suite ends")??)
}

/// Rules that Tieline does not keep yet.
pub(crate) const NOT_YET: &[&str] = &["channels/notify-maintenance"];

#[tokio::test(flavor = "multi_thread")]
async fn tieline_keeps_every_rule() -> anyhow::Result<()> {
    let north = North::start().await?;
    let outcomes = examine(&north.peers, north.south()?, Customer::of(&north), &[]).await?;
    let mut broken = String::new();
    for outcome in &outcomes {
        if let Verdict::Failed(why) = &outcome.verdict
            && !NOT_YET.contains(&outcome.case.id)
        {
            broken.push_str(&format!("{}: {why}\n{}\n", outcome.case.id, report::transcript(outcome)));
        }
    }
    assert!(broken.is_empty(), "{broken}");
    for id in NOT_YET {
        let kept = outcomes.iter().any(|outcome| outcome.case.id == *id && outcome.verdict == Verdict::Passed);
        assert!(!kept, "{id} is kept now: take it from the list");
    }
    let tested = outcomes.iter().filter(|outcome| outcome.verdict == Verdict::Passed).count();
    assert!(tested > 50, "only {tested} rules were tested");
    let about = About { target: "Tieline".to_owned(), provider: "south".to_owned() };
    let text = report::markdown(&about, &outcomes);
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/conformance.md");
    if std::env::var_os("TIELINE_UPDATE").is_some() {
        std::fs::write(&file, &text)?;
    }
    let committed = std::fs::read_to_string(&file).with_context(|| file.display().to_string())?;
    assert_eq!(committed, text, "write docs/conformance.md anew: TIELINE_UPDATE=1");
    Ok(())
}
