//! A pure model of two clouds that lag, lose answers and refuse, and of the loop that asks for the next step.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::Ipv4Net;
use proptest::prelude::*;
use serde_json::json;
use tieline_openapi::{
    config::EngineConfig,
    ids::{AccountId, ChannelId, InstanceId, ProviderCallId},
    problem::ProviderDetail,
    units::Mtu,
    v1::{Middle, Timestamp, Verb, Wanted},
};
use tieline_providers::{
    CallErrorKind, FeatureSide, IdentityKind, Ipv4Pair, Learned, Observed, OwnerTag, Presence, Rules,
    fake::{ATTACHMENT, FakeRules, FakeSide},
};
use uuid::Uuid;

use super::super::{
    rehearse::{bare_spec, learned, specs_of},
    *,
};

pub(super) const LAG: u64 = 1_000;

pub(super) fn config() -> EngineConfig {
    EngineConfig {
        lease_ms: 3_000,
        call_timeout_ms: 1_000,
        visibility_lag_ms: LAG,
        quarantine_ms: 5_000,
        poll_ms: 200,
        settled_poll_ms: 2_000,
        sweep_ms: 4_000,
        calls_per_second: 100,
    }
}

pub(super) fn at(ms: u64) -> Timestamp {
    plus(Timestamp::UNIX_EPOCH, 1_000_000 + ms)
}

pub(super) struct Book {
    pub(super) picking: FakeRules,
    pub(super) taking: FakeRules,
}

impl Book {
    pub(super) fn new(identity: IdentityKind) -> Self {
        Self {
            picking: FakeRules { side: FakeSide::Picking, identity },
            taking: FakeRules { side: FakeSide::Taking, identity },
        }
    }
}

impl RuleBook for Book {
    fn rules(&self, account: &AccountId) -> Option<&dyn Rules> {
        match account.as_str() {
            "acct-a" => Some(&self.picking),
            "acct-b" => Some(&self.taking),
            _ => None,
        }
    }

    fn takes_mtu(&self, _: &FeatureSide, mtu: Mtu) -> bool {
        [1_440, 1_500].contains(&mtu.get())
    }
}

pub(super) fn channel(generation: u32, vlan: u16) -> NegotiatedChannel {
    let side = |end: &str| {
        json!({
            "connectionId": Uuid::nil(), "connectionName": "c", "channelId": "ch1", "end": end,
            "accountId": format!("acct-{end}"), "region": "r", "portId": format!("port-{end}"),
            "attachPointId": format!("point-{end}"), "attachPointKind": "CLOUD_ROUTER",
            "attachPointCloudId": "router", "asn": 64512, "peerAsn": 64513, "vlan": vlan, "bandwidth": 1000,
            "mtu": 1500, "ipv4": { (if end == "a" { "cloudPicks" } else { "awaited" }): ["169.254.0.0/29"] },
            "ipv6": null, "bfd": null, "advertisedPrefixes": [], "acceptedPrefixes": [], "maxPrefixes": null,
        })
    };
    serde_json::from_value(json!({
        "channelId": "ch1", "generation": generation, "sides": { "a": side("a"), "b": side("b") },
        "reservedSubnets": ["169.254.0.0/29"], "bandwidth": 1000, "why": [],
    }))
    .unwrap()
}

/// One resource of the model.
#[derive(Debug, Clone)]
pub(super) struct Thing {
    pub(super) cloud_id: String,
    pub(super) instance: InstanceId,
    pub(super) key: ResourceKey,
    pub(super) fields: serde_json::Value,
    pub(super) picked: Option<Ipv4Pair>,
    pub(super) made_ms: u64,
    pub(super) gone_ms: Option<u64>,
}

/// What becomes of the next call.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Luck {
    Good,
    AnswerLost,
    RequestLost,
    Refused(CallErrorKind),
}

pub(super) struct Model {
    pub(super) identity: IdentityKind,
    pub(super) book: Book,
    pub(super) wanted: Vec<NegotiatedChannel>,
    pub(super) channels: Vec<NegotiatedChannel>,
    pub(super) instances: Vec<Instance>,
    pub(super) calls: Vec<ProviderCall>,
    pub(super) fresh: BTreeSet<InstanceId>,
    pub(super) walk_backs: BTreeMap<ChannelId, u32>,
    pub(super) things: Vec<Thing>,
    /// What the next attachments are given instead of what they are asked for.
    pub(super) picks: Vec<Learned>,
    /// What others hold.
    pub(super) others: (BTreeSet<u16>, BTreeSet<Ipv4Net>),
    pub(super) unlearnable: BTreeSet<(ChannelId, u32)>,
    pub(super) wishes: Wanted,
    pub(super) now_ms: u64,
    pub(super) drawn: u128,
    pub(super) config: EngineConfig,
    pub(super) luck: Vec<Luck>,
}

