//! Changing a connection's intent, and asking for its deletion.

use serde_json::{Value, json};
use tieline_openapi::{
    ids::ConnectionId,
    v1::{ConnectionIntent, OperationKind, Timestamp},
};

use super::{Accepted, App, AppError, Caller, by_id, intent, view};
use crate::{
    app::shared::bandwidth_asked,
    coordinator::Asked,
    plan::coordinate::Room,
    plan::negotiate::{self, Allocated, Negotiated, NegotiatedChannel, Request, Touched, Unsatisfiable},
    store::{Allocation, ChangeTo, ConnectionChange, ConnectionRecord, IdempotencyKey, StoreError},
};

/// What an If-Match header asks for (RFC 9110 section 13.1.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IfMatch {
    /// `*`: whatever is there.
    Any,
    /// One of these generations.
    Generations(Vec<u64>),
}

impl IfMatch {
    /// Whether a record may be changed.
    ///
    /// # Errors
    /// [`AppError::Stale`].
    pub fn check(&self, actual: u64) -> Result<(), AppError> {
        match self {
            Self::Any => Ok(()),
            Self::Generations(wanted) if wanted.contains(&actual) => Ok(()),
            Self::Generations(wanted) => {
                Err(AppError::Stale { wanted: wanted.iter().copied().max().unwrap_or(0), actual })
            }
        }
    }
}

/// A change of an intent, ready to be written.
#[derive(Debug, Clone)]
pub struct Change {
    /// The new intent.
    pub intent: ConnectionIntent,
    /// What was negotiated for it.
    pub negotiated: Negotiated,
}

/// How a patch ends.
pub(crate) enum Patched {
    /// The intent is what it was.
    Same,
    /// It changes to this.
    Changed(Box<Change>),
    /// No configuration meets it.
    Refused(Unsatisfiable),
}

impl App {
    /// Changes a connection by a merge patch of its intent.
    ///
    /// # Errors
    /// [`AppError::Invalid`], [`AppError::Unsatisfiable`], [`AppError::Stale`], [`AppError::Deleting`],
    /// [`AppError::NameTaken`], [`AppError::KeyReused`], [`AppError::Contended`], or the store's.
    pub async fn patch(
        &self,
        caller: &Caller,
        id: ConnectionId,
        if_match: &IfMatch,
        patch: &Value,
        key: Option<IdempotencyKey>,
    ) -> Result<Accepted, AppError> {
        if let Some(done) = self.replay(key.as_ref()).await? {
            return Ok(done);
        }
        for _ in 0..super::TRIES {
            let record = self.record(&caller.project, id).await?;
            if_match.check(record.generation)?;
            if record.deletion_requested_at.is_some() {
                return Err(AppError::Deleting);
            }
            let _turn = self.choosing.lock().await;
            let change = match self.negotiate_patch(&record, patch).await? {
                Patched::Same => return self.unchanged(&record),
                Patched::Changed(change) => change,
                Patched::Refused(refusal) => return Err(super::unsatisfiable(refusal)),
            };
            match self.write_change(caller, &record, *change, key.clone()).await {
                Err(AppError::Store(StoreError::AllocationTaken { .. })) => {}
                other => return other,
            }
        }
        Err(AppError::Contended { tries: super::TRIES })
    }

    /// What a patch makes of a connection.
    pub(crate) async fn negotiate_patch(&self, record: &ConnectionRecord, patch: &Value) -> Result<Patched, AppError> {
        let intent = intent::patched(&record.intent, patch).map_err(AppError::Invalid)?;
        let errors = intent::check(&intent, &self.topology);
        if !errors.is_empty() {
            return Err(AppError::Invalid(errors));
        }
        if intent == record.intent {
            return Ok(Patched::Same);
        }
        if !touches_network(&record.intent, &intent) {
            let negotiated = record.negotiated.clone();
            return Ok(Patched::Changed(Box::new(Change { intent, negotiated })));
        }
        if let Some(pairing) = self.topology.pairings.get(&intent.environment_id).filter(|_| record.shared.is_some()) {
            let mut allocated = self.store.allocated(&Touched::of(&self.topology, &intent)).await?;
            allocated.release(record.id, &[]);
            let room = Room::Has(record.intent.bandwidth_mbps.get());
            return Ok(match self.foresee(pairing, &intent, &allocated, room).await? {
                Ok(negotiated) => Patched::Changed(Box::new(Change { intent, negotiated })),
                Err(refusal) => Patched::Refused(refusal),
            });
        }
        let redo = must_redo(&record.intent, &intent);
        let mut allocated = self.store.allocated(&Touched::of(&self.topology, &intent)).await?;
        release(&mut allocated, record, redo);
        let keep = if redo { Default::default() } else { by_id(record.negotiated.channels.iter()) };
        let request = Request { connection_id: record.id, intent: &intent, keep, refused: Default::default() };
        match negotiate::negotiate(&self.topology, &allocated, &request) {
            Err(refusal) => Ok(Patched::Refused(refusal)),
            Ok(mut negotiated) => {
                renew(&mut negotiated, record);
                Ok(Patched::Changed(Box::new(Change { intent, negotiated })))
            }
        }
    }

