//! Time has come to a connection: what to ask the peer next, and what our routers are to do.

use std::collections::BTreeMap;

use jiff::SignedDuration;
use serde::{Deserialize, Serialize};
use tieline_openapi::coordinator::{L3Base, ResourceId, Timestamp};
use uuid::Uuid;

use super::state::{
    Attempts, Book, Change, FeatureRow, Kind, Local, Place, Reason, Remote, Role, Row, SEVEN_DAYS, Source, Theirs, put,
};
use super::{choose::ChannelGuidance, state::Draw};

/// A request to the peer: one call on the wire, but for a look, which is two reads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ask {
    /// ConfirmActivationKey.
    Confirm {
        /// Where the key is for.
        environment: ResourceId,
        /// The key, by its UUID.
        key: Uuid,
        /// Its bandwidth in Mbit/s.
        bandwidth_mbps: u32,
    },
    /// CreateConnection.
    Create {
        /// Where.
        place: Place,
        /// From what.
        source: Source,
        /// The UUID that both know it by.
        uuid: Uuid,
        /// Its bandwidth in Mbit/s.
        bandwidth_mbps: u32,
        /// What it is for.
        kind: Kind,
        /// Whether the peer is to provision it.
        defer: bool,
        /// `requestId`.
        request_id: Uuid,
    },
    /// GetConnection, then ListFeatures.
    Look {
        /// Where.
        place: Place,
        /// [`Row::version`] when it was asked: what changed later is not contradicted by the answer.
        as_of: u64,
    },
    /// UpdateConnection with an `updateMask` of `bandwidthMbps`.
    Resize {
        /// Where.
        place: Place,
        /// The new bandwidth in Mbit/s.
        to_mbps: u32,
        /// `requestId`.
        request_id: Uuid,
    },
    /// DeleteConnection.
    Delete {
        /// Where.
        place: Place,
        /// `requestId`.
        request_id: Uuid,
    },
    /// GenerateFeatureGuidance.
    Guidance {
        /// Where.
        place: Place,
    },
    /// CreateFeature.
    CreateFeature {
        /// Where.
        place: Place,
        /// On which channel.
        channel: ResourceId,
        /// The last id of its name.
        feature: ResourceId,
        /// Its configuration.
        config: L3Base,
        /// `requestId`.
        request_id: Uuid,
    },
    /// DeleteFeature.
    DeleteFeature {
        /// Where.
        place: Place,
        /// The last id of its name.
        feature: ResourceId,
        /// `requestId`.
        request_id: Uuid,
    },
    /// NotifyConnectionStatus.
    Notify {
        /// Where.
        place: Place,
        /// Which state of ours it tells of.
        shown: u64,
        /// `requestId`.
        request_id: Uuid,
    },
}

impl Ask {
    /// The connection that it is about.
    #[must_use]
    pub const fn place(&self) -> Option<&Place> {
        match self {
            Self::Create { place, .. }
            | Self::Look { place, .. }
            | Self::Resize { place, .. }
            | Self::Delete { place, .. }
            | Self::Guidance { place }
            | Self::CreateFeature { place, .. }
            | Self::DeleteFeature { place, .. }
            | Self::Notify { place, .. } => Some(place),
            Self::Confirm { .. } => None,
        }
    }

    /// The `requestId`, of an ask that has one.
    #[must_use]
    pub const fn request_id(&self) -> Option<Uuid> {
        match self {
            Self::Create { request_id, .. }
            | Self::Resize { request_id, .. }
            | Self::Delete { request_id, .. }
            | Self::CreateFeature { request_id, .. }
            | Self::DeleteFeature { request_id, .. }
            | Self::Notify { request_id, .. } => Some(*request_id),
            Self::Confirm { .. } | Self::Look { .. } | Self::Guidance { .. } => None,
        }
    }
}

/// What to do next with a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// To be stored first, in one transaction.
    pub changes: Vec<Change>,
    /// Then to be sent; its answer goes to [`Book::absorb`].
    pub ask: Option<Ask>,
    /// When to come again if nothing happens before.
    pub wake: Timestamp,
}

/// What the routers are to do with a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// Nothing configured.
    Gone,
    /// Configured and carrying.
    Carry,
    /// Configured, its routes the last choice: traffic moves away before the channel goes.
    Drained,
}

/// Attempts in the foreground: the specification's budget is five, or a minute.
const FOREGROUND: u32 = 5;
const BUDGET: SignedDuration = SignedDuration::from_secs(60);
/// The longest pause between attempts in the background.
pub(super) const LONGEST: SignedDuration = SignedDuration::from_mins(15);

