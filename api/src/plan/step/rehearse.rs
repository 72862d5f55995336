//! Runs the step function against clouds that do at once what they are asked: what an undisturbed run would do.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::Ipv4Net;
use serde_json::Value;
use tieline_openapi::{
    config::EngineConfig,
    ids::{ChannelId, InstanceId, ProviderCallId},
    v1::{BgpState, End, Ends, Timestamp, Verb},
};
use tieline_providers::{Addressing, Change, Ipv4Pair, Learned, Observed, Presence, ResourceKey, ResourceSpec};
use uuid::Uuid;

use super::{
    Instance, NegotiatedChannel, ProviderCall, RuleBook, Seen, Situation, Specs, Step, Verdict, next, order, plus,
};

/// One provider call of an undisturbed run.
#[derive(Debug, Clone, PartialEq)]
pub struct PlannedCall {
    /// For which channel.
    pub channel_id: ChannelId,
    /// Of which generation of it.
    pub generation: u32,
    /// What it does.
    pub verb: Verb,
    /// To which resource.
    pub key: ResourceKey,
    /// What is wanted of it; of a deletion, what it was. Addresses that a cloud picks stand in it as the first candidate.
    pub spec: ResourceSpec,
    /// What an update changes.
    pub changes: Vec<Change>,
    /// Positions in the list of the calls that must have ended before.
    pub after: Vec<usize>,
}

/// What both sides of a channel need.
#[must_use]
pub fn specs_of(channel: &NegotiatedChannel, rules: &dyn RuleBook) -> Ends<Vec<ResourceSpec>> {
    channel.sides.map(|_, side| rules.rules(&side.account_id).map(|rules| rules.decompose(side)).unwrap_or_default())
}

/// The channel's configuration with the addresses that one end's cloud picked. The other end takes them where it awaited
/// them; behind a router in the middle it has its own.
#[must_use]
pub fn learned(channel: &NegotiatedChannel, end: End, ipv4: Ipv4Pair) -> NegotiatedChannel {
    let mut channel = channel.clone();
    channel.sides.get_mut(end).ipv4 = Addressing::Fixed(ipv4);
    let other = channel.sides.get_mut(end.other());
    if matches!(other.ipv4, Addressing::Awaited(_)) {
        other.ipv4 = Addressing::Fixed(ipv4.flipped());
    }
    channel
}

/// What is known of a connection before a rehearsal.
#[derive(Clone)]
pub struct Start<'a> {
    /// The channels that should exist, each in one generation.
    pub wanted: &'a [NegotiatedChannel],
    /// Every channel generation that is not retired, the wanted ones or not.
    pub channels: &'a [NegotiatedChannel],
    /// What exists.
    pub instances: &'a [Instance],
    /// The providers' rules.
    pub rules: &'a dyn RuleBook,
    /// Now.
    pub now: Timestamp,
}

/// The calls that bring both clouds from `start` to what is wanted, in order.
#[must_use]
pub fn rehearse(start: &Start<'_>, config: &EngineConfig) -> Vec<PlannedCall> {
    let mut stage = Stage::new(start);
    let no_walks = BTreeMap::new();
    let (no_holds, not_stuck) = (BTreeSet::new(), BTreeMap::new());
    // Every resource takes a handful of steps; the bound only guards against rules that contradict themselves.
    for _ in 0..stage.bound() {
        let fresh: BTreeSet<_> = stage.instances.iter().map(|i| i.id).collect();
        let situation = Situation {
            wanted: &stage.wanted,
            instances: &stage.instances,
            calls: &stage.calls,
            specs: &stage.specs,
            fresh: &fresh,
            walk_backs: &no_walks,
            held: &no_holds,
            stuck: &not_stuck,
            rules: start.rules,
            now: stage.now,
        };
        let step = next(&situation, config);
        if !stage.take(step, start.rules, config) {
            break;
        }
    }
    stage.planned
}

struct Stage {
    wanted: Vec<NegotiatedChannel>,
    instances: Vec<Instance>,
    calls: Vec<ProviderCall>,
    specs: Specs,
    now: Timestamp,
    planned: Vec<PlannedCall>,
    drawn: u128,
    /// Resources whose clouds picked addresses.
    taught: BTreeSet<(ChannelId, ResourceKey)>,
}

