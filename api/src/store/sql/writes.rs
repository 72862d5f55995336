//! The engine's writes, one by one, inside the transaction that its fence began.

use tieline_openapi::ids::ChannelId;

use super::{
    allocations, asked, claims, connections, events, foreign, ledger, operations,
    row::{args, to_doc},
    tx::Write,
    watch,
};
use crate::{
    plan::negotiate::{Negotiated, NegotiatedChannel},
    store::{Allocation, Claim, EngineWrite, SealedSecret, StoreError},
};

/// Applies one write. Without a claim only what belongs to no connection may be written.
pub(super) async fn apply(write: &mut Write, claim: Option<&Claim>, one: EngineWrite) -> Result<(), StoreError> {
    match one {
        EngineWrite::Event(event) => {
            write.event(event);
            Ok(())
        }
        EngineWrite::RaiseIssue { project, issue } => events::raise(write, &project, &issue).await,
        EngineWrite::ResolveIssue { code, subject, at } => events::resolve(write, &code, &subject, at).await,
        EngineWrite::PutForeign { account_id, whole, holdings } => {
            foreign::put(write, &account_id, &whole, holdings).await
        }
        EngineWrite::FoundTwin { id, twin, cloud_id } => {
            write.connection_due();
            ledger::found_twin(write, id, twin, cloud_id).await
        }
        owned @ (EngineWrite::PutInstance(_)
        | EngineWrite::UpdateInstance(_)
        | EngineWrite::RetireInstance(_)
        | EngineWrite::OpenCall { .. }
        | EngineWrite::DecideCall { .. }
        | EngineWrite::RefuseAnswer { .. }
        | EngineWrite::PutChannel { .. }
        | EngineWrite::GiveBack { .. }
        | EngineWrite::RetireChannel { .. }
        | EngineWrite::PutStatus { .. }
        | EngineWrite::PutWatch(_)
        | EngineWrite::PutOperation(_)
        | EngineWrite::Remove { .. }
        | EngineWrite::Release { .. }) => {
            let claim = claim.ok_or_else(|| StoreError::Invalid {
                reason: "a write that belongs to a connection came without a claim".to_owned(),
            })?;
            apply_owned(write, claim, owned).await
        }
    }
}

async fn apply_owned(write: &mut Write, claim: &Claim, one: EngineWrite) -> Result<(), StoreError> {
    match one {
        EngineWrite::PutInstance(instance) => {
            if ledger::new_instance(write, claim.id, &instance).await? {
                write.configuration_changed();
            }
        }
        EngineWrite::UpdateInstance(instance) => {
            if ledger::put_instance(write, claim.id, &instance).await? {
                write.configuration_changed();
            }
        }
        EngineWrite::RetireInstance(id) => {
            ledger::retire_instance(write, claim.id, id).await?;
            write.configuration_changed();
        }
        EngineWrite::OpenCall { call, key, account_id, name, token, digest } => {
            let about = ledger::About { key, account_id, name, token, digest };
            ledger::open_call(write, claim, &call, about).await?;
        }
        EngineWrite::DecideCall { id, verdict, at, cloud_id, request_id } => {
            ledger::decide_call(write, claim.id, id, &verdict, at, cloud_id, request_id).await?;
        }
        EngineWrite::RefuseAnswer { id, answer } => asked::refuse(write, claim.id, id, &answer).await?,
        EngineWrite::PutChannel { channel, allocations, secrets } => {
            put_channel(write, claim, &channel, allocations, secrets).await?;
        }
        EngineWrite::GiveBack { allocations, quarantine_ms } => {
            allocations::give_back(write, claim.id, allocations, quarantine_ms).await?;
        }
        EngineWrite::RetireChannel { channel_id, generation, quarantine_ms } => {
            retire_channel(write, claim, &channel_id, generation, quarantine_ms).await?;
        }
        EngineWrite::PutStatus { status, observed_generation } => {
            if claims::put_status(write, claim, &status, observed_generation).await? {
                write.configuration_changed();
            }
        }
        EngineWrite::PutWatch(to) => watch::put(write, claim.id, to).await?,
        EngineWrite::PutOperation(operation) => operations::replace(write, claim.id, &operation).await?,
        EngineWrite::Remove { .. } if claim.gone => rest(write, claim).await?,
        EngineWrite::Remove { quarantine_ms } => {
            allocations::quarantine_all(write, claim.id, quarantine_ms).await?;
            remove(write, claim).await?;
            write.configuration_changed();
        }
        EngineWrite::Release { due_in_ms, failures, progress } => {
            claims::release(write, claim, due_in_ms, failures, progress).await?;
            write.connection_due();
        }
        EngineWrite::Event(_)
        | EngineWrite::RaiseIssue { .. }
        | EngineWrite::ResolveIssue { .. }
        | EngineWrite::FoundTwin { .. }
        | EngineWrite::PutForeign { .. } => {}
    }
    Ok(())
}

