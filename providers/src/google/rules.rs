//! The pure half: which resources Google's side of a channel needs.

use ipnet::Ipv4Net;
use serde_json::{Value, json};
use tieline_openapi::{
    units::Mtu,
    v1::{AttachPoint, BfdSettings, ChannelPort, Disruption},
};

use super::{limits, map::last_segment};
use crate::{
    call::BGP_PASSWORD,
    constraints::{Constraints, PrefixControl, Rule, Sourced},
    costs::{self, CostDriver},
    feature::{Addressing, FeatureSide, Ipv4Pair},
    resource::{Change, IdentityKind, Observed, Occupied, ResourceKey, ResourceKind, ResourceSpec},
    rules::{Agreed, FieldFacts, Rules, diff_fields},
};

/// A VLAN attachment of type DEDICATED on an interconnect.
pub const INTERCONNECT_ATTACHMENT: ResourceKind = ResourceKind::of("google.interconnectAttachment");
/// An interface, a BGP peer and an MD5 key, which exist only inside a Cloud Router and are written in one request.
pub const ROUTER_PEER: ResourceKind = ResourceKind::of("google.routerPeer");

static KINDS: [ResourceKind; 2] = [INTERCONNECT_ATTACHMENT, ROUTER_PEER];

/// Fields that are given with a create and never read back, or that only say where to look: no drift can be seen in them.
const NOT_READ_BACK: [&str; 3] = ["candidateSubnets", "subnetLength", "attachment"];

/// What Google allows and needs.
#[derive(Debug, Clone, Copy, Default)]
pub struct GoogleRules;

impl Rules for GoogleRules {
    fn constraints(&self, attach_point: &AttachPoint, _port: &ChannelPort) -> Constraints {
        limits::constraints(attach_point)
    }

    fn internet_mtu(&self, _attach_point: &AttachPoint) -> Sourced<Mtu> {
        let rule = Rule::new(
            "a VPC network carries packets of 1460 bytes unless it was made otherwise",
            "Google Cloud, VPC: maximum transmission unit",
        );
        Sourced::new(Mtu::try_from(1_460).unwrap_or(Mtu::ETHERNET), rule)
    }

    fn prefix_control(&self, _attach_point: &AttachPoint) -> Sourced<PrefixControl> {
        limits::prefix_control()
    }

    fn decompose(&self, side: &FeatureSide) -> Vec<ResourceSpec> {
        let attachment = ResourceKey { end: side.end, kind: INTERCONNECT_ATTACHMENT };
        let peer = ResourceKey { end: side.end, kind: ROUTER_PEER };
        vec![attachment_spec(side, attachment.clone()), peer_spec(side, peer, attachment)]
    }

    fn costs(&self) -> &'static [CostDriver] {
        costs::of("google")
    }

    fn kinds(&self) -> &'static [ResourceKind] {
        &KINDS
    }

    fn list_page(&self) -> u32 {
        limits::PAGE
    }

    fn parent(&self, kind: &ResourceKind, attach_point: &AttachPoint, region: &str) -> Option<String> {
        (*kind == ROUTER_PEER).then(|| router_path(region, &attach_point.cloud_id))
    }

    /// Both kinds carry the name that we choose, which Google keeps unique in the region or the router.
    fn identity(&self, _kind: &ResourceKind) -> IdentityKind {
        IdentityKind::Named
    }

    /// Announcements come and go by UPDATE messages; the session stays (RFC 4271 section 3.1).
    fn field(&self, _kind: &ResourceKind, pointer: &str) -> FieldFacts {
        let agreed = match pointer {
            "/vlanTag8021q" | "/attachment/vlanTag8021q" => Some(Agreed::Vlan),
            "/bandwidth" => Some(Agreed::Bandwidth),
            "/mtu" => Some(Agreed::Mtu),
            "/ipRange" | "/peerIpAddress" | "/candidateSubnets" | "/subnetLength" => Some(Agreed::Ipv4),
            "/cloudRouterIpAddress" | "/customerRouterIpAddress" => Some(Agreed::Ipv4),
            "/peerAsn" => Some(Agreed::PeerAsn),
            "/advertisedIpRanges" => {
                return FieldFacts { agreed: Some(Agreed::Prefixes), disruption: Disruption::None };
            }
            _ if pointer == "/bfd" || pointer.starts_with("/bfd/") => Some(Agreed::Bfd),
            _ => None,
        };
        FieldFacts::of(agreed)
    }

    /// An attachment has its VLAN on the interconnect, and its addresses on the router; any other interface of the router, to
    /// a VPN tunnel or an appliance, has addresses there too. Attachments of other regions and projects are not listed: a VLAN
    /// of theirs shows when it is asked for.
    fn occupies(&self, observed: &Observed) -> Occupied {
        let name = |field: &str| observed.fields[field].as_str().map(str::to_owned);
        let range = || observed.fields["ipRange"].as_str()?.parse::<Ipv4Net>().ok().map(|net| net.trunc());
        Occupied {
            vlan: name("interconnect").zip(observed.learned.vlan),
            subnet: name("router").zip(observed.learned.ipv4.map(|pair| pair.subnet).or_else(range)),
        }
    }

    fn short_name<'n>(&self, name: &'n str) -> &'n str {
        last_segment(name)
    }

    fn diff(&self, spec: &ResourceSpec, observed: &Observed) -> Vec<Change> {
        let mut wanted = spec.fields.clone();
        if let Value::Object(fields) = &mut wanted {
            fields.retain(|name, _| !NOT_READ_BACK.contains(&name.as_str()));
        }
        diff_fields(&wanted, &observed.fields, &spec.immutable)
    }
}

