//! `tieline demo --kind coordinated`: two installations that know each other by the open specification only, each with a
//! router of its own, from an activation key to a connection that carries traffic, to another interconnect, and back to
//! nothing.

mod channels;

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
    client::{Client, ClientError, Write},
    ids::ConnectionId,
    problem::ProblemCode,
    units::BandwidthMbps,
    v1::{
        ActivationKeyAcceptance, AddressFamily, BgpState, Connection, ConnectionEnd, ConnectionIntent, ConnectionState,
        Fallback, Migration, PlacedChannel, Placement, ProvisioningState, Redundancy, Routing, VerificationState,
        Wanted,
    },
};
use tokio::time::{interval, timeout};

use super::{
    LOOK, PATIENCE,
    process::Process,
    timeline::Timeline,
    traffic::{self, ENOUGH, Traffic},
    world,
};
use crate::args;

/// The connection's name, on either side.
const NAME: &str = "demo";
/// The customer's account at the other provider: the project that an installation begins with.
const ACCOUNT: &str = "default";
/// A connection at north, and the same at south: each provider has an id of its own for it.
type Ids = [ConnectionId; 2];

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
    channels::secured(timeline, &pair).await?;
    let ids = connect(timeline, &pair).await?;
    if demo.keep {
        pair.explore(timeline);
        pair.keep();
        return Ok(());
    }
    let mut traffic = carry(timeline, &pair).await?;
    let at = relocate(timeline, &pair, ids, &mut traffic).await?;
    channels::rotate(timeline, &pair, &at, &mut traffic).await?;
    channels::maintain(timeline, &pair, ids, &at, &mut traffic).await?;
    traffic.stop().await?;
    resize(timeline, &pair, ids).await?;
    end(timeline, &pair, ids).await
}

/// From a key to a connection that both sides call verified.
async fn connect(timeline: &mut Timeline, pair: &Pair) -> anyhow::Result<Ids> {
    timeline.head("An activation key from north, brought to south by the customer: 1 Gbit/s");
    timeline.restart();
    let [north, south] = &pair.sides;
    let ordered = north.client.create_connection(&intent(south.provider)?, &Write::default()).await?.connection;
    let shared = ordered.shared_connection_uuid.context("a connection with a peer has a UUID that both know")?;
    timeline.plain("POST /v1/connections", &format!("at north: 202, an activation key for {shared}"));
    let acceptance = ActivationKeyAcceptance {
        activation_key: ordered.activation_key.context("north handed out no activation key")?,
        name: NAME.to_owned(),
        a: announcing("10.1.0.0/16")?,
        b: announcing("10.0.0.0/16")?,
        labels: BTreeMap::new(),
        description: "made by tieline demo".to_owned(),
        deletion_protection: false,
    };
    let accepted = south.client.accept_activation_key(&acceptance, &Write::default()).await?.connection;
    let ids = [ordered.id, accepted.id];
    timeline.plain("POST /v1/activationKeys:accept", "at south: 202, it asks north for its half");
    let mut told = BTreeSet::new();
    pair.until("verified on both sides", ids, |seen| {
        for channel in seen[1].iter().flat_map(|c| &c.placements).flat_map(|p| &p.channels) {
            tell(timeline, channel, &mut told);
        }
        seen.iter().all(|side| side.as_ref().is_some_and(|c| settled(c).is_some()))
    })
    .await?;
    pair.established(CHANNELS).await?;
    timeline.good("verified", "four BGP sessions Established, as both routers say; both sides were told by the other");
    Ok(ids)
}

/// What north's customer asks for.
fn intent(peer: &str) -> anyhow::Result<ConnectionIntent> {
    let remote_account_id = Some(ACCOUNT.to_owned());
    Ok(ConnectionIntent {
        name: NAME.to_owned(),
        environment_id: format!("{peer}.{ENVIRONMENT}").parse()?,
        bandwidth_mbps: 1_000.try_into()?,
        redundancy: Redundancy::default(),
        a: announcing("10.0.0.0/16")?,
        b: ConnectionEnd { remote_account_id, ..announcing("10.1.0.0/16")? },
        routing: Routing::default(),
        families: vec![AddressFamily::Ipv4],
        wanted: Wanted::default(),
        fallback: Fallback { tunnel: false, capacity_mbps: None },
        labels: BTreeMap::new(),
        description: "made by tieline demo".to_owned(),
        deletion_protection: false,
    })
}

