//! One site's router: the VPC router and the cloud router in one namespace, with BIRD.
//!
//! It runs exactly the sessions that it was told last. What a session needs (its tagged interface, MTU and address) is
//! made with it and goes with it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;
use tokio::task::JoinHandle;

use tieline_openapi::v1::{BfdState, BgpState};
use tieline_providers::network::bird::{Control, ControlError, Route, parse_bfd, parse_protocols, parse_routes};

use crate::clouds::network::{LearnedRoute, NetworkError, Session, SessionStatus};

use super::bird::{self, Bird, BirdError, RouterConfig};
use super::error::NetError;
use super::links::{LinkMonitor, Links};
use super::macsec::device::{self, Device, DeviceError, Held};
use super::macsec::sak::{KeyId, Sak};
use super::namespace::Namespace;
use super::spec::{Configured, End, INCLUDES, NetSpec, SiteSpec, VlanWay};
use super::vlan::{TaggedLink, Vlans};

/// The kernel table of routes learned over BGP.
pub const BGP_TABLE: u32 = 100;

/// The router of one site.
#[derive(Debug)]
pub(super) struct Router {
    end: End,
    spec: Arc<NetSpec>,
    namespace: Arc<Namespace>,
    links: Links,
    vlans: Vlans,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    bird: Bird,
    tagged: BTreeMap<(usize, u16), Tagged>,
    /// MACsec devices by channel; tagged interfaces of the channel stand on them, for their tags are encrypted too.
    secured: BTreeMap<usize, Device>,
    /// Names of protocols by session id. A name stays with its id, so that a session that goes on is told apart.
    names: BTreeMap<String, String>,
    sessions: BTreeMap<String, Session>,
    /// The configuration that the daemon has taken.
    configured: String,
}

/// A tagged interface, and what it is to be.
#[derive(Debug)]
struct Tagged {
    link: TaggedLink,
    interface: Interface,
}

/// Follows the carrier of a router's trunks until it is dropped.
#[derive(Debug)]
pub(super) struct Follower(JoinHandle<()>);

impl Drop for Follower {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Router {
    /// Starts the daemon of a site without any session. The namespace and its trunks are there already.
    pub(super) async fn start(
        end: End,
        spec: Arc<NetSpec>,
        namespace: Arc<Namespace>,
        links: Links,
        directory: PathBuf,
    ) -> Result<(Arc<Self>, Follower), NetError> {
        let site = spec.site(end);
        if spec.routers == Configured::ByOperator {
            let folder = directory.join(INCLUDES);
            let failed = |source| NetError::Bird {
                namespace: namespace.name().to_owned(),
                source: BirdError::File { path: folder.clone(), source },
            };
            std::fs::create_dir_all(&folder).map_err(failed)?;
        }
        let nothing = bird::render(&configuration(site, spec.routers, BTreeMap::new()));
        let failed = |source| NetError::Bird { namespace: namespace.name().to_owned(), source };
        let bird = Bird::start(&namespace, &directory, &nothing).await.map_err(failed)?;
        let monitor = Links::monitor(&namespace)?;
        let state = State {
            bird,
            tagged: BTreeMap::new(),
            secured: BTreeMap::new(),
            names: BTreeMap::new(),
            sessions: BTreeMap::new(),
            configured: nothing,
        };
        let vlans = Vlans::new(spec.vlan);
        let router = Arc::new(Self { end, spec, namespace, links, vlans, state: Mutex::new(state) });
        let follower = tokio::spawn(Arc::clone(&router).follow(monitor));
        Ok((router, Follower(follower)))
    }

    async fn follow(self: Arc<Self>, mut monitor: LinkMonitor) {
        while let Some(trunk) = monitor.changed().await {
            let state = self.state.lock().await;
            for Tagged { link, .. } in state.tagged.values().filter(|tagged| tagged.link.parent() == trunk.name) {
                if let Err(error) = link.follow(&self.links, &trunk).await {
                    tracing::warn!(interface = link.name(), %error, "cannot follow the carrier of the trunk");
                }
            }
        }
    }

    fn site(&self) -> &SiteSpec {
        self.spec.site(self.end)
    }

    fn channel(&self, port: &str) -> Option<usize> {
        self.spec.channel(self.end, port)
    }

    fn failed<E: std::error::Error + Send + Sync + 'static>(
        &self,
        operation: &'static str,
    ) -> impl FnOnce(E) -> NetworkError {
        let site = self.site().name.clone();
        move |source| NetworkError::Router { site, operation, source: Box::new(source) }
    }

