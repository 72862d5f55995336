//! Join tokens, gateways, and what their configurations are computed from.

use std::collections::{BTreeMap, BTreeSet};

use tieline_openapi::{
    ids::{ConnectionId, GatewayGroupId, GatewayId, ProjectId},
    v1::{Gateway, GatewayState, JoinRequest},
};

use super::{
    SqlStore, answers, kernel_lanes, principals, records,
    row::{Row, Value, args, to_doc},
    tunnel_keys,
};
use crate::store::{ConnectionRecord, GatewayInputs, NewGateway, NewJoinToken, Page, StoreError};

const COLUMNS: &str =
    "id, gateway_group, attach_point_id, request, configuration_version, last_heard_at, created_at, number";

fn gateway(row: &mut Row) -> Result<(Gateway, u32), StoreError> {
    let id = row.id()?;
    let group: GatewayGroupId = row.id()?;
    let attach_point_id = row.id()?;
    let request: JoinRequest = row.doc("gateway")?;
    let configuration_version = row.opt_int()?.map(|n| u64::try_from(n).unwrap_or(0));
    let last_heard_at = row.opt_time()?;
    let gateway = Gateway {
        id,
        group,
        attach_point_id,
        name: request.name,
        private_address: request.private_address,
        lanes: request.lanes,
        steering: request.steering,
        // Whether it fell silent is for the reader to tell, who knows the time and the report interval.
        state: if last_heard_at.is_some() { GatewayState::Live } else { GatewayState::Joined },
        configuration_version,
        last_heard_at,
        created_at: row.time()?,
    };
    Ok((gateway, row.small()?))
}

impl SqlStore {
    pub(super) async fn add_join_token(&self, project: &ProjectId, new: NewJoinToken) -> Result<(), StoreError> {
        let mut write = self.write().await?;
        if let Some((key, answer)) = &new.idempotency {
            answers::save(&mut write, key, answer).await?;
        }
        write
            .execute(
                "INSERT INTO join_tokens (id, project, gateway_group, attach_point_id, hash, expires_at)
                 VALUES ($1, $2, $3, $4, $5, $6)",
                args![
                    new.id.uuid(),
                    project.as_str(),
                    new.group.as_str(),
                    new.attach_point_id.as_str(),
                    new.hash,
                    new.expires_at
                ],
            )
            .await?;
        principals::audit(&mut write, &new.audit).await?;
        write.commit().await
    }

