//! Channels that are shared with a provider that we are paired with: their MACsec keys, and work on them.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::Timestamp;

/// A channel, by the ids that both providers know it by.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ChannelName {
    /// The environment.
    pub environment_id: String,
    /// The interconnect.
    pub interconnect_id: String,
    /// The channel.
    pub channel_id: String,
}

/// What our device says of a MACsec key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum MacSecKeyState {
    /// Not installed yet, or nothing is known.
    Waiting,
    /// Installed, and not in use.
    Standby,
    /// In use.
    Active,
}

/// A MACsec key. Its halves are shown nowhere.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ChannelMacSecKey {
    /// The last id of its name.
    pub id: String,
    /// By our device.
    pub state: MacSecKeyState,
    /// Whether the peer says that it uses it; null where the peer manages the key, or has not heard of it.
    pub remote_active: Option<bool>,
    /// When we took it.
    pub start_time: Timestamp,
    /// Since when our device uses it.
    pub active_since: Option<Timestamp>,
    /// Whether it is being taken away.
    pub closing: bool,
}

/// A change of a channel's MACsec key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum MacSecRotation {
    /// None.
    None,
    /// It is wished for, and waits for its turn: one channel of an interconnect at a time, two hours apart.
    Wished,
    /// A new key is on its way.
    UnderWay,
}

/// The MACsec keys of a channel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct MacSecChannel {
    /// The other provider.
    pub provider: String,
    /// The channel.
    pub channel: ChannelName,
    /// The provider that changes its keys.
    pub manager: String,
    /// Whether our device uses a key. Where it does not, nothing goes over the channel.
    pub secure: bool,
    /// A change of its key.
    pub rotation: MacSecRotation,
    /// Since when a change is wished for.
    pub wished_at: Option<Timestamp>,
    /// Its keys, the oldest first: two at most.
    pub keys: Vec<ChannelMacSecKey>,
}

/// A page of channels on which MACsec is run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct MacSecChannelList {
    /// The page.
    pub mac_sec_channels: Vec<MacSecChannel>,
    /// Give it back as `pageToken` for the next page; absent on the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_page_token: Option<String>,
}

/// The body of `POST /v1/macSecChannels:rotate`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MacSecRotationRequest {
    /// The other provider.
    #[schema(min_length = 1, max_length = 128)]
    pub provider: String,
    /// The environment.
    #[schema(min_length = 1, max_length = 128)]
    pub environment_id: String,
    /// The interconnect.
    #[schema(min_length = 1, max_length = 128)]
    pub interconnect_id: String,
    /// The channel.
    #[schema(min_length = 1, max_length = 128)]
    pub channel_id: String,
    /// Why: told to the peer where that manages the key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 200)]
    pub reason: Option<String>,
}

/// Whose work it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum MaintenanceOrigin {
    /// Ours.
    Ours,
    /// The other provider's.
    Theirs,
}

/// How far work on channels is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum MaintenanceState {
    /// It is planned, and the peer is asked whether anything stands against it.
    Scheduled,
    /// Nothing stands against it: it begins when its time has come.
    Confirmed,
    /// Its time has come: traffic moves away.
    Draining,
    /// Nothing goes over the channels any more: the work may be done.
    UnderWay,
    /// It is over.
    Done,
    /// It was called off.
    Cancelled,
    /// Other work of the interconnect stood against it: it never began.
    Conflict,
    /// The peer could not be asked in time: it never began.
    Unconfirmed,
}

/// Work on channels.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct MaintenanceEvent {
    /// Ours is a UUID; the other provider's whatever it says.
    pub id: String,
    /// The other provider.
    pub provider: String,
    /// Whose work it is.
    pub origin: MaintenanceOrigin,
    /// Each channel that it takes.
    pub channels: Vec<ChannelName>,
    /// From when on; null where the other provider does not say.
    pub start_time: Option<Timestamp>,
    /// Until when; null where the other provider does not say.
    pub end_time: Option<Timestamp>,
    /// Whether it waits for nobody; of the other provider's it is not known.
    pub emergency: bool,
    /// How far it is.
    pub state: MaintenanceState,
    /// When the drain began.
    pub began_at: Option<Timestamp>,
    /// When it was over.
    pub ended_at: Option<Timestamp>,
}

/// A page of work on channels.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct MaintenanceEventList {
    /// The page.
    pub maintenance_events: Vec<MaintenanceEvent>,
    /// Give it back as `pageToken` for the next page; absent on the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_page_token: Option<String>,
}

/// The body of `POST /v1/maintenanceEvents`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MaintenanceRequest {
    /// The other provider.
    #[schema(min_length = 1, max_length = 128)]
    pub provider: String,
    /// The environment.
    #[schema(min_length = 1, max_length = 128)]
    pub environment_id: String,
    /// The interconnect.
    #[schema(min_length = 1, max_length = 128)]
    pub interconnect_id: String,
    /// The channel.
    #[schema(min_length = 1, max_length = 128)]
    pub channel_id: String,
    /// Whether the work takes our whole device, and with it every channel that the device carries.
    #[serde(default)]
    pub whole_device: bool,
    /// From when on; now where it is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_time: Option<Timestamp>,
    /// Until when: a week after the start at most.
    pub end_time: Timestamp,
    /// Whether it waits for nobody: two channels of one interconnect may then be under work at once.
    #[serde(default)]
    pub emergency: bool,
}

impl MaintenanceEvent {
    /// The id of work of ours.
    #[must_use]
    pub fn own_id(&self) -> Option<Uuid> {
        (self.origin == MaintenanceOrigin::Ours).then(|| self.id.parse().ok()).flatten()
    }
}
