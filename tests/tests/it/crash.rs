//! The real service dies once at every named failpoint, and everything still ends as it should.

use std::collections::BTreeSet;

use tieline_api::engine::failpoints;
use tieline_openapi::{
    client::{Client, ClientError, Write},
    ids::ConnectionId,
    problem::ProblemCode,
    v1::Redundancy,
};

use crate::rig::{Rig, until};

/// Points that an undisturbed life of a connection never passes; the engine's own fault schedules reach them.
const RARE: [&str; 5] = ["resolved", "walked-back", "sweep-listed", "sweep-found", "sweep-noted"];

/// What a call to a service that may just have died gives: nothing, where it has.
fn or_dead<T>(answer: Result<T, ClientError>) -> Option<T> {
    answer.ok()
}

async fn state(client: &Client, id: ConnectionId) -> Option<Result<bool, ()>> {
    match client.connection(id).await {
        Ok(connection) => Some(Ok(connection.observed_generation == connection.generation)),
        Err(ClientError::Problem { problem, .. }) if problem.code == ProblemCode::NotFound => Some(Err(())),
        Err(_) => None,
    }
}

#[tokio::test]
async fn the_service_dies_once_at_every_failpoint() -> anyhow::Result<()> {
    let Some(mut rig) = Rig::lab(1)? else { return Ok(()) };
    let before = rig.dumps().await?;
    let mut reached = BTreeSet::new();
    for name in failpoints::NAMES {
        let mut client = rig.serve(Some(&format!("{name}:abort")))?;
        let intent = rig.intent(&format!("crash at {name}"), Redundancy::Single)?;
        let created = or_dead(client.create_connection(&intent, &Write::default()).await);
        // It settles, or the service dies on the way.
        let mut id = created.map(|c| c.connection.id);
        until("settled or dead", async || {
            if rig.has_crashed()? {
                return Ok(Some(()));
            }
            let Some(id) = id else { return Ok(None) };
            Ok(matches!(state(&client, id).await, Some(Ok(true))).then_some(()))
        })
        .await?;
        if rig.has_crashed()? {
            reached.insert(*name);
            rig.kill()?;
            client = rig.serve(None)?;
            if id.is_none() {
                id = Some(client.create_connection(&intent, &Write::default()).await?.connection.id);
            }
        }
        let id = id.expect("it was created");
        // Deleting may be what reaches the point.
        let known = until("known", async || Ok(client.connection(id).await.ok())).await?;
        or_dead(client.delete_connection(id, known.generation, &Write::default()).await);
        until("gone or dead", async || {
            if rig.has_crashed()? {
                return Ok(Some(()));
            }
            Ok(matches!(state(&client, id).await, Some(Err(()))).then_some(()))
        })
        .await?;
        if rig.has_crashed()? {
            reached.insert(*name);
            rig.kill()?;
            client = rig.serve(None)?;
            if let Some(Ok(_)) = state(&client, id).await
                && let Some(still) = or_dead(client.connection(id).await)
                && still.deletion_requested_at.is_none()
            {
                client.delete_connection(id, still.generation, &Write::default()).await?;
            }
            until("gone", async || Ok(matches!(state(&client, id).await, Some(Err(()))).then_some(()))).await?;
        }
        rig.kill()?;
        assert_eq!(rig.dumps().await?, before, "a crash at {name} left something in a cloud");
    }
    let missed: Vec<_> = failpoints::NAMES.iter().filter(|name| !reached.contains(*name)).collect();
    println!("not reached: {missed:?}");
    assert!(missed.iter().all(|name| RARE.contains(name)), "never reached: {missed:?}");
    Ok(())
}
