//! What customers ask for: an activation key to bring elsewhere, a connection from a key that they bring here, and its end.

use std::{collections::BTreeMap, sync::Arc};

use tieline_openapi::{
    coordinator::{
        ActivationKey, EnvironmentPath, GetActivationKeyParameters, KeyContents, NoBody, Request, ResourceId,
        Sensitive, Timestamp, decode_key,
    },
    ids::ProjectId,
    units::BandwidthMbps,
};
use uuid::Uuid;

use super::{Coordination, CoordinationError, Peer, keeper::Doing};
use crate::{
    plan::coordinate::{Book, Change, IssuedKey, Kind, Place, Row, WishError, wire},
    secrets,
    store::{Audit, BookChange, Owner, StoreError},
};

/// A key that was handed out.
#[derive(Debug, Clone)]
pub struct Issued {
    /// The key's text, for the customer: it is shown this once.
    pub text: Sensitive,
    /// The UUID that both providers know the connection by.
    pub uuid: Uuid,
    /// Since when: it lives for seven days.
    pub issued_at: Timestamp,
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

/// A connection that was made from a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accepted {
    /// With whom.
    pub peer: ResourceId,
    /// Where.
    pub place: Place,
    /// The UUID that both providers know it by.
    pub uuid: Uuid,
}

