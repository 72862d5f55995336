//! What is agreed is brought to our routers, and what they say of it into the book.
//!
//! The replica that drives a peer tends its routers too, under the same lease, each router on its own: one that does not
//! answer holds no other. A pass reads the book, lists what the router holds of this pairing, puts what is missing or
//! otherwise, deletes what is not wanted, and lets [`Book::observe`] know what came of it. Nothing is remembered from pass
//! to pass but since when a session is drained, so a restart waits for that once more and for nothing else.
//!
//! Calls to routers have no ledger row. A row tells how a call without an answer is settled; here each is settled by the
//! next list: names follow from the book, nobody else uses them, and every call may be made again.

mod issues;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use tieline_openapi::{config::RouterConfig, coordinator::ResourceId, units::BandwidthMbps, v1::BgpState};
use tieline_providers::network::{Device, DeviceError, Listed, Owner, Session, SessionName};
use uuid::Uuid;

use issues::{Code, Told};

use super::{Coordination, CoordinationError, Peer, keeper::Doing};
use crate::{
    events::Topic,
    plan::coordinate::{Book, Change, FeatureRow, Local, Place, Row, Wanted},
};

/// How often a router is looked at while sessions on it are coming up or draining, at most.
const HURRIED: Duration = Duration::from_millis(500);
/// For how long that is so after something has changed.
const HURRY: Duration = Duration::from_secs(120);
/// Failures in a row after which a person is told.
const SILENT: u32 = 3;
/// The longest pause between looks at a router that does not answer.
const LONGEST: Duration = Duration::from_secs(60);

/// One of our routers.
#[derive(Debug, Clone)]
pub struct Router {
    /// As `tieline.toml` has it.
    pub config: RouterConfig,
    /// How it is spoken with.
    pub device: Arc<dyn Device>,
}

/// What is to become of one channel of a connection on a router.
struct Entry {
    place: Place,
    channel: ResourceId,
    feature: ResourceId,
    connection: Uuid,
    wanted: Wanted,
    /// None where the router cannot hold what is agreed.
    session: Option<Session>,
}

/// What one loop remembers of its router.
#[derive(Default)]
struct Memory {
    /// Since when sessions are seen drained, by the monotonic clock.
    drained: BTreeMap<SessionName, Duration>,
    /// What the router was brought to last.
    applied: Option<BTreeMap<SessionName, Option<String>>>,
    /// When it is looked at again whatever happens, by the same clock.
    next_at: Duration,
    /// Until when it is looked at often while something is on its way.
    hurried_until: Duration,
    /// Failures in a row.
    failures: u32,
    /// Issues that stand, by code and subject; none before the first look.
    standing: Option<BTreeSet<Code>>,
}

/// What a pass came to.
struct Passed {
    /// Sessions that the router did not take.
    refused: Vec<(Uuid, DeviceError)>,
    /// The connections that it carries.
    connections: BTreeSet<Uuid>,
    /// Whether something is coming up or draining.
    hurried: bool,
}

impl Coordination {
    /// Tends the routers of a peer for ever.
    pub(super) async fn tend(&self, peer: &Arc<Peer>) {
        if let Err(error) = self.forget_unrouted(peer).await {
            tracing::warn!(error = &error as &dyn std::error::Error, peer = %peer.id, "channels without a router were put off");
        }
        let routers = self.parts.routers.iter().map(|router| self.tend_one(peer, router));
        futures::future::join_all(routers).await;
        std::future::pending().await
    }

    async fn tend_one(&self, peer: &Arc<Peer>, router: &Router) {
        let mut due = self.parts.hints.subscribe(Topic::Due);
        let owner = Owner::new(&[self.us().as_str(), peer.id.as_str()]);
        let mut memory = Memory::default();
        loop {
            let passed = self.pass_router(peer, router, &owner, &mut memory).await;
            let poll = Duration::from_millis(router.config.poll_ms);
            match passed {
                Ok(passed) => {
                    memory.failures = 0;
                    if let Some(passed) = passed {
                        let first = if memory.standing.is_none() { passed.connections } else { BTreeSet::new() };
                        let told = Told::Answered { refused: passed.refused, first };
                        self.tell_of_router(peer, router, &mut memory, told).await;
                        let wait = if passed.hurried { poll.min(HURRIED) } else { poll };
                        memory.next_at = self.parts.clock.monotonic().saturating_add(wait);
                    }
                    let wait = memory.next_at.saturating_sub(self.parts.clock.monotonic());
                    due.wait_at_most(&*self.parts.clock, wait).await;
                }
                Err(error) => {
                    memory.failures = memory.failures.saturating_add(1);
                    memory.applied = None;
                    put_off(peer, router, &error);
                    if memory.failures >= SILENT {
                        self.tell_of_router(peer, router, &mut memory, Told::Silent(error)).await;
                    }
                    // Not woken by hints: what does not answer is asked later and later.
                    let pause = poll.saturating_mul(1 << memory.failures.min(6)).min(LONGEST);
                    self.parts.clock.sleep(pause).await;
                }
            }
        }
    }

