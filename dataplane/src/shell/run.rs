//! `tieline gateway`: the data plane, joined to the API.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    ops::RangeInclusive,
    os::{fd::AsFd, unix::net::UnixStream},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use boringtun::x25519::{PublicKey, StaticSecret};
use tieline_openapi::{
    ids::ConnectionId,
    v1::{GatewayConfiguration, JoinRequest, Lane, Steering, TunnelBackend},
};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{
    config::{GatewayOptions, MAX_LANES, TUN_NAME, automatic_lanes},
    control::{self, Api, ControlError},
    gateway::{Dataplane, DataplaneError, DataplaneOptions},
    handover::{self, HandoverError, Predecessor},
    kernel,
    local::{self, Answer, LocalError, Request},
    netns::NetNs,
    notify,
    state::{Credential, StateDir, StateError},
};
use crate::proto::path::Hold;

/// Reports that wait for the API before samples are dropped.
const REPORTS: usize = 64;

/// Why a gateway does not run.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    /// Its state.
    #[error(transparent)]
    State(#[from] StateError),
    /// Its data plane.
    #[error(transparent)]
    Dataplane(#[from] DataplaneError),
    /// The API.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// Its local control.
    #[error(transparent)]
    Local(#[from] LocalError),
    /// The handover from or to another process.
    #[error(transparent)]
    Handover(#[from] HandoverError),
    /// First start without a token.
    #[error(
        "this gateway has not joined yet: issue a join token (POST /v1/gatewayGroups/GROUP:issueJoinToken) and give it once"
    )]
    NoToken,
    /// Too many lanes, or too high ports.
    #[error("{lanes} lanes from port {port} do not fit; give 1 to {MAX_LANES} lanes, and ports that end below 65536")]
    Lanes {
        /// How many.
        lanes: u8,
        /// From which port.
        port: u16,
    },
    /// Ports of lanes, or none.
    #[error(
        "the ports {first} to {last} for the kernel's WireGuard are none, or the lanes' ({port} and up); give others with --kernel-ports"
    )]
    KernelPorts {
        /// From.
        first: u16,
        /// To.
        last: u16,
        /// That of lane 0.
        port: u16,
    },
    /// A thread of the runtime was lost.
    #[error("the gateway's set-up was interrupted")]
    Interrupted(#[source] tokio::task::JoinError),
}

/// How a gateway ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// It was told to stop, and has removed what it made.
    Stopped,
    /// Another process has taken its place.
    HandedOver,
}

/// Runs a gateway until `shutdown`, or until another process takes its place. It carries traffic by its last configuration
/// before it speaks to the API, and removes its routes, rules and devices at the end.
///
/// # Errors
/// When its state, its namespace, a device, a route or a socket cannot be had, or when the API refuses to let it join.
pub async fn run(options: GatewayOptions, shutdown: CancellationToken) -> Result<Ended, GatewayError> {
    let api = Api::new(&options.api_url)?;
    let folder = options.state_dir.clone();
    let given = if options.take_over { blocking(move || handover::ask(&folder)).await?? } else { None };
    let (taken, predecessor, state) = match given {
        Some((taken, predecessor, lock)) => {
            (Some(taken), Some(predecessor), StateDir::take_over(&options.state_dir, lock)?)
        }
        None => (None, None, StateDir::open(&options.state_dir)?),
    };
    let keys = lane_keys(&options, &state)?;
    let session = state.count_start()?;
    let credential = state.credential()?;
    if credential.is_none() && options.join_token.is_none() {
        return Err(GatewayError::NoToken);
    }
    let listen_port = options.listen_port.unwrap_or_else(|| options.wan_endpoint.port());
    let kernel_ports = kernel_ports(&options, listen_port, &keys)?;
    let backend = backend(options.backend, state.backend()?).await?;
    let (reports, reported) = mpsc::channel(REPORTS);
    let parts = DataplaneOptions {
        netns: NetNs::open(options.netns.as_deref()).map_err(DataplaneError::from)?,
        tun_name: options.tun_name.clone().unwrap_or_else(|| TUN_NAME.to_owned()),
        private_address: options.private_address,
        private_next_hop: options.private_next_hop,
        wan_endpoint: options.wan_endpoint,
        listen_port,
        private_key: keys.0.clone(),
        further_keys: keys.1.clone(),
        backend,
        kernel_key: state.kernel_key()?,
        kernel_ports,
        switched_off: options.switched_off.clone(),
        session,
        holds: state.holds()?,
        uapi: options.uapi.clone(),
        taken,
    };
    let dataplane = blocking(move || Dataplane::start(parts, reports)).await??;
    if let Some(predecessor) = predecessor {
        relieve(&dataplane, &state, predecessor).await?;
    }
    notify::ready();
    let ended = serve(&options, &api, &state, &keys, session, credential, &dataplane, reported, &shutdown).await;
    if let Ok(Some(successor)) = ended {
        let told = blocking(move || {
            dataplane.leave();
            handover::done(successor)
        });
        if let Err(error) = told.await? {
            tracing::warn!(%error, "the process that takes over does not hear that it may");
        }
        return Ok(Ended::HandedOver);
    }
    blocking(move || dataplane.stop()).await?;
    ended.map(|_| Ended::Stopped)
}

