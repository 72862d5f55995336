//! Links, addresses, routes and rules of one namespace, over rtnetlink.

use std::net::Ipv4Addr;
use std::os::fd::{AsFd, AsRawFd};

use futures::TryStreamExt;
use futures::channel::mpsc::UnboundedReceiver;
use ipnet::Ipv4Net;
use rtnetlink::packet_core::{NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::address::AddressAttribute;
use rtnetlink::packet_route::link::{
    InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkMessage, MacSecCipherId, MacSecValidate,
};
use rtnetlink::packet_route::route::RouteType;
use rtnetlink::packet_route::rule::RuleAction;
use rtnetlink::sys::SocketAddr;
use rtnetlink::{
    AddressMessageBuilder, Handle, LinkMacSec, LinkMessageBuilder, LinkUnspec, LinkVeth, LinkVlan, MulticastGroup,
    RouteMessageBuilder,
};

use super::error::NetError;
use super::macsec::device::Cipher;
use super::namespace::Namespace;

/// A netlink connection into one namespace.
#[derive(Clone, Debug)]
pub struct Links {
    namespace: String,
    handle: Handle,
}

/// What a link looks like now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkState {
    /// Interface index.
    pub index: u32,
    /// Interface name.
    pub name: String,
    /// Administratively up.
    pub up: bool,
    /// There is light, and the link is up.
    pub carrier: bool,
}

impl Links {
    /// Opens a connection inside the namespace. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// [`NetError::Namespace`] where the socket cannot be opened.
    pub fn open(namespace: &Namespace) -> Result<Self, NetError> {
        let runtime = tokio::runtime::Handle::current();
        let (connection, handle, _) = namespace
            .run(|| {
                let _entered = runtime.enter();
                rtnetlink::new_connection()
            })?
            .map_err(|source| open_failed(namespace, source))?;
        runtime.spawn(connection);
        Ok(Self { namespace: namespace.name().to_owned(), handle })
    }

    /// Hears every change of a link in the namespace from now on.
    ///
    /// # Errors
    /// [`NetError::Namespace`] where the socket cannot be opened.
    pub fn monitor(namespace: &Namespace) -> Result<LinkMonitor, NetError> {
        let runtime = tokio::runtime::Handle::current();
        let (connection, _, messages) = namespace
            .run(|| {
                let _entered = runtime.enter();
                rtnetlink::new_multicast_connection(&[MulticastGroup::Link])
            })?
            .map_err(|source| open_failed(namespace, source))?;
        runtime.spawn(connection);
        Ok(LinkMonitor { messages })
    }

    fn failed(&self, operation: impl Into<String>) -> impl FnOnce(rtnetlink::Error) -> NetError {
        let (namespace, operation) = (self.namespace.clone(), operation.into());
        move |source| NetError::Netlink { namespace, operation, source }
    }

    /// One link, by name.
    ///
    /// # Errors
    /// [`NetError::NoInterface`] where there is none.
    pub async fn get(&self, name: &str) -> Result<LinkState, NetError> {
        let found = self.handle.link().get().match_name(name).execute().try_next().await;
        let missing = || NetError::NoInterface { namespace: self.namespace.clone(), interface: name.to_owned() };
        match found {
            Ok(message) => message.as_ref().and_then(link_state).ok_or_else(missing),
            Err(source) => {
                let error = self.failed(format!("read link {name}"))(source);
                Err(if error.is_errno(libc::ENODEV) { missing() } else { error })
            }
        }
    }

    /// Index of a link, by name.
    ///
    /// # Errors
    /// [`NetError::NoInterface`] where there is none.
    pub async fn index(&self, name: &str) -> Result<u32, NetError> {
        Ok(self.get(name).await?.index)
    }

    /// Makes a pair of virtual Ethernet links, the second end in another namespace; both are down.
    ///
    /// # Errors
    /// [`NetError::Netlink`] where a name is taken.
    pub async fn add_veth(&self, name: &str, peer: &str, other: &Namespace) -> Result<(), NetError> {
        let other = other.as_fd().as_raw_fd();
        let peer = LinkMessageBuilder::<LinkUnspec>::new().name(peer).setns_by_fd(other).build();
        let link =
            LinkMessageBuilder::<LinkVeth>::new(name, "").set_info_data(InfoData::Veth(InfoVeth::Peer(peer))).build();
        self.handle.link().add(link).execute().await.map_err(self.failed(format!("make veth {name}")))
    }

