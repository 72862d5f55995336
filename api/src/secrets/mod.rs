//! Secrets: sealed at rest, drawn without bias, never shown by accident.
//!
//! At rest a secret is sealed with XChaCha20-Poly1305 (draft-irtf-cfrg-xchacha-03, RFC 8439) under a random 192-bit nonce,
//! bound to the place where it stands: a ciphertext that is moved to another row does not open there.

mod activation;
mod draw;
mod keys;

use chacha20poly1305::{
    KeyInit, XChaCha20Poly1305, XNonce,
    aead::{Aead, Payload},
};
use secrecy::{ExposeSecret, SecretString};
use tieline_openapi::ids::{ChannelId, ConnectionId};
use zeroize::Zeroizing;

pub use activation::{ActivationKeyError, EncryptionKey, EncryptionKeys, encrypt};
pub use draw::{bgp_password, token_hash, token_secret};
pub use keys::{KeyError, KeyId, Sealer};

use crate::engine::clock::Random;

/// First byte of an envelope: how the rest is laid out.
const VERSION: u8 = 1;
const NONCE: usize = 24;
/// Version, key id, nonce.
const HEAD: usize = 1 + KeyId::BYTES + NONCE;

/// Why a secret could not be sealed or opened. It never tells anything of the secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SecretError {
    /// Too long for the cipher (256 GiB).
    #[error("the secret is too long to be sealed")]
    Seal,
    /// Not an envelope.
    #[error("what is stored is no sealed secret")]
    Malformed,
    /// The key is not in the ring.
    #[error("the secret was sealed under key {0}, which is not in the key file: put that key back")]
    UnknownKey(KeyId),
    /// Altered, or moved from another row.
    #[error("the sealed secret was altered, or does not belong to this row")]
    Forged,
    /// What was sealed is no text.
    #[error("the sealed secret is no text")]
    NotText,
}

/// Where a secret stands. It is no secret itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    purpose: String,
    row: String,
}

impl Place {
    /// A place of any kind: what the secret is for, and the name of its row.
    #[must_use]
    pub fn new(purpose: impl Into<String>, row: impl Into<String>) -> Self {
        Self { purpose: purpose.into(), row: row.into() }
    }

    /// The place of a channel's secret, `bgpPassword` for one.
    #[must_use]
    pub fn of_channel(connection: ConnectionId, channel: &ChannelId, generation: u32, name: &str) -> Self {
        Self::new(name, format!("connections/{connection}/channels/{channel}/{generation}"))
    }

    /// What the cipher authenticates beside the secret. Each part has its length in front: no two places read alike.
    fn associated_data(&self, head: &[u8]) -> Vec<u8> {
        let mut data = Vec::new();
        for part in [head, self.purpose.as_bytes(), self.row.as_bytes()] {
            data.extend_from_slice(&u64::try_from(part.len()).unwrap_or(u64::MAX).to_le_bytes());
            data.extend_from_slice(part);
        }
        data
    }
}

impl Sealer {
    /// Seals a secret for one place under the newest key: version, key id, nonce, ciphertext, tag.
    ///
    /// # Errors
    /// [`SecretError::Seal`] for an impossibly long secret.
    pub fn seal(&self, random: &dyn Random, place: &Place, secret: &SecretString) -> Result<Vec<u8>, SecretError> {
        let (id, key) = self.newest();
        let mut nonce = [0; NONCE];
        random.fill(&mut nonce);
        let mut envelope = Vec::with_capacity(HEAD + secret.expose_secret().len() + 16);
        envelope.push(VERSION);
        envelope.extend_from_slice(&id.0);
        let associated = place.associated_data(&envelope);
        envelope.extend_from_slice(&nonce);
        let message = Payload { msg: secret.expose_secret().as_bytes(), aad: &associated };
        let sealed =
            XChaCha20Poly1305::new(key.into()).encrypt(&XNonce::from(nonce), message).map_err(|_| SecretError::Seal)?;
        envelope.extend_from_slice(&sealed);
        Ok(envelope)
    }

    /// Opens what was sealed for this place, under whichever key of the ring.
    ///
    /// # Errors
    /// Every variant but [`SecretError::Seal`].
    pub fn open(&self, place: &Place, envelope: &[u8]) -> Result<SecretString, SecretError> {
        let (head, sealed) = envelope.split_at_checked(HEAD).ok_or(SecretError::Malformed)?;
        let (head, nonce) = head.split_at(1 + KeyId::BYTES);
        let (version, id) = head.split_at(1);
        if version != [VERSION] {
            return Err(SecretError::Malformed);
        }
        let id = KeyId(id.try_into().map_err(|_| SecretError::Malformed)?);
        let nonce: [u8; NONCE] = nonce.try_into().map_err(|_| SecretError::Malformed)?;
        let key = self.key(id).ok_or(SecretError::UnknownKey(id))?;
        let message = Payload { msg: sealed, aad: &place.associated_data(head) };
        let opened = XChaCha20Poly1305::new(key.into())
            .decrypt(&XNonce::from(nonce), message)
            .map_err(|_| SecretError::Forged)?;
        let opened = Zeroizing::new(opened);
        let text = std::str::from_utf8(&opened).map_err(|_| SecretError::NotText)?;
        Ok(SecretString::from(text))
    }
}

#[cfg(test)]
mod tests;
