//! The real store behind the scheduler: every call of the engine waits its turn, and the store's time is the test's.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicI64, Ordering},
    },
};

use async_trait::async_trait;
use tieline_api::{
    plan::negotiate::{Allocated, Touched},
    store::{
        Acceptance, AccountRound, AccountWatch, Audit, Claim, ConnectionChange, ConnectionFilter, ConnectionRecord,
        EngineWrite, Expected, GatewayInputs, HousekeepingLimits, IdempotencyKey, IssueAnswered, LedgerFacts,
        NewConnection, NewGateway, NewJoinToken, NewPlan, NewToken, Page, ReportEffects, SavedAnswer, SharedLease,
        Sighting, SqlStore, Standing, Store, StoreError, StoredPrincipal, TunnelKeyChange, TunnelKeyDue, Workpiece,
    },
};
use tieline_openapi::{
    ids::{
        AccountId, ConnectionId, GatewayId, InstallationId, InstanceId, IssueId, OperationId, PlanId, ProjectId,
        ProviderCallId, TokenId,
    },
    v1::{Event, Gateway, Issue, KernelLane, Observations, Operation, PathSample, Plan, Timestamp, Verb},
};
use tieline_providers::ResourceKey;
use tokio::task;

use super::sched::{Running, Sched};

/// How long after its row was composed a request can have its effect, held and late, in milliseconds.
pub(crate) const LONGEST_WAY_MS: u64 = 12_000;

/// What was written into the ledger, and what it is about.
#[derive(Default)]
pub(crate) struct Rows(Mutex<Noted>);

/// A ledger row, as it was written.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    pub(crate) instance: InstanceId,
    pub(crate) verb: Verb,
    pub(crate) key: ResourceKey,
    pub(crate) channel: String,
}

#[derive(Default)]
struct Noted {
    log: Vec<Row>,
    calls: BTreeMap<(InstanceId, &'static str), u32>,
    places: BTreeMap<InstanceId, Place>,
    /// The instance whose name a twin carries.
    twins: BTreeMap<InstanceId, InstanceId>,
    /// When the newest row of a pass about an instance was composed, in milliseconds since the start. A replica that lost a
    /// claim may be in two passes of one connection at a time.
    composed: HashMap<(task::Id, InstanceId, &'static str), u64>,
    /// When the first row of a create of an instance was composed.
    first_created: BTreeMap<InstanceId, u64>,
    /// The same of the request that has just left the socket.
    leaving: u64,
    /// When the rows of creates without verdict were composed.
    open_creates: BTreeMap<ProviderCallId, u64>,
    /// When the last row of a create was written or decided.
    last_create: u64,
    /// Instances of which the sweep found a twin, and that nobody has asked about yet.
    found: Vec<InstanceId>,
    removed: Vec<ConnectionId>,
}

/// What an instance is an instance of.
pub(crate) type Place = (ConnectionId, String, String);

impl Rows {
    fn noted(&self) -> MutexGuard<'_, Noted> {
        self.0.lock().unwrap()
    }

    /// The place of an instance.
    pub(crate) fn place(&self, instance: InstanceId) -> Option<Place> {
        self.noted().places.get(&instance).cloned()
    }

    /// A request of the pass that asks leaves the socket.
    pub(crate) fn leave(&self, instance: InstanceId, of: Verb) {
        let mut noted = self.noted();
        noted.leaving = noted.composed.get(&(task::id(), instance, verb(of))).copied().unwrap_or(0);
    }

    /// When the row of the request that has just left was composed.
    pub(crate) fn leaving(&self) -> u64 {
        self.noted().leaving
    }

    /// When the newest row of a create of an instance was composed.
    pub(crate) fn created_at(&self, instance: InstanceId) -> u64 {
        let noted = self.noted();
        let rows = noted.composed.iter().filter(|((_, of, verb), _)| *of == instance && *verb == "create");
        rows.map(|(_, at)| *at).max().unwrap_or(0)
    }

    /// When the first row of a create of an instance was composed.
    pub(crate) fn first_created_at(&self, instance: InstanceId) -> u64 {
        self.noted().first_created.get(&instance).copied().unwrap_or(0)
    }

    /// For how long no create has been without verdict, but for those that nothing of can be on its way any more.
    pub(crate) fn quiet_for(&self, now: u64) -> u64 {
        let noted = self.noted();
        let open = noted.open_creates.values().any(|composed| composed + LONGEST_WAY_MS > now);
        if open { 0 } else { now.saturating_sub(noted.last_create) }
    }

    /// Instances of which the sweep has found a twin since it was last asked.
    pub(crate) fn take_found(&self) -> Vec<InstanceId> {
        std::mem::take(&mut self.noted().found)
    }

    /// Connections that have gone since it was last asked.
    pub(crate) fn take_removed(&self) -> Vec<ConnectionId> {
        std::mem::take(&mut self.noted().removed)
    }

    fn note(&self, composed: u64, claim: Option<&Claim>, writes: &[EngineWrite]) {
        let mut noted = self.noted();
        for write in writes {
            match (write, claim) {
                (EngineWrite::PutInstance(instance), Some(claim)) => {
                    let place = (claim.id, instance.channel_id.to_string(), instance.key.kind.to_string());
                    noted.places.insert(instance.id, place);
                }
                (EngineWrite::FoundTwin { id, twin, .. }, _) => {
                    noted.twins.insert(*id, twin.of);
                    noted.found.push(twin.of);
                }
                (EngineWrite::OpenCall { call, key, .. }, _) => {
                    let place = noted.places.get(&call.instance_id);
                    let channel = place.map_or_else(String::new, |(_, channel, _)| channel.clone());
                    let row = Row { instance: call.instance_id, verb: call.verb, key: key.clone(), channel };
                    noted.log.push(row);
                    let named = noted.twins.get(&call.instance_id).copied().unwrap_or(call.instance_id);
                    *noted.calls.entry((named, verb(call.verb))).or_default() += 1;
                    noted.composed.insert((task::id(), named, verb(call.verb)), composed);
                    if call.verb == Verb::Create {
                        noted.first_created.entry(named).or_insert(composed);
                        noted.open_creates.insert(call.id, composed);
                        noted.last_create = composed;
                    }
                }
                (EngineWrite::DecideCall { id, .. }, _) if noted.open_creates.remove(id).is_some() => {
                    noted.last_create = composed;
                }
                (EngineWrite::Remove { .. }, Some(claim)) if !claim.gone => noted.removed.push(claim.id),
                _ => {}
            }
        }
    }

    /// Every ledger row so far, in order.
    pub(crate) fn log(&self) -> Vec<Row> {
        self.noted().log.clone()
    }

    pub(crate) fn count(&self, instance: InstanceId, of: Verb) -> u32 {
        self.noted().calls.get(&(instance, verb(of))).copied().unwrap_or(0)
    }
}

fn verb(verb: Verb) -> &'static str {
    match verb {
        Verb::Create => "create",
        Verb::Update => "update",
        Verb::Delete => "delete",
    }
}

