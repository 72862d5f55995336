//! Work on channels: never on two of one interconnect at once.
//!
//! Either provider may plan work at any moment, and neither can lock the other's calendar. So a window is stored first, where
//! the peer can see it, and only then is the peer asked what it has on the other channels. Of two windows that cannot both
//! be, at least the one that was stored later is asked about after the other was there, so at most one finds nothing in its
//! way; and only such a window begins.

use jiff::SignedDuration;
use tieline_openapi::coordinator::Timestamp;
use uuid::Uuid;

use super::{Book, Change, ChannelPlace, ChannelRow, Window, WindowEnd, put};

/// The longest that work may take.
pub const LONGEST_WINDOW: SignedDuration = SignedDuration::from_hours(7 * 24);
/// How far ahead it may be planned.
const HORIZON: SignedDuration = SignedDuration::from_hours(366 * 24);
/// Windows that may be open on a channel.
const OPEN: usize = 16;
/// How long what is over is still told of.
const TOLD: SignedDuration = SignedDuration::from_hours(7 * 24);
/// How much of what is over is told of, at most.
const OVER: usize = 16;

/// Work that an operator wishes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WindowRequest {
    /// Its id.
    pub id: Uuid,
    /// On which channel.
    pub at: ChannelPlace,
    /// Whether it takes our whole device, and with it each channel that the device carries.
    pub whole_device: bool,
    /// From when on.
    pub start: Timestamp,
    /// Until when.
    pub end: Timestamp,
    /// Whether it waits for nobody.
    pub emergency: bool,
}

/// Why there is no such window.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WindowError {
    /// No such channel.
    #[error("there is no such channel with this peer: check its name in tieline.toml")]
    NoChannel,
    /// It ends before it begins, has ended already, or is too long or too far away.
    #[error("a window lies ahead, ends after it begins, and takes a week at most")]
    Times,
    /// Too many.
    #[error("the channel has {OPEN} windows ahead already: end one of them")]
    TooMany,
    /// Never two channels of one interconnect at once.
    #[error(
        "another channel of interconnect {0} is under work at that time: choose another time, or say that it is an \
         emergency"
    )]
    Conflict(String),
    /// Not there.
    #[error("there is no such window, or it is over")]
    Gone,
}

fn overlap(a: (Timestamp, Timestamp), b: (Timestamp, Timestamp)) -> bool {
    a.0 < b.1 && b.0 < a.1
}

impl Book {
    /// Every channel that work takes.
    fn taken_by(&self, request: &WindowRequest) -> Vec<&ChannelRow> {
        let device = self.channel_terms(&request.at).map(|terms| terms.device.as_str());
        let on_it = |row: &&ChannelRow| {
            let same = || self.channel_terms(&row.at).map(|terms| terms.device.as_str()) == device;
            row.at == request.at || (request.whole_device && device.is_some() && same())
        };
        self.channels.values().filter(on_it).collect()
    }

    /// Plans work. It begins when its time has come and the peer has nothing against it; an emergency begins by itself.
    ///
    /// # Errors
    /// [`WindowError`].
    pub fn open_window(&self, request: &WindowRequest, now: Timestamp) -> Result<Vec<Change>, WindowError> {
        let WindowRequest { id, start, end, emergency, .. } = *request;
        if self.channel_terms(&request.at).is_none() || !self.channels.contains_key(&request.at) {
            return Err(WindowError::NoChannel);
        }
        let too_far = start.duration_since(now) > HORIZON || end.duration_since(start) > LONGEST_WINDOW;
        if end <= start || end <= now || too_far {
            return Err(WindowError::Times);
        }
        let mut changes = Vec::new();
        let taken = self.taken_by(request);
        for row in &taken {
            if row.windows.iter().filter(|window| window.is_open()).count() >= OPEN {
                return Err(WindowError::TooMany);
            }
            let twice = taken.iter().any(|other| other.at.is_beside(&row.at));
            if !emergency && (twice || self.stands_against(row, start, end)) {
                return Err(WindowError::Conflict(row.at.interconnect.to_string()));
            }
            let mut next = (*row).clone();
            let begun_at = (emergency && start <= now).then_some(now);
            next.windows.push(Window {
                id,
                start,
                end,
                emergency,
                made_at: now,
                cleared: false,
                begun_at,
                ended: None,
            });
            next.shown.0 += 1;
            next.attempts = Default::default();
            changes.push(put(next));
        }
        // What the peer has on the others is asked at once.
        let others = self.channels.values().filter(|row| {
            taken.iter().all(|taken| taken.at != row.at) && taken.iter().any(|taken| taken.at.is_beside(&row.at))
        });
        for other in others {
            let mut next = other.clone();
            next.events_at = now;
            next.tells_from = next.looks.0 + 1;
            changes.push(put(next));
        }
        Ok(changes)
    }

