//! `tieline demo`: one intent between two simulated clouds, from POST to a link that carries traffic, and back to nothing.

mod process;
mod timeline;
mod world;

use std::{
    collections::{BTreeMap, BTreeSet},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context as _, bail};
use tieline_openapi::{
    client::{ClientError, Write},
    ids::OperationId,
    problem::ProblemCode,
    v1::{
        AddressFamily, Connection, ConnectionEnd, ConnectionIntent, Fallback, Operation, OperationState, Redundancy,
        Routing, StageState, Wanted,
    },
};
use tokio::time::{interval, timeout};

use crate::{args, exit::Exit};
use timeline::Timeline;
use world::{End, World};

/// How long building or taking down the connection may take.
const PATIENCE: Duration = Duration::from_secs(90);
/// How often the demo looks at the operation.
const LOOK: Duration = Duration::from_millis(50);

/// Runs the demo. The exit code tells whether everything went as it should.
pub(crate) async fn run(demo: args::Demo) -> anyhow::Result<ExitCode> {
    let mut timeline = Timeline::new(demo.json);
    timeline.head("A lab: two simulated clouds, their routers, the internet between two gateways");
    let mut world = World::start(&demo).await?;
    timeline.good("lab and service are up", &format!("{}, logs in {}", world.url, world.dir.display()));
    let told = tell(&mut timeline, &mut world, &demo).await;
    if let Err(error) = &told {
        timeline.bad("the demo failed", &crate::exit::line(error));
        for log in world.service.iter().chain(&world.gateways).map(|p| p.log().display().to_string()) {
            timeline.plain("see", &log);
        }
    }
    if demo.keep && told.is_ok() {
        explore(&timeline, &world);
        world.keep();
        return Ok(Exit::Ok.into());
    }
    let failed = told.is_err();
    let dir = world.dir.clone();
    world.stop().await?;
    if failed {
        return Ok(Exit::Failure.into());
    }
    if demo.dir.is_none() {
        std::fs::remove_dir_all(&dir).with_context(|| dir.display().to_string())?;
    }
    timeline.good("nothing is left behind", "");
    Ok(Exit::Ok.into())
}

async fn tell(timeline: &mut Timeline, world: &mut World, demo: &args::Demo) -> anyhow::Result<()> {
    let before = world.dumps().await?;
    world.start_gateway(End::A).await?;
    world.start_gateway(End::B).await?;

    timeline.head("One intent: 1 Gbit/s from 10.0.0.0/16 on AWS to 10.1.0.0/16 on Google");
    timeline.restart();
    let intent = intent(&world.facts.environment_id, &world.facts.attach_points, demo.channels)?;
    let created = world.client.create_connection(&intent, &Write::default()).await?;
    timeline.plain("POST /v1/connections", &format!("202, operation {}", created.operation));
    follow(timeline, world, created.operation).await?;
    let connection = world.client.connection(created.connection.id).await?;
    summary(timeline, &connection);

    if demo.keep {
        return Ok(());
    }
    timeline.head("Deleted");
    timeline.restart();
    let deleted = world.client.delete_connection(connection.id, connection.generation, &Write::default()).await?;
    follow(timeline, world, deleted.operation).await?;
    match world.client.connection(connection.id).await {
        Err(ClientError::Problem { problem, .. }) if problem.code == ProblemCode::NotFound => {}
        Ok(_) => bail!("the connection is still there after its deletion succeeded"),
        Err(error) => return Err(error.into()),
    }
    let after = world.dumps().await?;
    for (cloud, before, after) in [("AWS", &before[0], &after[0]), ("Google", &before[1], &after[1])] {
        if before != after {
            bail!("{cloud} is not as it was before: compare the dumps of its simulator");
        }
    }
    timeline.good("both clouds are as they were", "state dumps are equal, byte for byte");
    Ok(())
}

