//! What goes on on a channel beside connections: its MACsec keys, and work on it.
//!
//! A channel has a row of its own in the [`Book`], under the same revision. As for connections, the peer asks
//! ([`Book::serve_channel`]), time comes ([`Book::step_channel`]), the peer has answered ([`Book::absorb_channel`]), the device
//! says how it is ([`Book::observe_keys`]) and the operator wishes ([`Book::wish_rotation`], [`Book::open_window`],
//! [`Book::end_window`]). What the device is to hold is told by [`Book::wanted_keys`], as a state.
//!
//! The rules of keys are those of "MACsec Key Rotation" in `Protocols.md` of the Connection Coordinator, and of its schema
//! `MacSecKey`; the rules of work are its "Maintenance Coordination".

mod absorb;
mod keys;
mod serve;
mod step;
#[cfg(test)]
pub(super) mod tests;
mod windows;

use serde::{Deserialize, Serialize};
use tieline_openapi::coordinator::{ResourceId, Sensitive, Timestamp};
use uuid::Uuid;

use super::{
    serve::Refusal,
    state::{Attempts, Book, Change, ChannelTerms, InterconnectTerms, MacSecTerms},
};

pub use keys::{BAKE_TIME, KeyTrouble, KeyTroubleKind, RotationError};
pub use serve::{ChannelRequest, ServedChannel};
pub use step::ChannelStep;
pub use windows::{LONGEST_WINDOW, WindowError, WindowRequest};

/// A channel's place.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ChannelPlace {
    /// The environment.
    pub environment: ResourceId,
    /// The interconnect.
    pub interconnect: ResourceId,
    /// The channel.
    pub channel: ResourceId,
}

impl ChannelPlace {
    /// Whether two channels are of one interconnect.
    #[must_use]
    pub fn is_beside(&self, other: &Self) -> bool {
        self.environment == other.environment
            && self.interconnect == other.interconnect
            && self.channel != other.channel
    }
}

/// What our device says of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum KeyState {
    /// Not installed yet, or nothing is known.
    Waiting,
    /// Installed: what the peer sends under it is taken.
    Standby,
    /// What we send goes under it.
    Active,
}

/// What a manager knows of a key at the peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum KeyThere {
    /// It was never told, or the answer was lost.
    Unknown,
    /// The peer has it.
    Present {
        /// Whether the peer's device uses it.
        active: bool,
    },
    /// The peer has it no more, and will not take it again.
    Gone,
}

/// A MACsec key of a channel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyRow {
    /// The last id of its name.
    pub id: ResourceId,
    /// The connectivity association key, 64 hexadecimal digits. Blank at rest: it is sealed apart.
    pub cak: Sensitive,
    /// The key's name on the wire, 2 to 64 hexadecimal digits. Blank at rest as well.
    pub ckn: Sensitive,
    /// When this side took it: this side's clock.
    pub start_time: Timestamp,
    /// Whether it was the only key of its channel: then nothing was rotated, and no other channel waits for it.
    pub first: bool,
    /// By our device.
    pub ours: KeyState,
    /// Since when our device uses it, or when it began to for the last time.
    pub active_since: Option<Timestamp>,
    /// At the peer; looked at by the manager only.
    pub theirs: KeyThere,
    /// Whether the manager takes it away.
    pub closing: bool,
    /// The requests that create and delete it at the peer.
    pub requests: (Uuid, Uuid),
    /// At which [`ChannelRow::version`] we learned of the peer's half: an older look tells nothing of it.
    pub since_version: u64,
}

/// Why a key is to be changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum RotationReason {
    /// The operator said so.
    Operator,
    /// The peer asked for it.
    Peer,
}

/// A change of key that is wished for and has not begun.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RotationWish {
    /// Why.
    pub reason: RotationReason,
    /// Since when.
    pub since: Timestamp,
    /// What goes with the request, where the peer is the manager and is asked; 200 characters at most.
    pub words: String,
    /// Whether the peer has taken the request, where it is the manager.
    pub told: bool,
    /// The request that asks the peer.
    pub request_id: Uuid,
}

