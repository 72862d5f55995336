//! Runs the step function against clouds that do at once what they are asked: what an undisturbed run would do.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::Ipv4Net;
use serde_json::Value;
use tieline_openapi::{
    config::EngineConfig,
    ids::{AccountId, ChannelId, InstanceId, ProviderCallId},
    v1::{BgpState, End, Ends, Middle, Timestamp, Verb, Wanted},
};
use tieline_providers::{Addressing, Change, Ipv4Pair, Learned, Observed, Presence, ResourceKey, ResourceSpec};
use uuid::Uuid;

use super::{
    Instance, NegotiatedChannel, ProviderCall, RuleBook, Seen, Situation, Specs, Step, Trouble, Verdict, next, order,
    plus,
};

/// One provider call of an undisturbed run.
#[derive(Debug, Clone, PartialEq)]
pub struct PlannedCall {
    /// For which channel.
    pub channel_id: ChannelId,
    /// Of which generation of it.
    pub generation: u32,
    /// Through which account.
    pub account_id: AccountId,
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

/// Where a rehearsal comes to its end.
#[derive(Debug, Clone, PartialEq)]
pub enum Reached {
    /// Both clouds hold exactly what is wanted; or nothing, where nothing is wanted.
    Goal,
    /// A person must look at these first.
    Person(Vec<Trouble>),
    /// Something else is in the way, which only the clouds can tell: a slot that somebody else holds.
    Clouds,
}

/// What an undisturbed run would do.
#[derive(Debug, Clone, PartialEq)]
pub struct Rehearsal {
    /// The calls, in order.
    pub calls: Vec<PlannedCall>,
    /// How far they lead.
    pub reached: Reached,
}

/// What both sides of a channel need.
#[must_use]
pub fn specs_of(channel: &NegotiatedChannel, rules: &dyn RuleBook) -> Ends<Vec<ResourceSpec>> {
    channel.sides.map(|_, side| rules.rules(&side.account_id).map(|rules| rules.decompose(side)).unwrap_or_default())
}

/// The channel's configuration with the addresses that one end's cloud picked. The other end takes them where it awaited
/// them; behind a router in the middle it has its own.
#[must_use]
pub fn addressed(channel: &NegotiatedChannel, end: End, ipv4: Ipv4Pair) -> NegotiatedChannel {
    let mut channel = channel.clone();
    channel.sides.get_mut(end).ipv4 = Addressing::Fixed(ipv4);
    let other = channel.sides.get_mut(end.other());
    if matches!(other.ipv4, Addressing::Awaited(_)) {
        other.ipv4 = Addressing::Fixed(ipv4.flipped());
    }
    if !channel.reserved_subnets.iter().any(|net| net.contains(&ipv4.subnet)) {
        channel.reserved_subnets = vec![ipv4.subnet];
    }
    channel
}

/// The channel's configuration with all that one end's cloud picked. The other end takes the addresses as
/// [`addressed`] says, the VLAN where nothing between the ends translates it, and the MTU.
#[must_use]
pub fn learned(channel: &NegotiatedChannel, end: End, picked: &Learned, middle: Middle) -> NegotiatedChannel {
    let mut channel = picked.ipv4.map_or_else(|| channel.clone(), |ipv4| addressed(channel, end, ipv4));
    if let Some(vlan) = picked.vlan {
        channel.sides.get_mut(end).vlan = vlan;
        if middle != Middle::L2 {
            channel.sides.get_mut(end.other()).vlan = vlan;
        }
    }
    if let Some(mtu) = picked.mtu {
        for end in End::BOTH {
            channel.sides.get_mut(end).mtu = mtu;
        }
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
    /// The instances that are not gone for good.
    pub instances: &'a [Instance],
    /// Their ledger, oldest first.
    pub calls: &'a [ProviderCall],
    /// What the intent wishes.
    pub wishes: &'a Wanted,
    /// What stands between the ports.
    pub middle: Middle,
    /// The providers' rules.
    pub rules: &'a dyn RuleBook,
    /// Now.
    pub now: Timestamp,
}

/// The calls that bring both clouds from `start` to what is wanted, in order. Calls on their way are taken to have their
/// effect, and what a cloud is still at work on to become usable: what is left to be asked for is the plan.
#[must_use]
pub fn rehearse(start: &Start<'_>, config: &EngineConfig) -> Rehearsal {
    let mut stage = Stage::new(start, config);
    let no_walks = BTreeMap::new();
    let (no_holds, not_stuck, not_taken) = (BTreeSet::new(), BTreeMap::new(), BTreeSet::new());
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
            unlearnable: &not_taken,
            wishes: start.wishes,
            rules: start.rules,
            now: stage.now,
        };
        let step = next(&situation, config);
        if let Some(reached) = stage.take(step) {
            return Rehearsal { calls: stage.planned, reached };
        }
    }
    Rehearsal { calls: stage.planned, reached: Reached::Clouds }
}

