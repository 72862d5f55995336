//! What customers ask for: an activation key to bring elsewhere, a connection from a key that they bring here, and its end.

use std::{collections::BTreeMap, sync::Arc};

use tieline_openapi::{
    coordinator::{
        ActivationKey, EnvironmentPath, GetActivationKeyParameters, KeyContents, NoBody, Request, ResourceId,
        Sensitive, Timestamp, decode_key,
    },
    ids::{AttachPointId, ProjectId},
    units::BandwidthMbps,
    v1::{AttachPoint, ConnectionIntent},
};
use uuid::Uuid;

use super::{Coordination, CoordinationError, Peer, keeper::Doing};
use crate::{
    plan::{
        checks::Findings,
        coordinate::{Book, Change, Draw, Kind, Place, Room, Standing, WishError, check_intent, wire},
        negotiate::Allocated,
    },
    secrets,
    store::{BookChange, ConnectionRecord, IntentWrite, SharedLink},
    topology::Pairing,
};

/// A key to hand out.
#[derive(Debug, Clone, Copy)]
pub struct Order<'a> {
    /// For whom.
    pub pairing: &'a Pairing,
    /// The UUID that both providers will know the connection by.
    pub uuid: Uuid,
    /// Its bandwidth.
    pub bandwidth: BandwidthMbps,
    /// The customer's account at the peer.
    pub remote_account: &'a str,
}

/// What a key says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decoded {
    /// 1 or 2.
    pub version: u8,
    /// The provider that handed it out.
    pub peer: ResourceId,
    /// Where the connection will be.
    pub environment: ResourceId,
    /// What it says.
    pub contents: KeyContents,
}

impl Coordination {
    /// Makes an activation key for a connection that the customer will ask a peer for, and writes the connection with it. The
    /// key is encrypted to the peer's environment where that takes such keys; its text is told this once.
    ///
    /// # Errors
    /// [`CoordinationError::NoPeer`], [`CoordinationError::Wish`], [`CoordinationError::KeyContents`],
    /// [`CoordinationError::Peer`] where the peer does not answer which keys it takes, [`CoordinationError::Key`], the
    /// store's.
    pub async fn issue_key<A: Send>(
        &self,
        order: Order<'_>,
        write: impl Writes<A>,
    ) -> Result<(Sensitive, A), CoordinationError> {
        let Order { pairing: Pairing { peer, environment, .. }, uuid, bandwidth, remote_account } = order;
        let peer = self.provider(peer.as_str())?;
        // Refused before anybody is asked.
        let now = self.now();
        self.load(peer, None).await?.1.issue_key(environment, bandwidth.get(), uuid, [0; 32], now)?;
        let path = wire::environment_path(self.us(), environment);
        let contents =
            KeyContents { shared_connection_uuid: uuid, bandwidth, destination_account_id: remote_account.to_owned() };
        // Read back: what would not be taken is not handed out.
        let contents = KeyContents::of_payload(&contents.to_payload())?;
        let key = self.make_key(peer, &path, &contents).await?;
        let digest = wire::key_digest(&key);
        let issued = self.act(peer, None, None, |book, now| {
            let mut doing = doing(book, uuid, book.issue_key(environment, bandwidth.get(), uuid, digest, now), &write);
            if doing.outcome.is_ok() {
                // Whoever brings the key there proves that it acts for this account.
                doing.more.push(BookChange::Account(uuid, remote_account.to_owned()));
            }
            doing
        });
        let answer = issued.await??;
        Ok((key.encode(), answer))
    }

    async fn make_key(
        &self,
        peer: &Peer,
        path: &EnvironmentPath,
        contents: &KeyContents,
    ) -> Result<ActivationKey, CoordinationError> {
        let asked = peer.client.call::<GetActivationKeyParameters>(path, &Request::default(), &NoBody {}).await;
        let parameters = match asked {
            // A peer of the published revision does not know the question, and takes version 1.
            Err(error) if error.refusal().is_some_and(|refusal| matches!(refusal.status, 404 | 405 | 501)) => None,
            other => Some(other?),
        };
        let uri = path.to_string();
        let encryption = parameters.filter(|p| p.supported_versions.contains(&2)).and_then(|p| p.encryption);
        Ok(match encryption {
            Some(encryption) => ActivationKey::V2(secrets::encrypt(contents, &uri, &encryption)?),
            None => ActivationKey::V1(contents.to_v1(&uri)),
        })
    }