impl Model {
    pub(super) fn new(identity: IdentityKind, luck: Vec<Luck>) -> Self {
        let first = channel(0, 100);
        Self {
            identity,
            book: Book::new(identity),
            wanted: vec![first.clone()],
            channels: vec![first],
            instances: Vec::new(),
            calls: Vec::new(),
            fresh: BTreeSet::new(),
            walk_backs: BTreeMap::new(),
            things: Vec::new(),
            picks: Vec::new(),
            others: Default::default(),
            unlearnable: BTreeSet::new(),
            wishes: Wanted::default(),
            now_ms: 0,
            drawn: 0,
            config: config(),
            luck,
        }
    }

    pub(super) fn with(self, config: EngineConfig) -> Self {
        Self { config, ..self }
    }

    pub(super) fn specs(&self) -> Specs {
        self.channels.iter().map(|c| ((c.channel_id.clone(), c.generation), specs_of(c, &self.book))).collect()
    }

    pub(super) fn step(&self) -> Step {
        let specs = self.specs();
        let (held, stuck) = (BTreeSet::new(), BTreeMap::new());
        let situation = Situation {
            wanted: &self.wanted,
            instances: &self.instances,
            calls: &self.calls,
            specs: &specs,
            fresh: &self.fresh,
            walk_backs: &self.walk_backs,
            held: &held,
            stuck: &stuck,
            unlearnable: &self.unlearnable,
            wishes: &self.wishes,
            rules: &self.book,
            now: at(self.now_ms),
        };
        let step = next(&situation, &self.config);
        assert_eq!(step, next(&situation, &self.config), "same input, same output");
        step
    }

    pub(super) fn draw(&mut self) -> Uuid {
        self.drawn += 1;
        Uuid::from_u128(self.drawn)
    }

    pub(super) fn live(&self) -> impl Iterator<Item = &Thing> {
        self.things.iter().filter(|t| t.gone_ms.is_none())
    }

    pub(super) fn look(&mut self, id: InstanceId) {
        let now = self.now_ms;
        let shows = |t: &&Thing| now >= t.made_ms + LAG && t.gone_ms.is_none_or(|gone| now < gone + LAG);
        let instance = self.instances.iter().find(|i| i.id == id).unwrap().clone();
        let found = self.things.iter().filter(shows).find(|t| match &instance.cloud_id {
            Some(cloud_id) => t.cloud_id == *cloud_id,
            None => t.instance == id && self.identity != IdentityKind::Blind,
        });
        let seen = match found {
            Some(thing) => instance.seen.and_found(self.observed(thing), at(now)),
            None => instance.seen.and_not_found(at(now)),
        };
        let instance = self.instances.iter_mut().find(|i| i.id == id).unwrap();
        if let (None, Seen::Present { observed, .. }) = (&instance.cloud_id, &seen) {
            instance.cloud_id = Some(observed.cloud_id.clone());
        }
        instance.seen = seen;
        self.fresh.insert(id);
    }

    pub(super) fn observed(&self, thing: &Thing) -> Observed {
        Observed {
            kind: thing.key.kind.clone(),
            cloud_id: thing.cloud_id.clone(),
            owner: (self.identity != IdentityKind::Blind)
                .then_some(OwnerTag { installation: 0, instance: thing.instance }),
            provider_state: "x".to_owned(),
            presence: Presence::Usable,
            bgp: None,
            bfd: None,
            learned: Learned {
                ipv4: thing.picked,
                vlan: thing.fields["vlan"].as_u64().map(|vlan| vlan.try_into().unwrap()),
                mtu: thing.fields["mtu"].as_u64().map(|mtu| mtu.try_into().unwrap()),
            },
            fields: thing.fields.clone(),
            created_at: None,
        }
    }