/// What became of work on a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum WindowEnd {
    /// It was under way, and its time is over or the operator has ended it.
    Done,
    /// It was called off before it began.
    Cancelled,
    /// Its time came while other work of the interconnect stood against it: it never began.
    Conflict,
    /// Its time went by without a word of the peer: it never began.
    Unconfirmed,
}

/// Work of ours on a channel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    /// Its `maintenanceId`: one of all channels that the work takes.
    pub id: Uuid,
    /// From when on.
    pub start: Timestamp,
    /// Until when.
    pub end: Timestamp,
    /// Whether it waits for nobody.
    pub emergency: bool,
    /// When it was planned.
    pub made_at: Timestamp,
    /// Whether the peer had nothing against it when asked after that.
    pub cleared: bool,
    /// When it began: from then on the channel is drained.
    pub begun_at: Option<Timestamp>,
    /// When it was over, and how.
    pub ended: Option<(Timestamp, WindowEnd)>,
}

impl Window {
    /// Whether it is still to come or under way.
    #[must_use]
    pub const fn is_open(&self) -> bool {
        self.ended.is_none()
    }

    /// Whether the channel is closed by it.
    #[must_use]
    pub const fn is_under_way(&self) -> bool {
        self.begun_at.is_some() && self.ended.is_none()
    }
}

/// Work of the peer on a channel, as it shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerEvent {
    /// The peer's id of it.
    pub id: String,
    /// From when on; none is since ever.
    pub start: Option<Timestamp>,
    /// Until when; none is without an end in sight.
    pub end: Option<Timestamp>,
}

impl PeerEvent {
    /// Whether it is under way.
    #[must_use]
    pub fn is_under_way(&self, now: Timestamp) -> bool {
        self.start.is_none_or(|start| start <= now) && self.end.is_none_or(|end| now < end)
    }

    /// Whether it shares a moment with an interval.
    #[must_use]
    pub fn meets(&self, start: Timestamp, end: Timestamp) -> bool {
        self.start.is_none_or(|at| at < end) && self.end.is_none_or(|at| start < at)
    }
}

/// A channel: our half, and what we know of the other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChannelRow {
    /// Where.
    pub at: ChannelPlace,
    /// Counts changes: the fence.
    pub version: u64,
    /// Its keys, the oldest first: two at most.
    pub keys: Vec<KeyRow>,
    /// Keys that were here: what comes late under their ids is refused. The newest last, 32 at most.
    pub retired: Vec<ResourceId>,
    /// Keys that only the peer has, to be deleted there by the manager.
    pub stray: Vec<(ResourceId, Uuid)>,
    /// A change of key that is wished for.
    pub wish: Option<RotationWish>,
    /// When our device last said how it is.
    pub device_at: Option<Timestamp>,
    /// Work of ours, the oldest first; what is over stays for a while.
    pub windows: Vec<Window>,
    /// Work of the peer.
    pub theirs: Vec<PeerEvent>,
    /// Looks at it: how many were asked for, and which of them is the last that was answered.
    pub looks: (u64, u64),
    /// The first look whose answer tells whether our newest window on a channel beside this one is free.
    pub tells_from: u64,
    /// Whether the channel was closed for work at the last step.
    pub closed: bool,
    /// Counts changes of what we show of our work, and how many of them the peer has been notified of.
    pub shown: (u64, u64),
    /// When the peer's work is to be read again.
    pub events_at: Timestamp,
    /// When the peer's keys are to be read again, by their manager.
    pub keys_at: Timestamp,
    /// Attempts since the last success.
    pub attempts: Attempts,
}