    pub(super) async fn join(&self, join_hash: [u8; 32], new: NewGateway) -> Result<Gateway, StoreError> {
        let mut write = self.write().await?;
        let spent = write
            .row(
                "UPDATE join_tokens SET used_at = $2 WHERE hash = $1 AND used_at IS NULL AND expires_at > $2
                 RETURNING project, gateway_group, attach_point_id",
                args![join_hash, new.at],
            )
            .await?;
        let mut right = spent.ok_or(StoreError::Spent)?;
        let (project, group, attach_point) = (right.text()?, right.text()?, right.text()?);
        let number = write
            .row("UPDATE counters SET value = value + 1 WHERE name = 'gateway_number' RETURNING value", args![])
            .await?
            .ok_or(StoreError::NotFound)?
            .count()?;
        let sql = format!(
            "INSERT INTO gateways (id, project, number, gateway_group, attach_point_id, request, credential_hash,
                 created_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8) RETURNING {COLUMNS}"
        );
        let row = write
            .row(
                &sql,
                args![
                    new.id.uuid(),
                    project,
                    number,
                    group,
                    attach_point,
                    to_doc("gateway", &new.request)?,
                    new.credential_hash,
                    new.at
                ],
            )
            .await?;
        let (joined, _) = gateway(&mut row.ok_or(StoreError::NotFound)?)?;
        principals::audit(&mut write, &new.audit).await?;
        write.event(new.event);
        write.configuration_changed();
        write.commit().await?;
        Ok(joined)
    }

    pub(super) async fn list_gateways(&self, project: &ProjectId, page: Page) -> Result<Vec<Gateway>, StoreError> {
        let mut tx = self.look().await?;
        let sql = format!("SELECT {COLUMNS} FROM gateways WHERE project = $1 AND id > $2 ORDER BY id LIMIT $3");
        let after = page.after.map(|id| id.to_string()).unwrap_or_default();
        let rows = tx.rows(&sql, args![project.as_str(), after, page.limit]).await?;
        tx.done().await?;
        rows.into_iter().map(|mut row| Ok(gateway(&mut row)?.0)).collect()
    }

    pub(super) async fn find_gateway(&self, project: &ProjectId, id: GatewayId) -> Result<Gateway, StoreError> {
        let mut tx = self.look().await?;
        let sql = format!("SELECT {COLUMNS} FROM gateways WHERE id = $1 AND project = $2");
        let row = tx.row(&sql, args![id.uuid(), project.as_str()]).await?;
        tx.done().await?;
        Ok(gateway(&mut row.ok_or(StoreError::NotFound)?)?.0)
    }

    pub(super) async fn served_by(
        &self,
        id: GatewayId,
        about: &BTreeSet<ConnectionId>,
    ) -> Result<(Gateway, Vec<ConnectionRecord>), StoreError> {
        let mut tx = self.read().await?;
        let sql = format!("SELECT project, {COLUMNS} FROM gateways WHERE id = $1");
        let mut row = tx.row(&sql, args![id.uuid()]).await?.ok_or(StoreError::NotFound)?;
        let project = row.text()?;
        let (gateway, _) = gateway(&mut row)?;
        let mut served = Vec::new();
        if !about.is_empty() {
            let mut arguments: Vec<Value> = about.iter().map(|id| Value::from(id.uuid())).collect();
            let places = records::list(arguments.len());
            let (point, owner) = (arguments.len() + 1, arguments.len() + 2);
            arguments.extend(args![gateway.attach_point_id.as_str(), project]);
            let sql = format!(
                "SELECT id, watch FROM connections WHERE id IN {places}
                   AND (a_attach_point_id = ${point} OR b_attach_point_id = ${point}) AND project = ${owner}"
            );
            let all = records::With::InstancesAndSamples;
            (served, _) = records::read(&mut tx, false, &sql, arguments, all, &[]).await?;
        }
        tx.done().await?;
        Ok((gateway, served))
    }

    pub(super) async fn inputs_of_gateway(&self, id: GatewayId) -> Result<GatewayInputs, StoreError> {
        let mut tx = self.read().await?;
        let mut row = tx
            .row("SELECT attach_point_id, project FROM gateways WHERE id = $1", args![id.uuid()])
            .await?
            .ok_or(StoreError::NotFound)?;
        let (attach_point, project) = (row.text()?, row.text()?);
        let version = tx
            .row("SELECT value FROM counters WHERE name = 'configuration'", args![])
            .await?
            .ok_or(StoreError::NotFound)?
            .count()?;
        let sql = "SELECT id, watch FROM connections
                   WHERE project = $2 AND (a_attach_point_id = $1 OR b_attach_point_id = $1)";
        let args = args![attach_point.as_str(), project.as_str()];
        let (connections, _) = records::read(&mut tx, false, sql, args, records::With::Instances, &[]).await?;

        let mut points: BTreeSet<String> = connections
            .iter()
            .flat_map(|c| [&c.intent.a, &c.intent.b])
            .filter_map(|end| end.attach_point_id.as_ref().map(ToString::to_string))
            .collect();
        points.insert(attach_point);
        let mut arguments: Vec<Value> = points.into_iter().map(Value::from).collect();
        let places = records::list(arguments.len());
        arguments.push(Value::from(project));
        let sql = format!(
            "SELECT {COLUMNS} FROM gateways WHERE attach_point_id IN {places} AND project = ${} ORDER BY id",
            arguments.len()
        );
        let mut numbers = BTreeMap::new();
        let mut gateways = Vec::new();
        for mut row in tx.rows(&sql, arguments).await? {
            let (gateway, number) = gateway(&mut row)?;
            numbers.insert(gateway.id, number);
            gateways.push(gateway);
        }
        let keys = tunnel_keys::of(&mut tx, id).await?;
        let kernel_lanes = kernel_lanes::to(&mut tx, id).await?;
        tx.done().await?;
        let gateway = gateways.iter().find(|g| g.id == id).cloned().ok_or(StoreError::NotFound)?;
        Ok(GatewayInputs { gateway, version, connections, gateways, numbers, keys, kernel_lanes })
    }
}
