//! The engine: a level-triggered reconciler over the connections, with a ledger of provider calls.
//!
//! `claim` takes due connections under a lease; `pass` looks at both clouds, asks `plan::step` for the next step and does
//! it, until there is nothing to do now; `execute` writes a ledger row before each mutating call and its verdict after it.
//! `inventory` observes settled connections by lists, and `sweep` finds in these what no row stands for. The rules are those of ARCHITECTURE.md, "The engine".

mod claim;
pub mod clock;
mod draft;
mod execute;
pub mod failpoints;
mod foreign;
mod inventory;
mod issues;
mod ledger;
pub mod limits;
mod observe;
mod pass;
mod shared;
pub mod status;
mod sweep;
pub mod vault;
mod walk_back;

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use tieline_openapi::{config::EngineConfig, ids::InstallationId, problem::ProviderDetail};
use tieline_providers::{CallError, CallErrorKind};
use tokio::sync::Notify;

use crate::{
    store::{Claim, Store},
    topology::{Clouds, Topology},
};

pub use claim::Progress;
pub use failpoints::Failpoints;
pub use vault::{Vault, VaultError};

use clock::{Clock, Random};

/// What an engine is made of.
pub struct EngineParts {
    /// The store.
    pub store: Arc<dyn Store>,
    /// One client an account.
    pub clouds: Arc<Clouds>,
    /// What exists before any connection.
    pub topology: Arc<Topology>,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// Randomness: ids are drawn from it.
    pub random: Arc<dyn Random>,
    /// Opens secrets at call time.
    pub vault: Arc<dyn Vault>,
    /// Points at which a test stops the engine.
    pub failpoints: Failpoints,
    /// The installation, written into the name or tags of everything that is created.
    pub installation: InstallationId,
    /// This replica's name in claims and leases: another one at every start.
    pub owner: String,
}

/// One replica of the engine.
pub struct Engine {
    store: Arc<dyn Store>,
    clouds: Arc<Clouds>,
    topology: Arc<Topology>,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
    vault: Arc<dyn Vault>,
    failpoints: Failpoints,
    installation: InstallationId,
    owner: String,
    config: EngineConfig,
    limits: limits::Limits,
    wake: Arc<Notify>,
    /// Claims of passes that changed nothing, given back together.
    unchanged: Mutex<Vec<(Claim, u64)>>,
    any_unchanged: Notify,
    progress: Arc<Progress>,
}

/// Wakes an engine after a commit. A hint only: without it the due-time poll finds the work.
#[derive(Clone)]
pub struct EngineWaker(Arc<Notify>);

impl EngineWaker {
    /// There may be work.
    pub fn wake(&self) {
        self.0.notify_one();
    }
}

impl Engine {
    /// An engine that does not run yet.
    #[must_use]
    pub fn new(parts: EngineParts) -> Arc<Self> {
        let EngineParts { store, clouds, topology, clock, random, vault, failpoints, installation, owner } = parts;
        let config = topology.engine.clone();
        let accounts = topology.accounts.keys().cloned();
        let limits = limits::Limits::new(Arc::clone(&clock), config.calls_per_second, accounts);
        Arc::new(Self {
            store,
            clouds,
            topology,
            clock,
            random,
            vault,
            failpoints,
            installation,
            owner,
            config,
            limits,
            wake: Arc::new(Notify::new()),
            unchanged: Mutex::new(Vec::new()),
            any_unchanged: Notify::new(),
            progress: Arc::new(Progress::default()),
        })
    }

    /// What commits wake the engine with.
    #[must_use]
    pub fn waker(&self) -> EngineWaker {
        EngineWaker(Arc::clone(&self.wake))
    }

    /// Counters for `/metrics`.
    #[must_use]
    pub fn progress(&self) -> Arc<Progress> {
        Arc::clone(&self.progress)
    }

    fn call_timeout(&self) -> Duration {
        Duration::from_millis(self.config.call_timeout_ms)
    }

    /// Runs a call to its end or to the time-out, whichever comes first. A call that timed out may still have its effect.
    async fn bounded<T>(&self, call: impl Future<Output = Result<T, CallError>>) -> Result<T, CallError> {
        tokio::select! {
            biased;
            answer = call => answer,
            () = self.clock.sleep(self.call_timeout()) => Err(CallError {
                kind: CallErrorKind::Unknown,
                detail: detail("tieline", "timeout", format!("no answer within {} ms", self.config.call_timeout_ms)),
                retry_after: None,
                source: None,
            }),
        }
    }
}

fn detail(name: &str, code: &str, message: String) -> ProviderDetail {
    ProviderDetail { name: name.to_owned(), code: code.to_owned(), message, request_id: None }
}