    /// One look at a router; none where nothing has changed and it was looked at a moment ago.
    async fn pass_router(
        &self,
        peer: &Arc<Peer>,
        router: &Router,
        owner: &Owner,
        memory: &mut Memory,
    ) -> Result<Option<Passed>, CoordinationError> {
        let (_, book) = self.load(peer, None).await?;
        let entries = entries(&book, self.us(), peer, router, owner);
        drop(book);
        let wanted: BTreeMap<_, _> = entries.iter().map(|(name, entry)| (name.clone(), entry.fingerprint())).collect();
        let now = self.parts.clock.monotonic();
        if memory.applied.as_ref() != Some(&wanted) {
            memory.hurried_until = now.saturating_add(HURRY);
        } else if now < memory.next_at {
            return Ok(None);
        }
        let device = &*router.device;
        let mut listed = device.list(owner).await?;
        let (changed, refused) = bring(device, &entries, &listed, &router.config).await?;
        if changed {
            listed = device.list(owner).await?;
        }
        memory.applied = Some(wanted);
        let (seen, hurried) = self.seen(&entries, &listed, router, memory);
        self.note(peer, seen).await?;
        let connections = entries.values().map(|entry| entry.connection).collect();
        // What is refused, or waits for the other end for long, is looked at as anything else.
        let hurried = hurried && refused.is_empty() && now < memory.hurried_until;
        Ok(Some(Passed { refused, connections, hurried }))
    }

    /// What the router says of each channel; and whether something is on its way.
    fn seen(
        &self,
        entries: &BTreeMap<SessionName, Entry>,
        listed: &BTreeMap<SessionName, Listed>,
        router: &Router,
        memory: &mut Memory,
    ) -> (Vec<Seen>, bool) {
        let now = self.parts.clock.monotonic();
        let settle = Duration::from_millis(router.config.drain_ms);
        memory.drained.retain(|name, _| listed.contains_key(name));
        let (mut seen, mut hurried) = (Vec::new(), false);
        for (name, entry) in entries {
            let local = match listed.get(name) {
                None => Some(Local::Reserved),
                Some(held) if Some(&held.fingerprint) != entry.fingerprint().as_ref() => None,
                Some(held) => {
                    let up = held.bgp == BgpState::Established;
                    match entry.wanted {
                        Wanted::Carry => {
                            memory.drained.remove(name);
                            Some(if up { Local::Up } else { Local::Down })
                        }
                        Wanted::Drained => {
                            // Routes take their time to move away at both ends. Where no session is up nothing moves.
                            let since = *memory.drained.entry(name.clone()).or_insert(now);
                            (!up || now.saturating_sub(since) >= settle).then_some(Local::Drained)
                        }
                        Wanted::Gone => None,
                    }
                }
            };
            let done = match entry.wanted {
                Wanted::Gone => local == Some(Local::Reserved),
                Wanted::Carry => local == Some(Local::Up),
                Wanted::Drained => local == Some(Local::Drained),
            };
            hurried |= !done;
            seen.extend(local.map(|local| Seen {
                place: entry.place.clone(),
                channel: entry.channel.clone(),
                feature: entry.feature.clone(),
                local,
            }));
        }
        (seen, hurried)
    }

    /// Writes what routers said, where it is news.
    async fn note(&self, peer: &Peer, seen: Vec<Seen>) -> Result<(), CoordinationError> {
        if seen.is_empty() {
            return Ok(());
        }
        self.act(peer, None, None, |book, _| Doing::new((), observed(book, &seen))).await
    }

    /// Channels that no router carries hold nothing of ours, whatever carried them before.
    async fn forget_unrouted(&self, peer: &Peer) -> Result<(), CoordinationError> {
        let declared = |row: &Row, channel: &ResourceId| {
            let at = peer.router(&row.place, channel);
            at.is_some_and(|at| self.parts.routers.iter().any(|router| router.config.id == at.id))
        };
        let unrouted = |book: &Book| -> Vec<Seen> {
            let all = book.rows.values().flat_map(|row| row.features.iter().map(move |feature| (row, feature)));
            let lost = all.filter(|(row, (channel, _))| !declared(row, channel));
            lost.map(|(row, (channel, feature))| Seen {
                place: row.place.clone(),
                channel: channel.clone(),
                feature: feature.id.clone(),
                local: Local::Reserved,
            })
            .collect()
        };
        self.act(peer, None, None, |book, _| Doing::new((), observed(book, &unrouted(book)))).await
    }
}

fn put_off(peer: &Peer, router: &Router, error: &CoordinationError) {
    let error = error as &dyn std::error::Error;
    tracing::warn!(error, router = %router.config.id, peer = %peer.id, "a router was put off");
}

