//! Time has come to a channel.

use jiff::SignedDuration;
use tieline_openapi::coordinator::{ResourceId, Timestamp};

use super::{Book, Change, ChannelAsk, ChannelDraw, ChannelPlace, ChannelRow, KeyRow, KeyState, KeyThere, Window, put};
use crate::plan::coordinate::step::LONGEST;

/// What to do next with a channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChannelStep {
    /// To be stored first, in one transaction.
    pub changes: Vec<Change>,
    /// Then to be sent; its answer goes to [`Book::absorb_channel`].
    pub ask: Option<ChannelAsk>,
    /// When to come again if nothing happens before.
    pub wake: Timestamp,
}

impl Book {
    /// The next step of a channel. It asks for at most one thing, and what it is about to ask is in the changes.
    #[must_use]
    pub fn step_channel(&self, at: &ChannelPlace, now: Timestamp, draw: &ChannelDraw) -> ChannelStep {
        let idle = |wake| ChannelStep { changes: Vec::new(), ask: None, wake };
        let Some(row) = self.channels.get(at).filter(|_| self.channel_terms(at).is_some()) else {
            return idle(now + self.terms.settled_poll);
        };
        if let Some(next) = self.timed_windows(row, now).or_else(|| self.timed_keys(row, now, draw)) {
            return ChannelStep { changes: vec![put(next)], ask: None, wake: now };
        }
        let mut next = row.clone();
        let ask = self.channel_ask(row, &mut next, now, draw);
        let Some(ask) = ask else { return idle(self.channel_wake(row, now)) };
        let wake = self.channel_wake(&next, now);
        let change = put(next);
        let ask = match (ask, &change) {
            // A look says from which version on it was asked.
            (ChannelAsk::Keys { at, .. }, Change::Channel(row)) => ChannelAsk::Keys { at, as_of: row.version },
            (ask, _) => ask,
        };
        ChannelStep { changes: vec![change], ask: Some(ask), wake }
    }

    /// A key that is due by time alone, and an old one whose successor works.
    fn timed_keys(&self, row: &ChannelRow, now: Timestamp, draw: &ChannelDraw) -> Option<ChannelRow> {
        let macsec = self.macsec(&row.at).filter(|macsec| macsec.managed_here)?;
        let mut next = row.clone();
        if let [old, new] = next.keys.as_mut_slice() {
            let over = new.is_settled(true) && !old.closing;
            old.closing |= over;
            return over.then_some(next);
        }
        let due = match row.keys.as_slice() {
            [] => true,
            [key] => {
                let old = macsec.rotate_after.is_some_and(|age| now.duration_since(key.start_time) >= age);
                // While a channel is closed for work the others carry alone: they are not touched.
                let calm = !row.is_closed(now) && self.beside(&row.at).all(|other| !other.is_closed(now));
                (row.wish.is_some() || old) && key.is_settled(true) && calm
            }
            _ => false,
        };
        if !due || self.may_add_key(row, now, false).is_err() {
            return None;
        }
        next.keys.push(KeyRow {
            id: ResourceId::from(draw.ids[0]),
            cak: draw.cak.clone(),
            ckn: draw.ckn.clone(),
            start_time: now,
            first: row.keys.is_empty(),
            ours: KeyState::Waiting,
            active_since: None,
            theirs: KeyThere::Unknown,
            closing: false,
            requests: (draw.ids[1], draw.ids[2]),
            since_version: row.version + 1,
        });
        next.wish = None;
        Some(next)
    }

    fn manages_keys(&self, row: &ChannelRow) -> bool {
        self.macsec(&row.at).is_some_and(|macsec| macsec.managed_here) && !(row.keys.is_empty() && row.stray.is_empty())
    }

