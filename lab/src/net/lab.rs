//! The whole network of a lab: seven namespaces, the wires between them, and two routers.
//!
//! ```text
//! a-host --lan0-- a-router ==ch0==ch1==…== b-router --lan0-- b-host
//!                    | gw0                    | gw0
//!                  a-gw --wan0-- internet --wan0-- b-gw
//! ```
//!
//! Where the clouds configure the routers, steering is inline: a router hands what its hosts send to the other site to its gateway, and what comes back from the
//! gateway for the other site follows BGP (table [`BGP_TABLE`]), or is dropped where BGP knows no way. Where the operator
//! does, what hosts send follows BGP at once.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use ipnet::Ipv4Net;
use tokio::sync::Mutex;

use crate::clouds::network::{Network, NetworkError, Session, SessionStatus};

use super::error::NetError;
use super::links::Links;
use super::macsec::keeper::Keeper;
use super::macsec::{MacSecHeld, MacSecStatus, MacSecWanted};
use super::namespace::Namespace;
use super::router::{BGP_TABLE, Follower, LinkName, LinkWanted, Router, trunk};
use super::spec::{Configured, End, Impairment, NetSpec, VlanWay};
use super::tap::{Offload, Tap};
use super::wire::{Wire, WireChange, WireStatus};

/// The internet's wire, and its namespace.
pub const INTERNET: &str = "internet";

/// MTU of a trunk, in bytes: what the sites' ports carry, with room for what sessions may ask.
const TRUNK_MTU: u32 = 9_216;

/// A running network. It goes when this goes, except for names of namespaces, which go with the cell.
#[derive(Debug)]
pub struct LabNetwork {
    spec: Arc<NetSpec>,
    // Dropped in this order: followers and routers before the wires that they use.
    _followers: Vec<Follower>,
    routers: [Arc<Router>; 2],
    wires: BTreeMap<String, Wire>,
    macsec: Mutex<Keeper>,
    namespaces: BTreeMap<String, Arc<Namespace>>,
}

#[derive(Debug)]
struct Node {
    namespace: Arc<Namespace>,
    links: Links,
}

impl Node {
    async fn create(name: &str, forwards: bool) -> Result<Self, NetError> {
        let namespace = Arc::new(Namespace::create(name)?);
        let links = Links::open(&namespace)?;
        let on = if forwards { "1" } else { "0" };
        for (key, value) in [
            ("ipv6/conf/all/disable_ipv6", "1"),
            ("ipv6/conf/default/disable_ipv6", "1"),
            ("ipv4/ip_forward", on),
            // Paths differ by direction on purpose, and a gateway sends back where it came from.
            ("ipv4/conf/all/rp_filter", "0"),
            ("ipv4/conf/default/rp_filter", "0"),
            ("ipv4/conf/all/send_redirects", "0"),
            ("ipv4/conf/default/send_redirects", "0"),
            ("ipv4/conf/all/accept_redirects", "0"),
            ("ipv4/conf/default/accept_redirects", "0"),
            // Equal routes are chosen by addresses and ports, as clouds do.
            ("ipv4/fib_multipath_hash_policy", "1"),
        ] {
            match namespace.sysctl(key, value) {
                // A kernel without IPv6 has nothing to switch off.
                Err(missing) if missing.is_errno(libc::ENOENT) && key.starts_with("ipv6/") => {}
                done => done?,
            }
        }
        links.set_up("lo", true).await?;
        Ok(Self { namespace, links })
    }

    async fn address(&self, interface: &str, address: Ipv4Net, mtu: u16) -> Result<(), NetError> {
        self.links.set_mtu(interface, mtu.into()).await?;
        self.links.set_addresses(interface, &[address]).await?;
        self.links.set_up(interface, true).await
    }
}

struct Site {
    host: Node,
    gateway: Node,
    router: Node,
}

