//! `tieline gateway`.

use std::{net::SocketAddr, ops::RangeInclusive, path::PathBuf};

use clap::{Args, Subcommand};

use super::LogFormat;

/// What else a gateway's command does.
#[derive(Debug, Subcommand)]
pub(crate) enum GatewayCommand {
    /// Measure this machine's packet path: two gateways in two network namespaces, and traffic through their tunnel. Needs
    /// root, takes a minute at most, and leaves nothing.
    Bench(GatewayBench),
    /// Show how the gateway of this machine stands: paths, lanes, and what was dropped and why. Works with the API gone.
    Status(GatewayStatus),
    /// Have another WireGuard carry the tunnels of the gateway of this machine; it is made before the one in use is left. It
    /// stays so over restarts, whatever --backend says.
    Backend(GatewayBackend),
}

/// Which WireGuard carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Backend {
    /// In the gateway's own process.
    Boringtun,
    /// In the kernel, where that has it; the process's lanes stay warm beside it.
    Kernel,
}

impl From<Backend> for tieline_openapi::v1::TunnelBackend {
    fn from(backend: Backend) -> Self {
        match backend {
            Backend::Boringtun => Self::Boringtun,
            Backend::Kernel => Self::Kernel,
        }
    }
}

/// Flags of `tieline gateway backend`.
#[derive(Debug, Args)]
pub(crate) struct GatewayBackend {
    /// Which.
    #[arg(value_enum)]
    pub backend: Backend,
    /// The gateway's state folder.
    #[arg(long, env = "TIELINE_STATE_DIR", default_value = "/var/lib/tieline", value_name = "DIR")]
    pub state_dir: PathBuf,
}

/// Flags of `tieline gateway status`.
#[derive(Debug, Args)]
pub(crate) struct GatewayStatus {
    /// The gateway's state folder.
    #[arg(long, env = "TIELINE_STATE_DIR", default_value = "/var/lib/tieline", value_name = "DIR")]
    pub state_dir: PathBuf,
    /// Print metrics, in the text format of Prometheus, instead of JSON.
    #[arg(long)]
    pub metrics: bool,
}

