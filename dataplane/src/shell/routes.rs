//! The kernel's routes: a table of our own, before the main one.
//!
//! All routes that the gateway makes stand in one table that a rule puts before the main table: underlay pins (so that a
//! learned default can neither put the tunnel on the circuit nor the circuit's probes into the tunnel), the peers' inner
//! addresses, and the remote prefixes, which a change of path moves with one atomic replace. Under every remote prefix lies
//! an `unreachable` route: with no way up, or an interface gone, traffic is refused and never leaks to the internet.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    net::IpAddr,
    ops::Bound,
};

use futures::TryStreamExt;
use ipnet::IpNet;
use rtnetlink::{
    Handle, LinkUnspec, RouteMessageBuilder,
    packet_route::{
        AddressFamily,
        address::AddressAttribute,
        route::{
            RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteMetric, RouteProtocol, RouteScope, RouteType,
        },
        rule::{RuleAction, RuleAttribute, RuleMessage},
    },
};

/// The routing table, and the priority of the rule that leads to it.
pub const TABLE: u32 = 7_480;
/// Metric of the routes that carry, and of the refusal below them.
const CARRY: u32 = 10;
const REFUSE: u32 = u32::MAX;
/// Routes that are put again each second without being known to be missing.
const A_ROUND: usize = 64;

/// Why routes cannot be read or set.
#[derive(Debug, thiserror::Error)]
pub enum RouteError {
    /// No netlink socket.
    #[error("cannot talk to the kernel's routing (netlink)")]
    Netlink(#[source] io::Error),
    /// A read failed.
    #[error("cannot read the kernel's {what}")]
    Read {
        /// What.
        what: &'static str,
        /// Why.
        #[source]
        source: rtnetlink::Error,
    },
    /// No interface has the address.
    #[error("no interface has the private address {0}; check `ip address` in the gateway's network namespace")]
    NoInterface(IpAddr),
    /// A change was refused.
    #[error("the kernel refused {what}; the gateway needs CAP_NET_ADMIN in its network namespace")]
    Refused {
        /// What.
        what: String,
        /// Why.
        #[source]
        source: rtnetlink::Error,
    },
    /// A sysctl could not be set.
    #[error("cannot set {path} to {value}; set it before the gateway starts")]
    Sysctl {
        /// Which.
        path: String,
        /// To what.
        value: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// An interface and its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    /// The kernel's index.
    pub index: u32,
    /// Its name.
    pub name: String,
}

/// Where packets go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// Into an interface, by a gateway or to neighbours.
    Out {
        /// The interface.
        index: u32,
        /// The gateway; `None`: on the link.
        via: Option<IpAddr>,
    },
    /// Nowhere: refused with an ICMP error.
    Refuse,
}

/// A route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    /// Where to.
    pub target: Target,
    /// Its MTU in bytes; `None`: the interface's.
    pub mtu_bytes: Option<u16>,
}

/// The main table, as it was once.
#[derive(Debug, Default)]
pub struct MainTable(Vec<RouteMessage>);

impl MainTable {
    /// The next hop towards `to`, by what the table says of `interface` (or of any, where that is `None`); `None` when it says
    /// nothing.
    #[must_use]
    pub fn next_hop(&self, to: IpAddr, interface: Option<u32>) -> Option<Target> {
        let best = self
            .0
            .iter()
            .filter(|route| {
                (route.header.address_family == AddressFamily::Inet) == to.is_ipv4()
                    && destination(route).is_none_or(|net| net.contains(&to))
            })
            .flat_map(|route| {
                let key = (route.header.destination_prefix_length, std::cmp::Reverse(metric(route)));
                hops(route).into_iter().map(move |hop| (key, hop)).collect::<Vec<_>>()
            })
            .filter(|(_, (index, _))| interface.is_none_or(|wanted| wanted == *index))
            .max_by_key(|(key, _)| *key);
        best.map(|(_, (index, via))| Target::Out { index, via })
    }
}

/// The routes of one gateway. Lives on a thread of the gateway's namespace, and blocks it for the length of a system call.
pub struct Routes {
    runtime: tokio::runtime::Runtime,
    handle: Handle,
    installed: BTreeMap<(IpNet, bool), Route>,
    /// A route into each interface: where it is missing, all of the interface's are.
    canaries: BTreeMap<u32, (IpNet, bool)>,
    /// Where the slow round of putting routes again stands.
    round: Option<(IpNet, bool)>,
    inner: BTreeSet<IpAddr>,
    sysctls: Vec<(String, String)>,
}

impl std::fmt::Debug for Routes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Routes").field("installed", &self.installed).finish_non_exhaustive()
    }
}

