//! The peer asks about a channel, we answer.

use tieline_openapi::coordinator::{ResourceId, Sensitive, Timestamp};
use uuid::Uuid;

use super::{
    Book, Change, ChannelAsk, ChannelPlace, ChannelReply, ChannelRow, KeyRow, KeyState, KeyThere, PeerEvent,
    RotationReason, RotationWish, SeenKey, Window, put,
};
use crate::plan::coordinate::{
    serve::{Refusal, Reply},
    state::Replay,
};

/// A request of the peer about a channel, authenticated and decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChannelRequest {
    /// What it asks.
    pub ask: ChannelAsk,
    /// What tells it from others; the specification has none for these operations, so a peer need not send one.
    pub request_id: Option<Uuid>,
    /// A digest of method, path and body as they came.
    pub digest: [u8; 32],
}

/// An answer, and what is to be stored before it is given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServedChannel {
    /// The answer.
    pub reply: ChannelReply,
    /// The changes, one transaction.
    pub changes: Vec<Change>,
}

type Outcome = Result<Vec<Change>, Refusal>;

fn no(status: u16, rule: &str) -> Refusal {
    Refusal { status, rule: rule.to_owned() }
}

impl Book {
    /// Answers the peer. A change that came before, by its request id, is answered as it was then and changes nothing; the
    /// same id with other content is a conflict.
    #[must_use]
    pub fn serve_channel(&self, request: &ChannelRequest, now: Timestamp) -> ServedChannel {
        let read = |reply| ServedChannel { reply, changes: Vec::new() };
        let Some(row) = self.channel_terms(request.ask.at()).and_then(|_| self.channels.get(request.ask.at())) else {
            return read(ChannelReply::Refused(no(404, "there is no such channel")));
        };
        match &request.ask {
            ChannelAsk::Events { .. } => return read(ChannelReply::Events(row.shown_events())),
            ChannelAsk::Keys { .. } => return read(ChannelReply::Keys(row.shown_keys())),
            ChannelAsk::NotifyMaintenance { .. }
            | ChannelAsk::CreateKey { .. }
            | ChannelAsk::DeleteKey { .. }
            | ChannelAsk::RequestRotation { .. } => {}
        }
        match request.request_id.and_then(|id| self.replays.get(&id)) {
            Some(replay) if replay.digest == request.digest => {
                return read(match &replay.reply {
                    Reply::Refused(refusal) => ChannelReply::Refused(refusal.clone()),
                    Reply::Done | Reply::Key(_) | Reply::Guidance(_) | Reply::Seen { .. } => {
                        ChannelReply::Done { at: Some(replay.at) }
                    }
                });
            }
            Some(_) => return read(ChannelReply::Refused(no(409, "requestId was used for another request"))),
            None => {}
        }
        let (reply, mut changes) = match self.channel_changed(row, &request.ask, now) {
            Ok((at, changes)) => (ChannelReply::Done { at: Some(at) }, changes),
            // A delete that finds nothing leaves a mark: the create that it overtook must find it.
            Err(refusal) => (ChannelReply::Refused(refusal), self.mark_key(row, &request.ask)),
        };
        if let Some(id) = request.request_id {
            let (told, at) = match &reply {
                ChannelReply::Refused(refusal) => (Reply::Refused(refusal.clone()), now),
                ChannelReply::Done { at } => (Reply::Done, at.unwrap_or(now)),
                ChannelReply::Events(_) | ChannelReply::Keys(_) => (Reply::Done, now),
            };
            changes.push(Change::Replay(id, Replay { digest: request.digest, reply: told, at }));
        }
        ServedChannel { reply, changes }
    }

    fn channel_changed(
        &self,
        row: &ChannelRow,
        ask: &ChannelAsk,
        now: Timestamp,
    ) -> Result<(Timestamp, Vec<Change>), Refusal> {
        let done = |changes| (now, changes);
        match ask {
            ChannelAsk::CreateKey { key, cak, ckn, request_id, .. } => {
                if let Some(there) = row.keys.iter().find(|there| there.id == *key)
                    && self.is_peers(&row.at)
                    && there.cak == *cak
                    && there.ckn == *ckn
                {
                    // The same again, as after an answer that was lost: it is there.
                    return Ok((there.start_time, Vec::new()));
                }
                self.take_key(row, key, cak, ckn, *request_id, now).map(done)
            }
            ChannelAsk::DeleteKey { key, .. } => self.drop_key(row, key).map(done),
            ChannelAsk::RequestRotation { words, request_id, .. } => {
                self.take_rotation(row, words, *request_id, now).map(done)
            }
            ChannelAsk::NotifyMaintenance { .. } => {
                let mut next = row.clone();
                // The specification: refresh at once.
                next.events_at = now;
                Ok(done(vec![put(next)]))
            }
            ChannelAsk::Events { .. } | ChannelAsk::Keys { .. } => Ok(done(Vec::new())),
        }
    }

    /// Whether the peer manages a channel's keys.
    fn is_peers(&self, at: &ChannelPlace) -> bool {
        self.macsec(at).is_some_and(|macsec| !macsec.managed_here)
    }

