//! Books: read, changed and written under their revision.

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, PoisonError},
};

use secrecy::SecretString;
use tieline_openapi::coordinator::{ResourceId, Sensitive, Timestamp};
use uuid::Uuid;

use super::{Coordination, CoordinationError, Peer};
use crate::{
    plan::coordinate::{Book, Change, ChannelPlace, ChannelRow, Place, Row},
    secrets,
    store::{Audit, BookChange, BookRead, BookWrite, IntentWrite, StoreError, StoredBook, StoredChannel, StoredRow},
};

/// How often a change is made again because another replica was faster.
const TRIES: u32 = 8;

/// What is to become of a book.
pub(super) struct Doing<T> {
    /// Told to the caller once it is stored.
    pub(super) outcome: T,
    /// By the protocol.
    pub(super) changes: Vec<Change>,
    /// Beside the protocol.
    pub(super) more: Vec<BookChange>,
    /// What becomes of the customer's intent.
    pub(super) intent: Option<IntentWrite>,
    /// When connections are due, in milliseconds from now.
    pub(super) due: Vec<(Place, u64)>,
    /// When channels are.
    pub(super) channels_due: Vec<(ChannelPlace, u64)>,
}

impl<T> Doing<T> {
    /// Changes, and nothing else.
    pub(super) const fn new(outcome: T, changes: Vec<Change>) -> Self {
        Self { outcome, changes, more: Vec::new(), intent: None, due: Vec::new(), channels_due: Vec::new() }
    }
}

/// A book, opened, with its revision: what was read is not read again before it has moved on. Every change of a book moves its
/// revision, whichever replica makes it.
#[derive(Debug, Default)]
pub(super) struct Remembered(std::sync::Mutex<Option<(u64, Arc<Book>)>>);

impl Remembered {
    fn get(&self) -> Option<(u64, Arc<Book>)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn take(&self) -> Option<(u64, Arc<Book>)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn set(&self, known: Option<(u64, Arc<Book>)>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = known;
    }
}

fn sealed_at(peer: &ResourceId, row: &Row) -> secrets::Place {
    let Place { environment, interconnect, connection } = &row.place;
    let of = format!("peers/{peer}/{environment}/{interconnect}/{connection}/{}", row.version);
    secrets::Place::new("coordinatorPasswords", of)
}

/// Both halves of a channel's keys.
type Halves = BTreeMap<ResourceId, [Sensitive; 2]>;

fn keys_at(peer: &ResourceId, row: &ChannelRow) -> secrets::Place {
    let ChannelPlace { environment, interconnect, channel } = &row.at;
    secrets::Place::new(
        "coordinatorMacSecKeys",
        format!("peers/{peer}/{environment}/{interconnect}/{channel}/{}", row.version),
    )
}

/// Connections on channels that were closed or opened, or that have got or lost their key: their routers have work.
fn stirred(book: &Book, changes: &[Change]) -> Vec<Place> {
    let moved = |change: &Change| match change {
        Change::Channel(row) => {
            let before = book.channels.get(&row.at);
            let same = before.is_none_or(|before| {
                before.closed == row.closed && before.active().is_some() == row.active().is_some()
            });
            if same { None } else { Some((row.at.environment.clone(), row.at.interconnect.clone())) }
        }
        Change::Put(_) | Change::Remove { .. } | Change::Tombstone { .. } | Change::Key(_) | Change::Replay(..) => None,
    };
    let moved: BTreeSet<_> = changes.iter().filter_map(moved).collect();
    let on_it = |place: &&Place| moved.contains(&(place.environment.clone(), place.interconnect.clone()));
    if moved.is_empty() { Vec::new() } else { book.rows.keys().filter(on_it).cloned().collect() }
}

