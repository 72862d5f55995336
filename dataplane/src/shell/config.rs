//! What `tieline gateway` is told on its command line.

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
};

use secrecy::SecretString;

/// The name of the TUN device where none is given.
pub const TUN_NAME: &str = "tieline0";

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
}
