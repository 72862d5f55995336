//! What must hold within `[coordinator]`, before any peer is asked.

use std::collections::BTreeMap;

use super::{
    CoordinatorConfig, PeerConfig, PeerIdentity, SharedChannelConfig, SharedEnvironmentConfig,
    check::{Checker, endpoint_rule},
    coordinator::plain_id,
    document::Way,
};
use crate::{
    coordinator::{LOWEST_VLAN, ResourceId},
    ids::{ChannelId, IdError, ProviderName},
};

/// Checks the section.
pub(super) fn all(coordinator: &CoordinatorConfig, checker: &mut Checker<'_, '_>) {
    let way = Way::default().to("coordinator");
    checker.filled(&way.to("certificateFile"), &coordinator.certificate_file);
    checker.filled(&way.to("keyFile"), &coordinator.key_file);
    for (key, value) in [
        ("requestsPerSecond", u64::from(coordinator.requests_per_second)),
        ("callTimeoutMs", coordinator.call_timeout_ms),
        ("pollMs", coordinator.poll_ms),
        ("settledPollMs", coordinator.settled_poll_ms),
    ] {
        // A quarter of an hour: what is put off for longer counts as due.
        if !(1..=900_000).contains(&value) {
            checker.say(&way.to(key), "must be from 1 to 900000");
        }
    }
    plain::<ProviderName>(&coordinator.provider, &way.to("provider"), checker);
    let (mut peers, mut identities, mut shown) = (BTreeMap::new(), BTreeMap::new(), Shown::default());
    for (index, peer) in coordinator.peers.iter().enumerate() {
        let way = way.to("peers").to(index);
        checker.once(&mut peers, &peer.provider, way.to("provider"), "peer");
        plain::<ProviderName>(&peer.provider, &way.to("provider"), checker);
        if peer.provider == coordinator.provider {
            checker.say(&way.to("provider"), "a peer has another provider id than ours");
        }
        match endpoint_rule(&peer.endpoint) {
            Err(message) => checker.say(&way.to("endpoint"), message),
            // The specification's security policy, on this machine too.
            Ok(()) if !peer.endpoint.starts_with("https:") => {
                checker.say(&way.to("endpoint"), "providers speak TLS 1.3: begin it with https://");
            }
            Ok(()) => {}
        }
        checker.filled(&way.to("caFile"), &peer.ca_file);
        identity(peer, &way.to("identity"), &mut identities, checker);
        let mut ids = BTreeMap::new();
        for (index, environment) in peer.environments.iter().enumerate() {
            let way = way.to("environments").to(index);
            checker.once(&mut ids, &environment.id, way.to("id"), "environment");
            self::environment(coordinator, peer, environment, &way, checker);
            shown.environment(peer, environment, &way, checker);
        }
    }
}

/// Ids as `/v1` shows them, which knows small letters only and all peers' at once.
#[derive(Default)]
struct Shown {
    environments: BTreeMap<String, Way>,
    interconnects: BTreeMap<String, Way>,
}

impl Shown {
    fn environment(
        &mut self,
        peer: &PeerConfig,
        environment: &SharedEnvironmentConfig,
        way: &Way,
        checker: &mut Checker<'_, '_>,
    ) {
        match peer.environment_id(&environment.id) {
            Ok(id) => checker.once(&mut self.environments, &id.to_string(), way.to("id"), "/v1's id of an environment"),
            Err(error) => checker.say(&way.to("id"), format!("/v1 cannot show it: {error}")),
        }
        for (index, interconnect) in environment.interconnects.iter().enumerate() {
            let way = way.to("interconnects").to(index);
            match peer.interconnect_id(&environment.id, &interconnect.id) {
                Ok(id) => {
                    let id = id.to_string();
                    checker.once(&mut self.interconnects, &id, way.to("id"), "/v1's id of an interconnect");
                }
                Err(error) => checker.say(&way.to("id"), format!("/v1 cannot show it: {error}")),
            }
            for (index, channel) in interconnect.channels.iter().enumerate() {
                plain::<ChannelId>(&channel.id, &way.to("channels").to(index).to("id"), checker);
            }
        }
    }
}

fn plain<T: std::str::FromStr<Err = IdError>>(id: &ResourceId, way: &Way, checker: &mut Checker<'_, '_>) {
    if let Err(error) = plain_id::<T>(id) {
        checker.say(way, format!("/v1 cannot show it: {error}"));
    }
}

