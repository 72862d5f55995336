//! The trait, method by method.

use std::collections::BTreeSet;

use async_trait::async_trait;
use tieline_openapi::{
    ids::{
        AccountId, ConnectionId, GatewayId, InstallationId, InstanceId, IssueId, OperationId, PlanId, ProjectId,
        TokenId,
    },
    v1::{Event, Gateway, Issue, KernelLane, Observations, Operation, PathSample, Plan, Timestamp, Token},
};

use super::SqlStore;
use crate::{
    plan::negotiate::{Allocated, Touched},
    store::{
        Acceptance, AccountRound, AccountWatch, Audit, Claim, ConnectionChange, ConnectionFilter, ConnectionRecord,
        EngineWrite, Expected, GatewayInputs, HousekeepingLimits, IdempotencyKey, IssueAnswered, LedgerFacts,
        NewConnection, NewGateway, NewJoinToken, NewPlan, NewToken, Page, ReportEffects, SavedAnswer, SharedLease,
        Sighting, Standing, Store, StoreError, StoredPrincipal, TunnelKeyChange, TunnelKeyDue, Workpiece,
    },
};

#[async_trait]
impl Store for SqlStore {
    async fn installation(&self, candidate: InstallationId) -> Result<InstallationId, StoreError> {
        self.installation_id(candidate).await
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.store_time().await.map(drop)
    }

    async fn now(&self) -> Result<Timestamp, StoreError> {
        self.store_time().await
    }

    async fn insert_token(&self, token: NewToken) -> Result<(), StoreError> {
        self.add_token(token).await
    }

    async fn count_tokens(&self) -> Result<u64, StoreError> {
        self.token_count().await
    }

    async fn principal_by_hash(&self, hash: [u8; 32]) -> Result<Option<StoredPrincipal>, StoreError> {
        self.find_principal(hash).await
    }

    async fn touch_token(&self, id: TokenId, at: Timestamp) -> Result<(), StoreError> {
        self.note_use(id, at).await
    }

    async fn list_tokens(&self, project: &ProjectId, page: Page) -> Result<Vec<Token>, StoreError> {
        self.tokens(project, page).await
    }

    async fn delete_token(&self, project: &ProjectId, id: TokenId, audit: Audit) -> Result<(), StoreError> {
        self.end_token(project, id, audit).await
    }

    async fn saved_answer(&self, key: &IdempotencyKey) -> Result<Option<SavedAnswer>, StoreError> {
        self.find_answer(key).await
    }

    async fn allocated(&self, touched: &Touched) -> Result<Allocated, StoreError> {
        self.allocated_of(touched).await
    }

    async fn create_connection(&self, new: NewConnection) -> Result<(), StoreError> {
        self.insert_connection(new).await
    }

    async fn change_connection(&self, change: ConnectionChange) -> Result<(), StoreError> {
        self.update_connection(change).await
    }

    async fn connection(&self, project: &ProjectId, id: ConnectionId) -> Result<ConnectionRecord, StoreError> {
        self.find_connection(project, id).await
    }

    async fn standing(&self, project: &ProjectId, id: ConnectionId) -> Result<Standing, StoreError> {
        self.find_standing(project, id).await
    }

    async fn connections(
        &self,
        project: &ProjectId,
        filter: &ConnectionFilter,
        page: Page,
    ) -> Result<Vec<ConnectionRecord>, StoreError> {
        self.list_connections(project, filter, page).await
    }

    async fn operation(&self, project: &ProjectId, id: OperationId) -> Result<Operation, StoreError> {
        self.find_operation(project, id).await
    }

    async fn operations(
        &self,
        project: &ProjectId,
        connection: Option<ConnectionId>,
        page: Page,
    ) -> Result<Vec<Operation>, StoreError> {
        self.list_operations(project, connection, page).await
    }

    async fn insert_plan(&self, new: NewPlan) -> Result<(), StoreError> {
        self.save_plan(new).await
    }

    async fn plans(
        &self,
        project: &ProjectId,
        connection: Option<ConnectionId>,
        page: Page,
    ) -> Result<Vec<Plan>, StoreError> {
        self.list_plans(project, connection, page).await
    }

    async fn plan(&self, project: &ProjectId, id: PlanId) -> Result<(Plan, serde_json::Value), StoreError> {
        self.find_plan(project, id).await
    }

    async fn events(&self, project: &ProjectId, since: u64, limit: u32) -> Result<Vec<Event>, StoreError> {
        self.events_after(project, since, limit).await
    }

    async fn last_cursor(&self) -> Result<u64, StoreError> {
        self.newest_cursor().await
    }

    async fn issues(&self, project: &ProjectId, page: Page) -> Result<Vec<Issue>, StoreError> {
        self.list_issues(project, page).await
    }

    async fn issue(&self, project: &ProjectId, id: IssueId) -> Result<Issue, StoreError> {
        self.find_issue(project, id).await
    }