    /// Whether the trunk of a port has light.
    pub(super) async fn link_up(&self, port: &str) -> Result<bool, NetworkError> {
        let unknown = || NetworkError::UnknownPort { site: self.site().name.clone(), port: port.to_owned() };
        let trunk = trunk(self.channel(port).ok_or_else(unknown)?);
        Ok(self.links.get(&trunk).await.map_err(self.failed("read its link"))?.carrier)
    }

    /// Makes the router run exactly these sessions. Those that no router could run are not run; the first of them is the
    /// error that is returned when all others are.
    pub(super) async fn configure(&self, sessions: Vec<Session>) -> Result<(), NetworkError> {
        let (plan, refused) = self.plan(sessions);
        self.apply(plan).await.map_err(self.failed("take its sessions"))?;
        match refused.into_iter().next() {
            Some((id, reason)) => Err(NetworkError::InvalidSession { id, reason }),
            None => Ok(()),
        }
    }

    async fn apply(&self, plan: Plan) -> Result<(), NetError> {
        let Plan { sessions, interfaces } = plan;
        let mut state = self.state.lock().await;
        for (key, wanted) in &interfaces {
            self.provide(&mut state, *key, wanted).await?;
        }
        state.names.retain(|id, _| sessions.contains_key(id));
        for id in sessions.keys() {
            if !state.names.contains_key(id) {
                let taken: BTreeSet<_> = state.names.values().cloned().collect();
                let free = (1..).map(|n: u32| format!("peer{n}")).find(|name| !taken.contains(name));
                state.names.extend(free.map(|name| (id.clone(), name)));
            }
        }
        let named = state.names.iter().filter_map(|(id, name)| Some((name.as_str(), sessions.get(id)?))).collect();
        let text = bird::render(&configuration(self.site(), self.spec.routers, named));
        if text != state.configured {
            let done = state.bird.reconfigure(&text).await;
            done.map_err(|source| NetError::Bird { namespace: self.namespace.name().to_owned(), source })?;
            state.configured = text;
        }
        state.sessions = sessions;
        let stale: Vec<_> = state.tagged.keys().filter(|key| !interfaces.contains_key(key)).copied().collect();
        for key in stale {
            if let Some(tagged) = state.tagged.remove(&key) {
                tagged.link.remove(&self.links).await?;
            }
        }
        Ok(())
    }

    /// Which sessions can be run, with what interfaces, and which cannot, with the reason.
    fn plan(&self, sessions: Vec<Session>) -> (Plan, BTreeMap<String, String>) {
        let (mut plan, mut refused) = (Plan::default(), BTreeMap::new());
        for session in sessions {
            if let Err(reason) = self.admit(&mut plan, &session) {
                refused.insert(session.id, reason);
            } else {
                plan.sessions.insert(session.id.clone(), session);
            }
        }
        (plan, refused)
    }

    fn admit(&self, plan: &mut Plan, session: &Session) -> Result<(), String> {
        bird::check(session).map_err(|e| e.to_string())?;
        if session.site != self.site().name {
            return Err(format!("it belongs to site {:?}, not {:?}", session.site, self.site().name));
        }
        if plan.sessions.contains_key(&session.id) {
            return Err("there are two of this id".into());
        }
        let channel = self.channel(&session.port).ok_or_else(|| format!("there is no port {:?}", session.port))?;
        let address = Ipv4Net::new(session.local_ip, session.prefix_len).map_err(|e| e.to_string())?;
        let new = || Interface { mtu: session.mtu, addresses: Vec::new() };
        let interface = plan.interfaces.entry((channel, session.vlan)).or_insert_with(new);
        if interface.mtu != session.mtu {
            return Err(format!("another session on VLAN {} has the MTU {}", session.vlan, interface.mtu));
        }
        if !interface.addresses.contains(&address) {
            interface.addresses.push(address);
        }
        Ok(())
    }

    async fn provide(&self, state: &mut State, key: (usize, u16), wanted: &Interface) -> Result<(), NetError> {
        let (channel, vlan) = key;
        if let Some(tagged) = state.tagged.get_mut(&key) {
            tagged.link.set_mtu(&self.links, wanted.mtu).await?;
            tagged.interface = wanted.clone();
        } else {
            let trunk = trunk(channel);
            let parent = state.secured.get(&channel).map_or(trunk.as_str(), Device::name);
            let name = format!("{trunk}.{vlan}");
            let link = self.vlans.create(&self.namespace, &self.links, parent, &name, vlan, wanted.mtu).await?;
            state.tagged.insert(key, Tagged { link, interface: wanted.clone() });
        }
        match state.tagged.get(&key) {
            Some(tagged) => self.links.set_addresses(tagged.link.name(), &wanted.addresses).await,
            None => Ok(()),
        }
    }

