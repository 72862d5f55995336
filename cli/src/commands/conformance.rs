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
    Credential, Customer, KeyError, KeySource, Means, Outcome, Peer, Role, Settings, SetupError, Verdict, Wanted, Wish,
    WishError, WorkPlace, all_cases,
    report::{self, About},
    run as run_suite,
};
use tieline_openapi::coordinator::Sensitive;
use tokio::{net::TcpListener, process::Command};

use crate::{
    args::{Conformance, TargetRole},
    clock,
    exit::Exit,
    output,
};

/// How long a command of the customer's may take.
const COMMAND_PATIENCE: Duration = Duration::from_secs(60);
/// What a command ends with that is asked for something that the target's customers cannot have: EX_UNAVAILABLE of
/// sysexits.h.
const UNAVAILABLE: i32 = 69;

/// Exchanges of a case that are printed: the last ones tell what went wrong.
const SHOWN: usize = 40;

const GOOD: Style = AnsiColor::Green.on_default();
const BAD: Style = AnsiColor::Red.on_default().bold();
const QUIET: Style = Style::new().dimmed();

/// Runs a shell command with some variables in its environment.
async fn shell(command: &str, variables: &[(&str, String)]) -> Result<std::process::Output, String> {
    let mut child = Command::new("sh");
    child.args(["-c", command]).envs(variables.iter().map(|(name, value)| (*name, value)));
    let child = child.stdin(Stdio::null()).kill_on_drop(true).output();
    let ended = tokio::time::timeout(COMMAND_PATIENCE, child).await;
    let ended = ended.map_err(|_| format!("`{command}` takes longer than {COMMAND_PATIENCE:?}"))?;
    ended.map_err(|error| format!("`{command}`: {error}"))
}

/// What a command that failed said last.
fn complaint(command: &str, output: &std::process::Output) -> String {
    let said = String::from_utf8_lossy(&output.stderr);
    let last = said.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("it printed no error");
    format!("`{command}` ended with {}: {last}", output.status)
}

/// Asks a shell command for keys.
struct KeysByCommand(String);

impl KeySource for KeysByCommand {
    fn issue(&self, wanted: Wanted) -> BoxFuture<'_, Result<Sensitive, KeyError>> {
        Box::pin(async move {
            let environment = wanted.environment.rsplit('/').next().unwrap_or_default().to_owned();
            let variables =
                [("TIELINE_ENVIRONMENT", environment), ("TIELINE_BANDWIDTH_MBPS", wanted.bandwidth_mbps.to_string())];
            let output = shell(&self.0, &variables).await.map_err(KeyError)?;
            let text = String::from_utf8_lossy(&output.stdout);
            match text.split_whitespace().next() {
                Some(key) if output.status.success() => Ok(Sensitive::new(key)),
                Some(_) | None => Err(KeyError(complaint(&self.0, &output))),
            }
        })
    }
}

/// Tells wishes to shell commands.
struct CustomerByCommand {
    trigger: String,
    wish: Option<String>,
}

impl Customer for CustomerByCommand {
    fn wish(&self, wish: Wish) -> BoxFuture<'_, Result<(), WishError>> {
        let other = |what: &str, connection: uuid::Uuid, bandwidth: Option<i32>| {
            let mut variables = vec![("TIELINE_WISH", what.to_owned()), ("TIELINE_CONNECTION", connection.to_string())];
            variables.extend(bandwidth.map(|mbps| ("TIELINE_BANDWIDTH_MBPS", mbps.to_string())));
            (self.wish.clone(), variables)
        };
        let work = |what: &str, at: WorkPlace| {
            let channel = format!("{}/{}/{}", at.environment, at.interconnect, at.channel);
            (self.wish.clone(), vec![("TIELINE_WISH", what.to_owned()), ("TIELINE_CHANNEL", channel)])
        };
        let (command, variables) = match wish {
            Wish::Bring(brought) => {
                let variables = vec![
                    ("TIELINE_ACTIVATION_KEY", brought.key.expose().to_owned()),
                    ("TIELINE_ENVIRONMENT", brought.environment),
                    ("TIELINE_BANDWIDTH_MBPS", brought.bandwidth_mbps.to_string()),
                    ("TIELINE_CONNECTION", brought.connection.to_string()),
                ];
                (Some(self.trigger.clone()), variables)
            }
            Wish::Update { connection, bandwidth_mbps } => other("update", connection, Some(bandwidth_mbps)),
            Wish::Migrate { connection } => other("migrate", connection, None),
            Wish::Delete { connection } => other("delete", connection, None),
            Wish::Maintain { at, emergency } => {
                let (command, mut variables) = work("maintain", at);
                variables.push(("TIELINE_EMERGENCY", emergency.to_string()));
                (command, variables)
            }
            Wish::Restore { at } => work("restore", at),
        };
        Box::pin(async move {
            let Some(command) = command else {
                let why = "it needs a customer with other wishes than a connection: --wish says how to tell them";
                return Err(WishError::Unsupported(why.to_owned()));
            };
            let output = shell(&command, &variables).await.map_err(WishError::Refused)?;
            match output.status.code() {
                Some(0) => Ok(()),
                Some(UNAVAILABLE) => Err(WishError::Unsupported(format!(
                    "the target's customers cannot wish it: the command of --wish ended with {UNAVAILABLE}"
                ))),
                Some(_) | None => Err(WishError::Refused(complaint(&command, &output))),
            }
        })
    }
}

