//! `tieline conformance`: tests any implementation of the Connection Coordinator API.

use std::{
    path::Path,
    process::{ExitCode, Stdio},
    sync::Arc,
    time::Duration,
};

use anstyle::{AnsiColor, Style};
use anyhow::{Context as _, bail};
use futures::future::BoxFuture;
use tieline_conformance::{
    KeyError, KeySource, Means, Outcome, Peer, Settings, SetupError, Verdict, Wanted, all_cases,
    report::{self, About},
    run as run_suite,
};
use tieline_openapi::coordinator::Sensitive;
use tokio::net::TcpListener;

use crate::{args::Conformance, clock, exit::Exit};

/// How long the command that gets a key may take.
const KEY_PATIENCE: Duration = Duration::from_secs(60);

const GOOD: Style = AnsiColor::Green.on_default();
const BAD: Style = AnsiColor::Red.on_default().bold();
const QUIET: Style = Style::new().dimmed();

/// Asks a shell command for keys.
struct ByCommand(String);

impl KeySource for ByCommand {
    fn issue(&self, wanted: Wanted) -> BoxFuture<'_, Result<Sensitive, KeyError>> {
        Box::pin(async move {
            let environment = wanted.environment.rsplit('/').next().unwrap_or_default().to_owned();
            let child = tokio::process::Command::new("sh")
                .args(["-c", &self.0])
                .env("TIELINE_ENVIRONMENT", environment)
                .env("TIELINE_BANDWIDTH_MBPS", wanted.bandwidth_mbps.to_string())
                .stdin(Stdio::null())
                .kill_on_drop(true)
                .output();
            let ended = tokio::time::timeout(KEY_PATIENCE, child).await;
            let ended = ended.map_err(|_| KeyError(format!("`{}` takes longer than {KEY_PATIENCE:?}", self.0)))?;
            let output = ended.map_err(|error| KeyError(format!("`{}`: {error}", self.0)))?;
            let text = String::from_utf8_lossy(&output.stdout);
            match text.split_whitespace().next() {
                Some(key) if output.status.success() => Ok(Sensitive::new(key)),
                Some(_) | None => {
                    let said = String::from_utf8_lossy(&output.stderr);
                    let last = said.lines().last().unwrap_or("it printed nothing");
                    Err(KeyError(format!("`{}` ended with {}: {last}", self.0, output.status)))
                }
            }
        })
    }
}

/// Runs the command. Exits with 1 if the target breaks a rule.
pub(crate) async fn run(flags: Conformance) -> anyhow::Result<ExitCode> {
    if flags.list {
        for case in all_cases() {
            anstream::println!("{:<36} {}  {QUIET}{}{QUIET:#}", case.id, case.rule, case.source);
        }
        return Ok(Exit::Ok.into());
    }
    let (Some(target), Some(provider)) = (flags.target, flags.provider) else {
        bail!("say whom to test, and as whom: --target URL --as PROVIDER");
    };
    let mut http = reqwest::Client::builder().no_proxy();
    if let Some(ca) = &flags.ca {
        let anchors = reqwest::Certificate::from_pem_bundle(&read(ca)?).with_context(|| ca.display().to_string())?;
        http = http.tls_certs_only(anchors);
    }
    if let (Some(certificate), Some(key)) = (&flags.certificate, &flags.key) {
        let both = [read(certificate)?, read(key)?].concat();
        let identity = reqwest::Identity::from_pem(&both);
        http = http.identity(identity.with_context(|| format!("{} and {}", certificate.display(), key.display()))?);
    }
    let began = clock::now();
    let settings = Settings {
        url: target.clone(),
        provider: provider.clone(),
        http: http.tls_version_min(reqwest::tls::Version::TLS_1_3),
        keys: flags.issue_key.map(|command| Arc::new(ByCommand(command)) as Arc<dyn KeySource>),
        means: Means {
            uuid: Arc::new(clock::random_uuid),
            monotonic: Arc::new(move || clock::now().saturating_duration_since(began)),
        },
    };
    let peer = match (flags.listen, &flags.certificate, &flags.key) {
        (Some(address), Some(certificate), Some(key)) => {
            let listener = TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"))?;
            Some(Peer::new(listener, &read(certificate)?, &read(key)?)?)
        }
        _ => None,
    };
    let serving = async {
        match peer {
            Some(peer) => peer.serve().await,
            None => std::future::pending().await,
        }
    };
    let mut told = show;
    let ran = tokio::select! {
        ran = run_suite(settings, &flags.case, &mut told) => ran,
        served = serving => {
            served?;
            bail!("the suite's own half of the API ended");
        }
    };
    let outcomes = match ran {
        Ok(outcomes) => outcomes,
        Err(error) => {
            if let SetupError::Static { exchanges, .. } = &error {
                exchanges.iter().for_each(|exchange| anstream::eprintln!("{exchange}"));
            }
            return Err(error.into());
        }
    };
    let about = About { target: flags.name.unwrap_or(target), provider };
    if let Some(file) = &flags.markdown {
        write(file, &(report::markdown(&about, &outcomes) + &report::transcripts(&outcomes)))?;
    }
    if let Some(file) = &flags.junit {
        write(file, &report::junit(&about, &outcomes)?)?;
    }
    let (kept, broken, skipped) = report::counts(&outcomes);
    anstream::println!("{} rules: {kept} kept, {broken} broken, {skipped} not tested", outcomes.len());
    Ok(if broken == 0 { Exit::Ok } else { Exit::Failure }.into())
}

/// Prints a case as it ends.
fn show(outcome: &Outcome) {
    let case = outcome.case;
    match &outcome.verdict {
        Verdict::Passed => anstream::println!("{GOOD}✓{GOOD:#} {:<36} {QUIET}{}{QUIET:#}", case.id, case.rule),
        Verdict::Skipped(why) => anstream::println!("- {:<36} {QUIET}{why}{QUIET:#}", case.id),
        Verdict::Failed(why) => {
            anstream::println!("{BAD}✗{BAD:#} {:<36} {}\n  {BAD}{why}{BAD:#}", case.id, case.rule);
            anstream::println!("  {QUIET}{}{QUIET:#}", case.source);
            for line in report::transcript(outcome).lines() {
                anstream::println!("    {line}");
            }
        }
    }
}

fn read(file: &Path) -> anyhow::Result<Vec<u8>> {
    std::fs::read(file).with_context(|| format!("{} cannot be read", file.display()))
}

fn write(file: &Path, text: &str) -> anyhow::Result<()> {
    std::fs::write(file, text).with_context(|| format!("{} cannot be written", file.display()))
}
