//! Key pairs that activation keys of version 2 are encrypted to, one row of them an environment.

use std::sync::Arc;

use tieline_openapi::{
    coordinator::{GetActivationKeyParametersResponse, ResourceId, Sensitive, Timestamp},
    ids::ProjectId,
};
use uuid::Uuid;

use super::{Coordination, CoordinationError, Peer};
use crate::{
    secrets::{EncryptionKey, EncryptionKeys, Place},
    store::Owner,
};

fn pair_at(peer: &ResourceId, environment: &ResourceId, made_at: Timestamp) -> Place {
    Place::new("coordinatorKeyPair", format!("peers/{peer}/{environment}/{}", made_at.as_millisecond()))
}

fn text_at(peer: &ResourceId, uuid: Uuid) -> Place {
    Place::new("coordinatorActivationKey", format!("peers/{peer}/{uuid}"))
}

impl Coordination {
    /// An environment's key pairs.
    pub(super) async fn pairs(
        &self,
        peer: &ResourceId,
        environment: &ResourceId,
    ) -> Result<EncryptionKeys, CoordinationError> {
        let stored = self.parts.books.key_pairs(peer, environment).await?;
        let open = |(made_at, sealed): (Timestamp, Vec<u8>)| {
            let secret = self.parts.vault.open_at(&pair_at(peer, environment, made_at), &sealed)?;
            Ok(EncryptionKey::from_secret(made_at, &secret)?)
        };
        Ok(EncryptionKeys::new(stored.into_iter().map(open).collect::<Result<_, CoordinationError>>()?))
    }

    /// Makes the pairs whose week has come.
    pub(super) async fn rotate(&self, peer: &Arc<Peer>) -> Result<(), CoordinationError> {
        for environment in peer.terms.environments.keys() {
            let now = self.now();
            if !self.pairs(&peer.id, environment).await?.is_rotation_due(now) {
                continue;
            }
            // It takes a good part of a second.
            let fresh = tokio::task::spawn_blocking(move || EncryptionKey::generate(now)).await;
            let fresh = fresh.map_err(CoordinationError::Lost)??;
            let sealed = self.parts.vault.seal_at(&pair_at(&peer.id, environment, now), &fresh.to_secret()?)?;
            self.parts.books.add_key_pair(&peer.id, environment, now, sealed).await?;
        }
        Ok(())
    }

    /// What is told to those who encrypt to an environment.
    ///
    /// # Errors
    /// The store's; [`CoordinationError::Secret`].
    pub async fn key_parameters(
        &self,
        peer: &ResourceId,
        environment: &ResourceId,
    ) -> Result<GetActivationKeyParametersResponse, CoordinationError> {
        Ok(self.pairs(peer, environment).await?.parameters()?)
    }

    /// The key that was brought for a connection, sealed.
    pub(super) fn owner(
        &self,
        peer: &ResourceId,
        uuid: Uuid,
        project: &ProjectId,
        text: &Sensitive,
    ) -> Result<Owner, CoordinationError> {
        let sealed = self.parts.vault.seal_at(&text_at(peer, uuid), &text.secret())?;
        Ok(Owner { uuid, project: project.clone(), sealed, created_at: self.now() })
    }

    /// The text of a key that was brought.
    pub(super) async fn brought(&self, peer: &Peer, uuid: Uuid) -> Result<Option<Sensitive>, CoordinationError> {
        let owner = self.parts.books.owner(&peer.id, uuid).await?;
        let Some(owner) = owner.filter(|owner| !owner.sealed.is_empty()) else { return Ok(None) };
        let text = self.parts.vault.open_at(&text_at(&peer.id, uuid), &owner.sealed)?;
        Ok(Some(Sensitive::from(text)))
    }
}
