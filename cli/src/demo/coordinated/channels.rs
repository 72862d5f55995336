//! What the demo does with channels while traffic crosses them: their MACsec keys change, and one of them is taken out for
//! work.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};
use serde::Deserialize;
use tieline_lab::{
    assembly::coordinated::{CHANNELS, ENVIRONMENT, INTERCONNECTS, PROVIDERS},
    cell::{self, Place, control::Client as Control, control::Status},
    net::{
        BGP_TABLE, End, MacSecWay,
        macsec::MacSecStatus,
        wire::{Cut, WireChange},
    },
};
use tieline_openapi::v1::{
    MacSecChannel, MacSecKeyState, MacSecRotation, MacSecRotationRequest, MaintenanceEvent, MaintenanceOrigin,
    MaintenanceRequest, MaintenanceState,
};
use tokio::time::{interval, timeout};

use super::{
    super::{LOOK, PATIENCE, timeline::Timeline, traffic::Traffic},
    Ids, Pair, Side, settled,
};
use crate::commands::every_page;

/// How long a lab's keys bake, by the `macsecBakeSeconds` of its configuration.
const BAKE: Duration = Duration::from_secs(2);
/// How long the announced work may take.
const WORK: Duration = Duration::from_secs(3_600);
/// Frames that a trunk must carry in a moment to count as one that carries a flow: sessions alone send fewer.
const CARRIES: u64 = 200;

/// A channel of one of the two interconnects.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Channel {
    interconnect: String,
    id: String,
    /// The trunk that is it at both routers, and the wire between them.
    trunk: String,
}

impl Channel {
    /// Every channel of an interconnect.
    fn all(interconnect: &str) -> anyhow::Result<Vec<Self>> {
        let at = INTERCONNECTS.iter().position(|id| *id == interconnect).context("an interconnect of another lab")?;
        let one = |n: usize| Self {
            interconnect: interconnect.to_owned(),
            id: format!("{interconnect}-{}", n + 1),
            trunk: format!("ch{}", at * CHANNELS + n),
        };
        Ok((0..CHANNELS).map(one).collect())
    }
}

/// The keys of every channel as one provider shows them, by channel.
type Keys = BTreeMap<String, MacSecChannel>;

/// Waits until every channel has a key that both routers use.
pub(super) async fn secured(timeline: &Timeline, pair: &Pair) -> anyhow::Result<()> {
    let all = INTERCONNECTS.len() * CHANNELS;
    watch("every channel has its MACsec key", async || {
        let status = pair.status().await?;
        let routers = PROVIDERS.iter().all(|site| {
            let trunks = status.macsec.get(*site);
            trunks.is_some_and(|trunks| trunks.values().filter(|trunk| trunk.active).count() == all)
        });
        let [north, south] = pair.keys().await?;
        let shown = [north, south].iter().all(|keys| keys.len() == all && keys.values().all(is_settled));
        Ok((routers && shown).then_some(()))
    })
    .await?;
    let mut trunks = pair.status().await?.macsec.into_values().flat_map(BTreeMap::into_values);
    let kernels = trunks.all(|trunk| trunk.way == MacSecWay::Kernel);
    let encrypted = if kernels { "; the kernel encrypts" } else { "" };
    let what = format!("a key each, in use as both routers report; without one nothing passes{encrypted}");
    timeline.good("MACsec on all eight channels", &what);
    Ok(())
}

