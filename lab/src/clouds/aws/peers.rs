//! BGP peers: their rules, defaults, creation and deletion.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    Api,
    reads::no_interface,
    state::{Aws, Family, Peer, Phase},
    vifs::required,
    wire::AwsError,
};

/// What the client may say about a new peer (`NewBGPPeer`).
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct NewPeer {
    asn: Option<i64>,
    asn_long: Option<i64>,
    auth_key: Option<String>,
    address_family: Option<Family>,
    amazon_address: Option<String>,
    customer_address: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct CreatePeer {
    virtual_interface_id: Option<String>,
    #[serde(rename = "newBGPPeer")]
    new_bgp_peer: Option<NewPeer>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct DeletePeer {
    virtual_interface_id: Option<String>,
    asn: Option<i64>,
    asn_long: Option<i64>,
    customer_address: Option<String>,
    bgp_peer_id: Option<String>,
}

impl NewPeer {
    /// The AS number, and whether the answer's `asn` must be 0. `asnLong` wins where both are given (`NewPrivateVirtualInterface`).
    fn asn(&self) -> Result<(u32, bool), AwsError> {
        let (given, most, name) = match (self.asn_long, self.asn) {
            (Some(long), _) => (long, 4_294_967_294, "asnLong"),
            (None, Some(short)) => (short, 2_147_483_646, "asn"),
            (None, None) => return Err(AwsError::client("Specify asn or asnLong.")),
        };
        if !(1..=most).contains(&given) {
            return Err(AwsError::client(format!("{name} {given} is not valid: it must be 1 to {most}.")));
        }
        let asn = u32::try_from(given).map_err(|_| AwsError::client(format!("{name} {given} is not valid.")))?;
        Ok((asn, self.asn_long.is_some() && asn > u32::from(u16::MAX)))
    }
}

/// Two addresses with masks, both in one subnet, both usable by hosts.
fn pair(amazon: &str, customer: &str) -> Result<(Ipv4Net, Ipv4Net), AwsError> {
    let parse = |text: &str| {
        text.parse::<Ipv4Net>()
            .map_err(|_| AwsError::client(format!("{text:?} is not an IPv4 address with a prefix length.")))
    };
    let (amazon, customer) = (parse(amazon)?, parse(customer)?);
    if amazon.trunc() != customer.trunc() {
        return Err(AwsError::client(format!("{amazon} and {customer} are not in the same subnet.")));
    }
    if amazon.addr() == customer.addr() {
        return Err(AwsError::client("The Amazon and the customer address are the same."));
    }
    for net in [amazon, customer] {
        let reserved = net.prefix_len() < 31 && [net.network(), net.broadcast()].contains(&net.addr());
        if net.prefix_len() > 31 || reserved {
            return Err(AwsError::client(format!("{net} is not the address of a host in its subnet.")));
        }
    }
    Ok((amazon, customer))
}

/// The subnets of 169.254.0.0/16 that AWS keeps for itself.
fn reserved() -> Vec<Ipv4Net> {
    let kept = [(169, 254, 0, 0, 21), (169, 254, 169, 0, 24)];
    kept.iter().filter_map(|(a, b, c, d, len)| Ipv4Net::new(Ipv4Addr::new(*a, *b, *c, *d), *len).ok()).collect()
}

impl Aws {
    fn addresses(&mut self, new: &NewPeer, family: Family) -> Result<(IpNet, IpNet), AwsError> {
        match (family, new.amazon_address.as_deref(), new.customer_address.as_deref()) {
            (Family::Ipv4, Some(amazon), Some(customer)) => {
                let (amazon, customer) = pair(amazon, customer)?;
                Ok((amazon.into(), customer.into()))
            }
            (Family::Ipv4, None, None) => {
                let mut used = self.addresses_in_use();
                used.extend(reserved());
                let pool = Ipv4Net::new(Ipv4Addr::new(169, 254, 0, 0), 16).into_iter().collect::<Vec<_>>();
                let subnet = self.draw.subnet(&pool, 30, &used);
                let subnet = subnet.ok_or_else(|| AwsError::client("No /30 is free for this peer."))?;
                let host = |n: u32| Ipv4Net::new(Ipv4Addr::from(u32::from(subnet.network()) + n), 30);
                match (host(1), host(2)) {
                    (Ok(amazon), Ok(customer)) => Ok((amazon.into(), customer.into())),
                    _ => Err(AwsError::client("No /30 is free for this peer.")),
                }
            }
            (Family::Ipv6, None, None) => {
                let base = 0x2600_1fff_0000_0000_0000_0000_0000_0000 | (u128::from(self.draw.number()) << 3);
                let host = |n: u128| Ipv6Net::new(Ipv6Addr::from((base & !7) + n), 125);
                match (host(1), host(2)) {
                    (Ok(amazon), Ok(customer)) => Ok((amazon.into(), customer.into())),
                    _ => Err(AwsError::client("No /125 is free for this peer.")),
                }
            }
            (Family::Ipv4, ..) => Err(AwsError::client("Specify both amazonAddress and customerAddress, or neither.")),
            (Family::Ipv6, ..) => {
                Err(AwsError::client("IPv6 addresses are assigned by Amazon: omit amazonAddress and customerAddress."))
            }
        }
    }

    /// A peer by the rules of `NewBGPPeer`, with everything that was omitted filled in. MD5 is always on.
    pub(super) fn new_peer(&mut self, new: &NewPeer, amazon_asn: u32, now: jiff::Timestamp) -> Result<Peer, AwsError> {
        let (asn, asn_is_long) = new.asn()?;
        if asn == amazon_asn {
            return Err(AwsError::client(format!("The BGP ASN {asn} is the Amazon side ASN: they must differ.")));
        }
        let usable = |key: &String| (6..=80).contains(&key.len()) && key.bytes().all(|b| b.is_ascii_graphic());
        if !new.auth_key.as_ref().is_none_or(usable) {
            return Err(AwsError::client("The BGP authentication key must have 6 to 80 characters and no spaces."));
        }
        let family = new.address_family.unwrap_or(Family::Ipv4);
        let (amazon_address, customer_address) = self.addresses(new, family)?;
        Ok(Peer {
            bgp_peer_id: format!("dxpeer-fg{}", self.draw.text(6)),
            asn,
            asn_is_long,
            auth_key: new.auth_key.clone().unwrap_or_else(|| format!("0x{}", self.draw.text(22))),
            address_family: family,
            amazon_address,
            customer_address,
            phase: Phase::Pending,
            since: now,
        })
    }

    fn add_peer(&mut self, id: &str, new: &NewPeer, now: jiff::Timestamp) -> Result<(), AwsError> {
        let living = self.interface(id).filter(|vif| matches!(vif.phase, Phase::Pending | Phase::Active));
        let vif = living.ok_or_else(|| no_interface(id))?.clone();
        let family = new.address_family.unwrap_or(Family::Ipv4);
        let same = vif.bgp_peers.iter().filter(|peer| peer.address_family == family).count();
        let most = if self.lag(&vif.connection_id).is_some_and(|lag| lag.logical_redundancy) { 2 } else { 1 };
        if same >= most {
            return Err(AwsError::client(format!(
                "Virtual interface {id} has {same} BGP peer of this address family, and logical redundancy is not supported."
            )));
        }
        let amazon_asn = self.gateway(&vif.gateway_id).map_or(0, |gateway| gateway.asn);
        let peer = self.new_peer(new, amazon_asn, now)?;
        if let Some(vif) = self.interfaces.iter_mut().find(|vif| vif.id == id) {
            vif.bgp_peers.push(peer);
        }
        Ok(())
    }

    fn remove_peer(&mut self, id: &str, asked: &DeletePeer, now: jiff::Timestamp) -> Result<(), AwsError> {
        let asn = asked.asn_long.or(asked.asn);
        if asked.bgp_peer_id.is_none() && (asn.is_none() || asked.customer_address.is_none()) {
            return Err(AwsError::client("Specify bgpPeerId, or asn and customerAddress."));
        }
        let found = self.interfaces.iter_mut().find(|vif| vif.id == id && vif.is_live());
        let vif = found.ok_or_else(|| no_interface(id))?;
        let matches = |peer: &Peer| {
            asked.bgp_peer_id.as_ref().is_none_or(|wanted| *wanted == peer.bgp_peer_id)
                && asn.is_none_or(|asn| asn == i64::from(peer.asn))
                && asked.customer_address.as_ref().is_none_or(|wanted| is_address(wanted, peer.customer_address))
        };
        let living = vif.bgp_peers.iter().filter(|peer| peer.phase != Phase::Deleting).count();
        let peer = vif.bgp_peers.iter_mut().find(|peer| matches(peer));
        let peer = peer.ok_or_else(|| AwsError::client(format!("Virtual interface {id} has no such BGP peer.")))?;
        if peer.phase == Phase::Deleting {
            return Ok(());
        }
        if living == 1 {
            return Err(AwsError::client("You cannot delete the last BGP peer from a virtual interface."));
        }
        (peer.phase, peer.since) = (Phase::Deleting, now);
        Ok(())
    }
}

fn is_address(text: &str, address: IpNet) -> bool {
    text.parse::<IpNet>().is_ok_and(|net| net == address) || text.parse::<IpAddr>().is_ok_and(|ip| ip == address.addr())
}

impl Api {
    pub(super) async fn create_peer(&self, asked: CreatePeer) -> Result<Value, AwsError> {
        let id = required(asked.virtual_interface_id.as_ref(), "virtualInterfaceId")?;
        let new = required(asked.new_bgp_peer.as_ref(), "newBGPPeer")?;
        self.sim.write(|aws, now| aws.add_peer(id, new, now))?;
        Ok(json!({ "virtualInterface": self.echo(id).await? }))
    }

    pub(super) async fn delete_peer(&self, asked: DeletePeer) -> Result<Value, AwsError> {
        let id = required(asked.virtual_interface_id.as_ref(), "virtualInterfaceId")?;
        self.sim.write(|aws, now| aws.remove_peer(id, &asked, now))?;
        Ok(json!({ "virtualInterface": self.echo(id).await? }))
    }
}
