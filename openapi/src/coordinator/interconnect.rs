//! Interconnect: a group of redundant links between two providers.

use serde::{Deserialize, Serialize};
use serde_with::skip_serializing_none;
use utoipa::ToSchema;

use super::{FeatureType, wire::open_enum};

open_enum! {
    /// Whether an interconnect takes connections.
    InterconnectState {
        /// Not ready for traffic yet.
        Pending = "INTERCONNECT_STATE_PENDING",
        /// Ready.
        Active = "INTERCONNECT_STATE_ACTIVE",
        /// Goes on for the connections that it has; takes no new ones.
        Closed = "INTERCONNECT_STATE_CLOSED",
    }
}

/// An interconnect. Its name and sizes are agreed when capacity is built; the rest is the server's.
#[skip_serializing_none]
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Interconnect {
    /// `providers/{provider}/environments/{environment}/interconnects/{interconnect}`.
    pub name: Option<String>,
    /// The bandwidths that it takes, in Mbit/s: all of the environment's, and perhaps more.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(read_only)]
    pub supported_connection_size_mbps: Vec<i32>,
    /// The features that it takes: all of the environment's, and perhaps more.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(read_only)]
    pub supported_features: Vec<FeatureType>,
    /// Whether it takes connections.
    #[schema(read_only)]
    pub state: Option<InterconnectState>,
    /// What all its connections together may have, in Mbit/s; a connection above it is refused.
    #[schema(read_only)]
    pub max_bandwidth_mbps: Option<i32>,
}

/// A page of interconnects.
#[skip_serializing_none]
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ListInterconnectsResponse {
    /// The interconnects.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub interconnects: Vec<Interconnect>,
    /// Where the next page begins; absent on the last.
    pub next_page_token: Option<String>,
}
