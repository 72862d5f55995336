//! The kernel's WireGuard over generic netlink (`include/uapi/linux/wireguard.h`), and its interfaces over route netlink.
//!
//! Blocking, and not over the `genetlink` crate: it has its own copy of `netlink-proto`, and buffers that hold keys and are
//! not wiped. What holds a key here is wiped.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    os::fd::AsFd,
    time::Duration,
};

use boringtun::x25519::StaticSecret;
use futures::TryStreamExt;
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkDeserializable, NetlinkMessage, NetlinkPayload, NetlinkSerializable,
};
use netlink_packet_generic::{
    GenlFamily, GenlMessage,
    ctrl::{GenlCtrl, GenlCtrlCmd, nlas::GenlCtrlAttrs},
};
use netlink_packet_wireguard::{
    WireguardAddressFamily, WireguardAllowedIp, WireguardAllowedIpAttr, WireguardAttribute, WireguardCmd,
    WireguardDeviceFlags, WireguardMessage, WireguardPeer, WireguardPeerAttribute, WireguardPeerFlags,
};
use netlink_sys::{Socket, protocols::NETLINK_GENERIC, protocols::NETLINK_ROUTE};
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::time::TimeSpec;
use rtnetlink::{
    Handle, LinkUnspec, LinkWireguard,
    packet_route::{
        address::AddressScope,
        link::{InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkMessage},
    },
};
use zeroize::{Zeroize, Zeroizing};

use super::{KernelError, PREFIX};
use crate::proto::tunnel::KEEPALIVE_S;

/// The group of news of links (`RTNLGRP_LINK`, `man 7 rtnetlink`).
const LINKS: u32 = 1;
/// The IPv4 dummy address.
const DUMMY: Ipv4Addr = Ipv4Addr::new(192, 0, 0, 8);

/// What an interface is told about its one peer.
#[derive(Debug)]
pub(super) struct PeerSettings<'a> {
    pub(super) key: [u8; 32],
    /// `None`: as it is, which may be where the peer has roamed to.
    pub(super) endpoint: Option<SocketAddr>,
    /// All zeroes: none.
    pub(super) preshared: &'a [u8; 32],
}

/// How an interface stands.
#[derive(Debug)]
pub(super) struct Device {
    pub(super) public: [u8; 32],
    pub(super) port: u16,
    /// Of its first peer; it is to have one.
    pub(super) peer: [u8; 32],
    pub(super) preshared: Zeroizing<[u8; 32]>,
    pub(super) endpoint: Option<SocketAddr>,
    /// Time of the last handshake, in seconds and nanoseconds of the wall clock; zeroes: none.
    pub(super) handshake: (i64, i64),
    /// Bytes of outer payload, handshakes and keepalives included.
    pub(super) bytes_in: u64,
    pub(super) bytes_out: u64,
}

/// The kernel's WireGuard.
pub(super) struct Generic {
    socket: Socket,
    family: u16,
}

/// What may hold keys.
trait Wipe {
    fn wipe(&mut self);
}

impl Wipe for GenlCtrl {
    fn wipe(&mut self) {}
}

impl Wipe for WireguardMessage {
    fn wipe(&mut self) {
        for attribute in &mut self.attributes {
            if let WireguardAttribute::PrivateKey(key) = attribute {
                key.zeroize();
            } else if let WireguardAttribute::Peers(peers) = attribute {
                for attribute in peers.iter_mut().flat_map(|peer| &mut peer.0) {
                    if let WireguardPeerAttribute::PresharedKey(key) = attribute {
                        key.zeroize();
                    }
                }
            }
        }
    }
}

