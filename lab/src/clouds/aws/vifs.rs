//! Creating, changing and deleting private virtual interfaces.

use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    Api,
    peers::NewPeer,
    reads::no_interface,
    state::{Aws, Family, Peer, Phase, Tag, VirtualInterface},
    tags,
    wire::AwsError,
};
use crate::clouds::world::AwsLag;

/// What a private virtual interface takes where nothing is asked ("100 routes per BGP session", Direct Connect quotas).
const PREFIXES: u32 = 100;

/// The supported rate limits (`VirtualInterface$rateLimit`).
const RATES: &str = "\
    50Mbps 100Mbps 200Mbps 300Mbps 400Mbps 500Mbps 600Mbps 700Mbps 800Mbps 900Mbps 1Gbps 1.2Gbps 1.5Gbps 1.8Gbps \
    2Gbps 2.1Gbps 2.4Gbps 2.7Gbps 3Gbps 3.2Gbps 3.6Gbps 4Gbps 5Gbps 6Gbps 7Gbps 8Gbps 9Gbps 10Gbps 12Gbps 15Gbps \
    18Gbps 20Gbps 21Gbps 24Gbps 27Gbps 30Gbps 32Gbps 36Gbps 40Gbps 50Gbps 60Gbps 70Gbps 80Gbps 100Gbps 120Gbps \
    150Gbps 180Gbps 200Gbps 210Gbps 240Gbps 270Gbps 300Gbps 320Gbps 360Gbps 400Gbps 450Gbps 480Gbps 500Gbps \
    540Gbps 600Gbps 700Gbps 800Gbps 900Gbps 1Tbps 1.1Tbps 1.2Tbps 1.3Tbps 1.4Tbps 1.5Tbps 1.6Tbps";

