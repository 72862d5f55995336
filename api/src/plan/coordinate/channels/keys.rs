//! The rules of MACsec keys, what the device is to hold, and what it says.

use jiff::SignedDuration;
use tieline_openapi::coordinator::{ResourceId, Timestamp};
use uuid::Uuid;

use super::{
    Book, Change, ChannelPlace, ChannelRow, KeyReport, KeyRow, KeyState, KeyThere, RotationReason, RotationWish,
    WantedKeys, put,
};
use crate::plan::coordinate::Place;

/// How long no key is changed after one was (`Protocols.md`, "MACsec Key Rotation").
pub const BAKE_TIME: SignedDuration = SignedDuration::from_hours(2);
/// A channel has two keys at most (the schema `MacSecKey`), and an interconnect one more than it has channels.
const KEYS: usize = 2;
/// How many ids of keys that were here are remembered.
const RETIRED: usize = 32;
/// How long a key may be on its way before a person should look.
const PATIENCE: SignedDuration = SignedDuration::from_mins(30);
/// How long a change of key that is wished for may wait for its turn: every other channel may bake first.
const WAITS: SignedDuration = SignedDuration::from_hours(24);

/// Why a change of key is not taken up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RotationError {
    /// No such channel, or MACsec is not run on it.
    #[error("MACsec is not run on this channel: name its macsecManager in tieline.toml, on both sides")]
    NoMacSec,
    /// The first key is on its way.
    #[error("the channel has no key in use yet: wait until its first key is active")]
    NoKey,
    /// A change is under way.
    #[error("a change of this channel's key is under way: wait until it has ended")]
    UnderWay,
}

/// Something about keys that a person should look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyTrouble {
    /// Where.
    pub at: ChannelPlace,
    /// What.
    pub what: KeyTroubleKind,
}

/// What about the keys of a channel does not end by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyTroubleKind {
    /// A key is not in use on both sides after half an hour.
    NotActive,
    /// A change that is wished for has not begun after a day.
    NotBegun,
}

impl KeyRow {
    /// Since when no other key may follow: since it was taken, or since it is in use.
    fn bakes_since(&self) -> Timestamp {
        self.active_since.map_or(self.start_time, |at| at.max(self.start_time))
    }

    /// Whether only we know of it yet.
    pub(super) fn is_tentative(&self, managed_here: bool) -> bool {
        managed_here && self.theirs == KeyThere::Unknown
    }

    /// Whether it is in use on both sides, as far as this side can know.
    pub(super) fn is_settled(&self, managed_here: bool) -> bool {
        let there = !managed_here || self.theirs == KeyThere::Present { active: true };
        self.ours == KeyState::Active && there && !self.closing
    }
}

/// A time that is yet to come is a clock that was set back: it bakes still.
fn bakes(key: &KeyRow, bake: SignedDuration, now: Timestamp) -> bool {
    now.duration_since(key.bakes_since()) < bake
}

impl Book {
    fn manages(&self, at: &ChannelPlace) -> bool {
        self.macsec(at).is_some_and(|macsec| macsec.managed_here)
    }

