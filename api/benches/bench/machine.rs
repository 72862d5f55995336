//! What the figures were measured on, and what a process used.

use std::time::Duration;

use anyhow::Context as _;
use nix::sys::resource::{UsageWho, getrusage};

fn field(text: &str, name: &str) -> Option<String> {
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

/// One line: processor, cores, memory, kernel.
pub(crate) fn describe() -> anyhow::Result<String> {
    let cpu = std::fs::read_to_string("/proc/cpuinfo")?;
    let memory = std::fs::read_to_string("/proc/meminfo")?;
    let kilobytes = field(&memory, "MemTotal").and_then(|text| text.split(' ').next()?.parse::<f64>().ok());
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let load = std::fs::read_to_string("/proc/loadavg")?;
    Ok(format!(
        "{} × {} (family {}, model {}), {:.0} GiB, Linux {}; load before the run {}",
        std::thread::available_parallelism()?,
        field(&cpu, "model name").context("a processor has a name")?,
        field(&cpu, "cpu family").unwrap_or_default(),
        field(&cpu, "model\t").unwrap_or_default(),
        kilobytes.unwrap_or(0.0) / 1024.0 / 1024.0,
        kernel.trim(),
        load.split(' ').next().unwrap_or_default(),
    ))
}

/// Processor time of this process so far, user and system.
pub(crate) fn cpu() -> anyhow::Result<Duration> {
    let usage = getrusage(UsageWho::RUSAGE_SELF)?;
    let of = |time: nix::sys::time::TimeVal| {
        Duration::from_secs(time.tv_sec().unsigned_abs()) + Duration::from_micros(time.tv_usec().unsigned_abs())
    };
    Ok(of(usage.user_time()) + of(usage.system_time()))
}

/// Forgets the most memory that this process has held so far.
pub(crate) fn forget_peak() -> anyhow::Result<()> {
    // 5 resets the peak (proc_pid_clear_refs(5)).
    Ok(std::fs::write("/proc/self/clear_refs", "5")?)
}

/// The most memory that this process has held since, in MiB.
pub(crate) fn peak_mib() -> anyhow::Result<f64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let peak = field(&status, "VmHWM").context("the kernel tells the peak")?;
    let kilobytes: f64 = peak.split(' ').next().unwrap_or_default().parse()?;
    Ok(kilobytes / 1024.0)
}
