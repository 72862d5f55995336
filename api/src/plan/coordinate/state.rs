//! What is agreed, what is stored, and what may change.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::Ipv4Net;
use jiff::SignedDuration;
use serde::{Deserialize, Serialize};
use tieline_openapi::{
    coordinator::{L3Base, ResourceId, Sensitive, Timestamp},
    units::Asn,
};
use uuid::Uuid;

use super::{
    channels::{ChannelPlace, ChannelRow},
    choose::ChannelGuidance,
    serve::Reply,
};

/// A connection's place: unique, while a UUID is not, since a connection that moves is at two places.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Place {
    /// The environment.
    pub environment: ResourceId,
    /// The interconnect.
    pub interconnect: ResourceId,
    /// The last id of the connection's name.
    pub connection: ResourceId,
}

/// One of our channels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChannelTerms {
    /// Whether it is enabled.
    pub enabled: bool,
    /// Whether work on it is under way: nothing new is made there.
    pub in_maintenance: bool,
    /// The lowest and the highest VLAN that we take; 1024 and lower are never given out.
    pub vlans: (u16, u16),
    /// The MTUs that we take, as ranges with both ends in them.
    pub mtus: Vec<(u16, u16)>,
    /// Where subnets come from.
    pub subnets: Vec<Ipv4Net>,
    /// But not from these.
    pub excluded: Vec<Ipv4Net>,
    /// The prefix lengths that we take.
    pub lengths: Vec<u8>,
    /// Our AS number.
    pub asn: Asn,
    /// Our device that carries it.
    pub device: String,
    /// Who manages its MACsec keys; none where MACsec is not run.
    pub macsec: Option<MacSecTerms>,
}

/// MACsec of a channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MacSecTerms {
    /// Whether we are its `macsecManagerProvider`; else the peer is.
    pub managed_here: bool,
    /// How long no key is changed after one was: [`super::BAKE_TIME`] by the specification.
    pub bake: SignedDuration,
    /// After which age of its key we change it by ourselves.
    pub rotate_after: Option<SignedDuration>,
}

/// One of the interconnects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InterconnectTerms {
    /// Whether it takes new connections.
    pub open: bool,
    /// What all connections together may have, in Mbit/s.
    pub max_bandwidth_mbps: u32,
    /// Its channels. They are looked up by name: the set changes over time.
    pub channels: BTreeMap<ResourceId, ChannelTerms>,
}

impl InterconnectTerms {
    /// How many channels must be agreed before routers are configured: 3 of 4 (the specification's), so n − n/4.
    #[must_use]
    pub fn enough(&self) -> usize {
        let usable = self.usable().count();
        usable - usable / 4
    }

    /// The channels where something new may be made.
    pub fn usable(&self) -> impl Iterator<Item = (&ResourceId, &ChannelTerms)> {
        self.channels.iter().filter(|(_, channel)| channel.enabled && !channel.in_maintenance)
    }
}

/// One of the environments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnvironmentTerms {
    /// The bandwidths that may be bought, in Mbit/s.
    pub sizes_mbps: BTreeSet<u32>,
    /// Whether we ask the peer to provision what we negotiate.
    pub defers: bool,
    /// Whether we provision in the peer's place.
    pub takes_deferral: bool,
    /// How long we wait for a peer that provisions in our place.
    pub deferral_timeout: SignedDuration,
    /// Its interconnects.
    pub interconnects: BTreeMap<ResourceId, InterconnectTerms>,
}

/// What is agreed with one peer, out of band.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Terms {
    /// Our provider id.
    pub us: String,
    /// The peer's.
    pub them: String,
    /// The environments that we share.
    pub environments: BTreeMap<ResourceId, EnvironmentTerms>,
    /// How often a connection on its way is looked at.
    pub poll: SignedDuration,
    /// How often a settled connection is looked at.
    pub settled_poll: SignedDuration,
}

impl Terms {
    /// Of two wishes that cannot both hold, made before either knew of the other, the one of the provider whose id sorts
    /// first holds. Both sides know the same, so exactly one is refused.
    pub(super) fn peer_goes_first(&self) -> bool {
        self.them < self.us
    }

    pub(super) fn interconnect(&self, place: &Place) -> Option<&InterconnectTerms> {
        self.environments.get(&place.environment)?.interconnects.get(&place.interconnect)
    }
}

/// What a connection is for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// A customer's.
    #[default]
    Standard,
    /// A canary: of any size, outside the capacity sums.
    Test,
    /// The providers' own: outside the capacity sums, one an interconnect.
    Monitoring,
}

