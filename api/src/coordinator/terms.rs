//! What `tieline.toml` says of a peer, as the protocol wants it.

use jiff::SignedDuration;
use tieline_openapi::config::{
    CoordinatorConfig, PeerConfig, SharedChannelConfig, SharedEnvironmentConfig, SharedInterconnectConfig,
    SharedInterconnectState,
};

use crate::plan::coordinate::{ChannelTerms, EnvironmentTerms, InterconnectTerms, MacSecTerms, Terms};

fn millis(ms: u64) -> SignedDuration {
    SignedDuration::from_millis(i64::try_from(ms).unwrap_or(i64::MAX))
}

/// What is agreed with a peer.
pub(super) fn of(config: &CoordinatorConfig, peer: &PeerConfig) -> Terms {
    Terms {
        us: config.provider.to_string(),
        them: peer.provider.to_string(),
        environments: peer.environments.iter().map(|e| (e.id.clone(), environment(config, e))).collect(),
        poll: millis(config.poll_ms),
        settled_poll: millis(config.settled_poll_ms),
    }
}

fn environment(ours: &CoordinatorConfig, config: &SharedEnvironmentConfig) -> EnvironmentTerms {
    EnvironmentTerms {
        sizes_mbps: config.bandwidths_mbps.iter().map(|mbps| mbps.get()).collect(),
        defers: config.defers,
        takes_deferral: config.takes_deferral,
        deferral_timeout: SignedDuration::from_hours(i64::from(config.deferral_timeout_hours)),
        interconnects: config.interconnects.iter().map(|i| (i.id.clone(), interconnect(ours, i))).collect(),
    }
}

fn interconnect(ours: &CoordinatorConfig, config: &SharedInterconnectConfig) -> InterconnectTerms {
    InterconnectTerms {
        open: config.state == SharedInterconnectState::Active,
        max_bandwidth_mbps: config.max_bandwidth_mbps.get(),
        channels: config.channels.iter().map(|c| (c.id.clone(), channel(ours, c))).collect(),
    }
}

fn channel(ours: &CoordinatorConfig, config: &SharedChannelConfig) -> ChannelTerms {
    let macsec = config.macsec_manager.as_ref().map(|manager| MacSecTerms {
        managed_here: *manager == ours.provider,
        bake: SignedDuration::from_secs(i64::from(ours.macsec_bake_seconds)),
        rotate_after: ours.macsec_rotation_hours.map(|hours| SignedDuration::from_hours(i64::from(hours))),
    });
    ChannelTerms {
        enabled: config.enabled,
        in_maintenance: false,
        vlans: config.vlans,
        mtus: config.mtus.clone(),
        subnets: config.subnets.clone(),
        excluded: config.excluded_subnets.clone(),
        lengths: config.prefix_lengths.clone(),
        asn: config.asn,
        device: config.device.clone(),
        macsec,
    }
}
