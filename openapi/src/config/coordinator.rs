//! `[coordinator]`: the peers that Tieline speaks the open Interconnect specification with, and what is agreed with each
//! out of band.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

use super::ChannelRouterConfig;
use crate::{
    coordinator::ResourceId,
    ids::{EnvironmentId, IdError, InterconnectId},
    units::{Asn, BandwidthMbps},
};

/// Our own half.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CoordinatorConfig {
    /// Our provider id: unique in the world, kept beside the specification.
    pub provider: ResourceId,
    /// Our name for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,
    /// Where peers reach us, and nobody else does.
    pub listen: SocketAddr,
    /// Our certificate chain in PEM: peers see it when they call us and when we call them.
    pub certificate_file: String,
    /// Its private key in PEM.
    pub key_file: String,
    /// Calls that one peer may make a second, and at once ten times as many.
    #[serde(default = "twenty")]
    pub requests_per_second: u32,
    /// How long one call to a peer may take, in milliseconds.
    #[serde(default = "ten_seconds")]
    pub call_timeout_ms: u64,
    /// How often a connection on its way is looked at, in milliseconds.
    #[serde(default = "ten_seconds")]
    pub poll_ms: u64,
    /// How often a settled connection is looked at, in milliseconds.
    #[serde(default = "ten_minutes")]
    pub settled_poll_ms: u64,
    /// Whom we are paired with.
    #[serde(default)]
    pub peers: Vec<PeerConfig>,
}

const fn twenty() -> u32 {
    20
}
const fn ten_seconds() -> u64 {
    10_000
}
const fn ten_minutes() -> u64 {
    600_000
}

/// A provider that we are paired with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PeerConfig {
    /// Its provider id.
    pub provider: ResourceId,
    /// Its name for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,
    /// Its API: everything before `/providers`.
    pub endpoint: String,
    /// Trust anchors in PEM: its server certificate and its client certificate are issued by one of them.
    pub ca_file: String,
    /// How its client certificate is told from others of the same issuer.
    pub identity: PeerIdentity,
    /// The environments that we share.
    #[serde(default)]
    pub environments: Vec<SharedEnvironmentConfig>,
}

/// Who a peer is, by its client certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum PeerIdentity {
    /// A DNS name among the certificate's subject alternative names.
    DnsName(String),
    /// SHA-256 of the certificate's SubjectPublicKeyInfo (RFC 7469 section 2.4), in hexadecimal digits: one, or two while
    /// the peer changes its key.
    SpkiSha256(Vec<String>),
}

impl PeerConfig {
    /// The id that `/v1` knows an environment by. Ids of the open specification are unique within a pairing only, so the
    /// peer's goes in front; they are written as `/v1` writes ids, in small letters.
    ///
    /// # Errors
    /// [`IdError`] where that is no id of `/v1`.
    pub fn environment_id(&self, environment: &ResourceId) -> Result<EnvironmentId, IdError> {
        plain(&[&self.provider, environment]).parse()
    }

    /// The id that `/v1` knows an interconnect by.
    ///
    /// # Errors
    /// [`IdError`] where that is no id of `/v1`.
    pub fn interconnect_id(
        &self,
        environment: &ResourceId,
        interconnect: &ResourceId,
    ) -> Result<InterconnectId, IdError> {
        plain(&[&self.provider, environment, interconnect]).parse()
    }
}

/// Ids as `/v1` writes them, one after the other.
fn plain(ids: &[&ResourceId]) -> String {
    let ids: Vec<String> = ids.iter().map(|id| id.as_str().to_ascii_lowercase().replace('~', "-")).collect();
    ids.join(".")
}

/// A channel's id, or a provider's, as `/v1` writes it.
///
/// # Errors
/// [`IdError`] where that is no id of `/v1`.
pub fn plain_id<T: std::str::FromStr<Err = IdError>>(id: &ResourceId) -> Result<T, IdError> {
    plain(&[id]).parse()
}

/// A pair of sites where we meet. Ids are agreed: both sides write the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SharedEnvironmentConfig {
    /// Its id.
    pub id: ResourceId,
    /// Our site.
    pub our_site: String,
    /// The peer's.
    pub their_site: String,
    /// The bandwidths that may be bought.
    pub bandwidths_mbps: BTreeSet<BandwidthMbps>,
    /// Whether the peer provisions what is negotiated here.
    #[serde(default)]
    pub defers: bool,
    /// Whether we provision in the peer's place when it asks.
    #[serde(default)]
    pub takes_deferral: bool,
    /// How long one waits for the other that provisions in its place, in hours.
    #[serde(default = "three_days")]
    pub deferral_timeout_hours: u32,
    /// Whether every customer sees it.
    #[serde(default = "yes")]
    pub public: bool,
    /// Its interconnects.
    #[serde(default)]
    pub interconnects: Vec<SharedInterconnectConfig>,
}

const fn three_days() -> u32 {
    72
}
const fn yes() -> bool {
    true
}

/// Whether an interconnect takes connections.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum SharedInterconnectState {
    /// Not ready yet.
    Pending,
    /// It does.
    #[default]
    Active,
    /// Goes on with those that it has.
    Closed,
}

/// A group of redundant channels. Ids are agreed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SharedInterconnectConfig {
    /// Its id.
    pub id: ResourceId,
    /// Whether it takes connections.
    #[serde(default)]
    pub state: SharedInterconnectState,
    /// What all its connections together may have.
    pub max_bandwidth_mbps: BandwidthMbps,
    /// Its channels.
    pub channels: Vec<SharedChannelConfig>,
}

/// One link, and what we take on it. Its id is agreed; the rest is ours.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SharedChannelConfig {
    /// Its id.
    pub id: ResourceId,
    /// Our device that carries it, by a name that does not tell which it is.
    pub device: String,
    /// The router behind that name. Without one nobody configures the channel, and its features stay pending.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub router: Option<ChannelRouterConfig>,
    /// Our AS number on it.
    pub asn: Asn,
    /// The lowest and the highest VLAN that we take.
    #[serde(default = "all_vlans")]
    pub vlans: (u16, u16),
    /// The MTUs that we take, as ranges with both ends in them.
    #[serde(default = "usual_mtus")]
    pub mtus: Vec<(u16, u16)>,
    /// Where subnets come from.
    pub subnets: Vec<Ipv4Net>,
    /// But not from these.
    #[serde(default)]
    pub excluded_subnets: Vec<Ipv4Net>,
    /// The prefix lengths that we take.
    #[serde(default = "usual_lengths")]
    pub prefix_lengths: Vec<u8>,
    /// The whole channel in Gbit/s.
    pub size_gbps: u32,
    /// One member link in Gbit/s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub member_size_gbps: Option<u32>,
    /// Who rotates the MACsec keys: our id or the peer's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub macsec_manager: Option<ResourceId>,
    /// Who orders the cross connect: our id or the peer's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cross_connect_manager: Option<ResourceId>,
    /// Where the cross connect ends, in the facility's words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub demarc: Option<String>,
    /// Whether we have enabled it.
    #[serde(default = "yes")]
    pub enabled: bool,
}

const fn all_vlans() -> (u16, u16) {
    (crate::coordinator::LOWEST_VLAN, 4_094)
}
fn usual_mtus() -> Vec<(u16, u16)> {
    vec![(1_500, 1_500), (8_500, 8_500)]
}
fn usual_lengths() -> Vec<u8> {
    vec![29, 30]
}