/// Two channels of an interconnect change their keys under traffic, one after the other.
pub(super) async fn rotate(
    timeline: &mut Timeline,
    pair: &Pair,
    at: &str,
    traffic: &mut Traffic,
) -> anyhow::Result<()> {
    timeline.head("Two channels change their MACsec keys under traffic: never both at once");
    let channels = Channel::all(at)?;
    let first = pair.busiest(&channels).await?;
    let before = pair.keys().await?;
    let manager = |channel: &Channel| before[0].get(&channel.id).map(|keys| keys.manager.clone());
    // The other one's keys are made by the other provider.
    let second = channels.iter().find(|other| manager(other) != manager(&first));
    let second = second.context("one provider makes all keys")?.clone();
    let counted = pair.status().await?.macsec;
    timeline.restart();
    let start = traffic.seen().context("the flows have reported before")?;
    let [north, _] = &pair.sides;
    for channel in [&first, &second] {
        north.rotate(channel).await?;
        let made = match manager(channel) {
            Some(by) if by == north.provider => "north makes its keys".to_owned(),
            by => format!("{} makes its keys, and is asked", by.unwrap_or_default()),
        };
        timeline.plain("POST /v1/macSecChannels:rotate", &format!("at north, for {}: {made}", channel.id));
        if *channel == first {
            pair.begun(timeline, channel).await?;
        }
    }
    for channel in [&first, &second] {
        pair.changed(timeline, channel, &before, &counted).await?;
    }
    // As the provider that waited for its turn saw it.
    let waiting = if manager(&second).as_deref() == Some(PROVIDERS[0]) { End::A } else { End::B };
    let keys = &pair.keys().await?[waiting as usize];
    let key = |channel: &Channel| keys.get(&channel.id).and_then(|keys| keys.keys.first()).cloned();
    let (one, other) = key(&first).zip(key(&second)).context("a key is gone again")?;
    let used = one.active_since.map_or(one.start_time, |at| at.max(one.start_time));
    let waited = Duration::try_from(other.start_time.duration_since(used)).unwrap_or_default();
    ensure!(waited >= BAKE, "the second channel got its key {waited:?} after the first one used its own");
    timeline.good(
        &format!("{} waited for its turn", second.id),
        &format!(
            "{:.1} s after {} used its new key; the bake time here is 2 s, else two hours",
            waited.as_secs_f64(),
            first.id
        ),
    );
    let touched = pair.status().await?.macsec;
    for (site, trunks) in &touched {
        for (trunk, now) in trunks.iter().filter(|(trunk, _)| **trunk != first.trunk && **trunk != second.trunk) {
            let was = counted.get(site).and_then(|trunks| trunks.get(trunk)).map(|was| was.changes);
            ensure!(was == Some(now.changes), "the key of {trunk} at {site} was changed as well");
        }
    }
    traffic.kept(timeline, &start, "while two keys changed").await?;
    Ok(())
}

/// Work on the channel that carries most: announced, drained, its fibre unplugged, and ended.
pub(super) async fn maintain(
    timeline: &mut Timeline,
    pair: &Pair,
    ids: Ids,
    at: &str,
    traffic: &mut Traffic,
) -> anyhow::Result<()> {
    timeline.head("Work on a channel: announced, drained on both sides, its fibre unplugged, and ended");
    let channel = pair.busiest(&Channel::all(at)?).await?;
    let [north, south] = &pair.sides;
    timeline.restart();
    let start = traffic.seen().context("the flows have reported before")?;
    let request = MaintenanceRequest {
        provider: north.provider.to_owned(),
        environment_id: ENVIRONMENT.to_owned(),
        interconnect_id: channel.interconnect.clone(),
        channel_id: channel.id.clone(),
        whole_device: false,
        start_time: None,
        end_time: crate::clock::timestamp() + WORK,
        emergency: false,
    };
    let event = south.client.create_maintenance_event(&request).await?;
    let id = event.own_id().context("the event is not the one that was asked for")?;
    timeline.plain("POST /v1/maintenanceEvents", &format!("at south: 201, an hour's work on {}", channel.id));
    pair.drained(timeline, &channel, &event).await?;

    let cut = |cut| WireChange { cut: Some(cut), ..WireChange::default() };
    let control = Control::open(&pair.lab())?;
    let unplugged = traffic.seen().context("the flows have reported before")?;
    control.change_wire(&channel.trunk, &cut(Cut::Both)).await?;
    traffic.kept(timeline, &unplugged, "without its fibre").await?;
    control.change_wire(&channel.trunk, &cut(Cut::None)).await?;
    pair.established(CHANNELS).await?;
    timeline.good("plugged in again", "its session is up on both sides; routes still stay away");

    let over = south.client.end_maintenance_event(id).await?;
    ensure!(over.state == MaintenanceState::Done, "the work has ended as {:?}", over.state);
    timeline.plain("DELETE /v1/maintenanceEvents/{id}", "at south: 200");
    watch("the channel is used again", async || {
        let open = north.maintenance(&event.id).await?.is_some();
        let [a, b] = [pair.ways(End::A)?, pair.ways(End::B)?];
        let settled = [north.there(ids).await?, south.there(ids).await?].iter().all(|c| settled(c).is_some());
        Ok((!open && a == CHANNELS && b == CHANNELS && settled).then_some(()))
    })
    .await?;
    timeline.good("the work has ended", "north knows; both routers forward over all four channels again");
    traffic.kept(timeline, &start, "from the announcement on").await?;
    Ok(())
}