    /// Makes a kernel 802.1Q interface.
    ///
    /// # Errors
    /// [`NetError::Netlink`] with `EOPNOTSUPP` where the kernel has no `8021q`.
    pub async fn add_vlan(&self, name: &str, parent: u32, vlan: u16) -> Result<(), NetError> {
        let link = LinkVlan::new(name, parent, vlan).build();
        self.handle.link().add(link).execute().await.map_err(self.failed(format!("make vlan {name}")))
    }

    /// Makes a kernel MACsec interface that encrypts, takes nothing else, and has no key. `sci` are the octets of its
    /// channel's identifier in memory's order, `window` how many packets late one may be.
    ///
    /// # Errors
    /// [`NetError::Netlink`] with `EOPNOTSUPP` where the kernel has no `macsec`, with `EINVAL` where not this cipher.
    pub async fn add_macsec(
        &self,
        name: &str,
        parent: u32,
        sci: u64,
        cipher: Cipher,
        window: u32,
    ) -> Result<(), NetError> {
        let cipher = match cipher {
            Cipher::Xpn256 => MacSecCipherId::GcmAesXpn256,
            Cipher::Gcm256 => MacSecCipherId::GcmAes256,
        };
        let link = LinkMacSec::new(name, parent)
            .sci(sci)
            .cipher_suite(cipher)
            .protect(true)
            .encrypt(true)
            .inc_sci(true)
            .validation(MacSecValidate::Strict)
            .replay_protect(true)
            .window(window);
        self.handle.link().add(link.build()).execute().await.map_err(self.failed(format!("make macsec {name}")))
    }

    /// Sets the number of the association that a MACsec interface sends under.
    ///
    /// # Errors
    /// [`NetError::NoInterface`] or [`NetError::Netlink`].
    pub async fn set_macsec_number(&self, name: &str, an: u8) -> Result<(), NetError> {
        let index = self.index(name).await?;
        let change = LinkMessageBuilder::<LinkMacSec>::new_with_info_kind(InfoKind::MacSec).index(index);
        let change = self.handle.link().change(change.encoding_sa(an).build());
        change.execute().await.map_err(self.failed(format!("set the association that {name} sends under")))
    }

    /// Removes a link; one that is gone already is no error.
    ///
    /// # Errors
    /// [`NetError::Netlink`] where the kernel refuses.
    pub async fn delete(&self, name: &str) -> Result<(), NetError> {
        let index = match self.index(name).await {
            Ok(index) => index,
            Err(NetError::NoInterface { .. }) => return Ok(()),
            Err(other) => return Err(other),
        };
        match self.handle.link().del(index).execute().await.map_err(self.failed(format!("remove link {name}"))) {
            Err(gone) if gone.is_errno(libc::ENODEV) => Ok(()),
            done => done,
        }
    }

    /// Brings a link up or down.
    ///
    /// # Errors
    /// [`NetError::NoInterface`] or [`NetError::Netlink`].
    pub async fn set_up(&self, name: &str, up: bool) -> Result<(), NetError> {
        let change = LinkUnspec::new_with_index(self.index(name).await?);
        let change = if up { change.up() } else { change.down() };
        let operation = format!("set link {name} {}", if up { "up" } else { "down" });
        self.handle.link().set(change.build()).execute().await.map_err(self.failed(operation))
    }

    /// Sets a link's MTU, in bytes.
    ///
    /// # Errors
    /// [`NetError::NoInterface`] or [`NetError::Netlink`].
    pub async fn set_mtu(&self, name: &str, mtu: u32) -> Result<(), NetError> {
        let change = LinkUnspec::new_with_index(self.index(name).await?).mtu(mtu).build();
        self.handle.link().set(change).execute().await.map_err(self.failed(format!("set the MTU of {name}")))
    }

