//! What is measured, by iperf3.

use std::{fmt, io::Write, process::Command, process::Stdio, time::Duration};

use serde_json::Value;

use super::{
    contender::{Daemons, Pair, inner, spawn},
    latency,
};

/// A measurement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Measure {
    /// One TCP stream from the first namespace to the second.
    Tcp1,
    /// One back.
    Tcp1Back,
    /// Four there.
    Tcp4,
    /// Four back.
    Tcp4Back,
    /// UDP of 1,372 bytes as fast as it goes: full packets.
    Udp1372,
    /// UDP of 64 bytes.
    Udp64,
    /// Round trips of small datagrams, nothing else on the way.
    Idle,
    /// The same beside one TCP stream.
    Loaded,
}

/// What came of it.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Measured {
    /// Received.
    pub(crate) gbps: f64,
    /// Thousand packets a second received; UDP only.
    pub(crate) kpps: f64,
    /// CPU of the daemons at both ends, cores for each Gbit/s.
    pub(crate) cores_per_gbps: f64,
    pub(crate) retransmits: u64,
    /// Round trips in microseconds, median and 99th percentile; latency only.
    pub(crate) rtt_us: (f64, f64),
}

impl fmt::Display for Measured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.rtt_us.0 > 0.0 {
            return write!(f, "{:7.0} us p50 {:7.0} us p99", self.rtt_us.0, self.rtt_us.1);
        }
        write!(
            f,
            "{:6.2} Gbit/s {:7.1} kpps {:5.2} cores/Gbps {:6} retransmits",
            self.gbps, self.kpps, self.cores_per_gbps, self.retransmits
        )
    }
}

impl Measure {
    pub(crate) const ALL: [Self; 8] =
        [Self::Tcp1, Self::Tcp1Back, Self::Tcp4, Self::Tcp4Back, Self::Udp1372, Self::Udp64, Self::Idle, Self::Loaded];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Tcp1 => "tcp1",
            Self::Tcp1Back => "tcp1-back",
            Self::Tcp4 => "tcp4",
            Self::Tcp4Back => "tcp4-back",
            Self::Udp1372 => "udp1372",
            Self::Udp64 => "udp64",
            Self::Idle => "latency-idle",
            Self::Loaded => "latency-loaded",
        }
    }

    const fn is_udp(self) -> bool {
        matches!(self, Self::Udp1372 | Self::Udp64)
    }

    const fn arguments(self) -> &'static str {
        match self {
            Self::Tcp1 | Self::Idle | Self::Loaded => "-O 1",
            Self::Tcp1Back => "-O 1 -R",
            Self::Tcp4 => "-O 1 -P 4",
            Self::Tcp4Back => "-O 1 -P 4 -R",
            Self::Udp1372 => "-u -b 0 -l 1372",
            Self::Udp64 => "-u -b 0 -l 64",
        }
    }

    /// Runs it. TCP leaves out its first second, in which the window opens.
    pub(crate) fn take(self, pair: &Pair, daemons: &Daemons, seconds: u32) -> Result<Measured, String> {
        match self {
            Self::Idle => return latency::take(pair, seconds),
            Self::Loaded => {
                return std::thread::scope(|scope| {
                    // Two seconds more, since the stream is to be there all the time.
                    let stream = scope.spawn(|| Self::Tcp1.take(pair, daemons, seconds + 2));
                    std::thread::sleep(Duration::from_secs(1));
                    let measured = latency::take(pair, seconds);
                    stream.join().map_err(|_| "the stream's thread ended badly".to_owned())??;
                    measured
                });
            }
            Self::Tcp1 | Self::Tcp1Back | Self::Tcp4 | Self::Tcp4Back | Self::Udp1372 | Self::Udp64 => {}
        }
        let mut server = Command::new("iperf3");
        server.args(["-s", "-1", "-B", &inner(1).to_string()]).stdout(Stdio::null()).stderr(Stdio::null());
        let mut server = spawn(&pair.0[1], server);
        let listens = || pair.0[1].sh("ss -ltn").contains(":5201");
        while !listens() {
            std::thread::sleep(Duration::from_millis(10));
        }
        let before = daemons.cpu();
        let line = format!("iperf3 -J -t {seconds} -c {} {}", inner(1), self.arguments());
        let answer = pair.0[0].try_sh(&line);
        let cpu = daemons.cpu() - before;
        if answer.is_err() {
            let _ = server.kill();
        }
        let _ = server.wait();
        let answer: Value = serde_json::from_str(&answer?).map_err(|error| error.to_string())?;
        let _ = std::io::stdout().flush();
        self.read(&answer, cpu, seconds)
    }

    fn read(self, answer: &Value, cpu: f64, seconds: u32) -> Result<Measured, String> {
        let number = |pointer: &str| {
            answer.pointer(pointer).and_then(Value::as_f64).ok_or_else(|| format!("iperf3 says nothing of {pointer}"))
        };
        if self.is_udp() {
            let received = number("/end/sum/packets")? - number("/end/sum/lost_packets")?;
            let bytes = if self == Self::Udp64 { 64.0 } else { 1_372.0 };
            let gbps = received * bytes * 8.0 / f64::from(seconds) / 1e9;
            let kpps = received / f64::from(seconds) / 1e3;
            let cores = cpu / f64::from(seconds) / gbps;
            return Ok(Measured { gbps, kpps, cores_per_gbps: cores, ..Measured::default() });
        }
        let gbps = number("/end/sum_received/bits_per_second")? / 1e9;
        let retransmits = number("/end/sum_sent/retransmits").unwrap_or(0.0) as u64;
        // The CPU is that of the whole run, and the first second carries about as much as the others.
        let cores = cpu / f64::from(seconds + 1) / gbps;
        Ok(Measured { gbps, cores_per_gbps: cores, retransmits, ..Measured::default() })
    }
}
