//! Feature: what one channel of a connection is configured with.

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};
use serde_with::skip_serializing_none;
use utoipa::ToSchema;

use super::{Sensitive, wire::open_enum};
use crate::units::{Asn, Mtu, Vlan};

open_enum! {
    /// What a feature is.
    FeatureType {
        /// Layer 3: a VLAN, a subnet and a BGP session.
        L3Base = "FEATURE_TYPE_L3_BASE",
    }
}

open_enum! {
    /// How far a provider is with a feature.
    ProvisioningState {
        /// The parameters are reserved.
        Pending = "PROVISIONING_STATE_PENDING",
        /// The provider's side is configured whole and carries traffic.
        Final = "PROVISIONING_STATE_FINAL",
    }
}

/// One provider's end of a BGP session.
#[skip_serializing_none]
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ProviderBgpConfig {
    /// `providers/{provider}`: whose end.
    #[schema(required = true)]
    pub provider: Option<String>,
    /// The AS number (RFC 6793: 32 bits).
    #[schema(required = true, value_type = i64, minimum = 0, maximum = 4294967295u32)]
    pub asn: Option<u32>,
    /// The address of the session's end.
    pub host_ipv4: Option<String>,
    /// The IPv6 address of the session's end.
    pub host_ipv6: Option<String>,
}

/// The configuration of a layer 3 feature.
#[skip_serializing_none]
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct L3BaseConfig {
    /// The subnet's address, with its mask applied.
    pub ipv4_subnet: Option<String>,
    /// The subnet's prefix length.
    pub ipv4_subnet_prefix_length: Option<i32>,
    /// The IPv6 subnet's address, with its mask applied.
    pub ipv6_subnet: Option<String>,
    /// The IPv6 subnet's prefix length.
    pub ipv6_subnet_prefix_length: Option<i32>,
    /// The MTU where the providers meet, in bytes.
    #[schema(required = true)]
    pub mtu_bytes: Option<i32>,
    /// The VLAN; 1024 and lower are reserved.
    #[schema(required = true)]
    pub vlan_id: Option<i32>,
    /// Both ends of the BGP session.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = true)]
    pub provider_bgp_configs: Vec<ProviderBgpConfig>,
    /// The key of the BGP session (RFC 2385).
    #[schema(required = true, value_type = Option<String>)]
    pub md5_bgp_password: Option<Sensitive>,
}

/// The configuration of a feature, by its type.
#[skip_serializing_none]
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct FeatureConfig {
    /// The type.
    #[schema(required = true)]
    pub feature_type: Option<FeatureType>,
    /// What a layer 3 feature needs.
    pub l3_base_config: Option<L3BaseConfig>,
}

/// A feature. At most one layer 3 feature a connection and channel; it cannot be changed.
#[skip_serializing_none]
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Feature {
    /// `providers/{provider}/environments/{environment}/interconnects/{interconnect}/connections/{connection}/features/{feature}`.
    pub name: Option<String>,
    /// `providers/{provider}/environments/{environment}/interconnects/{interconnect}/channels/{channel}`.
    pub channel: Option<String>,
    /// Its configuration.
    pub feature_config: Option<FeatureConfig>,
    /// How far the server is.
    #[schema(read_only)]
    pub provisioning_state: Option<ProvisioningState>,
    /// Whether UpdateFeature works; false if absent.
    #[schema(read_only, default = false)]
    pub updatable: Option<bool>,
}

/// A page of features.
#[skip_serializing_none]
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ListFeaturesResponse {
    /// The features.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub features: Vec<Feature>,
    /// Where the next page begins; absent on the last.
    pub next_page_token: Option<String>,
}

/// The lowest VLAN that a connection may use: 1024 and lower are reserved.
pub const LOWEST_VLAN: u16 = 1_025;

/// A subnet and its two hosts, ours and theirs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hosts<N, A> {
    /// The subnet, mask applied.
    pub subnet: N,
    /// The host of the first provider of [`L3Base::ends`].
    pub first: A,
    /// The host of the second.
    pub second: A,
}

