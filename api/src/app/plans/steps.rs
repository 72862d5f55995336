//! The provider calls between two sets of channels, in an order that the resources' own dependencies allow: pure.

use std::collections::BTreeSet;

use ipnet::Ipv4Net;
use serde_json::{Value, json};
use tieline_openapi::{
    ids::{ChannelId, ProviderName},
    v1::{Disruption, End, Ends, PlanField, PlanStep, Verb},
};
use tieline_providers::{Addressing, Ipv4Pair, Observed, Presence, ResourceKey, ResourceSpec, Rules};

use crate::{plan::negotiate::NegotiatedChannel, topology::Topology};

/// A call before it is numbered.
#[derive(Clone)]
struct Call {
    channel_id: ChannelId,
    generation: u32,
    key: ResourceKey,
    provider: ProviderName,
    verb: Verb,
    disruption: Disruption,
    fields: Vec<PlanField>,
    /// Calls of the same channel generation and verb that must have ended before.
    after: Vec<ResourceKey>,
}

/// The calls that lead from the one set of channels to the other.
pub(super) fn between(topology: &Topology, before: &[NegotiatedChannel], after: &[NegotiatedChannel]) -> Vec<PlanStep> {
    let (mut removed, mut made, mut changed) = (Vec::new(), Vec::new(), Vec::new());
    let same = |one: &NegotiatedChannel, other: &NegotiatedChannel| {
        one.channel_id == other.channel_id && one.generation == other.generation
    };
    // Taking the last channel away ends the private path; traffic leaves a single one for the others in seconds.
    let disruption = if after.is_empty() { Disruption::Outage } else { Disruption::Brief };
    let gone = |create: &Call| removal(create, disruption);
    for channel in after {
        match before.iter().find(|old| same(old, channel)) {
            None => made.extend(creates(topology, channel)),
            Some(old) => {
                let (updates, anew) = differences(topology, old, channel);
                changed.extend(updates);
                removed.extend(anew.iter().map(gone));
                made.extend(anew);
            }
        }
    }
    for channel in before.iter().filter(|old| !after.iter().any(|new| same(old, new))) {
        removed.extend(creates(topology, channel).iter().map(gone));
    }
    turn_round(&mut removed);
    // What is taken away goes first: what comes may need its slot.
    number([order(removed), order(changed), order(made)].concat())
}

fn rules<'a>(
    topology: &'a Topology,
    channel: &NegotiatedChannel,
    end: End,
) -> Option<(&'a ProviderName, &'a dyn Rules)> {
    let account = topology.accounts.get(&channel.sides.get(end).account_id)?;
    Some((&account.provider, topology.rules.get(&account.provider)?.as_ref()))
}

/// What one side's resources will be. Where a cloud picks the addresses, the specs that wait for them are shown for every
/// choice that it has.
fn specs(rules: &dyn Rules, channel: &NegotiatedChannel, end: End) -> Vec<(ResourceSpec, Vec<ResourceSpec>)> {
    let side = channel.sides.get(end);
    let variants: Vec<Vec<ResourceSpec>> = pairs(&side.ipv4)
        .into_iter()
        .map(|pair| {
            let mut fixed = side.clone();
            fixed.ipv4 = Addressing::Fixed(pair);
            rules.decompose(&fixed)
        })
        .collect();
    let raw = rules.decompose(side);
    raw.into_iter()
        .map(|spec| {
            if spec.ready {
                return (spec, Vec::new());
            }
            let of_key = |specs: &Vec<ResourceSpec>| specs.iter().find(|other| other.key == spec.key).cloned();
            let choices = variants.iter().filter_map(of_key).collect();
            (spec, choices)
        })
        .collect()
}

/// Every pair of addresses that the cloud may pick.
fn pairs(addressing: &Addressing) -> Vec<Ipv4Pair> {
    let candidates: &[Ipv4Net] = match addressing {
        Addressing::Fixed(_) => &[],
        Addressing::CloudPicks(candidates) | Addressing::Awaited(candidates) => candidates,
    };
    let of_subnet = |subnet: &Ipv4Net| {
        let mut hosts = subnet.hosts();
        let pair = Ipv4Pair { subnet: *subnet, host: hosts.next()?, peer: hosts.next()? };
        Some([pair, pair.flipped()])
    };
    candidates.iter().filter_map(of_subnet).flatten().collect()
}

fn creates(topology: &Topology, channel: &NegotiatedChannel) -> Vec<Call> {
    let all: Ends<Vec<_>> = channel
        .sides
        .map(|end, _| rules(topology, channel, end).map(|(_, rules)| specs(rules, channel, end)).unwrap_or_default());
    let picker = End::BOTH.into_iter().find(|end| matches!(channel.sides.get(*end).ipv4, Addressing::CloudPicks(_)));
    let told: Vec<ResourceKey> = picker
        .map(|end| all.get(end).iter().filter(|(spec, _)| spec.ready).map(|(spec, _)| spec.key.clone()).collect())
        .unwrap_or_default();
    let mut calls = Vec::new();
    for end in End::BOTH {
        let Some((provider, _)) = rules(topology, channel, end) else { continue };
        for (spec, choices) in all.get(end) {
            let mut after = spec.after.clone();
            if !spec.ready {
                after.extend(told.iter().filter(|key| **key != spec.key).cloned());
            }
            calls.push(Call {
                channel_id: channel.channel_id.clone(),
                generation: channel.generation,
                key: spec.key.clone(),
                provider: provider.clone(),
                verb: Verb::Create,
                disruption: Disruption::None,
                fields: created_fields(spec, choices),
                after,
            });
        }
    }
    calls
}

