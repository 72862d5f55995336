//! Activation keys: what a customer carries from one provider to the other, so that both make one coordinated connection.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::ConnectionEnd;
use crate::{
    coordinator::Sensitive,
    ids::{EnvironmentId, InterconnectId},
    units::BandwidthMbps,
};

/// An activation key that the customer has from elsewhere.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ActivationKeyText {
    /// The key, whole, as it was handed out.
    #[schema(value_type = String, min_length = 1, max_length = 8192)]
    pub activation_key: Sensitive,
}

/// The body of `POST /v1/activationKeys:accept`: the key, and of the connection's intent what the key does not say. Environment
/// and bandwidth are the key's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ActivationKeyAcceptance {
    /// The key, whole, as it was handed out.
    #[schema(value_type = String, min_length = 1, max_length = 8192)]
    pub activation_key: Sensitive,
    /// The connection's name: unique in its project.
    #[schema(min_length = 1, max_length = 63, pattern = "^[a-zA-Z0-9][a-zA-Z0-9 ._-]{0,62}$")]
    pub name: String,
    /// Our end.
    #[serde(default)]
    pub a: ConnectionEnd,
    /// The other provider's end: what it is expected to announce.
    #[serde(default)]
    pub b: ConnectionEnd,
    /// Free labels.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Free text.
    #[serde(default)]
    #[schema(max_length = 1024)]
    pub description: String,
    /// While true, DELETE is refused.
    #[serde(default)]
    pub deletion_protection: bool,
}

/// The body of `POST /v1/connections/{id}:migrate`, where it may be left out, and of a plan of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Migration {
    /// The interconnect to move to, another one of the connection's environment. Without it the connection goes where there is
    /// most room, and to the next where the peer has none there.
    #[serde(default)]
    pub interconnect_id: Option<InterconnectId>,
}

/// What an activation key says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct DecodedActivationKey {
    /// 1: in clear. 2: only we can read it.
    pub version: u8,
    /// The provider that handed it out.
    pub provider: String,
    /// The environment that it is for.
    pub environment_id: EnvironmentId,
    /// The UUID that both providers know the connection by.
    pub shared_connection_uuid: Uuid,
    /// The connection's bandwidth.
    pub bandwidth_mbps: BandwidthMbps,
    /// The account here that it is for: a project.
    pub destination_account_id: String,
    /// Whether the project of the token that asks is that account.
    pub for_this_project: bool,
}
