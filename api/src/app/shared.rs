//! Connections that are shared with a provider that we are paired with: made with an activation key or from one, changed, moved
//! and ended. What is agreed stands in the peer's book, and is written in one transaction with the intent.

use serde_json::json;
use tieline_openapi::{
    coordinator::Sensitive,
    ids::{ConnectionId, EnvironmentId, InterconnectId},
    v1::{
        ActivationKeyAcceptance, AddressFamily, ConnectionIntent, DecodedActivationKey, Fallback, Migration,
        OperationKind, Redundancy, Routing, Timestamp, Wanted,
    },
};
use uuid::Uuid;

use super::{
    App, AppError, Caller,
    connections::{Accepted, Change, IfMatch, changed_fields},
    error::field,
    intent,
};
use crate::{
    coordinator::{Asked, Coordination, CoordinationError, Decoded, Foreseen, Order},
    plan::{
        coordinate::{IssuedKey, Room, Standing, WishError},
        negotiate::{Allocated, Negotiated, Unsatisfiable},
    },
    store::{ChangeTo, ConnectionRecord, IdempotencyKey, IntentWrite, SharedLink, StoreError},
    topology::Pairing,
};

/// A connection whose activation key is handed out now.
pub(super) fn ordered(pairing: &Pairing, now: Timestamp) -> SharedLink {
    let key = IssuedKey {
        uuid: Uuid::nil(),
        environment: pairing.environment.clone(),
        bandwidth_mbps: 0,
        digest: [0; 32],
        issued_at: now,
        spent: false,
    };
    let standing = Standing { us: String::new(), them: pairing.peer.to_string(), key: Some(key), places: Vec::new() };
    SharedLink { peer: pairing.peer.clone(), uuid: Uuid::nil(), ended: None, standing: Some(standing) }
}

/// What a changed intent asks of the peer: another bandwidth, unless it has that already.
pub(super) fn bandwidth_asked(record: &ConnectionRecord, intent: &ConnectionIntent) -> Asked {
    let standing = record.shared.as_ref().and_then(|shared| shared.standing.as_ref());
    let has = standing.and_then(Standing::bandwidth).unwrap_or(record.intent.bandwidth_mbps);
    if has == intent.bandwidth_mbps { Asked::Nothing } else { Asked::Bandwidth(intent.bandwidth_mbps.get()) }
}

impl App {
    fn paired(&self) -> Result<&Coordination, AppError> {
        self.coordination.as_deref().ok_or(AppError::NotPaired)
    }

    /// Looks up how connections stand with their peers.
    pub(super) async fn stand(&self, records: &mut [ConnectionRecord]) -> Result<(), AppError> {
        if records.iter().all(|record| record.shared.is_none()) {
            return Ok(());
        }
        if let Some(coordination) = &self.coordination {
            coordination.stand(records).await?;
        }
        Ok(())
    }

    /// What is known of an intent before the peer is asked. What is agreed is negotiated elsewhere.
    pub(super) async fn foresee(
        &self,
        pairing: &Pairing,
        intent: &ConnectionIntent,
        allocated: &Allocated,
        room: Room,
    ) -> Result<Result<Negotiated, Unsatisfiable>, AppError> {
        let points = &self.topology.attach_points;
        let findings = self.paired()?.check(pairing, intent, points, allocated, room).await?;
        let (refused, exhausted) = (findings.any_error(), findings.only_exhausted());
        let findings = findings.into_vec();
        if refused {
            return Ok(Err(Unsatisfiable { findings, exhausted }));
        }
        let mut negotiated = Negotiated::elsewhere(&intent.environment_id, nowhere(&intent.environment_id)?);
        negotiated.findings = findings;
        Ok(Ok(negotiated))
    }

    /// Writes a new connection and its activation key: all or nothing.
    pub(super) async fn write_ordered(
        &self,
        caller: &Caller,
        id: ConnectionId,
        intent: &ConnectionIntent,
        negotiated: Negotiated,
        pairing: &Pairing,
        key: Option<IdempotencyKey>,
    ) -> Result<Accepted, AppError> {
        let account = intent.b.remote_account_id.as_deref().unwrap_or_default();
        let uuid = self.fresh_uuid();
        let order = Order { pairing, uuid, bandwidth: intent.bandwidth_mbps, remote_account: account };
        let issued = self.paired()?.issue_key(order, |standing: Standing| -> Result<_, serde_json::Error> {
            let link = SharedLink { peer: pairing.peer.clone(), uuid, ended: None, standing: Some(standing) };
            let (new, accepted) = self.created(caller, id, intent, negotiated.clone(), Some(link), key.clone())?;
            Ok((IntentWrite::New(Box::new(new)), accepted))
        });
        match issued.await {
            Ok((text, accepted)) => Ok(Accepted { activation_key: Some(text), ..accepted }),
            Err(CoordinationError::KeyContents(wrong)) => {
                Err(AppError::Invalid(vec![field("/b/remoteAccountId", wrong.to_string())]))
            }
            Err(error) => refused(error),
        }
    }

