//! The steps of a plan: the engine's own run, rehearsed, in the words of the contract.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use tieline_openapi::{
    ids::ChannelId,
    v1::{ConnectionIntent, Disruption, End, Finding, Middle, PlanField, PlanStep, Severity, Timestamp, Verb},
};
use tieline_providers::{Addressing, Agreed, ResourceSpec, Rules};

use crate::{
    app::intent::escape,
    plan::{
        negotiate::{Negotiated, NegotiatedChannel},
        step::{
            RuleBook, Trouble,
            rehearse::{PlannedCall, Reached, Start, addressed, picks, rehearse, specs_of},
        },
    },
    store::{ConnectionRecord, Standing},
    topology::Topology,
};

/// A plan ends before its goal.
pub(super) const INCOMPLETE: &str = "plan-incomplete";

/// What an undisturbed run does, and what would stop it.
pub(super) struct Run {
    pub(super) steps: Vec<PlanStep>,
    pub(super) findings: Vec<Finding>,
}

/// Where a run leads.
pub(super) struct Goal<'a> {
    /// What is intended.
    pub(super) intent: &'a ConnectionIntent,
    /// The channels that should exist.
    pub(super) channels: &'a [NegotiatedChannel],
    /// What stands between their ports.
    pub(super) middle: Middle,
}

impl<'a> Goal<'a> {
    /// What was negotiated.
    pub(super) fn of(intent: &'a ConnectionIntent, negotiated: &'a Negotiated) -> Self {
        Self { intent, channels: &negotiated.channels, middle: negotiated.middle }
    }

    /// Nothing.
    pub(super) fn nothing(record: &'a ConnectionRecord) -> Self {
        Self { channels: &[], ..Self::of(&record.intent, &record.negotiated) }
    }
}

/// Rehearses the run from what stands to what is wanted; without anything that stands, from nothing.
pub(super) fn run(topology: &Topology, standing: Option<&Standing>, wanted: &Goal<'_>, now: Timestamp) -> Run {
    let Goal { intent, channels: wanted, middle } = *wanted;
    let start = Start {
        wanted,
        channels: standing.map_or(&[], |s| &s.channels),
        instances: standing.map_or(&[], |s| &s.record.instances),
        calls: standing.map_or(&[], |s| &s.calls),
        wishes: &intent.wanted,
        middle,
        rules: topology,
        now,
    };
    let rehearsal = rehearse(&start, &topology.engine);
    let carrying = standing.map_or_else(BTreeSet::new, |standing| {
        standing.record.negotiated.channels.iter().map(generation).collect::<BTreeSet<_>>()
    });
    let leaving: BTreeSet<_> = rehearsal
        .calls
        .iter()
        .filter(|call| call.verb == Verb::Delete)
        .map(|call| (&call.channel_id, call.generation))
        .collect();
    let told = Told { topology, wanted, carrying, leaving };
    let steps = rehearsal.calls.iter().enumerate().filter_map(|(n, call)| told.step(n, call)).collect();
    Run { steps, findings: findings(&rehearsal.reached) }
}

fn generation(channel: &NegotiatedChannel) -> (&ChannelId, u32) {
    (&channel.channel_id, channel.generation)
}

/// Why a plan with a peer ends before its goal.
pub(super) fn unforeseen() -> Finding {
    Finding {
        severity: Severity::Warning,
        code: INCOMPLETE.to_owned(),
        pointer: String::new(),
        message: "what is known of the peer and of our routers does not tell how it goes on after these steps"
            .to_owned(),
        rule: "a plan goes as far as the last look at the peer tells".to_owned(),
        source: "Tieline".to_owned(),
        resolve: "look at the connection's stateReason, and plan again when it has changed".to_owned(),
    }
}