impl ChannelRow {
    /// A channel of which nothing is known.
    #[must_use]
    pub const fn new(at: ChannelPlace, now: Timestamp) -> Self {
        Self {
            at,
            version: 0,
            keys: Vec::new(),
            retired: Vec::new(),
            stray: Vec::new(),
            wish: None,
            device_at: None,
            windows: Vec::new(),
            theirs: Vec::new(),
            looks: (0, 0),
            tells_from: 0,
            closed: false,
            shown: (0, 0),
            events_at: now,
            keys_at: now,
            attempts: Attempts { count: 0, first_at: None, next_at: None },
        }
    }

    /// Whether work of either side is under way.
    #[must_use]
    pub fn is_closed(&self, now: Timestamp) -> bool {
        self.windows.iter().any(Window::is_under_way) || self.theirs.iter().any(|event| event.is_under_way(now))
    }

    /// The key that our device uses.
    #[must_use]
    pub fn active(&self) -> Option<&KeyRow> {
        self.keys.iter().find(|key| key.ours == KeyState::Active)
    }
}

/// A request to the peer about a channel: one call on the wire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChannelAsk {
    /// GetMaintenanceEvents.
    Events {
        /// Where.
        at: ChannelPlace,
        /// Which look it is.
        look: u64,
    },
    /// NotifyMaintenance.
    NotifyMaintenance {
        /// Where.
        at: ChannelPlace,
        /// Which state of ours it tells of.
        shown: u64,
    },
    /// ListMacSecKeys.
    Keys {
        /// Where.
        at: ChannelPlace,
        /// [`ChannelRow::version`] when it was asked.
        as_of: u64,
    },
    /// CreateMacSecKey.
    CreateKey {
        /// Where.
        at: ChannelPlace,
        /// The last id of its name.
        key: ResourceId,
        /// Its CAK.
        cak: Sensitive,
        /// Its CKN.
        ckn: Sensitive,
        /// `requestId`.
        request_id: Uuid,
    },
    /// DeleteMacSecKey.
    DeleteKey {
        /// Where.
        at: ChannelPlace,
        /// The last id of its name.
        key: ResourceId,
        /// `requestId`.
        request_id: Uuid,
    },
    /// RequestMacSecKeyRotation.
    RequestRotation {
        /// Where.
        at: ChannelPlace,
        /// Why.
        words: String,
        /// `requestId`.
        request_id: Uuid,
    },
}

impl ChannelAsk {
    /// The channel that it is about.
    #[must_use]
    pub const fn at(&self) -> &ChannelPlace {
        match self {
            Self::Events { at, .. }
            | Self::NotifyMaintenance { at, .. }
            | Self::Keys { at, .. }
            | Self::CreateKey { at, .. }
            | Self::DeleteKey { at, .. }
            | Self::RequestRotation { at, .. } => at,
        }
    }
}

/// What a server shows of a key. Its halves are never shown again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeenKey {
    /// The last id of its name.
    pub id: ResourceId,
    /// When the server took it; a peer may leave it out.
    pub start_time: Option<Timestamp>,
    /// Whether the server's device uses it.
    pub active: bool,
}

/// An answer about a channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChannelReply {
    /// It is done.
    Done {
        /// When it was done: the `startTime` of a key.
        at: Option<Timestamp>,
    },
    /// The server's work on it.
    Events(Vec<PeerEvent>),
    /// Its keys.
    Keys(Vec<SeenKey>),
    /// No.
    Refused(Refusal),
}

/// Random choices for one step of a channel, used at most once.
#[derive(Debug, Clone)]
pub struct ChannelDraw {
    /// For a new key's name and its requests.
    pub ids: [Uuid; 3],
    /// A CAK of 256 bits: 64 hexadecimal digits.
    pub cak: Sensitive,
    /// A CKN of 32 octets: 64 hexadecimal digits.
    pub ckn: Sensitive,
    /// Thousandths, for the pauses between attempts.
    pub jitter: u16,
}

/// What a device is to hold for a channel on which MACsec is run. Nothing ever goes through in clear: without an active key
/// nothing goes through at all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WantedKeys {
    /// All that are to be installed, the oldest first.
    pub installed: Vec<KeyRow>,
    /// The CKN of the one to send under.
    pub active: Option<Sensitive>,
}