    fn fresh_uuid(&self) -> Uuid {
        let mut bytes = [0; 16];
        self.random.fill(&mut bytes);
        uuid::Builder::from_random_bytes(bytes).into_uuid()
    }

    /// Makes a connection from an activation key of another provider.
    ///
    /// # Errors
    /// [`AppError::Invalid`], [`AppError::Unsatisfiable`], [`AppError::NameTaken`], [`AppError::KeyBrought`],
    /// [`AppError::KeyReused`], [`AppError::NotPaired`], [`AppError::Coordination`], or the store's.
    pub async fn accept(
        &self,
        caller: &Caller,
        acceptance: &ActivationKeyAcceptance,
        key: Option<IdempotencyKey>,
    ) -> Result<Accepted, AppError> {
        if let Some(done) = self.replay(key.as_ref()).await? {
            return Ok(done);
        }
        let decoded = self.decoded(caller, &acceptance.activation_key).await?;
        let intent = self.accepted_intent(acceptance, &decoded)?;
        let id = ConnectionId(self.random.uuid_v7(self.now()));
        let negotiated = self.negotiate_new(id, &intent).await?;
        let negotiated = negotiated.map_err(|refusal| AppError::Unsatisfiable(refusal.findings))?;
        let uuid = decoded.contents.shared_connection_uuid;
        let accepted = self.paired()?.accept_key(
            &acceptance.activation_key,
            &decoded,
            &caller.project,
            |standing: Standing| -> Result<_, serde_json::Error> {
                let link = SharedLink { peer: decoded.peer.clone(), uuid, ended: None, standing: Some(standing) };
                let (new, accepted) = self.created(caller, id, &intent, negotiated.clone(), Some(link), key.clone())?;
                Ok((IntentWrite::New(Box::new(new)), accepted))
            },
        );
        accepted.await.or_else(refused)
    }

    /// The intent of an acceptance, and how it would stand.
    pub(super) async fn foreseen(
        &self,
        caller: &Caller,
        acceptance: &ActivationKeyAcceptance,
    ) -> Result<(ConnectionIntent, SharedLink, Foreseen), AppError> {
        let decoded = self.decoded(caller, &acceptance.activation_key).await?;
        let intent = self.accepted_intent(acceptance, &decoded)?;
        let standing = self.paired()?.foresee(&decoded).await?;
        let foreseen = self.paired()?.rehearse_acceptance(&decoded).await?;
        let uuid = decoded.contents.shared_connection_uuid;
        Ok((intent, SharedLink { peer: decoded.peer, uuid, ended: None, standing: Some(standing) }, foreseen))
    }

    /// What follows when a key for this intent is handed out, and brought.
    pub(super) async fn order_foreseen(
        &self,
        pairing: &Pairing,
        intent: &ConnectionIntent,
    ) -> Result<Foreseen, AppError> {
        Ok(self.paired()?.rehearse_order(pairing, intent.bandwidth_mbps.get()).await?)
    }

    /// What follows when this is wished of a connection.
    pub(super) async fn change_foreseen(&self, link: &SharedLink, asked: &Asked) -> Result<Foreseen, AppError> {
        self.paired()?.rehearse(link, asked).await.map_err(at_target)
    }

    /// Tells what an activation key says.
    ///
    /// # Errors
    /// [`AppError::Invalid`], [`AppError::NotPaired`], [`AppError::Coordination`], or the store's.
    pub async fn decode(&self, caller: &Caller, text: &Sensitive) -> Result<DecodedActivationKey, AppError> {
        let decoded = self.paired()?.decode(text).await.map_err(at_key)?;
        let environment_id = self.environment_of(&decoded)?.clone();
        let contents = decoded.contents;
        Ok(DecodedActivationKey {
            version: decoded.version,
            provider: decoded.peer.to_string(),
            environment_id,
            shared_connection_uuid: contents.shared_connection_uuid,
            bandwidth_mbps: contents.bandwidth,
            for_this_project: contents.destination_account_id == caller.project.as_str(),
            destination_account_id: contents.destination_account_id,
        })
    }

