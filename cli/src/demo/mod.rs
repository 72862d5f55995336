//! `tieline demo`: one intent between two simulated clouds, from POST to a link that carries traffic, and back to nothing.
//! `--kind coordinated` shows two providers instead.

mod coordinated;
mod process;
mod timeline;
mod traffic;
mod world;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context as _, bail};
use tieline_lab::assembly::{LabFacts, LabParameters, coordinated::spec};
use tieline_openapi::{
    client::{ClientError, Write},
    ids::{ConnectionId, OperationId},
    problem::ProblemCode,
    v1::{
        self, AddressFamily, Connection, ConnectionEnd, ConnectionIntent, Fallback, Operation, OperationState,
        PathKind, PathState, Redundancy, Routing, StageState, Wanted,
    },
};
use tokio::time::{interval, timeout};

use crate::{args, args::DemoKind, commands, commands::serve::stop_on_signal, exit::Exit};
use timeline::Timeline;
use traffic::Traffic;
use world::{End, World};

/// How long building or taking down the connection may take.
const PATIENCE: Duration = Duration::from_secs(90);
/// Datagrams that a busy machine may drop at a host's own socket while nothing is wrong with the paths.
const SOCKET_DROPS: u64 = 10;
/// How often the demo looks at the operation.
const LOOK: Duration = Duration::from_millis(50);

/// Runs the demo. The exit code tells whether everything went as it should.
pub(crate) async fn run(demo: args::Demo) -> anyhow::Result<ExitCode> {
    let stop = stop_on_signal()?;
    let mut timeline = Timeline::new(demo.json);
    let dir = world::folder(&demo)?;
    // Everything that the demo starts lives in the lab, and the lab no longer than the demo, however that ends.
    let lab = dir.join("lab");
    let (mut cell, facts) = match demo.kind {
        DemoKind::Direct => {
            timeline.head("A lab: two simulated clouds, their routers, the internet between two gateways");
            let parameters = LabParameters { channels: usize::from(demo.channels), ..LabParameters::default() };
            let (cell, facts) = commands::lab::attached(&lab, &parameters).await?;
            (cell, Some(facts))
        }
        DemoKind::Coordinated => {
            timeline.head("A lab: two providers with a router each, two interconnects of four channels between them");
            (commands::lab::attached_cell(&lab, spec(1)).await?, None)
        }
    };
    let playing = async {
        match facts {
            Some(facts) => play(&mut timeline, &dir, facts, &demo).await,
            None => coordinated::play(&mut timeline, &dir, &demo).await,
        }
    };
    let told = tokio::select! {
        biased;
        () = stop.cancelled() => None,
        told = playing => Some(told),
    };
    if demo.keep && matches!(told, Some(Ok(()))) {
        cell.detach()?;
        return Ok(Exit::Ok.into());
    }
    cell.down().await?;
    let exit = match told {
        Some(Ok(())) => Exit::Ok,
        Some(Err(error)) => {
            timeline.bad("the demo failed", &crate::exit::line(&error));
            timeline.plain("see", &format!("the logs in {}", dir.display()));
            return Ok(Exit::Failure.into());
        }
        None => {
            timeline.bad("stopped by a signal", "");
            Exit::Stopped
        }
    };
    if demo.dir.is_none() {
        std::fs::remove_dir_all(&dir).with_context(|| dir.display().to_string())?;
    }
    timeline.good("nothing is left behind", "");
    Ok(exit.into())
}