    pub(super) fn call(&mut self, id: InstanceId, verb: Verb) {
        let row = ProviderCallId(self.draw());
        let instance = self.instances.iter_mut().find(|i| i.id == id).unwrap();
        instance.seen = Seen::Never;
        let key = instance.key.clone();
        self.fresh.remove(&id);
        let luck = self.luck.pop().unwrap_or(Luck::Good);
        let answer = match luck {
            Luck::Refused(kind) => Err(kind),
            Luck::RequestLost => Ok(String::new()),
            Luck::Good | Luck::AnswerLost => self.have_effect(id, verb, &key),
        };
        if matches!(luck, Luck::AnswerLost | Luck::RequestLost) {
            self.now_ms += 1_000;
        }
        let verdict = match (luck, &answer) {
            (Luck::AnswerLost | Luck::RequestLost, _) => Verdict::Open,
            (Luck::Good | Luck::Refused(_), Ok(cloud_id)) => {
                if verb == Verb::Create {
                    self.instances.iter_mut().find(|i| i.id == id).unwrap().cloud_id = Some(cloud_id.clone());
                }
                Verdict::Accepted
            }
            (Luck::Good | Luck::Refused(_), Err(kind)) => {
                let detail = ProviderDetail::default();
                Verdict::Refused { kind: kind_name(*kind).to_owned(), detail }
            }
        };
        let now = at(self.now_ms);
        self.calls.push(ProviderCall {
            id: row,
            instance_id: id,
            verb,
            identity: self.book.rules(&self.account(id)).unwrap().identity(&key.kind),
            written_at: now,
            deadline: plus(now, 1_000),
            decided_at: (verdict != Verdict::Open).then_some(now),
            verdict,
            answer: None,
        });
    }

    pub(super) fn account(&self, id: InstanceId) -> AccountId {
        self.instances.iter().find(|i| i.id == id).unwrap().account_id.clone()
    }

    pub(super) fn have_effect(
        &mut self,
        id: InstanceId,
        verb: Verb,
        key: &ResourceKey,
    ) -> Result<String, CallErrorKind> {
        let instance = self.instances.iter().find(|i| i.id == id).unwrap().clone();
        let specs = self.specs();
        let spec = order::spec_of(&specs, &instance).cloned().unwrap_or_else(|| bare_spec(key));
        let now = self.now_ms;
        if verb == Verb::Create {
            let named = !matches!(self.identity, IdentityKind::Tagged | IdentityKind::Blind) || key.kind != ATTACHMENT;
            if named && self.live().any(|t| t.instance == id) {
                return Err(CallErrorKind::SlotTaken);
            }
            let pair = Ipv4Pair {
                subnet: "169.254.0.0/29".parse().unwrap(),
                host: "169.254.0.1".parse().unwrap(),
                peer: "169.254.0.2".parse().unwrap(),
            };
            let cloud_id = format!("{}/{}", key.kind, self.draw());
            let mut picked = (key.kind == ATTACHMENT).then_some(pair);
            let mut fields = spec.fields;
            if let Some(picks) = picked.and_then(|_| self.picks.pop()) {
                picked = picks.ipv4.or(picked);
                if let Some(vlan) = picks.vlan {
                    fields["vlan"] = json!(vlan);
                }
                if let Some(mtu) = picks.mtu {
                    fields["mtu"] = json!(mtu);
                }
            }
            let thing = Thing {
                cloud_id: cloud_id.clone(),
                instance: id,
                key: key.clone(),
                fields,
                picked,
                made_ms: now,
                gone_ms: None,
            };
            self.things.push(thing);
            return Ok(cloud_id);
        }
        let is_it = |t: &&mut Thing| match &instance.cloud_id {
            Some(cloud_id) => t.cloud_id == *cloud_id,
            None => t.instance == id,
        };
        let thing = self.things.iter_mut().filter(|t| t.gone_ms.is_none()).find(is_it);
        let thing = thing.ok_or(CallErrorKind::NotFound)?;
        match verb {
            Verb::Delete => thing.gone_ms = Some(now),
            Verb::Update | Verb::Create => thing.fields = spec.fields,
        }
        Ok(thing.cloud_id.clone())
    }

