//! What clouds bill because of a connection, with list prices where a published one is known: `costs.json`. A price stands
//! there with the day on which it was published or read; one that depends on more than a plan knows (a region, a facility,
//! a volume) is left out, and its source says where to look.

use std::{borrow::Cow, collections::BTreeMap, sync::OnceLock};

use serde::Deserialize;

/// What the number of units follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum BilledBy {
    /// One a channel, as long as it exists.
    Channel,
    /// What the private path carries.
    Traffic,
    /// What the tunnel carries.
    TunnelTraffic,
}

/// Something that a cloud bills.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CostDriver {
    /// What is billed.
    pub what: Cow<'static, str>,
    /// What the number of units follows.
    pub billed_by: BilledBy,
    /// What a price is for: `hour`, `GB` (10^9 bytes), `GiB` (2^30 bytes).
    pub unit: Cow<'static, str>,
    /// The list price of one unit in US dollars; none where no published one is known.
    pub price_usd: Option<f64>,
    /// The day of the price, as `YYYY-MM-DD`.
    pub as_of: Option<Cow<'static, str>>,
    /// Where the vendor publishes it.
    pub source: Cow<'static, str>,
}

const TABLE: &str = include_str!("costs.json");

/// The drivers of one cloud; none of a cloud that is not in the table.
#[cfg_attr(not(any(feature = "aws", feature = "google")), allow(dead_code, reason = "made for the real clouds"))]
pub(crate) fn of(cloud: &str) -> &'static [CostDriver] {
    static DRIVERS: OnceLock<BTreeMap<String, Vec<CostDriver>>> = OnceLock::new();
    // A test reads the table: it is part of the program.
    let drivers = DRIVERS.get_or_init(|| serde_json::from_str(TABLE).unwrap_or_default());
    drivers.get(cloud).map_or(&[], Vec::as_slice)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_price_has_its_day_and_every_driver_its_source() {
        let table: BTreeMap<String, Vec<CostDriver>> = serde_json::from_str(TABLE).unwrap();
        assert_eq!(table.keys().collect::<Vec<_>>(), ["aws", "google"]);
        for (cloud, drivers) in &table {
            assert_eq!(of(cloud), drivers);
            for driver in drivers {
                assert_eq!(driver.price_usd.is_some(), driver.as_of.is_some(), "{driver:?}");
                assert!(driver.source.starts_with("https://"), "{driver:?}");
                assert!(["hour", "GB", "GiB"].contains(&&*driver.unit), "{driver:?}");
                if let Some(day) = &driver.as_of {
                    let parts: Vec<usize> = day.split('-').map(str::len).collect();
                    assert_eq!(parts, [4, 2, 2], "{driver:?}");
                }
            }
        }
    }
}
