//! Writing the intent: a connection with everything that belongs to it, or nothing.

use tieline_openapi::{
    ids::{ConnectionId, ProjectId},
    v1::{End, Operation},
};

use super::{
    SqlStore, allocations, answers, carried,
    error::is_unique,
    operations, principals,
    row::{args, to_doc, to_word},
    tx::{Tx, Write},
};
use crate::{
    plan::negotiate::{Negotiated, NegotiatedChannel},
    store::{ChangeTo, ConnectionChange, EngineStatus, NewConnection, SealedSecret, StoreError},
};

/// Writes a channel's configuration; one of a generation that is there already is replaced.
pub(super) async fn put_channel(
    tx: &mut Tx,
    connection: ConnectionId,
    channel: &NegotiatedChannel,
) -> Result<(), StoreError> {
    tx.execute(
        "INSERT INTO channel_configurations (connection_id, channel_id, generation, doc) VALUES ($1, $2, $3, $4)
         ON CONFLICT (connection_id, channel_id, generation) DO UPDATE SET doc = excluded.doc",
        args![
            connection.uuid(),
            channel.channel_id.as_str(),
            channel.generation,
            to_doc("channel configuration", channel)?
        ],
    )
    .await?;
    Ok(())
}

/// Writes sealed secrets.
pub(super) async fn put_secrets(
    tx: &mut Tx,
    connection: ConnectionId,
    secrets: Vec<SealedSecret>,
) -> Result<(), StoreError> {
    for secret in secrets {
        tx.execute(
            "INSERT INTO secrets (connection_id, channel_id, generation, name, sealed) VALUES ($1, $2, $3, $4, $5)
             ON CONFLICT (connection_id, channel_id, generation, name) DO UPDATE SET sealed = excluded.sealed",
            args![connection.uuid(), secret.channel_id.as_str(), secret.generation, secret.name, secret.sealed],
        )
        .await?;
    }
    Ok(())
}

/// Who holds a name.
async fn holder(tx: &mut Tx, project: &str, name: &str) -> Result<Option<ConnectionId>, StoreError> {
    tx.row("SELECT id FROM connections WHERE project = $1 AND name = $2", args![project, name])
        .await?
        .map(|mut row| row.id())
        .transpose()
}

impl SqlStore {
    pub(super) async fn insert_connection(&self, new: NewConnection) -> Result<(), StoreError> {
        let mut write = self.write().await?;
        insert(&mut write, new).await?;
        write.commit().await
    }

    pub(super) async fn update_connection(&self, wanted: ConnectionChange) -> Result<(), StoreError> {
        let mut write = self.write().await?;
        let named = Named::of(&wanted);
        match change(&mut write, wanted).await {
            Ok(()) => write.commit().await,
            Err(error) => {
                drop(write);
                Err(self.refused(named, error).await)
            }
        }
    }

    /// What refused a change. On Postgres another connection may have taken its name between the look and the write, which
    /// ends the transaction.
    pub(super) async fn refused(&self, named: Named, error: StoreError) -> StoreError {
        let Named { id, project, name: Some(name) } = named else { return error };
        if !is_unique(&error) {
            return error;
        }
        let found = async {
            let mut tx = self.read().await?;
            holder(&mut tx, project.as_str(), &name).await
        };
        found.await.map_or_else(|error| error, |found| StoreError::NameTaken { holder: found.unwrap_or(id) })
    }
}

/// Which name a change asks for.
pub(super) struct Named {
    id: ConnectionId,
    project: ProjectId,
    name: Option<String>,
}

impl Named {
    pub(super) fn of(change: &ConnectionChange) -> Self {
        let name = match &change.to {
            ChangeTo::Intent { intent, .. } => Some(intent.name.clone()),
            ChangeTo::Place | ChangeTo::Deletion => None,
        };
        Self { id: change.id, project: change.project.clone(), name }
    }
}

/// Writes a connection, all but the commit.
pub(super) async fn insert(write: &mut Write, new: NewConnection) -> Result<(), StoreError> {
    // First of all: a repeated request finds its answer, not its own connection in the way.
    if let Some((key, answer)) = &new.idempotency {
        answers::save(write, key, answer).await?;
    }
    if let Some((peer, uuid)) = &new.shared {
        let sql = "SELECT id FROM connections WHERE peer = $1 AND shared_uuid = $2";
        if let Some(mut row) = write.row(sql, args![peer.as_str(), uuid.to_string()]).await? {
            return Err(StoreError::KeyBrought { holder: row.id()? });
        }
    }
    let written = write
        .execute(
            "INSERT INTO connections (id, project, name, environment_id, a_attach_point_id, b_attach_point_id, kind,
                 generation, last_operation_id, created_at, updated_at, due_at, last_progress_at,
                 intent, negotiated, status, peer, shared_uuid, carried_of)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $10, {now}, {now}, $11, $12, $13, $14, $15, $8)
             ON CONFLICT (project, name) DO NOTHING",
            args![
                new.id.uuid(),
                new.project.as_str(),
                &new.intent.name,
                new.intent.environment_id.as_str(),
                new.intent.place(End::A),
                new.intent.place(End::B),
                to_word("kind", &new.kind)?,
                new.operation.generation.max(1),
                new.operation.id.uuid(),
                new.at,
                to_doc("intent", &new.intent)?,
                to_doc("negotiated configuration", &new.negotiated)?,
                to_doc("status", &EngineStatus::default())?,
                new.shared.as_ref().map(|(peer, _)| peer.to_string()),
                new.shared.as_ref().map(|(_, uuid)| uuid.to_string())
            ],
        )
        .await?;
    if written == 0 {
        let holder = holder(write, new.project.as_str(), &new.intent.name).await?;
        // Gone again between the two statements: the name is free, the caller may try again.
        return Err(holder.map_or_else(
            || StoreError::AllocationTaken { what: "the name".to_owned() },
            |holder| StoreError::NameTaken { holder },
        ));
    }
    for channel in &new.negotiated.channels {
        put_channel(write, new.id, channel).await?;
    }
    put_secrets(write, new.id, new.secrets).await?;
    allocations::take(write, new.id, new.allocations).await?;
    carried::enter(write, new.id, &new.intent).await?;
    operations::insert(write, new.project.as_str(), &new.operation).await?;
    principals::audit(write, &new.audit).await?;
    write.event(new.event);
    write.configuration_changed();
    write.connection_due();
    Ok(())
}

