//! The parameters of a lab's network, and the addresses that follow from them.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

use crate::clouds::world::{AwsLag, AwsWorld, GoogleInterconnect, GoogleWorld};

/// The network of one lab.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NetSpec {
    /// The first site; its namespaces are `a-host`, `a-gw` and `a-router`.
    pub a: SiteSpec,
    /// The second site; its namespaces are `b-host`, `b-gw` and `b-router`.
    pub b: SiteSpec,
    /// The private channels, in order; channel `i` is the wire and the trunk `ch{i}`.
    pub channels: Vec<ChannelSpec>,
    /// The wire between the first gateway and the internet.
    pub internet: Impairment,
    /// The way 802.1Q interfaces are made; `None` takes the first one that this machine can.
    pub vlan: Option<VlanWay>,
    /// The way MACsec is run; `None` takes the first one that this machine can.
    #[serde(default)]
    pub macsec: Option<MacSecWay>,
    /// Seed of the wires' random loss and jitter.
    pub seed: u64,
    /// Who configures the routers.
    #[serde(default)]
    pub routers: Configured,
}

/// Who configures a lab's routers, and with that how hosts reach the other site.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Configured {
    /// The simulated clouds. What hosts send goes to the site's gateway, which steers.
    #[default]
    ByClouds,
    /// The operator: BIRD includes the folder [`INCLUDES`] below its own, links are made by the control socket. What hosts
    /// send follows BGP.
    ByOperator,
}

/// The folder that an operator's BIRD includes every `tl-*.conf` of.
pub const INCLUDES: &str = "tieline.d";

/// One end of the lab.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SiteSpec {
    /// The name that the cloud's simulator uses: `aws` or `google`.
    pub name: String,
    /// The site's network, a /16: hosts are in its second /24, gateways in its third.
    pub prefix: Ipv4Net,
    /// MTU of the site's own links, in bytes.
    pub mtu: u16,
    /// The gateway's address on the internet, with the length of its subnet; the internet's end is the first host of it.
    pub wan: Ipv4Net,
}

/// One private channel: a physical circuit between a port of either cloud.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ChannelSpec {
    /// The first cloud's name of its port.
    pub a_port: String,
    /// The second cloud's name of its port.
    pub b_port: String,
    /// The circuit.
    pub wire: Impairment,
}

/// What a wire does to frames, in each direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Impairment {
    /// One-way delay in microseconds.
    pub delay_us: u64,
    /// Greatest deviation from the delay, in microseconds; frames are never reordered.
    #[serde(default)]
    pub jitter_us: u64,
    /// Frames lost at random, in millionths.
    #[serde(default)]
    pub loss_ppm: u32,
    /// Line rate in bits per second; 0 is no limit.
    #[serde(default)]
    pub rate_bps: u64,
    /// Depth of the queue before a limited line, in microseconds at the line rate; 0 stands for 100 000.
    #[serde(default)]
    pub queue_us: u64,
}

impl Impairment {
    /// A wire with a delay and nothing else.
    #[must_use]
    pub const fn delay_us(delay_us: u64) -> Self {
        Self { delay_us, jitter_us: 0, loss_ppm: 0, rate_bps: 0, queue_us: 0 }
    }

    /// Refuses what no wire can do.
    ///
    /// # Errors
    /// Names the bounds.
    pub fn validate(&self) -> Result<(), SpecError> {
        if self.loss_ppm > 1_000_000 || self.delay_us > 60_000_000 || self.jitter_us > self.delay_us {
            let what = "a wire's loss is at most 1000000 ppm, its delay 60 s and its jitter the delay".to_owned();
            return Err(SpecError { what });
        }
        Ok(())
    }
}

/// How 802.1Q interfaces are made. All put the same bytes on the trunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum VlanWay {
    /// The kernel's own `vlan` devices (module `8021q`).
    Kernel,
    /// A veth end whose frames two small eBPF programs tag and untag; needs `CAP_BPF` outside any user namespace.
    Bpf,
    /// A TAP and a packet socket, relayed by this process; works in a user namespace.
    Relay,
}

