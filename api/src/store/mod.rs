//! The store: every transaction of Tieline, as one trait with two modules, `sqlite` and `postgres`, and one conformance
//! suite that runs on both. Nothing outside this room knows SQL. Each method is one transaction.

mod books;
mod postgres;
mod proofs;
mod sql;
mod sqlite;
pub mod types;

use std::{collections::BTreeSet, sync::Arc};

use async_trait::async_trait;
use tieline_openapi::{
    ids::{
        AccountId, ConnectionId, GatewayId, IdError, InstallationId, InstanceId, IssueId, OperationId, PlanId,
        ProjectId, TokenId,
    },
    v1::{Event, Gateway, Issue, KernelLane, Observations, Operation, PathSample, Plan, Timestamp},
};

pub use books::*;
pub use proofs::Proofs;
pub use sql::SqlStore;
pub use types::*;

use crate::{
    events::Hints,
    plan::negotiate::{Allocated, Touched},
};

/// Where the store's time comes from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum StoreTime {
    /// The database's own clock.
    #[default]
    Database,
    /// A one-row table that [`SqlStore::set_time`] writes: for tests that step the time. It begins at 0.
    Row,
}

/// How a store is opened.
#[derive(Debug, Clone, Default)]
pub struct OpenOptions {
    /// Told of every commit that somebody may wait for.
    pub hints: Hints,
    /// Where its time comes from.
    pub time: StoreTime,
    /// On Postgres: no hints go to other replicas, and none are heard of theirs. Polling finds everything.
    pub alone: bool,
}

/// Opens a database, `sqlite://PATH` (made if it is not there; `sqlite::memory:` for one that is gone with the store) or
/// `postgres://...`, and brings it to this version's schema.
///
/// # Errors
/// [`StoreError::InUse`] when another process has the SQLite file open, [`StoreError::Unusable`] when it is damaged or
/// not Tieline's, [`StoreError::Full`] when there is no room, [`StoreError::Unavailable`] when Postgres does not answer.
pub async fn open(url: &str, options: OpenOptions) -> Result<Arc<dyn Store>, StoreError> {
    let store: Arc<dyn Store> = SqlStore::open(url, options).await?;
    Ok(store)
}

