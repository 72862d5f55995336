//! The step of a whole connection: every instance says what it needs, the order of resources says what may be done now.

use std::collections::{BTreeMap, BTreeSet};

use tieline_openapi::{
    config::EngineConfig,
    ids::{ChannelId, InstanceId},
    v1::{End, Timestamp},
};
use tieline_providers::{Presence, ResourceKey, ResourceSpec};

use super::{
    Instance, NegotiatedChannel, ProviderCall, Situation, Step, Trouble, TroubleCode, Why,
    instance::{Case, Need},
    order,
    time::{earlier, plus},
};

/// The next step. Deterministic and total: same input, same output, for any input.
#[must_use]
pub fn next(situation: &Situation<'_>, config: &EngineConfig) -> Step {
    let cases = cases(situation, config);
    let stale: Vec<_> = cases
        .iter()
        .filter(|case| case.is_looked_at() && !situation.fresh.contains(&case.instance.id))
        .map(|case| case.instance.id)
        .collect();
    if !stale.is_empty() {
        return Step::Observe { instances: stale };
    }
    let mut idle = Idle::default();
    for case in &cases {
        if let Some(step) = idle.consider(situation, config, &cases, case) {
            return step;
        }
    }
    for channel in situation.wanted {
        if let Some(step) = idle.grow(situation, config, &cases, channel) {
            return step;
        }
    }
    if let Some(step) = retire_channel(situation) {
        return step;
    }
    idle.finish(situation)
}

fn cases<'a>(situation: &'a Situation<'a>, config: &'a EngineConfig) -> Vec<Case<'a>> {
    let mut calls: BTreeMap<InstanceId, Vec<&ProviderCall>> = BTreeMap::new();
    for call in situation.calls {
        calls.entry(call.instance_id).or_default().push(call);
    }
    let mut taken: BTreeSet<(&ChannelId, &ResourceKey)> = BTreeSet::new();
    let mut cases: Vec<_> = situation
        .instances
        .iter()
        .map(|instance| {
            let wanted = wanted_for(situation, instance);
            Case { instance, calls: calls.remove(&instance.id).unwrap_or_default(), wanted, situation, config }
        })
        .collect();
    cases.sort_by(|a, b| rank(a.instance).cmp(&rank(b.instance)));
    for case in &mut cases {
        // A resource has one instance. A second one, whatever made it, goes.
        if case.wanted.is_some() && !case.doomed() && !taken.insert((&case.instance.channel_id, &case.instance.key)) {
            case.wanted = None;
        }
    }
    cases
}

fn rank(instance: &Instance) -> (&ChannelId, u32, &ResourceKey, InstanceId) {
    (&instance.channel_id, instance.channel_generation, &instance.key, instance.id)
}

fn wanted_for<'a>(
    situation: &'a Situation<'a>,
    instance: &Instance,
) -> Option<(&'a NegotiatedChannel, &'a ResourceSpec)> {
    if instance.twin.is_some() {
        return None;
    }
    let channel = situation
        .wanted
        .iter()
        .find(|c| c.channel_id == instance.channel_id && c.generation == instance.channel_generation)?;
    Some((channel, order::spec_of(situation.specs, instance)?))
}

/// What there is to say if nothing can be done.
#[derive(Default)]
struct Idle {
    troubles: Vec<Trouble>,
    until: Option<Timestamp>,
    why: Option<Why>,
}

impl Idle {
    fn wait(&mut self, until: Timestamp, why: Why) {
        if self.until.is_none_or(|earliest| until < earliest) || self.why.is_none() {
            self.why = Some(why);
        }
        self.sooner(until);
    }

    fn trouble(&mut self, trouble: Trouble, until: Timestamp) {
        self.troubles.push(trouble);
        self.sooner(until);
    }

    fn sooner(&mut self, until: Timestamp) {
        self.until = Some(self.until.map_or(until, |earliest| earlier(earliest, until)));
    }

