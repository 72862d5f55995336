//! What a dry run announces is what comes to be, over the real adapters: the ledger holds those calls in that order, and
//! the clouds took these and no others.

use std::collections::BTreeMap;

use anyhow::{Context as _, ensure};
use serde_json::json;
use tieline_api::store::{self, OpenOptions};
use tieline_openapi::{
    client::{Client, Write},
    ids::{ConnectionId, OperationId, ProjectId},
    v1::{End, OperationState, Plan, PlanStep, Redundancy, Verb},
};

use crate::rig::{Rig, until};

/// A call as both a plan and the ledger tell it: verb, type, end, channel.
type Call = (Verb, String, End, String);

fn planned(step: &PlanStep) -> Call {
    (
        step.verb,
        step.resource_type.clone(),
        step.end,
        step.channel_id.as_ref().map(ToString::to_string).unwrap_or_default(),
    )
}

/// By which operation of the cloud's API a step is done.
fn operation(step: &PlanStep) -> &'static str {
    match (step.resource_type.as_str(), step.verb) {
        ("aws.privateVirtualInterface", Verb::Create) => "CreatePrivateVirtualInterface",
        ("aws.privateVirtualInterface", Verb::Update) => "UpdateVirtualInterfaceAttributes",
        ("aws.privateVirtualInterface", Verb::Delete) => "DeleteVirtualInterface",
        ("google.interconnectAttachment", Verb::Create) => "interconnectAttachments.insert",
        ("google.interconnectAttachment", Verb::Update) => "interconnectAttachments.patch",
        ("google.interconnectAttachment", Verb::Delete) => "interconnectAttachments.delete",
        // A peer is a part of its router.
        ("google.routerPeer", Verb::Create | Verb::Update | Verb::Delete) => "routers.patch",
        (other, _) => panic!("{other} is a type that this test does not know"),
    }
}

/// Everything that the ledger of a connection holds, oldest first. The service must not run.
async fn ledger(rig: &Rig, id: ConnectionId) -> anyhow::Result<Vec<Call>> {
    let store = store::open(&rig.database(), OpenOptions::default()).await?;
    let standing = store.standing(&ProjectId::try_from("default".to_owned())?, id).await?;
    let calls = standing.calls.iter().map(|call| {
        let instance = standing.record.instances.iter().find(|instance| instance.id == call.instance_id);
        let instance = instance.context("a row is of an instance")?;
        let key = &instance.key;
        Ok((call.verb, key.kind.to_string(), key.end, instance.channel_id.to_string()))
    });
    calls.collect()
}

/// Every call is a step, one to one, after what its step comes after, and in the order of its side and channel.
fn follow(plan: &Plan, calls: &[Call]) -> anyhow::Result<()> {
    let mut done = Vec::new();
    for call in calls {
        let step = plan.steps.iter().find(|step| planned(step) == *call && !done.contains(&step.n));
        let step = step.with_context(|| format!("{call:?} is in the ledger and in no step"))?;
        let early = step.after.iter().find(|n| !done.contains(n));
        ensure!(early.is_none(), "step {} came before step {early:?}", step.n);
        done.push(step.n);
    }
    ensure!(done.len() == plan.steps.len(), "only steps {done:?} were done");
    let lanes = |calls: &mut dyn Iterator<Item = Call>| {
        let mut lanes: BTreeMap<(&str, String), Vec<(Verb, String)>> = BTreeMap::new();
        for (verb, kind, end, channel) in calls {
            lanes.entry((end.as_str(), channel)).or_default().push((verb, kind));
        }
        lanes
    };
    let (wanted, found) = (lanes(&mut plan.steps.iter().map(planned)), lanes(&mut calls.iter().cloned()));
    ensure!(wanted == found, "{found:?} is not the order of {wanted:?}");
    Ok(())
}

/// The clouds took the calls of the steps and no others. `from`: how many they had taken before.
async fn took(rig: &Rig, plan: &Plan, from: [u64; 2]) -> anyhow::Result<()> {
    for (n, end) in End::BOTH.into_iter().enumerate() {
        let steps = plan.steps.iter().filter(|step| step.end == end);
        let mut wanted: Vec<_> = steps.map(|step| operation(step).to_owned()).collect();
        let calls = rig.calls(end).await?.into_iter().filter(|call| call.mutating && call.n > from[n]);
        let mut found: Vec<_> = calls.map(|call| call.operation).collect();
        wanted.sort_unstable();
        found.sort_unstable();
        ensure!(wanted == found, "end {}: {found:?} were called, and planned were {wanted:?}", end.as_str());
    }
    Ok(())
}

async fn taken(rig: &Rig) -> anyhow::Result<[u64; 2]> {
    let mut last = [0; 2];
    for (n, end) in End::BOTH.into_iter().enumerate() {
        last[n] = rig.calls(end).await?.last().map_or(0, |call| call.n);
    }
    Ok(last)
}

async fn succeeded(client: &Client, operation: OperationId) -> anyhow::Result<()> {
    until("the operation succeeded", async || {
        let operation = client.operation(operation).await?;
        ensure!(!matches!(operation.state, OperationState::Failed | OperationState::ActionRequired), "{operation:#?}");
        Ok((operation.state == OperationState::Succeeded).then_some(()))
    })
    .await
}

#[tokio::test]
async fn the_ledger_and_the_clouds_tell_what_the_dry_run_told() -> anyhow::Result<()> {
    let Some(mut rig) = Rig::lab(2)? else { return Ok(()) };
    let mut client = rig.serve(None)?;
    let intent = rig.intent("planned", Redundancy::Dual)?;

    let plan = client.plan_create(&intent).await?;
    ensure!(plan.applicable && plan.steps.len() == 6, "{plan:#?}");
    let mut before = taken(&rig).await?;
    let created = client.create_connection(&intent, &Write::default()).await?;
    let id = created.connection.id;
    succeeded(&client, created.operation).await?;
    took(&rig, &plan, before).await?;
    rig.kill()?;
    let mut rows = ledger(&rig, id).await?;
    follow(&plan, &rows)?;

    // More bandwidth is another size of both attachments, and another prefix another list of both peers.
    client = rig.serve(None)?;
    let patch = json!({ "bandwidthMbps": 2_000, "b": { "advertisedPrefixes": ["10.1.0.0/17"] } });
    let generation = client.connection(id).await?.generation;
    let plan = client.plan_update(id, generation, &patch).await?;
    ensure!(plan.applicable && plan.steps.len() >= 4, "{plan:#?}");
    before = taken(&rig).await?;
    let changed = client.update_connection(id, generation, &patch, &Write::default()).await?;
    succeeded(&client, changed.operation).await?;
    took(&rig, &plan, before).await?;
    rig.kill()?;
    let known = rows.len();
    rows = ledger(&rig, id).await?;
    follow(&plan, &rows[known..])?;

    client = rig.serve(None)?;
    let generation = client.connection(id).await?.generation;
    let plan = client.plan_delete(id, generation).await?;
    ensure!(plan.steps.len() == 6 && plan.steps.iter().all(|step| step.verb == Verb::Delete), "{plan:#?}");
    before = taken(&rig).await?;
    let deleted = client.delete_connection(id, generation, &Write::default()).await?;
    succeeded(&client, deleted.operation).await?;
    took(&rig, &plan, before).await
}
