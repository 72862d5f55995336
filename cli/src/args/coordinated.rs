//! Flags of what is agreed with other providers.

use std::path::PathBuf;

use clap::Subcommand;

use super::Api;

/// Flags of `tieline coordinated`.
#[derive(Debug, Subcommand)]
pub(crate) enum Coordinated {
    /// List them.
    List {
        #[command(flatten)]
        api: Api,
    },
    /// Create one: its activation key alone goes to standard output, this once. Bring it to the other provider.
    Create {
        #[command(flatten)]
        api: Api,
        /// The other provider.
        #[arg(long)]
        provider: String,
        /// The environment, by the id that both providers know it by.
        #[arg(long)]
        environment: String,
        /// Bandwidth: `1Gbps`, `500Mbps`, or a number of Mbit/s.
        #[arg(long)]
        bandwidth: String,
        /// Your account at the other provider.
        #[arg(long, value_name = "ACCOUNT")]
        remote_account: String,
    },
    /// Make one from an activation key of the other provider.
    Accept {
        #[command(flatten)]
        api: Api,
        /// The key; `-` reads standard input.
        key: String,
    },
    /// Tell what an activation key says, without doing anything.
    Decode {
        #[command(flatten)]
        api: Api,
        /// The key; `-` reads standard input.
        key: String,
    },
    /// Show one.
    Show {
        #[command(flatten)]
        api: Api,
        /// The UUID that both providers know it by.
        id: uuid::Uuid,
    },
    /// Change its bandwidth: the other provider is asked first.
    Resize {
        #[command(flatten)]
        api: Api,
        /// The UUID that both providers know it by.
        id: uuid::Uuid,
        /// Bandwidth: `1Gbps`, `500Mbps`, or a number of Mbit/s.
        #[arg(long)]
        bandwidth: String,
    },
    /// Move one to another interconnect, make before break.
    Migrate {
        #[command(flatten)]
        api: Api,
        /// The UUID that both providers know it by.
        id: uuid::Uuid,
    },
    /// Take one down on both sides, or take its key back.
    Delete {
        #[command(flatten)]
        api: Api,
        /// The UUID that both providers know it by.
        id: uuid::Uuid,
    },
}

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