impl Coordination {
    /// A peer's book, and its revision.
    pub(super) async fn load(&self, peer: &Peer, request: Option<Uuid>) -> Result<(u64, Arc<Book>), CoordinationError> {
        let known = peer.remembered.get();
        let read =
            self.parts.books.book_beside(&peer.id, request, known.as_ref().map(|(revision, _)| *revision)).await?;
        let (revision, mut book, replay, read) = match (read, known) {
            (BookRead::Same(replay), Some((revision, book))) => (revision, book, replay, false),
            (BookRead::Same(replay), None) => (0, Arc::new(Book::new(peer.terms.clone())), replay, true),
            (BookRead::Moved(stored), _) => {
                let (revision, replay) = (stored.revision, stored.replay.clone());
                (revision, Arc::new(self.opened_book(peer, stored)?), replay, true)
            }
        };
        let now = self.parts.clock.now();
        let aged = !book.is_of(now);
        if aged {
            let book = Arc::make_mut(&mut book);
            book.forget(now);
            book.close_channels(now);
        }
        if read || aged {
            peer.remembered.set(Some((revision, Arc::clone(&book))));
        }
        if let Some(answered) = request.zip(replay) {
            Arc::make_mut(&mut book).replays.extend([answered]);
        }
        Ok((revision, book))
    }

    fn opened_book(&self, peer: &Peer, stored: StoredBook) -> Result<Book, CoordinationError> {
        let mut book = Book::new(peer.terms.clone());
        for row in stored.rows {
            let row = self.opened(&peer.id, row)?;
            book.rows.insert(row.place.clone(), row);
        }
        book.keys = stored.keys.into_iter().map(|key| (key.uuid, key)).collect();
        book.tombstones = stored.tombstones.into_iter().collect();
        for channel in stored.channels {
            let row = self.opened_channel(&peer.id, channel)?;
            book.channels.insert(row.at.clone(), row);
        }
        Ok(book)
    }

    /// Remembers a book that has been written from this revision.
    fn remember(peer: &Peer, from: u64, changes: &[Change]) {
        let Some((revision, mut book)) = peer.remembered.take().filter(|(revision, _)| *revision == from) else {
            return;
        };
        // Nobody else has it any more, as a rule: then it is not copied.
        let moved = Arc::make_mut(&mut book);
        if moved.apply(changes).is_ok() {
            // They are looked up one by one.
            moved.replays.clear();
            peer.remembered.set(Some((revision + 1, book)));
        }
    }

    fn opened(&self, peer: &ResourceId, stored: StoredRow) -> Result<Row, CoordinationError> {
        let StoredRow { mut row, sealed } = stored;
        if sealed.is_empty() {
            return Ok(row);
        }
        let opened = self.parts.vault.open_at(&sealed_at(peer, &row), &sealed)?;
        let mut passwords: BTreeMap<ResourceId, Sensitive> = serde_json::from_str(Sensitive::from(opened).expose())?;
        for (channel, feature) in &mut row.features {
            if let Some(password) = passwords.remove(channel) {
                feature.config.md5_bgp_password = password;
            }
        }
        Ok(row)
    }

    fn closed(&self, peer: &ResourceId, mut row: Row) -> Result<StoredRow, CoordinationError> {
        let blank = |row: &mut Row| -> BTreeMap<ResourceId, Sensitive> {
            let features = row.features.iter_mut();
            features
                .map(|(channel, feature)| {
                    let password = std::mem::replace(&mut feature.config.md5_bgp_password, Sensitive::new(""));
                    (channel.clone(), password)
                })
                .collect()
        };
        let passwords = blank(&mut row);
        if passwords.is_empty() {
            return Ok(StoredRow { row, sealed: Vec::new() });
        }
        let text = SecretString::from(serde_json::to_string(&passwords)?);
        let sealed = self.parts.vault.seal_at(&sealed_at(peer, &row), &text)?;
        Ok(StoredRow { row, sealed })
    }