/// Why the store could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The name is taken in its project.
    #[error("the name is taken by connection {holder}")]
    NameTaken {
        /// Who has it.
        holder: ConnectionId,
    },
    /// A VLAN, a subnet or bandwidth was taken since it was read: negotiate again.
    #[error("an allocation was taken in the meantime: {what}")]
    AllocationTaken {
        /// Which.
        what: String,
    },
    /// The activation key has made a connection already.
    #[error("the activation key has made connection {holder} already")]
    KeyBrought {
        /// Which.
        holder: ConnectionId,
    },
    /// The row moved since it was read.
    #[error("generation {wanted} was expected, generation {actual} is there")]
    StaleGeneration {
        /// As the caller knows it.
        wanted: u64,
        /// As it is.
        actual: u64,
    },
    /// The idempotency key was used with another body.
    #[error("the idempotency key was used with another request")]
    IdempotencyKeyReused,
    /// The idempotency key's first request has committed meanwhile: replay its answer.
    #[error("the idempotency key was used already")]
    IdempotencyReplay(Box<SavedAnswer>),
    /// Not there, or not in this project.
    #[error("not found")]
    NotFound,
    /// A one-time right was used or has ended.
    #[error("this right was used already or has ended")]
    Spent,
    /// Nobody asks this any more: the issue is resolved, is about something else by now, or was answered.
    #[error("the issue does not ask this, or not any more")]
    NotAsked,
    /// Another owner holds the claim now: whatever was to be written is void.
    #[error("the claim is held by another owner now")]
    Fenced,
    /// The event cursor is older than the oldest event kept.
    #[error("the cursor is older than the oldest event that is kept")]
    CursorTooOld,
    /// Another process has the database open.
    #[error("{path} is in use by another process: stop it, or give this one another database")]
    InUse {
        /// The file.
        path: String,
    },
    /// The database is damaged, or not Tieline's.
    #[error("the database cannot be used: {reason}")]
    Unusable {
        /// Why, and what to do.
        reason: String,
        /// The driver's error.
        #[source]
        source: Option<Box<dyn std::error::Error + Send + Sync>>,
    },
    /// A stored document cannot be read: a newer version wrote it, or the row is damaged.
    #[error("a stored {what} cannot be read")]
    Decode {
        /// Which.
        what: &'static str,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// A stored id cannot be read.
    #[error("a stored id cannot be read")]
    Id(#[from] IdError),
    /// What was to be written cannot be: the caller should have refused it.
    #[error("it cannot be stored: {reason}")]
    Invalid {
        /// Why.
        reason: String,
    },
    /// The disk is full.
    #[error("the database's disk is full: free some space; nothing was written")]
    Full,
    /// The database did not answer.
    #[error("the database did not answer")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Every transaction of Tieline.
#[async_trait]
pub trait Store: Send + Sync {
    // ---- installation -------------------------------------------------------------------------------------------------

    /// The installation's id: `candidate` at the first start, ever after the same.
    async fn installation(&self, candidate: InstallationId) -> Result<InstallationId, StoreError>;

    /// Answers if the database does.
    async fn ping(&self) -> Result<(), StoreError>;

    /// The store's own time, which leases are counted by. Tests may point it at a row.
    async fn now(&self) -> Result<Timestamp, StoreError>;

    // ---- principals ---------------------------------------------------------------------------------------------------

    /// Adds an API token. `StoreError::NameTaken` never; names are unique per project: `AllocationTaken`.
    async fn insert_token(&self, token: NewToken) -> Result<(), StoreError>;
    /// How many API tokens there are, spent ones too: the first start has none.
    async fn count_tokens(&self) -> Result<u64, StoreError>;
    /// The token, or gateway credential, with this SHA-256, expired or not.
    async fn principal_by_hash(&self, hash: [u8; 32]) -> Result<Option<StoredPrincipal>, StoreError>;
    /// Notes the use of a token.
    async fn touch_token(&self, id: TokenId, at: Timestamp) -> Result<(), StoreError>;
    /// A page of a project's tokens, by id.
    async fn list_tokens(&self, project: &ProjectId, page: Page)
    -> Result<Vec<tieline_openapi::v1::Token>, StoreError>;
    /// Ends a token.
    async fn delete_token(&self, project: &ProjectId, id: TokenId, audit: Audit) -> Result<(), StoreError>;

    // ---- the intent ---------------------------------------------------------------------------------------------------

    /// The answer that was given under this key, if any and not older than its keeping time.
    async fn saved_answer(&self, key: &IdempotencyKey) -> Result<Option<SavedAnswer>, StoreError>;

    /// What every live connection holds of what a request touches, what is in quarantine, what others were seen to occupy,
    /// and what other links carry that meets the request's prefixes.
    async fn allocated(&self, touched: &Touched) -> Result<Allocated, StoreError>;

    /// Writes a connection, its allocations, secrets, operation, event, audit row and saved answer: all or nothing.
    async fn create_connection(&self, new: NewConnection) -> Result<(), StoreError>;

    /// Changes a connection's intent, or asks for its deletion; supersedes the running operation.
    async fn change_connection(&self, change: ConnectionChange) -> Result<(), StoreError>;

    /// One connection with everything that its view needs.
    async fn connection(&self, project: &ProjectId, id: ConnectionId) -> Result<ConnectionRecord, StoreError>;

    /// One connection with everything that a plan of it starts from.
    async fn standing(&self, project: &ProjectId, id: ConnectionId) -> Result<Standing, StoreError>;

    /// A page of a project's connections in order of id. `filter` has been checked by the caller.
    async fn connections(
        &self,
        project: &ProjectId,
        filter: &ConnectionFilter,
        page: Page,
    ) -> Result<Vec<ConnectionRecord>, StoreError>;

    /// One operation. Operations outlive their connection.
    async fn operation(&self, project: &ProjectId, id: OperationId) -> Result<Operation, StoreError>;
    /// A page of a project's operations, newest first, of one connection where given.
    async fn operations(
        &self,
        project: &ProjectId,
        connection: Option<ConnectionId>,
        page: Page,
    ) -> Result<Vec<Operation>, StoreError>;

    /// Saves a plan and the answer that it was given with.
    async fn insert_plan(&self, new: NewPlan) -> Result<(), StoreError>;
    /// A page of a project's plans, newest first, of one connection where given. Expired ones are among them until they are
    /// pruned.
    async fn plans(
        &self,
        project: &ProjectId,
        connection: Option<ConnectionId>,
        page: Page,
    ) -> Result<Vec<Plan>, StoreError>;
    /// A saved plan and what it was asked for.
    async fn plan(&self, project: &ProjectId, id: PlanId) -> Result<(Plan, serde_json::Value), StoreError>;

    // ---- events and issues --------------------------------------------------------------------------------------------

    /// Events after a cursor, oldest first, of one project. A reader that was given cursor n is never shown a later commit
    /// below n.
    async fn events(&self, project: &ProjectId, since: u64, limit: u32) -> Result<Vec<Event>, StoreError>;
    /// The newest cursor.
    async fn last_cursor(&self) -> Result<u64, StoreError>;
    /// A page of a project's issues, newest first.
    async fn issues(&self, project: &ProjectId, page: Page) -> Result<Vec<Issue>, StoreError>;
    /// One issue.
    async fn issue(&self, project: &ProjectId, id: IssueId) -> Result<Issue, StoreError>;

    /// Takes a person's answer to an issue about a create without answer, and makes the connection due. `NotAsked` where the
    /// issue does not ask for it; `AllocationTaken` where what was named is recorded as another resource.
    async fn answer_issue(&self, answered: IssueAnswered) -> Result<(), StoreError>;

    // ---- gateways -----------------------------------------------------------------------------------------------------

    /// Saves a join token's hash.
    async fn insert_join_token(&self, project: &ProjectId, token: NewJoinToken) -> Result<(), StoreError>;
    /// Spends a join token and adds the gateway with its credential's hash, or `Spent`.
    async fn join_gateway(&self, join_hash: [u8; 32], gateway: NewGateway) -> Result<Gateway, StoreError>;
    /// A page of a project's gateways, by id.
    async fn gateways(&self, project: &ProjectId, page: Page) -> Result<Vec<Gateway>, StoreError>;
    /// One gateway.
    async fn gateway(&self, project: &ProjectId, id: GatewayId) -> Result<Gateway, StoreError>;
    /// Everything that a gateway's configuration is computed from; `version` rises whenever any of it changed.
    async fn gateway_inputs(&self, id: GatewayId) -> Result<GatewayInputs, StoreError>;
    /// Pairs of gateways whose preshared key has something due, at most `limit`: a change of which both have heard, and a key that
    /// is `age_ms` old or, where there are to be keys, a pair without one. `None`: there are to be none, so every key is due.
    async fn tunnel_keys_due(&self, age_ms: Option<u64>, limit: u32) -> Result<Vec<TunnelKeyDue>, StoreError>;
    /// Changes a preshared key, which raises the version of every gateway's configuration; false where it is not as `due` says
    /// any more.
    async fn change_tunnel_key(&self, due: TunnelKeyDue, change: TunnelKeyChange) -> Result<bool, StoreError>;
    /// Makes these, and no others, the kernel lanes of a gateway, which raises the version of every gateway's configuration
    /// where that changes any. One for something that is no other gateway of its project is left out.
    async fn put_kernel_lanes(&self, gateway: GatewayId, lanes: &[KernelLane]) -> Result<(), StoreError>;
    /// A gateway, and those of these connections that it serves.
    async fn reported_on(
        &self,
        gateway: GatewayId,
        about: &BTreeSet<ConnectionId>,
    ) -> Result<(Gateway, Vec<ConnectionRecord>), StoreError>;
    /// Takes a report once; true if it was new. Keeps the latest sample of each path, and a bounded history.
    async fn observe(
        &self,
        gateway: GatewayId,
        observations: &Observations,
        at: Timestamp,
        effects: ReportEffects,
    ) -> Result<bool, StoreError>;
    /// The latest samples of a connection's paths.
    async fn latest_samples(&self, connection: ConnectionId) -> Result<Vec<PathSample>, StoreError>;

    // ---- the engine ---------------------------------------------------------------------------------------------------

    /// Claims up to `limit` due connections with the next epoch, in one statement. Lease times are the store's time.
    async fn claim(&self, owner: &str, lease_ms: u64, limit: u32) -> Result<Vec<Claim>, StoreError>;

    /// Milliseconds until the next connection is due by the store's time; `None` without any. Never more than `longest_ms`.
    async fn next_due(&self, longest_ms: u64) -> Result<Option<u64>, StoreError>;

    /// Everything that the engine needs of a claimed connection.
    async fn load(&self, claim: &Claim) -> Result<Workpiece, StoreError>;

    /// In one transaction: the fence (an UPDATE of the connection's row where the epoch is ours, which rolls back on no row),
    /// then every write in order.
    async fn write_fenced(&self, claim: &Claim, writes: Vec<EngineWrite>) -> Result<(), StoreError>;

    /// Releases many claims in one transaction, after passes that changed nothing: each with the milliseconds after which it
    /// is due again. Claims that were lost meanwhile are passed over.
    async fn release_unchanged(&self, releases: Vec<(Claim, u64)>) -> Result<(), StoreError>;

    /// Takes the lease of an object that is shared with others, or of a sweep; `None` while another holds it.
    async fn lease_shared(&self, name: &str, owner: &str, lease_ms: u64) -> Result<Option<SharedLease>, StoreError>;
    /// Gives a shared lease back, with a note for its next holder (a write without verdict, the time of the last sweep).
    async fn release_shared(&self, lease: &SharedLease, note: serde_json::Value) -> Result<(), StoreError>;

    /// Makes a shared lease last as long again, from now on.
    async fn renew_shared(&self, lease: &SharedLease) -> Result<(), StoreError>;

    /// What is known of an account's lists.
    async fn account_watch(&self, account: &AccountId) -> Result<AccountWatch, StoreError>;
    /// A page of what an account's lists are expected to show, by instance, after one.
    async fn expected(
        &self,
        account: &AccountId,
        after: Option<InstanceId>,
        limit: u32,
    ) -> Result<Vec<Expected>, StoreError>;
    /// Writes what a list showed of settled connections, all in one transaction under the account's lease, and makes them due.
    /// Those that are claimed, or not settled any more, are passed over: the next list shows them again.
    async fn write_sightings(&self, lease: &SharedLease, sightings: Vec<Sighting>) -> Result<(), StoreError>;
    /// Writes the end of a round of lists, and what follows from it, under the account's lease.
    async fn end_round(
        &self,
        lease: &SharedLease,
        round: AccountRound,
        writes: Vec<EngineWrite>,
    ) -> Result<(), StoreError>;
    /// A person says that what is absent from an account's lists is meant to be gone: creates go on. `NotFound` where
    /// nothing is held.
    async fn accept_absence(&self, acceptance: Acceptance) -> Result<(), StoreError>;

    /// What the ledger knows of an instance, also long after its connection is gone.
    async fn ledger_facts(&self, instance: InstanceId) -> Result<Option<LedgerFacts>, StoreError>;

    /// Writes of the sweep, which belong to no claim: twins, issues and events.
    async fn write_unclaimed(&self, writes: Vec<EngineWrite>) -> Result<(), StoreError>;

    /// Frees what has been in quarantine long enough, drops expired answers, old events and old samples; bounded work.
    async fn housekeep(&self, limits: &HousekeepingLimits) -> Result<(), StoreError>;
}
