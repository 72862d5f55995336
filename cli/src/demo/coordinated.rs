//! `tieline demo --kind coordinated`: two installations that know each other by the open specification only, each with a
//! router of its own, from an activation key to a connection that carries traffic, to another interconnect, and back to
//! nothing.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, bail};
use secrecy::SecretString;
use tieline_lab::{
    assembly::coordinated::{self, CHANNELS, ENVIRONMENT, PROVIDERS},
    cell::control::Client as Control,
    net::End,
};
use tieline_openapi::{
    client::{Client, ClientError},
    problem::ProblemCode,
    v1::{
        ActivationKeyText, BgpState, CoordinatedChannel, CoordinatedConnection, CoordinatedConnectionPatch,
        CoordinatedConnectionRequest, CoordinatedPlacement, CoordinatedProvisioning, CoordinatedState,
    },
};
use tokio::time::{interval, timeout};
use uuid::Uuid;

use super::{LOOK, PATIENCE, SOCKET_DROPS, process::Process, timeline::Timeline, traffic::Traffic, world};
use crate::args;

/// Datagrams of each direction that are looked at before and after something happens.
const ENOUGH: u64 = 1_000;

/// One installation: a provider.
struct Side {
    provider: &'static str,
    end: End,
    url: String,
    client: Client,
    service: Process,
}

/// Both of them, and their lab.
struct Pair {
    dir: PathBuf,
    sides: [Side; 2],
}

/// Everything between the start of the lab and its end.
pub(super) async fn play(timeline: &mut Timeline, dir: &Path, demo: &args::Demo) -> anyhow::Result<()> {
    let pair = Pair::start(dir).await?;
    for side in &pair.sides {
        timeline.good(&format!("{} is up", side.provider), &format!("{}, a store, a router of its own", side.url));
    }
    let id = connect(timeline, &pair).await?;
    if demo.keep {
        pair.explore(timeline, id);
        pair.keep();
        return Ok(());
    }
    carry_and_move(timeline, &pair, id).await?;
    resize(timeline, &pair, id).await?;
    end(timeline, &pair, id).await
}

/// From a key to a connection that both sides call verified.
async fn connect(timeline: &mut Timeline, pair: &Pair) -> anyhow::Result<Uuid> {
    timeline.head("An activation key from north, brought to south by the customer: 1 Gbit/s");
    timeline.restart();
    let [north, south] = &pair.sides;
    let request = CoordinatedConnectionRequest {
        provider: south.provider.to_owned(),
        environment_id: ENVIRONMENT.to_owned(),
        bandwidth_mbps: 1_000.try_into()?,
        remote_account_id: "default".to_owned(),
    };
    let issued = north.client.create_coordinated_connection(&request).await?;
    let id = issued.coordinated_connection.id;
    timeline.plain("POST /v1/coordinatedConnections", &format!("at north: 201, a key for {id}"));
    let key = ActivationKeyText { activation_key: issued.activation_key };
    south.client.accept_activation_key(&key).await?;
    timeline.plain("POST /v1/activationKeys:accept", "at south: 202, it asks north for its half");
    let mut told = BTreeSet::new();
    pair.until("verified on both sides", id, |seen| {
        for channel in seen[1].iter().flat_map(|c| &c.placements).flat_map(|p| &p.channels) {
            tell(timeline, channel, &mut told);
        }
        seen.iter().all(|side| side.as_ref().is_some_and(|c| placed(c, CHANNELS).is_some()))
    })
    .await?;
    pair.established(CHANNELS).await?;
    timeline.good("verified", "four BGP sessions Established, as both routers say; both sides were told by the other");
    Ok(id)
}

/// Tells when a channel is agreed, and when it is up on both sides.
fn tell(timeline: &Timeline, channel: &CoordinatedChannel, told: &mut BTreeSet<String>) {
    let CoordinatedChannel { channel_id, vlan_id, .. } = channel;
    if told.insert(format!("{channel_id} agreed")) {
        let hosts: Vec<String> = channel.hosts_ipv4.values().map(ToString::to_string).collect();
        timeline.plain(&format!("{channel_id}: VLAN {vlan_id}"), &hosts.join(" — "));
    }
    let up = [channel.provisioning_state, channel.remote_provisioning_state];
    if up == [CoordinatedProvisioning::Final; 2] && told.insert(format!("{channel_id} up")) {
        timeline.good(&format!("{channel_id} is up on both sides"), "");
    }
}

