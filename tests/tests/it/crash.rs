//! The real service dies once at every named failpoint, and everything still ends as it should.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::{Mutex, PoisonError},
};

use anyhow::Context as _;
use serde_json::Value;
use tieline_api::engine::failpoints;
use tieline_lab::clouds::{Effect, Fault};
use tieline_openapi::{
    client::{Client, ClientError, Write},
    config::EngineConfig,
    ids::ConnectionId,
    problem::ProblemCode,
    v1::{ConnectionIntent, Redundancy},
};

use crate::rig::{Rig, until};

/// Labs beside each other: most of a life is waiting for the lease of the one that died.
const LANES: usize = 4;

/// Leases, lags and sweeps as short as a busy machine allows.
const CLOCKS: EngineConfig = EngineConfig {
    lease_ms: 2_500,
    call_timeout_ms: 1_200,
    visibility_lag_ms: 150,
    quarantine_ms: 300,
    poll_ms: 100,
    settled_poll_ms: 250,
    sweep_ms: 500,
    calls_per_second: 100,
};

/// What has to go wrong in AWS for the service to come to a point that an undisturbed life of a connection never passes.
fn disturbance(point: &str) -> Option<Fault> {
    let effect = match point {
        failpoints::RESOLVED => Effect::HangUp { after_commit: true },
        failpoints::WALKED_BACK => Effect::Refuse {
            status: 400,
            code: "DirectConnectClientException".to_owned(),
            message: "VLAN is already in use on the connection".to_owned(),
        },
        // What the second request makes is what the sweep finds.
        failpoints::SWEEP_FOUND | failpoints::SWEEP_NOTED => Effect::Double,
        _ => return None,
    };
    Some(Fault::once("CreatePrivateVirtualInterface", effect))
}

/// The life of one connection, in which the service dies at a point.
struct Life<'a> {
    rig: &'a mut Rig,
    point: &'static str,
    intent: ConnectionIntent,
    client: Client,
    died: bool,
}

impl<'a> Life<'a> {
    async fn begin(rig: &'a mut Rig, point: &'static str) -> anyhow::Result<Self> {
        if let Some(fault) = disturbance(point) {
            rig.fault(&rig.facts.aws_url, &fault).await?;
        }
        let client = rig.serve(Some(&format!("{point}:abort")))?;
        let intent = rig.intent(&format!("crash at {point}"), Redundancy::Single)?;
        Ok(Self { rig, point, intent, client, died: false })
    }

    /// Starts the service again where it has died.
    fn mind(&mut self) -> anyhow::Result<()> {
        if self.rig.has_crashed()? {
            anyhow::ensure!(!self.died, "it died although no point was armed");
            self.died = true;
            self.client = self.rig.serve(None)?;
        }
        Ok(())
    }

    /// Waits until the connection stands so, and minds the service meanwhile.
    async fn until(&mut self, what: &str, id: ConnectionId, is: impl Fn(Now) -> bool) -> anyhow::Result<()> {
        until(what, async || {
            self.mind()?;
            Ok(now(&self.client, id).await.is_some_and(&is).then_some(()))
        })
        .await
    }

    /// Asks for the connection until it is known; the first answer may have been lost with the service.
    async fn create(&mut self) -> anyhow::Result<ConnectionId> {
        let key = format!("create-{}", self.point);
        let write = Write { idempotency_key: Some(key), ..Write::default() };
        until("created", async || {
            self.mind()?;
            match self.client.create_connection(&self.intent, &write).await {
                Ok(created) => Ok(Some(created.connection.id)),
                Err(ClientError::Problem { problem, .. }) => anyhow::bail!("{}", problem.detail),
                Err(_) => Ok(None),
            }
        })
        .await
    }