fn intent(environment: &str, attach_points: &[String; 2], channels: u8) -> anyhow::Result<ConnectionIntent> {
    let end = |attach_point: &str, prefix: &str| {
        Ok::<_, anyhow::Error>(ConnectionEnd {
            attach_point_id: attach_point.parse()?,
            advertised_prefixes: vec![prefix.parse()?],
            accepted_prefixes: None,
        })
    };
    Ok(ConnectionIntent {
        name: "demo".to_owned(),
        environment_id: environment.parse()?,
        bandwidth_mbps: 1_000.try_into()?,
        redundancy: match channels {
            1 => Redundancy::Single,
            2 | 3 => Redundancy::Dual,
            _ => Redundancy::Quad,
        },
        a: end(&attach_points[0], "10.0.0.0/16")?,
        b: end(&attach_points[1], "10.1.0.0/16")?,
        routing: Routing::default(),
        families: vec![AddressFamily::Ipv4],
        wanted: Wanted::default(),
        fallback: Fallback::default(),
        labels: BTreeMap::new(),
        description: "made by tieline demo".to_owned(),
        deletion_protection: false,
    })
}

/// Tells each stage when it ends, until the operation has.
async fn follow(timeline: &Timeline, world: &World, operation: OperationId) -> anyhow::Result<()> {
    let mut told = BTreeSet::new();
    let watching = async {
        let mut every = interval(LOOK);
        loop {
            every.tick().await;
            let now = world.client.operation(operation).await?;
            tell_stages(timeline, &now, &mut told);
            match now.state {
                OperationState::Succeeded => return Ok(()),
                OperationState::Running | OperationState::Waiting => {}
                OperationState::ActionRequired | OperationState::Failed | OperationState::Superseded => {
                    let why = now.problem.map_or_else(|| "no reason was given".to_owned(), |p| p.detail);
                    bail!("the operation did not succeed: {why}");
                }
            }
        }
    };
    timeout(PATIENCE, watching).await.with_context(|| format!("not done within {} s", PATIENCE.as_secs()))?
}

fn tell_stages(timeline: &Timeline, operation: &Operation, told: &mut BTreeSet<String>) {
    for stage in &operation.stages {
        let ended = match stage.state {
            StageState::Succeeded => true,
            StageState::Failed => false,
            StageState::Pending | StageState::Running => continue,
        };
        if told.insert(stage.name.clone()) {
            if ended {
                timeline.good(&stage.name, &stage.detail);
            } else {
                timeline.bad(&stage.name, &stage.detail);
            }
        }
    }
}

fn summary(timeline: &Timeline, connection: &Connection) {
    for channel in connection.placements.iter().flat_map(|p| &p.channels) {
        let address = |a: Option<std::net::Ipv4Addr>| a.map_or_else(|| "?".to_owned(), |a| a.to_string());
        timeline.plain(
            &format!("{}: VLAN {}, MTU {}", channel.channel_id, channel.a.vlan_id, channel.a.mtu_bytes),
            &format!(
                "{} AS{} — {} AS{}, BGP {}",
                address(channel.a.host_ipv4),
                channel.a.asn,
                address(channel.b.host_ipv4),
                channel.b.asn,
                crate::output::word(&channel.bgp_state)
            ),
        );
    }
    timeline.good(&crate::output::word(&connection.verification_state), &connection.state_reason.message);
}

fn explore(timeline: &Timeline, world: &World) {
    timeline.head("It keeps running. Explore it:");
    let lab = world.lab();
    for line in [
        format!("export TIELINE_URL={} TIELINE_TOKEN=$(cat {}/tieline.token)", world.url, world.dir.display()),
        "tieline connections show demo; tieline show bgp demo; tieline show paths demo".to_owned(),
        format!("tieline lab exec --dir {} a-host -- ping -c 3 10.1.1.10", lab.display()),
        format!("tieline lab wire --dir {} ch0 --cut", lab.display()),
        format!("tieline lab down --dir {}   # ends it all but the service", lab.display()),
    ] {
        timeline.command(&line);
    }
    if let Some(id) = world.service.as_ref().and_then(process::Process::id) {
        timeline.command(&format!("kill {id}   # ends the service"));
    }
}