impl Attempts {
    /// Counts an attempt and sets the pause after it: exponential with jitter. Its end, where the foreground's budget is used
    /// up.
    pub(super) fn tried(&mut self, now: Timestamp, jitter: u16) -> Option<Timestamp> {
        self.first_at = self.first_at.or(Some(now));
        self.count = self.count.saturating_add(1);
        let late = self.first_at.is_some_and(|first| now.duration_since(first) >= BUDGET);
        let background = self.count >= FOREGROUND || late;
        let (base, power) =
            if background { (60_000, self.count.saturating_sub(FOREGROUND)) } else { (1_000, self.count - 1) };
        let whole = (base << power.min(4)).min(LONGEST.as_millis() as i64);
        let pause = whole / 2 + whole * i64::from(jitter.min(1_000)) / 2_000;
        let next = now + SignedDuration::from_millis(pause);
        self.next_at = Some(next);
        background.then_some(next)
    }

    /// Whether the pause is over.
    pub(super) fn is_rested(&self, now: Timestamp) -> bool {
        // A due time beyond the longest pause is a clock that was set back: it counts as due.
        self.next_at.is_none_or(|next| next <= now || next.duration_since(now) > LONGEST)
    }
}

impl Row {
    pub(super) fn new(
        place: Place,
        uuid: Uuid,
        kind: Kind,
        bandwidth_mbps: u32,
        source: Source,
        now: Timestamp,
    ) -> Self {
        Self {
            place,
            version: 0,
            uuid,
            kind,
            role: Role::Negotiator,
            drives: true,
            source,
            confirmed: false,
            bandwidth_mbps,
            resize: None,
            remote: Remote::Unknown,
            requests: (uuid, uuid),
            refused: Default::default(),
            avoid: BTreeMap::new(),
            features: BTreeMap::new(),
            stray: Vec::new(),
            guidance: None,
            attempts: Attempts::default(),
            look_at: now,
            seen_at: None,
            looked: false,
            shown: (0, 0),
            notified: false,
            ever_final: false,
            theirs_ever_final: false,
            created_at: now,
            leaving: None,
        }
    }

    /// Whether the attempts in the foreground are used up: from then on a look comes before every write, and the pauses
    /// grow.
    #[must_use]
    pub fn in_background(&self, now: Timestamp) -> bool {
        let late = self.attempts.first_at.is_some_and(|first| now.duration_since(first) >= BUDGET);
        self.attempts.count >= FOREGROUND || (self.attempts.count > 0 && late)
    }

    /// Counts an attempt and sets the pause after it: exponential with jitter.
    fn attempt(&mut self, now: Timestamp, jitter: u16) {
        if let Some(next) = self.attempts.tried(now, jitter) {
            self.look_at = next;
        }
    }

    fn rested(&self, now: Timestamp) -> bool {
        self.attempts.is_rested(now)
    }

    /// Forgets features that are taken down and no longer in our routers.
    pub(super) fn drop_closed(&mut self) {
        self.features.retain(|_, feature| !(feature.closing && feature.ours == Local::Reserved));
    }
}

impl Book {
    /// What our routers are to do with each channel of a connection.
    #[must_use]
    pub fn wanted(&self, place: &Place) -> BTreeMap<ResourceId, Wanted> {
        let Some(row) = self.rows.get(place) else { return BTreeMap::new() };
        let enough = self.terms.interconnect(place).map_or(1, |interconnect| interconnect.enough());
        let ready = row.agreed().count() >= enough.max(1) || row.ever_final;
        let interconnect = self.terms.interconnect(place);
        let closed = |channel: &ResourceId| {
            interconnect.and_then(|i| i.channels.get(channel)).is_some_and(|channel| channel.in_maintenance)
        };
        let wanted = |channel: &ResourceId, feature: &FeatureRow| match (row.leaving, feature.theirs) {
            (Some(_), _) if matches!(row.remote, Remote::Absent { .. }) => Wanted::Gone,
            // Nothing carries in a channel that was never configured, so nothing needs to move away.
            (Some(_), _) if feature.ours == Local::Reserved => Wanted::Gone,
            (Some(_), _) => Wanted::Drained,
            (None, _) if feature.closing => Wanted::Gone,
            (None, Theirs::Proposed) => Wanted::Gone,
            // Where MACsec is run nothing goes without it: fail closed.
            (None, Theirs::Pending | Theirs::Final) if !self.is_secure(place, channel) => Wanted::Gone,
            // Nothing new is made where work is under way, and what is there is drained.
            (None, Theirs::Pending | Theirs::Final) if closed(channel) && feature.ours == Local::Reserved => {
                Wanted::Gone
            }
            (None, Theirs::Pending | Theirs::Final) if closed(channel) => Wanted::Drained,
            (None, Theirs::Pending | Theirs::Final) if ready || feature.ours != Local::Reserved => Wanted::Carry,
            (None, Theirs::Pending | Theirs::Final) => Wanted::Gone,
        };
        row.features.iter().map(|(channel, feature)| (channel.clone(), wanted(channel, feature))).collect()
    }

