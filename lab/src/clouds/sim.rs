//! What both simulators share: the state with its past, the faults, the journal, and the task that keeps the network as
//! the API was told.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use axum::response::Response;
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tieline_openapi::v1::Timestamp;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::{
    clock::Clock,
    document,
    faults::{Effect, Fault, Faults},
    network::{Network, Session, SessionStatus},
    settings::CloudSettings,
};

/// How many past states a simulator remembers for lagging reads.
const PAST: usize = 512;
/// How many calls the journal holds.
const JOURNAL: usize = 20_000;
/// How long a waiting simulator sleeps at most before it looks at its clock again.
const LONGEST_SLEEP: Duration = Duration::from_millis(250);

/// A change of a simulator's state behind the API's back: what an operator's slip in the cloud's console does.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Corruption {
    /// The kind of resource: `virtualInterface`, `router`, `interconnectAttachment`.
    pub kind: String,
    /// Its id or name.
    pub id: String,
    /// A JSON pointer into the resource. In a list, a segment that is no number selects the element of that name or id:
    /// `/md5AuthenticationKeys/KEY/key`.
    pub pointer: String,
    /// The new value.
    pub value: Value,
}

/// Why a resource could not be changed behind the API's back.
#[derive(Debug, thiserror::Error)]
pub enum CorruptError {
    /// There is no such resource.
    #[error("there is no {kind} {id}")]
    NoResource {
        /// The kind.
        kind: String,
        /// The id or name.
        id: String,
    },
    /// The pointer leads nowhere.
    #[error("{0} leads to no field")]
    NoField(String),
    /// The value does not fit the field.
    #[error("the value does not fit the field")]
    Misfit(#[source] serde_json::Error),
}

/// One call that a simulator took.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct JournalEntry {
    /// Counts up from 1.
    pub n: u64,
    /// When.
    pub at: Timestamp,
    /// Which operation.
    pub operation: String,
    /// Whether it changes something.
    pub mutating: bool,
    /// The HTTP status; null where the connection was closed without an answer.
    pub status: Option<u16>,
    /// The fault that struck it.
    pub fault: Option<Effect>,
}

/// How late answers lag behind writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Lag {
    /// Lists, in milliseconds.
    pub list_ms: u64,
    /// Reads of one object, in milliseconds.
    pub read_ms: u64,
}

/// Which kind of read an answer is made from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum View {
    List,
    One,
}

/// The state of one cloud. Everything in it moves by calls, by time and by light.
pub(crate) trait Cloud: Clone + Send + Sync + 'static {
    /// The site's name in the network.
    const SITE: &'static str;
    /// The state without tombstones, operation records and counters.
    fn dump(&self) -> Value;
    fn corrupt(&mut self, corruption: &Corruption) -> Result<(), CorruptError>;
    /// The ports whose light something waits for at `now`.
    fn ports_awaited(&self, now: Timestamp) -> BTreeSet<String>;
    /// Makes every transition that is due. True where something moved.
    fn settle(&mut self, now: Timestamp, lit: &BTreeSet<String>) -> bool;
    /// When the next transition is due by time alone.
    fn next_due(&self) -> Option<Timestamp>;
    fn sessions(&self) -> Vec<Session>;
}

/// How a cloud words the answers that are the same for every operation.
pub(crate) trait Dialect: Send + Sync {
    fn unavailable(&self) -> Response;
    fn throttled(&self) -> Response;
    fn refused(&self, status: u16, code: &str, message: &str) -> Response;
}

/// Marks an answer that is never sent: the connection is closed instead.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HangUp;

/// Marks the answer to a request that the network doubles.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Doubled;

/// What tests do to a running simulator.
pub(crate) trait Admin: Send + Sync {
    fn token(&self) -> &str;
    fn dump(&self) -> Value;
    fn corrupt(&self, corruption: &Corruption) -> Result<(), CorruptError>;
    fn faults(&self) -> &Faults;
    fn journal(&self) -> Vec<JournalEntry>;
    fn lag(&self) -> Lag;
    fn set_lag(&self, lag: Lag);
}

struct Held<S> {
    state: S,
    past: VecDeque<(Timestamp, S)>,
}

/// One running simulator.
pub(crate) struct Sim<S> {
    pub(crate) settings: CloudSettings,
    pub(crate) clock: Arc<dyn Clock>,
    network: Arc<dyn Network>,
    held: Mutex<Held<S>>,
    changed: Notify,
    faults: Faults,
    limiter: Option<DefaultDirectRateLimiter>,
    journal: Mutex<VecDeque<JournalEntry>>,
    calls: AtomicU64,
    list_lag_ms: AtomicU64,
    read_lag_ms: AtomicU64,
}