    /// Writes a change of the intent.
    pub(crate) async fn write_change(
        &self,
        caller: &Caller,
        record: &ConnectionRecord,
        change: Change,
        key: Option<IdempotencyKey>,
    ) -> Result<Accepted, AppError> {
        if record.shared.is_some() {
            let asked = bandwidth_asked(record, &change.intent);
            return self.write_patched(caller, record, asked, change, key).await;
        }
        let before = negotiate::allocations(&record.negotiated, &self.topology);
        let allocations = beyond(&before, negotiate::allocations(&change.negotiated, &self.topology));
        let fresh = change.negotiated.channels.iter().filter(|channel| !has(record, channel));
        let secrets = self.seal_passwords(record.id, fresh)?;
        let data = json!({"changed": changed_fields(&record.intent, &change.intent)?});
        let mut after = record.clone();
        after.intent = change.intent.clone();
        after.negotiated = change.negotiated.clone();
        let to = ChangeTo::Intent {
            intent: Box::new(change.intent),
            negotiated: Box::new(change.negotiated),
            allocations,
            secrets,
        };
        let as_event = ("connection.updated", data);
        self.write(caller, record, after, OperationKind::Update, to, as_event, key).await
    }

    /// Asks for a connection's deletion. Asked again, it says what is on its way.
    ///
    /// # Errors
    /// [`AppError::Stale`], [`AppError::Protected`], [`AppError::NotFound`], [`AppError::KeyReused`], or the store's.
    pub async fn delete(
        &self,
        caller: &Caller,
        id: ConnectionId,
        if_match: &IfMatch,
        key: Option<IdempotencyKey>,
    ) -> Result<Accepted, AppError> {
        if let Some(done) = self.replay(key.as_ref()).await? {
            return Ok(done);
        }
        let record = self.record(&caller.project, id).await?;
        if_match.check(record.generation)?;
        if record.deletion_requested_at.is_some() {
            return self.unchanged(&record);
        }
        self.write_deletion(caller, &record, key).await
    }

    /// Writes that the deletion is wanted.
    pub(crate) async fn write_deletion(
        &self,
        caller: &Caller,
        record: &ConnectionRecord,
        key: Option<IdempotencyKey>,
    ) -> Result<Accepted, AppError> {
        if record.intent.deletion_protection {
            return Err(AppError::Protected);
        }
        let mut after = record.clone();
        after.deletion_requested_at = Some(self.now());
        let as_event = ("connection.deletionRequested", json!({"name": record.intent.name}));
        if record.shared.is_some() {
            let to = (after, OperationKind::Delete, ChangeTo::Deletion);
            return self.write_shared(caller, record, Asked::End, to, as_event, key).await;
        }
        self.write(caller, record, after, OperationKind::Delete, ChangeTo::Deletion, as_event, key).await
    }

    fn unchanged(&self, record: &ConnectionRecord) -> Result<Accepted, AppError> {
        Ok(Accepted::new(&view::connection(record, &self.topology, self.now()), [0; 32])?)
    }

    #[expect(clippy::too_many_arguments, reason = "one transaction, in one place")]
    async fn write(
        &self,
        caller: &Caller,
        record: &ConnectionRecord,
        after: ConnectionRecord,
        kind: OperationKind,
        to: ChangeTo,
        as_event: (&str, Value),
        key: Option<IdempotencyKey>,
    ) -> Result<Accepted, AppError> {
        let (change, accepted) = self.changed(caller, record, (after, kind, to), as_event, key)?;
        match self.store.change_connection(change).await {
            Err(StoreError::IdempotencyReplay(answer)) => Accepted::again(*answer),
            other => {
                other?;
                Ok(accepted)
            }
        }
    }

