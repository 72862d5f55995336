//! Flags of what is agreed with other providers.

use std::path::PathBuf;

use clap::Subcommand;

/// Flags of `tieline coordinator`.
#[derive(Debug, Subcommand)]
pub(crate) enum Coordinator {
    /// Compare `[coordinator]` with what each peer shows. Exits with 4 if something differs.
    Check {
        /// The file with `[coordinator]`.
        #[arg(long, env = "TIELINE_CONFIG", value_name = "FILE", default_value = "tieline.toml")]
        config: PathBuf,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
}