/// A bandwidth in AWS's words, in Mbit/s.
fn mbps(words: &str) -> Option<f64> {
    let unit = |suffix: &str, factor: f64| Some(words.strip_suffix(suffix)?.parse::<f64>().ok()? * factor);
    unit("Mbps", 1.0).or_else(|| unit("Gbps", 1e3)).or_else(|| unit("Tbps", 1e6))
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct CreateInterface {
    connection_id: Option<String>,
    new_private_virtual_interface: Option<NewInterface>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct NewInterface {
    virtual_interface_name: Option<String>,
    vlan: Option<i64>,
    mtu: Option<i64>,
    virtual_gateway_id: Option<String>,
    direct_connect_gateway_id: Option<String>,
    tags: Vec<Tag>,
    enable_site_link: bool,
    prefix_pool_allocated_count_ipv4: Option<u32>,
    prefix_pool_allocated_count_ipv6: Option<u32>,
    rate_limit: Option<String>,
    #[serde(flatten)]
    peer: NewPeer,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct UpdateInterface {
    virtual_interface_id: Option<String>,
    mtu: Option<i64>,
    enable_site_link: Option<bool>,
    virtual_interface_name: Option<String>,
    prefix_pool_allocated_count_ipv4: Option<u32>,
    prefix_pool_allocated_count_ipv6: Option<u32>,
    rate_limit: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct DeleteInterface {
    virtual_interface_id: Option<String>,
}

/// A required member.
pub(super) fn required<'a, T>(member: Option<&'a T>, name: &str) -> Result<&'a T, AwsError> {
    member.ok_or_else(|| AwsError::client(format!("The parameter {name} is required.")))
}

fn check_name(name: &str) -> Result<(), AwsError> {
    let allowed = name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    if (1..=100).contains(&name.len()) && allowed {
        return Ok(());
    }
    Err(AwsError::client(format!(
        "Virtual interface name {name:?} is not valid: up to 100 characters, a-z, 0-9 and hyphen."
    )))
}

fn check_mtu(mtu: i64, lag: &AwsLag) -> Result<u16, AwsError> {
    match mtu {
        1500 => Ok(1500),
        8500 if lag.jumbo_frame_capable => Ok(8500),
        8500 => Err(AwsError::client(format!("{} is not jumbo frame capable, so MTU 8500 is not supported.", lag.id))),
        _ => Err(AwsError::client(format!("MTU {mtu} is not valid. The supported values are 1500 and 8500."))),
    }
}

fn check_rate(rate: Option<&String>, lag: &AwsLag) -> Result<(), AwsError> {
    let Some(rate) = rate else { return Ok(()) };
    let limit = mbps(rate).filter(|_| RATES.split(' ').any(|supported| supported == rate));
    let limit = limit.ok_or_else(|| AwsError::client(format!("Rate limit {rate:?} is not a supported value.")))?;
    if mbps(&lag.bandwidth).is_some_and(|link| limit > link * f64::from(lag.links)) {
        return Err(AwsError::client(format!("Rate limit {rate} exceeds the bandwidth of {}.", lag.id)));
    }
    Ok(())
}

impl Aws {
    fn port(&self, id: &str) -> Result<AwsLag, AwsError> {
        if let Some(lag) = self.lags.iter().find(|lag| Self::member_ids(lag).iter().any(|member| member == id)) {
            let message =
                format!("Connection {id} is a member of {}: create the virtual interface on the LAG.", lag.id);
            return Err(AwsError::client(message));
        }
        self.lag(id).cloned().ok_or_else(|| AwsError::client(format!("Could not find Connection with ID {id}")))
    }

    fn check_slot(&self, lag: &AwsLag, vlan: i64) -> Result<u16, AwsError> {
        let valid = u16::try_from(vlan).ok().filter(|vlan| (1..=4094).contains(vlan));
        let vlan = valid.ok_or_else(|| AwsError::client(format!("VLAN {vlan} is not valid: it must be 1 to 4094.")))?;
        if self.on_port(&lag.id).any(|vif| vif.vlan == vlan) {
            return Err(AwsError::client(format!("VLAN {vlan} is already in use on connection {}.", lag.id)));
        }
        if self.on_port(&lag.id).count() >= lag.max_virtual_interfaces {
            return Err(AwsError::client(format!(
                "The maximum number of virtual interfaces ({}) on {} has been reached.",
                lag.max_virtual_interfaces, lag.id
            )));
        }
        Ok(vlan)
    }

    fn check_pool(&self, lag: &AwsLag, asked: u32, had: u32) -> Result<(), AwsError> {
        if asked > self.prefixes_left(lag).saturating_add(had) {
            return Err(AwsError::client(format!("The prefix pool of {} has no {asked} IPv4 prefixes left.", lag.id)));
        }
        Ok(())
    }

    pub(super) fn create(&mut self, asked: CreateInterface, now: jiff::Timestamp) -> Result<String, AwsError> {
        let port = required(asked.connection_id.as_ref(), "connectionId")?.clone();
        let new = asked.new_private_virtual_interface;
        let new = new.ok_or_else(|| AwsError::client("The parameter newPrivateVirtualInterface is required."))?;
        let name = required(new.virtual_interface_name.as_ref(), "virtualInterfaceName")?.clone();
        check_name(&name)?;
        tags::check(&new.tags)?;
        let lag = self.port(&port)?;
        let vlan = self.check_slot(&lag, *required(new.vlan.as_ref(), "vlan")?)?;
        let mtu = check_mtu(new.mtu.unwrap_or(1500), &lag)?;
        check_rate(new.rate_limit.as_ref(), &lag)?;
        let pool = new.prefix_pool_allocated_count_ipv4.unwrap_or(PREFIXES);
        self.check_pool(&lag, pool, 0)?;
        let gateway_id = match (new.direct_connect_gateway_id, new.virtual_gateway_id) {
            (Some(id), None) => id,
            (None, Some(id)) => return Err(AwsError::client(format!("Virtual gateway {id} does not exist"))),
            (None, None) | (Some(_), Some(_)) => {
                let message = "Specify either a Direct Connect gateway or a virtual private gateway, and only one.";
                return Err(AwsError::client(message));
            }
        };
        let gateway = self.gateway(&gateway_id);
        let amazon_asn =
            gateway.ok_or_else(|| AwsError::client(format!("Direct Connect Gateway {gateway_id} does not exist")))?.asn;
        let mut peer = self.new_peer(&new.peer, amazon_asn, now)?;
        peer.phase = Phase::Pending;
        let id = format!("dxvif-fg{}", self.draw.text(6));
        let n = self.number();
        if !new.tags.is_empty() {
            let arn = self.arn("dxvif", &id);
            self.tags.insert(arn, new.tags);
        }
        self.interfaces.push(VirtualInterface {
            n,
            id: id.clone(),
            name,
            connection_id: port,
            vlan,
            mtu,
            gateway_id,
            phase: Phase::Pending,
            since: now,
            bgp_peers: vec![peer],
            prefix_pool_ipv4: pool,
            prefix_pool_ipv6: new.prefix_pool_allocated_count_ipv6.unwrap_or(0),
            rate_limit: new.rate_limit,
            site_link_enabled: new.enable_site_link,
            stranger: false,
        });
        Ok(id)
    }

    pub(super) fn update(&mut self, asked: UpdateInterface) -> Result<String, AwsError> {
        let id = required(asked.virtual_interface_id.as_ref(), "virtualInterfaceId")?.clone();
        let changeable = |vif: &&VirtualInterface| matches!(vif.phase, Phase::Pending | Phase::Active);
        let vif = self.interface(&id).filter(changeable).ok_or_else(|| no_interface(&id))?.clone();
        let lag = self.port(&vif.connection_id)?;
        let mtu = asked.mtu.map_or(Ok(vif.mtu), |mtu| check_mtu(mtu, &lag))?;
        if let Some(name) = &asked.virtual_interface_name {
            check_name(name)?;
        }
        check_rate(asked.rate_limit.as_ref(), &lag)?;
        let pool = asked.prefix_pool_allocated_count_ipv4.unwrap_or(vif.prefix_pool_ipv4);
        self.check_pool(&lag, pool, vif.prefix_pool_ipv4)?;
        if let Some(vif) = self.interfaces.iter_mut().find(|vif| vif.id == id) {
            vif.mtu = mtu;
            vif.prefix_pool_ipv4 = pool;
            vif.name = asked.virtual_interface_name.unwrap_or_else(|| vif.name.clone());
            vif.site_link_enabled = asked.enable_site_link.unwrap_or(vif.site_link_enabled);
            vif.prefix_pool_ipv6 = asked.prefix_pool_allocated_count_ipv6.unwrap_or(vif.prefix_pool_ipv6);
            vif.rate_limit = asked.rate_limit.or_else(|| vif.rate_limit.take());
        }
        Ok(id)
    }

    /// Auto-assigned addresses keep clear of every peer of the account.
    pub(super) fn addresses_in_use(&self) -> Vec<ipnet::Ipv4Net> {
        let peers = self.interfaces.iter().filter(|vif| vif.is_live()).flat_map(|vif| &vif.bgp_peers);
        let v4 = |peer: &Peer| match peer.amazon_address {
            ipnet::IpNet::V4(net) if peer.address_family == Family::Ipv4 => Some(net.trunc()),
            ipnet::IpNet::V4(_) | ipnet::IpNet::V6(_) => None,
        };
        peers.filter_map(v4).collect()
    }
}

impl Api {
    /// One interface as it is now, whatever the lag of reads: a mutation's answer shows its own effect.
    pub(super) async fn echo(&self, id: &str) -> Result<Value, AwsError> {
        let status = self.sim.status().await;
        self.sim.peek(|aws| {
            let vif = aws.interface(id).ok_or_else(|| no_interface(id))?;
            Ok(aws.show_interface(vif, &status))
        })
    }

    pub(super) async fn create_private(&self, asked: CreateInterface) -> Result<Value, AwsError> {
        let id = self.sim.write(|aws, now| aws.create(asked, now))?;
        self.echo(&id).await
    }

    pub(super) async fn update_attributes(&self, asked: UpdateInterface) -> Result<Value, AwsError> {
        let id = self.sim.write(|aws, _| aws.update(asked))?;
        self.echo(&id).await
    }

    pub(super) fn delete_interface(&self, asked: &DeleteInterface) -> Result<Value, AwsError> {
        let id = required(asked.virtual_interface_id.as_ref(), "virtualInterfaceId")?;
        self.sim.write(|aws, now| {
            let found = aws.interfaces.iter_mut().find(|vif| vif.id == *id && vif.is_live());
            let vif = found.ok_or_else(|| no_interface(id))?;
            if vif.phase != Phase::Deleting {
                (vif.phase, vif.since) = (Phase::Deleting, now);
            }
            Ok(json!({ "virtualInterfaceState": "deleting" }))
        })
    }
}
