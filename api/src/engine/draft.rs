//! A claimed connection in memory, for one pass: what was loaded, and what the pass has found and done since.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use tieline_openapi::{
    ids::{AccountId, ChannelId, InstanceId},
    problem::ProviderDetail,
    v1::{Operation, Timestamp},
};
use tieline_providers::ResourceSpec;

use super::clock::Clock;
use crate::{
    plan::{
        negotiate::NegotiatedChannel,
        step::{
            Instance, ProviderCall, RuleBook, Seen, Situation, Specs, Trouble, plus,
            rehearse::{bare_spec, specs_of},
        },
    },
    store::{Claim, ConnectionRecord, EngineWrite, SealedSecret, Watch, Workpiece},
};

/// The time of one pass: the store's as it was when the connection was loaded, and on from there by the monotonic clock. All
/// replicas go by it, so whatever their own clocks say, a wait is as long as it is meant to be.
#[derive(Clone, Copy)]
pub(super) struct PassTime {
    at: Timestamp,
    /// The monotonic clock after the load: the time is rather early than late, so that no wait is cut short.
    since: Duration,
}

impl PassTime {
    pub(super) fn now(self, clock: &dyn Clock) -> Timestamp {
        let passed = clock.monotonic().saturating_sub(self.since);
        plus(self.at, u64::try_from(passed.as_millis()).unwrap_or(u64::MAX))
    }
}

/// A claimed connection.
pub(super) struct Draft {
    pub claim: Claim,
    /// The monotonic clock before the claim was sent: the lease is counted from here.
    pub claimed_at: Duration,
    /// What time it is for this pass.
    pub time: PassTime,
    pub record: ConnectionRecord,
    /// Every channel generation that is not retired.
    pub channels: Vec<NegotiatedChannel>,
    /// Of these, what should exist.
    pub wanted: Vec<NegotiatedChannel>,
    pub specs: Specs,
    pub instances: Vec<Instance>,
    /// As they stand in the store.
    stored: BTreeMap<InstanceId, Instance>,
    pub calls: Vec<ProviderCall>,
    pub secrets: Vec<SealedSecret>,
    pub operation: Option<Operation>,
    pub failures: u32,
    /// How it was observed up to now.
    pub watch: Watch,
    /// Accounts in which nothing may be created.
    pub held: BTreeSet<AccountId>,
    /// Looked at since the last call about them.
    pub fresh: BTreeSet<InstanceId>,
    pub stuck: BTreeMap<ChannelId, Trouble>,
    /// Channel generations for which a cloud picked what another holds.
    pub unlearnable: BTreeSet<(ChannelId, u32)>,
    pub walk_backs: BTreeMap<ChannelId, u32>,
    /// What clouds last answered instead of what was asked for, in this pass.
    pub errors: BTreeMap<InstanceId, ProviderDetail>,
    /// Accounts whose own identity was found to be the recorded one, in this pass.
    pub confirmed: BTreeSet<AccountId>,
    /// Something was brought forward.
    pub progressed: bool,
}

impl Draft {
    /// Whether a create that was never answered may yet take the slot of an instance, though another made what is recorded.
    pub(super) fn may_take_its_slot(&self, instance: &Instance) -> bool {
        let mut calls = self.calls.iter().filter(|call| call.instance_id == instance.id);
        instance.twin.is_none() && calls.any(|call| call.verdict.may_take_its_slot(call.verb, call.identity))
    }

    pub(super) fn new(
        claim: Claim,
        claimed_at: Duration,
        work: Workpiece,
        loaded_at: Duration,
        rules: &dyn RuleBook,
    ) -> Self {
        let Workpiece {
            mut record,
            channels,
            calls,
            secrets,
            operation,
            failures,
            last_progress_at: _,
            watch,
            held,
            now,
        } = work;
        let instances = std::mem::take(&mut record.instances);
        let stored = instances.iter().map(|i| (i.id, i.clone())).collect();
        let walk_backs = if record.status.walk_backs_generation == record.generation {
            let walked = record.status.walk_backs.iter();
            walked.filter_map(|(id, n)| Some((ChannelId::try_from(id.clone()).ok()?, *n))).collect()
        } else {
            BTreeMap::new()
        };
        let mut draft = Self {
            claim,
            claimed_at,
            time: PassTime { at: now, since: loaded_at },
            record,
            channels,
            wanted: Vec::new(),
            specs: BTreeMap::new(),
            instances,
            stored,
            calls,
            secrets,
            operation,
            failures,
            watch,
            held,
            fresh: BTreeSet::new(),
            stuck: BTreeMap::new(),
            unlearnable: BTreeSet::new(),
            walk_backs,
            errors: BTreeMap::new(),
            confirmed: BTreeSet::new(),
            progressed: false,
        };
        // The ledger outlives instances; what is retired has no part in the next step.
        draft.calls.retain(|call| draft.stored.contains_key(&call.instance_id));
        draft.settle_channels(rules);
        draft
    }

