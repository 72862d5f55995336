//! What goes into the store and comes out of it.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};
use tieline_openapi::{
    config::RetentionConfig,
    ids::{
        AccountId, AttachPointId, ChannelId, ConnectionId, GatewayGroupId, GatewayId, InstanceId, IssueId, JoinTokenId,
        OperationId, PortId, ProjectId, ProviderCallId,
    },
    v1::{
        AddressFamily, ConditionStatus, ConditionType, ConnectionIntent, ConnectionKind, ConnectionState, Gateway,
        Issue, JoinRequest, Operation, OperationState, PathSample, Plan, Stage, Timestamp, Verb,
    },
};
use tieline_providers::{ResourceKey, ResourceKind};

use crate::plan::{
    negotiate::{Negotiated, NegotiatedChannel},
    step::{CreateAnswer, Instance, ProviderCall, Twin, Verdict},
};

/// A page: at most `limit` rows with an id after `after`.
#[derive(Debug, Clone, Default)]
pub struct Page {
    /// Rows at most.
    pub limit: u32,
    /// The last id of the page before.
    pub after: Option<uuid::Uuid>,
}

/// Who did what, for the audit log.
#[derive(Debug, Clone)]
pub struct Audit {
    /// Who: `token:<id>`, `gateway:<id>`, `joinToken:<id>`, or `installation` for what the first start does.
    pub principal: String,
    /// The request's id.
    pub request_id: String,
    /// The operationId of the OpenAPI document.
    pub action: String,
    /// About what, as a path.
    pub subject: String,
    /// When.
    pub at: Timestamp,
}

/// A token to be written. Only the hash of its secret is.
#[derive(Debug, Clone)]
pub struct NewToken {
    /// Without the secret.
    pub token: tieline_openapi::v1::Token,
    /// SHA-256 of the secret.
    pub hash: [u8; 32],
    /// Who issued it.
    pub audit: Audit,
    /// The key and the answer to save under it.
    pub idempotency: Option<(IdempotencyKey, SavedAnswer)>,
}

/// Who a bearer is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoredPrincipal {
    /// An API token.
    Token(tieline_openapi::v1::Token),
    /// A gateway's own credential.
    Gateway {
        /// The gateway.
        id: GatewayId,
        /// Its project.
        project: ProjectId,
    },
    /// A join token: good for one `:join`.
    Join {
        /// The right.
        token: tieline_openapi::v1::JoinToken,
        /// Its project.
        project: ProjectId,
    },
}

/// What an idempotency key belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdempotencyKey {
    /// Who: the key of one principal is nothing to another.
    pub principal: String,
    /// The method.
    pub method: String,
    /// The path.
    pub path: String,
    /// The header's value.
    pub key: String,
    /// SHA-256 over the canonical body and the query without `wait`.
    pub digest: [u8; 32],
}

/// An answer that is given again. It holds no once-only secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedAnswer {
    /// The digest of the request that it answered.
    pub digest: [u8; 32],
    /// HTTP status.
    pub status: u16,
    /// Headers that belong to the answer: `Location`, `Operation-Location`, `ETag`.
    pub headers: BTreeMap<String, String>,
    /// The body.
    pub body: serde_json::Value,
}

/// A plan to save.
#[derive(Debug, Clone)]
pub struct NewPlan {
    /// Whose.
    pub project: ProjectId,
    /// The connection that it is about; of a create, the one that applying it makes.
    pub connection_id: ConnectionId,
    /// The plan, with its id.
    pub plan: Plan,
    /// What is kept to apply it exactly.
    pub request: serde_json::Value,
    /// The key under which the answer is given again, and the answer.
    pub idempotency: Option<(IdempotencyKey, SavedAnswer)>,
}

/// An event to be written; its cursor is drawn inside the transaction.
#[derive(Debug, Clone)]
pub struct NewEvent {
    /// Who may see it.
    pub project: ProjectId,
    /// When.
    pub time: Timestamp,
    /// Dotted type.
    pub kind: String,
    /// About what.
    pub subject: String,
    /// The generation of the subject.
    pub generation: Option<u64>,
    /// Who or what caused it.
    pub cause: String,
    /// More; never a secret.
    pub data: serde_json::Value,
}