fn announcing(prefix: &str) -> anyhow::Result<ConnectionEnd> {
    Ok(ConnectionEnd { advertised_prefixes: vec![prefix.parse()?], ..ConnectionEnd::default() })
}

/// Tells when a channel is agreed, and when it is up on both sides.
fn tell(timeline: &Timeline, channel: &PlacedChannel, told: &mut BTreeSet<String>) {
    let id = &channel.channel_id;
    if told.insert(format!("{id} agreed")) {
        let hosts: Vec<String> =
            channel.a.host_ipv4.iter().chain(&channel.b.host_ipv4).map(ToString::to_string).collect();
        timeline.plain(&format!("{id}: VLAN {}", channel.a.vlan_id), &hosts.join(" — "));
    }
    if up(channel) && told.insert(format!("{id} up")) {
        timeline.good(&format!("{id} is up on both sides"), "");
    }
}

/// Whether both providers say of a channel that it is done and its session up.
fn up(channel: &PlacedChannel) -> bool {
    channel.provisioning_state == ProvisioningState::Final && channel.bgp_state == BgpState::Established
}

/// Whether every channel of an interconnect is there, and up.
fn whole(placement: &Placement) -> bool {
    placement.channels.len() == CHANNELS && placement.channels.iter().all(up)
}

/// The one place of a connection that has everything that was asked for, and is verified.
fn settled(connection: &Connection) -> Option<&Placement> {
    let [placement] = connection.placements.as_slice() else { return None };
    let verified = connection.verification_state == VerificationState::Verified;
    (connection.state == ConnectionState::Active && verified && whole(placement)).then_some(placement)
}

/// An interconnect as both providers call it: below the environment, which is below the peer.
fn called(placement: &Placement) -> &str {
    let id = placement.interconnect_id.as_str();
    id.rsplit('.').next().unwrap_or(id)
}

/// Traffic that goes on from here.
async fn carry(timeline: &mut Timeline, pair: &Pair) -> anyhow::Result<Traffic> {
    timeline.head("Traffic: 1,000 numbered datagrams a second each way, and a TCP stream that is checked byte by byte");
    timeline.restart();
    // A session is Established a moment before what it learns is in the kernel.
    traffic::carried(&pair.lab(), &pair.dir).await?;
    timeline.good("the connection carries both ways", "a first TCP stream came back");
    let mut traffic = Traffic::start(&pair.lab(), &pair.dir).await?;
    let first = traffic.until(|seen| seen.a_to_b.received > ENOUGH && seen.b_to_a.received > ENOUGH).await?;
    let sent = first.lost() + first.a_to_b.received + first.b_to_a.received;
    timeline.good("hosts reach each other", &format!("{} of the first {sent} datagrams lost", first.lost()));
    Ok(traffic)
}

/// A move to the other interconnect under traffic; where it is then.
async fn relocate(timeline: &mut Timeline, pair: &Pair, ids: Ids, traffic: &mut Traffic) -> anyhow::Result<String> {
    timeline.head("It moves to another interconnect, make before break");
    timeline.restart();
    let before = traffic.seen().context("the flows have reported before")?;
    let [_, south] = &pair.sides;
    let now = south.there(ids).await?;
    let from = settled(&now).map(called).context("the connection is not settled")?.to_owned();
    south.client.migrate_connection(now.id, now.generation, &Migration::default(), &Write::default()).await?;
    timeline.plain("POST /v1/connections/{id}:migrate", "at south: 202");
    let (mut told, mut to) = (BTreeSet::new(), String::new());
    pair.until("moved on both sides", ids, |seen| {
        for placement in seen[1].iter().flat_map(|connection| &connection.placements) {
            let new = called(placement) != from;
            if new && whole(placement) && told.insert("whole") {
                to = called(placement).to_owned();
                timeline.good(&format!("{to} works"), "every channel of it is up on both sides");
            }
        }
        let moved = |c: &Connection| settled(c).is_some_and(|p| called(p) != from);
        seen.iter().all(|side| side.as_ref().is_some_and(moved))
    })
    .await?;
    pair.established(CHANNELS).await?;
    timeline.good(&format!("moved from {from} to {to}"), "the old sessions and their VLANs are gone from both routers");
    traffic.kept(timeline, &before, "while it moved").await?;
    Ok(to)
}

