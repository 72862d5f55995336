//! The command line. Every flag of a daemon has its environment variable.

mod conformance;
mod coordinator;
mod demo;
mod gateway;
mod lab;

use std::{net::SocketAddr, path::PathBuf};

use clap::{Args, Parser, Subcommand, ValueEnum};
use tieline_openapi::ids::InterconnectId;

pub(crate) use conformance::{Conformance, TargetRole};
pub(crate) use coordinator::{Coordinator, Macsec, Maintenance};
pub(crate) use demo::{Demo, DemoKind};
pub(crate) use gateway::{Gateway, GatewayBackend, GatewayBench, GatewayCommand, GatewayStatus};
pub(crate) use lab::{Lab, LabFlow, LabInit, LabRouter};

/// Dedicated private links between clouds: provisioned, protected by WireGuard, measured.
#[derive(Debug, Parser)]
#[command(name = "tieline", version, propagate_version = true, max_term_width = 110)]
pub(crate) struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the service: the API, the engine and the store.
    Serve(Serve),
    /// Run a gateway in one site's network.
    Gateway(Box<Gateway>),
    /// Show the whole job on this machine: two simulated clouds, real BGP, real WireGuard.
    Demo(Demo),
    /// A little internet on this machine, to rehearse in.
    #[command(subcommand)]
    Lab(Lab),
    /// Private links: list, create, accept, show, update, migrate, delete.
    #[command(subcommand)]
    Connections(Connections),
    /// The pairing with other providers over the open Interconnect specification.
    #[command(subcommand)]
    Coordinator(Coordinator),
    /// Gateways: who stands where, and whether it is heard.
    #[command(subcommand)]
    Gateways(Gateways),
    /// Issues: what a person should look at.
    #[command(subcommand)]
    Issues(Issues),
    /// What happened, and with `--follow` what happens.
    Events(Events),
    /// API tokens: list, create, revoke.
    #[command(subcommand)]
    Tokens(Tokens),
    /// Show what creating a connection would do, without doing it. Exits with 2 if there is something to do.
    Plan(Plan),
    /// Look closely: BGP sessions, paths, and why a value was chosen.
    #[command(subcommand)]
    Show(Show),
    /// Test any implementation of the Connection Coordinator API. Exits with 1 if it breaks a rule.
    Conformance(Box<Conformance>),
    /// Print a completion script for a shell.
    Completion {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// The first process of a lab's own namespaces.
    #[command(hide = true)]
    LabInit(LabInit),
    /// The hook of a lab's router: one request on standard input.
    #[command(hide = true)]
    LabRouter(LabRouter),
    /// One end of a measured flow between two hosts of a lab.
    #[command(hide = true, subcommand)]
    LabFlow(LabFlow),
}

/// Flags of `tieline serve`.
#[derive(Debug, Args)]
pub(crate) struct Serve {
    /// What exists before any connection: accounts, interconnects, attach points. Without it, only the catalogue is there.
    #[arg(long, env = "TIELINE_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Where to listen; port 0 takes a free one.
    #[arg(long, env = "TIELINE_LISTEN", default_value = "127.0.0.1:7080", value_name = "ADDRESS")]
    pub listen: SocketAddr,
    /// `sqlite://PATH` or `postgres://...`.
    #[arg(
        long,
        env = "TIELINE_DATABASE",
        default_value = "sqlite://tieline.db",
        value_name = "URL",
        hide_env_values = true
    )]
    pub database: String,
    /// The first admin token is written here at the first start, readable by its owner only.
    #[arg(long, env = "TIELINE_FIRST_TOKEN_FILE", default_value = "tieline.token", value_name = "FILE")]
    pub first_token_file: PathBuf,
    /// The key that seals secrets at rest; made at the first start. `TIELINE_KEY` holds the key itself instead.
    #[arg(long, env = "TIELINE_KEY_FILE", default_value = "tieline.key", value_name = "FILE")]
    pub key_file: PathBuf,
    /// How log lines look.
    #[arg(long, env = "TIELINE_LOG_FORMAT", default_value = "text", value_enum)]
    pub log_format: LogFormat,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Where the service is, and how to print.
#[derive(Debug, Args)]
pub(crate) struct Api {
    /// The service.
    #[arg(long, env = "TIELINE_URL", default_value = "http://127.0.0.1:7080", value_name = "URL", global = true)]
    pub url: String,
    /// The API token; else `./tieline.token` is read.
    #[arg(long, env = "TIELINE_TOKEN", hide_env_values = true, value_name = "TOKEN", global = true)]
    pub token: Option<String>,
    /// Print JSON.
    #[arg(long, global = true)]
    pub json: bool,
}

