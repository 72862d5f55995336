//! What the customer, the operator and our routers say.

use std::collections::BTreeSet;

use tieline_openapi::coordinator::{ResourceId, Timestamp};
use uuid::Uuid;

use super::state::{
    Attempts, Book, Change, Draw, IssuedKey, Kind, Local, Place, Reason, Remote, Resize, Row, SEVEN_DAYS, Source, put,
};

/// Why a wish cannot be met.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WishError {
    /// Not agreed with the peer.
    #[error("there is no such environment with this peer: check its name in the configuration of both sides")]
    Environment,
    /// Not sold.
    #[error("the environment does not have this bandwidth: choose one of its sizes")]
    Size,
    /// Nothing free.
    #[error("no interconnect of the environment has so much free bandwidth: choose less, or delete a connection")]
    NoRoom,
    /// Brought twice.
    #[error("this activation key was brought already: look at the connection that it made")]
    KeyUsed,
    /// Not there, or on its way out.
    #[error("there is no such connection, or it is being deleted")]
    Gone,
    /// The peer has not asked for it yet.
    #[error("the activation key says the bandwidth, and was not brought yet: delete the connection and create it anew")]
    NotBrought,
    /// It is at the place that it is to move to.
    #[error("the connection is at this interconnect already: name another one, or none")]
    There,
    /// The interconnect that it is to move to takes nothing new.
    #[error("this interconnect takes no new connections: name another one, or none")]
    Closed,
    /// The interconnect that it is to move to is too full.
    #[error("this interconnect has not so much free bandwidth: name another one, or none")]
    Full,
    /// One at a time.
    #[error("the connection is changing already: wait until it has ended")]
    Busy,
}

impl Book {
    /// Issues a key for a connection that the customer will ask for at the peer. `digest` is of the key as it is handed out.
    ///
    /// # Errors
    /// [`WishError::Environment`], [`WishError::Size`] and [`WishError::NoRoom`].
    pub fn issue_key(
        &self,
        environment: &ResourceId,
        bandwidth_mbps: u32,
        uuid: Uuid,
        digest: [u8; 32],
        now: Timestamp,
    ) -> Result<Vec<Change>, WishError> {
        self.room(environment, bandwidth_mbps, Kind::Standard, &BTreeSet::new())?;
        let environment = environment.clone();
        let key = IssuedKey { uuid, environment, bandwidth_mbps, digest, issued_at: now, spent: false };
        Ok(vec![Change::Key(key)])
    }

    /// Takes a key back: whoever brings it from now on is refused.
    #[must_use]
    pub fn withdraw_key(&self, uuid: Uuid) -> Vec<Change> {
        let key = self.keys.get(&uuid).filter(|key| !key.spent);
        key.map(|key| Change::Key(IssuedKey { spent: true, ..key.clone() })).into_iter().collect()
    }

    /// Takes a key that the peer issued: a connection of our own first, then the peer is asked.
    ///
    /// # Errors
    /// [`WishError::Environment`], [`WishError::Size`], [`WishError::NoRoom`] and [`WishError::KeyUsed`].
    pub fn accept_key(
        &self,
        environment: &ResourceId,
        key: Uuid,
        bandwidth_mbps: u32,
        kind: Kind,
        now: Timestamp,
        draw: &Draw,
    ) -> Result<(Place, Vec<Change>), WishError> {
        let interconnect = self.room(environment, bandwidth_mbps, kind, &BTreeSet::new())?;
        let place = Place { environment: environment.clone(), interconnect, connection: ResourceId::from(key) };
        let same = |other: &Place| other.environment == place.environment && other.connection == place.connection;
        if self.rows.values().any(|row| row.uuid == key) || self.tombstones.keys().any(same) {
            return Err(WishError::KeyUsed);
        }
        let mut row = Row::new(place.clone(), key, kind, bandwidth_mbps, Source::Key(key), now);
        row.drives = !self.terms.environments.get(environment).is_some_and(|terms| terms.defers);
        row.requests = (draw.ids[0], draw.ids[1]);
        Ok((place, vec![put(row)]))
    }

    fn room(
        &self,
        environment: &ResourceId,
        mbps: u32,
        kind: Kind,
        avoided: &BTreeSet<ResourceId>,
    ) -> Result<ResourceId, WishError> {
        let terms = self.terms.environments.get(environment).ok_or(WishError::Environment)?;
        if kind != Kind::Test && !terms.sizes_mbps.contains(&mbps) {
            return Err(WishError::Size);
        }
        let held = if kind == Kind::Standard { mbps } else { 0 };
        self.roomiest(environment, held, avoided).ok_or(WishError::NoRoom)
    }

    fn settled(&self, place: &Place) -> Result<&Row, WishError> {
        let row = self.rows.get(place).filter(|row| row.leaving.is_none()).ok_or(WishError::Gone)?;
        let moves = self.rows.values().any(|other| other.source == Source::Connection(place.clone()));
        if row.resize.is_some() || row.remote != Remote::Present || moves { Err(WishError::Busy) } else { Ok(row) }
    }

