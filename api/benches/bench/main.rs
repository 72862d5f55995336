//! `make bench`: every figure of the README, measured and printed beside what it must be at most. It stands here because it
//! needs no cloud's client: the clouds are in memory, or the lab's behind the finished binary.
//!
//! Names of figures as arguments choose which; `BENCH_SECONDS`, `BENCH_LINKS` and `BENCH_RUNS` shorten a run. As a test (`--list`,
//! `--exact smoke`, or without `--bench`) it makes a tiny run that says nothing about speed, and checks the report.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "what it prints is what it is for")]
#![expect(clippy::disallowed_methods, reason = "a bench measures real time")]

mod load;
mod machine;
#[path = "../../tests/postgres/mod.rs"]
#[allow(clippy::unwrap_used, reason = "a test fixture")]
mod postgres;
mod provision;
mod report;
mod scale;
mod seed;
mod world;

use std::{
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, bail};
use report::Row;
use tieline_openapi::config::EngineConfig;

/// As in the finished binary.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// How much is measured.
#[derive(Clone)]
pub(crate) struct Settings {
    /// Settled links.
    pub links: usize,
    /// Links that a service under load has before.
    pub before: usize,
    /// Links in the middle of a step.
    pub midway: usize,
    /// Milliseconds from one round of lists to the next.
    pub round_ms: u64,
    /// How long a service that was killed keeps its links, in milliseconds.
    pub lease_ms: u64,
    /// Rounds that are measured.
    pub rounds: u32,
    /// Requests a second.
    pub rate: u64,
    /// Seconds of load.
    pub seconds: u64,
    /// Runs of what a lab measures.
    pub runs: u32,
}

impl Settings {
    fn from_environment() -> anyhow::Result<Self> {
        let number = |name: &str, default: u64| match std::env::var(name) {
            Ok(text) => text.parse().with_context(|| format!("{name} is a number")),
            Err(_) => Ok(default),
        };
        let links = usize::try_from(number("BENCH_LINKS", 10_000)?)?;
        let quick = std::env::var_os("BENCH_QUICK").is_some();
        Ok(Self {
            links,
            before: if quick { 8 } else { 200 },
            midway: (links / 10).max(1),
            round_ms: if quick { 500 } else { 60_000 },
            lease_ms: if quick { 5_000 } else { EngineConfig::default().lease_ms },
            rounds: if quick { 1 } else { 2 },
            rate: if quick { 50 } else { 500 },
            seconds: number("BENCH_SECONDS", 60)?,
            runs: u32::try_from(number("BENCH_RUNS", 5)?)?,
        })
    }
}

/// A group of figures that are measured together.
const GROUPS: &[&str] = &["negotiate", "post", "api_sqlite", "api_postgres", "scale"];

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let has = |name: &str| arguments.iter().any(|argument| argument == name);
    if has("--list") {
        if !has("--ignored") {
            println!("smoke: test");
        }
        return Ok(());
    }
    let runtime = tokio::runtime::Runtime::new()?;
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["child", "scale", dir] => runtime.block_on(async {
            let rows = scale::run(&Settings::from_environment()?, Path::new(dir)).await?;
            println!("{}", serde_json::to_string(&rows)?);
            Ok(())
        }),
        ["child", "service", dir, database] => {
            runtime.block_on(async { load::service(&Settings::from_environment()?, Path::new(dir), database).await })
        }
        // `cargo bench` says so; anything else runs it as a test.
        _ if !has("--bench") => smoke(),
        _ => {
            let wanted: Vec<_> = arguments.iter().filter(|a| !a.starts_with('-')).map(String::as_str).collect();
            if let Some(unknown) = wanted.iter().find(|name| !GROUPS.contains(name)) {
                bail!("there is no figure `{unknown}`; there are {}", GROUPS.join(", "));
            }
            let groups = if wanted.is_empty() { GROUPS } else { &wanted };
            let folder = target().join("bench");
            runtime.block_on(all(&Settings::from_environment()?, groups, &folder))?;
            Ok(())
        }
    }
}

/// Where cargo builds: this program lies below it.
fn target() -> PathBuf {
    let me = std::env::current_exe().unwrap_or_default();
    me.ancestors().nth(3).map_or_else(|| PathBuf::from("target"), Path::to_path_buf)
}

/// The binary under test: `TIELINE_BIN`, else the one built beside this program.
fn binary() -> PathBuf {
    let beside = || target().join("release").join("tieline");
    std::env::var_os("TIELINE_BIN").map_or_else(beside, PathBuf::from)
}

