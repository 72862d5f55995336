//! Virtual interfaces that were there before us and are none of our business.

use ipnet::{IpNet, Ipv4Net};
use tieline_openapi::v1::Timestamp;

use super::state::{Aws, Family, Gateway, Peer, Phase, Tag, VirtualInterface};

/// Names that strangers chose. The second looks like Tieline's, of another installation; the third only begins like it.
const NAMES: [&str; 3] = ["dc-east-legacy", "tl-0badcafe-01hzy8qk5v3x2w9c7b4n6m8d0f", "tl-router-uplink"];

/// Puts a strangers' gateway and a few virtual interfaces on the first LAG, one of them on our gateway.
pub(super) fn settle_in(aws: &mut Aws, now: Timestamp) {
    let Some(port) = aws.lags.first().map(|lag| lag.id.clone()) else { return };
    let theirs = Gateway {
        id: "0e6c1f9a-77d1-4a0e-9b7e-3f0c5b7a9c02".to_owned(),
        name: "legacy".to_owned(),
        asn: 64_600,
        association_id: "0e6c1f9a-77d1-4a0e-9b7e-3f0c5b7a9c03".to_owned(),
        virtual_gateway_id: "vgw-0ffeeddccbbaa9988".to_owned(),
        allowed_prefixes: "172.31.0.0/16".parse::<Ipv4Net>().into_iter().collect(),
    };
    let gateways = [theirs.id.clone(), aws.gateways[0].id.clone(), theirs.id.clone()];
    aws.gateways.push(theirs);
    for (i, (name, gateway_id)) in NAMES.iter().zip(gateways).enumerate() {
        let octet = u8::try_from(i).unwrap_or_default() * 4;
        let address = |host: u8| {
            let ip = std::net::Ipv4Addr::new(169, 254, 40, octet + host);
            Ipv4Net::new(ip, 30).map(IpNet::V4).ok()
        };
        let (Some(amazon_address), Some(customer_address)) = (address(1), address(2)) else { continue };
        let id = format!("dxvif-fh{i:06x}");
        aws.tags.insert(
            format!("arn:aws:directconnect:{}:{}:dxvif/{id}", aws.region, aws.account),
            vec![Tag { key: "owner".to_owned(), value: "network-operations".to_owned() }],
        );
        let n = aws.number();
        aws.interfaces.push(VirtualInterface {
            n,
            id,
            name: (*name).to_owned(),
            connection_id: port.clone(),
            vlan: 301 + u16::try_from(i).unwrap_or_default(),
            mtu: 1500,
            gateway_id,
            phase: Phase::Active,
            since: now,
            bgp_peers: vec![Peer {
                bgp_peer_id: format!("dxpeer-fh{i:06x}"),
                asn: 65_200,
                asn_is_long: false,
                auth_key: format!("strangers-own-key-{i}"),
                address_family: Family::Ipv4,
                amazon_address,
                customer_address,
                phase: Phase::Active,
                since: now,
            }],
            prefix_pool_ipv4: 100,
            prefix_pool_ipv6: 0,
            rate_limit: None,
            site_link_enabled: false,
            stranger: true,
        });
    }
}
