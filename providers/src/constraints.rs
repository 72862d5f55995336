//! What one side allows, in the shape of the Connection Coordinator API's FeatureGuidance, each rule with its source.

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeSet, ops::RangeInclusive};
use tieline_openapi::{
    units::{BandwidthMbps, Mtu},
    v1::BfdSettings,
};

/// A rule in one phrase, and where it comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    /// The rule.
    pub text: String,
    /// An RFC or a vendor's document.
    pub source: String,
}

impl Rule {
    /// A rule from literals.
    #[must_use]
    pub fn new(text: &str, source: &str) -> Self {
        Self { text: text.to_owned(), source: source.to_owned() }
    }
}

/// A value with the rule that it comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sourced<T> {
    /// The value.
    pub value: T,
    /// The rule.
    pub rule: Rule,
}

impl<T> Sourced<T> {
    /// A value with its rule.
    pub const fn new(value: T, rule: Rule) -> Self {
        Self { value, rule }
    }
}

/// Who chooses the point-to-point addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AddressChoice {
    /// The caller gives them.
    Caller,
    /// The cloud picks out of the candidates that the caller gives; they are read back.
    Cloud,
}

/// Which passwords a BGP session takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Md5Rule {
    /// Whether a session without a password is refused.
    pub required: bool,
    /// Whether a password is possible at all.
    pub supported: bool,
    /// Shortest and longest, in characters.
    pub length: RangeInclusive<usize>,
    /// Whether only letters and digits are taken.
    pub alphanumeric_only: bool,
}

/// What a side can do with BFD (RFC 5880).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BfdRule {
    /// Whether it can be switched on at all.
    pub supported: bool,
    /// Whether the settings are ours to choose; if not, `best` is what the cloud runs.
    pub configurable: bool,
    /// The fastest settings.
    pub best: BfdSettings,
    /// Milliseconds after which a silent peer is noticed without BFD: the BGP hold time.
    pub hold_time_ms: u32,
}

/// What a cloud, as its adapter configures it, holds of the prefix rules of one session.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PrefixControl {
    /// It announces exactly the prefixes of [`crate::FeatureSide::advertised_prefixes`].
    pub announces: bool,
    /// It drops what is not among [`crate::FeatureSide::accepted_prefixes`].
    pub accepts: bool,
    /// It takes no more prefixes than [`crate::FeatureSide::max_prefixes`].
    pub limits: bool,
}

/// Everything that one side allows on one channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Constraints {
    /// VLANs that the side takes, as inclusive ranges.
    pub vlan_ranges: Sourced<Vec<RangeInclusive<u16>>>,
    /// VLANs in use on this port by others.
    pub vlans_in_use: BTreeSet<u16>,
    /// MTUs that the side takes: a set with holes.
    pub mtus: Sourced<BTreeSet<Mtu>>,
    /// Prefix lengths of the point-to-point subnet that the side takes, preferred first.
    pub ipv4_lengths: Sourced<Vec<u8>>,
    /// The point-to-point subnet must be inside one of these.
    pub ipv4_include: Sourced<Vec<Ipv4Net>>,
    /// And overlap none of these.
    pub ipv4_exclude: Sourced<Vec<Ipv4Net>>,
    /// Point-to-point subnets in use on this attach point by others.
    pub ipv4_in_use: Vec<Ipv4Net>,
    /// Who chooses the addresses.
    pub address_choice: Sourced<AddressChoice>,
    /// BGP passwords.
    pub md5: Sourced<Md5Rule>,
    /// BFD.
    pub bfd: Sourced<BfdRule>,
    /// AS numbers that the side refuses as a peer, with what each is reserved for.
    pub refused_peer_asns: Sourced<Vec<RangeInclusive<u32>>>,
    /// Bandwidths that the side sells.
    pub bandwidths: Sourced<BTreeSet<BandwidthMbps>>,
    /// The most prefixes that the side accepts per session.
    pub max_received_prefixes: Sourced<u32>,
    /// The most prefixes that the side announces per session.
    pub max_advertised_prefixes: Sourced<u32>,
    /// Whether IPv6 can run on the channel.
    pub ipv6: Sourced<bool>,
}
