//! From the POST to the first packet through the tunnel, and to BGP Established: the real service and gateways on a lab
//! whose clouds take no time of their own.

use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use secrecy::SecretString;
use serde_json::{Value, json};
use tieline_openapi::{
    client::{Client, PageQuery, Write},
    ids::ConnectionId,
    v1::{BgpState, ConnectionIntent, ConnectionState, JoinTokenRequest},
};

use crate::report::Row;

/// The longest that anything may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// The host behind the Google gateway, and where it listens.
const B_HOST: &str = "10.1.1.10:9000";
/// Each end's gateway: name, group, address in its network, address on the internet.
const GATEWAYS: [[&str; 4]; 2] = [
    ["a-gw", "a-gateways", "10.0.2.10", "203.0.113.10:51820"],
    ["b-gw", "b-gateways", "10.1.2.10", "198.51.100.10:51820"],
];

/// A process that is killed with its owner.
struct Guarded(Child);

impl Drop for Guarded {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A lab and a service on it, by the binary, as a user starts them.
struct Rig {
    binary: PathBuf,
    dir: tempfile::TempDir,
    facts: Value,
    client: Client,
    url: String,
    _service: Guarded,
}

impl Drop for Rig {
    fn drop(&mut self) {
        let lab = self.dir.path().join("lab");
        // Whatever it says, nothing more can be done.
        let _ = Command::new(&self.binary).args(["lab", "down", "--dir"]).arg(lab).output();
    }
}

impl Rig {
    /// Nothing where this machine cannot run a lab.
    fn start(binary: &Path) -> anyhow::Result<Option<Self>> {
        let dir = tempfile::tempdir()?;
        let lab = dir.path().join("lab");
        let up = Command::new(binary).args(["lab", "up", "--channels", "2", "--dir"]).arg(&lab).output();
        let up = up.with_context(|| format!("{} cannot be run: `make build` makes it", binary.display()))?;
        if !up.status.success() {
            let why = String::from_utf8_lossy(&up.stderr);
            if why.contains("this machine cannot run a lab") {
                println!("{why}");
                return Ok(None);
            }
            bail!("the lab did not come up: {why}");
        }
        let facts: Value = serde_json::from_str(&std::fs::read_to_string(lab.join("lab.json"))?)?;
        let at = |name: &str| dir.path().join(name);
        let mut command = Command::new(binary);
        command
            .args(["serve", "--listen", "127.0.0.1:0", "--config"])
            .arg(facts["config"].as_str().context("a lab tells its tieline.toml")?)
            .args(["--database", &format!("sqlite://{}", at("tieline.db").display())])
            .arg("--first-token-file")
            .arg(at("tieline.token"))
            .arg("--key-file")
            .arg(at("tieline.key"));
        let mut service = Self::spawn(command, Stdio::piped(), &at("service.log"))?;
        let mut line = String::new();
        BufReader::new(output_of(&mut service)?).read_line(&mut line)?;
        let url = line.trim().strip_prefix("listening on ").with_context(|| format!("the service said {line:?}"))?;
        let token = std::fs::read_to_string(at("tieline.token"))?;
        let client = Client::new(url, &SecretString::from(token.trim()))?;
        let (binary, url) = (binary.to_owned(), url.to_owned());
        Ok(Some(Self { binary, dir, facts, client, url, _service: service }))
    }

    fn spawn(mut command: Command, stdout: Stdio, log: &Path) -> anyhow::Result<Guarded> {
        command.stdin(Stdio::null()).stdout(stdout).stderr(std::fs::File::create(log)?);
        Ok(Guarded(command.spawn().with_context(|| format!("{command:?} could not be started"))?))
    }

    /// Runs a verb of the binary on a host of the lab.
    fn on(&self, host: &str, name: &str, arguments: &[&str], stdout: Stdio) -> anyhow::Result<Guarded> {
        let mut command = Command::new(&self.binary);
        command.args(["lab", "exec", "--dir"]).arg(self.dir.path().join("lab")).args([host, "--"]);
        command.arg(&self.binary).args(arguments);
        Self::spawn(command, stdout, &self.dir.path().join(format!("{name}.log")))
    }

