//! `tieline gateway`: one member of a site's group, and what this machine's packet path can do.

use std::process::ExitCode;

use anyhow::Context as _;
use comfy_table::CellAlignment;
use secrecy::SecretString;
use tieline_dataplane::{
    GatewayOptions,
    shell::{
        bench::{self, BenchOptions, BenchReport},
        config,
        local::{self, Answer, Request},
        metrics,
        privileges::{self, Confinement},
    },
};

use super::serve::{logs, stop_on_signal};
use crate::{
    args::{self, GatewayCommand},
    exit::Exit,
    output,
};

/// Runs a gateway until it is told to stop.
pub(crate) async fn run(gateway: args::Gateway) -> anyhow::Result<ExitCode> {
    // What answers once is not to be read between the lines of a log.
    let level = if gateway.command.is_some() { tracing::Level::WARN } else { tracing::Level::INFO };
    logs(gateway.log_format, level);
    match gateway.command {
        Some(GatewayCommand::Bench(bench)) => return measure(bench).await,
        Some(GatewayCommand::Status(status)) => return show(status).await,
        Some(GatewayCommand::Backend(order)) => return change(order).await,
        None => {}
    }
    let uapi = Some(gateway.uapi).filter(|folder| folder.as_os_str() != "none");
    privileges::confine(&Confinement {
        user: gateway.user.as_deref(),
        netns: gateway.netns.is_some(),
        state_dir: &gateway.state_dir,
        uapi: uapi.as_deref(),
    })?;
    let options = GatewayOptions {
        api_url: gateway.url,
        join_token: gateway.join_token.map(SecretString::from),
        state_dir: gateway.state_dir,
        netns: gateway.netns,
        name: gateway.name.context("--name is missing")?,
        private_address: gateway.private_address.context("--private-address is missing")?,
        wan_endpoint: gateway.endpoint.context("--endpoint is missing")?,
        listen_port: gateway.listen_port,
        private_next_hop: gateway.private_next_hop,
        tun_name: gateway.tun,
        lanes: gateway.lanes,
        backend: gateway.backend.into(),
        kernel_ports: gateway.kernel_ports,
        uapi,
        take_over: gateway.take_over,
        switched_off: gateway.without_offload,
    };
    succeed_on_signal()?;
    tieline_dataplane::run(options, stop_on_signal()?).await?;
    Ok(Exit::Ok.into())
}

/// Starts a successor at each SIGHUP: the program of today under the path that this one was started by.
fn succeed_on_signal() -> anyhow::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut asked = signal(SignalKind::hangup())?;
    tokio::spawn(async move {
        while asked.recv().await.is_some() {
            // It lives on when this process ends; one that ends before that is waited for.
            match successor().status().await {
                Ok(status) => tracing::warn!(%status, "the successor has ended; this gateway goes on"),
                Err(error) => tracing::warn!(%error, "no successor can be started; this gateway goes on"),
            }
        }
    });
    Ok(())
}

fn successor() -> tokio::process::Command {
    const TAKE_OVER: &str = "--take-over";
    let mut arguments = std::env::args_os();
    let program = arguments.next().unwrap_or_else(|| "tieline".into());
    let mut successor = tokio::process::Command::new(program);
    successor.args(arguments.filter(|argument| argument != TAKE_OVER)).arg(TAKE_OVER);
    successor.stdin(std::process::Stdio::null());
    successor
}

async fn show(flags: args::GatewayStatus) -> anyhow::Result<ExitCode> {
    match local::ask(&flags.state_dir, &Request::Status).await? {
        Answer::Status(status) if flags.metrics => anstream::print!("{}", metrics::text(&status)?),
        Answer::Status(status) => output::json(&status)?,
        Answer::Done => {}
        Answer::Refused { message } => anyhow::bail!(message),
    }
    Ok(Exit::Ok.into())
}

async fn change(flags: args::GatewayBackend) -> anyhow::Result<ExitCode> {
    match local::ask(&flags.state_dir, &Request::Backend { backend: flags.backend.into() }).await? {
        Answer::Done | Answer::Status(_) => Ok(Exit::Ok.into()),
        Answer::Refused { message } => anyhow::bail!(message),
    }
}

async fn measure(flags: args::GatewayBench) -> anyhow::Result<ExitCode> {
    let options = BenchOptions {
        seconds: flags.seconds,
        lanes: flags.lanes.unwrap_or_else(config::automatic_lanes),
        switched_off: flags.without_offload,
    };
    let report = tokio::task::spawn_blocking(move || bench::run(&options)).await??;
    if flags.json {
        output::json(&report)?;
    } else {
        print(&report);
    }
    Ok(Exit::Ok.into())
}

fn print(report: &BenchReport) {
    let BenchReport { cores, kernel, lanes, seconds, .. } = report;
    output::say!(
        "{cores} cores for both gateways and both ends of the traffic, Linux {kernel}, {lanes} lane(s), {seconds} s each\n"
    );
    let mut table = output::table(&["", "tunnel", "wire", "", "cores/Gbit/s"]);
    for figure in &report.figures {
        let number = |value: f64| if value < 100.0 { format!("{value:.2}") } else { format!("{value:.0}") };
        let cores = figure.cores_per_gbps.map(number).unwrap_or_default();
        let (tunnel, wire) = (number(figure.tunnel), number(figure.wire));
        table.add_row([figure.name, tunnel.as_str(), wire.as_str(), figure.unit, cores.as_str()]);
    }
    for column in [1, 2, 4] {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    output::say!("{table}\n");
    let mut table = output::table(&["offload", "", "packets", "refused"]);
    for status in &report.offloads {
        let on = if status.on { "on" } else { "off" };
        table.add_row([status.offload.name(), on, &status.packets.to_string(), &status.refused.to_string()]);
    }
    output::say!("{table}");
    if !report.packet_filter {
        output::say!("\n`nft` is not installed: no MSS clamp and no byte counters on the private path");
    }
}
