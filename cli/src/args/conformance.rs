//! Flags of `tieline conformance`.

use std::{net::SocketAddr, path::PathBuf};

use clap::{Args, ValueEnum};

/// The target's role in the specification.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum TargetRole {
    /// It handed out the activation key, and is asked: the suite calls it.
    #[default]
    Responder,
    /// The customer brought a key there, and it asks: the suite issues the key and listens.
    Negotiator,
}

/// Flags of `tieline conformance`.
#[derive(Debug, Args)]
pub(crate) struct Conformance {
    /// Show the cases, and do nothing.
    #[arg(long)]
    pub list: bool,
    /// In which role the target is tested.
    #[arg(long, value_enum, default_value_t)]
    pub role: TargetRole,
    /// Whom to test: everything before `/providers`.
    #[arg(long, value_name = "URL")]
    pub target: Option<String>,
    /// The provider id that the suite plays: one that the target is paired with.
    #[arg(long = "as", value_name = "PROVIDER")]
    pub provider: Option<String>,
    /// Only this case, or this area; may be given again.
    #[arg(long, value_name = "CASE")]
    pub case: Vec<String>,
    /// A shell command that orders a connection at the target's customer side and prints the activation key. It is told
    /// `TIELINE_ENVIRONMENT` and `TIELINE_BANDWIDTH_MBPS`. Without it, what needs a connection is not tested.
    #[arg(long, value_name = "COMMAND")]
    pub issue_key: Option<String>,
    /// A shell command that brings an activation key of the suite to the target's customer side. It is told
    /// `TIELINE_ACTIVATION_KEY`, `TIELINE_ENVIRONMENT`, `TIELINE_BANDWIDTH_MBPS` and `TIELINE_CONNECTION`, the UUID that both
    /// providers know the connection by. It need not wait for the connection.
    #[arg(long, value_name = "COMMAND")]
    pub trigger: Option<String>,
    /// A shell command that tells the target's customer side another wish: `TIELINE_WISH` is `update` (to
    /// `TIELINE_BANDWIDTH_MBPS`), `migrate` or `delete`, `TIELINE_CONNECTION` says of what. Its operators' wishes come the
    /// same way: `maintain` (`TIELINE_EMERGENCY` is `true` or `false`) and `restore`, `TIELINE_CHANNEL` says where:
    /// `ENVIRONMENT/INTERCONNECT/CHANNEL`. A wish that the target's customers cannot have ends with exit code 69, and the case is
    /// not tested.
    #[arg(long, value_name = "COMMAND")]
    pub wish: Option<String>,
    /// The customer's account at the target: keys of the suite are for it.
    #[arg(long, value_name = "ACCOUNT", default_value = "customer-1")]
    pub account: String,
    /// How long to wait for what the target must do, in seconds: longer than it takes to look at a connection anew.
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub patience: u64,
    /// How long to watch for what the target must not do, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub window: u64,
    /// The bake time after a change of a MACsec key that is agreed with the target, in seconds. The specification's is two
    /// hours: what must come after it is then not tested.
    #[arg(long, value_name = "SECONDS", default_value_t = 7_200, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub bake: u64,
    /// Cases at a time, of those that do not disturb each other.
    #[arg(long, value_name = "CASES", default_value_t = 8, value_parser = clap::value_parser!(u8).range(1..=64))]
    pub jobs: u8,
    /// Serve the suite's own half of the API here, under the same certificate: the endpoint of the peer that the suite plays.
    /// A negotiator calls it, and a responder may ask there which activation keys it may hand out.
    #[arg(long, value_name = "ADDRESS", requires = "certificate")]
    pub listen: Option<SocketAddr>,
    /// Trust anchors of the target's certificates, in PEM: the server's, and the client's with `--listen`.
    #[arg(long, value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// The client certificate, in PEM.
    #[arg(long, value_name = "FILE", requires = "key")]
    pub certificate: Option<PathBuf>,
    /// Its private key, in PEM.
    #[arg(long, value_name = "FILE", requires = "certificate")]
    pub key: Option<PathBuf>,
    /// How the reports call the target; its URL if absent.
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// Write JUnit XML here.
    #[arg(long, value_name = "FILE")]
    pub junit: Option<PathBuf>,
    /// Write a Markdown report here.
    #[arg(long, value_name = "FILE")]
    pub markdown: Option<PathBuf>,
}