    /// Puts a MACsec device on the trunk of a channel, if there is none, and its tagged interfaces on that.
    ///
    /// # Errors
    /// Where this machine has no MACsec, or an interface cannot be made anew.
    pub(super) async fn secure(&self, channel: usize) -> Result<(), NetError> {
        let mut state = self.state.lock().await;
        if state.secured.contains_key(&channel) {
            return Ok(());
        }
        // A lab has 64 channels at most.
        let number = channel as u8;
        let device = Device::create(&self.namespace, &self.links, &trunk(channel), number, self.end).await?;
        state.secured.insert(channel, device);
        let stand: Vec<_> = state.tagged.keys().filter(|(of, _)| *of == channel).copied().collect();
        for key in stand {
            if let Some(Tagged { link, interface }) = state.tagged.remove(&key) {
                link.remove(&self.links).await?;
                self.provide(&mut state, key, &interface).await?;
            }
        }
        Ok(())
    }

    /// Installs keys on a channel's MACsec device under their association numbers.
    pub(super) async fn install(&self, channel: usize, saks: &[(u8, Sak)]) -> Result<(), NetError> {
        let install = |device: &mut Device| saks.iter().try_for_each(|(an, sak)| device.install(*an, sak));
        self.with_device(channel, install).await
    }

    /// Makes a channel's MACsec device send under this key, or send and take nothing.
    pub(super) async fn send_under(&self, channel: usize, key: Option<KeyId>) -> Result<(), NetError> {
        match self.state.lock().await.secured.get_mut(&channel) {
            Some(device) => device.send_under(&self.links, key).await,
            None => Err(self.unsecured(channel)),
        }
    }

    /// Removes every key but these from a channel's MACsec device.
    pub(super) async fn keep_only(&self, channel: usize, keys: &BTreeSet<KeyId>) -> Result<(), NetError> {
        self.with_device(channel, |device| device.keep_only(keys)).await
    }

    /// What a channel's MACsec device holds.
    pub(super) async fn macsec(&self, channel: usize) -> Result<Held, NetError> {
        self.with_device(channel, Device::held).await
    }

    async fn with_device<T>(
        &self,
        channel: usize,
        work: impl FnOnce(&mut Device) -> Result<T, DeviceError>,
    ) -> Result<T, NetError> {
        let mut state = self.state.lock().await;
        let device = state.secured.get_mut(&channel).ok_or_else(|| self.unsecured(channel))?;
        work(device).map_err(|source| device::failed(device.name(), source))
    }

    fn unsecured(&self, channel: usize) -> NetError {
        NetError::NoInterface { namespace: self.namespace.name().to_owned(), interface: device::name(&trunk(channel)) }
    }

    /// What the daemon says about every session.
    pub(super) async fn status(&self) -> Result<BTreeMap<String, SessionStatus>, NetworkError> {
        let state = self.state.lock().await;
        state.status().await.map_err(self.failed("tell its state"))
    }

    /// Makes a tagged interface of the operator's, or makes it what is wanted.
    pub(super) async fn put_link(&self, link: &LinkName, wanted: &LinkWanted) -> Result<(), NetError> {
        let key = self.operators(link)?;
        let interface = Interface { mtu: wanted.mtu_bytes, addresses: vec![wanted.address] };
        self.provide(&mut *self.state.lock().await, key, &interface).await
    }

    /// Takes a tagged interface of the operator's away, if it is there.
    pub(super) async fn delete_link(&self, link: &LinkName) -> Result<(), NetError> {
        let key = self.operators(link)?;
        let mut state = self.state.lock().await;
        match state.tagged.remove(&key) {
            Some(tagged) => tagged.link.remove(&self.links).await,
            None => Ok(()),
        }
    }

    /// Names of the tagged interfaces.
    pub(super) async fn tagged(&self) -> Vec<String> {
        self.state.lock().await.tagged.values().map(|tagged| tagged.link.name().to_owned()).collect()
    }

    /// The channel of a trunk that the operator may run MACsec on.
    pub(super) fn operators_trunk(&self, name: &str) -> Option<usize> {
        let channel = (0..self.spec.channels.len()).find(|channel| trunk(*channel) == name);
        channel.filter(|_| self.spec.routers == Configured::ByOperator)
    }

