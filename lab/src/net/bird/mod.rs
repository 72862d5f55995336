//! BIRD 2: one daemon a router, and its configuration. How it is spoken with stands in `tieline_providers::network::bird`.

mod config;

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tieline_providers::network::bird::{Control, ControlError};
use tieline_providers::network::file;
use tokio::process::{Child, Command};

use super::namespace::Namespace;
use super::priority::prefer_this_thread;

pub use config::{Rejected, RouterConfig, check, render};

/// How long a new daemon may take until it answers.
const START: Duration = Duration::from_secs(20);

/// What can go wrong with the daemon.
#[derive(Debug, thiserror::Error)]
pub enum BirdError {
    /// The program cannot be started.
    #[error("cannot start `bird`; install BIRD 2 (on Debian and Ubuntu: apt-get install bird2)")]
    Start(#[source] io::Error),
    /// It ended by itself.
    #[error("bird ended with {status}; its log is {}", log.display())]
    Ended {
        /// Its exit status.
        status: std::process::ExitStatus,
        /// Its log.
        log: PathBuf,
    },
    /// It does not answer, or refuses.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// A file could not be written.
    #[error("cannot write {}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Where the daemon's program is. Ordinary users seldom search the directories of administrators' programs.
#[must_use]
pub fn program() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let more = ["/usr/sbin", "/usr/local/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(more).map(|dir| dir.join("bird")).find(|file| file.is_file())
}

/// A running daemon in one namespace. It is killed when this goes.
#[derive(Debug)]
pub struct Bird {
    child: Child,
    directory: PathBuf,
}

impl Bird {
    /// Starts a daemon in the namespace with its files below `directory`, and waits until it answers.
    ///
    /// # Errors
    /// [`BirdError`] where it cannot be started or ends at once.
    pub async fn start(namespace: &Namespace, directory: &Path, configuration: &str) -> Result<Self, BirdError> {
        let failed = |source| BirdError::File { path: directory.to_owned(), source };
        std::fs::create_dir_all(directory).map_err(failed)?;
        write(&directory.join("bird.conf"), configuration)?;
        let log = directory.join("bird.log");
        let output = std::fs::File::create(&log).map_err(failed)?;
        let program = program().ok_or_else(|| BirdError::Start(io::ErrorKind::NotFound.into()))?;
        let mut command = namespace.command(program);
        command
            .args(["-f", "-c", "bird.conf", "-s", "bird.ctl"])
            .current_dir(directory)
            .env("TZ", "UTC")
            .stdin(std::process::Stdio::null())
            .stdout(output.try_clone().map_err(failed)?)
            .stderr(output);
        let prefer = || {
            prefer_this_thread();
            Ok(())
        };
        // SAFETY: between fork and exec only two async-signal-safe system calls are made.
        unsafe { std::os::unix::process::CommandExt::pre_exec(&mut command, prefer) };
        let child = Command::from(command).kill_on_drop(true).spawn().map_err(BirdError::Start)?;
        let mut bird = Self { child, directory: directory.to_owned() };
        bird.wait_until_it_answers().await?;
        Ok(bird)
    }

    async fn wait_until_it_answers(&mut self) -> Result<(), BirdError> {
        let mut pause = tokio::time::interval(Duration::from_millis(5));
        let answered = tokio::time::timeout(START, async {
            loop {
                pause.tick().await;
                if let Some(status) = self.child.try_wait().map_err(BirdError::Start)? {
                    return Err(BirdError::Ended { status, log: self.directory.join("bird.log") });
                }
                match self.open().await {
                    Ok(_) => return Ok(()),
                    Err(error) => tracing::trace!(%error, "bird is not there yet"),
                }
            }
        });
        answered.await.unwrap_or_else(|_| Err(ControlError::Silent(io::ErrorKind::TimedOut.into()).into()))
    }

    /// Opens a connection to the daemon.
    ///
    /// # Errors
    /// Where it does not answer.
    pub async fn open(&self) -> Result<Control, ControlError> {
        Control::connect(&self.directory.join("bird.ctl")).await
    }

    /// Replaces the configuration. Sessions whose part of it is unchanged are not disturbed.
    ///
    /// # Errors
    /// [`ControlError::Refused`] where the daemon does not accept it; it then goes on with the old one.
    pub async fn reconfigure(&self, configuration: &str) -> Result<(), BirdError> {
        write(&self.directory.join("bird.conf"), configuration)?;
        Ok(self.open().await?.ask("configure").await.map(drop)?)
    }
}

fn write(path: &Path, text: &str) -> Result<(), BirdError> {
    file::replace(path, text.as_bytes()).map_err(|source| BirdError::File { path: path.to_owned(), source })
}
