//! From a stored connection to the Connection that users see: pure, and total over every record.

mod paths;
mod shared;

use tieline_openapi::v1::{
    AdminState, Attachment, ChannelSide, ConditionStatus, ConditionType, Connection, ConnectionState, End, Origin,
    PlacedChannel, Placement, PlacementRole, ProvisioningState, StateReason, Timestamp,
};
use tieline_providers::{Addressing, FeatureSide};

use crate::{
    plan::{
        negotiate::NegotiatedChannel,
        step::{Instance, Seen},
    },
    state::{
        Facts, bfd_states, bgp_states, condition_since, conditions, instances, state, usable, verification, worse_bfd,
        worse_bgp,
    },
    store::ConnectionRecord,
    topology::Topology,
};

/// The Connection that a record shows at a time.
#[must_use]
pub fn connection(record: &ConnectionRecord, topology: &Topology, now: Timestamp) -> Connection {
    let report_ms = topology.probe.report_ms;
    let facts = Facts::of(record, report_ms, now);
    let state = state(&facts);
    Connection {
        id: record.id,
        project: record.project.clone(),
        intent: record.intent.clone(),
        generation: record.generation,
        observed_generation: record.observed_generation,
        kind: record.kind,
        state,
        state_reason: match &record.shared {
            Some(shared) => shared::reason(state, record, shared, &facts, now),
            None => state_reason(state, record, &facts),
        },
        admin_state: AdminState::Enabled,
        verification_state: verification(&facts),
        shared_connection_uuid: record.shared.as_ref().map(|shared| shared.uuid),
        last_operation_id: record.last_operation,
        conditions: conditions(record, &facts),
        effective: match &record.shared {
            Some(shared) => shared::effective(shared),
            None => Some(record.negotiated.effective),
        },
        placements: match &record.shared {
            Some(shared) => shared::placements(record, shared, topology),
            None => vec![placement(record)],
        },
        // Beyond a peer stands no gateway that would probe.
        paths: if record.shared.is_some() { Vec::new() } else { paths::all(record, report_ms, now) },
        created_at: record.created_at,
        updated_at: record.updated_at,
        deletion_requested_at: record.deletion_requested_at,
        activation_key: None,
    }
}

fn state_reason(state: ConnectionState, record: &ConnectionRecord, facts: &Facts) -> StateReason {
    if let (ConnectionState::ActionRequired, Some(reason)) = (state, &record.status.reason) {
        return StateReason {
            code: reason.code.clone(),
            message: reason.message.clone(),
            since: reason.since,
            next_step: reason.next_step.clone(),
            expected_by: None,
        };
    }
    let (code, message, next_step) = match state {
        ConnectionState::Pending => {
            ("accepted", "The intent is accepted; no cloud was asked yet.", "The engine takes it up.")
        }
        ConnectionState::Provisioning if facts.provisioned => (
            "waitingForBgp",
            "Both clouds hold what was asked for; BGP is not Established on every channel yet.",
            "The routers' sessions come up by themselves; `conditions` tells which side waits.",
        ),
        ConnectionState::Provisioning => (
            "building",
            "The clouds are being asked for the channels.",
            "Follow the operation in `lastOperationId`; the tunnel carries traffic meanwhile.",
        ),
        ConnectionState::Active => ("active", "Everything that was asked for is there.", "Nothing to do."),
        ConnectionState::Degraded if facts.bgp != ConditionStatus::True => (
            "bgpDown",
            "BGP is not Established on every channel as both providers report it.",
            "Look at `placements` for the channel that is down; traffic uses what is left.",
        ),
        ConnectionState::Degraded if facts.in_sync == ConditionStatus::False => (
            "resourceMissing",
            "A cloud does not hold what was asked of it.",
            "The engine repairs it; follow the events.",
        ),
        ConnectionState::Degraded if facts.private == ConditionStatus::False => (
            "privatePathDown",
            "BGP is up and yet the gateways do not hear each other over the private path.",
            "Check routes, firewall rules and allowed prefixes between the gateways' addresses.",
        ),
        ConnectionState::Degraded => (
            "tunnelDown",
            "The private path works; the tunnel beside it does not.",
            "Check that the gateways reach each other's endpoints over UDP.",
        ),
        ConnectionState::Updating => (
            "updating",
            "The clouds are being brought to the new intent.",
            "Follow the operation in `lastOperationId`.",
        ),
        ConnectionState::ActionRequired => {
            ("actionRequired", "A person must act.", "Look at the issues about this connection.")
        }
        ConnectionState::Deleting => (
            "deleting",
            "The channels are being taken down; the tunnel goes last.",
            "Follow the operation in `lastOperationId`.",
        ),
    };
    let since = match state {
        ConnectionState::Active => record.status.verified_at.unwrap_or(record.updated_at),
        ConnectionState::Provisioning if facts.provisioned => record.status.provisioned_at.unwrap_or(record.updated_at),
        ConnectionState::Deleting => record.deletion_requested_at.unwrap_or(record.updated_at),
        ConnectionState::Degraded if facts.bgp != ConditionStatus::True => {
            condition_since(ConditionType::BgpEstablished, facts.bgp, record, facts)
        }
        ConnectionState::Degraded if facts.in_sync == ConditionStatus::False => {
            condition_since(ConditionType::InSync, facts.in_sync, record, facts)
        }
        ConnectionState::Degraded if facts.tunnel == ConditionStatus::False => {
            condition_since(ConditionType::TunnelUp, facts.tunnel, record, facts)
        }
        ConnectionState::Degraded => facts.newest.unwrap_or(record.updated_at),
        ConnectionState::Pending
        | ConnectionState::Provisioning
        | ConnectionState::Updating
        | ConnectionState::ActionRequired => record.updated_at,
    };
    StateReason {
        code: code.to_owned(),
        message: message.to_owned(),
        since,
        next_step: next_step.to_owned(),
        expected_by: None,
    }
}