impl Routes {
    /// Opens netlink in this thread's namespace, removes what a gateway that was killed left behind, and adds the rule.
    ///
    /// # Errors
    /// When netlink cannot be opened or the rule is refused.
    pub fn open() -> Result<Self, RouteError> {
        let mut routes = Self::connect()?;
        routes.sweep()?;
        routes.add_rules()?;
        Ok(routes)
    }

    /// Opens netlink beside a gateway that hands over: its routes stay, until [`prune`](Self::prune). `sysctls` are what it
    /// has found when it came.
    ///
    /// # Errors
    /// When netlink cannot be opened or the rule is refused.
    pub(crate) fn adopt(sysctls: Vec<(String, String)>) -> Result<Self, RouteError> {
        let routes = Self { sysctls, ..Self::connect()? };
        routes.add_rules()?;
        Ok(routes)
    }

    /// What a later gateway is to bring back at its end.
    pub(crate) fn sysctls(&self) -> Vec<(String, String)> {
        self.sysctls.clone()
    }

    /// Puts the rule and every route again, whoever took them away.
    pub(crate) fn restore(&self) -> Result<(), RouteError> {
        self.add_rules()?;
        self.installed.iter().try_for_each(|(&key, &route)| self.put(key, route))
    }

    /// Removes what a former gateway had in the table and this one has not.
    pub(crate) fn prune(&self) -> Result<(), RouteError> {
        let ours = |route: &RouteMessage| {
            let net = destination(route)?;
            Some(self.installed.contains_key(&(net, metric(route) == REFUSE)))
        };
        for route in self.dump()?.into_iter().filter(|route| table(route) == TABLE && ours(route) == Some(false)) {
            let removed = self.runtime.block_on(self.handle.route().del(route).execute());
            removed.map_err(|source| RouteError::Refused { what: "removing an old route".to_owned(), source })?;
        }
        Ok(())
    }

    fn connect() -> Result<Self, RouteError> {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(RouteError::Netlink)?;
        let handle = {
            let _inside = runtime.enter();
            let (connection, handle, _) = rtnetlink::new_connection().map_err(RouteError::Netlink)?;
            runtime.spawn(connection);
            handle
        };
        Ok(Self {
            runtime,
            handle,
            installed: BTreeMap::new(),
            canaries: BTreeMap::new(),
            round: None,
            inner: BTreeSet::new(),
            sysctls: Vec::new(),
        })
    }

