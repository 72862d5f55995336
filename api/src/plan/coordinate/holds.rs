//! What a connection holds of what an interconnect has once: the store keeps it as constraints beside the rows, so that
//! nothing is sold twice whatever else goes wrong.

use ipnet::Ipv4Net;
use tieline_openapi::coordinator::ResourceId;

use super::state::{Row, Theirs};

/// A VLAN and a subnet on one channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hold<'r> {
    /// The channel.
    pub channel: &'r ResourceId,
    /// The VLAN: nobody else has it on this channel.
    pub vlan: u16,
    /// The subnet: nobody else has any part of it on this channel.
    pub subnet: Ipv4Net,
}

impl Row {
    /// What of the interconnect's capacity nobody else can have, in Mbit/s. What only we know of yields to a wish of the
    /// peer that goes first, and what leaves is on its way out: neither counts here.
    #[must_use]
    pub fn firm_mbps(&self) -> u32 {
        if self.leaving.is_some() || self.is_tentative() { 0 } else { self.held_mbps() }
    }

    /// What nobody else can have on each channel: what both sides have agreed on, until it is taken down.
    pub fn holds(&self) -> impl Iterator<Item = Hold<'_>> {
        let held = self.features.iter().filter(|(_, f)| f.theirs != Theirs::Proposed && !f.closing);
        held.filter_map(|(channel, feature)| {
            let subnet = feature.config.ipv4.as_ref()?.subnet;
            Some(Hold { channel, vlan: feature.config.vlan.get(), subnet })
        })
    }
}
