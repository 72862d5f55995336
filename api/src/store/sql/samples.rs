//! What gateways report: the latest sample of each path, and a history of one row a minute.

use std::collections::BTreeSet;

use tieline_openapi::{
    ids::{ConnectionId, GatewayId},
    v1::{Observations, PathSample, Timestamp},
};

use super::{
    SqlStore,
    row::{Value, args, to_doc, to_word},
    tx::Tx,
};
use crate::store::{KeptCondition, ReportEffects, StoreError};

const MINUTE_MS: i64 = 60_000;

async fn put_sample(tx: &mut Tx, gateway: GatewayId, sample: &PathSample) -> Result<(), StoreError> {
    let path = || -> Result<Vec<Value>, StoreError> {
        Ok(args![sample.connection_id.uuid(), gateway.uuid(), sample.peer_id.uuid(), to_word("path", &sample.path)?])
    };
    let mut args = path()?;
    args.extend(args![sample.at, to_doc("sample", sample)?]);
    // Samples of one report may stand in any order.
    tx.execute(
        "INSERT INTO latest_samples (connection_id, gateway_id, peer_id, path, at, doc) VALUES ($1, $2, $3, $4, $5, $6)
         ON CONFLICT (connection_id, gateway_id, peer_id, path) DO UPDATE SET at = excluded.at, doc = excluded.doc
         WHERE latest_samples.at <= excluded.at",
        args,
    )
    .await?;
    let mut args = path()?;
    args.extend(args![
        sample.at.as_millisecond().div_euclid(MINUTE_MS),
        sample.sent,
        sample.received,
        sample.rtt_us,
        sample.rtt_p99_us,
        sample.dead_ports,
        sample.bytes_out,
        sample.bytes_in
    ]);
    tx.execute(
        "INSERT INTO sample_minutes (connection_id, gateway_id, peer_id, path, minute, sent, received, rtt_min_us,
             rtt_p99_max_us, dead_ports_max, bytes_out, bytes_in)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)
         ON CONFLICT (connection_id, gateway_id, peer_id, path, minute) DO UPDATE
         SET sent = sample_minutes.sent + excluded.sent, received = sample_minutes.received + excluded.received,
             rtt_min_us = CASE WHEN sample_minutes.rtt_min_us <= excluded.rtt_min_us THEN sample_minutes.rtt_min_us
                               ELSE COALESCE(excluded.rtt_min_us, sample_minutes.rtt_min_us) END,
             rtt_p99_max_us = CASE WHEN sample_minutes.rtt_p99_max_us >= excluded.rtt_p99_max_us
                                   THEN sample_minutes.rtt_p99_max_us
                                   ELSE COALESCE(excluded.rtt_p99_max_us, sample_minutes.rtt_p99_max_us) END,
             dead_ports_max = CASE WHEN sample_minutes.dead_ports_max >= excluded.dead_ports_max
                                   THEN sample_minutes.dead_ports_max ELSE excluded.dead_ports_max END,
             bytes_out = sample_minutes.bytes_out + excluded.bytes_out,
             bytes_in = sample_minutes.bytes_in + excluded.bytes_in",
        args,
    )
    .await?;
    Ok(())
}

async fn put_conditions(tx: &mut Tx, connection: ConnectionId, all: &[KeptCondition]) -> Result<(), StoreError> {
    for one in all {
        tx.execute(
            "INSERT INTO path_conditions (connection_id, type, status, since) VALUES ($1, $2, $3, $4)
             ON CONFLICT (connection_id, type) DO UPDATE SET status = excluded.status, since = excluded.since",
            args![connection.uuid(), to_word("condition", &one.kind)?, to_word("condition", &one.status)?, one.since],
        )
        .await?;
    }
    Ok(())
}

impl SqlStore {
    pub(super) async fn take_report(
        &self,
        gateway: GatewayId,
        observations: &Observations,
        at: Timestamp,
        effects: ReportEffects,
    ) -> Result<bool, StoreError> {
        let mut write = self.write().await?;
        let row = write
            .row(
                "UPDATE gateways SET last_sequence = $2, last_heard_at = $3, configuration_version = $4
                 WHERE id = $1 AND last_sequence < $2 RETURNING attach_point_id, project",
                args![gateway.uuid(), observations.sequence, at, observations.configuration_version],
            )
            .await?;
        let Some(mut row) = row else {
            let known = write.row("SELECT id FROM gateways WHERE id = $1", args![gateway.uuid()]).await?;
            return if known.is_some() { Ok(false) } else { Err(StoreError::NotFound) };
        };
        let (attach_point, project) = (row.text()?, row.text()?);
        // A gateway speaks for the connections of its own network only; late words about a deleted one are dropped.
        let served: BTreeSet<ConnectionId> = write
            .rows(
                "SELECT id FROM connections
                 WHERE project = $2 AND (a_attach_point_id = $1 OR b_attach_point_id = $1)",
                args![attach_point, project],
            )
            .await?
            .into_iter()
            .map(|mut row| row.id())
            .collect::<Result<_, _>>()?;
        for sample in &observations.samples {
            if served.contains(&sample.connection_id) {
                put_sample(&mut write, gateway, sample).await?;
            }
        }
        for (connection, conditions) in effects.conditions {
            if served.contains(&connection) {
                put_conditions(&mut write, connection, &conditions).await?;
            }
        }
        for event in effects.events {
            write.event(event);
        }
        write.commit().await?;
        Ok(true)
    }

    pub(super) async fn samples_of(&self, connection: ConnectionId) -> Result<Vec<PathSample>, StoreError> {
        let mut tx = self.look().await?;
        let rows = tx
            .rows(
                "SELECT doc FROM latest_samples WHERE connection_id = $1 ORDER BY gateway_id, peer_id, path",
                args![connection.uuid()],
            )
            .await?;
        tx.done().await?;
        rows.into_iter().map(|mut row| row.doc("sample")).collect()
    }
}
