//! Proof that a connection is created, updated or deleted for the account that it belongs to. The specification wants one,
//! and names no field for it: it travels in a header, [`HEADER`], as a scheme and what the scheme needs.
//!
//! - `aws-sts URL NONCE`: a presigned GetCallerIdentity of AWS's Security Token Service, in base64url without padding, and
//!   a nonce. What it is for ([`Bound`]) and the nonce are the value of a header that it signs: it serves for one call of
//!   one peer to us, once. `sts` reads it, and nothing but what it says in its own words is ever sent (`execute`).
//! - `oidc TOKEN`: a JSON Web Token for us whose claim names the account. It is taken once.
//!
//! What was taken is remembered in the store until it would be refused for its age.

mod demand;
mod execute;
mod give;
mod sts;
#[cfg(test)]
mod tests;

use std::fmt;

use tieline_openapi::coordinator::{OperationId, ResourceId};

use super::identity::{CredentialError, EndpointError, SignError, TokenError};
use crate::store::StoreError;

pub use self::sts::PresignedError;
pub(super) use self::{
    demand::Demand,
    give::{Give, GiveError},
};

/// The header that a proof travels in.
pub const HEADER: &str = "interconnect-account-proof";

/// The proof that came with a call; what it is for is known from the call.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Given(Vec<Vec<u8>>);

impl Given {
    /// The values of [`HEADER`], as they came.
    #[must_use]
    pub fn new(values: Vec<Vec<u8>>) -> Self {
        Self(values)
    }
}

impl fmt::Debug for Given {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Given({} values)", self.0.len())
    }
}

/// What a proof is for: one operation on one connection, asked by one provider of another.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bound<'b> {
    /// Who is asked.
    pub(super) receiver: &'b ResourceId,
    /// Who asks.
    pub(super) caller: &'b ResourceId,
    /// For what.
    pub(super) operation: OperationId,
    /// The connection's name.
    pub(super) name: &'b str,
}

impl Bound<'_> {
    /// What is signed: ids hold no space.
    pub(super) fn text(&self, nonce: &str) -> String {
        let Self { receiver, caller, operation, name } = self;
        format!("{receiver} {caller} {} {name} {nonce}", operation.as_str())
    }
}

/// Why a proof is not taken. The texts hold nothing of it.
#[derive(Debug, thiserror::Error)]
pub enum ProofError {
    /// There is none.
    #[error("a proof of the account is needed here: send one in `Interconnect-Account-Proof`")]
    Missing,
    /// It is none of the kind that is demanded.
    #[error("`Interconnect-Account-Proof` is sent once, as `{0}`")]
    Form(&'static str),
    /// The presigned request is not one that is executed here.
    #[error(transparent)]
    Presigned(PresignedError),
    /// The token is not good.
    #[error(transparent)]
    Token(TokenError),
    /// It was taken before.
    #[error("the proof was used before, and each is taken once")]
    Replayed,
    /// AWS does not take the signature.
    #[error("the Security Token Service refuses the proof with {0}")]
    Refused(u16),
    /// It proves another account.
    #[error("the proof is of another account than the connection's")]
    OtherAccount,
    /// Nobody can tell now.
    #[error("the proof cannot be checked now")]
    Endpoint(#[source] EndpointError),
    /// The store's.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl ProofError {
    /// Whether the same call may be good with another proof, later.
    #[must_use]
    pub const fn is_for_now(&self) -> bool {
        match self {
            Self::Endpoint(_) | Self::Store(_) | Self::Token(TokenError::Keys(_)) => true,
            Self::Missing
            | Self::Form(_)
            | Self::Presigned(_)
            | Self::Token(_)
            | Self::Replayed
            | Self::Refused(_)
            | Self::OtherAccount => false,
        }
    }
}

impl From<CredentialError> for GiveError {
    fn from(error: CredentialError) -> Self {
        Self::Credential(error)
    }
}

impl From<SignError> for GiveError {
    fn from(error: SignError) -> Self {
        Self::Sign(error)
    }
}