impl<S: Cloud> Sim<S> {
    pub(crate) fn new(
        state: S,
        settings: CloudSettings,
        network: Arc<dyn Network>,
        clock: Arc<dyn Clock>,
    ) -> Arc<Self> {
        let past = VecDeque::from([(clock.now(), state.clone())]);
        Arc::new(Self {
            held: Mutex::new(Held { state, past }),
            changed: Notify::new(),
            faults: Faults::new(settings.seed),
            limiter: settings.calls_per_second.map(|n| RateLimiter::direct(Quota::per_second(n))),
            journal: Mutex::default(),
            calls: AtomicU64::new(0),
            list_lag_ms: AtomicU64::new(settings.list_lag_ms),
            read_lag_ms: AtomicU64::new(settings.read_lag_ms),
            settings,
            clock,
            network,
        })
    }

    fn lock(&self) -> MutexGuard<'_, Held<S>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn remember(held: &mut Held<S>, now: Timestamp) {
        held.past.push_back((now, held.state.clone()));
        if held.past.len() > PAST {
            held.past.pop_front();
        }
    }

    /// Changes the state. A refusal must leave it as it was.
    pub(crate) fn write<T, E>(&self, change: impl FnOnce(&mut S, Timestamp) -> Result<T, E>) -> Result<T, E> {
        let now = self.clock.now();
        let mut held = self.lock();
        let done = change(&mut held.state, now)?;
        Self::remember(&mut held, now);
        drop(held);
        self.changed.notify_one();
        Ok(done)
    }

    /// Reads the state as it is, whatever the lag.
    pub(crate) fn peek<T>(&self, look: impl FnOnce(&S) -> T) -> T {
        look(&self.lock().state)
    }

    /// Reads the state as it was a lag ago.
    pub(crate) fn read<T>(&self, view: View, look: impl FnOnce(&S) -> T) -> T {
        let lag = match view {
            View::List => self.list_lag_ms.load(Ordering::Relaxed),
            View::One => self.read_lag_ms.load(Ordering::Relaxed),
        };
        let held = self.lock();
        if lag == 0 {
            return look(&held.state);
        }
        let then = self.clock.now().checked_sub(Duration::from_millis(lag)).unwrap_or(Timestamp::MIN);
        let seen = held.past.iter().rev().find(|(at, _)| *at <= then).or_else(|| held.past.front());
        look(seen.map_or(&held.state, |(_, state)| state))
    }

    /// Makes every transition that is due, asking the network about light where something waits for it.
    pub(crate) async fn settle(&self) {
        let now = self.clock.now();
        let awaited = self.lock().state.ports_awaited(now);
        let mut lit = BTreeSet::new();
        for port in awaited {
            match self.network.link_up(S::SITE, &port).await {
                Ok(true) => drop(lit.insert(port)),
                Ok(false) => {}
                Err(error) => tracing::warn!(site = S::SITE, port, %error, "cannot read the link"),
            }
        }
        let mut held = self.lock();
        if held.state.settle(now, &lit) {
            Self::remember(&mut held, now);
            drop(held);
            self.changed.notify_one();
        }
    }

    /// What the router says; nothing where it cannot be asked.
    pub(crate) async fn status(&self) -> Option<BTreeMap<String, SessionStatus>> {
        match self.network.status(S::SITE).await {
            Ok(status) => Some(status),
            Err(error) => {
                tracing::warn!(site = S::SITE, %error, "cannot read the sessions");
                None
            }
        }
    }

    /// Whether a port has light; a port that cannot be asked is dark.
    pub(crate) async fn link_up(&self, port: &str) -> bool {
        self.network.link_up(S::SITE, port).await.unwrap_or_else(|error| {
            tracing::warn!(site = S::SITE, port, %error, "cannot read the link");
            false
        })
    }

    /// Runs one call under throttling and faults, and writes it into the journal.
    pub(crate) async fn call(
        &self,
        operation: &str,
        mutating: bool,
        dialect: &dyn Dialect,
        run: impl Future<Output = Response> + Send,
    ) -> Response {
        let n = self.calls.fetch_add(1, Ordering::Relaxed) + 1;
        let (response, fault) = if self.limiter.as_ref().is_some_and(|limiter| limiter.check().is_err()) {
            (dialect.throttled(), None)
        } else {
            let fault = self.faults.decide(operation, mutating);
            (self.strike(fault.as_ref(), dialect, run).await, fault)
        };
        let hung_up = response.extensions().get::<HangUp>().is_some();
        let entry = JournalEntry {
            n,
            at: self.clock.now(),
            operation: operation.to_owned(),
            mutating,
            status: (!hung_up).then(|| response.status().as_u16()),
            fault,
        };
        let mut journal = self.journal.lock().unwrap_or_else(PoisonError::into_inner);
        journal.push_back(entry);
        if journal.len() > JOURNAL {
            journal.pop_front();
        }
        response
    }

    async fn strike(
        &self,
        fault: Option<&Effect>,
        dialect: &dyn Dialect,
        run: impl Future<Output = Response> + Send,
    ) -> Response {
        let hang_up = || {
            let mut response = Response::default();
            response.extensions_mut().insert(HangUp);
            response
        };
        let Some(effect) = fault else { return run.await };
        match *effect {
            Effect::Unavailable { after_commit } => {
                if after_commit {
                    run.await;
                }
                dialect.unavailable()
            }
            Effect::HangUp { after_commit } => {
                if after_commit {
                    run.await;
                }
                hang_up()
            }
            Effect::Timeout { after_commit, hold_ms } => {
                if after_commit {
                    run.await;
                }
                tokio::time::sleep(Duration::from_millis(hold_ms)).await;
                hang_up()
            }
            Effect::Refuse { status, ref code, ref message } => dialect.refused(status, code, message),
            Effect::Delay { ms } => {
                let response = run.await;
                tokio::time::sleep(Duration::from_millis(ms)).await;
                response
            }
            Effect::Double => {
                let mut response = run.await;
                response.extensions_mut().insert(Doubled);
                response
            }
        }
    }

    /// Keeps the state moving and the network as the API was told, until cancelled.
    pub(crate) async fn keep(self: Arc<Self>, stop: CancellationToken) {
        let mut configured: Option<Vec<Session>> = None;
        loop {
            self.settle().await;
            let wanted = self.lock().state.sessions();
            let mut in_step = configured.as_ref() == Some(&wanted);
            if !in_step {
                match self.network.configure(S::SITE, wanted.clone()).await {
                    Ok(()) => {
                        configured = Some(wanted);
                        in_step = true;
                    }
                    Err(error) => {
                        tracing::warn!(
                            site = S::SITE,
                            error = &error as &dyn std::error::Error,
                            "will configure again"
                        );
                    }
                }
            }
            let sleep = self.until_next(in_step);
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.changed.notified() => {}
                () = tokio::time::sleep(sleep) => {}
            }
        }
    }

    /// How long nothing can happen by itself.
    fn until_next(&self, in_step: bool) -> Duration {
        let poll = Duration::from_millis(self.settings.poll_ms.max(1)).min(LONGEST_SLEEP);
        let now = self.clock.now();
        let held = self.lock();
        if !in_step || !held.state.ports_awaited(now).is_empty() {
            return poll;
        }
        held.state.next_due().map_or(LONGEST_SLEEP, |due| {
            Duration::try_from(due.duration_since(now))
                .unwrap_or_default()
                .clamp(Duration::from_millis(1), LONGEST_SLEEP)
        })
    }
}