    /// Does a step; the end of the loop, where it comes to one.
    pub(super) fn take(&mut self, step: Step) -> Option<Step> {
        match step {
            Step::Observe { ref instances } => instances.iter().for_each(|id| self.look(*id)),
            Step::NewInstance { channel_id, generation, key, account_id } => {
                let id = InstanceId(self.draw());
                self.instances.push(Instance {
                    id,
                    channel_id,
                    channel_generation: generation,
                    key,
                    account_id,
                    cloud_id: None,
                    seen: Seen::Never,
                    twin: None,
                });
            }
            Step::Create { instance } => self.call(instance, Verb::Create),
            Step::Update { instance, .. } => self.call(instance, Verb::Update),
            Step::Delete { instance } => self.call(instance, Verb::Delete),
            Step::Resolve { call, verdict } => {
                let now = at(self.now_ms);
                let row = self.calls.iter_mut().find(|c| c.id == call).unwrap();
                (row.verdict, row.decided_at) = (verdict, Some(now));
            }
            Step::Adopt { instance, cloud_id } => self.name(instance, Some(cloud_id)),
            Step::RefuseAnswer { call, cloud_id, why } => {
                let row = self.calls.iter_mut().find(|c| c.id == call).unwrap();
                row.answer = Some(CreateAnswer::Misfit { cloud_id, why });
                let instance = row.instance_id;
                self.name(instance, None);
            }
            Step::Learn { ref channel_id, end, picked, generation } => {
                let (vlans, subnets) = &self.others;
                let taken = picked.vlan.is_some_and(|vlan| vlans.contains(&vlan.get()))
                    || picked.ipv4.is_some_and(|pair| subnets.contains(&pair.subnet));
                if taken {
                    self.unlearnable.insert((channel_id.clone(), generation));
                    return None;
                }
                for channel in self.wanted.iter_mut().chain(&mut self.channels) {
                    if channel.generation == generation {
                        *channel = learned(channel, end, &picked, Middle::None);
                    }
                }
            }
            Step::WalkBack { channel_id, generation, refused, .. } => {
                assert!(!refused.vlans.is_empty());
                *self.walk_backs.entry(channel_id).or_default() += 1;
                let next = channel(generation + 1, 101 + u16::try_from(generation).unwrap());
                self.wanted = vec![next.clone()];
                self.channels.push(next);
            }
            Step::RetireInstance { instance } => {
                self.instances.retain(|i| i.id != instance);
                self.calls.retain(|c| c.instance_id != instance);
            }
            Step::RetireChannel { generation, .. } => self.channels.retain(|c| c.generation != generation),
            Step::Wait { until, .. } | Step::Escalate { until, .. } if until > at(self.now_ms) => {
                self.now_ms = millis_between(at(0), until);
                // A new pass looks at everything that a call was made about.
                let asked: BTreeSet<_> = self.calls.iter().map(|c| c.instance_id).collect();
                let ids: Vec<_> = self.instances.iter().map(|i| i.id).filter(|id| asked.contains(id)).collect();
                ids.into_iter().for_each(|id| self.look(id));
            }
            end @ (Step::Settled | Step::Gone | Step::Wait { .. } | Step::Escalate { .. }) => return Some(end),
        }
        None
    }

    pub(super) fn name(&mut self, id: InstanceId, cloud_id: Option<String>) {
        let instance = self.instances.iter_mut().find(|i| i.id == id).unwrap();
        (instance.cloud_id, instance.seen) = (cloud_id, Seen::Never);
        self.fresh.remove(&id);
    }

    pub(super) fn check(&self) -> Result<(), TestCaseError> {
        let mut counts: BTreeMap<&ResourceKey, u32> = BTreeMap::new();
        for thing in self.live() {
            *counts.entry(&thing.key).or_default() += 1;
        }
        for (key, count) in counts {
            prop_assert!(count <= 1, "{count} live {key:?}");
        }
        let mut living: BTreeSet<(u32, &ResourceKey)> = BTreeSet::new();
        for instance in &self.instances {
            prop_assert!(living.insert((instance.channel_generation, &instance.key)), "two instances of one resource");
        }
        Ok(())
    }

    /// Runs to the end.
    pub(super) fn run(&mut self, steps: usize) -> Result<Option<Step>, TestCaseError> {
        for _ in 0..steps {
            let step = self.step();
            let end = self.take(step);
            self.check()?;
            if end.is_some() {
                return Ok(end);
            }
        }
        Ok(None)
    }
}

pub(super) fn luck() -> impl Strategy<Value = Luck> {
    prop_oneof![
        4 => Just(Luck::Good),
        2 => Just(Luck::AnswerLost),
        2 => Just(Luck::RequestLost),
        1 => Just(Luck::Refused(CallErrorKind::Throttled)),
        1 => Just(Luck::Refused(CallErrorKind::Quota)),
        1 => Just(Luck::Refused(CallErrorKind::Forbidden)),
        1 => Just(Luck::Refused(CallErrorKind::NotSent)),
        1 => Just(Luck::Refused(CallErrorKind::SlotTaken)),
    ]
}