    /// Ends work that is under way, or calls it off.
    ///
    /// # Errors
    /// [`WindowError::Gone`].
    pub fn end_window(&self, id: Uuid, now: Timestamp) -> Result<Vec<Change>, WindowError> {
        let of = |row: &&ChannelRow| row.windows.iter().any(|window| window.id == id && window.is_open());
        let ended = |row: &ChannelRow| {
            let mut next = row.clone();
            for window in next.windows.iter_mut().filter(|window| window.id == id && window.is_open()) {
                let how = if window.begun_at.is_some() { WindowEnd::Done } else { WindowEnd::Cancelled };
                window.ended = Some((now, how));
            }
            next.shown.0 += 1;
            next.attempts = Default::default();
            put(next)
        };
        let changes: Vec<Change> = self.channels.values().filter(of).map(ended).collect();
        if changes.is_empty() { Err(WindowError::Gone) } else { Ok(changes) }
    }

    /// Whether another channel of the interconnect is, as far as we know, under work at some moment of an interval.
    fn stands_against(&self, row: &ChannelRow, start: Timestamp, end: Timestamp) -> bool {
        self.beside(&row.at).any(|other| {
            other.windows.iter().any(|own| own.is_open() && overlap((own.start, own.end), (start, end)))
                || other.theirs.iter().any(|event| event.meets(start, end))
        })
    }

    /// Whether the peer has told of every other channel since the newest window was stored.
    fn was_told_of(&self, row: &ChannelRow) -> bool {
        self.beside(&row.at).all(|other| other.looks.1 >= other.tells_from)
    }

    /// What time does to work: it is cleared, begins, ends, or is given up.
    pub(super) fn timed_windows(&self, row: &ChannelRow, now: Timestamp) -> Option<ChannelRow> {
        let mut next = row.clone();
        let mut news = false;
        for window in next.windows.iter_mut().filter(|window| window.is_open()) {
            if !window.cleared && !window.emergency && self.was_told_of(row) {
                window.cleared = !self.stands_against(row, window.start, window.end);
            }
            let against = || self.stands_against(row, window.start, window.end);
            let (due, over) = (window.start <= now, window.end <= now);
            let ended = match window.begun_at {
                Some(_) => over.then_some(WindowEnd::Done),
                None if over => Some(WindowEnd::Unconfirmed),
                None if due && !window.emergency && !window.cleared && against() => Some(WindowEnd::Conflict),
                None if due && !window.emergency && window.cleared && self.is_beside_work(row, now) => {
                    Some(WindowEnd::Conflict)
                }
                None => None,
            };
            if let Some(how) = ended {
                window.ended = Some((now, how));
                news = true;
            } else if window.begun_at.is_none() && due && (window.emergency || window.cleared) {
                window.begun_at = Some(now);
            }
        }
        let told = |window: &Window| window.ended.is_none_or(|(at, _)| now.duration_since(at) < TOLD);
        next.windows.retain(told);
        while next.windows.iter().filter(|window| !window.is_open()).count() > OVER {
            let oldest = next.windows.iter().position(|window| !window.is_open())?;
            next.windows.remove(oldest);
        }
        next.shown.0 += u64::from(news);
        next.closed = next.is_closed(now);
        (next != *row).then_some(next)
    }

    /// Whether another channel of the interconnect is closed at this moment, as by an emergency that came in between.
    fn is_beside_work(&self, row: &ChannelRow, now: Timestamp) -> bool {
        self.beside(&row.at).any(|other| other.is_closed(now))
    }
}