    /// A key that is for the project that brings it, or is nobody's here.
    async fn decoded(&self, caller: &Caller, text: &Sensitive) -> Result<Decoded, AppError> {
        let decoded = self.paired()?.decode(text).await.map_err(at_key)?;
        if decoded.contents.destination_account_id == caller.project.as_str() {
            Ok(decoded)
        } else {
            Err(at_key(CoordinationError::KeyOfAnother))
        }
    }

    fn environment_of(&self, decoded: &Decoded) -> Result<&EnvironmentId, AppError> {
        let mut all = self.topology.pairings.iter();
        let found = all.find(|(_, p)| p.peer == decoded.peer && p.environment == decoded.environment);
        found.map(|(id, _)| id).ok_or_else(|| at_key(CoordinationError::KeyElsewhere))
    }

    fn accepted_intent(
        &self,
        acceptance: &ActivationKeyAcceptance,
        decoded: &Decoded,
    ) -> Result<ConnectionIntent, AppError> {
        let intent = ConnectionIntent {
            name: acceptance.name.clone(),
            environment_id: self.environment_of(decoded)?.clone(),
            bandwidth_mbps: decoded.contents.bandwidth,
            redundancy: Redundancy::default(),
            a: acceptance.a.clone(),
            b: acceptance.b.clone(),
            routing: Routing::default(),
            families: vec![AddressFamily::Ipv4],
            wanted: Wanted::default(),
            fallback: Fallback { tunnel: false, capacity_mbps: None },
            labels: acceptance.labels.clone(),
            description: acceptance.description.clone(),
            deletion_protection: acceptance.deletion_protection,
        };
        let errors = intent::check_brought(&intent, &self.topology);
        if errors.is_empty() { Ok(intent) } else { Err(AppError::Invalid(errors)) }
    }

    /// What a wish to move asks of the peer.
    pub(super) fn move_asked(&self, record: &ConnectionRecord, to: &Migration) -> Result<Asked, AppError> {
        if record.deletion_requested_at.is_some() {
            return Err(AppError::Deleting);
        }
        if record.shared.is_none() {
            return Err(AppError::NotShared);
        }
        let Some(wanted) = &to.interconnect_id else { return Ok(Asked::Move(None)) };
        let pairing = self.topology.pairings.get(&record.intent.environment_id);
        let mut interconnects = pairing.iter().flat_map(|pairing| &pairing.interconnects);
        let found = interconnects.find(|(_, shown)| *shown == wanted).map(|(id, _)| id.clone());
        let environment = &record.intent.environment_id;
        let none = || {
            let what = format!("environment `{environment}` has no interconnect `{wanted}`: see GET /v1/interconnects");
            AppError::Invalid(vec![field("/interconnectId", what)])
        };
        found.map(|id| Asked::Move(Some(id))).ok_or_else(none)
    }

    /// Moves a connection to another interconnect of its environment, make before break.
    ///
    /// # Errors
    /// [`AppError::Invalid`] where the target cannot be it, [`AppError::Stale`], [`AppError::Deleting`],
    /// [`AppError::NotShared`], [`AppError::Coordination`] without room or while it changes, [`AppError::KeyReused`], or the
    /// store's.
    pub async fn migrate(
        &self,
        caller: &Caller,
        id: ConnectionId,
        if_match: &IfMatch,
        to: &Migration,
        key: Option<IdempotencyKey>,
    ) -> Result<Accepted, AppError> {
        if let Some(done) = self.replay(key.as_ref()).await? {
            return Ok(done);
        }
        let record = self.record(&caller.project, id).await?;
        if_match.check(record.generation)?;
        self.write_move(caller, &record, to, key).await
    }

    /// Writes a move.
    pub(super) async fn write_move(
        &self,
        caller: &Caller,
        record: &ConnectionRecord,
        to: &Migration,
        key: Option<IdempotencyKey>,
    ) -> Result<Accepted, AppError> {
        let asked = self.move_asked(record, to)?;
        let data = json!({"name": record.intent.name, "interconnectId": to.interconnect_id});
        let to = (record.clone(), OperationKind::Migrate, ChangeTo::Place);
        let as_event = ("connection.migrationRequested", data);
        self.write_shared(caller, record, asked, to, as_event, key).await
    }

