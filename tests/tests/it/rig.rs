//! A lab and a service on it, both started as a user starts them: by the `tieline` binary.

use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader},
    os::unix::process::ExitStatusExt as _,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, bail};
use secrecy::SecretString;
use serde::Serialize;
use serde_json::{Value, json};
use tieline_lab::{
    assembly::{self, LabFacts},
    clouds::{ADMIN_HEADER, Fault, JournalEntry},
};
use tieline_openapi::{
    client::Client,
    config::{Config, EngineConfig},
    v1::{AddressFamily, ConnectionEnd, ConnectionIntent, End, Fallback, Redundancy, Routing, Wanted},
};

/// The longest that anything is waited for.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// The binary under test: `TIELINE_BIN`, else the one built beside this test.
pub(crate) fn binary() -> PathBuf {
    if let Some(path) = std::env::var_os("TIELINE_BIN") {
        return PathBuf::from(path);
    }
    let me = std::env::current_exe().expect("a test has a path");
    me.ancestors().nth(2).expect("target/debug/deps").join("tieline")
}

/// A lab, and maybe a service on it. Everything ends with it.
pub(crate) struct Rig {
    /// Where everything is kept.
    pub dir: tempfile::TempDir,
    /// What the lab tells.
    pub facts: LabFacts,
    service: Option<Child>,
    /// Further services, by name.
    replicas: BTreeMap<String, Child>,
    /// A client of the simulated clouds' side door.
    http: reqwest::Client,
}