    /// Reads a key that a customer brings. It is for one of our environments, and names the peer that made it: the first
    /// id of its destination is the provider that calls there.
    ///
    /// # Errors
    /// [`CoordinationError::KeyText`], [`CoordinationError::KeyElsewhere`], [`CoordinationError::KeyContents`] and
    /// [`CoordinationError::Key`].
    pub async fn decode(&self, text: &Sensitive) -> Result<Decoded, CoordinationError> {
        let key = decode_key(text)?;
        let uri = key.destination_environment_uri();
        let name = uri.find("providers/").and_then(|at| uri.get(at..));
        let path: EnvironmentPath = name.and_then(|name| name.parse().ok()).ok_or(CoordinationError::KeyElsewhere)?;
        let shares = |peer: &&Arc<Peer>| {
            peer.terms.environments.contains_key(&path.environment)
                && (path.provider == peer.id || path.provider == *self.us())
        };
        let mut peers = self.peers.values().filter(shares);
        let (Some(peer), None) = (peers.next(), peers.next()) else { return Err(CoordinationError::KeyElsewhere) };
        let (version, contents) = match &key {
            ActivationKey::V1(key) => (1, KeyContents::of_v1(key)?),
            ActivationKey::V2(key) => (2, self.pairs(&peer.id, &path.environment).await?.open(key)?),
            ActivationKey::Other { .. } => return Err(CoordinationError::KeyElsewhere),
        };
        Ok(Decoded { version, peer: peer.id.clone(), environment: path.environment, contents })
    }

    /// Makes a connection from a key that a customer brings: ours first, then the peer is asked.
    ///
    /// # Errors
    /// [`CoordinationError::Wish`], the store's.
    pub async fn accept_key<A: Send>(
        &self,
        text: &Sensitive,
        decoded: &Decoded,
        project: &ProjectId,
        write: impl Writes<A>,
    ) -> Result<A, CoordinationError> {
        let Decoded { peer, environment, contents, .. } = decoded;
        let peer = self.provider(peer.as_str())?;
        let uuid = contents.shared_connection_uuid;
        let owner = self.owner(&peer.id, uuid, project, text)?;
        let (draw, mbps) = (self.draw(), contents.bandwidth.get());
        let accepted = self.act(peer, None, None, |book, now| {
            let changes = book.accept_key(environment, uuid, mbps, Kind::Standard, now, &draw);
            let mut doing = doing(book, uuid, changes.map(|(_, changes)| changes), &write);
            if doing.outcome.is_ok() {
                doing.more.push(BookChange::Owner(owner.clone()));
            }
            doing
        });
        accepted.await?
    }

    /// How the connection of a key would stand if it were brought now.
    ///
    /// # Errors
    /// As [`Coordination::accept_key`].
    pub async fn foresee(&self, decoded: &Decoded) -> Result<Standing, CoordinationError> {
        let Decoded { peer, environment, contents, .. } = decoded;
        let mut book = self.load(self.provider(peer.as_str())?, None).await?.1.as_ref().clone();
        let (uuid, mbps) = (contents.shared_connection_uuid, contents.bandwidth.get());
        let (_, changes) = book.accept_key(environment, uuid, mbps, Kind::Standard, self.now(), &self.draw())?;
        book.apply(&changes).map_err(|_| CoordinationError::Contended)?;
        Ok(book.standing(uuid))
    }

    /// Writes a change of a connection's intent, with what it asks of the peer.
    ///
    /// # Errors
    /// [`CoordinationError::NoPeer`], [`CoordinationError::Wish`], the store's.
    pub async fn change<A: Send>(
        &self,
        link: &SharedLink,
        asked: Asked,
        write: impl Writes<A>,
    ) -> Result<A, CoordinationError> {
        let peer = self.provider(link.peer.as_str())?;
        let draw = self.draw();
        let changed = self.act(peer, None, None, |book, now| {
            doing(book, link.uuid, wished(book, link.uuid, &asked, now, &draw), &write)
        });
        changed.await?
    }

