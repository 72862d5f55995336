//! Flags of `tieline demo`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

/// Flags of `tieline demo`.
#[derive(Debug, Args)]
pub(crate) struct Demo {
    /// Leave everything running, and say how to explore it.
    #[arg(long, env = "KEEP")]
    pub keep: bool,
    /// Where the lab, the store and the logs are kept; a fresh folder below the system's temporary one by default.
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// What is shown.
    #[arg(long, value_enum, default_value_t = DemoKind::Direct)]
    pub kind: DemoKind,
    /// Channels between the two clouds, of a direct link.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=4))]
    pub channels: u8,
    /// Print JSON lines.
    #[arg(long)]
    pub json: bool,
}

/// What a demo shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum DemoKind {
    /// A link between two simulated clouds.
    Direct,
    /// A link between two providers that speak the open specification.
    Coordinated,
}