struct Stage<'a> {
    rules: &'a dyn RuleBook,
    middle: Middle,
    wanted: Vec<NegotiatedChannel>,
    /// Every channel generation, the wanted ones as they are wanted.
    channels: BTreeMap<(ChannelId, u32), NegotiatedChannel>,
    instances: Vec<Instance>,
    calls: Vec<ProviderCall>,
    specs: Specs,
    now: Timestamp,
    planned: Vec<PlannedCall>,
    /// The instance of each planned call, as it was when the call was made.
    acted: Vec<Instance>,
    drawn: u128,
    /// What awaited addresses when the rehearsal began.
    awaiting: BTreeSet<(ChannelId, u32, ResourceKey)>,
    /// Resources whose clouds picked addresses.
    taught: BTreeSet<(ChannelId, u32, ResourceKey)>,
}

/// What became of an instance, as far as its ledger and the last look tell.
enum Fate {
    /// It is there, or will be without another call.
    There,
    /// It is gone, or will be without another call.
    Gone,
    /// It was asked to go, and has to be asked again.
    ToGo,
    /// It was never made.
    Unmade,
    /// Somebody else's thing is in its place.
    Foreign,
}

impl<'a> Stage<'a> {
    fn new(start: &Start<'a>, config: &EngineConfig) -> Self {
        let (mut specs, mut channels): (Specs, _) = (BTreeMap::new(), BTreeMap::new());
        for channel in start.channels.iter().chain(start.wanted) {
            let at = (channel.channel_id.clone(), channel.generation);
            specs.insert(at.clone(), specs_of(channel, start.rules));
            channels.insert(at, channel.clone());
        }
        let waits = |(id, generation): &(ChannelId, u32), ends: &Ends<Vec<ResourceSpec>>| {
            let unready = ends.a.iter().chain(&ends.b).filter(|spec| !spec.ready);
            unready.map(|spec| (id.clone(), *generation, spec.key.clone())).collect::<Vec<_>>()
        };
        let awaiting = specs.iter().flat_map(|(at, ends)| waits(at, ends)).collect();
        let mut stage = Self {
            rules: start.rules,
            middle: start.middle,
            wanted: start.wanted.to_vec(),
            channels,
            instances: Vec::new(),
            calls: Vec::new(),
            specs,
            now: start.now,
            planned: Vec::new(),
            acted: Vec::new(),
            drawn: 0,
            awaiting,
            taught: BTreeSet::new(),
        };
        for instance in start.instances {
            let calls: Vec<_> = start.calls.iter().filter(|call| call.instance_id == instance.id).collect();
            stage.admit(instance, &fate(instance, &calls, config));
        }
        stage
    }

    /// Takes an instance onto the stage, with as much of a ledger as still matters.
    fn admit(&mut self, instance: &Instance, fate: &Fate) {
        let mut instance = instance.clone();
        let long_gone = Seen::Absent { since: Timestamp::UNIX_EPOCH, at: self.now, times: 2 };
        match fate {
            Fate::Foreign => {}
            Fate::Unmade => instance.seen = Seen::Never,
            Fate::Gone => {
                self.record(instance.id, Verb::Create, Verdict::Accepted);
                instance.seen = long_gone;
            }
            Fate::There | Fate::ToGo => {
                self.record(instance.id, Verb::Create, Verdict::Accepted);
                if matches!(fate, Fate::ToGo) {
                    self.record(instance.id, Verb::Delete, Verdict::FoundUndone);
                }
                let mut observed = instance.present().cloned().unwrap_or_else(|| self.made(&instance));
                observed.presence = Presence::Usable;
                instance.cloud_id = Some(observed.cloud_id.clone());
                instance.seen = instance.seen.and_found(observed, self.now);
            }
        }
        self.instances.push(instance);
    }

    fn bound(&self) -> usize {
        let resources: usize = self.specs.values().map(|ends| ends.a.len() + ends.b.len()).sum();
        (resources + self.instances.len() + 1) * 16
    }

    fn draw(&mut self) -> Uuid {
        self.drawn += 1;
        Uuid::from_u128(self.drawn)
    }

    /// A ledger row of long ago.
    fn record(&mut self, instance: InstanceId, verb: Verb, verdict: Verdict) {
        let id = ProviderCallId(self.draw());
        self.calls.push(ProviderCall {
            id,
            instance_id: instance,
            verb,
            identity: tieline_providers::IdentityKind::Named,
            written_at: Timestamp::UNIX_EPOCH,
            deadline: Timestamp::UNIX_EPOCH,
            verdict,
            decided_at: Some(Timestamp::UNIX_EPOCH),
            answer: None,
        });
    }