/// How we came to a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Role {
    /// The customer brought the key to us: we ask the peer for the connection.
    Negotiator,
    /// The peer asked us.
    Responder,
}

/// What a connection is made from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Source {
    /// An activation key, by its UUID; who holds the text is the caller.
    Key(Uuid),
    /// Another connection, in whose place this one comes.
    Connection(Place),
}

/// What is known of the peer's half.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Remote {
    /// Nothing: it was never asked for, or the answer was lost.
    Unknown,
    /// It is there.
    Present,
    /// It is not there.
    Absent {
        /// Since when that is known.
        since: Timestamp,
    },
}

/// Why a connection is taken down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reason {
    /// The customer or the operator said so.
    Wish,
    /// The peer said so.
    Peer,
    /// It moved to another interconnect.
    Moved,
    /// The peer does not know the activation key.
    KeyInvalid,
    /// No interconnect has room.
    NoRoom,
    /// The peer refused it for another reason.
    Refused,
    /// Our room went to a wish of the peer that goes first.
    Displaced,
    /// The peer did not finish what we deferred to it.
    DeferralTimeout,
    /// Seven days without one finished feature on either side.
    NeverFinal,
    /// Seven days on one side only.
    OneSided,
}

/// How far a channel is in our routers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Local {
    /// Reserved; nothing is configured.
    Reserved,
    /// Configured, the BGP session is down.
    Down,
    /// Configured, the BGP session is up.
    Up,
    /// Configured, its routes are the last choice.
    Drained,
}

/// How far a channel is at the peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Theirs {
    /// Proposed, and no answer yet.
    Proposed,
    /// Taken.
    Pending,
    /// Finished.
    Final,
}

/// A feature: one channel of a connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FeatureRow {
    /// The last id of its name.
    pub id: ResourceId,
    /// The request that proposes it, as long as it is ours.
    pub request_id: Uuid,
    /// What is configured. Its password is a secret: it is sealed apart at rest.
    pub config: L3Base,
    /// In our routers.
    pub ours: Local,
    /// At the peer.
    pub theirs: Theirs,
    /// Whether it is taken down.
    pub closing: bool,
    /// At which [`Row::version`] we learned of the peer's half: an older look tells nothing of it.
    pub since_version: u64,
}

/// A change of bandwidth on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resize {
    /// To this, in Mbit/s.
    pub to_mbps: u32,
    /// The request that asks for it.
    pub request_id: Uuid,
}

/// How often the peer was asked in vain, and when it may be asked again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempts {
    /// Since the last success.
    pub count: u32,
    /// When the first of them was.
    pub first_at: Option<Timestamp>,
    /// Not before.
    pub next_at: Option<Timestamp>,
}

/// A connection at one place: our half, and what we know of the other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// Where.
    pub place: Place,
    /// Counts changes: the fence.
    pub version: u64,
    /// The UUID that both providers know the connection by.
    pub uuid: Uuid,
    /// What it is for.
    pub kind: Kind,
    /// How we came to it.
    pub role: Role,
    /// Whether we negotiate its features.
    pub drives: bool,
    /// What it is made from.
    pub source: Source,
    /// Whether the peer called the activation key good.
    pub confirmed: bool,
    /// The bandwidth in Mbit/s.
    pub bandwidth_mbps: u32,
    /// A change of it.
    pub resize: Option<Resize>,
    /// What is known of the peer's half.
    pub remote: Remote,
    /// The request that creates it, and the one that deletes it.
    pub requests: (Uuid, Uuid),
    /// Interconnects that refused it.
    pub refused: BTreeSet<ResourceId>,
    /// VLANs and subnets that the peer refused, by channel.
    pub avoid: BTreeMap<ResourceId, Vec<(u16, Ipv4Net)>>,
    /// By channel.
    pub features: BTreeMap<ResourceId, FeatureRow>,
    /// Features that only the peer has, to be deleted there.
    pub stray: Vec<(ResourceId, Uuid)>,
    /// What the peer would take; thrown away when used or contradicted.
    pub guidance: Option<Vec<ChannelGuidance>>,
    /// Attempts since the last success.
    pub attempts: Attempts,
    /// When the peer's half is to be read again.
    pub look_at: Timestamp,
    /// When it was last seen.
    pub seen_at: Option<Timestamp>,
    /// Whether the last look showed that there is something to ask, and nothing was asked since: that comes before another look.
    #[serde(default)]
    pub looked: bool,
    /// Counts changes of what our half shows, and how many of them the peer has acknowledged.
    pub shown: (u64, u64),
    /// Whether the peer has notified us.
    pub notified: bool,
    /// Whether any feature was ever finished here.
    pub ever_final: bool,
    /// Whether the peer showed any finished feature at the last look.
    pub theirs_ever_final: bool,
    /// Since when.
    pub created_at: Timestamp,
    /// Being taken down, and why.
    pub leaving: Option<Reason>,
}