async fn all(settings: &Settings, groups: &[&str], folder: &Path) -> anyhow::Result<Vec<Row>> {
    let machine = machine::describe()?;
    let mut rows = Vec::new();
    for group in groups {
        eprintln!("== {group}");
        let told = rows.len();
        match *group {
            "negotiate" => match report::negotiate(&target())? {
                Some(row) => rows.push(row),
                None => println!("SKIPPED negotiate: run `cargo bench -p tieline-api` before"),
            },
            "post" => {
                let measured = provision::run(settings.runs, &binary()).await?;
                if measured.is_empty() {
                    println!("SKIPPED post_to_tunnel and post_to_established: no lab can run here");
                }
                rows.extend(measured);
            }
            "api_sqlite" => {
                let dir = tempfile::tempdir()?;
                let url = format!("sqlite://{}", dir.path().join("tieline.db").display());
                rows.extend(loaded(settings, dir.path(), &url, "sqlite").await?);
            }
            "api_postgres" => match postgres::database() {
                Some(url) => {
                    let dir = tempfile::tempdir()?;
                    rows.extend(loaded(settings, dir.path(), &url, "postgres").await?);
                }
                None => println!("SKIPPED api_p99_postgres: there is no Postgres here"),
            },
            _ => {
                let dir = tempfile::tempdir()?;
                rows.extend(scaled(dir.path())?);
            }
        }
        // A later group may fail.
        for row in &rows[told..] {
            eprintln!("{}: {:.3} {}", row.name, row.value, row.unit);
        }
    }
    println!("{}", report::table(&machine, &rows));
    report::write(folder, &rows)?;
    println!("{}", folder.join("report.json").display());
    Ok(rows)
}

fn child(arguments: &[&str]) -> anyhow::Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("child").args(arguments);
    Ok(command)
}

/// The load on a service in a process of its own.
async fn loaded(settings: &Settings, dir: &Path, database: &str, store: &str) -> anyhow::Result<Vec<Row>> {
    let dir_text = dir.to_str().context("a folder with a plain name")?;
    let mut service = child(&["service", dir_text, database])?.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let mut lines = BufReader::new(service.stdout.take().context("it was piped")?).lines();
    let mut line = || lines.next().context("the service ended before it was ready")?.context("its output");
    let told = line().and_then(|url| Ok((url, line()?)));
    let rows = match told {
        Ok((url, token)) => load::run(settings, dir, &url, &token, store).await,
        Err(error) => Err(error),
    };
    // The end of its input is its end.
    drop(service.stdin.take());
    let ended = service.wait()?;
    let rows = rows?;
    if !ended.success() {
        bail!("the service did not end well: {ended}");
    }
    Ok(rows)
}

/// Many links, in a process of its own, whose use is measured.
fn scaled(dir: &Path) -> anyhow::Result<Vec<Row>> {
    let dir = dir.to_str().context("a folder with a plain name")?;
    let output = child(&["scale", dir])?.stdin(Stdio::null()).stderr(Stdio::inherit()).output()?;
    if !output.status.success() {
        bail!("the run with many links failed: {}", output.status);
    }
    let text = String::from_utf8(output.stdout)?;
    Ok(serde_json::from_str(text.lines().last().context("its figures")?)?)
}

/// A tiny run of everything but the lab, which says nothing about speed: the report must be well formed.
fn smoke() -> anyhow::Result<()> {
    let here = |name: &str, value: &str| {
        // SAFETY: nothing else runs in this process yet.
        unsafe { std::env::set_var(name, value) }
    };
    here("BENCH_QUICK", "1");
    here("BENCH_LINKS", "20");
    here("BENCH_SECONDS", "2");
    let folder = tempfile::tempdir()?;
    let runtime = tokio::runtime::Runtime::new()?;
    let settings = Settings::from_environment()?;
    let groups = ["api_sqlite", "api_postgres", "scale"];
    let rows = runtime.block_on(all(&settings, &groups, folder.path()))?;
    let written: Vec<Row> = serde_json::from_str(&std::fs::read_to_string(folder.path().join("report.json"))?)?;
    if written != rows || rows.len() < 7 {
        bail!("the report is not what was measured: {written:?}");
    }
    for row in rows {
        if !row.value.is_finite() || row.value < 0.0 || row.runs == 0 || row.unit.is_empty() {
            bail!("{row:?} is no figure");
        }
        let none = ["api_errors_sqlite", "api_errors_postgres", "restart_10000_twice"];
        if none.contains(&row.name.as_str()) && row.value > 0.0 {
            bail!("{} must be 0 at any speed: {row:?}", row.name);
        }
    }
    Ok(())
}
