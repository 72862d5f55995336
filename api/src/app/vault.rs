//! What use cases and the engine need of secrets, over the sealer of the `secrets` room.

use std::sync::Arc;

use data_encoding::BASE64URL_NOPAD;
use secrecy::{ExposeSecret, SecretString};
use tieline_openapi::ids::{ChannelId, ConnectionId};

use super::AppError;
use crate::{
    engine::{self, VaultError, clock::Random},
    plan::negotiate::PasswordRule,
    secrets::{Place, Sealer, SecretError, bgp_password},
    store::SealedSecret,
};

/// The name under which a channel's BGP password is kept: the one that adapters ask for.
pub const BGP_PASSWORD: &str = "bgpPassword";

/// Secrets at rest.
#[derive(Clone)]
pub struct Vault {
    sealer: Arc<Sealer>,
    random: Arc<dyn Random>,
}

impl Vault {
    /// A vault over a ring of keys.
    #[must_use]
    pub fn new(sealer: Arc<Sealer>, random: Arc<dyn Random>) -> Self {
        Self { sealer, random }
    }

    /// Seals a secret for one place.
    ///
    /// # Errors
    /// [`SecretError`].
    pub fn seal_at(&self, place: &Place, secret: &SecretString) -> Result<Vec<u8>, SecretError> {
        self.sealer.seal(&*self.random, place, secret)
    }

    /// Opens what was sealed for one place.
    ///
    /// # Errors
    /// [`SecretError`].
    pub fn open_at(&self, place: &Place, sealed: &[u8]) -> Result<SecretString, SecretError> {
        self.sealer.open(place, sealed)
    }

    /// Draws a BGP password that both sides of a channel take, and seals it for one generation of that channel.
    ///
    /// # Errors
    /// [`AppError::Seal`].
    pub fn new_password(
        &self,
        connection: ConnectionId,
        channel: &ChannelId,
        generation: u32,
        rule: &PasswordRule,
    ) -> Result<SealedSecret, AppError> {
        let password = fitted(&*self.random, rule);
        let place = Place::of_channel(connection, channel, generation, BGP_PASSWORD);
        let sealed = self.seal_at(&place, &password).map_err(AppError::Seal)?;
        Ok(SealedSecret { channel_id: channel.clone(), generation, name: BGP_PASSWORD.to_owned(), sealed })
    }

    /// A page token: opaque, and good only for the query that it continues.
    ///
    /// # Errors
    /// [`AppError::Seal`].
    pub fn page_token(&self, query: &str, last: &str) -> Result<String, AppError> {
        let sealed = self.seal_at(&Place::new("pageToken", query), &SecretString::from(last));
        Ok(BASE64URL_NOPAD.encode(&sealed.map_err(AppError::Seal)?))
    }

    /// What a page token of this query says; `None` for any other text.
    #[must_use]
    pub fn read_page_token(&self, query: &str, token: &str) -> Option<String> {
        let sealed = BASE64URL_NOPAD.decode(token.as_bytes()).ok()?;
        let last = self.sealer.open(&Place::new("pageToken", query), &sealed).ok()?;
        Some(last.expose_secret().to_owned())
    }
}

/// A password of letters and digits, of a length that both sides take.
fn fitted(random: &dyn Random, rule: &PasswordRule) -> SecretString {
    let drawn = bgp_password(random);
    let length = drawn.expose_secret().len();
    if rule.length.contains(&length) {
        return drawn;
    }
    // Longer ones are made of several, shorter ones are the beginning of one.
    let wanted = length.clamp(*rule.length.start(), *rule.length.end());
    let mut password = zeroize::Zeroizing::new(drawn.expose_secret().to_owned());
    while password.len() < wanted {
        password.push_str(bgp_password(random).expose_secret());
    }
    password.truncate(wanted);
    SecretString::from(password.as_str())
}

impl engine::Vault for Vault {
    fn open(&self, connection: ConnectionId, sealed: &SealedSecret) -> Result<SecretString, VaultError> {
        let place = Place::of_channel(connection, &sealed.channel_id, sealed.generation, &sealed.name);
        self.sealer
            .open(&place, &sealed.sealed)
            .map_err(|error| VaultError { name: sealed.name.clone(), source: Some(Box::new(error)) })
    }

    fn seal(
        &self,
        connection: ConnectionId,
        channel: &ChannelId,
        generation: u32,
        name: &str,
        secret: &SecretString,
    ) -> Result<SealedSecret, VaultError> {
        let sealed = self
            .seal_at(&Place::of_channel(connection, channel, generation, name), secret)
            .map_err(|error| VaultError { name: name.to_owned(), source: Some(Box::new(error)) })?;
        Ok(SealedSecret { channel_id: channel.clone(), generation, name: name.to_owned(), sealed })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::clock::ChaChaRandom;

    #[test]
    fn passwords_have_a_length_that_both_sides_take() {
        let random = ChaChaRandom::from_seed(1);
        for (length, wanted) in [(6..=80, 24), (1..=16, 16), (40..=64, 40)] {
            let password = fitted(&random, &PasswordRule { length, alphanumeric_only: true });
            assert_eq!(password.expose_secret().len(), wanted);
            assert!(password.expose_secret().bytes().all(|b| b.is_ascii_alphanumeric()));
        }
    }
}