fn findings(reached: &Reached) -> Vec<Finding> {
    let stops = |trouble: &Trouble| Finding {
        severity: Severity::Warning,
        code: trouble.code.as_str().to_owned(),
        pointer: String::new(),
        message: trouble.message.clone(),
        rule: "the run stops here until a person has acted; further steps follow then".to_owned(),
        source: format!("channel {}", trouble.channel_id),
        resolve: trouble.remediation.clone(),
    };
    match reached {
        Reached::Goal => Vec::new(),
        Reached::Person(troubles) => troubles.iter().map(stops).collect(),
        Reached::Clouds => vec![Finding {
            severity: Severity::Warning,
            code: INCOMPLETE.to_owned(),
            pointer: String::new(),
            message: "what a cloud shows now does not tell how the run goes on after these steps".to_owned(),
            rule: "a plan goes as far as the last look at the clouds tells".to_owned(),
            source: "Tieline".to_owned(),
            resolve: "look at the connection's stateReason, and plan again when it has changed".to_owned(),
        }],
    }
}

/// What the steps are told with.
struct Told<'a> {
    topology: &'a Topology,
    wanted: &'a [NegotiatedChannel],
    /// The channel generations that carry the traffic now.
    carrying: BTreeSet<(&'a ChannelId, u32)>,
    /// Those that lose a resource.
    leaving: BTreeSet<(&'a ChannelId, u32)>,
}

impl Told<'_> {
    /// A step; none for an account that `tieline.toml` does not have, in which nothing can be done.
    fn step(&self, n: usize, call: &PlannedCall) -> Option<PlanStep> {
        let provider = self.topology.accounts.get(&call.account_id)?.provider.clone();
        let rules = self.topology.rules(&call.account_id)?;
        let fields = match call.verb {
            Verb::Create => self.created(call, rules),
            Verb::Update => self.changed(call, rules),
            Verb::Delete => removed(call),
        };
        Some(PlanStep {
            n: number(n),
            after: call.after.iter().map(|at| number(*at)).collect(),
            end: call.key.end,
            provider,
            channel_id: Some(call.channel_id.clone()),
            verb: call.verb,
            resource_type: call.key.kind.as_str().to_owned(),
            disruption: self.disruption(call, rules),
            fields,
        })
    }

    /// A delete ends the private path where no other channel goes on carrying it; else traffic leaves the channel for the
    /// others within seconds.
    fn disruption(&self, call: &PlannedCall, rules: &dyn Rules) -> Disruption {
        match call.verb {
            Verb::Create => Disruption::None,
            Verb::Update => {
                let of_field = |pointer: &str| rules.field(&call.key.kind, pointer).disruption;
                call.changes.iter().map(|change| of_field(&change.pointer)).max().unwrap_or(Disruption::None)
            }
            Verb::Delete if !self.carrying.contains(&(&call.channel_id, call.generation)) => Disruption::None,
            Verb::Delete if self.carrying.is_subset(&self.leaving) => Disruption::Outage,
            Verb::Delete => Disruption::Brief,
        }
    }

    fn channel(&self, call: &PlannedCall) -> Option<&NegotiatedChannel> {
        self.wanted.iter().find(|channel| generation(channel) == (&call.channel_id, call.generation))
    }

    fn created(&self, call: &PlannedCall, rules: &dyn Rules) -> Vec<PlanField> {
        let choices = self.channel(call).map(|channel| self.choices(channel, call)).unwrap_or_default();
        let mut pointers = Vec::new();
        leaves("", &call.spec.fields, &mut pointers);
        let mut fields: Vec<PlanField> = pointers
            .into_iter()
            .map(|pointer| {
                let mut values: Vec<Value> = Vec::new();
                for spec in choices.iter().chain(choices.is_empty().then_some(&call.spec)) {
                    let value = spec.fields.pointer(&pointer).cloned().unwrap_or(Value::Null);
                    if !values.contains(&value) {
                        values.push(value);
                    }
                }
                let after = if values.len() == 1 { values.pop() } else { Some(json!({ "oneOf": values })) };
                let rule = self.rule(call, rules, &pointer);
                PlanField { pointer, before: None, after, rule, sensitive: false }
            })
            .collect();
        fields.extend(call.spec.secrets.iter().map(|name| PlanField {
            pointer: format!("/{}", escape(name)),
            before: None,
            after: None,
            rule: Some("drawn for this channel and sealed; given to both sides and shown to nobody".to_owned()),
            sensitive: true,
        }));
        fields
    }

    fn changed(&self, call: &PlannedCall, rules: &dyn Rules) -> Vec<PlanField> {
        let field = |change: &tieline_providers::Change| PlanField {
            pointer: change.pointer.clone(),
            before: Some(change.observed.clone()).filter(|value| !value.is_null()),
            after: Some(change.wanted.clone()).filter(|value| !value.is_null()),
            rule: self.rule(call, rules, &change.pointer),
            sensitive: false,
        };
        call.changes.iter().map(field).collect()
    }

    /// A resource that awaits what a cloud picks, for each choice that the cloud has.
    fn choices(&self, channel: &NegotiatedChannel, call: &PlannedCall) -> Vec<ResourceSpec> {
        let spec_of = |channel: &NegotiatedChannel| {
            let specs = specs_of(channel, self.topology);
            specs.get(call.key.end).iter().find(|spec| spec.key == call.key).cloned()
        };
        if spec_of(channel).is_none_or(|spec| spec.ready) {
            return Vec::new();
        }
        let picked = |end: End| match &channel.sides.get(end).ipv4 {
            Addressing::CloudPicks(subnets) => subnets.iter().flat_map(|subnet| picks(*subnet)).collect(),
            Addressing::Fixed(_) | Addressing::Awaited(_) => Vec::new(),
        };
        let taught = End::BOTH
            .into_iter()
            .flat_map(|end| picked(end).into_iter().map(move |ipv4| addressed(channel, end, ipv4)));
        taught.filter_map(|channel| spec_of(&channel)).filter(|spec| spec.ready).collect()
    }

    /// Which rule chose what stands in a field.
    fn rule(&self, call: &PlannedCall, rules: &dyn Rules, pointer: &str) -> Option<String> {
        let end = call.key.end;
        let place = match rules.field(&call.key.kind, pointer).agreed? {
            Agreed::Bandwidth => "/bandwidthMbps".to_owned(),
            Agreed::Vlan => format!("/{}/vlanId", end.as_str()),
            Agreed::Mtu => format!("/{}/mtuBytes", end.as_str()),
            Agreed::Ipv4 => format!("/{}/ipv4Subnet", end.as_str()),
            Agreed::PeerAsn => format!("/{}/asn", end.other().as_str()),
            Agreed::Bfd => format!("/{}/bfd", end.as_str()),
            Agreed::Prefixes => {
                let (own, other) = (end.as_str(), end.other().as_str());
                return Some(format!("what end {own} announces and end {other} accepts"));
            }
        };
        let why = &self.channel(call)?.why;
        why.iter().find(|why| why.pointer == place).map(|why| why.rule.clone())
    }
}

/// What a resource was made with.
fn removed(call: &PlannedCall) -> Vec<PlanField> {
    let mut pointers = Vec::new();
    leaves("", &call.spec.fields, &mut pointers);
    let before = |pointer: &String| call.spec.fields.pointer(pointer).cloned().filter(|value| !value.is_null());
    pointers
        .into_iter()
        .map(|pointer| PlanField { before: before(&pointer), pointer, after: None, rule: None, sensitive: false })
        .collect()
}

/// Steps are counted from 1.
fn number(position: usize) -> u32 {
    u32::try_from(position).unwrap_or(u32::MAX).saturating_add(1)
}

fn leaves(pointer: &str, value: &Value, out: &mut Vec<String>) {
    match value {
        Value::Object(members) if !members.is_empty() => {
            for (key, member) in members {
                leaves(&format!("{pointer}/{}", escape(key)), member, out);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) | Value::Object(_) => {
            out.push(pointer.to_owned());
        }
    }
}
