//! What is stored of the open specification: a book a peer. A trait of its own beside [`super::Store`], since nothing of a
//! connection between two accounts of ours refers to it.

use async_trait::async_trait;
use tieline_openapi::{
    coordinator::{Comment, Issue, ResourceId},
    ids::{ConnectionId, ProjectId},
    v1::{self, Timestamp},
};
use uuid::Uuid;

use super::{Audit, Claim, ConnectionChange, NewConnection, Proofs, StoreError};
use crate::plan::coordinate::{ChannelPlace, ChannelRow, IssuedKey, Place, Replay, Row};

/// A connection as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredRow {
    /// With blank passwords.
    pub row: Row,
    /// The passwords, sealed; empty where there are none.
    pub sealed: Vec<u8>,
}

/// A channel as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredChannel {
    /// With blank keys.
    pub row: ChannelRow,
    /// The halves of its keys, sealed; empty where there are none.
    pub sealed: Vec<u8>,
}

/// Everything of one pairing, but of the answers given only the one that was asked for.
#[derive(Debug, Clone, Default)]
pub struct StoredBook {
    /// Moves with every change.
    pub revision: u64,
    /// Connections.
    pub rows: Vec<StoredRow>,
    /// Activation keys that were handed out.
    pub keys: Vec<IssuedKey>,
    /// Where nothing may be created any more.
    pub tombstones: Vec<(Place, Timestamp)>,
    /// The answer that was given to the request.
    pub replay: Option<Replay>,
    /// Channels.
    pub channels: Vec<StoredChannel>,
}

/// A book beside what its reader knows already.
#[derive(Debug, Clone)]
pub enum BookRead {
    /// It is at the revision that the reader knows. What has moved is the answer that was given to the request.
    Same(Option<Replay>),
    /// As it is now.
    Moved(StoredBook),
}

/// One change of a book.
#[derive(Debug, Clone)]
pub enum BookChange {
    /// A connection as it is now, due at once.
    Put {
        /// The row.
        row: Box<StoredRow>,
        /// What all connections of its interconnect together may have, in Mbit/s.
        capacity_mbps: u32,
    },
    /// A connection is gone.
    Remove {
        /// Where it was.
        place: Place,
    },
    /// Nothing may be created here any more.
    Tombstone {
        /// Where.
        place: Place,
        /// Since when.
        at: Timestamp,
    },
    /// An activation key as it is now.
    Key(IssuedKey),
    /// An answer to remember.
    Replay(Uuid, Replay),
    /// An activation key that was brought.
    Owner(Owner),
    /// The customer's account at the peer, by the UUID of the connection.
    Account(Uuid, String),
    /// A channel as it is now, due at once.
    Channel(Box<StoredChannel>),
}

/// What was brought for a connection that is shared with a peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// The UUID that both providers know it by.
    pub uuid: Uuid,
    /// The project.
    pub project: ProjectId,
    /// The text of the activation key that was brought for it, sealed.
    pub sealed: Vec<u8>,
    /// Since when.
    pub created_at: Timestamp,
}

/// What becomes of the customer's intent with a change of the book.
#[derive(Debug, Clone)]
pub enum IntentWrite {
    /// A new connection.
    New(Box<NewConnection>),
    /// Another intent, or the end of one.
    Change(Box<ConnectionChange>),
}

/// One transaction on a book. Connections whose book changes are due.
#[derive(Debug, Clone)]
pub struct BookWrite {
    /// Whose book.
    pub peer: ResourceId,
    /// The revision that the changes were made from. Where nothing changes but due times it does not matter.
    pub revision: u64,
    /// In order.
    pub changes: Vec<BookChange>,
    /// When connections are due again, in milliseconds from now.
    pub due: Vec<(Place, u64)>,
    /// When channels are due again, in milliseconds from now.
    pub channels_due: Vec<(ChannelPlace, u64)>,
    /// The customer's intent: all that [`super::Store::create_connection`] or [`super::Store::change_connection`] writes.
    pub intent: Option<IntentWrite>,
    /// What stands of it in the audit log.
    pub audit: Option<Audit>,
}

/// The transactions of the open specification. Each method is one.
#[async_trait]
pub trait Books: Proofs {
    /// A peer's book, with the answer that was given to one request; whoever knows a revision of it reads it only where it
    /// has moved on.
    async fn book_beside(
        &self,
        peer: &ResourceId,
        request: Option<Uuid>,
        known: Option<u64>,
    ) -> Result<BookRead, StoreError>;

    /// The same for who knows nothing of it.
    async fn book(&self, peer: &ResourceId, request: Option<Uuid>) -> Result<StoredBook, StoreError> {
        match self.book_beside(peer, request, None).await? {
            BookRead::Moved(book) => Ok(book),
            BookRead::Same(replay) => Ok(StoredBook { replay, ..StoredBook::default() }),
        }
    }

