//! Which clouds this binary speaks to: the one place of the control plane that names them.

use std::{collections::BTreeMap, sync::Arc};

use tieline_openapi::{config::Config, ids::ProviderName};
use tieline_providers::{CloudApi, Rules};

use crate::topology::Clouds;

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

/// One client an account. Nothing is sent yet.
///
/// # Errors
/// [`CloudsError`] naming the account.
pub async fn connect(config: &Config) -> Result<Clouds, CloudsError> {
    let mut clouds = Clouds::new();
    for account in &config.accounts {
        let cloud: Result<Arc<dyn CloudApi>, Box<dyn std::error::Error + Send + Sync>> = match account.provider.as_str()
        {
            #[cfg(feature = "aws")]
            "aws" => tieline_providers::aws::connect(account).await.map_err(Into::into),
            #[cfg(feature = "google")]
            "google" => tieline_providers::google::connect(account).await.map_err(Into::into),
            other => {
                let known: Vec<_> = rules().into_keys().map(String::from).collect();
                return Err(CloudsError::UnknownProvider {
                    account: account.id.to_string(),
                    provider: other.to_owned(),
                    known: known.join(", "),
                });
            }
        };
        let cloud = cloud.map_err(|source| CloudsError::Connect { account: account.id.to_string(), source })?;
        clouds.insert(account.id.clone(), cloud);
    }
    Ok(clouds)
}
