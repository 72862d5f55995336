//! The figures: one row each, as a table for people and as `report.json` for programs.

use std::{collections::BTreeMap, path::Path};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// One figure.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Row {
    /// What was measured.
    pub name: String,
    /// In which unit.
    pub unit: String,
    /// The median of the runs.
    pub value: f64,
    /// The largest less the smallest of the runs.
    pub spread: f64,
    /// What others do in the same run, by name; empty where there is no peer.
    pub peers: BTreeMap<String, f64>,
    /// How often it was measured.
    pub runs: u32,
}

/// What each figure should be at most; printed, never asserted.
const TARGETS: &[(&str, f64)] = &[
    ("negotiate", 2.0),
    ("post_to_tunnel", 1_000.0),
    ("post_to_established", 5_000.0),
    ("api_p99_sqlite", 20.0),
    ("api_errors_sqlite", 0.0),
    ("api_p99_postgres", 20.0),
    ("api_errors_postgres", 0.0),
    ("observe_10000_cores", 1.0),
    ("observe_10000_rss", 1_024.0),
    ("observe_10000_calls", 20.0),
    ("observe_single_calls", 20.0),
    ("restart_10000_ready", 5.0),
    ("restart_10000_twice", 0.0),
];

impl Row {
    /// A figure of several runs.
    pub(crate) fn of(name: &str, unit: &str, mut runs: Vec<f64>) -> Option<Self> {
        runs.sort_by(f64::total_cmp);
        let (first, last) = (runs.first()?, runs.last()?);
        let middle = runs.len() / 2;
        let value = if runs.len().is_multiple_of(2) { (runs[middle - 1] + runs[middle]) / 2.0 } else { runs[middle] };
        Some(Self {
            name: name.to_owned(),
            unit: unit.to_owned(),
            value,
            spread: last - first,
            peers: BTreeMap::new(),
            runs: u32::try_from(runs.len()).unwrap_or(u32::MAX),
        })
    }

    /// A figure that was measured once.
    pub(crate) fn once(name: &str, unit: &str, value: f64) -> Self {
        Self { name: name.to_owned(), unit: unit.to_owned(), value, spread: 0.0, peers: BTreeMap::new(), runs: 1 }
    }
}

/// The median of what `cargo bench` measured of the negotiator, where it was run before, in milliseconds.
pub(crate) fn negotiate(target: &Path) -> anyhow::Result<Option<Row>> {
    let mut folders = vec![target.join("criterion")];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = std::fs::read_dir(&folder) else { continue };
        for entry in entries {
            let path = entry?.path();
            let estimates = path.join("new").join("estimates.json");
            let named = path.strip_prefix(target).is_ok_and(|name| name.to_string_lossy().contains("negotiate"));
            if named && estimates.exists() {
                let estimates: Value = serde_json::from_str(&std::fs::read_to_string(&estimates)?)?;
                let of = |pointer: &str| estimates.pointer(pointer).and_then(Value::as_f64).context("an estimate");
                let median = of("/median/point_estimate")? / 1e6;
                let interval = "/median/confidence_interval";
                let spread = (of(&format!("{interval}/upper_bound"))? - of(&format!("{interval}/lower_bound"))?) / 1e6;
                return Ok(Some(Row { spread, runs: 100, ..Row::once("negotiate", "ms", median) }));
            }
            if path.is_dir() {
                folders.push(path);
            }
        }
    }
    Ok(None)
}

/// The table, as Markdown.
pub(crate) fn table(machine: &str, rows: &[Row]) -> String {
    let mut text = format!("{machine}\n\n| figure | median | spread | runs | must be at most | peers |\n");
    text.push_str("| --- | ---: | ---: | ---: | ---: | --- |\n");
    for row in rows {
        let target = TARGETS.iter().find(|(name, _)| *name == row.name).map(|(_, most)| *most);
        let must = target.map_or_else(String::new, |most| format!("{most} {}", row.unit));
        let missed = if target.is_some_and(|most| row.value > most) { " **missed**" } else { "" };
        let peers: Vec<_> = row.peers.iter().map(|(name, value)| format!("{name} {}", short(*value))).collect();
        let peers = if peers.is_empty() { "no peer exists".to_owned() } else { peers.join(", ") };
        text.push_str(&format!(
            "| {} | {} {}{missed} | {} | {} | {must} | {peers} |\n",
            row.name,
            short(row.value),
            row.unit,
            short(row.spread),
            row.runs
        ));
    }
    text
}

fn short(value: f64) -> String {
    if value == 0.0 || value.abs() >= 100.0 { format!("{value:.0}") } else { format!("{value:.3}") }
}

/// Writes `report.json`.
pub(crate) fn write(folder: &Path, rows: &[Row]) -> anyhow::Result<()> {
    std::fs::create_dir_all(folder)?;
    let path = folder.join("report.json");
    std::fs::write(&path, serde_json::to_string_pretty(rows)? + "\n").with_context(|| path.display().to_string())
}
