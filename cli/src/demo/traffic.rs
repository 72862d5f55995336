//! Traffic between the hosts of both sites, and what became of it.

use std::{net::SocketAddr, path::Path, time::Duration};

use anyhow::{Context as _, ensure};
use serde::de::DeserializeOwned;
use tieline_lab::{
    cell::{self, Place},
    net::flows::{TcpReport, UdpReceived},
};
use tokio::{sync::watch, time::timeout};

use super::{process::Process, timeline::Timeline};

/// How long a flow may take to begin, or to go on after a cut.
const PATIENCE: Duration = Duration::from_secs(20);
/// Hosts of both sites.
const A_HOST: (&str, &str) = ("a-host", "10.0.1.10");
const B_HOST: (&str, &str) = ("b-host", "10.1.1.10");
const UDP_PORT: u16 = 9_000;
const TCP_PORT: u16 = 9_001;

/// Datagrams of each direction that are looked at before and after something happens.
pub(crate) const ENOUGH: u64 = 1_000;
/// How long a flow lives at most, in seconds: longer than a demo on a slow machine.
const LIVES: &str = "900";

/// A flow of 1,000 numbered datagrams a second in each direction, and a TCP stream that is echoed and checked.
pub(crate) struct Traffic {
    a_to_b: watch::Receiver<String>,
    b_to_a: watch::Receiver<String>,
    tcp: watch::Receiver<String>,
    processes: Vec<Process>,
}

/// What has arrived so far.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Seen {
    /// From the AWS host to the Google host.
    pub a_to_b: UdpReceived,
    /// Back.
    pub b_to_a: UdpReceived,
    /// The stream.
    pub tcp: TcpReport,
}

impl Seen {
    /// Datagrams lost, both directions together.
    pub(crate) const fn lost(&self) -> u64 {
        self.a_to_b.lost + self.b_to_a.lost
    }

    /// The longest silence of either direction.
    pub(crate) fn blackout(&self) -> Duration {
        Duration::from_micros(self.a_to_b.longest_gap_us.max(self.b_to_a.longest_gap_us))
    }
}

impl Traffic {
    /// Starts it, and waits until something has arrived on every flow.
    pub(crate) async fn start(lab: &Path, dir: &Path) -> anyhow::Result<Self> {
        let flow = |name: &str, host: &str, arguments: &[&str]| flow(lab, dir, name, host, arguments);
        let at = |ip: &str, port: u16| format!("{ip}:{port}");
        let (a_udp, b_udp) = (at(A_HOST.1, UDP_PORT), at(B_HOST.1, UDP_PORT));
        let b_tcp: SocketAddr = at(B_HOST.1, TCP_PORT).parse()?;
        let mut echo = flow("tcp-echo", B_HOST.0, &["tcp-echo", &b_tcp.to_string()])?;
        echo.first_line().await?;
        let mut at_b = flow("udp-at-b", B_HOST.0, &["udp-receive", &b_udp])?;
        let mut at_a = flow("udp-at-a", A_HOST.0, &["udp-receive", &a_udp])?;
        let (mut a_to_b, mut b_to_a) = (at_b.latest_line()?, at_a.latest_line()?);
        // What is sent before somebody listens is not lost on the way.
        for receiver in [&mut a_to_b, &mut b_to_a] {
            let first = timeout(PATIENCE, receiver.changed()).await;
            first.context("a receiver does not report")?.context("a receiver has ended")?;
        }
        let from_a = flow("udp-from-a", A_HOST.0, &["udp-send", &b_udp])?;
        let from_b = flow("udp-from-b", B_HOST.0, &["udp-send", &a_udp])?;
        let mut check = flow("tcp-check", A_HOST.0, &["tcp-check", &b_tcp.to_string()])?;
        let tcp = check.latest_line()?;
        let mut traffic = Self { a_to_b, b_to_a, tcp, processes: vec![echo, at_b, at_a, from_a, from_b, check] };
        traffic
            .until(|seen| seen.a_to_b.received > 200 && seen.b_to_a.received > 200 && seen.tcp.echoed_bytes > 0)
            .await?;
        Ok(traffic)
    }