    /// Changes the bandwidth: the room is held at once, the peer is asked, and only then it changes.
    ///
    /// # Errors
    /// [`WishError::Size`], [`WishError::NoRoom`], [`WishError::Gone`] and [`WishError::Busy`].
    pub fn resize(&self, place: &Place, to_mbps: u32, draw: &Draw) -> Result<Vec<Change>, WishError> {
        let mut row = self.settled(place)?.clone();
        let terms = self.terms.environments.get(&place.environment).ok_or(WishError::Environment)?;
        if row.kind != Kind::Test && !terms.sizes_mbps.contains(&to_mbps) {
            return Err(WishError::Size);
        }
        row.resize = Some(Resize { to_mbps, request_id: draw.ids[0] });
        if row.held_mbps() > self.free_mbps(place, false) {
            return Err(WishError::NoRoom);
        }
        Ok(vec![put(row)])
    }

    /// Moves to another interconnect, make before break: a second connection comes up, and when it is verified the first
    /// is drained and deleted. Without a target it goes where there is most room, and on to the next where the peer has
    /// none; a target is the one place where it goes.
    ///
    /// # Errors
    /// [`WishError::NoRoom`], [`WishError::There`], [`WishError::Closed`], [`WishError::Full`], [`WishError::Gone`] and
    /// [`WishError::Busy`].
    pub fn migrate(
        &self,
        place: &Place,
        target: Option<&ResourceId>,
        now: Timestamp,
        draw: &Draw,
    ) -> Result<(Place, Vec<Change>), WishError> {
        let old = self.settled(place)?;
        let avoided = [place.interconnect.clone()].into_iter().collect();
        let interconnect = match target {
            None => self.roomiest(&place.environment, old.held_mbps(), &avoided).ok_or(WishError::NoRoom)?,
            Some(target) => self.has_room_for(old, target)?,
        };
        let connection = ResourceId::from(draw.ids[2]);
        let new = Place { environment: place.environment.clone(), interconnect, connection };
        let source = Source::Connection(place.clone());
        let mut row = Row::new(new.clone(), old.uuid, old.kind, old.bandwidth_mbps, source, now);
        row.confirmed = true;
        row.requests = (draw.ids[0], draw.ids[1]);
        if target.is_some() {
            // Where the target has no room at the peer it goes nowhere else.
            let all = self.terms.environments.get(&place.environment).map(|terms| terms.interconnects.keys());
            row.refused = all.into_iter().flatten().filter(|id| **id != new.interconnect).cloned().collect();
        }
        Ok((new, vec![put(row)]))
    }

    /// An interconnect to which a connection may move.
    fn has_room_for(&self, old: &Row, target: &ResourceId) -> Result<ResourceId, WishError> {
        if *target == old.place.interconnect {
            return Err(WishError::There);
        }
        let there = Place { interconnect: target.clone(), ..old.place.clone() };
        let terms = self.terms.interconnect(&there).ok_or(WishError::Environment)?;
        if !terms.open || terms.usable().next().is_none() {
            return Err(WishError::Closed);
        }
        if self.free_mbps(&there, false) < old.held_mbps() { Err(WishError::Full) } else { Ok(target.clone()) }
    }

    /// Takes a connection down, at every place where it is.
    #[must_use]
    pub fn leave(&self, uuid: Uuid) -> Vec<Change> {
        let mut changes = self.withdraw_key(uuid);
        for row in self.rows.values().filter(|row| row.uuid == uuid && row.leaving.is_none()) {
            let mut row = row.clone();
            row.leaving = Some(Reason::Wish);
            row.attempts = Attempts::default();
            changes.push(put(row));
        }
        changes
    }

    /// What our routers say of a channel. A feature that came up or went down is a change that the peer is told of.
    #[must_use]
    pub fn observe(&self, place: &Place, channel: &ResourceId, local: Local) -> Vec<Change> {
        let Some(row) = self.rows.get(place) else { return Vec::new() };
        let mut next = row.clone();
        let Some(feature) = next.features.get_mut(channel) else { return Vec::new() };
        if feature.ours == local {
            return Vec::new();
        }
        if (feature.ours == Local::Up) != (local == Local::Up) {
            next.shown.0 += 1;
        }
        feature.ours = local;
        next.ever_final |= local == Local::Up;
        next.drop_closed();
        vec![put(next)]
    }

    /// Whether the operator should look: something has been on its way for a day, and waiting alone will not end it.
    #[must_use]
    pub fn is_stuck(&self, place: &Place, now: Timestamp) -> bool {
        let day = SEVEN_DAYS / 7;
        self.rows
            .get(place)
            .is_some_and(|row| now.duration_since(row.created_at) >= day && !row.is_verified(&self.terms))
    }
}
