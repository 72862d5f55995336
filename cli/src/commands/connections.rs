//! `tieline connections`: list, create, accept, show, update, migrate, delete.

mod list;

use std::{io::Read as _, process::ExitCode, time::Duration};

use anyhow::Context as _;
use indicatif::{ProgressBar, ProgressStyle};
use ipnet::IpNet;
use serde_json::{Map, Value};
use tieline_openapi::{
    client::{Client, ClientError, Write},
    coordinator::Sensitive,
    ids::OperationId,
    problem::ProblemCode,
    units::BandwidthMbps,
    v1::{
        ActivationKeyAcceptance, ActivationKeyText, AddressFamily, Connection, ConnectionEnd, ConnectionIntent,
        Fallback, Migration, Operation, OperationState, Redundancy, Routing, StageState, Wanted,
    },
};

use super::{client, explain_timeout, find};
use crate::{
    args::{ChangeArgs, Connections, Intent, RedundancyArg},
    exit::{Exit, Failure},
    output,
};

/// A watched connection is looked at this often without an event.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// Runs `tieline connections ...`.
pub(crate) async fn run(command: Connections) -> anyhow::Result<ExitCode> {
    match command {
        Connections::List { api, watch } => list::run(&client(&api)?, watch, api.json).await?,
        Connections::Create { api, intent, wait } => {
            let (client, intent) = (client(&api)?, read(&intent)?);
            let changed = client.create_connection(&intent, &Write::default()).await?;
            finish(&client, changed.connection, changed.operation, wait, api.json).await?;
        }
        Connections::Accept { api, key, name, a, b, dry_run, wait } => {
            let client = client(&api)?;
            let acceptance = ActivationKeyAcceptance {
                activation_key: key_text(key)?,
                name,
                a: a.as_deref().map_or(Ok(ConnectionEnd::default()), |text| end(text, "--a"))?,
                b: b.as_deref().map_or(Ok(ConnectionEnd::default()), |text| end(text, "--b"))?,
                labels: std::collections::BTreeMap::new(),
                description: String::new(),
                deletion_protection: false,
            };
            if dry_run {
                return super::plan::show(&client.plan_acceptance(&acceptance).await?, api.json);
            }
            let changed = client.accept_activation_key(&acceptance, &Write::default()).await?;
            finish(&client, changed.connection, changed.operation, wait, api.json).await?;
        }
        Connections::Decode { api, key } => {
            let text = ActivationKeyText { activation_key: key_text(key)? };
            output::json(&client(&api)?.decode_activation_key(&text).await?)?;
        }
        Connections::Show { api, connection, watch } => {
            let client = client(&api)?;
            let connection = find(&client, &connection).await?;
            show(&connection, api.json)?;
            if watch {
                follow(&client, connection, api.json).await?;
            }
        }
        Connections::Update { api, connection, change, dry_run, wait } => {
            let (client, patch) = (client(&api)?, patch(&change)?);
            let connection = find(&client, &connection).await?;
            let (id, generation) = (connection.id, connection.generation);
            if dry_run {
                return super::plan::show(&client.plan_update(id, generation, &patch).await?, api.json);
            }
            let changed = client.update_connection(id, generation, &patch, &Write::default()).await?;
            finish(&client, changed.connection, changed.operation, wait, api.json).await?;
        }
        Connections::Migrate { api, connection, to, dry_run, wait } => {
            let (client, to) = (client(&api)?, Migration { interconnect_id: to });
            let connection = find(&client, &connection).await?;
            let (id, generation) = (connection.id, connection.generation);
            if dry_run {
                return super::plan::show(&client.plan_migrate(id, generation, &to).await?, api.json);
            }
            let changed = client.migrate_connection(id, generation, &to, &Write::default()).await?;
            finish(&client, changed.connection, changed.operation, wait, api.json).await?;
        }
        Connections::Delete { api, connection, wait } => {
            let client = client(&api)?;
            let connection = find(&client, &connection).await?;
            let changed = client.delete_connection(connection.id, connection.generation, &Write::default()).await?;
            finish(&client, changed.connection, changed.operation, wait, api.json).await?;
        }
    }
    Ok(Exit::Ok.into())
}

/// A key as it is given, or from standard input for `-`.
fn key_text(key: String) -> anyhow::Result<Sensitive> {
    if key != "-" {
        return Ok(Sensitive::new(key));
    }
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text).context("standard input")?;
    Ok(Sensitive::new(text.trim()))
}

fn show(connection: &Connection, json: bool) -> anyhow::Result<()> {
    if json {
        return output::json(connection);
    }
    print(connection);
    Ok(())
}