    async fn answer_issue(&self, answered: IssueAnswered) -> Result<(), StoreError> {
        self.take_answer(answered).await
    }

    async fn insert_join_token(&self, project: &ProjectId, token: NewJoinToken) -> Result<(), StoreError> {
        self.add_join_token(project, token).await
    }

    async fn join_gateway(&self, join_hash: [u8; 32], gateway: NewGateway) -> Result<Gateway, StoreError> {
        self.join(join_hash, gateway).await
    }

    async fn gateways(&self, project: &ProjectId, page: Page) -> Result<Vec<Gateway>, StoreError> {
        self.list_gateways(project, page).await
    }

    async fn gateway(&self, project: &ProjectId, id: GatewayId) -> Result<Gateway, StoreError> {
        self.find_gateway(project, id).await
    }

    async fn gateway_inputs(&self, id: GatewayId) -> Result<GatewayInputs, StoreError> {
        self.inputs_of_gateway(id).await
    }

    async fn tunnel_keys_due(&self, age_ms: Option<u64>, limit: u32) -> Result<Vec<TunnelKeyDue>, StoreError> {
        self.keys_due(age_ms, limit).await
    }

    async fn change_tunnel_key(&self, due: TunnelKeyDue, change: TunnelKeyChange) -> Result<bool, StoreError> {
        self.change_key(due, change).await
    }

    async fn reported_on(
        &self,
        gateway: GatewayId,
        about: &BTreeSet<ConnectionId>,
    ) -> Result<(Gateway, Vec<ConnectionRecord>), StoreError> {
        self.served_by(gateway, about).await
    }

    async fn put_kernel_lanes(&self, gateway: GatewayId, lanes: &[KernelLane]) -> Result<(), StoreError> {
        self.replace_kernel_lanes(gateway, lanes).await
    }
    async fn observe(
        &self,
        gateway: GatewayId,
        observations: &Observations,
        at: Timestamp,
        effects: ReportEffects,
    ) -> Result<bool, StoreError> {
        self.take_report(gateway, observations, at, effects).await
    }

    async fn latest_samples(&self, connection: ConnectionId) -> Result<Vec<PathSample>, StoreError> {
        self.samples_of(connection).await
    }

    async fn claim(&self, owner: &str, lease_ms: u64, limit: u32) -> Result<Vec<Claim>, StoreError> {
        self.claim_due(owner, lease_ms, limit).await
    }

    async fn next_due(&self, longest_ms: u64) -> Result<Option<u64>, StoreError> {
        self.wait_until_due(longest_ms).await
    }

    async fn load(&self, claim: &Claim) -> Result<Workpiece, StoreError> {
        self.load_claimed(claim).await
    }

    async fn write_fenced(&self, claim: &Claim, writes: Vec<EngineWrite>) -> Result<(), StoreError> {
        self.write_under(claim, writes).await
    }

    async fn release_unchanged(&self, releases: Vec<(Claim, u64)>) -> Result<(), StoreError> {
        self.release_all(releases).await
    }

    async fn lease_shared(&self, name: &str, owner: &str, lease_ms: u64) -> Result<Option<SharedLease>, StoreError> {
        self.take_lease(name, owner, lease_ms).await
    }

    async fn release_shared(&self, lease: &SharedLease, note: serde_json::Value) -> Result<(), StoreError> {
        self.give_lease_back(lease, note).await
    }

    async fn renew_shared(&self, lease: &SharedLease) -> Result<(), StoreError> {
        self.renew_lease(lease).await
    }

    async fn account_watch(&self, account: &AccountId) -> Result<AccountWatch, StoreError> {
        self.watch_of(account).await
    }

    async fn expected(
        &self,
        account: &AccountId,
        after: Option<InstanceId>,
        limit: u32,
    ) -> Result<Vec<Expected>, StoreError> {
        self.expected_after(account, after, limit).await
    }

    async fn write_sightings(&self, lease: &SharedLease, sightings: Vec<Sighting>) -> Result<(), StoreError> {
        self.put_sightings(lease, sightings).await
    }

    async fn end_round(
        &self,
        lease: &SharedLease,
        round: AccountRound,
        writes: Vec<EngineWrite>,
    ) -> Result<(), StoreError> {
        self.put_round(lease, round, writes).await
    }

    async fn accept_absence(&self, acceptance: Acceptance) -> Result<(), StoreError> {
        self.lift_hold(acceptance).await
    }

    async fn ledger_facts(&self, instance: InstanceId) -> Result<Option<LedgerFacts>, StoreError> {
        self.facts(instance).await
    }

    async fn write_unclaimed(&self, writes: Vec<EngineWrite>) -> Result<(), StoreError> {
        self.write_without_claim(writes).await
    }

    async fn housekeep(&self, limits: &HousekeepingLimits) -> Result<(), StoreError> {
        self.tidy(limits).await
    }
}