/// No two peers are told by the same thing: a certificate is one peer's.
fn identity(peer: &PeerConfig, way: &Way, seen: &mut BTreeMap<String, Way>, checker: &mut Checker<'_, '_>) {
    match &peer.identity {
        PeerIdentity::DnsName(name) => {
            let way = way.to("dnsName");
            let label = |label: &str| {
                (1..=63).contains(&label.len()) && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            };
            if !(name.len() <= 253 && name.split('.').all(label)) {
                checker.say(&way, format!("`{name}` is no DNS name"));
            }
            checker.once(seen, &name.to_ascii_lowercase(), way, "identity");
        }
        PeerIdentity::SpkiSha256(pins) => {
            let way = way.to("spkiSha256");
            if pins.is_empty() {
                checker.say(&way, "names at least one key");
            }
            for (index, pin) in pins.iter().enumerate() {
                let way = way.to(index);
                if pin.len() != 64 || !pin.bytes().all(|b| b.is_ascii_hexdigit()) {
                    checker.say(&way, "a SHA-256 has 64 hexadecimal digits");
                }
                checker.once(seen, &pin.to_ascii_lowercase(), way, "identity");
            }
        }
    }
}

fn environment(
    coordinator: &CoordinatorConfig,
    peer: &PeerConfig,
    environment: &SharedEnvironmentConfig,
    way: &Way,
    checker: &mut Checker<'_, '_>,
) {
    checker.filled(&way.to("ourSite"), &environment.our_site);
    checker.filled(&way.to("theirSite"), &environment.their_site);
    if environment.bandwidths_mbps.is_empty() {
        checker.say(&way.to("bandwidthsMbps"), "names at least one bandwidth that may be bought");
    }
    if !(1..=8_760).contains(&environment.deferral_timeout_hours) {
        checker.say(&way.to("deferralTimeoutHours"), "must be from 1 to 8760");
    }
    let mut ids = BTreeMap::new();
    for (index, interconnect) in environment.interconnects.iter().enumerate() {
        let way = way.to("interconnects").to(index);
        checker.once(&mut ids, &interconnect.id, way.to("id"), "interconnect");
        if interconnect.channels.is_empty() {
            checker.say(&way.to("channels"), "an interconnect has at least one channel");
        }
        let (mut ids, mut devices) = (BTreeMap::new(), BTreeMap::new());
        for (index, channel) in interconnect.channels.iter().enumerate() {
            let way = way.to("channels").to(index);
            checker.once(&mut ids, &channel.id, way.to("id"), "channel");
            // The specification's: one device in maintenance takes one channel of an interconnect.
            checker.once(&mut devices, &channel.device, way.to("device"), "device");
            self::channel(coordinator, peer, channel, &way, checker);
        }
    }
}

fn channel(
    coordinator: &CoordinatorConfig,
    peer: &PeerConfig,
    channel: &SharedChannelConfig,
    way: &Way,
    checker: &mut Checker<'_, '_>,
) {
    checker.filled(&way.to("device"), &channel.device);
    let (lowest, highest) = channel.vlans;
    if lowest < LOWEST_VLAN || highest > 4_094 || lowest > highest {
        checker.say(&way.to("vlans"), format!("is a range within {LOWEST_VLAN} to 4094: lower ones are reserved"));
    }
    if channel.mtus.is_empty() || channel.mtus.iter().any(|(low, high)| low > high || *low < 576 || *high > 9_216) {
        checker.say(&way.to("mtus"), "names ranges within 576 to 9216, as [[1500, 1500], [8500, 8500]]");
    }
    if channel.subnets.is_empty() {
        checker.say(&way.to("subnets"), "names at least one prefix that subnets come from");
    }
    for (key, nets) in [("subnets", &channel.subnets), ("excludedSubnets", &channel.excluded_subnets)] {
        for (index, net) in nets.iter().enumerate().filter(|(_, net)| net.trunc() != **net) {
            let network = net.trunc();
            checker.say(&way.to(key).to(index), format!("{net} has host bits set; the network is {network}"));
        }
    }
    // A /31 has two hosts (RFC 3021); what is wider than a /24 is no point-to-point subnet.
    let widest = channel.subnets.iter().map(ipnet::Ipv4Net::prefix_len).min().unwrap_or(0);
    if channel.prefix_lengths.is_empty() || channel.prefix_lengths.iter().any(|l| !(24..=31).contains(l) || *l < widest)
    {
        checker.say(&way.to("prefixLengths"), "names lengths from 24 to 31 that fit into the subnets");
    }
    if !(1..=800).contains(&channel.size_gbps) {
        checker.say(&way.to("sizeGbps"), "must be from 1 to 800");
    }
    for (key, manager) in
        [("macsecManager", &channel.macsec_manager), ("crossConnectManager", &channel.cross_connect_manager)]
    {
        if manager.as_ref().is_some_and(|id| *id != coordinator.provider && *id != peer.provider) {
            checker.say(
                &way.to(key),
                format!("is one of the two providers, `{}` or `{}`", coordinator.provider, peer.provider),
            );
        }
    }
}