/// Changes a connection, all but the commit.
pub(super) async fn change(write: &mut Write, change: ConnectionChange) -> Result<(), StoreError> {
    if let Some((key, answer)) = &change.idempotency {
        answers::save(write, key, answer).await?;
    }
    // From here on the row is locked: the generation cannot move any more.
    let touched = write
        .execute(
            "UPDATE connections
             SET generation = generation + 1, updated_at = $4, last_operation_id = $5, due_at = {now}, wake = 1,
                 watch = 0, carried_of = CASE WHEN carried_of = generation THEN generation + 1 ELSE carried_of END
             WHERE id = $1 AND project = $2 AND generation = $3",
            args![
                change.id.uuid(),
                change.project.as_str(),
                change.expected_generation,
                change.at,
                change.operation.id.uuid()
            ],
        )
        .await?;
    if touched == 0 {
        let row = write
            .row(
                "SELECT generation FROM connections WHERE id = $1 AND project = $2",
                args![change.id.uuid(), change.project.as_str()],
            )
            .await?;
        let actual = row.ok_or(StoreError::NotFound)?.count()?;
        return Err(StoreError::StaleGeneration { wanted: change.expected_generation, actual });
    }
    match change.to {
        ChangeTo::Place => {}
        ChangeTo::Deletion => {
            write
                .execute(
                    "UPDATE connections SET deletion_requested_at = COALESCE(deletion_requested_at, $2)
                     WHERE id = $1",
                    args![change.id.uuid(), change.at],
                )
                .await?;
        }
        ChangeTo::Intent { intent, negotiated, allocations, secrets } => {
            let name = intent.name.clone();
            if let Some(holder) = holder(write, change.project.as_str(), &name).await?
                && holder != change.id
            {
                return Err(StoreError::NameTaken { holder });
            }
            set_intent(write, change.id, &intent, &negotiated).await?;
            carried::enter(write, change.id, &intent).await?;
            put_secrets(write, change.id, secrets).await?;
            allocations::take(write, change.id, allocations).await?;
        }
    }
    supersede(write, change.id, &change.operation).await?;
    operations::insert(write, change.project.as_str(), &change.operation).await?;
    principals::audit(write, &change.audit).await?;
    write.event(change.event);
    write.configuration_changed();
    write.connection_due();
    Ok(())
}

async fn set_intent(
    tx: &mut Tx,
    id: ConnectionId,
    intent: &tieline_openapi::v1::ConnectionIntent,
    negotiated: &Negotiated,
) -> Result<(), StoreError> {
    for channel in &negotiated.channels {
        // The engine may have walked the channel back since the caller negotiated, or a cloud may have told what it picked:
        // then what the caller has is void.
        let rows = tx
            .rows(
                "SELECT generation, retired_at, doc FROM channel_configurations
                 WHERE connection_id = $1 AND channel_id = $2 AND generation >= $3",
                args![id.uuid(), channel.channel_id.as_str(), channel.generation],
            )
            .await?;
        for mut row in rows {
            let (generation, retired_at) = (row.small()?, row.opt_int()?);
            let stored: NegotiatedChannel = row.doc("channel configuration")?;
            if generation > channel.generation || retired_at.is_some() || stored.learned_since(channel) {
                let what = format!("the configuration of channel {}, which has changed meanwhile,", channel.channel_id);
                return Err(StoreError::AllocationTaken { what });
            }
        }
        put_channel(tx, id, channel).await?;
    }
    tx.execute(
        "UPDATE connections
         SET name = $2, environment_id = $3, a_attach_point_id = $4, b_attach_point_id = $5, intent = $6, negotiated = $7,
             carried_of = generation
         WHERE id = $1",
        args![
            id.uuid(),
            &intent.name,
            intent.environment_id.as_str(),
            intent.place(End::A),
            intent.place(End::B),
            to_doc("intent", intent)?,
            to_doc("negotiated configuration", negotiated)?
        ],
    )
    .await?;
    Ok(())
}

/// Ends the operations that are not final: a newer one takes over.
async fn supersede(tx: &mut Tx, id: ConnectionId, by: &Operation) -> Result<(), StoreError> {
    let rows = tx
        .rows("SELECT doc FROM operations WHERE connection_id = $1 AND finished_at IS NULL", args![id.uuid()])
        .await?;
    for mut row in rows {
        let mut operation: Operation = row.doc("operation")?;
        operation.state = tieline_openapi::v1::OperationState::Superseded;
        operation.finished_at = Some(by.created_at);
        operations::replace(tx, id, &operation).await?;
    }
    Ok(())
}