    /// Waits until what has arrived is so.
    pub(crate) async fn until(&mut self, is: impl Fn(&Seen) -> bool) -> anyhow::Result<Seen> {
        let waiting = async {
            loop {
                if let Some(seen) = self.seen()
                    && is(&seen)
                {
                    return Ok::<_, anyhow::Error>(seen);
                }
                tokio::select! {
                    heard = self.a_to_b.changed() => heard,
                    heard = self.b_to_a.changed() => heard,
                    heard = self.tcp.changed() => heard,
                }
                .context("a flow between the hosts has ended")?;
            }
        };
        timeout(PATIENCE, waiting).await.context("no traffic between the hosts")?
    }

    /// What has arrived so far; nothing before every flow has reported.
    pub(crate) fn seen(&self) -> Option<Seen> {
        Some(Seen { a_to_b: read(&self.a_to_b)?, b_to_a: read(&self.b_to_a)?, tcp: read(&self.tcp)? })
    }

    /// Waits until more of each direction has arrived, and tells what was lost since a moment: nothing may be.
    pub(crate) async fn kept(&mut self, timeline: &Timeline, since: &Seen, meanwhile: &str) -> anyhow::Result<()> {
        let now = self.seen().context("the flows have reported before")?;
        let more = |now: u64, then: u64| now > then + ENOUGH;
        let after = self
            .until(|seen| {
                more(seen.a_to_b.received, now.a_to_b.received) && more(seen.b_to_a.received, now.b_to_a.received)
            })
            .await?;
        let received = |seen: &Seen| seen.a_to_b.received + seen.b_to_a.received;
        let lost = after.lost() - since.lost();
        let sent = received(&after) - received(since) + lost;
        ensure!(lost == 0, "{lost} of {sent} datagrams were lost {meanwhile}");
        ensure!(after.tcp.echoed_bytes > since.tcp.echoed_bytes, "the TCP stream does not go on {meanwhile}");
        timeline.good("traffic went on", &format!("{lost} of {sent} datagrams lost {meanwhile}"));
        Ok(())
    }

    /// Ends it.
    pub(crate) async fn stop(self) -> anyhow::Result<()> {
        for process in self.processes {
            process.kill().await?;
        }
        Ok(())
    }
}

/// Waits until a TCP stream between the hosts comes back as it was sent: routers forward both ways.
pub(crate) async fn carried(lab: &Path, dir: &Path) -> anyhow::Result<()> {
    let at = format!("{}:{TCP_PORT}", B_HOST.1);
    let mut echo = flow(lab, dir, "first-echo", B_HOST.0, &["tcp-echo", &at])?;
    echo.first_line().await?;
    let mut check = flow(lab, dir, "first-check", A_HOST.0, &["tcp-check", &at])?;
    let mut lines = check.latest_line()?;
    let waiting = async {
        while read::<TcpReport>(&lines).is_none_or(|report| report.echoed_bytes == 0) {
            lines.changed().await.context("the first stream between the hosts has ended")?;
        }
        Ok::<_, anyhow::Error>(())
    };
    timeout(PATIENCE, waiting).await.context("no stream between the hosts")??;
    check.kill().await?;
    echo.kill().await
}

/// Starts one end of a flow on a host.
fn flow(lab: &Path, dir: &Path, name: &str, host: &str, arguments: &[&str]) -> anyhow::Result<Process> {
    let mut command = cell::command(lab, &Place::parse(host), std::env::current_exe()?)?;
    command.arg("lab-flow").args(arguments).args(["--seconds", LIVES]);
    Process::start(name, dir, command)
}

fn read<T: DeserializeOwned>(latest: &watch::Receiver<String>) -> Option<T> {
    serde_json::from_str(&latest.borrow()).ok()
}
