//! Writing the intent: a connection with everything that belongs to it, or nothing.

use tieline_openapi::{ids::ConnectionId, v1::Operation};

use super::{
    SqlStore, allocations, answers, carried,
    error::is_unique,
    operations, principals,
    row::{args, to_doc, to_word},
    tx::Tx,
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
        // First of all: a repeated request finds its answer, not its own connection in the way.
        if let Some((key, answer)) = &new.idempotency {
            answers::save(&mut write, key, answer).await?;
        }
        let written = write
            .execute(
                "INSERT INTO connections (id, project, name, environment_id, a_attach_point_id, b_attach_point_id, kind,
                     generation, last_operation_id, created_at, updated_at, due_at, last_progress_at,
                     intent, negotiated, status)
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $10, {now}, {now}, $11, $12, $13)
                 ON CONFLICT (project, name) DO NOTHING",
                args![
                    new.id.uuid(),
                    new.project.as_str(),
                    &new.intent.name,
                    new.intent.environment_id.as_str(),
                    new.intent.a.attach_point_id.as_str(),
                    new.intent.b.attach_point_id.as_str(),
                    to_word("kind", &new.kind)?,
                    new.operation.generation.max(1),
                    new.operation.id.uuid(),
                    new.at,
                    to_doc("intent", &new.intent)?,
                    to_doc("negotiated configuration", &new.negotiated)?,
                    to_doc("status", &EngineStatus::default())?
                ],
            )
            .await?;
        if written == 0 {
            let holder = holder(&mut write, new.project.as_str(), &new.intent.name).await?;
            // Gone again between the two statements: the name is free, the caller may try again.
            return Err(holder.map_or_else(
                || StoreError::AllocationTaken { what: "the name".to_owned() },
                |holder| StoreError::NameTaken { holder },
            ));
        }
        for channel in &new.negotiated.channels {
            put_channel(&mut write, new.id, channel).await?;
        }
        put_secrets(&mut write, new.id, new.secrets).await?;
        allocations::take(&mut write, new.id, new.allocations).await?;
        carried::enter(&mut write, new.id, &new.intent).await?;
        operations::insert(&mut write, new.project.as_str(), &new.operation).await?;
        principals::audit(&mut write, &new.audit).await?;
        write.event(new.event);
        write.configuration_changed();
        write.connection_due();
        write.commit().await
    }

    pub(super) async fn update_connection(&self, change: ConnectionChange) -> Result<(), StoreError> {
        let mut write = self.write().await?;
        if let Some((key, answer)) = &change.idempotency {
            answers::save(&mut write, key, answer).await?;
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
                if let Some(holder) = holder(&mut write, change.project.as_str(), &name).await?
                    && holder != change.id
                {
                    return Err(StoreError::NameTaken { holder });
                }
                let changed = set_intent(&mut write, change.id, &intent, &negotiated).await;
                if changed.as_ref().is_err_and(is_unique) {
                    // On Postgres the other one may have committed since the look above, which ends this transaction.
                    drop(write);
                    let mut tx = self.read().await?;
                    let holder = holder(&mut tx, change.project.as_str(), &name).await?;
                    return Err(StoreError::NameTaken { holder: holder.unwrap_or(change.id) });
                }
                changed?;
                carried::enter(&mut write, change.id, &intent).await?;
                put_secrets(&mut write, change.id, secrets).await?;
                allocations::take(&mut write, change.id, allocations).await?;
            }
        }
        supersede(&mut write, change.id, &change.operation).await?;
        operations::insert(&mut write, change.project.as_str(), &change.operation).await?;
        principals::audit(&mut write, &change.audit).await?;
        write.event(change.event);
        write.configuration_changed();
        write.connection_due();
        write.commit().await
    }
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
         SET name = $2, environment_id = $3, a_attach_point_id = $4, b_attach_point_id = $5, intent = $6, negotiated = $7
         WHERE id = $1",
        args![
            id.uuid(),
            &intent.name,
            intent.environment_id.as_str(),
            intent.a.attach_point_id.as_str(),
            intent.b.attach_point_id.as_str(),
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
        operations::replace(tx, &operation).await?;
    }
    Ok(())
}
