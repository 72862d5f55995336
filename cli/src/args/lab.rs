//! `tieline lab`, and the programs that run inside of one.

use std::{net::SocketAddr, path::PathBuf};

use clap::{Args, Subcommand};

/// Flags of `tieline lab`.
#[derive(Debug, Subcommand)]
pub(crate) enum Lab {
    /// Start a lab, and write the `tieline.toml` that describes it.
    Up {
        /// Where it is kept.
        #[arg(long, default_value = ".tieline-lab", value_name = "DIR")]
        dir: PathBuf,
        /// Channels between the two clouds.
        #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=4))]
        channels: u8,
        /// One-way delay of a private channel, in microseconds.
        #[arg(long, default_value_t = 2_000)]
        private_delay_us: u32,
        /// One-way delay of the internet, in microseconds.
        #[arg(long, default_value_t = 8_000)]
        internet_delay_us: u32,
        /// Let the simulated clouds take as long as they like, not as long as tests like.
        #[arg(long)]
        slow_clouds: bool,
    },
    /// End a lab: nothing of it is left.
    Down {
        /// Where it is kept.
        #[arg(long, default_value = ".tieline-lab", value_name = "DIR")]
        dir: PathBuf,
    },
    /// Show a lab's hosts, wires and routers.
    Status {
        /// Where it is kept.
        #[arg(long, default_value = ".tieline-lab", value_name = "DIR")]
        dir: PathBuf,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Run a command on a host of the lab; `-` runs it beside the lab's own processes.
    Exec {
        /// Where the lab is kept.
        #[arg(long, default_value = ".tieline-lab", value_name = "DIR")]
        dir: PathBuf,
        /// The host: `a-host`, `a-gw`, `a-router`, `b-host`, `b-gw`, `b-router`, `internet`, or `-`.
        host: String,
        /// The command.
        #[arg(last = true, required = true)]
        command: Vec<std::ffi::OsString>,
    },
    /// Change a wire: delay, loss, rate, or cut it.
    Wire {
        /// Where the lab is kept.
        #[arg(long, default_value = ".tieline-lab", value_name = "DIR")]
        dir: PathBuf,
        /// The wire: `ch0`, `ch1`, ..., `internet`.
        wire: String,
        /// Cut it, silently, in both directions.
        #[arg(long, conflicts_with = "mend")]
        cut: bool,
        /// Undo a cut.
        #[arg(long)]
        mend: bool,
        /// One-way delay in microseconds.
        #[arg(long)]
        delay_us: Option<u32>,
        /// Loss in parts per million.
        #[arg(long)]
        loss_ppm: Option<u32>,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
}

/// Flags of the lab's first process.
#[derive(Debug, Args)]
pub(crate) struct LabInit {
    /// Where the lab is kept.
    #[arg(long)]
    pub dir: PathBuf,
}

/// Flags of the hook of a lab's router.
#[derive(Debug, Args)]
pub(crate) struct LabRouter {
    /// Where the lab is kept.
    #[arg(long)]
    pub dir: PathBuf,
    /// The router's site.
    #[arg(long)]
    pub site: String,
}

/// One end of a measured flow; it prints JSON lines, and ends by itself.
#[derive(Debug, Subcommand)]
pub(crate) enum LabFlow {
    /// Send numbered datagrams.
    UdpSend {
        /// To whom.
        to: SocketAddr,
        /// Datagrams a second.
        #[arg(long, default_value_t = 1_000)]
        pps: u32,
        /// End after this time.
        #[arg(long, default_value_t = 120)]
        seconds: u64,
    },
    /// Receive them, and report loss, reordering and the longest gap.
    UdpReceive {
        /// On which address.
        on: SocketAddr,
        /// End after this time.
        #[arg(long, default_value_t = 120)]
        seconds: u64,
    },
    /// Send back what comes in.
    TcpEcho {
        /// On which address.
        on: SocketAddr,
        /// End after this time.
        #[arg(long, default_value_t = 120)]
        seconds: u64,
    },
    /// Send a known stream to an echo, check every byte that comes back, and report the longest stall.
    TcpCheck {
        /// To whom.
        to: SocketAddr,
        /// Bits a second.
        #[arg(long, default_value_t = 2_000_000)]
        bps: u64,
        /// End after this time.
        #[arg(long, default_value_t = 120)]
        seconds: u64,
    },
}