    /// The next step of a connection. It asks for at most one thing, and what it is about to ask is in the changes.
    #[must_use]
    pub fn step(&self, place: &Place, now: Timestamp, draw: &Draw) -> Step {
        let idle = |wake| Step { changes: Vec::new(), ask: None, wake };
        let Some(row) = self.rows.get(place) else { return idle(now + self.terms.settled_poll) };
        if let Some(reason) = self.must_leave(row, now) {
            let mut row = row.clone();
            row.leaving = Some(reason);
            row.attempts = Attempts::default();
            return Step { changes: vec![put(row)], ask: None, wake: now };
        }
        if let Some(changes) = self.move_on(row) {
            return Step { changes, ask: None, wake: now };
        }
        let clean = row.features.values().all(|feature| feature.ours == Local::Reserved);
        if row.leaving.is_some() && clean && matches!(row.remote, Remote::Absent { .. }) {
            let removed = Change::Remove { place: place.clone(), version: row.version };
            let tombstone = Change::Tombstone { place: place.clone(), at: now };
            return Step { changes: vec![removed, tombstone], ask: None, wake: now };
        }
        if !row.rested(now) {
            let next = row.attempts.next_at.unwrap_or(now);
            return idle(next);
        }
        let look_due = row.look_at <= now || row.look_at.duration_since(now) > self.terms.settled_poll.max(LONGEST);
        let mut next = row.clone();
        // A look that is due comes first: after a hint, after an answer that was lost, and before any try in the background. But
        // what a look was for comes before the next one, and what guidance is for before a look makes it void: else, where a
        // pass takes longer than the pause between two looks, nothing but looks would ever be asked.
        let guided = row.drives && row.guidance.is_some() && row.attempts.count == 0;
        let look_first = look_due && !row.looked && !guided;
        let ask = if look_first { self.look(&mut next, now) } else { None };
        let ask = ask.or_else(|| self.write(&mut next, now, draw));
        let ask = ask.or_else(|| if look_due && !look_first { self.look(&mut next, now) } else { None });
        // What waits for its routers is woken by what they say; this is only in case.
        let Some(ask) = ask else { return idle(if look_due { now + self.terms.poll } else { row.look_at }) };
        if !matches!(ask, Ask::Look { .. }) {
            next.looked = false;
            next.attempt(now, draw.jitter);
        }
        let wake = next.attempts.next_at.unwrap_or(next.look_at).min(next.look_at);
        let change = put(next);
        let ask = stamped(ask, &change);
        Step { changes: vec![change], ask: Some(ask), wake }
    }

    fn must_leave(&self, row: &Row, now: Timestamp) -> Option<Reason> {
        if row.leaving.is_some() {
            return None;
        }
        let age = now.duration_since(row.created_at);
        let timeout = self.terms.environments.get(&row.place.environment).map(|e| e.deferral_timeout);
        match row.remote {
            Remote::Absent { since } if now.duration_since(since) >= SEVEN_DAYS => Some(Reason::OneSided),
            // The activation key has died of age meanwhile.
            Remote::Unknown if row.is_tentative() && age >= SEVEN_DAYS => Some(Reason::KeyInvalid),
            Remote::Present if row.ever_final || row.theirs_ever_final => None,
            // Never for age alone: the peer was seen, and it has never finished a feature either.
            Remote::Present if age >= SEVEN_DAYS && row.was_seen(now, self.terms.settled_poll * 2) => {
                Some(Reason::NeverFinal)
            }
            Remote::Present if row.role == Role::Negotiator && !row.drives && timeout.is_some_and(|t| age >= t) => {
                Some(Reason::DeferralTimeout)
            }
            Remote::Present | Remote::Absent { .. } | Remote::Unknown => None,
        }
    }

    /// The old place is given up when the new one works.
    fn move_on(&self, row: &Row) -> Option<Vec<Change>> {
        let Source::Connection(from) = &row.source else { return None };
        let old = self.rows.get(from).filter(|old| old.leaving.is_none())?;
        if row.role != Role::Negotiator || !row.is_verified(&self.terms) {
            return None;
        }
        let mut old = old.clone();
        old.leaving = Some(Reason::Moved);
        old.attempts = Attempts::default();
        Some(vec![put(old)])
    }

    fn look(&self, row: &mut Row, now: Timestamp) -> Option<Ask> {
        let asks = row.remote != Remote::Unknown || row.role == Role::Responder || row.attempts.count > 0;
        // What nobody has is not looked for, and what leaves needs no look.
        if !asks || row.leaving.is_some() || (row.is_tentative() && !row.confirmed) {
            return None;
        }
        let settled = row.is_verified(&self.terms);
        row.look_at = now + if settled { self.terms.settled_poll } else { self.terms.poll };
        Some(Ask::Look { place: row.place.clone(), as_of: 0 })
    }

