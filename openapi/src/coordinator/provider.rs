//! Provider: one party of the specification.

use serde::{Deserialize, Serialize};
use serde_with::skip_serializing_none;
use utoipa::ToSchema;

/// A provider: who calls, or who is called. Provider ids are unique in the world and kept beside the specification.
#[skip_serializing_none]
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Provider {
    /// `providers/{provider}`.
    pub name: Option<String>,
    /// A name for people.
    #[schema(read_only)]
    pub display_name: Option<String>,
}

/// A page of providers.
///
/// The specification's schema calls the list `environments`, its example `providers`: both are sent, either is read.
#[skip_serializing_none]
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ListProvidersResponse {
    /// The providers, by the name of the specification's schema.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub environments: Vec<Provider>,
    /// The providers, by the name of the specification's example.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub providers: Vec<Provider>,
    /// Where the next page begins; absent on the last.
    pub next_page_token: Option<String>,
}

impl ListProvidersResponse {
    /// A page under both names.
    #[must_use]
    pub fn of(providers: Vec<Provider>, next_page_token: Option<String>) -> Self {
        Self { environments: providers.clone(), providers, next_page_token }
    }

    /// The providers, under whichever name they came.
    #[must_use]
    pub fn into_providers(self) -> Vec<Provider> {
        if self.providers.is_empty() { self.environments } else { self.providers }
    }
}