pub(crate) struct SimStore {
    pub(crate) inner: Arc<SqlStore>,
    pub(crate) sched: Arc<Sched>,
    pub(crate) replica: u32,
    pub(crate) ledger: Arc<Rows>,
    /// What the store's clock was stepped by.
    pub(crate) stepped_ms: Arc<AtomicI64>,
    pub(crate) set_ms: Arc<AtomicI64>,
}

impl SimStore {
    async fn begin(&self, what: &str) -> Running {
        let running = self.sched.begin(self.replica, what).await;
        let now = self.sched.now().as_millisecond() + self.stepped_ms.load(Ordering::SeqCst);
        if self.set_ms.swap(now, Ordering::SeqCst) != now {
            self.inner.set_time(Timestamp::from_millisecond(now).unwrap()).await.unwrap();
        }
        running
    }
}

#[async_trait]
impl Store for SimStore {
    async fn installation(&self, candidate: InstallationId) -> Result<InstallationId, StoreError> {
        self.inner.installation(candidate).await
    }
    async fn ping(&self) -> Result<(), StoreError> {
        self.inner.ping().await
    }
    async fn now(&self) -> Result<Timestamp, StoreError> {
        self.inner.now().await
    }
    async fn insert_token(&self, token: NewToken) -> Result<(), StoreError> {
        self.inner.insert_token(token).await
    }
    async fn count_tokens(&self) -> Result<u64, StoreError> {
        self.inner.count_tokens().await
    }
    async fn principal_by_hash(&self, hash: [u8; 32]) -> Result<Option<StoredPrincipal>, StoreError> {
        self.inner.principal_by_hash(hash).await
    }
    async fn touch_token(&self, id: TokenId, at: Timestamp) -> Result<(), StoreError> {
        self.inner.touch_token(id, at).await
    }
    async fn list_tokens(
        &self,
        project: &ProjectId,
        page: Page,
    ) -> Result<Vec<tieline_openapi::v1::Token>, StoreError> {
        self.inner.list_tokens(project, page).await
    }
    async fn delete_token(&self, project: &ProjectId, id: TokenId, audit: Audit) -> Result<(), StoreError> {
        self.inner.delete_token(project, id, audit).await
    }
    async fn saved_answer(&self, key: &IdempotencyKey) -> Result<Option<SavedAnswer>, StoreError> {
        self.inner.saved_answer(key).await
    }
    async fn allocated(&self, touched: &Touched) -> Result<Allocated, StoreError> {
        let _call = self.begin("allocated").await;
        self.inner.allocated(touched).await
    }
    async fn create_connection(&self, new: NewConnection) -> Result<(), StoreError> {
        self.inner.create_connection(new).await
    }
    async fn change_connection(&self, change: ConnectionChange) -> Result<(), StoreError> {
        self.inner.change_connection(change).await
    }
    async fn connection(&self, project: &ProjectId, id: ConnectionId) -> Result<ConnectionRecord, StoreError> {
        self.inner.connection(project, id).await
    }
    async fn standing(&self, project: &ProjectId, id: ConnectionId) -> Result<Standing, StoreError> {
        self.inner.standing(project, id).await
    }
    async fn connections(
        &self,
        project: &ProjectId,
        filter: &ConnectionFilter,
        page: Page,
    ) -> Result<Vec<ConnectionRecord>, StoreError> {
        self.inner.connections(project, filter, page).await
    }
    async fn operation(&self, project: &ProjectId, id: OperationId) -> Result<Operation, StoreError> {
        self.inner.operation(project, id).await
    }
    async fn operations(
        &self,
        project: &ProjectId,
        connection: Option<ConnectionId>,
        page: Page,
    ) -> Result<Vec<Operation>, StoreError> {
        self.inner.operations(project, connection, page).await
    }
    async fn insert_plan(&self, new: NewPlan) -> Result<(), StoreError> {
        self.inner.insert_plan(new).await
    }
    async fn plans(
        &self,
        project: &ProjectId,
        connection: Option<ConnectionId>,
        page: Page,
    ) -> Result<Vec<Plan>, StoreError> {
        self.inner.plans(project, connection, page).await
    }
    async fn plan(&self, project: &ProjectId, id: PlanId) -> Result<(Plan, serde_json::Value), StoreError> {
        self.inner.plan(project, id).await
    }
    async fn events(&self, project: &ProjectId, since: u64, limit: u32) -> Result<Vec<Event>, StoreError> {
        self.inner.events(project, since, limit).await
    }
    async fn last_cursor(&self) -> Result<u64, StoreError> {
        self.inner.last_cursor().await
    }
    async fn issues(&self, project: &ProjectId, page: Page) -> Result<Vec<Issue>, StoreError> {
        self.inner.issues(project, page).await
    }
    async fn issue(&self, project: &ProjectId, id: IssueId) -> Result<Issue, StoreError> {
        self.inner.issue(project, id).await
    }
    async fn answer_issue(&self, answered: IssueAnswered) -> Result<(), StoreError> {
        self.inner.answer_issue(answered).await
    }
    async fn insert_join_token(&self, project: &ProjectId, token: NewJoinToken) -> Result<(), StoreError> {
        self.inner.insert_join_token(project, token).await
    }
    async fn join_gateway(&self, join_hash: [u8; 32], gateway: NewGateway) -> Result<Gateway, StoreError> {
        self.inner.join_gateway(join_hash, gateway).await
    }
    async fn gateways(&self, project: &ProjectId, page: Page) -> Result<Vec<Gateway>, StoreError> {
        self.inner.gateways(project, page).await
    }
    async fn gateway(&self, project: &ProjectId, id: GatewayId) -> Result<Gateway, StoreError> {
        self.inner.gateway(project, id).await
    }
    async fn gateway_inputs(&self, id: GatewayId) -> Result<GatewayInputs, StoreError> {
        self.inner.gateway_inputs(id).await
    }
    async fn put_kernel_lanes(&self, gateway: GatewayId, lanes: &[KernelLane]) -> Result<(), StoreError> {
        self.inner.put_kernel_lanes(gateway, lanes).await
    }
    async fn tunnel_keys_due(&self, age_ms: Option<u64>, limit: u32) -> Result<Vec<TunnelKeyDue>, StoreError> {
        self.inner.tunnel_keys_due(age_ms, limit).await
    }
    async fn change_tunnel_key(&self, due: TunnelKeyDue, change: TunnelKeyChange) -> Result<bool, StoreError> {
        self.inner.change_tunnel_key(due, change).await
    }
    async fn reported_on(
        &self,
        gateway: GatewayId,
        about: &BTreeSet<ConnectionId>,
    ) -> Result<(Gateway, Vec<ConnectionRecord>), StoreError> {
        self.inner.reported_on(gateway, about).await
    }
    async fn observe(
        &self,
        gateway: GatewayId,
        observations: &Observations,
        at: Timestamp,
        effects: ReportEffects,
    ) -> Result<bool, StoreError> {
        self.inner.observe(gateway, observations, at, effects).await
    }
    async fn latest_samples(&self, connection: ConnectionId) -> Result<Vec<PathSample>, StoreError> {
        self.inner.latest_samples(connection).await
    }
    async fn claim(&self, owner: &str, lease_ms: u64, limit: u32) -> Result<Vec<Claim>, StoreError> {
        let _call = self.begin("claim").await;
        self.inner.claim(owner, lease_ms, limit).await
    }
    async fn next_due(&self, longest_ms: u64) -> Result<Option<u64>, StoreError> {
        let _call = self.begin("next_due").await;
        self.inner.next_due(longest_ms).await
    }
    async fn load(&self, claim: &Claim) -> Result<Workpiece, StoreError> {
        let _call = self.begin("load").await;
        self.inner.load(claim).await
    }
    async fn write_fenced(&self, claim: &Claim, writes: Vec<EngineWrite>) -> Result<(), StoreError> {
        let composed = self.sched.now_ms();
        let what =
            if writes.iter().any(|w| matches!(w, EngineWrite::OpenCall { .. })) { "write_row" } else { "write_fenced" };
        let _call = self.begin(what).await;
        let written = writes.clone();
        let result = self.inner.write_fenced(claim, writes).await;
        if result.is_ok() {
            self.ledger.note(composed, Some(claim), &written);
        }
        result
    }
    async fn release_unchanged(&self, releases: Vec<(Claim, u64)>) -> Result<(), StoreError> {
        let _call = self.begin("release_unchanged").await;
        self.inner.release_unchanged(releases).await
    }
    async fn lease_shared(&self, name: &str, owner: &str, lease_ms: u64) -> Result<Option<SharedLease>, StoreError> {
        let _call = self.begin("lease_shared").await;
        self.inner.lease_shared(name, owner, lease_ms).await
    }
    async fn release_shared(&self, lease: &SharedLease, note: serde_json::Value) -> Result<(), StoreError> {
        let _call = self.begin("release_shared").await;
        self.inner.release_shared(lease, note).await
    }
    async fn renew_shared(&self, lease: &SharedLease) -> Result<(), StoreError> {
        let _call = self.begin("renew_shared").await;
        self.inner.renew_shared(lease).await
    }
    async fn account_watch(&self, account: &AccountId) -> Result<AccountWatch, StoreError> {
        let _call = self.begin("account_watch").await;
        self.inner.account_watch(account).await
    }
    async fn expected(
        &self,
        account: &AccountId,
        after: Option<InstanceId>,
        limit: u32,
    ) -> Result<Vec<Expected>, StoreError> {
        let _call = self.begin("expected").await;
        self.inner.expected(account, after, limit).await
    }
    async fn write_sightings(&self, lease: &SharedLease, sightings: Vec<Sighting>) -> Result<(), StoreError> {
        let _call = self.begin("write_sightings").await;
        self.inner.write_sightings(lease, sightings).await
    }
    async fn end_round(
        &self,
        lease: &SharedLease,
        round: AccountRound,
        writes: Vec<EngineWrite>,
    ) -> Result<(), StoreError> {
        let _call = self.begin("end_round").await;
        self.inner.end_round(lease, round, writes).await
    }
    async fn accept_absence(&self, acceptance: Acceptance) -> Result<(), StoreError> {
        self.inner.accept_absence(acceptance).await
    }
    async fn ledger_facts(&self, instance: InstanceId) -> Result<Option<LedgerFacts>, StoreError> {
        let _call = self.begin("ledger_facts").await;
        self.inner.ledger_facts(instance).await
    }
    async fn write_unclaimed(&self, writes: Vec<EngineWrite>) -> Result<(), StoreError> {
        let _call = self.begin("write_unclaimed").await;
        let written = writes.clone();
        let result = self.inner.write_unclaimed(writes).await;
        if result.is_ok() {
            self.ledger.note(self.sched.now_ms(), None, &written);
        }
        result
    }
    async fn housekeep(&self, limits: &HousekeepingLimits) -> Result<(), StoreError> {
        let _call = self.begin("housekeep").await;
        self.inner.housekeep(limits).await
    }
}