impl LabNetwork {
    /// Builds the network. Files (configuration and logs of the routers) go below `directory`.
    ///
    /// The caller must be able to make network namespaces and to bind them below `/run/netns`: inside a
    /// [`cell`](crate::cell), that is always so.
    ///
    /// # Errors
    /// The first step that fails; what was built before it goes with the cell.
    pub async fn build(spec: NetSpec, directory: &Path) -> Result<Self, NetError> {
        spec.validate()?;
        let spec = Arc::new(spec);
        let internet = Node::create(INTERNET, true).await?;
        let (a, b) = (site(End::A, &spec).await?, site(End::B, &spec).await?);
        let mut wires = BTreeMap::new();
        let seed = |i: usize| spec.seed.wrapping_mul(1_000).wrapping_add(i as u64);
        for (i, channel) in spec.channels.iter().enumerate() {
            let name = trunk(i);
            wires.insert(
                name.clone(),
                wire(&name, (&a.router, &name), (&b.router, &name), channel.wire, seed(i)).await?,
            );
            for router in [&a.router, &b.router] {
                router.links.set_mtu(&name, TRUNK_MTU).await?;
            }
        }
        let uplink =
            wire(INTERNET, (&a.gateway, "wan0"), (&internet, "wan-a"), spec.internet, seed(spec.channels.len()));
        wires.insert(INTERNET.to_owned(), uplink.await?);
        b.gateway.links.add_veth("wan0", "wan-b", &internet.namespace).await?;
        for (end, site) in [(End::A, &a), (End::B, &b)] {
            join_internet(end, &spec, &site.gateway, &internet).await?;
        }
        let ((router_a, follower_a), (router_b, follower_b)) =
            futures::try_join!(start(End::A, &spec, &a.router, directory), start(End::B, &spec, &b.router, directory))?;
        let nodes = [internet, a.host, a.gateway, a.router, b.host, b.gateway, b.router];
        let namespaces = nodes.into_iter().map(|n| (n.namespace.name().to_owned(), n.namespace)).collect();
        let macsec = Mutex::new(Keeper::new(spec.macsec));
        Ok(Self {
            spec,
            _followers: vec![follower_a, follower_b],
            routers: [router_a, router_b],
            wires,
            macsec,
            namespaces,
        })
    }

    /// The parameters.
    #[must_use]
    pub fn spec(&self) -> &NetSpec {
        &self.spec
    }

    /// The namespaces, by name.
    #[must_use]
    pub fn namespaces(&self) -> &BTreeMap<String, Arc<Namespace>> {
        &self.namespaces
    }

    /// The wires as they are now, by name: `ch0`, `ch1`, … and `internet`.
    #[must_use]
    pub fn wires(&self) -> BTreeMap<String, WireStatus> {
        self.wires.iter().map(|(name, wire)| (name.clone(), wire.status())).collect()
    }

    /// Changes a wire at once.
    ///
    /// # Errors
    /// [`NetError::UnknownWire`], or what [`Wire::change`] refuses.
    pub fn change_wire(&self, name: &str, change: &WireChange) -> Result<WireStatus, NetError> {
        let known = || self.wires.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
        let wire = self.wires.get(name);
        let wire = wire.ok_or_else(|| NetError::UnknownWire { wire: name.to_owned(), known: known() })?;
        wire.change(change)?;
        Ok(wire.status())
    }

    /// Makes a tagged interface on a site's router that the operator configures, or makes it what is wanted.
    ///
    /// # Errors
    /// [`NetError::UnknownLink`], or where the kernel refuses.
    pub async fn put_link(&self, site: &str, link: &LinkName, wanted: &LinkWanted) -> Result<(), NetError> {
        self.operators(site, link)?.put_link(link, wanted).await
    }

    /// Takes such an interface away, if it is there.
    ///
    /// # Errors
    /// [`NetError::UnknownLink`], or where the kernel refuses.
    pub async fn delete_link(&self, site: &str, link: &LinkName) -> Result<(), NetError> {
        self.operators(site, link)?.delete_link(link).await
    }

    /// Makes the MACsec keys of a trunk on a site's router that the operator configures what is wanted; how it is then.
    ///
    /// # Errors
    /// [`NetError::UnknownTrunk`], [`NetError::MacSec`], or where the kernel refuses.
    pub async fn put_macsec(&self, site: &str, name: &str, wanted: &MacSecWanted) -> Result<MacSecHeld, NetError> {
        let unknown = || NetError::UnknownTrunk { trunk: name.to_owned() };
        let end = self.spec.end(site).ok_or_else(unknown)?;
        let channel = self.routers[end as usize].operators_trunk(name).ok_or_else(unknown)?;
        let wire = self.wires.get(name).ok_or_else(unknown)?;
        // Locked until all is done: the last word of both ends is what holds.
        self.macsec.lock().await.put(&self.routers, wire, channel, end, wanted).await
    }

    /// What there is to tell of MACsec, by site and trunk.
    pub async fn macsec(&self) -> BTreeMap<String, BTreeMap<String, MacSecStatus>> {
        let keeper = self.macsec.lock().await;
        let mut all = BTreeMap::new();
        for (end, router) in [End::A, End::B].into_iter().zip(&self.routers) {
            all.insert(self.spec.site(end).name.clone(), keeper.status(end, router).await);
        }
        all
    }

    fn operators(&self, site: &str, link: &LinkName) -> Result<&Router, NetError> {
        let unknown = |_| NetError::UnknownLink { parent: link.parent.clone(), vlan: link.vlan };
        self.router(site).map_err(unknown)
    }

