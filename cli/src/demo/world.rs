//! What a demo runs in: a lab, the service, and their folder.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, bail};
use secrecy::SecretString;
use tieline_lab::{
    assembly::LabFacts,
    cell::{self, Place, control::Client as Control},
    net::wire::{Cut, WireChange},
};
use tieline_openapi::client::Client;

use super::process::Process;
use crate::args;

/// The header that the simulated clouds' own side door wants.
const LAB_TOKEN: &str = "x-lab-token";
/// How long a simulated cloud may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// A lab and the service that runs on it.
pub(crate) struct World {
    /// Where everything is kept.
    pub dir: PathBuf,
    /// What the lab tells.
    pub facts: LabFacts,
    /// The service, while it runs.
    pub service: Option<Process>,
    /// Where it listens.
    pub url: String,
    /// A client with the first admin token.
    pub client: Client,
    /// Gateways, while they run.
    pub gateways: Vec<Process>,
    http: reqwest::Client,
}

impl World {
    /// Starts a service on a lab, whose folder is `lab` in this one.
    pub(crate) async fn start(dir: &Path, facts: LabFacts) -> anyhow::Result<Self> {
        let (service, url) = serve(&dir.join("lab"), "service", dir, &facts.config, "127.0.0.1:0").await?;
        let token = std::fs::read_to_string(dir.join("tieline.token")).context("the first admin token")?;
        let client = Client::new(&url, &SecretString::from(token.trim()))?;
        let http = reqwest::Client::builder().no_proxy().timeout(PATIENCE).build()?;
        Ok(Self { dir: dir.to_owned(), facts, service: Some(service), url, client, gateways: Vec::new(), http })
    }

    /// The lab's folder.
    pub(crate) fn lab(&self) -> PathBuf {
        self.dir.join("lab")
    }

    /// Starts a gateway of one end, inside the lab, with its data in the gateway host's network.
    pub(crate) async fn start_gateway(&mut self, end: End) -> anyhow::Result<()> {
        let attach_point = self.facts.attach_points[end as usize].parse()?;
        let group = format!("{}-gateways", end.letter()).parse()?;
        let request = tieline_openapi::v1::JoinTokenRequest { attach_point_id: attach_point, expires_in_seconds: None };
        let join = self.client.issue_join_token(&group, &request).await?;
        let secret = join.secret.context("a join token came without its secret")?;
        let name = format!("{}-gw", end.letter());
        let mut command = cell::command(&self.lab(), &Place::Outside, std::env::current_exe()?)?;
        command
            .arg("gateway")
            .args(["--url", &self.url, "--name", &name])
            .arg("--state-dir")
            .arg(self.dir.join(&name))
            .args(["--netns", &format!("/run/netns/{name}")])
            .args(["--private-address", end.private_address()])
            .args(["--endpoint", end.endpoint()])
            // That folder is the whole machine's.
            .args(["--uapi", "none"])
            .env("TIELINE_JOIN_TOKEN", &secret)
            .env("RUST_LOG", "info");
        self.gateways.push(Process::start(&name, &self.dir, command)?);
        Ok(())
    }

    /// Cuts every channel between the clouds, silently, or mends them.
    pub(crate) async fn cut(&self, cut: bool) -> anyhow::Result<()> {
        let lab = Control::open(&self.lab())?;
        let change = WireChange { cut: Some(if cut { Cut::Both } else { Cut::None }), ..WireChange::default() };
        let names: Vec<_> = (0..self.facts.parameters.channels).map(|i| format!("ch{i}")).collect();
        let all = names.iter().map(|name| lab.change_wire(name, &change));
        futures::future::try_join_all(all).await?;
        Ok(())
    }

    /// Kills the service, as a crash would.
    pub(crate) async fn kill_service(&mut self) -> anyhow::Result<()> {
        if let Some(service) = self.service.take() {
            service.kill().await?;
        }
        Ok(())
    }

    /// Starts it again, where it was.
    pub(crate) async fn restart_service(&mut self) -> anyhow::Result<()> {
        let listen = self.url.trim_start_matches("http://").to_owned();
        let (service, _) = serve(&self.lab(), "service", &self.dir, &self.facts.config, &listen).await?;
        self.service = Some(service);
        Ok(())
    }

    /// The state of both simulated clouds, less tombstones and operation records.
    pub(crate) async fn dumps(&self) -> anyhow::Result<[String; 2]> {
        Ok([self.dump(&self.facts.aws_url).await?, self.dump(&self.facts.google_url).await?])
    }

    async fn dump(&self, url: &str) -> anyhow::Result<String> {
        let asked = self.http.get(format!("{url}/_lab/dump")).header(LAB_TOKEN, &self.facts.admin_token).send().await;
        let answer = asked.context("the simulated cloud does not answer")?;
        if !answer.status().is_success() {
            bail!("the simulated cloud at {url} answered {}", answer.status());
        }
        Ok(answer.text().await?)
    }

    /// Leaves everything running, until the lab ends.
    pub(crate) fn keep(self) {
        self.service.into_iter().chain(self.gateways).for_each(Process::keep);
    }
}

/// An end of the demo's connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// AWS.
    A = 0,
    /// Google.
    B = 1,
}

impl End {
    const fn letter(self) -> &'static str {
        match self {
            Self::A => "a",
            Self::B => "b",
        }
    }

    const fn private_address(self) -> &'static str {
        match self {
            Self::A => "10.0.2.10",
            Self::B => "10.1.2.10",
        }
    }

    const fn endpoint(self) -> &'static str {
        match self {
            Self::A => "203.0.113.10:51820",
            Self::B => "198.51.100.10:51820",
        }
    }
}

/// The demo's folder, made where it is not there.
pub(crate) fn folder(demo: &args::Demo) -> anyhow::Result<PathBuf> {
    let dir = match &demo.dir {
        Some(dir) => std::path::absolute(dir)?,
        None => std::env::temp_dir().join(format!("tieline-demo-{}", std::process::id())),
    };
    std::fs::create_dir_all(&dir).with_context(|| dir.display().to_string())?;
    Ok(dir)
}

/// Starts a service among the lab's processes, so that it ends with them; its network is that of whoever runs the demo. Its
/// files are in `dir`.
pub(super) async fn serve(
    lab: &Path,
    name: &str,
    dir: &Path,
    config: &Path,
    listen: &str,
) -> anyhow::Result<(Process, String)> {
    let mut command = cell::command(lab, &Place::Outside, std::env::current_exe()?)?;
    command
        .arg("serve")
        .arg("--config")
        .arg(config)
        .args(["--listen", listen, "--database"])
        .arg(format!("sqlite://{}", dir.join("tieline.db").display()))
        .arg("--first-token-file")
        .arg(dir.join("tieline.token"))
        .arg("--key-file")
        .arg(dir.join("tieline.key"));
    let mut service = Process::start(name, dir, command)?;
    let line = service.first_line().await?;
    let url = line.strip_prefix("listening on ").context("the service said something else than where it listens")?;
    Ok((service, url.to_owned()))
}