impl Entry {
    /// Of what the router is to hold; none where it is to hold nothing, or cannot.
    fn fingerprint(&self) -> Option<String> {
        match self.wanted {
            Wanted::Gone => None,
            Wanted::Carry | Wanted::Drained => self.session.as_ref().map(Session::fingerprint),
        }
    }
}

/// What a router said of a channel.
struct Seen {
    place: Place,
    channel: ResourceId,
    /// The feature that it was said of: another one may be there since.
    feature: ResourceId,
    local: Local,
}

fn observed(book: &Book, seen: &[Seen]) -> Vec<Change> {
    let feature = |book: &Book, seen: &Seen| -> Option<FeatureRow> {
        book.rows.get(&seen.place)?.features.get(&seen.channel).filter(|f| f.id == seen.feature).cloned()
    };
    let news: Vec<_> =
        seen.iter().filter(|seen| feature(book, seen).is_some_and(|feature| feature.ours != seen.local)).collect();
    if news.is_empty() {
        return Vec::new();
    }
    let mut book = book.clone();
    let mut all = Vec::new();
    for seen in news {
        let changes = book.observe(&seen.place, &seen.channel, seen.local);
        // Each follows the one before it: what was read is what is changed.
        if book.apply(&changes).is_ok() {
            all.extend(changes);
        }
    }
    all
}

/// What a router is to hold of a pairing.
fn entries(book: &Book, us: &ResourceId, peer: &Peer, router: &Router, owner: &Owner) -> BTreeMap<SessionName, Entry> {
    let mut entries = BTreeMap::new();
    for row in book.rows.values() {
        let mut wanted = book.wanted(&row.place);
        for (channel, feature) in &row.features {
            let (Some(wanted), Some(at)) = (wanted.remove(channel), peer.router(&row.place, channel)) else { continue };
            if at.id != router.config.id {
                continue;
            }
            let Place { environment, interconnect, connection } = &row.place;
            let parts = [environment, interconnect, connection, channel, &feature.id].map(ResourceId::as_str);
            let name = owner.session(&parts);
            let drained = wanted == Wanted::Drained;
            let session = session(row, feature, us, &name, channel, &at.interface, router, drained);
            let entry = Entry {
                place: row.place.clone(),
                channel: channel.clone(),
                feature: feature.id.clone(),
                connection: row.uuid,
                wanted,
                session,
            };
            entries.insert(name, entry);
        }
    }
    entries
}

#[allow(clippy::too_many_arguments, reason = "what a session is made of")]
fn session(
    row: &Row,
    feature: &FeatureRow,
    us: &ResourceId,
    name: &SessionName,
    channel: &ResourceId,
    interface: &str,
    router: &Router,
    drained: bool,
) -> Option<Session> {
    let config = &feature.config;
    let hosts = config.ipv4.as_ref()?;
    let [first, second] = &config.ends;
    let ends = [(first, hosts.first), (second, hosts.second)];
    let [(ours, local_ip), (theirs, peer_ip)] = if first.provider == us.as_str() { ends } else { [ends[1], ends[0]] };
    Some(Session {
        name: name.clone(),
        connection: row.uuid,
        channel: channel.to_string(),
        interface: interface.to_owned(),
        vlan: config.vlan,
        mtu_bytes: config.mtu,
        bandwidth_mbps: BandwidthMbps::try_from(u64::from(row.bandwidth_mbps)).ok()?,
        local_ip,
        peer_ip,
        prefix_len: hosts.subnet.prefix_len(),
        local_asn: ours.asn,
        peer_asn: theirs.asn,
        password: config.md5_bgp_password.clone(),
        announces: router.config.announces.clone(),
        drained,
    })
}

/// Brings a router to what is wanted: what is to go first, so that a VLAN is free before another session takes it. What one
/// session cannot be is told and holds no other. Whether anything was changed.
async fn bring(
    device: &dyn Device,
    entries: &BTreeMap<SessionName, Entry>,
    listed: &BTreeMap<SessionName, Listed>,
    router: &RouterConfig,
) -> Result<(bool, Vec<(Uuid, DeviceError)>), DeviceError> {
    let (mut changed, mut refused) = (false, Vec::new());
    for name in listed.keys() {
        let entry = entries.get(name);
        if entry.is_none_or(|entry| entry.wanted == Wanted::Gone) {
            device.delete(name).await?;
            tracing::info!(router = %router.id, session = %name, "a session was deleted");
            changed = true;
        }
    }
    for (name, entry) in entries {
        let held = listed.get(name).map(|held| &held.fingerprint);
        let (Some(wanted), Some(session)) = (entry.fingerprint(), &entry.session) else { continue };
        if held == Some(&wanted) {
            continue;
        }
        match device.put(session).await {
            Ok(()) => {
                let Session { interface, vlan, drained, .. } = session;
                tracing::info!(router = %router.id, session = %name, interface, %vlan, drained, "a session was put");
                changed = true;
            }
            Err(error) if error.is_of_one_session() => refused.push((entry.connection, error)),
            Err(error) => return Err(error),
        }
    }
    Ok((changed, refused))
}