    /// Makes the addresses of a link exactly these.
    ///
    /// # Errors
    /// [`NetError::NoInterface`] or [`NetError::Netlink`].
    pub async fn set_addresses(&self, name: &str, wanted: &[Ipv4Net]) -> Result<(), NetError> {
        let index = self.index(name).await?;
        let mut present = Vec::new();
        let mut messages = self.handle.address().get().set_link_index_filter(index).execute();
        while let Some(message) = messages.try_next().await.map_err(self.failed("list addresses"))? {
            if message.header.family != AddressFamily::Inet || message.header.index != index {
                continue;
            }
            let local = message.attributes.iter().find_map(|attribute| {
                let AddressAttribute::Local(std::net::IpAddr::V4(address)) = attribute else { return None };
                Some(*address)
            });
            let net = local.and_then(|address| Ipv4Net::new(address, message.header.prefix_len).ok());
            match net {
                Some(net) if wanted.contains(&net) => present.push(net),
                _ => {
                    let removed = self.handle.address().del(message).execute().await;
                    removed.map_err(self.failed(format!("remove an address of {name}")))?;
                }
            }
        }
        for net in wanted.iter().filter(|net| !present.contains(net)) {
            let message = AddressMessageBuilder::<Ipv4Addr>::new().index(index).address(net.addr(), net.prefix_len());
            let mut request = self.handle.address().add(index, net.addr().into(), net.prefix_len());
            *request.message_mut() = message.build();
            request.execute().await.map_err(self.failed(format!("add {net} to {name}")))?;
        }
        Ok(())
    }

    /// Adds a route through a next hop.
    ///
    /// # Errors
    /// [`NetError::Netlink`] where the next hop is not reachable.
    pub async fn add_route(&self, to: Ipv4Net, via: Ipv4Addr) -> Result<(), NetError> {
        let route =
            RouteMessageBuilder::<Ipv4Addr>::new().destination_prefix(to.addr(), to.prefix_len()).gateway(via).build();
        self.handle.route().add(route).execute().await.map_err(self.failed(format!("route {to} via {via}")))
    }

    /// Adds a route of last resort to a table that drops what it matches.
    ///
    /// # Errors
    /// [`NetError::Netlink`] where the route is there already.
    pub async fn add_blackhole(&self, to: Ipv4Net, table: u32) -> Result<(), NetError> {
        let route = RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(to.addr(), to.prefix_len())
            .kind(RouteType::BlackHole)
            .table_id(table)
            .priority(u32::MAX)
            .build();
        self.handle.route().add(route).execute().await.map_err(self.failed(format!("add blackhole {to}")))
    }

    /// Looks up a table for what arrives on an interface (`lo`: for what starts here), before the main table.
    ///
    /// # Errors
    /// [`NetError::Netlink`] where the rule is there already.
    pub async fn add_rule(&self, interface: &str, table: u32, priority: u32) -> Result<(), NetError> {
        let rule = self
            .handle
            .rule()
            .add()
            .v4()
            .input_interface(interface)
            .table_id(table)
            .priority(priority)
            .action(RuleAction::ToTable);
        rule.execute().await.map_err(self.failed(format!("add a rule for {interface}")))
    }
}

fn open_failed(namespace: &Namespace, source: std::io::Error) -> NetError {
    NetError::Namespace { name: namespace.name().to_owned(), operation: "open netlink in it", source }
}

fn link_state(message: &LinkMessage) -> Option<LinkState> {
    let name = message.attributes.iter().find_map(|attribute| {
        let LinkAttribute::IfName(name) = attribute else { return None };
        Some(name.clone())
    })?;
    let up = message.header.flags.contains(LinkFlags::Up);
    // IFF_LOWER_UP is the driver's own word; IFF_RUNNING follows it only later, through linkwatch.
    let carrier = up && message.header.flags.contains(LinkFlags::LowerUp);
    Some(LinkState { index: message.header.index, name, up, carrier })
}

/// The changes of links in one namespace.
#[derive(Debug)]
pub struct LinkMonitor {
    messages: UnboundedReceiver<(NetlinkMessage<rtnetlink::packet_route::RouteNetlinkMessage>, SocketAddr)>,
}

impl LinkMonitor {
    /// The next link that changed, as it is now; `None` when the connection has ended.
    pub async fn changed(&mut self) -> Option<LinkState> {
        use futures::StreamExt;
        use rtnetlink::packet_route::RouteNetlinkMessage::NewLink;
        loop {
            let (message, _) = self.messages.next().await?;
            if let NetlinkPayload::InnerMessage(NewLink(link)) = message.payload
                && let Some(state) = link_state(&link)
            {
                return Some(state);
            }
        }
    }
}
