//! The tunnel beside other userspace WireGuards: two network namespaces, one veth pair, a daemon in each, iperf3 through
//! them. `cargo bench -p tieline-dataplane --bench tunnel`, as root.
//!
//! The contenders take turns within each round, since the machine's other load changes the figures: trust the ratios, and
//! the CPU per gigabit. Peers are found by `TIELINE_BENCH_WIREGUARD_GO`, `TIELINE_BENCH_BORINGTUN_CLI` and
//! `TIELINE_BENCH_GOTATUN`, where `scripts/install-wireguards.sh` puts them, or on the PATH. `TIELINE_BENCH_RUNS` (or `BENCH_RUNS`;
//! 5), `TIELINE_BENCH_SECONDS` (3) a measurement and `TIELINE_BENCH_LANES` (1) may be set; `TIELINE_BENCH_ONLY` names contenders
//! and measurements, with commas, and leaves out the others.
//!
//! The figures go into `target/bench/report.json` beside what other benches have put there, and as a table to
//! `target/bench/dataplane.md` and to the standard output.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program for people, on the real clock; a failure is to be seen as it is"
)]

mod contender;
mod latency;
mod measure;
mod node;
#[path = "../../tests/it/ns.rs"]
mod ns;
mod report;

use std::{env, process::ExitCode};

use contender::{Contender, Pair};
use measure::Measure;
use report::Report;

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["node", n, lanes] => {
            node::run(n.parse().unwrap(), lanes.parse().unwrap());
            return ExitCode::SUCCESS;
        }
        // Test runners list what there is, and there is no test.
        _ if !arguments.iter().any(|argument| argument == "--bench") => return ExitCode::SUCCESS,
        _ => {}
    }
    if let Some(missing) = missing() {
        eprintln!("the tunnel is not measured: {missing}");
        return ExitCode::SUCCESS;
    }
    let runs: usize = number("TIELINE_BENCH_RUNS", number("BENCH_RUNS", 5));
    let seconds = number("TIELINE_BENCH_SECONDS", 3);
    let lanes = number("TIELINE_BENCH_LANES", 1);
    let only = env::var("TIELINE_BENCH_ONLY").unwrap_or_default();
    let only: Vec<&str> = only.split(',').filter(|name| !name.is_empty()).collect();
    let found = Contender::found(lanes);
    let named = |name: &str| only.contains(&name);
    let (some_contender, some_measure) =
        (found.iter().any(|one| named(one.name())), Measure::ALL.iter().any(|one| named(one.name())));
    let contenders: Vec<_> = found.into_iter().filter(|one| !some_contender || named(one.name())).collect();
    let measures: Vec<_> = Measure::ALL.into_iter().filter(|one| !some_measure || named(one.name())).collect();
    let mut report = Report::new(&contenders);
    for round in 1..=runs {
        for contender in &contenders {
            let pair = Pair::new();
            let Some(daemons) = contender.start(&pair) else {
                eprintln!("round {round}: {} does not come up, left out", contender.name());
                continue;
            };
            for &measure in &measures {
                match measure.take(&pair, &daemons, seconds) {
                    Ok(result) => {
                        println!("round {round} {:<14} {:<10} {result}", contender.name(), measure.name());
                        report.add(contender.name(), measure, result);
                    }
                    Err(error) => eprintln!("round {round}: {} {}: {error}", contender.name(), measure.name()),
                }
            }
        }
    }
    print!("{}", report.table());
    match report.write() {
        Ok(path) => println!("\nwritten to {}", path.display()),
        Err(error) => {
            eprintln!("the figures cannot be written: {error}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

fn number<T: std::str::FromStr>(name: &str, otherwise: T) -> T {
    env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

fn missing() -> Option<String> {
    if !nix::unistd::geteuid().is_root() {
        return Some("it needs root".to_owned());
    }
    ["ip", "nft", "iperf3"]
        .into_iter()
        .find(|tool| contender::on_path(tool).is_none())
        .map(|tool| format!("`{tool}` is not installed"))
}
