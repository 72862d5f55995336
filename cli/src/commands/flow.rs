//! A measured flow between two hosts of a lab: one end a process, its reports as JSON lines.

use std::{process::ExitCode, time::Duration};

use anyhow::Context as _;
use serde::Serialize;
use tieline_lab::net::flows::{self, UdpFlow};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio_util::sync::CancellationToken;

use super::serve::stop_on_signal;
use crate::{args::LabFlow, exit::Exit, output};

/// How often a receiver reports.
const EVERY: Duration = Duration::from_millis(50);

/// Runs one end until it is told to stop, or its time is over.
pub(crate) async fn run(flow: LabFlow) -> anyhow::Result<ExitCode> {
    let stop = stop_on_signal()?;
    match flow {
        LabFlow::UdpSend { to, pps, seconds } => {
            end_after(seconds, &stop);
            let socket = UdpSocket::bind("0.0.0.0:0").await?;
            line(&flows::udp_send(&socket, to, UdpFlow { rate_pps: pps, ..UdpFlow::default() }, stop).await?);
        }
        LabFlow::UdpReceive { on, seconds } => {
            end_after(seconds, &stop);
            let socket = UdpSocket::bind(on).await.with_context(|| on.to_string())?;
            line(&flows::udp_receive(&socket, EVERY, stop, |report| line(&report)).await?);
        }
        LabFlow::TcpEcho { on, seconds } => {
            end_after(seconds, &stop);
            let listener = TcpListener::bind(on).await.with_context(|| on.to_string())?;
            line(&on);
            flows::tcp_echo(listener, stop).await?;
        }
        LabFlow::TcpCheck { to, bps, seconds } => {
            end_after(seconds, &stop);
            let stream = TcpStream::connect(to).await.with_context(|| to.to_string())?;
            line(&flows::tcp_check(stream, bps, EVERY, stop, |report| line(&report)).await?);
        }
    }
    Ok(Exit::Ok.into())
}

/// Whoever started it may be gone: no flow runs for ever.
fn end_after(seconds: u64, stop: &CancellationToken) {
    let stop = stop.clone();
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_secs(seconds)).await;
        stop.cancel();
    });
}

fn line(report: &impl Serialize) {
    if let Ok(text) = serde_json::to_string(report) {
        output::say!("{text}");
    }
}
