//! The next step of one connection: pure. Desired state, observed state, the ledger and the time in; one step, or a wait, out.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tieline_openapi::{
    ids::{AccountId, ChannelId, InstanceId, ProviderCallId},
    problem::ProviderDetail,
    v1::{Ends, Timestamp, Verb},
};
use tieline_providers::{IdentityKind, Observed, ResourceKey};

use super::negotiate::NegotiatedChannel;

/// One instance of a wanted resource, as the store has it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Instance {
    /// In names and tags.
    pub id: InstanceId,
    /// For which channel.
    pub channel_id: ChannelId,
    /// Of which generation of the channel.
    pub channel_generation: u32,
    /// Which resource.
    pub key: ResourceKey,
    /// Through which account.
    pub account_id: AccountId,
    /// The cloud's id, once a create was answered or found again.
    pub cloud_id: Option<String>,
    /// What was last seen of it.
    pub seen: Seen,
}

/// What was last seen of an instance.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "is")]
pub enum Seen {
    /// Never looked.
    #[default]
    Never,
    /// It was there.
    Present {
        /// As seen.
        observed: Box<Observed>,
        /// When.
        at: Timestamp,
    },
    /// It was not there, in a complete and successful look under the right account.
    Absent {
        /// The first of the looks in a row.
        since: Timestamp,
        /// The last of them.
        at: Timestamp,
        /// How many in a row.
        times: u32,
    },
    /// It could not be looked at.
    Unknown {
        /// When.
        at: Timestamp,
        /// Why.
        why: ProviderDetail,
    },
}

/// What became of a provider call.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "is")]
pub enum Verdict {
    /// Sent, or about to be; nothing is known.
    Open,
    /// The cloud took it.
    Accepted,
    /// The cloud refused it: no effect.
    Refused {
        /// A [`tieline_providers::CallErrorKind`] by name.
        kind: String,
        /// What the cloud said.
        detail: ProviderDetail,
    },
    /// No answer; later observation showed that it had its effect.
    FoundDone,
    /// No answer; later observation, after every lag, showed that it had none.
    FoundUndone,
}

/// One ledger row.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProviderCall {
    /// The row.
    pub id: ProviderCallId,
    /// About which instance.
    pub instance_id: InstanceId,
    /// What it does.
    pub verb: Verb,
    /// How a lost create is found again.
    pub identity: IdentityKind,
    /// When it was written, before the wire.
    pub written_at: Timestamp,
    /// When the call is over at the latest.
    pub deadline: Timestamp,
    /// What became of it.
    pub verdict: Verdict,
    /// When the verdict came.
    pub decided_at: Option<Timestamp>,
}

/// Everything that the step depends on.
#[derive(Debug, Clone)]
pub struct Situation<'a> {
    /// The channels that should exist; empty once deletion was asked for.
    pub wanted: &'a [NegotiatedChannel],
    /// All instances that are not known to be gone for good, of all channel generations.
    pub instances: &'a [Instance],
    /// Their ledger, oldest first.
    pub calls: &'a [ProviderCall],
    /// The specs of every (channel, generation, end): what decompose gave.
    pub specs: &'a BTreeMap<(ChannelId, u32), Ends<Vec<tieline_providers::ResourceSpec>>>,
    /// Now, by the engine's clock.
    pub now: Timestamp,
}