    /// Whether a key is one too many, or too early: the rule that it breaks. `yields` is whether what only we know of counts
    /// less than a wish of the peer.
    pub(super) fn may_add_key(&self, row: &ChannelRow, now: Timestamp, yields: bool) -> Result<(), &'static str> {
        let counts = |at: &ChannelPlace, key: &KeyRow| !(yields && key.is_tentative(self.manages(at)));
        if row.keys.len() >= KEYS {
            return Err("a channel has two keys at most");
        }
        let channels = self.interconnect_of(&row.at).map_or(0, |interconnect| interconnect.channels.len());
        let beside = self.beside(&row.at).map(|other| other.keys.iter().filter(|key| counts(&other.at, key)).count());
        if row.keys.len() + beside.sum::<usize>() > channels {
            return Err("an interconnect has one key more than it has channels, at most");
        }
        if row.keys.is_empty() {
            // First keys may come in parallel, and wait for nobody.
            return Ok(());
        }
        let bake = self.macsec(&row.at).map_or(BAKE_TIME, |macsec| macsec.bake);
        if row.keys.iter().any(|key| bakes(key, bake, now)) {
            return Err("the bake time of the channel's key is not over: it is two hours");
        }
        for other in self.beside(&row.at) {
            let keys: Vec<&KeyRow> = other.keys.iter().filter(|key| counts(&other.at, key)).collect();
            if keys.len() > 1 {
                return Err("another channel of the interconnect changes its key");
            }
            if keys.iter().any(|key| !key.first && bakes(key, bake, now)) {
                return Err(
                    "another channel of the interconnect has changed its key, and its bake time of two hours is not over",
                );
            }
        }
        Ok(())
    }

    /// Whether what goes over a channel is protected as it must be: always where MACsec is not run, and else while our device
    /// says that it uses one of the channel's keys.
    #[must_use]
    pub fn is_secure(&self, place: &Place, channel: &ResourceId) -> bool {
        let Place { environment, interconnect, .. } = place.clone();
        let at = ChannelPlace { environment, interconnect, channel: channel.clone() };
        self.macsec(&at).is_none() || self.channels.get(&at).is_some_and(|row| row.active().is_some())
    }

    /// What our device is to hold for a channel; none where MACsec is not run.
    ///
    /// The manager uses a new key once the peer says that it uses it: by then the peer's device has it installed, and takes
    /// what is sent under it. The other side uses it at once, since the manager has installed it before it sent it.
    #[must_use]
    pub fn wanted_keys(&self, at: &ChannelPlace) -> Option<WantedKeys> {
        let managed_here = self.macsec(at)?.managed_here;
        let row = self.channels.get(at)?;
        let installed: Vec<KeyRow> = row.keys.iter().filter(|key| key.theirs != KeyThere::Gone).cloned().collect();
        let usable = |key: &&KeyRow| {
            let there =
                !managed_here || key.theirs == KeyThere::Present { active: true } || key.ours == KeyState::Active;
            there && key.ours != KeyState::Waiting
        };
        // The newest that both can use. One that is taken away stays in use until there is another.
        let newest = |closing: bool| installed.iter().rev().filter(|key| key.closing == closing).find(usable);
        let active = newest(false).or_else(|| newest(true)).map(|key| key.ckn.clone());
        Some(WantedKeys { installed, active })
    }

    /// What our device says of a channel's keys.
    #[must_use]
    pub fn observe_keys(&self, at: &ChannelPlace, report: &KeyReport, now: Timestamp) -> Vec<Change> {
        let Some(row) = self.channels.get(at) else { return Vec::new() };
        let mut next = row.clone();
        for key in &mut next.keys {
            let is = |ckn: &String| ckn.eq_ignore_ascii_case(key.ckn.expose());
            let state = match () {
                () if report.active.as_ref().is_some_and(is) => KeyState::Active,
                () if report.installed.iter().any(is) => KeyState::Standby,
                () => KeyState::Waiting,
            };
            if state == KeyState::Active && key.ours != KeyState::Active {
                key.active_since = Some(now);
            }
            key.ours = state;
        }
        let gone: Vec<ResourceId> = next
            .keys
            .iter()
            .filter(|key| key.theirs == KeyThere::Gone && key.ours == KeyState::Waiting)
            .map(|key| key.id.clone())
            .collect();
        gone.iter().for_each(|id| next.retire(id));
        if next == *row {
            return Vec::new();
        }
        next.device_at = Some(now);
        vec![put(next)]
    }

    /// The operator wishes another key for a channel. Where the peer manages it, it is asked.
    ///
    /// # Errors
    /// [`RotationError`].
    pub fn wish_rotation(
        &self,
        at: &ChannelPlace,
        reason: RotationReason,
        words: &str,
        request_id: Uuid,
        now: Timestamp,
    ) -> Result<Vec<Change>, RotationError> {
        let (Some(_), Some(row)) = (self.macsec(at), self.channels.get(at)) else {
            return Err(RotationError::NoMacSec);
        };
        let mut next = row.clone();
        if let Some(failed) = self.failed(&next) {
            // Fail forward: a new key that never came into use is taken away, and another one comes in its place.
            if let Some(key) = next.keys.iter_mut().find(|key| key.id == failed) {
                key.closing = true;
            }
        } else if next.keys.len() > 1 {
            return Err(RotationError::UnderWay);
        } else if next.keys.is_empty() {
            return Err(RotationError::NoKey);
        }
        if next.wish.is_none() {
            let words = words.chars().take(200).collect();
            next.wish = Some(RotationWish { reason, since: now, words, told: false, request_id });
        }
        next.attempts = Default::default();
        Ok(vec![put(next)])
    }

    /// The newer of two keys, where neither side uses it though the older one is in use.
    fn failed(&self, row: &ChannelRow) -> Option<ResourceId> {
        let [_, new] = row.keys.as_slice() else { return None };
        let unused = new.ours != KeyState::Active && new.theirs != KeyThere::Present { active: true };
        (self.manages(&row.at) && unused && !new.closing).then(|| new.id.clone())
    }

    /// What about keys does not end by itself.
    #[must_use]
    pub fn key_troubles(&self, now: Timestamp) -> Vec<KeyTrouble> {
        let trouble = |row: &ChannelRow| {
            let managed_here = self.macsec(&row.at)?.managed_here;
            let newest = row.keys.last();
            let late = |since: Timestamp, patience| now.duration_since(since) >= patience;
            let what = match newest {
                Some(key) if !key.is_settled(managed_here) && late(key.start_time, PATIENCE) => {
                    KeyTroubleKind::NotActive
                }
                Some(_) | None if row.wish.as_ref().is_some_and(|wish| late(wish.since, WAITS)) => {
                    KeyTroubleKind::NotBegun
                }
                Some(_) | None => return None,
            };
            Some(KeyTrouble { at: row.at.clone(), what })
        };
        self.channels.values().filter_map(trouble).collect()
    }
}

impl ChannelRow {
    /// Forgets a key, and remembers that it was here.
    pub(super) fn retire(&mut self, id: &ResourceId) {
        self.keys.retain(|key| key.id != *id);
        if !self.retired.contains(id) {
            self.retired.push(id.clone());
        }
        let over = self.retired.len().saturating_sub(RETIRED);
        self.retired.drain(..over);
    }
}