    /// The change that is due at the peer.
    fn write(&self, row: &mut Row, now: Timestamp, draw: &Draw) -> Option<Ask> {
        let place = row.place.clone();
        if row.leaving.is_some() {
            let drained = |f: &FeatureRow| matches!(f.ours, Local::Reserved | Local::Drained);
            let tell = !matches!(row.remote, Remote::Absent { .. }) && row.features.values().all(drained);
            return tell.then(|| Ask::Delete { place, request_id: row.requests.1 });
        }
        match (&row.source, row.role, row.remote) {
            (Source::Key(key), Role::Negotiator, Remote::Unknown) if !row.confirmed => {
                let bandwidth_mbps = row.bandwidth_mbps;
                return Some(Ask::Confirm { environment: place.environment, key: *key, bandwidth_mbps });
            }
            // Refused here: the look that is due says whether it is to be tried elsewhere.
            (_, Role::Negotiator, Remote::Unknown) if row.refused.contains(&place.interconnect) => return None,
            (source, Role::Negotiator, Remote::Unknown) => {
                return Some(Ask::Create {
                    place,
                    source: source.clone(),
                    uuid: row.uuid,
                    bandwidth_mbps: row.bandwidth_mbps,
                    kind: row.kind,
                    defer: !row.drives,
                    request_id: row.requests.0,
                });
            }
            (_, _, Remote::Absent { .. }) => return None,
            (_, _, Remote::Present | Remote::Unknown) => {}
        }
        if let Some(resize) = row.resize {
            return Some(Ask::Resize { place, to_mbps: resize.to_mbps, request_id: resize.request_id });
        }
        if let Some((feature, request_id)) = row.stray.first() {
            return Some(Ask::DeleteFeature { place, feature: feature.clone(), request_id: *request_id });
        }
        if let Some(ask) = self.feature(row, now, draw) {
            return Some(ask);
        }
        // The request id follows from what is told: a repetition is the same request, news are another.
        let (shown, told) = row.shown;
        let request_id = Uuid::from_u128(row.requests.1.as_u128().wrapping_add(u128::from(shown)));
        (shown > told).then_some(Ask::Notify { place, shown, request_id })
    }

    /// The feature that is missing at the peer, or the guidance for it.
    fn feature(&self, row: &mut Row, now: Timestamp, draw: &Draw) -> Option<Ask> {
        if !row.drives {
            return None;
        }
        let interconnect = self.terms.interconnect(&row.place)?;
        let proposal = |channel: &ResourceId, f: &FeatureRow| Ask::CreateFeature {
            place: row.place.clone(),
            channel: channel.clone(),
            feature: f.id.clone(),
            config: f.config.clone(),
            request_id: f.request_id,
        };
        let open = row.features.iter().find(|(_, f)| f.theirs == Theirs::Proposed && !f.closing);
        if let Some((channel, feature)) = open {
            return Some(proposal(channel, feature));
        }
        let mut missing = interconnect.usable().map(|(c, _)| c).filter(|c| !row.features.contains_key(*c)).peekable();
        missing.peek()?;
        let Some(guidance) = &row.guidance else {
            // What the peer may have already is completed, not made anew: a look comes before new guidance.
            if !row.looked && !row.was_seen(now, self.terms.poll) {
                // One that was asked a moment ago is waited for.
                let asked = row.look_at > now && row.look_at.duration_since(now) <= self.terms.poll;
                return if asked { None } else { self.look(row, now) };
            }
            return Some(Ask::Guidance { place: row.place.clone() });
        };
        let guided = |channel: &ResourceId| -> Option<(ResourceId, L3Base)> {
            let of = |g: &&ChannelGuidance| g.channel == *channel && g.enabled;
            let config = self.choose(row, channel, guidance.iter().find(of)?, &draw.password)?;
            Some((channel.clone(), config))
        };
        let (channel, config) = missing.find_map(guided)?;
        let feature = FeatureRow {
            id: ResourceId::from(draw.ids[0]),
            request_id: draw.ids[1],
            config,
            ours: Local::Reserved,
            theirs: Theirs::Proposed,
            closing: false,
            since_version: row.version + 1,
        };
        let ask = proposal(&channel, &feature);
        row.features.insert(channel, feature);
        Some(ask)
    }
}

/// A look says from which version on it was asked.
fn stamped(ask: Ask, change: &Change) -> Ask {
    match (ask, change) {
        (Ask::Look { place, .. }, Change::Put(row)) => Ask::Look { place, as_of: row.version },
        (ask, _) => ask,
    }
}
