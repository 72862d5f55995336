//! Connections: the intent is checked, negotiated and written in one transaction; the engine does the rest.

mod change;
mod list;

use std::collections::BTreeMap;

use serde_json::json;
use tieline_openapi::{
    coordinator::Sensitive,
    ids::{ChannelId, ConnectionId, OperationId, ProjectId},
    v1::{Connection, ConnectionIntent, ConnectionKind, Operation, OperationKind, OperationState, Timestamp},
};

use super::{App, AppError, Caller, intent, shared::ordered, view};
use crate::{
    plan::coordinate::Room,
    plan::negotiate::{self, Negotiated, NegotiatedChannel, Request, Touched, Unsatisfiable},
    store::{
        ConnectionRecord, EngineStatus, IdempotencyKey, NewConnection, NewEvent, SavedAnswer, SealedSecret, SharedLink,
        StoreError,
    },
};

pub use change::{Change, IfMatch};
pub(crate) use change::{Patched, changed_fields};
pub use list::Wanted;

/// How often a create negotiates again because others took what it had chosen.
const TRIES: u32 = 5;

/// A mutation that was taken, now or under the same key before.
#[derive(Debug, Clone)]
pub struct Accepted {
    /// What is answered.
    pub answer: SavedAnswer,
    /// The connection.
    pub connection: ConnectionId,
    /// The operation that brings it about.
    pub operation: OperationId,
    /// Whether this answer was given before.
    pub replayed: bool,
    /// An activation key that was made with it: told this once, and kept nowhere.
    pub activation_key: Option<Sensitive>,
}

impl Accepted {
    /// The answer of a mutation: 202 with the Connection and where to follow it.
    pub(super) fn new(connection: &Connection, digest: [u8; 32]) -> Result<Self, serde_json::Error> {
        let headers = BTreeMap::from([
            ("location".to_owned(), format!("/v1/connections/{}", connection.id)),
            ("operation-location".to_owned(), format!("/v1/operations/{}", connection.last_operation_id)),
            ("etag".to_owned(), etag(connection.generation)),
        ]);
        let answer = SavedAnswer { digest, status: 202, headers, body: serde_json::to_value(connection)? };
        Ok(Self {
            answer,
            connection: connection.id,
            operation: connection.last_operation_id,
            replayed: false,
            activation_key: None,
        })
    }

    /// An answer that was saved.
    pub(super) fn again(answer: SavedAnswer) -> Result<Self, AppError> {
        let connection: Connection = serde_json::from_value(answer.body.clone())?;
        Ok(Self {
            answer,
            connection: connection.id,
            operation: connection.last_operation_id,
            replayed: true,
            activation_key: None,
        })
    }
}

/// The ETag of a generation. It follows the desired part only, so observation never makes an If-Match stale.
#[must_use]
pub fn etag(generation: u64) -> String {
    format!("\"g{generation}\"")
}

/// What an error of the negotiation becomes.
fn unsatisfiable(refusal: Unsatisfiable) -> AppError {
    AppError::Unsatisfiable(refusal.findings)
}

impl App {
    /// The answer that was given under a key, if any.
    ///
    /// # Errors
    /// [`AppError::KeyReused`] where it was given to another request, or the store's.
    pub(super) async fn answered(&self, key: Option<&IdempotencyKey>) -> Result<Option<SavedAnswer>, AppError> {
        let Some(key) = key else { return Ok(None) };
        match self.store.saved_answer(key).await? {
            Some(saved) if saved.digest != key.digest => Err(AppError::KeyReused),
            other => Ok(other),
        }
    }

    /// The mutation that was taken under a key, if any.
    ///
    /// # Errors
    /// As [`App::answered`].
    pub async fn replay(&self, key: Option<&IdempotencyKey>) -> Result<Option<Accepted>, AppError> {
        self.answered(key).await?.map(Accepted::again).transpose()
    }