impl Stage {
    fn new(start: &Start<'_>) -> Self {
        let mut specs: Specs = BTreeMap::new();
        for channel in start.channels.iter().chain(start.wanted) {
            specs.insert((channel.channel_id.clone(), channel.generation), specs_of(channel, start.rules));
        }
        let mut stage = Self {
            wanted: start.wanted.to_vec(),
            instances: Vec::new(),
            calls: Vec::new(),
            specs,
            now: start.now,
            planned: Vec::new(),
            drawn: 0,
            taught: BTreeSet::new(),
        };
        // What was never seen is not there; what was, is there without any call that still matters.
        for instance in start.instances.iter().filter(|i| i.present().is_some()) {
            let mut instance = instance.clone();
            if let Seen::Present { observed, .. } = &mut instance.seen {
                observed.presence = Presence::Usable;
            }
            stage.record(&instance, Verb::Create);
            stage.instances.push(instance);
        }
        stage
    }

    fn bound(&self) -> usize {
        let resources: usize = self.specs.values().map(|ends| ends.a.len() + ends.b.len()).sum();
        (resources + self.instances.len() + 1) * 16
    }

    fn draw(&mut self) -> Uuid {
        self.drawn += 1;
        Uuid::from_u128(self.drawn)
    }

    fn record(&mut self, instance: &Instance, verb: Verb) {
        let id = ProviderCallId(self.draw());
        self.calls.push(ProviderCall {
            id,
            instance_id: instance.id,
            verb,
            identity: tieline_providers::IdentityKind::Named,
            written_at: self.now,
            deadline: self.now,
            verdict: Verdict::Accepted,
            decided_at: Some(self.now),
        });
    }

    /// Does a step; false at the end.
    fn take(&mut self, step: Step, rules: &dyn RuleBook, config: &EngineConfig) -> bool {
        match step {
            Step::NewInstance { channel_id, generation, key, account_id } => {
                let id = InstanceId(self.draw());
                let seen = Seen::Never;
                let channel_generation = generation;
                self.instances.push(Instance {
                    id,
                    channel_id,
                    channel_generation,
                    key,
                    account_id,
                    cloud_id: None,
                    seen,
                    twin: None,
                });
            }
            Step::Create { instance } => self.create(instance),
            Step::Update { instance, changes } => self.update(instance, changes),
            Step::Delete { instance } => self.delete(instance, config),
            Step::RetireInstance { instance } => self.instances.retain(|i| i.id != instance),
            Step::RetireChannel { channel_id, generation } => {
                self.specs.remove(&(channel_id, generation));
            }
            Step::Learn { channel_id, generation, end, ipv4 } => {
                let picked = |i: &&Instance| i.present().is_some_and(|observed| observed.learned.ipv4 == Some(ipv4));
                let picking = self.instances.iter().filter(|i| i.channel_id == channel_id && i.key.end == end);
                self.taught.extend(picking.filter(picked).map(|i| (channel_id.clone(), i.key.clone())));
                for channel in &mut self.wanted {
                    if channel.channel_id == channel_id && channel.generation == generation {
                        *channel = learned(channel, end, ipv4);
                        self.specs.insert((channel_id.clone(), generation), specs_of(channel, rules));
                    }
                }
            }
            Step::Wait { until, .. } if until > self.now => self.now = until,
            Step::Observe { .. }
            | Step::Resolve { .. }
            | Step::WalkBack { .. }
            | Step::Escalate { .. }
            | Step::Wait { .. }
            | Step::Settled
            | Step::Gone => return false,
        }
        true
    }

    fn create(&mut self, id: InstanceId) {
        let Some((instance, spec)) = self.find(id) else { return };
        let side = self
            .wanted
            .iter()
            .find(|c| c.channel_id == instance.channel_id)
            .map(|c| c.sides.get(instance.key.end).ipv4.clone());
        let ipv4 = match &side {
            Some(Addressing::CloudPicks(subnets)) => subnets.first().copied().and_then(pick),
            Some(Addressing::Fixed(_) | Addressing::Awaited(_)) | None => None,
        };
        let observed = shown(&instance, spec.fields.clone(), Learned { ipv4, ..Learned::default() });
        let after = self.positions(&instance, |key| spec.after.contains(key));
        self.plan(&instance, Verb::Create, spec, Vec::new(), after);
        self.record(&instance, Verb::Create);
        self.show(id, observed);
    }

