//! What users see of a connection that is shared with a peer.

use tieline_openapi::{
    config::plain_id,
    units::BandwidthMbps,
    v1::{
        BfdState, BgpState, ChannelSide, ConditionStatus, ConnectionState, Effective, Middle, PlacedChannel, Placement,
        PlacementRole, ProvisioningState, StateReason, Timestamp,
    },
};

use crate::{
    plan::{
        coordinate::{FeatureRow, Local, Placed, Standing, Theirs},
        negotiate::private_only,
    },
    state::{Facts, ending, worse_bgp},
    store::{ConnectionRecord, SharedLink},
    topology::{Pairing, Topology},
};

/// Where it is, by what was agreed.
pub(super) fn placements(record: &ConnectionRecord, shared: &SharedLink, topology: &Topology) -> Vec<Placement> {
    let Some(standing) = &shared.standing else { return Vec::new() };
    let Some(pairing) = topology.pairings.get(&record.intent.environment_id) else { return Vec::new() };
    standing.places.iter().filter_map(|placed| placement(standing, placed, pairing)).collect()
}

fn placement(standing: &Standing, placed: &Placed, pairing: &Pairing) -> Option<Placement> {
    let row = &placed.row;
    let bandwidth = BandwidthMbps::try_from(u64::from(row.bandwidth_mbps)).ok()?;
    let role = if standing.is_left(row) {
        PlacementRole::Source
    } else if standing.is_moved_to(row) {
        PlacementRole::Target
    } else {
        PlacementRole::Current
    };
    let channel = |(id, feature)| Some(channel(plain_id(id).ok()?, feature, bandwidth, &standing.us));
    Some(Placement {
        name: standing.name(row),
        interconnect_id: pairing.interconnects.get(&row.place.interconnect)?.clone(),
        role,
        middle: Middle::None,
        channels: row.agreed().filter_map(channel).collect(),
    })
}

fn channel(
    channel_id: tieline_openapi::ids::ChannelId,
    feature: &FeatureRow,
    bandwidth_mbps: BandwidthMbps,
    us: &str,
) -> PlacedChannel {
    let (ours, theirs) = (our_bgp(feature.ours), their_bgp(feature.theirs));
    let state = |done| if done { ProvisioningState::Final } else { ProvisioningState::Pending };
    let (up, done) = (matches!(feature.ours, Local::Up | Local::Drained), feature.theirs == Theirs::Final);
    let mut sides = sides(feature, us);
    sides[0].provisioning_state = state(up);
    sides[1].provisioning_state = state(done);
    let [a, b] = sides;
    PlacedChannel {
        channel_id,
        provisioning_state: state(up && done),
        bgp_state: worse_bgp(ours, theirs),
        bfd_state: BfdState::Unknown,
        bandwidth_mbps,
        a,
        b,
        why: Vec::new(),
    }
}

const fn our_bgp(ours: Local) -> BgpState {
    match ours {
        Local::Reserved => BgpState::Unknown,
        Local::Down => BgpState::Down,
        Local::Up | Local::Drained => BgpState::Established,
    }
}

/// The specification's FINAL is a configuration whose session is up; what else there is does not tell.
const fn their_bgp(theirs: Theirs) -> BgpState {
    match theirs {
        Theirs::Proposed | Theirs::Pending => BgpState::Unknown,
        Theirs::Final => BgpState::Established,
    }
}

/// Our side, then the peer's.
fn sides(feature: &FeatureRow, us: &str) -> [ChannelSide; 2] {
    let config = &feature.config;
    // A configuration names its ends in order of provider id.
    let first_is_ours = config.ends[0].provider == us;
    let ipv4 = config.ipv4.as_ref().map(|hosts| [hosts.first, hosts.second]);
    let ipv6 = config.ipv6.as_ref().map(|hosts| [hosts.first, hosts.second]);
    let side = |at: usize| ChannelSide {
        vlan_id: config.vlan,
        ipv4_subnet: config.ipv4.as_ref().map(|hosts| hosts.subnet),
        host_ipv4: ipv4.map(|hosts| hosts[at]),
        peer_ipv4: ipv4.map(|hosts| hosts[1 - at]),
        ipv6_subnet: config.ipv6.as_ref().map(|hosts| hosts.subnet),
        host_ipv6: ipv6.map(|hosts| hosts[at]),
        peer_ipv6: ipv6.map(|hosts| hosts[1 - at]),
        asn: config.ends[at].asn,
        mtu_bytes: config.mtu,
        provisioning_state: ProvisioningState::Pending,
        bfd: None,
        attachments: Vec::new(),
    };
    let ours = usize::from(!first_is_ours);
    [side(ours), side(1 - ours)]
}

/// The smallest MTU that was agreed; null until one was.
pub(super) fn effective(shared: &SharedLink) -> Option<Effective> {
    let rows = shared.standing.iter().flat_map(|standing| standing.staying()).map(|placed| &placed.row);
    let mtu = rows.flat_map(|row| row.agreed()).map(|(_, feature)| feature.config.mtu).min()?;
    Some(private_only(mtu))
}

