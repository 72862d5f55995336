//! Two namespaces, a wire between them, and a gateway in each.

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream},
    os::fd::AsRawFd,
    time::Duration,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use boringtun::x25519::{PublicKey, StaticSecret};
use rtnetlink::{
    LinkMessageBuilder, LinkUnspec, LinkVeth,
    packet_route::link::{InfoData, InfoVeth},
};
use tieline_openapi::{
    ids::{ConnectionId, GatewayId},
    units::Mtu,
    v1::{End, GatewayConfiguration, GatewayConnection, GatewayPeer, Lane, ProbeSettings, TunnelBackend},
};
use uuid::Uuid;

use super::{BenchError, BenchOptions};
use crate::shell::{
    clock,
    gateway::{Dataplane, DataplaneOptions},
    kernel,
    netns::NetNs,
    offloads::OffloadStatus,
    random, routes,
};

/// MTU inside, in bytes: 1,500 less IPv6, UDP and WireGuard's headers.
const MTU: u16 = 1_420;
const PORT: u16 = 51_820;
/// The default of Linux (RFC 9438), and what every namespace may have. BBR, which some machines have as their default, keeps to a
/// pace that it sets itself.
const TCP: [&str; 2] = ["cubic", "reno"];
const CONGESTION_CONTROL: &str = "/proc/sys/net/ipv4/tcp_congestion_control";
/// Longest wait for the tunnel.
const PATIENCE: Duration = Duration::from_secs(10);

/// On the wire (RFC 5737).
pub(super) fn outer(n: usize) -> IpAddr {
    Ipv4Addr::new(192, 0, 2, 1 + u8::from(n > 0)).into()
}

/// Inside the tunnel.
pub(super) fn inner(n: usize) -> IpAddr {
    Ipv4Addr::new(169, 254, 200, 1 + u8::from(n > 0)).into()
}

fn private(n: usize) -> IpAddr {
    Ipv4Addr::new(198, 51, 100, 1 + u8::from(n > 0)).into()
}

pub(super) struct Ground(pub(super) [NetNs; 2]);

impl Ground {
    pub(super) fn new() -> Result<Self, BenchError> {
        let failed = |what| move |source| BenchError::Ground { what, source };
        let namespace = || NetNs::fresh().map_err(failed("make a network namespace"));
        let ground = Self([namespace()?, namespace()?]);
        let there = ground.0[1].clone();
        ground.within(0, move || wire(&there)).map_err(failed("lay a wire between two namespaces"))?;
        for n in 0..2 {
            ground.within(n, move || address(n)).map_err(failed("give the wire addresses"))?;
            // Before there is a socket: one that has begun with BBR keeps its pace.
            for name in TCP {
                match ground.within(n, move || std::fs::write(CONGESTION_CONTROL, name)) {
                    Ok(()) => break,
                    Err(error) => tracing::debug!(%error, name, "TCP is not this on this machine"),
                }
            }
        }
        Ok(ground)
    }

    /// Does something inside one of the namespaces, and waits for it.
    pub(super) fn within<T: Send + 'static>(
        &self,
        n: usize,
        work: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let thread = self.0[n].spawn("tl-bench", work)?;
        thread.join().unwrap_or_else(|_| Err(io::Error::other("the thread panicked")))?
    }

    pub(super) fn gateways(&self, options: &BenchOptions) -> Result<Gateways<'_>, BenchError> {
        let keys: [Vec<StaticSecret>; 2] =
            [(); 2].map(|()| (0..options.lanes.clamp(1, 16)).map(|_| random::private_key()).collect());
        let start = |n: usize| {
            let (reports, _) = tokio::sync::mpsc::channel(1);
            let mut own = keys[n].clone();
            let parts = DataplaneOptions {
                netns: self.0[n].clone(),
                tun_name: "tieline0".to_owned(),
                private_address: private(n),
                private_next_hop: None,
                wan_endpoint: SocketAddr::new(outer(n), PORT),
                listen_port: PORT,
                private_key: own.remove(0),
                further_keys: own,
                backend: TunnelBackend::Boringtun,
                kernel_key: random::private_key(),
                kernel_ports: kernel::ports_after(PORT),
                switched_off: options.switched_off.clone(),
                session: 1,
                holds: BTreeMap::new(),
                uapi: None,
                taken: None,
            };
            let dataplane = Dataplane::start(parts, reports)?;
            dataplane.apply(configuration(n, &keys[1 - n]));
            Ok::<_, BenchError>(dataplane)
        };
        Ok(Gateways { ground: self, both: [start(0)?, start(1)?] })
    }
}