/// Whether a channel has one key, in use on this side and, as far as this side knows, on the other.
fn is_settled(channel: &MacSecChannel) -> bool {
    let [key] = channel.keys.as_slice() else { return false };
    let used = key.state == MacSecKeyState::Active && key.remote_active != Some(false);
    channel.secure && used && channel.rotation == MacSecRotation::None
}

/// What both routers tell of a trunk.
fn both(status: &BTreeMap<String, BTreeMap<String, MacSecStatus>>, trunk: &str) -> Option<[MacSecStatus; 2]> {
    let of = |site: &str| status.get(site)?.get(trunk).copied();
    let [a, b] = PROVIDERS.map(of);
    Some([a?, b?])
}

impl Pair {
    async fn status(&self) -> anyhow::Result<Status> {
        Ok(Control::open(&self.lab())?.status().await?)
    }

    async fn keys(&self) -> anyhow::Result<[Keys; 2]> {
        let [north, south] = &self.sides;
        Ok([north.keys().await?, south.keys().await?])
    }

    /// The channel that carries most of the traffic.
    async fn busiest(&self, channels: &[Channel]) -> anyhow::Result<Channel> {
        let frames = |status: &Status, channel: &Channel| {
            status.wires.get(&channel.trunk).map_or(0, |wire| wire.a_to_b.frames + wire.b_to_a.frames)
        };
        let before = self.status().await?;
        watch("a channel carries", async || {
            let now = self.status().await?;
            let carried = |channel: &&Channel| frames(&now, channel).saturating_sub(frames(&before, channel));
            let most = channels.iter().max_by_key(carried).filter(|channel| carried(channel) >= CARRIES);
            Ok(most.cloned())
        })
        .await
    }

    /// Waits until both routers have a second key of a channel.
    async fn begun(&self, timeline: &Timeline, channel: &Channel) -> anyhow::Result<()> {
        watch("a second key at both routers", async || {
            let status = self.status().await?.macsec;
            let both = both(&status, &channel.trunk).context("no MACsec on the channel")?;
            Ok(both.iter().all(|end| end.installed == 2).then_some(()))
        })
        .await?;
        timeline.plain(&format!("{}: a second key", channel.id), "both routers take it; the one before still carries");
        Ok(())
    }

    /// Waits until the key of a channel is another one, on both sides and in both routers, and it alone.
    async fn changed(
        &self,
        timeline: &Timeline,
        channel: &Channel,
        before: &[Keys; 2],
        counted: &BTreeMap<String, BTreeMap<String, MacSecStatus>>,
    ) -> anyhow::Result<()> {
        let was = both(counted, &channel.trunk).context("no MACsec on the channel")?;
        let trunks = Channel::all(&channel.interconnect)?;
        let mut told = BTreeSet::new();
        watch("a key was changed", async || {
            let status = self.status().await?.macsec;
            let ends = |trunk: &str| both(&status, trunk).context("no MACsec on the channel");
            let two: Vec<&str> = trunks
                .iter()
                .filter(|other| ends(&other.trunk).is_ok_and(|ends| ends.iter().any(|end| end.installed > 1)))
                .map(|other| other.id.as_str())
                .collect();
            ensure!(two.len() < 2, "{} change their keys at the same time", two.join(" and "));
            let now = ends(&channel.trunk)?;
            let used = now.iter().zip(&was).all(|(now, was)| now.active && now.changes == was.changes + 1);
            if used && told.insert("used") {
                timeline.good(&format!("{}: the new key is in use", channel.id), "as both routers report");
            }
            let alone = now.iter().all(|end| end.installed == 1);
            let keys = self.keys().await?;
            let new = keys.iter().zip(before).all(|(now, before)| {
                let id = |keys: &Keys| keys.get(&channel.id).and_then(|c| c.keys.first()).map(|key| key.id.clone());
                now.get(&channel.id).is_some_and(is_settled) && id(now) != id(before)
            });
            Ok((used && alone && new).then_some(()))
        })
        .await?;
        timeline.good(&format!("{}: the old key is gone", channel.id), "from both routers");
        Ok(())
    }