    /// Asks for the deletion until it is known, or done.
    async fn delete(&mut self, id: ConnectionId) -> anyhow::Result<()> {
        until("deletion is asked for", async || {
            self.mind()?;
            match now(&self.client, id).await {
                Some(Now::There { leaving: true, .. } | Now::Gone) => return Ok(Some(())),
                // Whatever it answers, the next look tells.
                Some(Now::There { generation, .. }) => {
                    drop(self.client.delete_connection(id, generation, &Write::default()).await);
                }
                None => {}
            }
            Ok(None)
        })
        .await
    }

    /// Creates, settles, deletes, and lets what the network has doubled arrive. Whether the service died on the way.
    async fn live(mut self, before: &[Value; 2]) -> anyhow::Result<bool> {
        let id = self.create().await?;
        self.until("settled", id, |now| matches!(now, Now::There { settled: true, .. })).await?;
        self.delete(id).await?;
        self.until("gone", id, |now| matches!(now, Now::Gone)).await?;
        anyhow::ensure!(self.rig.dumps().await? == *before, "something is left in a cloud");
        let late = self.rig.late(&self.rig.facts.aws_url).await?;
        if !late.is_empty() {
            anyhow::ensure!(late == [200] && !self.died, "what arrives late is to be found: {late:?}");
            until("the service died over what came late", async || {
                self.mind()?;
                Ok(self.died.then_some(()))
            })
            .await?;
        }
        until("both clouds are as they were", async || {
            self.mind()?;
            Ok((self.rig.dumps().await? == *before).then_some(()))
        })
        .await?;
        self.rig.kill()?;
        Ok(self.died)
    }
}

/// How a connection stands.
enum Now {
    There { generation: u64, settled: bool, leaving: bool },
    Gone,
}

/// Nothing where the service does not answer.
async fn now(client: &Client, id: ConnectionId) -> Option<Now> {
    match client.connection(id).await {
        Ok(connection) => Some(Now::There {
            generation: connection.generation,
            settled: connection.observed_generation == connection.generation,
            leaving: connection.deletion_requested_at.is_some(),
        }),
        Err(ClientError::Problem { problem, .. }) if problem.code == ProblemCode::NotFound => Some(Now::Gone),
        Err(_) => None,
    }
}

/// Takes points until none is left, and gives those at which the service died.
async fn lane(points: &Mutex<VecDeque<&'static str>>) -> anyhow::Result<Option<BTreeSet<&'static str>>> {
    let Some(mut rig) = Rig::lab(1)? else { return Ok(None) };
    rig.set_clocks(CLOCKS)?;
    let before = rig.dumps().await?;
    let mut reached = BTreeSet::new();
    loop {
        let next = points.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        let Some(point) = next else { break };
        let lived = async { Life::begin(&mut rig, point).await?.live(&before).await }.await;
        if lived.with_context(|| format!("a crash at {point}; the service's log:\n{}", rig.log_tail()))? {
            reached.insert(point);
        }
    }
    let errors: Vec<_> = rig.log().lines().filter(|line| line.contains(" ERROR ")).map(str::to_owned).collect();
    anyhow::ensure!(errors.is_empty(), "{errors:#?}");
    Ok(Some(reached))
}

#[test]
fn the_service_dies_once_at_every_failpoint() -> anyhow::Result<()> {
    let points = Mutex::new(failpoints::NAMES.iter().copied().collect());
    // A thread a lane: starting a lab or a service waits for what it says.
    let lanes = std::thread::scope(|scope| {
        let start = |_| {
            scope.spawn(|| tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(lane(&points)))
        };
        let lanes: Vec<_> = (0..LANES).map(start).collect();
        lanes.into_iter().map(|lane| lane.join().expect("a lane ends with what it says")).collect::<Vec<_>>()
    });
    let mut reached = BTreeSet::new();
    for lane in lanes {
        match lane? {
            Some(points) => reached.extend(points),
            None => return Ok(()),
        }
    }
    let missed: Vec<_> = failpoints::NAMES.iter().filter(|name| !reached.contains(*name)).collect();
    assert!(missed.is_empty(), "no run died at {missed:?}: let something happen that leads there");
    Ok(())
}