    /// Looks up how connections stand with their peers. Where a peer is not configured any more, nothing is known.
    ///
    /// # Errors
    /// The store's; [`CoordinationError::Secret`].
    pub async fn stand(&self, records: &mut [ConnectionRecord]) -> Result<(), CoordinationError> {
        let mut books = BTreeMap::new();
        for link in records.iter_mut().filter_map(|record| record.shared.as_mut()) {
            let Some(peer) = self.peers.get(&link.peer) else { continue };
            if !books.contains_key(&peer.id) {
                books.insert(&peer.id, self.load(peer, None).await?.1);
            }
            link.standing = books.get(&peer.id).map(|book| book.standing(link.uuid));
        }
        Ok(())
    }

    /// What is known of an intent before the peer is asked.
    ///
    /// # Errors
    /// [`CoordinationError::NoPeer`], the store's.
    pub async fn check(
        &self,
        pairing: &Pairing,
        intent: &ConnectionIntent,
        points: &BTreeMap<AttachPointId, AttachPoint>,
        allocated: &Allocated,
        room: Room,
    ) -> Result<Findings, CoordinationError> {
        let (_, book) = self.load(self.provider(pairing.peer.as_str())?, None).await?;
        Ok(check_intent(&book, &pairing.environment, intent, points, allocated, room))
    }
}

/// What a wish changes in the book.
pub(super) fn wished(
    book: &Book,
    uuid: Uuid,
    asked: &Asked,
    now: Timestamp,
    draw: &Draw,
) -> Result<Vec<Change>, WishError> {
    match asked {
        Asked::Nothing => Ok(Vec::new()),
        Asked::Bandwidth(to) => book.resize(the_place(book, uuid)?, *to, draw),
        Asked::Move(target) => {
            book.migrate(the_place(book, uuid)?, target.as_ref(), now, draw).map(|(_, changes)| changes)
        }
        Asked::End => Ok(book.leave(uuid)),
    }
}

/// Makes the intent that is written with a change of the book, and the caller's answer, from how the connection stands then.
pub trait Writes<A>: Fn(Standing) -> Result<(IntentWrite, A), serde_json::Error> + Send + Sync {}

impl<A, F: Fn(Standing) -> Result<(IntentWrite, A), serde_json::Error> + Send + Sync> Writes<A> for F {}

/// A wish's changes, with the intent that is written in their transaction.
fn doing<A>(
    book: &Book,
    uuid: Uuid,
    changes: Result<Vec<Change>, WishError>,
    write: &impl Writes<A>,
) -> Doing<Result<A, CoordinationError>> {
    let made = changes.map_err(CoordinationError::from).and_then(|changes| {
        let mut after = book.clone();
        after.apply(&changes).map_err(|_| CoordinationError::Contended)?;
        let (intent, answer) = write(after.standing(uuid)).map_err(CoordinationError::Answer)?;
        Ok((changes, intent, answer))
    });
    match made {
        Ok((changes, intent, answer)) => Doing { intent: Some(intent), ..Doing::new(Ok(answer), changes) },
        Err(error) => Doing::new(Err(error), Vec::new()),
    }
}

/// What a change of an intent asks of the peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asked {
    /// Nothing.
    Nothing,
    /// Another bandwidth, in Mbit/s.
    Bandwidth(u32),
    /// Another interconnect: this one, or whichever has room.
    Move(Option<ResourceId>),
    /// The end.
    End,
}

/// The one place of a connection that does not move, and is not on its way out.
fn the_place(book: &Book, uuid: Uuid) -> Result<&Place, WishError> {
    let mut rows = book.rows.values().filter(|row| row.uuid == uuid);
    match (rows.next(), rows.next()) {
        (Some(row), None) => Ok(&row.place),
        (Some(_), Some(_)) => Err(WishError::Busy),
        (None, _) if book.keys.get(&uuid).is_some_and(|key| !key.spent) => Err(WishError::NotBrought),
        (None, _) => Err(WishError::Gone),
    }
}