    /// Does a step; tells what is reached at the end.
    fn take(&mut self, step: Step) -> Option<Reached> {
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
            // What does not show once it was asked for is not asked for again and again.
            Step::Update { instance, changes } if self.has_planned(instance, &changes) => return Some(Reached::Clouds),
            Step::Update { instance, changes } => self.update(instance, changes),
            Step::Delete { instance } => self.delete(instance),
            Step::RetireInstance { instance } => {
                self.instances.retain(|i| i.id != instance);
                self.calls.retain(|call| call.instance_id != instance);
            }
            Step::RetireChannel { channel_id, generation } => {
                self.specs.remove(&(channel_id, generation));
            }
            Step::Learn { channel_id, generation, end, picked } => self.learn(&channel_id, generation, end, &picked),
            Step::Wait { until, .. } if until > self.now => self.now = until,
            Step::Settled | Step::Gone => return Some(Reached::Goal),
            Step::Escalate { troubles, .. } => return Some(Reached::Person(troubles)),
            Step::Observe { .. }
            | Step::Adopt { .. }
            | Step::RefuseAnswer { .. }
            | Step::Resolve { .. }
            | Step::WalkBack { .. }
            | Step::Wait { .. } => return Some(Reached::Clouds),
        }
        None
    }

    fn learn(&mut self, channel_id: &ChannelId, generation: u32, end: End, picked: &Learned) {
        let teachers = self.instances.iter().filter(|i| {
            i.channel_id == *channel_id
                && i.channel_generation == generation
                && i.key.end == end
                && picked.ipv4.is_some()
                && i.present().is_some_and(|observed| observed.learned.ipv4 == picked.ipv4)
        });
        self.taught.extend(teachers.map(|i| (channel_id.clone(), generation, i.key.clone())));
        for channel in &mut self.wanted {
            if channel.channel_id == *channel_id && channel.generation == generation {
                *channel = learned(channel, end, picked, self.middle);
                let at = (channel_id.clone(), generation);
                self.specs.insert(at.clone(), specs_of(channel, self.rules));
                self.channels.insert(at, channel.clone());
            }
        }
    }

    fn has_planned(&self, instance: InstanceId, changes: &[Change]) -> bool {
        self.planned.iter().zip(&self.acted).any(|(call, of)| of.id == instance && call.changes == changes)
    }

    fn create(&mut self, id: InstanceId) {
        let Some((instance, spec)) = self.find(id) else { return };
        let observed = self.made(&instance);
        let after = self.before_create(&instance, &spec);
        self.plan(&instance, Verb::Create, spec, Vec::new(), after);
        self.record(id, Verb::Create, Verdict::Accepted);
        self.show(id, observed);
    }

    fn update(&mut self, id: InstanceId, changes: Vec<Change>) {
        let Some((instance, spec)) = self.find(id) else { return };
        let Some(mut observed) = instance.present().cloned() else { return };
        for change in &changes {
            set(&mut observed.fields, &change.pointer, change.wanted.clone());
        }
        self.plan(&instance, Verb::Update, spec, changes, Vec::new());
        self.record(id, Verb::Update, Verdict::Accepted);
        self.show(id, observed);
    }

    fn delete(&mut self, id: InstanceId) {
        let Some((instance, spec)) = self.find(id) else { return };
        let after = (0..self.planned.len())
            .filter(|n| {
                let (planned, other) = (&self.planned[*n], &self.acted[*n]);
                planned.verb == Verb::Delete
                    && planned.channel_id == instance.channel_id
                    && planned.generation == instance.channel_generation
                    && order::depends(&self.specs, other, &instance)
            })
            .collect();
        self.plan(&instance, Verb::Delete, spec, Vec::new(), after);
        self.record(id, Verb::Delete, Verdict::Accepted);
        if let Some(found) = self.instances.iter_mut().find(|i| i.id == id) {
            found.seen = Seen::Absent { since: Timestamp::UNIX_EPOCH, at: self.now, times: 2 };
        }
    }

    fn find(&self, id: InstanceId) -> Option<(Instance, ResourceSpec)> {
        let instance = self.instances.iter().find(|i| i.id == id)?.clone();
        let spec = order::spec_of(&self.specs, &instance).cloned().unwrap_or_else(|| bare_spec(&instance.key));
        Some((instance, spec))
    }

    /// What a create waits for: what its spec names; where it awaits addresses, whatever its clouds pick them with; and
    /// everything of what it takes the place of.
    fn before_create(&self, instance: &Instance, spec: &ResourceSpec) -> Vec<usize> {
        let at = |key: &ResourceKey| (instance.channel_id.clone(), instance.channel_generation, key.clone());
        let awaited = self.awaiting.contains(&at(&instance.key));
        let before = |planned: &PlannedCall| match planned.verb {
            Verb::Update => false,
            Verb::Delete => planned.generation != instance.channel_generation || planned.key == instance.key,
            Verb::Create => {
                planned.generation == instance.channel_generation
                    && (spec.after.contains(&planned.key) || (awaited && self.taught.contains(&at(&planned.key))))
            }
        };
        let same = |planned: &PlannedCall| planned.channel_id == instance.channel_id;
        (0..self.planned.len()).filter(|n| same(&self.planned[*n]) && before(&self.planned[*n])).collect()
    }

    fn plan(&mut self, of: &Instance, verb: Verb, spec: ResourceSpec, changes: Vec<Change>, after: Vec<usize>) {
        self.planned.push(PlannedCall {
            channel_id: of.channel_id.clone(),
            generation: of.channel_generation,
            account_id: of.account_id.clone(),
            verb,
            key: of.key.clone(),
            spec,
            changes,
            after,
        });
        self.acted.push(of.clone());
    }

    fn show(&mut self, id: InstanceId, observed: Observed) {
        let at = self.now;
        if let Some(found) = self.instances.iter_mut().find(|i| i.id == id) {
            found.cloud_id = Some(observed.cloud_id.clone());
            found.seen = found.seen.and_found(observed, at);
        }
    }

    /// An instance as its cloud shows it once it is made: with the addresses that the cloud picks, where it picks them.
    fn made(&self, instance: &Instance) -> Observed {
        let at = (instance.channel_id.clone(), instance.channel_generation);
        let mut spec = order::spec_of(&self.specs, instance).cloned();
        let mut picked = None;
        if let Some(channel) = self.channels.get(&at)
            && let Addressing::CloudPicks(subnets) = &channel.sides.get(instance.key.end).ipv4
            && let Some(ipv4) = subnets.iter().find_map(|subnet| picks(*subnet).next())
        {
            let taught = specs_of(&addressed(channel, instance.key.end, ipv4), self.rules);
            spec = taught.get(instance.key.end).iter().find(|spec| spec.key == instance.key).cloned();
            picked = Some(ipv4);
        }
        Observed {
            kind: instance.key.kind.clone(),
            cloud_id: instance.cloud_id.clone().unwrap_or_else(|| instance.id.to_string()),
            owner: Some(tieline_providers::OwnerTag { installation: 0, instance: instance.id }),
            provider_state: String::new(),
            presence: Presence::Usable,
            bgp: Some(BgpState::Unknown),
            bfd: None,
            learned: Learned { ipv4: picked, ..Learned::default() },
            fields: spec.map_or(Value::Null, |spec| spec.fields),
            created_at: None,
        }
    }
}