/// Asks, and gives each message of the answer to `take`.
fn ask<F>(socket: &Socket, family: u16, payload: F, flags: u16, mut take: impl FnMut(&F)) -> io::Result<()>
where
    F: GenlFamily + Wipe + std::fmt::Debug,
    GenlMessage<F>: NetlinkSerializable + NetlinkDeserializable,
    NetlinkPayload<GenlMessage<F>>: From<GenlMessage<F>>,
{
    let mut message = GenlMessage::from_payload(payload);
    message.set_resolved_family_id(family);
    let mut message = NetlinkMessage::from(message);
    message.header.flags = NLM_F_REQUEST | flags;
    message.finalize();
    let mut bytes = Zeroizing::new(vec![0; message.buffer_len()]);
    message.serialize(&mut bytes);
    if let NetlinkPayload::InnerMessage(sent) = &mut message.payload {
        sent.payload.wipe();
    }
    socket.send(&bytes, 0)?;
    let bad = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
    loop {
        let (bytes, _) = socket.recv_from_full()?;
        let bytes = Zeroizing::new(bytes);
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            let answer =
                NetlinkMessage::<GenlMessage<F>>::deserialize(rest).map_err(|error| bad(&error.to_string()))?;
            let length = (answer.header.length as usize).next_multiple_of(4).max(16);
            rest = rest.get(length..).unwrap_or_default();
            match answer.payload {
                NetlinkPayload::Error(error) => return error.code.map_or(Ok(()), |_| Err(error.to_io())),
                NetlinkPayload::Done(done) if done.code != 0 => return Err(io::Error::from_raw_os_error(-done.code)),
                NetlinkPayload::Done(_) => return Ok(()),
                NetlinkPayload::InnerMessage(mut inner) => {
                    take(&inner.payload);
                    inner.payload.wipe();
                }
                NetlinkPayload::Noop | NetlinkPayload::Overrun(_) | _ => return Err(bad("an answer that is none")),
            }
        }
    }
}

impl Generic {
    /// Opens it in this thread's namespace.
    pub(super) fn open() -> Result<Self, KernelError> {
        let mut socket = Socket::new(NETLINK_GENERIC).map_err(KernelError::Netlink)?;
        socket.bind_auto().map_err(KernelError::Netlink)?;
        let name = WireguardMessage::family_name().to_owned();
        let question = GenlCtrl { cmd: GenlCtrlCmd::GetFamily, nlas: vec![GenlCtrlAttrs::FamilyName(name)] };
        let mut family = None;
        let asked = ask(&socket, 0, question, NLM_F_ACK, |answer: &GenlCtrl| {
            let id = |nla: &GenlCtrlAttrs| if let GenlCtrlAttrs::FamilyId(id) = nla { Some(*id) } else { None };
            family = family.or(answer.nlas.iter().find_map(id));
        });
        asked.map_err(KernelError::Without)?;
        let family = family.ok_or_else(|| KernelError::Without(io::ErrorKind::NotFound.into()))?;
        Ok(Self { socket, family })
    }

    /// Gives an interface its key, its port and its one peer, which may send from anywhere: the packet filter knows better.
    pub(super) fn configure(
        &self,
        index: u32,
        key: &StaticSecret,
        port: u16,
        peer: &PeerSettings<'_>,
    ) -> io::Result<()> {
        let any = |family, address: std::net::IpAddr| {
            WireguardAllowedIp(vec![
                WireguardAllowedIpAttr::Family(family),
                WireguardAllowedIpAttr::IpAddr(address),
                WireguardAllowedIpAttr::Cidr(0),
            ])
        };
        let mut attributes = peer_attributes(peer);
        attributes.extend([
            WireguardPeerAttribute::Flags(WireguardPeerFlags::ReplaceAllowedIps),
            WireguardPeerAttribute::PersistentKeepalive(KEEPALIVE_S),
            WireguardPeerAttribute::AllowedIps(vec![
                any(WireguardAddressFamily::Ipv4, Ipv4Addr::UNSPECIFIED.into()),
                any(WireguardAddressFamily::Ipv6, std::net::Ipv6Addr::UNSPECIFIED.into()),
            ]),
        ]);
        self.set(vec![
            WireguardAttribute::IfIndex(index),
            WireguardAttribute::Flags(WireguardDeviceFlags::ReplacePeers),
            WireguardAttribute::PrivateKey(*key.as_bytes()),
            WireguardAttribute::ListenPort(port),
            WireguardAttribute::Peers(vec![WireguardPeer(attributes)]),
        ])
    }