/// What a connection takes. The store holds each as a constraint: a VLAN is unique on its port, a subnet's slots are
/// unique on their attach point, and bandwidth is a counter with a CHECK.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "is")]
pub enum Allocation {
    /// A VLAN on a port.
    Vlan {
        /// For which channel.
        channel_id: ChannelId,
        /// Of which generation of it.
        generation: u32,
        /// The port.
        port_id: PortId,
        /// The VLAN.
        vlan: u16,
    },
    /// A point-to-point subnet on an attach point. It occupies every /31 of the grid that it touches.
    Subnet {
        /// For which channel.
        channel_id: ChannelId,
        /// Of which generation of it.
        generation: u32,
        /// The attach point.
        attach_point_id: AttachPointId,
        /// The subnet, /24 to /31.
        subnet: Ipv4Net,
    },
    /// Bandwidth of a channel.
    Bandwidth {
        /// The channel.
        channel_id: ChannelId,
        /// Mbit/s taken.
        mbps: u64,
        /// Mbit/s that all connections together may take.
        capacity_mbps: u64,
    },
}

/// What a resource of others occupies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holding {
    /// In the list of which kind it stands.
    pub kind: ResourceKind,
    /// The cloud's id.
    pub cloud_id: String,
    /// A VLAN of one of our ports.
    pub vlan: Option<(PortId, u16)>,
    /// A subnet of one of our attach points.
    pub subnet: Option<(AttachPointId, Ipv4Net)>,
}

/// A secret that was sealed by `secrets`: the store never sees it in the clear.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealedSecret {
    /// For which channel.
    pub channel_id: ChannelId,
    /// Of which generation of it.
    pub generation: u32,
    /// `bgpPassword`.
    pub name: String,
    /// Key id, nonce and ciphertext.
    pub sealed: Vec<u8>,
}

/// A connection to be written.
#[derive(Debug, Clone)]
pub struct NewConnection {
    /// Its id.
    pub id: ConnectionId,
    /// Its project.
    pub project: ProjectId,
    /// Which kind.
    pub kind: ConnectionKind,
    /// The intent.
    pub intent: ConnectionIntent,
    /// What was negotiated.
    pub negotiated: Negotiated,
    /// What it takes.
    pub allocations: Vec<Allocation>,
    /// Its secrets.
    pub secrets: Vec<SealedSecret>,
    /// The first operation.
    pub operation: Operation,
    /// The first event.
    pub event: NewEvent,
    /// Who.
    pub audit: Audit,
    /// The key and the answer to save under it.
    pub idempotency: Option<(IdempotencyKey, SavedAnswer)>,
    /// When.
    pub at: Timestamp,
}

/// A change of a connection.
#[derive(Debug, Clone)]
pub struct ConnectionChange {
    /// The connection.
    pub id: ConnectionId,
    /// Its project.
    pub project: ProjectId,
    /// The generation that the caller knows.
    pub expected_generation: u64,
    /// What becomes of it.
    pub to: ChangeTo,
    /// The new operation, which supersedes the running one.
    pub operation: Operation,
    /// The event.
    pub event: NewEvent,
    /// Who.
    pub audit: Audit,
    /// The key and the answer to save under it.
    pub idempotency: Option<(IdempotencyKey, SavedAnswer)>,
    /// When.
    pub at: Timestamp,
}

/// A person's answer to an issue about a create without answer.
#[derive(Debug, Clone)]
pub struct IssueAnswered {
    /// The issue.
    pub issue: IssueId,
    /// Its project.
    pub project: ProjectId,
    /// The resource that was looked for: the second path in the issue's `about`.
    pub resource: String,
    /// What was found.
    pub answer: CreateAnswer,
    /// The event.
    pub event: NewEvent,
    /// Who.
    pub audit: Audit,
    /// The key and the answer to save under it.
    pub idempotency: Option<(IdempotencyKey, SavedAnswer)>,
}

/// What becomes of a connection.
#[derive(Debug, Clone)]
pub enum ChangeTo {
    /// Another intent; new allocations are added, what is no longer wanted is freed by the engine.
    Intent {
        /// The intent.
        intent: Box<ConnectionIntent>,
        /// What was negotiated for it.
        negotiated: Box<Negotiated>,
        /// What it takes beyond what it has.
        allocations: Vec<Allocation>,
        /// Secrets of new channels or generations.
        secrets: Vec<SealedSecret>,
    },
    /// Its deletion is wanted.
    Deletion,
}