    /// The channel and the tag of a link that the operator may have.
    fn operators(&self, link: &LinkName) -> Result<(usize, u16), NetError> {
        match self.operators_trunk(&link.parent) {
            Some(channel) if (1..=4094).contains(&link.vlan) => Ok((channel, link.vlan)),
            _ => Err(NetError::UnknownLink { parent: link.parent.clone(), vlan: link.vlan }),
        }
    }

    /// How the tagged interfaces are made; `None` before the first one.
    pub(super) async fn vlan_way(&self) -> Option<VlanWay> {
        self.state.lock().await.tagged.values().next().map(|tagged| tagged.link.way())
    }
}

/// Which tagged interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LinkName {
    /// The trunk.
    pub parent: String,
    /// The tag.
    pub vlan: u16,
}

/// What a tagged interface is to be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LinkWanted {
    /// Its MTU, in bytes.
    pub mtu_bytes: u16,
    /// Its address, with the length of its subnet.
    pub address: Ipv4Net,
}

/// What a router shall run.
#[derive(Debug, Default)]
struct Plan {
    sessions: BTreeMap<String, Session>,
    /// By channel and tag.
    interfaces: BTreeMap<(usize, u16), Interface>,
}

#[derive(Clone, Debug)]
struct Interface {
    mtu: u16,
    addresses: Vec<Ipv4Net>,
}

impl State {
    async fn status(&self) -> Result<BTreeMap<String, SessionStatus>, BirdError> {
        let mut asking = self.bird.open().await?;
        let protocols = parse_protocols(&asking.ask("show protocols all").await?);
        let bfd = parse_bfd(&asking.ask("show bfd sessions").await?);
        let mut statuses = BTreeMap::new();
        for (id, name) in &self.names {
            let Some(session) = self.sessions.get(id) else { continue };
            let protocol = protocols.iter().find(|p| p.name == *name);
            let bgp = protocol.and_then(|p| p.bgp).unwrap_or_default();
            let established = bgp == BgpState::Established;
            let (mut learned, mut advertised) = (Vec::new(), Vec::new());
            if established {
                learned = routes(&mut asking, &format!("show route protocol {name} all")).await?;
                advertised = routes(&mut asking, &format!("show route export {name}")).await?;
            }
            let (routes_in, routes_out) = protocol.and_then(|p| p.routes).filter(|_| established).unwrap_or_default();
            let heard = bfd.iter().find(|b| b.neighbour == std::net::IpAddr::V4(session.peer_ip));
            let silent = if session.bfd.is_some() { BfdState::Down } else { BfdState::AdminDown };
            let status = SessionStatus {
                bgp,
                bfd: heard.filter(|_| session.bfd.is_some()).map_or(silent, |b| b.state),
                routes_in,
                routes_out,
                learned: learned.into_iter().map(|route| learned_route(route, session)).collect(),
                advertised: advertised.into_iter().map(|route| route.prefix).collect(),
                established_since: protocol.filter(|_| established).and_then(|p| p.since),
                last_error: protocol.and_then(|p| p.last_error.clone()),
            };
            statuses.insert(id.clone(), status);
        }
        Ok(statuses)
    }
}

/// The routes of an answer; none where the session has ended since it was seen up, which the daemon refuses.
async fn routes(asking: &mut Control, command: &str) -> Result<Vec<Route>, BirdError> {
    match asking.ask(command).await {
        Ok(reply) => Ok(parse_routes(&reply)),
        Err(ControlError::Refused { .. }) => Ok(Vec::new()),
        Err(other) => Err(other.into()),
    }
}

fn learned_route(route: Route, session: &Session) -> LearnedRoute {
    let next_hop = route.next_hop.unwrap_or(session.peer_ip);
    LearnedRoute { prefix: route.prefix, as_path: route.as_path, next_hop }
}

/// Name of a channel's trunk, and of its wire.
#[must_use]
pub(super) fn trunk(channel: usize) -> String {
    format!("ch{channel}")
}

fn configuration<'a>(
    site: &SiteSpec,
    routers: Configured,
    sessions: BTreeMap<&'a str, &'a Session>,
) -> RouterConfig<'a> {
    let includes = match routers {
        Configured::ByClouds => None,
        Configured::ByOperator => Some(INCLUDES),
    };
    RouterConfig { router_id: site.router_lan(), own: site.prefix, table: BGP_TABLE, sessions, includes }
}
