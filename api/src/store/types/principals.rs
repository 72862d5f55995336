//! Tokens, and who bears them.

use tieline_openapi::ids::{GatewayId, ProjectId};

use super::{Audit, IdempotencyKey, SavedAnswer};

/// A token to be written. Only the hash of its secret is.
#[derive(Debug, Clone)]
pub struct NewToken {
    /// Without the secret.
    pub token: tieline_openapi::v1::Token,
    /// SHA-256 of the secret.
    pub hash: [u8; 32],
    /// Who issued it.
    pub audit: Audit,
    /// The key and the answer to save under it.
    pub idempotency: Option<(IdempotencyKey, SavedAnswer)>,
}

/// Who a bearer is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoredPrincipal {
    /// An API token.
    Token(tieline_openapi::v1::Token),
    /// A gateway's own credential.
    Gateway {
        /// The gateway.
        id: GatewayId,
        /// Its project.
        project: ProjectId,
    },
    /// A join token: good for one `:join`.
    Join {
        /// The right.
        token: tieline_openapi::v1::JoinToken,
        /// Its project.
        project: ProjectId,
    },
}