/// The addresses that a cloud may pick out of a candidate: the first two hosts, in either order.
pub fn picks(subnet: Ipv4Net) -> impl Iterator<Item = Ipv4Pair> {
    let mut hosts = subnet.hosts();
    let pair = hosts.next().zip(hosts.next()).map(|(host, peer)| Ipv4Pair { subnet, host, peer });
    pair.into_iter().flat_map(|pair| [pair, pair.flipped()])
}

fn fate(instance: &Instance, calls: &[&ProviderCall], config: &EngineConfig) -> Fate {
    if instance.foreign().is_some() {
        return Fate::Foreign;
    }
    let last = |verb: Verb| {
        let of_verb = calls.iter().rev().filter(move |call| call.verb == verb);
        of_verb.copied().find(|call| !matches!(call.verdict, Verdict::Refused { .. }))
    };
    match last(Verb::Delete).map(|call| &call.verdict) {
        Some(Verdict::Open | Verdict::Accepted | Verdict::FoundDone) => return Fate::Gone,
        Some(Verdict::FoundUndone) if instance.present().is_some() => return Fate::ToGo,
        Some(Verdict::FoundUndone | Verdict::Refused { .. }) | None => {}
    }
    let leaving = instance.present().is_some_and(|observed| observed.presence == Presence::Leaving);
    if instance.present().is_some() {
        return if leaving { Fate::Gone } else { Fate::There };
    }
    let Some(create) = last(Verb::Create) else { return Fate::Unmade };
    match (&create.verdict, &instance.seen) {
        (Verdict::FoundUndone | Verdict::Refused { .. }, _) => Fate::Unmade,
        (Verdict::Open, _) | (_, Seen::Never | Seen::Unknown { .. }) => Fate::There,
        // What was made a moment before the last look may not have shown yet.
        (Verdict::Accepted | Verdict::FoundDone, Seen::Absent { at, .. }) => {
            let visible = plus(create.decided_at.unwrap_or(create.written_at), config.visibility_lag_ms);
            if *at < visible { Fate::There } else { Fate::Gone }
        }
        (Verdict::Accepted | Verdict::FoundDone, Seen::Present { .. }) => Fate::Gone,
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
