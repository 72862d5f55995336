//! `tieline serve`: the API, the engine and the store in one process.

use std::{path::Path, process::ExitCode, sync::Arc};

use anyhow::Context as _;
use secrecy::SecretString;
use tieline_api::{
    app::{Vault, bootstrap},
    clouds,
    coordinator::{Coordination, CoordinationParts, RouterKeys},
    engine::{
        Engine, EngineParts, Failpoints,
        clock::{ChaChaRandom, Clock, Random, SystemClock},
    },
    events::Hints,
    http::StreamLimits,
    secrets::Sealer,
    service::{self, ServeOptions},
    store::{OpenOptions, SqlStore, Store as _},
    topology::Topology,
};
use tieline_openapi::{config::Config, ids::InstallationId};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

use crate::{
    args::{self, LogFormat},
    exit::Exit,
    output,
};

/// Runs the service until it is told to stop. Its first line on standard output names the address.
pub(crate) async fn run(serve: args::Serve) -> anyhow::Result<ExitCode> {
    logs(serve.log_format, tracing::Level::INFO);
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let random: Arc<dyn Random> = Arc::new(ChaChaRandom::from_system());
    let config = match &serve.config {
        Some(path) => Config::read(path)?,
        None => Config::default(),
    };
    let topology = Arc::new(Topology::new(&config, clouds::rules()));
    let clouds = Arc::new(clouds::connect(&config).await?);
    let hints = Hints::new();
    let store = SqlStore::open(&serve.database, OpenOptions { hints: hints.clone(), ..OpenOptions::default() }).await?;
    let installation = store.installation(InstallationId(random.uuid_v7(clock.now()))).await?;
    let vault = Vault::new(Arc::new(sealer(&serve.key_file, random.as_ref())?), Arc::clone(&random));
    if bootstrap::first_token(store.as_ref(), clock.as_ref(), random.as_ref(), &serve.first_token_file).await? {
        anstream::eprintln!("the first admin token is in {}", serve.first_token_file.display());
    }
    let engine = Engine::new(EngineParts {
        store: store.in_the_background(),
        clouds,
        topology: Arc::clone(&topology),
        clock: Arc::clone(&clock),
        random: Arc::clone(&random),
        vault: Arc::new(vault.clone()),
        failpoints: Failpoints::from_env()?,
        installation,
        owner: random.uuid_v7(clock.now()).to_string(),
    });
    let routers = config.routers.clone();
    let coordinator = match config.coordinator.clone() {
        Some(config) => {
            let listener = TcpListener::bind(config.listen).await.with_context(|| {
                format!("cannot listen on {}: set another address in [coordinator] of tieline.toml", config.listen)
            })?;
            let parts = CoordinationParts {
                books: store.clone(),
                store: store.clone(),
                vault: vault.clone(),
                clock: Arc::clone(&clock),
                random: Arc::clone(&random),
                routers: clouds::routers(&routers),
                hints: hints.clone(),
                macsec: Arc::new(RouterKeys::new(&config, &routers)),
                owner: random.uuid_v7(clock.now()).to_string(),
            };
            Some((Coordination::new(config, parts)?, listener))
        }
        None => None,
    };
    let listener = TcpListener::bind(serve.listen)
        .await
        .with_context(|| format!("cannot listen on {}: take another address with --listen", serve.listen))?;
    let shutdown = stop_on_signal()?;
    output::say!("listening on http://{}", listener.local_addr()?);
    if let Some((_, listener)) = &coordinator {
        output::say!("listening for peers on https://{}", listener.local_addr()?);
    }
    let streams = StreamLimits::default();
    let options =
        ServeOptions { store, topology, vault, clock, random, hints, streams, engine: Some(engine), coordinator };
    service::serve(options, listener, shutdown).await?;
    Ok(Exit::Ok.into())
}

/// The key for secrets at rest: `TIELINE_KEY`, else the file, which is made at the first start.
fn sealer(path: &Path, random: &dyn Random) -> anyhow::Result<Sealer> {
    if let Ok(text) = std::env::var("TIELINE_KEY") {
        return Ok(Sealer::from_text(&SecretString::from(text))?);
    }
    let (sealer, new) = Sealer::from_key_file_or_new(path, random)?;
    if new {
        anstream::eprintln!("the key for secrets at rest is in {}: keep a copy of it", path.display());
    }
    Ok(sealer)
}

/// Sends log lines to standard error; `RUST_LOG` chooses which, else they are of this level and worse.
pub(crate) fn logs(format: LogFormat, level: tracing::Level) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level.as_str()));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false);
    match format {
        LogFormat::Text => builder.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).init(),
        LogFormat::Json => builder.json().init(),
    }
}

/// A token that SIGINT and SIGTERM cancel.
pub(crate) fn stop_on_signal() -> anyhow::Result<CancellationToken> {
    use tokio::signal::unix::{SignalKind, signal};
    let stop = CancellationToken::new();
    let told = stop.clone();
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    tokio::spawn(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        told.cancel();
    });
    Ok(stop)
}