/// Everything between the start of the lab and its end.
async fn play(timeline: &mut Timeline, dir: &Path, facts: LabFacts, demo: &args::Demo) -> anyhow::Result<()> {
    let mut world = World::start(dir, facts).await?;
    timeline.good("lab and service are up", &format!("{}, logs in {}", world.url, dir.display()));
    tell(timeline, &mut world, demo).await?;
    if demo.keep {
        explore(timeline, &world);
        world.keep();
    }
    Ok(())
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
    follow(timeline, world, created.operation, Some(created.connection.id)).await?;
    let connection = world.client.connection(created.connection.id).await?;
    summary(timeline, &connection);

    if demo.keep {
        return Ok(());
    }
    protect(timeline, world, &connection).await?;

    timeline.head("Deleted");
    timeline.restart();
    let deleted = world.client.delete_connection(connection.id, connection.generation, &Write::default()).await?;
    follow(timeline, world, deleted.operation, None).await?;
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

/// Cuts every channel under traffic with the service dead, and brings them back.
async fn protect(timeline: &mut Timeline, world: &mut World, connection: &Connection) -> anyhow::Result<()> {
    timeline.head("Traffic: 1,000 numbered datagrams a second each way, and a TCP stream that is checked byte by byte");
    timeline.restart();
    carried_by(world, connection, PathKind::Private).await?;
    timeline.good("the private path carries both ways", "");
    let mut traffic = Traffic::start(&world.lab(), &world.dir).await?;
    let whole = traffic.until(|seen| seen.a_to_b.received > 1_000 && seen.b_to_a.received > 1_000).await?;
    timeline.good("hosts reach each other", &format!("{} of the first 2,000 datagrams lost", whole.lost()));

    timeline.head("Every channel is cut, silently, while the service is dead");
    world.kill_service().await?;
    timeline.plain("service killed (SIGKILL)", "gateways go on by themselves");
    let before = traffic.seen().context("the flows have reported before")?;
    world.cut(true).await?;
    timeline.plain("channels cut", "no carrier lost, no message: only silence");
    let after = traffic
        .until(|now| {
            let more = |now: u64, then: u64| now > then + 1_500;
            more(now.a_to_b.received, before.a_to_b.received) && more(now.b_to_a.received, before.b_to_a.received)
        })
        .await?;
    timeline.good(
        "the tunnel carries",
        &format!("blackout {} ms, {} datagrams lost", after.blackout().as_millis(), after.lost() - before.lost()),
    );
    timeline.good("the TCP stream goes on", &format!("longest stall {} ms", after.tcp.longest_stall_us / 1_000));

    timeline.head("The service and the channels come back");
    world.restart_service().await?;
    timeline.good("service restarted", "on the same store");
    carried_by(world, connection, PathKind::Tunnel).await?;
    timeline.good("it learns what happened", "the gateways report the tunnel");
    let before = traffic.seen().context("the flows have reported before")?;
    world.cut(false).await?;
    timeline.plain("channels mended", "");
    carried_by(world, connection, PathKind::Private).await?;
    let now = traffic.seen().context("the flows have reported before")?;
    let after = traffic.until(|seen| seen.a_to_b.received > now.a_to_b.received + 500).await?;
    let lost = after.lost() - before.lost();
    if lost > SOCKET_DROPS {
        bail!("{lost} datagrams were lost on the way back to the private path");
    }
    timeline.good("back on the private path", &format!("make before break: {lost} datagrams lost"));
    let tcp = after.tcp.echoed_bytes;
    traffic.until(|seen| seen.tcp.echoed_bytes > tcp).await?;
    timeline.good("the TCP stream never broke", &format!("{} KiB came back as they were sent", tcp >> 10));
    traffic.stop().await
}

/// Waits until a path carries the connection both ways, as the gateways report.
async fn carried_by(world: &World, connection: &Connection, kind: PathKind) -> anyhow::Result<()> {
    let watching = async {
        let mut every = interval(LOOK);
        loop {
            every.tick().await;
            let now = world.client.connection(connection.id).await?;
            let carries = |path: &v1::Path| path.kind == kind && path.carries.a_to_b && path.carries.b_to_a;
            if now.paths.iter().any(carries) {
                return Ok(());
            }
        }
    };
    let what = crate::output::word(&kind);
    timeout(PATIENCE, watching).await.with_context(|| format!("the path {what} does not carry the traffic"))?
}

fn intent(environment: &str, attach_points: &[String; 2], channels: u8) -> anyhow::Result<ConnectionIntent> {
    let end = |attach_point: &str, prefix: &str| {
        Ok::<_, anyhow::Error>(ConnectionEnd {
            attach_point_id: Some(attach_point.parse()?),
            remote_account_id: None,
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

/// Tells each stage when it ends, until the operation has; and when the paths of a connection that is being built come up.
async fn follow(
    timeline: &Timeline,
    world: &World,
    operation: OperationId,
    built: Option<ConnectionId>,
) -> anyhow::Result<()> {
    let mut told = BTreeSet::new();
    let watching = async {
        let mut every = interval(LOOK);
        loop {
            every.tick().await;
            let paths_up = match built {
                Some(id) => tell_paths(timeline, &world.client.connection(id).await?, &mut told),
                None => true,
            };
            let now = world.client.operation(operation).await?;
            tell_stages(timeline, &now, &mut told);
            match now.state {
                OperationState::Succeeded if paths_up => return Ok(()),
                OperationState::Succeeded | OperationState::Running | OperationState::Waiting => {}
                OperationState::ActionRequired | OperationState::Failed | OperationState::Superseded => {
                    let why = now.problem.map_or_else(|| "no reason was given".to_owned(), |p| p.detail);
                    bail!("the operation did not succeed: {why}");
                }
            }
        }
    };
    timeout(PATIENCE, watching).await.with_context(|| format!("not done within {} s", PATIENCE.as_secs()))?
}

/// Tells the first time that each path is heard both ways. Whether all of them have been.
fn tell_paths(timeline: &Timeline, connection: &Connection, told: &mut BTreeSet<String>) -> bool {
    for (kind, what, detail) in [
        (PathKind::Tunnel, "tunnel up", "WireGuard carries the traffic from here on"),
        (PathKind::Private, "forwarding", "probes cross the private path both ways"),
    ] {
        let up = connection.paths.iter().any(|path| path.kind == kind && path.state == PathState::Up);
        if up && told.insert(what.to_owned()) {
            timeline.good(what, detail);
        }
    }
    told.contains("tunnel up") && told.contains("forwarding")
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
        format!("tieline lab exec --dir {} a-host -- ip route get 10.1.1.10", lab.display()),
        format!("tieline lab wire --dir {} ch0 --cut", lab.display()),
        format!("tieline lab down --dir {}   # ends it all", lab.display()),
    ] {
        timeline.command(&line);
    }
}