/// Shows a connection again whenever it differs, until it is gone. Events tell when to look.
async fn follow(client: &Client, mut shown: Connection, json: bool) -> anyhow::Result<()> {
    let mut events = client.watch_events(None);
    let subject = format!("/v1/connections/{}", shown.id);
    // Paths are measured all the time, which is no event: look now and then, too.
    let mut again = tokio::time::interval(LOOK_AGAIN);
    loop {
        tokio::select! {
            _ = again.tick() => {}
            event = events.next() => match event {
                Some(Ok(event)) if event.subject != subject => continue,
                Some(Err(error)) if !error.is_transient() => return Err(error.into()),
                None => return Ok(()),
                Some(_) => {}
            },
        }
        let now = match client.connection(shown.id).await {
            Ok(now) => now,
            Err(ClientError::Problem { problem, .. }) if problem.code == ProblemCode::NotFound => {
                anstream::eprintln!("{} is gone", shown.intent.name);
                return Ok(());
            }
            Err(error) if error.is_transient() => continue,
            Err(error) => return Err(error.into()),
        };
        if told(&now) != told(&shown) {
            show(&now, json)?;
        }
        shown = now;
    }
}

/// What makes a connection worth showing again: all but what is measured anew all the time.
fn told(connection: &Connection) -> Connection {
    let mut told = connection.clone();
    for path in &mut told.paths {
        path.measured = None;
    }
    for side in told.placements.iter_mut().flat_map(|p| &mut p.channels).flat_map(|c| [&mut c.a, &mut c.b]) {
        for attachment in &mut side.attachments {
            attachment.observed_at = None;
        }
    }
    told
}

/// The merge patch of the flags; fields by name win over `--patch`.
fn patch(change: &ChangeArgs) -> anyhow::Result<Value> {
    let mut patch = match &change.patch {
        None => Map::new(),
        Some(text) => serde_json::from_str(text).map_err(|error| usage("--patch", &error))?,
    };
    let named = [
        ("name", change.name.clone().map(Value::from)),
        (
            "bandwidthMbps",
            change.bandwidth.as_deref().map(bandwidth).transpose()?.map(serde_json::to_value).transpose()?,
        ),
        ("description", change.description.clone().map(Value::from)),
        ("deletionProtection", change.deletion_protection.map(Value::from)),
    ];
    for (field, value) in named {
        patch.extend(value.map(|value| (field.to_owned(), value)));
    }
    Ok(Value::from(patch))
}

fn print(c: &Connection) {
    output::say!("{} ({})", c.intent.name, c.id);
    output::say!("  state         {}: {}", output::word(&c.state), c.state_reason.message);
    if !c.state_reason.next_step.is_empty() {
        output::say!("  next          {}", c.state_reason.next_step);
    }
    output::say!("  verification  {}", output::word(&c.verification_state));
    output::say!("  bandwidth     {} Mbit/s, {}", c.intent.bandwidth_mbps, output::word(&c.intent.redundancy));
    if let Some(e) = &c.effective {
        output::say!("  MTU, MSS      {} and {} bytes", e.mtu_bytes, e.mss_bytes);
    }
    if let Some(uuid) = c.shared_connection_uuid {
        output::say!("  shared UUID   {uuid}");
    }
    for placement in c.placements.iter().filter(|placement| placement.name.is_some()) {
        output::say!("  {:<13} {}", output::word(&placement.role).to_lowercase(), placement.interconnect_id);
    }
    for channel in c.placements.iter().flat_map(|p| &p.channels) {
        let subnet = channel.a.ipv4_subnet.map_or_else(|| "subnet not known yet".to_owned(), |s| s.to_string());
        output::say!(
            "  {:<13} BGP {}, VLAN {}, {subnet}",
            channel.channel_id.to_string(),
            output::word(&channel.bgp_state),
            channel.a.vlan_id
        );
    }
}

/// Prints what became of a change, after waiting for it where asked to.
async fn finish(
    client: &Client,
    connection: Connection,
    operation: OperationId,
    wait: Option<u64>,
    json: bool,
) -> anyhow::Result<()> {
    if let Some(key) = connection.activation_key.as_ref().filter(|_| !json || wait.is_some()) {
        // Alone on standard output, so that it can be piped to where it is meant for; and at once, since it is told this once.
        anstream::eprintln!(
            "{} accepted; operation {operation}. Bring this key to the other provider within seven days:",
            connection.intent.name
        );
        if json {
            output::json(&connection)?;
        } else {
            output::say!("{}", key.expose());
        }
        if wait.is_none() {
            return Ok(());
        }
    }
    let Some(seconds) = wait else {
        if json {
            return output::json(&connection);
        }
        output::say!("{} accepted; operation {operation}", connection.intent.name);
        return Ok(());
    };
    let ended = watch(client, operation, Duration::from_secs(seconds)).await?;
    if json {
        output::json(&ended)?;
    } else {
        output::say!("{}: {}", connection.intent.name, output::word(&ended.state));
    }
    match ended.state {
        OperationState::Succeeded => Ok(()),
        OperationState::Superseded => {
            Err(Failure::new(Exit::Conflict, format!("operation {operation} was superseded by a newer change")).into())
        }
        OperationState::Running | OperationState::Waiting | OperationState::ActionRequired | OperationState::Failed => {
            let why = ended
                .problem
                .map_or_else(|| "no reason was given".to_owned(), |p| format!("{} {}", p.detail, p.remediation));
            Err(Failure::new(Exit::Provider, format!("operation {operation} did not succeed: {why}")).into())
        }
    }
}

