//! Google Cloud: VLAN attachments on interconnects, and BGP sessions inside Cloud Routers.
//!
//! Two resources make a side, in this order: [`INTERCONNECT_ATTACHMENT`], whose read-back tells the addresses that Google
//! has picked, and [`ROUTER_PEER`], the interface, peer and key inside the Cloud Router. Both carry a name of ours
//! ([`crate::OwnerTag::name`]), so a lost create is found by its name; the API's own `requestId` is not used, since it
//! would replay a refusal as faithfully as a success.
//!
//! A Cloud Router is shared with others and its PATCH replaces whole arrays. Writes therefore read, change only the entries
//! of our name, send one PATCH, wait until Google says that it is done, and read back. If anything of somebody else's is
//! then missing or altered, the call fails with [`crate::CallErrorKind::Conflict`] and the code `foreignPartsChanged`,
//! naming the parts. A change that another client makes between the read and the PATCH can still be undone by the PATCH:
//! the API offers no condition. Hence [`crate::ResourceSpec::shared_parent`]: writers of Tieline take turns.

mod api;
mod credentials;
mod errors;
mod limits;
mod map;
mod router;
mod rules;
#[cfg(test)]
mod tests;
mod wire;

use std::sync::Arc;
use tieline_openapi::config::AccountConfig;

pub use rules::{GoogleRules, INTERCONNECT_ATTACHMENT, ROUTER_PEER};

use crate::{api::CloudApi, credential::ConnectError, rules::Rules};

/// The provider's short name.
const PROVIDER: &str = "google";

/// The pure half.
#[must_use]
pub fn rules() -> Arc<dyn Rules> {
    Arc::new(GoogleRules)
}

/// The IO half: one client for a project and region.
///
/// `credentialRef` is `env:NAME` or `file:PATH`, holding a service account's JSON key or a bearer access token (a file with
/// a token is read again for each call, so that it can be renewed there), `default` for Application Default Credentials,
/// or `anonymous`. `externalId` is the project's id. Nothing is sent before the first call.
///
/// # Errors
/// [`ConnectError`] where the reference, the credential or the endpoint is unusable.
pub async fn connect(account: &AccountConfig) -> Result<Arc<dyn CloudApi>, ConnectError> {
    Ok(Arc::new(api::GoogleApi::connect(account).await?))
}