    /// Starts both gateways and waits until they have joined.
    async fn gateways(&self) -> anyhow::Result<Vec<Guarded>> {
        let mut running = Vec::new();
        for (end, [name, group, private, endpoint]) in GATEWAYS.into_iter().enumerate() {
            let attach_point_id = self.facts["attachPoints"][end].as_str().context("an attach point")?.parse()?;
            let request = JoinTokenRequest { attach_point_id, expires_in_seconds: None };
            let join = self.client.issue_join_token(&group.parse()?, &request).await?;
            let state = self.dir.path().join(name);
            let state = state.to_str().context("a folder with a plain name")?;
            let netns = format!("/run/netns/{name}");
            let arguments = [
                "gateway",
                "--url",
                &self.url,
                "--name",
                name,
                "--state-dir",
                state,
                "--netns",
                &netns,
                "--private-address",
                private,
                "--endpoint",
                endpoint,
                "--join-token",
                join.secret.as_deref().context("a join token came without its secret")?,
            ];
            running.push(self.on("-", name, &arguments, Stdio::null())?);
        }
        let both = async {
            while self.client.gateways(&PageQuery::default()).await?.gateways.len() < running.len() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            anyhow::Ok(())
        };
        tokio::time::timeout(PATIENCE, both).await.context("the gateways join")??;
        Ok(running)
    }

    fn intent(&self) -> anyhow::Result<ConnectionIntent> {
        let end = |n: usize, net: &str| json!({ "attachPointId": self.facts["attachPoints"][n], "advertisedPrefixes": [net] });
        Ok(serde_json::from_value(json!({
            "name": "bench", "environmentId": self.facts["environmentId"], "bandwidthMbps": 1_000, "redundancy": "DUAL",
            "a": end(0, "10.0.0.0/16"), "b": end(1, "10.1.0.0/16"),
        }))?)
    }
}

fn output_of(process: &mut Guarded) -> anyhow::Result<ChildStdout> {
    process.0.stdout.take().context("it was piped")
}

/// Both times, over several runs; nothing where this machine cannot run a lab.
pub(crate) async fn run(runs: u32, binary: &Path) -> anyhow::Result<Vec<Row>> {
    let mut times: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    for _ in 0..runs {
        let Some(rig) = Rig::start(binary)? else { return Ok(Vec::new()) };
        let _gateways = rig.gateways().await?;
        let (tunnel, established) = once(&rig).await?;
        times.entry("post_to_tunnel").or_default().push(tunnel.as_secs_f64() * 1_000.0);
        times.entry("post_to_established").or_default().push(established.as_secs_f64() * 1_000.0);
    }
    Ok(times.into_iter().filter_map(|(name, times)| Row::of(name, "ms", times)).collect())
}

async fn once(rig: &Rig) -> anyhow::Result<(Duration, Duration)> {
    // The host sends from before the request on, so the first datagram that arrives is the first that can.
    let mut receiver = rig.on("b-host", "receiver", &["lab-flow", "udp-receive", B_HOST], Stdio::piped())?;
    let _sender = rig.on("a-host", "sender", &["lab-flow", "udp-send", B_HOST], Stdio::null())?;
    let stdout = output_of(&mut receiver)?;
    let (told, mut first) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            if serde_json::from_str::<Value>(&line).is_ok_and(|seen| seen["received"].as_u64() > Some(0)) {
                // Nobody may wait any more.
                let _ = told.send(Instant::now());
                return;
            }
        }
    });
    tokio::time::sleep(Duration::from_millis(500)).await;
    if first.try_recv().is_ok() {
        bail!("datagrams arrive before there is a connection");
    }
    let intent = rig.intent()?;
    let posted = Instant::now();
    let created = rig.client.create_connection(&intent, &Write::default()).await?;
    let id = created.connection.id;
    let (first, established) = tokio::try_join!(
        async { tokio::time::timeout(PATIENCE, first).await?.context("the receiver ended") },
        established(&rig.client, id),
    )?;
    Ok((first - posted, established - posted))
}

/// When every channel is Established on both sides, as the clouds report it.
async fn established(client: &Client, id: ConnectionId) -> anyhow::Result<Instant> {
    let all = async {
        loop {
            let connection = client.connection(id).await?;
            if connection.state == ConnectionState::ActionRequired {
                bail!("the connection needs a person: {:?}", connection.state_reason);
            }
            let mut channels = connection.placements.iter().flat_map(|placement| &placement.channels).peekable();
            if channels.peek().is_some() && channels.all(|channel| channel.bgp_state == BgpState::Established) {
                return Ok(Instant::now());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, all).await.context("BGP is Established")?
}
