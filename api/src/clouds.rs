//! Which clouds this binary speaks to: the one place of the control plane that names them.

use std::{collections::BTreeMap, sync::Arc};

use tieline_openapi::{
    config::{AccountConfig, Config, RouterConfig},
    ids::ProviderName,
};
use tieline_providers::{CloudApi, Rules, network};

use crate::{coordinator::Router, topology::Clouds};

/// Why the clouds of a configuration cannot be spoken to.
#[derive(Debug, thiserror::Error)]
pub enum CloudsError {
    /// This binary was built without the provider.
    #[error("account `{account}`: this build does not speak to `{provider}`; it speaks to {known}")]
    UnknownProvider {
        /// The account.
        account: String,
        /// The provider.
        provider: String,
        /// What is there.
        known: String,
    },
    /// A client could not be made.
    #[error("account `{account}` cannot be used")]
    Connect {
        /// The account.
        account: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// The pure half of every provider that this binary has.
#[must_use]
pub fn rules() -> BTreeMap<ProviderName, Arc<dyn Rules>> {
    let all: Vec<(&str, Arc<dyn Rules>)> = vec![
        #[cfg(feature = "aws")]
        ("aws", tieline_providers::aws::rules()),
        #[cfg(feature = "google")]
        ("google", tieline_providers::google::rules()),
    ];
    all.into_iter().filter_map(|(name, rules)| Some((name.parse().ok()?, rules))).collect()
}

/// Our own routers. Nothing is called yet.
#[must_use]
pub fn routers(configs: &[RouterConfig]) -> Vec<Router> {
    configs.iter().map(|config| Router { config: config.clone(), device: network::device(config) }).collect()
}

/// One client an account. Nothing is sent yet.
///
/// # Errors
/// [`CloudsError`] naming the account.
pub async fn connect(config: &Config) -> Result<Clouds, CloudsError> {
    let mut clouds = Clouds::new();
    for account in &config.accounts {
        let named = |source| CloudsError::Connect { account: account.id.to_string(), source };
        let cloud = connect_one(account).await.map_err(named)?;
        let known = || rules().into_keys().map(String::from).collect::<Vec<_>>().join(", ");
        let cloud = cloud.ok_or_else(|| CloudsError::UnknownProvider {
            account: account.id.to_string(),
            provider: account.provider.to_string(),
            known: known(),
        })?;
        clouds.insert(account.id.clone(), cloud);
    }
    Ok(clouds)
}

type ConnectError = Box<dyn std::error::Error + Send + Sync>;

/// The client of one account; `None` for a provider that this binary was built without.
async fn connect_one(account: &AccountConfig) -> Result<Option<Arc<dyn CloudApi>>, ConnectError> {
    match account.provider.as_str() {
        #[cfg(feature = "aws")]
        "aws" => Ok(Some(tieline_providers::aws::connect(account).await?)),
        #[cfg(feature = "google")]
        "google" => Ok(Some(tieline_providers::google::connect(account).await?)),
        _ => Ok(None),
    }
}
