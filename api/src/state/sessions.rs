//! What providers report of a channel's resources and of the sessions over them.

use tieline_openapi::v1::{BfdState, BgpState, End, Ends};
use tieline_providers::Presence;

use crate::{
    plan::{
        negotiate::NegotiatedChannel,
        step::{Instance, Seen},
    },
    store::ConnectionRecord,
};

/// The instances of one side of a channel, of the channel's present generation.
pub(crate) fn instances<'a>(
    record: &'a ConnectionRecord,
    channel: &'a NegotiatedChannel,
    end: End,
) -> impl Iterator<Item = &'a Instance> {
    record.instances.iter().filter(move |instance| {
        instance.channel_id == channel.channel_id
            && instance.channel_generation == channel.generation
            && instance.key.end == end
            && instance.twin.is_none()
    })
}

/// Whether a resource can be used as its cloud last showed it.
pub(crate) fn usable(instance: &Instance) -> bool {
    match &instance.seen {
        Seen::Present { observed, .. } => observed.presence == Presence::Usable,
        Seen::Never | Seen::Absent { .. } | Seen::Unknown { .. } => false,
    }
}

/// What each provider reports of a channel's BGP session.
#[must_use]
pub fn bgp_states(record: &ConnectionRecord, channel: &NegotiatedChannel) -> Ends<BgpState> {
    channel.sides.map(|end, _| {
        instances(record, channel, end)
            .filter_map(|instance| match &instance.seen {
                Seen::Present { observed, .. } => observed.bgp,
                Seen::Absent { .. } => Some(BgpState::Down),
                Seen::Never | Seen::Unknown { .. } => None,
            })
            .fold(None, |all: Option<BgpState>, one| Some(all.map_or(one, |all| worse_bgp(all, one))))
            .unwrap_or_default()
    })
}

/// What each provider reports of a channel's BFD session.
pub(crate) fn bfd_states(record: &ConnectionRecord, channel: &NegotiatedChannel) -> Ends<BfdState> {
    channel.sides.map(|end, _| {
        instances(record, channel, end)
            .filter_map(|instance| match &instance.seen {
                Seen::Present { observed, .. } => observed.bfd,
                Seen::Never | Seen::Absent { .. } | Seen::Unknown { .. } => None,
            })
            .fold(None, |all: Option<BfdState>, one| Some(all.map_or(one, |all| worse_bfd(all, one))))
            .unwrap_or_default()
    })
}

/// Whether every channel's BGP is Established as both providers report it.
#[must_use]
pub fn established(record: &ConnectionRecord) -> bool {
    !record.negotiated.channels.is_empty()
        && record.negotiated.channels.iter().all(|channel| {
            let states = bgp_states(record, channel);
            states.a == BgpState::Established && states.b == BgpState::Established
        })
}

/// Worse means further from Established; not observed ranks just below it, since it proves nothing.
pub(crate) fn worse_bgp(one: BgpState, other: BgpState) -> BgpState {
    const fn rank(state: BgpState) -> u8 {
        match state {
            BgpState::Down => 0,
            BgpState::Idle => 1,
            BgpState::Connect => 2,
            BgpState::Active => 3,
            BgpState::OpenSent => 4,
            BgpState::OpenConfirm => 5,
            BgpState::Unknown => 6,
            BgpState::Established => 7,
        }
    }
    if rank(one) <= rank(other) { one } else { other }
}

/// Worse means further from up; not observed ranks just below it.
pub(crate) fn worse_bfd(one: BfdState, other: BfdState) -> BfdState {
    const fn rank(state: BfdState) -> u8 {
        match state {
            BfdState::Down => 0,
            BfdState::Init => 1,
            BfdState::AdminDown => 2,
            BfdState::Unknown => 3,
            BfdState::Up => 4,
        }
    }
    if rank(one) <= rank(other) { one } else { other }
}