/// Flags of `tieline connections`.
#[derive(Debug, Subcommand)]
pub(crate) enum Connections {
    /// List them.
    List {
        #[command(flatten)]
        api: Api,
        /// Go on, and show each again whenever it changes.
        #[arg(long)]
        watch: bool,
    },
    /// Create one. With another provider its activation key alone goes to standard output, this once: bring it there.
    Create {
        #[command(flatten)]
        api: Api,
        #[command(flatten)]
        intent: Intent,
        /// Wait until it is up, at most this many seconds (600 if no number is given).
        #[arg(long, num_args = 0..=1, default_missing_value = "600", value_name = "SECONDS")]
        wait: Option<u64>,
    },
    /// Make one from an activation key of another provider.
    Accept {
        #[command(flatten)]
        api: Api,
        /// The key; `-` reads standard input.
        key: String,
        /// The connection's name.
        #[arg(long)]
        name: String,
        /// Our end: `[ATTACH_POINT]=PREFIX[,PREFIX...]`.
        #[arg(long, value_name = "END")]
        a: Option<String>,
        /// What the other provider's end is expected to announce: `=PREFIX[,PREFIX...]`.
        #[arg(long, value_name = "END")]
        b: Option<String>,
        /// Show what would be done, and do nothing. Exits with 2 if there is something to do.
        #[arg(long)]
        dry_run: bool,
        /// Wait until it is up, at most this many seconds (600 if no number is given).
        #[arg(long, num_args = 0..=1, default_missing_value = "600", value_name = "SECONDS")]
        wait: Option<u64>,
    },
    /// Tell what an activation key says, without doing anything.
    Decode {
        #[command(flatten)]
        api: Api,
        /// The key; `-` reads standard input.
        key: String,
    },
    /// Show one, by id or name.
    Show {
        #[command(flatten)]
        api: Api,
        /// The id or the name.
        connection: String,
        /// Show it again whenever it changes, until it is gone.
        #[arg(long)]
        watch: bool,
    },
    /// Change one, by id or name.
    Update {
        #[command(flatten)]
        api: Api,
        /// The id or the name.
        connection: String,
        #[command(flatten)]
        change: ChangeArgs,
        /// Show what would be done, and do nothing. Exits with 2 if there is something to do.
        #[arg(long)]
        dry_run: bool,
        /// Wait until the change is made, at most this many seconds (600 if no number is given).
        #[arg(long, num_args = 0..=1, default_missing_value = "600", value_name = "SECONDS")]
        wait: Option<u64>,
    },
    /// Move one that is shared with another provider to another interconnect, by id or name.
    Migrate {
        #[command(flatten)]
        api: Api,
        /// The id or the name.
        connection: String,
        /// To this interconnect of its environment; without it, where there is most room.
        #[arg(long, value_name = "INTERCONNECT")]
        to: Option<InterconnectId>,
        /// Show what would be done, and do nothing.
        #[arg(long)]
        dry_run: bool,
        /// Wait until it has moved, at most this many seconds (600 if no number is given).
        #[arg(long, num_args = 0..=1, default_missing_value = "600", value_name = "SECONDS")]
        wait: Option<u64>,
    },
    /// Delete one, by id or name.
    Delete {
        #[command(flatten)]
        api: Api,
        /// The id or the name.
        connection: String,
        /// Wait until it is gone, at most this many seconds (600 if no number is given).
        #[arg(long, num_args = 0..=1, default_missing_value = "600", value_name = "SECONDS")]
        wait: Option<u64>,
    },
}

/// What to change. What is not named stays as it is.
#[derive(Debug, Args)]
#[group(required = true, multiple = true)]
pub(crate) struct ChangeArgs {
    /// Another name.
    #[arg(long)]
    pub name: Option<String>,
    /// Another bandwidth: `1Gbps`, `500Mbps`, or a number of Mbit/s.
    #[arg(long)]
    pub bandwidth: Option<String>,
    /// Another description.
    #[arg(long)]
    pub description: Option<String>,
    /// Whether deletion is refused.
    #[arg(long, value_name = "BOOL")]
    pub deletion_protection: Option<bool>,
    /// Any field, as an RFC 7396 merge patch: `{"wanted":{"vlanId":77}}`.
    #[arg(long, value_name = "JSON")]
    pub patch: Option<String>,
}

