//! What a cloud picks itself: addresses out of candidates that are hints, and at times another VLAN or MTU than it was asked
//! for. It is read back and followed as long as nothing was built on what was asked for; afterwards it is drift. A wish is
//! never given up for it.

use ipnet::Ipv4Net;
use tieline_openapi::units::Mtu;
use tieline_providers::{Addressing, FeatureSide, Learned, Observed};

use super::{
    NegotiatedChannel, Step,
    instance::{Case, Need},
};

impl Case<'_> {
    /// What follows from what the cloud picked: it becomes the channel's, or the channel is walked back where that cannot be.
    pub(super) fn need_of_picked(&self, channel: &NegotiatedChannel, observed: &Observed) -> Option<Need> {
        let end = self.instance.key.end;
        let picked = self.picked(channel, channel.sides.get(end), observed)?;
        let channel_id = channel.channel_id.clone();
        let wished = |subnet: &Ipv4Net| self.situation.wishes.ipv4_subnet.is_none_or(|wish| wish.contains(subnet));
        let against_a_wish = picked.ipv4.is_some_and(|pair| !wished(&pair.subnet));
        if against_a_wish || self.situation.unlearnable.contains(&(channel_id.clone(), channel.generation)) {
            return Some(self.walk_back(channel, None));
        }
        Some(Need::Act(Step::Learn { channel_id, generation: channel.generation, end, picked }))
    }

    /// What differs from the channel's configuration because the cloud picked it.
    pub(super) fn picked(
        &self,
        channel: &NegotiatedChannel,
        side: &FeatureSide,
        observed: &Observed,
    ) -> Option<Learned> {
        let Learned { ipv4, vlan, mtu } = observed.learned;
        let mut picked = Learned::default();
        if matches!(side.ipv4, Addressing::CloudPicks(_)) {
            picked.ipv4 = ipv4;
        }
        if self.is_first(channel) {
            let (wishes, other) = (self.situation.wishes, channel.sides.get(self.instance.key.end.other()));
            picked.vlan = vlan.filter(|vlan| *vlan != side.vlan && wishes.vlan_id.is_none());
            let takes = |mtu: &Mtu| self.situation.rules.takes_mtu(other, *mtu);
            picked.mtu = mtu.filter(|mtu| *mtu != side.mtu && wishes.mtu_bytes.is_none() && takes(mtu));
        }
        (picked != Learned::default()).then_some(picked)
    }

    /// Whether nothing else of this channel generation was ever asked for.
    fn is_first(&self, channel: &NegotiatedChannel) -> bool {
        let others = self.situation.instances.iter().filter(|i| {
            i.id != self.instance.id
                && i.twin.is_none()
                && i.channel_id == channel.channel_id
                && i.channel_generation == channel.generation
        });
        others.into_iter().all(|other| self.situation.calls.iter().all(|call| call.instance_id != other.id))
    }
}
