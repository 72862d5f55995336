//! Flags of what is agreed with other providers.

use std::path::PathBuf;

use clap::Subcommand;

use super::Api;

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
    /// MACsec keys of the channels that are shared with peers.
    #[command(subcommand)]
    Macsec(Macsec),
    /// Work on the channels that are shared with peers.
    #[command(subcommand)]
    Maintenance(Maintenance),
}

/// Flags of `tieline coordinator macsec`.
#[derive(Debug, Subcommand)]
pub(crate) enum Macsec {
    /// List the channels with their keys, which are told of and never shown.
    List {
        #[command(flatten)]
        api: Api,
    },
    /// Wish another key for a channel. It comes when its turn has come: one channel of an interconnect at a time.
    Rotate {
        #[command(flatten)]
        api: Api,
        /// The channel: `PROVIDER/ENVIRONMENT/INTERCONNECT/CHANNEL`.
        channel: ChannelArg,
        /// Why, for the peer where that manages the key.
        #[arg(long)]
        reason: Option<String>,
    },
}

/// Flags of `tieline coordinator maintenance`.
#[derive(Debug, Subcommand)]
pub(crate) enum Maintenance {
    /// List work, ours and the peers'.
    List {
        #[command(flatten)]
        api: Api,
    },
    /// Show work of ours.
    Show {
        #[command(flatten)]
        api: Api,
        /// Its id.
        id: uuid::Uuid,
    },
    /// Plan work on a channel, or begin it. The work may be done once its state is UNDER_WAY.
    Open {
        #[command(flatten)]
        api: Api,
        /// The channel: `PROVIDER/ENVIRONMENT/INTERCONNECT/CHANNEL`.
        channel: ChannelArg,
        /// From when on, as `2026-05-01T22:00:00Z`; now if absent.
        #[arg(long, value_name = "TIME")]
        start: Option<tieline_openapi::v1::Timestamp>,
        /// Until when.
        #[arg(long, value_name = "TIME")]
        end: tieline_openapi::v1::Timestamp,
        /// It takes our whole device, and with it every channel that the device carries.
        #[arg(long)]
        whole_device: bool,
        /// It waits for nobody: two channels of one interconnect may be under work at once.
        #[arg(long)]
        emergency: bool,
    },
    /// End work that is under way, or call it off.
    End {
        #[command(flatten)]
        api: Api,
        /// Its id.
        id: uuid::Uuid,
    },
}

/// A channel, by the ids that both providers know it by.
#[derive(Debug, Clone)]
pub(crate) struct ChannelArg {
    /// The other provider.
    pub(crate) provider: String,
    /// The environment.
    pub(crate) environment: String,
    /// The interconnect.
    pub(crate) interconnect: String,
    /// The channel.
    pub(crate) channel: String,
}

impl std::str::FromStr for ChannelArg {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let parts: Vec<&str> = text.split('/').collect();
        let [provider, environment, interconnect, channel] = parts.as_slice() else {
            return Err("a channel reads PROVIDER/ENVIRONMENT/INTERCONNECT/CHANNEL".to_owned());
        };
        let [provider, environment, interconnect, channel] =
            [provider, environment, interconnect, channel].map(|id| (*id).to_owned());
        Ok(Self { provider, environment, interconnect, channel })
    }
}
