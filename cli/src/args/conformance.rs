//! Flags of `tieline conformance`.

use std::{net::SocketAddr, path::PathBuf};

use clap::Args;

/// Flags of `tieline conformance`.
#[derive(Debug, Args)]
pub(crate) struct Conformance {
    /// Show the cases, and do nothing.
    #[arg(long)]
    pub list: bool,
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
    /// Serve the suite's own half of the API here, under the same certificate: a target may ask its peer which activation
    /// keys it takes before it hands one out.
    #[arg(long, value_name = "ADDRESS", requires = "certificate")]
    pub listen: Option<SocketAddr>,
    /// Trust anchors of the target's certificate, in PEM.
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
