//! AWS's answers as the engine sees them.

use aws_sdk_directconnect::types::{AddressFamily, BgpPeer, BgpStatus, Tag, VirtualInterface, VirtualInterfaceState};
use ipnet::Ipv4Net;
use serde_json::{Map, Value, json};
use std::net::Ipv4Addr;
use tieline_openapi::{
    ids::InstanceId,
    units::{Mtu, Vlan},
    v1::BgpState,
};

use super::rules::PRIVATE_VIRTUAL_INTERFACE;
use crate::{
    feature::Ipv4Pair,
    resource::{Learned, Observed, OwnerTag, Presence, ResourceKind},
};

/// The first 32 bits of the installation's id, as eight hexadecimal digits.
pub(super) const INSTALLATION_TAG: &str = "tieline:installation";
/// The instance's id.
pub(super) const INSTANCE_TAG: &str = "tieline:instance";
/// The connection's id.
pub(super) const CONNECTION_TAG: &str = "tieline:connection";

/// The tags that tell whose an interface is.
pub(super) fn owner_tags(owner: &OwnerTag) -> [(&'static str, String); 2] {
    [(INSTALLATION_TAG, format!("{:08x}", owner.installation)), (INSTANCE_TAG, owner.instance.to_string())]
}

/// Whose the tags say it is; `None` where either is missing or malformed.
pub(super) fn owner(tags: &[Tag]) -> Option<OwnerTag> {
    let installation = value(tags, INSTALLATION_TAG)?;
    let instance: InstanceId = value(tags, INSTANCE_TAG)?.parse().ok()?;
    let owner = OwnerTag { installation: u32::from_str_radix(installation, 16).ok()?, instance };
    // One tag has one spelling.
    (owner_tags(&owner)[0].1 == installation).then_some(owner)
}

fn value<'a>(tags: &'a [Tag], key: &str) -> Option<&'a str> {
    tags.iter().find(|tag| tag.key() == key).and_then(Tag::value)
}

/// A virtual interface of any type: others' public and transit ones hold VLANs as well. `None` where the answer has no id.
/// No key is taken over.
pub(super) fn virtual_interface(seen: &VirtualInterface) -> Option<Observed> {
    let cloud_id = seen.virtual_interface_id()?.to_owned();
    let state = seen.virtual_interface_state();
    let peer = ipv4_peer(seen);
    let amazon = seen.amazon_address().or_else(|| peer.and_then(BgpPeer::amazon_address));
    let customer = seen.customer_address().or_else(|| peer.and_then(BgpPeer::customer_address));
    let tags: Map<String, Value> = seen
        .tags()
        .iter()
        .filter(|tag| tag.key() == CONNECTION_TAG)
        .map(|tag| (tag.key().to_owned(), json!(tag.value())))
        .collect();
    Some(Observed {
        kind: kind(seen.virtual_interface_type()),
        cloud_id,
        owner: owner(seen.tags()),
        provider_state: state.map_or("unknown", VirtualInterfaceState::as_str).to_owned(),
        presence: presence(state),
        bgp: peer.and_then(BgpPeer::bgp_status).map(bgp),
        bfd: None,
        learned: Learned {
            ipv4: pair(amazon, customer),
            vlan: u64::try_from(seen.vlan()).ok().and_then(|vlan| Vlan::try_from(vlan).ok()),
            mtu: seen.mtu().and_then(|mtu| u64::try_from(mtu).ok()).and_then(|mtu| Mtu::try_from(mtu).ok()),
        },
        fields: json!({
            "connectionId": seen.connection_id(),
            "vlan": seen.vlan(),
            "asnLong": asn(seen.asn_long(), seen.asn()).or_else(|| peer.and_then(|p| asn(p.asn_long(), p.asn()))),
            "mtu": seen.mtu(),
            "amazonAddress": amazon,
            "customerAddress": customer,
            "addressFamily": seen.address_family().map_or("ipv4", AddressFamily::as_str),
            "directConnectGatewayId": seen.direct_connect_gateway_id(),
            "tags": tags,
        }),
        created_at: None,
    })
}

fn kind(kind: Option<&str>) -> ResourceKind {
    match kind {
        None | Some("private") => PRIVATE_VIRTUAL_INTERFACE,
        Some(other) => ResourceKind(format!("aws.{other}VirtualInterface").into()),
    }
}

/// `down` is only BGP's state: the interface itself is there and whole.
fn presence(state: Option<&VirtualInterfaceState>) -> Presence {
    match state {
        Some(VirtualInterfaceState::Available | VirtualInterfaceState::Down | VirtualInterfaceState::Testing) => {
            Presence::Usable
        }
        Some(VirtualInterfaceState::Rejected) => Presence::Failed,
        Some(VirtualInterfaceState::Deleting) => Presence::Leaving,
        // AWS shows a deleted interface for a while longer.
        Some(VirtualInterfaceState::Deleted) => Presence::Gone,
        _ => Presence::Settling,
    }
}

/// The peer that the interface was made with.
fn ipv4_peer(seen: &VirtualInterface) -> Option<&BgpPeer> {
    seen.bgp_peers().iter().find(|peer| !matches!(peer.address_family(), Some(AddressFamily::IPv6)))
}

fn bgp(status: &BgpStatus) -> BgpState {
    match status.as_str() {
        "up" => BgpState::Established,
        "down" => BgpState::Down,
        _ => BgpState::Unknown,
    }
}

/// A 4-byte AS number stands in `asnLong` only; `asn` is 0 then.
fn asn(long: Option<i64>, short: i32) -> Option<i64> {
    long.filter(|&asn| asn != 0).or(Some(i64::from(short)).filter(|&asn| asn != 0))
}

/// Both addresses come with the prefix length.
fn pair(amazon: Option<&str>, customer: Option<&str>) -> Option<Ipv4Pair> {
    let (host, length) = amazon?.split_once('/')?;
    let host: Ipv4Addr = host.parse().ok()?;
    let peer: Ipv4Addr = customer?.split('/').next()?.parse().ok()?;
    let subnet = Ipv4Net::new(host, length.parse().ok()?).ok()?.trunc();
    subnet.contains(&peer).then_some(Ipv4Pair { subnet, host, peer })
}