    /// Tells how announced work gets on, until nothing goes over its channel on either side.
    async fn drained(&self, timeline: &Timeline, channel: &Channel, event: &MaintenanceEvent) -> anyhow::Result<()> {
        let [north, south] = &self.sides;
        let id = event.own_id().context("the event is not ours")?;
        let mut told = BTreeSet::new();
        watch("the channel is drained on both sides", async || {
            let (ours, theirs) = (south.client.maintenance_event(id).await?, north.maintenance(&event.id).await?);
            if theirs.is_some() && told.insert("known") {
                timeline.good("north knows of it", "as the specification's maintenance event");
            }
            match ours.state {
                MaintenanceState::Scheduled | MaintenanceState::Confirmed => return Ok(None),
                MaintenanceState::Draining | MaintenanceState::UnderWay => {}
                MaintenanceState::Done
                | MaintenanceState::Cancelled
                | MaintenanceState::Conflict
                | MaintenanceState::Unconfirmed => bail!("the work has ended as {:?} before it began", ours.state),
            }
            if told.insert("begun") {
                timeline.plain("it begins", "north has nothing against it: routes move away");
            }
            let under_way = |event: &MaintenanceEvent| event.state == MaintenanceState::UnderWay;
            let ways = [self.ways(End::A)?, self.ways(End::B)?];
            let away = ways.iter().all(|ways| *ways == CHANNELS - 1);
            Ok((under_way(&ours) && theirs.as_ref().is_some_and(under_way) && away).then_some(()))
        })
        .await?;
        timeline
            .good(&format!("{} is drained", channel.id), "on both sides: both routers forward over the other three");
        Ok(())
    }

    /// Over how many channels a router forwards to the other site.
    fn ways(&self, end: End) -> anyhow::Result<usize> {
        #[derive(Deserialize)]
        struct Route {
            dst: String,
            #[serde(default)]
            nexthops: Vec<serde_json::Value>,
            gateway: Option<String>,
        }
        let mut ip = cell::command(&self.lab(), &Place::parse(&format!("{}-router", end.letter())), "ip")?;
        let table = BGP_TABLE.to_string();
        let out = ip.args(["-json", "-4", "route", "show", "table", &table]).output().context("ip")?;
        ensure!(out.status.success(), "ip: {}", String::from_utf8_lossy(&out.stderr));
        let routes: Vec<Route> = serde_json::from_slice(&out.stdout).context("ip answers otherwise")?;
        let remote = format!("10.{}.0.0/16", end.other() as u8);
        let of = |route: &Route| {
            if route.nexthops.is_empty() { usize::from(route.gateway.is_some()) } else { route.nexthops.len() }
        };
        Ok(routes.iter().filter(|route| route.dst == remote).map(of).max().unwrap_or(0))
    }
}

impl Side {
    async fn keys(&self) -> anyhow::Result<Keys> {
        let client = &self.client;
        let all = every_page!(client.mac_sec_channels => mac_sec_channels);
        Ok(all.into_iter().map(|channel| (channel.channel.channel_id.clone(), channel)).collect())
    }

    async fn rotate(&self, channel: &Channel) -> anyhow::Result<()> {
        let request = MacSecRotationRequest {
            provider: PROVIDERS[self.end.other() as usize].to_owned(),
            environment_id: ENVIRONMENT.to_owned(),
            interconnect_id: channel.interconnect.clone(),
            channel_id: channel.id.clone(),
            reason: Some("shown by tieline demo".to_owned()),
        };
        self.client.rotate_mac_sec_key(&request).await?;
        Ok(())
    }

    /// Work of the other provider, as this one knows of it, while it is not over.
    async fn maintenance(&self, id: &str) -> anyhow::Result<Option<MaintenanceEvent>> {
        let client = &self.client;
        let all = every_page!(client.maintenance_events => maintenance_events);
        let is = |event: &MaintenanceEvent| {
            event.origin == MaintenanceOrigin::Theirs && event.id == id && event.state != MaintenanceState::Done
        };
        Ok(all.into_iter().find(is))
    }
}

/// Looks again and again until something is there.
async fn watch<T>(what: &str, mut look: impl AsyncFnMut() -> anyhow::Result<Option<T>>) -> anyhow::Result<T> {
    let watching = async {
        let mut every = interval(LOOK);
        loop {
            every.tick().await;
            if let Some(found) = look().await? {
                return Ok(found);
            }
        }
    };
    timeout(PATIENCE, watching).await.with_context(|| format!("not within {} s: {what}", PATIENCE.as_secs()))?
}
