//! The peer asks.

use std::sync::Arc;

use tieline_openapi::coordinator::{Connection, Feature, InterconnectPath, ResourceId};
use uuid::Uuid;

use super::{Coordination, CoordinationError, Peer, keeper::Doing, proof::Given};
use crate::{
    plan::coordinate::{
        Ask, Book, Kind, Place, Reply, Request,
        wire::{self, WireError},
    },
    store::Audit,
};

/// A call of a peer.
#[derive(Clone)]
pub struct Call {
    /// Who calls.
    pub peer: Arc<Peer>,
    /// Its `requestId`, where it sent one.
    pub request_id: Option<Uuid>,
    /// A digest of method, path, query and body as they came.
    pub digest: [u8; 32],
    /// The proof of the account that it is made for, where it came with one.
    pub proof: Given,
    /// The row of the audit log.
    pub audit: Audit,
}

impl Call {
    /// The `requestId`, or one that follows from the request: a peer of the published revision sends none.
    #[must_use]
    pub fn id(&self) -> Uuid {
        let derived = || self.digest.first_chunk().map_or(Uuid::nil(), |bytes: &[u8; 16]| Uuid::from_bytes(*bytes));
        self.request_id.unwrap_or_else(derived)
    }
}

/// An answer, and what a connection is for where it is about one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answered {
    /// By the protocol.
    pub reply: Reply,
    /// What the connection was for, where it was there before.
    pub kind: Option<Kind>,
    /// Whether it counted as verified.
    pub verified: bool,
}

impl Coordination {
    /// Answers a call by the protocol. `read` makes the question out of the request.
    ///
    /// # Errors
    /// [`CoordinationError::Wire`] where `read` refuses; [`CoordinationError::Proof`]; the store's.
    pub async fn answer(
        &self,
        call: &Call,
        read: impl Fn(&Book) -> Result<Ask, WireError> + Send + Sync,
    ) -> Result<Answered, CoordinationError> {
        self.proved(call, |book| read(book).ok()).await?;
        let answered = self.act(&call.peer, call.request_id, Some(&call.audit), |book, now| match read(book) {
            Err(error) => Doing::new(Err(error), Vec::new()),
            Ok(ask) => {
                let row = ask.place().and_then(|place| book.rows.get(place));
                let (kind, verified) = (row.map(|row| row.kind), row.is_some_and(|row| row.is_verified(&book.terms)));
                let request = Request { ask, request_id: call.request_id, digest: call.digest };
                let served = book.serve(&request, now);
                Doing::new(Ok(Answered { reply: served.reply, kind, verified }), served.changes)
            }
        });
        Ok(answered.await??)
    }

    /// What the peer may see of the connections on an interconnect, in order of id.
    ///
    /// # Errors
    /// The store's.
    pub async fn shown_connections(
        &self,
        call: &Call,
        on: &InterconnectPath,
    ) -> Result<Vec<(ResourceId, Connection)>, CoordinationError> {
        let shown = self.act(&call.peer, None, Some(&call.audit), |book, now| {
            let here = |place: &&Place| place.environment == on.environment && place.interconnect == on.interconnect;
            let show = |place: &Place| {
                let ask = Ask::Look { place: place.clone(), as_of: 0 };
                let request = Request { ask, request_id: None, digest: call.digest };
                let Reply::Seen { bandwidth_mbps, verified, .. } = book.serve(&request, now).reply else {
                    return None;
                };
                let kind = book.rows.get(place).map(|row| row.kind);
                let document = wire::connection_of(&on.provider, place, bandwidth_mbps, kind, verified);
                Some((place.connection.clone(), document))
            };
            Doing::new(book.rows.keys().filter(here).filter_map(show).collect(), Vec::new())
        });
        shown.await
    }
}

/// The features of a look, in order of id.
#[must_use]
pub fn features_of(caller: &ResourceId, place: &Place, reply: &Reply) -> Vec<(ResourceId, Feature)> {
    let Reply::Seen { features, .. } = reply else { return Vec::new() };
    let mut all: Vec<_> =
        features.iter().map(|seen| (seen.id.clone(), wire::seen_feature(caller, place, seen))).collect();
    all.sort_by(|a, b| a.0.cmp(&b.0));
    all
}