    /// Changes what its peer is; its session goes on.
    pub(super) fn change_peer(&self, index: u32, peer: &PeerSettings<'_>) -> io::Result<()> {
        let mut attributes = peer_attributes(peer);
        attributes.push(WireguardPeerAttribute::Flags(WireguardPeerFlags::UpdateOnly));
        let peers = vec![WireguardPeer(attributes)];
        self.set(vec![WireguardAttribute::IfIndex(index), WireguardAttribute::Peers(peers)])
    }

    fn set(&self, attributes: Vec<WireguardAttribute>) -> io::Result<()> {
        let message = WireguardMessage { cmd: WireguardCmd::SetDevice, attributes };
        ask(&self.socket, self.family, message, NLM_F_ACK, |_| {})
    }

    /// How an interface stands; `None`: it is gone.
    pub(super) fn device(&self, index: u32) -> io::Result<Option<Device>> {
        let attributes = vec![WireguardAttribute::IfIndex(index)];
        let question = WireguardMessage { cmd: WireguardCmd::GetDevice, attributes };
        let mut device = Device {
            public: [0; 32],
            port: 0,
            peer: [0; 32],
            preshared: Zeroizing::new([0; 32]),
            endpoint: None,
            handshake: (0, 0),
            bytes_in: 0,
            bytes_out: 0,
        };
        match ask(&self.socket, self.family, question, NLM_F_DUMP, |answer| device.read(answer)) {
            Ok(()) => Ok(Some(device)),
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENODEV | libc::EOPNOTSUPP)) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl Device {
    fn read(&mut self, answer: &WireguardMessage) {
        for attribute in &answer.attributes {
            if let WireguardAttribute::PublicKey(key) = attribute {
                self.public = *key;
            } else if let WireguardAttribute::ListenPort(port) = attribute {
                self.port = *port;
            } else if let WireguardAttribute::Peers(peers) = attribute {
                peers.iter().flat_map(|peer| &peer.0).for_each(|attribute| self.read_peer(attribute));
            }
        }
    }

    fn read_peer(&mut self, attribute: &WireguardPeerAttribute) {
        use WireguardPeerAttribute as P;
        if let P::PublicKey(key) = attribute {
            self.peer = *key;
        } else if let P::PresharedKey(key) = attribute {
            self.preshared.copy_from_slice(key);
        } else if let P::Endpoint(endpoint) = attribute {
            self.endpoint = Some(*endpoint);
        } else if let P::LastHandshake(at) = attribute {
            self.handshake = (at.seconds, at.nano_seconds);
        } else if let P::RxBytes(bytes) = attribute {
            self.bytes_in = *bytes;
        } else if let P::TxBytes(bytes) = attribute {
            self.bytes_out = *bytes;
        }
    }
}

fn peer_attributes(peer: &PeerSettings<'_>) -> Vec<WireguardPeerAttribute> {
    let mut attributes =
        vec![WireguardPeerAttribute::PublicKey(peer.key), WireguardPeerAttribute::PresharedKey(*peer.preshared)];
    attributes.extend(peer.endpoint.map(WireguardPeerAttribute::Endpoint));
    attributes
}

/// The interfaces themselves. Lives on a thread of the gateway's namespace.
pub(super) struct Links {
    runtime: tokio::runtime::Runtime,
    handle: Handle,
    /// News of links.
    news: Socket,
}

impl Links {
    pub(super) fn open() -> Result<Self, KernelError> {
        let netlink = KernelError::Netlink;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(netlink)?;
        let handle = {
            let _inside = runtime.enter();
            let (connection, handle, _) = rtnetlink::new_connection().map_err(netlink)?;
            runtime.spawn(connection);
            handle
        };
        let mut news = Socket::new(NETLINK_ROUTE).map_err(netlink)?;
        news.bind_auto().and_then(|_| news.add_membership(LINKS)).map_err(netlink)?;
        news.set_non_blocking(true).map_err(netlink)?;
        Ok(Self { runtime, handle, news })
    }