/// Flags of `tieline gateways`.
#[derive(Debug, Subcommand)]
pub(crate) enum Gateways {
    /// List them.
    List {
        #[command(flatten)]
        api: Api,
    },
}

/// Flags of `tieline issues`.
#[derive(Debug, Subcommand)]
pub(crate) enum Issues {
    /// List the open ones.
    List {
        #[command(flatten)]
        api: Api,
        /// The resolved ones too.
        #[arg(long)]
        all: bool,
    },
}

/// Flags of `tieline events`.
#[derive(Debug, Args)]
pub(crate) struct Events {
    #[command(flatten)]
    pub api: Api,
    /// Only events after this cursor. Without it: all that are kept, or with `--follow` those from now on.
    #[arg(long, value_name = "CURSOR")]
    pub since: Option<String>,
    /// Go on with events as they happen.
    #[arg(long, short = 'f')]
    pub follow: bool,
}

/// Flags of `tieline tokens`.
#[derive(Debug, Subcommand)]
pub(crate) enum Tokens {
    /// List them, without their secrets.
    List {
        #[command(flatten)]
        api: Api,
    },
    /// Create one. Its secret alone goes to standard output, this once.
    Create {
        #[command(flatten)]
        api: Api,
        /// Its name.
        name: String,
        /// What it may do.
        #[arg(long, value_enum)]
        scope: ScopeArg,
        /// Seconds until it ends; without it, it has no end.
        #[arg(long, value_name = "SECONDS")]
        expires_in_seconds: Option<u64>,
    },
    /// End one at once, by id or name.
    Revoke {
        #[command(flatten)]
        api: Api,
        /// The id or the name.
        #[arg(value_name = "ID_OR_NAME")]
        which: String,
    },
}

/// What a token may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ScopeArg {
    /// Read everything in its project.
    Read,
    /// And create, change and delete connections.
    Operate,
    /// And issue tokens and join gateways.
    Admin,
}

/// What to connect: flags, or a file with the body of `POST /v1/connections`.
#[derive(Debug, Args)]
pub(crate) struct Intent {
    /// JSON file with the whole intent; `-` reads standard input.
    #[arg(long, short = 'f', value_name = "FILE", conflicts_with_all = ["name", "environment", "bandwidth", "a", "b", "remote_account"])]
    pub file: Option<PathBuf>,
    /// Its name.
    #[arg(long, required_unless_present = "file")]
    pub name: Option<String>,
    /// The pair of sites: see `GET /v1/environments`.
    #[arg(long, required_unless_present = "file")]
    pub environment: Option<String>,
    /// Bandwidth: `1Gbps`, `500Mbps`, or a number of Mbit/s.
    #[arg(long, required_unless_present = "file")]
    pub bandwidth: Option<String>,
    /// End a: an attach point and what it announces, as `ATTACH_POINT=PREFIX[,PREFIX...]`.
    #[arg(long, required_unless_present_any = ["file", "remote_account"])]
    pub a: Option<String>,
    /// End b, in the same form; with `--remote-account` what the other provider is expected to announce, as `=PREFIX[,PREFIX...]`.
    #[arg(long, required_unless_present_any = ["file", "remote_account"])]
    pub b: Option<String>,
    /// Over an environment that is shared with another provider: your account there.
    #[arg(long, value_name = "ACCOUNT")]
    pub remote_account: Option<String>,
    /// How many channels.
    #[arg(long, value_enum, default_value = "dual")]
    pub redundancy: RedundancyArg,
    /// Do without the WireGuard path.
    #[arg(long)]
    pub no_tunnel: bool,
}

/// How many channels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum RedundancyArg {
    /// One.
    Single,
    /// Two, each with the whole bandwidth.
    Dual,
    /// Four, each with half of it.
    Quad,
}

/// Flags of `tieline plan`.
#[derive(Debug, Args)]
pub(crate) struct Plan {
    #[command(flatten)]
    pub api: Api,
    #[command(flatten)]
    pub intent: Intent,
}

/// Flags of `tieline show`.
#[derive(Debug, Subcommand)]
pub(crate) enum Show {
    /// BGP and BFD of every channel, as both clouds report them.
    Bgp(ShowOne),
    /// The ways between the gateways: state, delay, loss, and which one carries traffic.
    Paths(ShowOne),
    /// Which rule chose each value.
    Why(ShowOne),
}

/// One connection to look at.
#[derive(Debug, Args)]
pub(crate) struct ShowOne {
    #[command(flatten)]
    pub api: Api,
    /// The id or the name.
    pub connection: String,
}
