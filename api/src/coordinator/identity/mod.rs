//! Who is who between providers, beyond TLS: bearer tokens that peers show (`token`, by the public keys of `keys`), and what
//! our own calls carry (`outgoing`, with the secrets of `credential` and the tokens that `signer` makes).

mod credential;
mod http;
mod keys;
mod outgoing;
mod signer;
#[cfg(test)]
mod tests;
mod token;

use std::sync::Arc;

use tieline_openapi::{config::PeerConfig, coordinator::ResourceId};

use super::{Coordination, CoordinationError, Peer, proof};
use crate::{engine::clock::Clock, store::StoreError};

pub use self::{
    credential::CredentialError, http::EndpointError, keys::KeysError, signer::SignError, token::TokenError,
};
pub(super) use self::{
    credential::{AwsCredential, bounded_file},
    http::{BodyError, body, client as http_client},
    outgoing::{authorizer, signed, signing_time},
    signer::Signer,
    token::{Shown, Tokens},
};

/// Why nobody knows who calls.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// Neither a certificate nor a token.
    #[error("a bearer token is needed here")]
    NoToken,
    /// What was sent as `Authorization` is no bearer token.
    #[error("`Authorization` is sent once, as `Bearer` and one token")]
    Form,
    /// The token is not good.
    #[error(transparent)]
    Token(TokenError),
    /// It is good, and several peers' or nobody's.
    #[error("the token is no peer's")]
    Nobody,
    /// The issuer's keys cannot be had, so nobody can tell.
    #[error("the token cannot be checked now: its issuer's keys cannot be read")]
    Keys(#[source] KeysError),
    /// The store's.
    #[error(transparent)]
    Store(StoreError),
}

/// What a peer is told by, beside its certificate, and what it has to prove.
pub(super) struct Security {
    bearer: Option<Tokens>,
    /// What is demanded of changes to connections.
    pub(super) demand: Option<proof::Demand>,
    /// What is given with ours.
    pub(super) give: Option<proof::Give>,
}

impl Security {
    pub(super) fn of(peer: &PeerConfig) -> Result<Self, CoordinationError> {
        Ok(Self {
            bearer: peer.bearer.as_ref().map(Tokens::new).transpose()?,
            demand: peer.proof.demand.as_ref().map(proof::Demand::new).transpose()?,
            give: peer.proof.give.as_ref().map(proof::Give::new).transpose()?,
        })
    }
}

/// The token of an `Authorization` header (RFC 6750 section 2.1). The scheme is not case-sensitive (RFC 9110 section 11.1).
fn bearer<'a>(authorization: &[&'a [u8]]) -> Result<&'a str, IdentityError> {
    let value = match authorization {
        [] => return Err(IdentityError::NoToken),
        [one] => std::str::from_utf8(one).map_err(|_| IdentityError::Form)?,
        [_, ..] => return Err(IdentityError::Form),
    };
    let (scheme, token) = value.split_once(' ').ok_or(IdentityError::Form)?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(IdentityError::NoToken);
    }
    let token = token.trim_matches(' ');
    if token.is_empty() || token.contains(' ') { Err(IdentityError::Form) } else { Ok(token) }
}

impl Coordination {
    /// Whose call it is: of the peer that the certificate names, if it names one, and that its token names, if the peer is
    /// told by tokens. `authorization` is the values of that header.
    ///
    /// # Errors
    /// [`IdentityError`].
    pub async fn identify(
        &self,
        certified: Option<&ResourceId>,
        authorization: &[&[u8]],
    ) -> Result<Arc<Peer>, IdentityError> {
        let clock = &*self.parts.clock;
        if let Some(id) = certified {
            let peer = self.peers.get(id).ok_or(IdentityError::Nobody)?;
            if let Some(tokens) = &peer.security.bearer {
                let shown = tokens.check(bearer(authorization)?, clock).await?;
                self.once(peer, tokens, &shown).await?;
            }
            return Ok(Arc::clone(peer));
        }
        let token = bearer(authorization)?;
        let mut known = Err(IdentityError::Nobody);
        for peer in self.peers.values().filter(|peer| peer.config.identity.is_none()) {
            let Some(tokens) = peer.security.bearer.as_ref().filter(|tokens| tokens.may_be_of(token)) else { continue };
            match (tokens.check(token, clock).await, &known) {
                // Where it could be two peers', it is none's.
                (Ok(_), Ok(_)) => return Err(IdentityError::Nobody),
                (Ok(shown), Err(_)) => known = Ok((peer, tokens, shown)),
                (Err(error), Err(_)) => known = Err(error.into()),
                (Err(_), Ok(_)) => {}
            }
        }
        let (peer, tokens, shown) = known?;
        self.once(peer, tokens, &shown).await?;
        Ok(Arc::clone(peer))
    }

    async fn once(&self, peer: &Peer, tokens: &Tokens, shown: &Shown) -> Result<(), IdentityError> {
        let Some(id) = tokens.once(shown)? else { return Ok(()) };
        let used = self.parts.books.use_once(&peer.id, id, shown.forgotten_at(tokens)).await;
        match used.map_err(IdentityError::Store)? {
            true => Ok(()),
            false => Err(IdentityError::Token(TokenError::Replayed)),
        }
    }
}

impl From<TokenError> for IdentityError {
    fn from(error: TokenError) -> Self {
        if let TokenError::Keys(error) = error { Self::Keys(error) } else { Self::Token(error) }
    }
}

/// Seconds since 1970, by which tokens and signatures are dated.
pub(super) fn seconds(clock: &dyn Clock) -> i64 {
    clock.now().as_second()
}