    /// One connection, as it is now.
    ///
    /// # Errors
    /// [`AppError::NotFound`], or the store's.
    pub async fn connection(&self, project: &ProjectId, id: ConnectionId) -> Result<Connection, AppError> {
        let record = self.record(project, id).await?;
        Ok(view::connection(&record, &self.topology, self.now()))
    }

    /// One connection as it is stored, with how it stands with a peer.
    pub(super) async fn record(&self, project: &ProjectId, id: ConnectionId) -> Result<ConnectionRecord, AppError> {
        let mut records = [self.store.connection(project, id).await?];
        self.stand(&mut records).await?;
        let [record] = records;
        Ok(record)
    }

    /// Creates a connection.
    ///
    /// # Errors
    /// [`AppError::Invalid`], [`AppError::Unsatisfiable`], [`AppError::NameTaken`], [`AppError::KeyReused`],
    /// [`AppError::Contended`], or the store's.
    pub async fn create(
        &self,
        caller: &Caller,
        intent: ConnectionIntent,
        key: Option<IdempotencyKey>,
    ) -> Result<Accepted, AppError> {
        if let Some(done) = self.replay(key.as_ref()).await? {
            return Ok(done);
        }
        let errors = intent::check_new(&intent, &self.topology);
        if !errors.is_empty() {
            return Err(AppError::Invalid(errors));
        }
        let id = ConnectionId(self.random.uuid_v7(self.now()));
        for _ in 0..TRIES {
            // What a peer chooses nobody else here would; and it is asked over the network.
            let alone = !self.topology.pairings.contains_key(&intent.environment_id);
            let _turn = if alone { Some(self.choosing.lock().await) } else { None };
            let negotiated = self.negotiate_new(id, &intent).await?.map_err(unsatisfiable)?;
            match self.write_new(caller, id, &intent, negotiated, key.clone()).await {
                Err(AppError::Store(StoreError::AllocationTaken { .. })) => {}
                other => return other,
            }
        }
        Err(AppError::Contended { tries: TRIES })
    }

    /// Negotiates a new connection against what is allocated now.
    pub(super) async fn negotiate_new(
        &self,
        id: ConnectionId,
        intent: &ConnectionIntent,
    ) -> Result<Result<Negotiated, Unsatisfiable>, AppError> {
        let allocated = self.store.allocated(&Touched::of(&self.topology, intent)).await?;
        if let Some(pairing) = self.topology.pairings.get(&intent.environment_id) {
            return self.foresee(pairing, intent, &allocated, Room::New).await;
        }
        let request = Request { connection_id: id, intent, keep: BTreeMap::new(), refused: BTreeMap::new() };
        Ok(negotiate::negotiate(&self.topology, &allocated, &request))
    }

    /// Writes a negotiated connection: all or nothing.
    pub(super) async fn write_new(
        &self,
        caller: &Caller,
        id: ConnectionId,
        intent: &ConnectionIntent,
        negotiated: Negotiated,
        key: Option<IdempotencyKey>,
    ) -> Result<Accepted, AppError> {
        if let Some(pairing) = self.topology.pairings.get(&intent.environment_id) {
            return self.write_ordered(caller, id, intent, negotiated, pairing, key).await;
        }
        let secrets = self.seal_passwords(id, negotiated.channels.iter())?;
        let (mut new, accepted) = self.created(caller, id, intent, negotiated, None, key)?;
        new.secrets = secrets;
        match self.store.create_connection(new).await {
            Err(StoreError::IdempotencyReplay(answer)) => Accepted::again(*answer),
            other => {
                other?;
                Ok(accepted)
            }
        }
    }