    fn add_rules(&self) -> Result<(), RouteError> {
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            match self.add_rule(family) {
                // A kernel without IPv6 has no rules for it either.
                Err(_) if family == AddressFamily::Inet6 => {}
                other => other?,
            }
        }
        Ok(())
    }

    fn add_rule(&self, family: AddressFamily) -> Result<(), RouteError> {
        let mut request = self.handle.rule().add().table_id(TABLE).priority(TABLE).action(RuleAction::ToTable);
        request.message_mut().header.family = family;
        match self.runtime.block_on(request.execute()) {
            Err(rtnetlink::Error::NetlinkError(error)) if error.raw_code() == -libc::EEXIST => Ok(()),
            other => other.map_err(|source| RouteError::Refused { what: "the routing rule".to_owned(), source }),
        }
    }

    /// Removes every route of our table, and the rule.
    fn sweep(&mut self) -> Result<(), RouteError> {
        let left: Vec<RouteMessage> = self.dump()?.into_iter().filter(|route| table(route) == TABLE).collect();
        for route in left {
            let removed = self.runtime.block_on(self.handle.route().del(route).execute());
            removed.map_err(|source| RouteError::Refused { what: "removing an old route".to_owned(), source })?;
        }
        for version in [rtnetlink::IpVersion::V4, rtnetlink::IpVersion::V6] {
            let Ok(rules) =
                self.runtime.block_on(self.handle.rule().get(version).execute().try_collect::<Vec<RuleMessage>>())
            else {
                continue;
            };
            let ours = |rule: &RuleMessage| {
                rule.attributes.contains(&RuleAttribute::Table(TABLE))
                    && rule.attributes.contains(&RuleAttribute::Priority(TABLE))
            };
            for rule in rules.into_iter().filter(ours) {
                let removed = self.runtime.block_on(self.handle.rule().del(rule).execute());
                removed.map_err(|source| RouteError::Refused { what: "removing the old rule".to_owned(), source })?;
            }
        }
        self.installed.clear();
        Ok(())
    }

    fn dump(&self) -> Result<Vec<RouteMessage>, RouteError> {
        let mut all = Vec::new();
        for any in [
            RouteMessageBuilder::<std::net::Ipv4Addr>::new().build(),
            RouteMessageBuilder::<std::net::Ipv6Addr>::new().build(),
        ] {
            let routes = self.runtime.block_on(self.handle.route().get(any).execute().try_collect::<Vec<_>>());
            all.extend(routes.map_err(|source| RouteError::Read { what: "routes", source })?);
        }
        Ok(all)
    }

    /// The interface that has the address; `None` when none has.
    ///
    /// # Errors
    /// When the kernel does not answer.
    pub fn interface_of(&self, address: IpAddr) -> Result<Option<Interface>, RouteError> {
        let request = self.handle.address().get().execute().try_collect::<Vec<_>>();
        let addresses =
            self.runtime.block_on(request).map_err(|source| RouteError::Read { what: "addresses", source })?;
        let has = |attribute: &AddressAttribute| matches!(attribute, AddressAttribute::Address(a) | AddressAttribute::Local(a) if *a == address);
        let found = addresses.into_iter().find(|message| message.attributes.iter().any(has));
        Ok(found.and_then(|message| interface(message.header.index)))
    }

    /// What the main table says now.
    ///
    /// # Errors
    /// When the kernel does not answer.
    pub fn main_table(&self) -> Result<MainTable, RouteError> {
        let mut routes = self.dump()?;
        routes.retain(|route| {
            table(route) == u32::from(RouteHeader::RT_TABLE_MAIN) && route.header.kind == RouteType::Unicast
        });
        Ok(MainTable(routes))
    }

    /// Brings an interface up with its MTU and queue length (packets).
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn set_link(&self, index: u32, mtu_bytes: u16, queue: u32) -> Result<(), RouteError> {
        let message = LinkUnspec::new_with_index(index).mtu(u32::from(mtu_bytes)).txqueuelen(queue).up().build();
        let changed = self.runtime.block_on(self.handle.link().change(message).execute());
        changed
            .map_err(|source| RouteError::Refused { what: format!("an MTU of {mtu_bytes} on the TUN device"), source })
    }

    /// Gives the TUN device exactly these addresses.
    ///
    /// # Errors
    /// When the kernel refuses one.
    pub fn set_inner_addresses(&mut self, index: u32, wanted: &BTreeSet<IpAddr>) -> Result<(), RouteError> {
        for &address in wanted.difference(&self.inner.clone()) {
            let length = if address.is_ipv4() { 32 } else { 128 };
            let added = self.runtime.block_on(self.handle.address().add(index, address, length).replace().execute());
            added.map_err(|source| RouteError::Refused { what: format!("the inner address {address}"), source })?;
            self.inner.insert(address);
        }
        let gone: Vec<IpAddr> = self.inner.difference(wanted).copied().collect();
        if gone.is_empty() {
            return Ok(());
        }
        let request = self.handle.address().get().set_link_index_filter(index).execute().try_collect::<Vec<_>>();
        let had = self.runtime.block_on(request).map_err(|source| RouteError::Read { what: "addresses", source })?;
        for message in had {
            let is_gone =
                |attribute: &AddressAttribute| matches!(attribute, AddressAttribute::Address(a) if gone.contains(a));
            if message.attributes.iter().any(is_gone) {
                let removed = self.runtime.block_on(self.handle.address().del(message).execute());
                removed
                    .map_err(|source| RouteError::Refused { what: "removing an inner address".to_owned(), source })?;
            }
        }
        self.inner.retain(|address| wanted.contains(address));
        Ok(())
    }

    /// Makes the table hold exactly `carry`, and a refusal under each of `guarded`. What is there already is not touched;
    /// what changes is replaced atomically; what is new comes before what goes.
    ///
    /// # Errors
    /// The first refusal; the rest is done all the same.
    pub fn sync(&mut self, carry: &BTreeMap<IpNet, Route>, guarded: &BTreeSet<IpNet>) -> Result<(), RouteError> {
        let refuse = Route { target: Target::Refuse, mtu_bytes: None };
        let mut wanted: BTreeMap<(IpNet, bool), Route> = guarded.iter().map(|net| ((*net, true), refuse)).collect();
        wanted.extend(carry.iter().map(|(net, route)| ((*net, false), *route)));
        let mut first = Ok(());
        for (&key, &route) in &wanted {
            first = first.and(self.want(key, route));
        }
        let gone: Vec<_> = self.installed.keys().filter(|key| !wanted.contains_key(key)).copied().collect();
        for key in gone {
            self.unwant(key);
        }
        first
    }

    /// Carries these prefixes by `route` from now on, or not at all. The others are not looked at, however many there are.
    ///
    /// # Errors
    /// The first refusal; the rest is done all the same.
    pub fn change(&mut self, prefixes: impl Iterator<Item = IpNet>, route: Option<Route>) -> Result<(), RouteError> {
        let mut first = Ok(());
        for net in prefixes {
            match route {
                Some(route) => first = first.and(self.want((net, false), route)),
                None => self.unwant((net, false)),
            }
        }
        first
    }

    fn want(&mut self, key: (IpNet, bool), route: Route) -> Result<(), RouteError> {
        if self.installed.get(&key) == Some(&route) {
            return Ok(());
        }
        self.put(key, route)?;
        self.installed.insert(key, route);
        if let Target::Out { index, .. } = route.target {
            self.canaries.insert(index, key);
        }
        Ok(())
    }

    fn unwant(&mut self, key: (IpNet, bool)) {
        let Some(route) = self.installed.remove(&key) else { return };
        let message = self.message(key, route);
        // Gone with its interface, perhaps; then it needs no removal.
        let _ = self.runtime.block_on(self.handle.route().del(message).execute());
    }

    /// Puts routes again that are missing: the kernel drops those of an interface that goes down, and does not bring them
    /// back. One of each interface is asked for; besides, a few of all are put again in turn, whoever took them away.
    pub fn reassert(&mut self) {
        let mut missing = Vec::new();
        for (&index, key) in &mut self.canaries {
            let into = |route: &Route| matches!(route.target, Target::Out { index: out, .. } if out == index);
            if !self.installed.get(key).is_some_and(into) {
                let Some((other, _)) = self.installed.iter().find(|(_, route)| into(route)) else { continue };
                *key = *other;
            }
            missing.extend(self.installed.get(key).map(|route| (index, *key, *route)));
        }
        let mut again: Vec<((IpNet, bool), Route)> = Vec::new();
        for (index, key, route) in missing {
            let added = self.runtime.block_on(self.handle.route().add(self.message(key, route)).execute());
            if added.is_ok() {
                let into = |route: &Route| matches!(route.target, Target::Out { index: out, .. } if out == index);
                again.extend(self.installed.iter().filter(|(_, route)| into(route)).map(|(key, route)| (*key, *route)));
            }
        }
        let from = self.round.map_or(Bound::Unbounded, Bound::Excluded);
        let turn = self.installed.range((from, Bound::Unbounded)).take(A_ROUND).map(|(key, route)| (*key, *route));
        let turn: Vec<((IpNet, bool), Route)> = turn.collect();
        self.round = turn.last().map(|(key, _)| *key).filter(|_| turn.len() == A_ROUND);
        again.extend(turn);
        for (key, route) in again {
            if let Err(error) = self.put(key, route) {
                tracing::debug!(prefix = %key.0, error = %error, "a route cannot be put back yet");
            }
        }
    }

    fn put(&self, key: (IpNet, bool), route: Route) -> Result<(), RouteError> {
        let request = self.handle.route().add(self.message(key, route)).replace();
        let put = self.runtime.block_on(request.execute());
        put.map_err(|source| RouteError::Refused { what: format!("the route to {}", key.0), source })
    }

    fn message(&self, (net, refuse): (IpNet, bool), route: Route) -> RouteMessage {
        let mut message = RouteMessage::default();
        let header = &mut message.header;
        header.address_family = if net.addr().is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
        header.destination_prefix_length = net.prefix_len();
        header.protocol = RouteProtocol::Static;
        header.table = RouteHeader::RT_TABLE_UNSPEC;
        header.scope = RouteScope::Universe;
        header.kind = RouteType::Unicast;
        let attributes = &mut message.attributes;
        attributes.push(RouteAttribute::Table(TABLE));
        attributes.push(RouteAttribute::Destination(net.network().into()));
        attributes.push(RouteAttribute::Priority(if refuse { REFUSE } else { CARRY }));
        match route.target {
            Target::Refuse => header.kind = RouteType::Unreachable,
            Target::Out { index, via } => {
                attributes.push(RouteAttribute::Oif(index));
                match via {
                    Some(via) => attributes.push(RouteAttribute::Gateway(via.into())),
                    None => header.scope = RouteScope::Link,
                }
            }
        }
        if let Some(mtu) = route.mtu_bytes {
            attributes.push(RouteAttribute::Metrics(vec![RouteMetric::Mtu(u32::from(mtu))]));
        }
        message
    }

    /// Makes this namespace forward between the private interface and the TUN: forwarding on; reverse-path filter loose
    /// (RFC 3704, section 2.4), since each direction is steered by its sender; no ICMP redirects, since inline traffic
    /// leaves by the interface that it came by. The former values come back with [`close`](Self::close).
    ///
    /// # Errors
    /// When a sysctl that is needed cannot be set.
    pub fn forward_between(&mut self, private: &str, tun: &str) -> Result<(), RouteError> {
        self.sysctl("net/ipv4/ip_forward", "1")?;
        for name in [private, tun] {
            self.sysctl(&format!("net/ipv4/conf/{name}/rp_filter"), "2")?;
        }
        for name in ["all", private] {
            self.sysctl(&format!("net/ipv4/conf/{name}/send_redirects"), "0")?;
        }
        Ok(())
    }

    /// Makes this namespace forward IPv6, which Linux does for all interfaces or for none. Interfaces that follow router
    /// advertisements go on to do so (`accept_ra` 2): the way to the internet may hang on one.
    ///
    /// # Errors
    /// When a sysctl cannot be set, as where the kernel has no IPv6.
    pub fn forward_v6(&mut self) -> Result<(), RouteError> {
        let interfaces = fs::read_dir("/proc/sys/net/ipv6/conf").into_iter().flatten().flatten();
        let follows = |name: &String| {
            name != "all"
                && fs::read_to_string(format!("/proc/sys/net/ipv6/conf/{name}/accept_ra"))
                    .is_ok_and(|it| it.trim() == "1")
        };
        let names: Vec<String> =
            interfaces.filter_map(|entry| entry.file_name().into_string().ok()).filter(follows).collect();
        for name in names {
            self.sysctl(&format!("net/ipv6/conf/{name}/accept_ra"), "2")?;
        }
        self.sysctl("net/ipv6/conf/all/forwarding", "1")
    }

    fn sysctl(&mut self, name: &str, value: &'static str) -> Result<(), RouteError> {
        // /proc/sys/net shows the namespace of the thread that opens it.
        let path = format!("/proc/sys/{name}");
        let had = fs::read_to_string(&path).unwrap_or_default().trim().to_owned();
        if had == value {
            return Ok(());
        }
        fs::write(&path, value).map_err(|source| RouteError::Sysctl { path: path.clone(), value, source })?;
        self.sysctls.push((path, had));
        Ok(())
    }

    /// Removes the routes and the rule and brings the sysctls back.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn close(mut self) -> Result<(), RouteError> {
        for (path, had) in self.sysctls.drain(..).rev() {
            if let Err(error) = fs::write(&path, &had) {
                tracing::debug!(path, %error, "cannot bring the former value back");
            }
        }
        self.sweep()
    }
}