impl Rig {
    /// Starts a lab without delays in its clouds; nothing where this machine cannot run one.
    pub(crate) fn lab(channels: usize) -> anyhow::Result<Option<Self>> {
        let dir = tempfile::tempdir()?;
        let up = Command::new(binary())
            .args(["lab", "up", "--channels", &channels.to_string(), "--dir"])
            .arg(dir.path().join("lab"))
            .output()
            .with_context(|| format!("{} cannot be run: build it first", binary().display()))?;
        if !up.status.success() {
            let why = String::from_utf8_lossy(&up.stderr);
            if why.contains("this machine cannot run a lab") {
                println!("SKIPPED: {why}");
                return Ok(None);
            }
            bail!("the lab did not come up: {why}");
        }
        let facts = assembly::facts(&dir.path().join("lab"))?;
        let http = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(10)).build()?;
        Ok(Some(Self { dir, facts, service: None, replicas: BTreeMap::new(), http }))
    }

    /// Lets services that are started from now on keep other times than those of a lab.
    pub(crate) fn set_clocks(&mut self, engine: EngineConfig) -> anyhow::Result<()> {
        let config = Config { engine, ..Config::read(&self.facts.config)? };
        self.facts.config = self.dir.path().join("tieline.toml");
        std::fs::write(&self.facts.config, toml::to_string(&config)?)?;
        Ok(())
    }

    /// Starts the service, with this failpoint armed where one is given, and gives a client with the first token.
    pub(crate) fn serve(&mut self, failpoint: Option<&str>) -> anyhow::Result<Client> {
        let (service, client) = self.start("service", &self.database(), failpoint)?;
        self.service = Some(service);
        Ok(client)
    }

    /// The database of the one service.
    pub(crate) fn database(&self) -> String {
        format!("sqlite://{}", self.dir.path().join("tieline.db").display())
    }

    /// Starts one of several services on a database that they share, with the key that they share.
    pub(crate) fn replica(&mut self, name: &str, database: &str) -> anyhow::Result<Client> {
        let (service, client) = self.start(name, database, None)?;
        self.replicas.insert(name.to_owned(), service);
        Ok(client)
    }

    /// Kills one of them.
    pub(crate) fn kill_replica(&mut self, name: &str) -> anyhow::Result<()> {
        let mut service = self.replicas.remove(name).context("it runs")?;
        service.kill()?;
        service.wait()?;
        Ok(())
    }

    fn start(&self, name: &str, database: &str, failpoint: Option<&str>) -> anyhow::Result<(Child, Client)> {
        let at = |name: &str| self.dir.path().join(name);
        let log = std::fs::File::options().create(true).append(true).open(at(&format!("{name}.log")))?;
        let mut command = Command::new(binary());
        command
            .arg("serve")
            .arg("--config")
            .arg(&self.facts.config)
            .args(["--listen", "127.0.0.1:0", "--database", database])
            .arg("--first-token-file")
            .arg(at("tieline.token"))
            .arg("--key-file")
            .arg(at("tieline.key"))
            .env_remove("TIELINE_FAILPOINT")
            .stdout(Stdio::piped())
            .stderr(log);
        if let Some(failpoint) = failpoint {
            command.env("TIELINE_FAILPOINT", failpoint);
        }
        let mut service = command.spawn()?;
        let stdout = service.stdout.take().context("it was piped")?;
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        let told = line.trim().strip_prefix("listening on ").map(|url| {
            let token = std::fs::read_to_string(at("tieline.token"))?;
            anyhow::Ok(Client::new(url, &SecretString::from(token.trim()))?)
        });
        match told {
            Some(client) => Ok((service, client?)),
            None => {
                // It has ended, or is about to.
                let _ = service.kill();
                service.wait()?;
                bail!("{name} said {line:?}: {}", self.log_of(name))
            }
        }
    }

    /// Whether the service has ended by itself, as a failpoint ends it.
    pub(crate) fn has_crashed(&mut self) -> anyhow::Result<bool> {
        let Some(service) = &mut self.service else { return Ok(true) };
        match service.try_wait()? {
            None => Ok(false),
            Some(status) if status.signal() == Some(nix::libc::SIGABRT) => Ok(true),
            Some(status) => bail!("the service ended with {status}"),
        }
    }

    /// Kills the service.
    pub(crate) fn kill(&mut self) -> anyhow::Result<()> {
        if let Some(mut service) = self.service.take() {
            // It may have ended by itself a moment ago.
            let _ = service.kill();
            service.wait()?;
        }
        Ok(())
    }

    /// An intent between both ends of the lab.
    pub(crate) fn intent(&self, name: &str, redundancy: Redundancy) -> anyhow::Result<ConnectionIntent> {
        let end = |attach_point: &str, prefix: &str| {
            Ok::<_, anyhow::Error>(ConnectionEnd {
                attach_point_id: Some(attach_point.parse()?),
                remote_account_id: None,
                advertised_prefixes: vec![prefix.parse()?],
                accepted_prefixes: None,
            })
        };
        Ok(ConnectionIntent {
            name: name.to_owned(),
            environment_id: self.facts.environment_id.parse()?,
            bandwidth_mbps: 1_000.try_into()?,
            redundancy,
            a: end(&self.facts.attach_points[0], "10.0.0.0/16")?,
            b: end(&self.facts.attach_points[1], "10.1.0.0/16")?,
            routing: Routing::default(),
            families: vec![AddressFamily::Ipv4],
            wanted: Wanted::default(),
            fallback: Fallback::default(),
            labels: BTreeMap::new(),
            description: String::new(),
            deletion_protection: false,
        })
    }

    /// The state of both simulated clouds, less tombstones and operation records.
    pub(crate) async fn dumps(&self) -> anyhow::Result<[Value; 2]> {
        Ok([self.side_door(&self.facts.aws_url, "dump").await?, self.side_door(&self.facts.google_url, "dump").await?])
    }

    /// The calls that a simulated cloud took, oldest first.
    pub(crate) async fn calls(&self, end: End) -> anyhow::Result<Vec<JournalEntry>> {
        let url = match end {
            End::A => &self.facts.aws_url,
            End::B => &self.facts.google_url,
        };
        Ok(serde_json::from_value(self.side_door(url, "calls").await?)?)
    }

    async fn side_door(&self, url: &str, what: &str) -> anyhow::Result<Value> {
        let asked = self.http.get(format!("{url}/_lab/{what}")).header(ADMIN_HEADER, &self.facts.admin_token);
        Ok(asked.send().await?.error_for_status()?.json().await?)
    }

    async fn tell(&self, url: &str, what: &str, body: &impl Serialize) -> anyhow::Result<reqwest::Response> {
        let asked = self.http.post(format!("{url}/_lab/{what}")).header(ADMIN_HEADER, &self.facts.admin_token);
        let answer = asked.json(body).send().await?;
        let status = answer.status();
        if !status.is_success() {
            bail!("the simulated cloud refuses {what}: {status} {}", answer.text().await?);
        }
        Ok(answer)
    }

    /// Changes a resource of a simulated cloud behind its API's back.
    pub(crate) async fn corrupt(
        &self,
        url: &str,
        kind: &str,
        id: &str,
        pointer: &str,
        value: Value,
    ) -> anyhow::Result<()> {
        let body = json!({ "kind": kind, "id": id, "pointer": pointer, "value": value });
        self.tell(url, "corrupt", &body).await.map(drop)
    }

    /// Lets something go wrong in a simulated cloud.
    pub(crate) async fn fault(&self, url: &str, fault: &Fault) -> anyhow::Result<()> {
        self.tell(url, "faults", fault).await.map(drop)
    }

    /// Lets requests that were doubled on their way to a simulated cloud arrive a second time. What it answers.
    pub(crate) async fn late(&self, url: &str) -> anyhow::Result<Vec<u16>> {
        Ok(self.tell(url, "late", &json!(null)).await?.json().await?)
    }

    /// What `tieline lab status` says of every BGP session.
    pub(crate) fn sessions(&self) -> anyhow::Result<Vec<(String, String)>> {
        let asked = Command::new(binary()).args(["lab", "status", "--json", "--dir"]).arg(self.lab_dir()).output()?;
        let status: Value = serde_json::from_slice(&asked.stdout)?;
        let sites = status["sites"].as_object().context("sites")?;
        let sessions = sites.values().filter_map(Value::as_object).flatten();
        Ok(sessions.map(|(id, s)| (id.clone(), s["bgp"].as_str().unwrap_or_default().to_owned())).collect())
    }

    fn lab_dir(&self) -> PathBuf {
        self.dir.path().join("lab")
    }

    /// The service's log.
    pub(crate) fn log(&self) -> String {
        self.log_of("service")
    }

    /// Its end, less the requests that it answered.
    pub(crate) fn log_tail(&self) -> String {
        let log = self.log();
        let told: Vec<_> = log.lines().filter(|line| !line.contains("answered")).collect();
        told[told.len().saturating_sub(30)..].join("\n")
    }

    fn log_of(&self, name: &str) -> String {
        std::fs::read_to_string(self.dir.path().join(format!("{name}.log"))).unwrap_or_default()
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        let _ = self.kill();
        for mut replica in std::mem::take(&mut self.replicas).into_values() {
            let _ = replica.kill();
            let _ = replica.wait();
        }
        let _ = Command::new(binary()).args(["lab", "down", "--dir"]).arg(self.lab_dir()).output();
        if std::thread::panicking() {
            println!("{}", self.log_tail());
        }
    }
}

/// Waits until something is so, asking again and again.
pub(crate) async fn until<T>(what: &str, mut ask: impl AsyncFnMut() -> anyhow::Result<Option<T>>) -> anyhow::Result<T> {
    let asking = async {
        let mut every = tokio::time::interval(Duration::from_millis(50));
        loop {
            every.tick().await;
            if let Some(answer) = ask().await? {
                return Ok(answer);
            }
        }
    };
    tokio::time::timeout(PATIENCE, asking)
        .await
        .with_context(|| format!("not within {} s: {what}", PATIENCE.as_secs()))?
}