/// One connection as stored.
#[derive(Debug, Clone)]
pub struct ConnectionRecord {
    /// Its id.
    pub id: ConnectionId,
    /// Its project.
    pub project: ProjectId,
    /// Which kind.
    pub kind: ConnectionKind,
    /// The intent.
    pub intent: ConnectionIntent,
    /// Counts changes of the intent.
    pub generation: u64,
    /// The generation that the clouds were last brought to.
    pub observed_generation: u64,
    /// What was negotiated.
    pub negotiated: Negotiated,
    /// What the engine found.
    pub status: EngineStatus,
    /// The instances that are not gone for good.
    pub instances: Vec<Instance>,
    /// The latest samples of its paths.
    pub samples: Vec<Reported>,
    /// Since when its paths' conditions have had their status, as of the last report.
    pub path_conditions: Vec<KeptCondition>,
    /// Which end each gateway that reported serves.
    pub gateway_ends: BTreeMap<GatewayId, tieline_openapi::v1::End>,
    /// The latest operation.
    pub last_operation: OperationId,
    /// When it was accepted.
    pub created_at: Timestamp,
    /// When the intent last changed.
    pub updated_at: Timestamp,
    /// When its deletion was asked for.
    pub deletion_requested_at: Option<Timestamp>,
    /// The last generation of each channel that it once had and does not want any more; only of one that is read by itself.
    pub given_up: BTreeMap<ChannelId, u32>,
}

/// A sample, and which gateway took it.
#[derive(Debug, Clone, PartialEq)]
pub struct Reported {
    /// Who reports.
    pub by: GatewayId,
    /// What.
    pub sample: PathSample,
}

/// Since when a condition has had its status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct KeptCondition {
    /// Which.
    #[serde(rename = "type")]
    pub kind: ConditionType,
    /// Its status.
    pub status: ConditionStatus,
    /// Since when.
    pub since: Timestamp,
}

/// What a gateway's report brings about beside its samples.
#[derive(Debug, Clone, Default)]
pub struct ReportEffects {
    /// Events.
    pub events: Vec<NewEvent>,
    /// Conditions of paths that have another status now.
    pub conditions: Vec<(ConnectionId, Vec<KeptCondition>)>,
}

/// What the engine found, as one document; written only when it changed.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EngineStatus {
    /// The state as of the last pass; the view computes the rest.
    pub state: Option<ConnectionState>,
    /// Why, when a person must act.
    pub reason: Option<StatusReason>,
    /// When every wanted resource was first usable.
    pub provisioned_at: Option<Timestamp>,
    /// When every channel's BGP was first Established on both sides.
    pub established_at: Option<Timestamp>,
    /// When it was first VERIFIED.
    pub verified_at: Option<Timestamp>,
    /// Since when what the clouds report has had its status.
    pub conditions: Vec<KeptCondition>,
    /// Walk-backs by channel.
    pub walk_backs: BTreeMap<String, u32>,
    /// The generation of the intent that the walk-backs are counted under: another intent starts afresh.
    pub walk_backs_generation: u64,
    /// The issues that stand because of this connection: code and title.
    pub issues: BTreeMap<String, String>,
}

/// Why a connection waits.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StatusReason {
    /// Stable code.
    pub code: String,
    /// One sentence.
    pub message: String,
    /// What to do.
    pub next_step: String,
    /// Since when.
    pub since: Timestamp,
    /// The issue that was raised.
    pub issue: Option<IssueId>,
}

/// Which connections to list, by what is stored.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ConnectionFilter {
    /// Only with this name.
    pub name: Option<String>,
    /// Only in this environment.
    pub environment: Option<String>,
    /// Only with these labels.
    pub labels: BTreeMap<String, String>,
    /// Only with an IP family.
    pub family: Option<AddressFamily>,
}

/// A join token to be written.
#[derive(Debug, Clone)]
pub struct NewJoinToken {
    /// Its id.
    pub id: JoinTokenId,
    /// The group.
    pub group: GatewayGroupId,
    /// In whose network.
    pub attach_point_id: AttachPointId,
    /// When it ends.
    pub expires_at: Timestamp,
    /// SHA-256 of its secret.
    pub hash: [u8; 32],
    /// Who issued it.
    pub audit: Audit,
    /// The key and the answer to save under it.
    pub idempotency: Option<(IdempotencyKey, SavedAnswer)>,
}

