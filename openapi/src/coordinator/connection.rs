//! Connection: what a customer has between two clouds, on one interconnect.

use serde::{Deserialize, Deserializer, Serialize, de};
use serde_with::skip_serializing_none;
use utoipa::ToSchema;

use super::{AdminState, Sensitive, wire::open_enum};

open_enum! {
    /// Whether both providers have seen the connection work.
    VerificationState {
        /// Not ready for traffic yet.
        Unverified = "VERIFICATION_STATE_UNVERIFIED",
        /// Ready.
        Verified = "VERIFICATION_STATE_VERIFIED",
    }
}

open_enum! {
    /// What a connection is for.
    ConnectionType {
        /// A customer's.
        Standard = "CONNECTION_TYPE_STANDARD",
        /// A canary: may be below the smallest size, outside the capacity sums, of a small quota.
        Test = "CONNECTION_TYPE_TEST",
        /// The providers' own measurements: small, outside the capacity sums, one an interconnect.
        Monitoring = "CONNECTION_TYPE_MONITORING",
    }
}

/// A connection is created from an activation key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct EncodedKey {
    /// The key: base64 of JSON.
    #[schema(value_type = String)]
    pub encoded_key: Sensitive,
}

/// A connection is created in the place of another: make before break.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SourceConnectionName {
    /// The other connection's name.
    pub source_connection_name: String,
}

/// Where a new connection comes from: exactly one of the two.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(untagged)]
pub enum SourceData {
    /// An activation key.
    Key(EncodedKey),
    /// Another connection.
    Connection(SourceConnectionName),
}

impl<'de> Deserialize<'de> for SourceData {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Either {
            encoded_key: Option<Sensitive>,
            source_connection_name: Option<String>,
        }
        let either = Either::deserialize(deserializer)?;
        match (either.encoded_key, either.source_connection_name) {
            (Some(encoded_key), None) => Ok(Self::Key(EncodedKey { encoded_key })),
            (None, Some(source_connection_name)) => {
                Ok(Self::Connection(SourceConnectionName { source_connection_name }))
            }
            // A source that nobody reads would let a connection be made from nothing.
            (None, None) | (Some(_), Some(_)) => {
                Err(de::Error::custom("sourceData holds exactly one of `encodedKey` and `sourceConnectionName`"))
            }
        }
    }
}

/// A connection. One customer's connection may exist twice while it moves, so it is known by its name, not by its UUID.
#[skip_serializing_none]
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Connection {
    /// `providers/{provider}/environments/{environment}/interconnects/{interconnect}/connections/{connection}`.
    pub name: Option<String>,
    /// The activation key. Deprecated by the specification: `sourceData` goes before it.
    #[schema(deprecated, value_type = Option<String>)]
    pub activation_key: Option<Sensitive>,
    /// What the customer bought, in Mbit/s; the channels may hold more.
    pub bandwidth_mbps: Option<i32>,
    /// Whether the server has enabled it.
    #[schema(read_only)]
    pub admin_state: Option<AdminState>,
    /// Whether it carries traffic.
    #[schema(read_only)]
    pub verification_state: Option<VerificationState>,
    /// In CreateConnection: the receiver is asked to provision in the caller's place, and may refuse with 400.
    pub defer_provisioning: Option<bool>,
    /// Where it comes from.
    #[schema(inline)]
    pub source_data: Option<SourceData>,
    /// What it is for; standard if absent.
    pub connection_type: Option<ConnectionType>,
}

/// A page of connections.
#[skip_serializing_none]
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ListConnectionsResponse {
    /// The connections.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub connections: Vec<Connection>,
    /// Where the next page begins; absent on the last.
    pub next_page_token: Option<String>,
}

/// Says that the state of a connection changed. It is a hint: the receiver reads the connection at once.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NotifyConnectionStatusRequest {}
