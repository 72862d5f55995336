//! What exists before any connection: accounts, environments, interconnects, attach points. All of it comes from
//! `tieline.toml` and the built-in catalogue.

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{AdminState, ConnectionKind, Middle};
use crate::{
    ids::{AccountId, AttachPointId, ChannelId, EnvironmentId, InterconnectId, PortId, ProviderName},
    units::{Asn, BandwidthMbps},
};

/// A cloud account and where its credential comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Account {
    /// The id in `tieline.toml`.
    pub id: AccountId,
    /// The cloud.
    pub provider: ProviderName,
    /// The cloud's own id: an AWS account number, a Google project.
    pub external_id: String,
    /// Where the credential comes from: `env:NAME`, `file:PATH`, `default`; never the credential.
    pub credential_ref: String,
}

/// What kind of place a connection attaches to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum AttachPointType {
    /// AWS Direct Connect gateway.
    DirectConnectGateway,
    /// Google Cloud Router.
    CloudRouter,
    /// Oracle dynamic routing gateway.
    Drg,
    /// Azure ExpressRoute gateway.
    ExpressRouteGateway,
    /// A router of the operator's own.
    Router,
}

/// A customer-side place to attach. It exists before Tieline, may be shared, and is never created or deleted by a connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct AttachPoint {
    /// The id in `tieline.toml`.
    pub id: AttachPointId,
    /// In which account.
    pub account_id: AccountId,
    /// The cloud's region or site.
    pub site: String,
    /// What it is.
    #[serde(rename = "type")]
    pub kind: AttachPointType,
    /// The cloud's own id or name.
    pub cloud_id: String,
    /// Its AS number: a constant.
    pub asn: Asn,
    /// The prefixes of the network behind it.
    #[schema(value_type = Vec<String>)]
    pub prefixes: Vec<IpNet>,
}

/// One site of an environment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Site {
    /// The cloud.
    pub provider: ProviderName,
    /// Its region or site.
    pub site: String,
    /// For people.
    pub display_name: String,
}

/// A pair of sites.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Environment {
    /// For example `aws-us-east-1.google-us-east4`.
    pub id: EnvironmentId,
    /// Which kind of link it offers.
    pub kind: ConnectionKind,
    /// Its two sites.
    #[schema(min_items = 2, max_items = 2)]
    pub sites: Vec<Site>,
    /// The bandwidths that may be ordered, rising.
    pub bandwidths_mbps: Vec<BandwidthMbps>,
    /// What stands between the clouds' ports.
    pub middle: Middle,
    /// Whether an interconnect for it is configured here.
    pub configured: bool,
}

/// Whether an interconnect takes connections.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum InterconnectState {
    /// Being built.
    Pending,
    /// Takes connections.
    #[default]
    Active,
    /// Takes no new ones.
    Closed,
}

/// A channel's end in one cloud.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ChannelPort {
    /// In which account.
    pub account_id: AccountId,
    /// The cloud's own id: a Direct Connect LAG (`dxlag-...`) or connection, an interconnect's name.
    pub port_id: PortId,
    /// The cloud's device, for diversity.
    pub device: String,
}

/// One LAG of an interconnect.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Channel {
    /// The id in `tieline.toml`.
    pub id: ChannelId,
    /// On or off.
    #[serde(default)]
    pub admin_state: AdminState,
    /// Its end in the cloud of the environment's first site.
    pub a: ChannelPort,
    /// Its end in the cloud of the environment's second site.
    pub b: ChannelPort,
}

/// A channel's end, as it is shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = ChannelPort)]
pub struct ShownPort {
    /// In which account; null where the operator's own router carries the channel.
    pub account_id: Option<AccountId>,
    /// The cloud's own id; null where the operator's own router carries the channel.
    pub port_id: Option<PortId>,
    /// The device, for diversity.
    pub device: String,
}

impl From<ChannelPort> for ShownPort {
    fn from(port: ChannelPort) -> Self {
        Self { account_id: Some(port.account_id), port_id: Some(port.port_id), device: port.device }
    }
}

/// A channel, as it is shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Channel)]
pub struct ShownChannel {
    /// Unique within its interconnect.
    pub id: ChannelId,
    /// On or off, as far as we say.
    pub admin_state: AdminState,
    /// Its end at the environment's first site.
    pub a: ShownPort,
    /// Its end at the environment's second site; null where that is a peer's, which does not tell.
    pub b: Option<ShownPort>,
}

/// An interconnect, as it is shown: a redundancy group of channels between the two sites of an environment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Interconnect)]
pub struct ShownInterconnect {
    /// The id in `tieline.toml`; of what is shared with a peer, after the environment's.
    pub id: InterconnectId,
    /// Which pair of sites.
    pub environment_id: EnvironmentId,
    /// Whether it takes connections.
    pub state: InterconnectState,
    /// What each channel may carry in total, in Mbit/s; of what is shared with a peer, what all connections together may have.
    pub max_bandwidth_mbps: BandwidthMbps,
    /// Its channels.
    pub channels: Vec<ShownChannel>,
}

impl From<Interconnect> for ShownInterconnect {
    fn from(interconnect: Interconnect) -> Self {
        let channels = interconnect.channels.into_iter().map(|channel| ShownChannel {
            id: channel.id,
            admin_state: channel.admin_state,
            a: channel.a.into(),
            b: Some(channel.b.into()),
        });
        Self {
            id: interconnect.id,
            environment_id: interconnect.environment_id,
            state: interconnect.state,
            max_bandwidth_mbps: interconnect.max_bandwidth_mbps,
            channels: channels.collect(),
        }
    }
}

/// A redundancy group of channels.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Interconnect {
    /// The id in `tieline.toml`.
    pub id: InterconnectId,
    /// Which pair of sites.
    pub environment_id: EnvironmentId,
    /// Whether it takes connections.
    pub state: InterconnectState,
    /// What each channel may carry in total, in Mbit/s.
    pub max_bandwidth_mbps: BandwidthMbps,
    /// Its channels.
    pub channels: Vec<Channel>,
}

macro_rules! list {
    ($($(#[$doc:meta])* $name:ident { $field:ident: $item:ty })*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
        #[serde(rename_all = "camelCase")]
        pub struct $name {
            /// The page.
            pub $field: Vec<$item>,
            /// Give it back as `pageToken` for the next page; absent on the last.
            #[serde(skip_serializing_if = "Option::is_none")]
            pub next_page_token: Option<String>,
        }
    )*};
}

list! {
    /// A page of accounts.
    AccountList { accounts: Account }
    /// A page of attach points.
    AttachPointList { attach_points: AttachPoint }
    /// A page of environments.
    EnvironmentList { environments: Environment }
    /// A page of interconnects.
    InterconnectList { interconnects: ShownInterconnect }
}