fn created_fields(spec: &ResourceSpec, choices: &[ResourceSpec]) -> Vec<PlanField> {
    let shown = choices.first().unwrap_or(spec);
    let mut pointers = Vec::new();
    leaves("", &shown.fields, &mut pointers);
    let plain = |pointer: String, after: Option<Value>, sensitive: bool| PlanField {
        pointer,
        before: None,
        after,
        rule: None,
        sensitive,
    };
    let mut fields: Vec<PlanField> = pointers
        .into_iter()
        .map(|pointer| {
            let mut values: Vec<Value> = Vec::new();
            for choice in choices.iter().chain(choices.is_empty().then_some(spec)) {
                let value = choice.fields.pointer(&pointer).cloned().unwrap_or(Value::Null);
                if !values.contains(&value) {
                    values.push(value);
                }
            }
            let after = if values.len() == 1 { values.pop() } else { Some(json!({"oneOf": values})) };
            plain(pointer, after, false)
        })
        .collect();
    fields.extend(spec.secrets.iter().map(|name| plain(format!("/{name}"), None, true)));
    fields
}

fn leaves(pointer: &str, value: &Value, out: &mut Vec<String>) {
    match value {
        Value::Object(members) if !members.is_empty() => {
            for (key, member) in members {
                leaves(&format!("{pointer}/{}", crate::app::intent::escape(key)), member, out);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) | Value::Object(_) => {
            out.push(pointer.to_owned());
        }
    }
}

/// Calls that change living resources, and creates of those that must be made anew.
fn differences(topology: &Topology, old: &NegotiatedChannel, new: &NegotiatedChannel) -> (Vec<Call>, Vec<Call>) {
    let (mut updates, mut anew) = (Vec::new(), Vec::new());
    for call in creates(topology, new) {
        let Some((_, rules)) = rules(topology, new, call.key.end) else { continue };
        let spec_of = |channel: &NegotiatedChannel| {
            rules.decompose(channel.sides.get(call.key.end)).into_iter().find(|spec| spec.key == call.key)
        };
        let (Some(was), Some(is)) = (spec_of(old), spec_of(new)) else {
            anew.push(call);
            continue;
        };
        let changes = rules.diff(&is, &as_observed(&was));
        if changes.iter().any(|change| change.immutable) {
            anew.push(call);
        } else if !changes.is_empty() {
            let fields = changes.into_iter().map(|change| PlanField {
                pointer: change.pointer,
                before: Some(change.observed),
                after: Some(change.wanted),
                rule: None,
                sensitive: false,
            });
            updates.push(Call { verb: Verb::Update, disruption: Disruption::Brief, fields: fields.collect(), ..call });
        }
    }
    (updates, anew)
}

fn as_observed(spec: &ResourceSpec) -> Observed {
    Observed {
        kind: spec.key.kind.clone(),
        cloud_id: String::new(),
        owner: None,
        provider_state: String::new(),
        presence: Presence::Usable,
        bgp: None,
        bfd: None,
        learned: tieline_providers::Learned::default(),
        fields: spec.fields.clone(),
        created_at: None,
    }
}

fn removal(create: &Call, disruption: Disruption) -> Call {
    Call { verb: Verb::Delete, disruption, fields: Vec::new(), ..create.clone() }
}

/// Deletes go the other way round: what came after something goes before it.
fn turn_round(calls: &mut [Call]) {
    let edges: Vec<(ChannelId, u32, ResourceKey, ResourceKey)> = calls
        .iter()
        .flat_map(|call| {
            call.after
                .iter()
                .map(|earlier| (call.channel_id.clone(), call.generation, earlier.clone(), call.key.clone()))
        })
        .collect();
    for call in calls {
        let later = edges.iter().filter(|(channel, generation, earlier, _)| {
            *channel == call.channel_id && *generation == call.generation && *earlier == call.key
        });
        call.after = later.map(|(_, _, _, later)| later.clone()).collect();
    }
}

/// Stable topological order. An edge to something that is not in the list is met already.
fn order(calls: Vec<Call>) -> Vec<Call> {
    let is_before = |call: &Call, key: &ResourceKey, other: &Call| {
        other.channel_id == call.channel_id && other.generation == call.generation && other.key == *key
    };
    let (mut left, mut ordered) = (calls, Vec::<Call>::new());
    while !left.is_empty() {
        let free = left
            .iter()
            .position(|call| call.after.iter().all(|key| !left.iter().any(|other| is_before(call, key, other))));
        // Adapters declare no circles; were there one, its calls come in the order in which they were declared.
        ordered.push(left.remove(free.unwrap_or(0)));
    }
    ordered
}

fn number(calls: Vec<Call>) -> Vec<PlanStep> {
    let numbered = |wanted: &Call, key: &ResourceKey| {
        calls.iter().position(|call| {
            call.channel_id == wanted.channel_id
                && call.generation == wanted.generation
                && call.verb == wanted.verb
                && call.key == *key
        })
    };
    calls
        .iter()
        .enumerate()
        .map(|(n, call)| {
            let after: BTreeSet<u32> =
                call.after.iter().filter_map(|key| numbered(call, key)).map(|at| at as u32 + 1).collect();
            PlanStep {
                n: n as u32 + 1,
                after: after.into_iter().collect(),
                end: call.key.end,
                provider: call.provider.clone(),
                channel_id: call.channel_id.clone(),
                verb: call.verb,
                resource_type: call.key.kind.as_str().to_owned(),
                disruption: call.disruption,
                fields: call.fields.clone(),
            }
        })
        .collect()
}
