//! The shape of `tieline.toml`: what exists before any connection. Keys are written as in the API.
//!
//! Endpoint URLs and credential references stand only here: no API call can set them, so a token can never make Tieline
//! send a credential to another host.
//!
//! A file is refused whole, with every problem that was found, each by its line and its key.

mod check;
mod check_coordinator;
mod check_routers;
mod check_security;
mod coordinator;
mod document;
mod peer_security;
mod routers;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::{
    ids::{AccountId, AttachPointId, EnvironmentId, InterconnectId, ProviderName},
    units::{Asn, BandwidthMbps},
    v1::{AttachPointType, Channel, ConnectionKind, InterconnectState, Middle, ProbeSettings, Site},
};

pub use coordinator::*;
pub use peer_security::*;
pub use routers::*;

/// Why `tieline.toml` was refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Could not be read.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Keys or values are wrong.
    #[error("{}", lines(path, problems))]
    Invalid {
        /// The file.
        path: String,
        /// Everything that is wrong with it, by line; never empty.
        problems: Vec<ConfigProblem>,
    },
}

/// One thing that is wrong with a file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ConfigProblem {
    /// The line, counting from 1.
    pub line: usize,
    /// The key, such as `attachPoints[0].asn`; empty where the file is no TOML.
    pub key: String,
    /// What is wrong, and what would be right.
    pub message: String,
}

fn lines(path: &str, problems: &[ConfigProblem]) -> String {
    let line = |problem: &ConfigProblem| {
        let ConfigProblem { line, key, message } = problem;
        if key.is_empty() { format!("{path}:{line}: {message}") } else { format!("{path}:{line}: {key}: {message}") }
    };
    problems.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// A cloud account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AccountConfig {
    /// The id that everything else refers to.
    pub id: AccountId,
    /// The cloud.
    pub provider: ProviderName,
    /// The cloud's own id: an AWS account number, a Google project. Calls are refused where the credential's own identity differs.
    pub external_id: String,
    /// `env:NAME`, `file:PATH`, `default` (the SDK's own chain), or `anonymous` (only with an `endpoint`).
    pub credential_ref: String,
    /// The cloud's region.
    pub region: String,
    /// Another address of the cloud's API: a private endpoint or a simulator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
}

/// An attach point.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AttachPointConfig {
    /// The id that connections refer to.
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
    /// Its AS number.
    pub asn: Asn,
    /// The prefixes of the network behind it.
    #[serde(default)]
    pub prefixes: Vec<IpNet>,
}

/// An environment that the built-in catalogue does not have, or has otherwise.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EnvironmentConfig {
    /// The id that interconnects and connections refer to.
    pub id: EnvironmentId,
    /// Which kind of link.
    pub kind: ConnectionKind,
    /// Its two sites: `a` and `b` of every channel.
    pub sites: [Site; 2],
    /// The bandwidths that may be ordered.
    pub bandwidths_mbps: BTreeSet<BandwidthMbps>,
    /// What stands between the ports.
    #[serde(default)]
    pub middle: Middle,
}

/// A redundancy group of channels.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct InterconnectConfig {
    /// The id.
    pub id: InterconnectId,
    /// Which pair of sites.
    pub environment_id: EnvironmentId,
    /// Whether it takes connections.
    #[serde(default)]
    pub state: InterconnectState,
    /// What each channel may carry in total, in Mbit/s.
    pub max_bandwidth_mbps: BandwidthMbps,
    /// Its channels.
    pub channels: Vec<Channel>,
}

/// The engine's clocks, in milliseconds. The defaults suit real clouds; a lab shortens them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct EngineConfig {
    /// How long a claim lasts.
    pub lease_ms: u64,
    /// The longest that one provider call may take; it ends before the lease.
    pub call_timeout_ms: u64,
    /// How late a cloud's lists and reads may lag behind its writes.
    pub visibility_lag_ms: u64,
    /// How long a freed VLAN, subnet or name stays unused after both sides are absent.
    pub quarantine_ms: u64,
    /// How often a connection on its way is looked at.
    pub poll_ms: u64,
    /// How often a settled connection is looked at.
    pub settled_poll_ms: u64,
    /// How often an account is swept for orphans.
    pub sweep_ms: u64,
    /// Provider calls per second and account.
    pub calls_per_second: u32,
}

impl Default for EngineConfig {
    fn default() -> Self {
        Self {
            lease_ms: 60_000,
            call_timeout_ms: 30_000,
            visibility_lag_ms: 120_000,
            quarantine_ms: 900_000,
            poll_ms: 5_000,
            settled_poll_ms: 60_000,
            sweep_ms: 300_000,
            calls_per_second: 5,
        }
    }
}

/// How long what is over is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct RetentionConfig {
    /// Days that the audit log goes back.
    pub audit_days: u32,
    /// Days that the ledger knows a resource after it is gone for good. What of it turns up in a cloud later is left alone.
    pub ledger_days: u32,
    /// Days that operations are kept after they have ended.
    pub operation_days: u32,
    /// Days that issues are kept after they were resolved.
    pub issue_days: u32,
    /// Events that are kept.
    pub events: u64,
}

impl Default for RetentionConfig {
    fn default() -> Self {
        Self { audit_days: 400, ledger_days: 90, operation_days: 90, issue_days: 90, events: 1_000_000 }
    }
}

/// The tunnels between gateways.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct TunnelConfig {
    /// Hours after which two gateways are given another preshared key; absent: they are given none, and lose the one that they
    /// had. Every gateway must be of a version that knows of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub preshared_key_hours: Option<u32>,
}

/// `tieline.toml`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Config {
    /// Flags of `tieline serve`, by their long names; the command line and the environment win.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub serve: BTreeMap<String, toml::Value>,
    /// The engine's clocks.
    pub engine: EngineConfig,
    /// How long what is over is kept.
    pub retention: RetentionConfig,
    /// How gateways probe and choose.
    pub probe: ProbeSettings,
    /// The tunnels between gateways.
    pub tunnel: TunnelConfig,
    /// The open specification: who we are, and whom we are paired with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub coordinator: Option<CoordinatorConfig>,
    /// The operator's own routers.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub routers: Vec<RouterConfig>,
    /// Cloud accounts.
    pub accounts: Vec<AccountConfig>,
    /// Environments beside the built-in catalogue.
    pub environments: Vec<EnvironmentConfig>,
    /// Interconnects with their channels.
    pub interconnects: Vec<InterconnectConfig>,
    /// Attach points.
    pub attach_points: Vec<AttachPointConfig>,
}

impl Config {
    /// The built-in catalogue, and over it the configured environments.
    #[must_use]
    pub fn all_environments(&self) -> Vec<EnvironmentConfig> {
        let mut all = crate::catalogue::environments();
        for own in &self.environments {
            all.retain(|e| e.id != own.id);
            all.push(own.clone());
        }
        all
    }

    /// Reads and checks a file.
    ///
    /// # Errors
    /// [`ConfigError`] naming the file, and each problem's line and key.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Read { path: path.display().to_string(), source })?;
        Self::parse(&text, &path.display().to_string())
    }

    /// Reads and checks a text. `path` stands in errors.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`] with every problem.
    pub fn parse(text: &str, path: &str) -> Result<Self, ConfigError> {
        let (config, mut problems) = document::read(text);
        problems.sort();
        problems.dedup();
        match config {
            Some(config) if problems.is_empty() => Ok(config),
            _ => Err(ConfigError::Invalid { path: path.to_owned(), problems }),
        }
    }
}
