//! `tieline gateway bench`: what this machine's packet path can do. Two gateways in two network namespaces with a wire between
//! them, and traffic through their tunnel; everything is gone afterwards, and nothing else of the machine is touched.

mod ground;
mod traffic;

use std::{
    io,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use serde::Serialize;

use self::ground::Ground;
use super::{
    clock, firewall,
    gateway::DataplaneError,
    offloads::{Offload, OffloadStatus},
};

/// The most seconds of one measurement.
pub const MAX_SECONDS: u8 = 30;

/// What is measured.
#[derive(Debug, Clone)]
pub struct BenchOptions {
    /// Seconds of each measurement, 1 to [`MAX_SECONDS`].
    pub seconds: u8,
    /// Lanes of the tunnel, 1 to 16.
    pub lanes: u8,
    /// Offloads of the kernel not to use.
    pub switched_off: Vec<Offload>,
}

/// Why nothing is measured.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// Namespaces, the wire or its addresses.
    #[error("cannot {what}; it needs root, or CAP_NET_ADMIN and CAP_SYS_ADMIN")]
    Ground {
        /// What was to be made.
        what: &'static str,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A gateway.
    #[error(transparent)]
    Gateway(#[from] DataplaneError),
    /// The tunnel does not come up.
    #[error("no packet came through the tunnel within {0:?}")]
    Silent(Duration),
    /// Traffic.
    #[error("the traffic of `{what}` broke")]
    Traffic {
        /// Which.
        what: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BenchReport {
    /// Of the machine.
    pub cores: usize,
    /// Its release.
    pub kernel: String,
    /// Of the tunnel.
    pub lanes: u8,
    /// Seconds of each measurement.
    pub seconds: u8,
    /// What the kernel can do, and what of it was used.
    pub offloads: Vec<OffloadStatus>,
    /// Whether the packet filter (`nft`) is there.
    pub packet_filter: bool,
    /// One a measurement.
    pub figures: Vec<Figure>,
}

/// One measurement. All of the machine's work is in it: both gateways and both ends of the traffic.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Figure {
    /// What: `tcp1`, `tcp4`, `udp1372`, `udp64`, `latency-p50`, `latency-p99`.
    pub name: &'static str,
    /// `Gbit/s`, `kpps` or `us`.
    pub unit: &'static str,
    /// Through the tunnel.
    pub tunnel: f64,
    /// By the wire, without a tunnel.
    pub wire: f64,
    /// CPU time of both gateways for each Gbit/s, in cores; where it was counted.
    pub cores_per_gbps: Option<f64>,
}

/// Both sides of the wire, one of them a measurement's.
#[derive(Clone, Copy)]
struct Ends {
    from: SocketAddr,
    to: SocketAddr,
}

/// Measures, for at most about 14 times the seconds of a measurement.
///
/// # Errors
/// When namespaces or gateways cannot be made here, or nothing passes the tunnel.
pub fn run(options: &BenchOptions) -> Result<BenchReport, BenchError> {
    let seconds = options.seconds.clamp(1, MAX_SECONDS);
    let ground = Ground::new()?;
    let at = |address: fn(usize) -> IpAddr| Ends {
        from: SocketAddr::new(address(0), 0),
        to: SocketAddr::new(address(1), traffic::PORT),
    };
    let wire = measure(&ground, at(ground::outer), seconds)?;
    let gateways = ground.gateways(options)?;
    let (tunnel, offloads) = {
        gateways.wait()?;
        (measure(&ground, at(ground::inner), seconds)?, gateways.offloads())
    };
    gateways.stop();
    let figures = tunnel
        .into_iter()
        .zip(wire)
        .map(|((name, unit, tunnel, cores), (.., wire, _))| Figure {
            name,
            unit,
            tunnel,
            wire,
            cores_per_gbps: cores.filter(|_| unit == "Gbit/s" && tunnel > 0.0).map(|cores| cores / tunnel),
        })
        .collect();
    Ok(BenchReport {
        cores: std::thread::available_parallelism().map_or(1, usize::from),
        kernel: std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned(),
        lanes: options.lanes,
        seconds,
        offloads,
        packet_filter: firewall::is_there(),
        figures,
    })
}

type Measured = (&'static str, &'static str, f64, Option<f64>);

fn measure(ground: &Ground, ends: Ends, seconds: u8) -> Result<Vec<Measured>, BenchError> {
    let broke = |what| move |source| BenchError::Traffic { what, source };
    let time = Duration::from_secs(seconds.into());
    let mut all = Vec::new();
    for (name, streams) in [("tcp1", 1), ("tcp4", 4)] {
        let before = cpu();
        let started = clock::now();
        let bytes = traffic::tcp(ground, ends, streams, time).map_err(broke(name))?;
        let cores = (cpu() - before) / started.elapsed().as_secs_f64();
        all.push((name, "Gbit/s", bytes * 8.0 / 1e9, Some(cores)));
    }
    for (name, length) in [("udp1372", 1_372), ("udp64", 64)] {
        let packets = traffic::udp(ground, ends, length, time).map_err(broke(name))?;
        all.push((name, "kpps", packets / 1e3, None));
    }
    let (half, most) = traffic::latency(ground, ends, time).map_err(broke("latency"))?;
    all.push(("latency-p50", "us", half, None));
    all.push(("latency-p99", "us", most, None));
    Ok(all)
}

/// CPU seconds that the threads of the packet path have used so far (`man 5 proc_pid_stat`).
fn cpu() -> f64 {
    let tasks = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let of = |text: String| -> Option<u64> {
        let (name, rest) = text.split_once('(')?.1.rsplit_once(") ")?;
        let ours = name.starts_with("tl-lane") || name == "tl-timers";
        // utime and stime are fields 14 and 15; the rest begins with field 3.
        ours.then(|| rest.split(' ').skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum())
    };
    let ticks = tasks.filter_map(|task| of(std::fs::read_to_string(task.path().join("stat")).ok()?));
    // The kernel counts in hundredths of a second towards programs (USER_HZ).
    ticks.sum::<u64>() as f64 / 100.0
}