/// What a person has ordered on this machine, or else what the flags say. An order of the past stops no gateway.
async fn backend(given: TunnelBackend, ordered: Option<TunnelBackend>) -> Result<TunnelBackend, GatewayError> {
    if ordered == Some(TunnelBackend::Kernel)
        && let Err(error) = blocking(kernel::available).await?
    {
        tracing::warn!(%error, "the kernel was ordered to carry, and cannot; the lanes do");
        return Ok(TunnelBackend::Boringtun);
    }
    Ok(ordered.unwrap_or(given))
}

fn kernel_ports(
    options: &GatewayOptions,
    listen_port: u16,
    keys: &LaneKeys,
) -> Result<RangeInclusive<u16>, GatewayError> {
    let Some(ports) = &options.kernel_ports else { return Ok(kernel::ports_after(listen_port)) };
    let (first, last) = (*ports.start(), *ports.end());
    // At most MAX_LANES.
    let last_lane = listen_port.saturating_add(keys.1.len() as u16);
    let overlaps = first <= last_lane && last >= listen_port;
    if first == 0 || first > last || overlaps {
        return Err(GatewayError::KernelPorts { first, last, port: listen_port });
    }
    Ok(ports.clone())
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, GatewayError> {
    tokio::task::spawn_blocking(work).await.map_err(GatewayError::Interrupted)
}

/// Makes sessions while the old process carries, and then tells it to stop.
async fn relieve(dataplane: &Dataplane, state: &StateDir, old: Predecessor) -> Result<(), GatewayError> {
    if let Some(configuration) = state.configuration()? {
        dataplane.apply(configuration);
    }
    let wait = async {
        while !dataplane.hears(&old.alive) {
            tokio::time::sleep(handover::LOOK).await;
        }
    };
    if tokio::time::timeout(handover::PATIENCE, wait).await.is_err() {
        tracing::warn!("a peer that the running gateway hears is not heard yet; taking over without it");
    }
    tokio::time::sleep(handover::SETTLE).await;
    let relieved = blocking(move || old.relieve()).await?;
    if let Err(error) = &relieved {
        tracing::warn!(%error, "the running gateway did not say that it has stopped");
    }
    dataplane.begin(relieved.is_ok());
    tracing::info!("taken over");
    Ok(())
}

/// Waits for a process that wants this one's place, and gives it everything; its answer is that it can do without us.
async fn successor(
    listener: &tokio::net::UnixListener,
    dataplane: &Dataplane,
    state: &StateDir,
) -> Result<UnixStream, GatewayError> {
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream.into_std(),
            Err(error) => Err(error),
        };
        let tried = async {
            let (mut stream, gift) = (stream?, dataplane.give().await?);
            let lock = state.lock().try_clone_to_owned()?;
            let given =
                tokio::task::spawn_blocking(move || handover::give(&mut stream, &gift, lock.as_fd()).map(|()| stream));
            given.await.map_err(std::io::Error::other)?
        };
        match tried.await {
            Ok(stream) => return Ok(stream),
            Err(error) => {
                tracing::warn!(%error, "the process that was to take over has gone; this one goes on");
                dataplane.withdraw();
                tokio::time::sleep(handover::LOOK).await;
            }
        }
    }
}

/// The keys of lane 0 and of those after it.
type LaneKeys = (StaticSecret, Vec<StaticSecret>);

/// As many as the gateway has joined with, or, before that, as it shall have.
fn lane_keys(options: &GatewayOptions, state: &StateDir) -> Result<LaneKeys, GatewayError> {
    let settled = if state.credential()?.is_some() { Some(state.lanes()?.unwrap_or(1)) } else { None };
    let lanes = settled.or(options.lanes).unwrap_or_else(automatic_lanes);
    if let (Some(settled), Some(wanted)) = (settled, options.lanes)
        && settled != wanted
    {
        tracing::warn!(
            settled,
            wanted,
            "the gateway keeps the lanes that it has joined with; join anew to change them"
        );
    }
    let port = options.wan_endpoint.port().max(options.listen_port.unwrap_or(0));
    if !(1..=MAX_LANES).contains(&lanes) || port.checked_add(u16::from(lanes) - 1).is_none() {
        return Err(GatewayError::Lanes { lanes, port });
    }
    let further = (1..lanes).map(|n| state.private_key(n)).collect::<Result<_, _>>()?;
    Ok((state.private_key(0)?, further))
}

