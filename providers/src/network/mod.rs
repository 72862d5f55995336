//! The operator's own routers: BIRD on this machine, or whatever a program of the operator's knows.
//!
//! A [`Device`] holds sessions by name. Names are ours alone and are told apart by whose they are ([`Owner`]), so each call
//! may be repeated, and a list shows everything that is ours and nothing else. What is configured is compared by a
//! fingerprint; a password is written and never read back.

pub mod bird;
mod command;
pub mod file;
mod program;
mod session;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, io, path::PathBuf, sync::Arc};

use async_trait::async_trait;
use tieline_openapi::config::{RouterConfig, RouterDriver};

pub use command::Command;
pub use program::Program;
pub use session::{Listed, Owner, Session, SessionName};

/// Why a router did not do what it was asked. No text of it holds a password.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// The operator's program cannot be started.
    #[error("cannot start {program}: check its path and that it may be executed")]
    Start {
        /// The program.
        program: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It could not be given its request, or its answer not be read.
    #[error("cannot speak with {program}")]
    Pipe {
        /// The program.
        program: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It took too long and was killed.
    #[error("{program} did not answer within {ms} ms: give it more with `timeoutMs`, or see what it waits for")]
    Slow {
        /// The program.
        program: String,
        /// What it had, in milliseconds.
        ms: u64,
    },
    /// It ended with a failure.
    #[error("{program} ended with {status}")]
    Ended {
        /// The program.
        program: String,
        /// Its exit status.
        status: std::process::ExitStatus,
    },
    /// It answered more than is read.
    #[error("{program} answered more than {most} bytes")]
    TooLong {
        /// The program.
        program: String,
        /// What is read at most.
        most: u64,
    },
    /// Its answer is not what its request asks for.
    #[error("{program} did not answer as documented")]
    Malformed {
        /// The program.
        program: String,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// It said that it cannot.
    #[error("{program} refused: {message}")]
    Refused {
        /// The program.
        program: String,
        /// Its words, cut short.
        message: String,
    },
    /// BIRD did not do it.
    #[error(transparent)]
    Bird(#[from] bird::ControlError),
    /// A file could not be written or read.
    #[error("cannot use {}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The router cannot express the session.
    #[error("session {name}: {rule}")]
    Invalid {
        /// The session.
        name: SessionName,
        /// The rule that it breaks.
        rule: String,
    },
}

/// A router that holds sessions by name.
#[async_trait]
pub trait Device: std::fmt::Debug + Send + Sync {
    /// The sessions of one owner, with their state.
    ///
    /// # Errors
    /// [`DeviceError`]; then nothing is known.
    async fn list(&self, owner: &Owner) -> Result<BTreeMap<SessionName, Listed>, DeviceError>;

    /// Makes a session, or makes it what is wanted. Others are not disturbed. May be repeated.
    ///
    /// # Errors
    /// [`DeviceError`]; then the session is as it was, or half made, which [`Device::list`] shows.
    async fn put(&self, session: &Session) -> Result<(), DeviceError>;

    /// Takes a session away, and what was made for it. One that is not there is no error. May be repeated.
    ///
    /// # Errors
    /// [`DeviceError`]; then it is there, or half gone, which [`Device::list`] shows.
    async fn delete(&self, name: &SessionName) -> Result<(), DeviceError>;
}

/// The device of a checked configuration. Nothing is called yet.
#[must_use]
pub fn device(config: &RouterConfig) -> Arc<dyn Device> {
    let id = config.id.clone();
    match &config.driver {
        RouterDriver::Bird(bird) => Arc::new(bird::Bird::new(id, bird)),
        RouterDriver::Command(command) => Arc::new(Command::new(Program::new(id, command))),
    }
}
