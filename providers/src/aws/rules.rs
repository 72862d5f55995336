//! The pure half: which resources AWS's side of a channel needs.

use serde_json::{Value, json};
use tieline_openapi::v1::{AttachPoint, ChannelPort};

use super::{limits, map};
use crate::{
    call::BGP_PASSWORD,
    constraints::{Constraints, PrefixControl, Sourced},
    costs::{self, CostDriver},
    feature::FeatureSide,
    resource::{Change, IdentityKind, Observed, Occupied, ResourceKey, ResourceKind, ResourceSpec},
    rules::{Agreed, FieldFacts, Rules, diff_fields},
};

/// A private virtual interface on a connection or LAG, attached to a Direct Connect gateway.
pub const PRIVATE_VIRTUAL_INTERFACE: ResourceKind = ResourceKind::of("aws.privateVirtualInterface");

static KINDS: [ResourceKind; 1] = [PRIVATE_VIRTUAL_INTERFACE];

/// What AWS allows and needs.
#[derive(Debug, Clone, Copy, Default)]
pub struct AwsRules;

impl Rules for AwsRules {
    fn constraints(&self, attach_point: &AttachPoint, _port: &ChannelPort) -> Constraints {
        limits::constraints(attach_point)
    }

    fn prefix_control(&self, attach_point: &AttachPoint) -> Sourced<PrefixControl> {
        limits::prefix_control(attach_point)
    }

    /// One interface. It waits (`ready` is false) until both addresses are known: AWS would pick its own where they are
    /// left out, and they cannot be changed later.
    fn decompose(&self, side: &FeatureSide) -> Vec<ResourceSpec> {
        let pair = side.ipv4.fixed();
        let with_length = |address| pair.map(|pair| format!("{address}/{}", pair.subnet.prefix_len()));
        let immutable = [
            "connectionId",
            "vlan",
            "asnLong",
            "amazonAddress",
            "customerAddress",
            "addressFamily",
            "directConnectGatewayId",
        ];
        vec![ResourceSpec {
            key: ResourceKey { end: side.end, kind: PRIVATE_VIRTUAL_INTERFACE },
            after: Vec::new(),
            ready: pair.is_some(),
            shared_parent: None,
            slot: Some(format!("{}/{}", side.port_id, side.vlan)),
            fields: json!({
                "connectionId": side.port_id,
                "vlan": side.vlan.get(),
                "asnLong": side.peer_asn.get(),
                "mtu": side.mtu.get(),
                "amazonAddress": pair.and_then(|pair| with_length(pair.host)),
                "customerAddress": pair.and_then(|pair| with_length(pair.peer)),
                "addressFamily": "ipv4",
                "directConnectGatewayId": side.attach_point_cloud_id,
                "tags": { map::CONNECTION_TAG: side.connection_id },
            }),
            immutable: immutable.iter().map(|field| format!("/{field}")).collect(),
            secrets: vec![BGP_PASSWORD.to_owned()],
        }]
    }

    fn costs(&self) -> &'static [CostDriver] {
        costs::of("aws")
    }

    fn kinds(&self) -> &'static [ResourceKind] {
        &KINDS
    }

    fn list_page(&self) -> u32 {
        limits::PAGE
    }

    /// The connection's tag is written with the create and for people only; the owner's tags are [`Observed::owner`].
    fn diff(&self, spec: &ResourceSpec, observed: &Observed) -> Vec<Change> {
        let mut wanted = spec.fields.clone();
        if let Value::Object(fields) = &mut wanted {
            fields.remove("tags");
        }
        diff_fields(&wanted, &observed.fields, &spec.immutable)
    }

    /// A VLAN is unique on its connection or LAG, whatever type of interface has it; addresses are one router's, so those of
    /// all interfaces of one Direct Connect gateway are kept apart.
    fn occupies(&self, observed: &Observed) -> Occupied {
        let name = |field: &str| observed.fields[field].as_str().map(str::to_owned);
        Occupied {
            vlan: name("connectionId").zip(observed.learned.vlan),
            subnet: name("directConnectGatewayId").zip(observed.learned.ipv4.map(|pair| pair.subnet)),
        }
    }

    /// A new MTU interrupts everything on the port for up to 30 seconds where the port was not updated to jumbo frames yet
    /// (AWS Direct Connect User Guide, MTUs for private virtual interfaces).
    fn field(&self, _kind: &ResourceKind, pointer: &str) -> FieldFacts {
        FieldFacts::of(match pointer {
            "/vlan" => Some(Agreed::Vlan),
            "/mtu" => Some(Agreed::Mtu),
            "/amazonAddress" | "/customerAddress" => Some(Agreed::Ipv4),
            "/asnLong" => Some(Agreed::PeerAsn),
            _ => None,
        })
    }

    /// A VLAN is unique on its connection or LAG.
    fn identity(&self, _kind: &ResourceKind) -> IdentityKind {
        IdentityKind::Slot
    }
}