/// The one place of a connection that is verified there with so many channels, all of them up on both sides.
fn placed(connection: &CoordinatedConnection, channels: usize) -> Option<&CoordinatedPlacement> {
    let [placement] = connection.placements.as_slice() else { return None };
    let up = |c: &CoordinatedChannel| {
        [c.provisioning_state, c.remote_provisioning_state] == [CoordinatedProvisioning::Final; 2]
    };
    let whole = placement.channels.len() == channels && placement.channels.iter().all(up);
    (connection.state == CoordinatedState::Active && placement.verified && whole).then_some(placement)
}

/// Traffic, and a move to the other interconnect under it.
async fn carry_and_move(timeline: &mut Timeline, pair: &Pair, id: Uuid) -> anyhow::Result<()> {
    timeline.head("Traffic: 1,000 numbered datagrams a second each way, and a TCP stream that is checked byte by byte");
    timeline.restart();
    let mut traffic = Traffic::start(&pair.lab(), &pair.dir).await?;
    let whole = traffic.until(|seen| seen.a_to_b.received > ENOUGH && seen.b_to_a.received > ENOUGH).await?;
    timeline.good("hosts reach each other", &format!("{} of the first 2,000 datagrams lost", whole.lost()));

    timeline.head("It moves to another interconnect, make before break");
    timeline.restart();
    let before = traffic.seen().context("the flows have reported before")?;
    let [_, south] = &pair.sides;
    let from = pair.interconnect(id).await?;
    let moving = south.client.migrate_coordinated_connection(id).await?;
    timeline
        .plain("POST /v1/coordinatedConnections/{id}:migrate", &format!("202, at {} places", moving.placements.len()));
    let mut told = BTreeSet::new();
    pair.until("moved on both sides", id, |seen| {
        for placement in seen[1].iter().flat_map(|connection| &connection.placements) {
            let new = placement.interconnect_id != from;
            if new && placement.verified && told.insert("verified") {
                timeline.good(&format!("{} works", placement.interconnect_id), "the old one is drained now");
            }
        }
        let moved = |c: &CoordinatedConnection| placed(c, CHANNELS).is_some_and(|p| p.interconnect_id != from);
        seen.iter().all(|side| side.as_ref().is_some_and(moved))
    })
    .await?;
    pair.established(CHANNELS).await?;
    let to = pair.interconnect(id).await?;
    timeline.good(&format!("moved from {from} to {to}"), "the old sessions and their VLANs are gone from both routers");
    let now = traffic.seen().context("the flows have reported before")?;
    let more = |now: u64, then: u64| now > then + ENOUGH;
    let after = traffic
        .until(|seen| {
            more(seen.a_to_b.received, now.a_to_b.received) && more(seen.b_to_a.received, now.b_to_a.received)
        })
        .await?;
    let lost = after.lost() - before.lost();
    let sent = after.a_to_b.received + after.b_to_a.received - before.a_to_b.received - before.b_to_a.received;
    if lost > SOCKET_DROPS {
        bail!("{lost} of {sent} datagrams were lost while the connection moved");
    }
    timeline.good("no packet was lost", &format!("{lost} of {sent} datagrams while it moved"));
    traffic.stop().await
}

async fn resize(timeline: &mut Timeline, pair: &Pair, id: Uuid) -> anyhow::Result<()> {
    timeline.head("More bandwidth: 2 Gbit/s");
    timeline.restart();
    let patch = CoordinatedConnectionPatch { bandwidth_mbps: 2_000.try_into()? };
    pair.sides[0].client.patch_coordinated_connection(id, &patch).await?;
    let bigger = |c: &CoordinatedConnection| c.bandwidth_mbps == patch.bandwidth_mbps && placed(c, CHANNELS).is_some();
    pair.until("2 Gbit/s on both sides", id, |seen| seen.iter().all(|side| side.as_ref().is_some_and(bigger))).await?;
    timeline.good("2 Gbit/s on both sides", "north asked, south agreed, then it changed");
    Ok(())
}

/// Deletes it, and looks for what could be left.
async fn end(timeline: &mut Timeline, pair: &Pair, id: Uuid) -> anyhow::Result<()> {
    timeline.head("Deleted");
    timeline.restart();
    pair.sides[0].client.delete_coordinated_connection(id).await?;
    pair.until("gone on both sides", id, |seen| seen.iter().all(Option::is_none)).await?;
    timeline.good("both books are empty", "north and south answer 404");
    pair.established(0).await?;
    let status = Control::open(&pair.lab())?.status().await?;
    for (site, links) in &status.tagged {
        if !links.is_empty() {
            bail!("tagged interfaces are left at {site}: {}", links.join(", "));
        }
    }
    timeline.good("both routers are as they were", "no session, no file, no tagged interface");
    Ok(())
}

