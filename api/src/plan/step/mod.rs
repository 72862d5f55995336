//! The next step of one connection: pure. Desired state, observed state, the ledger and the time in; one step, or a wait, out.

mod act;
mod instance;
mod order;
mod picked;
mod refusal;
pub mod rehearse;
#[cfg(test)]
mod tests;
mod time;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use tieline_openapi::{
    ids::{AccountId, ChannelId, InstanceId, ProviderCallId},
    problem::ProviderDetail,
    units::Mtu,
    v1::{End, Ends, Timestamp, Verb, Wanted},
};
use tieline_providers::{
    Change, FeatureSide, IdentityKind, Learned, Observed, Presence, ResourceKey, ResourceSpec, Rules,
};

use super::negotiate::{NegotiatedChannel, Refused};

pub use act::next;
pub use refusal::{kind_name, kind_of_name};
pub use time::{earlier, millis_between, plus};

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
    /// Set where this is no instance of its own but a second resource that carries another instance's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub twin: Option<Box<Twin>>,
}

/// A resource that the sweep found under the name of an instance that is recorded as another resource, or is gone for good.
/// It is never wanted: its connection's next pass deletes it, with a ledger row as for any other call.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Twin {
    /// The instance whose name it carries.
    pub of: InstanceId,
    /// The object that it lives in, where others write that too.
    pub parent: Option<String>,
    /// What it was configured as when it was found.
    pub fields: serde_json::Value,
}

