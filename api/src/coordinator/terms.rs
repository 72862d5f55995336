//! What `tieline.toml` says of a peer, as the protocol wants it.

use jiff::SignedDuration;
use tieline_openapi::config::{
    CoordinatorConfig, PeerConfig, SharedChannelConfig, SharedEnvironmentConfig, SharedInterconnectConfig,
    SharedInterconnectState,
};

use crate::plan::coordinate::{ChannelTerms, EnvironmentTerms, InterconnectTerms, Terms};

fn millis(ms: u64) -> SignedDuration {
    SignedDuration::from_millis(i64::try_from(ms).unwrap_or(i64::MAX))
}

/// What is agreed with a peer.
pub(super) fn of(config: &CoordinatorConfig, peer: &PeerConfig) -> Terms {
    Terms {
        us: config.provider.to_string(),
        them: peer.provider.to_string(),
        environments: peer.environments.iter().map(|e| (e.id.clone(), environment(e))).collect(),
        poll: millis(config.poll_ms),
        settled_poll: millis(config.settled_poll_ms),
    }
}

fn environment(config: &SharedEnvironmentConfig) -> EnvironmentTerms {
    EnvironmentTerms {
        sizes_mbps: config.bandwidths_mbps.iter().map(|mbps| mbps.get()).collect(),
        defers: config.defers,
        takes_deferral: config.takes_deferral,
        deferral_timeout: SignedDuration::from_hours(i64::from(config.deferral_timeout_hours)),
        interconnects: config.interconnects.iter().map(|i| (i.id.clone(), interconnect(i))).collect(),
    }
}

fn interconnect(config: &SharedInterconnectConfig) -> InterconnectTerms {
    InterconnectTerms {
        open: config.state == SharedInterconnectState::Active,
        max_bandwidth_mbps: config.max_bandwidth_mbps.get(),
        channels: config.channels.iter().map(|c| (c.id.clone(), channel(c))).collect(),
    }
}

fn channel(config: &SharedChannelConfig) -> ChannelTerms {
    ChannelTerms {
        enabled: config.enabled,
        in_maintenance: false,
        vlans: config.vlans,
        mtus: config.mtus.clone(),
        subnets: config.subnets.clone(),
        excluded: config.excluded_subnets.clone(),
        lengths: config.prefix_lengths.clone(),
        asn: config.asn,
    }
}
