//! BIRD 2: one daemon a router, its configuration, its control socket and its answers.

mod config;
mod control;
mod parse;

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::process::{Child, Command};

use super::namespace::Namespace;
use super::priority::prefer_this_thread;

pub use config::{Rejected, RouterConfig, check, render};
pub use control::{Control, Reply};
pub use parse::{BfdLine, Protocol, Route, parse_bfd, parse_protocols, parse_routes};

/// How long a new daemon may take until it answers.
const START: Duration = Duration::from_secs(20);
/// How long the daemon may take for one answer.
const ANSWER: Duration = Duration::from_secs(15);

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
    /// It was started and does not answer on its socket.
    #[error("bird does not answer on its control socket")]
    Silent(#[source] io::Error),
    /// It took too long.
    #[error("bird did not answer {command:?} within {} s", ANSWER.as_secs())]
    Slow {
        /// The command.
        command: String,
    },
    /// Its connection failed, or spoke another protocol.
    #[error("the control connection failed at {command:?}")]
    Control {
        /// The command.
        command: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It refused a command.
    #[error("bird refused {command:?}: {code} {text}")]
    Refused {
        /// The command.
        command: String,
        /// The four-digit code: 8xxx while running, 9xxx while parsing.
        code: u16,
        /// Its words.
        text: String,
    },
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
    /// Keeps the directory open: sockets are reached through the descriptor, since their own paths may be too long.
    opened: OwnedFd,
}

impl Bird {
    /// Starts a daemon in the namespace with its files below `directory`, and waits until it answers.
    ///
    /// # Errors
    /// [`BirdError`] where it cannot be started or ends at once.
    pub async fn start(namespace: &Namespace, directory: &Path, configuration: &str) -> Result<Self, BirdError> {
        let file = |source| BirdError::File { path: directory.to_owned(), source };
        std::fs::create_dir_all(directory).map_err(file)?;
        let opened: OwnedFd = std::fs::File::open(directory).map_err(file)?.into();
        write_secret(&directory.join("bird.conf"), configuration)?;
        let log = directory.join("bird.log");
        let output = std::fs::File::create(&log).map_err(file)?;
        let program = program().ok_or_else(|| BirdError::Start(io::ErrorKind::NotFound.into()))?;
        let mut command = namespace.command(program);
        command
            .args(["-f", "-c", "bird.conf", "-s", "bird.ctl"])
            .current_dir(directory)
            .env("TZ", "UTC")
            .stdin(std::process::Stdio::null())
            .stdout(output.try_clone().map_err(file)?)
            .stderr(output);
        let prefer = || {
            prefer_this_thread();
            Ok(())
        };
        // SAFETY: between fork and exec only two async-signal-safe system calls are made.
        unsafe { std::os::unix::process::CommandExt::pre_exec(&mut command, prefer) };
        let child = Command::from(command).kill_on_drop(true).spawn().map_err(BirdError::Start)?;
        let mut bird = Self { child, directory: directory.to_owned(), opened };
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
                match self.connect().await {
                    Ok(_) => return Ok(()),
                    Err(error) => tracing::trace!(%error, "bird is not there yet"),
                }
            }
        });
        answered.await.unwrap_or_else(|_| Err(BirdError::Silent(io::ErrorKind::TimedOut.into())))
    }

    async fn connect(&self) -> Result<Control, BirdError> {
        let path = format!("/proc/self/fd/{}/bird.ctl", self.opened.as_raw_fd());
        Control::connect(Path::new(&path)).await
    }

    /// Opens a connection to the daemon.
    ///
    /// # Errors
    /// Where it does not answer.
    pub async fn open(&self) -> Result<Asking, BirdError> {
        within("connect", self.connect()).await.map(Asking)
    }

    /// Replaces the configuration. Sessions whose part of it is unchanged are not disturbed.
    ///
    /// # Errors
    /// [`BirdError::Refused`] where the daemon does not accept it; it then goes on with the old one.
    pub async fn reconfigure(&self, configuration: &str) -> Result<(), BirdError> {
        write_secret(&self.directory.join("bird.conf"), configuration)?;
        self.open().await?.ask("configure").await.map(drop)
    }
}

/// A connection to the daemon, each answer of which is waited for within bounds.
#[derive(Debug)]
pub struct Asking(Control);

impl Asking {
    /// Asks one command.
    ///
    /// # Errors
    /// [`BirdError::Refused`] in the daemon's words, or what failed on the way.
    pub async fn ask(&mut self, command: &str) -> Result<Reply, BirdError> {
        within(command, self.0.ask(command)).await
    }
}

async fn within<T>(command: &str, answer: impl Future<Output = Result<T, BirdError>>) -> Result<T, BirdError> {
    let late = || BirdError::Slow { command: command.to_owned() };
    tokio::time::timeout(ANSWER, answer).await.unwrap_or_else(|_| Err(late()))
}

/// Writes a file that only its owner may read, whole or not at all.
fn write_secret(path: &Path, text: &str) -> Result<(), BirdError> {
    let new = path.with_extension("new");
    let written = (|| {
        let mut options = std::fs::File::options();
        let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        io::Write::write_all(&mut file, text.as_bytes())?;
        std::fs::rename(&new, path)
    })();
    written.map_err(|source| BirdError::File { path: path.to_owned(), source })
}