/// What was last seen of an instance.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "is", try_from = "SeenRow")]
pub enum Seen {
    /// Never looked.
    #[default]
    Never,
    /// It was there.
    Present {
        /// As seen.
        observed: Box<Observed>,
        /// The first of the looks in a row that found this resource here.
        since: Timestamp,
        /// The last of them.
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

/// [`Seen`] as it is read: of an enum that names its variant inside, serde would first copy everything. A page of connections
/// holds hundreds of them.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SeenRow {
    is: SeenKind,
    observed: Option<Box<Observed>>,
    since: Option<Timestamp>,
    at: Option<Timestamp>,
    times: Option<u32>,
    why: Option<ProviderDetail>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
enum SeenKind {
    Never,
    Present,
    Absent,
    Unknown,
}

impl TryFrom<SeenRow> for Seen {
    type Error = &'static str;

    fn try_from(row: SeenRow) -> Result<Self, Self::Error> {
        let SeenRow { is, observed, since, at, times, why } = row;
        match (is, at) {
            (SeenKind::Never, _) => Ok(Self::Never),
            (_, None) => Err("`at` is missing"),
            (SeenKind::Present, Some(at)) => {
                let observed = observed.ok_or("`observed` is missing")?;
                // An older version did not write it.
                Ok(Self::Present { observed, since: since.unwrap_or_default(), at })
            }
            (SeenKind::Absent, Some(at)) => {
                let (since, times) = since.zip(times).ok_or("`since` or `times` is missing")?;
                Ok(Self::Absent { since, at, times })
            }
            (SeenKind::Unknown, Some(at)) => Ok(Self::Unknown { at, why: why.ok_or("`why` is missing")? }),
        }
    }
}

impl ProviderCall {
    /// Whether it is a create whose fate was never answered, nor seen.
    #[must_use]
    pub fn is_unanswered_create(&self) -> bool {
        self.verb == Verb::Create && self.verdict.is_no_answer()
    }
}

impl Seen {
    /// Whether the last look showed nothing that is there: a terminal state counts as absent.
    #[must_use]
    pub fn shows_nothing(&self) -> bool {
        match self {
            Self::Absent { .. } => true,
            Self::Present { observed, .. } => observed.presence == Presence::Gone,
            Self::Never | Self::Unknown { .. } => false,
        }
    }

    /// One more look, which found this. Another resource, or a clock that was stepped back, starts the row anew.
    #[must_use]
    pub fn and_found(&self, observed: Observed, now: Timestamp) -> Self {
        let since = match self {
            Self::Present { observed: before, since, at } if before.cloud_id == observed.cloud_id && *at <= now => {
                *since
            }
            Self::Present { .. } | Self::Never | Self::Absent { .. } | Self::Unknown { .. } => now,
        };
        Self::Present { observed: Box::new(observed), since, at: now }
    }

    /// One more look in a row without finding it. A clock that was stepped back starts the row anew.
    #[must_use]
    pub fn and_not_found(&self, now: Timestamp) -> Self {
        match self {
            Self::Absent { since, at, times } if now >= *at => {
                Self::Absent { since: *since, at: now, times: times.saturating_add(1) }
            }
            Self::Absent { .. } | Self::Never | Self::Present { .. } | Self::Unknown { .. } => {
                Self::Absent { since: now, at: now, times: 1 }
            }
        }
    }
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

impl Verdict {
    /// Whether the fate of the call was never answered, nor seen.
    #[must_use]
    pub const fn is_no_answer(&self) -> bool {
        matches!(self, Self::FoundUndone | Self::Open)
    }

    /// Whether a call of this fate may yet put something into its instance's slot.
    #[must_use]
    pub fn may_take_its_slot(&self, verb: Verb, identity: IdentityKind) -> bool {
        verb == Verb::Create && identity == IdentityKind::Slot && self.is_no_answer()
    }
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
    /// What a person said of a create without answer that nothing can find again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<CreateAnswer>,
}

/// What a person said of a create without answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "is")]
pub enum CreateAnswer {
    /// It had no effect, and never will.
    NotCreated,
    /// It made this.
    #[serde(rename_all = "camelCase")]
    Created {
        /// The cloud's id.
        cloud_id: String,
    },
    /// What was named cannot be what the create made: the person is asked again.
    #[serde(rename_all = "camelCase")]
    Misfit {
        /// The cloud's id.
        cloud_id: String,
        /// Why, to follow "it".
        why: String,
    },
}

/// The specs of both sides, by channel and generation: what [`Rules::decompose`] gave.
pub type Specs = BTreeMap<(ChannelId, u32), Ends<Vec<ResourceSpec>>>;

/// The pure halves of the providers, by account.
pub trait RuleBook: Send + Sync {
    /// The rules of the cloud that this account is in; `None` where this binary does not have that cloud.
    fn rules(&self, account: &AccountId) -> Option<&dyn Rules>;

    /// Whether a side's cloud takes this MTU on the side's port.
    fn takes_mtu(&self, side: &FeatureSide, mtu: Mtu) -> bool;
}

impl RuleBook for crate::topology::Topology {
    fn rules(&self, account: &AccountId) -> Option<&dyn Rules> {
        let provider = &self.accounts.get(account)?.provider;
        self.rules.get(provider).map(AsRef::as_ref)
    }

    fn takes_mtu(&self, side: &FeatureSide, mtu: Mtu) -> bool {
        let channels = || self.interconnects.values().flat_map(|interconnect| &interconnect.channels);
        let port = channels()
            .filter(|channel| channel.id == side.channel_id)
            .flat_map(|channel| [&channel.a, &channel.b])
            .find(|port| port.port_id == side.port_id && port.account_id == side.account_id);
        let (Some(rules), Some(point), Some(port)) =
            (self.rules(&side.account_id), self.attach_points.get(&side.attach_point_id), port)
        else {
            return false;
        };
        rules.constraints(point, port).mtus.value.contains(&mtu)
    }
}

/// Everything that the step depends on.
#[derive(Clone)]
pub struct Situation<'a> {
    /// The channels that should exist, each in one generation; empty once deletion was asked for.
    pub wanted: &'a [NegotiatedChannel],
    /// All instances that are not known to be gone for good, of all channel generations.
    pub instances: &'a [Instance],
    /// Their ledger, oldest first.
    pub calls: &'a [ProviderCall],
    /// The specs of every channel generation that is not retired.
    pub specs: &'a Specs,
    /// Instances that were looked at since the last call about them, in this pass.
    pub fresh: &'a BTreeSet<InstanceId>,
    /// How often each channel was walked back under this intent.
    pub walk_backs: &'a BTreeMap<ChannelId, u32>,
    /// Accounts in which nothing may be created now: too much of what should be there is not.
    pub held: &'a BTreeSet<AccountId>,
    /// Channels that cannot go on, found outside of this function: no other configuration is left.
    pub stuck: &'a BTreeMap<ChannelId, Trouble>,
    /// Channel generations for which a cloud picked what another holds, found outside of this function.
    pub unlearnable: &'a BTreeSet<(ChannelId, u32)>,
    /// What the intent wishes: no cloud's pick takes the place of a wish.
    pub wishes: &'a Wanted,
    /// The providers' rules.
    pub rules: &'a dyn RuleBook,
    /// Now, by the engine's clock.
    pub now: Timestamp,
}

/// What is in the way, and what a person can do.
#[derive(Debug, Clone, PartialEq)]
pub struct Trouble {
    /// What it is.
    pub code: TroubleCode,
    /// On which channel.
    pub channel_id: ChannelId,
    /// With which resource, where it is about one.
    pub key: Option<ResourceKey>,
    /// Which instance of it.
    pub instance_id: Option<InstanceId>,
    /// One sentence.
    pub message: String,
    /// What to do.
    pub remediation: String,
    /// What the cloud said.
    pub detail: Option<ProviderDetail>,
}

/// Everything that stops for a person.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TroubleCode {
    /// A quota or a capacity is used up.
    Quota,
    /// The credential may not do this.
    Forbidden,
    /// The credential is missing, wrong or expired, or it is another account's.
    Unauthenticated,
    /// The cloud will never take the request as it is.
    Invalid,
    /// What the request is about is not there.
    ParentMissing,
    /// A create without answer of a kind that cannot be found again.
    BlindCreate,
    /// A field that cannot be changed on a living resource is not what it should be.
    ImmutableDrift,
    /// The resource is there and will not become usable by itself.
    ResourceFailed,
    /// The channel was walked back as often as it may be.
    WalkBacksUsedUp,
    /// Nothing else can be negotiated for the channel.
    NoAlternative,
    /// Too much is absent in the account: nothing is created in it.
    CreatesHeld,
    /// This binary does not have the cloud.
    ProviderMissing,
    /// A secret cannot be opened.
    SecretUnreadable,
}

impl TroubleCode {
    /// The stable code of the issue.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Quota => "provider-quota",
            Self::Forbidden => "provider-forbidden",
            Self::Unauthenticated => "provider-unauthenticated",
            Self::Invalid => "provider-refused",
            Self::ParentMissing => "provider-parent-missing",
            Self::BlindCreate => "create-without-answer",
            Self::ImmutableDrift => "immutable-drift",
            Self::ResourceFailed => "resource-failed",
            Self::WalkBacksUsedUp => "walk-backs-used-up",
            Self::NoAlternative => "no-alternative",
            Self::CreatesHeld => "creates-held",
            Self::ProviderMissing => "provider-missing",
            Self::SecretUnreadable => "secret-unreadable",
        }
    }
}

