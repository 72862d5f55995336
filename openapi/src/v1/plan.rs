//! Plan: what would be done, without doing it.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Connection, ConnectionIntent, End, Migration, Timestamp};
use crate::ids::{ChannelId, ConnectionId, PlanId, ProviderName};

/// What a plan would do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum PlanAction {
    /// Build.
    Create,
    /// Change.
    Update,
    /// Take down.
    Delete,
    /// Repair drift.
    Reconcile,
    /// Move to another interconnect.
    Migrate,
}

/// What users of the connection would notice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Disruption {
    /// Nothing.
    None,
    /// Seconds.
    Brief,
    /// The private path is gone for as long as it takes.
    Outage,
}

/// What one call does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Verb {
    /// Makes a resource.
    Create,
    /// Changes one.
    Update,
    /// Removes one.
    Delete,
}

/// One field of a step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct PlanField {
    /// RFC 6901 pointer into the resource's fields.
    pub pointer: String,
    /// The value before; null if there is none.
    pub before: Option<serde_json::Value>,
    /// The value after, or `{"oneOf": [...]}` where the cloud itself picks; null if it is removed or sensitive.
    pub after: Option<serde_json::Value>,
    /// The rule that chose it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// True for a secret, whose value is never shown.
    pub sensitive: bool,
}

/// One call of a plan: to a cloud, to the peer of a coordinated connection (end `b`), or to a router of our own (end `a`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct PlanStep {
    /// Counts from 1.
    pub n: u32,
    /// Which steps must have ended before.
    pub after: Vec<u32>,
    /// On which end.
    pub end: End,
    /// In which cloud, or at which provider.
    pub provider: ProviderName,
    /// For which channel; null for a coordinated connection as a whole.
    pub channel_id: Option<ChannelId>,
    /// What it does.
    pub verb: Verb,
    /// To which type of resource.
    pub resource_type: String,
    /// What users would notice.
    pub disruption: Disruption,
    /// The fields.
    pub fields: Vec<PlanField>,
}

/// How much a finding matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Severity {
    /// The plan cannot be applied.
    Error,
    /// It can, and something may surprise.
    Warning,
    /// Worth knowing.
    Info,
}

/// Something that the planner noticed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Finding {
    /// How much it matters.
    pub severity: Severity,
    /// Stable code.
    pub code: String,
    /// RFC 6901 pointer into the intent.
    pub pointer: String,
    /// One sentence.
    pub message: String,
    /// The rule, or both rules where two conflict.
    pub rule: String,
    /// Where the rule comes from.
    pub source: String,
    /// What resolves it.
    pub resolve: String,
}

/// What a plan was computed from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Basis {
    /// For example `allocations`, `topology`, `priceBook`.
    pub name: String,
    /// Its revision.
    pub revision: String,
}

/// Something that a cloud bills because of the connection. Ports and attach points are not among them: they exist, and are
/// paid for, without it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Cost {
    /// What is billed.
    pub what: String,
    /// On which end.
    pub end: End,
    /// By which cloud.
    pub provider: ProviderName,
    /// What a price is for: `hour`, `GB` (10^9 bytes), `GiB` (2^30 bytes).
    pub unit: String,
    /// How many of it there are at any time; null where the bill follows the traffic.
    pub count: Option<u32>,
    /// The list price of one unit in US dollars, without taxes and discounts; null where no published one is known.
    pub price_usd: Option<f64>,
    /// The day on which the price was published or read, as `YYYY-MM-DD`; null without a price.
    #[schema(format = Date)]
    pub as_of: Option<String>,
    /// Where the vendor publishes it.
    pub source: String,
}

/// What would be done.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Plan {
    /// UUID v7; null for a dry run, which is not saved.
    pub id: Option<PlanId>,
    /// SHA-256 of the canonical JSON of the rest.
    pub hash: String,
    /// Until when it may be applied.
    pub expires_at: Timestamp,
    /// What it would do.
    pub action: PlanAction,
    /// To which connection; null for a create.
    pub connection_id: Option<ConnectionId>,
    /// From which generation.
    pub base_generation: Option<u64>,
    /// What it was computed from.
    pub basis: Vec<Basis>,
    /// The connection as it would be.
    #[schema(value_type = Option<Connection>)]
    pub after: Option<Box<Connection>>,
    /// Whether it can be applied: no finding is an error.
    pub applicable: bool,
    /// The worst disruption of its steps.
    pub disruption: Disruption,
    /// What the clouds bill for the connection as it would be.
    pub costs: Vec<Cost>,
    /// The provider calls, in order.
    pub steps: Vec<PlanStep>,
    /// What the planner noticed.
    pub findings: Vec<Finding>,
}

/// A page of plans.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct PlanList {
    /// The page.
    pub plans: Vec<Plan>,
    /// Give it back as `pageToken` for the next page; absent on the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_page_token: Option<String>,
}

/// The body of `POST /v1/plans`: exactly one of `intent` (create) or `connectionId` with `patch` (update), with `migrate` (move)
/// or with `delete: true`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PlanRequest {
    /// Plan a create.
    #[serde(default)]
    pub intent: Option<ConnectionIntent>,
    /// Plan a change of this connection.
    #[serde(default)]
    pub connection_id: Option<ConnectionId>,
    /// An RFC 7396 merge patch of the intent.
    #[serde(default)]
    #[schema(value_type = Option<Object>)]
    pub patch: Option<serde_json::Value>,
    /// Plan a move to another interconnect; `{}` where it may be any.
    #[serde(default)]
    pub migrate: Option<Migration>,
    /// Plan the deletion.
    #[serde(default)]
    pub delete: bool,
}