    /// Computes what follows from the channels: which are wanted, and what each needs.
    pub(super) fn settle_channels(&mut self, rules: &dyn RuleBook) {
        self.wanted.clear();
        if self.record.deletion_requested_at.is_none() {
            for wanted in &self.record.negotiated.channels {
                let newest =
                    self.channels.iter().filter(|c| c.channel_id == wanted.channel_id).max_by_key(|c| c.generation);
                self.wanted.extend(newest.cloned());
            }
        }
        self.specs = self.channels.iter().map(|c| ((c.channel_id.clone(), c.generation), specs_of(c, rules))).collect();
    }

    pub(super) fn situation<'a>(&'a self, rules: &'a dyn RuleBook, now: Timestamp) -> Situation<'a> {
        Situation {
            wanted: &self.wanted,
            instances: &self.instances,
            calls: &self.calls,
            specs: &self.specs,
            fresh: &self.fresh,
            walk_backs: &self.walk_backs,
            held: &self.held,
            stuck: &self.stuck,
            unlearnable: &self.unlearnable,
            wishes: &self.record.intent.wanted,
            rules,
            now,
        }
    }

    pub(super) fn instance(&self, id: InstanceId) -> Option<&Instance> {
        self.instances.iter().find(|i| i.id == id)
    }

    pub(super) fn instance_mut(&mut self, id: InstanceId) -> Option<&mut Instance> {
        self.instances.iter_mut().find(|i| i.id == id)
    }

    /// Says which resource an instance is, or that nobody knows; what was seen of it before says nothing any more.
    pub(super) fn name(&mut self, id: InstanceId, cloud_id: Option<String>) {
        self.fresh.remove(&id);
        if let Some(instance) = self.instance_mut(id) {
            instance.cloud_id = cloud_id;
            instance.seen = Seen::Never;
        }
    }

    /// What is wanted of an instance; for what this version cannot decompose any more, enough to delete it.
    pub(super) fn spec(&self, instance: &Instance) -> ResourceSpec {
        if let Some(twin) = &instance.twin {
            let (shared_parent, fields) = (twin.parent.clone(), twin.fields.clone());
            return ResourceSpec { shared_parent, fields, ..bare_spec(&instance.key) };
        }
        self.specs
            .get(&(instance.channel_id.clone(), instance.channel_generation))
            .and_then(|ends| ends.get(instance.key.end).iter().find(|spec| spec.key == instance.key))
            .cloned()
            .unwrap_or_else(|| bare_spec(&instance.key))
    }

    /// Writes of everything that was seen and is not in the store yet. A look that saw the same again is not written.
    pub(super) fn sightings(&mut self, lag_ms: u64) -> Vec<EngineWrite> {
        let mut writes = Vec::new();
        for instance in &self.instances {
            if self.stored.get(&instance.id).is_none_or(|stored| differs(stored, instance, lag_ms)) {
                writes.push(EngineWrite::UpdateInstance(Box::new(instance.clone())));
            }
        }
        writes
    }

    /// The store holds what this draft holds.
    pub(super) fn mark_stored(&mut self) {
        self.stored = self.instances.iter().map(|i| (i.id, i.clone())).collect();
    }

    /// Whether the sweep found something that is to be deleted.
    pub(super) fn has_twins(&self) -> bool {
        self.instances.iter().any(|i| i.twin.is_some())
    }

    pub(super) fn path(&self) -> String {
        format!("/v1/connections/{}", self.record.id)
    }
}

/// Whether two states of an instance differ in more than the time of the last look.
fn differs(stored: &Instance, now: &Instance, lag_ms: u64) -> bool {
    if stored.cloud_id != now.cloud_id {
        return true;
    }
    match (&stored.seen, &now.seen) {
        (Seen::Never, Seen::Never) => false,
        (Seen::Present { observed: a, since: x, .. }, Seen::Present { observed: b, since: y, .. }) => a != b || x != y,
        (Seen::Unknown { why: a, .. }, Seen::Unknown { why: b, .. }) => (&a.name, &a.code) != (&b.name, &b.code),
        (Seen::Absent { since: a, .. }, Seen::Absent { since: b, .. }) => {
            a != b || confirmed(&stored.seen, lag_ms) != confirmed(&now.seen, lag_ms)
        }
        (Seen::Never | Seen::Present { .. } | Seen::Absent { .. } | Seen::Unknown { .. }, _) => true,
    }
}

fn confirmed(seen: &Seen, lag_ms: u64) -> bool {
    match seen {
        Seen::Absent { since, at, times } => *times >= 2 && crate::plan::step::millis_between(*since, *at) >= lag_ms,
        Seen::Never | Seen::Present { .. } | Seen::Unknown { .. } => false,
    }
}