    /// Writes another intent, with what it asks of the peer.
    pub(super) async fn write_patched(
        &self,
        caller: &Caller,
        record: &ConnectionRecord,
        asked: Asked,
        change: Change,
        key: Option<IdempotencyKey>,
    ) -> Result<Accepted, AppError> {
        let data = json!({"changed": changed_fields(&record.intent, &change.intent)?});
        let after = ConnectionRecord { intent: change.intent.clone(), ..record.clone() };
        let to = ChangeTo::Intent {
            intent: Box::new(change.intent),
            negotiated: Box::new(change.negotiated),
            allocations: Vec::new(),
            secrets: Vec::new(),
        };
        let to = (after, OperationKind::Update, to);
        self.write_shared(caller, record, asked, to, ("connection.updated", data), key).await
    }

    /// Writes a change of a shared connection, in one transaction with what changes in the peer's book.
    pub(super) async fn write_shared(
        &self,
        caller: &Caller,
        record: &ConnectionRecord,
        asked: Asked,
        (after, kind, to): (ConnectionRecord, OperationKind, ChangeTo),
        as_event: (&str, serde_json::Value),
        key: Option<IdempotencyKey>,
    ) -> Result<Accepted, AppError> {
        let Some(link) = &record.shared else { return Err(AppError::NotShared) };
        // Before anything that it makes in the book: what is made is told from what was there by its time.
        let asked_at = self.now();
        let changed = self.paired()?.change(link, asked, |standing: Standing| -> Result<_, serde_json::Error> {
            let mut after = after.clone();
            after.shared = Some(SharedLink { standing: Some(standing), ..link.clone() });
            let to = (after, kind, to.clone());
            let (mut change, accepted) =
                self.changed(caller, record, to, (as_event.0, as_event.1.clone()), key.clone())?;
            change.operation.created_at = asked_at;
            Ok((IntentWrite::Change(Box::new(change)), accepted))
        });
        changed.await.or_else(refused)
    }
}

/// The placeholder of an interconnect: the peer's book says which one it is.
fn nowhere(environment: &EnvironmentId) -> Result<InterconnectId, AppError> {
    environment.as_str().parse().map_err(|error: tieline_openapi::ids::IdError| AppError::Store(error.into()))
}

/// What a refused write is answered with: under an idempotency key that was used meanwhile, its answer.
fn refused(error: CoordinationError) -> Result<Accepted, AppError> {
    if let CoordinationError::Store(StoreError::IdempotencyReplay(answer)) = error {
        return Accepted::again(*answer);
    }
    Err(at_target(error))
}

/// What is wrong with the place to move to is told at its field.
pub(super) fn at_target(error: CoordinationError) -> AppError {
    if let CoordinationError::Wish(wish @ (WishError::There | WishError::Closed | WishError::Full)) = &error {
        return AppError::Invalid(vec![field("/interconnectId", wish.to_string())]);
    }
    error.into()
}

/// What is wrong with a key is told at its field.
fn at_key(error: CoordinationError) -> AppError {
    let wrong = |message: String| AppError::Invalid(vec![field("/activationKey", message)]);
    match &error {
        CoordinationError::KeyText(_)
        | CoordinationError::KeyContents(_)
        | CoordinationError::KeyElsewhere
        | CoordinationError::KeyOfAnother
        | CoordinationError::Key(crate::secrets::ActivationKeyError::Unopened) => wrong(error.to_string()),
        CoordinationError::File { .. }
        | CoordinationError::Pem { .. }
        | CoordinationError::Tls(_)
        | CoordinationError::Peer(_)
        | CoordinationError::Store(_)
        | CoordinationError::Secret(_)
        | CoordinationError::Passwords(_)
        | CoordinationError::Answer(_)
        | CoordinationError::Key(_)
        | CoordinationError::Wire(_)
        | CoordinationError::Wish(_)
        | CoordinationError::NoChannel(_)
        | CoordinationError::Rotation(_)
        | CoordinationError::Window(_)
        | CoordinationError::NoPeer(_)
        | CoordinationError::Proof(_)
        | CoordinationError::Contended
        | CoordinationError::Router(_)
        | CoordinationError::Lost(_) => error.into(),
    }
}