/// What the connection wants now: the user may have changed it since the claim.
async fn wanted(write: &mut Write, claim: &Claim) -> Result<Negotiated, StoreError> {
    write
        .row("SELECT negotiated FROM connections WHERE id = $1", args![claim.id.uuid()])
        .await?
        .ok_or(StoreError::Fenced)?
        .doc("negotiated configuration")
}

async fn put_channel(
    write: &mut Write,
    claim: &Claim,
    channel: &NegotiatedChannel,
    allocations: Vec<Allocation>,
    secrets: Vec<SealedSecret>,
) -> Result<(), StoreError> {
    connections::put_channel(write, claim.id, channel).await?;
    connections::put_secrets(write, claim.id, secrets).await?;
    allocations::take(write, claim.id, allocations).await?;
    // A channel that the intent has dropped meanwhile does not come back.
    if let Some(negotiated) = wanted(write, claim).await?.replaced(channel) {
        write
            .execute(
                "UPDATE connections SET negotiated = $2 WHERE id = $1",
                args![claim.id.uuid(), to_doc("negotiated configuration", &negotiated)?],
            )
            .await?;
    }
    write.configuration_changed();
    Ok(())
}

async fn retire_channel(
    write: &mut Write,
    claim: &Claim,
    channel: &ChannelId,
    generation: u32,
    quarantine_ms: u64,
) -> Result<(), StoreError> {
    let one = || args![claim.id.uuid(), channel.as_str(), generation];
    write
        .execute(
            "UPDATE channel_configurations SET retired_at = {now}
             WHERE connection_id = $1 AND channel_id = $2 AND generation = $3 AND retired_at IS NULL",
            one(),
        )
        .await?;
    write
        .execute("DELETE FROM secrets WHERE connection_id = $1 AND channel_id = $2 AND generation = $3", one())
        .await?;
    let wanted = wanted(write, claim).await?;
    allocations::quarantine(write, claim.id, channel, generation, quarantine_ms, &wanted).await?;
    write.configuration_changed();
    Ok(())
}

/// A connection that is gone is due again only if something of it turned up meanwhile.
const DUE_IF_TWINS: &str =
    "CASE WHEN EXISTS (SELECT 1 FROM twins WHERE connection_id = $1 AND retired_at IS NULL) THEN {now} END";

/// What turned up of a connection that is gone is gone too.
async fn rest(write: &mut Write, claim: &Claim) -> Result<(), StoreError> {
    let sql = format!(
        "UPDATE gone_connections
         SET lease_epoch = lease_epoch + 1, lease_owner = NULL, lease_until = NULL, wake = 0, failures = 0,
             due_at = {DUE_IF_TWINS}
         WHERE id = $1"
    );
    write.execute(&sql, args![claim.id.uuid()]).await?;
    Ok(())
}

/// The row goes where nobody looks but the engine, if something turns up later, and with it go its channels and secrets; the
/// ledger, operations and events stay.
async fn remove(write: &mut Write, claim: &Claim) -> Result<(), StoreError> {
    write
        .execute(
            "UPDATE instances SET retired_at = {now} WHERE connection_id = $1 AND retired_at IS NULL",
            args![claim.id.uuid()],
        )
        .await?;
    for table in ["latest_samples", "sample_minutes", "path_conditions"] {
        write.execute(&format!("DELETE FROM {table} WHERE connection_id = $1"), args![claim.id.uuid()]).await?;
    }
    const KEPT: &str = "id, project, kind, generation, observed_generation, last_operation_id, created_at, updated_at,
        deletion_requested_at, intent, negotiated, status";
    let sql = format!(
        "INSERT INTO gone_connections ({KEPT}, gone_at, lease_epoch, last_progress_at, due_at)
         SELECT {KEPT}, {{now}}, lease_epoch + 1, {{now}}, {DUE_IF_TWINS} FROM connections WHERE id = $1"
    );
    write.execute(&sql, args![claim.id.uuid()]).await?;
    write.execute("DELETE FROM connections WHERE id = $1", args![claim.id.uuid()]).await?;
    Ok(())
}
