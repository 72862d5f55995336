//! What a wish leads to, before it is wished: the protocol rehearsed, in the words of a plan.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use tieline_openapi::{
    config::plain_id,
    coordinator::{ConnectionPath, L3Base, ResourceId},
    v1::{Disruption, End, PlanField, PlanStep, Verb},
};
use uuid::Uuid;

use super::{Asked, Coordination, CoordinationError, Decoded, Peer, wishes::wished};
use crate::{
    plan::coordinate::{Book, Change, Kind, Place, Planned, Work},
    store::SharedLink,
    topology::Pairing,
};

/// What a wish leads to.
#[derive(Debug, Clone, PartialEq)]
pub struct Foreseen {
    /// What the peer is asked and what is done on our routers, in order.
    pub steps: Vec<PlanStep>,
    /// Whether nothing stands in the way of its end, as far as is known here.
    pub reached: bool,
    /// The interconnect of the place that would be made, if any.
    pub to: Option<ResourceId>,
}

impl Coordination {
    /// What follows for a connection when this is wished.
    ///
    /// # Errors
    /// As [`Coordination::change`] of the wish.
    pub async fn rehearse(&self, link: &SharedLink, asked: &Asked) -> Result<Foreseen, CoordinationError> {
        let peer = self.provider(link.peer.as_str())?;
        let (_, book) = self.load(peer, None).await?;
        let changes = wished(&book, link.uuid, asked, self.now(), &self.draw())?;
        Ok(self.foreseen(peer, &book, link.uuid, &changes))
    }

    /// What follows when an activation key is handed out, and brought.
    ///
    /// # Errors
    /// As [`Coordination::issue_key`], but for what the peer says.
    pub async fn rehearse_order(&self, pairing: &Pairing, mbps: u32) -> Result<Foreseen, CoordinationError> {
        let peer = self.provider(pairing.peer.as_str())?;
        let (_, book) = self.load(peer, None).await?;
        let changes = book.issue_key(&pairing.environment, mbps, Uuid::nil(), [0; 32], self.now())?;
        Ok(self.foreseen(peer, &book, Uuid::nil(), &changes))
    }

    /// What follows when an activation key of a peer is accepted.
    ///
    /// # Errors
    /// As [`Coordination::accept_key`].
    pub async fn rehearse_acceptance(&self, decoded: &Decoded) -> Result<Foreseen, CoordinationError> {
        let peer = self.provider(decoded.peer.as_str())?;
        let (_, book) = self.load(peer, None).await?;
        let (uuid, mbps) = (decoded.contents.shared_connection_uuid, decoded.contents.bandwidth.get());
        let draw = self.draw();
        let (_, changes) = book.accept_key(&decoded.environment, uuid, mbps, Kind::Standard, self.now(), &draw)?;
        Ok(self.foreseen(peer, &book, uuid, &changes))
    }

    fn foreseen(&self, peer: &Peer, book: &Book, uuid: Uuid, changes: &[Change]) -> Foreseen {
        let rehearsal = book.rehearse(uuid, changes, self.now());
        let told = Told { peer, book, us: self.us() };
        // A channel without a router of ours has nothing to be done on one: what comes after that comes after what was before.
        let mut numbers: Vec<BTreeSet<u32>> = Vec::new();
        let mut steps = Vec::new();
        for planned in &rehearsal.planned {
            let after: BTreeSet<u32> =
                planned.after.iter().filter_map(|at| numbers.get(*at)).flatten().copied().collect();
            let n = u32::try_from(steps.len()).unwrap_or(u32::MAX).saturating_add(1);
            let step = told.step(n, planned, &after);
            numbers.push(if step.is_some() { BTreeSet::from([n]) } else { after });
            steps.extend(step);
        }
        let made = |planned: &&Planned| matches!(planned.work, Work::CreateConnection { .. });
        let to = rehearsal.planned.iter().find(made).map(|planned| planned.place.interconnect.clone());
        Foreseen { steps, reached: rehearsal.reached, to }
    }
}

/// What steps are told with.
struct Told<'a> {
    peer: &'a Peer,
    book: &'a Book,
    us: &'a ResourceId,
}

fn set(pointer: &str, before: Option<Value>, after: Option<Value>) -> PlanField {
    PlanField { pointer: pointer.to_owned(), before, after, rule: None, sensitive: false }
}

