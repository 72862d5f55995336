//! What use cases need of secrets: sealing, drawing, hashing. The cryptography itself is that of the `secrets` room.

use std::sync::Arc;

use data_encoding::BASE64URL_NOPAD;
use sha2::{Digest, Sha256};
use tieline_openapi::ids::ConnectionId;
use zeroize::Zeroizing;

use super::AppError;
use crate::{
    engine::clock::Random,
    plan::negotiate::{NegotiatedChannel, PasswordRule},
};

/// Authenticated encryption under the installation's key.
pub trait Seal: Send + Sync {
    /// Seals a text for one purpose: it can be opened for no other.
    ///
    /// # Errors
    /// Whatever the cipher says.
    fn seal(&self, purpose: &str, clear: &[u8]) -> Result<Vec<u8>, Box<dyn std::error::Error + Send + Sync>>;

    /// Opens what was sealed for this purpose; `None` for anything else.
    fn open(&self, purpose: &str, sealed: &[u8]) -> Option<Vec<u8>>;
}

/// Secrets, as use cases see them.
#[derive(Clone)]
pub struct Vault(Arc<dyn Seal>);

impl Vault {
    /// A vault over a cipher.
    #[must_use]
    pub fn new(seal: Arc<dyn Seal>) -> Self {
        Self(seal)
    }

    /// Draws a BGP password that both sides of a channel take, and seals it for that channel.
    ///
    /// # Errors
    /// [`AppError::Seal`].
    pub fn new_password(
        &self,
        random: &dyn Random,
        connection: ConnectionId,
        channel: &NegotiatedChannel,
        rule: &PasswordRule,
    ) -> Result<Vec<u8>, AppError> {
        // Letters and digits are taken everywhere. 32 of them are 190 bits.
        let length = 32usize.clamp(*rule.length.start(), *rule.length.end());
        let password = Zeroizing::new(draw_password(random, length));
        self.0.seal(&password_purpose(connection, channel), password.as_bytes()).map_err(AppError::Seal)
    }

    /// A page token: opaque, and good only for the query that it continues.
    ///
    /// # Errors
    /// [`AppError::Seal`].
    pub fn page_token(&self, query: &str, last: &str) -> Result<String, AppError> {
        let sealed = self.0.seal(&format!("page:{query}"), last.as_bytes()).map_err(AppError::Seal)?;
        Ok(BASE64URL_NOPAD.encode(&sealed))
    }

    /// What a page token of this query says; `None` for any other text.
    #[must_use]
    pub fn read_page_token(&self, query: &str, token: &str) -> Option<String> {
        let sealed = BASE64URL_NOPAD.decode(token.as_bytes()).ok()?;
        String::from_utf8(self.0.open(&format!("page:{query}"), &sealed)?).ok()
    }
}

/// Draws a bearer secret of 256 bits. The prefix tells a person, and a scanner for leaked secrets, what it is.
#[must_use]
pub fn draw_secret(random: &dyn Random, prefix: &str) -> (String, [u8; 32]) {
    let mut bytes = [0u8; 32];
    random.fill(&mut bytes);
    let secret = format!("{prefix}_{}", BASE64URL_NOPAD.encode(&bytes));
    let hash = hash(&secret);
    (secret, hash)
}

/// SHA-256 of a bearer secret. A secret of 256 random bits needs no slow hash.
#[must_use]
pub fn hash(secret: &str) -> [u8; 32] {
    Sha256::digest(secret.as_bytes()).into()
}

/// The purpose that a channel's BGP password is sealed for: opened under another channel it is nothing.
#[must_use]
pub fn password_purpose(connection: ConnectionId, channel: &NegotiatedChannel) -> String {
    format!("bgpPassword:{connection}/{}/{}", channel.channel_id, channel.generation)
}

fn draw_password(random: &dyn Random, length: usize) -> String {
    const LETTERS: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
    (0..length).map(|_| char::from(LETTERS[random.below(LETTERS.len() as u64) as usize])).collect()
}
