//! The peer has answered about a channel, or has not.

use tieline_openapi::coordinator::{ResourceId, Timestamp};
use uuid::Uuid;

use super::{Book, Change, ChannelAsk, ChannelReply, ChannelRow, KeyState, KeyThere, PeerEvent, SeenKey, put};
use crate::plan::coordinate::{
    absorb::{is_definite, next as next_id},
    serve::Refusal,
};

/// The most of the peer's work that is remembered of a channel.
const EVENTS: usize = 100;
/// The most keys of the peer's that are taken for strays: more is no list of a channel's keys.
const STRAYS: usize = 8;

impl Book {
    /// What an answer changes; `None` is an answer that was lost. It may come at any time, twice, or long after something
    /// else was learned.
    #[must_use]
    pub fn absorb_channel(&self, ask: &ChannelAsk, reply: Option<&ChannelReply>, now: Timestamp) -> Vec<Change> {
        let (Some(row), Some(reply)) = (self.channels.get(ask.at()), reply) else { return Vec::new() };
        let refusal = if let ChannelReply::Refused(refusal) = reply { Some(refusal) } else { None };
        let mut next = row.clone();
        match ask {
            // Who is not allowed to ask learns nothing but that: it is not asked again at once, and a person is told.
            _ if refusal.is_some_and(|refusal| !is_definite(refusal)) => return Vec::new(),
            ChannelAsk::Events { look, .. } => match reply {
                ChannelReply::Events(events) => seen_events(&mut next, *look, events),
                // A peer that does not know the question has no work to tell of.
                ChannelReply::Refused(_) => seen_events(&mut next, *look, &[]),
                ChannelReply::Done { .. } | ChannelReply::Keys(_) => return Vec::new(),
            },
            ChannelAsk::NotifyMaintenance { shown, .. } => {
                // One that does not take the hint reads the list by itself, or never.
                next.shown.1 = next.shown.1.max(*shown);
                next.attempts = Default::default();
            }
            ChannelAsk::Keys { as_of, .. } => match reply {
                ChannelReply::Keys(keys) => self.seen_keys(&mut next, *as_of, keys),
                ChannelReply::Done { .. } | ChannelReply::Events(_) | ChannelReply::Refused(_) => return Vec::new(),
            },
            ChannelAsk::CreateKey { key, .. } => created(&mut next, key, refusal, now),
            ChannelAsk::DeleteKey { key, .. } => deleted(&mut next, key, refusal, now),
            ChannelAsk::RequestRotation { request_id, .. } => {
                match next.wish.as_mut().filter(|wish| wish.request_id == *request_id) {
                    Some(wish) if refusal.is_none() => {
                        wish.told = true;
                        next.attempts = Default::default();
                    }
                    Some(wish) => wish.request_id = next_id(*request_id),
                    None => {}
                }
            }
        }
        if next == *row { Vec::new() } else { vec![put(next)] }
    }

    fn seen_keys(&self, row: &mut ChannelRow, as_of: u64, seen: &[SeenKey]) {
        if !self.macsec(&row.at).is_some_and(|macsec| macsec.managed_here) {
            return;
        }
        let version = row.version;
        for key in &mut row.keys {
            match seen.iter().find(|seen| seen.id == key.id) {
                Some(SeenKey { active, .. }) if key.since_version <= as_of && key.theirs != KeyThere::Gone => {
                    if key.theirs == KeyThere::Unknown {
                        key.since_version = version + 1;
                        row.attempts = Default::default();
                    }
                    key.theirs = KeyThere::Present { active: *active };
                }
                // It went at the peer, where only we may delete: it is told again.
                None if key.since_version <= as_of && matches!(key.theirs, KeyThere::Present { .. }) => {
                    key.theirs = if key.closing { KeyThere::Gone } else { KeyThere::Unknown };
                    key.since_version = version + 1;
                }
                Some(_) | None => {}
            }
        }
        if let [old, new] = row.keys.as_mut_slice()
            && new.closing
            && !old.closing
            && new.theirs == (KeyThere::Present { active: true })
        {
            // It was to be taken back, and is in use there: the change goes on.
            new.closing = false;
        }
        let ours = |id: &ResourceId| row.keys.iter().any(|key| key.id == *id) || row.retired.contains(id);
        let strange = seen.iter().filter(|seen| as_of == version && !ours(&seen.id)).take(STRAYS);
        let strange: Vec<ResourceId> = strange.map(|seen| seen.id.clone()).collect();
        row.stray.retain(|(id, _)| seen.iter().any(|seen| seen.id == *id) || as_of != version);
        for (n, id) in strange.into_iter().enumerate() {
            if !row.stray.iter().any(|(known, _)| *known == id) {
                let first = row.keys.first().map_or(Uuid::nil(), |key| key.requests.1).as_u128();
                let request_id = Uuid::from_u128(first ^ (u128::from(version) << 64 | (n as u128 + 1)));
                row.stray.push((id, request_id));
            }
        }
    }
}

fn seen_events(row: &mut ChannelRow, look: u64, events: &[PeerEvent]) {
    if look <= row.looks.1 {
        return;
    }
    row.looks.1 = look;
    row.theirs = events.iter().take(EVENTS).cloned().collect();
}

fn created(row: &mut ChannelRow, id: &ResourceId, refusal: Option<&Refusal>, now: Timestamp) {
    let version = row.version;
    let Some(key) = row.keys.iter_mut().find(|key| key.id == *id && key.theirs == KeyThere::Unknown) else { return };
    // What the peer has now, and after a refusal whether it has it, a look tells.
    row.keys_at = now;
    if refusal.is_none() {
        key.theirs = KeyThere::Present { active: false };
        key.since_version = version + 1;
        row.attempts = Default::default();
    } else {
        // Refused whole: the next try is another request, since the peer answers this one always so.
        key.requests.0 = next_id(key.requests.0);
    }
}

fn deleted(row: &mut ChannelRow, id: &ResourceId, refusal: Option<&Refusal>, now: Timestamp) {
    if refusal.is_some_and(|refusal| !matches!(refusal.status, 404 | 410)) {
        row.keys_at = now;
        for request_id in row.stray.iter_mut().filter(|(stray, _)| stray == id).map(|(_, request_id)| request_id) {
            *request_id = next_id(*request_id);
        }
        if let Some(key) = row.keys.iter_mut().find(|key| key.id == *id) {
            key.requests.1 = next_id(key.requests.1);
        }
        return;
    }
    row.stray.retain(|(stray, _)| stray != id);
    row.attempts = Default::default();
    let Some(key) = row.keys.iter_mut().find(|key| key.id == *id) else { return };
    key.theirs = KeyThere::Gone;
    if key.ours == KeyState::Waiting {
        row.retire(id);
    }
}
