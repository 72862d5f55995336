//! Two services on one Postgres: what both are asked for comes to be once, also when one of them is killed.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, bail};
use tieline_openapi::{
    client::{Client, ConnectionQuery, PageQuery, Write},
    ids::ConnectionId,
    v1::{ConnectionIntent, ConnectionState, OperationState, Redundancy},
};

use crate::{
    postgres,
    rig::{Rig, until},
};

/// Connections that each of the two is asked for.
const EACH: usize = 4;

/// A link of its own /24 on both ends.
fn intent(rig: &Rig, n: usize) -> anyhow::Result<ConnectionIntent> {
    let mut intent = rig.intent(&format!("link-{n}"), Redundancy::Dual)?;
    intent.bandwidth_mbps = 1_000.try_into()?;
    intent.a.advertised_prefixes = vec![format!("10.0.{n}.0/24").parse()?];
    intent.b.advertised_prefixes = vec![format!("10.1.{n}.0/24").parse()?];
    Ok(intent)
}

/// Everything in both clouds that a Tieline named, of strangers' installations too; twice the same is a twin.
async fn named(rig: &Rig) -> anyhow::Result<BTreeMap<String, usize>> {
    let mut counts = BTreeMap::new();
    for dump in rig.dumps().await? {
        let mut left = vec![&dump];
        let mut names = BTreeSet::new();
        while let Some(value) = left.pop() {
            match value {
                serde_json::Value::Object(map) => left.extend(map.values()),
                serde_json::Value::Array(items) => left.extend(items),
                serde_json::Value::String(text) if text.starts_with("tl-") => {
                    names.insert(text.clone());
                }
                serde_json::Value::Null
                | serde_json::Value::Bool(_)
                | serde_json::Value::Number(_)
                | serde_json::Value::String(_) => {}
            }
        }
        for name in names {
            *counts.entry(name).or_default() += 1;
        }
    }
    Ok(counts)
}

async fn active(client: &Client, ids: &[ConnectionId]) -> anyhow::Result<Option<()>> {
    for id in ids {
        let connection = client.connection(*id).await?;
        if connection.state == ConnectionState::ActionRequired {
            bail!("{id} needs a person: {:?}", connection.state_reason);
        }
        if connection.state != ConnectionState::Active {
            return Ok(None);
        }
    }
    Ok(Some(()))
}

#[tokio::test]
async fn two_services_share_one_database_and_one_may_die() -> anyhow::Result<()> {
    let Some(mut rig) = Rig::lab(2)? else { return Ok(()) };
    let Some(database) = postgres::database() else { return Ok(()) };
    let before = rig.dumps().await?;
    let strangers = named(&rig).await?;
    let first = rig.replica("one", &database)?;
    let second = rig.replica("two", &database)?;
    let mut ids = Vec::new();
    for n in 0..2 * EACH {
        let client = if n % 2 == 0 { &first } else { &second };
        ids.push(client.create_connection(&intent(&rig, n)?, &Write::default()).await?.connection.id);
    }
    // In the middle of the work: something is built, and not everything.
    until("something is built", async || {
        let built = second.connection(ids[0]).await?.placements.iter().any(|placement| {
            placement
                .channels
                .iter()
                .any(|channel| !channel.a.attachments.is_empty() || !channel.b.attachments.is_empty())
        });
        Ok(built.then_some(()))
    })
    .await?;
    rig.kill_replica("one")?;
    // Asked for at the one that is left, while it takes over.
    ids.push(second.create_connection(&intent(&rig, 2 * EACH)?, &Write::default()).await?.connection.id);
    until("every connection is active", async || active(&second, &ids).await).await?;

    // Two channels each: an attachment and a router peer at Google, a virtual interface at AWS.
    let mut instances = BTreeSet::new();
    for id in &ids {
        for placement in second.connection(*id).await?.placements {
            for channel in placement.channels {
                let attachments = channel.a.attachments.into_iter().chain(channel.b.attachments);
                let found: Vec<_> = attachments.map(|attachment| attachment.id).collect();
                assert_eq!(found.len(), 3, "{id}: {found:?}");
                instances.extend(found);
            }
        }
    }
    assert_eq!(instances.len(), ids.len() * 6);
    // What was walked back on the way may still be leaving.
    until("each connection has exactly its resources", async || {
        let mut resources = named(&rig).await?;
        resources.retain(|name, _| !strangers.contains_key(name));
        assert!(resources.values().all(|count| *count == 1), "a twin: {resources:?}");
        Ok((resources.len() == instances.len()).then_some(()))
    })
    .await?;

    let third = rig.replica("three", &database)?;
    for (n, id) in ids.iter().enumerate() {
        let client = if n % 2 == 0 { &third } else { &second };
        let connection = client.connection(*id).await?;
        client.delete_connection(*id, connection.generation, &Write::default()).await?;
    }
    until("every connection is gone", async || {
        let left = third.connections(&ConnectionQuery::default()).await?;
        Ok(left.connections.is_empty().then_some(()))
    })
    .await?;
    for id in &ids {
        let operations = third.operations(Some(*id), &PageQuery::default()).await?;
        let last = operations.operations.first().context("its deletion")?;
        assert_eq!(last.state, OperationState::Succeeded);
    }
    assert_eq!(rig.dumps().await?, before, "both clouds are as they were");
    Ok(())
}
