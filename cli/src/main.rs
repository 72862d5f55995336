//! Tieline in one binary: the service, the gateway, the lab and the scripting verbs.

mod args;
mod clock;
mod commands;
mod demo;
mod exit;
mod output;

use std::process::ExitCode;

use anstyle::{AnsiColor, Style};
use clap::{CommandFactory as _, Parser as _};

use args::{Cli, Command};
use exit::Exit;

/// The system's own gives way under many small requests from several threads: a sixth of the service's time was its.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const ERROR: Style = AnsiColor::Red.on_default().bold();

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are no errors.
            let exit = if error.use_stderr() { Exit::Usage } else { Exit::Ok };
            return if error.print().is_ok() { exit.into() } else { Exit::Failure.into() };
        }
    };
    run(cli.command).unwrap_or_else(|error| {
        anstream::eprintln!("{ERROR}error{ERROR:#}: {}", exit::line(&error));
        exit::of(&error).into()
    })
}

fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        // Its namespaces are made while the process has a single thread, so before any runtime.
        Command::LabInit(init) => commands::lab::init(&init.dir),
        Command::Completion { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "tieline", &mut script);
            output::bytes(&script);
            Ok(Exit::Ok.into())
        }
        Command::LabRouter(router) => asynchronous(commands::router::run(router)),
        Command::LabFlow(flow) => asynchronous(commands::flow::run(flow)),
        Command::Serve(serve) => asynchronous(commands::serve::run(serve)),
        Command::Gateway(gateway) => asynchronous(commands::gateway::run(*gateway)),
        Command::Demo(demo) => asynchronous(demo::run(demo)),
        Command::Lab(lab) => asynchronous(commands::lab::run(lab)),
        Command::Connections(connections) => asynchronous(commands::connections::run(connections)),
        Command::Conformance(conformance) => asynchronous(commands::conformance::run(*conformance)),
        Command::Coordinator(coordinator) => asynchronous(commands::coordinator::run(coordinator)),
        Command::Gateways(gateways) => asynchronous(commands::gateways::run(gateways)),
        Command::Issues(issues) => asynchronous(commands::issues::run(issues)),
        Command::Events(events) => asynchronous(commands::events::run(events)),
        Command::Tokens(tokens) => asynchronous(commands::tokens::run(tokens)),
        Command::Plan(plan) => asynchronous(commands::plan::run(plan)),
        Command::Show(show) => asynchronous(commands::show::run(show)),
    }
}

fn asynchronous(work: impl Future<Output = anyhow::Result<ExitCode>>) -> anyhow::Result<ExitCode> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(work)
}