impl Row {
    /// What it holds of the interconnect's capacity, in Mbit/s.
    #[must_use]
    pub fn held_mbps(&self) -> u32 {
        match self.kind {
            Kind::Standard => self.bandwidth_mbps.max(self.resize.map_or(0, |resize| resize.to_mbps)),
            Kind::Test | Kind::Monitoring => 0,
        }
    }

    /// Whether only we know of it yet.
    #[must_use]
    pub fn is_tentative(&self) -> bool {
        self.role == Role::Negotiator && self.remote == Remote::Unknown
    }

    /// Something was learned that only the peer's half tells.
    pub(super) fn look_again(&mut self, now: Timestamp) {
        (self.look_at, self.looked) = (now, false);
    }

    /// Whether the peer's half was seen within this time.
    pub(super) fn was_seen(&self, now: Timestamp, within: SignedDuration) -> bool {
        // A time that is yet to come is a clock that was set back: it counts as long ago.
        self.seen_at.is_some_and(|at| at <= now && now.duration_since(at) < within)
    }

    /// Features that both sides have.
    pub fn agreed(&self) -> impl Iterator<Item = (&ResourceId, &FeatureRow)> {
        self.features.iter().filter(|(_, feature)| feature.theirs != Theirs::Proposed && !feature.closing)
    }

    /// VERIFIED, by the specification: every feature is finished on both sides, the peer has acknowledged our notification,
    /// and has sent its own.
    #[must_use]
    pub fn is_verified(&self, terms: &Terms) -> bool {
        let Some(interconnect) = terms.interconnect(&self.place) else { return false };
        let works = |channel: &ResourceId| {
            let feature = self.features.get(channel);
            feature.is_some_and(|f| f.ours == Local::Up && f.theirs == Theirs::Final && !f.closing)
        };
        let mut usable = interconnect.usable().peekable();
        self.leaving.is_none()
            && usable.peek().is_some()
            && usable.all(|(channel, _)| works(channel))
            && self.shown.0 == self.shown.1
            && self.notified
    }
}

/// An activation key that we issued.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IssuedKey {
    /// Its UUID.
    pub uuid: Uuid,
    /// Where the connection will be.
    pub environment: ResourceId,
    /// Its bandwidth in Mbit/s.
    pub bandwidth_mbps: u32,
    /// A digest of the key as it was handed out: of a key of version 2 its issuer reads nothing else.
    pub digest: [u8; 32],
    /// Since when: it lives for seven days.
    pub issued_at: Timestamp,
    /// Used once, or no longer good.
    pub spent: bool,
}

/// An answer that was given, by its request id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replay {
    /// What was asked: a digest of the bytes.
    pub digest: [u8; 32],
    /// What was answered.
    pub reply: Reply,
    /// When.
    pub at: Timestamp,
}

/// One change of what is stored. The changes of one answer are one transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// A row as it is now. Its version is one above what is stored; a new row's is 1.
    Put(Box<Row>),
    /// A row is gone. Nobody refers to it any more.
    Remove {
        /// Where it was.
        place: Place,
        /// At which version.
        version: u64,
    },
    /// Nothing may be created here any more.
    Tombstone {
        /// Where.
        place: Place,
        /// Since when.
        at: Timestamp,
    },
    /// A key as it is now.
    Key(IssuedKey),
    /// An answer to remember.
    Replay(Uuid, Replay),
    /// A channel as it is now. Its version is one above what is stored; a new one's is 1.
    Channel(Box<ChannelRow>),
}

/// A change was made from something that has moved on: somebody else was faster, start again from what is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the connection has changed in the meantime")]
pub struct Stale;

/// Everything of one pairing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Book {
    /// What is agreed.
    pub terms: Terms,
    /// Connections by place.
    pub rows: BTreeMap<Place, Row>,
    /// Keys that we issued.
    pub keys: BTreeMap<Uuid, IssuedKey>,
    /// Where nothing may be created any more.
    pub tombstones: BTreeMap<Place, Timestamp>,
    /// Answers by request id.
    pub replays: BTreeMap<Uuid, Replay>,
    /// Keys of channels, and work on them.
    pub channels: BTreeMap<ChannelPlace, ChannelRow>,
}