    /// Waits until a link changes, or for so long; whether one has changed.
    pub(super) fn wait(&self, at_most: Duration) -> bool {
        let mut wanted = [PollFd::new(self.news.as_fd(), PollFlags::POLLIN)];
        // Interrupted or not: what there is is looked at next.
        let _ = ppoll(&mut wanted, Some(TimeSpec::from_duration(at_most)), None);
        let (mut changed, mut bytes) = (false, Vec::with_capacity(1 << 16));
        loop {
            bytes.clear();
            match self.news.recv(&mut bytes, 0) {
                Ok(_) => changed = true,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return changed,
                // There was more news than there was room for.
                Err(_) => return true,
            }
        }
    }

    /// Makes an interface, down.
    pub(super) fn make(&self, name: &str) -> Result<u32, KernelError> {
        let make = |source| KernelError::Make { name: name.to_owned(), source };
        let request = self.handle.link().add(LinkWireguard::new(name).build());
        self.runtime.block_on(request.execute()).map_err(make)?;
        super::super::routes::index_of(name).ok_or_else(|| make(rtnetlink::Error::RequestFailed))
    }

    /// Brings it up. Its port is opened by that.
    pub(super) fn up(&self, name: &str, index: u32, mtu_bytes: u16) -> Result<(), KernelError> {
        let message = LinkUnspec::new_with_index(index).mtu(u32::from(mtu_bytes)).up().build();
        let changed = self.runtime.block_on(self.handle.link().change(message).execute());
        changed.map_err(|source| KernelError::Make { name: name.to_owned(), source })
    }

    /// Gives it the address that stands for none (RFC 7600), which nothing is sent from. The loose reverse path filter drops what
    /// comes in by an interface without any address, unless the way back is that interface; here it often is another.
    pub(super) fn address(&self, name: &str, index: u32) -> Result<(), KernelError> {
        let mut request = self.handle.address().add(index, DUMMY.into(), 32);
        request.message_mut().header.scope = AddressScope::Host;
        self.runtime.block_on(request.execute()).map_err(|source| KernelError::Make { name: name.to_owned(), source })
    }

    pub(super) fn remove(&self, name: &str, index: u32) -> Result<(), KernelError> {
        match self.runtime.block_on(self.handle.link().del(index).execute()) {
            Err(rtnetlink::Error::NetlinkError(error)) if error.raw_code() == -libc::ENODEV => Ok(()),
            other => other.map_err(|source| KernelError::Remove { name: name.to_owned(), source }),
        }
    }

    /// Whether an interface is up, and its MTU in bytes; `None`: it is not there.
    pub(super) fn link(&self, index: u32) -> Option<(bool, u32)> {
        let request = self.handle.link().get().match_index(index).execute().try_collect::<Vec<LinkMessage>>();
        let link = self.runtime.block_on(request).ok()?.into_iter().next()?;
        let mtu = |attribute: &LinkAttribute| if let LinkAttribute::Mtu(mtu) = attribute { Some(*mtu) } else { None };
        Some((link.header.flags.contains(LinkFlags::Up), link.attributes.iter().find_map(mtu)?))
    }

    /// Every interface with a name of ours that is WireGuard's.
    pub(super) fn ours(&self) -> Result<Vec<(String, u32)>, KernelError> {
        let request = self.handle.link().get().execute().try_collect::<Vec<LinkMessage>>();
        let links = self.runtime.block_on(request).map_err(KernelError::List)?;
        let ours = |link: LinkMessage| {
            let is = |info: &LinkInfo| matches!(info, LinkInfo::Kind(InfoKind::Wireguard));
            let (mut name, mut wireguard) = (None, false);
            for attribute in link.attributes {
                if let LinkAttribute::IfName(is) = attribute {
                    name = Some(is);
                } else if let LinkAttribute::LinkInfo(infos) = attribute {
                    wireguard |= infos.iter().any(is);
                }
            }
            name.filter(|name| wireguard && name.starts_with(PREFIX)).map(|name| (name, link.header.index))
        };
        Ok(links.into_iter().filter_map(ours).collect())
    }
}

/// Whether the port of an interface that could not be brought up was in use.
pub(super) fn port_was_taken(error: &KernelError) -> bool {
    matches!(error, KernelError::Make { source: rtnetlink::Error::NetlinkError(error), .. } if error.raw_code() == -libc::EADDRINUSE)
}
