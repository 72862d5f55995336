//! Medians and spreads, as JSON for programs and as a table for people.

use std::{collections::BTreeMap, env, fmt::Write as _, path::PathBuf};

use serde_json::{Map, Value, json};

use super::measure::{Measure, Measured};

/// All that was measured.
#[derive(Debug, Default)]
pub(crate) struct Report(BTreeMap<(&'static str, Measure), Vec<Measured>>);

const OURS: &str = "tieline";

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len().is_multiple_of(2) { (values[middle - 1] + values[middle]) / 2.0 } else { values[middle] }
}

fn rounded(value: f64) -> f64 {
    (value * 1_000.0).round() / 1_000.0
}

impl Report {
    pub(crate) fn add(&mut self, contender: &'static str, measure: Measure, measured: Measured) {
        self.0.entry((contender, measure)).or_default().push(measured);
    }

    fn values(&self, contender: &'static str, measure: Measure, of: fn(&Measured) -> f64) -> Vec<f64> {
        self.0.get(&(contender, measure)).map(|all| all.iter().map(of).collect()).unwrap_or_default()
    }

    fn contenders(&self) -> Vec<&'static str> {
        let mut names: Vec<_> = self.0.keys().map(|(name, _)| *name).collect();
        names.dedup();
        names
    }

    /// `spread` is the largest less the smallest run.
    fn entry(&self, name: &str, unit: &str, measure: Measure, of: fn(&Measured) -> f64) -> Option<Value> {
        let ours = self.values(OURS, measure, of);
        if ours.is_empty() {
            return None;
        }
        let spread = ours.iter().copied().fold(f64::MIN, f64::max) - ours.iter().copied().fold(f64::MAX, f64::min);
        let mut peers = Map::new();
        for peer in self.contenders().into_iter().filter(|name| *name != OURS) {
            let values = self.values(peer, measure, of);
            if !values.is_empty() && (peer != "raw" || unit != "cores") {
                peers.insert(peer.to_owned(), json!(rounded(median(values))));
            }
        }
        let runs = ours.len();
        Some(json!({
            "name": format!("dataplane/{name}"), "unit": unit, "value": rounded(median(ours)),
            "spread": rounded(spread), "peers": peers, "runs": runs,
        }))
    }

    /// Writes the entries of the report, and returns where to.
    pub(crate) fn write(&self) -> PathBuf {
        let gbps = |measured: &Measured| measured.gbps;
        let entries: Vec<Value> = [
            self.entry("tcp1", "Gbit/s", Measure::Tcp1, gbps),
            self.entry("tcp4", "Gbit/s", Measure::Tcp4, gbps),
            self.entry("udp1372", "Gbit/s", Measure::Udp1372, gbps),
            self.entry("udp64", "kpps", Measure::Udp64, |measured| measured.kpps),
            self.entry("cores_per_gbps", "cores", Measure::Tcp1, |measured| measured.cores_per_gbps),
        ]
        .into_iter()
        .flatten()
        .collect();
        let target = env::var_os("CARGO_TARGET_DIR")
            .map_or_else(|| PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../target")), PathBuf::from);
        let folder = target.join("bench/parts");
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join("dataplane.json");
        std::fs::write(&path, serde_json::to_string_pretty(&entries).unwrap()).unwrap();
        path
    }

    /// Markdown.
    pub(crate) fn table(&self) -> String {
        let mut table = String::from("\n| |");
        let contenders = self.contenders();
        for contender in &contenders {
            let _ = write!(table, " {contender} |");
        }
        let _ = write!(table, "\n| --- |{}", " --- |".repeat(contenders.len()));
        for measure in Measure::ALL {
            let of: fn(&Measured) -> f64 =
                if measure == Measure::Udp64 { |measured| measured.kpps } else { |measured| measured.gbps };
            let _ = write!(table, "\n| {} |", measure.name());
            for contender in &contenders {
                let values = self.values(contender, measure, of);
                if values.is_empty() {
                    table.push_str(" |");
                    continue;
                }
                let cores = median(self.values(contender, measure, |measured| measured.cores_per_gbps));
                let lost = median(self.values(contender, measure, |measured| measured.retransmits as f64));
                let least = values.iter().copied().fold(f64::MAX, f64::min);
                let most = values.iter().copied().fold(f64::MIN, f64::max);
                let unit = if measure == Measure::Udp64 { "kpps" } else { "Gbit/s" };
                let _ = write!(
                    table,
                    " {:.2} {unit} [{least:.2}-{most:.2}], {cores:.2} cores/Gbps, {lost:.0} retransmits |",
                    median(values)
                );
            }
        }
        table.push('\n');
        table
    }
}