    /// Names of the tagged interfaces, by site.
    pub async fn tagged(&self) -> BTreeMap<String, Vec<String>> {
        let mut all = BTreeMap::new();
        for (end, router) in [End::A, End::B].into_iter().zip(&self.routers) {
            all.insert(self.spec.site(end).name.clone(), router.tagged().await);
        }
        all
    }

    /// How tagged interfaces are made here; `None` before the first session.
    pub async fn vlan_way(&self) -> Option<VlanWay> {
        let [a, b] = &self.routers;
        a.vlan_way().await.or(b.vlan_way().await)
    }

    fn router(&self, site: &str) -> Result<&Router, NetworkError> {
        let [a, b] = &self.routers;
        match self.spec.end(site) {
            Some(End::A) => Ok(a),
            Some(End::B) => Ok(b),
            None => Err(NetworkError::UnknownSite { site: site.to_owned() }),
        }
    }
}

#[async_trait]
impl Network for LabNetwork {
    async fn configure(&self, site: &str, sessions: Vec<Session>) -> Result<(), NetworkError> {
        self.router(site)?.configure(sessions).await
    }

    async fn status(&self, site: &str) -> Result<BTreeMap<String, SessionStatus>, NetworkError> {
        self.router(site)?.status().await
    }

    async fn link_up(&self, site: &str, port: &str) -> Result<bool, NetworkError> {
        self.router(site)?.link_up(port).await
    }
}

async fn start(
    end: End,
    spec: &Arc<NetSpec>,
    node: &Node,
    directory: &Path,
) -> Result<(Arc<Router>, Follower), NetError> {
    let directory: PathBuf = directory.join(node.namespace.name());
    Router::start(end, Arc::clone(spec), Arc::clone(&node.namespace), node.links.clone(), directory).await
}

/// One site: its host, gateway and router, joined, addressed and routed.
async fn site(end: End, spec: &NetSpec) -> Result<Site, NetError> {
    let (site, remote, letter) = (spec.site(end), spec.site(end.other()).prefix, end.letter());
    let host = Node::create(&format!("{letter}-host"), false).await?;
    let gateway = Node::create(&format!("{letter}-gw"), true).await?;
    let router = Node::create(&format!("{letter}-router"), true).await?;
    router.links.add_veth("lan0", "lan0", &host.namespace).await?;
    router.links.add_veth("gw0", "gw0", &gateway.namespace).await?;
    let subnet = |address| Ipv4Net::new_assert(address, 24);
    router.address("lan0", subnet(site.router_lan()), site.mtu).await?;
    router.address("gw0", subnet(site.router_gateway()), site.mtu).await?;
    host.address("lan0", subnet(site.host_address()), site.mtu).await?;
    gateway.address("gw0", subnet(site.gateway_address()), site.mtu).await?;
    let everywhere = Ipv4Net::default();
    host.links.add_route(everywhere, site.router_lan()).await?;
    gateway.links.add_route(everywhere, site.router_gateway()).await?;
    match spec.routers {
        // Inline steering: what hosts send to the other site goes to the gateway, and what that sends there follows BGP.
        Configured::ByClouds => {
            router.links.add_route(remote, site.gateway_address()).await?;
            router.links.add_rule("gw0", BGP_TABLE, 100).await?;
        }
        Configured::ByOperator => router.links.add_rule("lan0", BGP_TABLE, 100).await?,
    }
    // Without a route of BGP's it ends here: going on to the main table would be a loop.
    router.links.add_blackhole(remote, BGP_TABLE).await?;
    router.links.add_rule("lo", BGP_TABLE, 101).await?;
    Ok(Site { host, gateway, router })
}

/// Addresses a gateway's uplink and pins the way to the other gateway to it.
async fn join_internet(end: End, spec: &NetSpec, gateway: &Node, internet: &Node) -> Result<(), NetError> {
    let (site, peer) = (spec.site(end), spec.site(end.other()).wan);
    gateway.address("wan0", site.wan, 1500).await?;
    let far = format!("wan-{}", end.letter());
    internet.address(&far, Ipv4Net::new_assert(site.internet_address(), site.wan.prefix_len()), 1500).await?;
    gateway.links.add_route(Ipv4Net::from(peer.addr()), site.internet_address()).await
}

async fn wire(
    name: &str,
    a: (&Node, &str),
    b: (&Node, &str),
    impairment: Impairment,
    seed: u64,
) -> Result<Wire, NetError> {
    let tap = |(node, interface): (&Node, &str)| Tap::create(&node.namespace, interface, Offload::Full);
    let joined = Wire::join(name, tap(a)?, tap(b)?, impairment, seed)?;
    for (node, interface) in [a, b] {
        node.links.set_up(interface, true).await?;
    }
    Ok(joined)
}