impl Told<'_> {
    fn step(&self, n: u32, planned: &Planned, after: &BTreeSet<u32>) -> Option<PlanStep> {
        let (end, resource_type, verb) = match &planned.work {
            Work::CreateConnection { .. } => (End::B, "connection", Verb::Create),
            Work::UpdateConnection { .. } => (End::B, "connection", Verb::Update),
            Work::DeleteConnection => (End::B, "connection", Verb::Delete),
            Work::CreateFeature => (End::B, "feature", Verb::Create),
            Work::DeleteFeature => (End::B, "feature", Verb::Delete),
            Work::PutSession => (End::A, "bgpSession", Verb::Create),
            Work::DrainSession => (End::A, "bgpSession", Verb::Update),
            Work::DeleteSession => (End::A, "bgpSession", Verb::Delete),
        };
        let channel = planned.channel.as_ref();
        if end == End::A {
            self.peer.router(&planned.place, channel?)?;
        }
        let provider = if end == End::A { self.us } else { &self.peer.id };
        Some(PlanStep {
            n,
            after: after.iter().copied().collect(),
            end,
            provider: plain_id(provider).ok()?,
            channel_id: channel.and_then(|id| plain_id(id).ok()),
            verb,
            resource_type: resource_type.to_owned(),
            disruption: disruption(planned),
            fields: self.fields(planned),
        })
    }

    /// The name of a connection, as we call it at the peer.
    fn name(&self, place: &Place) -> String {
        let Place { environment, interconnect, connection } = place.clone();
        ConnectionPath { provider: self.us.clone(), environment, interconnect, connection }.to_string()
    }

    fn fields(&self, planned: &Planned) -> Vec<PlanField> {
        let interconnect = set("/interconnect", None, Some(json!(planned.place.interconnect.as_str())));
        match &planned.work {
            Work::CreateConnection { bandwidth_mbps, source } => {
                let mut fields = vec![interconnect, set("/bandwidthMbps", None, Some(json!(bandwidth_mbps)))];
                let named = |from| set("/sourceData/sourceConnectionName", None, Some(json!(self.name(from))));
                fields.extend(source.as_ref().map(named));
                fields
            }
            Work::UpdateConnection { from_mbps, to_mbps } => {
                vec![set("/bandwidthMbps", Some(json!(from_mbps)), Some(json!(to_mbps)))]
            }
            Work::DeleteConnection => vec![set("/name", Some(json!(self.name(&planned.place))), None)],
            Work::CreateFeature | Work::DeleteFeature => self.configured(planned),
            Work::DrainSession => vec![set("/drained", Some(json!(false)), Some(json!(true)))],
            Work::PutSession | Work::DeleteSession => {
                let router = planned.channel.as_ref().and_then(|channel| self.peer.router(&planned.place, channel));
                let gone = planned.work == Work::DeleteSession;
                let field = |pointer: &str, value: Value| {
                    if gone { set(pointer, Some(value), None) } else { set(pointer, None, Some(value)) }
                };
                let mut fields: Vec<PlanField> = router
                    .map(|router| [field("/router", json!(router.id)), field("/interface", json!(router.interface))])
                    .into_iter()
                    .flatten()
                    .collect();
                fields.extend(self.configured(planned));
                fields
            }
        }
    }

    /// What a channel is configured with: what is agreed, or what we take of what the peer will take.
    fn configured(&self, planned: &Planned) -> Vec<PlanField> {
        let (Some(channel), Some(config)) = (&planned.channel, &planned.config) else { return Vec::new() };
        let stored = self.book.rows.get(&planned.place).and_then(|row| row.features.get(channel));
        let agreed = stored.is_some_and(|feature| feature.config == *config);
        let removed = matches!(planned.work, Work::DeleteFeature | Work::DeleteSession);
        let values = if agreed { values(config) } else { self.choices(&planned.place, channel) };
        let rule =
            (!agreed).then(|| "what both providers take: the peer says what it does when it is asked".to_owned());
        let field = |(pointer, value): (&str, Value)| {
            let (before, after) = if removed { (Some(value), None) } else { (None, Some(value)) };
            PlanField { rule: rule.clone(), ..set(pointer, before, after) }
        };
        let password = PlanField { sensitive: true, ..set("/md5BgpPassword", None, None) };
        values.into_iter().map(field).chain([password]).collect()
    }

    fn choices(&self, place: &Place, channel: &ResourceId) -> Vec<(&'static str, Value)> {
        let environment = self.book.terms.environments.get(&place.environment);
        let interconnect = environment.and_then(|environment| environment.interconnects.get(&place.interconnect));
        let Some(terms) = interconnect.and_then(|interconnect| interconnect.channels.get(channel)) else {
            return Vec::new();
        };
        let range = |(start, stop): &(u16, u16)| json!({ "start": start, "stop": stop });
        vec![
            ("/vlanId", json!({ "oneOf": [range(&terms.vlans)] })),
            ("/mtuBytes", json!({ "oneOf": terms.mtus.iter().map(range).collect::<Vec<_>>() })),
            ("/ipv4Subnet", json!({ "oneOf": terms.subnets.iter().map(ToString::to_string).collect::<Vec<_>>() })),
        ]
    }
}

fn values(config: &L3Base) -> Vec<(&'static str, Value)> {
    let mut values = vec![("/vlanId", json!(config.vlan)), ("/mtuBytes", json!(config.mtu))];
    values.extend(config.ipv4.as_ref().map(|hosts| ("/ipv4Subnet", json!(hosts.subnet))));
    values
}

/// Nobody notices what goes while another place carries.
fn disruption(planned: &Planned) -> Disruption {
    match planned.work {
        Work::DrainSession | Work::DeleteSession if !planned.carried => Disruption::Outage,
        Work::DeleteFeature if !planned.carried => Disruption::Brief,
        Work::DrainSession
        | Work::DeleteSession
        | Work::DeleteFeature
        | Work::CreateConnection { .. }
        | Work::UpdateConnection { .. }
        | Work::DeleteConnection
        | Work::CreateFeature
        | Work::PutSession => Disruption::None,
    }
}
