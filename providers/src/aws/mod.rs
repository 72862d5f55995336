//! Amazon Web Services: private virtual interfaces on Direct Connect connections and LAGs.
//!
//! One resource makes a side: [`PRIVATE_VIRTUAL_INTERFACE`], with its BGP peer inside. AWS takes no idempotency token for
//! it, but keeps the VLAN unique on a connection or LAG: the slot by which a lost create is found again. Its owner is told
//! by the tags `tieline:installation` and `tieline:instance`; what is in the slot without them is somebody else's.

mod api;
mod errors;
mod limits;
mod map;
mod rules;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use tieline_openapi::config::AccountConfig;

pub use rules::{AwsRules, PRIVATE_VIRTUAL_INTERFACE};

use crate::{api::CloudApi, credential::ConnectError, rules::Rules};

/// The provider's short name.
const PROVIDER: &str = "aws";

/// The pure half.
#[must_use]
pub fn rules() -> Arc<dyn Rules> {
    Arc::new(AwsRules)
}

/// The IO half: one client for an account and region.
///
/// `credentialRef` is `env:NAME` or `file:PATH`, holding `ACCESS_KEY_ID:SECRET_ACCESS_KEY` or
/// `ACCESS_KEY_ID:SECRET_ACCESS_KEY:SESSION_TOKEN`, `default` for the SDK's own chain, or `anonymous`. Nothing is sent
/// before the first call.
///
/// # Errors
/// [`ConnectError`] where the reference, the credential or the endpoint is unusable.
pub async fn connect(account: &AccountConfig) -> Result<Arc<dyn CloudApi>, ConnectError> {
    Ok(Arc::new(api::AwsApi::connect(account).await?))
}