/// How MACsec is run on the trunks of routers that the operator configures.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum MacSecWay {
    /// The kernel's own `macsec` devices encrypt; needs the module, and `CAP_NET_ADMIN` outside any user namespace.
    Kernel,
    /// Nothing is encrypted: the wire carries only what its far end has the key of.
    #[default]
    StandIn,
}

impl Default for NetSpec {
    /// [`NetSpec::with_channels`] of two channels.
    fn default() -> Self {
        Self::with_channels(2)
    }
}

impl NetSpec {
    /// Two sites as `tieline lab up` makes them: 10.0.0.0/16 on AWS and 10.1.0.0/16 on Google, channels of 2 and 3 ms in
    /// turn between the ports of [`crate::clouds::world`], and 8 ms over the internet.
    #[must_use]
    pub fn with_channels(channels: usize) -> Self {
        let net = |a, b, c, d, len| Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), len);
        let ports = (AwsWorld::with_channels(channels, vec![]), GoogleWorld::with_channels(channels, vec![]));
        let ports = ports.0.lags.into_iter().zip(ports.1.interconnects);
        let channel = |(i, (lag, interconnect)): (usize, (AwsLag, GoogleInterconnect))| ChannelSpec {
            a_port: lag.id,
            b_port: interconnect.name,
            wire: Impairment::delay_us(if i % 2 == 0 { 2_000 } else { 3_000 }),
        };
        Self {
            a: SiteSpec { name: "aws".into(), prefix: net(10, 0, 0, 0, 16), mtu: 1500, wan: net(203, 0, 113, 10, 24) },
            b: SiteSpec {
                name: "google".into(),
                prefix: net(10, 1, 0, 0, 16),
                mtu: 1500,
                wan: net(198, 51, 100, 10, 24),
            },
            channels: ports.enumerate().map(channel).collect(),
            internet: Impairment::delay_us(8_000),
            vlan: None,
            macsec: None,
            seed: 1,
            routers: Configured::ByClouds,
        }
    }
}

/// A parameter that no network can be made of.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}")]
pub struct SpecError {
    what: String,
}

/// Most channels of one lab: interface names end where `ch999.4094` would no longer fit beside its helper.
pub const MAX_CHANNELS: usize = 64;

impl NetSpec {
    /// Refuses parameters that overlap or do not fit.
    ///
    /// # Errors
    /// Names the first parameter that cannot hold.
    pub fn validate(&self) -> Result<(), SpecError> {
        let refuse = |what: String| Err(SpecError { what });
        for site in [&self.a, &self.b] {
            if site.prefix.prefix_len() != 16 || site.prefix.trunc() != site.prefix {
                return refuse(format!(
                    "site {:?}: the prefix {} must be a /16 without host bits",
                    site.name, site.prefix
                ));
            }
            if site.wan.prefix_len() > 30 || site.wan.addr() == site.internet_address() {
                return refuse(format!(
                    "site {:?}: the wan address {} must leave room for its router",
                    site.name, site.wan
                ));
            }
        }
        if self.a.name == self.b.name {
            return refuse(format!("both sites are named {:?}", self.a.name));
        }
        let nets = [self.a.prefix, self.b.prefix, self.a.wan.trunc(), self.b.wan.trunc()];
        for (i, one) in nets.iter().enumerate() {
            if let Some(other) = nets.iter().skip(i + 1).find(|n| n.contains(one) || one.contains(*n)) {
                return refuse(format!("the networks {one} and {other} overlap"));
            }
        }
        if self.channels.is_empty() || self.channels.len() > MAX_CHANNELS {
            return refuse(format!("a lab has 1 to {MAX_CHANNELS} channels, not {}", self.channels.len()));
        }
        for end in [End::A, End::B] {
            let mut ports: Vec<_> = self.channels.iter().map(|c| c.port(end)).collect();
            ports.sort_unstable();
            if let Some(pair) = ports.windows(2).find(|p| p[0] == p[1]) {
                return refuse(format!("two channels use the port {:?}", pair[0]));
            }
        }
        let mut wires = self.channels.iter().map(|c| &c.wire).chain([&self.internet]);
        wires.try_for_each(Impairment::validate)
    }