/// Flags of `tieline gateway bench`.
#[derive(Debug, Args)]
pub(crate) struct GatewayBench {
    /// Seconds of each measurement, of which there are ten.
    #[arg(long, default_value_t = 2, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=30))]
    pub seconds: u8,
    /// Lanes of the tunnel; by default one for every two cores.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=16))]
    pub lanes: Option<u8>,
    /// Offloads of the kernel not to use, with commas.
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub without_offload: Vec<tieline_dataplane::shell::offloads::Offload>,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// Flags of `tieline gateway`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(crate) struct Gateway {
    /// Something else than to run one.
    #[command(subcommand)]
    pub command: Option<GatewayCommand>,
    /// The service.
    #[arg(long, env = "TIELINE_URL", default_value = "http://127.0.0.1:7080", value_name = "URL")]
    pub url: String,
    /// A one-time token from `POST /v1/gatewayGroups/{id}:issueJoinToken`; needed at the first start only.
    #[arg(long, env = "TIELINE_JOIN_TOKEN", hide_env_values = true, value_name = "TOKEN")]
    pub join_token: Option<String>,
    /// For people.
    #[arg(long, env = "TIELINE_GATEWAY_NAME", value_name = "NAME", required = true)]
    pub name: Option<String>,
    /// Where the key, the credential and the last configuration are kept.
    #[arg(long, env = "TIELINE_STATE_DIR", default_value = "/var/lib/tieline", value_name = "DIR")]
    pub state_dir: PathBuf,
    /// The network namespace of data sockets, TUN and routes; the control connection stays outside.
    #[arg(long, env = "TIELINE_NETNS", value_name = "PATH")]
    pub netns: Option<PathBuf>,
    /// This gateway's address in the site's network.
    #[arg(long, env = "TIELINE_PRIVATE_ADDRESS", value_name = "IP", required = true)]
    pub private_address: Option<std::net::IpAddr>,
    /// Where peers reach the tunnel over the internet.
    #[arg(long, env = "TIELINE_ENDPOINT", value_name = "IP:PORT", required = true)]
    pub endpoint: Option<SocketAddr>,
    /// The UDP port that WireGuard listens on; the endpoint's by default.
    #[arg(long, env = "TIELINE_LISTEN_PORT", value_name = "PORT")]
    pub listen_port: Option<u16>,
    /// The next hop of the private path; by default the one of the routes on the private address's interface.
    #[arg(long, env = "TIELINE_PRIVATE_NEXT_HOP", value_name = "IP")]
    pub private_next_hop: Option<std::net::IpAddr>,
    /// The name of the TUN device.
    #[arg(long, env = "TIELINE_TUN", value_name = "NAME")]
    pub tun: Option<String>,
    /// Lanes of the tunnel, each with a key and a UDP port, the endpoint's and those after it; by default one for every two
    /// cores. Settled at the first start.
    #[arg(long, env = "TIELINE_LANES", value_name = "N", value_parser = clap::value_parser!(u8).range(1..=16))]
    pub lanes: Option<u8>,
    /// Which WireGuard carries the tunnels. The kernel's needs `nft`, and a UDP port for each peer besides the lanes', which
    /// stay warm; what `tieline gateway backend` has said last counts before this.
    #[arg(long, env = "TIELINE_BACKEND", value_enum, default_value = "boringtun")]
    pub backend: Backend,
    /// The UDP ports of WireGuard in the kernel: one for each peer gateway, and one more while its key changes. By default the
    /// 100 after the last that a lane may have, so 51836-51935 with lane 0 on 51820.
    #[arg(long, env = "TIELINE_KERNEL_PORTS", value_name = "FIRST-LAST", value_parser = ports)]
    pub kernel_ports: Option<RangeInclusive<u16>>,
    /// Where `wg` looks for the sockets of userspace WireGuards: `wg show` then shows each lane. `none`: there are none.
    #[arg(long, env = "TIELINE_UAPI", value_name = "DIR", default_value = tieline_dataplane::shell::uapi::FOLDER)]
    pub uapi: PathBuf,
    /// Offloads of the kernel not to use, with commas: tun-tso, tun-uso, tun-gro-tcp4, tun-gro-tcp6, tun-gro-udp, udp-gso,
    /// udp-gro.
    #[arg(long, env = "TIELINE_WITHOUT_OFFLOAD", value_name = "NAME", value_delimiter = ',')]
    pub without_offload: Vec<tieline_dataplane::shell::offloads::Offload>,
    /// Take the place of the gateway that runs on this state folder, without losing a packet; start where none runs. SIGHUP makes
    /// a running gateway start its successor so, with its own flags.
    #[arg(long)]
    pub take_over: bool,
    /// Give up root and run as this user, who then owns the state folder. It keeps CAP_NET_ADMIN, and what few more it
    /// needs, with or without this.
    #[arg(long, env = "TIELINE_USER", value_name = "NAME")]
    pub user: Option<String>,
    /// How log lines look.
    #[arg(long, env = "TIELINE_LOG_FORMAT", default_value = "text", value_enum)]
    pub log_format: LogFormat,
}

fn ports(text: &str) -> Result<RangeInclusive<u16>, String> {
    let read = |text: &str| text.parse::<u16>().ok().filter(|port| *port > 0);
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    match (read(first), read(last)) {
        (Some(first), Some(last)) if first <= last => Ok(first..=last),
        _ => Err("not a range of UDP ports; give it as 51900-51999".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_a_range() {
        assert_eq!(ports("51900-51999"), Ok(51_900..=51_999));
        assert_eq!(ports("51900"), Ok(51_900..=51_900));
        for bad in ["", "0-5", "9-8", "1-70000", "a-b"] {
            assert!(ports(bad).is_err(), "{bad}");
        }
    }
}