fn interface(index: u32) -> Option<Interface> {
    let name = nix::net::if_::if_indextoname(index).ok()?.to_string_lossy().into_owned();
    Some(Interface { index, name })
}

/// The index of the interface of this name, in this thread's namespace.
#[must_use]
pub fn index_of(name: &str) -> Option<u32> {
    nix::net::if_::if_nametoindex(name).ok()
}

fn table(route: &RouteMessage) -> u32 {
    let long = route
        .attributes
        .iter()
        .find_map(|attribute| if let RouteAttribute::Table(table) = attribute { Some(*table) } else { None });
    long.unwrap_or_else(|| u32::from(route.header.table))
}

fn metric(route: &RouteMessage) -> u32 {
    let metric = route
        .attributes
        .iter()
        .find_map(|attribute| if let RouteAttribute::Priority(metric) = attribute { Some(*metric) } else { None });
    metric.unwrap_or(0)
}

fn address(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(address) => Some((*address).into()),
        RouteAddress::Inet6(address) => Some((*address).into()),
        RouteAddress::Mpls(_) | RouteAddress::Other(_) | _ => None,
    }
}

fn destination(route: &RouteMessage) -> Option<IpNet> {
    let to = route
        .attributes
        .iter()
        .find_map(|attribute| if let RouteAttribute::Destination(to) = attribute { address(to) } else { None })?;
    IpNet::new(to, route.header.destination_prefix_length).ok()
}

/// Interface and gateway of each next hop.
fn hops(route: &RouteMessage) -> Vec<(u32, Option<IpAddr>)> {
    let gateway = |attributes: &[RouteAttribute]| {
        attributes.iter().find_map(
            |attribute| {
                if let RouteAttribute::Gateway(via) = attribute { address(via) } else { None }
            },
        )
    };
    let mut hops = Vec::new();
    for attribute in &route.attributes {
        if let RouteAttribute::Oif(index) = attribute {
            hops.push((*index, gateway(&route.attributes)));
        } else if let RouteAttribute::MultiPath(paths) = attribute {
            hops.extend(paths.iter().map(|path| (path.interface_index, gateway(&path.attributes))));
        }
    }
    hops
}