/// Why nothing is done now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Why {
    /// A cloud is at work on the resource.
    CloudAtWork(ResourceKey),
    /// A call is without answer, and what it did will show.
    Unanswered(ResourceKey),
    /// The resource could not be looked at.
    Unseen(ResourceKey),
    /// A refused call is tried again later.
    BackOff(ResourceKey),
    /// An absence must be seen again.
    Absence(ResourceKey),
    /// Another resource must be usable, or gone, first.
    Order(ResourceKey),
}

/// The next thing to do for one connection.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// Look at these instances, each by itself.
    Observe {
        /// Which.
        instances: Vec<InstanceId>,
    },
    /// Write a new instance of a resource.
    NewInstance {
        /// For which channel.
        channel_id: ChannelId,
        /// Of which generation of it.
        generation: u32,
        /// Which resource.
        key: ResourceKey,
        /// Through which account.
        account_id: AccountId,
    },
    /// Make it.
    Create {
        /// Which.
        instance: InstanceId,
    },
    /// Bring its mutable fields to what is wanted.
    Update {
        /// Which.
        instance: InstanceId,
        /// What differs.
        changes: Vec<Change>,
    },
    /// Ask for its end.
    Delete {
        /// Which.
        instance: InstanceId,
    },
    /// What became of a call without answer is known now.
    Resolve {
        /// Which row.
        call: ProviderCallId,
        /// What.
        verdict: Verdict,
    },
    /// A person named what a create without answer made: from now on this is looked at.
    Adopt {
        /// Of which instance.
        instance: InstanceId,
        /// The cloud's id.
        cloud_id: String,
    },
    /// What a person named is not what the create made.
    RefuseAnswer {
        /// To which call.
        call: ProviderCallId,
        /// What was named.
        cloud_id: String,
        /// Why, to follow "it".
        why: String,
    },
    /// A cloud picked values itself: they become part of the channel's configuration.
    Learn {
        /// For which channel.
        channel_id: ChannelId,
        /// Of which generation of it.
        generation: u32,
        /// Which end's cloud picked.
        end: End,
        /// What it picked; only what differs from the configuration.
        picked: Learned,
    },
    /// Negotiate the channel anew, without what was refused, as its next generation.
    WalkBack {
        /// Which.
        channel_id: ChannelId,
        /// The generation that is given up.
        generation: u32,
        /// What was refused.
        refused: Refused,
        /// Why, in the cloud's words.
        detail: Option<ProviderDetail>,
    },
    /// The instance is gone for good.
    RetireInstance {
        /// Which.
        instance: InstanceId,
    },
    /// Nothing of this generation is left: what it holds goes into quarantine.
    RetireChannel {
        /// Which channel.
        channel_id: ChannelId,
        /// Which generation.
        generation: u32,
    },
    /// A person must look.
    Escalate {
        /// At what.
        troubles: Vec<Trouble>,
        /// When to look again.
        until: Timestamp,
    },
    /// Nothing can be done before.
    Wait {
        /// When to look again.
        until: Timestamp,
        /// For what.
        why: Why,
    },
    /// Both clouds hold exactly what is wanted.
    Settled,
    /// Nothing is wanted, and nothing is left.
    Gone,
}