    fn consider(
        &mut self,
        situation: &Situation<'_>,
        config: &EngineConfig,
        cases: &[Case<'_>],
        case: &Case<'_>,
    ) -> Option<Step> {
        let poll = plus(situation.now, config.poll_ms);
        match case.need() {
            Need::Act(step) => return Some(step),
            Need::Create => match may_create(situation, cases, case) {
                Gate::Open => return Some(Step::Create { instance: case.instance.id }),
                Gate::After(key) => self.wait(poll, Why::Order(key)),
                Gate::Trouble(trouble) => self.trouble(trouble, poll),
            },
            Need::Delete => match order::blocks_delete(situation.specs, cases, case) {
                None => return Some(Step::Delete { instance: case.instance.id }),
                Some(key) => self.wait(poll, Why::Order(key.clone())),
            },
            Need::Wait(until, why) => self.wait(until, why),
            Need::Trouble(trouble, until) => self.trouble(trouble, until),
            Need::Nothing => {}
        }
        None
    }

    /// New instances of what a wanted channel has none of.
    fn grow(
        &mut self,
        situation: &Situation<'_>,
        config: &EngineConfig,
        cases: &[Case<'_>],
        channel: &NegotiatedChannel,
    ) -> Option<Step> {
        let poll = plus(situation.now, config.poll_ms);
        let specs = situation.specs.get(&(channel.channel_id.clone(), channel.generation))?;
        for spec in End::BOTH.into_iter().flat_map(|end| specs.get(end)) {
            let of_this = |case: &&Case<'_>| {
                case.instance.channel_id == channel.channel_id && case.instance.key == spec.key && !case.doomed()
            };
            if cases.iter().any(|case| of_this(&case)) {
                continue;
            }
            match gate(situation, cases, channel, spec) {
                Gate::Open => {
                    return Some(Step::NewInstance {
                        channel_id: channel.channel_id.clone(),
                        generation: channel.generation,
                        key: spec.key.clone(),
                        account_id: channel.sides.get(spec.key.end).account_id.clone(),
                    });
                }
                Gate::After(key) => self.wait(poll, Why::Order(key)),
                Gate::Trouble(trouble) => self.trouble(trouble, poll),
            }
        }
        None
    }

    fn finish(self, situation: &Situation<'_>) -> Step {
        match (self.troubles.is_empty(), self.until, self.why) {
            (false, until, _) => Step::Escalate { troubles: self.troubles, until: until.unwrap_or(situation.now) },
            (true, Some(until), Some(why)) => Step::Wait { until, why },
            (true, _, _) if situation.wanted.is_empty() => Step::Gone,
            (true, _, _) => Step::Settled,
        }
    }
}

enum Gate {
    Open,
    After(ResourceKey),
    Trouble(Trouble),
}

fn may_create(situation: &Situation<'_>, cases: &[Case<'_>], case: &Case<'_>) -> Gate {
    match case.wanted {
        Some((channel, spec)) => gate(situation, cases, channel, spec),
        None => Gate::After(case.instance.key.clone()),
    }
}

/// Whether a resource may be made now.
fn gate(situation: &Situation<'_>, cases: &[Case<'_>], channel: &NegotiatedChannel, spec: &ResourceSpec) -> Gate {
    // A twin goes by itself, and nothing waits for it.
    let own = cases.iter().filter(|c| c.instance.twin.is_none());
    let on_channel = || own.clone().filter(|c| c.instance.channel_id == channel.channel_id);
    // What is walked back goes first, whole: two generations of a channel never live side by side.
    if let Some(old) = on_channel().find(|c| c.doomed() && (c.instance.key == spec.key || c.wanted.is_none())) {
        return Gate::After(old.instance.key.clone());
    }
    for key in &spec.after {
        let usable = on_channel().any(|c| {
            c.instance.key == *key
                && !c.doomed()
                && c.instance.present().is_some_and(|observed| observed.presence == Presence::Usable)
        });
        if !usable {
            return Gate::After(key.clone());
        }
    }
    if !spec.ready {
        return Gate::After(spec.key.clone());
    }
    if let Some(trouble) = situation.stuck.get(&channel.channel_id) {
        return Gate::Trouble(trouble.clone());
    }
    let account = &channel.sides.get(spec.key.end).account_id;
    if situation.held.contains(account) {
        return Gate::Trouble(Trouble {
            code: TroubleCode::CreatesHeld,
            channel_id: channel.channel_id.clone(),
            key: Some(spec.key.clone()),
            instance_id: None,
            message: format!("much of what should be in account {account} is not there: nothing is created in it"),
            remediation: "see the issue of the account: check that its credential and region are the right ones, or \
                acknowledge the issue if what is missing is meant to be gone"
                .to_owned(),
            detail: None,
        });
    }
    Gate::Open
}

fn retire_channel(situation: &Situation<'_>) -> Option<Step> {
    let left = |channel: &ChannelId, generation: u32| {
        situation.instances.iter().any(|i| i.channel_id == *channel && i.channel_generation == generation)
    };
    let wanted = |channel: &ChannelId, generation: u32| {
        situation.wanted.iter().any(|c| c.channel_id == *channel && c.generation == generation)
    };
    let (channel_id, generation) = situation
        .specs
        .keys()
        .find(|(channel, generation)| !wanted(channel, *generation) && !left(channel, *generation))?;
    Some(Step::RetireChannel { channel_id: channel_id.clone(), generation: *generation })
}