/// Waits for an operation; on a terminal, shows which stage it is in.
async fn watch(client: &Client, operation: OperationId, longest: Duration) -> anyhow::Result<Operation> {
    let bar = ProgressBar::new_spinner();
    if let Ok(style) = ProgressStyle::with_template("{spinner} {elapsed} {msg}") {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(120));
    let told = async {
        let mut every = tokio::time::interval(Duration::from_millis(500));
        loop {
            every.tick().await;
            if let Ok(now) = client.operation(operation).await {
                let running = now.stages.iter().filter(|s| s.state == StageState::Running).map(|s| s.name.as_str());
                bar.set_message(running.collect::<Vec<_>>().join(", "));
            }
        }
    };
    let ended = tokio::select! {
        ended = client.wait_operation(operation, longest) => ended,
        never = told => never,
    };
    bar.finish_and_clear();
    ended.map_err(explain_timeout)
}

/// The intent of the flags, or of the file.
pub(crate) fn read(flags: &Intent) -> anyhow::Result<ConnectionIntent> {
    if let Some(path) = &flags.file {
        let mut text = String::new();
        let shown = path.display();
        if path.as_os_str() == "-" {
            std::io::stdin().read_to_string(&mut text).context("standard input")?;
        } else {
            text = std::fs::read_to_string(path).with_context(|| shown.to_string())?;
        }
        return serde_json::from_str(&text)
            .map_err(|error| Failure::new(Exit::Usage, format!("{shown}: {error}")).into());
    }
    let missing = |flag: &str| Failure::new(Exit::Usage, format!("--{flag} is needed, or --file"));
    let text = |value: &Option<String>, flag| value.clone().ok_or_else(|| missing(flag));
    // The other end of a connection that is shared with a provider is an account there.
    let shared = flags.remote_account.is_some();
    let of_end = |value: &Option<String>, name: &'static str| match value {
        None if shared => Ok(ConnectionEnd::default()),
        value => end(&text(value, name)?, &format!("--{name}")),
    };
    Ok(ConnectionIntent {
        name: text(&flags.name, "name")?,
        environment_id: text(&flags.environment, "environment")?.parse().map_err(|e| usage("--environment", &e))?,
        bandwidth_mbps: bandwidth(&text(&flags.bandwidth, "bandwidth")?)?,
        redundancy: match flags.redundancy {
            RedundancyArg::Single => Redundancy::Single,
            RedundancyArg::Dual => Redundancy::Dual,
            RedundancyArg::Quad => Redundancy::Quad,
        },
        a: of_end(&flags.a, "a")?,
        b: ConnectionEnd { remote_account_id: flags.remote_account.clone(), ..of_end(&flags.b, "b")? },
        routing: Routing::default(),
        families: vec![AddressFamily::Ipv4],
        wanted: Wanted::default(),
        fallback: Fallback { tunnel: !flags.no_tunnel && !shared, capacity_mbps: None },
        labels: std::collections::BTreeMap::new(),
        description: String::new(),
        deletion_protection: false,
    })
}

fn usage(flag: &str, error: &dyn std::fmt::Display) -> Failure {
    Failure::new(Exit::Usage, format!("{flag}: {error}"))
}

pub(crate) fn bandwidth(text: &str) -> anyhow::Result<BandwidthMbps> {
    // The contract takes both a number and a text such as `1Gbps`.
    let value = text.parse::<u64>().map_or_else(|_| serde_json::Value::from(text), serde_json::Value::from);
    serde_json::from_value(value).map_err(|error| usage("--bandwidth", &error).into())
}

fn end(text: &str, flag: &str) -> anyhow::Result<ConnectionEnd> {
    let (attach_point, prefixes) = text
        .split_once('=')
        .ok_or_else(|| usage(flag, &format!("`{text}` is not of the form ATTACH_POINT=PREFIX[,PREFIX...]")))?;
    let prefix = |p: &str| {
        p.trim().parse::<IpNet>().map_err(|_| usage(flag, &format!("`{p}` is no prefix such as 10.0.0.0/16")))
    };
    Ok(ConnectionEnd {
        attach_point_id: match attach_point {
            "" => None,
            named => Some(named.parse().map_err(|error| usage(flag, &error))?),
        },
        remote_account_id: None,
        advertised_prefixes: prefixes.split(',').filter(|p| !p.is_empty()).map(prefix).collect::<Result<_, _>>()?,
        accepted_prefixes: None,
    })
}