/// One end of a session: whose, and its AS number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BgpEnd {
    /// The provider's id.
    pub provider: String,
    /// Its AS number.
    pub asn: Asn,
}

/// A layer 3 configuration that keeps every rule that needs no other knowledge.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct L3Base {
    /// The VLAN, 1025 to 4094.
    pub vlan: Vlan,
    /// The MTU.
    pub mtu: Mtu,
    /// The two ends, in order of provider id.
    pub ends: [BgpEnd; 2],
    /// IPv4.
    pub ipv4: Option<Hosts<Ipv4Net, Ipv4Addr>>,
    /// IPv6.
    pub ipv6: Option<Hosts<Ipv6Net, Ipv6Addr>>,
    /// The key of the session.
    pub md5_bgp_password: Sensitive,
}

/// Which rule a layer 3 configuration breaks.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {message}")]
pub struct L3Error {
    /// The field, as it stands in JSON.
    pub field: &'static str,
    /// What is wrong, and what would be right.
    pub message: String,
}

fn wrong(field: &'static str, message: impl Into<String>) -> L3Error {
    L3Error { field, message: message.into() }
}

impl L3BaseConfig {
    /// Reads the configuration strictly, for a pair of providers.
    ///
    /// The rules are the specification's: VLAN above 1024, the subnet's mask applied, both providers' ends with their AS
    /// numbers, both hosts inside of the subnet; and at least one IP version, the password within what TCP MD5 keys hold
    /// (80 bytes, RFC 2385 section 4.5 leaves the length to implementations; the least common maximum is 80).
    ///
    /// # Errors
    /// [`L3Error`] naming the first field that is wrong.
    pub fn check(&self, providers: [&str; 2]) -> Result<L3Base, L3Error> {
        let number = |field, value: Option<i32>| {
            let value = value.ok_or_else(|| wrong(field, "is required"))?;
            u64::try_from(value).map_err(|_| wrong(field, "is negative"))
        };
        let vlan = Vlan::try_from(number("vlanId", self.vlan_id)?).map_err(|e| wrong("vlanId", e.to_string()))?;
        if vlan.get() < LOWEST_VLAN {
            return Err(wrong("vlanId", format!("VLAN {vlan} is reserved: take {LOWEST_VLAN} or higher")));
        }
        let mtu = Mtu::try_from(number("mtuBytes", self.mtu_bytes)?).map_err(|e| wrong("mtuBytes", e.to_string()))?;
        let mut order = providers;
        order.sort_unstable();
        let [first, second] = [self.end(order[0])?, self.end(order[1])?];
        if self.provider_bgp_configs.len() != 2 {
            return Err(wrong("providerBgpConfigs", "holds one entry for each of the two providers"));
        }
        let password = self.md5_bgp_password.clone().ok_or_else(|| wrong("md5BgpPassword", "is required"))?;
        if !(1..=80).contains(&password.expose().len()) {
            return Err(wrong("md5BgpPassword", "has 1 to 80 bytes"));
        }
        let ipv4 = ipv4(self, [first.1, second.1])?;
        let ipv6 = ipv6(self, [first.1, second.1])?;
        if ipv4.is_none() && ipv6.is_none() {
            return Err(wrong("ipv4Subnet", "is required, or ipv6Subnet"));
        }
        Ok(L3Base { vlan, mtu, ends: [first.0, second.0], ipv4, ipv6, md5_bgp_password: password })
    }

    fn end(&self, provider: &str) -> Result<(BgpEnd, &ProviderBgpConfig), L3Error> {
        let name = format!("providers/{provider}");
        let field = "providerBgpConfigs";
        let mut of = self.provider_bgp_configs.iter().filter(|c| c.provider.as_deref() == Some(name.as_str()));
        let (Some(config), None) = (of.next(), of.next()) else {
            return Err(wrong(field, format!("holds exactly one entry of {name}")));
        };
        let asn = config.asn.ok_or_else(|| wrong(field, format!("{name} has no asn")))?;
        let asn = Asn::try_from(u64::from(asn)).map_err(|e| wrong(field, e.to_string()))?;
        Ok((BgpEnd { provider: provider.to_owned(), asn }, config))
    }
}