impl Coordination {
    /// Makes an activation key for a connection that the customer will ask a peer for. It is encrypted to the peer's
    /// environment where that takes such keys.
    ///
    /// # Errors
    /// [`CoordinationError::NoPeer`], [`CoordinationError::Wish`], [`CoordinationError::Peer`] where the peer does not
    /// answer which keys it takes, [`CoordinationError::Key`], the store's.
    pub async fn issue_key(
        &self,
        peer: &str,
        environment: &ResourceId,
        bandwidth: BandwidthMbps,
        remote_account: &str,
        project: &ProjectId,
        audit: &Audit,
    ) -> Result<Issued, CoordinationError> {
        let peer = self.provider(peer)?;
        let uuid = self.draw().ids[0];
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
        let owner = self.owner(&peer.id, uuid, project, None)?;
        let issued = self.act(peer, None, Some(audit), |book, now| {
            match book.issue_key(environment, bandwidth.get(), uuid, digest, now) {
                Ok(changes) => {
                    let mut doing = Doing::new(Ok(now), changes);
                    doing.more.push(BookChange::Owner(owner.clone()));
                    doing
                }
                Err(error) => Doing::new(Err(error), Vec::new()),
            }
        });
        let issued_at = issued.await??;
        Ok(Issued { text: key.encode(), uuid, issued_at })
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

    /// Makes a connection from a key that a customer brings: ours first, then the peer is asked. The key is for the
    /// project that brings it, or it is nobody's here.
    ///
    /// # Errors
    /// As [`Coordination::decode`]; [`CoordinationError::KeyOfAnother`], [`CoordinationError::Wish`], the store's.
    pub async fn accept_key(
        &self,
        text: &Sensitive,
        project: &ProjectId,
        audit: &Audit,
    ) -> Result<Accepted, CoordinationError> {
        let Decoded { peer, environment, contents, .. } = self.decode(text).await?;
        if contents.destination_account_id != project.as_str() {
            return Err(CoordinationError::KeyOfAnother);
        }
        let peer = self.provider(peer.as_str())?;
        let uuid = contents.shared_connection_uuid;
        let owner = self.owner(&peer.id, uuid, project, Some(text))?;
        let (draw, mbps) = (self.draw(), contents.bandwidth.get());
        let accepted = self.act(peer, None, Some(audit), |book, now| {
            match book.accept_key(&environment, uuid, mbps, Kind::Standard, now, &draw) {
                Ok((place, changes)) => {
                    let mut doing = Doing::new(Ok(place), changes);
                    doing.more.push(BookChange::Owner(owner.clone()));
                    doing
                }
                Err(error) => Doing::new(Err(error), Vec::new()),
            }
        });
        Ok(Accepted { peer: peer.id.clone(), place: accepted.await??, uuid })
    }

    /// Takes a project's connection down at every place where it is, or takes its key back.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] where the project has none of this UUID; the store's.
    pub async fn leave(&self, project: &ProjectId, uuid: Uuid, audit: &Audit) -> Result<(), CoordinationError> {
        let (peer, _) = self.find(project, uuid).await?;
        let peer = Arc::clone(self.provider(peer.as_str())?);
        self.act(&peer, None, Some(audit), |book, _| Doing::new((), book.leave(uuid))).await
    }

    /// Changes the bandwidth of a project's connection: the room is held at once, the peer is asked, and when it agrees the
    /// bandwidth changes.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] where the project has none of this UUID; [`CoordinationError::Wish`]; the store's.
    pub async fn resize(
        &self,
        project: &ProjectId,
        uuid: Uuid,
        to: BandwidthMbps,
        audit: &Audit,
    ) -> Result<(), CoordinationError> {
        let (peer, _) = self.find(project, uuid).await?;
        let peer = Arc::clone(self.provider(peer.as_str())?);
        let draw = self.draw();
        let resized = self.act(&peer, None, Some(audit), |book, _| {
            let wish = book.the_place(uuid).and_then(|place| book.resize(&place, to.get(), &draw));
            refusable(wish.map(|changes| ((), changes)))
        });
        resized.await??;
        Ok(())
    }

    /// Moves a project's connection to another interconnect, make before break: it is at both until the new place works.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] where the project has none of this UUID; [`CoordinationError::Wish`]; the store's.
    pub async fn migrate(&self, project: &ProjectId, uuid: Uuid, audit: &Audit) -> Result<(), CoordinationError> {
        let (peer, _) = self.find(project, uuid).await?;
        let peer = Arc::clone(self.provider(peer.as_str())?);
        let draw = self.draw();
        let moved = self.act(&peer, None, Some(audit), |book, now| {
            refusable(book.the_place(uuid).and_then(|place| book.migrate(&place, now, &draw)))
        });
        moved.await??;
        Ok(())
    }

    async fn find(&self, project: &ProjectId, uuid: Uuid) -> Result<(ResourceId, Owner), CoordinationError> {
        for peer in self.peers.keys() {
            if let Some(owner) = self.parts.books.owner(peer, uuid).await?.filter(|owner| owner.project == *project) {
                return Ok((peer.clone(), owner));
            }
        }
        Err(StoreError::NotFound.into())
    }

    /// A project's connection.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] where there is none of this UUID, or none any more; the store's.
    pub async fn owned(&self, project: &ProjectId, uuid: Uuid) -> Result<Owned, CoordinationError> {
        let (peer, owner) = self.find(project, uuid).await?;
        let (_, book) = self.load(self.provider(peer.as_str())?, None).await?;
        Ok(Owned::of(peer, &owner, &book).ok_or(StoreError::NotFound)?)
    }

    /// A page of a project's connections in order of UUID, after one, and the last UUID that was looked at where there may
    /// be more. What is gone is not among them.
    ///
    /// # Errors
    /// The store's.
    pub async fn all_owned(
        &self,
        project: &ProjectId,
        after: Option<Uuid>,
        size: u32,
    ) -> Result<(Vec<Owned>, Option<Uuid>), CoordinationError> {
        let mut owners = self.parts.books.owned(project, after, size.saturating_add(1)).await?;
        let more = owners.len() > size as usize;
        owners.truncate(size as usize);
        let last = if more { owners.last().map(|(_, owner)| owner.uuid) } else { None };
        let (mut books, mut all) = (BTreeMap::new(), Vec::new());
        for (peer, owner) in owners {
            // A peer that is not configured any more has no book here.
            let Some(configured) = self.peers.get(&peer) else { continue };
            if !books.contains_key(&peer) {
                books.insert(peer.clone(), self.load(configured, None).await?.1);
            }
            all.extend(books.get(&peer).and_then(|book| Owned::of(peer, &owner, book)));
        }
        Ok((all, last))
    }
}

/// What follows from a wish, or why it cannot be met.
fn refusable<T>(wish: Result<(T, Vec<Change>), WishError>) -> Doing<Result<T, WishError>> {
    match wish {
        Ok((outcome, changes)) => Doing::new(Ok(outcome), changes),
        Err(error) => Doing::new(Err(error), Vec::new()),
    }
}

/// A project's connection, at every place where it is.
#[derive(Debug, Clone)]
pub struct Owned {
    /// With whom.
    pub peer: ResourceId,
    /// The UUID that both providers know it by.
    pub uuid: Uuid,
    /// Since when.
    pub created_at: Timestamp,
    /// The key that we handed out for it.
    pub key: Option<IssuedKey>,
    /// Each place, and whether the connection counts as verified there.
    pub rows: Vec<(Row, bool)>,
}

impl Owned {
    /// None where neither a connection nor a key that may still make one is there.
    fn of(peer: ResourceId, owner: &Owner, book: &Book) -> Option<Self> {
        let rows = book.rows.values().filter(|row| row.uuid == owner.uuid);
        let rows: Vec<_> = rows.map(|row| (row.clone(), row.is_verified(&book.terms))).collect();
        let key = book.keys.get(&owner.uuid).cloned();
        let lives = !rows.is_empty() || key.as_ref().is_some_and(|key| !key.spent);
        lives.then(|| Self { peer, uuid: owner.uuid, created_at: owner.created_at, key, rows })
    }
}