/// How long answers are remembered: as long as an activation key lives.
pub const REPLAY_KEPT: SignedDuration = SignedDuration::from_hours(7 * 24);
/// How long tombstones are: well beyond the answers.
pub const TOMBSTONE_KEPT: SignedDuration = SignedDuration::from_hours(30 * 24);
/// How long a key lives, and after how long what is unfinished or one-sided is taken down.
pub const SEVEN_DAYS: SignedDuration = SignedDuration::from_hours(7 * 24);

/// Random choices, made before they are needed and used at most once.
#[derive(Debug, Clone)]
pub struct Draw {
    /// For new names and request ids.
    pub ids: [Uuid; 3],
    /// For a new BGP session.
    pub password: Sensitive,
    /// Thousandths, for the pauses between attempts.
    pub jitter: u16,
}

impl Book {
    /// An empty one.
    #[must_use]
    pub fn new(terms: Terms) -> Self {
        Self {
            terms,
            rows: BTreeMap::new(),
            keys: BTreeMap::new(),
            tombstones: BTreeMap::new(),
            replays: BTreeMap::new(),
            channels: BTreeMap::new(),
        }
    }

    /// Stores changes, all or none. A database does the same in one transaction.
    ///
    /// # Errors
    /// [`Stale`] if a row has moved on.
    pub fn apply(&mut self, changes: &[Change]) -> Result<(), Stale> {
        let current = |place: &Place| self.rows.get(place).map_or(0, |row| row.version);
        for change in changes {
            let fresh = match change {
                Change::Put(row) => row.version == current(&row.place) + 1,
                Change::Remove { place, version } => *version == current(place),
                Change::Channel(row) => {
                    row.version == self.channels.get(&row.at).map_or(0, |stored| stored.version) + 1
                }
                Change::Tombstone { .. } | Change::Key(_) | Change::Replay(..) => true,
            };
            if !fresh {
                return Err(Stale);
            }
        }
        for change in changes {
            match change.clone() {
                Change::Put(row) => drop(self.rows.insert(row.place.clone(), *row)),
                Change::Remove { place, .. } => drop(self.rows.remove(&place)),
                Change::Tombstone { place, at } => drop(self.tombstones.insert(place, at)),
                Change::Key(key) => drop(self.keys.insert(key.uuid, key)),
                Change::Replay(id, replay) => drop(self.replays.insert(id, replay)),
                Change::Channel(row) => drop(self.channels.insert(row.at.clone(), *row)),
            }
        }
        Ok(())
    }

    /// Forgets answers, tombstones and keys that are old enough, as a store does.
    pub fn forget(&mut self, now: Timestamp) {
        self.replays.retain(|_, replay| now.duration_since(replay.at) < REPLAY_KEPT);
        self.tombstones.retain(|_, at| now.duration_since(*at) < TOMBSTONE_KEPT);
        self.keys.retain(|_, key| now.duration_since(key.issued_at) < TOMBSTONE_KEPT);
    }

    /// Whether [`forget`](Self::forget) and [`close_channels`](Self::close_channels) change nothing now.
    #[must_use]
    pub fn is_of(&self, now: Timestamp) -> bool {
        let kept = |at: &Timestamp| now.duration_since(*at) < TOMBSTONE_KEPT;
        self.replays.values().all(|replay| now.duration_since(replay.at) < REPLAY_KEPT)
            && self.tombstones.values().all(kept)
            && self.keys.values().all(|key| kept(&key.issued_at))
            && self.channels_are_of(now)
    }

    /// What is free of an interconnect, in Mbit/s, without one connection. `firm` leaves out what only we know of.
    pub(super) fn free_mbps(&self, place: &Place, firm: bool) -> u32 {
        let Some(interconnect) = self.terms.interconnect(place) else { return 0 };
        let same = |row: &&Row| {
            row.place.environment == place.environment
                && row.place.interconnect == place.interconnect
                && row.place != *place
                && !(firm && row.is_tentative())
                // What the peer has given up is free: its half holds nothing any more.
                && !(row.leaving.is_some() && matches!(row.remote, Remote::Absent { .. }))
        };
        let held: u32 = self.rows.values().filter(same).map(Row::held_mbps).fold(0, u32::saturating_add);
        interconnect.max_bandwidth_mbps.saturating_sub(held)
    }
}

/// A row's next version.
pub(super) fn put(mut row: Row) -> Change {
    row.version += 1;
    Change::Put(Box::new(row))
}
