//! The room that a lab lives in: one pid and mount namespace (and user namespace, without root) of its own.
//!
//! [`spawn`] starts the caller's own program again as process 1 of the new namespaces, which calls [`run_inside`].
//! Everything of the lab hangs on that process: when it ends, however it ends, the kernel ends every process inside,
//! and with them go the mounts, the network namespaces, the links and the TAPs. It stays in the network namespace of
//! whoever started it, so that its servers are reached on 127.0.0.1.
//!
//! [`command`] runs something inside, [`down`] ends it, [`control::Client`] talks to it, [`preflight`] says what this
//! machine lacks.

pub mod control;
mod enter;
mod inside;
mod preflight;
mod record;
mod spawn;

use std::io;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::net::{NetError, NetSpec};

pub use enter::{Place, command, exec, kill_command};
pub use inside::{Inside, run_inside};
pub use preflight::{Missing, preflight};
pub use record::is_up;
pub use spawn::{Cell, SpawnOptions, down, spawn};

/// What a lab is made of.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LabSpec {
    /// The network.
    pub network: NetSpec,
    /// Parameters of what runs beside the network; the cell only carries them to [`Inside::parameters`].
    #[serde(default)]
    pub parameters: serde_json::Value,
}

/// What can go wrong around a cell.
#[derive(Debug, thiserror::Error)]
pub enum CellError {
    /// The directory holds a running lab.
    #[error("a lab is already up in {}; end it with `tieline lab down`, or take another directory", dir.display())]
    AlreadyUp {
        /// The lab's directory.
        dir: PathBuf,
    },
    /// The directory holds no running lab.
    #[error("no lab is up in {}; start one with `tieline lab up`", dir.display())]
    NotUp {
        /// The lab's directory.
        dir: PathBuf,
    },
    /// A file of the lab failed.
    #[error("cannot {operation} {}", path.display())]
    File {
        /// The step.
        operation: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file of the lab does not hold what it should.
    #[error("{} is damaged", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// A step of the kernel failed.
    #[error("cannot {operation}")]
    Kernel {
        /// The step.
        operation: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The lab ended before it was up.
    #[error("the lab did not come up: {reason} (its log is {})", log.display())]
    Failed {
        /// Its own words.
        reason: String,
        /// Its log.
        log: PathBuf,
    },
    /// The process is not the first of a cell.
    #[error("this command only runs inside a lab; use `tieline lab up`")]
    NotInside,
    /// The lab has no such host.
    #[error("the lab has no host {host:?}; it has {known}")]
    UnknownHost {
        /// The host that was named.
        host: String,
        /// The hosts there are.
        known: String,
    },
    /// The network could not be built.
    #[error("the lab's network failed")]
    Network(#[from] NetError),
    /// The lab's control socket failed.
    #[error("the lab does not answer on its control socket")]
    Control(#[source] reqwest::Error),
    /// The lab refused a request.
    #[error("the lab refused: {0}")]
    Refused(String),
}

/// An error with all its causes, in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
