//! Coordinated connections, and the activation keys that they are made from.

use reqwest::Method;
use uuid::Uuid;

use super::{Client, ClientError, PageQuery};
use crate::v1::{
    ActivationKeyText, CoordinatedConnection, CoordinatedConnectionList, CoordinatedConnectionPatch,
    CoordinatedConnectionRequest, DecodedActivationKey, IssuedActivationKey,
};

impl Client {
    /// A page of coordinated connections.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn coordinated_connections(&self, page: &PageQuery) -> Result<CoordinatedConnectionList, ClientError> {
        self.get("/v1/coordinatedConnections", &page.pairs()).await
    }

    /// One coordinated connection.
    ///
    /// # Errors
    /// [`ClientError`]; `not-found` if it is not there or not visible.
    pub async fn coordinated_connection(&self, id: Uuid) -> Result<CoordinatedConnection, ClientError> {
        self.get(&format!("/v1/coordinatedConnections/{id}"), &[]).await
    }

    /// Makes an activation key to bring to the other provider. It is shown this once.
    ///
    /// # Errors
    /// [`ClientError`]; `conflict` where there is no room.
    pub async fn create_coordinated_connection(
        &self,
        request: &CoordinatedConnectionRequest,
    ) -> Result<IssuedActivationKey, ClientError> {
        self.write(Method::POST, "/v1/coordinatedConnections", Some(request)).await?.json()
    }

    /// Takes a coordinated connection down, or its key back.
    ///
    /// # Errors
    /// [`ClientError`]; `not-found` if it is not there or not visible.
    pub async fn delete_coordinated_connection(&self, id: Uuid) -> Result<(), ClientError> {
        self.write::<()>(Method::DELETE, &format!("/v1/coordinatedConnections/{id}"), None).await.map(drop)
    }

    /// Changes the bandwidth of a coordinated connection.
    ///
    /// # Errors
    /// [`ClientError`]; `conflict` where there is no room, or the connection is changing already.
    pub async fn patch_coordinated_connection(
        &self,
        id: Uuid,
        patch: &CoordinatedConnectionPatch,
    ) -> Result<CoordinatedConnection, ClientError> {
        self.write(Method::PATCH, &format!("/v1/coordinatedConnections/{id}"), Some(patch)).await?.json()
    }

    /// Moves a coordinated connection to another interconnect.
    ///
    /// # Errors
    /// [`ClientError`]; `conflict` where no other has room, or the connection is changing already.
    pub async fn migrate_coordinated_connection(&self, id: Uuid) -> Result<CoordinatedConnection, ClientError> {
        self.write::<()>(Method::POST, &format!("/v1/coordinatedConnections/{id}:migrate"), None).await?.json()
    }

    /// Makes a connection from a key of the other provider.
    ///
    /// # Errors
    /// [`ClientError`]; `conflict` where the key was brought before.
    pub async fn accept_activation_key(&self, key: &ActivationKeyText) -> Result<CoordinatedConnection, ClientError> {
        self.write(Method::POST, "/v1/activationKeys:accept", Some(key)).await?.json()
    }

    /// Tells what a key says.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn decode_activation_key(&self, key: &ActivationKeyText) -> Result<DecodedActivationKey, ClientError> {
        self.write(Method::POST, "/v1/activationKeys:decode", Some(key)).await?.json()
    }
}