    /// What is written of a new connection, and what is answered.
    pub(super) fn created(
        &self,
        caller: &Caller,
        id: ConnectionId,
        intent: &ConnectionIntent,
        negotiated: Negotiated,
        shared: Option<SharedLink>,
        key: Option<IdempotencyKey>,
    ) -> Result<(NewConnection, Accepted), serde_json::Error> {
        let now = self.now();
        let operation = self.new_operation(OperationKind::Create, id, 1, now);
        let subject = format!("/v1/connections/{id}");
        let mut record = self.new_record(&caller.project, id, intent, negotiated.clone(), operation.id, now);
        record.shared = shared;
        let accepted = Accepted::new(
            &view::connection(&record, &self.topology, now),
            key.as_ref().map_or([0; 32], |key| key.digest),
        )?;
        let new = NewConnection {
            id,
            project: caller.project.clone(),
            kind: record.kind,
            intent: intent.clone(),
            allocations: negotiate::allocations(&negotiated, &self.topology),
            secrets: Vec::new(),
            negotiated,
            event: self.event(caller, "connection.created", &subject, 1, json!({"name": intent.name}), now),
            audit: caller.audit(subject, now),
            operation,
            idempotency: key.map(|key| (key, accepted.answer.clone())),
            shared: record.shared.map(|link| (link.peer, link.uuid)),
            at: now,
        };
        Ok((new, accepted))
    }

    pub(super) fn new_operation(
        &self,
        kind: OperationKind,
        target: ConnectionId,
        generation: u64,
        now: Timestamp,
    ) -> Operation {
        Operation {
            id: OperationId(self.random.uuid_v7(now)),
            kind,
            target,
            generation,
            state: OperationState::Running,
            stages: Vec::new(),
            problem: None,
            created_at: now,
            finished_at: None,
        }
    }

    fn event(
        &self,
        caller: &Caller,
        kind: &str,
        subject: &str,
        generation: u64,
        data: serde_json::Value,
        now: Timestamp,
    ) -> NewEvent {
        NewEvent {
            project: caller.project.clone(),
            time: now,
            kind: kind.to_owned(),
            subject: subject.to_owned(),
            generation: Some(generation),
            cause: caller.principal.clone(),
            data,
        }
    }

    /// The record as the store will have it right after the commit.
    pub(super) fn new_record(
        &self,
        project: &ProjectId,
        id: ConnectionId,
        intent: &ConnectionIntent,
        negotiated: Negotiated,
        operation: OperationId,
        now: Timestamp,
    ) -> ConnectionRecord {
        let kind = self.topology.environments.get(&intent.environment_id).map_or(ConnectionKind::Direct, |e| e.kind);
        ConnectionRecord {
            id,
            project: project.clone(),
            kind,
            shared: self.topology.pairings.get(&intent.environment_id).map(|pairing| ordered(pairing, now)),
            intent: intent.clone(),
            generation: 1,
            observed_generation: 0,
            negotiated,
            status: EngineStatus::default(),
            instances: Vec::new(),
            samples: Vec::new(),
            path_conditions: Vec::new(),
            gateway_ends: BTreeMap::new(),
            last_operation: operation,
            created_at: now,
            updated_at: now,
            given_up: BTreeMap::new(),
            deletion_requested_at: None,
        }
    }

    /// Draws and seals the BGP password of each channel where both sides take one.
    pub(super) fn seal_passwords<'a>(
        &self,
        id: ConnectionId,
        channels: impl Iterator<Item = &'a NegotiatedChannel>,
    ) -> Result<Vec<SealedSecret>, AppError> {
        let mut sealed = Vec::new();
        for channel in channels {
            let Some(rule) = negotiate::password_rule(&self.topology, channel) else { continue };
            sealed.push(self.vault.new_password(id, &channel.channel_id, channel.generation, &rule)?);
        }
        Ok(sealed)
    }
}

/// Channels by id, as [`Request::keep`] wants them.
fn by_id<'a>(channels: impl Iterator<Item = &'a NegotiatedChannel>) -> BTreeMap<ChannelId, NegotiatedChannel> {
    channels.map(|channel| (channel.channel_id.clone(), channel.clone())).collect()
}
