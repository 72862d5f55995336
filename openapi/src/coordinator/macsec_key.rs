//! MacSecKey: a channel's MACsec key (IEEE 802.1X-2020 calls its halves CAK and CKN).

use serde::{Deserialize, Serialize};
use serde_with::skip_serializing_none;
use utoipa::ToSchema;

use super::{Sensitive, Timestamp};

/// A MACsec key. At most two a channel, and N+1 over the N channels of an interconnect.
#[skip_serializing_none]
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct MacSecKey {
    /// `providers/{provider}/environments/{environment}/interconnects/{interconnect}/channels/{channel}/macSecKeys/{macSecKey}`.
    pub name: Option<String>,
    /// The connectivity association key, in hexadecimal digits.
    #[schema(value_type = Option<String>)]
    pub cak: Option<Sensitive>,
    /// The name of the CAK, in hexadecimal digits. A secret at rest and in logs, as the specification wants.
    #[schema(value_type = Option<String>)]
    pub ckn: Option<Sensitive>,
    /// When the server took the key: always the server's clock.
    #[schema(value_type = Option<String>, format = DateTime, read_only)]
    pub start_time: Option<Timestamp>,
    /// Whether the channel uses it: one key at a time does, and that one cannot be deleted.
    #[schema(read_only)]
    pub active: Option<bool>,
}

/// A channel's MACsec keys.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ListMacSecKeysResponse {
    /// All of them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub mac_sec_keys: Vec<MacSecKey>,
}

/// Asks the channel's manager for a new key.
#[skip_serializing_none]
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct MacSecKeyRotationRequest {
    /// Why.
    pub reason: Option<String>,
}