    /// The site at one end.
    #[must_use]
    pub fn site(&self, end: End) -> &SiteSpec {
        match end {
            End::A => &self.a,
            End::B => &self.b,
        }
    }

    /// The end that a site's name stands for.
    #[must_use]
    pub fn end(&self, site: &str) -> Option<End> {
        [End::A, End::B].into_iter().find(|end| self.site(*end).name == site)
    }

    /// The channel that a port belongs to.
    #[must_use]
    pub fn channel(&self, end: End, port: &str) -> Option<usize> {
        self.channels.iter().position(|c| c.port(end) == port)
    }
}

impl ChannelSpec {
    fn port(&self, end: End) -> &str {
        match end {
            End::A => &self.a_port,
            End::B => &self.b_port,
        }
    }
}

/// One of the two ends of a lab.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum End {
    /// The first site.
    A,
    /// The second site.
    B,
}

impl End {
    /// The other end.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }

    /// The letter that the end's namespaces begin with.
    #[must_use]
    pub const fn letter(self) -> char {
        match self {
            Self::A => 'a',
            Self::B => 'b',
        }
    }
}

impl SiteSpec {
    fn host(&self, subnet: u8, host: u8) -> Ipv4Addr {
        let [a, b, ..] = self.prefix.network().octets();
        Ipv4Addr::new(a, b, subnet, host)
    }

    /// The router's address towards the hosts, x.y.1.1.
    #[must_use]
    pub fn router_lan(&self) -> Ipv4Addr {
        self.host(1, 1)
    }

    /// The host's address, x.y.1.10.
    #[must_use]
    pub fn host_address(&self) -> Ipv4Addr {
        self.host(1, 10)
    }

    /// The router's address towards the gateway, x.y.2.1.
    #[must_use]
    pub fn router_gateway(&self) -> Ipv4Addr {
        self.host(2, 1)
    }

    /// The gateway's address inside the site, x.y.2.10.
    #[must_use]
    pub fn gateway_address(&self) -> Ipv4Addr {
        self.host(2, 10)
    }

    /// The internet's address on the gateway's uplink: the first host of its subnet.
    #[must_use]
    pub fn internet_address(&self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.wan.network().to_bits() + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_valid_and_survives_json() {
        let spec = NetSpec::default();
        spec.validate().unwrap();
        let text = serde_json::to_string(&spec).unwrap();
        assert_eq!(serde_json::from_str::<NetSpec>(&text).unwrap(), spec);
        assert_eq!(spec.a.host_address(), Ipv4Addr::new(10, 0, 1, 10));
        assert_eq!(spec.b.gateway_address(), Ipv4Addr::new(10, 1, 2, 10));
        assert_eq!(spec.a.internet_address(), Ipv4Addr::new(203, 0, 113, 1));
    }

    #[test]
    fn contradictions_are_refused_by_name() {
        let refused = |change: fn(&mut NetSpec)| {
            let mut spec = NetSpec::default();
            change(&mut spec);
            spec.validate().unwrap_err().to_string()
        };
        assert!(refused(|s| s.b.prefix = s.a.prefix).contains("overlap"));
        assert!(refused(|s| s.b.name = "aws".into()).contains("aws"));
        assert!(refused(|s| s.channels[1].a_port = s.channels[0].a_port.clone()).contains("dxlag-fg000001"));
        assert!(refused(|s| s.channels.clear()).contains("channels"));
        assert!(refused(|s| s.a.prefix = "10.0.0.0/15".parse().unwrap()).contains("/16"));
        assert!(refused(|s| s.a.wan = "203.0.113.1/24".parse().unwrap()).contains("wan"));
        assert!(refused(|s| s.internet.loss_ppm = 1_000_001).contains("loss"));
    }
}