/// A gateway to be written.
#[derive(Debug, Clone)]
pub struct NewGateway {
    /// Its id.
    pub id: GatewayId,
    /// What it said of itself.
    pub request: JoinRequest,
    /// SHA-256 of its credential.
    pub credential_hash: [u8; 32],
    /// Who joined, by which right.
    pub audit: Audit,
    /// The event.
    pub event: NewEvent,
    /// When.
    pub at: Timestamp,
}

/// What a gateway's configuration is computed from.
#[derive(Debug, Clone)]
pub struct GatewayInputs {
    /// The gateway.
    pub gateway: Gateway,
    /// Rises whenever any of this changed.
    pub version: u64,
    /// The connections at its attach point that are not gone.
    pub connections: Vec<ConnectionRecord>,
    /// The gateways of all ends of these connections, itself included.
    pub gateways: Vec<Gateway>,
    /// A small number for each gateway of the installation, never used twice: addresses inside the tunnel follow from it.
    pub numbers: BTreeMap<GatewayId, u32>,
}

/// A claim on one connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// The connection.
    pub id: ConnectionId,
    /// The epoch: every later write must find it unchanged.
    pub epoch: u64,
    /// Who claimed it.
    pub owner: String,
    /// How long it lasts, from before the claim was sent.
    pub lease_ms: u64,
    /// Whether the connection was removed already, and something of it turned up in a cloud since.
    pub gone: bool,
}

/// A claimed connection.
#[derive(Debug, Clone)]
pub struct Workpiece {
    /// The connection; among its instances are its twins.
    pub record: ConnectionRecord,
    /// All its channels' configurations that are not walked back for good, of every generation.
    pub channels: Vec<NegotiatedChannel>,
    /// Its ledger, oldest first.
    pub calls: Vec<ProviderCall>,
    /// Its sealed secrets.
    pub secrets: Vec<SealedSecret>,
    /// The operation that is not final, if any.
    pub operation: Option<Operation>,
    /// Passes in a row that ended in an error.
    pub failures: u32,
    /// When something last went forward.
    pub last_progress_at: Timestamp,
    /// How it is observed between passes.
    pub watch: Watch,
    /// Accounts in which nothing may be created now.
    pub held: BTreeSet<AccountId>,
    /// The store's time.
    pub now: Timestamp,
}

/// How a connection is observed between passes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Watch {
    /// Each resource is read by itself: the connection is on its way.
    #[default]
    Each,
    /// Settled: the lists of its accounts show its resources, and passes go by what they showed last.
    List,
    /// Settled, and then a list showed something else, or not all of it. Each resource is read by itself; the lists still
    /// expect it, until something was done about it.
    Doubt,
}

/// A resource that an account's lists are expected to show.
#[derive(Debug, Clone, PartialEq)]
pub struct Expected {
    /// Whose.
    pub connection_id: ConnectionId,
    /// Its project.
    pub project: ProjectId,
    /// How the connection is observed: by lists, or in doubt.
    pub watch: Watch,
    /// As it stands in the store.
    pub instance: Instance,
}

/// What a list showed of a settled connection, where that is not what the store holds.
#[derive(Debug, Clone, PartialEq)]
pub struct Sighting {
    /// The connection.
    pub connection_id: ConnectionId,
    /// Its instances that were seen otherwise than before.
    pub instances: Vec<Instance>,
    /// Something is missing or somebody else's: each resource has to be read by itself.
    pub doubt: bool,
}

/// What is known of an account's lists, by the store's time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AccountWatch {
    /// When the last round began, successful or not.
    pub tried_ms_ago: Option<u64>,
    /// When the last sweep began.
    pub swept_ms_ago: Option<u64>,
    /// When the last complete lists were asked for, by the engine's clock.
    pub observed_at: Option<Timestamp>,
    /// Rounds in a row that were not complete.
    pub failures: u32,
    /// Resources that the last complete lists should have shown.
    pub expected: u32,
    /// Of these, how many they did not show.
    pub absent: u32,
    /// How many of them a person has said are meant to be gone.
    pub accepted: u32,
    /// Nothing is created in the account.
    pub held: bool,
}

/// A person's word that what is absent is meant to be gone.
#[derive(Debug, Clone)]
pub struct Acceptance {
    /// In which account.
    pub account_id: AccountId,
    /// The code of the issue that this resolves.
    pub code: String,
    /// Its subject.
    pub subject: String,
    /// The event.
    pub event: NewEvent,
    /// Who.
    pub audit: Audit,
    /// When.
    pub at: Timestamp,
}