    /// What is written of a change, and what is answered.
    pub(crate) fn changed(
        &self,
        caller: &Caller,
        record: &ConnectionRecord,
        (mut after, kind, to): (ConnectionRecord, OperationKind, ChangeTo),
        (event, data): (&str, Value),
        key: Option<IdempotencyKey>,
    ) -> Result<(ConnectionChange, Accepted), serde_json::Error> {
        let now: Timestamp = self.now();
        let generation = record.generation + 1;
        let operation = self.new_operation(kind, record.id, generation, now);
        after.generation = generation;
        after.last_operation = operation.id;
        after.updated_at = now;
        let digest = key.as_ref().map_or([0; 32], |key| key.digest);
        let accepted = Accepted::new(&view::connection(&after, &self.topology, now), digest)?;
        let subject = format!("/v1/connections/{}", record.id);
        let change = ConnectionChange {
            id: record.id,
            project: record.project.clone(),
            expected_generation: record.generation,
            to,
            operation,
            event: self.event(caller, event, &subject, generation, data, now),
            audit: caller.audit(subject, now),
            idempotency: key.map(|key| (key, accepted.answer.clone())),
            at: now,
        };
        Ok((change, accepted))
    }
}

/// Whether anything that clouds or gateways configure differs. Names, labels and the like are Tieline's own.
fn touches_network(before: &ConnectionIntent, after: &ConnectionIntent) -> bool {
    let mut same = after.clone();
    same.name.clone_from(&before.name);
    same.description.clone_from(&before.description);
    same.labels.clone_from(&before.labels);
    same.deletion_protection = before.deletion_protection;
    same != *before
}

/// Whether the channels cannot keep their VLANs and subnets.
fn must_redo(before: &ConnectionIntent, after: &ConnectionIntent) -> bool {
    let moved = |wish: bool, kept: bool| wish && !kept;
    moved(after.wanted.vlan_id.is_some(), after.wanted.vlan_id == before.wanted.vlan_id)
        || moved(after.wanted.ipv4_subnet.is_some(), after.wanted.ipv4_subnet == before.wanted.ipv4_subnet)
}

/// Takes a connection's own allocations out, so that its change does not stand in its own way. What a channel that is made
/// anew leaves behind stays taken: the old one lives until the new one is there.
fn release(allocated: &mut Allocated, record: &ConnectionRecord, redo: bool) {
    allocated.release(record.id, &record.negotiated.channels);
    if !redo {
        return;
    }
    for channel in &record.negotiated.channels {
        for side in [&channel.sides.a, &channel.sides.b] {
            allocated.vlans.entry(side.port_id.clone()).or_default().insert(side.vlan.get());
            let subnets = allocated.subnets.entry(side.attach_point_id.clone()).or_default();
            subnets.extend(channel.reserved_subnets.iter().copied());
        }
    }
}

/// A channel that is made anew is the next generation of it, also where it was given up before.
fn renew(negotiated: &mut Negotiated, before: &ConnectionRecord) {
    for channel in &mut negotiated.channels {
        let old = before.negotiated.channels.iter().find(|old| old.channel_id == channel.channel_id);
        match (old, before.given_up.get(&channel.channel_id)) {
            (Some(old), _) if !old.same_slot(channel) => channel.generation = old.generation + 1,
            (None, Some(last)) => channel.generation = last + 1,
            (Some(_) | None, _) => {}
        }
    }
}

/// Whether the record has this channel in this generation already.
fn has(record: &ConnectionRecord, channel: &NegotiatedChannel) -> bool {
    let mut before = record.negotiated.channels.iter();
    before.any(|old| old.channel_id == channel.channel_id && old.generation == channel.generation)
}

/// What is taken beyond what is held already.
fn beyond(before: &[Allocation], after: Vec<Allocation>) -> Vec<Allocation> {
    after.into_iter().filter(|wanted| !before.contains(wanted)).collect()
}

/// The top-level fields that differ, for the event.
pub(crate) fn changed_fields(before: &ConnectionIntent, after: &ConnectionIntent) -> Result<Vec<String>, AppError> {
    let (before, after) = (serde_json::to_value(before)?, serde_json::to_value(after)?);
    let Value::Object(after) = after else { return Ok(Vec::new()) };
    Ok(after.into_iter().filter(|(key, value)| before.get(key) != Some(value)).map(|(key, _)| key).collect())
}