/// Two running gateways.
pub(super) struct Gateways<'a> {
    ground: &'a Ground,
    both: [Dataplane; 2],
}

impl Gateways<'_> {
    /// Until a packet has come through and back.
    pub(super) fn wait(&self) -> Result<(), BenchError> {
        // Nobody listens on the discard port: the refusal has come through the tunnel.
        let to = SocketAddr::new(inner(1), 9);
        let started = clock::now();
        loop {
            let tried = self.ground.within(0, move || TcpStream::connect_timeout(&to, Duration::from_millis(200)));
            if tried.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused) {
                return Ok(());
            }
            if started.elapsed() > PATIENCE {
                return Err(BenchError::Silent(PATIENCE));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    pub(super) fn offloads(&self) -> Vec<OffloadStatus> {
        self.both[0].packet_path().offloads
    }

    pub(super) fn stop(self) {
        self.both.into_iter().for_each(Dataplane::stop);
    }
}

fn configuration(n: usize, peer: &[StaticSecret]) -> GatewayConfiguration {
    let gateway = |n: usize| GatewayId(Uuid::from_u128(n as u128 + 1));
    let other = 1 - n;
    let lanes = (0_u8..).zip(peer).map(|(lane, key)| Lane {
        n: lane,
        public_key: STANDARD.encode(PublicKey::from(key).as_bytes()),
        endpoint: SocketAddr::new(outer(other), PORT + u16::from(lane)),
        backend: TunnelBackend::Boringtun,
    });
    GatewayConfiguration {
        version: 1,
        gateway_id: gateway(n),
        probe: ProbeSettings::default(),
        connections: vec![GatewayConnection {
            connection_id: ConnectionId(Uuid::from_u128(1)),
            name: "bench".to_owned(),
            end: if n == 0 { End::A } else { End::B },
            inner_address: inner(n),
            local_prefixes: vec![],
            remote_prefixes: vec![],
            peers: vec![GatewayPeer {
                gateway_id: gateway(other),
                lanes: lanes.collect(),
                private_address: private(other),
                inner_address: inner(other),
                preshared_key: None,
                preshared_key_changing: false,
                former_preshared_key: None,
                kernel_lane: None,
            }],
            mtu_bytes: u64::from(MTU).try_into().unwrap_or(Mtu::ETHERNET),
            mss_bytes: MTU - 40,
            private_ready: false,
            tunnel: true,
            fallback_capacity_mbps: None,
        }],
    }
}

/// A netlink connection in this thread's namespace.
fn netlink<T>(work: impl AsyncFnOnce(rtnetlink::Handle) -> Result<T, rtnetlink::Error>) -> io::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let (connection, handle, _) = rtnetlink::new_connection()?;
        let connection = tokio::spawn(connection);
        let done = work(handle).await.map_err(io::Error::other);
        connection.abort();
        done
    })
}

fn wire(there: &NetNs) -> io::Result<()> {
    let other = there.descriptor().ok_or(io::ErrorKind::NotFound)?.as_raw_fd();
    netlink(async |handle| {
        for name in ["wan0", "prv0"] {
            let peer = LinkMessageBuilder::<LinkUnspec>::new().name(name).setns_by_fd(other).build();
            let link = LinkMessageBuilder::<LinkVeth>::new(name, "");
            let link = link.set_info_data(InfoData::Veth(InfoVeth::Peer(peer))).build();
            handle.link().add(link).execute().await?;
        }
        Ok(())
    })
}

fn address(n: usize) -> io::Result<()> {
    let index = |name| routes::index_of(name).ok_or(io::Error::from(io::ErrorKind::NotFound));
    let links = [(index("lo")?, None), (index("wan0")?, Some(outer(n))), (index("prv0")?, Some(private(n)))];
    netlink(async |handle| {
        for (index, address) in links {
            if let Some(address) = address {
                handle.address().add(index, address, 24).execute().await?;
            }
            handle.link().change(LinkUnspec::new_with_index(index).up().build()).execute().await?;
        }
        Ok(())
    })
}
