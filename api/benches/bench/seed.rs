//! Links for a database: accepted as the API accepts them, provisioned by the engine.

use std::{collections::BTreeMap, time::Duration};

use anyhow::bail;
use serde_json::json;
use tieline_api::{
    engine::Vault as _,
    plan::negotiate::{Allocated, Request, allocations, negotiate},
    store::{Allocation, Audit, NewConnection, NewEvent, SqlStore, Store as _},
    topology::Topology,
};
use tieline_openapi::{
    ids::{ConnectionId, OperationId, ProjectId},
    v1::{ConnectionKind, Operation, OperationKind, OperationState},
};

use crate::world::World;

/// Accepts links `from..to`. What they take is remembered in `taken`, so that the store is not asked each time.
pub(crate) async fn accept(
    world: &World,
    store: &SqlStore,
    topology: &Topology,
    numbers: std::ops::Range<usize>,
    taken: &mut BTreeMap<String, Allocated>,
) -> anyhow::Result<Vec<ConnectionId>> {
    let mut ids = Vec::new();
    for n in numbers {
        let now = world.clock.now();
        let id = ConnectionId(world.random.uuid_v7(now));
        let intent = world.intent(&format!("link-{n}"), n)?;
        let environment = intent.environment_id.to_string();
        let taken = taken.entry(environment).or_default();
        let request = Request { connection_id: id, intent: &intent, keep: BTreeMap::new(), refused: BTreeMap::new() };
        let negotiated = match negotiate(topology, taken, &request) {
            Ok(negotiated) => negotiated,
            Err(why) => bail!("link {n} cannot be negotiated: {why:?}"),
        };
        let mut secrets = Vec::new();
        for channel in &negotiated.channels {
            let secret = "k7d93hf8s0a1".to_owned().into();
            secrets.push(world.vault.seal(id, &channel.channel_id, channel.generation, "bgpPassword", &secret)?);
        }
        let takes = allocations(&negotiated, topology);
        remember(taken, &takes);
        let project: ProjectId = "default".parse()?;
        let operation = Operation {
            id: OperationId(world.random.uuid_v7(now)),
            kind: OperationKind::Create,
            target: id,
            generation: 1,
            state: OperationState::Running,
            stages: Vec::new(),
            problem: None,
            created_at: now,
            finished_at: None,
        };
        let event = NewEvent {
            project: project.clone(),
            time: now,
            kind: "connection.created".to_owned(),
            subject: format!("/v1/connections/{id}"),
            generation: Some(1),
            cause: "bench".to_owned(),
            data: json!({}),
        };
        let audit = Audit {
            principal: "token:bench".to_owned(),
            request_id: id.to_string(),
            action: "createConnection".to_owned(),
            subject: format!("/v1/connections/{id}"),
            at: now,
        };
        store
            .create_connection(NewConnection {
                id,
                project,
                kind: ConnectionKind::Direct,
                intent,
                negotiated,
                allocations: takes,
                secrets,
                operation,
                event,
                audit,
                idempotency: None,
                shared: None,
                at: now,
            })
            .await?;
        ids.push(id);
    }
    Ok(ids)
}

fn remember(taken: &mut Allocated, takes: &[Allocation]) {
    for take in takes {
        match take {
            Allocation::Vlan { port_id, vlan, .. } => {
                taken.vlans.entry(port_id.clone()).or_default().insert(*vlan);
            }
            Allocation::Subnet { attach_point_id, subnet, .. } => {
                taken.subnets.entry(attach_point_id.clone()).or_default().insert(*subnet);
            }
            Allocation::Bandwidth { channel_id, mbps, .. } => {
                *taken.bandwidth.entry(channel_id.clone()).or_default() += mbps;
            }
        }
    }
}

/// Waits until the last operation of each of these has succeeded.
pub(crate) async fn all_up(store: &SqlStore, ids: &[ConnectionId], patience: Duration) -> anyhow::Result<()> {
    let project: ProjectId = "default".parse()?;
    let mut left: Vec<_> = ids.to_vec();
    let waited = tokio::time::timeout(patience, async {
        while let Some(id) = left.last() {
            let record = store.connection(&project, *id).await?;
            if store.operation(&project, record.last_operation).await?.state == OperationState::Succeeded {
                left.pop();
            } else {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
        anyhow::Ok(())
    })
    .await;
    match waited {
        Ok(done) => done,
        Err(_) => bail!("{} of {} links were not up within {} s", left.len(), ids.len(), patience.as_secs()),
    }
}