    /// Writes changes of a book, and of the intent that they come from: all, or `Fenced` where the book has moved on since
    /// it was read, or `AllocationTaken` where something would be sold twice; and whatever refuses the intent.
    async fn write_book(&self, write: BookWrite) -> Result<(), StoreError>;

    /// Connections of a peer that are due, the longest due first.
    async fn due_places(&self, peer: &ResourceId, limit: u32) -> Result<Vec<Place>, StoreError>;

    /// Milliseconds until the next connection of a peer is due; `None` without any. Never more than `longest_ms`.
    async fn next_place_due(&self, peer: &ResourceId, longest_ms: u64) -> Result<Option<u64>, StoreError>;

    /// Channels of a peer that are due, the longest due first.
    async fn due_channels(&self, peer: &ResourceId, limit: u32) -> Result<Vec<ChannelPlace>, StoreError>;

    /// Milliseconds until the next channel of a peer is due; `None` without any. Never more than `longest_ms`.
    async fn next_channel_due(&self, peer: &ResourceId, longest_ms: u64) -> Result<Option<u64>, StoreError>;

    /// Raises an issue about a peer, or brings the open one of the same code and subject up to date.
    async fn raise(&self, project: &ProjectId, issue: &v1::Issue) -> Result<(), StoreError>;

    /// Ends the open issues of a code and a subject.
    async fn resolve(&self, code: &str, subject: &str, at: Timestamp) -> Result<(), StoreError>;

    /// Claims connections with peers that are due, as [`super::Store::claim`] does others.
    async fn claim_shared(&self, owner: &str, lease_ms: u64, limit: u32) -> Result<Vec<Claim>, StoreError>;

    /// Milliseconds until the next connection with a peer is due; `None` without any. Never more than `longest_ms`.
    async fn next_shared_due(&self, longest_ms: u64) -> Result<Option<u64>, StoreError>;

    /// Whose a connection is that is shared with a peer, and its id.
    async fn shared_as(&self, peer: &ResourceId, uuid: Uuid) -> Result<Option<(ProjectId, ConnectionId)>, StoreError>;

    /// What was brought for a connection.
    async fn owner(&self, peer: &ResourceId, uuid: Uuid) -> Result<Option<Owner>, StoreError>;

    /// An environment's key pairs, sealed, the newest first; at most four.
    async fn key_pairs(
        &self,
        peer: &ResourceId,
        environment: &ResourceId,
    ) -> Result<Vec<(Timestamp, Vec<u8>)>, StoreError>;

    /// Adds a key pair. Where one of the same instant is there, that one stays.
    async fn add_key_pair(
        &self,
        peer: &ResourceId,
        environment: &ResourceId,
        made_at: Timestamp,
        sealed: Vec<u8>,
    ) -> Result<(), StoreError>;

    /// Writes a row of the audit log that belongs to no other transaction: somebody read.
    async fn note(&self, audit: Audit) -> Result<(), StoreError>;

    /// Adds a peer's issue; false where one of this id is there.
    async fn add_issue(
        &self,
        peer: &ResourceId,
        id: &ResourceId,
        issue: &Issue,
        audit: Audit,
    ) -> Result<bool, StoreError>;
    /// Changes a peer's issue, or `NotFound`.
    async fn put_issue(
        &self,
        peer: &ResourceId,
        id: &ResourceId,
        issue: &Issue,
        audit: Audit,
    ) -> Result<(), StoreError>;
    /// One issue, or `NotFound`.
    async fn peer_issue(&self, peer: &ResourceId, id: &ResourceId) -> Result<Issue, StoreError>;
    /// Issues of a peer in order of id, after one.
    async fn peer_issues(
        &self,
        peer: &ResourceId,
        after: Option<&ResourceId>,
        limit: u32,
    ) -> Result<Vec<(ResourceId, Issue)>, StoreError>;
    /// Adds a comment to a peer's issue; its number. `NotFound` without the issue.
    async fn add_comment(
        &self,
        peer: &ResourceId,
        id: &ResourceId,
        comment: &Comment,
        audit: Audit,
    ) -> Result<u64, StoreError>;
    /// Comments of an issue, the newest first, before a number.
    async fn comments(
        &self,
        peer: &ResourceId,
        id: &ResourceId,
        before: Option<u64>,
        limit: u32,
    ) -> Result<Vec<(u64, Comment)>, StoreError>;

    /// Forgets answers, tombstones, key pairs and activation keys that are old enough; at most `rows` of each.
    async fn forget(&self, rows: u32) -> Result<(), StoreError>;
}
