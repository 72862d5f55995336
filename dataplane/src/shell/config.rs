//! What `tieline gateway` is told on its command line.

use std::{
    net::{IpAddr, SocketAddr},
    ops::RangeInclusive,
    path::PathBuf,
};

use secrecy::SecretString;
use tieline_openapi::v1::TunnelBackend;

use super::offloads::Offload;

/// The name of the TUN device where none is given.
pub const TUN_NAME: &str = "tieline0";

/// The most lanes of a gateway.
pub const MAX_LANES: u8 = 16;
/// The most lanes that are chosen without being asked for: each is a port that firewalls must let through.
const MAX_AUTOMATIC: usize = 8;

/// A lane for every two cores of the machine, up to eight: the kernel's half of the work wants the others, and each lane costs
/// memory and timers for every peer.
#[must_use]
pub fn automatic_lanes() -> u8 {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    // Not above MAX_AUTOMATIC.
    (cores / 2).clamp(1, MAX_AUTOMATIC) as u8
}

/// Options of a gateway.
#[derive(Debug, Clone)]
pub struct GatewayOptions {
    /// Where the API is, as `http://127.0.0.1:7080`.
    pub api_url: String,
    /// The one-time join token; needed at the first start only.
    pub join_token: Option<SecretString>,
    /// Where the key, the credential and the last configuration are kept; made with mode 0700.
    pub state_dir: PathBuf,
    /// The network namespace of data sockets, TUN and routes, as `/run/netns/a-gw`; `None`: the one it was started in. The
    /// control connection to the API stays where it was started.
    pub netns: Option<PathBuf>,
    /// Its name, for people.
    pub name: String,
    /// Its address in the site's network: probes of the private bundle leave from it.
    pub private_address: IpAddr,
    /// Where peers reach its WireGuard over the internet; the address may belong to a NAT in front of it.
    pub wan_endpoint: SocketAddr,
    /// The UDP port that WireGuard listens on; `None`: the endpoint's.
    pub listen_port: Option<u16>,
    /// The next hop of the private bundle; `None`: the gateway of the routes on the private address's interface.
    pub private_next_hop: Option<IpAddr>,
    /// The TUN device's name; `None`: [`TUN_NAME`].
    pub tun_name: Option<String>,
    /// Lanes of the tunnel, 1 to [`MAX_LANES`], each with a key, a UDP port (that of lane 0 and up) and a thread; `None`: by
    /// [`automatic_lanes`]. Settled when the gateway joins: its peers are told.
    pub lanes: Option<u8>,
    /// Which WireGuard carries, until a person says otherwise at the local control; [`TunnelBackend::Kernel`] where the kernel
    /// has it.
    pub backend: TunnelBackend,
    /// UDP ports of the kernel's WireGuard, of which each peer needs one, and a second one while its key changes; `None`: the 100
    /// after the last that a lane may have. A NAT is taken to move them by as much as it moves lane 0's.
    pub kernel_ports: Option<RangeInclusive<u16>>,
    /// Where `wg` finds a socket for each lane, as [`FOLDER`](super::uapi::FOLDER); `None`: there are none.
    pub uapi: Option<PathBuf>,
    /// Takes the place of the gateway that runs on this state folder, where one does, without losing a packet.
    pub take_over: bool,
    /// Offloads of the kernel not to use; what the kernel cannot do is never used.
    pub switched_off: Vec<Offload>,
}
