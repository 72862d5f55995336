//! How long what is over is kept.

use tieline_openapi::config::RetentionConfig;

/// Bounds of what is kept.
#[derive(Debug, Clone, Copy)]
pub struct HousekeepingLimits {
    /// Milliseconds that saved answers are kept.
    pub answers_ms: u64,
    /// Events that are kept.
    pub events: u64,
    /// Milliseconds that samples are kept.
    pub samples_ms: u64,
    /// Milliseconds that rows of the audit log are kept.
    pub audit_ms: u64,
    /// Milliseconds that an instance is kept after it is gone for good, and with it its calls: what turns up in a cloud later
    /// is not known as ours any more.
    pub ledger_ms: u64,
    /// Milliseconds that operations are kept after they have ended. The last one of a living connection stays.
    pub operations_ms: u64,
    /// Milliseconds that issues are kept after they were resolved.
    pub issues_ms: u64,
    /// Rows that one call removes at most per table.
    pub rows: u32,
}

impl Default for HousekeepingLimits {
    fn default() -> Self {
        Self::of(&RetentionConfig::default())
    }
}

impl HousekeepingLimits {
    /// The bounds that `tieline.toml` sets, and those that nobody can set.
    #[must_use]
    pub fn of(retention: &RetentionConfig) -> Self {
        const DAY_MS: u64 = 24 * 3_600_000;
        let days = |days: u32| u64::from(days) * DAY_MS;
        Self {
            answers_ms: 7 * DAY_MS,
            events: retention.events,
            samples_ms: DAY_MS,
            audit_ms: days(retention.audit_days),
            ledger_ms: days(retention.ledger_days),
            operations_ms: days(retention.operation_days),
            issues_ms: days(retention.issue_days),
            rows: 1_000,
        }
    }
}