impl Pair {
    /// Two services on a lab, whose folder is `lab` in this one.
    async fn start(dir: &Path) -> anyhow::Result<Self> {
        let (lab, program) = (dir.join("lab"), std::env::current_exe()?);
        let text = |path: &Path| path.to_str().map(ToOwned::to_owned).context("a path that is no text");
        let hook = [text(&program)?, "lab-router".to_owned(), "--dir".to_owned(), text(&lab)?, "--site".to_owned()];
        // Another network of the loopback for each demo.
        let [.., high, low] = std::process::id().to_be_bytes();
        let configs = coordinated::configure(dir, &lab, &hook, [64 + high % 128, low])?;
        let start = async |end: End| {
            let provider = PROVIDERS[end as usize];
            let folder = dir.join(provider);
            std::fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
            let (service, url) = world::serve(&lab, "service", &folder, &configs[end as usize], "127.0.0.1:0").await?;
            let token = std::fs::read_to_string(folder.join("tieline.token")).context("the first admin token")?;
            let client = Client::new(&url, &SecretString::from(token.trim()))?;
            Ok::<_, anyhow::Error>(Side { provider, end, url, client, service })
        };
        let (north, south) = futures::try_join!(start(End::A), start(End::B))?;
        Ok(Self { dir: dir.to_owned(), sides: [north, south] })
    }

    fn lab(&self) -> PathBuf {
        self.dir.join("lab")
    }

    /// Looks at a connection from both sides until it is as it should be; a side that does not have it shows none.
    async fn until(
        &self,
        what: &str,
        id: Uuid,
        mut is: impl FnMut(&[Option<CoordinatedConnection>; 2]) -> bool,
    ) -> anyhow::Result<()> {
        let watching = async {
            let mut every = interval(LOOK);
            loop {
                every.tick().await;
                let [north, south] = &self.sides;
                if is(&[north.connection(id).await?, south.connection(id).await?]) {
                    return Ok(());
                }
            }
        };
        timeout(PATIENCE, watching).await.with_context(|| format!("not {what} within {} s", PATIENCE.as_secs()))?
    }

    /// Waits until both routers hold exactly so many sessions, all of them Established.
    async fn established(&self, sessions: usize) -> anyhow::Result<()> {
        let mut last = BTreeMap::new();
        let watching = async {
            let mut every = interval(Duration::from_millis(200));
            loop {
                every.tick().await;
                let mut good = true;
                for side in &self.sides {
                    let held = coordinated::held(&self.lab(), side.end).await?;
                    good &= held.len() == sessions && held.values().all(|bgp| *bgp == BgpState::Established);
                    last.insert(side.provider, held);
                }
                if good {
                    return Ok::<_, anyhow::Error>(());
                }
            }
        };
        let waited = timeout(PATIENCE, watching).await;
        waited.with_context(|| format!("the routers do not hold {sessions} sessions that are up: {last:?}"))?
    }

    /// Where a connection is.
    async fn interconnect(&self, id: Uuid) -> anyhow::Result<String> {
        let connection = self.sides[1].connection(id).await?.context("the connection is gone")?;
        let placement = connection.placements.first().context("the connection is nowhere")?;
        Ok(placement.interconnect_id.clone())
    }

    fn explore(&self, timeline: &Timeline, id: Uuid) {
        timeline.head("It keeps running. Explore it:");
        let lab = self.lab();
        for side in &self.sides {
            let token = self.dir.join(side.provider).join("tieline.token");
            timeline.command(&format!(
                "TIELINE_URL={} TIELINE_TOKEN=$(cat {}) tieline coordinated show {id}   # {}",
                side.url,
                token.display(),
                side.provider
            ));
        }
        timeline.command(&format!("tieline lab exec --dir {} a-host -- ip route get 10.1.1.10", lab.display()));
        timeline.command(&format!("tieline lab down --dir {}   # ends it all", lab.display()));
    }

    /// Leaves everything running, until the lab ends.
    fn keep(self) {
        self.sides.into_iter().for_each(|side| side.service.keep());
    }
}

impl Side {
    async fn connection(&self, id: Uuid) -> anyhow::Result<Option<CoordinatedConnection>> {
        match self.client.coordinated_connection(id).await {
            Ok(connection) => Ok(Some(connection)),
            Err(ClientError::Problem { problem, .. }) if problem.code == ProblemCode::NotFound => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}
