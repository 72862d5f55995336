//! Secrets as the engine needs them: opened at call time only, never logged.

use secrecy::SecretString;
use tieline_openapi::ids::{ChannelId, ConnectionId};

use crate::store::SealedSecret;

/// A sealed secret cannot be opened, or a secret cannot be sealed.
#[derive(Debug, thiserror::Error)]
#[error("the secret {name} cannot be used with the present key")]
pub struct VaultError {
    /// Its name: `bgpPassword`.
    pub name: String,
    /// Why.
    #[source]
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// Opens and seals the secrets of connections.
pub trait Vault: Send + Sync {
    /// Opens one.
    ///
    /// # Errors
    /// [`VaultError`] where the key is another, or the bytes are damaged or belong to another row.
    fn open(&self, connection: ConnectionId, sealed: &SealedSecret) -> Result<SecretString, VaultError>;

    /// Seals one for a channel's generation.
    ///
    /// # Errors
    /// [`VaultError`] where there is no key.
    fn seal(
        &self,
        connection: ConnectionId,
        channel: &ChannelId,
        generation: u32,
        name: &str,
        secret: &SecretString,
    ) -> Result<SealedSecret, VaultError>;
}
