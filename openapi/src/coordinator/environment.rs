//! Environment: a pair of sites where two providers meet.

use serde::{Deserialize, Serialize};
use serde_with::skip_serializing_none;
use utoipa::ToSchema;

use super::{ActivationKey, FeatureType, Sensitive, wire::open_enum};

open_enum! {
    /// Who sees an environment.
    EnvironmentVisibility {
        /// Few customers, by agreement of the providers.
        Private = "ENVIRONMENT_VISIBILITY_PRIVATE",
        /// Every customer.
        Public = "ENVIRONMENT_VISIBILITY_PUBLIC",
    }
}

/// One provider's site of an environment.
#[skip_serializing_none]
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ProviderSites {
    /// `providers/{provider}`.
    pub provider_id: Option<String>,
    /// The provider's own name of the site, `us-east4` for one.
    pub site: Option<String>,
    /// A name for people.
    pub display_name: Option<String>,
}

/// An environment. Its name is agreed out of band; each provider holds its own copy and serves it for comparison.
#[skip_serializing_none]
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Environment {
    /// `providers/{provider}/environments/{environment}`.
    pub name: Option<String>,
    /// The two sites: the server's and the caller's.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(read_only)]
    pub provider_sites: Vec<ProviderSites>,
    /// Where the parent provider's API is reached for this environment.
    pub api_uri: Option<String>,
    /// The bandwidths that every interconnect of the environment takes, in Mbit/s.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(read_only)]
    pub supported_connection_size_mbps: Vec<i32>,
    /// The features that every interconnect of the environment takes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(read_only)]
    pub supported_features: Vec<FeatureType>,
    /// Who sees it.
    #[schema(read_only)]
    pub environment_visibility: Option<EnvironmentVisibility>,
    /// How long a provider that defers waits for the other to finish, in hours.
    pub deferral_timeout_hours: Option<i32>,
    /// Whether the active provider always defers to the passive one here.
    pub defer_connection_provisioning: Option<bool>,
}

/// A page of environments.
#[skip_serializing_none]
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ListEnvironmentsResponse {
    /// The environments.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub environments: Vec<Environment>,
    /// Where the next page begins; absent on the last.
    pub next_page_token: Option<String>,
}

/// Asks whether an activation key is good, before anything is created from it.
#[skip_serializing_none]
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ConfirmActivationKeyRequest {
    /// The key as JSON. Deprecated by the specification: `encodedKey` goes before it.
    #[schema(deprecated)]
    pub key: Option<ActivationKey>,
    /// The key as it was handed out: base64 of JSON.
    #[schema(value_type = Option<String>, format = Byte)]
    pub encoded_key: Option<Sensitive>,
}

/// Whether the key is good.
#[skip_serializing_none]
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ConfirmActivationKeyResponse {
    /// Absent counts as false: what nobody calls good is not.
    pub key_valid: Option<bool>,
}

/// How to encrypt an activation key of version 2 to this environment.
#[skip_serializing_none]
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct EncryptionParameters {
    /// The public key in PEM. It changes weekly; keys under the four newest are taken.
    #[schema(required = true)]
    pub public_key: Option<String>,
    /// `RSA-OAEP-256`: RSAES-OAEP with SHA-256 (RFC 8017 section 7.1, named by RFC 7518 section 4.3).
    #[schema(required = true)]
    pub algorithm: Option<String>,
    /// `PKCS8`.
    #[schema(required = true)]
    pub key_format: Option<String>,
}

/// Which versions of the activation key an environment takes.
#[skip_serializing_none]
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct GetActivationKeyParametersResponse {
    /// The versions.
    #[schema(required = true)]
    pub supported_versions: Vec<i32>,
    /// What version 2 needs.
    pub encryption: Option<EncryptionParameters>,
}