impl Instance {
    /// What was last seen, if it is there and this instance: by its owner, else by the cloud's id that was recorded.
    #[must_use]
    pub fn present(&self) -> Option<&Observed> {
        match &self.seen {
            Seen::Present { observed, .. } if observed.presence != Presence::Gone && self.owns(observed) => {
                Some(observed)
            }
            Seen::Present { .. } | Seen::Never | Seen::Absent { .. } | Seen::Unknown { .. } => None,
        }
    }

    /// What stands in this instance's place and is somebody else's.
    #[must_use]
    pub fn foreign(&self) -> Option<&Observed> {
        match &self.seen {
            Seen::Present { observed, .. } if observed.presence != Presence::Gone && !self.owns(observed) => {
                Some(observed)
            }
            Seen::Present { .. } | Seen::Never | Seen::Absent { .. } | Seen::Unknown { .. } => None,
        }
    }

    /// The instance that stands in its name or tags.
    #[must_use]
    pub fn named(&self) -> InstanceId {
        self.twin.as_ref().map_or(self.id, |twin| twin.of)
    }

    fn owns(&self, observed: &Observed) -> bool {
        match observed.owner {
            Some(owner) => owner.instance == self.named(),
            // What does not say whose it is was never found as a twin.
            None => self.twin.is_none() && self.cloud_id.as_deref() == Some(observed.cloud_id.as_str()),
        }
    }
}
