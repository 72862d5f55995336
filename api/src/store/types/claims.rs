//! Claims, and what is written under them.

use std::collections::BTreeSet;

use tieline_openapi::{
    ids::{AccountId, ChannelId, ConnectionId, InstanceId, ProjectId, ProviderCallId},
    v1::{Issue, Operation, Timestamp},
};
use tieline_providers::{ResourceKey, ResourceKind};

use super::{Allocation, ConnectionRecord, EngineStatus, Holding, NewEvent, SealedSecret, Watch};
use crate::plan::{
    negotiate::NegotiatedChannel,
    step::{CreateAnswer, Instance, ProviderCall, Twin, Verdict},
};

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
    /// How far the operation is; what is final stays as it is.
    PutOperation(Box<Operation>),
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