/// Runs the command. Exits with 1 if the target breaks a rule.
pub(crate) async fn run(flags: Conformance) -> anyhow::Result<ExitCode> {
    let role = match flags.role {
        TargetRole::Responder => Role::Responder,
        TargetRole::Negotiator => Role::Negotiator,
    };
    if flags.list {
        for case in all_cases().into_iter().filter(|case| case.role == role) {
            output::say!("{:<36} {}  {QUIET}{}{QUIET:#}", case.id, case.rule, case.source);
        }
        return Ok(Exit::Ok.into());
    }
    let (Some(target), Some(provider)) = (flags.target.clone(), flags.provider.clone()) else {
        bail!("say whom to test, and as whom: --target URL --as PROVIDER");
    };
    if role == Role::Negotiator && (flags.listen.is_none() || flags.trigger.is_none()) {
        bail!(
            "a negotiator calls the suite: say where it listens (--listen ADDRESS --certificate FILE --key FILE), and how a \
             customer brings a key to the target (--trigger COMMAND)"
        );
    }
    let began = clock::now();
    let means = Means {
        uuid: Arc::new(clock::random_uuid),
        monotonic: Arc::new(move || clock::now().saturating_duration_since(began)),
    };
    let peer = listening(&flags, &means).await?;
    let settings = Settings {
        url: target.clone(),
        provider: provider.clone(),
        http: http(&flags)?,
        keys: flags.issue_key.map(|command| Arc::new(KeysByCommand(command)) as Arc<dyn KeySource>),
        customer: flags
            .trigger
            .map(|trigger| Arc::new(CustomerByCommand { trigger, wish: flags.wish }) as Arc<dyn Customer>),
        account: flags.account,
        peer: peer.clone(),
        patience: Duration::from_secs(flags.patience),
        window: Duration::from_secs(flags.window),
        bake: Duration::from_secs(flags.bake),
        jobs: flags.jobs.into(),
        means,
    };
    let serving = async {
        match peer {
            Some(peer) => peer.serve().await.map(|never| match never {}),
            None => std::future::pending().await,
        }
    };
    let (role_name, at) = (role.as_str(), flags.listen.map(|at| format!(", listens on {at}")).unwrap_or_default());
    output::say!("Testing {target} in the role of the {role_name}. The suite plays {provider}{at}.\n");
    let mut told = show;
    let ran = tokio::select! {
        ran = run_suite(settings, role, &flags.case, &mut told) => ran,
        served = serving => return served.map_err(Into::into),
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
    let reported = [(role, outcomes)];
    if let Some(file) = &flags.markdown {
        write(file, &(report::markdown(&about, &reported) + &report::transcripts(&reported)))?;
    }
    if let Some(file) = &flags.junit {
        write(file, &report::junit(&about, &reported)?)?;
    }
    let [(_, outcomes)] = &reported;
    Ok(if summary(outcomes) { Exit::Ok } else { Exit::Failure }.into())
}

/// Where the target reaches the suite, if it is to.
async fn listening(flags: &Conformance, means: &Means) -> anyhow::Result<Option<Peer>> {
    let (Some(address), Some(certificate), Some(key)) = (flags.listen, &flags.certificate, &flags.key) else {
        return Ok(None);
    };
    let listener = TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"))?;
    let anchors = flags.ca.as_deref().map(read).transpose()?;
    let monotonic = Arc::clone(&means.monotonic);
    Ok(Some(Peer::new(listener, &read(certificate)?, &read(key)?, anchors.as_deref(), monotonic)?))
}

/// HTTP clients with what the flags say, which is read once.
fn http(flags: &Conformance) -> anyhow::Result<tieline_conformance::HttpSource> {
    let anchors = match &flags.ca {
        Some(ca) => {
            let anchors = reqwest::Certificate::from_pem_bundle(&read(ca)?);
            Some(anchors.with_context(|| ca.display().to_string())?)
        }
        None => None,
    };
    let identity = match (&flags.certificate, &flags.key) {
        (Some(certificate), Some(key)) => {
            let both = [read(certificate)?, b"\n".to_vec(), read(key)?].concat();
            let identity = reqwest::Identity::from_pem(&both);
            Some(identity.with_context(|| format!("{} and {}", certificate.display(), key.display()))?)
        }
        _ => None,
    };
    Ok(Arc::new(move |credential| {
        let mut http = reqwest::Client::builder().no_proxy();
        if let Some(anchors) = &anchors {
            http = http.tls_certs_only(anchors.clone());
        }
        match (&identity, credential) {
            (Some(identity), Credential::Peer) => http.identity(identity.clone()),
            (Some(_), Credential::Nobody) | (None, _) => http,
        }
    }))
}

/// Prints the end of it: counts, and what to do next. True if no rule is broken.
fn summary(outcomes: &[Outcome]) -> bool {
    let (kept, broken, skipped) = report::counts(outcomes);
    let style = if broken == 0 { GOOD } else { BAD };
    output::say!("\n{style}{} rules: {kept} kept, {broken} broken, {skipped} not tested{style:#}", outcomes.len());
    let failed = outcomes.iter().filter(|outcome| matches!(outcome.verdict, Verdict::Failed(_)));
    let failed: Vec<_> = failed.map(|outcome| outcome.case.id).collect();
    if let Some(first) = failed.first() {
        output::say!("\nBroken:");
        for id in &failed {
            output::say!("  {BAD}{id}{BAD:#}");
        }
        output::say!(
            "\nWhat was sent and received stands above, under each. When you have changed something, run one rule alone: the \
             same command with {GOOD}--case {first}{GOOD:#}."
        );
    }
    let mut reasons: Vec<&str> = outcomes
        .iter()
        .filter_map(|outcome| if let Verdict::Skipped(why) = &outcome.verdict { Some(why.as_str()) } else { None })
        .collect();
    reasons.sort_unstable();
    reasons.dedup();
    if !reasons.is_empty() {
        output::say!("\nNot tested, because:");
        for reason in reasons {
            output::say!("  {QUIET}{reason}{QUIET:#}");
        }
    }
    broken == 0
}

/// Prints a case as it ends.
fn show(outcome: &Outcome) {
    let case = outcome.case;
    match &outcome.verdict {
        Verdict::Passed => output::say!("{GOOD}✓{GOOD:#} {:<34} {QUIET}{}{QUIET:#}", case.id, case.rule),
        Verdict::Skipped(why) => output::say!("- {:<34} {QUIET}not tested: {why}{QUIET:#}", case.id),
        Verdict::Failed(why) => {
            output::say!("{BAD}✗ {}{BAD:#}", case.id);
            output::say!("    the rule   {}", case.rule);
            output::say!("    its source {}", case.source);
            output::say!("    broken     {BAD}{why}{BAD:#}");
            output::say!("    {QUIET}what was said: `>` the suite, `<` the target{QUIET:#}");
            let earlier = outcome.exchanges.len().saturating_sub(SHOWN);
            if earlier > 0 {
                output::say!(
                    "      {QUIET}({earlier} earlier exchanges stand in the reports: --markdown, --junit){QUIET:#}"
                );
            }
            for exchange in outcome.exchanges.iter().skip(earlier) {
                for line in exchange.to_string().lines() {
                    output::say!("      {line}");
                }
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