/// The end of a round of lists.
#[derive(Debug, Clone)]
pub struct AccountRound {
    /// The account.
    pub account_id: AccountId,
    /// How long ago the round began, in milliseconds.
    pub began_ms_ago: u64,
    /// When its lists were asked for, by the engine's clock; none where they were not complete.
    pub observed_at: Option<Timestamp>,
    /// Whether strays were looked for.
    pub swept: bool,
    /// As [`AccountWatch::failures`], and so on.
    pub failures: u32,
    /// Resources that the lists should have shown.
    pub expected: u32,
    /// How many they did not show.
    pub absent: u32,
    /// Absences that are meant.
    pub accepted: u32,
    /// Nothing is created in the account.
    pub held: bool,
}

/// A connection with everything that a plan of it starts from, all of one moment.
#[derive(Debug, Clone)]
pub struct Standing {
    /// The connection.
    pub record: ConnectionRecord,
    /// All its channels' configurations that are not walked back for good, of every generation.
    pub channels: Vec<NegotiatedChannel>,
    /// The ledger of its instances, oldest first.
    pub calls: Vec<ProviderCall>,
}

/// One write of the engine, under its fence.
#[derive(Debug, Clone)]
pub enum EngineWrite {
    /// A new instance.
    PutInstance(Box<Instance>),
    /// What was seen, and the cloud's id.
    UpdateInstance(Box<Instance>),
    /// An instance is gone for good; its ledger rows stay.
    RetireInstance(InstanceId),
    /// The sweep found a second resource of an instance, or one of an instance that is gone: its connection, gone or not, is
    /// due at once. Written once for each resource. Belongs to no claim.
    FoundTwin {
        /// Its own id in the ledger.
        id: InstanceId,
        /// Whose twin it is.
        twin: Box<Twin>,
        /// The cloud's id.
        cloud_id: String,
    },
    /// A ledger row, before the wire.
    OpenCall {
        /// The row.
        call: Box<ProviderCall>,
        /// Which resource.
        key: ResourceKey,
        /// Through which account.
        account_id: AccountId,
        /// The resource's name, or its slot.
        name: String,
        /// The idempotency token.
        token: String,
        /// SHA-256 of the request, without secrets.
        digest: [u8; 32],
    },
    /// What became of a call.
    DecideCall {
        /// The row.
        id: ProviderCallId,
        /// The verdict.
        verdict: Verdict,
        /// When.
        at: Timestamp,
        /// The cloud's id, where it gave one.
        cloud_id: Option<String>,
        /// The cloud's request id.
        request_id: Option<String>,
    },
    /// What a person said of a create cannot be: they are asked again.
    RefuseAnswer {
        /// The call.
        id: ProviderCallId,
        /// The [`CreateAnswer::Misfit`].
        answer: CreateAnswer,
    },
    /// A channel's configuration: newly learned addresses, or a new generation after a walk-back.
    PutChannel {
        /// The configuration.
        channel: Box<NegotiatedChannel>,
        /// What the new generation takes.
        allocations: Vec<Allocation>,
        /// Its secrets.
        secrets: Vec<SealedSecret>,
    },
    /// A cloud gave other values than those that were asked for: these go into quarantine until the store's time plus this.
    GiveBack {
        /// What is not needed any more.
        allocations: Vec<Allocation>,
        /// Milliseconds of quarantine.
        quarantine_ms: u64,
    },
    /// A channel's generation is walked back: its allocations go into quarantine until the store's time plus this.
    RetireChannel {
        /// The channel.
        channel_id: ChannelId,
        /// The generation.
        generation: u32,
        /// Milliseconds of quarantine.
        quarantine_ms: u64,
    },
    /// What the engine found.
    PutStatus {
        /// The document.
        status: Box<EngineStatus>,
        /// The generation that the clouds were brought to, when they were.
        observed_generation: Option<u64>,
    },
    /// How the connection is observed from now on. An intent that changed since the claim has the last word.
    PutWatch(Watch),
    /// How far the operation is.
    PutOperation {
        /// Which.
        id: OperationId,
        /// How far.
        state: OperationState,
        /// Its stages.
        stages: Vec<Stage>,
        /// Why it failed or waits.
        problem: Option<Box<tieline_openapi::problem::Problem>>,
        /// When it ended.
        finished_at: Option<Timestamp>,
    },
    /// An event.
    Event(NewEvent),
    /// An issue, by its code and subject: raised once, updated while it stands.
    RaiseIssue {
        /// Who may see it.
        project: ProjectId,
        /// The issue.
        issue: Box<Issue>,
    },
    /// The cause of an issue is gone.
    ResolveIssue {
        /// Its code.
        code: String,
        /// Its subject.
        subject: String,
        /// When.
        at: Timestamp,
    },
    /// What lists of an account showed that others occupy of our ports and attach points: nobody is to be given it. Belongs to
    /// no claim.
    PutForeign {
        /// Which account.
        account_id: AccountId,
        /// Kinds that were listed whole: what is not among these any more is free.
        whole: BTreeSet<ResourceKind>,
        /// What was seen.
        holdings: Vec<Holding>,
    },
    /// Deleted for good: the row goes, allocations go into quarantine, operations and events and the ledger stay. What was
    /// gone already has nothing to do any more.
    Remove {
        /// Milliseconds of quarantine.
        quarantine_ms: u64,
    },
    /// The end of a pass: when the connection is due again, counted by the store from its own now. Ends the lease.
    Release {
        /// Milliseconds from now.
        due_in_ms: u64,
        /// Passes in a row that ended in an error.
        failures: u32,
        /// Whether something went forward.
        progress: bool,
    },
}

