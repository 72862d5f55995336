//! Who asks, and whether they may.

pub mod policy;
mod throttle;

use std::time::Duration;

use tieline_openapi::{
    ids::{GatewayId, ProjectId},
    v1::{JoinToken, Timestamp, Token},
};

use crate::{
    secrets::token_hash,
    store::{Store, StoreError, StoredPrincipal},
};

pub use policy::{Access, POLICY, access};
pub use throttle::{CallThrottle, FailureThrottle};

/// A token's use is noted this often at most: a write a request would cost more than it tells.
const NOTE_USE_EVERY: Duration = Duration::from_secs(60);

/// Who a bearer is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Principal {
    /// An API token.
    Token(Box<Token>),
    /// A gateway.
    Gateway {
        /// Which.
        id: GatewayId,
        /// Its project.
        project: ProjectId,
    },
    /// A machine that may join as a gateway, once.
    Join {
        /// The right.
        token: Box<JoinToken>,
        /// Its project.
        project: ProjectId,
        /// SHA-256 of the secret.
        hash: [u8; 32],
    },
}

impl Principal {
    /// The name in the audit log.
    #[must_use]
    pub fn name(&self) -> String {
        match self {
            Self::Token(token) => format!("token:{}", token.id),
            Self::Gateway { id, .. } => format!("gateway:{id}"),
            Self::Join { token, .. } => format!("joinToken:{}", token.id),
        }
    }

    /// The one project that it sees.
    #[must_use]
    pub const fn project(&self) -> &ProjectId {
        match self {
            Self::Token(token) => &token.project,
            Self::Gateway { project, .. } | Self::Join { project, .. } => project,
        }
    }
}

/// What a principal may not do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The credential is good and does not cover this.
    Forbidden,
    /// What is asked about is not there for this principal.
    Hidden,
}

/// Whether a principal has an access. `own` is the id in the path, where the access is to one's own things.
///
/// # Errors
/// [`Refusal`].
pub fn permit(principal: &Principal, access: Access, own: Option<&str>) -> Result<(), Refusal> {
    match (access, principal) {
        (Access::Open, _) => Ok(()),
        (Access::Scope(needed), Principal::Token(token)) if token.scope >= needed => Ok(()),
        (Access::Join, Principal::Join { .. }) => Ok(()),
        (Access::OwnGateway, Principal::Gateway { id, .. }) => {
            if own == Some(id.to_string().as_str()) {
                Ok(())
            } else {
                Err(Refusal::Hidden)
            }
        }
        (Access::Scope(_) | Access::Join | Access::OwnGateway, _) => Err(Refusal::Forbidden),
    }
}

/// The principal of a bearer secret; `None` for one that is unknown, expired or used.
///
/// # Errors
/// The store's.
pub async fn principal(store: &dyn Store, secret: &str, now: Timestamp) -> Result<Option<Principal>, StoreError> {
    let hash = token_hash(secret);
    let Some(stored) = store.principal_by_hash(hash).await? else { return Ok(None) };
    Ok(match stored {
        StoredPrincipal::Token(token) => {
            if token.expires_at.is_some_and(|end| end <= now) {
                return Ok(None);
            }
            let noted = token.last_used_at.map_or(i64::MIN, Timestamp::as_millisecond);
            if now.as_millisecond().saturating_sub(noted) >= NOTE_USE_EVERY.as_millis() as i64 {
                store.touch_token(token.id, now).await?;
            }
            Some(Principal::Token(Box::new(token)))
        }
        StoredPrincipal::Gateway { id, project } => Some(Principal::Gateway { id, project }),
        StoredPrincipal::Join { token, project } => (token.used_at.is_none() && token.expires_at > now)
            .then(|| Principal::Join { token: Box::new(token), project, hash }),
    })
}
