//! Coordinated connections: a customer's connection with a provider that we are paired with over the open specification.

use std::{collections::BTreeMap, net::Ipv4Addr};

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::Timestamp;
use crate::units::{Asn, BandwidthMbps};

/// How far a coordinated connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum CoordinatedState {
    /// The key was handed out, and has not been brought to the other provider yet.
    Pending,
    /// The two providers negotiate and configure.
    Provisioning,
    /// Both providers have seen it work.
    Active,
    /// It is being taken down on both sides.
    Deleting,
}

/// What is known of the other provider's half.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum RemoteHalf {
    /// Nothing yet.
    Unknown,
    /// It is there.
    Present,
    /// It is not there.
    Absent,
}

/// How far one provider is with a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum CoordinatedProvisioning {
    /// It is proposed, and not answered.
    Proposed,
    /// Its parameters are reserved.
    Pending,
    /// It is configured whole and its BGP session is up.
    Final,
}

/// One channel of a coordinated connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct CoordinatedChannel {
    /// The id that both providers know it by.
    pub channel_id: String,
    /// The id of its feature.
    pub feature_id: String,
    /// How far we are.
    pub provisioning_state: CoordinatedProvisioning,
    /// How far the other provider is.
    pub remote_provisioning_state: CoordinatedProvisioning,
    /// The VLAN.
    pub vlan_id: u16,
    /// The MTU in bytes.
    pub mtu_bytes: u16,
    /// The subnet of the session.
    #[schema(value_type = Option<String>)]
    pub ipv4_subnet: Option<Ipv4Net>,
    /// The AS number of each provider, by its id.
    pub asns: BTreeMap<String, Asn>,
    /// The address of each provider's end, by its id.
    #[schema(value_type = BTreeMap<String, String>)]
    pub hosts_ipv4: BTreeMap<String, Ipv4Addr>,
}

/// A connection on one interconnect. There are two of them while it moves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct CoordinatedPlacement {
    /// The interconnect.
    pub interconnect_id: String,
    /// The last id of its name there.
    pub connection_id: String,
    /// What is known of the other provider's half.
    pub remote: RemoteHalf,
    /// Whether both providers have seen it work.
    pub verified: bool,
    /// Its channels.
    pub channels: Vec<CoordinatedChannel>,
}

/// A coordinated connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct CoordinatedConnection {
    /// The UUID that both providers know it by.
    pub id: Uuid,
    /// The other provider.
    pub provider: String,
    /// The environment, by the id that both providers know it by.
    pub environment_id: String,
    /// Its bandwidth.
    pub bandwidth_mbps: BandwidthMbps,
    /// How far it is.
    pub state: CoordinatedState,
    /// Why it is being taken down: a word of ours.
    pub reason: Option<String>,
    /// Where it is. Empty while the key was not brought.
    pub placements: Vec<CoordinatedPlacement>,
    /// Since when.
    pub created_at: Timestamp,
    /// Until when the key that we handed out may be brought; null where the key came from the other provider, or was used.
    pub key_expires_at: Option<Timestamp>,
}

/// A page of coordinated connections.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct CoordinatedConnectionList {
    /// The page.
    pub coordinated_connections: Vec<CoordinatedConnection>,
    /// Give it back as `pageToken` for the next page; absent on the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_page_token: Option<String>,
}

/// The body of `POST /v1/coordinatedConnections`: a connection that the customer then asks the other provider for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CoordinatedConnectionRequest {
    /// The other provider.
    #[schema(min_length = 1, max_length = 128)]
    pub provider: String,
    /// The environment, by the id that both providers know it by.
    #[schema(min_length = 1, max_length = 128)]
    pub environment_id: String,
    /// One of the environment's sizes.
    pub bandwidth_mbps: BandwidthMbps,
    /// The customer's account at the other provider: only its users may bring the key.
    #[schema(min_length = 1, max_length = 64, pattern = "^[!-~]+$")]
    pub remote_account_id: String,
}

/// The body of `PATCH /v1/coordinatedConnections/{id}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CoordinatedConnectionPatch {
    /// One of the environment's sizes.
    pub bandwidth_mbps: BandwidthMbps,
}

/// The answer of `POST /v1/coordinatedConnections`: the only time that the key is shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct IssuedActivationKey {
    /// The connection, which waits for its key.
    pub coordinated_connection: CoordinatedConnection,
    /// Bring it to the other provider within seven days. It is good once.
    pub activation_key: String,
}

/// An activation key that the customer has from elsewhere.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ActivationKeyText {
    /// The key, whole, as it was handed out.
    #[schema(min_length = 1, max_length = 8192)]
    pub activation_key: String,
}

/// What an activation key says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct DecodedActivationKey {
    /// 1: in clear. 2: only we can read it.
    pub version: u8,
    /// The provider that handed it out.
    pub provider: String,
    /// The environment, by the id that both providers know it by.
    pub environment_id: String,
    /// The UUID that both providers know the connection by.
    pub shared_connection_uuid: Uuid,
    /// The connection's bandwidth.
    pub bandwidth_mbps: BandwidthMbps,
    /// The account here that it is for: a project.
    pub destination_account_id: String,
    /// Whether the project of the token that asks is that account.
    pub for_this_project: bool,
}