    fn mark_key(&self, row: &ChannelRow, ask: &ChannelAsk) -> Vec<Change> {
        match ask {
            ChannelAsk::DeleteKey { key, .. }
                if self.is_peers(&row.at)
                    && !row.retired.contains(key)
                    && row.keys.iter().all(|there| there.id != *key) =>
            {
                let mut next = row.clone();
                next.retire(key);
                vec![put(next)]
            }
            ChannelAsk::DeleteKey { .. }
            | ChannelAsk::CreateKey { .. }
            | ChannelAsk::RequestRotation { .. }
            | ChannelAsk::NotifyMaintenance { .. }
            | ChannelAsk::Events { .. }
            | ChannelAsk::Keys { .. } => Vec::new(),
        }
    }

    fn take_key(
        &self,
        row: &ChannelRow,
        id: &ResourceId,
        cak: &Sensitive,
        ckn: &Sensitive,
        request_id: Uuid,
        now: Timestamp,
    ) -> Outcome {
        if !self.is_peers(&row.at) {
            return Err(no(403, "only the channel's macsecManagerProvider creates keys"));
        }
        if row.retired.contains(id) || row.keys.iter().any(|key| key.id == *id) {
            return Err(no(409, "a key of this name is there, or was deleted"));
        }
        if row.keys.iter().any(|key| key.ckn.expose().eq_ignore_ascii_case(ckn.expose())) {
            return Err(no(409, "another key of the channel has this CKN"));
        }
        // Of two changes on two channels, made before either side knew of the other, the one of the provider whose id sorts
        // first holds.
        let yields = self.terms.peer_goes_first();
        self.may_add_key(row, now, yields).map_err(|rule| no(409, rule))?;
        let mut changes = Vec::new();
        if yields && !row.keys.is_empty() {
            changes.extend(self.beside(&row.at).filter_map(|other| self.yielded(other)));
        }
        let mut next = row.clone();
        next.keys.push(KeyRow {
            id: id.clone(),
            cak: cak.clone(),
            ckn: ckn.clone(),
            start_time: now,
            first: row.keys.is_empty(),
            ours: KeyState::Waiting,
            active_since: None,
            theirs: KeyThere::Unknown,
            closing: false,
            requests: (request_id, request_id),
            since_version: row.version + 1,
        });
        next.wish = None;
        changes.push(put(next));
        Ok(changes)
    }

    /// A change of ours that the peer has not heard of, taken back.
    fn yielded(&self, row: &ChannelRow) -> Option<Change> {
        let managed_here = self.macsec(&row.at)?.managed_here;
        let mut next = row.clone();
        let [_, new] = next.keys.as_mut_slice() else { return None };
        if !new.is_tentative(managed_here) || new.closing {
            return None;
        }
        new.closing = true;
        let new = new.clone();
        // It is still wished for: it comes again when its time has come.
        next.wish.get_or_insert(RotationWish {
            reason: RotationReason::Operator,
            since: new.start_time,
            words: String::new(),
            told: false,
            request_id: new.requests.1,
        });
        Some(put(next))
    }

    fn drop_key(&self, row: &ChannelRow, id: &ResourceId) -> Outcome {
        if !self.is_peers(&row.at) {
            return Err(no(403, "only the channel's macsecManagerProvider deletes keys"));
        }
        let key = row.keys.iter().find(|key| key.id == *id).ok_or_else(|| no(404, "there is no such key"))?;
        if key.ours == KeyState::Active {
            return Err(no(409, "an active key cannot be deleted"));
        }
        let mut next = row.clone();
        next.retire(id);
        Ok(vec![put(next)])
    }

    fn take_rotation(&self, row: &ChannelRow, words: &str, request_id: Uuid, now: Timestamp) -> Outcome {
        let Some(macsec) = self.macsec(&row.at) else {
            return Err(no(409, "MACsec is not run on this channel"));
        };
        if !macsec.managed_here {
            return Err(no(403, "the channel's keys are managed by the provider that asks"));
        }
        let mut next = row.clone();
        let words = words.chars().take(200).collect();
        next.wish.get_or_insert(RotationWish {
            reason: RotationReason::Peer,
            since: now,
            words,
            told: true,
            request_id,
        });
        Ok(vec![put(next)])
    }
}

impl ChannelRow {
    /// Our work on it as the peer sees it: what is to come and what is under way.
    fn shown_events(&self) -> Vec<PeerEvent> {
        let open = self.windows.iter().filter(|window| window.is_open());
        let shown =
            |window: &Window| PeerEvent { id: window.id.to_string(), start: Some(window.start), end: Some(window.end) };
        open.map(shown).collect()
    }

    pub(super) fn shown_keys(&self) -> Vec<SeenKey> {
        let shown = |key: &KeyRow| SeenKey {
            id: key.id.clone(),
            start_time: Some(key.start_time),
            active: key.ours == KeyState::Active,
        };
        // What the peer has let go of is only waited for until our device has.
        self.keys.iter().filter(|key| key.theirs != KeyThere::Gone).map(shown).collect()
    }
}
