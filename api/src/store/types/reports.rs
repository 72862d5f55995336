//! Gateways' reports, and what follows from them.

use serde::{Deserialize, Serialize};
use tieline_openapi::{
    ids::{ConnectionId, GatewayId},
    v1::{ConditionStatus, ConditionType, PathSample, Timestamp},
};

use super::NewEvent;

/// A sample, and which gateway took it.
#[derive(Debug, Clone, PartialEq)]
pub struct Reported {
    /// Who reports.
    pub by: GatewayId,
    /// What.
    pub sample: PathSample,
}

/// Since when a condition has had its status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct KeptCondition {
    /// Which.
    #[serde(rename = "type")]
    pub kind: ConditionType,
    /// Its status.
    pub status: ConditionStatus,
    /// Since when.
    pub since: Timestamp,
}

/// What a gateway's report brings about beside its samples.
#[derive(Debug, Clone, Default)]
pub struct ReportEffects {
    /// Events.
    pub events: Vec<NewEvent>,
    /// Conditions of paths that have another status now.
    pub conditions: Vec<(ConnectionId, Vec<KeptCondition>)>,
}