/// A lease on a shared object or a sweep.
#[derive(Debug, Clone, PartialEq)]
pub struct SharedLease {
    /// Its name.
    pub name: String,
    /// The epoch.
    pub epoch: u64,
    /// Who holds it.
    pub owner: String,
    /// How long, from before it was asked for.
    pub lease_ms: u64,
    /// What the last holder left.
    pub note: serde_json::Value,
    /// By the store's time, how long ago the last holder released it, in milliseconds; none if it ran out or was never held.
    pub released_ms_ago: Option<u64>,
}

/// What the ledger knows of an instance.
#[derive(Debug, Clone, PartialEq)]
pub struct LedgerFacts {
    /// The connection.
    pub connection_id: ConnectionId,
    /// Its project.
    pub project: ProjectId,
    /// Which resource.
    pub key: ResourceKey,
    /// The cloud's id that was recorded.
    pub cloud_id: Option<String>,
    /// Whether the instance is still wanted or on its way out under a connection.
    pub live: bool,
    /// When its first create was written.
    pub first_create_at: Option<Timestamp>,
    /// Whether a call about it is without verdict.
    pub open: bool,
    /// What the last call did.
    pub last_verb: Option<Verb>,
}

/// Bounds of what is kept.
#[derive(Debug, Clone, Copy)]
pub struct HousekeepingLimits {
    /// Milliseconds that saved answers are kept.
    pub answers_ms: u64,
    /// Events that are kept.
    pub events: u64,
    /// Milliseconds that samples are kept.
    pub samples_ms: u64,
    /// Milliseconds that rows of the audit log are kept.
    pub audit_ms: u64,
    /// Milliseconds that an instance is kept after it is gone for good, and with it its calls: what turns up in a cloud later
    /// is not known as ours any more.
    pub ledger_ms: u64,
    /// Milliseconds that operations are kept after they have ended. The last one of a living connection stays.
    pub operations_ms: u64,
    /// Milliseconds that issues are kept after they were resolved.
    pub issues_ms: u64,
    /// Rows that one call removes at most per table.
    pub rows: u32,
}

impl Default for HousekeepingLimits {
    fn default() -> Self {
        Self::of(&RetentionConfig::default())
    }
}

impl HousekeepingLimits {
    /// The bounds that `tieline.toml` sets, and those that nobody can set.
    #[must_use]
    pub fn of(retention: &RetentionConfig) -> Self {
        const DAY_MS: u64 = 24 * 3_600_000;
        let days = |days: u32| u64::from(days) * DAY_MS;
        Self {
            answers_ms: 7 * DAY_MS,
            events: retention.events,
            samples_ms: DAY_MS,
            audit_ms: days(retention.audit_days),
            ledger_ms: days(retention.ledger_days),
            operations_ms: days(retention.operation_days),
            issues_ms: days(retention.issue_days),
            rows: 1_000,
        }
    }
}