/// Why the state is what it is.
pub(super) fn reason(
    state: ConnectionState,
    record: &ConnectionRecord,
    shared: &SharedLink,
    facts: &Facts,
    now: Timestamp,
) -> StateReason {
    let peer = &shared.peer;
    let say = |code: &str, message: String, since: Timestamp, next: &str| StateReason {
        code: code.to_owned(),
        message,
        since,
        next_step: next.to_owned(),
        expected_by: None,
    };
    let Some(standing) = &shared.standing else {
        return say(
            "notPaired",
            format!("tieline.toml does not pair us with `{peer}` any more."),
            record.updated_at,
            "Write the pairing back into [coordinator], or delete the connection at the other provider.",
        );
    };
    let mut reason = match state {
        ConnectionState::Pending => say(
            "waitingForActivationKey",
            format!("The activation key was handed out, and `{peer}` has not asked for the connection yet."),
            record.created_at,
            "Bring the activation key to the other provider.",
        ),
        ConnectionState::Provisioning => building(record, standing, peer.as_str(), facts),
        ConnectionState::Active => say(
            "active",
            "Everything that was asked for is there.".to_owned(),
            record.status.verified_at.unwrap_or(record.updated_at),
            "Nothing to do.",
        ),
        ConnectionState::Degraded => degraded(record, standing, facts),
        ConnectionState::Updating if standing.is_moving() => say(
            "migrating",
            "It moves to another interconnect; the old one carries the traffic until the new one is up.".to_owned(),
            record.updated_at,
            "Follow the operation in `lastOperationId`.",
        ),
        ConnectionState::Updating => say(
            "resizing",
            format!("`{peer}` is asked for another bandwidth."),
            record.updated_at,
            "Follow the operation in `lastOperationId`.",
        ),
        ConnectionState::ActionRequired => {
            let (code, message, next) = ending(shared.ended);
            let since = record.status.reason.as_ref().map_or(now, |reason| reason.since);
            say(code, message.to_owned(), since, next)
        }
        ConnectionState::Deleting if record.deletion_requested_at.is_none() => {
            let (code, message, _) = ending(shared.ended);
            say(code, message.to_owned(), record.updated_at, "It is being taken down on both sides.")
        }
        ConnectionState::Deleting => say(
            "deleting",
            "It is being taken down at both providers.".to_owned(),
            record.deletion_requested_at.unwrap_or(record.updated_at),
            "Follow the operation in `lastOperationId`.",
        ),
    };
    if state == ConnectionState::Pending {
        reason.expected_by = standing.key_ends_at(now);
    }
    reason
}

fn building(record: &ConnectionRecord, standing: &Standing, peer: &str, facts: &Facts) -> StateReason {
    let row = standing.staying().map(|placed| &placed.row).next();
    let agreed = standing.staying().any(Placed::is_agreed);
    let (code, message, next) = if row.is_some_and(|row| !row.confirmed) {
        ("confirming", format!("`{peer}` is asked whether its activation key is good."), "Wait for its answer.")
    } else if !agreed {
        let next = "Wait; `tieline coordinator check` tells whether the peer answers.";
        ("negotiating", format!("The channels are being agreed on with `{peer}`."), next)
    } else if facts.bgp != ConditionStatus::True {
        let next = "The routers' sessions come up by themselves; `placements` tells which side waits.";
        ("waitingForBgp", "Every channel is agreed; BGP is not up on all of them yet.".to_owned(), next)
    } else {
        let message = format!("Every channel is up; `{peer}` and we have not told each other yet.");
        ("handshake", message, "Wait for the notifications.")
    };
    StateReason {
        code: code.to_owned(),
        message,
        since: record.status.provisioned_at.filter(|_| agreed).unwrap_or(record.updated_at),
        next_step: next.to_owned(),
        expected_by: None,
    }
}

fn degraded(record: &ConnectionRecord, standing: &Standing, facts: &Facts) -> StateReason {
    let has = standing.bandwidth().filter(|has| *has != record.intent.bandwidth_mbps);
    let (code, message, next, kind, status) = if facts.bgp != ConditionStatus::True {
        (
            "bgpDown",
            "BGP is not up on every channel as both providers report it.".to_owned(),
            "Look at `placements` for the channel that is down; traffic uses what is left.",
            tieline_openapi::v1::ConditionType::BgpEstablished,
            facts.bgp,
        )
    } else if let Some(has) = has {
        (
            "bandwidthDiffers",
            format!("It has {has} Mbit/s: the other provider changed it, or refused the change."),
            "PATCH `bandwidthMbps` to what it has, or ask again.",
            tieline_openapi::v1::ConditionType::InSync,
            facts.in_sync,
        )
    } else {
        (
            "channelMissing",
            "Not every channel is agreed at both providers.".to_owned(),
            "It is proposed again by itself; `placements` shows the channels that are there.",
            tieline_openapi::v1::ConditionType::InSync,
            facts.in_sync,
        )
    };
    StateReason {
        code: code.to_owned(),
        message,
        since: crate::state::condition_since(kind, status, record, facts),
        next_step: next.to_owned(),
        expected_by: None,
    }
}
