//! Channel: one physical link of an interconnect, and its maintenance.

use serde::{Deserialize, Serialize};
use serde_with::skip_serializing_none;
use utoipa::ToSchema;

use super::{AdminState, Timestamp};

/// A channel. Its name and its two managers are agreed when capacity is built; the rest is the server's.
#[skip_serializing_none]
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Channel {
    /// `providers/{provider}/environments/{environment}/interconnects/{interconnect}/channels/{channel}`.
    pub name: Option<String>,
    /// `providers/{provider}`: who rotates the MACsec keys. The other may not call the key API.
    #[schema(read_only)]
    pub macsec_manager_provider: Option<String>,
    /// `providers/{provider}`: who orders and pays the cross connect.
    #[schema(read_only)]
    pub cross_connect_manager_provider: Option<String>,
    /// The whole channel in Gbit/s.
    #[schema(read_only)]
    pub aggregate_channel_size_gbps: Option<i32>,
    /// One member link in Gbit/s.
    #[schema(read_only)]
    pub channel_member_size_gbps: Option<i32>,
    /// Which device carries it, without telling which: two channels of one interconnect must differ.
    #[schema(read_only)]
    pub obfuscated_device_id: Option<String>,
    /// Where the cross connect ends, in the facility's words.
    pub demarc: Option<String>,
    /// Whether the server has enabled it.
    #[schema(read_only)]
    pub admin_state: Option<AdminState>,
}

/// A page of channels.
#[skip_serializing_none]
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ListChannelsResponse {
    /// The channels.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub channels: Vec<Channel>,
    /// Where the next page begins; absent on the last.
    pub next_page_token: Option<String>,
}

/// Work on a channel, planned or under way; emergencies too.
#[skip_serializing_none]
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct MaintenanceEvent {
    /// When it starts or started.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub start_time: Option<Timestamp>,
    /// When it ends.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub end_time: Option<Timestamp>,
    /// The provider's own id of it.
    pub maintenance_id: Option<String>,
}

/// Says that the list of a channel's maintenance events changed. It is a hint: the receiver fetches the list.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct NotifyMaintenanceRequest {
    /// The list when the hint was sent. Deprecated by the specification; it is not looked at.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(deprecated)]
    pub events: Vec<MaintenanceEvent>,
}

/// A channel's maintenance events.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct GetMaintenanceEventsResponse {
    /// All of them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub events: Vec<MaintenanceEvent>,
}