#[expect(clippy::too_many_arguments, reason = "the parts of one gateway, put together once")]
async fn serve(
    options: &GatewayOptions,
    api: &Api,
    state: &StateDir,
    keys: &LaneKeys,
    session: u64,
    credential: Option<Credential>,
    dataplane: &Dataplane,
    reported: mpsc::Receiver<super::status::Report>,
    shutdown: &CancellationToken,
) -> Result<Option<UnixStream>, GatewayError> {
    let last = state.configuration()?;
    let known = last.as_ref().map(|configuration| configuration.version);
    if let Some(configuration) = last {
        dataplane.apply(configuration);
    }
    let listener = local::listen(state.path())?;
    let successors = handover::listen(state.path())?;
    let mut holds = state.holds()?;
    let local = async {
        loop {
            let question = local::question(&listener).await;
            let answer = answer(&question.request, dataplane, state, &mut holds).await;
            question.answer(&answer).await;
        }
    };
    let joined = async {
        let credential = match credential {
            Some(credential) => credential,
            None => match join(options, api, state, keys, shutdown).await? {
                Some(credential) => credential,
                None => return Ok(None),
            },
        };
        tracing::info!(gateway = %credential.gateway_id, name = options.name, "joined");
        let take = |configuration: GatewayConfiguration| {
            if let Err(error) = state.keep_configuration(&configuration) {
                tracing::warn!(%error, "the configuration would not survive a restart");
            }
            dataplane.apply(configuration);
        };
        tokio::join!(
            control::follow(api, &credential, known, take),
            control::observe(api, &credential, session, reported),
            control::tell_kernel_lanes(api, &credential, dataplane.kernel_lanes(), |sequence| {
                dataplane.kernel_lanes_taken(sequence);
            }),
        );
        Ok(None)
    };
    tokio::select! {
        () = shutdown.cancelled() => Ok(None),
        () = local => Ok(None),
        ended = joined => ended,
        stream = successor(&successors, dataplane, state) => stream.map(Some),
    }
}

async fn answer(
    request: &Request,
    dataplane: &Dataplane,
    state: &StateDir,
    holds: &mut BTreeMap<ConnectionId, Hold>,
) -> Answer {
    match *request {
        Request::Status => match dataplane.status().await {
            Some(status) => Answer::Status(status),
            None => Answer::Refused { message: "the data plane has stopped; see the gateway's log".to_owned() },
        },
        Request::Backend { backend } => {
            if backend == TunnelBackend::Kernel {
                match blocking(kernel::available).await {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => return Answer::Refused { message: error.to_string() },
                    Err(error) => return Answer::Refused { message: error.to_string() },
                }
            }
            dataplane.set_backend(backend);
            match state.keep_backend(backend) {
                Ok(()) => Answer::Done,
                Err(error) => Answer::Refused { message: format!("in force, but not kept over a restart: {error}") },
            }
        }
        Request::Hold { connection_id, hold } => {
            dataplane.set_hold(connection_id, hold);
            if hold == Hold::default() {
                holds.remove(&connection_id);
            } else {
                holds.insert(connection_id, hold);
            }
            match state.keep_holds(holds) {
                Ok(()) => Answer::Done,
                Err(error) => Answer::Refused { message: format!("in force, but not kept over a restart: {error}") },
            }
        }
    }
}

async fn join(
    options: &GatewayOptions,
    api: &Api,
    state: &StateDir,
    keys: &LaneKeys,
    shutdown: &CancellationToken,
) -> Result<Option<Credential>, GatewayError> {
    let token = options.join_token.as_ref().ok_or(GatewayError::NoToken)?;
    let lane = |(key, n): (&StaticSecret, u8)| Lane {
        n,
        public_key: STANDARD.encode(PublicKey::from(key).as_bytes()),
        endpoint: SocketAddr::new(options.wan_endpoint.ip(), options.wan_endpoint.port() + u16::from(n)),
        backend: TunnelBackend::Boringtun,
    };
    let lanes: Vec<Lane> = std::iter::once(&keys.0).chain(&keys.1).zip(0..).map(lane).collect();
    let count = lanes.len();
    let request = JoinRequest {
        name: options.name.clone(),
        private_address: options.private_address,
        lanes,
        steering: Steering::Inline,
    };
    let Some(answer) = control::join(api, token, &request, shutdown).await? else { return Ok(None) };
    let credential = Credential { gateway_id: answer.gateway.id, secret: answer.credential.into() };
    // At most MAX_LANES. Kept before the credential: with that, the number is settled.
    state.keep_lanes(count as u8)?;
    state.keep_credential(&credential)?;
    Ok(Some(credential))
}