fn attachment_spec(side: &FeatureSide, key: ResourceKey) -> ResourceSpec {
    let mut fields = json!({
        "type": "DEDICATED",
        "interconnect": last_segment(side.port_id.as_str()),
        "router": last_segment(&side.attach_point_cloud_id),
        "vlanTag8021q": side.vlan.get(),
        "bandwidth": limits::tier(side.bandwidth),
        "mtu": side.mtu.get(),
        "adminEnabled": true,
        "description": format!("Tieline connection {}", side.connection_name),
    });
    let candidates = match &side.ipv4 {
        Addressing::Fixed(pair) => {
            fields["cloudRouterIpAddress"] = json!(with_length(pair.host, pair));
            fields["customerRouterIpAddress"] = json!(with_length(pair.peer, pair));
            fields["subnetLength"] = json!(pair.subnet.prefix_len());
            vec![candidate(pair.subnet)]
        }
        Addressing::CloudPicks(subnets) => {
            fields["subnetLength"] = json!(29);
            subnets.iter().copied().map(candidate).collect()
        }
        Addressing::Awaited(_) => Vec::new(),
    };
    fields["candidateSubnets"] = json!(candidates);
    ResourceSpec {
        key,
        after: Vec::new(),
        ready: !matches!(side.ipv4, Addressing::Awaited(_)),
        shared_parent: None,
        slot: None,
        fields,
        immutable: pointers(&[
            "type",
            "interconnect",
            "router",
            "vlanTag8021q",
            "cloudRouterIpAddress",
            "customerRouterIpAddress",
            "candidateSubnets",
            "subnetLength",
        ]),
        secrets: Vec::new(),
    }
}

/// A Cloud Router, as [`ResourceSpec::shared_parent`] and lists name it.
fn router_path(region: &str, router: &str) -> String {
    format!("regions/{region}/routers/{}", last_segment(router))
}

fn peer_spec(side: &FeatureSide, key: ResourceKey, attachment: ResourceKey) -> ResourceSpec {
    let router = last_segment(&side.attach_point_cloud_id);
    let pair = side.ipv4.fixed();
    let mut announced: Vec<String> = side.advertised_prefixes.iter().map(ToString::to_string).collect();
    announced.sort_unstable();
    announced.dedup();
    ResourceSpec {
        key,
        after: vec![attachment],
        ready: pair.is_some(),
        shared_parent: Some(router_path(&side.region, router)),
        slot: None,
        fields: json!({
            "router": router,
            // The attachment's name is drawn when it is made; its interconnect and VLAN tell it apart before that.
            "attachment": { "interconnect": last_segment(side.port_id.as_str()), "vlanTag8021q": side.vlan.get() },
            "ipRange": pair.map(|pair| with_length(pair.host, &pair)),
            "peerIpAddress": pair.map(|pair| pair.peer.to_string()),
            "peerAsn": side.peer_asn.get(),
            "enable": "TRUE",
            "advertiseMode": "CUSTOM",
            "advertisedIpRanges": announced,
            "bfd": bfd(side.bfd),
            "md5": true,
        }),
        immutable: pointers(&["router", "attachment"]),
        secrets: vec![BGP_PASSWORD.to_owned()],
    }
}

/// Google's BFD starts the session (ACTIVE): the other clouds wait for their peer.
fn bfd(settings: Option<BfdSettings>) -> Value {
    match settings {
        Some(bfd) if bfd.enabled => json!({
            "sessionInitializationMode": "ACTIVE",
            "minTransmitInterval": bfd.min_transmit_ms,
            "minReceiveInterval": bfd.min_receive_ms,
            "multiplier": bfd.multiplier,
        }),
        _ => json!({ "sessionInitializationMode": "DISABLED" }),
    }
}

fn with_length(address: std::net::Ipv4Addr, pair: &Ipv4Pair) -> String {
    format!("{address}/{}", pair.subnet.prefix_len())
}

/// Candidates are /29 or shorter (`InterconnectAttachment.candidateSubnets`): the /29 around a longer one.
fn candidate(subnet: Ipv4Net) -> Ipv4Net {
    if subnet.prefix_len() <= 29 {
        subnet
    } else {
        Ipv4Net::new(subnet.network(), 29).map_or(subnet, |net| net.trunc())
    }
}

fn pointers(fields: &[&str]) -> Vec<String> {
    fields.iter().map(|field| format!("/{field}")).collect()
}
