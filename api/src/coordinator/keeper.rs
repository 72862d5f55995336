//! Books: read, changed and written under their revision.

use std::collections::BTreeMap;

use secrecy::SecretString;
use tieline_openapi::coordinator::{ResourceId, Sensitive, Timestamp};
use uuid::Uuid;

use super::{Coordination, CoordinationError, Peer};
use crate::{
    plan::coordinate::{Book, Change, Place, Row},
    secrets,
    store::{Audit, BookChange, BookWrite, IntentWrite, StoreError, StoredRow},
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
}

impl<T> Doing<T> {
    /// Changes, and nothing else.
    pub(super) const fn new(outcome: T, changes: Vec<Change>) -> Self {
        Self { outcome, changes, more: Vec::new(), intent: None, due: Vec::new() }
    }
}

fn sealed_at(peer: &ResourceId, row: &Row) -> secrets::Place {
    let Place { environment, interconnect, connection } = &row.place;
    let of = format!("peers/{peer}/{environment}/{interconnect}/{connection}/{}", row.version);
    secrets::Place::new("coordinatorPasswords", of)
}

impl Coordination {
    /// A peer's book, and its revision.
    pub(super) async fn load(&self, peer: &Peer, request: Option<Uuid>) -> Result<(u64, Book), CoordinationError> {
        let stored = self.parts.books.book(&peer.id, request).await?;
        let mut book = Book::new(peer.terms.clone());
        for row in stored.rows {
            let row = self.opened(&peer.id, row)?;
            book.rows.insert(row.place.clone(), row);
        }
        book.keys = stored.keys.into_iter().map(|key| (key.uuid, key)).collect();
        book.tombstones = stored.tombstones.into_iter().collect();
        book.replays = request.zip(stored.replay).into_iter().collect();
        Ok((stored.revision, book))
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
            let Doing { outcome, changes, more, intent, due } = make(&book, self.parts.clock.now());
            drop(book);
            let mut all =
                changes.into_iter().map(|change| self.written(peer, change)).collect::<Result<Vec<_>, _>>()?;
            all.extend(more);
            if all.is_empty() && due.is_empty() && intent.is_none() && audit.is_none() {
                return Ok(outcome);
            }
            let write = BookWrite { peer: peer.id.clone(), revision, changes: all, due, intent, audit: audit.cloned() };
            match self.parts.books.write_book(write).await {
                Err(StoreError::Fenced | StoreError::AllocationTaken { .. }) => {}
                written => return Ok(written.map(|()| outcome)?),
            }
        }
        Err(CoordinationError::Contended)
    }
}