impl<S: Cloud> Admin for Sim<S> {
    fn token(&self) -> &str {
        &self.settings.admin_token
    }

    fn dump(&self) -> Value {
        document::sorted(self.lock().state.dump())
    }

    fn corrupt(&self, corruption: &Corruption) -> Result<(), CorruptError> {
        self.write(|state, _| state.corrupt(corruption))
    }

    fn faults(&self) -> &Faults {
        &self.faults
    }

    fn journal(&self) -> Vec<JournalEntry> {
        self.journal.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }

    fn lag(&self) -> Lag {
        Lag { list_ms: self.list_lag_ms.load(Ordering::Relaxed), read_ms: self.read_lag_ms.load(Ordering::Relaxed) }
    }

    fn set_lag(&self, lag: Lag) {
        self.list_lag_ms.store(lag.list_ms, Ordering::Relaxed);
        self.read_lag_ms.store(lag.read_ms, Ordering::Relaxed);
    }
}

/// What a running simulator lets its owner do. Dropping it stops the simulator.
pub struct Running {
    pub(crate) url: String,
    pub(crate) admin: Arc<dyn Admin>,
    pub(crate) stop: CancellationToken,
    pub(crate) tasks: tokio_util::task::TaskTracker,
}

impl Running {
    /// The address of the cloud's API: `http://127.0.0.1:PORT`.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The state as canonical JSON (sorted keys, two spaces), without tombstones, operation records and counters: equal
    /// bytes before a create and after the delete.
    #[must_use]
    pub fn dump(&self) -> String {
        document::pretty(&self.admin.dump())
    }

    /// Changes any field of any resource behind the API's back.
    ///
    /// # Errors
    /// [`CorruptError`] where there is no such resource or field, or the value does not fit.
    pub fn corrupt(&self, corruption: &Corruption) -> Result<(), CorruptError> {
        self.admin.corrupt(corruption)
    }

    /// Adds a fault and answers its number.
    pub fn inject(&self, fault: Fault) -> u64 {
        self.admin.faults().add(fault)
    }

    /// Removes one fault, or all.
    pub fn clear_faults(&self, id: Option<u64>) {
        self.admin.faults().clear(id);
    }

    /// Sets how late answers lag behind writes.
    pub fn set_lag(&self, lag: Lag) {
        self.admin.set_lag(lag);
    }

    /// The last calls, oldest first.
    #[must_use]
    pub fn journal(&self) -> Vec<JournalEntry> {
        self.admin.journal()
    }

    /// Stops serving and waits until every task has ended.
    pub async fn shutdown(self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}