    fn opened_channel(&self, peer: &ResourceId, stored: StoredChannel) -> Result<ChannelRow, CoordinationError> {
        let StoredChannel { mut row, sealed } = stored;
        if sealed.is_empty() {
            return Ok(row);
        }
        let opened = self.parts.vault.open_at(&keys_at(peer, &row), &sealed)?;
        let mut halves: Halves = serde_json::from_str(Sensitive::from(opened).expose())?;
        for key in &mut row.keys {
            if let Some([cak, ckn]) = halves.remove(&key.id) {
                (key.cak, key.ckn) = (cak, ckn);
            }
        }
        Ok(row)
    }

    fn closed_channel(&self, peer: &ResourceId, mut row: ChannelRow) -> Result<StoredChannel, CoordinationError> {
        let mut halves = Halves::new();
        for key in &mut row.keys {
            let blank = || Sensitive::new("");
            let both = [std::mem::replace(&mut key.cak, blank()), std::mem::replace(&mut key.ckn, blank())];
            halves.insert(key.id.clone(), both);
        }
        if halves.is_empty() {
            return Ok(StoredChannel { row, sealed: Vec::new() });
        }
        let text = SecretString::from(serde_json::to_string(&halves)?);
        let sealed = self.parts.vault.seal_at(&keys_at(peer, &row), &text)?;
        Ok(StoredChannel { row, sealed })
    }

    fn written(&self, peer: &Peer, change: Change) -> Result<BookChange, CoordinationError> {
        Ok(match change {
            Change::Put(row) => {
                let terms = peer.terms.environments.get(&row.place.environment);
                let interconnect = terms.and_then(|terms| terms.interconnects.get(&row.place.interconnect));
                let capacity_mbps = interconnect.map_or(0, |interconnect| interconnect.max_bandwidth_mbps);
                BookChange::Put { row: Box::new(self.closed(&peer.id, *row)?), capacity_mbps }
            }
            Change::Remove { place, .. } => BookChange::Remove { place },
            Change::Tombstone { place, at } => BookChange::Tombstone { place, at },
            Change::Key(key) => BookChange::Key(key),
            Change::Replay(id, replay) => BookChange::Replay(id, replay),
            Change::Channel(row) => BookChange::Channel(Box::new(self.closed_channel(&peer.id, *row)?)),
        })
    }

    /// Reads a book, lets `make` say what becomes of it, and writes that in one transaction; again from what is stored where
    /// another replica was faster.
    pub(super) async fn act<T>(
        &self,
        peer: &Peer,
        request: Option<Uuid>,
        audit: Option<&Audit>,
        make: impl Fn(&Book, Timestamp) -> Doing<T> + Send,
    ) -> Result<T, CoordinationError> {
        let _turn = peer.lock.lock().await;
        for _ in 0..TRIES {
            let (revision, book) = self.load(peer, request).await?;
            let Doing { outcome, changes, more, intent, mut due, channels_due } = make(&book, self.parts.clock.now());
            due.extend(stirred(&book, &changes).into_iter().map(|place| (place, 0)));
            drop(book);
            let written = changes.iter().cloned().map(|change| self.written(peer, change));
            let mut all = written.collect::<Result<Vec<_>, _>>()?;
            all.extend(more);
            let idle = all.is_empty() && due.is_empty() && channels_due.is_empty();
            if idle && intent.is_none() && audit.is_none() {
                return Ok(outcome);
            }
            let moves = !all.is_empty();
            let write = BookWrite {
                peer: peer.id.clone(),
                revision,
                changes: all,
                due,
                channels_due,
                intent,
                audit: audit.cloned(),
            };
            match self.parts.books.write_book(write).await {
                Err(StoreError::Fenced | StoreError::AllocationTaken { .. }) => {}
                written => {
                    written?;
                    if moves {
                        Self::remember(peer, revision, &changes);
                    }
                    return Ok(outcome);
                }
            }
        }
        Err(CoordinationError::Contended)
    }
}
