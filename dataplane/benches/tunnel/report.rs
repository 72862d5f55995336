//! Medians and spreads, as JSON for programs and as a table for people.

use std::{
    collections::BTreeMap,
    env,
    fmt::Write as _,
    fs, io,
    path::{Path, PathBuf},
};

use serde_json::{Map, Value, json};

use super::{
    contender::Contender,
    measure::{Measure, Measured},
};

type Of = fn(&Measured) -> f64;

/// All that was measured.
#[derive(Debug)]
pub(crate) struct Report {
    /// Each contender, whose figures it stands for, and its version.
    contenders: Vec<(&'static str, &'static str, String)>,
    measured: BTreeMap<(&'static str, Measure), Vec<Measured>>,
}

const OURS: &str = "tieline";
const RAW: &str = "raw";

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len().is_multiple_of(2) { (values[middle - 1] + values[middle]) / 2.0 } else { values[middle] }
}

fn span(values: &[f64]) -> (f64, f64) {
    (values.iter().copied().fold(f64::MAX, f64::min), values.iter().copied().fold(f64::MIN, f64::max))
}

fn rounded(value: f64) -> f64 {
    (value * 1_000.0).round() / 1_000.0
}

/// Name, unit, what is measured, what of it, and whether more is better.
const ROWS: [(&str, &str, Measure, Of, bool); 12] = [
    ("tcp1", "Gbit/s", Measure::Tcp1, |one| one.gbps, true),
    ("tcp1_back", "Gbit/s", Measure::Tcp1Back, |one| one.gbps, true),
    ("tcp4", "Gbit/s", Measure::Tcp4, |one| one.gbps, true),
    ("tcp4_back", "Gbit/s", Measure::Tcp4Back, |one| one.gbps, true),
    ("udp1372", "Gbit/s", Measure::Udp1372, |one| one.gbps, true),
    ("udp64", "kpps", Measure::Udp64, |one| one.kpps, true),
    ("cores_per_gbps", "cores", Measure::Tcp1, |one| one.cores_per_gbps, false),
    ("retransmits", "segments", Measure::Tcp1, |one| one.retransmits as f64, false),
    ("latency_idle_p50", "us", Measure::Idle, |one| one.rtt_us.0, false),
    ("latency_idle_p99", "us", Measure::Idle, |one| one.rtt_us.1, false),
    ("latency_loaded_p50", "us", Measure::Loaded, |one| one.rtt_us.0, false),
    ("latency_loaded_p99", "us", Measure::Loaded, |one| one.rtt_us.1, false),
];

impl Report {
    pub(crate) fn new(contenders: &[Contender]) -> Self {
        let contenders = contenders.iter().map(|one| (one.name(), one.peer(), one.version())).collect();
        Self { contenders, measured: BTreeMap::new() }
    }

    pub(crate) fn add(&mut self, contender: &'static str, measure: Measure, measured: Measured) {
        self.measured.entry((contender, measure)).or_default().push(measured);
    }

    fn values(&self, contender: &'static str, measure: Measure, of: Of) -> Vec<f64> {
        self.measured.get(&(contender, measure)).map(|all| all.iter().map(of).collect()).unwrap_or_default()
    }

    /// `spread` is the largest less the smallest run. A peer that was run in several ways stands there with its best.
    fn entry(&self, (name, unit, measure, of, more): (&str, &str, Measure, Of, bool)) -> Option<Value> {
        let ours = self.values(OURS, measure, of);
        if ours.is_empty() {
            return None;
        }
        let (least, most) = span(&ours);
        let mut peers: BTreeMap<&str, f64> = BTreeMap::new();
        for (contender, peer, _) in self.contenders.iter().filter(|(name, ..)| ![OURS, RAW].contains(name)) {
            let values = self.values(contender, measure, of);
            if values.is_empty() {
                continue;
            }
            let value = rounded(median(values));
            let had = peers.entry(peer).or_insert(value);
            *had = if more { had.max(value) } else { had.min(value) };
        }
        let runs = ours.len();
        let peers: Map<String, Value> =
            peers.into_iter().map(|(name, value)| (name.to_owned(), json!(value))).collect();
        Some(json!({
            "name": format!("dataplane/{name}"), "unit": unit, "value": rounded(median(ours)),
            "spread": rounded(most - least), "peers": peers, "runs": runs,
        }))
    }

    /// Puts the figures into the report, in the place of older ones, and the table beside it. Returns where the report is.
    pub(crate) fn write(&self) -> io::Result<PathBuf> {
        let me = env::current_exe()?;
        // This program lies in `release/deps` below it.
        let folder = me.ancestors().nth(3).unwrap_or(Path::new("target")).join("bench");
        fs::create_dir_all(&folder)?;
        let path = folder.join("report.json");
        let had = match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice::<Vec<Value>>(&bytes)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error),
        };
        let is_ours = |row: &Value| row["name"].as_str().is_some_and(|name| name.starts_with("dataplane/"));
        let others = had.into_iter().filter(|row| !is_ours(row));
        let rows: Vec<Value> = others.chain(ROWS.into_iter().filter_map(|row| self.entry(row))).collect();
        fs::write(&path, serde_json::to_string_pretty(&rows)? + "\n")?;
        fs::write(folder.join("dataplane.md"), self.table())?;
        Ok(path)
    }

    /// Markdown: the machine, the versions, and a row a figure with its median and, in brackets, its least and most.
    pub(crate) fn table(&self) -> String {
        let mut table = format!("\n{}\n\n", machine());
        for (name, _, version) in &self.contenders {
            let _ = writeln!(table, "- {name}: {version}");
        }
        table.push_str("\n| |");
        for (name, ..) in &self.contenders {
            let _ = write!(table, " {name} |");
        }
        let _ = write!(table, "\n| --- |{}", " ---: |".repeat(self.contenders.len()));
        for (name, unit, measure, of, _) in ROWS {
            if !self.contenders.iter().any(|(one, ..)| !self.values(one, measure, of).is_empty()) {
                continue;
            }
            let _ = write!(table, "\n| {name}, {unit} |");
            for (contender, ..) in &self.contenders {
                let values = self.values(contender, measure, of);
                // Without a tunnel there is no daemon.
                if values.is_empty() || (*contender == RAW && unit == "cores") {
                    table.push_str(" |");
                    continue;
                }
                let (least, most) = span(&values);
                let digits = if most >= 100.0 { 0 } else { 2 };
                let _ = write!(table, " {:.digits$} [{least:.digits$}-{most:.digits$}] |", median(values));
            }
        }
        table.push('\n');
        table
    }
}

/// The processor, how many of them, and the kernel.
fn machine() -> String {
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    let model = model.map_or("an unknown processor", |(_, name)| name.trim());
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!("{cores} cores of {model}, Linux {}, both ends and iperf3 on the same machine", kernel.trim())
}