/// What a device says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KeyReport {
    /// CKNs of what is installed.
    pub installed: Vec<String>,
    /// The CKN of the key in use.
    pub active: Option<String>,
}

impl Book {
    pub(super) fn channel_terms(&self, at: &ChannelPlace) -> Option<&ChannelTerms> {
        self.interconnect_of(at)?.channels.get(&at.channel)
    }

    fn interconnect_of(&self, at: &ChannelPlace) -> Option<&InterconnectTerms> {
        self.terms.environments.get(&at.environment)?.interconnects.get(&at.interconnect)
    }

    fn macsec(&self, at: &ChannelPlace) -> Option<&MacSecTerms> {
        self.channel_terms(at)?.macsec.as_ref()
    }

    /// Who manages a channel's MACsec keys, and how; none where MACsec is not run.
    #[must_use]
    pub fn macsec_of(&self, at: &ChannelPlace) -> Option<&MacSecTerms> {
        self.macsec(at)
    }

    /// Whether a channel is agreed with the peer.
    #[must_use]
    pub fn is_agreed(&self, at: &ChannelPlace) -> bool {
        self.channel_terms(at).is_some()
    }

    /// A key as it is shown.
    #[must_use]
    pub fn shown_key(&self, at: &ChannelPlace, id: &ResourceId) -> Option<SeenKey> {
        self.channels.get(at)?.shown_keys().into_iter().find(|key| key.id == *id)
    }

    /// Whether work of ours has this id.
    #[must_use]
    pub fn has_window(&self, id: Uuid) -> bool {
        self.channels.values().any(|row| row.windows.iter().any(|window| window.id == id))
    }

    /// The other channels of a channel's interconnect.
    fn beside<'b>(&'b self, at: &'b ChannelPlace) -> impl Iterator<Item = &'b ChannelRow> {
        let agreed = self.interconnect_of(at);
        let agreed = move |row: &&ChannelRow| agreed.is_some_and(|i| i.channels.contains_key(&row.at.channel));
        self.channels.values().filter(|row| row.at.is_beside(at)).filter(agreed)
    }

    /// A row for each agreed channel that has none yet.
    #[must_use]
    pub fn missing_channels(&self, now: Timestamp) -> Vec<Change> {
        let mut changes = Vec::new();
        for (environment, terms) in &self.terms.environments {
            for (interconnect, terms) in &terms.interconnects {
                for channel in terms.channels.keys() {
                    let (environment, interconnect) = (environment.clone(), interconnect.clone());
                    let at = ChannelPlace { environment, interconnect, channel: channel.clone() };
                    if !self.channels.contains_key(&at) {
                        changes.push(put(ChannelRow::new(at, now)));
                    }
                }
            }
        }
        changes
    }

    /// Writes into the terms which channels are closed for work: nothing new is made there, and what is there is drained.
    pub fn close_channels(&mut self, now: Timestamp) {
        for row in self.channels.values() {
            let environment = self.terms.environments.get_mut(&row.at.environment);
            let interconnect = environment.and_then(|e| e.interconnects.get_mut(&row.at.interconnect));
            if let Some(terms) = interconnect.and_then(|i| i.channels.get_mut(&row.at.channel)) {
                terms.in_maintenance = row.is_closed(now);
            }
        }
    }

    /// Whether [`close_channels`](Self::close_channels) changes nothing now.
    pub(super) fn channels_are_of(&self, now: Timestamp) -> bool {
        self.channels.values().all(|row| {
            let environment = self.terms.environments.get(&row.at.environment);
            let interconnect = environment.and_then(|e| e.interconnects.get(&row.at.interconnect));
            let terms = interconnect.and_then(|i| i.channels.get(&row.at.channel));
            terms.is_none_or(|terms| terms.in_maintenance == row.is_closed(now))
        })
    }
}

/// A channel's next version.
fn put(mut row: ChannelRow) -> Change {
    row.version += 1;
    Change::Channel(Box::new(row))
}