    fn update(&mut self, id: InstanceId, changes: Vec<Change>) {
        let Some((instance, spec)) = self.find(id) else { return };
        let learned = instance.present().map(|o| o.learned).unwrap_or_default();
        let mut fields = instance.present().map_or(Value::Null, |o| o.fields.clone());
        for change in &changes {
            set(&mut fields, &change.pointer, change.wanted.clone());
        }
        let observed = shown(&instance, fields, learned);
        self.plan(&instance, Verb::Update, spec, changes, Vec::new());
        self.record(&instance, Verb::Update);
        self.show(id, observed);
    }

    fn delete(&mut self, id: InstanceId, config: &EngineConfig) {
        let Some((instance, spec)) = self.find(id) else { return };
        let after = (0..self.planned.len())
            .filter(|n| self.planned[*n].verb == Verb::Delete && self.planned[*n].channel_id == instance.channel_id)
            .filter(|n| {
                let other = &self.planned[*n];
                other.key.end != instance.key.end || other.spec.after.contains(&instance.key)
            })
            .collect();
        self.plan(&instance, Verb::Delete, spec, Vec::new(), after);
        self.record(&instance, Verb::Delete);
        let at = plus(self.now, config.visibility_lag_ms);
        if let Some(found) = self.instances.iter_mut().find(|i| i.id == id) {
            found.seen = Seen::Absent { since: self.now, at, times: 2 };
        }
    }

    fn find(&self, id: InstanceId) -> Option<(Instance, ResourceSpec)> {
        let instance = self.instances.iter().find(|i| i.id == id)?.clone();
        let spec = order::spec_of(&self.specs, &instance).cloned().unwrap_or_else(|| bare_spec(&instance.key));
        Some((instance, spec))
    }

    fn positions(&self, instance: &Instance, wanted: impl Fn(&ResourceKey) -> bool) -> Vec<usize> {
        let of = |planned: &PlannedCall| {
            planned.channel_id == instance.channel_id
                && planned.verb == Verb::Create
                && (wanted(&planned.key)
                    || (planned.key.end != instance.key.end
                        && self.taught.contains(&(planned.channel_id.clone(), planned.key.clone()))))
        };
        (0..self.planned.len()).filter(|n| of(&self.planned[*n])).collect()
    }

    fn plan(&mut self, of: &Instance, verb: Verb, spec: ResourceSpec, changes: Vec<Change>, after: Vec<usize>) {
        self.planned.push(PlannedCall {
            channel_id: of.channel_id.clone(),
            generation: of.channel_generation,
            verb,
            key: of.key.clone(),
            spec,
            changes,
            after,
        });
    }

    fn show(&mut self, id: InstanceId, observed: Observed) {
        let at = self.now;
        if let Some(found) = self.instances.iter_mut().find(|i| i.id == id) {
            found.cloud_id = Some(observed.cloud_id.clone());
            found.seen = Seen::Present { observed: Box::new(observed), at };
        }
    }
}

fn shown(instance: &Instance, fields: Value, learned: Learned) -> Observed {
    Observed {
        kind: instance.key.kind.clone(),
        cloud_id: instance.cloud_id.clone().unwrap_or_else(|| instance.id.to_string()),
        owner: Some(tieline_providers::OwnerTag { installation: 0, instance: instance.id }),
        provider_state: String::new(),
        presence: Presence::Usable,
        bgp: Some(BgpState::Unknown),
        bfd: None,
        learned,
        fields,
        created_at: None,
    }
}

/// A spec for what this version cannot decompose any more: enough to look at it and to delete it.
#[must_use]
pub fn bare_spec(key: &ResourceKey) -> ResourceSpec {
    ResourceSpec {
        key: key.clone(),
        after: Vec::new(),
        ready: false,
        shared_parent: None,
        slot: None,
        fields: Value::Object(serde_json::Map::new()),
        immutable: Vec::new(),
        secrets: Vec::new(),
    }
}

/// What a cloud would pick out of a candidate: the first two hosts.
fn pick(subnet: Ipv4Net) -> Option<Ipv4Pair> {
    let mut hosts = subnet.hosts();
    Some(Ipv4Pair { subnet, host: hosts.next()?, peer: hosts.next()? })
}

fn set(fields: &mut Value, pointer: &str, to: Value) {
    if let Some(place) = fields.pointer_mut(pointer) {
        *place = to;
        return;
    }
    let Some((parent, name)) = pointer.rsplit_once('/') else { return };
    if let Some(Value::Object(map)) = fields.pointer_mut(parent) {
        map.insert(name.replace("~1", "/").replace("~0", "~"), to);
    }
}