fn placement(record: &ConnectionRecord) -> Placement {
    Placement {
        name: None,
        interconnect_id: record.negotiated.interconnect_id.clone(),
        role: PlacementRole::Current,
        middle: record.negotiated.middle,
        channels: record.negotiated.channels.iter().map(|channel| placed_channel(record, channel)).collect(),
    }
}

fn placed_channel(record: &ConnectionRecord, channel: &NegotiatedChannel) -> PlacedChannel {
    let bgp = bgp_states(record, channel);
    let bfd = bfd_states(record, channel);
    let sides = channel.sides.map(|end, side| channel_side(record, channel, end, side));
    let all_usable = End::BOTH.into_iter().all(|end| side_state(record, channel, end) == ProvisioningState::Final);
    let addressed = End::BOTH.into_iter().all(|end| channel.sides.get(end).ipv4.fixed().is_some());
    PlacedChannel {
        channel_id: channel.channel_id.clone(),
        provisioning_state: if all_usable && addressed { ProvisioningState::Final } else { ProvisioningState::Pending },
        bgp_state: worse_bgp(bgp.a, bgp.b),
        bfd_state: worse_bfd(bfd.a, bfd.b),
        bandwidth_mbps: channel.bandwidth,
        a: sides.a,
        b: sides.b,
        why: channel.why.clone(),
    }
}

fn side_state(record: &ConnectionRecord, channel: &NegotiatedChannel, end: End) -> ProvisioningState {
    let mut of_end = instances(record, channel, end).peekable();
    let done = of_end.peek().is_some() && of_end.all(usable);
    if done { ProvisioningState::Final } else { ProvisioningState::Pending }
}

fn channel_side(record: &ConnectionRecord, channel: &NegotiatedChannel, end: End, side: &FeatureSide) -> ChannelSide {
    let ipv4 = match &side.ipv4 {
        Addressing::Fixed(pair) => Some(*pair),
        // The cloud that picks has told this side, or the other one, even before the engine wrote it down.
        Addressing::CloudPicks(_) => learned(record, channel, end),
        Addressing::Awaited(_) => learned(record, channel, end.other()).map(tieline_providers::Ipv4Pair::flipped),
    };
    ChannelSide {
        vlan_id: side.vlan,
        ipv4_subnet: ipv4.map(|pair| pair.subnet),
        host_ipv4: ipv4.map(|pair| pair.host),
        peer_ipv4: ipv4.map(|pair| pair.peer),
        ipv6_subnet: side.ipv6.map(|pair| pair.subnet),
        host_ipv6: side.ipv6.map(|pair| pair.host),
        peer_ipv6: side.ipv6.map(|pair| pair.peer),
        asn: side.asn,
        mtu_bytes: side.mtu,
        provisioning_state: side_state(record, channel, end),
        bfd: side.bfd,
        attachments: instances(record, channel, end).map(attachment).collect(),
    }
}

fn learned(record: &ConnectionRecord, channel: &NegotiatedChannel, end: End) -> Option<tieline_providers::Ipv4Pair> {
    instances(record, channel, end).find_map(|instance| match &instance.seen {
        Seen::Present { observed, .. } => observed.learned.ipv4,
        Seen::Never | Seen::Absent { .. } | Seen::Unknown { .. } => None,
    })
}

fn attachment(instance: &Instance) -> Attachment {
    let (provider_state, observed_at) = match &instance.seen {
        Seen::Never => (String::new(), None),
        Seen::Present { observed, at, .. } => (observed.provider_state.clone(), Some(*at)),
        Seen::Absent { at, .. } => ("absent".to_owned(), Some(*at)),
        Seen::Unknown { at, .. } => ("unknown".to_owned(), Some(*at)),
    };
    Attachment {
        id: instance.id,
        kind: instance.key.kind.as_str().to_owned(),
        cloud_id: instance.cloud_id.clone(),
        provider_state,
        origin: Origin::Created,
        observed_at,
    }
}