macro_rules! family {
    ($name:ident, $Net:ty, $Addr:ty, $subnet:ident, $length:ident, $host:ident, $field:literal, $host_field:literal) => {
        fn $name(config: &L3BaseConfig, ends: [&ProviderBgpConfig; 2]) -> Result<Option<Hosts<$Net, $Addr>>, L3Error> {
            let subnet = match (config.$subnet.as_deref().filter(|text| !text.is_empty()), config.$length) {
                (None, _) => return Ok(None),
                (Some(_), None) => return Err(wrong($field, "needs its prefix length")),
                (Some(text), Some(length)) => format!("{text}/{length}"),
            };
            let net: $Net = subnet.parse().map_err(|_| wrong($field, format!("{subnet} is no subnet")))?;
            if net.addr() != net.network() {
                return Err(wrong($field, format!("the mask is not applied: {} is", net.trunc())));
            }
            let host = |config: &ProviderBgpConfig| {
                let host = config.$host.as_deref().and_then(|text| text.parse::<$Addr>().ok());
                let host = host.ok_or_else(|| wrong("providerBgpConfigs", concat!($host_field, " is no address")))?;
                // On the two-address subnets every address is a host (RFC 3021, RFC 6164).
                let ends = net.prefix_len() < net.max_prefix_len() - 1
                    && (host == net.network() || (net.max_prefix_len() == 32 && host == net.broadcast()));
                if net.contains(&host) && !ends {
                    Ok(host)
                } else {
                    Err(wrong("providerBgpConfigs", format!("{host} is no host of {net}")))
                }
            };
            let (first, second) = (host(ends[0])?, host(ends[1])?);
            if first == second {
                return Err(wrong("providerBgpConfigs", format!("both ends have {first}")));
            }
            Ok(Some(Hosts { subnet: net, first, second }))
        }
    };
}

family!(ipv4, Ipv4Net, Ipv4Addr, ipv4_subnet, ipv4_subnet_prefix_length, host_ipv4, "ipv4Subnet", "hostIpv4");
family!(ipv6, Ipv6Net, Ipv6Addr, ipv6_subnet, ipv6_subnet_prefix_length, host_ipv6, "ipv6Subnet", "hostIpv6");

impl L3Base {
    /// The configuration as it goes over the wire.
    #[must_use]
    pub fn to_config(&self) -> L3BaseConfig {
        let end = |at: usize| {
            let host4 = self.ipv4.as_ref().map(|h| if at == 0 { h.first } else { h.second }.to_string());
            let host6 = self.ipv6.as_ref().map(|h| if at == 0 { h.first } else { h.second }.to_string());
            ProviderBgpConfig {
                provider: Some(format!("providers/{}", self.ends[at].provider)),
                asn: Some(self.ends[at].asn.get()),
                host_ipv4: host4,
                host_ipv6: host6,
            }
        };
        L3BaseConfig {
            ipv4_subnet: self.ipv4.as_ref().map(|h| h.subnet.network().to_string()),
            ipv4_subnet_prefix_length: self.ipv4.as_ref().map(|h| i32::from(h.subnet.prefix_len())),
            ipv6_subnet: self.ipv6.as_ref().map(|h| h.subnet.network().to_string()),
            ipv6_subnet_prefix_length: self.ipv6.as_ref().map(|h| i32::from(h.subnet.prefix_len())),
            mtu_bytes: Some(i32::from(self.mtu.get())),
            vlan_id: Some(i32::from(self.vlan.get())),
            provider_bgp_configs: vec![end(0), end(1)],
            md5_bgp_password: Some(self.md5_bgp_password.clone()),
        }
    }
}