/// Another bandwidth: one customer asks, both providers change it, and the other customer agrees.
async fn resize(timeline: &mut Timeline, pair: &Pair, ids: Ids) -> anyhow::Result<()> {
    timeline.head("More bandwidth: 2 Gbit/s");
    timeline.restart();
    let bandwidth: BandwidthMbps = 2_000.try_into()?;
    let patch = serde_json::json!({ "bandwidthMbps": bandwidth });
    let [north, south] = &pair.sides;
    north.patch(ids, &patch).await?;
    timeline.plain("PATCH /v1/connections/{id}", "at north: 202, it asks south");
    let bigger = |c: &Connection| {
        let mut all = c.placements.iter().flat_map(|p| &p.channels);
        c.placements.iter().all(whole) && all.all(|channel| channel.bandwidth_mbps == bandwidth)
    };
    pair.until("2 Gbit/s on both sides", ids, |seen| seen.iter().all(|side| side.as_ref().is_some_and(bigger))).await?;
    timeline.good("2 Gbit/s on both sides", "as both providers agreed");
    // Only its own user writes an intent: at south it says what it said.
    timeline.plain("at south", &south.there(ids).await?.state_reason.message);
    south.patch(ids, &patch).await?;
    let agreed = |c: &Connection| c.intent.bandwidth_mbps == bandwidth && settled(c).is_some();
    pair.until("settled on both sides", ids, |seen| seen.iter().all(|side| side.as_ref().is_some_and(agreed))).await?;
    timeline.good("the customer says so at south too", "both intents have what there is");
    Ok(())
}

/// Deletes it, and looks for what could be left.
async fn end(timeline: &mut Timeline, pair: &Pair, ids: Ids) -> anyhow::Result<()> {
    timeline.head("Deleted");
    timeline.restart();
    let [north, _] = &pair.sides;
    let now = north.there(ids).await?;
    north.client.delete_connection(now.id, now.generation, &Write::default()).await?;
    timeline.plain("DELETE /v1/connections/{id}", "at north: 202");
    pair.until("gone on both sides", ids, |seen| seen.iter().all(Option::is_none)).await?;
    timeline.good("gone on both sides", "north and south answer 404");
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
        ids: Ids,
        mut is: impl FnMut(&[Option<Connection>; 2]) -> bool,
    ) -> anyhow::Result<()> {
        let watching = async {
            let mut every = interval(LOOK);
            loop {
                every.tick().await;
                let [north, south] = &self.sides;
                if is(&[north.connection(ids).await?, south.connection(ids).await?]) {
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

    fn explore(&self, timeline: &Timeline) {
        timeline.head("It keeps running. Explore it:");
        let lab = self.lab();
        for side in &self.sides {
            let token = self.dir.join(side.provider).join("tieline.token");
            timeline.command(&format!(
                "TIELINE_URL={} TIELINE_TOKEN=$(cat {}) tieline connections show {NAME}   # {}",
                side.url,
                token.display(),
                side.provider
            ));
        }
        let [north, _] = &self.sides;
        let token = self.dir.join(north.provider).join("tieline.token");
        timeline.command(&format!(
            "TIELINE_URL={} TIELINE_TOKEN=$(cat {}) tieline coordinator macsec list",
            north.url,
            token.display()
        ));
        timeline.command(&format!("tieline lab exec --dir {} a-host -- ip route get 10.1.1.10", lab.display()));
        timeline.command(&format!("tieline lab down --dir {}   # ends it all", lab.display()));
    }

    /// Leaves everything running, until the lab ends.
    fn keep(self) {
        self.sides.into_iter().for_each(|side| side.service.keep());
    }
}

impl Side {
    /// The connection as this provider shows it, while it is there.
    async fn connection(&self, ids: Ids) -> anyhow::Result<Option<Connection>> {
        match self.client.connection(ids[self.end as usize]).await {
            Ok(connection) => Ok(Some(connection)),
            Err(ClientError::Problem { problem, .. }) if problem.code == ProblemCode::NotFound => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    async fn there(&self, ids: Ids) -> anyhow::Result<Connection> {
        self.connection(ids).await?.with_context(|| format!("the connection is gone at {}", self.provider))
    }

    /// Changes the intent that this provider has.
    async fn patch(&self, ids: Ids, patch: &serde_json::Value) -> anyhow::Result<()> {
        let now = self.there(ids).await?;
        self.client.update_connection(now.id, now.generation, patch, &Write::default()).await?;
        Ok(())
    }
}