    /// What is asked next: of a change and the two looks that which is due for longest. Where a pass takes as long as the pause
    /// between two looks, as with a slow device, one of them would else keep the others from their turn for ever.
    fn channel_ask(
        &self,
        row: &ChannelRow,
        next: &mut ChannelRow,
        now: Timestamp,
        draw: &ChannelDraw,
    ) -> Option<ChannelAsk> {
        // A due time beyond the longest pause is a clock that was set back: it counts as due.
        let longest = self.terms.settled_poll.max(LONGEST);
        let due = |when: Timestamp| (when <= now || when.duration_since(now) > longest).then_some(when.min(now));
        let write = if row.attempts.is_rested(now) { self.channel_write(row) } else { None };
        let since = row.attempts.next_at.map_or(Timestamp::MIN, |at| at.min(now));
        let write = write.map(|ask| (since, ask));
        let at = || row.at.clone();
        let events = due(row.events_at).map(|when| (when, ChannelAsk::Events { at: at(), look: row.looks.0 + 1 }));
        let keys = if self.manages_keys(row) { due(row.keys_at) } else { None };
        let keys = keys.map(|when| (when, ChannelAsk::Keys { at: at(), as_of: 0 }));
        let (_, ask) = [write, events, keys].into_iter().flatten().min_by_key(|(when, _)| *when)?;
        match &ask {
            ChannelAsk::Events { look, .. } => {
                let open = |row: &ChannelRow| row.windows.iter().any(Window::is_open) || !row.theirs.is_empty();
                let busy = open(row) || self.beside(&row.at).any(open);
                next.events_at = now + if busy { self.terms.poll } else { self.terms.settled_poll };
                next.looks.0 = *look;
            }
            ChannelAsk::Keys { .. } => {
                let settled = row.stray.is_empty() && matches!(row.keys.as_slice(), [key] if key.is_settled(true));
                next.keys_at = now + if settled { self.terms.settled_poll } else { self.terms.poll };
            }
            ChannelAsk::NotifyMaintenance { .. }
            | ChannelAsk::CreateKey { .. }
            | ChannelAsk::DeleteKey { .. }
            | ChannelAsk::RequestRotation { .. } => {
                next.attempts.tried(now, draw.jitter);
            }
        }
        Some(ask)
    }

    /// The change that is due at the peer.
    fn channel_write(&self, row: &ChannelRow) -> Option<ChannelAsk> {
        let at = row.at.clone();
        if row.shown.0 > row.shown.1 {
            return Some(ChannelAsk::NotifyMaintenance { at, shown: row.shown.0 });
        }
        if !self.macsec(&row.at)?.managed_here {
            let wish = row.wish.as_ref().filter(|wish| !wish.told)?;
            return Some(ChannelAsk::RequestRotation { at, words: wish.words.clone(), request_id: wish.request_id });
        }
        // Installed here before it is sent: what the peer sends under it is taken from the first moment on.
        let fresh = |key: &&KeyRow| key.theirs == KeyThere::Unknown && !key.closing && key.ours != KeyState::Waiting;
        if let Some(KeyRow { id, cak, ckn, requests, .. }) = row.keys.iter().find(fresh) {
            let (key, cak, ckn) = (id.clone(), cak.clone(), ckn.clone());
            return Some(ChannelAsk::CreateKey { at, key, cak, ckn, request_id: requests.0 });
        }
        let over = |key: &&KeyRow| key.closing && key.theirs != KeyThere::Gone;
        let over = row.keys.iter().find(over).map(|key| (&key.id, key.requests.1));
        let (key, request_id) = over.or_else(|| row.stray.first().map(|(id, request_id)| (id, *request_id)))?;
        Some(ChannelAsk::DeleteKey { at, key: key.clone(), request_id })
    }

    fn channel_wake(&self, row: &ChannelRow, now: Timestamp) -> Timestamp {
        let mut wakes = vec![row.events_at];
        let macsec = self.macsec(&row.at);
        if self.manages_keys(row) {
            wakes.push(row.keys_at);
        }
        if self.channel_write(row).is_some() {
            wakes.push(row.attempts.next_at.unwrap_or(now));
        }
        let unsettled = macsec.is_some_and(|macsec| {
            row.keys.len() != 1 || row.wish.is_some() || !row.keys.iter().all(|key| key.is_settled(macsec.managed_here))
        });
        let open: Vec<&Window> = row.windows.iter().filter(|window| window.is_open()).collect();
        if unsettled || open.iter().any(|window| !window.is_under_way()) {
            wakes.push(now + self.terms.poll);
        }
        for window in open {
            wakes.push(if window.is_under_way() { window.end } else { window.start });
        }
        for event in &row.theirs {
            wakes.extend([event.start, event.end].into_iter().flatten());
        }
        // What has just been looked at is not due again at once.
        let soonest = now + SignedDuration::from_millis(100);
        // A look that something else went before.
        if row.events_at <= now || (self.manages_keys(row) && row.keys_at <= now) {
            return soonest;
        }
        let ahead = wakes.into_iter().filter(|wake| *wake > now).min();
        ahead.unwrap_or(now + self.terms.settled_poll).max(soonest)
    }
}
